//! Nodes, and whether a task fits on one. Feasibility is decided here and nowhere else.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use rota_types::{ActionKind, Resources, Shortage, TaskId, Timestamp, Unmet};

use crate::command::{NodeSpec, Shape};

/// A node that has registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What its worker said.
    pub spec: NodeSpec,
    /// Whether an operator wants it empty.
    pub draining: bool,
    /// Whether its worker is about to go. Ends when another process takes its place.
    pub leaving: bool,
    /// Whether its lease ran out.
    pub lost: bool,
    /// When its worker registered last.
    pub registered_at: Timestamp,
    /// What its live attempts hold.
    pub held: Resources,
    /// Capacity less what is held; zero where more is held than there is.
    pub free: Resources,
    /// The tasks whose live attempt it runs.
    pub live: BTreeSet<TaskId>,
    /// The tasks that take over what another one holds as soon as that has ended, by the other one.
    pub staged: BTreeMap<TaskId, TaskId>,
}

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

/// A reason why a task can't start on a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// The node is lost.
    Lost,
    /// The node drains.
    Draining,
    /// Its worker does not run such actions.
    Refused(ActionKind),
    /// A constraint is not met.
    Constraint(Unmet),
    /// Even an empty node of this capacity would be too small.
    TooSmall(Shortage),
    /// Too little is free now.
    Short(Shortage),
    /// The node runs as many attempts as it may.
    Full {
        /// Its `attempts_max`.
        limit: u32,
    },
}

impl Node {
    /// A node whose worker has just said what it offers.
    #[must_use]
    pub fn new(spec: NodeSpec, registered_at: Timestamp) -> Self {
        Self {
            free: spec.capacity.clone(),
            spec,
            draining: false,
            leaving: false,
            lost: false,
            registered_at,
            held: Resources::default(),
            live: BTreeSet::new(),
            staged: BTreeMap::new(),
        }
    }

    /// Where the node is in its life.
    #[must_use]
    pub fn state(&self) -> NodeState {
        match (self.lost, self.draining || self.leaving) {
            (true, _) => NodeState::Lost,
            (false, true) => NodeState::Draining,
            (false, false) => NodeState::Ready,
        }
    }

    /// How many more attempts of any need the node may run.
    #[must_use]
    pub fn slots(&self) -> u64 {
        u64::from(self.spec.attempts_max).saturating_sub(self.live.len() as u64)
    }

    /// Whether the node may ever run tasks of `shape`: it takes tasks, also of this kind, and its labels meet the constraints.
    #[must_use]
    pub fn admits(&self, shape: &Shape) -> bool {
        self.state() == NodeState::Ready
            && shape.kind.is_none_or(|kind| self.spec.runs.contains(kind))
            && shape.constraints.iter().all(|constraint| constraint.admits(&self.spec.labels))
    }

    /// A running task and those that are staged behind it, in order.
    pub fn line<'a>(&'a self, first: &'a TaskId) -> impl Iterator<Item = &'a TaskId> {
        core::iter::successors(Some(first), |task| self.staged.get(task))
    }

    /// Whether it holds more than it has, or runs more than it may: what it has became less while it ran them.
    pub(crate) fn is_overfull(&self) -> bool {
        let attempts = self.live.len() as u64 > u64::from(self.spec.attempts_max);
        attempts || !self.spec.capacity.shortages(&self.held).is_empty()
    }

    /// How many tasks of `shape` could start on the node now.
    #[must_use]
    pub fn times(&self, shape: &Shape) -> u64 {
        if self.admits(shape) { self.free.times(&shape.need).min(self.slots()) } else { 0 }
    }

    /// Everything that keeps a task of `shape` from starting on the node now.
    #[must_use]
    pub fn unfit(&self, shape: &Shape) -> Vec<Unfit> {
        let mut reasons = Vec::new();
        match self.state() {
            NodeState::Lost => return [Unfit::Lost].into(),
            NodeState::Draining => reasons.push(Unfit::Draining),
            NodeState::Ready => {}
        }
        reasons
            .extend(shape.kind.filter(|kind| !self.spec.runs.contains(*kind)).map(Unfit::Refused));
        for constraint in &shape.constraints {
            if !constraint.admits(&self.spec.labels) {
                let found = self.spec.labels.get(&constraint.key).cloned();
                reasons.push(Unfit::Constraint(Unmet { constraint: constraint.clone(), found }));
            }
        }
        for shortage in self.free.shortages(&shape.need) {
            let capacity = self.spec.capacity.amount(&shortage.resource);
            reasons.push(if capacity < shortage.need {
                Unfit::TooSmall(Shortage { have: capacity, ..shortage })
            } else {
                Unfit::Short(shortage)
            });
        }
        if self.slots() == 0 {
            reasons.push(Unfit::Full { limit: self.spec.attempts_max });
        }
        reasons
    }

    /// Lets `count` attempts hold `need` each.
    pub(crate) fn hold(&mut self, need: &Resources, count: u64) {
        self.held.add(need, count);
        self.refresh();
    }

    /// Takes back what one attempt held.
    pub(crate) fn give_back(&mut self, need: &Resources) {
        self.held.sub(need, 1);
        self.refresh();
    }

    /// Computes `free` anew, after a change of capacity or of what is held.
    pub(crate) fn refresh(&mut self) {
        self.free = self.spec.capacity.clone();
        self.free.sub(&self.held, 1);
    }
}
