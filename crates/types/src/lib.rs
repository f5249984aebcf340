//! Ids, instants, amounts and limits that every part of rota shares.
//!
//! Values only: nothing here reads a clock, draws a random number, allocates without need or does I/O. The crate has no
//! dependencies, so that the pure crates above it can't reach any either.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod constraint;
mod id;
mod job_map;
mod kind;
pub mod limits;
mod range_set;
mod resources;
mod time;

pub use constraint::{Constraint, Labels, Predicate, Unmet};
pub use id::{
    AttemptId, JobId, LogIndex, NodeId, ParseIdError, QueueId, Revision, ServerId, SessionId,
    TaskId,
};
pub use job_map::JobMap;
pub use kind::{ActionKind, ActionKinds};
pub use range_set::RangeSet;
pub use resources::{Resource, Resources, Shortage};
pub use time::{Monotonic, Span, Steady, Timestamp};
