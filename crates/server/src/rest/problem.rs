//! Refusals as problem documents: one way to say no.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use rota_api::{ErrorCode, Mistake, PROBLEM_JSON, Problem};
use rota_core::command::Rejection;
use rota_core::kv::KvRejection;

use super::guard::RequestId;
use crate::handle::{Core, CoreError};

/// A request that is not done, and why.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    problem: Box<Problem>,
    retry_after: Option<Duration>,
}

/// What a handler answers.
pub(crate) type Answer<T> = Result<T, Refused>;

/// A refusal with this code.
pub(crate) fn refuse(code: ErrorCode, detail: impl Into<String>) -> Refused {
    Refused { problem: Box::new(Problem::new(code, detail)), retry_after: None }
}

impl Refused {
    pub(crate) fn with_hint(mut self, hint: &str) -> Self {
        hint.clone_into(&mut self.problem.hint);
        self
    }

    pub(crate) fn with_errors(mut self, errors: Vec<Mistake>) -> Self {
        self.problem.errors = errors;
        self
    }

    pub(crate) fn retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }

    pub(crate) fn problem(&self) -> &Problem {
        &self.problem
    }

    #[cfg(test)]
    pub(crate) fn code(&self) -> &str {
        &self.problem.code
    }
}

impl IntoResponse for Refused {
    /// An answer without a body: `complete` writes it when it knows which request it was.
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() =
            StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if let Some(pause) = self.retry_after {
            let seconds = pause.as_secs().max(1);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if response.status() == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer realm=\"rota\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes the body of a refusal, and turns what the router refused by itself into one.
pub(super) fn complete(response: &mut Response, instance: &str, id: &RequestId) {
    let refused = response.extensions_mut().remove::<Refused>().or_else(|| of_status(response));
    let Some(Refused { mut problem, .. }) = refused else { return };
    problem.instance = Some(instance.to_owned());
    problem.request_id = Some(id.0.clone());
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let headers = response.headers_mut();
    headers.remove(http::header::CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    *response.body_mut() = Body::from(body);
}

/// The problem behind an error status that came without one. Only here may the status differ from the code's own: it was the
/// router's or the protocol's.
fn of_status(response: &Response) -> Option<Refused> {
    let status = response.status();
    let described = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| !kind.as_bytes().starts_with(b"text/plain"));
    if described || !(status.is_client_error() || status.is_server_error()) {
        return None;
    }
    let code = match status {
        StatusCode::NOT_FOUND => ErrorCode::UnknownRoute,
        StatusCode::METHOD_NOT_ALLOWED => ErrorCode::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::BodyTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ErrorCode::UnsupportedMediaType,
        StatusCode::UNPROCESSABLE_ENTITY => ErrorCode::InvalidRequest,
        status if status.is_client_error() => ErrorCode::InvalidParameter,
        _ => ErrorCode::Internal,
    };
    let mut refused = refuse(code, status.canonical_reason().unwrap_or("refused"));
    refused.problem.status = status.as_u16();
    Some(refused)
}

impl Refused {
    /// What is told when the change was made and only the answer to it could not be: never that nothing was done.
    pub(crate) fn after_a_change(self) -> Self {
        if self.problem.code != ErrorCode::NoLeader.name() {
            return self;
        }
        let detail = "it was recorded, but this server stopped leading before it could show it";
        refuse(ErrorCode::OutcomeUnknown, detail)
    }
}

impl From<CoreError> for Refused {
    fn from(error: CoreError) -> Self {
        match error {
            CoreError::Overloaded => {
                refuse(ErrorCode::Overloaded, "too much waits to be recorded; nothing was done")
                    .retry_after(Core::RETRY_AFTER)
            }
            CoreError::NotLeader => {
                refuse(ErrorCode::NoLeader, "this server leads no more; nothing was done")
                    .retry_after(Core::RETRY_AFTER)
            }
            CoreError::Unknown => refuse(
                ErrorCode::OutcomeUnknown,
                "this server stopped leading before it learnt whether that was recorded",
            )
            .retry_after(Core::RETRY_AFTER),
            CoreError::TooLarge { .. } => refuse(
                ErrorCode::LimitExceeded,
                format!("{error}; nothing was done: submit fewer jobs at a time"),
            ),
            CoreError::Stopped => refuse(ErrorCode::ShuttingDown, "the server goes down")
                .retry_after(Core::RETRY_AFTER),
        }
    }
}

/// What kind of thing a rejected command was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    Cluster,
    Job,
    Queue,
    Node,
    Token,
    /// Keys, sessions and locks.
    Keys,
}

/// The refusal that tells of a rejection.
pub(crate) fn rejected(about: About, rejection: &Rejection) -> Refused {
    let code = match (rejection, about) {
        (Rejection::UnknownJob(_), _) => ErrorCode::JobNotFound,
        (Rejection::NothingToCancel(_), _) => ErrorCode::NothingToCancel,
        (Rejection::UnknownQueue(_), About::Job) => ErrorCode::UnknownQueue,
        (
            Rejection::UnknownQueue(_),
            About::Queue | About::Node | About::Cluster | About::Token | About::Keys,
        ) => ErrorCode::QueueNotFound,
        (Rejection::QueueExists(_), _) => ErrorCode::QueueExists,
        (Rejection::QueueNotEmpty(_), _) => ErrorCode::QueueNotEmpty,
        (Rejection::QueueProtected(_), _) => ErrorCode::QueueProtected,
        (Rejection::QueueFull { .. }, _) => ErrorCode::QueueFull,
        (Rejection::UnknownNode(_), _) => ErrorCode::NodeNotFound,
        (Rejection::UnknownServer(_), _) => ErrorCode::ServerNotFound,
        (Rejection::NodeBusy(_), _) => ErrorCode::NodeBusy,
        (Rejection::UnknownToken(_), _) => ErrorCode::TokenNotFound,
        (Rejection::TokenExists(_), _) => ErrorCode::TokenExists,
        (Rejection::IdempotencyConflict(_), _) => ErrorCode::IdempotencyConflict,
        (Rejection::Kv(rejection), _) => code_of_keys(rejection),
        (Rejection::Limit { .. }, _) => ErrorCode::LimitExceeded,
        (Rejection::Invalid { .. }, About::Job) => ErrorCode::InvalidJob,
        (Rejection::Invalid { .. }, About::Queue) => ErrorCode::InvalidQueue,
        (Rejection::Invalid { .. }, About::Node | About::Cluster | About::Token | About::Keys) => {
            ErrorCode::InvalidRequest
        }
    };
    let refused = refuse(code, explain_rejection(rejection));
    match rejection {
        Rejection::QueueFull { .. } => refused.retry_after(Core::RETRY_AFTER),
        Rejection::Invalid { what, why } => {
            let pointer = format!("/{}", what.replace('.', "/"));
            refused.with_errors(vec![Mistake::new(pointer, *why, "")])
        }
        _ => refused,
    }
}

fn code_of_keys(rejection: &KvRejection) -> ErrorCode {
    match rejection {
        KvRejection::KeyChanged { .. } => ErrorCode::RevisionMismatch,
        KvRejection::LockLost { .. } => ErrorCode::LockLost,
        KvRejection::LockHeld { .. } => ErrorCode::LockHeld,
        KvRejection::NoClaim { .. } => ErrorCode::NoClaim,
        KvRejection::UnknownSession(_) => ErrorCode::SessionNotFound,
    }
}

/// A rejection in words.
pub(crate) fn explain_rejection(rejection: &Rejection) -> String {
    match rejection {
        Rejection::UnknownJob(job) => format!("there is no job {job}"),
        Rejection::NothingToCancel(job) => format!("job {job} has nothing left to cancel"),
        Rejection::UnknownQueue(queue) => format!("there is no queue {queue:?}"),
        Rejection::QueueExists(queue) => format!("the queue {queue:?} exists already"),
        Rejection::QueueNotEmpty(queue) => format!("the queue {queue:?} still holds tasks"),
        Rejection::QueueProtected(queue) => format!("the queue {queue:?} can't be removed"),
        Rejection::QueueFull { queue, limit } => {
            format!("the queue {queue:?} takes at most {limit} tasks")
        }
        Rejection::UnknownNode(node) => format!("there is no node with the id {node}"),
        Rejection::UnknownServer(server) => format!("there is no server {server}"),
        Rejection::NodeBusy(node) => {
            format!("node {node} still runs attempts, or its worker is connected")
        }
        Rejection::UnknownToken(id) => format!("there is no token {id:?}, or it has ended"),
        Rejection::TokenExists(id) => format!("another token has the id {id:?}"),
        Rejection::IdempotencyConflict(key) => {
            format!("the key {key:?} was used for another request")
        }
        Rejection::Kv(rejection) => explain_kv(rejection),
        Rejection::Limit { what, value, limit } => {
            format!("{what} is {value}, at most {limit} is allowed")
        }
        Rejection::Invalid { what, why } => format!("{what}: {why}"),
    }
}

fn explain_kv(rejection: &KvRejection) -> String {
    match rejection {
        KvRejection::KeyChanged { key, found: None } => format!("there is no key {key:?}"),
        KvRejection::KeyChanged { key, found: Some(revision) } => {
            format!("the key {key:?} was changed at revision {revision}")
        }
        KvRejection::LockLost { lock, found: None } => format!("nobody holds the lock {lock:?}"),
        KvRejection::LockLost { lock, found: Some(token) } => {
            format!("the lock {lock:?} is held under the token {token}")
        }
        KvRejection::LockHeld { lock, holder, token } => {
            format!("session {holder} holds the lock {lock:?} under the token {token}")
        }
        KvRejection::NoClaim { lock, session } => {
            format!("session {session} has no claim to the lock {lock:?}")
        }
        KvRejection::UnknownSession(session) => {
            format!("there is no session {session}, or it is over")
        }
    }
}

/// An internal error: logged with its details, told without them.
pub(crate) fn internal(what: &str, error: impl std::fmt::Display) -> Refused {
    tracing::error!(%error, what, "a request failed");
    refuse(ErrorCode::Internal, format!("{what} failed; the server's log says more"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_a_change_nobody_is_told_that_nothing_was_done() {
        let code = |error: CoreError| Refused::from(error).after_a_change().problem.code;
        assert_eq!(code(CoreError::NotLeader), ErrorCode::OutcomeUnknown.name());
        assert_eq!(code(CoreError::Stopped), ErrorCode::ShuttingDown.name());
    }
}
