//! The node that is left with the least.

use rota_core::command::{Plan, Shape};
use rota_types::NodeId;

use super::{Greedy, PlacementPolicy, place_greedily};
use crate::cluster::Cluster;
use crate::pending::Pending;
use crate::plan::Budget;

/// Packs tightly: chooses the node with the smallest rest of what the task needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct BestFit;

impl PlacementPolicy for BestFit {
    fn name(&self) -> &'static str {
        "best_fit"
    }

    fn place(
        &mut self,
        cluster: &mut Cluster<'_>,
        pending: &mut Pending<'_>,
        budget: &mut Budget,
        plan: &mut Plan,
    ) {
        place_greedily(self, cluster, pending, budget, plan);
    }
}

impl Greedy for BestFit {
    fn choose(
        &mut self,
        cluster: &Cluster<'_>,
        shape: &Shape,
        budget: &mut Budget,
    ) -> Option<(NodeId, u64)> {
        cluster
            .nodes()
            .inspect(|_| budget.spend_step())
            .map(|(id, node)| (id, node, cluster.times(id, node, shape)))
            .filter(|(_, _, times)| *times > 0)
            .min_by_key(|(id, node, _)| (cluster.left_over(*id, node, shape), *id))
            .map(|(id, _, times)| (id, times))
    }
}
