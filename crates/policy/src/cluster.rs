//! The nodes during one planning pass: the state's, with what is about to be freed, less what the pass has placed already.

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;

use rota_core::command::Shape;
use rota_core::node::Node;
use rota_core::task::Task;
use rota_core::{ShapeId, State};
use rota_types::{NodeId, Resource, Resources, TaskId};

/// What is left of each node while a plan grows.
#[derive(Debug)]
pub struct Cluster<'a> {
    state: &'a State,
    /// The most cpu and the most memory that is free on any node that has room for an attempt.
    most_free: Resources,
    changes: BTreeMap<NodeId, Change>,
}

/// How one node differs from the state's.
#[derive(Clone, Debug, Default)]
struct Change {
    /// What the pass has placed.
    taken: Resources,
    taken_attempts: u64,
    /// What attempts hold that are about to end.
    freed: Resources,
    freed_attempts: u64,
}

/// One million, for shares that are compared as integers.
const WHOLE: u128 = 1_000_000;

impl<'a> Cluster<'a> {
    /// The cluster as the state has it, except that the live attempts of the tasks `ending`, which are sorted, hold nothing any
    /// more.
    #[must_use]
    pub fn new(state: &'a State, ending: &[TaskId]) -> Self {
        let mut changes: BTreeMap<NodeId, Change> = BTreeMap::new();
        for id in ending {
            let attempt = state.task(*id).and_then(Task::running);
            let attempt =
                attempt.filter(|attempt| !is_taken_over(state, attempt.node, *id, ending));
            if let (Some(attempt), Some(group)) = (attempt, state.group(*id)) {
                let change = changes.entry(attempt.node).or_default();
                change.freed.add(&state.shape(group.shape).need, 1);
                change.freed_attempts = change.freed_attempts.saturating_add(1);
            }
        }
        let mut cluster = Self { state, most_free: Resources::default(), changes };
        for (id, node) in state.nodes().filter(|(_, node)| !node.lost) {
            if cluster.slots(id, node) > 0 {
                let free = cluster.free(id, node);
                let most = &mut cluster.most_free;
                most.cpu_millis = most.cpu_millis.max(free.cpu_millis);
                most.memory_bytes = most.memory_bytes.max(free.memory_bytes);
            }
        }
        cluster
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
        if !node.admits(shape) {
            return 0;
        }
        self.free(id, node).times(&shape.need).min(self.slots(id, node))
    }

    /// How many attempts the node runs, planned ones included.
    #[must_use]
    pub fn attempts(&self, id: NodeId, node: &Node) -> u64 {
        u64::from(node.spec.attempts_max).saturating_sub(self.slots(id, node))
    }

    /// The largest share of any of the node's resources that is in use, in millionths.
    #[must_use]
    pub fn load(&self, id: NodeId, node: &Node) -> u64 {
        let free = self.free(id, node);
        let shares = node.spec.capacity.kinds().map(|resource| {
            let capacity = node.spec.capacity.amount(&resource);
            share(capacity.saturating_sub(free.amount(&resource)), capacity)
        });
        shares.max().unwrap_or(0)
    }

    /// What would be left of the resources that `shape` needs, summed as millionths of the node's capacity.
    #[must_use]
    pub fn left_over(&self, id: NodeId, node: &Node, shape: &Shape) -> u64 {
        let free = self.free(id, node);
        let left = |resource: Resource| {
            let rest = free.amount(&resource).saturating_sub(shape.need.amount(&resource));
            share(rest, node.spec.capacity.amount(&resource))
        };
        shape.need.kinds().map(left).fold(0, u64::saturating_add)
    }

    /// Notes that the pass places `count` tasks of `shape` on the node.
    pub fn take(&mut self, id: NodeId, shape: &Shape, count: u32) {
        let change = self.changes.entry(id).or_default();
        change.taken.add(&shape.need, u64::from(count));
        change.taken_attempts = change.taken_attempts.saturating_add(u64::from(count));
    }

    /// What is free on the node.
    fn free<'n>(&self, id: NodeId, node: &'n Node) -> Cow<'n, Resources> {
        match self.changes.get(&id) {
            None => Cow::Borrowed(&node.free),
            Some(change) => {
                let mut free = node.free.clone();
                free.add(&change.freed, 1);
                free.sub(&change.taken, 1);
                Cow::Owned(free)
            }
        }
    }

    /// How many more attempts of any need the node may run.
    fn slots(&self, id: NodeId, node: &Node) -> u64 {
        self.changes.get(&id).map_or(node.slots(), |change| {
            let slots = node.slots().saturating_add(change.freed_attempts);
            slots.saturating_sub(change.taken_attempts)
        })
    }
}

/// Whether something that stays is staged behind a task that ends: it takes over what that holds.
fn is_taken_over(state: &State, node: NodeId, task: TaskId, ending: &[TaskId]) -> bool {
    let staged = state.node(node).map(|node| &node.staged);
    let mut next = staged.and_then(|staged| staged.get(&task));
    while let Some(task) = next.filter(|task| ending.binary_search(task).is_ok()) {
        next = staged.and_then(|staged| staged.get(task));
    }
    next.is_some()
}

/// `part` of `whole`, in millionths.
fn share(part: u64, whole: u64) -> u64 {
    let share = u128::from(part).saturating_mul(WHOLE).checked_div(u128::from(whole)).unwrap_or(0);
    u64::try_from(share).unwrap_or(u64::MAX)
}
