//! Output of attempts: from the worker that holds it, or, when that is gone, the end that the record kept.

use std::collections::VecDeque;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use rota_api::{ErrorCode, LogQuery, Problem, Stream};
use rota_core::event::AttemptState;
use rota_types::{AttemptId, JobId, NodeId, TaskId};
use rota_wire::worker as pb;
use tokio::sync::OwnedSemaphorePermit;

use super::App;
use super::extract::{PathPart, Query};
use super::problem::{Answer, refuse};
use crate::gateway::{OutputRead, ReadFailed, Wanted};

const LOG_OFFSET: HeaderName = HeaderName::from_static("x-log-offset");
const LOG_SKIPPED: HeaderName = HeaderName::from_static("x-log-skipped");
const LOG_SOURCE: HeaderName = HeaderName::from_static("x-log-source");
const LOG_ATTEMPT: HeaderName = HeaderName::from_static("x-log-attempt");
/// Tasks whose output one request for a whole job follows.
const JOB_TASKS_MAX: usize = 1_000;
/// Tasks that one request for a whole job follows at the same time.
const JOB_FOLLOWED_MAX: usize = 256;
/// Bytes of a line that are gathered before they are sent without waiting for its end.
const LINE_BYTES_MAX: usize = 64 << 10;
/// How often a request that follows looks for the next attempt of its task.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(200);

/// Reads the output of a task, as far as it is kept.
///
/// What the output limit dropped in the middle is replaced by a line that says how much it was. `X-Log-Offset` is the place of the
/// first byte in the attempt's whole output, `X-Log-Skipped` how many bytes before it were dropped, `X-Log-Source` either `worker` or, when the node is gone, `record`: the last bytes only.
#[utoipa::path(get, path = "/v1/tasks/{id}/logs", tag = "tasks", operation_id = "taskLogs",
    params(("id" = String, Path, description = "The task's id.", example = "17.3", pattern = "^[0-9]{1,18}[.][0-9]{1,9}$"), LogQuery), responses(
    (status = 200, description = "The output.", body = String, content_type = "text/plain"),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn task_logs(
    State(app): State<App>,
    PathPart(id): PathPart<TaskId>,
    Query(query): Query<LogQuery>,
) -> Answer<Response> {
    let follow = query.follow.unwrap_or(false);
    // Whoever waits for the first attempt is a follower, too.
    let place = app.follow()?;
    let holder = loop {
        match holder(&app, id, query.attempt).await? {
            Some(holder) => break holder,
            // A task that was never tried has no output yet.
            None if !follow => return Ok(plain(Body::empty(), &Part::default(), "none")),
            None => {
                let mut stop = app.stop.clone();
                if tokio::time::timeout(LOOK_EVERY, crate::stopped(&mut stop)).await.is_ok() {
                    return Err(crate::handle::CoreError::Stopped.into());
                }
            }
        }
    };
    let wanted = Wanted {
        attempt: holder.attempt,
        stream: wire_stream(query.stream.unwrap_or_default()),
        offset: query.offset.unwrap_or(0),
        tail_bytes: query.tail,
        follow,
    };
    let part = open(&app, &holder, wanted).await?;
    let mut response = match part {
        Opened::Worker(first, read) => {
            let part = first.as_ref().map_or_else(Part::default, |chunk| Part {
                offset: chunk.offset,
                skipped: chunk.skipped,
            });
            let first = first.map(|chunk| chunk.data);
            plain(Body::from_stream(chunks(first, read, place)), &part, "worker")
        }
        Opened::Record(part, bytes) => plain(Body::from(bytes), &part, "record"),
    };
    if let Ok(number) = HeaderValue::try_from(holder.attempt.number.to_string()) {
        response.headers_mut().insert(LOG_ATTEMPT, number);
    }
    Ok(response)
}

/// Reads the output of every task of a job, each line behind the task's id: one task after the other, or, when followed, as it comes.
#[utoipa::path(get, path = "/v1/jobs/{id}/logs", tag = "jobs", operation_id = "jobLogs",
    params(("id" = u64, Path, description = "The job's id."), LogQuery), responses(
    (status = 200, description = "The output.", body = String, content_type = "text/plain"),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn job_logs(
    State(app): State<App>,
    PathPart(id): PathPart<JobId>,
    Query(query): Query<LogQuery>,
) -> Answer<Response> {
    let live =
        app.core.query(move |view| view.state.job(id).map(rota_core::job::Job::tasks)).await?;
    let total = match live {
        Some(total) => u64::from(total),
        None => super::jobs::finished(&app, id).await?.counts.total(),
    };
    if total > JOB_TASKS_MAX as u64 {
        let detail =
            format!("job {id} has {total} tasks; the output of at most {JOB_TASKS_MAX} is joined");
        return Err(
            refuse(ErrorCode::LimitExceeded, detail).with_hint("read the output task by task")
        );
    }
    let place = app.follow()?;
    let tasks: VecDeque<TaskId> =
        (0..u32::try_from(total).unwrap_or(0)).map(|index| TaskId { job: id, index }).collect();
    if query.follow.unwrap_or(false) {
        if tasks.len() > JOB_FOLLOWED_MAX {
            let detail = format!(
                "job {id} has {total} tasks; at most {JOB_FOLLOWED_MAX} are followed together"
            );
            return Err(refuse(ErrorCode::LimitExceeded, detail).with_hint("follow single tasks"));
        }
        let followed =
            tasks.into_iter().map(|task| Box::pin(lines(app.clone(), query.clone(), task)));
        let merged = futures_util::stream::select_all(followed).map(move |lines| {
            let _held_until_the_end = &place;
            lines
        });
        return Ok(plain(Body::from_stream(merged), &Part::default(), "worker"));
    }
    let joined =
        futures_util::stream::unfold(Joined { app, query, tasks, _place: place }, Joined::next);
    Ok(plain(Body::from_stream(joined), &Part::default(), "worker"))
}

/// The outputs of several tasks, one after the other.
struct Joined {
    app: App,
    query: LogQuery,
    tasks: VecDeque<TaskId>,
    _place: OwnedSemaphorePermit,
}

impl Joined {
    async fn next(mut self) -> Option<(Result<Bytes, std::io::Error>, Self)> {
        loop {
            let task = self.tasks.pop_front()?;
            let prefix = format!("{task} ");
            let query = PathPart(task);
            let read = task_logs(State(self.app.clone()), query, Query(self.query.clone()));
            // The output of one task that can't be had does not hide that of the others.
            let text = match Box::pin(read).await {
                Ok(response) => collect(response).await,
                Err(refused) => Bytes::from(format!("[{}]\n", refused.problem().detail)),
            };
            if !text.is_empty() {
                return Some((Ok(prefixed(&prefix, &text)), self));
            }
        }
    }
}

/// The whole lines of one task's output as they come, each behind the task's id.
fn lines(
    app: App,
    query: LogQuery,
    task: TaskId,
) -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> + Send {
    let prefix = format!("{task} ");
    let read = async move { task_logs(State(app), PathPart(task), Query(query)).await };
    let pieces = futures_util::stream::once(read).flat_map(|opened| match opened {
        Ok(response) => response.into_body().into_data_stream().boxed(),
        Err(refused) => {
            let text = Bytes::from(format!("[{}]\n", refused.problem().detail));
            futures_util::stream::iter([Ok(text)]).boxed()
        }
    });
    // One empty piece at the end flushes a last line without a line feed.
    let pieces = pieces.map(Some).chain(futures_util::stream::iter([None]));
    pieces
        .scan(Vec::new(), move |rest: &mut Vec<u8>, piece| {
            let told = match piece {
                Some(Ok(bytes)) => {
                    rest.extend_from_slice(&bytes);
                    let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                    let whole =
                        if rest.len() - whole > LINE_BYTES_MAX { rest.len() } else { whole };
                    rest.drain(..whole).collect()
                }
                Some(Err(error)) => format!("[{error}]\n").into_bytes(),
                None => std::mem::take(rest),
            };
            let told = if told.is_empty() { Bytes::new() } else { prefixed(&prefix, &told) };
            std::future::ready(Some(Ok(told)))
        })
        .filter(|told: &Result<Bytes, std::io::Error>| {
            std::future::ready(told.as_ref().is_ok_and(|bytes| !bytes.is_empty()))
        })
}

async fn collect(response: Response) -> Bytes {
    let mut stream = response.into_body().into_data_stream();
    let mut bytes = Vec::new();
    while let Some(Ok(chunk)) = stream.next().await {
        bytes.extend_from_slice(&chunk);
    }
    Bytes::from(bytes)
}

fn prefixed(prefix: &str, text: &[u8]) -> Bytes {
    let mut told = Vec::with_capacity(text.len() + text.len() / 4);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        told.extend_from_slice(prefix.as_bytes());
        told.extend_from_slice(line);
    }
    if !text.ends_with(b"\n") {
        told.push(b'\n');
    }
    Bytes::from(told)
}

/// Where the output of an attempt is.
struct Holder {
    attempt: AttemptId,
    node: NodeId,
    /// The ended attempt's record.
    detail: Option<std::sync::Arc<[u8]>>,
    /// Whether the record knows nothing of the output, because the node was lost.
    lost: bool,
}

/// Finds an attempt; `None` if the task was never tried.
async fn holder(app: &App, id: TaskId, number: Option<u32>) -> Answer<Option<Holder>> {
    let live = app
        .core
        .query(move |view| {
            let task = view.state.task(id)?;
            task.attempt().map(|attempt| (task.latest(id), attempt.node))
        })
        .await?;
    if let Some((attempt, node)) =
        live.filter(|(live, _)| number.is_none_or(|number| number == live.number))
    {
        return Ok(Some(Holder { attempt, node, detail: None, lost: false }));
    }
    let records = app.history.attempts(id).await?;
    let record = match number {
        None => records.last(),
        Some(number) => records.iter().find(|record| record.attempt.number == number),
    };
    if let Some(record) = record {
        let detail = Some(std::sync::Arc::clone(&record.detail));
        let lost = record.state == AttemptState::Lost;
        return Ok(Some(Holder { attempt: record.attempt, node: record.node, detail, lost }));
    }
    // Tells whether the task exists at all.
    super::tasks::task(app, id).await?;
    match number {
        Some(number) => {
            let attempt = AttemptId { task: id, number };
            Err(refuse(ErrorCode::AttemptNotFound, format!("there is no attempt {attempt}")))
        }
        None => Ok(None),
    }
}

/// Which part of an output is answered.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    offset: u64,
    skipped: u64,
}

enum Opened {
    Worker(Option<crate::gateway::Chunk>, OutputRead),
    Record(Part, Vec<u8>),
}

/// Begins to read from the worker; falls back to the record of an ended attempt.
async fn open(app: &App, holder: &Holder, wanted: Wanted) -> Answer<Opened> {
    let failed = match app.outputs.read(holder.node, wanted) {
        Ok(mut read) => match read.next().await {
            Some(Ok(chunk)) => return Ok(Opened::Worker(Some(chunk), read)),
            None => return Ok(Opened::Worker(None, read)),
            Some(Err(failed)) => failed,
        },
        Err(failed) => failed,
    };
    // An empty record of an attempt that ended says that it wrote nothing; of a lost one it says nothing.
    let known = |detail: &&[u8]| !(detail.is_empty() && holder.lost);
    let Some(detail) = holder.detail.as_deref().filter(known) else {
        return Err(unavailable(holder, failed));
    };
    let detail = rota_wire::worker::decode_detail(detail)
        .map_err(|error| super::problem::internal("reading an attempt's record", error))?;
    let (tail, total) = match wanted.stream {
        pb::OutputStream::Stdout => (detail.stdout_tail, detail.stdout_bytes),
        pb::OutputStream::Stderr => (detail.stderr_tail, detail.stderr_bytes),
    };
    let begins = total.saturating_sub(tail.len() as u64);
    let from = match wanted.tail_bytes {
        Some(bytes) => total.saturating_sub(bytes),
        None => wanted.offset,
    };
    let cut = usize::try_from(from.saturating_sub(begins)).unwrap_or(usize::MAX).min(tail.len());
    let kept = tail.get(cut..).unwrap_or(&[]).to_vec();
    let part = Part { offset: begins + cut as u64, skipped: begins.saturating_sub(from) };
    Ok(Opened::Record(part, kept))
}

fn unavailable(holder: &Holder, failed: ReadFailed) -> super::problem::Refused {
    let attempt = holder.attempt;
    match (failed, &holder.detail) {
        (ReadFailed::Refused(why), Some(_)) => {
            refuse(ErrorCode::OutputExpired, format!("the output of {attempt} is gone: {why}"))
        }
        (ReadFailed::Refused(why), None) => {
            refuse(ErrorCode::OutputUnavailable, format!("the output of {attempt}: {why}"))
        }
        (ReadFailed::NotConnected, Some(_)) => {
            let detail = format!(
                "the worker that ran {attempt} is not connected, and the record kept nothing"
            );
            refuse(ErrorCode::OutputExpired, detail)
        }
        (ReadFailed::NotConnected, None) => {
            let detail = format!("the worker that runs {attempt} is not connected");
            refuse(ErrorCode::OutputUnavailable, detail)
        }
        (ReadFailed::Busy, _) => {
            let detail =
                format!("too many readers at the worker that holds the output of {attempt}");
            refuse(ErrorCode::Overloaded, detail)
        }
    }
}

/// The rest of a read as a body. A worker that goes away in the middle breaks the body off, so that nobody takes it for the whole.
fn chunks(
    first: Option<Bytes>,
    read: OutputRead,
    place: OwnedSemaphorePermit,
) -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> + Send {
    let rest = futures_util::stream::unfold(Some((read, place)), |read| async move {
        let (mut read, place) = read?;
        match read.next().await? {
            Ok(chunk) => Some((Ok(marked(chunk)), Some((read, place)))),
            Err(failed) => Some((Err(std::io::Error::other(format!("{failed:?}"))), None)),
        }
    });
    futures_util::stream::iter(first.map(Ok)).chain(rest)
}

/// A part of an output, behind a line that says what is missing before it: what was dropped in the middle must not look like one piece.
fn marked(chunk: crate::gateway::Chunk) -> Bytes {
    if chunk.skipped == 0 {
        return chunk.data;
    }
    let mark = format!("\n[… {} bytes were dropped by the output limit …]\n", chunk.skipped);
    Bytes::from([mark.as_bytes(), &chunk.data].concat())
}

fn wire_stream(stream: Stream) -> pb::OutputStream {
    match stream {
        Stream::Stdout => pb::OutputStream::Stdout,
        Stream::Stderr => pb::OutputStream::Stderr,
    }
}

fn plain(body: Body, part: &Part, source: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (LOG_OFFSET, HeaderValue::from(part.offset)),
        (LOG_SKIPPED, HeaderValue::from(part.skipped)),
        (LOG_SOURCE, HeaderValue::from_static(source)),
    ];
    (headers, body).into_response()
}
