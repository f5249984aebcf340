//! Does what the machine says, and keeps what it does not look at: assignments, reports, tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rota_types::{AttemptId, Monotonic, Span, Timestamp};
use rota_wire::worker::{
    Action, Assignment, Desired, Heartbeat, Leaving, Report, Reports, Started, WorkerMessage,
    action, worker_message,
};
use rota_worker_core::{Desired as Wanted, Input, Machine, Output, Session, Start};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::warn;

use crate::clock;
use crate::executor::{self, Event, Host, StopOrder};
use crate::session::Outgoing;

/// Reports in one message, and roughly their bytes.
const REPORTS_MAX: usize = 1_024;
const REPORTS_BYTES_MAX: usize = 1 << 20;
/// The longest time that a report waits for others.
const GATHER_MAX: Duration = Duration::from_millis(1);
/// The same while there is more to run here, so that nothing waits for what the report brings.
const GATHER_BUSY_MAX: Duration = Duration::from_millis(2);

/// The machine and everything around it.
pub(super) struct Shell {
    pub(super) host: Arc<Host>,
    pub(super) machine: Machine,
    pub(super) tasks: JoinSet<()>,
    pub(super) leaving: Leaving,
    assignments: BTreeMap<AttemptId, Assignment>,
    running: BTreeMap<AttemptId, Launched>,
    reports: BTreeMap<AttemptId, Report>,
    /// Attempts with a directory of their own.
    dirs: BTreeSet<AttemptId>,
    outgoing: Option<Outgoing>,
    events: mpsc::UnboundedSender<Event>,
    wake_at: Option<Monotonic>,
    /// Running attempts that have not been announced: most of them are about to end.
    young: usize,
    /// To be reported together; with the time by which that has to be done.
    gathered: Vec<AttemptId>,
    report_at: Option<Instant>,
}

/// An attempt that runs.
struct Launched {
    stop: watch::Sender<Option<StopOrder>>,
    started_at: Option<Timestamp>,
}

impl Shell {
    pub(super) fn new(host: Arc<Host>, events: mpsc::UnboundedSender<Event>) -> Self {
        Self {
            host,
            machine: Machine::new(),
            tasks: JoinSet::new(),
            leaving: Leaving::Staying,
            assignments: BTreeMap::new(),
            running: BTreeMap::new(),
            reports: BTreeMap::new(),
            dirs: BTreeSet::new(),
            outgoing: None,
            events,
            wake_at: None,
            young: 0,
            gathered: Vec::new(),
            report_at: None,
        }
    }

    /// Tells the machine what happened, does what it answers, and reports what is to be reported.
    pub(super) fn feed(&mut self, input: Input) {
        self.step(input);
        self.report();
    }

    /// Tells the machine what happened and does what it answers. What ends at once is told to it in turn.
    fn step(&mut self, input: Input) {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            if input == Input::Woke {
                self.wake_at = None;
            }
            let mut ended = Vec::new();
            for output in self.machine.step(input, clock::now()) {
                self.perform(output, &mut ended);
            }
            next = (!ended.is_empty()).then_some(Input::Ended(ended));
        }
    }

    /// How long it takes until the machine wants to be woken.
    pub(super) fn wake_in(&self) -> Option<Duration> {
        self.wake_at.map(clock::until)
    }

    pub(super) fn is_connected(&self) -> bool {
        self.outgoing.is_some()
    }

    /// A session has opened.
    pub(super) fn open(&mut self, session: Session, outgoing: Outgoing) {
        self.outgoing = Some(outgoing);
        self.feed(Input::SessionOpened(session));
        if self.leaving != Leaving::Staying {
            self.leave(self.leaving);
        }
    }

    pub(super) fn close(&mut self) {
        self.outgoing = None;
        self.feed(Input::SessionClosed);
    }

    /// Tells the server that this worker is about to go.
    pub(super) fn leave(&mut self, leaving: Leaving) {
        self.leaving = leaving;
        self.heartbeat(clock::now());
    }

    /// The server said what it wants.
    pub(super) fn desire(&mut self, desired: Desired) {
        let mut wanted = Wanted { full: desired.full, ..Wanted::default() };
        for assignment in desired.start {
            let Some(id) = assignment.attempt.map(AttemptId::from) else { continue };
            let stop = assignment.stop.as_ref().map(|stop| Span(stop.grace_micros));
            let placed_at = Timestamp(assignment.placed_micros);
            let behind = assignment.behind.map(AttemptId::from);
            wanted.start.push(Start { attempt: id, placed_at, stop, behind });
            if !self.running.contains_key(&id) && !self.reports.contains_key(&id) {
                self.assignments.insert(id, assignment);
            }
        }
        let stops = desired.stop.into_iter();
        wanted.stop = stops
            .filter_map(|stop| Some((stop.attempt?.into(), Span(stop.grace_micros))))
            .collect();
        wanted.settled = desired.settled.into_iter().map(AttemptId::from).collect();
        wanted.recall = desired.recall.into_iter().map(AttemptId::from).collect();
        self.feed(Input::Desired(wanted));
        let machine = &self.machine;
        self.assignments.retain(|id, _| machine.is_wanted(*id));
        if desired.full {
            self.show_running();
        }
    }

    /// Shows a server that has said what it wants what runs already.
    fn show_running(&self) {
        let running = self.running.iter();
        let started = running.filter_map(|(id, launched)| Some((*id, launched.started_at?)));
        self.send_started(started.collect());
    }

    /// Takes in what happened to attempts.
    pub(super) fn observe(&mut self, batch: &mut Vec<Event>) {
        while self.tasks.try_join_next().is_some() {}
        let before = self.running.len();
        let (mut started, mut ended) = (BTreeMap::new(), Vec::new());
        for event in batch.drain(..) {
            match event {
                Event::Started(id, at) => {
                    started.insert(id, at);
                    if let Some(launched) = self.running.get_mut(&id) {
                        self.young -= usize::from(launched.started_at.is_none());
                        launched.started_at = Some(at);
                    }
                }
                Event::Ended(report) => {
                    let id = report.attempt.map(AttemptId::from).unwrap_or_default();
                    started.remove(&id);
                    let launched = self.running.remove(&id);
                    self.young -=
                        usize::from(launched.is_some_and(|launched| launched.started_at.is_none()));
                    self.reports.insert(id, *report);
                    ended.push(id);
                }
            }
        }
        self.send_started(started);
        if !ended.is_empty() {
            self.step(Input::Ended(ended));
        }
        let cpus = self.host.cpus as usize;
        // Only if each that ended was followed by another.
        let waiting = if self.running.len() < before { 0 } else { self.machine.waiting() };
        if !may_gather(self.gathered.len(), self.young, waiting, cpus) {
            self.report();
        } else if self.report_at.is_none() && !self.gathered.is_empty() {
            let most = if waiting > 0 { GATHER_BUSY_MAX } else { GATHER_MAX };
            self.report_at = Some(Instant::now() + most);
        }
    }

    /// How long it takes until what has ended is to be reported.
    pub(super) fn report_in(&self) -> Option<Duration> {
        self.report_at.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Reports what has ended.
    pub(super) fn report(&mut self) {
        self.report_at = None;
        let gathered = std::mem::take(&mut self.gathered);
        self.send_reports(&gathered);
    }

    fn perform(&mut self, output: Output, ended: &mut Vec<AttemptId>) {
        match output {
            Output::Launch(id) => self.launch(id, ended),
            Output::Stop { attempt, grace, reason } => {
                if let Some(launched) = self.running.get(&attempt) {
                    launched.stop.send_replace(Some(StopOrder::new(grace, reason)));
                }
            }
            Output::Skip { attempt: id, reason } => {
                self.assignments.remove(&id);
                self.reports.insert(id, executor::skipped(id, reason));
            }
            Output::Report(ids) => self.gathered.extend(ids),
            Output::Heartbeat { sent } => self.heartbeat(sent),
            Output::Forget(ids) => self.forget(&ids),
            Output::Reconnect => {
                warn!("the server means other attempts than those that run here: they are ended");
                self.outgoing = None;
            }
            Output::WakeAt(at) => self.wake_at = Some(at),
        }
    }

    fn launch(&mut self, id: AttemptId, ended: &mut Vec<AttemptId>) {
        let assignment = self.assignments.remove(&id).unwrap_or_default();
        if executor::is_instant(&assignment) {
            self.reports.insert(id, executor::run_instant(&self.host, id));
            ended.push(id);
            return;
        }
        if has_own_dir(&assignment) {
            self.dirs.insert(id);
        }
        let (stop, orders) = watch::channel(None);
        self.running.insert(id, Launched { stop, started_at: None });
        self.young += 1;
        let host = Arc::clone(&self.host);
        let here = executor::is_command(&assignment);
        let run = executor::run(host, id, assignment, orders, self.events.clone());
        if here {
            self.tasks.spawn(run);
        } else {
            self.tasks.spawn_on(run, &self.host.runtime);
        }
    }

    fn forget(&mut self, ids: &[AttemptId]) {
        for id in ids {
            self.assignments.remove(id);
            self.reports.remove(id);
            if self.dirs.remove(id) {
                release_dir(&self.host, *id);
            }
        }
    }

    fn send_started(&self, started: BTreeMap<AttemptId, Timestamp>) {
        if started.is_empty() {
            return;
        }
        let note = |(id, at): (AttemptId, Timestamp)| Started {
            attempt: Some(id.into()),
            at_micros: at.0,
        };
        let started = started.into_iter().map(note).collect();
        self.send(worker_message::Kind::Reports(Reports { started, ended: Vec::new() }));
    }

    fn send_reports(&self, ids: &[AttemptId]) {
        let mut ended: Vec<Report> = Vec::new();
        let mut bytes = 0;
        for report in ids.iter().filter_map(|id| self.reports.get(id)) {
            let detail = report.detail.as_ref();
            bytes += 200
                + detail.map_or(0, |detail| detail.stdout_tail.len() + detail.stderr_tail.len());
            ended.push(report.clone());
            if ended.len() >= REPORTS_MAX || bytes >= REPORTS_BYTES_MAX {
                let ended = std::mem::take(&mut ended);
                self.send(worker_message::Kind::Reports(Reports { started: Vec::new(), ended }));
                bytes = 0;
            }
        }
        if !ended.is_empty() {
            self.send(worker_message::Kind::Reports(Reports { started: Vec::new(), ended }));
        }
    }

    fn heartbeat(&self, sent: Monotonic) {
        let leaving = self.leaving.into();
        self.send(worker_message::Kind::Heartbeat(Heartbeat { sent_micros: sent.0, leaving }));
    }

    /// Sends if there is somebody to send to. What is lost is said again in the next session.
    fn send(&self, kind: worker_message::Kind) {
        if let Some(outgoing) = &self.outgoing {
            drop(outgoing.send(WorkerMessage { kind: Some(kind) }));
        }
    }
}

/// Whether what has ended may wait for more to end: while no cpu idles for want of the next task several ends in one message cost little
/// more than one. That is so while more short programs run than there are cpus, and at most as many wait as still run; or while others
/// are here that run next, and at most as many wait.
const fn may_gather(ended: usize, young: usize, waiting: usize, cpus: usize) -> bool {
    (young > cpus && ended < young) || (young > 0 && ended < waiting)
}

fn has_own_dir(assignment: &Assignment) -> bool {
    let Some(Action { kind: Some(action::Kind::Command(command)) }) = &assignment.action else {
        return false;
    };
    command.cwd.is_empty()
}

/// Lets go of an attempt's directory. What was left in it is removed where nobody waits for it.
fn release_dir(host: &Host, id: AttemptId) {
    if let Some(dir) = host.work_dirs.release(id) {
        drop(tokio::task::spawn_blocking(move || fs::remove_dir_all(dir)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_gathered_while_no_cpu_wants_for_the_next_task() {
        assert!(!may_gather(1, 1, 0, 2), "a cpu would idle");
        assert!(!may_gather(1, 2, 0, 2), "a cpu will idle when the next one ends");
        assert!(may_gather(1, 3, 0, 2));
        assert!(may_gather(15, 17, 0, 2));
        assert!(!may_gather(16, 16, 0, 2), "half have ended");
        assert!(!may_gather(17, 16, 0, 2));
        assert!(may_gather(1, 1, 2, 2), "the next ones are here");
        assert!(!may_gather(2, 1, 2, 2), "they will soon have ended, too");
        assert!(!may_gather(0, 0, 1, 2), "nothing runs: why do they wait?");
    }
}
