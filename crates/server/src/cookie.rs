//! The cookie of a browser that is logged in.
//!
//! It holds a token of its own, which is good for nothing but this: programs can't use it, and no other token counts in its place. The
//! name's prefix lets browsers take it over TLS only, from this host only, for every path (RFC 6265bis, section 4.1.3).

use http::header::{COOKIE, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use http::{HeaderName as Name, Method};
use rota_types::Span;

/// The cookie's name.
const NAME: &str = "__Host-rota";
/// What no script sees, what no other site's page sends along, and what goes over TLS only.
const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Strict";
/// What browsers say of where a request comes from; pages can't change it.
pub(crate) const SEC_FETCH_SITE: HeaderName = Name::from_static("sec-fetch-site");

/// Has the browser keep this session for so long.
pub(crate) fn set(token: &str, lasts: Span) -> Option<HeaderValue> {
    let seconds = lasts.micros() / 1_000_000;
    let value = format!("{NAME}={token}; Max-Age={seconds}; {ATTRIBUTES}");
    let mut value = HeaderValue::from_str(&value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Has the browser forget its session.
pub(crate) fn clear() -> Option<HeaderValue> {
    HeaderValue::from_str(&format!("{NAME}=; Max-Age=0; {ATTRIBUTES}")).ok()
}

/// The session that came along, if one did.
///
/// # Errors
/// If there is more than one: somebody may have put a second one beside the right one.
pub(crate) fn read(headers: &HeaderMap) -> Result<Option<&str>, &'static str> {
    let mut found = None;
    for value in headers.get_all(COOKIE) {
        let text = value.to_str().map_err(|_| "a cookie is not text")?;
        for pair in text.split(';') {
            let Some((name, value)) = pair.trim().split_once('=') else { continue };
            if name == NAME && found.replace(value).is_some() {
                return Err("more than one session came along");
            }
        }
    }
    Ok(found)
}

/// Whether the browser says that one of this server's own pages sent the request, or, where nothing is changed, a person who typed the
/// address. It has been checked before that nothing else is said as well.
pub(crate) fn is_from_own_page(method: &Method, headers: &HeaderMap) -> bool {
    match headers.get(&SEC_FETCH_SITE).map(HeaderValue::as_bytes) {
        Some(b"same-origin") => true,
        Some(b"none") => method.is_safe(),
        Some(_) => false,
        None => headers.contains_key(ORIGIN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn one_session_is_read_and_two_are_refused() {
        let read = |pairs: &[(&'static str, &'static str)]| {
            super::read(&headers(pairs)).map(|found| found.map(str::to_owned))
        };
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("cookie", "a=b; rota=c; __Host-rota2=d")]), Ok(None));
        assert_eq!(read(&[("cookie", "a=b;__Host-rota=x=y; c")]), Ok(Some("x=y".to_owned())));
        let twice = Err("more than one session came along");
        assert_eq!(read(&[("cookie", "__Host-rota=x; __Host-rota=x")]), twice);
        assert_eq!(read(&[("cookie", "__Host-rota=x"), ("cookie", "__Host-rota=y")]), twice);
    }

    #[test]
    fn only_own_pages_may_use_a_session_and_typed_addresses_may_read() {
        let own = |method: Method, pairs: &[(&'static str, &'static str)]| {
            is_from_own_page(&method, &headers(pairs))
        };
        let origin = ("origin", "https://rota.example");
        for method in [Method::GET, Method::POST, Method::DELETE] {
            assert!(own(method.clone(), &[("sec-fetch-site", "same-origin")]));
            assert!(own(method.clone(), &[origin]));
            assert!(!own(method.clone(), &[]));
            assert!(!own(method, &[origin, ("sec-fetch-site", "same-site")]));
        }
        assert!(own(Method::GET, &[("sec-fetch-site", "none")]));
        assert!(!own(Method::POST, &[("sec-fetch-site", "none")]));
    }

    #[test]
    fn the_cookie_is_for_this_host_and_for_no_script() {
        let told = set("rota_x", Span::from_secs(90));
        let wanted = "__Host-rota=rota_x; Max-Age=90; Path=/; Secure; HttpOnly; SameSite=Strict";
        assert_eq!(told.as_ref().and_then(|value| value.to_str().ok()), Some(wanted));
        assert!(told.is_some_and(|value| value.is_sensitive()));
        let gone = "__Host-rota=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Strict";
        assert_eq!(clear().as_ref().and_then(|value| value.to_str().ok()), Some(gone));
    }
}
