//! The replicated log of a single server: what is durable is committed.

use std::collections::VecDeque;

use rota_ports::{
    Change, ChangeRefused, Committed, Effects, EntryBytes, Frame, FrameSeq, LogEntry, LogStatus,
    MemberStatus, ProposeRefused, ReadId, ReplicatedLog, SnapshotMeta,
};
use rota_types::limits::ENTRY_BYTES_MAX;
use rota_types::{LogIndex, ServerId};

/// How much may be in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoloLimits {
    /// Entries that are not committed.
    pub entries: usize,
    /// Their bytes. An entry is taken, whatever its size, if nothing else is in flight.
    pub bytes: usize,
}

impl Default for SoloLimits {
    fn default() -> Self {
        Self { entries: 4_096, bytes: 2 * ENTRY_BYTES_MAX }
    }
}

/// A log with one replica. One frame is being made durable at a time; whatever is proposed meanwhile makes up the next one. That is
/// group commit without a timer: the slower the disk, the larger the frames.
#[derive(Debug)]
pub struct SoloLog {
    limits: SoloLimits,
    /// Proposed, and not in a frame yet.
    queued: VecDeque<EntryBytes>,
    /// The frame that is being made durable.
    in_flight: Option<Frame>,
    /// Durable, and not handed out yet.
    committed: Vec<Committed>,
    reads: Vec<ReadId>,
    bytes: usize,
    last_frame: FrameSeq,
    last: LogIndex,
    durable: LogIndex,
}

impl SoloLog {
    /// A log that goes on behind `last`, which is durable, as is everything before it.
    #[must_use]
    pub fn new(last: LogIndex, limits: SoloLimits) -> Self {
        Self {
            limits,
            queued: VecDeque::new(),
            in_flight: None,
            committed: Vec::new(),
            reads: Vec::new(),
            bytes: 0,
            last_frame: FrameSeq(0),
            last,
            durable: last,
        }
    }

    fn in_flight_count(&self) -> usize {
        let frame = self.in_flight.as_ref();
        self.queued.len() + frame.map_or(0, |frame| frame.entries.len())
    }
}

impl ReplicatedLog for SoloLog {
    fn tick(&mut self) {
        // Nothing here depends on time.
    }

    fn step(&mut self, _from: ServerId, _message: &[u8]) {
        // There is nobody else.
    }

    fn propose(&mut self, entry: EntryBytes) -> Result<(), ProposeRefused> {
        let count = self.in_flight_count();
        let too_many = count >= self.limits.entries;
        let too_much = count > 0 && self.bytes.saturating_add(entry.len()) > self.limits.bytes;
        if too_many || too_much {
            return Err(ProposeRefused::Busy);
        }
        self.bytes = self.bytes.saturating_add(entry.len());
        self.last = self.last.next();
        self.queued.push_back(entry);
        Ok(())
    }

    fn read_barrier(&mut self, read: ReadId) -> Result<(), ProposeRefused> {
        self.reads.push(read);
        Ok(())
    }

    fn persisted(&mut self, frame: FrameSeq) {
        let Some(done) = self.in_flight.take_if(|in_flight| in_flight.seq <= frame) else {
            return;
        };
        let entries = (done.first.0..).map(LogIndex).zip(done.entries);
        for (index, LogEntry { bytes, .. }) in entries {
            self.bytes = self.bytes.saturating_sub(bytes.len());
            self.durable = index;
            self.committed.push(Committed { index, entry: Some(bytes) });
        }
    }

    fn link_reset(&mut self, _peer: ServerId) {
        // There is nobody else.
    }

    fn snapshot_meta(&self, index: LogIndex) -> Option<SnapshotMeta> {
        (index <= self.durable).then(|| SnapshotMeta::solo(index))
    }

    fn compact(&mut self, _snapshot: SnapshotMeta) {
        // Nothing is kept in memory once it is committed.
    }

    fn installed(&mut self, _snapshot: SnapshotMeta) {
        // It is never asked for.
    }

    fn install_failed(&mut self) {
        // It is never asked for.
    }

    fn change_members(&mut self, _changes: &[Change]) -> Result<(), ChangeRefused> {
        Err(ChangeRefused::Invalid("this server runs alone; found a cluster first"))
    }

    fn transfer_leader(&mut self, _to: ServerId) -> Result<(), ProposeRefused> {
        Err(ProposeRefused::Busy)
    }

    fn poll(&mut self) -> Effects {
        let mut frame = None;
        if self.in_flight.is_none() && !self.queued.is_empty() {
            self.last_frame = FrameSeq(self.last_frame.0 + 1);
            let next = Frame {
                seq: self.last_frame,
                first: self.durable.next(),
                entries: self.queued.drain(..).map(LogEntry::command).collect(),
                state: None,
                reset: false,
            };
            self.in_flight = Some(next.clone());
            frame = Some(next);
        }
        let reads = self.reads.drain(..).map(|read| (read, self.durable));
        let committed = std::mem::take(&mut self.committed);
        Effects { frame, committed, reads: reads.collect(), ..Effects::default() }
    }

    fn status(&self) -> LogStatus {
        let (last, committed) = (self.last, self.durable);
        LogStatus { leads: true, last, committed, lease_ticks: u64::MAX, ..LogStatus::default() }
    }

    fn members(&self) -> Vec<MemberStatus> {
        Vec::new()
    }
}
