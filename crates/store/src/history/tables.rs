//! The tables of the database, and the checks around each row.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use redb::{
    Builder, Database, ReadableDatabase, ReadableTable, TableDefinition, TableError,
    WriteTransaction,
};
use rota_core::event::AttemptRecord;
use rota_core::job::{FinishedJob, JobState};
use rota_core::token::Noted;
use rota_types::{JobId, LogIndex, Timestamp};
use rota_wire::DecodeError;
use rota_wire::history::TasksCancelled;

use super::HISTORY_FILE;
use crate::{Identity, StoreError};

const FORMAT: u64 = 1;
/// Tasks whose attempts share a row if they are recorded together.
pub(super) const BLOCK_TASKS: u32 = 512;

/// Format, owner, the index reached, the number of jobs.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Job → finished job.
pub(super) const JOBS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("jobs");
/// (Time of the end, job).
pub(super) const BY_AGE: TableDefinition<'_, (u64, u64), ()> = TableDefinition::new("jobs_by_age");
/// (State, job).
pub(super) const BY_STATE: TableDefinition<'_, (u8, u64), ()> =
    TableDefinition::new("jobs_by_state");
/// (Queue, job).
pub(super) const BY_QUEUE: TableDefinition<'_, (&str, u64), ()> =
    TableDefinition::new("jobs_by_queue");
/// (Name, job).
pub(super) const BY_NAME: TableDefinition<'_, (&str, u64), ()> =
    TableDefinition::new("jobs_by_name");
/// (Key, value, job).
pub(super) const BY_LABEL: TableDefinition<'_, (&str, &str, u64), ()> =
    TableDefinition::new("jobs_by_label");
/// Job, block of tasks, log index, part.
pub(super) type AttemptKey = (u64, u32, u64, u32);
/// Where → attempts that were recorded together.
pub(super) const ATTEMPTS: TableDefinition<'_, AttemptKey, &[u8]> =
    TableDefinition::new("attempts");
/// (Job, log index, part) → tasks that were cancelled together.
pub(super) const CANCELLED: TableDefinition<'_, (u64, u64, u32), &[u8]> =
    TableDefinition::new("cancelled");

/// (Log index, part) → who asked for what.
pub(super) const AUDIT: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("audit");

const KEY_FORMAT: &str = "format";
const KEY_OWNER: &str = "owner";
pub(super) const KEY_DURABLE: &str = "durable_index";
pub(super) const KEY_JOBS: &str = "jobs";

/// Wraps what the database says.
pub(super) fn failed<E: Into<redb::Error>>(doing: &'static str) -> impl FnOnce(E) -> StoreError {
    move |error| {
        let error: redb::Error = error.into();
        StoreError::History(format!("{doing} {HISTORY_FILE}: {error}"))
    }
}

/// Begins a transaction that leaves the file ready to be opened at once after a crash, whatever its size.
pub(super) fn begin_write(database: &Database) -> Result<WriteTransaction, StoreError> {
    let mut write = database.begin_write().map_err(failed("writing"))?;
    write.set_quick_repair(true);
    Ok(write)
}

/// Opens or makes the database.
pub(super) fn open(
    path: &Path,
    identity: &Identity,
    cache_bytes: usize,
) -> Result<Database, StoreError> {
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes);
    // Made here, so that nobody else can read it.
    let mut file = std::fs::OpenOptions::new();
    let made = file.create(true).append(true).mode(0o600).open(path);
    made.map_err(redb::StorageError::Io).map_err(failed("making"))?;
    let database = builder.create(path).map_err(failed("opening"))?;
    let write = begin_write(&database)?;
    {
        let mut meta = write.open_table(META).map_err(failed("opening"))?;
        let owner = u64::from(identity.salt());
        check_meta(&meta, KEY_FORMAT, FORMAT, |found| {
            format!("{HISTORY_FILE} has format {found}, this version of rota reads format {FORMAT}")
        })?;
        check_meta(&meta, KEY_OWNER, owner, |_| {
            format!("{HISTORY_FILE} belongs to another server or cluster than the data directory")
        })?;
        meta.insert(KEY_FORMAT, FORMAT).map_err(failed("writing"))?;
        meta.insert(KEY_OWNER, owner).map_err(failed("writing"))?;
        write.open_table(JOBS).map_err(failed("opening"))?;
        write.open_table(BY_AGE).map_err(failed("opening"))?;
        write.open_table(BY_STATE).map_err(failed("opening"))?;
        write.open_table(BY_QUEUE).map_err(failed("opening"))?;
        write.open_table(BY_NAME).map_err(failed("opening"))?;
        write.open_table(BY_LABEL).map_err(failed("opening"))?;
        write.open_table(ATTEMPTS).map_err(failed("opening"))?;
        write.open_table(CANCELLED).map_err(failed("opening"))?;
        write.open_table(AUDIT).map_err(failed("opening"))?;
    }
    write.commit().map_err(failed("writing"))?;
    Ok(database)
}

fn check_meta(
    meta: &impl ReadableTable<&'static str, u64>,
    key: &'static str,
    expected: u64,
    complaint: impl FnOnce(u64) -> String,
) -> Result<(), StoreError> {
    let found = meta.get(key).map_err(failed("reading"))?;
    match found.map(|guard| guard.value()) {
        Some(found) if found != expected => Err(StoreError::Foreign(complaint(found))),
        Some(_) | None => Ok(()),
    }
}

/// The log index that the database has reached.
pub(super) fn durable_index(database: &Database) -> Result<LogIndex, StoreError> {
    meta_value(database, KEY_DURABLE).map(LogIndex)
}

/// A number of the meta table; zero if it is not there.
pub(super) fn meta_value(database: &Database, key: &'static str) -> Result<u64, StoreError> {
    let read = database.begin_read().map_err(failed("reading"))?;
    let meta = read.open_table(META).map_err(|error: TableError| failed("reading")(error))?;
    let value = meta.get(key).map_err(failed("reading"))?;
    Ok(value.map_or(0, |guard| guard.value()))
}

/// The number under which a job's state is indexed.
pub(super) fn state_number(state: JobState) -> u8 {
    match state {
        JobState::Queued => 0,
        JobState::Running => 1,
        JobState::Succeeded => 2,
        JobState::Failed => 3,
        JobState::Cancelled => 4,
    }
}

/// Puts a checksum behind a row.
fn protect(mut row: Vec<u8>, job: JobId) -> Vec<u8> {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&job.0.to_le_bytes()), &row);
    row.extend(crc.to_le_bytes());
    row
}

/// The row without its checksum.
fn checked(row: &[u8], job: JobId) -> Result<&[u8], StoreError> {
    let found = row.split_last_chunk::<4>().filter(|(body, crc)| {
        let expected = crc32c::crc32c_append(crc32c::crc32c(&job.0.to_le_bytes()), body);
        **crc == expected.to_le_bytes()
    });
    let what = || format!("the checksum of a record of job {job} is wrong");
    found.map(|(body, _)| body).ok_or_else(|| StoreError::damage(HISTORY_FILE, 0, what()))
}

fn unreadable(source: DecodeError) -> StoreError {
    StoreError::Record { file: HISTORY_FILE.into(), source }
}

pub(super) fn encode_job(job: &FinishedJob) -> Vec<u8> {
    protect(rota_wire::history::encode_finished_job(job), job.id)
}

pub(super) fn decode_job(job: JobId, row: &[u8]) -> Result<FinishedJob, StoreError> {
    rota_wire::history::decode_finished_job(checked(row, job)?).map_err(unreadable)
}

/// A row of attempts: the first and the last task in it, then the records.
pub(super) fn encode_attempts(job: JobId, records: &[&AttemptRecord]) -> Vec<u8> {
    let indexes = || records.iter().map(|record| record.attempt.task.index);
    let mut row = indexes().min().unwrap_or(0).to_le_bytes().to_vec();
    row.extend(indexes().max().unwrap_or(0).to_le_bytes());
    row.extend(rota_wire::history::encode_attempts(job, records.iter().copied()));
    protect(row, job)
}

/// The first and the last task in a row of attempts, not checked: enough to skip the row.
pub(super) fn attempts_span(row: &[u8]) -> Option<(u32, u32)> {
    let (first, rest) = row.split_first_chunk()?;
    let (last, _) = rest.split_first_chunk()?;
    Some((u32::from_le_bytes(*first), u32::from_le_bytes(*last)))
}

pub(super) fn decode_attempts(job: JobId, row: &[u8]) -> Result<Vec<AttemptRecord>, StoreError> {
    let body = checked(row, job)?.get(8..).unwrap_or_default();
    rota_wire::history::decode_attempts(body).map_err(unreadable)
}

pub(super) fn encode_cancelled(cancelled: &TasksCancelled) -> Vec<u8> {
    protect(rota_wire::history::encode_tasks_cancelled(cancelled), cancelled.job)
}

pub(super) fn decode_cancelled(job: JobId, row: &[u8]) -> Result<TasksCancelled, StoreError> {
    rota_wire::history::decode_tasks_cancelled(checked(row, job)?).map_err(unreadable)
}

/// A note; its checksum covers its place in the log.
pub(super) fn encode_noted(index: u64, noted: &Noted, at: Timestamp) -> Vec<u8> {
    protect(rota_wire::history::encode_noted(noted, at), JobId(index))
}

pub(super) fn decode_noted(index: u64, row: &[u8]) -> Result<(Noted, Timestamp), StoreError> {
    rota_wire::history::decode_noted(checked(row, JobId(index))?).map_err(unreadable)
}
