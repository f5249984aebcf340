//! Locks.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use rota_api::{
    AcquireRequest, Acquired, ErrorCode, Lock, LockClaim, LockQuery, Page, Problem, ReleaseQuery,
};
use rota_core::State as CoreState;
use rota_core::command::{Command, Reply};
use rota_core::event::Event;
use rota_core::kv::{self, AcquireLock, KvCommand, KvEvent, KvReply};
use rota_types::limits::LOCK_WAIT_MAX;
use rota_types::{LogIndex, SessionId, Span};
use tokio::sync::watch;

use super::App;
use super::events::BATCHES_MAX;
use super::extract::{PathPart, Query, required_json};
use super::lists::{self, ListId};
use super::problem::{About, Answer, Refused, internal, refuse, rejected};
use crate::handle::{CoreError, Standing, Urgency};
use crate::ring::{Cursor, Read};

/// Lists locks that somebody holds, in the order of their bytes.
#[utoipa::path(get, path = "/v1/locks", tag = "keys", operation_id = "listLocks", params(LockQuery), responses(
    (status = 200, description = "A page of locks.", body = Page<Lock>),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list_locks(
    State(app): State<App>,
    Query(query): Query<LockQuery>,
) -> Answer<Json<Page<Lock>>> {
    let limit = lists::limit(query.limit)?;
    let prefix = query.prefix.unwrap_or_default();
    let list = ListId::new("locks", &[Some(&prefix)]);
    let after = query.cursor.map(|cursor| list.text(&cursor)).transpose()?;
    let page = app.core.query(move |view| {
        let index = view.state.index().0;
        let mut locks = view.state.kv().locks(&prefix, after.as_deref());
        let tell_one = |(name, lock): (&std::sync::Arc<str>, &kv::Lock)| tell(name, lock, index);
        let items: Vec<Lock> = locks.by_ref().take(limit).map(tell_one).collect();
        let last = locks.next().and(items.last());
        let next_cursor = last.map(|last| list.text_cursor(&last.lock));
        Page { items, next_cursor, index }
    });
    Ok(Json(page.await?))
}

/// Shows who holds a lock, and who waits for it.
#[utoipa::path(get, path = "/v1/locks/{lock}", tag = "keys", operation_id = "showLock",
    params(("lock" = String, Path, description = "The lock's name; slashes may stand as they are.", min_length = 1)), responses(
    (status = 200, description = "The lock.", body = Lock),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn show_lock(
    State(app): State<App>,
    PathPart(name): PathPart<String>,
) -> Answer<Json<Lock>> {
    let asked = name.clone();
    let found = app.core.query(move |view| {
        let lock = view.state.kv().lock(&asked)?;
        let waiters = lock.waiters.iter().map(claim).collect();
        Some(Lock { waiters, ..tell(&asked, lock, view.state.index().0) })
    });
    let lock = found.await?;
    let free = || refuse(ErrorCode::LockNotHeld, format!("nobody holds the lock {name:?}"));
    lock.map(Json).ok_or_else(free)
}

/// Claims a lock for a session.
///
/// A free lock is held at once. One that another session holds refuses the claim (409), or, with `wait`, the claim takes its place behind
/// those that came before, and the answer comes when it is its turn (200) or when `wait` is over (202). The claim stays in its place as long
/// as the session lives: repeat the request to go on waiting, or delete the claim. To repeat it is always harmless: a session has one claim to
/// a lock. `token` rises with each holder: whatever the lock guards should refuse tokens below the highest that it has seen.
#[utoipa::path(put, path = "/v1/locks/{lock}", tag = "keys", operation_id = "acquireLock",
    params(("lock" = String, Path, description = "The lock's name; slashes may stand as they are.", min_length = 1)),
    request_body = AcquireRequest, responses(
    (status = 200, description = "The session holds the lock.", body = Acquired),
    (status = 202, description = "The claim waits.", body = Acquired),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn acquire_lock(
    State(app): State<App>,
    PathPart(name): PathPart<String>,
    request: Request,
) -> Answer<Response> {
    let asked: AcquireRequest = required_json(&app, request, app.config.body_bytes_max).await?;
    let wait = asked.wait.map(|wait| wait.0);
    if wait.is_some_and(|wait| wait > LOCK_WAIT_MAX) {
        let detail = format!(
            "wait is more than {}: ask again to go on waiting, the claim keeps its place",
            rota_api::Duration(LOCK_WAIT_MAX)
        );
        return Err(refuse(ErrorCode::InvalidRequest, detail));
    }
    app.space.check()?;
    let session = SessionId(asked.session);
    let value = asked.value.as_bytes().into();
    let command = AcquireLock { lock: name.as_str().into(), session, value, wait: wait.is_some() };
    let bytes = 256 + name.len() + asked.value.len();
    let command = Command::Kv(KvCommand::AcquireLock(command));
    let mut applied = app.core.propose(Urgency::New, vec![command], bytes).await?;
    let index = applied.index;
    match applied.outcomes.pop() {
        Some(Ok(Reply::Kv(KvReply::Held { token }))) => {
            let place = Place::Held(token.0);
            Ok(answer(&name, session, place, index))
        }
        Some(Ok(Reply::Kv(KvReply::Waiting { .. }))) => {
            let wait = wait.unwrap_or(Span(0));
            let turn = await_turn(&app, &name, session, (index, wait)).await;
            turn.map_err(Refused::after_a_change)
        }
        Some(Err(rejection)) => Err(rejected(About::Keys, &rejection)),
        other => Err(internal("claiming a lock", format!("answered with {other:?}"))),
    }
}

/// Gives a lock back, or the place in its queue. A lock that was held passes to whoever waits longest.
#[utoipa::path(delete, path = "/v1/locks/{lock}", tag = "keys", operation_id = "releaseLock",
    params(("lock" = String, Path, description = "The lock's name; slashes may stand as they are.", min_length = 1), ReleaseQuery), responses(
    (status = 204, description = "The session has no claim any more."),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn release_lock(
    State(app): State<App>,
    PathPart(name): PathPart<String>,
    Query(query): Query<ReleaseQuery>,
) -> Answer<StatusCode> {
    let Some(session) = query.session.map(SessionId) else {
        let detail = "session is missing: it says whose claim to give back";
        return Err(refuse(ErrorCode::InvalidParameter, detail));
    };
    let command = Command::Kv(KvCommand::ReleaseLock { lock: name.into(), session });
    match app.core.command(Urgency::Finishing, command).await? {
        (_, Ok(_)) => Ok(StatusCode::NO_CONTENT),
        (_, Err(rejection)) => Err(rejected(About::Keys, &rejection)),
    }
}

/// Where a claim stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Under this fencing token.
    Held(u64),
    /// Behind so many others that wait.
    Waits(u64),
    /// Nowhere: it was given back, or its session is over.
    Gone { session_is_over: bool },
}

/// Waits until it is the claim's turn, for a while.
async fn await_turn(
    app: &App,
    name: &str,
    session: SessionId,
    (index, wait): (LogIndex, Span),
) -> Answer<Response> {
    let _place = app.follow(1)?;
    let mut changed = app.ring.watch();
    let mut stop = app.stop.clone();
    let mut standing = app.core.standing();
    let mut cursor = Cursor { index, seq: u32::MAX };
    let until = tokio::time::Instant::now() + std::time::Duration::from_micros(wait.0);
    loop {
        let (place, seen) = look(app, name, session).await?;
        match place {
            Place::Waits(_) if tokio::time::Instant::now() < until => {}
            Place::Gone { .. } => return Err(gone(name, session, place)),
            Place::Held(_) | Place::Waits(_) => return Ok(answer(name, session, place, seen)),
        }
        // Only what concerns the claim is a reason to look again.
        loop {
            if concerns(app, &mut cursor, name, session) {
                break;
            }
            tokio::select! {
                more = changed.changed() => if more.is_err() { break },
                () = tokio::time::sleep_until(until) => break,
                () = crate::stopped(&mut stop) => {
                    let detail = "the server goes down; the claim keeps its place";
                    return Err(refuse(ErrorCode::ShuttingDown, detail));
                }
                // Another server may have passed the lock on without this one having heard of it.
                () = deposed(&mut standing) => return Err(CoreError::Unknown.into()),
            }
        }
    }
}

/// Returns when this server leads no more.
async fn deposed(standing: &mut watch::Receiver<Standing>) {
    drop(standing.wait_for(|standing| !standing.leads).await);
}

/// Whether something has happened to the lock or the session since the cursor, which moves on.
fn concerns(app: &App, cursor: &mut Cursor, name: &str, session: SessionId) -> bool {
    let head = app.ring.head();
    match app.ring.read(*cursor, BATCHES_MAX) {
        Read::Reset(reset) => {
            *cursor = reset;
            true
        }
        Read::Batches(batches) => {
            *cursor =
                batches.last().map_or(head, |last| Cursor { index: last.index, seq: u32::MAX });
            batches.iter().flat_map(|batch| batch.events.iter()).any(|event| match event {
                Event::Kv(KvEvent::LockPassed { lock, .. }) => **lock == *name,
                Event::Kv(KvEvent::SessionEnded { session: ended, .. }) => *ended == session,
                _ => false,
            })
        }
    }
}

async fn look(app: &App, name: &str, session: SessionId) -> Answer<(Place, LogIndex)> {
    let name = name.to_owned();
    // What has been applied here was committed: to have held the lock needs no confirmation.
    let place = app.core.peek(move |view| (place(view.state, &name, session), view.state.index()));
    Ok(place.await?)
}

fn place(state: &CoreState, name: &str, session: SessionId) -> Place {
    let session_is_over = state.kv().session(session).is_none();
    let Some(lock) = state.kv().lock(name) else { return Place::Gone { session_is_over } };
    match lock.place_of(session) {
        Some(0) => Place::Held(lock.token.0),
        Some(place) => Place::Waits(place as u64 - 1),
        None => Place::Gone { session_is_over },
    }
}

fn gone(name: &str, session: SessionId, place: Place) -> Refused {
    if place == (Place::Gone { session_is_over: true }) {
        let detail = format!("session {session} ended while it waited for the lock {name:?}");
        return refuse(ErrorCode::SessionNotFound, detail);
    }
    let detail = format!("the claim of session {session} to the lock {name:?} was given back");
    refuse(ErrorCode::NoClaim, detail)
}

fn answer(name: &str, session: SessionId, place: Place, index: LogIndex) -> Response {
    let (status, token, ahead) = match place {
        Place::Held(token) => (StatusCode::OK, Some(token), None),
        Place::Waits(ahead) => (StatusCode::ACCEPTED, None, Some(ahead)),
        Place::Gone { .. } => (StatusCode::ACCEPTED, None, None),
    };
    let (lock, held) = (name.to_owned(), token.is_some());
    let acquired = Acquired { lock, session: session.0, held, token, ahead, index: index.0 };
    (status, Json(acquired)).into_response()
}

fn tell(name: &str, lock: &kv::Lock, index: u64) -> Lock {
    Lock {
        lock: name.to_owned(),
        token: lock.token.0,
        holder: claim(&lock.holder),
        waiting: lock.waiters.len() as u64,
        waiters: Vec::new(),
        index,
    }
}

fn claim(claim: &kv::Claim) -> LockClaim {
    let value = String::from_utf8_lossy(&claim.value).into_owned();
    LockClaim { session: claim.session.0, value }
}
