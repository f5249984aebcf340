//! The replicated state machine: what is true.
//!
//! [`State::apply`] takes one [`command::Entry`] of the log and answers with outcomes for those who asked and events for
//! everybody. It is a function of its arguments: the crate is `no_std`, knows no clock, file, socket, thread or chance, and every
//! server that applies the same entries holds the same state. `apply` is total: it refuses what does not hold and never panics
//! on an entry that could be decoded.
//!
//! Absent on purpose: planning (the `policy` crate decides which task goes where; `apply` checks it again), leases (leader
//! memory, in `control`), bytes (`wire`), finished tasks (they leave with an event, for the history store).
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod command;
pub mod event;

mod apply;
pub mod check;
pub mod explain;
pub mod image;
pub mod job;
pub mod kv;
pub mod node;
mod pool;
pub mod queue;
pub mod server;
mod shape;
mod state;
pub mod stats;
pub mod task;
pub mod token;

pub use apply::Applied;
pub use server::{LEVEL, STAGING_LEVEL};
pub use shape::ShapeId;
pub use state::State;
