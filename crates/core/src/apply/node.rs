//! Nodes come, drain, are lost and go.

use alloc::sync::Arc;
use alloc::vec::Vec;

use rota_types::limits::{NODE_ATTEMPTS_MAX, NODES_MAX};
use rota_types::{NodeId, TaskId};

use crate::apply::report::Ending;
use crate::apply::submit::{check_labels, check_name, check_resources, check_text, limit};
use crate::command::{NodeSpec, Outcome, Rejection, Reply};
use crate::event::{AttemptState, Event};
use crate::node::Node;
use crate::state::State;

impl State {
    pub(super) fn register_node(&mut self, spec: &NodeSpec, events: &mut Vec<Event>) -> Outcome {
        check_name("node.name", &spec.name)?;
        check_labels("node.labels", &spec.labels)?;
        check_text("node.version", &spec.version)?;
        check_resources("node.capacity", &spec.capacity)?;
        limit("node.attempts_max", u64::from(spec.attempts_max), u64::from(NODE_ATTEMPTS_MAX))?;
        let id = match self.node_names.get(&spec.name) {
            Some(id) => *id,
            None => return self.add_node(spec, events),
        };
        let restarted =
            self.nodes.get(&id).is_some_and(|node| node.spec.incarnation != spec.incarnation);
        if restarted {
            self.lose_attempts(id, events);
        }
        let now = self.now;
        if let Some(node) = self.nodes.get_mut(&id) {
            node.spec = spec.clone();
            node.lost = false;
            node.leaving &= !restarted;
            node.registered_at = now;
            node.refresh();
        }
        events.push(Event::NodeRegistered(id));
        Ok(Reply::Node(id))
    }

    fn add_node(&mut self, spec: &NodeSpec, events: &mut Vec<Event>) -> Outcome {
        limit("nodes", (self.nodes.len() as u64).saturating_add(1), NODES_MAX as u64)?;
        let id = self.next_node;
        self.next_node = id.next();
        self.node_names.insert(spec.name.clone(), id);
        self.nodes.insert(id, Node::new(spec.clone(), self.now));
        events.push(Event::NodeRegistered(id));
        Ok(Reply::Node(id))
    }

    pub(super) fn lose_node(&mut self, id: NodeId, events: &mut Vec<Event>) -> Outcome {
        let node = self.nodes.get_mut(&id).ok_or(Rejection::UnknownNode(id))?;
        if !node.lost {
            node.lost = true;
            self.lose_attempts(id, events);
            events.push(Event::NodeLost(id));
        }
        Ok(Reply::Done)
    }

    pub(super) fn leave_node(&mut self, id: NodeId, events: &mut Vec<Event>) -> Outcome {
        let node = self.nodes.get_mut(&id).ok_or(Rejection::UnknownNode(id))?;
        if !node.leaving {
            node.leaving = true;
            events.push(Event::NodeLeaving(id));
        }
        Ok(Reply::Done)
    }

    pub(super) fn drain_node(
        &mut self,
        id: NodeId,
        draining: bool,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let node = self.nodes.get_mut(&id).ok_or(Rejection::UnknownNode(id))?;
        if node.draining != draining {
            node.draining = draining;
            events.push(Event::NodeDraining(id, draining));
        }
        Ok(Reply::Done)
    }

    pub(super) fn remove_node(&mut self, id: NodeId, events: &mut Vec<Event>) -> Outcome {
        let node = self.nodes.get(&id).ok_or(Rejection::UnknownNode(id))?;
        if !node.live.is_empty() {
            return Err(Rejection::NodeBusy(id));
        }
        let name = node.spec.name.clone();
        self.node_names.remove(&name);
        self.nodes.remove(&id);
        events.push(Event::NodeRemoved { node: id, name });
        Ok(Reply::Done)
    }

    /// Ends every attempt of a node whose worker is gone (I8).
    fn lose_attempts(&mut self, id: NodeId, events: &mut Vec<Event>) {
        let Some(node) = self.nodes.get(&id) else {
            return;
        };
        // What is staged comes last: by then it has taken the place of what it was behind.
        let tasks: Vec<TaskId> = node.live.iter().chain(node.staged.values()).copied().collect();
        for task in tasks {
            let ending = Ending {
                state: AttemptState::Lost,
                failure: None,
                started_at: None,
                ended_at: self.now,
                detail: Arc::from([]),
            };
            self.end_attempt(task, ending, events);
        }
    }
}
