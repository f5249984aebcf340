//! Queries: what is in the database and what is still on its way there, as one.

use std::collections::BTreeMap;
use std::sync::Arc;

use redb::{Database, ReadTransaction, ReadableDatabase};
use rota_core::event::AttemptRecord;
use rota_core::job::FinishedJob;
use rota_core::token::Noted;
use rota_types::limits::{ATTEMPTS_MAX, LOST_ATTEMPTS_MAX};
use rota_types::{AttemptId, JobId, LogIndex, TaskId, Timestamp};
use rota_wire::history::TasksCancelled;

use super::pending::Pending;
use super::tables::{
    ATTEMPTS, AUDIT, AttemptKey, BLOCK_TASKS, BY_LABEL, BY_NAME, BY_QUEUE, BY_STATE, CANCELLED,
    JOBS, KEY_JOBS, META, attempts_span, decode_attempts, decode_cancelled, decode_job,
    decode_noted, failed, state_number,
};
use super::{Audited, JobFilter, Page};
use crate::StoreError;

/// Jobs looked at for one page: a filter that few jobs meet ends the page early.
const SCAN_MAX: usize = 10_000;
/// Attempts that one task can have.
const TASK_ATTEMPTS_MAX: usize = (ATTEMPTS_MAX + LOST_ATTEMPTS_MAX) as usize;

fn begin(database: &Database) -> Result<ReadTransaction, StoreError> {
    database.begin_read().map_err(failed("reading"))
}

pub(super) fn job(
    database: &Database,
    pending: &Pending,
    id: JobId,
) -> Result<Option<FinishedJob>, StoreError> {
    let found = pending.read(|batch| batch.jobs.get(&id).cloned());
    if let Some(job) = found.into_iter().flatten().next() {
        return Ok(Some(FinishedJob::clone(&job)));
    }
    let jobs = begin(database)?.open_table(JOBS).map_err(failed("reading"))?;
    let row = jobs.get(id.0).map_err(failed("reading"))?;
    row.map(|row| decode_job(id, row.value())).transpose()
}

pub(super) fn job_count(database: &Database, pending: &Pending) -> Result<u64, StoreError> {
    let waiting = pending.read(|batch| batch.jobs.keys().copied().collect::<Vec<_>>());
    let read = begin(database)?;
    let jobs = read.open_table(JOBS).map_err(failed("reading"))?;
    let meta = read.open_table(META).map_err(failed("reading"))?;
    let stored = meta.get(KEY_JOBS).map_err(failed("reading"))?;
    let mut count = stored.map_or(0, |guard| guard.value());
    for id in waiting.into_iter().flatten() {
        let is_stored = jobs.get(id.0).map_err(failed("reading"))?.is_some();
        count += u64::from(!is_stored);
    }
    Ok(count)
}

pub(super) fn jobs(
    database: &Database,
    pending: &Pending,
    filter: &JobFilter,
    (before, limit): (Option<JobId>, usize),
) -> Result<Page<FinishedJob, JobId>, StoreError> {
    let end = before.map_or(u64::MAX, |job| job.0);
    let waiting = pending.read(|batch| {
        let below = batch.jobs.range(..JobId(end)).rev();
        let admitted = below.filter(|(_, job)| filter.admits(job));
        admitted.map(|(id, job)| (*id, Arc::clone(job))).take(limit + 1).collect::<Vec<_>>()
    });
    let waiting: BTreeMap<JobId, Arc<FinishedJob>> = waiting.into_iter().flatten().collect();
    let read = begin(database)?;
    let table = read.open_table(JOBS).map_err(failed("reading"))?;
    let mut found = BTreeMap::new();
    let mut reached = None; // where the look into the database broke off
    let mut looked = 0;
    for id in candidates(&read, filter, end)? {
        let id = id?;
        if found.len() > limit || looked == SCAN_MAX {
            reached = Some(id);
            break;
        }
        looked += 1;
        if let Some(row) = table.get(id.0).map_err(failed("reading"))? {
            let job = decode_job(id, row.value())?;
            if filter.admits(&job) {
                found.insert(id, job);
            }
        }
    }
    // Below the place where the look broke off only half of the truth is known.
    let floor = reached.unwrap_or(JobId(0));
    let waiting = waiting.range(floor..).map(|(id, job)| (*id, FinishedJob::clone(job)));
    found.extend(waiting);
    let next = if found.len() > limit {
        found.keys().rev().nth(limit.saturating_sub(1)).copied()
    } else {
        reached.map(JobId::next)
    };
    let items = found.into_values().rev().take(limit).collect();
    Ok(Page { items, next, looked })
}

type Ids = Box<dyn Iterator<Item = Result<JobId, StoreError>>>;

/// The ids of stored jobs below `end` that may meet `filter`, the largest first, by the index that leaves the fewest.
fn candidates(read: &ReadTransaction, filter: &JobFilter, end: u64) -> Result<Ids, StoreError> {
    let JobFilter { states, queue, name, submitter: _, labels: _ } = filter;
    Ok(if let Some((key, value)) = filter.label() {
        let index = read.open_table(BY_LABEL).map_err(failed("reading"))?;
        let ids = index.range((key, value, 0)..(key, value, end)).map_err(failed("reading"))?;
        Box::new(ids.rev().map(|row| Ok(JobId(row.map_err(failed("reading"))?.0.value().2))))
    } else if let Some(name) = name {
        let index = read.open_table(BY_NAME).map_err(failed("reading"))?;
        let ids = index.range((&**name, 0)..(&**name, end)).map_err(failed("reading"))?;
        Box::new(ids.rev().map(|row| Ok(JobId(row.map_err(failed("reading"))?.0.value().1))))
    } else if let Some(queue) = queue {
        let index = read.open_table(BY_QUEUE).map_err(failed("reading"))?;
        let ids = index.range((&**queue, 0)..(&**queue, end)).map_err(failed("reading"))?;
        Box::new(ids.rev().map(|row| Ok(JobId(row.map_err(failed("reading"))?.0.value().1))))
    } else if let [state] = states.as_slice() {
        let state = state_number(*state);
        let index = read.open_table(BY_STATE).map_err(failed("reading"))?;
        let ids = index.range((state, 0)..(state, end)).map_err(failed("reading"))?;
        Box::new(ids.rev().map(|row| Ok(JobId(row.map_err(failed("reading"))?.0.value().1))))
    } else {
        let index = read.open_table(JOBS).map_err(failed("reading"))?;
        let ids = index.range(0..end).map_err(failed("reading"))?;
        Box::new(ids.rev().map(|row| Ok(JobId(row.map_err(failed("reading"))?.0.value()))))
    })
}

pub(super) fn attempts(
    database: &Database,
    pending: &Pending,
    task: TaskId,
) -> Result<Vec<AttemptRecord>, StoreError> {
    let first = AttemptId { task, number: 0 };
    let last = AttemptId { task, number: u32::MAX };
    let waiting = pending.read(|batch| owned(batch.attempts.range(first..=last)));
    let mut found: BTreeMap<_, _> = waiting.into_iter().flatten().collect();
    let table = begin(database)?.open_table(ATTEMPTS).map_err(failed("reading"))?;
    let rows = table.range(block_keys(task)).map_err(failed("reading"))?;
    for row in rows {
        let row = row.map_err(failed("reading"))?.1;
        let span = attempts_span(row.value());
        if span.is_none_or(|(from, to)| (from..=to).contains(&task.index)) {
            let records = decode_attempts(task.job, row.value())?.into_iter();
            let wanted = records.filter(|record| record.attempt.task == task);
            found.extend(wanted.map(|record| (record.attempt, record)));
        }
    }
    Ok(found.into_values().collect())
}

pub(super) fn attempts_of_job(
    database: &Database,
    pending: &Pending,
    from: TaskId,
    limit: usize,
) -> Result<Page<AttemptRecord, u32>, StoreError> {
    let job = from.job;
    let start = AttemptId { task: from, number: 0 };
    let end = AttemptId { task: TaskId { job, index: u32::MAX }, number: u32::MAX };
    // More than fits shows where to go on; all attempts of one task always fit.
    let enough = limit.saturating_add(TASK_ATTEMPTS_MAX + 1);
    let waiting = pending.read(|batch| owned(batch.attempts.range(start..=end).take(enough)));
    let full = |records: &Vec<(AttemptId, AttemptRecord)>| records.len() == enough;
    // What waits is known up to here only.
    let known = waiting.iter().filter(|records| full(records));
    let known = known.filter_map(|records| records.last()).map(|(id, _)| id.task.index).min();
    let mut found: BTreeMap<_, _> = waiting.into_iter().flatten().collect();
    let table = begin(database)?.open_table(ATTEMPTS).map_err(failed("reading"))?;
    let first_key: AttemptKey = (job.0, from.index / BLOCK_TASKS, 0, 0);
    let rows = table.range(first_key..=(job.0, u32::MAX, u64::MAX, u32::MAX));
    let mut reached = known.unwrap_or(u32::MAX); // everything below this task is known
    let mut looked = 0;
    for row in rows.map_err(failed("reading"))? {
        let (key, row) = row.map_err(failed("reading"))?;
        let block_start = key.value().1.saturating_mul(BLOCK_TASKS);
        if block_start >= reached || found.range(..first_of(job, block_start)).count() > limit {
            reached = reached.min(block_start);
            break;
        }
        looked += 1;
        if attempts_span(row.value()).is_none_or(|(_, last)| last >= from.index) {
            let records = decode_attempts(job, row.value())?.into_iter();
            let wanted = records.filter(|record| record.attempt.task >= from);
            found.extend(wanted.map(|record| (record.attempt, record)));
        }
    }
    Ok(Page { looked, ..cut(found, reached, limit) })
}

/// A page of what is below the task `reached`, cut between tasks.
fn cut(
    mut found: BTreeMap<AttemptId, AttemptRecord>,
    reached: u32,
    limit: usize,
) -> Page<AttemptRecord, u32> {
    let complete = reached == u32::MAX;
    let first = found.keys().next().map(|id| id.task.index);
    if !complete && first.is_some_and(|first| first < reached) {
        found.retain(|id, _| id.task.index < reached);
    }
    let beyond = found.keys().nth(limit).map(|id| id.task.index);
    // A task goes onto the page as a whole, and the first one always does.
    let stop =
        beyond.map(|index| if Some(index) == first { index.saturating_add(1) } else { index });
    let mut next = (!complete).then_some(reached);
    if let Some(stop) = stop {
        let more = found.keys().any(|id| id.task.index >= stop);
        next = if more { Some(stop) } else { next };
        found.retain(|id, _| id.task.index < stop);
    }
    Page { items: found.into_values().collect(), next, looked: 0 }
}

fn first_of(job: JobId, index: u32) -> AttemptId {
    AttemptId { task: TaskId { job, index }, number: 0 }
}

fn owned<'a>(
    records: impl Iterator<Item = (&'a AttemptId, &'a AttemptRecord)>,
) -> Vec<(AttemptId, AttemptRecord)> {
    records.map(|(id, record)| (*id, record.clone())).collect()
}

fn block_keys(task: TaskId) -> std::ops::RangeInclusive<AttemptKey> {
    let block = task.index / BLOCK_TASKS;
    (task.job.0, block, 0, 0)..=(task.job.0, block, u64::MAX, u32::MAX)
}

pub(super) fn cancelled(
    database: &Database,
    pending: &Pending,
    job: JobId,
    limit: usize,
) -> Result<Vec<TasksCancelled>, StoreError> {
    let waiting = pending.read(|batch| {
        let ours = batch.cancelled.iter().enumerate();
        let ours = ours.filter(|(_, cancelled)| cancelled.job == job).take(limit);
        ours.map(|(part, cancelled)| ((batch.last.0, part as u64), cancelled.clone()))
            .collect::<Vec<_>>()
    });
    let mut found: BTreeMap<_, _> = waiting.into_iter().flatten().collect();
    let table = begin(database)?.open_table(CANCELLED).map_err(failed("reading"))?;
    let rows = table.range((job.0, 0, 0)..=(job.0, u64::MAX, u32::MAX));
    for row in rows.map_err(failed("reading"))?.take(limit) {
        let (key, row) = row.map_err(failed("reading"))?;
        let (_, index, part) = key.value();
        found.insert((index, u64::from(part)), decode_cancelled(job, row.value())?);
    }
    Ok(found.into_values().take(limit).collect())
}

pub(super) fn audit(
    database: &Database,
    pending: &Pending,
    before: Option<(LogIndex, u32)>,
    limit: usize,
) -> Result<Vec<Audited>, StoreError> {
    let end = before.map_or((u64::MAX, u32::MAX), |(index, part)| (index.0, part));
    let told = |(index, part): (u64, u32), (noted, at): (Noted, Timestamp)| Audited {
        index: LogIndex(index),
        part,
        at,
        noted,
    };
    let waiting = pending.read(|batch| {
        let newest = batch.noted.range(..end).rev().take(limit);
        newest.map(|(key, noted)| (*key, noted.clone())).collect::<Vec<_>>()
    });
    let mut found: BTreeMap<_, _> = waiting.into_iter().flatten().collect();
    let table = begin(database)?.open_table(AUDIT).map_err(failed("reading"))?;
    for row in table.range(..end).map_err(failed("reading"))?.rev().take(limit) {
        let (key, row) = row.map_err(failed("reading"))?;
        let key = key.value();
        found.insert(key, decode_noted(key.0, row.value())?);
    }
    Ok(found.into_iter().rev().take(limit).map(|(key, noted)| told(key, noted)).collect())
}
