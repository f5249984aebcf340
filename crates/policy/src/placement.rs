//! Which node a task goes to.

use alloc::boxed::Box;
use core::fmt;

use rota_core::command::{Placement as Placed, Plan, Shape};
use rota_core::queue::Placement;
use rota_types::NodeId;

use crate::cluster::Cluster;
use crate::pending::Pending;
use crate::plan::Budget;

mod best_fit;
mod first_fit;
mod least_loaded;
mod random;
mod round_robin;

use best_fit::BestFit;
use first_fit::FirstFit;
use least_loaded::LeastLoaded;
use random::Random;
use round_robin::RoundRobin;

/// Chooses nodes for the tasks of one queue, best first, within a budget counted in steps. May be wrong about taste, never about
/// safety. It sees the whole pass, because flow and packing can't be said as a score per node.
pub trait PlacementPolicy: fmt::Debug + Send + Sync {
    /// The policy's name in settings.
    fn name(&self) -> &'static str;

    /// Places as many of `pending` as it likes. Stops when the budget is used up; a pass may come back for more.
    fn place(
        &mut self,
        cluster: &mut Cluster<'_>,
        pending: &mut Pending<'_>,
        budget: &mut Budget,
        plan: &mut Plan,
    );
}

/// The policy that a queue's settings ask for.
#[must_use]
pub fn placement(settings: Placement) -> Box<dyn PlacementPolicy> {
    match settings {
        Placement::FirstFit => Box::new(FirstFit),
        Placement::BestFit => Box::new(BestFit),
        Placement::LeastLoaded => Box::new(LeastLoaded),
        Placement::RoundRobin => Box::new(RoundRobin::default()),
        Placement::Random { seed } => Box::new(Random::new(seed)),
    }
}

/// A policy that decides one run of equal tasks after the other.
trait Greedy {
    /// The node for the next task of `shape`, and how many tasks may go there before it is asked again; `None` if it fits
    /// nowhere.
    fn choose(
        &mut self,
        cluster: &Cluster<'_>,
        shape: &Shape,
        budget: &mut Budget,
    ) -> Option<(NodeId, u64)>;
}

/// Goes through `pending` in order; what fits nowhere is passed over, and what follows may go ahead.
fn place_greedily(
    policy: &mut impl Greedy,
    cluster: &mut Cluster<'_>,
    pending: &mut Pending<'_>,
    budget: &mut Budget,
    plan: &mut Plan,
) {
    while let Some(candidate) = pending.next() {
        if budget.is_used_up() {
            return;
        }
        let shape = cluster.shape(candidate.shape);
        let chosen =
            if cluster.may_fit(shape) { policy.choose(cluster, shape, budget) } else { None };
        let Some((node, times)) = chosen else {
            pending.refuse();
            continue;
        };
        let times = u32::try_from(times).unwrap_or(u32::MAX);
        let count = candidate.count.min(times).min(budget.tasks_left());
        cluster.take(node, shape, count);
        pending.take(count);
        budget.spend_tasks(count);
        plan.placements.push(Placed { task: candidate.task, count, node });
    }
}
