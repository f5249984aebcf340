//! Leases: how long each node may stay silent. Leader memory only; a new leader has heard nobody and gives everyone a full lease.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use rota_core::State;
use rota_types::{Monotonic, NodeId, Span};

/// The leases of all nodes that are not lost.
#[derive(Debug)]
pub(crate) struct Leases {
    length: Span,
    ends: BTreeMap<NodeId, Lease>,
    /// No lease ends before this: renewals leave it behind, and a look at every lease catches it up.
    floor: Monotonic,
}

/// One node's lease.
#[derive(Clone, Copy, Debug)]
struct Lease {
    ends_at: Monotonic,
    /// Whether its loss is proposed already.
    losing: bool,
}

impl Leases {
    pub(crate) fn new(length: Span) -> Self {
        Self { length, ends: BTreeMap::new(), floor: Monotonic(u64::MAX) }
    }

    pub(crate) fn length(&self) -> Span {
        self.length
    }

    pub(crate) fn grant_all(&mut self, state: &State, now: Monotonic) {
        self.ends.clear();
        for (id, node) in state.nodes() {
            if !node.lost {
                self.grant(id, now);
            }
        }
    }

    /// Gives a node a full lease. If its loss is proposed that stays so: it may be committed behind the registration.
    pub(crate) fn grant(&mut self, node: NodeId, now: Monotonic) {
        let ends_at = now.plus(self.length);
        let losing = self.ends.get(&node).is_some_and(|lease| lease.losing);
        self.ends.insert(node, Lease { ends_at, losing });
        self.floor = self.floor.min(ends_at);
    }

    /// Renews a lease that has not run out. One whose loss is proposed stays as it is: the proposal may be committed already.
    pub(crate) fn renew(&mut self, node: NodeId, now: Monotonic) {
        if let Some(lease) = self.ends.get_mut(&node).filter(|lease| !lease.losing) {
            lease.ends_at = lease.ends_at.max(now.plus(self.length));
        }
    }

    /// Whether the node has a lease and its loss is not proposed.
    pub(crate) fn runs_on(&self, node: NodeId) -> bool {
        self.ends.get(&node).is_some_and(|lease| !lease.losing)
    }

    pub(crate) fn forget(&mut self, node: NodeId) {
        self.ends.remove(&node);
    }

    /// The proposal to lose the node was applied, or dropped: then it may be made again.
    pub(crate) fn answered(&mut self, node: NodeId) {
        if let Some(lease) = self.ends.get_mut(&node) {
            lease.losing = false;
            self.floor = self.floor.min(lease.ends_at);
        }
    }

    /// Nodes whose lease has run out, each once.
    pub(crate) fn expired(&mut self, now: Monotonic) -> Vec<NodeId> {
        let mut nodes = Vec::new();
        if now < self.floor {
            return nodes;
        }
        self.floor = Monotonic(u64::MAX);
        for (node, lease) in self.ends.iter_mut().filter(|(_, lease)| !lease.losing) {
            if lease.ends_at <= now {
                lease.losing = true;
                nodes.push(*node);
            } else {
                self.floor = self.floor.min(lease.ends_at);
            }
        }
        nodes
    }

    /// When to look again: no lease ends earlier.
    pub(crate) fn next_expiry(&self) -> Option<Monotonic> {
        (self.floor < Monotonic(u64::MAX)).then_some(self.floor)
    }
}
