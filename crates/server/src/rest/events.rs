//! What becomes true, as server-sent events that can be resumed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use rota_api::{ErrorCode, Event, EventQuery, JobEvents, PageQuery, Problem};
use rota_core::event;
use rota_types::{JobId, LogIndex, NodeId, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::App;
use super::extract::{PathPart, Query};
use super::lists;
use super::present;
use super::problem::{Answer, refuse};
use crate::ring::{Batch, Cursor, Read};

mod names;
mod tell;

pub(crate) use names::Names;
use tell::{job_of, node_of, tell};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Between comments that keep idle connections open.
pub(super) const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(15);
/// What events are about.
const SUBJECTS: [&str; 8] = ["job", "task", "node", "queue", "server", "token", "audit", "kv"];
/// Before another try where too many ask at once.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);
/// Entries that are rendered at a time.
pub(super) const BATCHES_MAX: usize = 256;

/// Follows events.
///
/// `id:` is `index:seq`, `event:` the type, `data:` the event. `Last-Event-ID` or `since` resumes behind an event; if that is not kept any
/// more, the stream begins with `event: reset`: read the lists again. Only what follows is sent otherwise. A comment comes every 15 s.
#[utoipa::path(get, path = "/v1/events", tag = "cluster", operation_id = "followEvents",
    params(EventQuery, ("Last-Event-ID" = Option<String>, Header, description = "Resume behind this event.")), responses(
    (status = 200, description = "The stream.", body = String, content_type = "text/event-stream"),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn follow_events(
    State(app): State<App>,
    headers: HeaderMap,
    Query(query): Query<EventQuery>,
) -> Answer<Response> {
    let filter = Filter::new(&query)?;
    let cursor = begin(&app, &headers, query.since.as_deref())?;
    let changed = app.ring.watch();
    let stop = app.stop.clone();
    let place = app.follow(1)?;
    let ready = VecDeque::new();
    let follower = Follower { app, filter, cursor, changed, stop, ready, _place: place };
    let stream = futures_util::stream::unfold(follower, Follower::next);
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}

/// Where a stream begins: behind the event that its caller names, or now.
pub(super) fn begin(app: &App, headers: &HeaderMap, since: Option<&str>) -> Answer<Cursor> {
    let last = match headers.get(LAST_EVENT_ID).map(HeaderValue::to_str) {
        Some(Ok(text)) => Some(text),
        Some(Err(_)) => return Err(bad_cursor()),
        None => since,
    };
    match last.filter(|text| !text.is_empty()) {
        Some(text) => parse_cursor(text).ok_or_else(bad_cursor),
        None => Ok(app.ring.head()),
    }
}

/// Lists the events of one job that are still kept, the oldest first.
///
/// A server keeps the latest events of all jobs in memory, from its start on; `complete` says whether these are all of them. What
/// became of each attempt is kept as long as the job: see its tasks.
#[utoipa::path(get, path = "/v1/jobs/{id}/events", tag = "jobs", operation_id = "listJobEvents",
    params(("id" = u64, Path, description = "The job's id."), PageQuery), responses(
    (status = 200, description = "A page of events.", body = JobEvents),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn job_events(
    State(app): State<App>,
    PathPart(id): PathPart<JobId>,
    Query(query): Query<PageQuery>,
) -> Answer<Json<JobEvents>> {
    let limit = lists::limit(query.limit)?;
    if !app.core.query(move |view| view.state.job(id).is_some()).await? {
        super::jobs::finished(&app, id).await?;
    }
    let index = app.core.applied().0;
    let from = match query.cursor.as_deref() {
        None => None,
        Some(text) => Some(parse_cursor(text).ok_or_else(|| {
            refuse(ErrorCode::InvalidCursor, "the cursor is not one of a job's events")
        })?),
    };
    let mut found = kept_events(&app, id, from, limit + 1)?;
    let more = found.len() > limit;
    found.truncate(limit);
    let begun =
        found.first().is_some_and(|(_, _, event)| matches!(event, event::Event::JobSubmitted(_)));
    let next_cursor = found
        .last()
        .filter(|_| more)
        .map(|(cursor, ..)| format!("{}:{}", cursor.index, cursor.seq));
    let nodes = found.iter().filter_map(|(_, _, event)| node_of(event)).collect();
    let names = names_of(&app, nodes).await?;
    let tell_one = |(cursor, at, event): &(Cursor, Timestamp, event::Event)| {
        let node = node_of(event).and_then(|node| names.get(&node).cloned());
        tell(cursor.index, cursor.seq, *at, event, node).1
    };
    let items = found.iter().map(tell_one).collect();
    Ok(Json(JobEvents { items, complete: begun || from.is_some(), next_cursor, index }))
}

/// Up to `wanted` events of a job behind `from`, or from the first that is kept.
fn kept_events(
    app: &App,
    job: JobId,
    from: Option<Cursor>,
    wanted: usize,
) -> Answer<Vec<(Cursor, Timestamp, event::Event)>> {
    let mut cursor = from.unwrap_or_else(|| app.ring.begin());
    let mut found = Vec::new();
    loop {
        let batches = match app.ring.read(cursor, BATCHES_MAX) {
            Read::Batches(batches) => batches,
            Read::Reset(_) if from.is_some() => {
                let detail = "the events after the cursor are not kept any more";
                return Err(refuse(ErrorCode::EventsCompacted, detail));
            }
            Read::Reset(_) => {
                // The ring went on meanwhile: so does its beginning.
                cursor = app.ring.begin();
                found.clear();
                continue;
            }
        };
        let Some(last) = batches.last() else { return Ok(found) };
        let end = Cursor { index: last.index, seq: u32::MAX };
        for batch in &batches {
            for (seq, event) in (0..).zip(batch.events.iter()) {
                let here = Cursor { index: batch.index, seq };
                if here > cursor && job_of(event) == Some(job) {
                    found.push((here, batch.at, event.clone()));
                    if found.len() >= wanted {
                        return Ok(found);
                    }
                }
            }
        }
        cursor = end;
    }
}

/// The names of these nodes.
async fn names_of(app: &App, nodes: BTreeSet<NodeId>) -> Answer<BTreeMap<NodeId, String>> {
    let ask = |nodes: BTreeSet<NodeId>| async move {
        let named = app.core.peek(move |view| {
            nodes.into_iter().map(|node| (node, present::node_name(view.state, node))).collect()
        });
        Ok(named.await?)
    };
    app.names.of(nodes, ask).await
}

fn bad_cursor() -> super::problem::Refused {
    refuse(ErrorCode::InvalidParameter, "an event is named by index:seq, such as 812:0")
}

/// `index:seq`, or `index` for everything behind that entry.
fn parse_cursor(text: &str) -> Option<Cursor> {
    let (index, seq) = match text.split_once(':') {
        Some((index, seq)) => (index, seq.parse().ok()?),
        None => (text, u32::MAX),
    };
    Some(Cursor { index: LogIndex(index.parse().ok()?), seq })
}

struct Filter {
    kinds: Option<Vec<String>>,
    job: Option<u64>,
}

impl Filter {
    fn new(query: &EventQuery) -> Answer<Self> {
        let kinds: Option<Vec<String>> = query
            .types
            .as_deref()
            .filter(|types| !types.is_empty())
            .map(|types| types.split(',').map(|kind| kind.trim().to_owned()).collect());
        for kind in kinds.iter().flatten() {
            if !SUBJECTS.contains(&kind.as_str()) {
                let detail = format!("types: {kind:?} is none of {}", SUBJECTS.join(", "));
                return Err(refuse(ErrorCode::InvalidParameter, detail));
            }
        }
        Ok(Self { kinds, job: query.job })
    }

    fn admits(&self, subject: &str, event: &Event) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|kind| kind == subject))
            && self.job.is_none_or(|job| event.job == Some(job))
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
            match self.app.ring.read(self.cursor, BATCHES_MAX) {
                Read::Reset(cursor) => {
                    self.cursor = cursor;
                    let Cursor { index, .. } = cursor;
                    let text = format!(
                        "id: {index}:{}\nevent: reset\ndata: {{\"index\":{index}}}\n\n",
                        u32::MAX
                    );
                    return Some((Ok(Bytes::from(text)), self));
                }
                Read::Batches(batches) if !batches.is_empty() => self.render(&batches).await?,
                Read::Batches(_) => {
                    tokio::select! {
                        changed = self.changed.changed() => changed.ok()?,
                        () = tokio::time::sleep(KEEP_ALIVE) => {
                            return Some((Ok(Bytes::from_static(b": keep-alive\n\n")), self));
                        }
                        () = crate::stopped(&mut self.stop) => return None,
                    }
                }
            }
        }
    }

    /// The names of nodes. Many who follow ask at once: each waits its turn. `None` if there is nobody left to ask.
    async fn names(&self, nodes: BTreeSet<NodeId>) -> Option<BTreeMap<NodeId, String>> {
        loop {
            match names_of(&self.app, nodes.clone()).await {
                Ok(names) => return Some(names),
                Err(refused) if refused.problem().code == ErrorCode::Overloaded.name() => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(_) => return None,
            }
        }
    }

    async fn render(&mut self, batches: &[Batch]) -> Option<()> {
        let nodes =
            batches.iter().flat_map(|batch| batch.events.iter()).filter_map(node_of).collect();
        let names = self.names(nodes).await?;
        let mut text = String::new();
        for batch in batches {
            for (seq, event) in batch.events.iter().enumerate() {
                let seq = u32::try_from(seq).unwrap_or(u32::MAX);
                let here = Cursor { index: batch.index, seq };
                if here <= self.cursor {
                    continue;
                }
                let node = node_of(event).and_then(|node| names.get(&node).cloned());
                let (subject, told) = tell(batch.index, seq, batch.at, event, node);
                if self.filter.admits(subject, &told)
                    && let Ok(data) = serde_json::to_string(&told)
                {
                    text.push_str(&format!(
                        "id: {}:{seq}\nevent: {}\ndata: {data}\n\n",
                        batch.index, told.kind
                    ));
                }
            }
            self.cursor = Cursor { index: batch.index, seq: u32::MAX };
        }
        if !text.is_empty() {
            self.ready.push_back(Bytes::from(text));
        }
        Some(())
    }
}
