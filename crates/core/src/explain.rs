//! Why a task waits: what the queue, the group and each node say about it.

use alloc::vec::Vec;

use rota_types::{NodeId, Steady, TaskId};

use crate::node::Unfit;
use crate::state::State;
use crate::task::{Phase, Standing};

/// Everything that keeps a task from starting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What holds it back before any node is looked at.
    pub holds: Vec<Hold>,
    /// What each node says, by id. An empty list means that the task fits there now.
    pub nodes: Vec<(NodeId, Vec<Unfit>)>,
}

/// A reason that has nothing to do with nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The task has a live attempt on this node.
    Running(NodeId),
    /// The task is over.
    Over,
    /// The task was handed to this node and starts there when the other task has ended.
    Staged(NodeId, TaskId),
    /// The task waits for a back-off to end at this steady time.
    BackingOff(Steady),
    /// Its queue is paused.
    QueuePaused,
    /// Its queue runs as many tasks as it may.
    QueueFull {
        /// The queue's `running_max`.
        limit: u32,
    },
    /// Its group runs as many tasks as it may.
    GroupFull {
        /// The group's `parallel_max`.
        limit: u32,
    },
}

impl State {
    /// Says why a task of a live job waits; `None` if the job is not live or has no such task.
    #[must_use]
    pub fn explain(&self, id: TaskId) -> Option<Explanation> {
        let standing = self.standing(id)?;
        let job = self.job(id.job)?;
        let group = self.group(id)?;
        let mut holds = Vec::new();
        match &standing {
            Standing::Fresh => {}
            Standing::Over(_) => holds.push(Hold::Over),
            Standing::Tried(task) => match &task.phase {
                Phase::Queued { .. } => {}
                Phase::Waiting { until } => holds.push(Hold::BackingOff(*until)),
                Phase::Staged { attempt, behind, .. } => {
                    holds.push(Hold::Staged(attempt.node, *behind));
                }
                Phase::Running(attempt) => holds.push(Hold::Running(attempt.node)),
            },
        }
        if let Some(queue) = self.queue(job.queue) {
            if queue.paused {
                holds.push(Hold::QueuePaused);
            }
            match queue.spec.running_max {
                Some(limit) if queue.counts.running >= u64::from(limit) => {
                    holds.push(Hold::QueueFull { limit });
                }
                Some(_) | None => {}
            }
        }
        match group.terms.parallel_max {
            Some(limit) if group.room() == 0 => holds.push(Hold::GroupFull { limit }),
            Some(_) | None => {}
        }
        let shape = self.shape(group.shape);
        let nodes = self.nodes().map(|(id, node)| (id, node.unfit(shape))).collect();
        Some(Explanation { holds, nodes })
    }
}
