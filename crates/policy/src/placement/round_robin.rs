//! One node after the other.

use rota_core::command::{Plan, Shape};
use rota_types::NodeId;

use super::{Greedy, PlacementPolicy, place_greedily};
use crate::cluster::Cluster;
use crate::pending::Pending;
use crate::plan::Budget;

/// Goes round the nodes by id, skipping those where the task does not fit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RoundRobin {
    last: NodeId,
}

impl PlacementPolicy for RoundRobin {
    fn name(&self) -> &'static str {
        "round_robin"
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

impl Greedy for RoundRobin {
    fn choose(
        &mut self,
        cluster: &Cluster<'_>,
        shape: &Shape,
        budget: &mut Budget,
    ) -> Option<(NodeId, u64)> {
        let next = cluster.nodes_after(self.last).find(|(id, node)| {
            budget.spend_step();
            cluster.times(*id, node, shape) > 0
        });
        next.map(|(id, _)| {
            self.last = id;
            (id, 1)
        })
    }
}
