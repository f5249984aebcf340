//! Snapshots beside the running server: a second replica loads the snapshot before, replays the log behind it, and writes the next.
//! The core thread never stalls, and each snapshot proves again that snapshot and replay make the live state.

use std::sync::Arc;

use rota_core::State;
use rota_ports::{ReplicatedLog, SnapshotMeta};
use rota_store::disk::Disk;
use rota_store::history::History;
use rota_store::wal::LogReader;
use rota_store::{Identity, StoreError, recover, snapshot};
use rota_types::LogIndex;
use tracing::warn;

use crate::handle::{Core, Request, SnapshotFailed, SnapshotMade, SnapshotResult};

/// Live tasks up to which the core thread takes a digest of its state for comparison: a few milliseconds.
const DIGEST_TASKS_MAX: u64 = 10_000;

/// Decides when to begin a snapshot, and knows what the last one covers.
pub(crate) struct Snapshots {
    pub(crate) files: Files,
    /// Bytes of log behind the last snapshot that call for the next one, if that one was smaller.
    log_bytes_min: u64,
    log_bytes: u64,
    last_bytes: u64,
    covered: LogIndex,
    running: bool,
}

/// What a snapshot is made from and written to.
#[derive(Clone)]
pub(crate) struct Files {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) identity: Identity,
    pub(crate) reader: LogReader,
    pub(crate) history: Arc<History>,
    pub(crate) core: Core,
}

impl Snapshots {
    /// `log_bytes` are already behind the last snapshot.
    pub(crate) fn new(files: Files, log_bytes_min: u64, log_bytes: u64) -> Self {
        let covered = LogIndex(0);
        Self { files, log_bytes_min, log_bytes, last_bytes: 0, covered, running: false }
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
    pub(crate) fn begin_if_due(&mut self, state: &State, log: &dyn ReplicatedLog) {
        if self.running || self.log_bytes < self.log_bytes_min.max(self.last_bytes) {
            return;
        }
        let index = state.index();
        let Some(meta) = log.snapshot_meta(index) else { return };
        let digest = (state.live_tasks() <= DIGEST_TASKS_MAX).then(|| state.digest());
        let files = self.files.clone();
        let thread = std::thread::Builder::new().name("snapshot".to_owned());
        let spawned = thread.spawn(move || {
            let result = make(&files, &meta, digest);
            files.core.tell(Request::Snapshotted(index, result));
        });
        match spawned {
            Ok(_) => {
                self.running = true;
                self.log_bytes = 0;
            }
            Err(error) => warn!(%error, "no thread for a snapshot"),
        }
    }

    /// Notes how a snapshot ended.
    pub(crate) fn finished(&mut self, made: Option<&SnapshotMade>) {
        self.running = false;
        if let Some(made) = made {
            self.last_bytes = made.bytes;
            self.covered = made.covered;
        }
    }
}

fn make(files: &Files, meta: &SnapshotMeta, digest: Option<u64>) -> SnapshotResult {
    let index = meta.index;
    let again = |error: StoreError| SnapshotFailed::Again(error.to_string());
    let Files { disk, identity, reader, history, .. } = files;
    let mut state = match snapshot::latest(disk.as_ref()).map_err(again)? {
        Some(before) => {
            let before = snapshot::open(disk, identity, before).map_err(again)?;
            State::restore(before.records().map_err(again)?).map_err(again)?
        }
        None => State::new(),
    };
    for entry in recover::decoded(reader.entries(state.index().next())) {
        if state.index() >= index {
            break;
        }
        state.apply(&entry.map_err(again)?);
    }
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
        snapshot::write(disk.as_ref(), identity, meta, state.records()).map_err(again)?;
    Ok(SnapshotMade { bytes: written.bytes, covered: written.previous.unwrap_or(LogIndex(0)) })
}
