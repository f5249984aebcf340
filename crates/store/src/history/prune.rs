//! Removing what is kept no longer.

use redb::{Database, ReadableTable, WriteTransaction};
use rota_core::job::FinishedJob;
use rota_types::{JobId, Span, Timestamp};

use super::tables::{
    ATTEMPTS, AUDIT, BY_AGE, BY_LABEL, BY_NAME, BY_QUEUE, BY_STATE, CANCELLED, JOBS, KEY_JOBS,
    META, begin_write, decode_job, decode_noted, failed, state_number,
};
use crate::StoreError;

/// How much of the past is kept. Whatever exceeds either limit goes, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Finished jobs.
    pub jobs_max: u64,
    /// How long ago a job may have finished, and a request may have been made.
    pub age_max: Span,
}

pub(super) fn prune(
    database: &Database,
    retention: &Retention,
    now: Timestamp,
    rows: usize,
) -> Result<bool, StoreError> {
    let write = begin_write(database)?;
    let mut left = rows.max(1);
    let mut more = false;
    while let Some(oldest) = oldest_to_go(&write, retention, now)? {
        if left == 0 || !remove_rows(&write, oldest, &mut left)? {
            more = true;
            break;
        }
    }
    more |= !remove_notes(&write, retention, now, &mut left)?;
    write.commit().map_err(failed("syncing"))?;
    Ok(more)
}

/// Removes notes of the audit that are older than jobs may be. Returns whether none is left to remove.
fn remove_notes(
    write: &WriteTransaction,
    retention: &Retention,
    now: Timestamp,
    left: &mut usize,
) -> Result<bool, StoreError> {
    let mut audit = write.open_table(AUDIT).map_err(failed("writing"))?;
    loop {
        let oldest = match audit.first().map_err(failed("reading"))? {
            Some((key, row)) => {
                let key = key.value();
                let (_, at) = decode_noted(key.0, row.value())?;
                (now.since(at) > retention.age_max).then_some(key)
            }
            None => None,
        };
        let Some(key) = oldest else { return Ok(true) };
        if *left == 0 {
            return Ok(false);
        }
        *left -= 1;
        audit.remove(key).map_err(failed("writing"))?;
    }
}

/// The job that finished first and when, if it is not to be kept.
fn oldest_to_go(
    write: &WriteTransaction,
    retention: &Retention,
    now: Timestamp,
) -> Result<Option<(Timestamp, JobId)>, StoreError> {
    let by_age = write.open_table(BY_AGE).map_err(failed("reading"))?;
    let meta = write.open_table(META).map_err(failed("reading"))?;
    let count = meta.get(KEY_JOBS).map_err(failed("reading"))?;
    let too_many = count.map_or(0, |guard| guard.value()) > retention.jobs_max;
    let oldest = by_age.first().map_err(failed("reading"))?;
    Ok(oldest.and_then(|(key, _)| {
        let (finished, job) = key.value();
        let too_old = now.since(Timestamp(finished)) > retention.age_max;
        (too_many || too_old).then_some((Timestamp(finished), JobId(job)))
    }))
}

/// Removes a job, its attempts first and itself last, so that it can go on another time. Returns whether the job is gone.
fn remove_rows(
    write: &WriteTransaction,
    (finished, job): (Timestamp, JobId),
    left: &mut usize,
) -> Result<bool, StoreError> {
    let mut attempts = write.open_table(ATTEMPTS).map_err(failed("writing"))?;
    let span = (job.0, 0, 0, 0)..=(job.0, u32::MAX, u64::MAX, u32::MAX);
    let keys = attempts.range(span).map_err(failed("reading"))?.take(*left);
    let keys = keys.map(|row| row.map(|(key, _)| key.value()));
    let keys: Vec<_> = keys.collect::<Result<_, _>>().map_err(failed("reading"))?;
    for key in &keys {
        attempts.remove(*key).map_err(failed("writing"))?;
    }
    *left -= keys.len();
    if *left == 0 {
        return Ok(false);
    }
    let mut cancelled = write.open_table(CANCELLED).map_err(failed("writing"))?;
    let span = (job.0, 0, 0)..=(job.0, u64::MAX, u32::MAX);
    let keys = cancelled.range(span).map_err(failed("reading"))?.take(*left);
    let keys = keys.map(|row| row.map(|(key, _)| key.value()));
    let keys: Vec<_> = keys.collect::<Result<_, _>>().map_err(failed("reading"))?;
    for key in &keys {
        cancelled.remove(*key).map_err(failed("writing"))?;
    }
    *left -= keys.len();
    if *left == 0 {
        return Ok(false);
    }
    *left -= 1;
    let mut jobs = write.open_table(JOBS).map_err(failed("writing"))?;
    let row = jobs.remove(job.0).map_err(failed("writing"))?;
    if let Some(found) = row.map(|row| decode_job(job, row.value())).transpose()? {
        remove_from_indexes(write, &found)?;
    }
    // Also if there was no such job, which would be damage: it must not be the oldest for ever.
    let mut by_age = write.open_table(BY_AGE).map_err(failed("writing"))?;
    by_age.remove((finished.0, job.0)).map_err(failed("writing"))?;
    let mut meta = write.open_table(META).map_err(failed("writing"))?;
    let count = meta.get(KEY_JOBS).map_err(failed("reading"))?.map_or(0, |guard| guard.value());
    meta.insert(KEY_JOBS, count.saturating_sub(1)).map_err(failed("writing"))?;
    Ok(true)
}

fn remove_from_indexes(write: &WriteTransaction, job: &FinishedJob) -> Result<(), StoreError> {
    let id = job.id.0;
    let mut by_state = write.open_table(BY_STATE).map_err(failed("writing"))?;
    by_state.remove((state_number(job.state()), id)).map_err(failed("writing"))?;
    let mut by_queue = write.open_table(BY_QUEUE).map_err(failed("writing"))?;
    by_queue.remove((&*job.spec.queue, id)).map_err(failed("writing"))?;
    let mut by_name = write.open_table(BY_NAME).map_err(failed("writing"))?;
    by_name.remove((&*job.spec.name, id)).map_err(failed("writing"))?;
    let mut by_label = write.open_table(BY_LABEL).map_err(failed("writing"))?;
    for (key, value) in &job.spec.labels {
        by_label.remove((&**key, &**value, id)).map_err(failed("writing"))?;
    }
    Ok(())
}
