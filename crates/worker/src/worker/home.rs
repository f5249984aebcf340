//! A worker's directory: one worker at a time; of the one before only the output of its attempts stays.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use rustix::process::set_child_subreaper;
use tokio::runtime::Handle;
use tracing::warn;

use super::WorkerError;
use crate::cgroup::Cgroups;
use crate::clock;
use crate::config::WorkerConfig;
use crate::executor::Host;
use crate::executor::http::Http;
use crate::executor::workdir::WorkDirs;
use crate::process::{self, Guardian};
use crate::spool::{Spool, private_dir};

/// What lasts as long as the worker.
pub(super) struct Home {
    pub(super) host: Arc<Host>,
    _guardian: Option<Guardian>,
    /// Held, not read: the system lets go of it when the process is gone, however it went.
    _lock: File,
}

impl Home {
    /// Takes the data directory over and ends what an earlier worker left running. Blocking.
    pub(super) fn open(
        config: WorkerConfig,
        incarnation: u64,
        runtime: Handle,
    ) -> Result<Self, WorkerError> {
        let shown = config.data_dir.display().to_string();
        let unusable = |source| WorkerError::Data { dir: shown.clone(), source };
        private_dir(&config.data_dir).map_err(unusable)?;
        // Programs run elsewhere, so paths that they get must not depend on where this process is.
        let dir = config.data_dir.canonicalize().map_err(unusable)?;
        let mut options = File::options();
        let lock = options.create(true).append(true).mode(0o600).open(dir.join("worker.lock"));
        let lock = lock.map_err(unusable)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(WorkerError::InUse { dir: shown });
        }
        let identity = identity(&dir).map_err(unusable)?;
        let killed = process::kill_marked(&format!("{identity}."));
        if killed > 0 {
            warn!(killed, "killed processes that an earlier worker left behind");
        }
        Cgroups::clean_up(&identity);
        let work_dirs = WorkDirs::open(dir.join("work")).map_err(unusable)?;
        let spool = Spool::open(&dir.join("output"), config.output).map_err(unusable)?;
        let http = Http::new(config.http.clone());
        let http = http.map_err(|error| WorkerError::Tls(error.to_string()))?;
        if let Err(error) = set_child_subreaper(Some(rustix::process::getpid())) {
            warn!(%error, "orphans of tasks can only be found by their environment");
        }
        let mark = format!("{identity}.{incarnation:016x}");
        let guardian = config
            .guardian
            .then(|| Guardian::start(&mark))
            .and_then(|started| started.inspect_err(|error| warn!(%error, "no guardian")).ok());
        let host = Host::new(config, (identity, mark), work_dirs, (spool, http), runtime);
        Ok(Self { host: Arc::new(host), _guardian: guardian, _lock: lock })
    }
}

/// What marks the processes of every worker that ever used this directory.
fn identity(dir: &Path) -> io::Result<String> {
    let file = dir.join("worker-id");
    if let Some(known) = known(&file) {
        return Ok(known);
    }
    // Where earlier versions kept it. If a server has the same directory, that is the name of a file of its own.
    let former = dir.join("identity");
    if let Some(known) = known(&former) {
        fs::rename(former, file)?;
        return Ok(known);
    }
    let new = format!("{:016x}", clock::random());
    // Put in place whole: with half an identity what an earlier worker left would not be found any more.
    let beside = dir.join("worker-id.new");
    let mut options = File::options();
    let mut draft = options.create(true).write(true).truncate(true).mode(0o600).open(&beside)?;
    draft.write_all(new.as_bytes())?;
    draft.sync_all()?;
    fs::rename(beside, file)?;
    Ok(new)
}

/// The identity in a file, if it holds one.
fn known(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let text = text.trim();
    let whole = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    whole.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_kept_and_a_torn_one_is_drawn_anew() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join("worker-id.new"), "left by a crash").expect("writable");
        let first = identity(dir.path()).expect("writable");
        assert_eq!(identity(dir.path()).expect("writable"), first);
        assert!(!dir.path().join("worker-id.new").exists());
        fs::write(dir.path().join("worker-id"), &first[..7]).expect("writable");
        let second = identity(dir.path()).expect("writable");
        assert_eq!((second.len(), second == first), (16, false));
    }

    #[test]
    fn an_identity_of_an_earlier_version_is_taken_over_and_a_servers_file_is_let_alone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let former = dir.path().join("identity");
        let known = "0123456789abcdef";
        fs::write(&former, known).expect("writable");
        assert_eq!(identity(dir.path()).expect("writable"), known);
        assert!(!former.exists());
        fs::remove_file(dir.path().join("worker-id")).expect("there");
        fs::write(&former, "of a server").expect("writable");
        let other = identity(dir.path()).expect("writable");
        assert_eq!((other.len(), other == known), (16, false));
        assert_eq!(fs::read(&former).expect("there"), b"of a server");
    }
}
