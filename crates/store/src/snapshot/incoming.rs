//! A snapshot on its way from another server.

use std::sync::Arc;

use rota_ports::SnapshotMeta;

use super::header::Described;
use super::{Writer, Written, clear, finish, prepare};
use crate::disk::Disk;
use crate::{Identity, StoreError};

/// The name of the file until it is whole. A snapshot of the server's own may be written at the same time.
pub(crate) const INCOMING: &str = "incoming.tmp";

/// A snapshot that is being received, record by record. Dropped before [`finish`](Self::finish), or if that fails, it leaves nothing.
pub struct Incoming {
    disk: Arc<dyn Disk>,
    described: Described,
    writer: Writer,
    is_done: bool,
}

impl Incoming {
    /// Begins to receive the snapshot that `meta` describes. One at a time.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn begin(
        disk: &Arc<dyn Disk>,
        identity: &Identity,
        meta: SnapshotMeta,
    ) -> Result<Self, StoreError> {
        let described = Described { meta, installed: true };
        let writer = prepare(disk.as_ref(), identity, &described, INCOMING);
        if writer.is_err() {
            clear(disk.as_ref(), INCOMING);
        }
        Ok(Self { disk: Arc::clone(disk), described, writer: writer?, is_done: false })
    }

    /// Takes in one record, as [`Snapshot::encoded`](super::Snapshot::encoded) gave it out.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn add(&mut self, record: &[u8]) -> Result<(), StoreError> {
        self.writer.add(record).map_err(StoreError::io("writing", INCOMING))
    }

    /// Makes it durable, with its description. From now on a start begins with it, if the log does not know better.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn finish(mut self) -> Result<Written, StoreError> {
        let index = self.described.meta.index;
        let written = finish(self.disk.as_ref(), &mut self.writer, index, INCOMING)?;
        self.is_done = true;
        Ok(written)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.is_done {
            clear(self.disk.as_ref(), INCOMING);
        }
    }
}
