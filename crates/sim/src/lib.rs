//! The deterministic simulator of the whole system: one seed decides everything.
//!
//! The servers' machine, the state machine, the controller and the workers' machine are the real ones. So are, in the full simulation, the
//! replicated logs (Raft, Paxos, and that of one server), the bytes of the log, its segments, snapshots and recovery. The network, the disks,
//! the processes, the clocks and the clients are simulated, and do what real ones may do far more often than real ones do it. In the
//! logic simulation a log in the place of consensus does the same: see [`Ground`].
//!
//! An oracle that knows what clients were told and what processes really did judges every entry; then faults end, on a
//! majority of the servers first, and everything has to settle.
//!
//! Absent on purpose: clocks, threads, files, sockets, chance that is not drawn from the seed. Not simulated: REST and gRPC, the history of
//! finished work, identities and TLS.

mod begin;
mod client;
mod cloud;
mod counters;
mod disk;
pub mod exhaustive;
mod finale;
mod kv;
mod model;
mod net;
mod options;
mod oracle;
mod order;
mod peers;
mod prompt;
mod rng;
mod same;
mod server;
mod session;
mod shell;
mod shrink;
mod trouble;
mod truth;
mod worker;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use counters::{Counters, REQUIRED, REQUIRED_FULL};
pub use options::{Fault, Faults, Ground, Options};
pub use rng::Rng;
pub use shrink::shrink;
pub use world::{Failure, Report};

use world::World;

/// The runs of CI: seeds as they come, rough ones, and those that once found a bug. Together they reach every rare situation.
///
/// # Panics
/// If a remembered run can't be read.
pub fn subset() -> impl Iterator<Item = Options> {
    let seeds = (0..80).map(Options::from_seed).chain((0..50).map(Options::rough));
    seeds.chain(found().filter(|options| options.ground == Ground::Logic))
}

/// The same on the real log and store.
///
/// # Panics
/// If a remembered run can't be read.
pub fn subset_full() -> impl Iterator<Item = Options> {
    let seeds = (0..12).map(Options::full).chain((0..24).map(Options::rough_full));
    seeds.chain(found().filter(|options| options.ground != Ground::Logic))
}

fn found() -> impl Iterator<Item = Options> {
    let lines = include_str!("../found.txt").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.parse().expect("remembered runs can be read"))
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
