//! Logging in with a browser: a token makes a session, which the browser keeps in a cookie and which goes with the token.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue, SET_COOKIE};
use rota_api::{ErrorCode, Moment, Problem, Whoami};
use rota_core::token::{TokenCommand, TokenSpec};
use rota_identity::{ApiToken, IdentityError};
use rota_types::{Span, Timestamp};

use super::App;
use super::problem::{Answer, internal, refuse};
use super::tokens::{change, secured};
use crate::auth::{Caller, Holder, role_of};
use crate::{clock, cookie};

/// How long a session lasts at most: a working day.
const SESSION_LASTS: Span = Span::from_secs(12 * 3_600);

/// Begins the session of a browser: `Authorization` holds a token; the answer sets a cookie, which is good for pages of this server only.
#[utoipa::path(post, path = "/v1/login", tag = "tokens", operation_id = "login", responses(
    (status = 200, description = "Who has logged in, and until when.", body = Whoami),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn login(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
) -> Answer<Response> {
    secured(&app)?;
    let Caller::Holder(Holder { token, .. }) = caller else {
        return Err(refuse(ErrorCode::Forbidden, "logging in takes a token"));
    };
    let drawn = ApiToken::generate();
    let session = drawn.map_err(|error: IdentityError| internal("drawing a session", error))?;
    let now = clock::wall();
    let latest = now.plus(SESSION_LASTS);
    let end = token.spec.expires_at.map_or(latest, |end: Timestamp| end.min(latest));
    let spec = TokenSpec {
        id: session.id().into(),
        hash: session.hash().0,
        grant: token.spec.grant,
        name: token.spec.name.clone(),
        expires_at: Some(end),
        created_by: "login".into(),
        session_of: Some(token.spec.id),
    };
    let (name, role) = (spec.name.to_string(), role_of(spec.grant).name().to_owned());
    change(&app, TokenCommand::Add(spec)).await?;
    let who = Whoami { name, role, expires_at: Some(Moment(end)) };
    let cookie = cookie::set(&session.reveal(), end.since(now));
    Ok(with_cookie(Json(who).into_response(), cookie))
}

/// Ends the session of a browser, on every server.
#[utoipa::path(post, path = "/v1/logout", tag = "tokens", operation_id = "logout", responses(
    (status = 204, description = "It is of no use any more."),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn logout(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
) -> Answer<Response> {
    secured(&app)?;
    match caller {
        Caller::Holder(Holder { token, .. }) if token.spec.session_of.is_some() => {
            change(&app, TokenCommand::Revoke(token.spec.id)).await?;
            Ok(with_cookie(StatusCode::NO_CONTENT.into_response(), cookie::clear()))
        }
        _ => {
            let detail = "only the session of a browser is ended here; revoke a token instead";
            Err(refuse(ErrorCode::InvalidRequest, detail))
        }
    }
}

fn with_cookie(mut response: Response, cookie: Option<HeaderValue>) -> Response {
    if let Some(cookie) = cookie {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

/// The page on which a person logs in.
#[utoipa::path(get, path = "/login", tag = "server", operation_id = "loginPage", responses(
    (status = 200, description = "The page.", body = String, content_type = "text/html"),
))]
pub(super) async fn login_page() -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'; \
                  frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
    let headers = [
        ("content-type", HeaderValue::from_static("text/html; charset=utf-8")),
        ("content-security-policy", HeaderValue::from_static(policy)),
        ("referrer-policy", HeaderValue::from_static("no-referrer")),
        ("cache-control", HeaderValue::from_static("no-store")),
    ];
    (headers, include_str!("login/login.html")).into_response()
}

/// What that page does.
#[utoipa::path(get, path = "/login.js", tag = "server", operation_id = "loginScript", responses(
    (status = 200, description = "The script.", body = String, content_type = "text/javascript"),
))]
pub(super) async fn login_script() -> Response {
    let kind = HeaderValue::from_static("text/javascript; charset=utf-8");
    ([(CONTENT_TYPE, kind)], include_str!("login/login.js")).into_response()
}
