//! Any server takes any request: one that does not lead passes on what only the leader can answer.
//!
//! A read is answered here if the caller says `consistency=stale`; the answer says so, and how far this server is. With `min_index` the
//! answer waits until this server has applied that entry, so that a caller finds its own write everywhere.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Uri};
use rota_api::ErrorCode;
use rota_types::LogIndex;

use super::App;
use super::guard::ROTA_INDEX;
use super::problem::{Answer, refuse};
use crate::auth::Connection;
use crate::handle::{CONSISTENCY, Consistency, Core, Standing};

/// How long a request waits for a leader.
const LEADER_WAIT: Duration = Duration::from_secs(3);
/// How long a request waits for the entry that it wants to see.
const INDEX_WAIT: Duration = Duration::from_secs(10);
/// How long an answer about tokens waits until this server knows of the change, too.
const FOLLOW_WAIT: Duration = Duration::from_secs(2);
/// What changes tokens.
const TOKEN_PATHS: [&str; 3] = ["/v1/tokens", "/v1/login", "/v1/logout"];
/// Names the server that passed a request on: it is passed on once at most.
const FORWARDED_BY: HeaderName = HeaderName::from_static("x-rota-forwarded-by");
/// Where a request came from that another server passed on. Only a server's word counts.
pub(super) const SOURCE: HeaderName = HeaderName::from_static("x-rota-source");
/// Says that an answer may miss what this server has not heard of.
const CONSISTENCY_HEADER: HeaderName = HeaderName::from_static("x-rota-consistency");

/// Headers that are about one connection and not about the request (RFC 9110, section 7.6.1), and those that only the first server
/// can judge.
const HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::HOST,
    header::ORIGIN,
    HeaderName::from_static("sec-fetch-site"),
];

/// What the caller said about the age of what it is told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    consistency: Consistency,
    min_index: Option<LogIndex>,
}

/// Answers a request here or where it can be answered.
pub(super) async fn dispatch(anywhere: bool, mut request: Request, next: Next) -> Response {
    let Some(app) = request.extensions().get::<App>().cloned() else {
        return refuse(ErrorCode::Internal, "a request came past the guard").into_response();
    };
    let wanted = match take_wanted(request.method(), request.uri()) {
        Ok((wanted, uri)) => {
            *request.uri_mut() = uri;
            wanted
        }
        Err(refused) => return refused.into_response(),
    };
    if let Some(index) = wanted.min_index
        && tokio::time::timeout(INDEX_WAIT, app.core.wait_applied(index)).await.is_err()
    {
        let applied = app.core.applied();
        let detail = format!("this server has applied entry {applied}, not yet {index}");
        return refuse(ErrorCode::IndexNotReached, detail)
            .retry_after(Core::RETRY_AFTER)
            .into_response();
    }
    if wanted.consistency == Consistency::Stale {
        let mut response = CONSISTENCY.scope(Consistency::Stale, next.run(request)).await;
        response.headers_mut().insert(CONSISTENCY_HEADER, HeaderValue::from_static("stale"));
        return response;
    }
    if anywhere {
        return next.run(request).await;
    }
    match leader(&app, request.headers()).await {
        Ok(None) => next.run(request).await,
        Ok(Some(address)) => {
            let is_about_tokens =
                TOKEN_PATHS.iter().any(|path| request.uri().path().starts_with(path));
            match pass_on(&app, &address, request).await {
                Ok(response) => {
                    if is_about_tokens {
                        follow(&app, response.headers().get(ROTA_INDEX)).await;
                    }
                    response
                }
                Err(refused) => refused.into_response(),
            }
        }
        Err(refused) => refused.into_response(),
    }
}

/// Waits until this server knows what the leader knew when it gave this answer: whoever gets a token or a session uses it here next.
async fn follow(app: &App, index: Option<&HeaderValue>) {
    let index = index.and_then(|index| index.to_str().ok());
    if let Some(index) = index.and_then(|index| index.parse().ok()) {
        let applied = app.core.wait_applied(LogIndex(index));
        drop(tokio::time::timeout(FOLLOW_WAIT, applied).await);
    }
}

/// Takes what is for this layer out of the query.
fn take_wanted(method: &Method, uri: &Uri) -> Answer<(Wanted, Uri)> {
    let mut wanted = Wanted::default();
    let Some(query) = uri.query() else { return Ok((wanted, uri.clone())) };
    let mut rest = Vec::new();
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("consistency", value)) if method == Method::GET => {
                wanted.consistency = match value {
                    "stale" => Consistency::Stale,
                    "linearizable" => Consistency::Linearizable,
                    _ => return Err(invalid("consistency is `linearizable` or `stale`")),
                };
            }
            Some(("min_index", value)) if method == Method::GET => {
                let index = value.parse().map_err(|_| invalid("min_index is a log index"))?;
                wanted.min_index = Some(LogIndex(index));
            }
            _ => rest.push(pair),
        }
    }
    let target = match rest.as_slice() {
        [] => uri.path().to_owned(),
        rest => format!("{}?{}", uri.path(), rest.join("&")),
    };
    let target: PathAndQuery = target.parse().map_err(|_| invalid("the query can't be read"))?;
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target);
    let uri = Uri::from_parts(parts).map_err(|_| invalid("the query can't be read"))?;
    Ok((wanted, uri))
}

fn invalid(detail: &str) -> super::problem::Refused {
    refuse(ErrorCode::InvalidParameter, detail)
}

/// Where the leader is; `None` if it is this server. Waits for one for a while.
async fn leader(app: &App, headers: &HeaderMap) -> Answer<Option<String>> {
    let mut standing = app.core.standing();
    let found =
        tokio::time::timeout(LEADER_WAIT, standing.wait_for(Standing::leader_is_known)).await;
    let found = match found {
        Ok(Ok(standing)) => Standing::clone(&standing),
        Ok(Err(_)) | Err(_) => {
            let detail = "no server leads at the moment: fewer than a majority can reach each other, or an election is under way";
            return Err(refuse(ErrorCode::NoLeader, detail).retry_after(Core::RETRY_AFTER));
        }
    };
    if found.leads {
        return Ok(None);
    }
    if headers.contains_key(FORWARDED_BY) {
        let detail =
            "the server that passed this on thinks that this one leads, which it no longer does";
        return Err(refuse(ErrorCode::NoLeader, detail).retry_after(Core::RETRY_AFTER));
    }
    Ok(found.leader.map(|(_, address)| address.to_string()))
}

/// Has the leader answer.
async fn pass_on(app: &App, address: &str, request: Request) -> Answer<Response> {
    let (parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let url = format!("{address}{target}");
    let mut headers = parts.headers;
    HOP.iter().for_each(|name| drop(headers.remove(name)));
    headers.insert(FORWARDED_BY, HeaderValue::from(app.identity.server.0));
    headers.remove(&SOURCE);
    let from = parts.extensions.get::<Connection>().map(|connection| connection.from.ip());
    if let Some(Ok(from)) = from.map(|from| HeaderValue::from_str(&from.to_string())) {
        headers.insert(SOURCE, from);
    }
    // What may be there twice without harm: everything that changes nothing, or carries its own key.
    let harmless = parts.method.is_safe() || headers.contains_key("idempotency-key");
    let sent = app
        .forwarder
        .request(parts.method, url)
        .headers(headers)
        .body(reqwest::Body::wrap_stream(body.into_data_stream()))
        .send()
        .await;
    let answer = sent.map_err(|error| {
        let nothing_done = harmless || error.is_connect();
        let code = if nothing_done { ErrorCode::NoLeader } else { ErrorCode::OutcomeUnknown };
        refuse(code, format!("the leader at {address} did not answer: {}", error.without_url()))
            .retry_after(Core::RETRY_AFTER)
    })?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    HOP.iter().for_each(|name| drop(response.headers_mut().remove(name)));
    *response.body_mut() = Body::from_stream(answer.bytes_stream());
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(method: Method, uri: &str) -> Option<(Wanted, String)> {
        let uri: Uri = uri.parse().unwrap();
        let (wanted, uri) = take_wanted(&method, &uri).ok()?;
        Some((wanted, uri.to_string()))
    }

    #[test]
    fn what_is_said_about_age_is_taken_out_of_the_query_and_nothing_else() {
        let stale = |min_index: Option<u64>| Wanted {
            consistency: Consistency::Stale,
            min_index: min_index.map(LogIndex),
        };
        for (uri, wanted, rest) in [
            ("/v1/jobs", Wanted::default(), "/v1/jobs"),
            ("/v1/jobs?consistency=stale", stale(None), "/v1/jobs"),
            (
                "/v1/jobs?a=1&consistency=stale&b=%20&min_index=7",
                stale(Some(7)),
                "/v1/jobs?a=1&b=%20",
            ),
            ("/v1/jobs?consistency=linearizable&x", Wanted::default(), "/v1/jobs?x"),
        ] {
            assert_eq!(take(Method::GET, uri), Some((wanted, rest.to_owned())), "{uri}");
        }
        for wrong in ["/?consistency=any", "/?min_index=-1", "/?min_index=", "/?min_index=x"] {
            assert_eq!(take(Method::GET, wrong), None, "{wrong}");
        }
        let post = "/v1/jobs?consistency=stale";
        assert_eq!(take(Method::POST, post), Some((Wanted::default(), post.to_owned())));
    }
}
