//! Simulated workers: the real machine behind a shell of simulated processes.

use std::collections::BTreeMap;

use rota_core::command::{AttemptEnd, AttemptReport, Failure, FailureKind, NodeSpec};
use rota_types::{ActionKinds, AttemptId, Labels, Monotonic, NodeId, Resources, Span, Timestamp};
use rota_worker_core::{Input, Machine, Output, StopReason};

use crate::options::{Fault, Options};
use crate::rng::Rng;
use crate::truth::End;
use crate::world::{ConnId, Happening, MILLI, ToServer, ToWorker, World};

/// The longest that a kill takes to take effect.
const KILL_MAX: u64 = 20 * MILLI;
/// Time between the request to stop and the kill when a program ran too long.
const TIMEOUT_GRACE: Span = Span::from_millis(200);

/// A worker process and its host.
pub(crate) struct Worker {
    pub(crate) name: Box<str>,
    pub(crate) up: bool,
    /// Counts starts of the worker process.
    pub(crate) life: u64,
    pub(crate) incarnation: u64,
    pub(crate) conn: Option<ConnId>,
    /// Whether the server has answered on this connection.
    pub(crate) welcomed: bool,
    pub(crate) unreachable_until: u64,
    /// The server whose side it is on while servers are cut off from each other.
    pub(crate) side: Option<usize>,
    /// Which server it speaks to next.
    pub(crate) home: usize,
    /// It will not be mended.
    pub(crate) gone: bool,
    /// What has to wait until the worker goes on.
    pub(crate) deferred: Vec<Happening>,
    pub(crate) capacity: Resources,
    pub(crate) attempts_max: u32,
    machine: Machine,
    labels: Labels,
    paused_since: Option<u64>,
    /// When it stood still, the last few times.
    pauses: Vec<(u64, u64)>,
    processes: BTreeMap<AttemptId, Process>,
    reports: BTreeMap<AttemptId, AttemptReport>,
    timeouts: BTreeMap<AttemptId, Span>,
    sent_before: BTreeMap<AttemptId, ConnId>,
    /// How much faster its clock runs, in millionths.
    drift: u64,
    alarm: u64,
}

/// A process that runs.
struct Process {
    started_at: Timestamp,
    ignores_term: bool,
    stop: Option<StopReason>,
    timed_out: bool,
}

/// What a program will do, drawn from its attempt's id.
struct Script {
    micros: Option<u64>,
    end: End,
    ignores_term: bool,
}

impl Worker {
    pub(crate) fn new(number: usize, options: &Options) -> Self {
        let mut rng = Rng::of(options.seed, 100 + number as u64);
        let mut capacity = Resources::new(rng.between(1, 6) * 1_000, rng.between(1, 8) << 30);
        if rng.chance(40) {
            capacity.named.insert("gpu".into(), rng.between(1, 3) * 1_000);
        }
        let zone = if rng.chance(50) { "a" } else { "b" };
        Self {
            name: format!("node{number}").into(),
            up: false,
            life: 0,
            incarnation: 0,
            conn: None,
            welcomed: false,
            unreachable_until: 0,
            side: None,
            home: number,
            gone: false,
            deferred: Vec::new(),
            capacity,
            attempts_max: u32::try_from(rng.between(1, 8)).unwrap_or(1),
            machine: Machine::default(),
            labels: [("zone".into(), zone.into())].into(),
            paused_since: None,
            pauses: Vec::new(),
            processes: BTreeMap::new(),
            reports: BTreeMap::new(),
            timeouts: BTreeMap::new(),
            sent_before: BTreeMap::new(),
            drift: rng.below(1_000),
            alarm: 0,
        }
    }

    pub(crate) fn spec(&self) -> NodeSpec {
        NodeSpec {
            name: self.name.clone(),
            incarnation: self.incarnation,
            capacity: self.capacity.clone(),
            attempts_max: self.attempts_max,
            labels: self.labels.clone(),
            version: "sim".into(),
            runs: ActionKinds::EVERY,
            stages: true,
        }
    }

    pub(crate) fn is_life(&self, life: u64) -> bool {
        self.up && self.life == life
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused_since.is_some()
    }

    pub(crate) fn has_processes(&self) -> bool {
        !self.processes.is_empty()
    }

    /// Whether it has nothing left to do.
    pub(crate) fn is_idle(&self) -> bool {
        let nothing =
            self.machine.running().next().is_none() && self.machine.unsettled().next().is_none();
        let connected = self.up && !self.is_paused() && self.conn.is_some() && self.welcomed;
        self.gone || connected && nothing
    }

    /// What the worker's own clock shows at a moment.
    pub(crate) fn clock(&self, at: u64) -> Monotonic {
        Monotonic(at.saturating_add(at / 1_000_000 * self.drift))
    }

    /// How long until the worker's own clock shows `until`.
    fn delay(&self, now: u64, until: Monotonic) -> u64 {
        until.since(self.clock(now)).0
    }

    /// Whether the worker stood still within `span` before `now`.
    pub(crate) fn paused_lately(&self, now: u64, span: u64) -> bool {
        let from = now.saturating_sub(span);
        self.is_paused() || self.pauses.iter().any(|(_, until)| *until >= from)
    }
}

impl World {
    pub(crate) fn worker_start(&mut self, worker: usize) {
        let incarnation = self.rng.draw();
        let startable = |state: &&mut Worker| !state.up && !state.gone;
        let Some(state) = self.workers.get_mut(worker).filter(startable) else { return };
        state.up = true;
        state.life = state.life.saturating_add(1);
        state.incarnation = incarnation;
        state.machine = Machine::default();
        self.reconnect(worker);
    }

    /// The worker process is killed; its processes die with it.
    pub(crate) fn worker_crash(&mut self, worker: usize) {
        let Some(state) = self.workers.get_mut(worker).filter(|state| state.up) else { return };
        state.up = false;
        state.paused_since = None;
        state.deferred.clear();
        state.reports.clear();
        state.timeouts.clear();
        state.sent_before.clear();
        let orphans: Vec<AttemptId> = std::mem::take(&mut state.processes).into_keys().collect();
        for attempt in orphans {
            self.truth.end(attempt, End::Orphaned);
        }
        if let Some(id) = self.workers[worker].conn.take() {
            self.break_conn(id, worker);
        }
    }

    pub(crate) fn pause(&mut self, worker: usize) {
        if let Some(state) = self.workers.get_mut(worker).filter(|state| state.up) {
            state.paused_since.get_or_insert(self.now);
        }
    }

    pub(crate) fn resume(&mut self, worker: usize) {
        let Some(state) = self.workers.get_mut(worker) else { return };
        let Some(since) = state.paused_since.take() else { return };
        state.pauses.push((since, self.now));
        let lost = self.oracle.state().node_named(&state.name).is_some_and(|(_, node)| node.lost);
        if lost && !state.processes.is_empty() {
            self.counters.note("worker comes back as a zombie");
        }
        for happening in std::mem::take(&mut state.deferred) {
            self.at(self.now, happening);
        }
        let life = self.workers[worker].life;
        let alarm = self.workers[worker].alarm;
        self.at(self.now, Happening::WorkerWake { worker, life, alarm });
    }

    pub(crate) fn worker_wakes(&mut self, worker: usize, life: u64, alarm: u64) {
        let state = &self.workers[worker];
        if state.is_life(life) && state.alarm == alarm {
            self.step_worker(worker, Input::Woke);
        }
    }

    pub(crate) fn worker_hears(&mut self, worker: usize, id: ConnId, message: ToWorker) {
        let broken = self.conns.get(&id).is_none_or(|conn| conn.broken);
        let state = &mut self.workers[worker];
        if broken || state.conn != Some(id) {
            return;
        }
        let now = self.now;
        self.conns.entry(id).and_modify(|conn| conn.heard_at = now);
        match message {
            ToWorker::Welcome(session) => {
                state.welcomed = true;
                self.step_worker(worker, Input::SessionOpened(session));
            }
            ToWorker::Desired(desired, timeouts) => {
                state.timeouts.extend(timeouts);
                self.step_worker(worker, Input::Desired(desired));
            }
            ToWorker::Ack { sent } => self.step_worker(worker, Input::HeartbeatAck { sent }),
            ToWorker::End => {
                self.worker_loses(worker, id);
                self.server_detaches(id);
            }
        }
    }

    /// Tells the machine, and does what it wants.
    pub(crate) fn step_worker(&mut self, worker: usize, input: Input) {
        let state = &mut self.workers[worker];
        if matches!(input, Input::SessionClosed) {
            state.welcomed = false;
        }
        let now = state.clock(self.now);
        for output in state.machine.step(input, now) {
            self.worker_does(worker, output);
        }
    }

    fn worker_does(&mut self, worker: usize, output: Output) {
        match output {
            Output::Launch(attempt) => self.launch(worker, attempt),
            Output::Stop { attempt, grace, reason } => self.stop(worker, attempt, (grace, reason)),
            Output::Skip { attempt, reason } => {
                if reason == StopReason::Recalled {
                    return self.prepare_report(worker, attempt, (AttemptEnd::Recalled, None));
                }
                if reason != StopReason::Requested {
                    self.fail(format!("{attempt} is live although its report was recorded"));
                }
                self.counters.note("launch skipped because of a stop");
                self.prepare_report(worker, attempt, (AttemptEnd::Stopped, None));
            }
            Output::Report(attempts) => self.report(worker, &attempts),
            Output::Heartbeat { sent } => {
                if let Some(conn) = self.workers[worker].conn {
                    self.send_server(conn, ToServer::Heartbeat { sent });
                }
            }
            Output::Forget(attempts) => {
                for attempt in attempts {
                    self.workers[worker].reports.remove(&attempt);
                    self.workers[worker].timeouts.remove(&attempt);
                }
            }
            Output::Reconnect => self.fail("a worker took the only log for another one".to_owned()),
            Output::WakeAt(until) => {
                let state = &mut self.workers[worker];
                state.alarm = state.alarm.saturating_add(1);
                let (life, alarm) = (state.life, state.alarm);
                let delay = state.delay(self.now, until).saturating_add(1);
                self.after(delay, Happening::WorkerWake { worker, life, alarm });
            }
        }
    }

    fn script(&self, attempt: AttemptId) -> Script {
        let AttemptId { task, number } = attempt;
        let part = task.job.0 << 40 ^ u64::from(task.index) << 12 ^ u64::from(number);
        let mut rng = Rng::of(self.options.seed ^ 0x5C, part);
        let faults = self.options.faults;
        let mut curse =
            Rng::of(self.options.seed ^ 0xBAD, task.job.0 << 32 ^ u64::from(task.index));
        let end = if faults.has(Fault::Poison) && curse.chance(3) {
            End::Orphaned
        } else if faults.has(Fault::Failing) && rng.chance(40) {
            End::Failed(*rng.pick(&[
                FailureKind::Exit(1),
                FailureKind::Exit(75),
                FailureKind::Signal(11),
                FailureKind::Http(Some(503)),
                FailureKind::Http(None),
                FailureKind::Start,
            ]))
        } else {
            End::Succeeded
        };
        let endless = faults.has(Fault::Endless) && rng.chance(10);
        let micros = rng.spread(100, 8_000 * MILLI);
        let micros =
            if endless && self.finale { Some(micros) } else { (!endless).then_some(micros) };
        Script { micros, end, ignores_term: faults.has(Fault::Stubborn) && rng.chance(40) }
    }

    fn launch(&mut self, worker: usize, attempt: AttemptId) {
        let verdict = self.oracle.may_start(attempt, &self.workers[worker].name);
        self.judge(verdict);
        match self.truth.start(attempt, worker, self.now) {
            Ok(others) => self.explain_overlap(attempt, others),
            Err(what) => self.fail(what),
        }
        let Script { micros, end, ignores_term } = self.script(attempt);
        let started_at = self.wall(None);
        let state = &mut self.workers[worker];
        let life = state.life;
        let process = Process { started_at, ignores_term, stop: None, timed_out: false };
        state.processes.insert(attempt, process);
        if let Some(timeout) = state.timeouts.get(&attempt).copied() {
            self.after(timeout.0, Happening::TimeoutDue { worker, life, attempt });
        }
        let delay = if end == End::Failed(FailureKind::Start) { Some(50) } else { micros };
        if let Some(delay) = delay {
            self.after(delay, Happening::ProcessOver { worker, life, attempt, end });
        }
    }

    /// Two processes of one task at a time: only a worker that stood still may be the cause.
    fn explain_overlap(&mut self, attempt: AttemptId, others: Vec<crate::truth::Run>) {
        let span = self.options.lease_millis.saturating_mul(3 * MILLI);
        for other in others {
            let paused = self.workers[other.worker].paused_lately(self.now, span);
            if paused {
                self.counters.note("two processes of one task under a pause");
            } else {
                self.fail(format!(
                    "attempt {attempt} starts while another process of its task runs on worker {} since {}",
                    other.worker, other.started
                ));
            }
        }
    }

    fn stop(&mut self, worker: usize, attempt: AttemptId, (grace, reason): (Span, StopReason)) {
        let life = self.workers[worker].life;
        let Some(process) = self.workers[worker].processes.get_mut(&attempt) else { return };
        process.stop.get_or_insert(reason);
        let ignores = process.ignores_term;
        if reason == StopReason::Fenced {
            self.counters.note("worker fences itself");
        }
        self.end_process((worker, life), attempt, (grace, ignores, End::Stopped));
    }

    /// Asks a process to end, and kills it after the grace.
    fn end_process(&mut self, who: (usize, u64), attempt: AttemptId, how: (Span, bool, End)) {
        let ((worker, life), (grace, ignores, end)) = (who, how);
        if !ignores && grace > Span::ZERO {
            let delay = self.rng.spread(100, 300 * MILLI);
            self.after(delay, Happening::ProcessOver { worker, life, attempt, end });
        }
        self.after(grace.0, Happening::KillDue { worker, life, attempt, end });
    }

    pub(crate) fn kill_due(&mut self, (worker, life): (usize, u64), attempt: AttemptId, end: End) {
        let state = &self.workers[worker];
        let Some(process) = state.processes.get(&attempt).filter(|_| state.is_life(life)) else {
            return;
        };
        if process.ignores_term {
            self.counters.note("kill after ignored request");
        }
        let delay = self.rng.spread(50, KILL_MAX);
        self.after(delay, Happening::ProcessOver { worker, life, attempt, end });
    }

    pub(crate) fn timeout_due(&mut self, (worker, life): (usize, u64), attempt: AttemptId) {
        let state = &mut self.workers[worker];
        if !state.is_life(life) {
            return;
        }
        let Some(process) =
            state.processes.get_mut(&attempt).filter(|process| process.stop.is_none())
        else {
            return;
        };
        process.timed_out = true;
        let ignores = process.ignores_term;
        self.counters.note("timeout");
        let end = End::Failed(FailureKind::Timeout);
        self.end_process((worker, life), attempt, (TIMEOUT_GRACE, ignores, end));
    }

    /// A process is over, whatever its worker does at the moment.
    pub(crate) fn process_over(
        &mut self,
        (worker, life): (usize, u64),
        attempt: AttemptId,
        end: End,
    ) {
        let state = &self.workers[worker];
        if !state.is_life(life) || !state.processes.contains_key(&attempt) {
            return;
        }
        if self.truth.run(attempt).is_some_and(|run| run.end.is_some()) {
            return;
        }
        if end == End::Orphaned {
            self.counters.note(Fault::Poison.name());
            self.worker_crash(worker);
            let pause = self.rng.spread(10 * MILLI, 1_000 * MILLI);
            return self.after(pause, Happening::WorkerStart(worker));
        }
        self.truth.end(attempt, end);
        let delay = self.rng.spread(10, 5 * MILLI);
        self.after(delay, Happening::NoticeEnd { worker, life, attempt, end });
    }

    /// The worker finds that a process is over.
    pub(crate) fn notice_end(
        &mut self,
        (worker, life): (usize, u64),
        attempt: AttemptId,
        end: End,
    ) {
        let state = &mut self.workers[worker];
        if !state.is_life(life) {
            return;
        }
        let Some(process) = state.processes.remove(&attempt) else { return };
        let end = match end {
            End::Succeeded => AttemptEnd::Succeeded,
            End::Failed(kind) => AttemptEnd::Failed(Failure { kind, message: "".into() }),
            End::Stopped | End::Orphaned => AttemptEnd::Stopped,
        };
        if process.stop == Some(StopReason::Requested) && end != AttemptEnd::Stopped {
            self.counters.note("cancel races the end");
        }
        self.prepare_report(worker, attempt, (end, Some(process.started_at)));
        self.step_worker(worker, Input::Ended(vec![attempt]));
    }

    fn prepare_report(
        &mut self,
        worker: usize,
        attempt: AttemptId,
        (end, started_at): (AttemptEnd, Option<Timestamp>),
    ) {
        let report = AttemptReport {
            attempt,
            node: NodeId(0),
            end,
            started_at,
            ended_at: self.wall(None),
            detail: [].into(),
        };
        self.workers[worker].reports.insert(attempt, report);
    }

    fn report(&mut self, worker: usize, attempts: &[AttemptId]) {
        let state = &mut self.workers[worker];
        let Some(conn) = state.conn else { return };
        let mut reports = Vec::new();
        for attempt in attempts {
            let Some(report) = state.reports.get(attempt) else {
                let what = format!("{} has no report of {attempt}", state.name);
                return self.fail(what);
            };
            reports.push(report.clone());
            if state.sent_before.insert(*attempt, conn).is_some_and(|old| old != conn) {
                self.counters.note("report repeated in a new session");
            }
        }
        self.send_server(conn, ToServer::Reports(reports));
    }

    /// Programs that would never end do so now: only their number of lives is bounded otherwise.
    pub(crate) fn end_endless(&mut self) {
        for worker in 0..self.workers.len() {
            let life = self.workers[worker].life;
            let running: Vec<AttemptId> = self.workers[worker].processes.keys().copied().collect();
            for attempt in running {
                let delay = self.rng.spread(MILLI, 5_000 * MILLI);
                let end = End::Succeeded;
                self.after(delay, Happening::ProcessOver { worker, life, attempt, end });
            }
        }
    }
}
