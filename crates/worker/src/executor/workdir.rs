//! Fresh working directories, used again as long as nobody left anything in them: making and removing a directory costs more than
//! everything else that this crate does for a short program.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rota_types::AttemptId;

use crate::spool::private_dir;

/// Empty directories that are kept for later.
const FREE_MAX: usize = 256;

/// The working directories of a worker.
#[derive(Debug)]
pub(crate) struct WorkDirs {
    root: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    free: Vec<Kept>,
    used: BTreeMap<AttemptId, Kept>,
    made: u64,
}

/// A directory that was empty when it was looked at.
#[derive(Debug)]
struct Kept {
    dir: PathBuf,
    /// When it had changed last, if that was long enough before it was given away: then an equal time later says that nothing was done to
    /// it.
    changed: Option<SystemTime>,
}

/// File systems note times in ticks of up to 10 ms.
const TICK: Duration = Duration::from_millis(20);

impl WorkDirs {
    /// Takes a directory over and removes what an earlier worker left in it.
    pub(crate) fn open(root: PathBuf) -> io::Result<Self> {
        match fs::remove_dir_all(&root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => private_dir(&root)?,
        }
        Ok(Self { root, state: Mutex::default() })
    }

    /// An empty directory for an attempt, until it is [released](Self::release).
    pub(crate) fn take(&self, id: AttemptId) -> io::Result<PathBuf> {
        let free = self.state().free.pop();
        let kept = match free {
            Some(Kept { dir, changed }) => {
                let settled = SystemTime::now() - TICK;
                Kept { dir, changed: changed.filter(|changed| *changed < settled) }
            }
            None => {
                let mut state = self.state();
                state.made += 1;
                let dir = self.root.join(state.made.to_string());
                drop(state);
                private_dir(&dir)?;
                Kept { dir, changed: None }
            }
        };
        let dir = kept.dir.clone();
        self.state().used.insert(id, kept);
        Ok(dir)
    }

    /// Nobody needs an attempt's directory any more. Returns it if it is not empty and has to be removed.
    pub(crate) fn release(&self, id: AttemptId) -> Option<PathBuf> {
        let Kept { dir, changed } = self.state().used.remove(&id)?;
        if let Some(changed) = untouched_since(&dir, changed) {
            let mut state = self.state();
            if state.free.len() < FREE_MAX {
                state.free.push(Kept { dir, changed: Some(changed) });
                return None;
            }
        }
        Some(dir)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a directory changed last, if it is as it was made: empty, and nobody changed who may do what with it. `known` is when an empty one
/// had changed last.
fn untouched_since(dir: &Path, known: Option<SystemTime>) -> Option<SystemTime> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let found = fs::symlink_metadata(dir).ok()?;
    let (seconds, nanos) =
        (u64::try_from(found.ctime()).ok()?, u32::try_from(found.ctime_nsec()).ok()?);
    let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
    let is_empty = || fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
    // A file system that knows no parts of a second would hide a change.
    let known = known.filter(|_| nanos != 0);
    let untouched =
        found.permissions().mode() & 0o7777 == 0o700 && (known == Some(changed) || is_empty());
    untouched.then_some(changed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use rota_types::{JobId, TaskId};

    fn attempt(job: u64) -> AttemptId {
        AttemptId { task: TaskId { job: JobId(job), index: 0 }, number: 1 }
    }

    #[test]
    fn a_directory_is_used_again_only_as_it_was_made() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let dirs = WorkDirs::open(dir.path().join("work")).expect("writable");
        let first = dirs.take(attempt(1)).expect("writable");
        let second = dirs.take(attempt(2)).expect("writable");
        assert_ne!(first, second);
        assert_eq!(dirs.release(attempt(1)), None);
        assert_eq!(dirs.take(attempt(3)).expect("writable"), first);
        fs::write(first.join("left"), "behind").expect("writable");
        assert_eq!(dirs.release(attempt(3)), Some(first.clone()));
        fs::set_permissions(&second, fs::Permissions::from_mode(0o777)).expect("own");
        assert_eq!(dirs.release(attempt(2)), Some(second.clone()));
        // Also one of which it was known when it had changed last.
        let old = dirs.take(attempt(5)).expect("writable");
        assert_eq!(dirs.release(attempt(5)), None);
        std::thread::sleep(TICK * 2); // so that a change shows in the time
        assert_eq!(dirs.take(attempt(6)).expect("writable"), old);
        assert_eq!(dirs.release(attempt(6)), None, "nothing was done to it");
        assert_eq!(dirs.take(attempt(7)).expect("writable"), old);
        fs::write(old.join("left"), "behind").expect("writable");
        assert_eq!(dirs.release(attempt(7)), Some(old));
        let third = dirs.take(attempt(4)).expect("writable");
        assert!(third != first && third != second);
        assert_eq!(dirs.release(attempt(9)), None);
    }
}
