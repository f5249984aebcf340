//! Finished work: what has left the state.
//!
//! The history is fed with the events of every applied entry. Readers see them at once; a thread of its own writes them to the
//! database in batches. What it has not written when the process ends is fed again from the log, from
//! [`durable_index`](History::durable_index) on: the log must reach back to there, and so must the snapshot to start from.

mod commit;
mod pending;
mod place;
mod prune;
mod read;
mod tables;
mod transfer;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use redb::Database;
use rota_core::event::{AttemptRecord, Event};
use rota_core::job::{FinishedJob, JobState};
use rota_core::token::Noted;
use rota_types::{Constraint, JobId, LogIndex, Predicate, TaskId, Timestamp};
use rota_wire::history::TasksCancelled;

use crate::{Identity, StoreError};
use pending::Pending;

pub use place::HistoryPlace;
pub use prune::Retention;
pub use transfer::{Import, Row, Table};

/// The name of the history's file in the data directory.
pub const HISTORY_FILE: &str = "history.redb";

/// How the history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryOptions {
    /// The least time between two commits: the history shares the disk with the log, which is waited for.
    pub commit_every: Duration,
    /// Records that may wait to be written. Feeding more waits for the disk.
    pub pending_max: usize,
    /// Bytes that they may take, roughly, before the same happens.
    pub pending_bytes_max: usize,
    /// Bytes of the database that are kept in memory.
    pub cache_bytes: usize,
}

impl Default for HistoryOptions {
    fn default() -> Self {
        Self {
            commit_every: Duration::from_millis(100),
            pending_max: 1 << 20,
            pending_bytes_max: 256 << 20,
            cache_bytes: 64 << 20,
        }
    }
}

/// Which finished jobs are wanted. Everything that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// How the job ended: in one of these ways, or in any if there are none.
    pub states: Vec<JobState>,
    /// Its queue's name.
    pub queue: Option<Box<str>>,
    /// Its name.
    pub name: Option<Box<str>>,
    /// Who submitted it.
    pub submitter: Option<Box<str>>,
    /// What must hold of its labels.
    pub labels: Vec<Constraint>,
}

/// Part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T, C> {
    /// What was found, in order.
    pub items: Vec<T>,
    /// Where to go on; `None` at the end. A page may be short, or even empty, and not be the last.
    pub next: Option<C>,
    /// Stored rows that were read for it, those included that were not wanted.
    pub looked: usize,
}

/// One request that changed something, or tried to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audited {
    /// The entry that it became part of.
    pub index: LogIndex,
    /// Its place among the notes of that entry, from 0.
    pub part: u32,
    /// When, by the leader's wall clock.
    pub at: Timestamp,
    /// Who, from where, what.
    pub noted: Noted,
}

/// The history of finished work of one server.
pub struct History {
    database: Arc<Database>,
    pending: Arc<Pending>,
    thread: Option<JoinHandle<()>>,
}

impl History {
    /// Opens the history at `path`, or makes it. `on_fatal` is called once if a batch can't be written; from then on nothing more is
    /// taken, and the caller ends the process.
    ///
    /// # Errors
    /// If the file is damaged, in use, of another server, or of another version.
    pub fn open(
        path: &Path,
        identity: &Identity,
        options: HistoryOptions,
        on_fatal: impl FnOnce(StoreError) + Send + 'static,
    ) -> Result<Self, StoreError> {
        let database = tables::open(path, identity, options.cache_bytes)?;
        let database = Arc::new(database);
        let durable = tables::durable_index(&database)?;
        let pending = Arc::new(Pending::new(durable, options));
        let worker = commit::Worker {
            database: Arc::clone(&database),
            pending: Arc::clone(&pending),
            commit_every: options.commit_every,
        };
        let thread = std::thread::Builder::new().name("history".into());
        let thread = thread.spawn(move || worker.run(on_fatal));
        let thread = thread.map_err(StoreError::io("starting the thread of", HISTORY_FILE))?;
        Ok(Self { database, pending, thread: Some(thread) })
    }

    /// Takes what became true by the entry at `index`, which was stamped `at`. Indexes rise; one that was fed before changes nothing.
    /// Waits for the disk only if too much is pending.
    pub fn feed(&self, index: LogIndex, at: Timestamp, events: &[Event]) {
        self.pending.feed(index, at, events);
    }

    /// Everything up to this index is stored. Entries behind it have to be fed again after a restart.
    #[must_use]
    pub fn durable_index(&self) -> LogIndex {
        self.pending.durable_index()
    }

    /// The last index that was fed.
    #[must_use]
    pub fn fed_index(&self) -> LogIndex {
        self.pending.fed_index()
    }

    /// Waits until everything fed so far is stored, or the history has failed.
    pub fn flush(&self) {
        self.pending.flush();
    }

    /// A finished job.
    ///
    /// # Errors
    /// If the database fails or is damaged.
    pub fn job(&self, job: JobId) -> Result<Option<FinishedJob>, StoreError> {
        read::job(&self.database, &self.pending, job)
    }

    /// How many finished jobs there are.
    ///
    /// # Errors
    /// If the database fails.
    pub fn job_count(&self) -> Result<u64, StoreError> {
        read::job_count(&self.database, &self.pending)
    }

    /// Finished jobs, the newest id first, with ids below `before`. At most `limit`.
    ///
    /// # Errors
    /// If the database fails or is damaged.
    pub fn jobs(
        &self,
        filter: &JobFilter,
        before: Option<JobId>,
        limit: usize,
    ) -> Result<Page<FinishedJob, JobId>, StoreError> {
        read::jobs(&self.database, &self.pending, filter, (before, limit))
    }

    /// The ended attempts of one task, the first one first. Its job need not be finished.
    ///
    /// # Errors
    /// If the database fails or is damaged.
    pub fn attempts(&self, task: TaskId) -> Result<Vec<AttemptRecord>, StoreError> {
        read::attempts(&self.database, &self.pending, task)
    }

    /// The ended attempts of a job's tasks from the index `from` on, by task and number. At most `limit`, but at least those of one
    /// task. Goes on with the index of the next task.
    ///
    /// # Errors
    /// If the database fails or is damaged.
    pub fn attempts_of_job(
        &self,
        job: JobId,
        from: u32,
        limit: usize,
    ) -> Result<Page<AttemptRecord, u32>, StoreError> {
        read::attempts_of_job(&self.database, &self.pending, TaskId { job, index: from }, limit)
    }

    /// Tasks of a job that were cancelled before they had an attempt, in the order in which that happened: the first `limit` times.
    ///
    /// # Errors
    /// If the database fails or is damaged.
    pub fn cancelled(&self, job: JobId, limit: usize) -> Result<Vec<TasksCancelled>, StoreError> {
        read::cancelled(&self.database, &self.pending, job, limit)
    }

    /// Requests that changed something, the newest first, before this index and part. At most `limit`.
    ///
    /// # Errors
    /// If the database fails or is damaged.
    pub fn audit(
        &self,
        before: Option<(LogIndex, u32)>,
        limit: usize,
    ) -> Result<Vec<Audited>, StoreError> {
        read::audit(&self.database, &self.pending, before, limit)
    }

    /// Removes what `retention` does not keep, at most about `rows` rows at a time. Returns whether there is more to remove. Waits for
    /// the disk.
    ///
    /// # Errors
    /// If the database fails or is damaged.
    pub fn prune(
        &self,
        retention: &Retention,
        now: Timestamp,
        rows: usize,
    ) -> Result<bool, StoreError> {
        prune::prune(&self.database, retention, now, rows)
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.pending.close();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; there is nobody to tell here.
            let _ended = thread.join();
        }
    }
}

impl JobFilter {
    fn admits(&self, job: &FinishedJob) -> bool {
        let Self { states, queue, name, submitter, labels } = self;
        (states.is_empty() || states.contains(&job.state()))
            && queue.as_ref().is_none_or(|queue| *queue == job.spec.queue)
            && name.as_ref().is_none_or(|name| *name == job.spec.name)
            && submitter.as_ref().is_none_or(|submitter| *submitter == job.spec.submitter)
            && labels.iter().all(|constraint| constraint.admits(&job.spec.labels))
    }

    /// A label that must have exactly one value: its key and that value.
    fn label(&self) -> Option<(&str, &str)> {
        self.labels.iter().find_map(|constraint| match &constraint.predicate {
            Predicate::In(values) => match values.as_slice() {
                [only] => Some((&*constraint.key, &**only)),
                _ => None,
            },
            Predicate::NotIn(_) | Predicate::Exists | Predicate::Absent => None,
        })
    }
}
