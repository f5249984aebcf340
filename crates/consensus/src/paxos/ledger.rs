//! The log as the library reads and writes it: in memory, and in the frames that make it durable.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use omnipaxos::ballot_leader_election::Ballot;
use omnipaxos::storage::{Entry, NoSnapshot, StopSign, Storage, StorageOp, StorageResult};
use rota_ports::{FrameSeq, LogEntry, SnapshotMeta};
use rota_types::ServerId;

use crate::cursor::{Cursor, Put};
use crate::frames::Frames;

/// The first byte of what is remembered: Paxos, version 1.
const STATE_TAG: u8 = 2;

/// An entry as the library knows it.
#[derive(Clone, Debug)]
pub(super) struct Item(pub(super) LogEntry);

impl Entry for Item {
    type Snapshot = NoSnapshot;
}

/// What is remembered besides the entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// How often the server has started.
    pub(super) life: u64,
    pub(super) configuration: u32,
    pub(super) members: Vec<ServerId>,
    /// No lower ballot is answered.
    pub(super) promise: Option<Ballot>,
    /// The ballot in which the log was accepted.
    pub(super) accepted: Option<Ballot>,
    pub(super) decided: u64,
}

impl Memory {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![STATE_TAG];
        bytes.number(self.life);
        bytes.number(u64::from(self.configuration));
        bytes.servers(&self.members);
        for ballot in [self.promise, self.accepted] {
            put_ballot(&mut bytes, ballot.unwrap_or_default());
        }
        bytes.number(self.decided);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(bytes);
        (cursor.byte()? == STATE_TAG).then_some(())?;
        let life = cursor.number()?;
        let configuration = u32::try_from(cursor.number()?).ok()?;
        let members = cursor.servers()?;
        let some = |ballot: Ballot| (ballot != Ballot::default()).then_some(ballot);
        let promise = some(ballot(&mut cursor)?);
        let accepted = some(ballot(&mut cursor)?);
        let decided = cursor.number()?;
        cursor.end(Self { life, configuration, members, promise, accepted, decided })
    }
}

pub(super) fn put_ballot(bytes: &mut Vec<u8>, ballot: Ballot) {
    let Ballot { config_id, n, priority, pid } = ballot;
    for number in [u64::from(config_id), u64::from(n), u64::from(priority), pid] {
        bytes.number(number);
    }
}

pub(super) fn ballot(cursor: &mut Cursor<'_>) -> Option<Ballot> {
    let mut small = || u32::try_from(cursor.number()?).ok();
    let (config_id, n, priority) = (small()?, small()?, small()?);
    Some(Ballot { config_id, n, priority, pid: cursor.number()? })
}

/// Entries, what is remembered, and how much of both is durable.
pub(super) struct Book {
    pub(super) memory: Memory,
    pub(super) frames: Frames,
    pub(super) snapshot: SnapshotMeta,
    /// The index of the entry before the first one.
    before: u64,
    entries: VecDeque<LogEntry>,
    /// The last entry that is durable.
    durable: u64,
    /// For each frame, up to where it makes the log durable.
    writes: VecDeque<(FrameSeq, u64)>,
    /// The last frame with a promise: messages that speak of one wait for it.
    pub(super) promise_frame: FrameSeq,
    decided_saved: u64,
}

impl Book {
    pub(super) fn new(memory: Memory, snapshot: SnapshotMeta, entries: Vec<LogEntry>) -> Self {
        let before = snapshot.index.0;
        let last = before + entries.len() as u64;
        let decided = memory.decided.clamp(before, last);
        Self {
            memory: Memory { decided, ..memory },
            frames: Frames::new(last + 1),
            snapshot,
            before,
            entries: entries.into(),
            durable: last,
            writes: VecDeque::new(),
            promise_frame: FrameSeq(0),
            decided_saved: decided,
        }
    }

    pub(super) fn last(&self) -> u64 {
        self.before + self.entries.len() as u64
    }

    pub(super) fn before(&self) -> u64 {
        self.before
    }

    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    pub(super) fn get(&self, index: u64) -> Option<&LogEntry> {
        let at = index.checked_sub(self.before)?.checked_sub(1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// Entries behind `index`; none if one of them is gone.
    pub(super) fn behind(&self, index: u64) -> Vec<LogEntry> {
        let skipped = index.checked_sub(self.before).and_then(|count| usize::try_from(count).ok());
        let skipped = skipped.filter(|count| *count <= self.entries.len());
        skipped.map_or_else(Vec::new, |count| self.entries.range(count..).cloned().collect())
    }

    /// Puts `entries` in the place of whatever there was behind `before`.
    fn append(&mut self, before: u64, entries: Vec<LogEntry>) {
        let kept = before.saturating_sub(self.before);
        self.entries.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
        self.durable = self.durable.min(before);
        for (_, end) in &mut self.writes {
            *end = (*end).min(before);
        }
        self.entries.extend(entries.iter().cloned());
        self.frames.append(before + 1, entries);
        self.note_write();
    }

    fn note_write(&mut self) {
        let (frame, last) = (self.frames.current(), self.last());
        match self.writes.back_mut() {
            Some((latest, end)) if *latest == frame => *end = last,
            _ => self.writes.push_back((frame, last)),
        }
        // A decided index needs no frame of its own: after a restart the leader tells it again.
        if self.memory.decided > self.decided_saved {
            self.remember();
        }
    }

    pub(super) fn remember(&mut self) {
        self.decided_saved = self.memory.decided;
        self.frames.remember(self.memory.encode());
    }

    fn promise(&mut self) {
        self.remember();
        self.promise_frame = self.frames.current();
    }

    pub(super) fn persisted(&mut self, frame: FrameSeq) {
        self.frames.persisted(frame);
        let durable = self.frames.durable();
        while let Some((_, end)) = self.writes.pop_front_if(|(frame, _)| *frame <= durable) {
            self.durable = self.durable.max(end);
        }
    }

    /// Begins anew behind a snapshot, with `entries`.
    pub(super) fn reset(&mut self, snapshot: SnapshotMeta, entries: Vec<LogEntry>) {
        let index = snapshot.index.0;
        self.before = index;
        self.entries.clear();
        self.durable = index;
        self.writes.clear();
        self.memory.decided = self.memory.decided.max(index);
        self.snapshot = snapshot;
        self.frames.reset(index + 1);
        self.append(index, entries);
        self.promise();
    }

    /// Notes a newer snapshot, and drops the oldest entries that it covers, but for `tail_bytes` of them.
    pub(super) fn compact(&mut self, snapshot: SnapshotMeta, tail_bytes: usize) {
        if snapshot.index <= self.snapshot.index {
            return;
        }
        let covered = snapshot.index.0.saturating_sub(self.before);
        let covered = usize::try_from(covered).unwrap_or(usize::MAX).min(self.entries.len());
        let mut bytes: usize = self.entries.range(..covered).map(|entry| entry.bytes.len()).sum();
        for _ in 0..covered {
            if bytes <= tail_bytes {
                break;
            }
            let Some(entry) = self.entries.pop_front() else { break };
            bytes -= entry.bytes.len();
            self.before += 1;
        }
        self.snapshot = snapshot;
    }
}

/// The book, shared with the library, which owns its storage and does not show it.
#[derive(Clone)]
pub(super) struct Ledger(Arc<Mutex<Book>>);

impl Ledger {
    pub(super) fn new(book: Book) -> Self {
        Self(Arc::new(Mutex::new(book)))
    }

    pub(super) fn open(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn index(count: usize) -> u64 {
    count as u64
}

fn count(index: u64) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}

fn plain(items: Vec<Item>) -> Vec<LogEntry> {
    items.into_iter().map(|Item(entry)| entry).collect()
}

impl Storage<Item> for Ledger {
    fn write_atomically(&mut self, operations: Vec<StorageOp<Item>>) -> StorageResult<()> {
        for operation in operations {
            match operation {
                StorageOp::AppendEntry(item) => self.append_entry(item)?,
                StorageOp::AppendEntries(items) => self.append_entries(items)?,
                StorageOp::AppendOnPrefix(from, items) => self.append_on_prefix(from, items)?,
                StorageOp::SetPromise(ballot) => self.set_promise(ballot)?,
                StorageOp::SetDecidedIndex(decided) => self.set_decided_idx(decided)?,
                StorageOp::SetAcceptedRound(ballot) => self.set_accepted_round(ballot)?,
                StorageOp::SetStopsign(stop) => self.set_stopsign(stop)?,
                // Snapshots of the library's own are not used.
                StorageOp::SetCompactedIdx(_) | StorageOp::Trim(_) | StorageOp::SetSnapshot(_) => {}
            }
        }
        Ok(())
    }

    fn append_entry(&mut self, item: Item) -> StorageResult<()> {
        self.append_entries(vec![item])
    }

    fn append_entries(&mut self, items: Vec<Item>) -> StorageResult<()> {
        if !items.is_empty() {
            let mut book = self.open();
            let last = book.last();
            book.append(last, plain(items));
        }
        Ok(())
    }

    fn append_on_prefix(&mut self, from: usize, items: Vec<Item>) -> StorageResult<()> {
        self.open().append(index(from), plain(items));
        Ok(())
    }

    fn set_promise(&mut self, ballot: Ballot) -> StorageResult<()> {
        let mut book = self.open();
        if book.memory.promise.unwrap_or_default() != ballot {
            book.memory.promise = Some(ballot);
            book.promise();
        }
        Ok(())
    }

    fn set_decided_idx(&mut self, decided: usize) -> StorageResult<()> {
        self.open().memory.decided = index(decided);
        Ok(())
    }

    fn get_decided_idx(&self) -> StorageResult<usize> {
        Ok(count(self.open().memory.decided))
    }

    fn set_accepted_round(&mut self, ballot: Ballot) -> StorageResult<()> {
        let mut book = self.open();
        book.memory.accepted = Some(ballot);
        book.promise();
        Ok(())
    }

    fn get_accepted_round(&self) -> StorageResult<Option<Ballot>> {
        Ok(self.open().memory.accepted)
    }

    fn get_entries(&self, from: usize, to: usize) -> StorageResult<Vec<Item>> {
        let mut entries = self.open().behind(index(from));
        entries.truncate(to.saturating_sub(from));
        Ok(entries.into_iter().map(Item).collect())
    }

    fn get_log_len(&self) -> StorageResult<usize> {
        let book = self.open();
        Ok(count(book.last() - book.before))
    }

    fn get_suffix(&self, from: usize) -> StorageResult<Vec<Item>> {
        Ok(self.open().behind(index(from)).into_iter().map(Item).collect())
    }

    fn get_promise(&self) -> StorageResult<Option<Ballot>> {
        Ok(self.open().memory.promise)
    }

    fn set_stopsign(&mut self, _stop: Option<StopSign>) -> StorageResult<()> {
        Ok(()) // members do not change
    }

    fn get_stopsign(&self) -> StorageResult<Option<StopSign>> {
        Ok(None)
    }

    fn trim(&mut self, _index: usize) -> StorageResult<()> {
        Ok(()) // the log is cut behind snapshots, which the library knows nothing of
    }

    fn set_compacted_idx(&mut self, _index: usize) -> StorageResult<()> {
        Ok(())
    }

    fn get_compacted_idx(&self) -> StorageResult<usize> {
        Ok(count(self.open().before))
    }

    fn set_snapshot(&mut self, _snapshot: Option<NoSnapshot>) -> StorageResult<()> {
        Ok(())
    }

    fn get_snapshot(&self) -> StorageResult<Option<NoSnapshot>> {
        Ok(None)
    }
}
