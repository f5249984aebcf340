//! The naive twin of the ranked queues: sorts what is queued the slow way and compares a plan with it.

use std::collections::BTreeMap;

use rota_core::command::Plan;
use rota_core::job::{Group, Job};
use rota_core::queue::Discipline;
use rota_core::task::Phase;
use rota_core::{ShapeId, State};
use rota_types::{QueueId, Steady, TaskId};

/// A task's place in its queue: the smallest goes first.
type Place = (i128, TaskId);

/// Whether the plan takes tasks of one shape in the order of their queue's discipline, and passes over none that may start.
pub(crate) fn follows_discipline(state: &State, plan: &Plan) -> Result<(), String> {
    let mut taken: BTreeMap<(QueueId, ShapeId), Vec<Place>> = BTreeMap::new();
    for placement in &plan.placements {
        let first = placement.task.index;
        for index in first..first.saturating_add(placement.count) {
            let task = TaskId { index, ..placement.task };
            let (job, group) = known(state, task)?;
            taken.entry((job.queue, group.shape)).or_default().push(place(state, job, task)?);
        }
    }
    for ((queue, shape), places) in taken {
        if !places.is_sorted() {
            return Err(format!("queue {queue}: the plan takes {places:?}, out of order"));
        }
        let Some(last) = places.last() else { continue };
        let better = passed_over(state, (queue, shape), *last)?;
        if let Some(better) = better.iter().find(|place| !places.contains(place)) {
            return Err(format!(
                "queue {queue}: the plan passes over {better:?} and takes {last:?}"
            ));
        }
    }
    Ok(())
}

fn known(state: &State, task: TaskId) -> Result<(&Job, &Group), String> {
    let job = state.job(task.job).ok_or_else(|| format!("{task} of no live job is planned"))?;
    let group = state.group(task).ok_or_else(|| format!("{task} of no group is planned"))?;
    Ok((job, group))
}

fn place(state: &State, job: &Job, task: TaskId) -> Result<Place, String> {
    let ready = match state.task(task).map(|task| &task.phase) {
        None => job.ready_at,
        Some(Phase::Queued { since }) => *since,
        Some(other) => return Err(format!("{task} is planned, but it is {other:?}")),
    };
    Ok((rank(state, job, ready), task))
}

fn rank(state: &State, job: &Job, ready: Steady) -> i128 {
    let ready = i128::from(ready.0);
    match state.queue(job.queue).map(|queue| queue.spec.discipline) {
        Some(Discipline::Priority { aging }) => {
            ready - i128::from(job.priority) * i128::from(aging.0)
        }
        _ => ready,
    }
}

/// Queued tasks that go before `last`. Left out: groups with a limit of their own, and fresh tasks behind a gap, which have their
/// turn in the next pass.
fn passed_over(
    state: &State,
    (queue, shape): (QueueId, ShapeId),
    last: Place,
) -> Result<Vec<Place>, String> {
    let mut better = Vec::new();
    for (id, job) in state.jobs().filter(|(_, job)| job.queue == queue) {
        for group in &job.groups {
            if group.shape != shape || group.terms.parallel_max.is_some() {
                continue;
            }
            let fresh = group.fresh.first_range().unwrap_or((0, 0));
            for index in group.first..group.end() {
                let task = TaskId { job: id, index };
                let queued =
                    matches!(state.task(task).map(|task| &task.phase), Some(Phase::Queued { .. }));
                if queued || (fresh.0..fresh.1).contains(&index) {
                    better.push(place(state, job, task)?);
                }
            }
        }
    }
    better.retain(|place| *place < last);
    Ok(better)
}
