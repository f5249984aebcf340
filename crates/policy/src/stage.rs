//! Which queued tasks are handed out before there is room for them.

use alloc::collections::BTreeMap;

use rota_core::command::{Plan, Staging};
use rota_core::{ShapeId, State};
use rota_types::{QueueId, TaskId};

use crate::pending::Pending;
use crate::ranked::Ranked;

/// Stages up to `tasks` of the tasks that go next, each behind the task that `place` names for it, its queue and shape.
///
/// Whoever is staged has its turn whatever comes later, and passes it on to the next one. So nothing is staged that would take another's
/// turn: tasks of one queue alone, while no other has any that may start, in the order of its discipline, up to the first that can't
/// be staged. What comes later and goes first waits for what is staged already, and for no more.
pub fn stage(
    state: &State,
    ranked: &Ranked,
    plan: &mut Plan,
    tasks: usize,
    mut place: impl FnMut(TaskId, (QueueId, ShapeId)) -> Option<TaskId>,
) {
    let is_open = |id: &QueueId| state.queue(*id).is_some_and(|queue| !queue.paused);
    let mut waiting = ranked.waiting().filter(is_open);
    let (Some(id), None) = (waiting.next(), waiting.next()) else { return };
    let Some(queue) = ranked.queue(id) else { return };
    let placed: BTreeMap<TaskId, u32> =
        plan.placements.iter().map(|placement| (placement.task, placement.count)).collect();
    let mut pending = Pending::new(queue, u64::MAX);
    while let Some(next) = pending.next().filter(|_| plan.staged.len() < tasks) {
        if let Some(count) = placed.get(&next.task) {
            pending.take((*count).clamp(1, next.count));
            continue;
        }
        let limited = state.group(next.task).is_none_or(|group| group.terms.parallel_max.is_some());
        let Some(behind) = place(next.task, (id, next.shape)).filter(|_| !limited) else { return };
        plan.staged.push(Staging { task: next.task, behind });
        pending.take(1);
    }
}
