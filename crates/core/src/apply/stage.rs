//! Tasks that are handed to a node before there is room for them: staged behind a running one, whose room they take over.

use alloc::vec::Vec;

use rota_types::{NodeId, QueueId, TaskId};

use crate::command::Staging;
use crate::event::Event;
use crate::server::STAGING_LEVEL;
use crate::shape::ShapeId;
use crate::state::{GroupAt, State};
use crate::task::{Attempt, Phase, Task};

impl State {
    /// What a task must have in common with the one that it is staged behind: then it takes over exactly what that held, in every
    /// count.
    #[must_use]
    pub fn lane(&self, id: TaskId) -> Option<(QueueId, ShapeId)> {
        Some((self.job(id.job)?.queue, self.group(id)?.shape))
    }

    /// Stages a task, if what the plan saw still holds (I11, I12, I13, I18). Returns whether it did.
    pub(super) fn stage(&mut self, staging: Staging, events: &mut Vec<Event>) -> bool {
        let Staging { task: id, behind } = staging;
        let Some(node) = self.stageable(staging) else {
            return false;
        };
        let Some(group) = self.jobs.get(id.job).and_then(|job| job.group_of(id.index)) else {
            return false;
        };
        let at = GroupAt { job: id.job, group };
        let ready_at = self.jobs.get(id.job).map_or(self.steady, |job| job.ready_at);
        let since = match self.tasks.get(&id) {
            Some(Task { phase: Phase::Queued { since }, .. }) => *since,
            _ => ready_at,
        };
        let attempt = Attempt { node, placed_at: self.now, stop: None };
        let phase = Phase::Staged { attempt, behind, since };
        if let Some(task) = self.tasks.get_mut(&id) {
            task.begin_attempt(self.attempts_from);
            self.set_phase(id, at, phase);
        } else {
            let groups = self.jobs.get_mut(id.job).and_then(|job| job.groups.get_mut(group));
            if let Some(group) = groups {
                group.fresh.remove_range(id.index, id.index.saturating_add(1));
            }
            let task = Task::first(self.attempts_from, phase);
            self.tasks.insert(id, task);
        }
        if let Some(node) = self.nodes.get_mut(&node) {
            node.staged.insert(behind, id);
        }
        if let Some(job) = self.jobs.get_mut(id.job) {
            job.started_at.get_or_insert(self.now);
        }
        events.push(Event::AttemptStaged { task: id, node, behind });
        true
    }

    /// The node where a task may be staged behind another.
    fn stageable(&self, Staging { task: id, behind }: Staging) -> Option<NodeId> {
        let lane = self.lane(id)?;
        let group = self.group(id)?;
        let ready = match self.tasks.get(&id) {
            Some(task) => matches!(task.phase, Phase::Queued { .. }),
            None => group.fresh.contains(id.index),
        };
        let node = self.tasks.get(&behind)?.attempt()?.node;
        let alone = self.nodes.get(&node).is_some_and(|node| !node.staged.contains_key(&behind));
        let holds = self.level >= STAGING_LEVEL
            && ready
            && alone
            && self.lane(behind) == Some(lane)
            && group.terms.parallel_max.is_none()
            && self.takes_behind(behind);
        holds.then_some(node)
    }

    /// Whether others may be staged behind a live task, if nobody is: it goes on to its end, and where it is something might be placed that
    /// needs as much.
    #[must_use]
    pub fn takes_behind(&self, ahead: TaskId) -> bool {
        let (Some(attempt), Some((queue, shape))) =
            (self.tasks.get(&ahead).and_then(Task::attempt), self.lane(ahead))
        else {
            return false;
        };
        let (Some(node), Some(queue)) = (self.nodes.get(&attempt.node), self.queues.get(&queue))
        else {
            return false;
        };
        let within = queue.spec.running_max.is_none_or(|max| queue.counts.running <= max.into());
        attempt.stop.is_none()
            && node.spec.stages
            && node.admits(self.shape(shape))
            && !node.is_overfull()
            && !queue.paused
            && within
    }

    /// Takes a staged task out: what is behind it moves up.
    pub(super) fn unstage(&mut self, id: TaskId, node: NodeId, ahead: TaskId) {
        let Some(node) = self.nodes.get_mut(&node) else {
            return;
        };
        node.staged.remove(&ahead);
        let Some(next) = node.staged.remove(&id) else {
            return;
        };
        node.staged.insert(ahead, next);
        let phase = self.tasks.get_mut(&next).map(|task| &mut task.phase);
        if let Some(Phase::Staged { behind, .. }) = phase {
            *behind = ahead;
        }
    }

    /// Lets the task that was staged behind `ended` take over what that held.
    pub(super) fn promote(&mut self, ended: TaskId, node_id: NodeId, events: &mut Vec<Event>) {
        let staged = self.nodes.get_mut(&node_id).and_then(|node| node.staged.remove(&ended));
        let Some((id, task)) = staged.and_then(|id| Some((id, self.tasks.get(&id)?))) else {
            return;
        };
        let (Some(attempt), Some(job)) = (task.attempt().cloned(), self.jobs.get(id.job)) else {
            return;
        };
        let Some((place, group)) =
            job.group_of(id.index).and_then(|place| Some((place, job.groups.get(place)?)))
        else {
            return;
        };
        let shape = self.shapes.get(group.shape);
        if let Some(node) = self.nodes.get_mut(&node_id) {
            node.hold(&shape.shape.need, 1);
            node.live.insert(id);
        }
        self.set_phase(id, GroupAt { job: id.job, group: place }, Phase::Running(attempt));
        events.push(Event::AttemptPromoted { task: id, node: node_id });
    }
}
