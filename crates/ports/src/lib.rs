//! The traits of the shell, and the contract tests that every implementation passes.
//!
//! Signatures only: nothing here does I/O. The event loop of the server drives a [`ReplicatedLog`] the way it drives every other
//! machine: it tells it what happened and carries out what it answers.

use std::io;
use std::sync::Arc;

use rota_types::LogIndex;

pub mod contract;

/// Bytes of one log entry: an encoded batch of commands with its time stamps. The log neither reads nor changes them.
pub type EntryBytes = Arc<[u8]>;

/// Numbers the frames that a log hands out for persisting; rises by one from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameSeq(pub u64);

/// Names one linearizable read until it may be served. Never used twice by one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// A total order of entries that survives the loss of a minority, without I/O of its own: all answers come out of
/// [`poll`](Self::poll).
///
/// An entry that was proposed is committed once, or never; a caller that has not seen it committed does not know which.
pub trait ReplicatedLog: Send {
    /// Asks for `entry` to be appended.
    ///
    /// # Errors
    /// `Busy` if too much is in flight: try again after the next commit. `NotLeader` if this server may not append. In both
    /// cases the entry was not and will not be taken.
    fn propose(&mut self, entry: EntryBytes) -> Result<(), ProposeRefused>;

    /// Asks for the index that a read has to wait for to see every write acknowledged before this call.
    ///
    /// # Errors
    /// As [`propose`](Self::propose).
    fn read_barrier(&mut self, read: ReadId) -> Result<(), ProposeRefused>;

    /// Notes that every frame up to `frame` is durable.
    fn persisted(&mut self, frame: FrameSeq);

    /// Notes that the state at `index` is safely stored, so that entries up to it may be dropped.
    fn compact(&mut self, index: LogIndex);

    /// Takes out everything that has to be done now.
    fn poll(&mut self) -> Effects;

    /// Where the log stands.
    fn status(&self) -> LogStatus;
}

/// A proposal or read was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposeRefused {
    /// Too much is in flight.
    Busy,
    /// Another server leads, or nobody does.
    NotLeader,
}

/// What a log wants done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// To be made durable, in order of `seq`, then reported by [`ReplicatedLog::persisted`].
    pub frame: Option<Frame>,
    /// Committed entries, in order, each once per process.
    pub committed: Vec<(LogIndex, EntryBytes)>,
    /// Reads that may be served once the state has applied that index.
    pub reads: Vec<(ReadId, LogIndex)>,
}

/// One atomic addition to the stored log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The frame's number.
    pub seq: FrameSeq,
    /// The index of the first entry.
    pub first: LogIndex,
    /// Entries with consecutive indexes.
    pub entries: Vec<EntryBytes>,
}

/// Where a log stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStatus {
    /// Whether this server may propose.
    pub leads: bool,
    /// The last index given out.
    pub last: LogIndex,
    /// The last committed index.
    pub committed: LogIndex,
}

/// Durable bytes for one server. Blocking; runs on its own thread. Any error is fatal: after a failed write or sync nobody knows
/// what is on the disk, so the process ends and recovers from what is there.
pub trait Store: Send + 'static {
    /// Writes a frame behind everything written before. Not durable before the next [`sync`](Self::sync).
    ///
    /// # Errors
    /// Whatever the disk says. The caller ends the process.
    fn append(&mut self, frame: &Frame) -> io::Result<()>;

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// Whatever the disk says. The caller ends the process and never syncs again.
    fn sync(&mut self) -> io::Result<()>;

    /// Drops entries up to and including `index`, as far as whole segments allow. Never drops an entry that no snapshot covers.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn truncate_before(&mut self, index: LogIndex) -> io::Result<()>;
}
