//! Output of tasks and jobs over HTTP: as text, or in frames that say where each byte belongs.

use std::collections::VecDeque;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use rota_api::{ErrorCode, LOG_FRAMES, LogQuery, Problem, dropped_mark, frame_head};
use rota_types::{JobId, TaskId};
use tokio::sync::OwnedSemaphorePermit;

use super::App;
use super::extract::{PathPart, Query};
use super::output::Output;
use super::problem::{Answer, refuse};
use crate::gateway::Chunk;

const LOG_OFFSET: HeaderName = HeaderName::from_static("x-log-offset");
const LOG_SKIPPED: HeaderName = HeaderName::from_static("x-log-skipped");
const LOG_SOURCE: HeaderName = HeaderName::from_static("x-log-source");
const LOG_ATTEMPT: HeaderName = HeaderName::from_static("x-log-attempt");
const TEXT: &str = "text/plain; charset=utf-8";
/// Tasks whose output one request for a whole job follows.
const JOB_TASKS_MAX: usize = 1_000;
/// Tasks that one request for a whole job follows at the same time.
const JOB_FOLLOWED_MAX: u32 = 256;
/// Bytes of a line that are gathered before they are sent without waiting for its end.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Reads the output of a task, as far as it is kept.
///
/// `X-Log-Offset` is the place of the first byte in the attempt's whole output, `X-Log-Skipped` how many bytes before it the output
/// limit dropped, `X-Log-Source` either `worker` or, when the node is gone, `record`: the last bytes only. Where the limit dropped
/// bytes further on, the text has a line in brackets that says how many. With `Accept: application/x-rota-log-frames` it has none;
/// instead each part comes behind a line with its place and its length in bytes.
#[utoipa::path(get, path = "/v1/tasks/{id}/logs", tag = "tasks", operation_id = "taskLogs",
    params(("id" = String, Path, description = "The task's id.", example = "17.3", pattern = "^[0-9]{1,18}[.][0-9]{1,9}$"), LogQuery), responses(
    (status = 200, description = "The output.", content(
        (String = "text/plain"),
        (String = "application/x-rota-log-frames"),
    )),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn task_logs(
    State(app): State<App>,
    PathPart(id): PathPart<TaskId>,
    Query(query): Query<LogQuery>,
    headers: HeaderMap,
) -> Answer<Response> {
    let place = app.follow(1)?;
    let output = Output::open(&app, id, &query).await?;
    let (offset, skipped) = output.begins();
    let (source, attempt) = (output.source, output.attempt);
    let (form, kind) =
        if accepts_frames(&headers) { (Form::Frames, LOG_FRAMES) } else { (Form::Rest, TEXT) };
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (LOG_OFFSET, HeaderValue::from(offset)),
        (LOG_SKIPPED, HeaderValue::from(skipped)),
        (LOG_SOURCE, HeaderValue::from_static(source)),
    ];
    let mut response =
        (headers, Body::from_stream(bytes(output, form, Some(place)))).into_response();
    if let Some(attempt) = attempt {
        response.headers_mut().insert(LOG_ATTEMPT, HeaderValue::from(attempt.number));
    }
    Ok(response)
}

fn accepts_frames(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains(LOG_FRAMES))
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
    let total = u32::try_from(total).unwrap_or(u32::MAX);
    let tasks: VecDeque<TaskId> = (0..total).map(|index| TaskId { job: id, index }).collect();
    let follow = query.follow.unwrap_or(false);
    if follow && total > JOB_FOLLOWED_MAX {
        let detail =
            format!("job {id} has {total} tasks; at most {JOB_FOLLOWED_MAX} are followed together");
        return Err(refuse(ErrorCode::LimitExceeded, detail).with_hint("follow single tasks"));
    }
    let place = app.follow(if follow { total } else { 1 })?;
    let body = if follow {
        let followed =
            tasks.into_iter().map(|task| Box::pin(lines(app.clone(), query.clone(), task)));
        let merged = futures_util::stream::select_all(followed);
        Body::from_stream(merged.map(move |piece| {
            let _held = &place;
            piece
        }))
    } else {
        let joined = Joined { app, query, tasks, _place: place };
        Body::from_stream(futures_util::stream::unfold(joined, Joined::next))
    };
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(TEXT)),
        (LOG_SOURCE, HeaderValue::from_static("worker")),
    ];
    Ok((headers, body).into_response())
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
            let text = text_of(&self.app, &self.query, task).await;
            if !text.is_empty() {
                return Some((Ok(prefixed(&format!("{task} "), &text)), self));
            }
        }
    }
}

/// All of one task's output as text. What can't be had is said in its place: it does not hide the output of other tasks.
async fn text_of(app: &App, query: &LogQuery, task: TaskId) -> Vec<u8> {
    let output = match Output::open(app, task, query).await {
        Ok(output) => output,
        Err(refused) => return format!("[{}]\n", refused.problem().detail).into_bytes(),
    };
    let mut pieces = std::pin::pin!(bytes(output, Form::All, None));
    let mut text = Vec::new();
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(bytes) => text.extend_from_slice(&bytes),
            Err(error) => text.extend(broken_off(ends_line(&text), &error).into_bytes()),
        }
    }
    text
}

/// The whole lines of one task's output as they come, each behind the task's id.
fn lines(
    app: App,
    query: LogQuery,
    task: TaskId,
) -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> + Send {
    let prefix = format!("{task} ");
    let read = async move { Output::open(&app, task, &query).await };
    let pieces = futures_util::stream::once(read).flat_map(|opened| match opened {
        Ok(output) => bytes(output, Form::All, None).boxed(),
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
                Some(Err(error)) => {
                    let mut told = std::mem::take(rest);
                    told.extend(broken_off(ends_line(&told), &error).into_bytes());
                    told
                }
                None => std::mem::take(rest),
            };
            let told = if told.is_empty() { Bytes::new() } else { prefixed(&prefix, &told) };
            std::future::ready(Some(Ok(told)))
        })
        .filter(|told: &Result<Bytes, std::io::Error>| {
            std::future::ready(told.as_ref().is_ok_and(|bytes| !bytes.is_empty()))
        })
}

fn ends_line(text: &[u8]) -> bool {
    text.last().is_none_or(|last| *last == b'\n')
}

/// Says that the rest of an output is missing.
fn broken_off(at_line_start: bool, error: &std::io::Error) -> String {
    format!("{}[output broke off: {error}]\n", if at_line_start { "" } else { "\n" })
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

/// How output is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Text; a line says where bytes were dropped.
    All,
    /// Text as before, but what was dropped before its first byte is told elsewhere.
    Rest,
    /// Each part behind its place and length.
    Frames,
}

/// Output as a body. What fails in the middle breaks the body off, so that nobody takes it for the whole.
fn bytes(
    output: Output,
    form: Form,
    place: Option<OwnedSemaphorePermit>,
) -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> + Send {
    let begun = Some((output, Written { form, at_line_start: true }, place));
    futures_util::stream::unfold(begun, |begun| async move {
        let (mut output, mut written, place) = begun?;
        Some(match output.next().await? {
            Ok(chunk) => (Ok(written.write(chunk)), Some((output, written, place))),
            Err(refused) => (Err(std::io::Error::other(refused.problem().detail.clone())), None),
        })
    })
}

/// What was written so far, as far as it matters for what follows.
struct Written {
    form: Form,
    at_line_start: bool,
}

impl Written {
    fn write(&mut self, chunk: Chunk) -> Bytes {
        let Chunk { offset, skipped, data, .. } = chunk;
        let head = match self.form {
            Form::Frames => frame_head(offset, data.len()),
            Form::All if skipped > 0 => {
                let break_line = if self.at_line_start { "" } else { "\n" };
                format!("{break_line}{}", dropped_mark(skipped))
            }
            Form::All => String::new(),
            Form::Rest => {
                self.form = Form::All;
                String::new()
            }
        };
        if let Some(last) = data.last() {
            self.at_line_start = *last == b'\n';
        }
        if head.is_empty() { data } else { Bytes::from([head.as_bytes(), &data].concat()) }
    }
}
