//! This server's end of the replicated log: it drives the log as [`ReplicatedLog`] asks for, and knows who waits for what.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rota_ports::{
    Change, ChangeRefused, Committed, Effects, EntryBytes, FrameSeq, LogStatus, MemberStatus,
    MessageBytes, ProposeRefused, ReadId, ReplicatedLog, SnapshotMeta,
};
use rota_store::writer::LogWriter;
use rota_types::{LogIndex, ServerId};

use crate::peers::Peers;

/// How long a tick lasts.
pub(crate) const TICK: Duration = Duration::from_millis(15);

/// How often the leader looks for a learner that has caught up.
const PROMOTE_EVERY: Duration = Duration::from_millis(500);

/// The log with what it needs around it.
pub(crate) struct Replica {
    log: Box<dyn ReplicatedLog>,
    writer: LogWriter,
    /// `None` if this server runs alone.
    peers: Option<Arc<Peers>>,
    /// Messages that may leave once the frame is durable, in order of the frames.
    held: VecDeque<(FrameSeq, ServerId, MessageBytes)>,
    last_frame: FrameSeq,
    durable: FrameSeq,
    next_tick: Instant,
    next_promotion: Instant,
    next_read: ReadId,
}

/// What the core thread has to do.
#[derive(Debug, Default)]
pub(crate) struct Todo {
    /// Entries to apply.
    pub(crate) committed: Vec<Committed>,
    /// Reads to serve once the state is there.
    pub(crate) reads: Vec<(ReadId, LogIndex)>,
    /// The image that this server needs, because the log does not reach it any more.
    pub(crate) install: Option<(SnapshotMeta, ServerId)>,
}

impl Replica {
    pub(crate) fn new(
        log: Box<dyn ReplicatedLog>,
        writer: LogWriter,
        peers: Option<Arc<Peers>>,
    ) -> Self {
        Self {
            log,
            writer,
            peers,
            held: VecDeque::new(),
            last_frame: FrameSeq(0),
            durable: FrameSeq(0),
            next_tick: Instant::now() + TICK,
            next_promotion: Instant::now(),
            next_read: ReadId(1),
        }
    }

    /// When the log wants to be ticked; never, if this server runs alone.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        self.peers.as_ref().map(|_| self.next_tick)
    }

    /// Ticks if it is time. Ticks that were missed are not made up for: a tick must not be shorter than the others think.
    pub(crate) fn tick_if_due(&mut self) {
        let now = Instant::now();
        if self.peers.is_some() && self.next_tick <= now {
            self.log.tick();
            self.next_tick = now + TICK;
        }
    }

    /// Whether it is time to look for a learner that has caught up.
    pub(crate) fn is_promotion_due(&mut self) -> bool {
        let now = Instant::now();
        let due = self.peers.is_some() && self.next_promotion <= now;
        if due {
            self.next_promotion = now + PROMOTE_EVERY;
        }
        due
    }

    /// Takes in messages of a peer.
    pub(crate) fn receive(&mut self, from: ServerId, messages: &[MessageBytes]) {
        for message in messages {
            self.log.step(from, message);
        }
    }

    /// Notes that a link was lost or made anew.
    pub(crate) fn link_reset(&mut self, peer: ServerId) {
        self.log.link_reset(peer);
    }

    /// Notes that frames are durable, and sends what waited for them.
    pub(crate) fn persisted(&mut self, frame: FrameSeq) {
        self.durable = self.durable.max(frame);
        self.release();
        self.log.persisted(frame);
    }

    /// Carries out what the log wants, and says what is left to the caller.
    pub(crate) fn poll(&mut self) -> Todo {
        let Effects { frame, send, send_after, install, committed, reads } = self.log.poll();
        if let Some(frame) = frame {
            self.last_frame = frame.seq;
            self.writer.append(frame);
        }
        for (to, message) in send {
            self.send(to, message);
        }
        let seq = self.last_frame;
        self.held.extend(send_after.into_iter().map(|(to, message)| (seq, to, message)));
        self.release();
        Todo { committed, reads, install }
    }

    /// Sends what waited for frames that are durable.
    fn release(&mut self) {
        let durable = self.durable;
        while let Some((_, to, message)) = self.held.pop_front_if(|(seq, ..)| *seq <= durable) {
            self.send(to, message);
        }
    }

    fn send(&self, to: ServerId, message: MessageBytes) {
        if let Some(peers) = &self.peers {
            peers.send(to, message);
        }
    }

    /// Proposes an entry.
    pub(crate) fn propose(&mut self, entry: EntryBytes) -> Result<(), ProposeRefused> {
        self.log.propose(entry)
    }

    /// Begins a read that sees everything acknowledged before.
    pub(crate) fn begin_read(&mut self) -> Result<ReadId, ProposeRefused> {
        let read = self.next_read;
        self.log.read_barrier(read)?;
        self.next_read = ReadId(read.0 + 1);
        Ok(read)
    }

    /// Lets the log drop what a stored image covers: all but what comes after `keep`.
    pub(crate) fn compact(&mut self, image: SnapshotMeta, keep: LogIndex) {
        self.log.compact(image);
        self.writer.truncate_before(keep);
    }

    /// What has to be stored with an image of the state at `index`.
    pub(crate) fn snapshot_meta(&self, index: LogIndex) -> Option<SnapshotMeta> {
        self.log.snapshot_meta(index)
    }

    /// Asks for a change of the members.
    pub(crate) fn change_members(&mut self, changes: &[Change]) -> Result<(), ChangeRefused> {
        self.log.change_members(changes)
    }

    /// Asks for another leader.
    pub(crate) fn transfer(&mut self, to: ServerId) -> Result<(), ProposeRefused> {
        self.log.transfer_leader(to)
    }

    /// Says that the image asked for will not come.
    pub(crate) fn install_failed(&mut self) {
        self.log.install_failed();
    }

    pub(crate) fn status(&self) -> LogStatus {
        self.log.status()
    }

    pub(crate) fn members(&self) -> Vec<MemberStatus> {
        self.log.members()
    }
}
