//! A data directory made from what another server held.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rota_ports::{EntryBytes, Frame, FrameSeq, LogEntry, SnapshotMeta, Store};
use rota_types::{LogIndex, Steady, Timestamp};

use super::Piece;
use crate::disk::{Disk, FsDisk};
use crate::history::{HISTORY_FILE, History, HistoryPlace, Import};
use crate::recover::{Options, recover};
use crate::snapshot::Incoming;
use crate::wal::{Wal, WalOptions};
use crate::{Identity, StoreError};

/// Entries that are synced together.
const ENTRIES_SYNCED: u64 = 4_096;

/// A data directory under construction, for a server that runs alone. It takes its name when it is whole; before that, what is there is
/// removed when this is dropped.
pub struct Rebuild {
    partial: PathBuf,
    target: PathBuf,
    disk: Arc<dyn Disk>,
    identity: Identity,
    snapshot: Option<Incoming>,
    history: Option<Import>,
    wal: Option<Wal>,
    last: LogIndex,
    is_done: bool,
}

impl Rebuild {
    /// Begins to make the directory `target`, which must not exist or be empty.
    ///
    /// # Errors
    /// If it holds anything, or the file system refuses.
    pub fn begin(target: &Path, identity: Identity) -> Result<Self, StoreError> {
        let named = || target.display().to_string();
        let holds = std::fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_some());
        let name = target.file_name().filter(|_| !holds).ok_or_else(|| {
            StoreError::Foreign(format!("{} is not empty: choose an empty directory", named()))
        })?;
        let mut partial = name.to_owned();
        partial.push(".partial");
        let partial = target.with_file_name(partial);
        if partial.exists() {
            std::fs::remove_dir_all(&partial).map_err(StoreError::io("removing", &named()))?;
        }
        let disk: Arc<dyn Disk> = Arc::new(FsDisk::open(&partial)?);
        let history = Import::create(&partial.join(HISTORY_FILE), &identity)?;
        Ok(Self {
            partial,
            target: target.to_path_buf(),
            disk,
            identity,
            snapshot: None,
            history: Some(history),
            wal: None,
            last: LogIndex(0),
            is_done: false,
        })
    }

    /// Takes in the next piece.
    ///
    /// # Errors
    /// If it is damaged, or the file system refuses.
    pub fn add(&mut self, piece: Piece) -> Result<(), StoreError> {
        match piece {
            Piece::Begin(about) => {
                self.last = about.index;
                let meta = SnapshotMeta::solo(about.index);
                self.snapshot = Some(Incoming::begin(&self.disk, &self.identity, meta)?);
                Ok(())
            }
            Piece::Record(record) => {
                self.snapshot.as_mut().map_or(Ok(()), |snapshot| snapshot.add(&record))
            }
            Piece::Rows(rows) => self.history.as_mut().map_or(Ok(()), |history| history.add(rows)),
            Piece::Entry(bytes) if bytes.is_empty() => {
                // An entry of another protocol's own: here it only moves the index.
                self.append(rota_wire::log::encode_entry(Timestamp(0), Steady(0), &[]))
            }
            Piece::Entry(bytes) => self.append(bytes.into()),
            Piece::End { reached } => {
                self.history.take().map_or(Ok(()), |history| history.finish(reached))
            }
        }
    }

    fn append(&mut self, bytes: EntryBytes) -> Result<(), StoreError> {
        let failed = |doing| StoreError::io(doing, "the log");
        let reset = self.wal.is_none();
        if reset {
            self.snapshot.take().map_or(Ok(()), |snapshot| snapshot.finish().map(drop))?;
            let options = WalOptions::default();
            self.wal = Some(Wal::create(Arc::clone(&self.disk), self.identity, options)?);
        }
        let Some(wal) = &mut self.wal else { return Ok(()) };
        let first = self.last.next();
        let entries = vec![LogEntry::command(bytes)];
        let frame = Frame { seq: FrameSeq(first.0), first, entries, state: None, reset };
        wal.append(&frame).map_err(failed("writing"))?;
        self.last = first;
        if first.0.is_multiple_of(ENTRIES_SYNCED) {
            wal.sync().map_err(failed("syncing"))?;
        }
        Ok(())
    }

    /// Puts a file of the caller's beside the data.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let written = std::fs::File::create(self.partial.join(name)).and_then(|mut file| {
            io::Write::write_all(&mut file, bytes)?;
            file.sync_all()
        });
        written.map_err(StoreError::io("writing", name))
    }

    /// Ends with an entry of its own, and gives the directory its name.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn finish(mut self, last: EntryBytes) -> Result<LogIndex, StoreError> {
        self.append(last)?;
        let failed = |doing| StoreError::io(doing, "the data directory");
        if let Some(mut wal) = self.wal.take() {
            wal.sync().map_err(failed("syncing"))?;
        }
        self.identity.write(self.disk.as_ref())?;
        std::fs::rename(&self.partial, &self.target).map_err(failed("renaming"))?;
        self.is_done = true;
        let parent = self.target.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = std::fs::File::open(parent.unwrap_or(Path::new(".")));
        parent.and_then(|parent| parent.sync_all()).map_err(failed("syncing"))?;
        Ok(self.last)
    }
}

impl Drop for Rebuild {
    fn drop(&mut self) {
        if !self.is_done {
            let _removed = std::fs::remove_dir_all(&self.partial);
        }
    }
}

/// Hands what a data directory holds to `each`, as if from a backup: also what may never have been committed. Returns the last entry.
///
/// # Errors
/// If the directory is in use or damaged, or `each` refuses.
pub fn copy(
    directory: &Path,
    taken_at: Timestamp,
    mut each: impl FnMut(Piece) -> Result<(), StoreError>,
) -> Result<super::Summary, StoreError> {
    let nothing =
        || StoreError::Foreign(format!("{} holds no data of a server", directory.display()));
    if !directory.is_dir() {
        return Err(nothing()); // to open it would make it
    }
    let disk: Arc<dyn Disk> = Arc::new(FsDisk::open(directory)?);
    let identity = Identity::of(disk.as_ref())?.ok_or_else(nothing)?;
    let wal = WalOptions::default();
    let options = Options { fresh: identity, cluster: None, server: None, wal };
    let recovered = recover(&disk, &options)?;
    let index = recovered.start();
    let about = super::About { version: String::new(), identity, taken_at, index };
    each(Piece::Begin(about.clone()))?;
    let mut records = 0;
    if let Some(snapshot) = &recovered.snapshot {
        for record in snapshot.encoded()? {
            records += 1;
            each(Piece::Record(record?))?;
        }
    } else {
        for record in rota_core::State::new().records() {
            records += 1;
            each(Piece::Record(rota_wire::snapshot::encode_record(&record)))?;
        }
    }
    let place = HistoryPlace::new(directory);
    let history: History = place.open(&identity, index, |_| {})?;
    let (mut rows, mut refused) = (0, Ok(()));
    let reached = history.export(|part| {
        rows += part.len() as u64;
        refused = each(Piece::Rows(part));
        refused.is_ok()
    })?;
    refused?;
    let mut last = index;
    for entry in recovered.tail() {
        let (at, entry) = entry?;
        let is_command = entry.kind == rota_ports::EntryKind::Command;
        each(Piece::Entry(if is_command { entry.bytes.to_vec() } else { Vec::new() }))?;
        last = at;
    }
    each(Piece::End { reached })?;
    Ok(super::Summary { about, last, records, rows })
}
