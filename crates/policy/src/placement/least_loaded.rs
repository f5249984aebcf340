//! The node with the smallest share in use.

use rota_core::command::{Plan, Shape};
use rota_types::NodeId;

use super::{Greedy, PlacementPolicy, place_greedily};
use crate::cluster::Cluster;
use crate::pending::Pending;
use crate::plan::Budget;

/// Spreads: chooses the node whose scarcest resource is least used, then the one with the fewest attempts.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeastLoaded;

impl PlacementPolicy for LeastLoaded {
    fn name(&self) -> &'static str {
        "least_loaded"
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

impl Greedy for LeastLoaded {
    fn choose(
        &mut self,
        cluster: &Cluster<'_>,
        shape: &Shape,
        budget: &mut Budget,
    ) -> Option<(NodeId, u64)> {
        cluster
            .nodes()
            .inspect(|_| budget.spend_step())
            .filter(|(id, node)| cluster.times(*id, node, shape) > 0)
            .min_by_key(|(id, node)| (cluster.load(*id, node), cluster.attempts(*id, node), *id))
            .map(|(id, _)| (id, 1))
    }
}
