//! The worker: keeps a session with the server, runs what the server wants, and answers for its output.
//!
//! - [`Worker::run`] drives a [`Machine`](rota_worker_core::Machine) that decides what to launch, stop and report.
//! - `session` connects, and connects again. `output` answers requests for output out of the `spool`.
//! - `executor` runs commands, HTTP requests and no-ops; `process` and `cgroup` make sure that nothing of them is left.
//!
//! *Invariant:* the worker decides what it is willing to run. What its configuration does not allow ends as a failure to start.
//!
//! # What happens to the processes of a worker that is killed
//! Three nets, from fast to sure: a guardian process per worker (a shell that waits for the worker to vanish) kills everything
//! that carries the worker's mark within moments; the next worker with the same data directory kills what is left before it runs
//! anything; cgroups that were made for limits are emptied at the same time. A process gets away only if it left its process
//! group, dropped its environment and lost its parent, and the attempt had no cgroup.

mod cgroup;
mod clock;
mod config;
mod executor;
mod open_files;
mod output;
mod process;
mod servers;
mod session;
mod spool;
mod worker;

pub use config::{Allowed, OutputLimits, WorkerConfig};
pub use executor::guard::{HttpPolicy, Network, ParseNetworkError};
pub use open_files::raise_open_files;
pub use servers::known_servers;
pub use worker::{Shutdown, Worker, WorkerError};
