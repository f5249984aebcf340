//! What happens to keys and locks, as server-sent events that can be resumed.

use std::collections::VecDeque;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use rota_api::{Change, ChangeKind, ErrorCode, LockClaim, Moment, Problem, WatchQuery};
use rota_core::event::Event;
use rota_core::kv::KvEvent;
use rota_types::LogIndex;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::App;
use super::events::{BATCHES_MAX, KEEP_ALIVE, begin};
use super::extract::Query;
use super::keys;
use super::problem::{Answer, refuse};
use crate::ring::{Batch, Cursor, Read};

/// How long a stream waits for a server to hear of the position that it resumes at.
const CATCH_UP: Duration = Duration::from_secs(10);

/// Watches keys or locks.
///
/// `id:` is `index:seq`, `event:` is `put`, `delete`, `held` or `free`, `data:` a `Change`. What is changed together has one `index` and comes in
/// one piece. `since` or `Last-Event-ID` resumes behind a change; the `index` of a list does so behind that list. If the position is too old
/// the stream begins with `event: reset`: changes are missing, so read the list again. A server keeps the latest changes in memory, from its
/// start on. While nothing happens, an `id:` alone comes every 15 s: a position to resume from. Any server answers, by what it has heard of.
#[utoipa::path(get, path = "/v1/watch", tag = "keys", operation_id = "watchKeys",
    params(WatchQuery, ("Last-Event-ID" = Option<String>, Header, description = "Resume behind this change.")), responses(
    (status = 200, description = "The stream.", body = String, content_type = "text/event-stream"),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn watch_keys(
    State(app): State<App>,
    headers: HeaderMap,
    Query(query): Query<WatchQuery>,
) -> Answer<Response> {
    let since = query.since.clone();
    let filter = Filter::new(query)?;
    let cursor = begin(&app, &headers, since.as_deref())?;
    let place = app.follow(1)?;
    // A server that is behind the one that named the position hears of it soon.
    let _heard = tokio::time::timeout(CATCH_UP, app.core.wait_applied(cursor.index)).await;
    let (changed, stop) = (app.ring.watch(), app.stop.clone());
    let ready = VecDeque::from([Bytes::from(format!("id: {cursor}\n\n"))]);
    let follower = Follower { app, filter, cursor, changed, stop, ready, _place: place };
    let stream = futures_util::stream::unfold(follower, Follower::next);
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}

/// What a stream tells of.
#[derive(Debug, PartialEq, Eq)]
enum Filter {
    Key(String),
    Prefix(String),
    Lock(String),
    LockPrefix(String),
}

impl Filter {
    fn new(query: WatchQuery) -> Answer<Self> {
        let WatchQuery { key, prefix, lock, lock_prefix, since: _ } = query;
        let mut named = [
            key.map(Self::Key),
            prefix.map(Self::Prefix),
            lock.map(Self::Lock),
            lock_prefix.map(Self::LockPrefix),
        ]
        .into_iter()
        .flatten();
        match (named.next(), named.next()) {
            (Some(filter), None) => Ok(filter),
            (None, _) | (Some(_), Some(_)) => Err(refuse(
                ErrorCode::InvalidParameter,
                "name exactly one of key, prefix, lock and lock_prefix; an empty prefix stands for everything",
            )),
        }
    }

    fn admits_key(&self, key: &str) -> bool {
        match self {
            Self::Key(name) => name == key,
            Self::Prefix(prefix) => key.starts_with(prefix.as_str()),
            Self::Lock(_) | Self::LockPrefix(_) => false,
        }
    }

    fn admits_lock(&self, lock: &str) -> bool {
        match self {
            Self::Lock(name) => name == lock,
            Self::LockPrefix(prefix) => lock.starts_with(prefix.as_str()),
            Self::Key(_) | Self::Prefix(_) => false,
        }
    }

    /// The change that an event tells, if the stream is about it; without its place.
    fn tell(&self, event: &Event) -> Option<Change> {
        let Event::Kv(event) = event else { return None };
        match event {
            KvEvent::KeyChanged { key, revision, pair } if self.admits_key(key) => {
                let now = pair.as_deref().map(|pair| keys::tell(key, pair, true));
                let kind = if now.is_some() { ChangeKind::Put } else { ChangeKind::Delete };
                let (revision, key) = (revision.0, Some(key.to_string()));
                Some(Change { kind, revision, key, now, ..Change::default() })
            }
            KvEvent::LockPassed { lock, revision, holder, value } if self.admits_lock(lock) => {
                let holder = holder.map(|session| LockClaim {
                    session: session.0,
                    value: String::from_utf8_lossy(value).into_owned(),
                });
                let kind = if holder.is_some() { ChangeKind::Held } else { ChangeKind::Free };
                let (revision, lock) = (revision.0, Some(lock.to_string()));
                Some(Change { kind, revision, lock, holder, ..Change::default() })
            }
            KvEvent::KeyChanged { .. }
            | KvEvent::LockPassed { .. }
            | KvEvent::SessionOpened(_)
            | KvEvent::SessionEnded { .. } => None,
        }
    }
}

/// One stream: reads the ring at its own pace.
struct Follower {
    app: App,
    filter: Filter,
    cursor: Cursor,
    changed: watch::Receiver<LogIndex>,
    stop: watch::Receiver<bool>,
    ready: VecDeque<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl Follower {
    async fn next(mut self) -> Option<(Result<Bytes, std::io::Error>, Self)> {
        loop {
            if let Some(text) = self.ready.pop_front() {
                return Some((Ok(text), self));
            }
            self.changed.mark_unchanged();
            let head = self.app.ring.head();
            match self.app.ring.read(self.cursor, BATCHES_MAX) {
                Read::Reset(cursor) => {
                    self.cursor = cursor;
                    let index = cursor.index;
                    let text =
                        format!("id: {cursor}\nevent: reset\ndata: {{\"index\":{index}}}\n\n");
                    return Some((Ok(Bytes::from(text)), self));
                }
                Read::Batches(batches) if !batches.is_empty() => self.render(&batches),
                Read::Batches(_) => {
                    // There is nothing before this, so a stream may resume from here.
                    self.cursor = self.cursor.max(head);
                    tokio::select! {
                        changed = self.changed.changed() => changed.ok()?,
                        () = tokio::time::sleep(KEEP_ALIVE) => {
                            let text = format!("id: {}\n\n", self.cursor);
                            return Some((Ok(Bytes::from(text)), self));
                        }
                        () = crate::stopped(&mut self.stop) => return None,
                    }
                }
            }
        }
    }

    fn render(&mut self, batches: &[Batch]) {
        let mut text = String::new();
        for batch in batches {
            for (seq, event) in (0..).zip(batch.events.iter()) {
                let here = Cursor { index: batch.index, seq };
                if here <= self.cursor {
                    continue;
                }
                let Some(change) = self.filter.tell(event) else { continue };
                let (index, kind) = (batch.index.0, change.kind.name());
                let change = Change { index, seq, at: Moment(batch.at), ..change };
                if let Ok(data) = serde_json::to_string(&change) {
                    text.push_str(&format!("id: {index}:{seq}\nevent: {kind}\ndata: {data}\n\n"));
                }
            }
            self.cursor = Cursor { index: batch.index, seq: u32::MAX };
        }
        if !text.is_empty() {
            self.ready.push_back(Bytes::from(text));
        }
    }
}
