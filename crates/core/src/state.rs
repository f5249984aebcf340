//! The state, its queries, and the few functions through which everything in it changes.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use core::ops::Bound;

use rota_types::limits::{IDEMPOTENCY_WINDOW, LIVE_JOBS_MAX};
use rota_types::{
    AttemptId, JobId, JobMap, LogIndex, NodeId, QueueId, RangeSet, ServerId, Span, Steady, TaskId,
    Timestamp,
};

use crate::command::{QueueSpec, Shape};
use crate::job::{Group, Job, Rare, Slot, TaskState, Terms};
use crate::kv::Store;
use crate::node::Node;
use crate::pool::Pool;
use crate::queue::{DEFAULT_QUEUE, Queue};
use crate::server::Server;
use crate::shape::{ShapeId, ShapeUse, Shapes};
use crate::task::{Attempt, Phase, Standing, Task};
use crate::token::Token;

/// Everything that is true at one position of the log.
#[derive(Clone, Debug)]
pub struct State {
    pub(crate) index: LogIndex,
    pub(crate) now: Timestamp,
    pub(crate) steady: Steady,
    pub(crate) next_job: JobId,
    pub(crate) next_node: NodeId,
    pub(crate) next_queue: QueueId,
    pub(crate) next_server: ServerId,
    pub(crate) level: u32,
    /// Attempts get numbers above this.
    pub(crate) attempts_from: u32,
    pub(crate) jobs: JobMap<Box<Job>>,
    pub(crate) tasks: BTreeMap<TaskId, Task>,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) queues: BTreeMap<QueueId, Queue>,
    pub(crate) servers: BTreeMap<ServerId, Server>,
    pub(crate) keys: BTreeMap<Arc<str>, KeyUse>,
    pub(crate) tokens: BTreeMap<Box<str>, Token>,
    pub(crate) live_jobs_max: usize,
    pub(crate) kv: Store,
    // Derived: recomputed by `check`, rebuilt by `image`.
    pub(crate) shapes: Shapes,
    pub(crate) terms: Pool<Terms>,
    pub(crate) submitters: Pool<Box<str>>,
    pub(crate) waiting: BTreeSet<(Steady, TaskId)>,
    pub(crate) node_names: BTreeMap<Box<str>, NodeId>,
    pub(crate) queue_names: BTreeMap<Box<str>, QueueId>,
    pub(crate) keys_by_age: BTreeSet<(Steady, Arc<str>)>,
    pub(crate) live_tasks: u64,
}

/// What a request with an idempotency key did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyUse {
    /// A digest of the request.
    pub digest: [u8; 16],
    /// The first job it made.
    pub first: JobId,
    /// How many jobs it made.
    pub count: u32,
    /// When.
    pub used_at: Steady,
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// The state before the first entry: nothing but the queue `default`.
    #[must_use]
    pub fn new() -> Self {
        let mut state = Self::empty();
        state.add_queue(QueueSpec::named(DEFAULT_QUEUE));
        state
    }

    /// The same state, which takes in fewer live jobs than [`LIVE_JOBS_MAX`]: millions are too many for a test of the edge. Every server
    /// of a cluster has the limit that is compiled in.
    #[must_use]
    pub fn with_live_jobs_max(self, most: usize) -> Self {
        Self { live_jobs_max: most.min(LIVE_JOBS_MAX), ..self }
    }

    pub(crate) fn empty() -> Self {
        Self {
            index: LogIndex(0),
            now: Timestamp(0),
            steady: Steady(0),
            next_job: JobId(1),
            next_node: NodeId(1),
            next_queue: QueueId(1),
            next_server: ServerId(1),
            level: 0,
            attempts_from: 0,
            jobs: JobMap::new(),
            tasks: BTreeMap::new(),
            nodes: BTreeMap::new(),
            queues: BTreeMap::new(),
            servers: BTreeMap::new(),
            keys: BTreeMap::new(),
            tokens: BTreeMap::new(),
            live_jobs_max: LIVE_JOBS_MAX,
            kv: Store::default(),
            shapes: Shapes::default(),
            terms: Pool::default(),
            submitters: Pool::default(),
            waiting: BTreeSet::new(),
            node_names: BTreeMap::new(),
            queue_names: BTreeMap::new(),
            keys_by_age: BTreeSet::new(),
            live_tasks: 0,
        }
    }

    /// The position of the last applied entry.
    #[must_use]
    pub fn index(&self) -> LogIndex {
        self.index
    }

    /// The wall-clock time of the last applied entry.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The steady time of the last applied entry.
    #[must_use]
    pub fn steady(&self) -> Steady {
        self.steady
    }

    /// The id that the next job will get.
    #[must_use]
    pub fn next_job(&self) -> JobId {
        self.next_job
    }

    /// The feature level that the cluster has agreed on.
    #[must_use]
    pub fn level(&self) -> u32 {
        self.level
    }

    /// The servers that are known, by id.
    pub fn servers(&self) -> impl Iterator<Item = (ServerId, &Server)> {
        self.servers.iter().map(|(id, server)| (*id, server))
    }

    /// A server.
    #[must_use]
    pub fn server(&self, id: ServerId) -> Option<&Server> {
        self.servers.get(&id)
    }

    /// Whether a server with this number was there and is not any more. Founders announce themselves in any order; numbers rise only
    /// when one is given out or taken back.
    #[must_use]
    pub fn has_gone(&self, id: ServerId) -> bool {
        id < self.next_server && !self.servers.contains_key(&id)
    }

    /// Jobs that are not over, by id.
    pub fn jobs(&self) -> impl DoubleEndedIterator<Item = (JobId, &Job)> {
        self.jobs.iter().map(|(id, job)| (id, job.as_ref()))
    }

    /// Jobs that are not over and whose id is below `before`, newest first.
    pub fn jobs_before(&self, before: JobId) -> impl Iterator<Item = (JobId, &Job)> {
        self.jobs.below(before).rev().map(|(id, job)| (id, job.as_ref()))
    }

    /// How many jobs are not over.
    #[must_use]
    pub fn job_count(&self) -> usize {
        self.jobs.len()
    }

    /// How many tasks are not over.
    #[must_use]
    pub fn live_tasks(&self) -> u64 {
        self.live_tasks
    }

    /// A job that is not over.
    #[must_use]
    pub fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(id).map(AsRef::as_ref)
    }

    /// The group that a task of a live job belongs to.
    #[must_use]
    pub fn group(&self, id: TaskId) -> Option<&Group> {
        let job = self.job(id.job)?;
        job.group_of(id.index).and_then(|place| job.groups.get(place))
    }

    /// A task that has been tried and is not over.
    #[must_use]
    pub fn task(&self, id: TaskId) -> Option<&Task> {
        self.tasks.get(&id)
    }

    /// Tasks of a job that have been tried and are not over, by index.
    pub fn tasks_of(&self, job: JobId) -> impl Iterator<Item = (TaskId, &Task)> {
        self.tasks_in(job, (0, u32::MAX))
    }

    /// Tasks of a job that have been tried and are not over, with an index from the first up to, not including, the second.
    pub(crate) fn tasks_in(
        &self,
        job: JobId,
        (start, end): (u32, u32),
    ) -> impl Iterator<Item = (TaskId, &Task)> {
        let from = TaskId { job, index: start };
        let to = TaskId { job, index: end.max(start) };
        self.tasks.range(from..to).map(|(id, task)| (*id, task))
    }

    /// Where a task of a live job stands; `None` if the job is not live or has no such task.
    #[must_use]
    pub fn standing(&self, id: TaskId) -> Option<Standing<'_>> {
        let job = self.job(id.job)?;
        let group = job.group_of(id.index).and_then(|place| job.groups.get(place))?;
        Some(if let Some(task) = self.tasks.get(&id) {
            Standing::Tried(task)
        } else if group.fresh.contains(id.index) {
            Standing::Fresh
        } else if job.failed().contains(id.index) {
            Standing::Over(TaskState::Failed)
        } else if job.cancelled().contains(id.index) {
            Standing::Over(TaskState::Cancelled)
        } else {
            Standing::Over(TaskState::Succeeded)
        })
    }

    /// What tasks of a group demand of a node.
    ///
    /// # Panics
    /// If no live group has this shape.
    #[must_use]
    pub fn shape(&self, id: ShapeId) -> &Arc<Shape> {
        &self.shapes.get(id).shape
    }

    /// Every shape that a live group has, with how many tasks of it are queued and running.
    pub fn shapes(&self) -> impl Iterator<Item = (&Shape, u64, u64)> {
        self.shapes.iter().map(|(_, entry)| {
            let ShapeUse { shape, queued, running, .. } = entry;
            (shape.as_ref(), *queued, *running)
        })
    }

    /// Nodes, by id.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// Nodes with an id above `after`, by id.
    pub fn nodes_after(&self, after: NodeId) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.range((Bound::Excluded(after), Bound::Unbounded)).map(|(id, node)| (*id, node))
    }

    /// One node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// A node by name.
    #[must_use]
    pub fn node_named(&self, name: &str) -> Option<(NodeId, &Node)> {
        let id = *self.node_names.get(name)?;
        self.nodes.get(&id).map(|node| (id, node))
    }

    /// Queues, by id.
    pub fn queues(&self) -> impl Iterator<Item = (QueueId, &Queue)> {
        self.queues.iter().map(|(id, queue)| (*id, queue))
    }

    /// One queue.
    #[must_use]
    pub fn queue(&self, id: QueueId) -> Option<&Queue> {
        self.queues.get(&id)
    }

    /// A queue by name.
    #[must_use]
    pub fn queue_named(&self, name: &str) -> Option<(QueueId, &Queue)> {
        let id = *self.queue_names.get(name)?;
        self.queues.get(&id).map(|queue| (id, queue))
    }

    /// Tokens, by id. Some may have ended.
    pub fn tokens(&self) -> impl Iterator<Item = &Token> {
        self.tokens.values()
    }

    /// One token. It may have ended.
    #[must_use]
    pub fn token(&self, id: &str) -> Option<&Token> {
        self.tokens.get(id)
    }

    /// The key-value store, with its sessions and locks.
    #[must_use]
    pub fn kv(&self) -> &Store {
        &self.kv
    }

    /// What a node must run: the whole truth that its worker needs. Each staged task follows the one that it is behind.
    pub fn desired(&self, node: NodeId) -> impl Iterator<Item = (AttemptId, &Attempt)> {
        let known = self.nodes.get(&node);
        let tasks =
            known.into_iter().flat_map(|node| node.live.iter().flat_map(|id| node.line(id)));
        tasks.filter_map(|id| {
            let task = self.tasks.get(id)?;
            task.attempt().map(|attempt| (task.latest(*id), attempt))
        })
    }

    /// When a [`Tick`](crate::command::Command::Tick) would next be worth its entry: at the end of a back-off or a session, and for idempotency
    /// keys at most once a second, because each of them expires at an instant of its own.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Steady> {
        let waiting = self.waiting.first().map(|(until, _)| *until);
        let key = self.keys_by_age.first().map(|(used_at, _)| {
            let Steady(end) = used_at.plus(IDEMPOTENCY_WINDOW);
            let second = Span::from_secs(1).micros();
            Steady(end.checked_next_multiple_of(second).unwrap_or(end))
        });
        [waiting, key, self.kv.next_deadline()].into_iter().flatten().min()
    }

    pub(crate) fn add_queue(&mut self, spec: QueueSpec) {
        let id = self.next_queue;
        self.next_queue = id.next();
        self.queue_names.insert(spec.name.clone(), id);
        self.queues.insert(id, Queue { spec, paused: false, counts: Default::default() });
    }

    /// Moves `tasks` tasks of one group from one slot to another, in every count that knows them. The only writer of counts.
    pub(crate) fn shift(&mut self, of: GroupAt, from: Option<Slot>, to: Slot, tasks: u64) {
        let Some(job) = self.jobs.get_mut(of.job) else {
            return;
        };
        let queue = self.queues.get_mut(&job.queue);
        let Some(group) = job.groups.get_mut(of.group) else {
            return;
        };
        let live = |slot: Slot| !matches!(slot, Slot::Over(_));
        if let Some(from) = from {
            group.tally.less(from, tasks);
            if live(from) {
                less(&mut job.live, tasks);
                less(&mut self.live_tasks, tasks);
            }
        }
        group.tally.more(to, tasks);
        if live(to) {
            more(&mut job.live, tasks);
            more(&mut self.live_tasks, tasks);
        }
        if let Some(queue) = queue {
            if let Some(from) = from.filter(|slot| live(*slot)) {
                less(queue.counts.slot(from), tasks);
            }
            if live(to) {
                more(queue.counts.slot(to), tasks);
            }
        }
        if let Some(shape) = self.shapes.get_mut(group.shape) {
            match from {
                Some(Slot::Queued) => less(&mut shape.queued, tasks),
                Some(Slot::Running) => less(&mut shape.running, tasks),
                Some(Slot::Waiting | Slot::Over(_)) | None => {}
            }
            match to {
                Slot::Queued => more(&mut shape.queued, tasks),
                Slot::Running => more(&mut shape.running, tasks),
                Slot::Waiting | Slot::Over(_) => {}
            }
        }
    }

    /// Writes a task's phase, keeping the counts and the index of waiting tasks. The only writer of phases.
    pub(crate) fn set_phase(&mut self, id: TaskId, of: GroupAt, phase: Phase) {
        let Some(task) = self.tasks.get_mut(&id) else {
            return;
        };
        let (from, to) = (slot_of(&task.phase), slot_of(&phase));
        if let Phase::Waiting { until } = task.phase {
            self.waiting.remove(&(until, id));
        }
        if let Phase::Waiting { until } = phase {
            self.waiting.insert((until, id));
        }
        task.phase = phase;
        self.shift(of, Some(from), to, 1);
    }

    /// Ends a task that has been tried: it leaves the map of tasks for good (I5).
    pub(crate) fn end_task(&mut self, id: TaskId, of: GroupAt, how: TaskState) {
        let Some(task) = self.tasks.remove(&id) else {
            return;
        };
        if let Phase::Waiting { until } = task.phase {
            self.waiting.remove(&(until, id));
        }
        self.note_end(id.job, RangeSet::from_range(id.index, id.index.saturating_add(1)), how);
        self.shift(of, Some(slot_of(&task.phase)), Slot::Over(how), 1);
    }

    /// Remembers how tasks ended, unless they ended well.
    pub(crate) fn note_end(&mut self, job: JobId, tasks: RangeSet, how: TaskState) {
        let Some(job) = self.jobs.get_mut(job).filter(|_| !tasks.is_empty()) else {
            return;
        };
        let set: fn(&mut Rare) -> &mut RangeSet = match how {
            TaskState::Succeeded => return,
            TaskState::Failed => |rare| &mut rare.failed,
            TaskState::Cancelled => |rare| &mut rare.cancelled,
        };
        let set = set(job.rare.get_or_insert_default());
        for (start, end) in tasks.ranges() {
            set.insert_range(start, end);
        }
    }
}

/// Names a group: its job, and its place among the job's groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupAt {
    pub(crate) job: JobId,
    pub(crate) group: usize,
}

/// The slot that a phase is counted in.
pub(crate) fn slot_of(phase: &Phase) -> Slot {
    match phase {
        Phase::Queued { .. } | Phase::Staged { .. } => Slot::Queued,
        Phase::Waiting { .. } => Slot::Waiting,
        Phase::Running(_) => Slot::Running,
    }
}

fn more(count: &mut u64, tasks: u64) {
    *count = count.saturating_add(tasks);
}

/// # Panics
/// If more would be taken away than there is: every task is counted before it moves (I9).
fn less(count: &mut u64, tasks: u64) {
    *count = count.checked_sub(tasks).expect("every task is counted before it moves");
}
