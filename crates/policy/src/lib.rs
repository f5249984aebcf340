//! Which task next, and where: queue disciplines, placement policies and the planning pass.
//!
//! Everything here reads the state and proposes; nothing here changes it. A policy may be wrong about taste, never about safety:
//! `apply` checks every placement again. Ties go to the smaller id, and chance is a seed in the queue's settings, so that a
//! simulation decides what the cluster decided.
//!
//! A new discipline is a file with a [`QueueDiscipline`] and an arm in [`discipline()`]; a new placement policy is a file with a
//! [`PlacementPolicy`] and an arm in [`placement()`].
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod cluster;
mod discipline;
mod pending;
mod placement;
mod plan;
mod ranked;
mod stage;

pub use cluster::Cluster;
pub use discipline::{QueueDiscipline, Rank, RankInput, discipline};
pub use pending::{Candidate, Pending};
pub use placement::{PlacementPolicy, placement};
pub use plan::{Budget, Planner};
pub use ranked::{Ahead, Ranked};
pub use stage::stage;
