//! The thread that writes what was fed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redb::{Database, ReadableTable, Table, WriteTransaction};
use rota_core::event::AttemptRecord;
use rota_core::job::FinishedJob;
use rota_types::{AttemptId, JobId};

use super::pending::{Batch, Pending};
use super::tables::{
    ATTEMPTS, AUDIT, BLOCK_TASKS, BY_AGE, BY_LABEL, BY_NAME, BY_QUEUE, BY_STATE, CANCELLED, JOBS,
    KEY_DURABLE, KEY_JOBS, META, begin_write, encode_attempts, encode_cancelled, encode_job,
    encode_noted, failed, state_number,
};
use crate::StoreError;

/// Rows of attempts are cut when their details reach this.
const ROW_BYTES: usize = 64 << 10;

pub(super) struct Worker {
    pub database: Arc<Database>,
    pub pending: Arc<Pending>,
    pub commit_every: Duration,
}

impl Worker {
    pub(super) fn run(self, on_fatal: impl FnOnce(StoreError)) {
        let mut not_before = Instant::now();
        while let Some(batch) = self.pending.next_batch(not_before) {
            not_before = Instant::now() + self.commit_every;
            // Whoever waits for this thread must hear of its end, also if that is a bug.
            let stored = catch_unwind(AssertUnwindSafe(|| store(&self.database, &batch)));
            let panicked = |_| Err(StoreError::History("its thread panicked".into()));
            if let Err(error) = stored.unwrap_or_else(panicked) {
                self.pending.fail();
                on_fatal(error);
                return;
            }
            self.pending.batch_stored();
        }
    }
}

fn store(database: &Database, batch: &Batch) -> Result<(), StoreError> {
    let write = begin_write(database)?;
    store_attempts(&write, batch)?;
    store_cancelled(&write, batch)?;
    store_noted(&write, batch)?;
    count_jobs(&write, store_jobs(&write, batch)?)?;
    {
        let mut meta = write.open_table(META).map_err(failed("writing"))?;
        meta.insert(KEY_DURABLE, batch.last.0).map_err(failed("writing"))?;
    }
    write.commit().map_err(failed("syncing"))
}

/// Counts jobs that are new.
pub(super) fn count_jobs(write: &WriteTransaction, added: u64) -> Result<(), StoreError> {
    let mut meta = write.open_table(META).map_err(failed("writing"))?;
    let count = meta.get(KEY_JOBS).map_err(failed("reading"))?.map_or(0, |guard| guard.value());
    meta.insert(KEY_JOBS, count + added).map_err(failed("writing"))?;
    Ok(())
}

/// The table of finished jobs with its indexes.
pub(super) struct JobTables<'a> {
    jobs: Table<'a, u64, &'static [u8]>,
    by_age: Table<'a, (u64, u64), ()>,
    by_state: Table<'a, (u8, u64), ()>,
    by_queue: Table<'a, (&'static str, u64), ()>,
    by_name: Table<'a, (&'static str, u64), ()>,
    by_label: Table<'a, (&'static str, &'static str, u64), ()>,
}

impl<'a> JobTables<'a> {
    pub(super) fn open(write: &'a WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            jobs: write.open_table(JOBS).map_err(failed("writing"))?,
            by_age: write.open_table(BY_AGE).map_err(failed("writing"))?,
            by_state: write.open_table(BY_STATE).map_err(failed("writing"))?,
            by_queue: write.open_table(BY_QUEUE).map_err(failed("writing"))?,
            by_name: write.open_table(BY_NAME).map_err(failed("writing"))?,
            by_label: write.open_table(BY_LABEL).map_err(failed("writing"))?,
        })
    }

    /// Puts a job in, whose row this is. Returns whether it is new.
    pub(super) fn insert(&mut self, job: &FinishedJob, row: &[u8]) -> Result<bool, StoreError> {
        let id = job.id.0;
        let before = self.jobs.insert(id, row).map_err(failed("writing"))?.is_some();
        let state = state_number(job.state());
        self.by_age.insert((job.finished_at.0, id), ()).map_err(failed("writing"))?;
        self.by_state.insert((state, id), ()).map_err(failed("writing"))?;
        self.by_queue.insert((&*job.spec.queue, id), ()).map_err(failed("writing"))?;
        self.by_name.insert((&*job.spec.name, id), ()).map_err(failed("writing"))?;
        for (key, value) in &job.spec.labels {
            self.by_label.insert((&**key, &**value, id), ()).map_err(failed("writing"))?;
        }
        Ok(!before)
    }
}

/// Returns how many jobs are new.
fn store_jobs(write: &WriteTransaction, batch: &Batch) -> Result<u64, StoreError> {
    let mut tables = JobTables::open(write)?;
    let mut added = 0;
    for job in batch.jobs.values() {
        added += u64::from(tables.insert(job, &encode_job(job))?);
    }
    Ok(added)
}

fn store_attempts(write: &WriteTransaction, batch: &Batch) -> Result<(), StoreError> {
    let mut attempts = write.open_table(ATTEMPTS).map_err(failed("writing"))?;
    let mut row: Vec<&AttemptRecord> = Vec::new();
    let (mut at, mut part, mut bytes) = ((JobId(0), 0), 0, 0);
    let mut put = |(job, block): (JobId, u32), part: u32, row: &mut Vec<&AttemptRecord>| {
        if row.is_empty() {
            return Ok(());
        }
        let encoded = encode_attempts(job, row);
        row.clear();
        let key = (job.0, block, batch.last.0, part);
        let put = attempts.insert(key, encoded.as_slice()).map(|_before| ());
        put.map_err(failed("writing"))
    };
    for (id, record) in &batch.attempts {
        let AttemptId { task, .. } = id;
        let block = (task.job, task.index / BLOCK_TASKS);
        if block != at {
            put(at, part, &mut row)?;
            (at, part, bytes) = (block, 0, 0);
        } else if bytes >= ROW_BYTES {
            put(at, part, &mut row)?;
            (part, bytes) = (part + 1, 0);
        }
        bytes += record.detail.len() + 32;
        row.push(record);
    }
    put(at, part, &mut row)
}

fn store_cancelled(write: &WriteTransaction, batch: &Batch) -> Result<(), StoreError> {
    let mut table = write.open_table(CANCELLED).map_err(failed("writing"))?;
    for (part, cancelled) in (0..).zip(&batch.cancelled) {
        let key = (cancelled.job.0, batch.last.0, part);
        let row = encode_cancelled(cancelled);
        table.insert(key, row.as_slice()).map_err(failed("writing"))?;
    }
    Ok(())
}

fn store_noted(write: &WriteTransaction, batch: &Batch) -> Result<(), StoreError> {
    let mut table = write.open_table(AUDIT).map_err(failed("writing"))?;
    for (key, (noted, at)) in &batch.noted {
        let row = encode_noted(key.0, noted, *at);
        table.insert(*key, row.as_slice()).map_err(failed("writing"))?;
    }
    Ok(())
}
