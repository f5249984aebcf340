//! What has been fed and is not in the database yet.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rota_core::event::{AttemptRecord, Event};
use rota_core::job::FinishedJob;
use rota_core::token::Noted;
use rota_types::limits::NOTE_BYTES_MAX;
use rota_types::{AttemptId, JobId, LogIndex, RangeSet, Timestamp};
use rota_wire::history::TasksCancelled;

use super::HistoryOptions;

/// What has been fed and is not in the database yet, shared by the feeder, the thread that writes, and readers.
pub(super) struct Pending {
    state: Mutex<PendingState>,
    /// Something was fed, or the end has come.
    fed: Condvar,
    /// A batch was stored, or storing has failed.
    stored: Condvar,
    options: HistoryOptions,
}

struct PendingState {
    /// Takes what is fed.
    open: Batch,
    /// Is being written.
    writing: Option<Arc<Batch>>,
    durable: LogIndex,
    flush: bool,
    closed: bool,
    failed: bool,
}

/// Events of consecutive entries.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch {
    pub last: LogIndex,
    /// Roughly how much memory it takes.
    bytes: usize,
    pub jobs: BTreeMap<JobId, Arc<FinishedJob>>,
    pub attempts: BTreeMap<AttemptId, AttemptRecord>,
    pub cancelled: Vec<TasksCancelled>,
    /// By log index and place in the entry.
    pub noted: BTreeMap<(u64, u32), (Noted, Timestamp)>,
}

impl Batch {
    fn len(&self) -> usize {
        self.jobs.len() + self.attempts.len() + self.cancelled.len() + self.noted.len()
    }

    fn take(&mut self, at: Timestamp, event: &Event) {
        match event {
            Event::AttemptEnded(record) => {
                self.bytes += record_bytes(record);
                self.attempts.insert(record.attempt, AttemptRecord::clone(record));
            }
            Event::TasksCancelled { job, tasks, reason } => {
                self.bytes += ROW_BYTES + set_bytes(tasks) + reason.len();
                let (tasks, reason) = (tasks.clone(), reason.clone());
                self.cancelled.push(TasksCancelled { job: *job, tasks, reason, at });
            }
            Event::JobFinished(job) => {
                self.bytes += job_bytes(job);
                self.jobs.insert(job.id, Arc::new(FinishedJob::clone(job)));
            }
            Event::Noted(noted) => {
                self.bytes += ROW_BYTES + NOTE_BYTES_MAX;
                let index = self.last.0;
                let part = self.noted.range((index, 0)..).count();
                let key = (index, u32::try_from(part).unwrap_or(u32::MAX));
                self.noted.insert(key, (Noted::clone(noted), at));
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
            | Event::Kv(_) => {}
        }
    }
}

/// What a row takes besides its content.
const ROW_BYTES: usize = 256;

fn record_bytes(record: &AttemptRecord) -> usize {
    let message = record.failure.as_ref().map_or(0, |failure| failure.message.len());
    ROW_BYTES + record.detail.len() + message
}

fn job_bytes(job: &FinishedJob) -> usize {
    let groups = job.spec.groups.iter();
    let spec: usize =
        groups.map(|group| ROW_BYTES + group.action.len() + set_bytes(&group.array)).sum();
    ROW_BYTES + spec + set_bytes(&job.failed) + set_bytes(&job.cancelled)
}

fn set_bytes(set: &RangeSet) -> usize {
    set.ranges().count().saturating_mul(8)
}

impl Pending {
    pub(super) fn new(durable: LogIndex, options: HistoryOptions) -> Self {
        Self {
            state: Mutex::new(PendingState {
                open: Batch { last: durable, ..Batch::default() },
                writing: None,
                durable,
                flush: false,
                closed: false,
                failed: false,
            }),
            fed: Condvar::new(),
            stored: Condvar::new(),
            options,
        }
    }

    fn lock(&self) -> MutexGuard<'_, PendingState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn feed(&self, index: LogIndex, at: Timestamp, events: &[Event]) {
        let full = |state: &mut PendingState| self.is_filled(&state.open, 1) && !state.failed;
        let state = self.stored.wait_while(self.lock(), full);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        if index <= state.open.last || state.failed {
            return;
        }
        // The thread that writes looks again by itself once it knows of something: waking it for every entry would cost more than
        // the entry.
        let (known, before) = (state.open.last > state.durable, self.is_filled(&state.open, 2));
        state.open.last = index;
        for event in events {
            state.open.take(at, event);
        }
        if !known || (!before && self.is_filled(&state.open, 2)) {
            self.fed.notify_one();
        }
    }

    /// Whether a batch holds as much as one may, or this part of it.
    fn is_filled(&self, batch: &Batch, part: usize) -> bool {
        let HistoryOptions { pending_max, pending_bytes_max, .. } = self.options;
        batch.len() >= pending_max / part || batch.bytes >= pending_bytes_max / part
    }

    pub(super) fn durable_index(&self) -> LogIndex {
        self.lock().durable
    }

    pub(super) fn fed_index(&self) -> LogIndex {
        self.lock().open.last
    }

    pub(super) fn flush(&self) {
        let mut state = self.lock();
        let wanted = state.open.last;
        state.flush = true;
        self.fed.notify_one();
        let waiting = |state: &mut PendingState| state.durable < wanted && !state.failed;
        drop(self.stored.wait_while(state, waiting));
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.fed.notify_one();
    }

    /// Waits until `not_before`, or until there is a hurry, and for something to write. `None` at the end.
    pub(super) fn next_batch(&self, not_before: Instant) -> Option<Arc<Batch>> {
        let mut state = self.lock();
        loop {
            let ready = state.open.last > state.durable;
            if state.closed && !ready {
                return None;
            }
            let pause = not_before.saturating_duration_since(Instant::now());
            let hurry = state.closed || state.flush || self.is_filled(&state.open, 2);
            if ready && (hurry || pause.is_zero()) {
                break;
            }
            state = if ready {
                let waited = self.fed.wait_timeout(state, pause);
                waited.unwrap_or_else(PoisonError::into_inner).0
            } else {
                self.fed.wait(state).unwrap_or_else(PoisonError::into_inner)
            };
        }
        state.flush = false;
        let next = Batch { last: state.open.last, ..Batch::default() };
        let batch = Arc::new(std::mem::replace(&mut state.open, next));
        state.writing = Some(Arc::clone(&batch));
        Some(batch)
    }

    /// Notes that the batch being written is in the database.
    pub(super) fn batch_stored(&self) {
        let mut state = self.lock();
        if let Some(batch) = state.writing.take() {
            state.durable = batch.last;
        }
        self.stored.notify_all();
    }

    /// Notes that nothing will be written any more.
    pub(super) fn fail(&self) {
        self.lock().failed = true;
        self.stored.notify_all();
    }

    /// Lets `look` see both batches, the older one first. Readers do this before they open the database: what is stored meanwhile they
    /// see twice, never not at all.
    pub(super) fn read<T>(&self, mut look: impl FnMut(&Batch) -> T) -> Vec<T> {
        let state = self.lock();
        let writing = state.writing.as_deref();
        writing.into_iter().chain([&state.open]).map(&mut look).collect()
    }
}
