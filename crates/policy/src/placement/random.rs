//! Any node that fits.

use rota_core::command::{Plan, Shape};
use rota_types::NodeId;

use super::{Greedy, PlacementPolicy, place_greedily};
use crate::cluster::Cluster;
use crate::pending::Pending;
use crate::plan::Budget;

/// Draws among the nodes that fit, each as likely as any other. The draws follow from the seed (`SplitMix64`; Steele, Lea and
/// Flood, OOPSLA 2014).
#[derive(Clone, Copy, Debug)]
pub(super) struct Random {
    state: u64,
}

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

impl PlacementPolicy for Random {
    fn name(&self) -> &'static str {
        "random"
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

impl Greedy for Random {
    /// One pass over the nodes: the k-th that fits replaces the choice with probability 1/k (reservoir sampling; Vitter, ACM TOMS
    /// 1985).
    fn choose(
        &mut self,
        cluster: &Cluster<'_>,
        shape: &Shape,
        budget: &mut Budget,
    ) -> Option<(NodeId, u64)> {
        let mut fitting: u64 = 0;
        let mut chosen = None;
        for (id, node) in cluster.nodes() {
            budget.spend_step();
            if cluster.times(id, node, shape) > 0 {
                fitting = fitting.saturating_add(1);
                if self.draw().is_multiple_of(fitting) {
                    chosen = Some((id, 1));
                }
            }
        }
        chosen
    }
}
