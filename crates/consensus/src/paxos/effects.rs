//! Turning what the library says and does into effects.

use omnipaxos::ballot_leader_election::Ballot;
use omnipaxos::messages::Message;
use omnipaxos::messages::sequence_paxos::{AcceptSync, PaxosMessage, PaxosMsg, Promise};
use rota_ports::{Committed, EntryBytes, EntryKind, FrameSeq, LogEntry};
use rota_types::{LogIndex, ServerId};

use super::PaxosLog;
use super::ledger::Item;
use super::wire::{self, Stamp, Stream, Told};

impl PaxosLog {
    /// Brings everything in line after something happened.
    pub(super) fn after(&mut self) {
        self.note_standing();
        self.count_accepted();
        self.hand_out();
    }

    fn leading(&self) -> Option<Ballot> {
        let promise = self.promise();
        (promise.pid == self.config.id.0 && self.is_accepting()).then_some(promise)
    }

    fn note_standing(&mut self) {
        let leading = self.leading();
        if leading == self.standing.map(|(ballot, _)| ballot) {
            if !self.has_majority() {
                // Whoever waits is refused, and is not to be answered later.
                self.reads.clear();
                self.queue.clear();
            }
            return;
        }
        self.majority_tick = self.ticks;
        self.standing = leading.map(|ballot| (ballot, self.ledger.open().last()));
        self.handing_over = None;
        self.rounds.clear();
        self.reads.clear();
        self.confirmed_tick = 0;
        self.accepted.clear();
        self.queue.clear();
        self.in_flight.clear();
        self.bytes = 0;
        if leading.is_some() {
            self.inherited = Ballot::default();
            self.granted = None;
        }
    }

    /// Gives the library what was gathered since the last time.
    pub(super) fn flush(&mut self) {
        if self.reads.has_asked() && self.leads() {
            self.begin_round();
        }
        for bytes in std::mem::take(&mut self.queue) {
            let (length, index) = (bytes.len(), self.ledger.open().last() + 1);
            let entry = LogEntry::command(EntryBytes::clone(&bytes));
            let Some(library) = &mut self.library else { return };
            if library.append(Item(entry)).is_ok() {
                self.in_flight.push_back((index, length));
            }
        }
    }

    /// Hands out what is decided, and durable here.
    fn hand_out(&mut self) {
        let mut found = Vec::new();
        {
            let book = self.ledger.open();
            let end = book.memory.decided.min(book.durable());
            for index in self.handed + 1..=end {
                let Some(entry) = book.get(index) else { break };
                let is_command = entry.kind == EntryKind::Command;
                let entry = is_command.then(|| EntryBytes::clone(&entry.bytes));
                found.push(Committed { index: LogIndex(index), entry });
            }
        }
        if let Some(last) = found.last() {
            self.handed = last.index.0;
            while let Some((_, bytes)) = self.in_flight.pop_front_if(|(own, _)| *own <= self.handed)
            {
                self.bytes = self.bytes.saturating_sub(bytes);
            }
            self.committed.append(&mut found);
        }
    }

    /// Takes the library's messages.
    pub(super) fn collect(&mut self) {
        let mut messages = Vec::new();
        if let Some(library) = &mut self.library {
            library.take_outgoing_messages(&mut messages);
        }
        let promise = self.promise();
        let before = self.ledger.open().before();
        for message in messages {
            let to = ServerId(message.get_receiver());
            let (stream, tag, from_ballot) = match &message {
                Message::BLE(_) => (Stream::Pulse, 0, Ballot::default()),
                Message::SequencePaxos(PaxosMessage { msg, .. }) => match msg {
                    // It has climbed on since.
                    PaxosMsg::Prepare(prepare) if prepare.n != promise => continue,
                    PaxosMsg::Prepare(_) => (Stream::Promises, 0, self.inherited),
                    // It speaks of entries that have gone since: the library would pass over them.
                    PaxosMsg::AcceptSync(AcceptSync { log_sync, .. })
                    | PaxosMsg::Promise(Promise { log_sync: Some(log_sync), .. })
                        if (log_sync.sync_idx as u64) < before =>
                    {
                        continue;
                    }
                    PaxosMsg::Promise(_) => {
                        (Stream::Promises, self.next_promise(), Ballot::default())
                    }
                    PaxosMsg::AcceptSync(_) => {
                        let tag = self.tags.get(&to).copied().unwrap_or(0);
                        (Stream::Lead, tag, Ballot::default())
                    }
                    PaxosMsg::AcceptDecide(_) | PaxosMsg::Decide(_) => {
                        (Stream::Lead, 0, Ballot::default())
                    }
                    _ => (Stream::Promises, 0, Ballot::default()),
                },
            };
            self.tell(to, stream, &Told::Library { message, tag, from_ballot });
        }
    }

    /// The number of the next promise, which no other promise of this server has had.
    fn next_promise(&mut self) -> u64 {
        let life = self.ledger.open().memory.life;
        self.promises = self.promises.max(life << 32) + 1;
        self.promises
    }

    /// Puts a message on its way: at once, or behind the frames.
    pub(super) fn tell(&mut self, to: ServerId, stream: Stream, told: &Told) {
        let (at_once, stamp) = {
            let book = self.ledger.open();
            let durable = book.frames.durable();
            // Nobody hears of a life or of a promise that could be forgotten. What a leader has accepted need not be durable yet: it
            // counts itself last.
            let at_once = durable > FrameSeq(0)
                && match stream {
                    Stream::Pulse => true,
                    Stream::Promises => false,
                    Stream::Lead => book.promise_frame <= durable,
                };
            let number = self.sent.entry((to, stream as u8)).or_default();
            *number += 1;
            let place = (book.memory.life, *number);
            let configuration = book.memory.configuration;
            (at_once, Stamp { configuration, stream: stream as u8, place })
        };
        if let Some(bytes) = wire::encode(stamp, told) {
            let queue = if at_once { &mut self.send } else { &mut self.send_after };
            queue.push((to, bytes));
        }
    }
}
