//! The one thread that owns the state: it gathers commands into entries, has them made durable, applies them, and tells everybody.
//!
//! It never waits for anything but its channel. Whoever was acknowledged was committed and applied before. On a server that leads, whoever
//! reads sees all of that: reads wait until a majority has confirmed that this server still leads, and so do the acknowledgements
//! of heartbeats, because a worker that believes a server that was overtaken would run what another one has started elsewhere.

mod lead;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use rota_control::{Controller, Input, Now, Output, Tag};
use rota_core::command::{Command, Entry, Outcome};
use rota_core::event::Event;
use rota_core::{LEVEL, State};
use rota_ports::{Committed, EntryBytes, ReadId, SnapshotMeta};
use rota_store::history::History;
use rota_types::limits::BATCH_MAX;
use rota_types::{LogIndex, NodeId, ServerId, Steady, Timestamp};
use rota_wire::worker::Leaving;
use tokio::sync::oneshot;
use tracing::{debug, error, info, warn};

use lead::Deferred;

use crate::auth::Tokens;
use crate::clock::Clock;
use crate::config::OnFatal;
use crate::handle::{
    Applied, Asker, Consistency, Core, Proposal, Request, SnapshotFailed, SnapshotResult,
};
use crate::metrics::{Launched, Metrics};
use crate::outbox::Ending;
use crate::replica::{Replica, Todo};
use crate::ring::{Batch, Ring};
use crate::servers::Servers;
use crate::sessions::Sessions;
use crate::snapshots::Snapshots;

/// Entries that may be proposed and not yet committed. The log of one server syncs one frame at a time, so more would not be
/// durable sooner; what arrives meanwhile is gathered, and the end of a task meets the start of the next in one entry.
const IN_FLIGHT_MAX: usize = 1;
/// Bytes of proposals that are gathered into one entry. One proposal alone may be larger.
const ENTRY_BYTES_TARGET: usize = 4 << 20;
/// Requests that are taken in before the log is looked after again.
const DRAIN_MAX: usize = 4_096;
/// The longest sleep, so that a lost wake-up would be an annoyance and not an outage.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// What a read on the core thread sees.
pub(crate) struct View<'a> {
    pub(crate) state: &'a State,
    pub(crate) controller: &'a Controller,
    pub(crate) sessions: &'a Sessions,
    pub(crate) launched: &'a Launched,
    pub(crate) metrics: &'a Metrics,
    pub(crate) replica: &'a Replica,
    /// Steady time now; the state's own stands still between entries.
    pub(crate) steady: Steady,
}

/// What the thread is made of.
pub(crate) struct Parts {
    pub(crate) state: State,
    pub(crate) controller: Controller,
    pub(crate) replica: Replica,
    pub(crate) servers: Servers,
    pub(crate) core: Core,
    pub(crate) ring: Arc<Ring>,
    pub(crate) history: Arc<History>,
    pub(crate) snapshots: Snapshots,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) on_fatal: OnFatal,
}

/// The thread's memory.
pub(crate) struct CoreThread {
    parts: Parts,
    clock: Clock,
    sessions: Sessions,
    launched: Launched,
    metrics: Metrics,
    /// Not proposed yet, in order.
    waiting: VecDeque<Proposal>,
    /// An entry that the log had no room for; it goes before everything that waits.
    held: Option<InFlight>,
    /// Proposed and not committed, in order.
    in_flight: VecDeque<InFlight>,
    wake_at: Option<Instant>,
    /// The term in which this server leads.
    leading: Option<u64>,
    /// Who leads, as the rest of the process was told: this server, the term, and who.
    told: Option<(bool, u64, Option<ServerId>)>,
    /// What waits for the next confirmation that this server leads.
    unconfirmed: Vec<Deferred>,
    /// What waits for a confirmation that was asked for.
    confirming: VecDeque<(ReadId, Vec<Deferred>)>,
    /// What was confirmed and has to wait until this index is applied.
    confirmed: VecDeque<(ReadId, LogIndex)>,
    stopping: Option<oneshot::Sender<LogIndex>>,
    end: Option<End>,
}

/// Why the thread ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was told to.
    Stopped,
    /// It can't go on.
    Failed,
    /// Another server's image is on the disk: the server has to start again with it.
    Replaced,
}

/// An entry between proposal and commit. Its commands stay here so that nobody has to decode them again.
struct InFlight {
    bytes: EntryBytes,
    at: Timestamp,
    steady: Steady,
    commands: Vec<Command>,
    /// Who asked, each for how many of the commands.
    askers: Vec<(usize, Asker)>,
}

impl CoreThread {
    pub(crate) fn new(parts: Parts) -> Self {
        let clock = Clock::new(parts.state.now(), parts.state.steady());
        Self {
            parts,
            clock,
            sessions: Sessions::default(),
            launched: Launched::default(),
            metrics: Metrics::new(),
            waiting: VecDeque::new(),
            held: None,
            in_flight: VecDeque::new(),
            wake_at: None,
            leading: None,
            told: None,
            unconfirmed: Vec::new(),
            confirming: VecDeque::new(),
            confirmed: VecDeque::new(),
            stopping: None,
            end: None,
        }
    }

    /// Runs until told to stop, until nobody can speak to it any more, or until it can't go on.
    pub(crate) fn run(mut self, requests: &Receiver<Request>) -> End {
        self.parts.servers.link(&self.parts.state, &self.parts.replica);
        self.settle();
        while self.end.is_none() {
            match requests.recv_timeout(self.sleep()) {
                Ok(request) => {
                    self.handle(request);
                    self.drain(requests);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return End::Stopped,
            }
            self.tick();
            if self.wake_at.is_some_and(|at| at <= Instant::now()) {
                self.wake_at = None;
                self.step(Input::Woke);
            }
            self.settle();
            if self.stopping.is_some() && self.is_idle() {
                break;
            }
        }
        self.sessions.end_all(Ending::Stopping);
        let index = self.parts.state.index();
        if let Some(stopped) = self.stopping.take() {
            let _sent = stopped.send(index);
        }
        info!(%index, "core thread ended");
        self.end.unwrap_or(End::Stopped)
    }

    fn tick(&mut self) {
        self.parts.replica.tick_if_due();
        if self.leading.is_some() && self.parts.replica.is_promotion_due() {
            self.promote();
        }
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.held.is_none() && self.in_flight.is_empty()
    }

    fn sleep(&self) -> Duration {
        let next = [self.wake_at, self.parts.replica.next_tick()].into_iter().flatten().min();
        let until = next.map(|at| at.saturating_duration_since(Instant::now()));
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
        match request {
            Request::Propose(proposal) => self.take(proposal),
            Request::Query(query) => match query.consistency {
                Consistency::Stale => query.answer(Ok(&self.view())),
                Consistency::Linearizable => self.defer(Deferred::Query(query)),
            },
            Request::Persisted(frame, took) => {
                self.metrics.note_sync(took, self.clock.steady());
                self.parts.replica.persisted(frame);
                self.carry_out();
            }
            Request::LogFailed(reason) => self.fail(&reason),
            Request::Peer(from, messages) => self.parts.replica.receive(from, &messages),
            Request::LinkReset(peer) => self.parts.replica.link_reset(peer),
            Request::Introduced(spec) => {
                self.parts.servers.introduced(spec);
                self.servers_changed();
            }
            Request::Steer(steering, reply) => drop(reply.send(self.steer(&steering))),
            Request::Snapshot(index, reply) => {
                let Parts { snapshots, state, replica, .. } = &mut self.parts;
                snapshots.want(index, reply, (state, replica));
            }
            Request::Fetched(Ok(())) => self.end = Some(End::Replaced),
            Request::Fetched(Err(reason)) => {
                warn!(%reason, "could not get another server's state; it is asked for again");
                self.parts.replica.install_failed();
            }
            Request::Attach(attach) => self.defer(Deferred::Attach(attach)),
            Request::Detach(node, session) => {
                if self.sessions.detach(node, session) {
                    debug!(%node, "worker disconnected");
                }
            }
            Request::Heartbeat { node, session, sent_micros } => {
                self.heard(node, session);
                self.defer(Deferred::Acknowledge { node, session, sent_micros });
            }
            Request::Leaving { node, session, leaving } => {
                if self.sessions.heard(node, session) {
                    self.leaving(node, leaving);
                }
            }
            Request::Started { node, session, launched } => {
                self.heard(node, session);
                for (attempt, at) in launched {
                    self.launched.note(&self.parts.state, attempt, at);
                }
            }
            Request::Snapshotted(index, result) => self.snapshotted(index, result),
            Request::Stop(reply) => self.stopping = Some(reply),
            Request::Abandon => self.end = Some(End::Failed),
        }
    }

    fn view(&self) -> View<'_> {
        View {
            state: &self.parts.state,
            controller: &self.parts.controller,
            sessions: &self.sessions,
            launched: &self.launched,
            metrics: &self.metrics,
            replica: &self.parts.replica,
            steady: self.clock.steady(),
        }
    }

    fn heard(&mut self, node: NodeId, session: u64) {
        // A worker whose node was given up, or taken over by another process, has to register again first.
        if self.sessions.heard(node, session) {
            self.step(Input::Heartbeat(node));
        }
    }

    /// Places nothing on a node whose worker is about to go, and gives it up at once when the worker has gone.
    fn leaving(&mut self, node: NodeId, leaving: Leaving) {
        match leaving {
            Leaving::Staying => {}
            Leaving::Draining => self.propose(Command::LeaveNode(node)),
            Leaving::Gone => self.propose(Command::LoseNode(node)),
        }
    }

    fn propose(&mut self, command: Command) {
        let asker = Asker::Nobody;
        self.take(Proposal { commands: vec![command], bytes: 64, asker });
    }

    /// Tells the controller, and does what it wants.
    fn step(&mut self, input: Input<'_>) {
        let now = Now { monotonic: self.clock.monotonic(), steady: self.clock.steady() };
        for output in self.parts.controller.step(&self.parts.state, input, now) {
            match output {
                Output::Propose(tag, command) => self.waiting.push_back(Proposal {
                    commands: vec![command],
                    bytes: 1_024,
                    asker: Asker::Controller(tag),
                }),
                Output::WakeAt(at) => self.wake_at = Some(self.clock.instant(at)),
            }
        }
    }

    /// Proposes and applies until there is nothing more to do without waiting.
    fn settle(&mut self) {
        while self.end.is_none()
            && (self.propose_entry() || self.begin_confirmation() || self.carry_out())
        {}
    }

    /// Proposes one entry, if something waits and there is room. Returns whether it did.
    fn propose_entry(&mut self) -> bool {
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            return false;
        }
        let Some(entry) = self.held.take().or_else(|| self.gather()) else { return false };
        if self.parts.replica.propose(Arc::clone(&entry.bytes)).is_err() {
            // Too much is in flight, or another server takes over: what comes next decides.
            self.held = Some(entry);
            return false;
        }
        self.in_flight.push_back(entry);
        true
    }

    /// Gathers what waits into one entry, as far as it may be large.
    fn gather(&mut self) -> Option<InFlight> {
        let mut commands = Vec::new();
        let mut askers = Vec::new();
        let mut bytes = 0_usize;
        while let Some(next) = self.waiting.front() {
            bytes = bytes.saturating_add(next.bytes);
            let many = commands.len() + next.commands.len() > BATCH_MAX;
            if (many || bytes > ENTRY_BYTES_TARGET) && !commands.is_empty() {
                break;
            }
            let Some(proposal) = self.waiting.pop_front() else { break };
            askers.push((proposal.commands.len(), proposal.asker));
            commands.extend(proposal.commands);
        }
        if commands.is_empty() {
            return None;
        }
        if let Some(plan) = self.parts.controller.anticipate(&self.parts.state, &commands) {
            commands.push(plan);
            askers.push((1, Asker::Controller(Tag::Plan)));
        }
        let (at, steady) = self.clock.stamp();
        let bytes = rota_wire::log::encode_entry(at, steady, &commands);
        Some(InFlight { bytes, at, steady, commands, askers })
    }

    /// Does what the log wants. Returns whether entries were applied.
    fn carry_out(&mut self) -> bool {
        let Todo { committed, reads, install } = self.parts.replica.poll();
        let progress = !committed.is_empty() || !reads.is_empty();
        for Committed { index, entry } in committed {
            match entry {
                _ if self.end.is_some() => {}
                Some(bytes) => self.commit(index, &bytes),
                None => self.commit_internal(index),
            }
        }
        self.confirmed.extend(reads);
        self.serve_confirmed();
        if let Some((meta, from)) = install {
            self.parts.servers.fetch(&self.parts.state, &meta, from);
        }
        self.follow();
        progress
    }

    /// The protocol's own entry: perhaps a change of the members.
    fn commit_internal(&mut self, index: LogIndex) {
        self.parts.state.apply(&Entry::internal(index));
        self.parts.core.note_applied(index);
        self.servers_changed();
    }

    fn commit(&mut self, index: LogIndex, bytes: &EntryBytes) {
        let own = self.in_flight.front().is_some_and(|entry| Arc::ptr_eq(&entry.bytes, bytes));
        let (entry, askers) = match own.then(|| self.in_flight.pop_front()).flatten() {
            Some(InFlight { at, steady, commands, askers, .. }) => {
                (Entry { index, at, steady, commands }, askers)
            }
            None => match rota_wire::log::decode_entry(index, bytes) {
                Ok(entry) => (entry, Vec::new()),
                Err(error) => return self.fail(&format!("entry {index} can't be read: {error}")),
            },
        };
        let rota_core::Applied { outcomes, events } = self.parts.state.apply(&entry);
        self.sessions.observe(&self.parts.state, &entry.commands, &events);
        self.metrics.observe(&self.parts.state, &events);
        self.metrics.note_outcomes(&entry.commands, &outcomes);
        self.launched.forget(&events);
        self.parts.tokens.observe(&self.parts.state, &events);
        self.step(Input::Applied(&events));
        self.heed(&events);
        let at = self.parts.state.now();
        self.parts.history.feed(index, at, &events);
        self.parts.ring.push(Batch { index, at, events: Arc::from(events) });
        // Whoever sees this index finds its events.
        self.parts.core.note_applied(index);
        self.answer(index, askers, outcomes);
        self.parts.snapshots.note_entry(bytes.len() as u64);
        self.parts.snapshots.begin_if_due(&self.parts.state, &self.parts.replica);
    }

    /// Does what follows from events besides telling of them.
    fn heed(&mut self, events: &[Event]) {
        for event in events {
            match event {
                Event::ServerChanged(_) | Event::ServerRemoved(_) => self.servers_changed(),
                Event::LevelRaised(level) if *level > LEVEL => self.fail(&format!(
                    "the cluster has agreed on feature level {level}, and this version knows {LEVEL} at most: run a newer version"
                )),
                _ => {}
            }
        }
    }

    fn snapshotted(&mut self, index: LogIndex, result: SnapshotResult) {
        self.parts.snapshots.finished(&result);
        match result {
            Ok(made) => {
                self.metrics.counters.snapshots += 1;
                info!(%index, bytes = made.bytes, "snapshot stored");
                self.compact(made.meta);
            }
            Err(SnapshotFailed::Again(reason)) => {
                self.metrics.counters.snapshot_failures += 1;
                error!(%index, %reason, "no snapshot: the log grows until the next attempt");
            }
            Err(SnapshotFailed::Differs(reason)) => self.fail(&reason),
        }
    }

    /// Lets the log drop what both a snapshot and the history cover. The history was stored before the snapshot was made.
    fn compact(&mut self, image: SnapshotMeta) {
        let keep = self.parts.snapshots.covered().min(self.parts.history.durable_index());
        self.parts.replica.compact(image, keep);
    }

    /// Ends everything: nobody is acknowledged any more.
    fn fail(&mut self, reason: &str) {
        if self.end.is_none() {
            self.end = Some(End::Failed);
            error!(%reason, "the server can't go on");
            (self.parts.on_fatal)(reason);
        }
    }

    /// Tells everybody who asked what became of it.
    fn answer(&mut self, index: LogIndex, askers: Vec<(usize, Asker)>, outcomes: Vec<Outcome>) {
        let mut outcomes = outcomes.into_iter();
        for (commands, asker) in askers {
            let outcomes: Vec<Outcome> = outcomes.by_ref().take(commands).collect();
            match asker {
                Asker::Caller(reply, permits) => {
                    drop(reply.send(Ok(Applied { index, outcomes })));
                    drop(permits);
                }
                Asker::Controller(tag) => self.step(Input::Answered(tag)),
                Asker::Session(permit) => drop(permit),
                Asker::Nobody => {}
            }
        }
    }
}
