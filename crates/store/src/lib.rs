//! Durable bytes of one server: log segments, snapshots, and the history of finished work.
//!
//! - [`recover`](recover::recover) opens a data directory and gives back everything that was acknowledged: a snapshot and the log
//!   behind it.
//! - [`Wal`] is the log on disk, [`LogWriter`](writer::LogWriter) the thread that owns it, [`SoloLog`](solo::SoloLog) the replicated
//!   log of a single server.
//! - [`History`](history::History) keeps finished work in a file of its own.
//! - [`backup`] writes all of that as one stream, and makes a data directory of it.
//! - [`disk`] is the seam to the file system; [`MemDisk`](mem_disk::MemDisk) is its faulty twin for tests and the simulator.
//!
//! What is damaged is reported with file and offset and is never repaired, skipped or shortened silently. Nothing here decides when
//! to take a snapshot or what to drop, and nothing retries: after a failed write or sync nobody knows what is on the disk.

pub mod backup;
pub mod disk;
mod error;
pub mod history;
mod identity;
pub mod mem_disk;
pub mod recover;
mod sector;
mod segment;
pub mod snapshot;
pub mod solo;
pub mod wal;
pub mod writer;

pub use error::{Damage, StoreError};
pub use identity::{ClusterId, Identity};
pub use wal::Wal;
