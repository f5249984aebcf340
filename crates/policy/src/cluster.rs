//! The nodes during one planning pass: the state's, less what the pass has placed already.

use alloc::collections::BTreeMap;

use rota_core::command::Shape;
use rota_core::node::Node;
use rota_core::{ShapeId, State};
use rota_types::{NodeId, Resource, Resources};

/// What is left of each node while a plan grows.
#[derive(Debug)]
pub struct Cluster<'a> {
    state: &'a State,
    /// The most cpu and the most memory that is free on any node that has room for an attempt.
    most_free: Resources,
    taken: BTreeMap<NodeId, Taken>,
}

/// What a pass has placed on one node.
#[derive(Clone, Debug, Default)]
struct Taken {
    need: Resources,
    attempts: u64,
}

/// One million, for shares that are compared as integers.
const WHOLE: u128 = 1_000_000;

impl<'a> Cluster<'a> {
    /// The cluster as the state has it.
    #[must_use]
    pub fn new(state: &'a State) -> Self {
        let mut most_free = Resources::default();
        for (_, node) in state.nodes().filter(|(_, node)| !node.lost && node.slots() > 0) {
            most_free.cpu_millis = most_free.cpu_millis.max(node.free.cpu_millis);
            most_free.memory_bytes = most_free.memory_bytes.max(node.free.memory_bytes);
        }
        Self { state, most_free, taken: BTreeMap::new() }
    }

    /// Whether it is worth looking for a node: a full cluster refuses most shapes at one look.
    #[must_use]
    pub fn may_fit(&self, shape: &Shape) -> bool {
        self.most_free.cpu_millis >= shape.need.cpu_millis
            && self.most_free.memory_bytes >= shape.need.memory_bytes
    }

    /// Every node, by id.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &'a Node)> + use<'a> {
        self.state.nodes()
    }

    /// Nodes with an id above `after`, by id, then the others.
    pub fn nodes_after(&self, after: NodeId) -> impl Iterator<Item = (NodeId, &'a Node)> + use<'a> {
        let upto = self.state.nodes().take_while(move |(id, _)| *id <= after);
        self.state.nodes_after(after).chain(upto)
    }

    /// What tasks of this shape demand.
    #[must_use]
    pub fn shape(&self, id: ShapeId) -> &'a Shape {
        self.state.shape(id)
    }

    /// How many more tasks of `shape` fit on the node.
    #[must_use]
    pub fn times(&self, id: NodeId, node: &Node, shape: &Shape) -> u64 {
        let Some(taken) = self.taken.get(&id) else {
            return node.times(shape);
        };
        if !node.admits(shape) {
            return 0;
        }
        let mut free = node.free.clone();
        free.sub(&taken.need, 1);
        free.times(&shape.need).min(node.slots().saturating_sub(taken.attempts))
    }

    /// How many attempts the node runs, planned ones included.
    #[must_use]
    pub fn attempts(&self, id: NodeId, node: &Node) -> u64 {
        let taken = self.taken.get(&id).map_or(0, |taken| taken.attempts);
        (node.live.len() as u64).saturating_add(taken)
    }

    /// The largest share of any of the node's resources that is in use, in millionths.
    #[must_use]
    pub fn load(&self, id: NodeId, node: &Node) -> u64 {
        let taken = self.taken.get(&id);
        let shares = node.spec.capacity.kinds().map(|resource| {
            let more = taken.map_or(0, |taken| taken.need.amount(&resource));
            share(
                node.held.amount(&resource).saturating_add(more),
                node.spec.capacity.amount(&resource),
            )
        });
        shares.max().unwrap_or(0)
    }

    /// What would be left of the resources that `shape` needs, summed as millionths of the node's capacity.
    #[must_use]
    pub fn left_over(&self, id: NodeId, node: &Node, shape: &Shape) -> u64 {
        let taken = self.taken.get(&id);
        let left = |resource: Resource| {
            let more = taken.map_or(0, |taken| taken.need.amount(&resource));
            let used = more.saturating_add(shape.need.amount(&resource));
            share(
                node.free.amount(&resource).saturating_sub(used),
                node.spec.capacity.amount(&resource),
            )
        };
        shape.need.kinds().map(left).fold(0, u64::saturating_add)
    }

    /// Notes that the pass places `count` tasks of `shape` on the node.
    pub fn take(&mut self, id: NodeId, shape: &Shape, count: u32) {
        let taken = self.taken.entry(id).or_default();
        taken.need.add(&shape.need, u64::from(count));
        taken.attempts = taken.attempts.saturating_add(u64::from(count));
    }
}

/// `part` of `whole`, in millionths.
fn share(part: u64, whole: u64) -> u64 {
    let share = u128::from(part).saturating_mul(WHOLE).checked_div(u128::from(whole)).unwrap_or(0);
    u64::try_from(share).unwrap_or(u64::MAX)
}
