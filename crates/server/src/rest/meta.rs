//! What the server says about itself: health, version, documentation, error codes.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use rota_api::{ErrorCode, Health, Problem, Version};

use super::App;
use super::docs;
use super::extract::PathPart;
use super::problem::{Answer, refuse};

/// Whether the process runs.
#[utoipa::path(get, path = "/healthz", tag = "server", operation_id = "health", responses(
    (status = 200, description = "It does.", body = String, content_type = "text/plain"),
))]
pub(super) async fn health() -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))], "ok\n")
        .into_response()
}

/// Whether the server takes work, by itself or through the server that leads.
#[utoipa::path(get, path = "/readyz", tag = "server", operation_id = "ready", responses(
    (status = 200, description = "It does.", body = Health),
    (status = 503, description = "It does not.", body = Health),
))]
pub(super) async fn ready(State(app): State<App>) -> Response {
    let index = app.core.applied().0;
    let connected = app.core.peek(|view| view.sessions.len() as u64).await;
    let (status, text, nodes_connected) = match (connected, app.space.check()) {
        (Ok(nodes), Ok(())) if app.core.standing().borrow().leader_is_known() => {
            (StatusCode::OK, "ok".to_owned(), nodes)
        }
        (Ok(nodes), Ok(())) => {
            (StatusCode::SERVICE_UNAVAILABLE, "no server leads at the moment".to_owned(), nodes)
        }
        (Ok(nodes), Err(refused)) => {
            (StatusCode::SERVICE_UNAVAILABLE, refused.problem().detail.clone(), nodes)
        }
        (Err(error), _) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string(), 0),
    };
    (status, Json(Health { status: text, index, nodes_connected })).into_response()
}

/// The server's version.
#[utoipa::path(get, path = "/v1/version", tag = "server", operation_id = "version", responses(
    (status = 200, description = "The version.", body = Version),
))]
pub(super) async fn version() -> Json<Version> {
    Json(Version { version: env!("CARGO_PKG_VERSION").to_owned(), api: "v1".to_owned() })
}

/// The server's version.
#[utoipa::path(get, path = "/version", tag = "server", operation_id = "versionShort", responses(
    (status = 200, description = "The version.", body = Version),
))]
pub(super) async fn version_short() -> Json<Version> {
    version().await
}

/// This description, as OpenAPI 3.1.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "server", operation_id = "openapi", responses(
    (status = 200, description = "The description.", body = Object),
))]
pub(super) async fn openapi(State(app): State<App>) -> Response {
    let kind = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (kind, app.openapi.to_string()).into_response()
}

/// This description, as OpenAPI 3.1.
#[utoipa::path(get, path = "/openapi.json", tag = "server", operation_id = "openapiShort", responses(
    (status = 200, description = "The description.", body = Object),
))]
pub(super) async fn openapi_short(State(app): State<App>) -> Response {
    openapi(State(app)).await
}

/// This description, for people.
#[utoipa::path(get, path = "/docs", tag = "server", operation_id = "docs", responses(
    (status = 200, description = "The page.", body = String, content_type = "text/html"),
))]
pub(super) async fn docs(State(app): State<App>) -> Response {
    page(app.docs.to_string())
}

/// Explains an error code.
#[utoipa::path(get, path = "/problems/{code}", tag = "server", operation_id = "explainProblem",
    params(("code" = String, Path, description = "The code.", example = "invalid-job")), responses(
    (status = 200, description = "The explanation, in Markdown or, for browsers, HTML.", body = String, content_type = "text/markdown"),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn explain_problem(
    PathPart(code): PathPart<String>,
    headers: HeaderMap,
) -> Answer<Response> {
    let code: ErrorCode = code.parse().map_err(|error: rota_api::UnknownCode| {
        refuse(ErrorCode::UnknownRoute, error.to_string())
    })?;
    let wants_html = headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"));
    if wants_html {
        return Ok(page(docs::render_code(code)));
    }
    let status = code.status().map_or_else(String::new, |status| format!("HTTP status {status}. "));
    let text = format!(
        "# {code}\n\n{}\n\n{status}Exit code {}.\n\n{}\n\nWhat to do: {}\n",
        code.title(),
        code.exit_code(),
        code.explanation(),
        code.hint()
    );
    let kind = [(CONTENT_TYPE, HeaderValue::from_static("text/markdown; charset=utf-8"))];
    Ok((kind, text).into_response())
}

/// A page without scripts that may load nothing from anywhere.
fn page(html: String) -> Response {
    let headers = [
        ("content-type", HeaderValue::from_static("text/html; charset=utf-8")),
        (
            "content-security-policy",
            HeaderValue::from_static(
                "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
            ),
        ),
        ("referrer-policy", HeaderValue::from_static("no-referrer")),
    ];
    (headers, html).into_response()
}
