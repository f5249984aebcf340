//! The state as records: what a snapshot holds. Only what can't be derived; `restore` rebuilds the rest.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::hash::{Hash, Hasher};

use rota_types::{
    JobId, LogIndex, NodeId, QueueId, RangeSet, Revision, ServerId, SessionId, Steady, TaskId,
    Timestamp,
};

use crate::command::{JobSpec, NodeSpec, QueueSpec};
use crate::job::{Job, Slot, TaskState};
use crate::kv::{Lock, Pair};
use crate::node::Node;
use crate::queue::Queue;
use crate::server::Server;
use crate::state::{GroupAt, State, slot_of};
use crate::task::{Phase, Task};
use crate::token::Token;

pub use crate::kv::SessionRecord;
pub use crate::state::KeyUse;

/// One piece of the state. A snapshot is a [`Record::Meta`] followed by servers, queues, nodes, jobs, tasks, idempotency keys, tokens,
/// sessions, keys of the key-value store and locks, each by id or name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// Positions, clocks and counters.
    Meta(Meta),
    /// One server.
    Server(Server),
    /// One queue.
    Queue(QueueRecord),
    /// One node.
    Node(NodeRecord),
    /// One live job.
    Job(Box<JobRecord>),
    /// One task that was tried and is not over.
    Task(TaskId, Task),
    /// One idempotency key.
    Key(Arc<str>, KeyUse),
    /// One token.
    Token(Token),
    /// One session.
    Session(SessionRecord),
    /// One key of the key-value store.
    Pair(Arc<str>, Pair),
    /// One lock.
    Lock(Arc<str>, Lock),
}

/// Positions, clocks and counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Meta {
    /// The position of the last applied entry.
    pub index: LogIndex,
    /// Its wall-clock time.
    pub now: Timestamp,
    /// Its steady time.
    pub steady: Steady,
    /// The id that the next job will get.
    pub next_job: JobId,
    /// The id that the next node will get.
    pub next_node: NodeId,
    /// The id that the next queue will get.
    pub next_queue: QueueId,
    /// The id that the next server will get.
    pub next_server: ServerId,
    /// The feature level.
    pub level: u32,
    /// The id that the next session will get.
    pub next_session: SessionId,
    /// The revision of the key-value store.
    pub revision: Revision,
    /// Attempts get numbers above this.
    pub attempts_from: u32,
}

/// One queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QueueRecord {
    /// Its id.
    pub id: QueueId,
    /// Its settings.
    pub spec: QueueSpec,
    /// Whether its tasks may start.
    pub paused: bool,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeRecord {
    /// Its id.
    pub id: NodeId,
    /// What its worker said.
    pub spec: NodeSpec,
    /// Whether an operator wants it empty.
    pub draining: bool,
    /// Whether its worker is about to go.
    pub leaving: bool,
    /// Whether its lease ran out.
    pub lost: bool,
    /// When its worker registered last.
    pub registered_at: Timestamp,
}

/// One live job.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JobRecord {
    /// Its id.
    pub id: JobId,
    /// Its queue: the spec's name for it may have been given to another queue since.
    pub queue: QueueId,
    /// What was submitted.
    pub spec: JobSpec,
    /// When it was submitted, by the leader's wall clock.
    pub submitted_at: Timestamp,
    /// When its fresh tasks became ready.
    pub ready_at: Steady,
    /// When its first attempt was placed.
    pub started_at: Option<Timestamp>,
    /// Tasks that were never tried.
    pub fresh: RangeSet,
    /// Tasks that failed.
    pub failed: RangeSet,
    /// Tasks that were cancelled.
    pub cancelled: RangeSet,
}

/// A snapshot that is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadImage(
    /// What is wrong.
    pub &'static str,
);

impl fmt::Display for BadImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the snapshot does not hold a state: {}", self.0)
    }
}

impl core::error::Error for BadImage {}

impl State {
    /// The state as records, in the order in which [`State::restore`] wants them.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let meta = Record::Meta(Meta {
            index: self.index,
            now: self.now,
            steady: self.steady,
            next_job: self.next_job,
            next_node: self.next_node,
            next_queue: self.next_queue,
            next_server: self.next_server,
            level: self.level,
            next_session: self.kv.next_session,
            revision: self.kv.revision,
            attempts_from: self.attempts_from,
        });
        let servers = self.servers.values().map(|server| Record::Server(server.clone()));
        let queues = self.queues.iter().map(|(id, queue)| {
            let Queue { spec, paused, counts: _ } = queue;
            Record::Queue(QueueRecord { id: *id, spec: spec.clone(), paused: *paused })
        });
        let nodes = self.nodes.iter().map(|(id, node)| {
            let Node {
                spec,
                draining,
                leaving,
                lost,
                registered_at,
                held: _,
                free: _,
                live: _,
                staged: _,
            } = node;
            Record::Node(NodeRecord {
                id: *id,
                spec: spec.clone(),
                draining: *draining,
                leaving: *leaving,
                lost: *lost,
                registered_at: *registered_at,
            })
        });
        let jobs =
            self.jobs.iter().map(|(id, job)| Record::Job(Box::new(self.job_record(id, job))));
        let tasks = self.tasks.iter().map(|(id, task)| Record::Task(*id, task.clone()));
        let keys = self.keys.iter().map(|(key, used)| Record::Key(Arc::clone(key), *used));
        let tokens = self.tokens.values().map(|token| Record::Token(token.clone()));
        core::iter::once(meta)
            .chain(servers)
            .chain(queues)
            .chain(nodes)
            .chain(jobs)
            .chain(tasks)
            .chain(keys)
            .chain(tokens)
            .chain(self.kv.records())
    }

    fn job_record(&self, id: JobId, job: &Job) -> JobRecord {
        let mut fresh = RangeSet::default();
        for (start, end) in job.groups.iter().flat_map(|group| group.fresh.ranges()) {
            fresh.insert_range(start, end);
        }
        JobRecord {
            id,
            queue: job.queue,
            spec: self.spec_of(job),
            submitted_at: job.submitted_at,
            ready_at: job.ready_at,
            started_at: job.started_at,
            fresh,
            failed: job.failed().clone(),
            cancelled: job.cancelled().clone(),
        }
    }

    /// Builds the state that the records were taken from.
    ///
    /// # Errors
    /// If the records contradict each other; they were damaged, or written by something else.
    pub fn restore<E>(records: impl Iterator<Item = Result<Record, E>>) -> Result<Self, E>
    where
        E: From<BadImage>,
    {
        let mut state = Self::empty();
        let mut has_meta = false;
        for record in records {
            has_meta |= state.restore_record(record?)?;
        }
        if !has_meta {
            return Err(BadImage("it has no head").into());
        }
        Ok(state)
    }

    /// Returns whether the record was the head.
    fn restore_record(&mut self, record: Record) -> Result<bool, BadImage> {
        match record {
            Record::Meta(meta) => {
                self.index = meta.index;
                self.now = meta.now;
                self.steady = meta.steady;
                self.next_job = meta.next_job;
                self.next_node = meta.next_node;
                self.next_queue = meta.next_queue;
                self.next_server = meta.next_server;
                self.level = meta.level;
                self.kv.next_session = meta.next_session;
                self.kv.revision = meta.revision;
                self.attempts_from = meta.attempts_from;
                return Ok(true);
            }
            Record::Server(server) => {
                self.servers.insert(server.spec.id, server);
            }
            Record::Queue(QueueRecord { id, spec, paused }) => {
                self.queue_names.insert(spec.name.clone(), id);
                self.queues.insert(id, Queue { spec, paused, counts: Default::default() });
            }
            Record::Node(record) => {
                let NodeRecord { id, spec, draining, leaving, lost, registered_at } = record;
                self.node_names.insert(spec.name.clone(), id);
                self.nodes
                    .insert(id, Node { draining, leaving, lost, ..Node::new(spec, registered_at) });
            }
            Record::Job(record) => self.restore_job(*record)?,
            Record::Task(id, task) => self.restore_task(id, task)?,
            Record::Key(key, used) => {
                self.keys_by_age.insert((used.used_at, Arc::clone(&key)));
                self.keys.insert(key, used);
            }
            Record::Token(token) => {
                self.tokens.insert(token.spec.id.clone(), token);
            }
            Record::Session(session) => self.kv.restore_session(session),
            Record::Pair(key, pair) => self.kv.restore_pair(key, pair)?,
            Record::Lock(name, lock) => self.kv.restore_lock(name, lock)?,
        }
        Ok(false)
    }

    /// Takes a job in with its fresh tasks queued, and everything that is neither fresh nor failed nor cancelled counted as
    /// succeeded; the tasks that follow correct that.
    fn restore_job(&mut self, record: JobRecord) -> Result<(), BadImage> {
        let JobRecord {
            id,
            queue,
            spec,
            submitted_at,
            ready_at,
            started_at,
            fresh,
            failed,
            cancelled,
        } = record;
        if !self.queues.contains_key(&queue) {
            return Err(BadImage("a job names a queue that is not there"));
        }
        let mut job = Job { submitted_at, ready_at, started_at, ..self.fresh_job(&spec, queue) };
        let mut sizes = Vec::with_capacity(job.groups.len());
        for group in job.groups.iter_mut() {
            let all = core::mem::take(&mut group.fresh);
            group.fresh = all.intersection(&fresh);
            let failed = all.intersection(&failed).len();
            let cancelled = all.intersection(&cancelled).len();
            let known = group.fresh.len().saturating_add(failed).saturating_add(cancelled);
            let succeeded =
                all.len().checked_sub(known).ok_or(BadImage("a task is in two states"))?;
            sizes.push((group.fresh.len(), succeeded, failed, cancelled));
        }
        self.jobs.insert(id, Box::new(job));
        self.note_end(id, failed, TaskState::Failed);
        self.note_end(id, cancelled, TaskState::Cancelled);
        for (group, (fresh, succeeded, failed, cancelled)) in sizes.into_iter().enumerate() {
            let at = GroupAt { job: id, group };
            self.shift(at, None, Slot::Queued, fresh);
            self.shift(at, None, Slot::Over(TaskState::Succeeded), succeeded);
            self.shift(at, None, Slot::Over(TaskState::Failed), failed);
            self.shift(at, None, Slot::Over(TaskState::Cancelled), cancelled);
        }
        Ok(())
    }

    fn restore_task(&mut self, id: TaskId, task: Task) -> Result<(), BadImage> {
        let job = self.jobs.get(id.job).ok_or(BadImage("a task belongs to no job"))?;
        let place = job.group_of(id.index).ok_or(BadImage("a task belongs to no group"))?;
        let group = job.groups.get(place).ok_or(BadImage("a task belongs to no group"))?;
        if group.tally.succeeded == 0 || group.fresh.contains(id.index) {
            return Err(BadImage("a task is in two states"));
        }
        let shape = self.shapes.get(group.shape);
        match &task.phase {
            Phase::Running(attempt) => {
                let node =
                    self.nodes.get_mut(&attempt.node).ok_or(BadImage("an attempt runs nowhere"))?;
                node.hold(&shape.shape.need, 1);
                node.live.insert(id);
            }
            Phase::Staged { attempt, behind, .. } => {
                let node =
                    self.nodes.get_mut(&attempt.node).ok_or(BadImage("an attempt runs nowhere"))?;
                if node.staged.insert(*behind, id).is_some() {
                    return Err(BadImage("two tasks are staged behind one"));
                }
            }
            Phase::Waiting { until } => {
                self.waiting.insert((*until, id));
            }
            Phase::Queued { .. } => {}
        }
        let from = Some(Slot::Over(TaskState::Succeeded));
        self.shift(GroupAt { job: id.job, group: place }, from, slot_of(&task.phase), 1);
        self.tasks.insert(id, task);
        Ok(())
    }

    /// Whether a walk over the whole state, such as [`digest`](Self::digest), looks at no more than this many bytes, each thing counted as
    /// [`THING_BYTES`] at least. Answers as soon as that is known.
    #[must_use]
    pub fn is_walked_within(&self, bytes: u64) -> bool {
        let Self { jobs, tasks, nodes, queues, servers, keys, tokens, kv, .. } = self;
        let things = [tasks.len(), nodes.len(), queues.len(), servers.len(), keys.len()];
        let more = [tokens.len(), kv.pairs.len(), kv.sessions.len()];
        let things = things.into_iter().chain(more).map(|count| count as u64);
        let things = things.chain([kv.usage.claims]).fold(0, u64::saturating_add);
        let fixed = things.saturating_mul(THING_BYTES).saturating_add(kv.usage.bytes);
        let mut groups = jobs.iter().flat_map(|(_, job)| job.groups.iter()).map(|group| {
            let ranges = group.array.ranges().count().saturating_add(group.fresh.ranges().count());
            let bytes = group.action.len().saturating_add(ranges.saturating_mul(8));
            THING_BYTES.saturating_add(bytes as u64)
        });
        let left = bytes.checked_sub(fixed);
        left.and_then(|left| groups.try_fold(left, u64::checked_sub)).is_some()
    }

    /// A digest of the whole state: equal prefixes of the log give equal digests (I7). Costs a walk over the state; detects
    /// accidents, not attacks.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hasher = Fnv(0xCBF2_9CE4_8422_2325);
        for record in self.records() {
            record.hash(&mut hasher);
        }
        hasher.finish()
    }

    /// A digest at bounded cost: of the whole state while it is small, and of a part of it otherwise, another one for each `seed`. Equal
    /// states give equal samples.
    #[must_use]
    pub fn sample(&self, seed: u64) -> u64 {
        if self.is_walked_within(SAMPLE_BYTES_MAX) {
            return self.digest();
        }
        let mut hasher = Fnv(0xCBF2_9CE4_8422_2325);
        for record in self.records().take(SAMPLE_THINGS_MAX) {
            if matches!(record, Record::Job(_)) {
                break;
            }
            record.hash(&mut hasher);
        }
        (self.jobs.len(), self.tasks.len(), self.live_tasks, self.kv.usage.bytes).hash(&mut hasher);
        let spread = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let before = JobId(spread % self.next_job.0.max(1)).next();
        for (id, job) in self.jobs_before(before).take(SAMPLE_THINGS_MAX / 8) {
            self.job_record(id, job).hash(&mut hasher);
            for task in self.tasks_of(id).take(SAMPLE_THINGS_MAX / 8) {
                task.hash(&mut hasher);
            }
        }
        hasher.finish()
    }
}

/// How large a state may be that is sampled whole: about a millisecond.
const SAMPLE_BYTES_MAX: u64 = 1 << 20;
/// How many things of a larger one are looked at.
const SAMPLE_THINGS_MAX: usize = 512;

/// What one thing of the state costs at least, in bytes of a walk over it.
pub const THING_BYTES: u64 = 256;

/// FNV-1a, taken eight bytes at a time where they come so (Fowler, Noll and Vo).
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(23);
    }
}
