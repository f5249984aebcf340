//! Queued tasks in the order of their queue's discipline, grouped by shape.
//!
//! Leader memory, rebuilt from the state. Fresh tasks of one group are one entry however many they are, and tasks of one shape
//! stand together: a shape that fits nowhere is passed over at once, so that a planning pass costs the same with a thousand
//! queued tasks as with a million.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use rota_core::job::{Group, Job};
use rota_core::task::Phase;
use rota_core::{ShapeId, State};
use rota_types::{JobId, QueueId, TaskId};

use crate::discipline::{QueueDiscipline, Rank, RankInput, discipline};

/// Every queued task of every queue, ranked.
#[derive(Debug, Default)]
pub struct Ranked {
    queues: BTreeMap<QueueId, RankedQueue>,
    spots: BTreeMap<Key, Spot>,
}

/// The queued tasks of one queue.
#[derive(Debug)]
pub(crate) struct RankedQueue {
    discipline: Box<dyn QueueDiscipline>,
    pub(crate) by_shape: BTreeMap<ShapeId, ShapeQueue>,
}

/// Runs of tasks of one shape, best first.
pub(crate) type ShapeQueue = BTreeMap<(Rank, TaskId), u32>;

/// Names an entry: the fresh tasks of a group, or one task that was tried before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    job: JobId,
    /// The first index of the group, or the index of the task.
    index: u32,
    fresh: bool,
}

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spot {
    rank: Rank,
    queue: QueueId,
    shape: ShapeId,
    first: u32,
}

impl Ranked {
    /// Ranks everything that is queued.
    #[must_use]
    pub fn new(state: &State) -> Self {
        let mut ranked = Self::default();
        for (id, queue) in state.queues() {
            ranked.queues.insert(id, RankedQueue::new(discipline(queue.spec.discipline)));
        }
        for (id, _) in state.jobs() {
            ranked.refresh_job(state, id);
        }
        ranked
    }

    /// Takes up changed settings: ranks a queue's tasks anew, or forgets the queue.
    pub fn refresh_queues(&mut self, state: &State) {
        self.queues.retain(|id, _| state.queue(*id).is_some());
        for (id, queue) in state.queues() {
            let wanted = discipline(queue.spec.discipline);
            let same = |old: &RankedQueue| {
                let probe = RankInput { priority: 1, ..RankInput::default() };
                old.discipline.name() == wanted.name()
                    && old.discipline.rank(&probe) == wanted.rank(&probe)
            };
            if self.queues.get(&id).is_some_and(same) {
                continue;
            }
            self.spots.retain(|_, spot| spot.queue != id);
            self.queues.insert(id, RankedQueue::new(wanted));
            let jobs: Vec<JobId> =
                state.jobs().filter(|(_, job)| job.queue == id).map(|(job, _)| job).collect();
            for job in jobs {
                self.refresh_job(state, job);
            }
        }
    }

    /// Brings every entry of a job in line with the state.
    pub fn refresh_job(&mut self, state: &State, id: JobId) {
        let old: Vec<Key> = self.keys_of(id).collect();
        for key in old {
            self.remove(key);
        }
        let Some(job) = state.job(id) else { return };
        for place in 0..job.groups.len() {
            self.refresh_fresh(state, id, place);
        }
        let tried: Vec<TaskId> = state.tasks_of(id).map(|(task, _)| task).collect();
        for task in tried {
            self.refresh_task(state, task);
        }
    }

    /// Brings the entries that a change to one task touches in line with the state: its own, and its group's.
    pub fn refresh_around(&mut self, state: &State, task: TaskId) {
        let Some(job) = state.job(task.job) else {
            return self.refresh_job(state, task.job);
        };
        let Some(place) = job.group_of(task.index) else {
            return;
        };
        self.refresh_task(state, task);
        self.refresh_fresh(state, task.job, place);
        let Some(group) = job.groups.get(place) else {
            return;
        };
        if group.parallel_max.is_some() {
            // Whether others of the group may start depends on how many run.
            let (from, to) = (group.first, group.end());
            let others: Vec<TaskId> = state
                .tasks_of(task.job)
                .map(|(id, _)| id)
                .filter(|id| (from..to).contains(&id.index) && *id != task)
                .collect();
            for other in others {
                self.refresh_task(state, other);
            }
        }
    }

    /// How many queued tasks of its queue go before this one; `None` if it is not queued or may not start now.
    #[must_use]
    pub fn ahead(&self, state: &State, task: TaskId) -> Option<u64> {
        let first = state.group(task)?.first;
        let own = Key { job: task.job, index: task.index, fresh: false };
        let spot = self
            .spots
            .get(&own)
            .or_else(|| self.spots.get(&Key { index: first, fresh: true, ..own }))?;
        let queue = self.queues.get(&spot.queue)?;
        let upto = (spot.rank, task);
        let whole: u64 = queue
            .by_shape
            .values()
            .flat_map(|runs| runs.range(..upto))
            .map(|((rank, first), count)| {
                // A run that begins before the task may reach beyond it.
                let own_run = *rank == spot.rank && first.job == task.job;
                let before = task.index.saturating_sub(first.index);
                u64::from(if own_run { before.min(*count) } else { *count })
            })
            .sum();
        Some(whole)
    }

    pub(crate) fn queue(&self, id: QueueId) -> Option<&RankedQueue> {
        self.queues.get(&id)
    }

    /// Queues that have a task which may start.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = QueueId> + '_ {
        self.queues.iter().filter(|(_, queue)| !queue.by_shape.is_empty()).map(|(id, _)| *id)
    }

    fn keys_of(&self, job: JobId) -> impl Iterator<Item = Key> + '_ {
        let from = Key { job, index: 0, fresh: false };
        let to = Key { job, index: u32::MAX, fresh: true };
        self.spots.range(from..=to).map(|(key, _)| *key)
    }

    fn refresh_fresh(&mut self, state: &State, id: JobId, place: usize) {
        let Some((job, group)) = state.job(id).and_then(|job| Some((job, job.groups.get(place)?)))
        else {
            return;
        };
        let key = Key { job: id, index: group.first, fresh: true };
        let room = u32::try_from(group.room()).unwrap_or(u32::MAX);
        match group.fresh.first_range() {
            Some((start, end)) if room > 0 => {
                let input = RankInput { ready_at: job.ready_at, ..input(job, group) };
                self.put(key, start, end.saturating_sub(start).min(room), (job, group, input));
            }
            Some(_) | None => self.remove(key),
        }
    }

    fn refresh_task(&mut self, state: &State, id: TaskId) {
        let key = Key { job: id.job, index: id.index, fresh: false };
        let Some(Phase::Queued { since }) = state.task(id).map(|task| &task.phase) else {
            return self.remove(key);
        };
        match (state.job(id.job), state.group(id)) {
            (Some(job), Some(group)) if group.room() > 0 => {
                let input = RankInput { ready_at: *since, ..input(job, group) };
                self.put(key, id.index, 1, (job, group, input));
            }
            (Some(_) | None, _) => self.remove(key),
        }
    }

    fn put(&mut self, key: Key, first: u32, count: u32, of: (&Job, &Group, RankInput)) {
        let (job, group, input) = of;
        let Some(queue) = self.queues.get_mut(&job.queue) else {
            return;
        };
        let rank = queue.discipline.rank(&input);
        let spot = Spot { rank, queue: job.queue, shape: group.shape, first };
        if let Some(old) = self.spots.insert(key, spot)
            && old != spot
        {
            queue.take_out(key.job, &old);
        }
        let task = TaskId { job: key.job, index: first };
        queue.by_shape.entry(group.shape).or_default().insert((rank, task), count);
    }

    fn remove(&mut self, key: Key) {
        if let Some(spot) = self.spots.remove(&key)
            && let Some(queue) = self.queues.get_mut(&spot.queue)
        {
            queue.take_out(key.job, &spot);
        }
    }
}

impl RankedQueue {
    fn new(discipline: Box<dyn QueueDiscipline>) -> Self {
        Self { discipline, by_shape: BTreeMap::new() }
    }

    fn take_out(&mut self, job: JobId, spot: &Spot) {
        if let Some(runs) = self.by_shape.get_mut(&spot.shape) {
            runs.remove(&(spot.rank, TaskId { job, index: spot.first }));
            if runs.is_empty() {
                self.by_shape.remove(&spot.shape);
            }
        }
    }
}

fn input(job: &Job, group: &Group) -> RankInput {
    RankInput { ready_at: job.ready_at, priority: job.priority, estimate: group.estimate }
}
