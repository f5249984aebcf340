//! Where the history is, and the one of another server that may be about to take its place.

use std::path::{Path, PathBuf};

use rota_types::LogIndex;

use super::{HISTORY_FILE, History, HistoryOptions, Import};
use crate::{Identity, StoreError};

/// The name of a history that came from another server, until this one starts again with it.
const INCOMING_FILE: &str = "history.incoming";

/// The place of the history in a data directory.
#[derive(Clone, Debug)]
pub struct HistoryPlace {
    directory: PathBuf,
}

impl HistoryPlace {
    /// The place in this directory.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Opens the history for a state that begins at `start`. One that came from another server takes its place if it alone holds what
    /// was finished before.
    ///
    /// # Errors
    /// As [`History::open`].
    pub fn open(
        &self,
        identity: &Identity,
        start: LogIndex,
        on_fatal: impl FnOnce(StoreError) + Send + Clone + 'static,
    ) -> Result<History, StoreError> {
        let path = self.directory.join(HISTORY_FILE);
        let open = |on_fatal| History::open(&path, identity, HistoryOptions::default(), on_fatal);
        let history = open(Box::new(on_fatal.clone()) as Box<dyn FnOnce(StoreError) + Send>)?;
        let incoming = self.directory.join(INCOMING_FILE);
        if !incoming.exists() {
            return Ok(history);
        }
        if history.durable_index() >= start {
            remove(&incoming)?;
            return Ok(history);
        }
        drop(history);
        std::fs::rename(&incoming, &path).map_err(StoreError::io("renaming", INCOMING_FILE))?;
        open(Box::new(on_fatal))
    }

    /// Begins to write a history that comes from another server.
    ///
    /// # Errors
    /// As [`Import::create`].
    pub fn begin_import(&self, identity: &Identity) -> Result<Import, StoreError> {
        let path = self.directory.join(INCOMING_FILE);
        if path.exists() {
            remove(&path)?;
        }
        Import::create(&path, identity)
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    std::fs::remove_file(path).map_err(StoreError::io("removing", INCOMING_FILE))
}
