//! The deterministic simulator of the whole system: one seed decides everything.
//!
//! The state machine, the controller and the workers' machine are the real ones. The log, the network, the processes, the clocks and
//! the clients are simulated, and do what real ones may do far more often than real ones do it. An oracle that knows what
//! clients were told and what processes really did judges every entry; then all faults end, and everything has to settle.
//!
//! Absent on purpose: clocks, threads, files, sockets, chance that is not drawn from the seed. Not simulated: the bytes of the log
//! and of the network, more than one server.

mod client;
mod counters;
pub mod exhaustive;
mod log;
mod model;
mod net;
mod options;
mod oracle;
mod order;
mod prompt;
mod rng;
mod same;
mod server;
mod session;
mod shrink;
mod trouble;
mod truth;
mod worker;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use counters::{Counters, REQUIRED};
pub use options::{Fault, Faults, Options};
pub use rng::Rng;
pub use shrink::shrink;
pub use world::{Failure, Report};

use world::World;

/// The runs of CI: seeds as they come, rough ones, and those that once found a bug. Together they reach every rare situation.
///
/// # Panics
/// If a remembered run can't be read.
pub fn subset() -> impl Iterator<Item = Options> {
    let found = include_str!("../found.txt").lines().filter(|line| !line.starts_with('#'));
    let found = found.map(|line| line.parse().expect("remembered runs can be read"));
    (0..80).map(Options::from_seed).chain((0..50).map(Options::rough)).chain(found)
}

/// Runs one world to its end.
///
/// # Errors
/// What went wrong, and when. A panic of a machine under test is one of those things.
pub fn run(options: &Options) -> Result<Report, Box<Failure>> {
    run_with(options, false)
}

/// As [`run`], and keeps a line for everything that happened.
///
/// # Errors
/// As [`run`].
pub fn run_traced(options: &Options) -> Result<Report, Box<Failure>> {
    run_with(options, true)
}

fn run_with(options: &Options, trace: bool) -> Result<Report, Box<Failure>> {
    let world = AssertUnwindSafe(|| World::new(options.clone(), trace).run());
    match catch_unwind(world) {
        Ok(result) => result.map_err(Box::new),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(ToString::to_string);
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            let what = format!("panic: {}", text.unwrap_or_default());
            Err(Box::new(Failure { options: options.clone(), at: 0, what, trace: Vec::new() }))
        }
    }
}
