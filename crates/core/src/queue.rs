//! Queues.

use rota_types::Span;

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
