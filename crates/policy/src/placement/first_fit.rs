//! The first node that fits.

use rota_core::command::{Plan, Shape};
use rota_types::NodeId;

use super::{Greedy, PlacementPolicy, place_greedily};
use crate::cluster::Cluster;
use crate::pending::Pending;
use crate::plan::Budget;

/// Fills nodes in the order of their ids.
#[derive(Clone, Copy, Debug)]
pub(super) struct FirstFit;

impl PlacementPolicy for FirstFit {
    fn name(&self) -> &'static str {
        "first_fit"
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

impl Greedy for FirstFit {
    fn choose(
        &mut self,
        cluster: &Cluster<'_>,
        shape: &Shape,
        budget: &mut Budget,
    ) -> Option<(NodeId, u64)> {
        cluster.nodes().find_map(|(id, node)| {
            budget.spend_step();
            let times = cluster.times(id, node, shape);
            (times > 0).then_some((id, times))
        })
    }
}
