//! The world: one server, its workers, the clients, what connects them, and simulated time.

use std::collections::BTreeMap;

use rota_control::Tag;
use rota_core::command::{AttemptReport, NodeSpec, Outcome};
use rota_types::{AttemptId, Monotonic, NodeId, Span};
use rota_worker_core::{Desired, Session};

use crate::client::{Client, Request};
use crate::counters::Counters;
use crate::log::SimLog;
use crate::options::{Fault, Options};
use crate::oracle::Oracle;
use crate::rng::Rng;
use crate::server::Server;
use crate::truth::{End, Truth};
use crate::worker::Worker;

/// One millisecond of simulated time.
pub(crate) const MILLI: u64 = 1_000;
/// The longest that the world may need to settle once nothing goes wrong any more.
const SETTLE_MAX: u64 = 3_600_000 * MILLI;
/// How long the settled world is watched: nothing may be proposed in that time.
const QUIET: u64 = 120_000 * MILLI;
/// How long repeated requests may be on their way when everything else has settled.
const SLACK: u64 = 10_000 * MILLI;
/// Happenings in one run: beyond, something talks to itself without end.
const HAPPENINGS_MAX: u64 = 5_000_000;

/// Names a connection between a worker and the server.
pub(crate) type ConnId = u64;

/// Something that happens at a moment.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    ClientActs(usize),
    RequestArrives(usize),
    LateRequest(usize),
    AnswerArrives(usize, Answer),
    ClientWaited { request: usize, tries: u32 },
    ServerCrash,
    ServerStart,
    LogSynced { boot: u64, count: usize },
    ServerWake { boot: u64, at: Monotonic },
    Answered { boot: u64, tag: Tag },
    ToServer(ConnId, ToServer),
    StrayReports(NodeId, Vec<AttemptReport>),
    Detach(ConnId),
    ToWorker(usize, ConnId, ToWorker),
    ConnLost(usize, ConnId),
    Connect { worker: usize, life: u64, began: Monotonic },
    Patience { worker: usize, conn: ConnId },
    WorkerWake { worker: usize, life: u64, alarm: u64 },
    ProcessOver { worker: usize, life: u64, attempt: AttemptId, end: End },
    NoticeEnd { worker: usize, life: u64, attempt: AttemptId, end: End },
    KillDue { worker: usize, life: u64, attempt: AttemptId, end: End },
    TimeoutDue { worker: usize, life: u64, attempt: AttemptId },
    WorkerCrash(usize),
    WorkerStart(usize),
    Resume(usize),
    Trouble,
    Finale,
    Inspect,
}

/// What a client hears.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Outcome(Outcome),
    Busy,
}

/// What a worker says.
#[derive(Clone, Debug)]
pub(crate) enum ToServer {
    Hello {
        spec: NodeSpec,
        sent: Monotonic,
    },
    Heartbeat {
        sent: Monotonic,
    },
    /// The node is filled in by the server, from the session.
    Reports(Vec<AttemptReport>),
}

/// What the server says to a worker.
#[derive(Clone, Debug)]
pub(crate) enum ToWorker {
    Welcome(Session),
    Desired(Desired, Vec<(AttemptId, Span)>),
    Ack { sent: Monotonic },
    End,
}

/// A connection.
#[derive(Clone, Debug)]
pub(crate) struct Conn {
    pub(crate) worker: usize,
    pub(crate) node: Option<NodeId>,
    pub(crate) broken: bool,
    /// Streams keep their order: nothing arrives before what was sent earlier.
    pub(crate) to_server: u64,
    pub(crate) to_worker: u64,
}

/// A run that went wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What to replay.
    pub options: Options,
    /// When, in simulated microseconds.
    pub at: u64,
    /// What was found.
    pub what: String,
    /// Everything that happened, if it was asked for.
    pub trace: Vec<String>,
}

/// A run that went well.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Simulated microseconds.
    pub simulated: u64,
    /// Entries of the log.
    pub entries: u64,
    /// Processes that were started.
    pub processes: u64,
    /// How often an invariant was evaluated.
    pub checks: u64,
    /// Faults that were injected, and rare situations that were reached.
    pub counters: Counters,
    /// Everything that happened, if it was asked for.
    pub trace: Vec<String>,
}

/// Everything there is.
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) now: u64,
    pub(crate) rng: Rng,
    pub(crate) net_rng: Rng,
    pub(crate) server: Server,
    pub(crate) log: SimLog,
    pub(crate) workers: Vec<Worker>,
    pub(crate) conns: BTreeMap<ConnId, Conn>,
    pub(crate) next_conn: ConnId,
    pub(crate) clients: Vec<Client>,
    pub(crate) requests: Vec<Request>,
    pub(crate) oracle: Oracle,
    pub(crate) truth: Truth,
    pub(crate) counters: Counters,
    /// Faults are over; whatever waits has to come to its end.
    pub(crate) finale: bool,
    /// Late messages that are still on their way.
    pub(crate) late: u64,
    settled: Option<(u64, u64)>,
    ended: bool,
    queue: BTreeMap<(u64, u64), Happening>,
    next_happening: u64,
    failure: Option<String>,
    trace: Vec<String>,
    keep_trace: bool,
}

impl World {
    pub(crate) fn new(options: Options, keep_trace: bool) -> Self {
        let seed = options.seed;
        let mut world = Self {
            now: 1_000 * MILLI,
            rng: Rng::of(seed, 2),
            net_rng: Rng::of(seed, 3),
            server: Server::new(&options),
            log: SimLog::default(),
            workers: Vec::new(),
            conns: BTreeMap::new(),
            next_conn: 1,
            clients: Vec::new(),
            requests: Vec::new(),
            oracle: Oracle::new(),
            truth: Truth::default(),
            counters: Counters::default(),
            finale: false,
            late: 0,
            settled: None,
            ended: false,
            queue: BTreeMap::new(),
            next_happening: 0,
            failure: None,
            trace: Vec::new(),
            keep_trace,
            options,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.server_start();
        for worker in 0..self.options.workers as usize {
            let new = Worker::new(worker, &self.options);
            self.workers.push(new);
            let delay = self.rng.spread(MILLI, 2_000 * MILLI);
            self.after(delay, Happening::WorkerStart(worker));
        }
        for client in 0..self.options.clients as usize {
            self.clients.push(Client::new(client, &self.options));
            let delay = self.rng.spread(MILLI, 1_000 * MILLI);
            self.after(delay, Happening::ClientActs(client));
        }
        if self.options.faults.iter().next().is_some() {
            self.after(100 * MILLI, Happening::Trouble);
        }
        let trouble = self.options.trouble_millis.saturating_mul(MILLI);
        self.after(trouble, Happening::Finale);
    }

    /// Runs until everything has settled or something is wrong.
    pub(crate) fn run(mut self) -> Result<Report, Failure> {
        while !self.ended && self.failure.is_none() {
            let Some(((at, _), happening)) = self.queue.pop_first() else {
                self.fail("nothing is left to happen, and the world has not settled".into());
                break;
            };
            self.now = at;
            if self.next_happening > HAPPENINGS_MAX {
                self.fail(format!("more than {HAPPENINGS_MAX} happenings: something never rests"));
            }
            self.note_trace(|| format!("{happening:?}"));
            self.happen(happening);
        }
        let World { failure, options, now, trace, oracle, truth, mut counters, .. } = self;
        counters.merge(&oracle.counters);
        match failure {
            Some(what) => Err(Failure { options, at: now, what, trace }),
            None => Ok(Report {
                simulated: now,
                entries: oracle.entries(),
                processes: truth.started() as u64,
                checks: oracle.checks,
                counters,
                trace,
            }),
        }
    }

    fn happen(&mut self, happening: Happening) {
        if let Some(worker) = waits_for(&happening)
            && let Some(paused) = self.workers.get_mut(worker).filter(|worker| worker.is_paused())
        {
            paused.deferred.push(happening);
            return;
        }
        match happening {
            Happening::ClientActs(client) => self.client_acts(client),
            Happening::RequestArrives(request) => self.request_arrives(request),
            Happening::LateRequest(request) => self.late_request_arrives(request),
            Happening::AnswerArrives(request, answer) => self.answer_arrives(request, answer),
            Happening::ClientWaited { request, tries } => self.client_waited(request, tries),
            Happening::ServerCrash => self.server_crash(),
            Happening::ServerStart => self.server_start(),
            Happening::LogSynced { boot, count } => self.log_synced(boot, count),
            Happening::ServerWake { boot, at } => self.server_wake(boot, at),
            Happening::Answered { boot, tag } => self.controller_answered(boot, tag),
            Happening::ToServer(conn, message) => self.server_hears(conn, message),
            Happening::StrayReports(node, reports) => {
                self.late = self.late.saturating_sub(1);
                self.propose_reports(node, reports);
            }
            Happening::Detach(conn) => self.server_detaches(conn),
            Happening::ToWorker(worker, conn, message) => self.worker_hears(worker, conn, message),
            Happening::ConnLost(worker, conn) => self.worker_loses(worker, conn),
            Happening::Connect { worker, life, began } => self.worker_connects(worker, life, began),
            Happening::Patience { worker, conn } => self.worker_gives_up(worker, conn),
            Happening::WorkerWake { worker, life, alarm } => self.worker_wakes(worker, life, alarm),
            Happening::ProcessOver { worker, life, attempt, end } => {
                self.process_over((worker, life), attempt, end);
            }
            Happening::NoticeEnd { worker, life, attempt, end } => {
                self.notice_end((worker, life), attempt, end);
            }
            Happening::KillDue { worker, life, attempt, end } => {
                self.kill_due((worker, life), attempt, end);
            }
            Happening::TimeoutDue { worker, life, attempt } => {
                self.timeout_due((worker, life), attempt);
            }
            Happening::WorkerCrash(worker) => self.worker_crash(worker),
            Happening::WorkerStart(worker) => self.worker_start(worker),
            Happening::Resume(worker) => self.resume(worker),
            Happening::Trouble => self.make_trouble(),
            Happening::Finale => self.begin_finale(),
            Happening::Inspect => self.inspect(),
        }
    }

    /// Lets something happen `delay` microseconds from now.
    pub(crate) fn after(&mut self, delay: u64, happening: Happening) {
        self.at(self.now.saturating_add(delay), happening);
    }

    /// Lets something happen at a moment, or now if that has passed.
    pub(crate) fn at(&mut self, at: u64, happening: Happening) {
        self.next_happening = self.next_happening.saturating_add(1);
        self.queue.insert((at.max(self.now), self.next_happening), happening);
    }

    /// Notes the first thing that is wrong; the run ends with it.
    pub(crate) fn fail(&mut self, what: String) {
        self.failure.get_or_insert(what);
    }

    /// Notes what an oracle found.
    pub(crate) fn judge(&mut self, verdict: Result<(), String>) {
        if let Err(what) = verdict {
            self.fail(what);
        }
    }

    pub(crate) fn note_trace(&mut self, line: impl FnOnce() -> String) {
        if self.keep_trace {
            let line = format!("{:>12} {}", self.now, line());
            self.trace.push(line);
        }
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        !self.finale && self.options.faults.has(fault)
    }

    /// Everything is mended; what is left has to come to its end by itself (L1).
    fn begin_finale(&mut self) {
        self.finale = true;
        if !self.server.up {
            self.at(self.now, Happening::ServerStart);
        }
        self.abandon_one();
        for worker in 0..self.workers.len() {
            if self.workers[worker].gone {
                continue;
            }
            self.workers[worker].unreachable_until = self.now;
            if self.workers[worker].is_paused() {
                self.resume(worker);
            }
            if !self.workers[worker].up {
                self.at(self.now, Happening::WorkerStart(worker));
            }
            self.repair(worker);
        }
        self.end_endless();
        self.after(1_000 * MILLI, Happening::Inspect);
    }

    /// Leaves one worker dead, or cut off, for ever: its tasks have to end elsewhere.
    fn abandon_one(&mut self) {
        let faulty = self.options.faults.has(Fault::WorkerCrash)
            || self.options.faults.has(Fault::Partition);
        if self.workers.len() < 2 || !faulty || self.rng.chance(50) {
            return;
        }
        let dead = self.options.faults.has(Fault::WorkerCrash) && self.rng.chance(60);
        if dead {
            self.worker_crash(0);
        }
        let worker = &mut self.workers[0];
        worker.gone = true;
        worker.unreachable_until = u64::MAX / 2;
        self.resume(0);
        self.counters.note("a worker never comes back");
    }

    /// Looks whether the world has settled, and mends what only an operator can.
    fn inspect(&mut self) {
        let began = self.options.trouble_millis.saturating_mul(MILLI);
        if self.now.saturating_sub(began) > SETTLE_MAX {
            let left: Vec<_> = self.server.state.jobs().map(|(id, _)| id.0).collect();
            self.fail(format!(
                "L1: not settled an hour after the last fault: jobs {left:?}, {} processes, {} requests open",
                self.truth.running(),
                self.requests.iter().filter(|request| !request.is_over()).count(),
            ));
            return;
        }
        let entries = self.oracle.entries();
        if !self.is_settled() {
            self.settled = None;
            self.operate();
        } else if let Some((since, entries_then)) = self.settled {
            if entries != entries_then && self.now.saturating_sub(since) < SLACK {
                self.settled = None; // a repeated request was still on its way
            } else if entries != entries_then {
                self.fail(format!(
                    "a settled world went on proposing: {entries_then} to {entries} entries"
                ));
            } else if self.now.saturating_sub(since) > QUIET {
                self.finish();
                return;
            }
        } else {
            self.settled = Some((self.now, entries));
        }
        self.after(2_000 * MILLI, Happening::Inspect);
    }

    fn is_settled(&self) -> bool {
        self.server.up
            && self.server.is_idle()
            && self.log.unsynced() == 0
            && self.server.state.job_count() == 0
            && self.truth.running() == 0
            && self.requests.iter().all(Request::is_over)
            && self.workers.iter().all(Worker::is_idle)
            && self.is_mended()
    }

    fn finish(&mut self) {
        let verdict = self.oracle.at_the_end(&self.requests);
        self.judge(verdict);
        self.ended = true;
    }
}

/// The worker that must be awake for this to happen.
fn waits_for(happening: &Happening) -> Option<usize> {
    match happening {
        Happening::ToWorker(worker, ..)
        | Happening::ConnLost(worker, _)
        | Happening::Connect { worker, .. }
        | Happening::Patience { worker, .. }
        | Happening::WorkerWake { worker, .. }
        | Happening::NoticeEnd { worker, .. }
        | Happening::KillDue { worker, .. }
        | Happening::TimeoutDue { worker, .. } => Some(*worker),
        Happening::ClientActs(_)
        | Happening::RequestArrives(_)
        | Happening::LateRequest(_)
        | Happening::AnswerArrives(..)
        | Happening::ClientWaited { .. }
        | Happening::ServerCrash
        | Happening::ServerStart
        | Happening::LogSynced { .. }
        | Happening::ServerWake { .. }
        | Happening::Answered { .. }
        | Happening::ToServer(..)
        | Happening::StrayReports(..)
        | Happening::Detach(_)
        | Happening::ProcessOver { .. }
        | Happening::WorkerCrash(_)
        | Happening::WorkerStart(_)
        | Happening::Resume(_)
        | Happening::Trouble
        | Happening::Finale
        | Happening::Inspect => None,
    }
}
