//! Snapshots beside the running server: a second replica loads the snapshot before, replays the log behind it, and writes the next.
//! The core thread never stalls, and each snapshot proves again that snapshot and replay make the live state.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use rota_core::State;
use rota_ports::SnapshotMeta;
use rota_server_core::Replica;
use rota_store::disk::Disk;
use rota_store::history::History;
use rota_store::snapshot::{self, Snapshot};
use rota_store::wal::LogReader;
use rota_store::{Identity, StoreError, recover};
use rota_types::LogIndex;
use tokio::sync::oneshot;
use tracing::{error, warn};

use crate::disk_space::DiskSpace;
use crate::handle::{Core, Request, SnapshotFailed, SnapshotMade, SnapshotResult};

/// Bytes of the state up to which the core thread takes a digest of it for comparison: a few milliseconds.
const DIGEST_BYTES_MAX: u64 = 4 << 20;

/// Decides when to begin a snapshot, and knows what the last one covers.
pub(crate) struct Snapshots {
    pub(crate) files: Files,
    /// Bytes of log behind the last snapshot that call for the next one, if that one was smaller.
    log_bytes_min: u64,
    log_bytes: u64,
    last_bytes: u64,
    covered: LogIndex,
    /// The newest snapshot that is stored.
    stored: LogIndex,
    making: Option<JoinHandle<()>>,
    /// Who waits for a snapshot of at least this index.
    waiting: Vec<(LogIndex, Waiter)>,
}

/// Told when the snapshot is there, or why it is not.
type Waiter = oneshot::Sender<Result<(), String>>;

/// What a snapshot is made from and written to.
#[derive(Clone)]
pub(crate) struct Files {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) identity: Identity,
    pub(crate) reader: LogReader,
    pub(crate) history: Arc<History>,
    pub(crate) core: Core,
    pub(crate) space: Arc<DiskSpace>,
}

impl Snapshots {
    /// `log_bytes` are already behind the last snapshot, which is of the entry at `stored`.
    pub(crate) fn new(
        files: Files,
        log_bytes_min: u64,
        (stored, log_bytes): (LogIndex, u64),
    ) -> Self {
        Self {
            files,
            log_bytes_min,
            log_bytes,
            last_bytes: 0,
            covered: LogIndex(0),
            stored,
            making: None,
            waiting: Vec::new(),
        }
    }

    /// Lets the next entry call for a snapshot: what is there was not made by the log of this cluster, and who joins should not need it.
    pub(crate) fn hurry(&mut self) {
        self.log_bytes = u64::MAX;
    }

    /// Counts an entry.
    pub(crate) fn note_entry(&mut self, bytes: u64) {
        self.log_bytes = self.log_bytes.saturating_add(bytes);
    }

    /// Everything up to this index may be dropped from the log.
    pub(crate) fn covered(&self) -> LogIndex {
        self.covered
    }

    /// Begins a snapshot of the state as it is now if enough was logged since the last one.
    pub(crate) fn begin_if_due(&mut self, state: &State, replica: &Replica) {
        if self.log_bytes >= self.log_bytes_min.max(self.last_bytes) {
            self.begin(state, replica);
        }
    }

    /// Answers as soon as there is a snapshot of at least the entry at `index`, and makes one if there is none.
    pub(crate) fn want(
        &mut self,
        index: LogIndex,
        waiter: Waiter,
        (state, replica): (&State, &Replica),
    ) {
        if self.stored >= index.max(LogIndex(1)) {
            drop(waiter.send(Ok(())));
        } else if state.index() < index.max(LogIndex(1)) {
            let reason = format!("this server has reached entry {}, not {index}", state.index());
            drop(waiter.send(Err(reason)));
        } else {
            self.waiting.push((index, waiter));
            self.begin(state, replica);
        }
    }

    fn begin(&mut self, state: &State, replica: &Replica) {
        if self.making.is_some() {
            return;
        }
        let index = state.index();
        let Some(meta) = replica.snapshot_meta(index) else { return };
        let digest = state.is_walked_within(DIGEST_BYTES_MAX).then(|| state.digest());
        let files = self.files.clone();
        let thread = std::thread::Builder::new().name("snapshot".to_owned());
        let spawned = thread.spawn(move || {
            let made = catch_unwind(AssertUnwindSafe(|| make(&files, meta, digest)));
            let panicked = |_| Err(SnapshotFailed::Again("its thread panicked".to_owned()));
            let result = made.unwrap_or_else(panicked);
            files.core.tell(Request::Snapshotted(index, result));
        });
        match spawned {
            Ok(thread) => {
                self.making = Some(thread);
                self.log_bytes = 0;
            }
            Err(error) => warn!(%error, "no thread for a snapshot"),
        }
    }

    /// Notes how a snapshot ended.
    pub(crate) fn finished(&mut self, result: &SnapshotResult) {
        self.join();
        if let Ok(made) = result {
            self.last_bytes = made.bytes;
            self.covered = made.covered;
            self.stored = made.meta.index;
        }
        for (index, waiter) in std::mem::take(&mut self.waiting) {
            let answer = match result {
                Ok(_) if self.stored >= index => Ok(()),
                Ok(_) => Err("ask again: the snapshot is of an earlier entry".to_owned()),
                Err(failed) => Err(failed.to_string()),
            };
            drop(waiter.send(answer));
        }
    }

    fn join(&mut self) {
        if let Some(thread) = self.making.take() {
            // What it had to say it has said.
            let _ended = thread.join();
        }
    }
}

impl Drop for Snapshots {
    /// Nothing of the directory is in use when this returns.
    fn drop(&mut self) {
        self.join();
    }
}

fn make(files: &Files, meta: SnapshotMeta, digest: Option<u64>) -> SnapshotResult {
    let index = meta.index;
    let again = |error: StoreError| SnapshotFailed::Again(error.to_string());
    let Files { disk, identity, reader, history, space, .. } = files;
    let (mut state, bytes) = match newest(files).map_err(again)? {
        Some(before) => {
            // A quarter more, for what was added since.
            let bytes = before.bytes() + before.bytes() / 4;
            room(space, bytes)?;
            (State::restore(before.records().map_err(again)?).map_err(again)?, Some(bytes))
        }
        None => (State::new(), None),
    };
    let mut entries = recover::decoded(reader.entries(state.index().next()));
    while state.index() < index
        && let Some(entry) = entries.next()
    {
        state.apply(&entry.map_err(again)?);
    }
    room(space, bytes.unwrap_or_else(|| entries.bytes()))?;
    if state.index() != index {
        let reason = format!("the log on the disk ends at entry {}, before {index}", state.index());
        return Err(SnapshotFailed::Again(reason));
    }
    if digest.is_some_and(|digest| digest != state.digest()) {
        return Err(SnapshotFailed::Differs(format!(
            "the last snapshot and the log behind it make another state at entry {index} than the one in memory: memory or disk \
             is faulty, or this is a bug; nothing was overwritten"
        )));
    }
    // What the entries up to here finished can't be had from this snapshot any more: the history has to have it first.
    history.flush();
    if history.durable_index() < index {
        return Err(SnapshotFailed::Again(
            "the history has not stored what was finished".to_owned(),
        ));
    }
    let written =
        snapshot::write(disk.as_ref(), identity, &meta, state.records()).map_err(again)?;
    let covered = written.previous.unwrap_or(LogIndex(0));
    Ok(SnapshotMade { bytes: written.bytes, meta, covered })
}

/// The newest snapshot that is whole. Those that are damaged are put out of the way, so that the next one can take their place; the log
/// reaches back to the one before.
fn newest(files: &Files) -> Result<Option<Snapshot>, StoreError> {
    let Files { disk, identity, .. } = files;
    for index in snapshot::list(disk.as_ref())?.into_iter().rev() {
        match snapshot::open(disk, identity, index) {
            Ok(snapshot) => return Ok(Some(snapshot)),
            Err(StoreError::Damage(damage)) => {
                let aside = snapshot::set_aside(disk.as_ref(), index)?;
                error!(
                    %damage,
                    "a snapshot is damaged and is now {aside}; an older one and the log take its place: look after the disk"
                );
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Refuses to write this many bytes if they would go into what is reserved for finishing work.
fn room(space: &DiskSpace, bytes: u64) -> Result<(), SnapshotFailed> {
    if space.has_room_for(bytes) {
        return Ok(());
    }
    let free = space.free();
    Err(SnapshotFailed::Again(format!(
        "about {bytes} bytes are needed besides the reserve for finishing work, and the disk of the data directory has {free} bytes \
         free: make room"
    )))
}
