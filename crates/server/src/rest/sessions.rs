//! Sessions: what keys and locks go with.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{HeaderValue, LOCATION};
use rota_api::{Duration, ErrorCode, Moment, Page, PageQuery, Problem, Session, SessionRequest};
use rota_core::command::{Command, Reply};
use rota_core::kv::{self, KvCommand, KvReply};
use rota_types::{SessionId, Span};

use super::App;
use super::extract::{OptionalJson, PathPart, Query};
use super::lists::{self, ListId};
use super::problem::{About, Answer, Refused, internal, refuse, rejected};
use crate::core_thread::View;
use crate::handle::Urgency;

/// How long a session lives that does not say.
const TTL_DEFAULT: Span = Span::from_secs(30);

/// Lists open sessions, the oldest first.
#[utoipa::path(get, path = "/v1/sessions", tag = "keys", operation_id = "listSessions", params(PageQuery), responses(
    (status = 200, description = "A page of sessions.", body = Page<Session>),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list_sessions(
    State(app): State<App>,
    Query(query): Query<PageQuery>,
) -> Answer<Json<Page<Session>>> {
    let limit = lists::limit(query.limit)?;
    let list = ListId::new("sessions", &[]);
    let after = SessionId(list.begin(query.cursor.as_deref())?.unwrap_or(0));
    let page = app.core.query(move |view| {
        let mut sessions = view.state.kv().sessions_after(after);
        let items: Vec<Session> =
            sessions.by_ref().take(limit).map(|(id, session)| tell(view, id, session)).collect();
        let last = sessions.next().and(items.last());
        let next_cursor = last.map(|last| list.cursor(last.id));
        Page { items, next_cursor, index: view.state.index().0 }
    });
    Ok(Json(page.await?))
}

/// Opens a session.
///
/// It lives for `ttl` after its opening and after each renewal. When it ends, its keys are deleted and its locks passed on, at once and
/// together. Time while no server leads does not count.
#[utoipa::path(post, path = "/v1/sessions", tag = "keys", operation_id = "openSession",
    request_body = Option<SessionRequest>, responses(
    (status = 201, description = "The session.", body = Session),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn open_session(
    State(app): State<App>,
    OptionalJson(asked): OptionalJson<SessionRequest>,
) -> Answer<Response> {
    app.space.check()?;
    let ttl = asked.ttl.map_or(TTL_DEFAULT, |ttl| ttl.0);
    let command = Command::Kv(KvCommand::OpenSession { ttl });
    let id = match app.core.command(Urgency::New, command).await? {
        (_, Ok(Reply::Kv(KvReply::Opened(id)))) => id,
        (_, Ok(other)) => return Err(internal("opening", format!("answered with {other:?}"))),
        (_, Err(rejection)) => return Err(rejected(About::Keys, &rejection)),
    };
    let session = look(&app, id).await.map_err(Refused::after_a_change)?;
    let mut response = (StatusCode::CREATED, Json(session)).into_response();
    if let Ok(location) = HeaderValue::try_from(format!("/v1/sessions/{id}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// Shows a session.
#[utoipa::path(get, path = "/v1/sessions/{id}", tag = "keys", operation_id = "showSession",
    params(("id" = u64, Path, description = "The session's id.")), responses(
    (status = 200, description = "The session.", body = Session),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn show_session(
    State(app): State<App>,
    PathPart(id): PathPart<SessionId>,
) -> Answer<Json<Session>> {
    let found = app.core.query(move |view| find(view, id)).await?;
    found.map(Json).ok_or_else(|| over(id))
}

/// Renews a session: its whole time begins anew.
///
/// Renew it when a third of its time has passed. Whoever holds a lock must stop counting on it when `ttl` has passed, by its own clock, since
/// it sent the last renewal that was answered.
#[utoipa::path(post, path = "/v1/sessions/{id}/renew", tag = "keys", operation_id = "renewSession",
    params(("id" = u64, Path, description = "The session's id.")), responses(
    (status = 200, description = "The session goes on.", body = Session),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn renew_session(
    State(app): State<App>,
    PathPart(id): PathPart<SessionId>,
) -> Answer<Json<Session>> {
    if !app.renewals.renew(&app.core, id).await? {
        return Err(over(id));
    }
    look(&app, id).await.map(Json)
}

/// Ends a session: its keys are deleted, and its locks passed on.
#[utoipa::path(delete, path = "/v1/sessions/{id}", tag = "keys", operation_id = "closeSession",
    params(("id" = u64, Path, description = "The session's id.")), responses(
    (status = 204, description = "The session is over."),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn close_session(
    State(app): State<App>,
    PathPart(id): PathPart<SessionId>,
) -> Answer<StatusCode> {
    let command = Command::Kv(KvCommand::CloseSession(id));
    match app.core.command(Urgency::Finishing, command).await? {
        (_, Ok(_)) => Ok(StatusCode::NO_CONTENT),
        (_, Err(rejection)) => Err(rejected(About::Keys, &rejection)),
    }
}

/// A session that this server has just changed.
async fn look(app: &App, id: SessionId) -> Answer<Session> {
    app.core.peek(move |view| find(view, id)).await?.ok_or_else(|| over(id))
}

fn over(id: SessionId) -> Refused {
    refuse(ErrorCode::SessionNotFound, format!("there is no session {id}, or it is over"))
}

fn find(view: &View<'_>, id: SessionId) -> Option<Session> {
    view.state.kv().session(id).map(|session| tell(view, id, session))
}

fn tell(view: &View<'_>, id: SessionId, session: &kv::Session) -> Session {
    let left = session.deadline.since(view.steady).min(session.ttl);
    Session {
        id: id.0,
        ttl: Duration(session.ttl),
        // In whole milliseconds: nobody keeps time more exactly than that over a network.
        expires_in: Duration(Span(left.0 / 1_000 * 1_000)),
        opened_at: Moment(session.opened_at),
        keys: session.keys.len() as u64,
        locks: session.locks.len() as u64,
        index: view.state.index().0,
    }
}
