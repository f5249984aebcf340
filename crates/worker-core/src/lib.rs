//! What a worker must launch, stop and report, as a pure machine.
//!
//! The worker's shell tells the [`Machine`] what happened (a session opened, the server said what it wants, a process ended, time
//! passed) and does what it answers. The machine deals in attempt ids only: assignments, processes and reports stay in the shell.
//! It has no clock, no timer and no randomness.
//!
//! *Level-triggered:* what the server wants is a set. A lost, late or repeated message changes nothing that the next full set does
//! not correct.
//!
//! # Which attempt is meant
//! Attempt numbers are small, and every cluster counts from one. A worker may outlive its server's data: the next server on that
//! address has an empty log, or one that was restored from an older copy, and gives the same numbers out again. Therefore an attempt
//! is its number *and* the moment at which it was placed. Nothing is reported to a server before its full set has said which
//! attempts it means; what differs is ended first, and the session begins anew. An attempt that the server holds as live, although
//! it was settled here, is reported as lost.
//!
//! # Self-fencing
//! A node may keep its attempts only while its lease lasts. The machine counts the lease from the moment at which the last
//! acknowledged heartbeat was *sent*, which is never later than the moment from which the server counts, and stops every attempt a
//! [margin](FENCE_MARGIN_DIVISOR) before it could run out. So an attempt that the server gives to another node is no longer running
//! here.
//!
//! # The only server is down
//! When the cluster has a single server (`sole_server`) and a connection to it is *actively refused*, no server process exists at
//! that moment, so nobody can expire the lease; and a server that starts later grants every node a full lease from its start.
//! Therefore a refusal at `at` renews the lease as a heartbeat sent at `at` would, and attempts survive an outage of any length. A
//! connection that times out proves nothing and renews nothing. This holds under two conditions that the shell and the server
//! keep: the refusal comes from the server's own host (not from a proxy in between), and a server listens before it grants leases
//! and stops expiring them before it stops listening.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod forgotten;
mod machine;
mod messages;
#[cfg(test)]
mod tests;

pub use machine::{FENCE_MARGIN_DIVISOR, FORGOTTEN_MAX, Machine};
pub use messages::{Desired, Input, Output, Session, Start, StopReason};
