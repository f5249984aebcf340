//! Nodes.

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeState {
    /// Takes tasks.
    Ready,
    /// Finishes what it runs and takes nothing new.
    Draining,
    /// Its lease ran out; it holds nothing.
    Lost,
}
