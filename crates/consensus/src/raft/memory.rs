//! The log as the library reads it: entries in memory, from a little before the last snapshot on.

use std::collections::VecDeque;

use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};
use rota_ports::{EntryBytes, EntryKind, LogEntry, SnapshotMeta};

use super::members;
use crate::cursor::Put;

/// Marks an entry with commands: one without is the library's own.
const COMMAND: &[u8] = b"c";
/// Marks the entry that names the founders.
const FOUNDING: &[u8] = b"f";

/// What an entry of the protocol's own begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    /// A leader's first entry, which says nothing.
    Empty = 0,
    /// A change of the members.
    Change = 1,
    /// The members that a cluster begins with.
    Founding = 2,
}

/// Entries, and the newest snapshot.
#[derive(Debug)]
pub(super) struct Memory {
    start: RaftState,
    snapshot: SnapshotMeta,
    /// Index and term of the entry before the first one.
    before: (u64, u64),
    entries: VecDeque<LogEntry>,
}

impl Memory {
    pub(super) fn new(
        snapshot: SnapshotMeta,
        entries: impl IntoIterator<Item = LogEntry>,
        hard_state: HardState,
    ) -> Self {
        let conf_state = members::conf_state(&snapshot.members);
        let before = (snapshot.index.0, snapshot.term);
        let entries = entries.into_iter().collect();
        Self { start: RaftState { hard_state, conf_state }, snapshot, before, entries }
    }

    pub(super) fn last(&self) -> u64 {
        self.before.0 + self.entries.len() as u64
    }

    pub(super) fn get(&self, index: u64) -> Option<&LogEntry> {
        let at = index.checked_sub(self.before.0)?.checked_sub(1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// The term of the entry at `index`, if it is known.
    pub(super) fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.before.0 {
            return Some(self.before.1);
        }
        self.get(index).map(|entry| entry.term)
    }

    /// Puts `entries` in the place of whatever there was from `first` on.
    pub(super) fn append(&mut self, first: u64, entries: impl IntoIterator<Item = LogEntry>) {
        let kept = first.saturating_sub(self.before.0 + 1);
        self.entries.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
        self.entries.extend(entries);
    }

    /// Begins anew behind a snapshot.
    pub(super) fn reset(&mut self, snapshot: SnapshotMeta) {
        self.before = (snapshot.index.0, snapshot.term);
        self.entries.clear();
        self.snapshot = snapshot;
    }

    /// Notes a newer snapshot, and drops the oldest entries that it covers, but for `tail_bytes` of them.
    pub(super) fn compact(&mut self, snapshot: SnapshotMeta, tail_bytes: usize) {
        if snapshot.index <= self.snapshot.index {
            return;
        }
        let covered = snapshot.index.0.saturating_sub(self.before.0);
        let covered = usize::try_from(covered).unwrap_or(usize::MAX).min(self.entries.len());
        let mut bytes: usize = self.entries.range(..covered).map(|entry| entry.bytes.len()).sum();
        for _ in 0..covered {
            if bytes <= tail_bytes {
                break;
            }
            let Some(entry) = self.entries.pop_front() else { break };
            bytes -= entry.bytes.len();
            self.before = (self.before.0 + 1, entry.term);
        }
        self.snapshot = snapshot;
    }

    /// The index of the entry before the first one.
    pub(super) fn before(&self) -> u64 {
        self.before.0
    }
}

impl Storage for Memory {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.start.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.before.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        let max_size = max_size.into().unwrap_or(u64::MAX);
        let (mut found, mut size) = (Vec::new(), 0_u64);
        for index in low..high {
            let entry = self.get(index).ok_or(Error::Store(StorageError::Unavailable))?;
            size = size.saturating_add(entry.bytes.len() as u64);
            if size > max_size && !found.is_empty() {
                break;
            }
            found.push(to_library(index, entry));
        }
        Ok(found)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let is_gone = index < self.before.0;
        let missing = if is_gone { StorageError::Compacted } else { StorageError::Unavailable };
        self.term_of(index).ok_or(Error::Store(missing))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.before.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        if self.snapshot.index.0 == 0 || self.snapshot.index.0 < request_index {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(to_snapshot(&self.snapshot))
    }
}

/// A snapshot as the library knows it: its description.
pub(super) fn to_snapshot(meta: &SnapshotMeta) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let metadata = snapshot.mut_metadata();
    metadata.index = meta.index.0;
    metadata.term = meta.term;
    *metadata.mut_conf_state() = members::conf_state(&meta.members);
    snapshot
}

/// The description of a snapshot of the library's.
pub(super) fn from_snapshot(snapshot: &Snapshot) -> SnapshotMeta {
    let metadata = snapshot.get_metadata();
    SnapshotMeta {
        index: rota_types::LogIndex(metadata.index),
        term: metadata.term,
        members: members::from_conf_state(metadata.get_conf_state()),
    }
}

/// An entry as the library knows it.
pub(super) fn to_library(index: u64, entry: &LogEntry) -> Entry {
    let mut found = Entry { index, term: entry.term, ..Entry::default() };
    if entry.kind == EntryKind::Command {
        found.data = Bytes::from_owner(EntryBytes::clone(&entry.bytes));
        found.context = Bytes::from_static(COMMAND);
        return found;
    }
    let (tag, rest) = entry.bytes.split_first().unwrap_or((&0, &[]));
    if *tag == Tag::Change as u8 {
        found.set_entry_type(EntryType::EntryConfChangeV2);
        found.context = Bytes::copy_from_slice(rest);
    } else if *tag == Tag::Founding as u8 {
        found.data = Bytes::copy_from_slice(rest);
        found.context = Bytes::from_static(FOUNDING);
    }
    found
}

/// A command as the library is given it.
pub(super) fn command(bytes: &EntryBytes) -> Entry {
    to_library(0, &LogEntry::command(EntryBytes::clone(bytes)))
}

/// An entry of the library's as it is stored. `own` gives the bytes if this server proposed them and has them still.
pub(super) fn from_library(entry: &Entry, own: Option<EntryBytes>) -> LogEntry {
    let term = entry.term;
    let is_change = entry.get_entry_type() != EntryType::EntryNormal;
    if !is_change && entry.context == COMMAND {
        let bytes = own.unwrap_or_else(|| EntryBytes::from(entry.data.as_ref()));
        return LogEntry { term, kind: EntryKind::Command, bytes };
    }
    let (tag, rest) = if is_change {
        (Tag::Change, &entry.context)
    } else if entry.context == FOUNDING {
        (Tag::Founding, &entry.data)
    } else {
        (Tag::Empty, &entry.data)
    };
    internal(term, tag, rest)
}

/// Writes an entry the way [`Cursor::entry`](crate::cursor::Cursor::entry) reads it.
pub(super) fn put(entry: &Entry, bytes: &mut Vec<u8>) {
    bytes.number(entry.term);
    if entry.get_entry_type() == EntryType::EntryNormal && entry.context == COMMAND {
        bytes.push(0);
        bytes.bytes(&entry.data);
    } else {
        bytes.push(1);
        bytes.bytes(&from_library(entry, None).bytes);
    }
}

/// An entry of the protocol's own.
pub(super) fn internal(term: u64, tag: Tag, rest: &[u8]) -> LogEntry {
    let bytes = std::iter::once(tag as u8).chain(rest.iter().copied()).collect();
    LogEntry { term, kind: EntryKind::Internal, bytes }
}
