//! The whole history as rows, for another server of the cluster.
//!
//! Rows travel as they are stored, each with its checksum; indexes are not sent but made anew. What arrives is checked row by row.

use std::path::Path;

use redb::{Database, Key, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use rota_types::{JobId, LogIndex};

use super::History;
use super::commit::{JobTables, count_jobs};
use super::tables::{
    ATTEMPTS, AUDIT, CANCELLED, JOBS, KEY_DURABLE, META, begin_write, decode_attempts,
    decode_cancelled, decode_job, decode_noted, failed,
};
use crate::{Identity, StoreError};

/// Bytes of rows that are handed over together.
const PART_BYTES: usize = 1 << 20;
/// Bytes of rows that are written in one transaction.
const BATCH_BYTES: usize = 16 << 20;

/// A table whose rows travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Finished jobs.
    Jobs,
    /// Ended attempts.
    Attempts,
    /// Tasks that were cancelled before they had an attempt.
    Cancelled,
    /// Who asked for what.
    Audit,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where it belongs.
    pub table: Table,
    /// The numbers of its key.
    pub key: Vec<u64>,
    /// As it is stored, checksum included.
    pub value: Vec<u8>,
}

impl History {
    /// Hands every row to `each`, in parts of about a megabyte, until it answers `false`. Returns the log index up to which the rows hold
    /// everything that was finished. Waits for the disk; what is fed meanwhile may or may not be among them.
    ///
    /// # Errors
    /// If the database fails.
    pub fn export(&self, mut each: impl FnMut(Vec<Row>) -> bool) -> Result<LogIndex, StoreError> {
        self.flush();
        let read = self.database.begin_read().map_err(failed("reading"))?;
        let reached = {
            let meta = read.open_table(META).map_err(failed("reading"))?;
            let value = meta.get(KEY_DURABLE).map_err(failed("reading"))?;
            LogIndex(value.map_or(0, |guard| guard.value()))
        };
        let mut parts = Parts { each: &mut each, rows: Vec::new(), bytes: 0, wanted: true };
        parts.table(&read, JOBS, Table::Jobs, |job| vec![job])?;
        parts.table(&read, ATTEMPTS, Table::Attempts, |(job, block, index, part)| {
            vec![job, u64::from(block), index, u64::from(part)]
        })?;
        parts.table(&read, CANCELLED, Table::Cancelled, |(job, index, part)| {
            vec![job, index, u64::from(part)]
        })?;
        parts.table(&read, AUDIT, Table::Audit, |(index, part)| vec![index, u64::from(part)])?;
        parts.flush();
        Ok(reached)
    }
}

/// Gathers rows into parts.
struct Parts<'a> {
    each: &'a mut dyn FnMut(Vec<Row>) -> bool,
    rows: Vec<Row>,
    bytes: usize,
    wanted: bool,
}

impl Parts<'_> {
    fn table<K: Key + 'static>(
        &mut self,
        read: &redb::ReadTransaction,
        definition: TableDefinition<'static, K, &'static [u8]>,
        table: Table,
        key: impl Fn(K::SelfType<'_>) -> Vec<u64>,
    ) -> Result<(), StoreError> {
        let rows = read.open_table(definition).map_err(failed("reading"))?;
        for row in rows.iter().map_err(failed("reading"))? {
            if !self.wanted {
                return Ok(());
            }
            let (found, value) = row.map_err(failed("reading"))?;
            let row = Row { table, key: key(found.value()), value: value.value().to_vec() };
            self.bytes += row.value.len();
            self.rows.push(row);
            if self.bytes >= PART_BYTES {
                self.flush();
            }
        }
        Ok(())
    }

    fn flush(&mut self) {
        self.bytes = 0;
        let rows = std::mem::take(&mut self.rows);
        if self.wanted && !rows.is_empty() {
            self.wanted = (self.each)(rows);
        }
    }
}

/// A history under construction, from another server's rows.
pub struct Import {
    database: Database,
    rows: Vec<Row>,
    bytes: usize,
}

impl Import {
    /// A new history at `path`, where there must be nothing.
    ///
    /// # Errors
    /// If there is something, or the file can't be made.
    pub fn create(path: &Path, identity: &Identity) -> Result<Self, StoreError> {
        if path.exists() {
            return Err(StoreError::History(format!("{} exists already", path.display())));
        }
        let database = super::tables::open(path, identity, 16 << 20)?;
        Ok(Self { database, rows: Vec::new(), bytes: 0 })
    }

    /// Takes rows in.
    ///
    /// # Errors
    /// If a row is damaged or the file can't be written.
    pub fn add(&mut self, rows: Vec<Row>) -> Result<(), StoreError> {
        self.bytes += rows.iter().map(|row| row.value.len() + 64).sum::<usize>();
        self.rows.extend(rows);
        if self.bytes >= BATCH_BYTES { self.write(None) } else { Ok(()) }
    }

    /// Ends the import: the history holds everything that was finished up to `reached`. It is durable when this returns.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn finish(mut self, reached: LogIndex) -> Result<(), StoreError> {
        self.write(Some(reached))
    }

    fn write(&mut self, reached: Option<LogIndex>) -> Result<(), StoreError> {
        let write = begin_write(&self.database)?;
        let added = insert(&write, &self.rows)?;
        count_jobs(&write, added)?;
        if let Some(reached) = reached {
            let mut meta = write.open_table(META).map_err(failed("writing"))?;
            meta.insert(KEY_DURABLE, reached.0).map_err(failed("writing"))?;
        }
        self.rows.clear();
        self.bytes = 0;
        write.commit().map_err(failed("syncing"))
    }
}

/// Returns how many jobs are new.
fn insert(write: &WriteTransaction, rows: &[Row]) -> Result<u64, StoreError> {
    let mut jobs = JobTables::open(write)?;
    let mut attempts = write.open_table(ATTEMPTS).map_err(failed("writing"))?;
    let mut cancelled = write.open_table(CANCELLED).map_err(failed("writing"))?;
    let mut audit = write.open_table(AUDIT).map_err(failed("writing"))?;
    let mut added = 0;
    for Row { table, key, value } in rows {
        let small = |number: u64| u32::try_from(number).map_err(|_| misplaced());
        match (table, key.as_slice()) {
            (Table::Jobs, [job]) => {
                let finished = decode_job(JobId(*job), value)?;
                added += u64::from(jobs.insert(&finished, value)?);
            }
            (Table::Attempts, [job, block, index, part]) => {
                decode_attempts(JobId(*job), value)?;
                let key = (*job, small(*block)?, *index, small(*part)?);
                attempts.insert(key, value.as_slice()).map_err(failed("writing"))?;
            }
            (Table::Cancelled, [job, index, part]) => {
                decode_cancelled(JobId(*job), value)?;
                let key = (*job, *index, small(*part)?);
                cancelled.insert(key, value.as_slice()).map_err(failed("writing"))?;
            }
            (Table::Audit, [index, part]) => {
                decode_noted(*index, value)?;
                let key = (*index, small(*part)?);
                audit.insert(key, value.as_slice()).map_err(failed("writing"))?;
            }
            _ => return Err(misplaced()),
        }
    }
    Ok(added)
}

fn misplaced() -> StoreError {
    StoreError::History("a row of another server's history has a key that belongs nowhere".into())
}
