//! How many files this process may have open at a time.

use std::sync::OnceLock;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use tracing::warn;

/// The limit as it was.
static BEFORE: OnceLock<Rlimit> = OnceLock::new();

/// Raises this process's limit on open files as far as the system lets it: each attempt that runs has several, and the usual soft
/// limit of 1,024 is meant for programs that use `select`. To be called once, when a process that serves a node or a cluster starts.
/// What workers start has the earlier limit again.
pub fn raise_open_files() {
    let before = getrlimit(Resource::Nofile);
    if before.current == before.maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: before.maximum, ..before }) {
        Ok(()) => drop(BEFORE.set(before)),
        Err(error) => warn!(%error, "the limit on open files stays as it is"),
    }
}

/// Gives a child the limit that this process had. From outside, because nothing can be done in the child before its program runs: for
/// its first few microseconds that has this process's limit.
pub(crate) fn give_back(child: u32) {
    if let (Some(before), Some(child)) = (BEFORE.get(), Pid::from_raw(child.cast_signed())) {
        // A program that runs as somebody else keeps the higher one.
        let _ = prlimit(Some(child), Resource::Nofile, *before);
    }
}
