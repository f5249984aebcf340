//! The simulated server: the real state and the real controller behind a shell that does what the event loop of a server does.

use std::collections::{BTreeMap, VecDeque};

use rota_control::{Controller, Input, Now, Output, Tag};
use rota_core::command::{AttemptReport, Command, Entry, Outcome, Reply};
use rota_core::{Applied, State};
use rota_types::{Monotonic, NodeId, Span, Steady, Timestamp};

use crate::options::{Fault, Options};
use crate::order::follows_discipline;
use crate::world::{Answer, ConnId, Happening, MILLI, World};

/// The wall clock when the world begins.
const EPOCH: u64 = 1_700_000_000_000_000;

/// The server process, and what its host remembers.
pub(crate) struct Server {
    pub(crate) up: bool,
    /// Counts starts: what belongs to an earlier one does not happen any more.
    pub(crate) boot: u64,
    pub(crate) state: State,
    controller: Controller,
    waiting: VecDeque<Proposal>,
    in_flight: VecDeque<Vec<(usize, Asker)>>,
    /// How many entries the sync that is going on covers.
    syncing: usize,
    pub(crate) sessions: BTreeMap<NodeId, ConnId>,
    steady_base: Steady,
    started_at: u64,
    /// How far the wall clock is ahead, or behind if negative.
    pub(crate) wall_offset: i64,
    /// A crash waits for the next entry that is written and not durable.
    pub(crate) ambush: bool,
    crashed_at: u64,
    lease: Span,
    wake_at: Option<Monotonic>,
    /// Proposals of the controller that the log did not take and that it does not know of yet.
    unanswered: u32,
    /// Proposals of the controller since the last one that changed something.
    idle_proposals: u64,
}

struct Proposal {
    commands: Vec<Command>,
    asker: Asker,
}

/// Who waits for the outcomes of a proposal.
#[derive(Clone, Debug)]
pub(crate) enum Asker {
    Client(usize),
    Worker(ConnId, Monotonic),
    Controller(Tag),
    Nobody,
}

impl Server {
    pub(crate) fn new(options: &Options) -> Self {
        let lease = Span::from_millis(options.lease_millis);
        let state = State::new();
        Self {
            up: false,
            boot: 0,
            controller: Controller::new(&state, lease),
            state,
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
            syncing: 0,
            sessions: BTreeMap::new(),
            steady_base: Steady(0),
            started_at: 0,
            wall_offset: 0,
            ambush: false,
            crashed_at: 0,
            lease,
            wake_at: None,
            unanswered: 0,
            idle_proposals: 0,
        }
    }

    pub(crate) fn lease(&self) -> Span {
        self.lease
    }

    pub(crate) fn renews(&self, node: NodeId) -> bool {
        self.controller.renews(node)
    }

    /// Whether neither clients nor the controller wait for the log.
    pub(crate) fn is_resting(&self) -> bool {
        self.up && self.is_idle() && self.unanswered == 0
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }
}

impl World {
    pub(crate) fn wall(&self) -> Timestamp {
        Timestamp(EPOCH.saturating_add(self.now).saturating_add_signed(self.server.wall_offset))
    }

    pub(crate) fn server_now(&self) -> Now {
        let up = self.now.saturating_sub(self.server.started_at);
        // A monotonic clock of its own for each process: nothing may compare it with an earlier one's.
        let monotonic = Monotonic(up.saturating_add(self.server.boot.saturating_mul(977)));
        Now { monotonic, steady: Steady(self.server.steady_base.0.saturating_add(up)) }
    }

    pub(crate) fn server_crash(&mut self) {
        if !self.server.up {
            return;
        }
        let unsynced = self.log.unsynced();
        let kept = usize::try_from(self.rng.below(unsynced as u64 + 1)).unwrap_or(0);
        if unsynced > 0 {
            self.counters.note("crash with unsynced entries");
        }
        for (at, askers) in self.server.in_flight.iter().enumerate() {
            let clients = askers.iter().filter(|(_, asker)| matches!(asker, Asker::Client(_)));
            let what = if at < kept {
                "crash keeps a proposal that nobody was told of"
            } else {
                "crash loses a proposal that a client waits for"
            };
            self.counters.add(what, clients.count() as u64);
        }
        self.log.crash(kept);
        self.server.up = false;
        self.server.crashed_at = self.now;
        self.server.waiting.clear();
        self.server.in_flight.clear();
        self.server.sessions.clear();
        self.server.syncing = 0;
        let open: Vec<(ConnId, usize)> = self
            .conns
            .iter()
            .filter(|(_, conn)| !conn.broken)
            .map(|(id, conn)| (*id, conn.worker))
            .collect();
        for (conn, worker) in open {
            self.break_conn(conn, worker);
        }
    }

    pub(crate) fn server_start(&mut self) {
        if self.server.up {
            return;
        }
        let loaded = self.log.load().map(|(state, entries)| (state, entries.to_vec()));
        let (mut state, entries) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => return self.fail(format!("I7: {error}")),
        };
        if self.server.boot > 0 && self.log.has_snapshot() {
            self.counters.note("restart from a snapshot");
        }
        for entry in &entries {
            let applied = state.apply(entry);
            if entry.index > self.oracle.index() {
                let verdict = self.oracle.commit(entry, None, &self.truth);
                self.judge(verdict);
            }
            drop(applied);
        }
        if self.server.boot > 0 {
            self.counters.add("restart replays entries", u64::from(!entries.is_empty()));
        }
        let verdict = self.oracle.same_state(&state);
        self.judge(verdict);
        let outage = self.now.saturating_sub(self.server.crashed_at);
        if self.server.boot > 0 && outage > self.server.lease.0 {
            let kept = state.nodes().flat_map(|(node, _)| state.desired(node));
            let kept = kept.filter(|(attempt, _)| self.truth.is_running(*attempt)).count();
            self.counters.add("attempt survives an outage", kept as u64);
        }
        self.server.controller = Controller::new(&state, self.server.lease);
        self.server.steady_base = state.steady();
        self.server.state = state;
        self.server.up = true;
        self.server.boot = self.server.boot.saturating_add(1);
        self.server.started_at = self.now;
        self.server.idle_proposals = 0;
        self.server.wake_at = None;
        self.server.unanswered = 0;
        self.step(Input::Elected);
    }

    pub(crate) fn server_wake(&mut self, boot: u64, at: Monotonic) {
        if self.is_boot(boot) && self.server.wake_at == Some(at) {
            self.server.wake_at = None;
            self.step(Input::Woke);
        }
    }

    pub(crate) fn controller_answered(&mut self, boot: u64, tag: Tag) {
        if self.is_boot(boot) {
            self.server.unanswered = self.server.unanswered.saturating_sub(1);
            self.step(Input::Answered(tag));
        }
    }

    fn is_boot(&self, boot: u64) -> bool {
        self.server.up && self.server.boot == boot
    }

    /// Tells the controller, and does what it wants.
    pub(crate) fn step(&mut self, input: Input<'_>) {
        let now = self.server_now();
        let outputs = self.server.controller.step(&self.server.state, input, now);
        for output in outputs {
            match output {
                Output::WakeAt(at) => {
                    self.server.wake_at = Some(at);
                    let boot = self.server.boot;
                    let delay = at.since(now.monotonic).0;
                    self.after(delay, Happening::ServerWake { boot, at });
                }
                Output::Propose(tag, command) => {
                    if let Command::CommitPlan(plan) = &command {
                        let verdict = follows_discipline(&self.server.state, plan);
                        self.judge(verdict);
                    }
                    self.note_loss(tag);
                    self.server.idle_proposals = self.server.idle_proposals.saturating_add(1);
                    if self.server.idle_proposals > 10_000 {
                        self.fail(format!("the controller proposes without end: {command:?}"));
                    }
                    if self.has(Fault::LogBusy) && self.rng.chance(20) {
                        self.counters.note("log busy");
                        let delay = self.rng.spread(MILLI, 100 * MILLI);
                        let boot = self.server.boot;
                        self.server.unanswered = self.server.unanswered.saturating_add(1);
                        self.after(delay, Happening::Answered { boot, tag });
                    } else {
                        self.enqueue(vec![command], Asker::Controller(tag));
                    }
                }
            }
        }
    }

    /// A client's request reaches the server. Returns whether it was taken.
    pub(crate) fn server_takes(&mut self, request: usize, command: Command) -> bool {
        if !self.server.up {
            return false;
        }
        if self.has(Fault::LogBusy) && self.rng.chance(10) {
            self.answer_client(request, Answer::Busy);
        } else {
            self.enqueue(vec![command], Asker::Client(request));
        }
        true
    }

    /// Somebody with the right to proposes something; nobody waits for the answer.
    pub(crate) fn operator_proposes(&mut self, command: Command) {
        if self.server.up {
            self.enqueue(vec![command], Asker::Nobody);
        }
    }

    pub(crate) fn propose_reports(&mut self, node: NodeId, mut reports: Vec<AttemptReport>) {
        if self.server.up {
            for report in &mut reports {
                report.node = node;
            }
            self.enqueue(vec![Command::EndAttempts(reports)], Asker::Nobody);
        }
    }

    pub(crate) fn enqueue(&mut self, commands: Vec<Command>, asker: Asker) {
        self.server.waiting.push_back(Proposal { commands, asker });
        self.propose_entry();
    }

    /// Gathers what waits into one entry.
    fn propose_entry(&mut self) {
        let limit = self.options.in_flight.max(1) as usize;
        if self.server.waiting.is_empty() || self.server.in_flight.len() >= limit {
            return;
        }
        let count = self.rng.between(1, 8);
        let (mut commands, mut askers) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let Some(proposal) = self.server.waiting.pop_front() else { break };
            askers.push((proposal.commands.len(), proposal.asker));
            commands.extend(proposal.commands);
        }
        if let Some(plan) = self.server.controller.anticipate(&self.server.state, &commands) {
            self.counters.note("plan anticipated");
            commands.push(plan);
            askers.push((1, Asker::Controller(Tag::Plan)));
        }
        let (mut at, mut steady) = (self.wall(), self.server_now().steady);
        if self.has(Fault::ClockJump) && self.rng.chance(5) {
            // A leader that has not seen its predecessor's last entries stamps too early.
            self.counters.note("stale stamp");
            at = Timestamp(at.0.saturating_sub(self.rng.spread(1, 60_000 * MILLI)));
            steady = Steady(steady.0.saturating_sub(self.rng.spread(1, 10_000 * MILLI)));
        }
        let index = self.log.next_index();
        self.log.propose(Entry { index, at, steady, commands });
        self.server.in_flight.push_back(askers);
        self.start_sync();
    }

    fn start_sync(&mut self) {
        let unsynced = self.log.unsynced();
        if self.server.syncing == 0 && unsynced > 0 {
            self.server.syncing = unsynced;
            let delay = self.rng.spread(50, self.options.sync_millis.max(1).saturating_mul(MILLI));
            let boot = self.server.boot;
            self.after(delay, Happening::LogSynced { boot, count: unsynced });
            if std::mem::take(&mut self.server.ambush) && !self.finale {
                let when = self.rng.below(delay);
                self.after(when, Happening::ServerCrash);
                let outage = self.rng.spread(10 * MILLI, 3_000 * MILLI);
                self.after(when.saturating_add(outage), Happening::ServerStart);
            }
        }
    }

    pub(crate) fn log_synced(&mut self, boot: u64, count: usize) {
        if !self.is_boot(boot) {
            return;
        }
        self.server.syncing = 0;
        for entry in self.log.sync(count) {
            self.commit(&entry);
        }
        self.start_sync();
        self.propose_entry();
    }

    fn commit(&mut self, entry: &Entry) {
        let applied = self.server.state.apply(entry);
        let verdict = self.oracle.commit(entry, Some(&applied), &self.truth);
        self.judge(verdict);
        self.note_trace(|| format!("entry {} {:?} -> {applied:?}", entry.index, entry.commands));
        let Applied { outcomes, events } = applied;
        if !events.is_empty() {
            self.server.idle_proposals = 0;
        }
        self.tell_workers(entry, &events);
        let askers = self.server.in_flight.pop_front().unwrap_or_default();
        self.step(Input::Applied(&events));
        let mut outcomes = outcomes.into_iter();
        for (commands, asker) in askers {
            let own: Vec<Outcome> = outcomes.by_ref().take(commands).collect();
            self.answer(asker, own);
        }
        self.nothing_is_left_to_do();
        self.maybe_snapshot();
    }

    fn answer(&mut self, asker: Asker, outcomes: Vec<Outcome>) {
        match asker {
            Asker::Nobody => {}
            Asker::Controller(tag) => {
                if let (Tag::Plan, Some(Ok(Reply::Accepted { refused, .. }))) =
                    (tag, outcomes.first())
                {
                    self.counters.add("plan partially refused", u64::from(*refused > 0));
                }
                self.step(Input::Answered(tag));
            }
            Asker::Worker(conn, sent) => {
                if let Some(Ok(Reply::Node(node))) = outcomes.first() {
                    self.attach(conn, *node, sent);
                }
            }
            Asker::Client(request) => {
                if let Some(outcome) = outcomes.into_iter().next() {
                    self.answer_client(request, Answer::Outcome(outcome));
                }
            }
        }
    }

    fn maybe_snapshot(&mut self) {
        if !self.has(Fault::Snapshot) || !self.rng.chance(5) {
            return;
        }
        let verdict = self.oracle.restores(&self.server.state);
        self.judge(verdict);
        self.counters.note("snapshot restored beside the running server");
        let live = self.server.state.nodes().any(|(_, node)| !node.live.is_empty());
        self.counters.add("snapshot while attempts run", u64::from(live));
        if self.log.unsynced() == 0 || self.rng.chance(50) {
            self.log.snapshot(&self.server.state);
        }
    }
}
