//! Gathering what has to become durable into frames.

use std::sync::Arc;

use rota_ports::{Frame, FrameSeq, LogEntry};
use rota_types::LogIndex;

/// The frames of a log: one that is being gathered, and those that were handed out.
#[derive(Debug)]
pub(crate) struct Frames {
    pending: Option<Pending>,
    /// The index behind the last entry of all frames.
    next: u64,
    /// The last frame handed out.
    handed: FrameSeq,
    durable: FrameSeq,
}

#[derive(Debug)]
struct Pending {
    first: u64,
    entries: Vec<LogEntry>,
    state: Option<Arc<[u8]>>,
    reset: bool,
}

impl Frames {
    /// For a log whose stored part ends before `next`.
    pub(crate) fn new(next: u64) -> Self {
        Self { pending: None, next, handed: FrameSeq(0), durable: FrameSeq(0) }
    }

    fn pending(&mut self) -> &mut Pending {
        let first = self.next;
        let empty = || Pending { first, entries: Vec::new(), state: None, reset: false };
        self.pending.get_or_insert_with(empty)
    }

    /// Puts `entries` in the place of whatever there was from `first` on.
    pub(crate) fn append(&mut self, first: u64, entries: impl IntoIterator<Item = LogEntry>) {
        let pending = self.pending();
        let kept = usize::try_from(first.saturating_sub(pending.first)).unwrap_or(usize::MAX);
        pending.entries.truncate(kept);
        pending.first = pending.first.min(first);
        pending.entries.extend(entries);
        self.next = pending.first + pending.entries.len() as u64;
    }

    /// Replaces the protocol's memory.
    pub(crate) fn remember(&mut self, state: Vec<u8>) {
        self.pending().state = Some(Arc::from(state));
    }

    /// Begins anew with `first`, behind a snapshot.
    pub(crate) fn reset(&mut self, first: u64) {
        let state = self.pending.take().and_then(|pending| pending.state);
        self.pending = Some(Pending { first, entries: Vec::new(), state, reset: true });
        self.next = first;
    }

    /// Whether anything has been gathered.
    pub(crate) fn has_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// The frame that everything so far is part of, at the latest.
    pub(crate) fn current(&self) -> FrameSeq {
        FrameSeq(self.handed.0 + u64::from(self.has_pending()))
    }

    /// The last frame that is durable.
    pub(crate) fn durable(&self) -> FrameSeq {
        self.durable
    }

    /// Whether everything so far is durable.
    pub(crate) fn is_settled(&self) -> bool {
        self.current() == self.durable
    }

    /// Notes that frames up to this one are durable.
    pub(crate) fn persisted(&mut self, frame: FrameSeq) {
        self.durable = self.durable.max(frame.min(self.handed));
    }

    /// Hands out what was gathered.
    pub(crate) fn take(&mut self) -> Option<Frame> {
        let Pending { first, entries, state, reset } = self.pending.take()?;
        self.handed = FrameSeq(self.handed.0 + 1);
        Some(Frame { seq: self.handed, first: LogIndex(first), entries, state, reset })
    }
}
