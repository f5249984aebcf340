//! The log of the simulated server: everything that a log of one server may do, far more often than a real one does it.

use std::collections::VecDeque;

use rota_core::State;
use rota_core::command::Entry;
use rota_core::image::{BadImage, Record};
use rota_types::LogIndex;

/// What the simulated disk holds, and what is on its way there.
#[derive(Debug, Default)]
pub(crate) struct SimLog {
    snapshot: Option<(LogIndex, Vec<Record>)>,
    /// Durable, behind the snapshot.
    durable: Vec<Entry>,
    /// Written and not synced: a crash keeps a beginning of it.
    volatile: VecDeque<Entry>,
    last: LogIndex,
}

impl SimLog {
    /// The index that the next proposal gets.
    #[must_use]
    pub(crate) fn next_index(&self) -> LogIndex {
        self.last.next()
    }

    /// Takes an entry in. It is not durable yet.
    pub(crate) fn propose(&mut self, entry: Entry) {
        self.last = entry.index;
        self.volatile.push_back(entry);
    }

    /// How many entries are not durable.
    #[must_use]
    pub(crate) fn unsynced(&self) -> usize {
        self.volatile.len()
    }

    /// Makes the first `count` written entries durable and hands them out: they are committed.
    pub(crate) fn sync(&mut self, count: usize) -> Vec<Entry> {
        let count = count.min(self.volatile.len());
        let committed: Vec<Entry> = self.volatile.drain(..count).collect();
        self.durable.extend(committed.iter().cloned());
        committed
    }

    /// The server dies. The first `kept` entries that were written had reached the disk; nobody was told.
    pub(crate) fn crash(&mut self, kept: usize) {
        drop(self.sync(kept));
        self.volatile.clear();
        let covered = self.snapshot.as_ref().map_or(LogIndex(0), |(index, _)| *index);
        self.last = self.durable.last().map_or(covered, |entry| entry.index);
    }

    /// Stores the state as a snapshot and drops the entries that it covers.
    pub(crate) fn snapshot(&mut self, state: &State) {
        let index = state.index();
        self.snapshot = Some((index, state.records().collect()));
        self.durable.retain(|entry| entry.index > index);
    }

    /// Where a starting server begins: the snapshot, and the entries behind it.
    ///
    /// # Errors
    /// If the snapshot can't be restored.
    pub(crate) fn load(&self) -> Result<(State, &[Entry]), BadImage> {
        let state = match &self.snapshot {
            Some((_, records)) => State::restore(records.iter().cloned().map(Ok::<_, BadImage>))?,
            None => State::new(),
        };
        Ok((state, &self.durable))
    }

    /// Whether there is a snapshot to begin from.
    #[must_use]
    pub(crate) fn has_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }
}
