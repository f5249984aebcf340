//! Fresh working directories, used again as long as nobody left anything in them: making and removing a directory costs more than
//! everything else that this crate does for a short program.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    free: Vec<PathBuf>,
    used: BTreeMap<AttemptId, PathBuf>,
    made: u64,
}

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
        let dir = match free {
            Some(dir) => dir,
            None => {
                let mut state = self.state();
                state.made += 1;
                let dir = self.root.join(state.made.to_string());
                drop(state);
                private_dir(&dir)?;
                dir
            }
        };
        self.state().used.insert(id, dir.clone());
        Ok(dir)
    }

    /// Nobody needs an attempt's directory any more. Returns it if it is not empty and has to be removed.
    pub(crate) fn release(&self, id: AttemptId) -> Option<PathBuf> {
        let dir = self.state().used.remove(&id)?;
        if is_untouched(&dir) {
            let mut state = self.state();
            if state.free.len() < FREE_MAX {
                state.free.push(dir);
                return None;
            }
        }
        Some(dir)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a directory is as it was made: empty, and nobody changed who may do what with it.
fn is_untouched(dir: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::symlink_metadata(dir).map(|found| found.permissions().mode() & 0o7777);
    let empty = || fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
    mode.is_ok_and(|mode| mode == 0o700) && empty()
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
        let third = dirs.take(attempt(4)).expect("writable");
        assert!(third != first && third != second);
        assert_eq!(dirs.release(attempt(9)), None);
    }
}
