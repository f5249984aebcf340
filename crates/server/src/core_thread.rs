//! The one thread that owns the state: it gathers commands into entries, has them made durable, applies them, and tells everybody.
//!
//! It never waits for anything but its channel. Whoever was acknowledged was committed and applied before. On a server that leads, whoever
//! reads sees all of that: reads wait until a majority has confirmed that this server still leads, and so do the acknowledgements
//! of heartbeats, because a worker that believes a server that was overtaken would run what another one has started elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use rota_control::Controller;
use rota_core::State;
use rota_core::event::Event;
use rota_ports::{ChangeRefused, Frame, MessageBytes, Role, SnapshotMeta};
use rota_server_core::{
    Answer, Applied, Machine, Moment, Parts, Replica, Sessions, Shell, Standing,
};
use rota_store::history::History;
use rota_store::writer::LogWriter;
use rota_types::{LogIndex, ServerId, Steady};
use tokio::sync::oneshot;
use tracing::{debug, error, info, warn};

use crate::auth::Tokens;
use crate::clock::Clock;
use crate::config::OnFatal;
use crate::handle::{
    Caller, Consistency, Core, CoreError, Query, Request, SnapshotFailed, SnapshotResult,
};
use crate::metrics::{Launched, Metrics};
use crate::out::Out;
use crate::outbox::Outbox;
use crate::peers::{Doorkeeper, Peers};
use crate::ring::{Batch, Ring};
use crate::samples::{Judgement, Samples};
use crate::snapshots::Snapshots;

/// Requests that are taken in before the log is looked after again.
const DRAIN_MAX: usize = 4_096;
/// The longest sleep, so that a lost wake-up would be an annoyance and not an outage.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// What a read on the core thread sees.
pub(crate) struct View<'a> {
    pub(crate) state: &'a State,
    pub(crate) controller: &'a Controller,
    pub(crate) sessions: &'a Sessions<Arc<Outbox>>,
    pub(crate) launched: &'a Launched,
    pub(crate) metrics: &'a Metrics,
    pub(crate) replica: &'a Replica,
    /// Steady time now; the state's own stands still between entries.
    pub(crate) steady: Steady,
}

/// The thread's memory.
pub(crate) struct CoreThread {
    machine: Machine<Hands>,
    hands: Hands,
    stopping: Option<oneshot::Sender<LogIndex>>,
}

/// What carries out what the machine wants: everything it needs of this process.
pub(crate) struct Hands {
    pub(crate) clock: Clock,
    pub(crate) writer: LogWriter,
    /// `None` if this server runs alone.
    pub(crate) peers: Option<Arc<Peers>>,
    /// Whether this server speaks with the others.
    pub(crate) takes_part: bool,
    pub(crate) core: Core,
    pub(crate) ring: Arc<Ring>,
    pub(crate) history: Arc<History>,
    pub(crate) snapshots: Snapshots,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) samples: Samples,
    /// This server.
    pub(crate) own: ServerId,
    pub(crate) doorkeeper: Doorkeeper,
    pub(crate) launched: Launched,
    pub(crate) metrics: Metrics,
    pub(crate) on_fatal: OnFatal,
    pub(crate) end: Option<End>,
}

/// Why the thread ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was told to.
    Stopped,
    /// It can't go on.
    Failed,
    /// Another server's image is on the disk: the server has to start again with it.
    Replaced,
    /// This server must not take part in its cluster.
    Out(Out),
}

impl CoreThread {
    pub(crate) fn new(parts: Parts, mut hands: Hands) -> Self {
        let machine = Machine::new(parts, &mut hands);
        Self { machine, hands, stopping: None }
    }

    /// Runs until told to stop, until nobody can speak to it any more, or until it can't go on.
    pub(crate) fn run(mut self, requests: &Receiver<Request>) -> End {
        self.begin_if_open();
        self.settle();
        while self.hands.end.is_none() {
            match requests.recv_timeout(self.sleep()) {
                Ok(request) => {
                    self.handle(request);
                    self.drain(requests);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return End::Stopped,
            }
            self.machine.advance(&mut self.hands);
            self.settle();
            if self.stopping.is_some() && self.machine.is_idle() {
                break;
            }
        }
        self.machine.end_sessions();
        let index = self.machine.state().index();
        if let Some(stopped) = self.stopping.take() {
            let _sent = stopped.send(index);
        }
        info!(%index, "core thread ended");
        self.hands.end.unwrap_or(End::Stopped)
    }

    fn settle(&mut self) {
        self.machine.settle(&mut self.hands);
        if self.hands.end.is_none() {
            let (state, replica) = (self.machine.state(), self.machine.replica());
            self.hands.snapshots.begin_if_due(state, replica);
        }
    }

    fn sleep(&self) -> Duration {
        let until = self.machine.next_wake().map(|at| self.hands.clock.until(at));
        until.map_or(SLEEP_MAX, |until| until.min(SLEEP_MAX))
    }

    fn drain(&mut self, requests: &Receiver<Request>) {
        for _ in 0..DRAIN_MAX {
            match requests.try_recv() {
                Ok(request) => self.handle(request),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    fn handle(&mut self, request: Request) {
        let Self { machine, hands, .. } = self;
        match request {
            Request::Propose(proposal) => machine.propose(proposal, hands),
            Request::Query(query) => match query.consistency {
                Consistency::Stale => hands.serve(query, Some(machine)),
                Consistency::Linearizable => machine.read(query, hands),
            },
            Request::Persisted(frame, took) => {
                hands.metrics.note_sync(took, machine.steady(hands));
                machine.persisted(frame, hands);
                self.begin_if_open();
            }
            Request::LogFailed(reason) => self.fail(&reason),
            Request::Peer(from, messages) => machine.receive(from, &messages),
            Request::Sample(from, index, digest) => {
                hands.samples.note(index, from, digest);
                self.compare(index);
            }
            Request::LinkReset(peer) => machine.link_reset(peer),
            Request::Introduced(spec) => machine.introduced(spec, hands),
            Request::Found => hands.doorkeeper.gate.allow(),
            Request::Out(out) => hands.stay_out(out),
            Request::Expelled => hands.stay_out(Out::Removed { server: hands.own }),
            Request::Steer(steering, reply) => drop(reply.send(machine.steer(&steering))),
            Request::Snapshot(index, reply) => {
                hands.snapshots.want(index, reply, (machine.state(), machine.replica()));
            }
            Request::Fetched(Ok(())) => self.end(End::Replaced),
            Request::Fetched(Err(reason)) => {
                warn!(%reason, "could not get another server's state; it is asked for again");
                machine.install_failed();
            }
            Request::Attach(attach) => machine.attach(attach, hands),
            Request::Detach(node, session) => {
                if machine.detach(node, session) {
                    debug!(%node, "worker disconnected");
                }
            }
            Request::Heartbeat(beat) => machine.heartbeat(beat, hands),
            Request::Leaving { node, session, leaving } => {
                machine.leaving((node, session), leaving, hands);
            }
            Request::Started { node, session, launched } => {
                machine.heard(node, session, hands);
                for (attempt, at) in launched {
                    hands.launched.note(machine.state(), attempt, at);
                }
            }
            Request::Snapshotted(index, result) => self.snapshotted(index, result),
            Request::Stop(reply) => self.stopping = Some(reply),
            Request::Abandon => self.end(End::Failed),
        }
    }

    /// Begins to speak with the others, once. From now on this server must not forget that it did.
    fn begin_if_open(&mut self) {
        let Doorkeeper { memory, ground, gate } = &self.hands.doorkeeper;
        if self.hands.peers.is_none() || self.hands.takes_part || !gate.is_open() {
            return;
        }
        if memory.founded().is_none() {
            if let Err(error) = memory.found(*ground) {
                let reason = format!("cannot note that this server takes part: {error}");
                return self.fail(&reason);
            }
            info!(behind = ground.index, "this server takes part in its cluster");
            if ground.index > 0 {
                self.hands.snapshots.hurry();
            }
        }
        self.hands.takes_part = true;
        self.machine.began(&mut self.hands);
    }

    /// Takes this server out if a majority has made something else of the same log.
    fn compare(&mut self, index: LogIndex) {
        let members = self.machine.replica().members();
        let voters = members.iter().filter(|member| member.role == Role::Voter);
        let voters: Vec<ServerId> = voters.map(|member| member.id).collect();
        match self.hands.samples.judge(index, self.hands.own, &voters) {
            Judgement::Agrees => {}
            Judgement::Unclear(other) => error!(
                %index, %other,
                "another server has made another state of the same log, and it is not known which of the two is wrong"
            ),
            Judgement::Differs => {
                let server = self.hands.own;
                self.hands.stay_out(Out::Differs { server, index });
            }
        }
    }

    fn snapshotted(&mut self, index: LogIndex, result: SnapshotResult) {
        self.hands.snapshots.finished(&result);
        match result {
            Ok(made) => {
                self.hands.metrics.counters.snapshots += 1;
                info!(%index, bytes = made.bytes, "snapshot stored");
                self.compact(made.meta);
            }
            Err(SnapshotFailed::Again(reason)) => {
                self.hands.metrics.counters.snapshot_failures += 1;
                error!(%index, %reason, "no snapshot: the log grows until the next attempt");
            }
            Err(SnapshotFailed::Differs(reason)) => self.fail(&reason),
        }
    }

    /// Lets the log drop what both a snapshot and the history cover. The history was stored before the snapshot was made.
    fn compact(&mut self, image: SnapshotMeta) {
        let keep = self.hands.snapshots.covered().min(self.hands.history.durable_index());
        self.machine.compact(image);
        self.hands.writer.truncate_before(keep);
    }

    fn end(&mut self, end: End) {
        self.machine.halt();
        self.hands.end.get_or_insert(end);
    }

    fn fail(&mut self, reason: &str) {
        self.machine.halt();
        self.hands.fail(reason);
    }
}

impl Shell for Hands {
    type Asker = Caller;
    type Query = Query;
    type Outbox = Arc<Outbox>;

    fn now(&self) -> Moment {
        self.clock.now()
    }

    fn append(&mut self, frame: Frame) {
        self.writer.append(frame);
    }

    fn send(&mut self, to: ServerId, message: MessageBytes) {
        if let Some(peers) = &self.peers {
            peers.send(to, message);
        }
    }

    fn connect(&mut self, addresses: &BTreeMap<ServerId, Arc<str>>) {
        if let Some(peers) = self.peers.as_ref().filter(|_| self.takes_part) {
            peers.connect(addresses);
        }
    }

    fn fetch(&mut self, (from, address): (ServerId, Arc<str>), least: LogIndex) {
        if let Some(peers) = &self.peers {
            peers.fetch(from, &address, least);
        }
    }

    fn applied(&mut self, state: &State, applied: Applied<'_>) {
        let Applied { index, bytes, commands, outcomes, events } = applied;
        let removed = |event: &Event| matches!(event, Event::ServerRemoved(id) if *id == self.own);
        if events.iter().any(removed) {
            self.stay_out(Out::Removed { server: self.own });
        }
        if bytes > 0 {
            self.metrics.observe(state, &events);
            self.metrics.note_outcomes(commands, outcomes);
            self.launched.forget(&events);
            self.tokens.observe(state, &events);
            let is_about_servers =
                |event: &Event| matches!(event, Event::ServerChanged(_) | Event::ServerRemoved(_));
            if events.iter().any(is_about_servers) {
                self.core.note_servers(state);
            }
            let at = state.now();
            self.history.feed(index, at, &events);
            self.ring.push(Batch { index, at, events: Arc::from(events) });
            self.snapshots.note_entry(bytes);
        }
        let due = self.samples.is_due(state, self.clock.now().wall);
        if let Some(peers) = self.peers.as_ref().filter(|_| due && self.takes_part) {
            let digest = state.sample(index.0);
            peers.tell(index, digest);
            // Told to oneself by way of the channel: the machine is busy now.
            self.core.tell(Request::Sample(self.own, index, digest));
        }
        // Whoever sees this index finds its events.
        self.core.note_applied(index);
    }

    fn answer(&mut self, asker: Caller, answer: Answer) {
        asker.tell(answer);
    }

    fn serve(&mut self, query: Query, machine: Option<&Machine<Self>>) {
        let Some(machine) = machine else { return query.answer(Err(CoreError::NotLeader)) };
        query.answer(Ok(&View {
            state: machine.state(),
            controller: machine.controller(),
            sessions: machine.sessions(),
            launched: &self.launched,
            metrics: &self.metrics,
            replica: machine.replica(),
            steady: machine.steady(self),
        }));
    }

    fn stood(&mut self, standing: Standing) {
        let before = self.core.standing().borrow().leads;
        match (before, standing.leads) {
            (false, true) => info!(term = standing.term, "this server leads"),
            (true, false) => info!(term = standing.term, "this server leads no more"),
            (true, true) | (false, false) => {}
        }
        self.core.note_standing(standing);
    }

    fn promoted(&mut self, learner: ServerId, result: Result<(), ChangeRefused>) {
        match result {
            Ok(()) => info!(server = %learner, "has caught up and becomes a voter"),
            Err(refused) => debug!(server = %learner, ?refused, "can't become a voter now"),
        }
    }

    /// Ends everything: nobody is acknowledged any more.
    fn fail(&mut self, reason: &str) {
        if self.end.is_none() {
            self.end = Some(End::Failed);
            error!(%reason, "the server can't go on");
            (self.on_fatal)(reason);
        }
    }
}

impl Hands {
    /// Ends everything because this server must not take part in its cluster.
    fn stay_out(&mut self, out: Out) {
        if self.end.is_some() {
            return;
        }
        error!(reason = %out, hint = out.hint(), "this server stays out of its cluster");
        if out.is_for_good()
            && let Err(error) = self.doorkeeper.memory.put_out(&out.to_string())
        {
            error!(%error, "that can't be noted: do not start this server again");
        }
        self.end = Some(End::Out(out));
    }
}
