//! This server's end of the replicated log: it drives the log as [`ReplicatedLog`] asks for, and knows who waits for what.

use std::collections::VecDeque;

use rota_ports::{
    Change, ChangeRefused, Committed, Effects, EntryBytes, FrameSeq, LogStatus, MemberStatus,
    MessageBytes, ProposeRefused, ReadId, ReplicatedLog, SnapshotMeta,
};
use rota_types::{LogIndex, Monotonic, ServerId, Span};

use crate::shell::Shell;

/// How long a tick lasts.
const TICK: Span = Span::from_millis(15);

/// How often the leader looks for a learner that has caught up.
const PROMOTE_EVERY: Span = Span::from_millis(500);

/// The log with what it needs around it.
pub struct Replica {
    log: Box<dyn ReplicatedLog>,
    is_sole: bool,
    /// Messages that may leave once the frame is durable, in order of the frames.
    held: VecDeque<(FrameSeq, ServerId, MessageBytes)>,
    last_frame: FrameSeq,
    durable: FrameSeq,
    next_tick: Monotonic,
    next_promotion: Monotonic,
    next_read: ReadId,
}

/// What the machine has to do.
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
    pub(crate) fn new(log: Box<dyn ReplicatedLog>, is_sole: bool, now: Monotonic) -> Self {
        Self {
            log,
            is_sole,
            held: VecDeque::new(),
            last_frame: FrameSeq(0),
            durable: FrameSeq(0),
            next_tick: now.plus(TICK),
            next_promotion: now,
            next_read: ReadId(1),
        }
    }

    /// When the log wants to be ticked; never, if this server runs alone.
    pub(crate) fn next_tick(&self) -> Option<Monotonic> {
        (!self.is_sole).then_some(self.next_tick)
    }

    /// Ticks if it is time. Ticks that were missed are not made up for: a tick must not be shorter than the others think.
    pub(crate) fn tick_if_due(&mut self, now: Monotonic) {
        if !self.is_sole && self.next_tick <= now {
            self.log.tick();
            self.next_tick = now.plus(TICK);
        }
    }

    /// Whether it is time to look for a learner that has caught up.
    pub(crate) fn is_promotion_due(&mut self, now: Monotonic) -> bool {
        let due = !self.is_sole && self.next_promotion <= now;
        if due {
            self.next_promotion = now.plus(PROMOTE_EVERY);
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
    pub(crate) fn persisted(&mut self, frame: FrameSeq, shell: &mut impl Shell) {
        self.durable = self.durable.max(frame);
        self.release(shell);
        self.log.persisted(frame);
    }

    /// Carries out what the log wants, and says what is left to the caller.
    pub(crate) fn poll(&mut self, shell: &mut impl Shell) -> Todo {
        let Effects { frame, send, send_after, install, committed, reads } = self.log.poll();
        if let Some(frame) = frame {
            self.last_frame = frame.seq;
            shell.append(frame);
        }
        for (to, message) in send {
            shell.send(to, message);
        }
        let seq = self.last_frame;
        self.held.extend(send_after.into_iter().map(|(to, message)| (seq, to, message)));
        self.release(shell);
        Todo { committed, reads, install }
    }

    /// Sends what waited for frames that are durable.
    fn release(&mut self, shell: &mut impl Shell) {
        let durable = self.durable;
        while let Some((_, to, message)) = self.held.pop_front_if(|(seq, ..)| *seq <= durable) {
            shell.send(to, message);
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

    /// Lets the log forget what a stored image covers.
    pub(crate) fn compact(&mut self, image: SnapshotMeta) {
        self.log.compact(image);
    }

    /// What has to be stored with an image of the state at `index`.
    #[must_use]
    pub fn snapshot_meta(&self, index: LogIndex) -> Option<SnapshotMeta> {
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

    /// Where the log stands.
    #[must_use]
    pub fn status(&self) -> LogStatus {
        self.log.status()
    }

    /// The members, in order of their ids.
    #[must_use]
    pub fn members(&self) -> Vec<MemberStatus> {
        self.log.members()
    }
}
