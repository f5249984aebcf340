//! Processes, requests and the ledger.

mod api;
mod chance;
mod cluster;
mod ledger;
mod process;
mod record;
pub(crate) mod verdict;
mod workload;

pub(crate) use api::{Answer, Api};
pub(crate) use chance::{Chance, knob, one_at_a_time};
pub(crate) use cluster::{Arena, Server, Worker, free_port};
pub(crate) use ledger::{Ledger, Mark, Moment};
pub(crate) use process::{Process, Signal};
pub(crate) use record::{Record, attempts};
pub(crate) use workload::{Done, Kind, Planned, Workload, job_body};

use std::time::{Duration, Instant};

/// Asks until there is an answer, or fails the test with what was waited for.
pub(crate) fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < limit, "waited {limit:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A generous limit for things that take a moment on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
