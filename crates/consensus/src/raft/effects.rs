//! Turning the library's answers into effects.

use ::raft::eraftpb::{Entry, HardState, Message};
use ::raft::{Ready, StateRole};
use rota_ports::{Committed, EntryBytes, EntryKind, LogEntry};
use rota_types::{LogIndex, ServerId};

use super::memory::{self, Tag};
use super::{RaftLog, encode_state, members, wire};
use crate::cursor::Cursor;

impl RaftLog {
    /// Takes out all that the library has to say.
    pub(super) fn pump(&mut self) {
        while self.node.has_ready() {
            let ready = self.node.ready();
            self.take(ready);
        }
    }

    fn take(&mut self, mut ready: Ready) {
        for state in ready.take_read_states() {
            if let Some(number) = Cursor(&state.request_ctx).number() {
                self.reads.confirm(number, LogIndex(state.index));
            }
        }
        let messages = ready.take_messages();
        let mut messages_after = ready.take_persisted_messages();
        self.store(&mut ready);
        let committed = ready.take_committed_entries();
        let number = ready.number();
        self.node.advance_append_async(ready);
        self.note_ready(number);
        // A leader's messages need not wait for its own disk, but nobody may hear of a term or vote that could be forgotten.
        if self.vote_frame <= self.frames.durable() {
            Self::encode(&messages, &mut self.send);
        } else {
            messages_after.extend(messages);
        }
        // What is durable already may be what a message speaks of, but frames that are under way may be, too.
        Self::encode(&messages_after, &mut self.send_after);
        self.hand_out(&committed);
    }

    fn encode(messages: &[Message], to: &mut Vec<(ServerId, Vec<u8>)>) {
        let encoded = messages.iter();
        to.extend(encoded.filter_map(|sent| Some((ServerId(sent.to), wire::encode(sent)?))));
    }

    /// Puts what has to become durable into the frame.
    fn store(&mut self, ready: &mut Ready) {
        if !ready.snapshot().is_empty() {
            let meta = memory::from_snapshot(ready.snapshot());
            let index = meta.index.0;
            self.history = members::History::new(index, meta.members.clone());
            self.frames.reset(index + 1);
            self.restoring = Some((self.frames.current(), index));
            self.node.mut_store().reset(meta);
            self.remember();
        }
        let entries = ready.take_entries();
        if let Some(first) = entries.first().map(|entry| entry.index) {
            let stored: Vec<LogEntry> = entries.iter().map(|entry| self.stored(entry)).collect();
            self.node.mut_store().append(first, stored.iter().cloned());
            self.frames.append(first, stored);
            // A commit index needs no frame of its own: after a restart the leader tells it again.
            if self.node.raft.raft_log.committed > self.commit_saved {
                self.remember();
            }
        }
        if ready.must_sync() && ready.hs().is_some() {
            self.remember();
            self.vote_frame = self.frames.current();
        }
    }

    fn remember(&mut self) {
        let raft = &self.node.raft;
        let HardState { term, vote, commit, .. } = raft.hard_state();
        // Entries up to the commit index are in this frame or in one before it.
        self.commit_saved = commit;
        let state = HardState { term, vote, commit, ..HardState::default() };
        self.frames.remember(encode_state(&state));
    }

    fn stored(&mut self, entry: &Entry) -> LogEntry {
        let same = |bytes: &EntryBytes| bytes.as_ptr() == entry.data.as_ptr();
        let own = self.recent.iter().position(same);
        let own = own.and_then(|at| self.recent.drain(..=at).next_back());
        memory::from_library(entry, own)
    }

    fn note_ready(&mut self, number: u64) {
        if self.frames.is_settled() {
            self.node.on_persist_ready(number);
            return;
        }
        let frame = self.frames.current();
        match self.readies.back_mut() {
            Some((last, highest)) if *last == frame => *highest = number,
            _ => self.readies.push_back((frame, number)),
        }
    }

    /// Tells the library what has become durable.
    pub(super) fn note_durable(&mut self) {
        let durable = self.frames.durable();
        let mut number = None;
        while let Some((_, ready)) = self.readies.pop_front_if(|(frame, _)| *frame <= durable) {
            number = Some(ready);
        }
        if let Some(number) = number {
            self.node.on_persist_ready(number);
        }
        if let Some((_, index)) = self.restoring.take_if(|(frame, _)| *frame <= durable) {
            self.node.advance_apply_to(index);
        }
    }

    fn hand_out(&mut self, committed: &[Entry]) {
        let Some(last) = committed.last().map(|entry| entry.index) else { return };
        for index in committed.iter().map(|entry| entry.index) {
            let entry = self.memory().get(index).cloned().expect("committed entries are in memory");
            if entry.kind == EntryKind::Internal {
                self.apply(index, &entry.bytes);
            }
            self.note_committed(index);
            if index > self.handed {
                self.handed = index;
                let entry = (entry.kind == EntryKind::Command).then_some(entry.bytes);
                self.committed.push(Committed { index: LogIndex(index), entry });
            }
        }
        self.node.advance_apply_to(last);
        self.leave_if_removed();
    }

    fn note_committed(&mut self, index: u64) {
        while let Some((_, bytes)) = self.in_flight.pop_front_if(|(own, _)| *own <= index) {
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    /// Carries out an entry of the protocol's own. What can't be read or done is passed over, on all servers alike.
    fn apply(&mut self, index: u64, bytes: &[u8]) {
        let (tag, rest) = bytes.split_first().unwrap_or((&0, &[]));
        if *tag == Tag::Change as u8 {
            if let Some(changes) = members::decode(rest) {
                self.change(index, &changes);
            }
        } else if *tag == Tag::Founding as u8 {
            let founders = Cursor(rest).servers().unwrap_or_default();
            for founder in founders {
                self.change(index, &[rota_ports::Change::AddVoter(founder)]);
            }
        }
    }

    fn change(&mut self, index: u64, changes: &[rota_ports::Change]) {
        if let Ok(state) = self.node.apply_conf_change(&members::to_library(changes)) {
            self.history.note(index, members::from_conf_state(&state));
        }
    }

    /// Hands over if this server leads and is no voter any more: the library would go on, and commit nothing.
    fn leave_if_removed(&mut self) {
        let id = self.config.id;
        let now = self.history.now();
        if !self.is_leader() || now.voters.contains(&id) || now.outgoing.contains(&id) {
            return;
        }
        let voters = now.voters.iter().map(|voter| voter.0);
        let matched = |voter: &u64| self.node.raft.prs().get(*voter).map(|peer| peer.matched);
        if let Some(next) = voters.max_by_key(matched) {
            self.node.raft.send_timeout_now(next);
        }
        self.step_down();
    }

    pub(super) fn step_down(&mut self) {
        if self.node.raft.state == StateRole::Leader {
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, ::raft::INVALID_ID);
        }
    }
}
