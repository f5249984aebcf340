//! What the library leaves to its user.

use super::{
    CAMPAIGN_TRANSFER, INVALID_ID, Message, MessageType, RaftLog, SnapshotMeta, StateRole, memory,
};
use crate::mix;
use ::raft::{ProgressState, SnapshotStatus};
use rota_ports::EntryBytes;
use rota_types::ServerId;

impl RaftLog {
    /// Brings everything in line after the library was told something.
    pub(super) fn after(&mut self) {
        self.note_standing();
        self.pump();
        self.note_standing();
        self.draw_timeout();
    }

    /// The library draws a timeout from a generator of its own at each change of role or term. This one only depends on what the server
    /// has been told: no matter when the library drew, it is put in the place of what it drew.
    fn draw_timeout(&mut self) {
        let base = u64::from(self.config.election_ticks);
        let term = self.node.raft.term;
        let drawn = mix(self.config.seed ^ mix(term ^ mix(self.campaigns))) % base;
        let timeout = usize::try_from(base + drawn).unwrap_or(usize::MAX);
        self.node.raft.set_randomized_election_timeout(timeout);
    }

    /// Drops what belonged to a leadership that is over.
    fn note_standing(&mut self) {
        let standing = (self.node.raft.term, self.node.raft.state);
        if standing == self.standing {
            return;
        }
        self.standing = standing;
        self.queue.clear();
        self.in_flight.clear();
        self.bytes = 0;
        self.reads.clear();
        self.pointed.clear();
        self.handing_over = None;
        if self.is_leader() {
            self.recent.clear();
        }
    }

    /// Gives the library what was gathered since the last time: one message carries it all.
    pub(super) fn flush(&mut self) {
        if self.reads.has_asked() && self.leads() {
            self.begin_round();
        }
        if self.queue.is_empty() {
            return;
        }
        let queue = std::mem::take(&mut self.queue);
        let last = self.node.raft.raft_log.last_index();
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.config.id.0;
        message.set_entries(queue.iter().map(memory::command).collect::<Vec<_>>().into());
        let sizes: Vec<usize> = queue.iter().map(|entry| entry.len()).collect();
        self.recent.extend(queue.into_iter().map(|entry: EntryBytes| entry));
        if self.node.raft.step(message).is_ok() {
            self.in_flight.extend((last + 1..).zip(sizes));
        } else {
            // It leads no more, or hands over: whoever proposed learns that from the status.
            self.recent.clear();
            self.bytes = self.in_flight.iter().map(|(_, bytes)| bytes).sum();
        }
    }

    /// Asks a majority whether this server still leads.
    pub(super) fn begin_round(&mut self) {
        let number = self.reads.begin(self.ticks);
        self.node.read_index(number.to_le_bytes().to_vec());
    }

    /// Whether an election would be safe: the library panics if a log that is not durable wins one, or if it has to look for entries
    /// below a snapshot that is not durable.
    pub(super) fn may_campaign(&self) -> bool {
        let voters = self.node.raft.prs().conf().voters().ids().len();
        self.restoring.is_none() && (voters > 1 || self.frames.is_settled())
    }

    /// The message as it may be given to the library, if it may.
    pub(super) fn admit(&mut self, mut message: Message) -> Option<Message> {
        match message.get_msg_type() {
            // Before the restart, this server may have told a leader that it would vote for nobody else for a while.
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => {
                let quiet = self.ticks < u64::from(self.config.election_ticks);
                (!quiet || message.context == CAMPAIGN_TRANSFER).then_some(message)
            }
            MessageType::MsgTimeoutNow => self.may_campaign().then_some(message),
            // A commit index beyond the log would be that of a server that lost its log and kept its id.
            MessageType::MsgHeartbeat => {
                if message.commit > self.node.raft.raft_log.last_index() {
                    message.commit = 0;
                }
                Some(message)
            }
            MessageType::MsgSnapshot => self.admit_snapshot(message),
            _ => Some(message),
        }
    }

    /// The library is not shown a snapshot before its image is durable: there would be no way back. Until then the message counts as a
    /// sign of life of the leader.
    fn admit_snapshot(&mut self, message: Message) -> Option<Message> {
        let raft = &self.node.raft;
        let meta = memory::from_snapshot(message.get_snapshot());
        let is_known = meta.index.0 <= raft.raft_log.committed
            || raft.raft_log.match_term(meta.index.0, meta.term);
        if message.term < raft.term || is_known {
            return Some(message);
        }
        let mut sign = Message { from: message.from, to: message.to, ..Message::default() };
        sign.set_msg_type(MessageType::MsgHeartbeat);
        sign.term = message.term;
        if self.fetching.is_none() && self.restoring.is_none() {
            self.ask_install = Some((meta, ServerId(message.from)));
            self.fetching = Some(message);
        }
        Some(sign)
    }

    /// Shows the library a snapshot whose image has taken the place of the state machine.
    pub(super) fn restore(&mut self, mut message: Message, meta: SnapshotMeta) {
        self.handed = self.handed.max(meta.index.0);
        if self.is_leader() {
            return;
        }
        let mut known = meta;
        let id = self.config.id;
        let members = &mut known.members;
        if !members.voters.contains(&id)
            && !members.learners.contains(&id)
            && !members.outgoing.contains(&id)
        {
            // The entry that makes this server a member comes behind the snapshot, and changes nothing then.
            members.learners.push(id);
            members.learners.sort_unstable();
        }
        let snapshot = memory::to_snapshot(&known);
        let raft = &mut self.node.raft;
        if message.term >= raft.term {
            message.set_snapshot(snapshot);
            let _stepped = self.node.step(message);
            return;
        }
        // The one who offered it leads no more. What it offered is committed all the same.
        if raft.state != StateRole::Follower {
            let term = raft.term;
            raft.become_follower(term, INVALID_ID);
        }
        raft.restore(snapshot);
    }

    /// Points servers to the snapshot again that have said nothing about it for long: message or answer may be lost.
    pub(super) fn point_again(&mut self) {
        if !self.is_leader() {
            return;
        }
        let (now, limit) = (self.ticks, u64::from(self.config.snapshot_ticks));
        let mut fetching = Vec::new();
        for (id, peer) in self.node.raft.prs().iter() {
            if peer.state == ProgressState::Snapshot {
                fetching.push(*id);
            }
        }
        self.pointed.retain(|id, _| fetching.contains(id));
        fetching.sort_unstable();
        for id in fetching {
            let since = self.pointed.entry(id).or_insert(now);
            if now - *since >= limit {
                self.pointed.remove(&id);
                self.node.report_snapshot(id, SnapshotStatus::Failure);
            }
        }
    }

    /// Gives leadership up if a hand-over did not come about: the word to the other one may still be under way, and could break a
    /// lease at any time in this term.
    pub(super) fn end_failed_hand_over(&mut self) {
        let begun = self.handing_over == Some(self.node.raft.term);
        if begun && self.is_leader() && self.node.raft.lead_transferee.is_none() {
            self.step_down();
        }
    }
}
