//! Time and messages: what the library is told, and what it is spared.

use std::collections::BTreeSet;

use omnipaxos::OmniPaxos;
use omnipaxos::ballot_leader_election::Ballot;
use omnipaxos::messages::Message;
use omnipaxos::messages::sequence_paxos::{
    Accepted, NotAccepted, PaxosMessage, PaxosMsg, Prepare, Promise,
};
use rota_types::ServerId;

use super::PaxosLog;
use super::ledger::Item;
use super::wire::{Stamp, Stream, Told};
use crate::mix;

/// Ballots that a leader climbs at once to get above a server that has promised a higher one.
const CLIMB_MAX: u32 = 64;

/// A question whether this server still leads.
#[derive(Debug)]
pub(super) struct Round {
    began: u64,
    /// What was decided then.
    decided: u64,
    /// Whether it asks for leases.
    lease: bool,
    confirmed: BTreeSet<ServerId>,
    leases: BTreeSet<ServerId>,
}

/// Leadership on its way to another server.
#[derive(Debug)]
pub(super) struct HandOver {
    pub(super) to: ServerId,
    pub(super) ballot: Ballot,
    pub(super) began: u64,
}

impl PaxosLog {
    /// Whether this server is in the accept phase of what it has promised: it follows, or leads.
    pub(super) fn is_accepting(&self) -> bool {
        let leader = self.library.as_ref().and_then(OmniPaxos::get_current_leader);
        leader.is_some_and(|(_, accepting)| accepting)
    }

    /// Whether a leader holds a promise of this server not to be replaced.
    fn is_granted(&self) -> bool {
        self.granted.is_some_and(|(_, until)| self.ticks < until)
    }

    /// Whether a majority was heard lately, or there was no time for that yet.
    pub(super) fn has_majority(&self) -> bool {
        self.ticks - self.majority_tick <= 2 * u64::from(self.config.lease_ticks)
    }

    /// After a start, what was granted before is not known: for as long as it may last, nobody but the last leader is followed.
    fn is_quiet(&self) -> bool {
        let restarted = self.ledger.open().memory.life > 1;
        restarted && self.ticks < u64::from(self.config.lease_ticks)
    }

    pub(super) fn pass_time(&mut self) {
        let is_follower = self.standing.is_none();
        if is_follower && (self.is_quiet() || self.is_granted()) {
            self.ask_leader_again();
        } else if let Some(library) = &mut self.library {
            // Servers in lock step would duel for ever.
            let skips = is_follower && mix(self.config.seed ^ mix(self.ticks)).is_multiple_of(8);
            if !skips {
                library.tick();
            }
        }
        if self.standing.is_some()
            && self.ticks.is_multiple_of(u64::from(self.config.heartbeat_ticks))
        {
            self.begin_round();
        }
        self.go_on_handing_over();
        self.free_if_stuck();
    }

    /// Asks to be brought up to date by the leader, if that is under way and takes long. The library would do so by itself, but with the
    /// passing of time it may also decide to lead, which a lease forbids.
    fn ask_leader_again(&mut self) {
        let leader = self.promise().pid;
        let is_due = self.ticks.is_multiple_of(u64::from(self.config.resend_ticks));
        if !is_due || self.is_accepting() || leader == 0 || leader == self.config.id.0 {
            return;
        }
        if let Some(library) = &mut self.library {
            library.reconnected(leader);
        }
    }

    /// Tries to lead if this server has neither led nor followed for long: it may have promised a ballot that nobody fights for, which
    /// a healthy leader of a lower ballot would never notice.
    fn free_if_stuck(&mut self) {
        let (since, limit) = self.stuck;
        if self.is_accepting() || self.is_granted() || self.is_quiet() || limit == 0 {
            let base = u64::from(self.config.stuck_ticks);
            self.stuck = (self.ticks, base + mix(self.config.seed ^ mix(!self.ticks)) % base);
            return;
        }
        let majority = self.majority();
        let Some(library) = self.library.as_mut().filter(|_| self.ticks - since > limit) else {
            return;
        };
        self.stuck.1 = 0;
        if library.get_ui_states().heartbeats.len() + 1 >= majority {
            library.try_become_leader();
        }
    }

    pub(super) fn begin_round(&mut self) {
        let Some((ballot, _)) = self.standing else { return };
        let number = self.reads.begin(self.ticks);
        let (last, decided) = {
            let book = self.ledger.open();
            (book.last(), book.memory.decided)
        };
        let round = Round {
            began: self.ticks,
            decided,
            lease: self.has_majority(),
            confirmed: BTreeSet::from([self.config.id]),
            leases: BTreeSet::from([self.config.id]),
        };
        self.rounds.insert(number, round);
        // Without a majority it must not keep others from finding another leader.
        let lease = self.has_majority();
        for peer in self.peers() {
            self.tell(peer, Stream::Pulse, &Told::Round { ballot, number, last, decided, lease });
        }
    }

    fn go_on_handing_over(&mut self) {
        let Some(HandOver { to, ballot, began }) = self.handing_over else { return };
        if self.ticks - began > u64::from(self.config.lease_ticks) {
            // The word to the other one may still be under way, and could break a lease at any time in this ballot.
            if let Some(library) = &mut self.library {
                library.try_become_leader();
            }
            return;
        }
        let last = self.ledger.open().last();
        let has_all = self.accepted.get(&to).is_some_and(|(accepted, _)| *accepted >= last);
        if has_all && self.ticks.is_multiple_of(2) {
            self.tell(to, Stream::Pulse, &Told::TakeOver { ballot });
        }
    }

    pub(super) fn hear(&mut self, from: ServerId, stamp: Stamp, told: Told) {
        let configuration = self.ledger.open().memory.configuration;
        if !self.members.contains(&from) || stamp.configuration != configuration {
            return;
        }
        let seen = self.seen.entry((from, stamp.stream)).or_default();
        if stamp.place <= *seen {
            return; // late or repeated
        }
        *seen = stamp.place;
        self.heard.insert(from, self.ticks);
        match told {
            Told::Library { message, tag, from_ballot } => {
                self.hear_library(from, message, tag, from_ballot);
            }
            Told::Round { ballot, number, last, decided, lease } => {
                self.answer_round(from, ballot, number, lease);
                self.keep_up(from, ballot, (last, decided));
            }
            Told::Confirmed { ballot, number, accepted } => {
                if self.standing.is_some_and(|(own, _)| own == ballot) {
                    self.count(from, number, accepted.is_some());
                    self.note_accepted(from, ballot, accepted.unwrap_or(0));
                }
            }
            Told::Offer { ballot, start, snapshot } => {
                self.consider(from, ballot, start, snapshot);
            }
            Told::TakeOver { ballot } => self.take_over(from, ballot),
        }
    }

    fn answer_round(&mut self, from: ServerId, ballot: Ballot, number: u64, lease: bool) {
        let promise = self.promise();
        if promise > ballot {
            self.deny(from, promise);
            return;
        }
        let (is_durable, follows, accepted) = {
            let book = self.ledger.open();
            let is_durable = book.promise_frame <= book.frames.durable();
            (is_durable, book.memory.accepted == Some(ballot), book.durable())
        };
        if promise == ballot && is_durable {
            let follows = follows && self.is_accepting();
            if follows && lease {
                self.granted = Some((from, self.ticks + u64::from(self.config.lease_ticks)));
            }
            let accepted = follows.then_some(accepted);
            self.tell(from, Stream::Pulse, &Told::Confirmed { ballot, number, accepted });
        }
    }

    /// Notices that messages of the leader's were lost: the library only does when the next one comes.
    fn keep_up(&mut self, leader: ServerId, ballot: Ballot, there: (u64, u64)) {
        if self.promise() != ballot || !self.is_accepting() {
            return;
        }
        let (last, decided) = {
            let book = self.ledger.open();
            (book.last(), book.memory.decided)
        };
        let (since, goal_last, goal_decided) = self.goal;
        let has_kept_up = last >= goal_last && decided >= goal_decided;
        let is_late = self.ticks - since > u64::from(self.config.resend_ticks);
        if has_kept_up || is_late {
            self.goal = (self.ticks, there.0, there.1);
        }
        if let Some(library) = self.library.as_mut().filter(|_| !has_kept_up && is_late) {
            library.reconnected(leader.0);
        }
    }

    /// Tells a leader that a higher ballot was promised: the library is silent at times, and the leader would never know.
    fn deny(&mut self, to: ServerId, promise: Ballot) {
        let msg = PaxosMsg::NotAccepted(NotAccepted { n: promise });
        let message = PaxosMessage { from: self.config.id.0, to: to.0, msg };
        let told = Told::Library {
            message: Message::SequencePaxos(message),
            tag: 0,
            from_ballot: Ballot::default(),
        };
        self.tell(to, Stream::Promises, &told);
    }

    fn count(&mut self, from: ServerId, number: u64, lease: bool) {
        let majority = self.majority();
        let Some(round) = self.rounds.get_mut(&number) else { return };
        round.confirmed.insert(from);
        if lease && round.lease {
            round.leases.insert(from);
        }
        if round.leases.len() >= majority {
            self.confirmed_tick = self.confirmed_tick.max(round.began);
        }
        if round.confirmed.len() < majority {
            return;
        }
        self.majority_tick = self.majority_tick.max(round.began);
        // What confirms this round confirms those before it.
        let earlier: Vec<u64> = self.rounds.range(..=number).map(|(number, _)| *number).collect();
        for earlier in earlier {
            if let Some(round) = self.rounds.get(&earlier) {
                self.reads.confirm(earlier, rota_types::LogIndex(round.decided));
            }
            // Leases may still come in for the newest.
            if earlier < number {
                self.rounds.remove(&earlier);
            }
        }
    }

    fn take_over(&mut self, from: ServerId, ballot: Ballot) {
        let follows = self.promise() == ballot && ballot.pid == from.0 && self.is_accepting();
        if let Some(library) = self.library.as_mut().filter(|_| follows) {
            library.try_become_leader();
            self.inherited = ballot;
        }
    }

    fn hear_library(
        &mut self,
        from: ServerId,
        mut message: Message<Item>,
        tag: u64,
        from_ballot: Ballot,
    ) {
        let admitted = match &mut message {
            Message::BLE(_) => true,
            Message::SequencePaxos(PaxosMessage { msg, .. }) => match msg {
                PaxosMsg::Prepare(prepare) => self.admit_prepare(from, prepare, from_ballot),
                PaxosMsg::Promise(promise) => self.admit_promise(from, promise, tag),
                PaxosMsg::AcceptSync(sync) => {
                    // What is decided here is never replaced.
                    let decided = self.ledger.open().memory.decided;
                    tag == self.promises && sync.log_sync.sync_idx as u64 >= decided
                }
                PaxosMsg::Accepted(accepted) => self.admit_accepted(from, *accepted),
                PaxosMsg::NotAccepted(NotAccepted { n }) => {
                    self.climb_above(*n);
                    true
                }
                PaxosMsg::PrepareReq(request) => {
                    self.climb_above(request.n);
                    true
                }
                PaxosMsg::AcceptDecide(_) | PaxosMsg::Decide(_) => true,
                PaxosMsg::ProposalForward(_)
                | PaxosMsg::Compaction(_)
                | PaxosMsg::AcceptStopSign(_)
                | PaxosMsg::ForwardStopSign(_) => false,
            },
        };
        if let Some(library) = self.library.as_mut().filter(|_| admitted) {
            library.handle_incoming(message);
        }
    }

    /// A leader that hears of a higher promise leads on above it. Otherwise who gave that promise would be lost to it.
    fn climb_above(&mut self, ballot: Ballot) {
        let Some((own, _)) = self.standing else { return };
        if ballot <= own {
            return;
        }
        for _ in 0..CLIMB_MAX {
            let Some(library) = &mut self.library else { return };
            if library.get_promise() > ballot {
                return;
            }
            library.try_become_leader();
        }
    }

    fn admit_prepare(&mut self, from: ServerId, prepare: &Prepare, from_ballot: Ballot) -> bool {
        let promise = self.promise();
        if prepare.n < promise {
            self.deny(from, promise);
            return false;
        }
        let holder = if self.is_granted() {
            self.granted.map(|(holder, _)| holder)
        } else {
            self.is_quiet().then_some(ServerId(promise.pid))
        };
        let is_held = holder.is_some_and(|holder| holder != from && promise != Ballot::default());
        let inherits = from_ballot == promise && promise != Ballot::default();
        if prepare.n > promise && is_held && !inherits {
            return false;
        }
        let (accepted, last, before) = {
            let book = self.ledger.open();
            (book.memory.accepted.unwrap_or_default(), book.last(), book.before())
        };
        // From where on the other one would need entries of this log.
        let needed = if accepted > prepare.n_accepted {
            prepare.decided_idx as u64
        } else if accepted == prepare.n_accepted && last > prepare.accepted_idx as u64 {
            prepare.accepted_idx as u64
        } else {
            return true;
        };
        if needed < before {
            self.offer(from);
            return false;
        }
        true
    }

    fn admit_promise(&mut self, from: ServerId, promise: &mut Promise<Item>, tag: u64) -> bool {
        if promise.n != self.promise() {
            return false;
        }
        if (promise.decided_idx as u64) < self.ledger.open().before() {
            self.offer(from);
            return false;
        }
        // A server that has started from a snapshot does not know in which ballot that was accepted. If it goes beyond what this
        // leader found when it began, it was accepted in this ballot; the library would send entries that are part of the past there.
        let start = self.standing.map_or(u64::MAX, |(_, start)| start);
        if promise.n_accepted < promise.n && promise.decided_idx as u64 > start {
            promise.n_accepted = promise.n;
            promise.accepted_idx = promise.decided_idx;
        }
        self.tags.insert(from, tag);
        true
    }

    /// Nothing is decided that is not durable here: the library counts the leader's own acceptance from the start.
    fn admit_accepted(&mut self, from: ServerId, accepted: Accepted) -> bool {
        self.note_accepted(from, accepted.n, accepted.accepted_idx as u64);
        false
    }

    fn note_accepted(&mut self, from: ServerId, ballot: Ballot, accepted: u64) {
        if self.standing.is_some_and(|(own, _)| own == ballot) {
            let known = self.accepted.entry(from).or_default();
            known.0 = known.0.max(accepted);
            self.count_accepted();
        }
    }

    /// Tells the library of what others have accepted, as far as it is durable here.
    pub(super) fn count_accepted(&mut self) {
        let Some((ballot, _)) = self.standing else { return };
        let durable = self.ledger.open().durable();
        for (from, (accepted, told)) in &mut self.accepted {
            let now = (*accepted).min(durable);
            let Some(library) = self.library.as_mut().filter(|_| now > *told) else { continue };
            *told = now;
            let accepted_idx = usize::try_from(now).unwrap_or(usize::MAX);
            let msg = PaxosMsg::Accepted(Accepted { n: ballot, accepted_idx });
            let message = PaxosMessage { from: from.0, to: self.config.id.0, msg };
            library.handle_incoming(Message::SequencePaxos(message));
        }
    }
}
