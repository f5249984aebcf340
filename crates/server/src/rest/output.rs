//! The output of one attempt: from the worker that holds it, or, when that is gone, the end that the record kept.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rota_api::{ErrorCode, LogQuery, Stream};
use rota_core::event::AttemptState;
use rota_core::task::Standing;
use rota_types::{AttemptId, NodeId, TaskId};
use rota_wire::worker as pb;

use super::App;
use super::problem::{Answer, Refused, internal, refuse};
use crate::gateway::{Chunk, OutputRead, ReadFailed, Wanted};
use crate::handle::CoreError;

/// How often a request that follows looks whether there is output to be had.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Output that comes.
pub(super) struct Output {
    /// Whose it is; `None` if the task was never tried.
    pub(super) attempt: Option<AttemptId>,
    /// `worker`, `record` or `none`.
    pub(super) source: &'static str,
    /// The first part.
    first: Option<Chunk>,
    rest: Option<OutputRead>,
    app: App,
}

impl Output {
    /// Begins to read. If the output is followed, this waits until there is an attempt and its worker can be reached, or until the
    /// task is over.
    pub(super) async fn open(app: &App, task: TaskId, query: &LogQuery) -> Answer<Self> {
        let follow = query.follow.unwrap_or(false);
        loop {
            let opened = match find(app, task, query.attempt).await? {
                Found::Untried { over } if over || !follow => Some(Self::none(app)),
                Found::Untried { .. } => None,
                Found::Attempt(holder) => {
                    let wanted = Wanted {
                        attempt: holder.attempt,
                        stream: wire_stream(query.stream.unwrap_or_default()),
                        offset: query.offset.unwrap_or(0),
                        tail_bytes: query.tail,
                        follow,
                    };
                    Self::begin(app, &holder, wanted).await?
                }
            };
            match opened {
                Some(output) => return Ok(output),
                None => pause(app).await?,
            }
        }
    }

    /// The place of the first byte in the whole output, and how many bytes before it the output limit dropped.
    pub(super) fn begins(&self) -> (u64, u64) {
        self.first.as_ref().map_or((0, 0), |first| (first.offset, first.skipped))
    }

    /// The next part; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Answer<Chunk>> {
        loop {
            if let Some(first) = self.first.take() {
                return Some(Ok(first));
            }
            let read = self.rest.as_mut()?;
            let failed = match read.next().await {
                Some(Ok(chunk)) => return Some(Ok(chunk)),
                Some(Err(failed)) => failed,
                None => {
                    self.rest = None;
                    return None;
                }
            };
            let wanted = read.wanted();
            self.rest = None;
            if let Err(refused) = self.resume(wanted, failed).await {
                return Some(Err(refused));
            }
        }
    }

    /// Goes on where a worker that was followed went away: there again when it has come back, or with the record.
    async fn resume(&mut self, wanted: Wanted, failed: ReadFailed) -> Answer<()> {
        if !wanted.follow {
            return Err(unavailable(wanted.attempt, false, failed));
        }
        let AttemptId { task, number } = wanted.attempt;
        loop {
            if let Found::Attempt(holder) = find(&self.app, task, Some(number)).await?
                && let Some(again) = Self::begin(&self.app, &holder, wanted).await?
            {
                *self = again;
                return Ok(());
            }
            pause(&self.app).await?;
        }
    }

    /// Reads from the worker; falls back to the record of an ended attempt. `None` if output that is followed can't be had yet.
    async fn begin(app: &App, holder: &Holder, wanted: Wanted) -> Answer<Option<Self>> {
        let from = |source, first, rest| {
            let attempt = Some(holder.attempt);
            Ok(Some(Self { attempt, source, first, rest, app: app.clone() }))
        };
        let failed = match app.outputs.read(holder.node, wanted) {
            Ok(mut read) => match read.next().await {
                Some(Ok(chunk)) => return from("worker", Some(chunk), Some(read)),
                None => return from("worker", None, None),
                Some(Err(failed)) => failed,
            },
            Err(failed) => failed,
        };
        let Some(record) = &holder.record else {
            // Not launched yet, or its worker comes back soon; else the attempt is lost with its lease.
            let wait = wanted.follow && failed != ReadFailed::Busy;
            return if wait { Ok(None) } else { Err(unavailable(holder.attempt, false, failed)) };
        };
        // An empty record of an attempt that ended says that it wrote nothing; of a lost one it says nothing.
        if record.detail.is_empty() && record.lost {
            return Err(unavailable(holder.attempt, true, failed));
        }
        from("record", Some(recorded(&record.detail, wanted)?), None)
    }

    fn none(app: &App) -> Self {
        Self { attempt: None, source: "none", first: None, rest: None, app: app.clone() }
    }
}

/// Waits for the next look.
async fn pause(app: &App) -> Answer<()> {
    let mut stop = app.stop.clone();
    match tokio::time::timeout(LOOK_EVERY, crate::stopped(&mut stop)).await {
        Ok(()) => Err(CoreError::Stopped.into()),
        Err(_) => Ok(()),
    }
}

enum Found {
    Attempt(Holder),
    /// The task was never tried; `over` if it never will be.
    Untried {
        over: bool,
    },
}

/// Where the output of an attempt is.
struct Holder {
    attempt: AttemptId,
    node: NodeId,
    /// Of an attempt that is over.
    record: Option<Record>,
}

struct Record {
    detail: Arc<[u8]>,
    /// Whether the record knows nothing of the output, because the node was lost.
    lost: bool,
}

/// Where a task of a live job stands.
enum Stand {
    Fresh,
    Live(AttemptId, NodeId),
    Between,
    Over,
}

/// Finds an attempt, or the last one.
async fn find(app: &App, id: TaskId, number: Option<u32>) -> Answer<Found> {
    let stand = app
        .core
        .query(move |view| {
            Some(match view.state.standing(id)? {
                Standing::Fresh => Stand::Fresh,
                Standing::Over(_) => Stand::Over,
                Standing::Tried(task) => match task.attempt() {
                    Some(attempt) => Stand::Live(task.latest(id), attempt.node),
                    None => Stand::Between,
                },
            })
        })
        .await?;
    let over = match stand {
        Some(Stand::Live(attempt, node))
            if number.is_none_or(|number| number == attempt.number) =>
        {
            return Ok(Found::Attempt(Holder { attempt, node, record: None }));
        }
        Some(Stand::Fresh) if number.is_none() => return Ok(Found::Untried { over: false }),
        Some(Stand::Fresh | Stand::Live(..) | Stand::Between) => false,
        Some(Stand::Over) | None => true,
    };
    let records = app.history.attempts(id).await?;
    let ended = match number {
        None => records.last(),
        Some(number) => records.iter().find(|record| record.attempt.number == number),
    };
    if let Some(ended) = ended {
        let (attempt, node) = (ended.attempt, ended.node);
        let lost = ended.state == AttemptState::Lost;
        let record = Some(Record { detail: Arc::clone(&ended.detail), lost });
        return Ok(Found::Attempt(Holder { attempt, node, record }));
    }
    // Tells whether the task exists at all.
    super::tasks::task(app, id).await?;
    match number {
        Some(number) => {
            let attempt = AttemptId { task: id, number };
            Err(refuse(ErrorCode::AttemptNotFound, format!("there is no attempt {attempt}")))
        }
        None => Ok(Found::Untried { over }),
    }
}

/// As much of what is wanted as the record kept.
fn recorded(detail: &[u8], wanted: Wanted) -> Answer<Chunk> {
    let detail = rota_wire::worker::decode_detail(detail)
        .map_err(|error| internal("reading an attempt's record", error))?;
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
    let data = Bytes::from(tail).slice(cut..);
    Ok(Chunk::of(begins + cut as u64, begins.saturating_sub(from), data))
}

fn unavailable(attempt: AttemptId, ended: bool, failed: ReadFailed) -> Refused {
    let code = if ended { ErrorCode::OutputExpired } else { ErrorCode::OutputUnavailable };
    match failed {
        ReadFailed::Refused(why) => refuse(code, format!("the output of {attempt}: {why}")),
        ReadFailed::NotConnected if ended => {
            let detail = format!(
                "the worker that ran {attempt} is not connected, and the record kept nothing"
            );
            refuse(code, detail)
        }
        ReadFailed::NotConnected => {
            refuse(code, format!("the worker that runs {attempt} is not connected"))
        }
        ReadFailed::Busy => {
            let detail =
                format!("too many readers at the worker that holds the output of {attempt}");
            refuse(ErrorCode::Overloaded, detail)
        }
    }
}

fn wire_stream(stream: Stream) -> pb::OutputStream {
    match stream {
        Stream::Stdout => pb::OutputStream::Stdout,
        Stream::Stderr => pb::OutputStream::Stderr,
    }
}
