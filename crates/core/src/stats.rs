//! Sums over the live state. Cheap: they add up counters, never tasks.

use rota_types::Resources;

use crate::job::Counts;
use crate::node::NodeState;
use crate::state::State;

/// What the cluster has and what is asked of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// What ready nodes offer.
    pub supply: Resources,
    /// What live attempts hold.
    pub held: Resources,
    /// What queued tasks and live attempts need together.
    pub demand: Resources,
    /// Live tasks of all queues.
    pub tasks: Counts,
    /// Ready nodes.
    pub nodes_ready: u64,
    /// Draining nodes.
    pub nodes_draining: u64,
    /// Lost nodes.
    pub nodes_lost: u64,
}

impl State {
    /// Adds up supply, demand and live tasks.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for (_, node) in self.nodes() {
            match node.state() {
                NodeState::Ready => {
                    totals.nodes_ready = totals.nodes_ready.saturating_add(1);
                    totals.supply.add(&node.spec.capacity, 1);
                }
                NodeState::Draining => {
                    totals.nodes_draining = totals.nodes_draining.saturating_add(1);
                }
                NodeState::Lost => totals.nodes_lost = totals.nodes_lost.saturating_add(1),
            }
            totals.held.add(&node.held, 1);
        }
        for (shape, queued, running) in self.shapes() {
            totals.demand.add(&shape.need, queued.saturating_add(running));
        }
        for (_, queue) in self.queues() {
            totals.tasks = totals.tasks.plus(&queue.counts);
        }
        totals
    }
}
