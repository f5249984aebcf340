//! Opening a data directory: the newest snapshot that is whole, and the log behind it.

use std::sync::Arc;

use rota_core::State;
use rota_core::command::Entry;
use rota_core::image::BadImage;
use rota_ports::{EntryKind, LogEntry, SnapshotMeta, Stored};
use rota_types::{LogIndex, ServerId};

use crate::disk::{DirLock, Disk};
use crate::history::HISTORY_FILE;
use crate::identity::IDENTITY_FILE;
use crate::snapshot::{self, Snapshot};
use crate::wal::{Entries, Wal, WalOptions};
use crate::{ClusterId, Identity, StoreError, segment};

/// What an interrupted operation leaves behind.
const TEMPORARY: [&str; 4] = ["identity.tmp", "log.tmp", "snapshot.tmp", snapshot::INCOMING];

/// How to open a data directory.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whose data it will hold if it is new.
    pub fresh: Identity,
    /// Refuse another cluster's data.
    pub cluster: Option<ClusterId>,
    /// Refuse another server's data.
    pub server: Option<ServerId>,
    /// How the log is laid out.
    pub wal: WalOptions,
}

/// An opened data directory.
pub struct Recovered {
    /// Whose data it holds.
    pub identity: Identity,
    /// Whether it was made just now.
    pub is_new: bool,
    /// The log, ready for more.
    pub wal: Wal,
    /// The snapshot to start from; without one, the state before the first entry.
    pub snapshot: Option<Snapshot>,
    /// What people should know: each is worth a warning.
    pub notes: Vec<String>,
    /// Keeps other processes out; to be held as long as anything of the directory is in use.
    pub lock: DirLock,
}

/// Opens a data directory, or makes a new one if it is empty.
///
/// # Errors
/// If another process uses it, if it is another server's, or if anything that was acknowledged is damaged or missing. Nothing is
/// repaired: the directory is as it was.
pub fn recover(disk: &Arc<dyn Disk>, options: &Options) -> Result<Recovered, StoreError> {
    let lock = disk.lock()?;
    let mut names = list(disk.as_ref())?;
    for name in names.extract_if(.., |name| TEMPORARY.contains(&name.as_str())) {
        disk.remove(&name).map_err(StoreError::io("removing", &name))?;
    }
    let is_new = !names.iter().any(|name| name == IDENTITY_FILE);
    let identity = if is_new {
        clear_unfinished(disk.as_ref(), &names)?;
        options.fresh
    } else {
        Identity::read(disk.as_ref())?
    };
    check_identity(&identity, options)?;
    let mut wal = if is_new {
        let wal = Wal::create(Arc::clone(disk), identity, options.wal)?;
        identity.write(disk.as_ref())?;
        wal
    } else {
        Wal::open(Arc::clone(disk), identity, options.wal)?
    };
    let mut notes = Vec::new();
    let snapshot = choose_snapshot(disk, &identity, &wal, &mut notes)?;
    if let Some(snapshot) = &snapshot {
        take_over(&mut wal, snapshot)?;
    }
    Ok(Recovered { identity, is_new, wal, snapshot, notes, lock })
}

impl Recovered {
    /// The index of the state to start from.
    #[must_use]
    pub fn start(&self) -> LogIndex {
        self.snapshot.as_ref().map_or(LogIndex(0), Snapshot::index)
    }

    /// The state to start from.
    ///
    /// # Errors
    /// If the snapshot's records can't be read by this version or contradict each other.
    pub fn state(&self) -> Result<State, StoreError> {
        let Some(snapshot) = &self.snapshot else {
            return Ok(State::new());
        };
        let state = State::restore::<StoreError>(snapshot.records()?)?;
        if state.index() == snapshot.index() {
            Ok(state)
        } else {
            Err(BadImage("it is of another log index than its name says").into())
        }
    }

    /// The description of the snapshot to start from.
    #[must_use]
    pub fn snapshot_meta(&self) -> SnapshotMeta {
        self.snapshot.as_ref().map_or_else(SnapshotMeta::default, |found| found.meta().clone())
    }

    /// The entries behind that snapshot, in order.
    #[must_use]
    pub fn tail(&self) -> Entries {
        self.wal.replay(self.start().next())
    }

    /// What a replicated log starts from. Such a log decides by itself which entries are committed, and hands those out again; in a log
    /// of one server all are, see [`entries`](Self::entries).
    ///
    /// # Errors
    /// If the log can't be read any more.
    pub fn stored(&self) -> Result<Stored, StoreError> {
        let entries: Result<Vec<LogEntry>, StoreError> =
            self.tail().map(|entry| entry.map(|(_, entry)| entry)).collect();
        let state = self.wal.protocol_state();
        Ok(Stored { snapshot: self.snapshot_meta(), entries: entries?, state })
    }

    /// The entries to apply to that state, in order, in a log of one server.
    #[must_use]
    pub fn entries(&self) -> DecodedEntries {
        decoded(self.wal.replay(self.start().next()))
    }
}

/// Decodes entries on their way. After an error nothing more comes.
#[must_use]
pub fn decoded(entries: Entries) -> DecodedEntries {
    DecodedEntries { entries: Some(entries), bytes: 0 }
}

/// Entries of the log, decoded.
pub struct DecodedEntries {
    entries: Option<Entries>,
    bytes: u64,
}

impl DecodedEntries {
    /// How large the entries were that have been read so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Iterator for DecodedEntries {
    type Item = Result<Entry, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.as_mut()?.next()?.and_then(|(index, entry)| {
            self.bytes += entry.bytes.len() as u64;
            match entry.kind {
                EntryKind::Command => rota_wire::log::decode_entry(index, &entry.bytes)
                    .map_err(|source| StoreError::Entry { index, source }),
                EntryKind::Internal => Ok(Entry::internal(index)),
            }
        });
        if entry.is_err() {
            self.entries = None;
        }
        Some(entry)
    }
}

fn list(disk: &dyn Disk) -> Result<Vec<String>, StoreError> {
    disk.list().map_err(StoreError::io("listing", "the data directory"))
}

/// Whether a file would hold data of ours. Other things may lie beside them.
fn is_data(name: &str) -> bool {
    ["log-", "spare-", "snapshot-"].iter().any(|prefix| name.starts_with(prefix))
        || name == HISTORY_FILE
}

/// A directory without an identity may hold the beginnings of a log, and nothing else of ours.
fn clear_unfinished(disk: &dyn Disk, names: &[String]) -> Result<(), StoreError> {
    let foreign = |name: &str| {
        StoreError::Foreign(format!(
            "the data directory holds {name} but no identity file; restore it from a backup, or choose an empty directory"
        ))
    };
    for name in names.iter().filter(|name| is_data(name)) {
        if *name != segment::file_name(1) {
            return Err(foreign(name));
        }
        let file = disk.open(name).map_err(StoreError::io("opening", name))?;
        let length = file.len().map_err(StoreError::io("reading", name))?;
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        file.read_at(0, &mut bytes).map_err(StoreError::io("reading", name))?;
        let behind_header = bytes.get(crate::sector::SECTOR..).unwrap_or_default();
        if behind_header.iter().any(|byte| *byte != 0) {
            return Err(foreign(name));
        }
        disk.remove(name).map_err(StoreError::io("removing", name))?;
    }
    Ok(())
}

fn check_identity(identity: &Identity, options: &Options) -> Result<(), StoreError> {
    if let Some(cluster) = options.cluster.filter(|cluster| *cluster != identity.cluster) {
        return Err(StoreError::Foreign(format!(
            "the data directory belongs to cluster {}, not to {cluster}",
            identity.cluster
        )));
    }
    if let Some(server) = options.server.filter(|server| *server != identity.server) {
        return Err(StoreError::Foreign(format!(
            "the data directory belongs to server {}, not to {server}",
            identity.server
        )));
    }
    Ok(())
}

/// The newest snapshot that is whole and from which the log goes on without a gap. A damaged one is passed over only if the log
/// reaches back far enough to do without it.
fn choose_snapshot(
    disk: &Arc<dyn Disk>,
    identity: &Identity,
    wal: &Wal,
    notes: &mut Vec<String>,
) -> Result<Option<Snapshot>, StoreError> {
    let (first, last) = (wal.first_index(), wal.last_index());
    let (first_file, last_file) = wal.edge_files();
    let ahead = |index| {
        let what =
            format!("the log ends with entry {last}, but there is a snapshot of entry {index}");
        StoreError::damage(&last_file, 0, what)
    };
    let mut damaged = Vec::new();
    for index in snapshot::list(disk.as_ref())?.into_iter().rev() {
        if first > index.next() {
            break; // the log does not reach back to it
        }
        match snapshot::open(disk, identity, index) {
            // One that came from another server may be ahead: the log was about to be emptied.
            Ok(snapshot) if index > last && !snapshot.is_installed() => return Err(ahead(index)),
            Ok(snapshot) => {
                set_aside(disk.as_ref(), damaged, notes)?;
                return Ok(Some(snapshot));
            }
            Err(StoreError::Damage(_)) if index > last => return Err(ahead(index)),
            Err(error @ StoreError::Damage(_)) => damaged.push((index, error)),
            Err(error) => return Err(error),
        }
    }
    if first == LogIndex(1) {
        set_aside(disk.as_ref(), damaged, notes)?;
        return Ok(None);
    }
    let newest = damaged.into_iter().next().map(|(_, error)| error);
    Err(newest.unwrap_or_else(|| {
        let what = format!("the log begins with entry {first}, and no snapshot leads up to it");
        StoreError::damage(&first_file, 0, what)
    }))
}

/// Empties the log if the snapshot came from another server and the log does not agree with it: the crash came between storing the one
/// and emptying the other.
fn take_over(wal: &mut Wal, snapshot: &Snapshot) -> Result<(), StoreError> {
    let meta = snapshot.meta();
    if !snapshot.is_installed() || wal.first_index() > meta.index {
        return Ok(());
    }
    let agrees = match wal.replay(meta.index).next() {
        Some(entry) => entry?.1.term == meta.term,
        None => false,
    };
    if agrees {
        return Ok(());
    }
    wal.reset(meta.index.next()).map_err(StoreError::io("emptying", "the log"))
}

/// Renames damaged snapshots that are not needed, so that they are in nobody's way and can still be looked at.
fn set_aside(
    disk: &dyn Disk,
    damaged: Vec<(LogIndex, StoreError)>,
    notes: &mut Vec<String>,
) -> Result<(), StoreError> {
    for (index, error) in damaged {
        let StoreError::Damage(damage) = error else { continue };
        let aside = snapshot::set_aside(disk, index)?;
        notes.push(format!(
            "{damage}; an older snapshot and the log took its place, and nothing is lost; it is now {aside}: look after the disk"
        ));
    }
    Ok(())
}
