//! The oracle's own idea of the world: plain maps, fed with events one by one, counted from scratch each time.

use std::collections::BTreeMap;

use rota_core::command::{
    Backoff, FailureKind, GroupSpec, JobSpec, NodeSpec, Placement, QueueSpec, RetryRule,
};
use rota_core::event::{AttemptRecord, AttemptState, Next};
use rota_core::job::{FinishedJob, TaskState};
use rota_types::limits::LOST_ATTEMPTS_MAX;
use rota_types::{AttemptId, JobId, NodeId, RangeSet, Resources, Steady, TaskId};

/// What is believed of the cluster.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) jobs: BTreeMap<JobId, ModelJob>,
    pub(crate) nodes: BTreeMap<NodeId, ModelNode>,
    pub(crate) queues: BTreeMap<Box<str>, ModelQueue>,
    pub(crate) live: BTreeMap<TaskId, NodeId>,
    staged: BTreeMap<TaskId, Staged>,
    /// What ran and has ended in this entry.
    ended: BTreeMap<TaskId, NodeId>,
}

/// A task that its node was given to run next.
#[derive(Clone, Copy, Debug)]
struct Staged {
    node: NodeId,
    behind: TaskId,
}

#[derive(Debug)]
pub(crate) struct ModelJob {
    pub(crate) spec: JobSpec,
    pub(crate) tasks: Vec<ModelTask>,
    pub(crate) finished: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ModelTask {
    attempts: u32,
    failures: u32,
    lost: u32,
    waiting: Option<Steady>,
    stopping: bool,
    pub(crate) over: Option<TaskState>,
}

#[derive(Debug)]
pub(crate) struct ModelNode {
    pub(crate) spec: NodeSpec,
    pub(crate) draining: bool,
    pub(crate) leaving: bool,
    pub(crate) lost: bool,
}

#[derive(Debug)]
pub(crate) struct ModelQueue {
    pub(crate) spec: QueueSpec,
    pub(crate) paused: bool,
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

impl Model {
    pub(crate) fn new() -> Self {
        let queue = ModelQueue { spec: QueueSpec::named("default"), paused: false };
        Self { queues: [("default".into(), queue)].into(), ..Self::default() }
    }

    pub(crate) fn submitted(&mut self, id: JobId, spec: JobSpec) -> Result<(), String> {
        let tasks: u64 = spec.groups.iter().map(|group| group.array.iter().count() as u64).sum();
        let tasks = vec![ModelTask::default(); usize::try_from(tasks).unwrap_or(0)];
        let known = self.jobs.insert(id, ModelJob { spec, tasks, finished: false });
        ensure(known.is_none(), || format!("I15: job {id} was submitted twice"))
    }

    fn task(&mut self, id: TaskId) -> Result<&mut ModelTask, String> {
        self.jobs
            .get_mut(&id.job)
            .and_then(|job| job.tasks.get_mut(id.index as usize))
            .ok_or_else(|| format!("task {id} is not known"))
    }

    fn group_of(&self, id: TaskId) -> Result<(usize, &GroupSpec), String> {
        let mut first = 0;
        let job = self.jobs.get(&id.job).ok_or_else(|| format!("job {} is not known", id.job))?;
        for (place, group) in job.spec.groups.iter().enumerate() {
            first += group.array.len();
            if u64::from(id.index) < first {
                return Ok((place, group));
            }
        }
        Err(format!("task {id} is in no group"))
    }

    /// Attempts were created: every rule about where and when is looked at again (I2, I3, I5, I8, I11, I12, I13).
    pub(crate) fn created(&mut self, placement: Placement) -> Result<(), String> {
        for index in placement.task.index..placement.task.index.saturating_add(placement.count) {
            let id = TaskId { index, ..placement.task };
            self.may_place(id, placement.node)?;
            self.live.insert(id, placement.node);
            let task = self.task(id)?;
            task.attempts += 1;
        }
        Ok(())
    }

    /// A task was staged: every rule but those about room is looked at, and what it is behind must hold exactly what it will need (I18).
    pub(crate) fn staged(
        &mut self,
        id: TaskId,
        node: NodeId,
        behind: TaskId,
    ) -> Result<(), String> {
        self.may_go(id, node)?;
        let ahead = self.live.get(&behind).copied();
        let ahead = ahead.or_else(|| self.staged.get(&behind).map(|staged| staged.node));
        ensure(ahead == Some(node), || {
            format!("I18: {id} on {node} behind {behind} on {ahead:?}")
        })?;
        ensure(self.staged.values().all(|other| other.behind != behind), || {
            format!("I18: {id} is not the only one behind {behind}")
        })?;
        self.are_alike(id, behind)?;
        self.staged.insert(id, Staged { node, behind });
        self.task(id)?.attempts += 1;
        Ok(())
    }

    /// A staged task has its turn: the one that it was behind has ended just now.
    pub(crate) fn promoted(&mut self, id: TaskId, node: NodeId) -> Result<(), String> {
        let Some(staged) = self.staged.remove(&id) else {
            return Err(format!("I18: {id} was not staged and has its turn"));
        };
        let gone = self.ended.remove(&staged.behind);
        ensure(gone == Some(node) && staged.node == node, || {
            format!("I18: {id} on {node} has its turn: {staged:?}, which was on {gone:?}")
        })?;
        self.are_alike(id, staged.behind)?;
        self.live.insert(id, node);
        Ok(())
    }

    /// Takes a staged task out: what was behind it moves up.
    fn unstage(&mut self, id: TaskId) -> Option<NodeId> {
        let Staged { node, behind } = self.staged.remove(&id)?;
        for other in self.staged.values_mut().filter(|other| other.behind == id) {
            other.behind = behind;
        }
        Some(node)
    }

    /// Tasks that may take each other's room: of one queue, and with the same demands.
    fn are_alike(&self, one: TaskId, other: TaskId) -> Result<(), String> {
        let queue = |id: TaskId| self.jobs.get(&id.job).map(|job| &job.spec.queue);
        let alike = queue(one) == queue(other)
            && self.group_of(one)?.1.shape == self.group_of(other)?.1.shape;
        let free = self.group_of(one)?.1.parallel_max.is_none();
        ensure(alike && free, || format!("I18: {one} can't take the room of {other}"))
    }

    /// An entry was followed.
    pub(crate) fn entry_over(&mut self) {
        self.ended.clear();
    }

    fn may_place(&self, id: TaskId, node: NodeId) -> Result<(), String> {
        self.may_go(id, node)?;
        self.within_limits(id, self.group_of(id)?, node)
    }

    /// Whether a task has an attempt that is not over.
    fn has_attempt(&self, id: TaskId) -> bool {
        self.live.contains_key(&id) || self.staged.contains_key(&id)
    }

    /// Every rule but those about room.
    fn may_go(&self, id: TaskId, node: NodeId) -> Result<(), String> {
        let (_, group) = self.group_of(id)?;
        let job = self.jobs.get(&id.job).ok_or("job is not known")?;
        let task = job.tasks.get(id.index as usize).ok_or("task is not known")?;
        ensure(task.over.is_none(), || format!("I5: {id} is over and gets an attempt: {task:?}"))?;
        ensure(!self.has_attempt(id), || format!("I2: {id} has a live attempt already"))?;
        ensure(!task.stopping, || format!("I12: {id} was cancelled and gets an attempt"))?;
        ensure(task.waiting.is_none(), || format!("I4: {id} waits for its back-off"))?;
        let at =
            self.nodes.get(&node).ok_or_else(|| format!("{id} goes to unknown node {node}"))?;
        ensure(!at.lost, || format!("I8: {id} goes to lost node {node}"))?;
        ensure(!at.leaving, || format!("{id} goes to node {node}, whose worker is about to go"))?;
        ensure(!at.draining, || format!("{id} goes to draining node {node}"))?;
        for constraint in &group.shape.constraints {
            ensure(constraint.admits(&at.spec.labels), || format!("{id} on {node}: {constraint}"))?;
        }
        let queue = self.queues.get(&job.spec.queue).ok_or("a queue is not known")?;
        ensure(!queue.paused, || format!("I13: {id} starts in a paused queue"))
    }

    /// I11, counted from scratch.
    fn within_limits(
        &self,
        id: TaskId,
        (place, group): (usize, &GroupSpec),
        node: NodeId,
    ) -> Result<(), String> {
        let at = self.nodes.get(&node).ok_or("a node is not known")?;
        let queue_name = &self.jobs.get(&id.job).ok_or("a job is not known")?.spec.queue;
        let mut held = group.shape.need.clone();
        let (mut on_node, mut in_queue, mut in_group): (u32, u32, u32) = (1, 1, 1);
        for (other, other_node) in &self.live {
            let (other_place, other_group) = self.group_of(*other)?;
            if *other_node == node {
                on_node += 1;
                add(&mut held, &other_group.shape.need);
            }
            let other_queue = self.jobs.get(&other.job).map(|job| &job.spec.queue);
            in_queue += u32::from(other_queue == Some(queue_name));
            in_group += u32::from(other.job == id.job && other_place == place);
        }
        let fits = held.cpu_millis <= at.spec.capacity.cpu_millis
            && held.memory_bytes <= at.spec.capacity.memory_bytes
            && held
                .named
                .iter()
                .all(|(name, sum)| at.spec.capacity.named.get(name).copied().unwrap_or(0) >= *sum);
        // A task that needs nothing of a resource may start although more is held than a shrunken node has.
        let blamed = fits || !needs_what_is_short(&group.shape.need, &held, &at.spec.capacity);
        ensure(blamed, || format!("I11: {id} on node {node}: {held:?} of {:?}", at.spec.capacity))?;
        ensure(on_node <= at.spec.attempts_max, || {
            format!("I11: {on_node} attempts on node {node}")
        })?;
        let queue_max = self.queues.get(queue_name).and_then(|queue| queue.spec.running_max);
        ensure(queue_max.is_none_or(|max| in_queue <= max), || {
            format!("I11: {id}: {in_queue} run in queue {queue_name}")
        })?;
        ensure(group.parallel_max.is_none_or(|max| in_group <= max), || {
            format!("I11: {id}: {in_group} of its group run")
        })
    }

    /// An attempt is over: its number, its node and what follows must be what the policy says (I3, I4, I5).
    pub(crate) fn ended(&mut self, record: &AttemptRecord, steady: Steady) -> Result<(), String> {
        let AttemptId { task: id, number } = record.attempt;
        let retry = self.group_of(id)?.1.retry.clone();
        let staged = self.unstage(id);
        self.ended.extend(self.live.get(&id).map(|node| (id, *node)));
        let node = self.live.remove(&id).or(staged);
        ensure(node == Some(record.node), || {
            format!(
                "I2: {} ended on node {}, but was live on {node:?}",
                record.attempt, record.node
            )
        })?;
        let task = self.task(id)?;
        ensure(task.attempts == number, || {
            format!("I3: {} ended, but the latest attempt is {}", record.attempt, task.attempts)
        })?;
        let stopping = task.stopping;
        ensure(stopping == (record.state == AttemptState::Cancelled), || {
            format!("I12: {} ended {:?}, stop requested: {stopping}", record.attempt, record.state)
        })?;
        let expected = match record.state {
            AttemptState::Succeeded => Expected::Over(TaskState::Succeeded),
            AttemptState::Cancelled => Expected::Over(TaskState::Cancelled),
            AttemptState::Lost => {
                task.lost += 1;
                if task.lost > LOST_ATTEMPTS_MAX {
                    Expected::Over(TaskState::Failed)
                } else {
                    Expected::Pause(0, 0)
                }
            }
            AttemptState::Recalled => Expected::Pause(0, 0),
            AttemptState::Failed => {
                task.failures += 1;
                let kind = record.failure.as_ref().map(|failure| failure.kind);
                if task.failures < retry.attempts_max
                    && kind.is_some_and(|kind| allowed(&retry.on, kind))
                {
                    let (least, most) = pause(retry.backoff, task.failures);
                    Expected::Pause(least, most)
                } else {
                    Expected::Over(TaskState::Failed)
                }
            }
        };
        let right = match (record.next, &expected) {
            (Next::Finished(how), Expected::Over(wanted)) => how == *wanted,
            (Next::Queued, Expected::Pause(least, _)) => *least == 0,
            (Next::Waiting(until), Expected::Pause(least, most)) => {
                let wait = until.since(steady).0;
                (*least..=*most).contains(&wait)
            }
            (Next::Finished(_) | Next::Queued | Next::Waiting(_), _) => false,
        };
        ensure(right, || format!("I4: {record:?}; expected {expected:?} after {task:?}"))?;
        match record.next {
            Next::Finished(how) => task.over = Some(how),
            Next::Waiting(until) => task.waiting = Some(until),
            Next::Queued => {}
        }
        Ok(())
    }

    pub(crate) fn stop_requested(&mut self, attempt: AttemptId) -> Result<(), String> {
        let live = self.has_attempt(attempt.task);
        let task = self.task(attempt.task)?;
        ensure(live && task.attempts == attempt.number, || format!("{attempt} is not live"))?;
        task.stopping = true;
        Ok(())
    }

    pub(crate) fn queued(&mut self, id: TaskId, steady: Steady) -> Result<(), String> {
        let task = self.task(id)?;
        let until = task.waiting.take();
        ensure(until.is_some_and(|until| until <= steady), || {
            format!("I4: {id} waits until {until:?} and is queued at {steady:?}")
        })
    }

    pub(crate) fn cancelled(&mut self, job: JobId, tasks: &RangeSet) -> Result<(), String> {
        for index in tasks.iter() {
            let id = TaskId { job, index };
            let live = self.has_attempt(id);
            let task = self.task(id)?;
            ensure(!live && task.over.is_none(), || {
                format!("I5: {id} is cancelled as idle: {task:?}")
            })?;
            task.over = Some(TaskState::Cancelled);
            task.waiting = None;
        }
        Ok(())
    }

    /// A cancel was granted: each of its tasks is over, or its attempt was told to stop (I12).
    pub(crate) fn is_cancelled(&self, job: JobId, tasks: Option<&RangeSet>) -> Result<(), String> {
        let known = self.jobs.get(&job).ok_or_else(|| format!("job {job} is not known"))?;
        for (index, task) in known.tasks.iter().enumerate() {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            let chosen = tasks.is_none_or(|tasks| tasks.contains(index));
            ensure(!chosen || task.over.is_some() || task.stopping, || {
                format!("I12: {job}.{index} was cancelled, but goes on: {task:?}")
            })?;
        }
        Ok(())
    }

    pub(crate) fn job_finished(&mut self, job: &FinishedJob) -> Result<(), String> {
        let known = self.jobs.get_mut(&job.id).ok_or("an unknown job finished")?;
        ensure(!known.finished, || format!("I15: job {} finished twice", job.id))?;
        known.finished = true;
        ensure(known.spec == job.spec, || format!("job {} is not what was submitted", job.id))?;
        let count = |how| known.tasks.iter().filter(|task| task.over == Some(how)).count() as u64;
        let sets = |how| {
            let tasks = known.tasks.iter().enumerate();
            let of = tasks.filter(|(_, task)| task.over == Some(how));
            of.filter_map(|(index, _)| u32::try_from(index).ok()).collect::<RangeSet>()
        };
        let counts = job.counts;
        let right = counts.succeeded == count(TaskState::Succeeded)
            && counts.failed == count(TaskState::Failed)
            && counts.cancelled == count(TaskState::Cancelled)
            && counts.total() == known.tasks.len() as u64
            && job.failed == sets(TaskState::Failed)
            && job.cancelled == sets(TaskState::Cancelled);
        ensure(right, || format!("job {} finished as {counts:?}, not {:?}", job.id, known.tasks))
    }

    /// Whether the attempt was granted to the node of that name.
    pub(crate) fn is_granted(&self, attempt: AttemptId, node: &str) -> Result<(), String> {
        let task = self
            .jobs
            .get(&attempt.task.job)
            .and_then(|job| job.tasks.get(attempt.task.index as usize));
        let number = task.map_or(0, |task| task.attempts);
        let granted = attempt.number >= 1 && attempt.number <= number;
        ensure(granted, || format!("{node} starts {attempt}, which nobody granted"))
    }
}

#[derive(Debug)]
enum Expected {
    Over(TaskState),
    /// Least and most microseconds until it may run again.
    Pause(u64, u64),
}

fn add(sum: &mut Resources, more: &Resources) {
    sum.cpu_millis += more.cpu_millis;
    sum.memory_bytes += more.memory_bytes;
    for (name, amount) in &more.named {
        *sum.named.entry(name.clone()).or_insert(0) += amount;
    }
}

fn needs_what_is_short(need: &Resources, held: &Resources, capacity: &Resources) -> bool {
    let short = |need: u64, held: u64, capacity: u64| need > 0 && held > capacity;
    short(need.cpu_millis, held.cpu_millis, capacity.cpu_millis)
        || short(need.memory_bytes, held.memory_bytes, capacity.memory_bytes)
        || need.named.iter().any(|(name, amount)| {
            let of = |of: &Resources| of.named.get(name).copied().unwrap_or(0);
            short(*amount, of(held), of(capacity))
        })
}

fn allowed(on: &[RetryRule], kind: FailureKind) -> bool {
    let fits = |rule: &RetryRule| match *rule {
        RetryRule::Exit(low, high) => {
            matches!(kind, FailureKind::Exit(code) if code >= low && code <= high)
        }
        RetryRule::Signal => matches!(kind, FailureKind::Signal(_)),
        RetryRule::Timeout => kind == FailureKind::Timeout,
        RetryRule::Start => kind == FailureKind::Start,
        RetryRule::Http => matches!(kind, FailureKind::Http(_)),
    };
    on.is_empty() || on.iter().any(fits)
}

fn pause(backoff: Backoff, failures: u32) -> (u64, u64) {
    let mut least = backoff.base.0;
    for _ in 1..failures {
        least = (least * 2).min(backoff.max.0);
    }
    least = least.min(backoff.max.0);
    (least, least + least * u64::from(backoff.jitter_percent) / 100)
}
