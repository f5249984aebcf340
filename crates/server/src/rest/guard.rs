//! What every request passes before it is routed: names, origins, header limits, a request id.
//!
//! A page in somebody's browser must not be able to speak to a server on this machine, neither by a name that it controls and
//! lets point here (`Host`), nor by a request across sites (`Origin`, `Sec-Fetch-Site`).

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use http::uri::Authority;

use super::App;
use super::problem::{Refused, refuse};
use super::submit::SUBMITTER;
use crate::auth::{Caller, Connection};
use crate::cookie::SEC_FETCH_SITE;
use crate::listen::{HEADER_BYTES_MAX, HEADERS_MAX};
use rota_api::ErrorCode;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The log index that the answer has seen.
pub(crate) const ROTA_INDEX: HeaderName = HeaderName::from_static("x-rota-index");

/// Names one request in answers and in the log of the process.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) String);

/// Numbers requests; the prefix differs from process to process.
pub(crate) struct RequestIds {
    prefix: u32,
    next: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new(prefix: u32) -> Self {
        Self { prefix, next: AtomicU64::new(1) }
    }

    fn draw(&self) -> RequestId {
        RequestId(format!("{:08x}-{:x}", self.prefix, self.next.fetch_add(1, Ordering::Relaxed)))
    }
}

/// Checks a request, hands it on, and completes the answer.
pub(crate) async fn check(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let id = app.request_ids.draw();
    let instance = request.uri().path().to_owned();
    request.extensions_mut().insert(app.clone());
    let mut response = match admit(&app.hosts, app.secured.is_some(), &request) {
        Ok(()) => {
            request.extensions_mut().insert(id.clone());
            introduce(&app, &mut request);
            next.run(request).await
        }
        Err(refused) => {
            super::access::turned_away(&request, &Caller::Anyone, &refused);
            refused.into_response()
        }
    };
    super::problem::complete(&mut response, &instance, &id);
    let index = app.core.applied();
    let headers = response.headers_mut();
    headers.entry(ROTA_INDEX).or_insert_with(|| HeaderValue::from(index.0));
    if let Ok(id) = HeaderValue::from_str(&id.0) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// Notes who sent the request. Jobs are then submitted in the name of the token, whatever the request says.
fn introduce(app: &App, request: &mut Request) {
    let caller = app.secured.as_ref().map_or(Caller::Anyone, |secured| {
        let asked = (request.method(), request.headers());
        secured.identify(asked, request.extensions().get())
    });
    if let Caller::Holder(holder) = &caller {
        if let Some(connection) = request.extensions().get::<Connection>() {
            connection.proved.store(true, Ordering::Relaxed);
        }
        let spec = &holder.token.spec;
        let name = HeaderValue::from_str(&spec.name).or_else(|_| HeaderValue::from_str(&spec.id));
        request.headers_mut().remove(&SUBMITTER);
        if let Ok(name) = name {
            request.headers_mut().insert(SUBMITTER, name);
        }
    }
    request.extensions_mut().insert(caller);
}

fn admit(hosts: &[String], is_secured: bool, request: &Request) -> Result<(), Refused> {
    within_limits(request)?;
    let authority = authority(request)?;
    if !allowed(hosts, authority.host()) {
        return Err(misdirected(format!(
            "this server does not answer to the name {:?}",
            authority.host()
        )));
    }
    same_origin(request.headers(), &authority, is_secured)
}

/// Refuses more headers than anybody needs.
fn within_limits(request: &Request) -> Result<(), Refused> {
    let headers = request.headers();
    let line = request.uri().path_and_query().map_or(1, |path| path.as_str().len());
    let bytes =
        headers.iter().fold(line, |sum, (name, value)| sum + name.as_str().len() + value.len());
    if headers.len() > HEADERS_MAX {
        let detail = format!("{} headers, at most {HEADERS_MAX} are read", headers.len());
        return Err(too_large(detail));
    }
    if bytes > HEADER_BYTES_MAX {
        let detail = format!("{bytes} bytes of headers, at most {HEADER_BYTES_MAX} are read");
        return Err(too_large(detail));
    }
    Ok(())
}

fn too_large(detail: String) -> Refused {
    refuse(ErrorCode::HeadersTooLarge, detail)
}

fn misdirected(detail: String) -> Refused {
    refuse(ErrorCode::ForbiddenHost, detail)
}

/// The name that the client called. Every source of it that is there has to say the same.
fn authority(request: &Request) -> Result<Authority, Refused> {
    let wrong = |detail: &str| misdirected(detail.to_owned());
    let mut named = request.uri().authority().cloned();
    for value in request.headers().get_all(HOST) {
        let host: Authority = value
            .to_str()
            .ok()
            .and_then(|value| value.parse().ok())
            .ok_or_else(|| wrong("the Host header is not a name and port"))?;
        if named.as_ref().is_some_and(|named| *named != host) {
            return Err(wrong("the request names more than one host"));
        }
        named = Some(host);
    }
    named.ok_or_else(|| wrong("the request names no host"))
}

fn allowed(hosts: &[String], host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        || bare.eq_ignore_ascii_case("localhost")
        || hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(bare))
}

/// Browsers say where a request comes from; programs say nothing.
fn same_origin(
    headers: &HeaderMap,
    authority: &Authority,
    is_secured: bool,
) -> Result<(), Refused> {
    let refused = |detail: String| refuse(ErrorCode::ForbiddenOrigin, detail);
    // A page that came without TLS may be anybody's.
    let plain = (!is_secured).then(|| format!("http://{authority}"));
    let own: Vec<String> = plain.into_iter().chain([format!("https://{authority}")]).collect();
    for origin in headers.get_all(ORIGIN) {
        let same = origin
            .to_str()
            .is_ok_and(|origin| own.iter().any(|own| own.eq_ignore_ascii_case(origin)));
        if !same {
            return Err(refused(format!("a page of {origin:?} may not speak to this server")));
        }
    }
    for site in headers.get_all(SEC_FETCH_SITE) {
        // `none` is a person who typed the address or followed a bookmark.
        if !matches!(site.as_bytes(), b"same-origin" | b"none") {
            return Err(refused(format!("requests from another site ({site:?}) are refused")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn request(pairs: &[(&str, &str)]) -> Request {
        pairs
            .iter()
            .fold(Request::builder().uri("/"), |builder, (name, value)| {
                builder.header(*name, *value)
            })
            .body(Body::empty())
            .unwrap()
    }

    fn code(pairs: &[(&str, &str)]) -> Option<String> {
        admit(&["rota.example".to_owned()], false, &request(pairs))
            .err()
            .map(|refused| refused.code().to_owned())
    }

    #[test]
    fn only_names_of_this_machine_and_configured_ones_are_answered() {
        for host in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1:7600",
            "127.1.2.3",
            "[::1]:7600",
            "rota.example:7600",
        ] {
            assert_eq!(code(&[("host", host)]), None, "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "10.0.0.1:7600",
            "0.0.0.0",
            "[::]:1",
            "",
            "a b",
        ] {
            assert_eq!(code(&[("host", host)]), Some("forbidden-host".to_owned()), "{host}");
        }
        assert_eq!(code(&[]), Some("forbidden-host".to_owned()));
        assert_eq!(
            code(&[("host", "localhost"), ("host", "evil.example")]),
            Some("forbidden-host".to_owned())
        );
    }

    #[test]
    fn requests_of_other_sites_are_refused_and_own_ones_are_not() {
        let with = |name: &str, value: &str| code(&[("host", "localhost:7600"), (name, value)]);
        assert_eq!(with("origin", "http://localhost:7600"), None);
        let secured = request(&[("host", "localhost:7600"), ("origin", "http://localhost:7600")]);
        assert!(admit(&[], true, &secured).is_err());
        let secured = request(&[("host", "localhost:7600"), ("origin", "https://localhost:7600")]);
        assert!(admit(&[], true, &secured).is_ok());
        assert_eq!(with("origin", "null"), Some("forbidden-origin".to_owned()));
        assert_eq!(with("origin", "http://localhost:7601"), Some("forbidden-origin".to_owned()));
        assert_eq!(with("origin", "http://evil.example"), Some("forbidden-origin".to_owned()));
        assert_eq!(with("sec-fetch-site", "same-origin"), None);
        assert_eq!(with("sec-fetch-site", "none"), None);
        assert_eq!(with("sec-fetch-site", "same-site"), Some("forbidden-origin".to_owned()));
        assert_eq!(with("sec-fetch-site", "cross-site"), Some("forbidden-origin".to_owned()));
    }

    #[test]
    fn headers_are_counted_and_measured_exactly() {
        let count = |extra: usize| {
            let names: Vec<String> = (0..extra).map(|number| format!("x-{number}")).collect();
            let mut pairs = vec![("host", "localhost")];
            pairs.extend(names.iter().map(|name| (name.as_str(), "1")));
            code(&pairs)
        };
        assert_eq!(count(HEADERS_MAX - 2), None);
        assert_eq!(count(HEADERS_MAX - 1), None);
        assert_eq!(count(HEADERS_MAX), Some("headers-too-large".to_owned()));
        let fixed = "/".len() + "host".len() + "localhost".len() + "x".len();
        let bytes =
            |total: usize| code(&[("host", "localhost"), ("x", &"y".repeat(total - fixed))]);
        assert_eq!(bytes(HEADER_BYTES_MAX - 1), None);
        assert_eq!(bytes(HEADER_BYTES_MAX), None);
        assert_eq!(bytes(HEADER_BYTES_MAX + 1), Some("headers-too-large".to_owned()));
    }
}
