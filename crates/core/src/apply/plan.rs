//! `CommitPlan`: every placement is checked again; those that still hold become live attempts.

use alloc::vec::Vec;

use rota_types::TaskId;

use crate::command::{Placement, Plan, Reply};
use crate::event::Event;
use crate::job::{Group, Slot};
use crate::state::{GroupAt, State};
use crate::task::{Attempt, Phase, Task};

impl State {
    pub(super) fn commit_plan(&mut self, plan: &Plan, events: &mut Vec<Event>) -> Reply {
        let (mut taken, mut refused): (u64, u64) = (0, 0);
        for placement in &plan.placements {
            let count = self.place(*placement, events);
            taken = taken.saturating_add(u64::from(count));
            refused = refused.saturating_add(u64::from(placement.count.saturating_sub(count)));
        }
        for staging in &plan.staged {
            let staged = u64::from(self.stage(*staging, events));
            taken = taken.saturating_add(staged);
            refused = refused.saturating_add(1_u64.saturating_sub(staged));
        }
        Reply::Accepted { taken, refused }
    }

    /// Creates attempts for as many of the placement's tasks, from the first on, as still hold. Returns how many.
    fn place(&mut self, placement: Placement, events: &mut Vec<Event>) -> u32 {
        let Some(group) =
            self.jobs.get(placement.task.job).and_then(|job| job.group_of(placement.task.index))
        else {
            return 0;
        };
        let at = GroupAt { job: placement.task.job, group };
        let count = self.still_holds(placement, at);
        if count == 0 {
            return 0;
        }
        let attempt = Attempt { node: placement.node, placed_at: self.now, stop: None };
        if self.tasks.contains_key(&placement.task) {
            if let Some(task) = self.tasks.get_mut(&placement.task) {
                task.begin_attempt(self.attempts_from);
            }
            self.set_phase(placement.task, at, Phase::Running(attempt));
        } else {
            self.start_fresh(placement, at, count, &attempt);
        }
        self.hold(placement, at, count);
        let job = self.jobs.get_mut(at.job).expect("placements were checked against live jobs");
        job.started_at.get_or_insert(self.now);
        events.push(Event::AttemptsCreated(Placement { count, ..placement }));
        count
    }

    /// How many tasks of a placement may start: the node takes them and has room, and so have the group and the queue
    /// (I1, I11, I12, I13).
    fn still_holds(&self, placement: Placement, at: GroupAt) -> u32 {
        let Placement { task, count, node } = placement;
        let Some(job) = self.jobs.get(at.job) else {
            return 0;
        };
        let (Some(group), Some(queue), Some(node)) =
            (job.groups.get(at.group), self.queues.get(&job.queue), self.nodes.get(&node))
        else {
            return 0;
        };
        let ready = match self.tasks.get(&task) {
            Some(Task { phase: Phase::Queued { .. }, .. }) => 1,
            Some(_) => 0,
            None => fresh_from(group, task.index),
        };
        let room = group.room().min(queue.room()).min(node.times(self.shape(group.shape)));
        count.min(ready).min(u32::try_from(room).unwrap_or(u32::MAX))
    }

    fn start_fresh(&mut self, placement: Placement, at: GroupAt, count: u32, attempt: &Attempt) {
        let first = placement.task.index;
        let end = first.saturating_add(count);
        if let Some(group) = self.jobs.get_mut(at.job).and_then(|job| job.groups.get_mut(at.group))
        {
            group.fresh.remove_range(first, end);
        }
        for index in first..end {
            let task = Task::first(self.attempts_from, Phase::Running(attempt.clone()));
            self.tasks.insert(TaskId { job: at.job, index }, task);
        }
        self.shift(at, Some(Slot::Queued), Slot::Running, u64::from(count));
    }

    fn hold(&mut self, placement: Placement, at: GroupAt, count: u32) {
        let Some(group) = self.jobs.get(at.job).and_then(|job| job.groups.get(at.group)) else {
            return;
        };
        let shape = self.shapes.get(group.shape);
        let Some(node) = self.nodes.get_mut(&placement.node) else {
            return;
        };
        node.hold(&shape.shape.need, u64::from(count));
        let first = placement.task.index;
        node.live.extend(
            (first..first.saturating_add(count)).map(|index| TaskId { job: at.job, index }),
        );
    }
}

/// How many fresh tasks follow each other from `index` on.
fn fresh_from(group: &Group, index: u32) -> u32 {
    match group.fresh.first_range() {
        Some((start, end)) if (start..end).contains(&index) => end.saturating_sub(index),
        Some(_) | None => u32::from(group.fresh.contains(index)),
    }
}
