//! Queues.

use rota_types::Span;

use crate::command::QueueSpec;
use crate::job::Counts;

/// The queue that always exists.
pub const DEFAULT_QUEUE: &str = "default";

/// Which task of a queue goes next. The orders themselves are in the `policy` crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Discipline {
    /// Whoever became ready first.
    Fifo,
    /// Higher priority first; `aging` of waiting is worth one point of priority, so that nothing starves.
    Priority {
        /// The wait that outweighs one point.
        aging: Span,
    },
}

/// Which node a task goes to. The choices themselves are in the `policy` crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Placement {
    /// The first node that fits, by id.
    FirstFit,
    /// The node that is left with the least.
    BestFit,
    /// The node with the smallest share in use.
    LeastLoaded,
    /// One node after the other.
    RoundRobin,
    /// Any node, drawn from a seeded generator.
    Random {
        /// Makes the draws repeatable.
        seed: u64,
    },
}

/// A queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Its settings.
    pub spec: QueueSpec,
    /// Whether its tasks may start.
    pub paused: bool,
    /// How many of its tasks are queued, waiting and running; the other counts stay zero.
    pub counts: Counts,
}

impl Queue {
    /// How many more of its tasks may start now.
    #[must_use]
    pub fn room(&self) -> u64 {
        let limit = self.spec.running_max.map_or(u64::MAX, u64::from);
        if self.paused { 0 } else { limit.saturating_sub(self.counts.running) }
    }
}

impl QueueSpec {
    /// The settings of a queue that nobody has configured: first in, first out, first node that fits.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            discipline: Discipline::Fifo,
            placement: Placement::FirstFit,
            weight: 1,
            running_max: None,
            tasks_max: None,
        }
    }
}
