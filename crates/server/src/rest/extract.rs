//! Bodies, queries and paths, read strictly: what is wrong is said in one way everywhere.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::{FromRequest, FromRequestParts, Request};
use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use http::request::Parts;
use rota_api::{ErrorCode, Mistake};
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::App;
use super::problem::{Refused, internal, refuse};
use crate::handle::CoreError;

/// Levels of lists and objects in a JSON body.
pub(crate) const JSON_DEPTH_MAX: usize = 32;

/// How long the next part of a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A query string, every parameter known.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<App> for Query<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Refused> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|error| refuse(ErrorCode::InvalidParameter, error.body_text()))
    }
}

/// One part of the path as an id or a name.
pub(crate) struct PathPart<T>(pub(crate) T);

impl<T> FromRequestParts<App> for PathPart<T>
where
    T: std::str::FromStr + Send,
    T::Err: std::fmt::Display,
{
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refused> {
        let wrong = |detail: String| refuse(ErrorCode::InvalidParameter, detail);
        let axum::extract::Path(text) =
            axum::extract::Path::<String>::from_request_parts(parts, app)
                .await
                .map_err(|error| wrong(error.body_text()))?;
        text.parse().map(Self).map_err(|error| wrong(format!("{text:?} in the path: {error}")))
    }
}

/// A JSON body; an empty one, or `null`, means the default.
pub(crate) struct OptionalJson<T>(pub(crate) T);

impl<T: DeserializeOwned + Default> FromRequest<App> for OptionalJson<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, app: &App) -> Result<Self, Refused> {
        let (parts, body) = request.into_parts();
        let body = read_body(app, &parts.headers, body, app.config.body_bytes_max).await?;
        let bytes = &body.bytes;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        if media_type(&parts.headers) != "application/json" {
            return Err(unsupported(&parts.headers));
        }
        parse::<Option<T>>(bytes).map(|read| Self(read.unwrap_or_default()))
    }
}

/// Reads a JSON body of at most `max` bytes.
pub(crate) async fn required_json<T: DeserializeOwned + Send + 'static>(
    app: &App,
    request: Request,
    max: usize,
) -> Result<T, Refused> {
    let (parts, body) = request.into_parts();
    if media_type(&parts.headers) != "application/json" {
        return Err(unsupported(&parts.headers));
    }
    let WholeBody { bytes, room } = read_body(app, &parts.headers, body, max).await?;
    let read = aside(bytes.len(), move || parse(&bytes)).await;
    drop(room);
    read
}

/// The media type without its parameters, in lower case.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    value.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

/// The refusal of a body that is not in a known form.
pub(crate) fn unsupported(headers: &HeaderMap) -> Refused {
    let found = match media_type(headers) {
        none if none.is_empty() => "no media type".to_owned(),
        other => format!("{other:?}"),
    };
    refuse(ErrorCode::UnsupportedMediaType, format!("the body is declared as {found}"))
}

/// Bytes of bodies that may be held at a time, all requests together.
pub(crate) const BODIES_BYTES_MAX: usize = 512 << 20;
/// What room for bodies is counted in.
const BLOCK: usize = 4_096;

/// Room for bodies, so that many large ones at once are refused before they are read.
#[derive(Debug)]
pub(crate) struct Bodies(Arc<Semaphore>);

impl Default for Bodies {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BODIES_BYTES_MAX / BLOCK)))
    }
}

impl Bodies {
    /// Room for `bytes` bytes.
    ///
    /// # Errors
    /// If there is none: the caller tries again.
    pub(crate) fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refused> {
        let blocks = u32::try_from(bytes.div_ceil(BLOCK)).unwrap_or(u32::MAX);
        Arc::clone(&self.0).try_acquire_many_owned(blocks).map_err(|_| CoreError::Overloaded.into())
    }
}

/// A body that was read.
pub(crate) struct WholeBody {
    pub(crate) bytes: Bytes,
    /// Given back when nobody needs the body any more.
    pub(crate) room: OwnedSemaphorePermit,
}

/// Reads a whole body of at most `max` bytes.
pub(crate) async fn read_body(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    max: usize,
) -> Result<WholeBody, Refused> {
    let declared =
        headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > max as u64) {
        return Err(too_large(max));
    }
    let declared = usize::try_from(declared.unwrap_or(0)).unwrap_or(max);
    let mut room = app.bodies.room(declared.max(1))?;
    let mut held = declared.next_multiple_of(BLOCK);
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::with_capacity(declared);
    while let Some(chunk) = next_chunk(&mut stream).await? {
        if bytes.len() + chunk.len() > max {
            return Err(too_large(max));
        }
        if bytes.len() + chunk.len() > held {
            // Nobody said how long it would be.
            let more = bytes.len().max(chunk.len()).next_multiple_of(BLOCK);
            room.merge(app.bodies.room(more)?);
            held += more;
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(WholeBody { bytes: Bytes::from(bytes), room })
}

/// The next part of a body. Whoever sends nothing for too long gives its place up.
pub(crate) async fn next_chunk(stream: &mut BodyDataStream) -> Result<Option<Bytes>, Refused> {
    let Ok(chunk) = tokio::time::timeout(BODY_TIMEOUT, stream.next()).await else {
        let detail = "nothing more of the body came for 30 seconds";
        return Err(refuse(ErrorCode::RequestIncomplete, detail));
    };
    chunk.transpose().map_err(|error| {
        refuse(ErrorCode::RequestIncomplete, format!("the body ended early: {error}"))
    })
}

pub(crate) fn too_large(max: usize) -> Refused {
    refuse(ErrorCode::BodyTooLarge, format!("at most {max} bytes are taken here"))
}

/// Bytes of a body that are worked on where they were read; more would keep the thread from everybody else.
const HERE_BYTES_MAX: usize = 256 << 10;

/// Works on a body of this many bytes without holding up other requests and workers.
pub(crate) async fn aside<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, Refused> + Send + 'static,
) -> Result<T, Refused> {
    if bytes <= HERE_BYTES_MAX {
        return work();
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(internal("reading the body", error)))
}

/// Parses JSON of bounded depth.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refused> {
    check_depth(bytes)?;
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        // Serde would take the values in the order of the fields.
        return Err(refuse(
            ErrorCode::InvalidRequest,
            "a list stands where an object was expected",
        ));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        if error.is_data() {
            let mistake = Mistake {
                line: u32::try_from(error.line()).ok(),
                column: u32::try_from(error.column()).ok(),
                ..Mistake::new("", error.to_string(), "")
            };
            refuse(ErrorCode::InvalidRequest, error.to_string()).with_errors(vec![mistake])
        } else {
            refuse(ErrorCode::InvalidJson, format!("not JSON at {place}: {error}"))
        }
    })
}

/// Refuses JSON that nests deeper than anything we read, before a parser descends into it.
pub(crate) fn check_depth(bytes: &[u8]) -> Result<(), Refused> {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                if depth > JSON_DEPTH_MAX {
                    let detail = format!("the JSON nests deeper than {JSON_DEPTH_MAX} levels");
                    return Err(refuse(ErrorCode::InvalidJson, detail));
                }
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_nests_exactly_as_deep_as_it_may() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(check_depth(nested(JSON_DEPTH_MAX - 1).as_bytes()).is_ok());
        assert!(check_depth(nested(JSON_DEPTH_MAX).as_bytes()).is_ok());
        assert!(check_depth(nested(JSON_DEPTH_MAX + 1).as_bytes()).is_err());
        let text = format!("\"{}\\\"{}\"", "[".repeat(99), "{".repeat(99));
        assert!(check_depth(text.as_bytes()).is_ok(), "brackets in texts do not nest");
    }

    #[tokio::test]
    async fn only_small_bodies_are_worked_on_where_they_were_read() {
        let thread = |bytes| aside(bytes, || Ok(std::thread::current().id()));
        let here = std::thread::current().id();
        assert_eq!(thread(HERE_BYTES_MAX - 1).await.unwrap(), here);
        assert_eq!(thread(HERE_BYTES_MAX).await.unwrap(), here);
        assert_ne!(thread(HERE_BYTES_MAX + 1).await.unwrap(), here);
    }

    #[test]
    fn exactly_as_much_of_all_bodies_is_held_as_may_be() {
        let bodies = Bodies::default();
        let all = bodies.room(BODIES_BYTES_MAX - BLOCK).unwrap();
        assert!(bodies.room(BLOCK + 1).is_err());
        let last = bodies.room(BLOCK).unwrap();
        assert_eq!(bodies.room(1).unwrap_err().code(), "overloaded");
        drop((all, last));
        assert!(bodies.room(BODIES_BYTES_MAX).is_ok());
    }

    #[test]
    fn mistakes_in_json_are_told_with_line_and_column() {
        let refused = parse::<rota_api::CancelRequest>(b"{\n \"grace\": }").unwrap_err();
        assert_eq!(refused.code(), "invalid-json");
        assert!(refused.problem().detail.contains("line 2, column 11"), "{:?}", refused.problem());
        let refused = parse::<rota_api::CancelRequest>(b" [null, null]").unwrap_err();
        assert_eq!(refused.code(), "invalid-request");
        let refused = parse::<rota_api::CancelRequest>(b"{\"grcae\": \"1s\"}").unwrap_err();
        assert_eq!(refused.code(), "invalid-request");
    }
}
