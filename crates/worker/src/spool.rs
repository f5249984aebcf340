//! The output of attempts: little of it stays in memory, more goes to files, too much loses its middle.
//!
//! An attempt without output, or with little of it and soon over, touches no disk: what is in memory then is all in its report. Files
//! are not synced and have no index: their names say whose they are and their sizes how much was written, so that what a killed
//! worker leaves is as good as what one leaves that ended well.

mod capture;
mod shelf;
mod stream;

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use rota_types::AttemptId;
use tracing::warn;

use crate::config::OutputLimits;
use shelf::Shelf;

pub(crate) use capture::{Capture, Channel};
pub(crate) use stream::Piece;

/// Output up to this size never touches the disk, per stream, unless the attempt runs for long.
pub(crate) const SPILL_BYTES: u64 = 4 << 10;
/// Bytes of each stream that travel with the report. All that a short attempt leaves in memory is in its record.
pub(crate) const DETAIL_TAIL_BYTES: u64 = SPILL_BYTES;
/// Attempts that are over and whose output is still in memory.
const SHORT_MAX: usize = 4_096;

/// The outputs that this worker keeps.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: PathBuf,
    limits: OutputLimits,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Attempts that run.
    live: BTreeMap<AttemptId, Arc<Capture>>,
    /// Attempts that are over and whose output is in memory.
    short: BTreeMap<AttemptId, Arc<Capture>>,
    /// The same, oldest first.
    short_ended: VecDeque<(Instant, AttemptId)>,
    /// Attempts that are over and whose output is in files.
    shelf: Shelf,
}

impl Spool {
    /// Opens a directory of its own and takes over what an earlier worker left there.
    pub(crate) fn open(root: &Path, limits: OutputLimits) -> io::Result<Self> {
        // Files that are laid out otherwise can't be read.
        let layout = format!("{}+{}", limits.head_bytes, limits.tail_bytes);
        let dir = root.join(&layout);
        private_dir(&dir)?;
        let strange = shelf::clear_but(root, &layout)?;
        let (shelf, stranger) = Shelf::open(&dir)?;
        if strange + stranger > 0 {
            let (dir, count) = (root.display(), strange + stranger);
            warn!(%dir, count, "removed what is no output that this version can read");
        }
        let spool = Self { dir, limits, kept: Mutex::new(Kept { shelf, ..Kept::default() }) };
        spool.tend();
        Ok(spool)
    }

    /// Begins to capture the output of an attempt.
    pub(crate) fn begin(&self, id: AttemptId) -> Arc<Capture> {
        let capture = Arc::new(Capture::new(id, &self.dir, self.limits));
        let stale = {
            let kept = &mut *lock(&self.kept);
            kept.live.insert(id, Arc::clone(&capture));
            kept.shelf.take(id)
        };
        // A server that started from nothing gives out the same ids again.
        if stale {
            shelf::remove_files(&self.dir, id);
        }
        capture
    }

    /// The attempt is over. Old outputs go if there are too many.
    pub(crate) fn finish(&self, capture: &Arc<Capture>) {
        let on_disk = capture.close();
        let gone = {
            let kept = &mut *lock(&self.kept);
            kept.live.remove(&capture.id);
            match on_disk {
                Some(bytes) => kept.shelf.put(capture.id, SystemTime::now(), bytes),
                None => {
                    kept.short.insert(capture.id, Arc::clone(capture));
                    kept.short_ended.push_back((Instant::now(), capture.id));
                }
            }
            kept.expire(&self.limits)
        };
        self.remove(&gone);
    }

    /// Lets go of what has become too old, and puts on disk what attempts have written that run for long.
    ///
    /// To be called every now and then: the output of an attempt that was there at the last call, too, gets a file.
    pub(crate) fn tend(&self) {
        let (gone, lasting) = {
            let kept = &mut *lock(&self.kept);
            let lasting: Vec<_> =
                kept.live.values().filter(|capture| capture.lasts()).map(Arc::clone).collect();
            (kept.expire(&self.limits), lasting)
        };
        self.remove(&gone);
        for capture in lasting {
            capture.spill();
        }
    }

    /// The output of an attempt that is running, or was not long ago.
    pub(crate) fn find(&self, id: AttemptId) -> Option<Arc<Capture>> {
        {
            let kept = lock(&self.kept);
            if let Some(capture) = kept.live.get(&id).or_else(|| kept.short.get(&id)) {
                return Some(Arc::clone(capture));
            }
            if !kept.shelf.has(id) {
                return None;
            }
        }
        Capture::reopen(id, &self.dir, self.limits).map(Arc::new)
    }

    fn remove(&self, gone: &[AttemptId]) {
        for id in gone {
            shelf::remove_files(&self.dir, *id);
        }
    }
}

impl Kept {
    /// Forgets the oldest outputs until the rest is within the limits. Returns those whose files have to go.
    fn expire(&mut self, limits: &OutputLimits) -> Vec<AttemptId> {
        while let Some((at, id)) = self.short_ended.front() {
            if self.short_ended.len() <= SHORT_MAX && at.elapsed() <= limits.age {
                break;
            }
            self.short.remove(id);
            self.short_ended.pop_front();
        }
        self.shelf.expire(limits)
    }
}

/// Makes a directory into which nobody else can look.
pub(crate) fn private_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// A panic elsewhere leaves the bookkeeping usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
