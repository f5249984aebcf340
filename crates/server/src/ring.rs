//! The recent past as events, for streams that follow or resume.
//!
//! Shared by the core thread, which appends, and any number of readers, each with a cursor of its own. Nobody waits for a slow
//! reader: what it missed is gone, and it is told so.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rota_core::command::GroupSpec;
use rota_core::event::Event;
use rota_core::kv::KvEvent;
use rota_types::{LogIndex, RangeSet, Timestamp};
use tokio::sync::watch;

/// Bytes of task output, specifications and sets of tasks that the ring may keep alive.
const WEIGHT_MAX: usize = 16 << 20;

/// The events of one entry.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) index: LogIndex,
    pub(crate) at: Timestamp,
    pub(crate) events: Arc<[Event]>,
}

/// A place between two events: behind the event number `seq` of the entry `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor {
    pub(crate) index: LogIndex,
    pub(crate) seq: u32,
}

impl fmt::Display for Cursor {
    /// `index:seq`, or `index` behind a whole entry.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seq {
            u32::MAX => self.index.fmt(f),
            seq => write!(f, "{}:{seq}", self.index),
        }
    }
}

/// What a reader gets.
#[derive(Debug)]
pub(crate) enum Read {
    /// Entries at or behind the cursor; the first may have been read in part.
    Batches(Vec<Batch>),
    /// The cursor is older than everything kept: begin again from here after listing anew.
    Reset(Cursor),
}

/// The bounded recent past.
pub(crate) struct Ring {
    inner: Mutex<Inner>,
    head: watch::Sender<LogIndex>,
    events_max: usize,
}

struct Inner {
    batches: VecDeque<Batch>,
    events: usize,
    weight: usize,
    /// Everything behind this index is kept.
    floor: LogIndex,
    head: LogIndex,
}

impl Ring {
    /// An empty ring of a state that stands at `index`.
    pub(crate) fn new(index: LogIndex, events_max: usize) -> Self {
        let inner =
            Inner { batches: VecDeque::new(), events: 0, weight: 0, floor: index, head: index };
        Self { inner: Mutex::new(inner), head: watch::Sender::new(index), events_max }
    }

    /// Adds the events of one entry.
    pub(crate) fn push(&self, batch: Batch) {
        let index = batch.index;
        {
            let mut inner = self.lock();
            inner.head = index;
            if !batch.events.is_empty() {
                inner.events += batch.events.len();
                inner.weight += weight(&batch.events);
                inner.batches.push_back(batch);
            }
            while inner.events > self.events_max || inner.weight > WEIGHT_MAX {
                let Some(old) = inner.batches.pop_front() else { break };
                inner.events -= old.events.len();
                inner.weight -= weight(&old.events);
                inner.floor = old.index;
            }
        }
        self.head.send_replace(index);
    }

    /// The end of what is known now: a reader that begins here sees only what follows.
    pub(crate) fn head(&self) -> Cursor {
        Cursor { index: self.lock().head, seq: u32::MAX }
    }

    /// The beginning of what is kept.
    pub(crate) fn begin(&self) -> Cursor {
        Cursor { index: self.lock().floor, seq: u32::MAX }
    }

    /// Up to `max` entries behind `from`.
    pub(crate) fn read(&self, from: Cursor, max: usize) -> Read {
        let inner = self.lock();
        // An entry that was read in part is needed again; one that is gone is needed only if something behind it is gone too.
        let whole = from.seq == u32::MAX;
        let lost = if whole { from.index < inner.floor } else { from.index <= inner.floor };
        if lost || from.index > inner.head {
            return Read::Reset(Cursor { index: inner.head, seq: u32::MAX });
        }
        let start = inner.batches.partition_point(|batch| {
            batch.index < from.index || (whole && batch.index == from.index)
        });
        Read::Batches(inner.batches.iter().skip(start).take(max).cloned().collect())
    }

    /// Tells when there is more.
    pub(crate) fn watch(&self) -> watch::Receiver<LogIndex> {
        self.head.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Roughly the bytes that events keep alive.
fn weight(events: &[Event]) -> usize {
    events
        .iter()
        .map(|event| match event {
            Event::AttemptEnded(record) => 128 + record.detail.len(),
            Event::TasksCancelled { tasks, reason, .. } => 64 + reason.len() + set_bytes(tasks),
            Event::JobFinished(job) => {
                let group = |group: &GroupSpec| 128 + group.action.len() + set_bytes(&group.array);
                let groups: usize = job.spec.groups.iter().map(group).sum();
                256 + groups + set_bytes(&job.failed) + set_bytes(&job.cancelled)
            }
            Event::JobSubmitted(_)
            | Event::AttemptsCreated(_)
            | Event::AttemptStaged { .. }
            | Event::AttemptPromoted { .. }
            | Event::StopRequested(_)
            | Event::TaskQueued(_)
            | Event::NodeRegistered(_)
            | Event::NodeLost(_)
            | Event::NodeDraining(..)
            | Event::NodeLeaving(_)
            | Event::NodeRemoved { .. }
            | Event::QueueConfigured(_)
            | Event::QueuePaused(..)
            | Event::QueueRemoved(_)
            | Event::ServerChanged(_)
            | Event::ServerRemoved(_)
            | Event::LevelRaised(_)
            | Event::TokenAdded(_)
            | Event::TokenRevoked(_)
            | Event::Noted(_) => 64,
            Event::Kv(event) => kv_bytes(event),
        })
        .sum()
}

/// The bytes of the bounds of a set's ranges.
fn set_bytes(set: &RangeSet) -> usize {
    set.ranges().count() * size_of::<(u32, u32)>()
}

/// Roughly the bytes that an event of the key-value store keeps alive.
fn kv_bytes(event: &KvEvent) -> usize {
    match event {
        KvEvent::KeyChanged { key, pair, .. } => {
            128 + key.len() + pair.as_ref().map_or(0, |pair| pair.value.len())
        }
        KvEvent::LockPassed { lock, value, .. } => 128 + lock.len() + value.len(),
        KvEvent::SessionOpened(_) | KvEvent::SessionEnded { .. } => 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rota_types::JobId;

    fn ring(events_max: usize, entries: u64) -> Ring {
        let ring = Ring::new(LogIndex(10), events_max);
        for index in 11..11 + entries {
            let events =
                Arc::from([Event::JobSubmitted(JobId(index)), Event::JobSubmitted(JobId(index))]);
            ring.push(Batch { index: LogIndex(index), at: Timestamp(0), events });
        }
        ring
    }

    fn indexes(read: Read) -> Option<Vec<u64>> {
        match read {
            Read::Batches(batches) => Some(batches.iter().map(|batch| batch.index.0).collect()),
            Read::Reset(_) => None,
        }
    }

    fn after(index: u64) -> Cursor {
        Cursor { index: LogIndex(index), seq: u32::MAX }
    }

    #[test]
    fn sets_of_tasks_weigh_what_they_take() {
        let odd = |ranges: u32| (0..ranges).map(|n| n * 2).collect::<RangeSet>();
        let cancelled = |ranges| Event::TasksCancelled {
            job: JobId(1),
            tasks: odd(ranges),
            reason: "why".into(),
        };
        assert_eq!(weight(&[cancelled(0), cancelled(3)]), 2 * (64 + 3) + 3 * 8);
        // Each takes half of what the ring may keep, and a little more.
        let ring = Ring::new(LogIndex(0), 100);
        for index in 1..=2 {
            let events = Arc::from([cancelled(1 << 20)]);
            ring.push(Batch { index: LogIndex(index), at: Timestamp(0), events });
        }
        assert_eq!(ring.begin(), after(1));
        assert_eq!(indexes(ring.read(after(1), 9)), Some(vec![2]));
    }

    #[test]
    fn readers_resume_where_they_stopped_even_within_an_entry() {
        let ring = ring(100, 3);
        assert_eq!(indexes(ring.read(after(10), 9)), Some(vec![11, 12, 13]));
        assert_eq!(indexes(ring.read(after(12), 9)), Some(vec![13]));
        assert_eq!(
            indexes(ring.read(Cursor { index: LogIndex(12), seq: 0 }, 9)),
            Some(vec![12, 13])
        );
        assert_eq!(indexes(ring.read(ring.head(), 9)), Some(vec![]));
    }

    #[test]
    fn a_reader_that_missed_something_is_told_and_one_that_did_not_goes_on() {
        let ring = ring(4, 3); // keeps the last two entries
        assert_eq!(indexes(ring.read(after(10), 9)), None);
        assert_eq!(indexes(ring.read(after(11), 9)), Some(vec![12, 13]));
        assert_eq!(indexes(ring.read(Cursor { index: LogIndex(11), seq: 0 }, 9)), None);
        assert_eq!(indexes(ring.read(after(14), 9)), None, "a cursor from the future is not ours");
    }

    #[test]
    fn the_ring_keeps_exactly_as_many_events_as_it_may() {
        let kept = |max: usize| {
            indexes(ring(max, 3).read(after(12), 9)).is_some()
                && indexes(ring(max, 3).read(after(11), 9)).is_some()
        };
        assert!(!kept(3) && kept(4) && kept(5));
    }
}
