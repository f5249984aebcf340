//! The contract of a [`ReplicatedLog`], as tests that every implementation runs.
//!
//! [`run`] makes a whole cluster of them, with a simulated clock, network and disks, and everything that goes wrong with those. The
//! other functions drive one log that leads, the way the event loop of a server does, and panic if the log breaks its word; an
//! implementation calls them from its own tests with a log that may propose at once.

mod chance;
mod cluster;
mod disk;
mod faults;
mod net;
mod oracle;
mod promises;

use std::collections::VecDeque;
use std::sync::Arc;

use rota_types::LogIndex;

use crate::{
    Committed, EntryBytes, Frame, FrameSeq, LogStatus, ProposeRefused, ReadId, ReplicatedLog,
};

pub use cluster::{Options, Protocol, Report};
pub use disk::{Disk, Image, Machine, PlainDisk};
pub use faults::{Faults, run};
pub use net::{Shape, Weather};

/// Drives a log and remembers what it promised.
struct Driver<L> {
    log: L,
    /// What the log was at first.
    start: LogStatus,
    /// Entries that were taken, in order, and not committed yet.
    taken: VecDeque<EntryBytes>,
    committed: LogIndex,
    /// Frames handed out and not reported durable yet.
    writing: VecDeque<Frame>,
    last_frame: FrameSeq,
    /// The last entry that is durable.
    durable: LogIndex,
    /// Reads asked for and not answered, with the last entry committed when they were.
    reads: Vec<(ReadId, LogIndex)>,
    next_read: u64,
}

impl<L: ReplicatedLog> Driver<L> {
    fn new(log: L) -> Self {
        let start = log.status();
        assert!(start.leads, "the contract is for a log that leads");
        Self {
            log,
            start,
            taken: VecDeque::new(),
            committed: start.committed,
            writing: VecDeque::new(),
            last_frame: FrameSeq(0),
            durable: start.committed,
            reads: Vec::new(),
            next_read: 0,
        }
    }

    fn propose(&mut self, entry: &EntryBytes) -> Result<(), ProposeRefused> {
        self.log.propose(EntryBytes::clone(entry))?;
        self.taken.push_back(EntryBytes::clone(entry));
        Ok(())
    }

    fn read(&mut self) {
        self.next_read += 1;
        let read = ReadId(self.next_read);
        assert_eq!(self.log.read_barrier(read), Ok(()), "a leader serves reads");
        self.reads.push((read, self.committed));
    }

    /// Reports a snapshot of what was committed.
    fn compact(&mut self) {
        if let Some(meta) = self.log.snapshot_meta(self.committed) {
            assert_eq!(meta.index, self.committed, "the snapshot that was asked for");
            self.log.compact(meta);
        }
    }

    /// Reports the oldest frame in flight as durable.
    fn persist(&mut self) {
        if let Some(frame) = self.writing.pop_front() {
            self.durable = LogIndex((frame.first.0 + frame.entries.len() as u64).saturating_sub(1));
            self.log.persisted(frame.seq);
        }
    }

    /// Takes out what has to be done, and checks it. Returns how many entries were committed.
    fn poll(&mut self) -> usize {
        let effects = self.log.poll();
        if let Some(frame) = effects.frame {
            assert!(frame.seq > self.last_frame, "frame numbers rise");
            let is_something = !frame.entries.is_empty() || frame.state.is_some();
            assert!(is_something, "a frame holds something");
            self.last_frame = frame.seq;
            self.writing.push_back(frame);
        }
        let count = effects.committed.len();
        for Committed { index, entry } in effects.committed {
            assert_eq!(index, self.committed.next(), "entries are committed in order, once");
            assert!(index <= self.durable, "nothing is committed before it is durable");
            if let Some(entry) = entry {
                let proposed =
                    self.taken.pop_front().expect("nothing is committed that was not proposed");
                assert!(
                    Arc::ptr_eq(&entry, &proposed),
                    "the bytes that were proposed, in the order of the proposals"
                );
            }
            self.committed = index;
        }
        for (read, index) in effects.reads {
            let asked = self.reads.iter().position(|(asked, _)| *asked == read);
            let (_, seen) = self.reads.remove(asked.expect("each read is answered once"));
            assert!(index >= seen, "a read sees what was committed before it was asked for");
            assert!(index <= self.log.status().last, "a read waits for what exists");
        }
        let status = self.log.status();
        assert_eq!(status.committed, self.committed, "the status tells what was handed out");
        assert!(status.last >= status.committed);
        count
    }

    /// Makes everything durable and takes out everything.
    fn settle(&mut self) {
        loop {
            let committed = self.poll();
            if self.writing.is_empty() && committed == 0 {
                break;
            }
            self.persist();
        }
        assert!(self.taken.is_empty(), "everything that was taken is committed in the end");
        assert!(self.reads.is_empty(), "every read is answered in the end");
    }
}

fn entry(number: u64) -> EntryBytes {
    EntryBytes::from(format!("entry {number}").into_bytes())
}

/// Everything that was taken is committed once, in order, and not before it is durable; frames hold consecutive entries.
///
/// # Panics
/// If the log breaks the contract.
pub fn entries_are_committed_once_in_order_after_they_are_durable(log: impl ReplicatedLog) {
    let mut driver = Driver::new(log);
    let first = driver.start.committed.next();
    for number in 0..100 {
        assert_eq!(driver.propose(&entry(number)), Ok(()));
        assert_eq!(driver.poll(), 0, "nothing is durable yet");
        if number % 7 == 6 {
            driver.persist();
            driver.poll();
        }
    }
    driver.settle();
    assert_eq!(driver.committed, LogIndex(first.0 + 99));
    assert_eq!(driver.log.status().last, driver.committed);
}

/// A read waits for everything that was committed before it was asked for.
///
/// # Panics
/// If the log breaks the contract.
pub fn a_read_sees_every_write_acknowledged_before_it(log: impl ReplicatedLog) {
    let mut driver = Driver::new(log);
    driver.read();
    for number in 0..20 {
        assert_eq!(driver.propose(&entry(number)), Ok(()));
        driver.read();
        driver.poll();
        driver.persist();
        driver.read();
        driver.poll();
        driver.read();
    }
    driver.settle();
}

/// A log takes only so much at a time, says `Busy` to the rest, never commits what it refused, and takes more afterwards. `entries_max`
/// is how many entries it has to take, and no more.
///
/// # Panics
/// If the log breaks the contract.
pub fn too_much_is_refused_until_something_is_committed(
    log: impl ReplicatedLog,
    entries_max: usize,
) {
    let mut driver = Driver::new(log);
    for round in 0..3 {
        let mut taken = 0;
        loop {
            match driver.propose(&entry(taken)) {
                Ok(()) => taken += 1,
                Err(refused) => {
                    assert_eq!(refused, ProposeRefused::Busy);
                    break;
                }
            }
            driver.poll();
        }
        assert_eq!(taken, entries_max as u64, "round {round}");
        assert_eq!(driver.propose(&entry(taken)), Err(ProposeRefused::Busy), "it stays refused");
        driver.settle();
    }
}

/// Compaction changes nothing that can be seen.
///
/// # Panics
/// If the log breaks the contract.
pub fn compaction_loses_nothing(log: impl ReplicatedLog) {
    let mut driver = Driver::new(log);
    for number in 0..50 {
        assert_eq!(driver.propose(&entry(number)), Ok(()));
        driver.poll();
        driver.persist();
        driver.poll();
        driver.compact();
        driver.read();
    }
    driver.settle();
}

/// Any mixture of proposals, reads, compactions and durable frames keeps every promise. `seed` chooses it.
///
/// # Panics
/// If the log breaks the contract.
pub fn any_mixture_keeps_every_promise(log: impl ReplicatedLog, seed: u64) {
    let mut driver = Driver::new(log);
    let mut chance = seed;
    for number in 0..500 {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        match (chance >> 33) % 8 {
            0..=2 => match driver.propose(&entry(number)) {
                Ok(()) | Err(ProposeRefused::Busy) => {}
                Err(ProposeRefused::NotLeader) => panic!("a leader takes proposals"),
            },
            3 => driver.read(),
            4 => driver.compact(),
            5 | 6 => driver.persist(),
            _ => {
                driver.poll();
            }
        }
    }
    driver.settle();
}
