//! Queued tasks in the order of their queue's discipline, grouped by shape.
//!
//! Leader memory, rebuilt from the state. Fresh tasks of one group are one entry however many they are, and tasks of one shape
//! stand together: a shape that fits nowhere is passed over at once, so that a planning pass costs the same with a thousand
//! queued tasks as with a million.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use rota_core::job::{Group, Job};
use rota_core::queue::Discipline;
use rota_core::task::{Phase, Standing, Task};
use rota_core::{ShapeId, State};
use rota_types::{JobId, JobMap, QueueId, TaskId};

use crate::discipline::{QueueDiscipline, Rank, RankInput, discipline};

/// Every queued task of every queue, ranked.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ranked {
    queues: BTreeMap<QueueId, RankedQueue>,
    spots: Spots,
    /// Tasks to be tried again, of groups with a `parallel_max`, by group.
    retries: BTreeMap<(JobId, u32), Retries>,
}

/// The queued tasks of one queue.
#[derive(Debug)]
pub(crate) struct RankedQueue {
    settings: Discipline,
    discipline: Box<dyn QueueDiscipline>,
    pub(crate) by_shape: BTreeMap<ShapeId, ShapeQueue>,
}

/// Runs of tasks of one shape, best first.
pub(crate) type ShapeQueue = BTreeMap<(Rank, TaskId), u32>;

/// How much of a queue goes before a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// Tasks that were counted.
    pub tasks: u64,
    /// Whether there are more, which were not.
    pub more: bool,
}

/// Names an entry: the fresh tasks of a group, or one task that was tried before. A group with a `parallel_max` has one entry in
/// all, under its first name, for whichever of its tasks go next: a plan then never starts too many of them, and a group that is
/// full costs nothing, however many of its tasks are to be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    job: JobId,
    /// The first index of the group, or the index of the task.
    index: u32,
    fresh: bool,
}

/// Where each entry stands.
#[derive(Debug, Default, PartialEq, Eq)]
struct Spots {
    /// The fresh tasks of the first group of each job: for most jobs all there is, and cheap to keep.
    first: JobMap<Spot>,
    /// All others.
    others: BTreeMap<Key, Spot>,
}

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spot {
    rank: Rank,
    queue: QueueId,
    shape: ShapeId,
    first: u32,
}

/// The queued tasks of one group that were tried before.
#[derive(Debug, Default, PartialEq, Eq)]
struct Retries {
    best_first: BTreeSet<(Rank, u32)>,
    ranks: BTreeMap<u32, Rank>,
}

impl Ranked {
    /// Ranks everything that is queued.
    #[must_use]
    pub fn new(state: &State) -> Self {
        let mut ranked = Self::default();
        for (id, queue) in state.queues() {
            ranked.queues.insert(id, RankedQueue::new(queue.spec.discipline));
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
            let settings = queue.spec.discipline;
            if self.queues.get(&id).is_some_and(|old| old.settings == settings) {
                continue;
            }
            self.spots.retain(|spot| spot.queue != id);
            self.queues.insert(id, RankedQueue::new(settings));
            let jobs: Vec<JobId> =
                state.jobs().filter(|(_, job)| job.queue == id).map(|(job, _)| job).collect();
            for job in jobs {
                self.refresh_job(state, job);
            }
        }
    }

    /// Brings every entry of a job in line with the state.
    pub fn refresh_job(&mut self, state: &State, id: JobId) {
        let old: Vec<Key> = self.spots.keys_of(id).collect();
        for key in old {
            self.remove(key);
        }
        while let Some((group, _)) = self.retries.range((id, 0)..=(id, u32::MAX)).next() {
            let group = *group;
            self.retries.remove(&group);
        }
        let Some(job) = state.job(id) else { return };
        let tried: Vec<TaskId> = state.tasks_of(id).map(|(task, _)| task).collect();
        for task in tried {
            self.refresh_task(state, task);
        }
        for group in &job.groups {
            self.refresh_group(id, job, group);
        }
    }

    /// Brings the entries that a change to one task touches in line with the state: its own, and its group's.
    pub fn refresh_around(&mut self, state: &State, task: TaskId) {
        let Some(job) = state.job(task.job) else {
            return self.refresh_job(state, task.job);
        };
        let Some(group) = job.group_of(task.index).and_then(|place| job.groups.get(place)) else {
            return;
        };
        if group.terms.parallel_max.is_some() {
            self.refresh_task(state, task);
            self.refresh_group(task.job, job, group);
        } else {
            // The group moves on before the task takes a place, which may be the very one that the group has left.
            self.refresh_group(task.job, job, group);
            self.refresh_task(state, task);
        }
    }

    /// How many tasks that may start go before this one in its queue; `None` if it is not queued, or its group is full. Of an array
    /// with gaps, only the tasks before the first gap count. Looks at no more than `runs_max` runs of tasks.
    #[must_use]
    pub fn ahead(&self, state: &State, task: TaskId, runs_max: usize) -> Option<Ahead> {
        let (job, group) = (state.job(task.job)?, state.group(task)?);
        let ready_at = match state.standing(task)? {
            Standing::Fresh => job.ready_at,
            Standing::Tried(Task { phase: Phase::Queued { since }, .. }) => *since,
            Standing::Tried(_) | Standing::Over(_) => return None,
        };
        if group.room() == 0 {
            return None;
        }
        let queue = self.queues.get(&job.queue)?;
        let own = queue.discipline.rank(&RankInput { ready_at, ..input(job, group) });
        let upto = (own, task);
        let mut runs = queue.by_shape.values().flat_map(|runs| runs.range(..upto));
        let tasks: u64 = runs
            .by_ref()
            .take(runs_max)
            .map(|((rank, first), count)| {
                // A run that begins before the task may reach beyond it.
                let own_run = *rank == own && first.job == task.job;
                let before = task.index.saturating_sub(first.index);
                u64::from(if own_run { before.min(*count) } else { *count })
            })
            .sum();
        Some(Ahead { tasks, more: runs.next().is_some() })
    }

    pub(crate) fn queue(&self, id: QueueId) -> Option<&RankedQueue> {
        self.queues.get(&id)
    }

    /// Queues that have a task which may start.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = QueueId> + '_ {
        self.queues.iter().filter(|(_, queue)| !queue.by_shape.is_empty()).map(|(id, _)| *id)
    }

    /// Brings the entry of a group in line with the state.
    fn refresh_group(&mut self, id: JobId, job: &Job, group: &Group) {
        let key = Key { job: id, index: group.first, fresh: true };
        let Some(queue) = self.queues.get(&job.queue) else {
            return;
        };
        let room = u32::try_from(group.room()).unwrap_or(u32::MAX);
        let fresh = group.fresh.first_range().map(|(start, end)| {
            let rank = queue.discipline.rank(&input(job, group));
            (rank, start, end.saturating_sub(start))
        });
        let retry = self.retries.get(&(id, group.first)).and_then(|tasks| {
            let (rank, index) = tasks.best_first.first()?;
            Some((*rank, *index, 1))
        });
        match [fresh, retry].into_iter().flatten().min() {
            Some((rank, first, count)) if room > 0 => {
                let spot = Spot { rank, queue: job.queue, shape: group.shape, first };
                self.put(key, spot, count.min(room));
            }
            Some(_) | None => self.remove(key),
        }
    }

    /// Brings the entry of a task that was tried before in line with the state.
    fn refresh_task(&mut self, state: &State, id: TaskId) {
        let (Some(job), Some(group)) = (state.job(id.job), state.group(id)) else {
            return;
        };
        let Some(queue) = self.queues.get(&job.queue) else {
            return;
        };
        let rank = match state.task(id).map(|task| &task.phase) {
            Some(Phase::Queued { since }) => {
                Some(queue.discipline.rank(&RankInput { ready_at: *since, ..input(job, group) }))
            }
            Some(Phase::Waiting { .. } | Phase::Staged { .. } | Phase::Running(_)) | None => None,
        };
        let key = Key { job: id.job, index: id.index, fresh: false };
        match rank {
            _ if group.terms.parallel_max.is_some() => {
                let tasks = self.retries.entry((id.job, group.first)).or_default();
                tasks.set(id.index, rank);
                if tasks.ranks.is_empty() {
                    self.retries.remove(&(id.job, group.first));
                }
            }
            Some(rank) => {
                let spot = Spot { rank, queue: job.queue, shape: group.shape, first: id.index };
                self.put(key, spot, 1);
            }
            None => self.remove(key),
        }
    }

    fn put(&mut self, key: Key, spot: Spot, count: u32) {
        let Some(queue) = self.queues.get_mut(&spot.queue) else {
            return;
        };
        if let Some(old) = self.spots.insert(key, spot)
            && old != spot
        {
            queue.take_out(key.job, &old);
        }
        let task = TaskId { job: key.job, index: spot.first };
        queue.by_shape.entry(spot.shape).or_default().insert((spot.rank, task), count);
    }

    fn remove(&mut self, key: Key) {
        if let Some(spot) = self.spots.remove(key)
            && let Some(queue) = self.queues.get_mut(&spot.queue)
        {
            queue.take_out(key.job, &spot);
        }
    }
}

impl Key {
    /// Whether this is the entry of the fresh tasks of a job's first group.
    fn is_first(self) -> bool {
        self.index == 0 && self.fresh
    }
}

impl Spots {
    fn keys_of(&self, job: JobId) -> impl Iterator<Item = Key> + '_ {
        let from = Key { job, index: 0, fresh: false };
        let to = Key { job, index: u32::MAX, fresh: true };
        let first = self.first.get(job).map(|_| Key { job, index: 0, fresh: true });
        first.into_iter().chain(self.others.range(from..=to).map(|(key, _)| *key))
    }

    fn insert(&mut self, key: Key, spot: Spot) -> Option<Spot> {
        if key.is_first() {
            self.first.insert(key.job, spot)
        } else {
            self.others.insert(key, spot)
        }
    }

    fn remove(&mut self, key: Key) -> Option<Spot> {
        if key.is_first() { self.first.remove(key.job) } else { self.others.remove(&key) }
    }

    fn retain(&mut self, mut keep: impl FnMut(&Spot) -> bool) {
        self.first.retain(&mut keep);
        self.others.retain(|_, spot| keep(spot));
    }
}

impl RankedQueue {
    fn new(settings: Discipline) -> Self {
        Self { settings, discipline: discipline(settings), by_shape: BTreeMap::new() }
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

impl PartialEq for RankedQueue {
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings && self.by_shape == other.by_shape
    }
}

impl Eq for RankedQueue {}

impl Retries {
    fn set(&mut self, index: u32, rank: Option<Rank>) {
        let old = match rank {
            Some(rank) => {
                self.best_first.insert((rank, index));
                self.ranks.insert(index, rank)
            }
            None => self.ranks.remove(&index),
        };
        if let Some(old) = old.filter(|old| Some(*old) != rank) {
            self.best_first.remove(&(old, index));
        }
    }
}

/// What the discipline sees of a group's fresh tasks.
fn input(job: &Job, group: &Group) -> RankInput {
    RankInput { ready_at: job.ready_at, priority: job.priority, estimate: group.terms.estimate }
}
