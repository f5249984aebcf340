//! The world: servers, their workers, the clients, what connects them, and simulated time.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use rota_core::command::{AttemptReport, NodeSpec, Outcome};
use rota_ports::FrameSeq;
use rota_server_core::Pending;
use rota_types::{AttemptId, LogIndex, Monotonic, NodeId, ServerId, Span};
use rota_wire::worker::Leaving;
use rota_worker_core::{Desired, Session};

use crate::client::{Client, Request};
use crate::cloud::Shared;
use crate::counters::Counters;
use crate::options::{Fault, Options};
use crate::oracle::Oracle;
use crate::peers::Bytes;
use crate::rng::Rng;
use crate::server::Host;
use crate::truth::{End, Truth};
use crate::worker::Worker;

/// One millisecond of simulated time.
pub(crate) const MILLI: u64 = 1_000;
/// Happenings in one run: beyond, something talks to itself without end.
const HAPPENINGS_MAX: u64 = 5_000_000;

/// Names a connection between a worker and the server.
pub(crate) type ConnId = u64;

/// Something that happens at a moment.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    ClientActs(usize),
    RequestArrives { server: usize, number: usize, forwarded: bool },
    LateRequest { server: usize, number: usize },
    AnswerArrives(usize, Told),
    ClientWaited { request: usize, tries: u32 },
    ServerCrash { server: usize, power: bool },
    ServerStart(usize),
    ServerResume(usize),
    Synced { server: usize, boot: u64, upto: FrameSeq },
    ServerWake { server: usize, boot: u64, at: u64 },
    PeerMessage { to: usize, boot: u64, from: ServerId, message: Bytes },
    Linked { from: usize, to: usize },
    Image { server: usize, boot: u64, from: ServerId, least: LogIndex },
    CloudStirs { server: usize, boot: u64 },
    Election,
    MendServers(u64),
    Replace(usize),
    HealAll,
    Leave { worker: usize, life: u64, gone: bool },
    ToServer(ConnId, ToServer),
    StrayReports { server: usize, node: NodeId, reports: Vec<AttemptReport> },
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
pub(crate) enum Told {
    /// What came of its request, and at which entry.
    Outcome(LogIndex, Outcome),
    /// The state at this entry.
    Seen(LogIndex),
    /// Nothing was done, and nothing will be.
    NotDone,
    /// Nobody knows.
    Unknown,
}

/// What a worker says.
#[derive(Clone, Debug)]
pub(crate) enum ToServer {
    Hello {
        spec: NodeSpec,
    },
    Heartbeat {
        sent: Monotonic,
    },
    /// It is about to go.
    Leaving(Leaving),
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
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) worker: usize,
    pub(crate) server: usize,
    /// The server process at its other end.
    pub(crate) boot: u64,
    /// The worker process at this end.
    pub(crate) incarnation: u64,
    /// When the worker asked to be let in, by its own clock.
    pub(crate) hello_sent: Monotonic,
    /// What the server has to tell.
    pub(crate) pending: Option<Rc<RefCell<Pending>>>,
    /// When the worker last heard something.
    pub(crate) heard_at: u64,
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
    pub(crate) hosts: Vec<Host>,
    pub(crate) cloud: Shared,
    /// What one server says does not reach another.
    pub(crate) cuts: BTreeSet<(usize, usize)>,
    /// When the last message from one server to another arrives.
    pub(crate) arrived: BTreeMap<(usize, usize), u64>,
    /// Counts partitions.
    pub(crate) partition: u64,
    /// Servers with a link between them, the smaller number first.
    pub(crate) linked: BTreeSet<(usize, usize)>,
    /// How many of a hundred messages between servers are lost.
    pub(crate) loss: u64,
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
    /// What was committed when only a majority was mended, and whether all are by now.
    pub(crate) core_began: LogIndex,
    pub(crate) healed: bool,
    pub(crate) settled: Option<(u64, u64)>,
    pub(crate) ended: bool,
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
            hosts: (0..options.servers as usize).map(|at| Host::new(at, &options)).collect(),
            cloud: Shared::new(seed),
            cuts: BTreeSet::new(),
            arrived: BTreeMap::new(),
            partition: 0,
            linked: BTreeSet::new(),
            loss: 3,
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
            core_began: LogIndex(0),
            healed: false,
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
        self.cloud.lock().busy = self.options.faults.has(Fault::LogBusy);
        for server in 0..self.hosts.len() {
            self.server_start(server);
        }
        self.elect();
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
        let World { failure, options, now, trace, oracle, truth, mut counters, cloud, .. } = self;
        counters.merge(&oracle.counters);
        counters.add("session ran out", oracle.kv.expired);
        counters.add("lock passed on", oracle.kv.passed);
        let (kept, lost) = cloud.lock().resolved;
        counters.add("crash keeps a proposal that nobody was told of", kept);
        counters.add("crash loses a proposal that was taken", lost);
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
        if let Some(server) = self.needs_server(&happening)
            && let Some(paused) = self.hosts.get_mut(server).filter(|host| host.is_paused)
        {
            paused.deferred.push(happening);
            return;
        }
        match happening {
            Happening::ClientActs(client) => self.client_acts(client),
            Happening::RequestArrives { server, number, forwarded } => {
                self.request_arrives(server, number, forwarded);
            }
            Happening::LateRequest { server, number } => self.late_request_arrives(server, number),
            Happening::AnswerArrives(request, told) => self.answer_arrives(request, told),
            Happening::ClientWaited { request, tries } => self.client_waited(request, tries),
            Happening::ToServer(conn, message) => self.server_hears(conn, message),
            Happening::StrayReports { server, node, reports } => {
                self.stray_reports(server, node, reports);
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
            Happening::HealAll => self.heal_all(),
            Happening::Leave { worker, life, gone } => self.leaves(worker, life, gone),
            other => self.happen_to_servers(other),
        }
    }

    fn happen_to_servers(&mut self, happening: Happening) {
        match happening {
            Happening::ServerCrash { server, power } => self.server_crash(server, power),
            Happening::ServerStart(server) => self.server_start(server),
            Happening::ServerResume(server) => self.server_resume(server),
            Happening::Synced { server, boot, upto } => self.synced(server, boot, upto),
            Happening::ServerWake { server, boot, at } => self.server_wakes(server, boot, at),
            Happening::PeerMessage { to, boot, from, message } => {
                self.peer_message(to, boot, from, message);
            }
            Happening::Linked { from, to } => self.linked(from, to),
            Happening::Image { server, boot, from, least } => {
                self.image_arrives((server, boot), from, least);
            }
            Happening::CloudStirs { server, boot } => self.cloud_stirs(server, boot),
            Happening::Election => self.elect(),
            Happening::MendServers(number) => {
                if number == self.partition {
                    self.mend_servers();
                }
            }
            Happening::Replace(server) => self.replace(server),
            other => self.fail(format!("nobody takes {other:?}")),
        }
    }

    /// The server that must be awake for this to happen.
    fn needs_server(&self, happening: &Happening) -> Option<usize> {
        match happening {
            Happening::RequestArrives { server, .. }
            | Happening::LateRequest { server, .. }
            | Happening::Synced { server, .. }
            | Happening::ServerWake { server, .. }
            | Happening::PeerMessage { to: server, .. }
            | Happening::Linked { to: server, .. }
            | Happening::Image { server, .. }
            | Happening::CloudStirs { server, .. }
            | Happening::StrayReports { server, .. } => Some(*server),
            Happening::ToServer(conn, _) | Happening::Detach(conn) => {
                self.conns.get(conn).map(|conn| conn.server)
            }
            _ => None,
        }
    }

    /// A server goes on as if nothing had happened.
    pub(crate) fn server_resume(&mut self, server: usize) {
        let host = &mut self.hosts[server];
        if !std::mem::take(&mut host.is_paused) {
            return;
        }
        host.resumed_at = self.now;
        for happening in std::mem::take(&mut host.deferred) {
            self.at(self.now, happening);
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
        _ => None,
    }
}
