//! Running attempts: commands, HTTP requests, no-ops.

pub(crate) mod command;
pub(crate) mod guard;
#[cfg(test)]
mod guard_tests;
pub(crate) mod http;
mod pipes;
pub(crate) mod placeholder;
mod program;
pub(crate) mod workdir;

use std::collections::BTreeSet;
use std::num::NonZero;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use rota_core::command::{AttemptEnd, Failure, FailureKind};
use rota_types::{AttemptId, Span, Timestamp};
use rota_wire::worker::{Action, Assignment, Detail, action, report};
use rota_worker_core::StopReason;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::cgroup::Cgroups;
use crate::clock;
use crate::config::WorkerConfig;
use crate::spool::{Capture, Channel, Spool};
use placeholder::Values;
use workdir::WorkDirs;

/// What all attempts of a worker share.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) config: WorkerConfig,
    /// Begins the mark of every process: the data directory's identity and this worker's incarnation.
    pub(crate) mark: String,
    pub(crate) work_dirs: WorkDirs,
    pub(crate) spool: Spool,
    /// Where everything runs that may keep a thread for long: the session's own thread must never be late.
    pub(crate) runtime: Handle,
    /// How many programs can run at the same time.
    pub(crate) cpus: u32,
    identity: String,
    cgroups: OnceLock<Cgroups>,
    http: http::Http,
    environment: program::Environment,
    /// Attempts that run, as their marks name them.
    live: Mutex<BTreeSet<AttemptId>>,
}

impl Host {
    pub(crate) fn new(
        config: WorkerConfig,
        (identity, mark): (String, String),
        work_dirs: WorkDirs,
        (spool, http): (Spool, http::Http),
        runtime: Handle,
    ) -> Self {
        let environment = program::Environment::inherited();
        let live = Mutex::default();
        let cgroups = OnceLock::new();
        let cpus = std::thread::available_parallelism().map_or(1, NonZero::get);
        let cpus = u32::try_from(cpus).unwrap_or(u32::MAX);
        Self {
            config,
            mark,
            work_dirs,
            spool,
            runtime,
            cpus,
            identity,
            cgroups,
            http,
            environment,
            live,
        }
    }

    /// What limits this worker can enforce; `None` if it is not to.
    pub(crate) fn cgroups(&self) -> Option<&Cgroups> {
        let detect = || Cgroups::detect(&self.identity);
        self.config.cgroups.then(|| self.cgroups.get_or_init(detect))
    }

    /// Whether an attempt runs.
    pub(crate) fn is_live(&self, id: AttemptId) -> bool {
        self.live().contains(&id)
    }

    fn live(&self) -> MutexGuard<'_, BTreeSet<AttemptId>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What happens to attempts.
#[derive(Debug)]
pub(crate) enum Event {
    /// A process or request was started.
    Started(AttemptId, Timestamp),
    /// An attempt is over.
    Ended(Box<rota_wire::worker::Report>),
}

/// One attempt that runs.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) task: Arc<Task>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) capture: Arc<Capture>,
    pub(crate) stop: StopSignal,
    started_at: Option<Timestamp>,
    events: mpsc::UnboundedSender<Event>,
}

/// What is known about an attempt before it starts.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) id: AttemptId,
    pub(crate) values: Values,
    pub(crate) is_array: bool,
    pub(crate) cpu_millis: u64,
    pub(crate) memory_bytes: u64,
}

/// Tells an attempt to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StopOrder {
    pub(crate) kill_at: Instant,
    pub(crate) reason: StopReason,
}

/// Receives orders to stop.
#[derive(Clone, Debug)]
pub(crate) struct StopSignal(pub(crate) watch::Receiver<Option<StopOrder>>);

/// How an attempt ended and what it cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) end: AttemptEnd,
    pub(crate) cpu_micros: u64,
    pub(crate) memory_peak_bytes: u64,
    pub(crate) notes: Vec<String>,
}

impl Ending {
    pub(crate) fn of(end: AttemptEnd) -> Self {
        Self { end, cpu_micros: 0, memory_peak_bytes: 0, notes: Vec::new() }
    }
}

pub(crate) fn failed(kind: FailureKind, message: impl Into<Box<str>>) -> AttemptEnd {
    let mut message: Box<str> = message.into();
    let most = rota_types::limits::MESSAGE_BYTES_MAX;
    if message.len() > most {
        message = message.get(..message.floor_char_boundary(most)).unwrap_or_default().into();
    }
    AttemptEnd::Failed(Failure { kind, message })
}

impl StopOrder {
    pub(crate) fn new(grace: Span, reason: StopReason) -> Self {
        let grace = Duration::from_micros(grace.micros());
        Self { kill_at: Instant::now() + grace, reason }
    }

    /// How an attempt that obeyed is reported.
    pub(crate) fn end(self) -> AttemptEnd {
        end_of(self.reason)
    }
}

/// How an attempt that was stopped for this reason is reported.
fn end_of(reason: StopReason) -> AttemptEnd {
    let lost = |message: &str| failed(FailureKind::Lost, message);
    match reason {
        StopReason::Requested => AttemptEnd::Stopped,
        StopReason::Recalled => AttemptEnd::Recalled,
        StopReason::NotDesired => lost("stopped: the server did not know it as live"),
        StopReason::Fenced => lost("stopped: the worker could not renew its lease in time"),
        StopReason::Shutdown => lost("stopped: the worker was shut down"),
        StopReason::Forgotten => lost("it was over before, but the server's record is older"),
    }
}

impl StopSignal {
    /// The order that was given, if there was one.
    pub(crate) fn order(&self) -> Option<StopOrder> {
        *self.0.borrow()
    }

    /// Waits for the next order; for ever if none can come any more.
    pub(crate) async fn requested(&mut self) -> StopOrder {
        loop {
            if self.0.changed().await.is_err() {
                return std::future::pending().await;
            }
            let order = *self.0.borrow_and_update();
            if let Some(order) = order {
                return order;
            }
        }
    }
}

impl Attempt {
    /// The program or request is on its way.
    pub(crate) fn started(&mut self, at: Timestamp) {
        self.started_at = Some(at);
    }

    /// Lets the server show that the attempt runs. Its report says when it started, so that this is not needed for what is over
    /// soon.
    pub(crate) fn announce(&self) {
        if let Some(at) = self.started_at {
            drop(self.events.send(Event::Started(self.task.id, at)));
        }
    }
}

/// Whether an assignment is a program: started and reported where the session is served, and watched elsewhere.
pub(crate) fn is_command(assignment: &Assignment) -> bool {
    matches!(assignment.action, Some(Action { kind: Some(action::Kind::Command(_)) }))
}

/// Whether an assignment needs neither a process nor a connection, so that it can be ended where it stands.
pub(crate) fn is_instant(assignment: &Assignment) -> bool {
    matches!(assignment.action, Some(Action { kind: Some(action::Kind::Noop(_)) }))
}

/// Ends an assignment that [`is_instant`].
pub(crate) fn run_instant(host: &Host, id: AttemptId) -> rota_wire::worker::Report {
    let at = clock::wall();
    let end = if host.config.allow.noop {
        AttemptEnd::Succeeded
    } else {
        failed(FailureKind::Start, "this worker does not run no-op tasks")
    };
    to_report(id, Some(at), Ending::of(end), None)
}

/// The report of an attempt that will not be launched.
pub(crate) fn skipped(id: AttemptId, reason: StopReason) -> rota_wire::worker::Report {
    to_report(id, None, Ending::of(end_of(reason)), None)
}

/// Runs an attempt to its end and says so, whatever happens.
pub(crate) async fn run(
    host: Arc<Host>,
    id: AttemptId,
    assignment: Assignment,
    stop: watch::Receiver<Option<StopOrder>>,
    events: mpsc::UnboundedSender<Event>,
) {
    host.live().insert(id);
    let capture = host.spool.begin(id);
    let task = Task {
        id,
        values: values(&host, id, &assignment),
        is_array: assignment.array_index.is_some(),
        cpu_millis: assignment.need.as_ref().map_or(0, |need| need.cpu_millis),
        memory_bytes: assignment.need.as_ref().map_or(0, |need| need.memory_bytes),
    };
    let mut attempt = Attempt {
        task: Arc::new(task),
        timeout: assignment.timeout_micros.map(Duration::from_micros),
        capture,
        stop: StopSignal(stop),
        started_at: None,
        events,
    };
    let running = AssertUnwindSafe(act(&host, &mut attempt, assignment.action)).catch_unwind();
    let ending = running.await.unwrap_or_else(|_| {
        Ending::of(failed(FailureKind::Start, "a bug in the worker ended this attempt"))
    });
    let report = to_report(id, attempt.started_at, ending, Some(&attempt.capture));
    host.spool.finish(&attempt.capture);
    host.live().remove(&id);
    drop(attempt.events.send(Event::Ended(Box::new(report))));
}

async fn act(host: &Arc<Host>, attempt: &mut Attempt, action: Option<Action>) -> Ending {
    let allow = &host.config.allow;
    let refused = |what: &str| {
        let message = format!("this worker does not run {what}");
        Ending::of(failed(FailureKind::Start, message))
    };
    match action.and_then(|action| action.kind) {
        Some(action::Kind::Command(_)) if !allow.commands => refused("commands"),
        Some(action::Kind::Http(_)) if !allow.http => refused("HTTP tasks"),
        Some(action::Kind::Command(action)) => command::run(host, attempt, action).await,
        Some(action::Kind::Http(action)) => host.http.run(attempt, &action).await,
        Some(action::Kind::Noop(_)) => Ending::of(AttemptEnd::Succeeded),
        None => refused("a kind of task that its version does not know"),
    }
}

fn values(host: &Host, id: AttemptId, assignment: &Assignment) -> Values {
    Values {
        entry: Some(assignment.entry.clone()).filter(|entry| !entry.is_empty()),
        index: assignment.array_index.map(|index| index.to_string()),
        job: id.task.job.to_string(),
        task: id.task.to_string(),
        attempt: id.number.to_string(),
        node: host.config.name.clone(),
    }
}

fn to_report(
    id: AttemptId,
    started_at: Option<Timestamp>,
    ending: Ending,
    capture: Option<&Capture>,
) -> rota_wire::worker::Report {
    let summary = |channel| capture.map(|capture| capture.summary(channel)).unwrap_or_default();
    let (stdout, stderr) = (summary(Channel::Stdout), summary(Channel::Stderr));
    let mut notes = ending.notes;
    notes.extend(stdout.note);
    notes.extend(stderr.note);
    let end = match &ending.end {
        AttemptEnd::Succeeded => report::End::Succeeded(rota_wire::worker::Succeeded {}),
        AttemptEnd::Failed(failure) => report::End::Failed(failure.into()),
        AttemptEnd::Stopped => report::End::Stopped(rota_wire::worker::Stopped {}),
        AttemptEnd::Recalled => report::End::Recalled(rota_wire::worker::Recalled {}),
    };
    rota_wire::worker::Report {
        attempt: Some(id.into()),
        end: Some(end),
        started_micros: started_at.map(|at| at.0),
        ended_micros: clock::wall().0,
        detail: Some(Detail {
            stdout_tail: stdout.tail,
            stderr_tail: stderr.tail,
            stdout_bytes: stdout.written,
            stderr_bytes: stderr.written,
            cpu_micros: ending.cpu_micros,
            memory_peak_bytes: ending.memory_peak_bytes,
            notes,
        }),
    }
}
