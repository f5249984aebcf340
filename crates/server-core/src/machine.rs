//! The machine: commands in, entries proposed, applied and answered.

use std::collections::VecDeque;
use std::sync::Arc;

use rota_control::{Controller, Input, Now, Output, Tag};
use rota_core::State;
use rota_core::command::{Command, Entry, Outcome};
use rota_core::event::Event;
use rota_core::server::ServerSpec;
use rota_ports::{
    Committed, EntryBytes, FrameSeq, MessageBytes, ReadId, ReplicatedLog, SnapshotMeta,
};
use rota_types::limits::BATCH_MAX;
use rota_types::{LogIndex, Monotonic, NodeId, ServerId, Span, Steady, Timestamp};
use rota_wire::worker::Leaving;

use crate::clock::Clock;
use crate::lead::Deferred;
use crate::pending::Ending;
use crate::replica::{Replica, Todo};
use crate::servers::{Addresses, Servers};
use crate::sessions::Sessions;
use crate::shell::{Answer, Applied, Asker, Beat, Proposal, Shell};

/// Entries that may be proposed and not yet committed. The log of one server syncs one frame at a time, so more would not be
/// durable sooner; what arrives meanwhile is gathered, and the end of a task meets the start of the next in one entry.
const IN_FLIGHT_MAX: usize = 1;
/// Bytes of proposals that are gathered into one entry. One proposal alone may be larger.
const ENTRY_BYTES_TARGET: usize = 4 << 20;

/// What a machine is made of.
pub struct Parts {
    /// The state that recovery found.
    pub state: State,
    /// How long a silent node keeps its attempts.
    pub lease: Span,
    /// The log behind that state.
    pub log: Box<dyn ReplicatedLog>,
    /// What this server says of itself.
    pub own: ServerSpec,
    /// Where the founders are reached, until the log says so.
    pub configured: Addresses,
    /// Whether this server runs alone.
    pub is_sole: bool,
}

/// What one server knows and does.
pub struct Machine<S: Shell> {
    pub(crate) state: State,
    pub(crate) controller: Controller,
    pub(crate) replica: Replica,
    pub(crate) servers: Servers,
    pub(crate) sessions: Sessions<S::Outbox>,
    pub(crate) clock: Clock,
    /// Not proposed yet, in order.
    pub(crate) waiting: VecDeque<Proposal<S::Asker>>,
    /// An entry that the log had no room for; it goes before everything that waits.
    pub(crate) held: Option<InFlight<S::Asker>>,
    /// Proposed and not committed, in order.
    pub(crate) in_flight: VecDeque<InFlight<S::Asker>>,
    pub(crate) wake_at: Option<Monotonic>,
    /// The term in which this server leads.
    pub(crate) leading: Option<u64>,
    /// Who leads, as the shell was told: this server, the term, and who.
    pub(crate) told: Option<(bool, u64, Option<ServerId>)>,
    /// What waits for the next confirmation that this server leads.
    pub(crate) unconfirmed: Vec<Deferred<S>>,
    /// What waits for a confirmation that was asked for.
    pub(crate) confirming: VecDeque<(ReadId, Vec<Deferred<S>>)>,
    /// What was confirmed and has to wait until this index is applied.
    pub(crate) confirmed: VecDeque<(ReadId, LogIndex)>,
    /// Nothing more is applied or answered.
    halted: bool,
}

/// An entry between proposal and commit. Its commands stay here so that nobody has to decode them again.
pub(crate) struct InFlight<A> {
    bytes: EntryBytes,
    at: Timestamp,
    steady: Steady,
    commands: Vec<Command>,
    pub(crate) askers: Askers<A>,
}

/// Who asked, each for how many of the commands.
type Askers<A> = Vec<(usize, Asker<A>)>;

impl<S: Shell> Machine<S> {
    /// A machine that has just been started. [`settle`](Self::settle) is the next call.
    pub fn new(parts: Parts, shell: &mut S) -> Self {
        let Parts { state, lease, log, own, configured, is_sole } = parts;
        let now = shell.now();
        let machine = Self {
            controller: Controller::new(&state, lease),
            replica: Replica::new(log, is_sole, now.monotonic),
            servers: Servers::new(own, configured, is_sole),
            sessions: Sessions::default(),
            clock: Clock::new(state.now(), state.steady(), now),
            state,
            waiting: VecDeque::new(),
            held: None,
            in_flight: VecDeque::new(),
            wake_at: None,
            leading: None,
            told: None,
            unconfirmed: Vec::new(),
            confirming: VecDeque::new(),
            confirmed: VecDeque::new(),
            halted: false,
        };
        machine.servers.link(&machine.state, &machine.replica, shell);
        machine
    }

    /// The state, as far as this server has applied the log.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The controller, which wants nothing while this server does not lead.
    #[must_use]
    pub fn controller(&self) -> &Controller {
        &self.controller
    }

    /// Which workers are connected.
    #[must_use]
    pub fn sessions(&self) -> &Sessions<S::Outbox> {
        &self.sessions
    }

    /// This server's end of the log.
    #[must_use]
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Steady time now; the state's own stands still between entries.
    pub fn steady(&self, shell: &S) -> Steady {
        self.clock.steady(shell.now())
    }

    /// When [`advance`](Self::advance) has to be called at the latest.
    #[must_use]
    pub fn next_wake(&self) -> Option<Monotonic> {
        [self.wake_at, self.replica.next_tick()].into_iter().flatten().min()
    }

    /// Whether nothing that was taken in waits for the log.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.held.is_none() && self.in_flight.is_empty()
    }

    /// Applies and answers nothing more: the process is about to end.
    pub fn halt(&mut self) {
        self.halted = true;
    }

    /// Whether it was halted, or has failed.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.halted
    }

    /// Tells every session that the server goes down.
    pub fn end_sessions(&mut self) {
        self.sessions.end_all(Ending::Stopping);
    }

    /// Lets time pass.
    pub fn advance(&mut self, shell: &mut S) {
        let now = shell.now().monotonic;
        self.replica.tick_if_due(now);
        if self.leading.is_some() && self.replica.is_promotion_due(now) {
            self.promote(shell);
        }
        if self.wake_at.is_some_and(|at| at <= now) {
            self.wake_at = None;
            self.step(Input::Woke, shell);
        }
    }

    /// Frames up to this one are durable.
    pub fn persisted(&mut self, frame: FrameSeq, shell: &mut S) {
        self.replica.persisted(frame, shell);
        self.carry_out(shell);
    }

    /// Another server's log sent messages.
    pub fn receive(&mut self, from: ServerId, messages: &[MessageBytes]) {
        self.replica.receive(from, messages);
    }

    /// The link to another server was lost, or made anew.
    pub fn link_reset(&mut self, peer: ServerId) {
        self.replica.link_reset(peer);
    }

    /// Another server said who it is.
    pub fn introduced(&mut self, spec: ServerSpec, shell: &mut S) {
        self.servers.introduced(spec);
        self.servers_changed(shell);
    }

    /// The log has begun to take part: there may be members to speak to.
    pub fn began(&mut self, shell: &mut S) {
        self.servers_changed(shell);
    }

    /// The image that was asked for could not be had.
    pub fn install_failed(&mut self) {
        self.replica.install_failed();
    }

    /// An image of the state is safely stored: the log may forget what it covers.
    pub fn compact(&mut self, image: SnapshotMeta) {
        self.replica.compact(image);
    }

    /// A session is over. Returns whether it still had its node.
    pub fn detach(&mut self, node: NodeId, session: u64) -> bool {
        self.sessions.detach(node, session)
    }

    /// A worker sent a heartbeat; it is acknowledged only if it renewed the lease.
    pub fn heartbeat(&mut self, beat: Beat, shell: &mut S) {
        self.heard(beat.node, beat.session, shell);
        self.defer(Deferred::Acknowledge(beat), shell);
    }

    /// A worker was heard of.
    pub fn heard(&mut self, node: NodeId, session: u64, shell: &mut S) {
        // A worker whose node was given up, or taken over by another process, has to register again first.
        if self.sessions.heard(node, session, shell.now().wall) {
            self.step(Input::Heartbeat(node), shell);
        }
    }

    /// Places nothing on a node whose worker is about to go, and gives it up at once when the worker has gone.
    pub fn leaving(&mut self, (node, session): (NodeId, u64), leaving: Leaving, shell: &mut S) {
        if !self.sessions.heard(node, session, shell.now().wall) {
            return;
        }
        match leaving {
            Leaving::Staying => {}
            Leaving::Draining => self.propose_own(Command::LeaveNode(node), shell),
            Leaving::Gone => self.propose_own(Command::LoseNode(node), shell),
        }
    }

    pub(crate) fn propose_own(&mut self, command: Command, shell: &mut S) {
        let proposal = Proposal { commands: vec![command], bytes: 64, asker: Asker::Nobody };
        self.propose(proposal, shell);
    }

    /// Tells the controller, and does what it wants.
    pub(crate) fn step(&mut self, input: Input<'_>, shell: &mut S) {
        let now = shell.now();
        let now = Now { monotonic: now.monotonic, steady: self.clock.steady(now) };
        for output in self.controller.step(&self.state, input, now) {
            match output {
                Output::Propose(tag, command) => {
                    shell.wanted(&self.state, tag, &command);
                    let (commands, asker) = (vec![command], Asker::Controller(tag));
                    self.waiting.push_back(Proposal { commands, bytes: 1_024, asker });
                }
                Output::Recall(node, attempt) => self.sessions.recall(node, attempt),
                Output::WakeAt(at) => self.wake_at = Some(at),
            }
        }
    }

    /// Proposes and applies until there is nothing more to do without waiting.
    pub fn settle(&mut self, shell: &mut S) {
        while !self.halted
            && (self.propose_entry(shell)
                || self.begin_confirmation(shell)
                || self.carry_out(shell))
        {}
    }

    /// Proposes one entry, if something waits and there is room. Returns whether it did.
    fn propose_entry(&mut self, shell: &S) -> bool {
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            return false;
        }
        let Some(entry) = self.held.take().or_else(|| self.gather(shell)) else { return false };
        if self.replica.propose(Arc::clone(&entry.bytes)).is_err() {
            // Too much is in flight, or another server takes over: what comes next decides.
            self.held = Some(entry);
            return false;
        }
        self.in_flight.push_back(entry);
        true
    }

    /// Gathers what waits into one entry, as far as it may be large.
    fn gather(&mut self, shell: &S) -> Option<InFlight<S::Asker>> {
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
        if let Some(plan) = self.controller.anticipate(&self.state, &commands) {
            commands.push(plan);
            askers.push((1, Asker::Controller(Tag::Plan)));
        }
        let (at, steady) = self.clock.stamp(shell.now());
        let bytes = rota_wire::log::encode_entry(at, steady, &commands);
        Some(InFlight { bytes, at, steady, commands, askers })
    }

    /// Does what the log wants. Returns whether entries were applied.
    fn carry_out(&mut self, shell: &mut S) -> bool {
        let Todo { committed, reads, install } = self.replica.poll(shell);
        let progress = !committed.is_empty() || !reads.is_empty();
        for Committed { index, entry } in committed {
            match entry {
                _ if self.halted => {}
                Some(bytes) => self.commit(index, &bytes, shell),
                None => self.commit_internal(index, shell),
            }
        }
        self.confirmed.extend(reads);
        self.serve_confirmed(shell);
        if let Some((meta, from)) = install {
            shell.fetch((from, self.servers.address(&self.state, from)), meta.index);
        }
        self.follow(shell);
        progress
    }

    /// The protocol's own entry: perhaps a change of the members.
    fn commit_internal(&mut self, index: LogIndex, shell: &mut S) {
        self.state.apply(&Entry::internal(index));
        let (commands, outcomes, events): (&[Command], &[Outcome], _) = (&[], &[], Vec::new());
        shell.applied(&self.state, Applied { index, bytes: 0, commands, outcomes, events });
        self.servers_changed(shell);
    }

    fn commit(&mut self, index: LogIndex, bytes: &EntryBytes, shell: &mut S) {
        let own = self.in_flight.front().is_some_and(|entry| Arc::ptr_eq(&entry.bytes, bytes));
        let (entry, askers) = match own.then(|| self.in_flight.pop_front()).flatten() {
            Some(InFlight { at, steady, commands, askers, .. }) => {
                (Entry { index, at, steady, commands }, askers)
            }
            None => match rota_wire::log::decode_entry(index, bytes) {
                Ok(entry) => (entry, Vec::new()),
                Err(error) => {
                    let reason = format!(
                        "entry {index} can't be read: {error}; if a newer version wrote it, run that version"
                    );
                    return self.fail(&reason, shell);
                }
            },
        };
        let rota_core::Applied { outcomes, events } = self.state.apply(&entry);
        self.sessions.observe(&self.state, &entry.commands, &events);
        self.step(Input::Applied(&events), shell);
        self.heed(&events, shell);
        let (commands, bytes) = (entry.commands.as_slice(), bytes.len() as u64);
        // Whoever sees this index finds its events.
        let applied = Applied { index, bytes, commands, outcomes: &outcomes, events };
        shell.applied(&self.state, applied);
        self.answer(index, (askers, outcomes), shell);
    }

    /// Does what follows from events besides telling of them.
    fn heed(&mut self, events: &[Event], shell: &mut S) {
        let known = self.servers.own_level();
        for event in events {
            match event {
                Event::ServerChanged(_) | Event::ServerRemoved(_) => self.servers_changed(shell),
                Event::LevelRaised(level) if *level > known => self.fail(
                    &format!(
                        "the cluster has agreed on feature level {level}, and this version knows {known} at most: run a newer version"
                    ),
                    shell,
                ),
                _ => {}
            }
        }
    }

    /// Ends everything: nobody is acknowledged any more.
    fn fail(&mut self, reason: &str, shell: &mut S) {
        if !self.halted {
            self.halted = true;
            shell.fail(reason);
        }
    }

    /// Tells everybody who asked what became of it.
    fn answer(
        &mut self,
        index: LogIndex,
        (askers, outcomes): (Askers<S::Asker>, Vec<Outcome>),
        shell: &mut S,
    ) {
        let mut outcomes = outcomes.into_iter();
        for (commands, asker) in askers {
            let outcomes: Vec<Outcome> = outcomes.by_ref().take(commands).collect();
            match asker {
                Asker::Outside(asker) => shell.answer(asker, Answer::Applied(index, outcomes)),
                Asker::Controller(tag) => self.step(Input::Answered(tag), shell),
                Asker::Nobody => {}
            }
        }
    }
}
