//! The traits of the shell, and the contract tests that every implementation passes.
//!
//! Signatures only: nothing here does I/O. The event loop of the server drives a [`ReplicatedLog`] the way it drives every other
//! machine: it tells it what happened and carries out what it answers.

use std::io;
use std::sync::Arc;

use rota_types::{LogIndex, ServerId};

pub mod contract;
mod members;

pub use members::{Change, ChangeRefused, MEMBERS_MAX, MemberStatus, Members, Role, SnapshotMeta};

/// Bytes of one log entry: an encoded batch of commands with its time stamps. The log neither reads nor changes them.
pub type EntryBytes = Arc<[u8]>;

/// A message from one server's log to another's. Nobody else reads it.
pub type MessageBytes = Vec<u8>;

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
///
/// # How an event loop drives it
///
/// One thread owns the log and the state machine. For everything that happens it calls one method, then `poll` until the effects
/// are empty, and carries them out in this order:
///
/// 1. `frame` goes to the log thread, and the messages of `send_after` are kept with its number (with that of the last frame handed
///    out, if there is none). The log thread writes frames in order, syncs as many at once as are waiting, and answers with the last
///    durable number. Then the loop sends what was kept for numbers up to that one, and calls `persisted`. A message of `send_after`
///    that leaves early may lose acknowledged entries; one that is never sent only costs time.
/// 2. `send` leaves at once. Messages may be lost, repeated and reordered by the transport. To a peer that can't be reached they are
///    dropped, not queued; when a link comes up anew, both ends call `link_reset`.
/// 3. `committed` is applied, entry by entry. The protocol's own entries only move the state's index.
/// 4. `install` asks for a state image: see [`Effects::install`]. Meanwhile everything else goes on.
/// 5. `reads` are served once the state has applied their index. A read that is not answered when
///    [`leads`](LogStatus::leads) ends, or when the term changes, never will be: the loop refuses it as `NotLeader`.
///
/// `tick` is called once every 10 to 20 ms, the same on all servers, and never sooner after the last call than that: a loop that
/// was held up skips ticks instead of making up for them, because all safety of leases rests on ticks not being too short.
///
/// A proposal belongs to the term in which it was taken. When `leads` ends or the term changes, the loop answers everybody who
/// still waits with "unknown": the entry may be committed later by somebody else, and then comes out of `committed` as well.
///
/// When `leads` begins, the state holds everything that was committed before: that is the moment to start the leader's own work.
///
/// A snapshot of the state at an index is described by [`snapshot_meta`](Self::snapshot_meta), asked for when the state is at that
/// index; the description is stored with the image, and given to [`compact`](Self::compact) when the image is durable.
pub trait ReplicatedLog: Send {
    /// Notes that a tick of time has passed.
    fn tick(&mut self);

    /// Takes in a message from another server's log. What can't be read is dropped.
    fn step(&mut self, from: ServerId, message: &[u8]);

    /// Asks for `entry` to be appended.
    ///
    /// # Errors
    /// `Busy` if too much is in flight: try again after the next commit. `NotLeader` if this server may not append. In both
    /// cases the entry was not and will not be taken.
    fn propose(&mut self, entry: EntryBytes) -> Result<(), ProposeRefused>;

    /// Asks for the index that a read has to wait for to see every write acknowledged before this call, anywhere.
    ///
    /// # Errors
    /// As [`propose`](Self::propose).
    fn read_barrier(&mut self, read: ReadId) -> Result<(), ProposeRefused>;

    /// Notes that messages to `peer` may have been lost: its link was lost or made anew.
    fn link_reset(&mut self, peer: ServerId);

    /// Notes that every frame up to `frame` is durable.
    fn persisted(&mut self, frame: FrameSeq);

    /// What has to be stored with an image of the state at `index`. `None` if nothing was handed out up to there, or if the entry is
    /// not known any more.
    fn snapshot_meta(&self, index: LogIndex) -> Option<SnapshotMeta>;

    /// Notes that the image of the state described by `snapshot` is safely stored. Peers that are further behind than the log reaches
    /// are pointed to it; the log forgets what no peer is likely to need.
    fn compact(&mut self, snapshot: SnapshotMeta);

    /// Answers [`Effects::install`]: the image described by `snapshot` is durable, with its description, and the state machine is at
    /// its index or beyond. It may be newer than what was asked for.
    fn installed(&mut self, snapshot: SnapshotMeta);

    /// Answers [`Effects::install`]: it failed, and nothing was changed. The image is asked for again when the leader offers it again.
    fn install_failed(&mut self);

    /// Asks for a change of the members, which is decided like an entry. Several changes at once take effect together: majorities of
    /// the old and of the new members are needed in between. A new server first becomes a learner, and a voter once it has caught up.
    /// The id of a server that was removed, or that has lost its data, is never used again.
    ///
    /// # Errors
    /// If this server does not lead, another change is under way, or the change makes no sense. Nothing was changed then.
    fn change_members(&mut self, changes: &[Change]) -> Result<(), ChangeRefused>;

    /// Asks for `to` to become the leader, as soon as it has all entries. Until that has happened or failed nothing can be proposed,
    /// and leases are not renewed.
    ///
    /// # Errors
    /// `NotLeader` if this server does not lead; `Busy` if `to` is no voter that answers, or another hand-over is under way.
    fn transfer_leader(&mut self, to: ServerId) -> Result<(), ProposeRefused>;

    /// Takes out everything that has to be done now.
    fn poll(&mut self) -> Effects;

    /// Where the log stands.
    fn status(&self) -> LogStatus;

    /// The members, in order of their ids.
    fn members(&self) -> Vec<MemberStatus>;
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
    /// May leave at once.
    pub send: Vec<(ServerId, MessageBytes)>,
    /// May leave once `frame` and all frames before it are durable.
    pub send_after: Vec<(ServerId, MessageBytes)>,
    /// Asks for the state's image described here, or a newer one, to be fetched from that server, stored durably with its description,
    /// and put in the place of the state machine if that is not further already. [`ReplicatedLog::installed`] or
    /// [`install_failed`](ReplicatedLog::install_failed) answers; nothing more is asked for before.
    pub install: Option<(SnapshotMeta, ServerId)>,
    /// Committed entries, in order, each once per process.
    pub committed: Vec<Committed>,
    /// Reads that may be served once the state has applied that index.
    pub reads: Vec<(ReadId, LogIndex)>,
}

impl Effects {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A committed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its position.
    pub index: LogIndex,
    /// What was proposed: the very same bytes if this log proposed it. `None` for an entry of the protocol's own: the state's index
    /// moves, and nothing else.
    pub entry: Option<EntryBytes>,
}

/// One atomic change of the stored log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The frame's number.
    pub seq: FrameSeq,
    /// The index of the first entry. Entries from there on that were stored before are void.
    pub first: LogIndex,
    /// Entries with consecutive indexes.
    pub entries: Vec<LogEntry>,
    /// The protocol's own memory, in the place of what was stored before; `None` leaves that as it is.
    pub state: Option<Arc<[u8]>>,
    /// Every entry that was stored before is void, and the log begins with `first`: a snapshot that leads up to there is durable.
    pub reset: bool,
}

impl Frame {
    /// How many bytes of entries it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.bytes.len()).sum()
    }
}

/// An entry as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// The term in which it was proposed; 0 where the protocol has none.
    pub term: u64,
    /// Whose it is.
    pub kind: EntryKind,
    /// What it says.
    pub bytes: EntryBytes,
}

impl LogEntry {
    /// An entry with commands, of a log without terms.
    #[must_use]
    pub fn command(bytes: EntryBytes) -> Self {
        Self { term: 0, kind: EntryKind::Command, bytes }
    }
}

/// What a log finds when it starts: what its frames have left in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The snapshot that the state machine starts from; index 0 if there is none.
    pub snapshot: SnapshotMeta,
    /// The entries behind it.
    pub entries: Vec<LogEntry>,
    /// The protocol's own memory.
    pub state: Option<Arc<[u8]>>,
}

/// Whose entry it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// The state machine's: what was proposed.
    Command,
    /// The protocol's own.
    Internal,
}

/// Where a log stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStatus {
    /// Whether this server may propose and read. When this becomes true, everything that was committed before has been handed out.
    pub leads: bool,
    /// Who leads, as far as this server knows.
    pub leader: Option<ServerId>,
    /// The term or ballot: rises with each leader.
    pub term: u64,
    /// The last index given out.
    pub last: LogIndex,
    /// The last committed index that was handed out.
    pub committed: LogIndex,
    /// While this server leads: a majority has confirmed that, when asked after this many calls of [`ReplicatedLog::tick`]. No other server
    /// leads for as many ticks after that one as [`lease_ticks`](Self::lease_ticks) says. 0 if nobody has confirmed anything yet, and from
    /// the moment a hand-over begins.
    pub confirmed_tick: u64,
    /// See [`confirmed_tick`](Self::confirmed_tick); [`u64::MAX`] for a log of one server.
    pub lease_ticks: u64,
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
