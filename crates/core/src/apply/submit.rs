//! `SubmitJobs`: all jobs of a request are taken in, or none.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

use rota_types::limits::{
    ACTION_BYTES_MAX, ATTEMPTS_MAX, BACKOFF_MAX, CONSTRAINT_VALUES_MAX, CONSTRAINTS_MAX,
    ESTIMATE_MAX, GROUPS_MAX, IDEMPOTENCY_KEY_BYTES_MAX, IDEMPOTENCY_KEYS_MAX, JOB_TASKS_MAX,
    LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, LIVE_TASKS_MAX, NAME_BYTES_MAX,
    PRIORITY_MAX, RESOURCE_AMOUNT_MAX, RESOURCES_MAX, RETRY_RULES_MAX, SUBMIT_JOBS_MAX,
    TIMEOUT_MAX,
};
use rota_types::{Constraint, JobId, Labels, Predicate, QueueId, RangeSet, Resources};

use crate::command::{
    GroupSpec, IdempotencyKey, JobSpec, Outcome, Rejection, Reply, RetryPolicy, SubmitJobs,
};
use crate::event::Event;
use crate::job::{Group, Job, Rare, Slot, Tally, Terms};
use crate::state::{GroupAt, KeyUse, State};

impl State {
    pub(super) fn submit_jobs(&mut self, submit: &SubmitJobs, events: &mut Vec<Event>) -> Outcome {
        if let Some(reply) = self.replay(submit.idempotency.as_ref())? {
            return Ok(reply);
        }
        self.admit(submit)?;
        let first = self.next_job;
        for spec in &submit.jobs {
            let id = self.next_job;
            self.next_job = id.next();
            self.take_in(id, spec);
            events.push(Event::JobSubmitted(id));
        }
        let count = u32::try_from(submit.jobs.len()).unwrap_or(u32::MAX);
        if let Some(IdempotencyKey { key, digest }) = &submit.idempotency {
            self.make_room_for_a_key();
            let key: Arc<str> = Arc::from(key.as_ref());
            let used_at = self.steady;
            self.keys_by_age.insert((used_at, Arc::clone(&key)));
            self.keys.insert(key, KeyUse { digest: *digest, first, count, used_at });
        }
        Ok(Reply::Submitted { first, count, replayed: false })
    }

    /// The earlier answer to the same request, if there was one (I14).
    fn replay(&self, idempotency: Option<&IdempotencyKey>) -> Result<Option<Reply>, Rejection> {
        let Some(IdempotencyKey { key, digest }) = idempotency else {
            return Ok(None);
        };
        limit("Idempotency-Key bytes", key.len() as u64, IDEMPOTENCY_KEY_BYTES_MAX as u64)?;
        match self.keys.get(key.as_ref()) {
            None => Ok(None),
            Some(used) if used.digest == *digest => {
                Ok(Some(Reply::Submitted { first: used.first, count: used.count, replayed: true }))
            }
            Some(_) => Err(Rejection::IdempotencyConflict(key.clone())),
        }
    }

    /// Forgets the oldest keys if there are as many as there may be: new work goes before the memory of old.
    fn make_room_for_a_key(&mut self) {
        while self.keys.len() >= IDEMPOTENCY_KEYS_MAX {
            let Some((_, oldest)) = self.keys_by_age.pop_first() else { return };
            self.keys.remove(&oldest);
        }
    }

    /// Checks everything before anything changes.
    fn admit(&self, submit: &SubmitJobs) -> Result<(), Rejection> {
        let SubmitJobs { jobs, idempotency: _ } = submit;
        if jobs.is_empty() {
            return Err(Rejection::Invalid { what: "jobs", why: "there must be at least one" });
        }
        limit("jobs in one submit", jobs.len() as u64, SUBMIT_JOBS_MAX as u64)?;
        limit(
            "live jobs",
            (self.jobs.len() as u64).saturating_add(jobs.len() as u64),
            self.live_jobs_max as u64,
        )?;
        let mut live = self.live_tasks;
        let mut per_queue: Vec<(QueueId, u64)> = Vec::new();
        for spec in jobs {
            let tasks = check_job(spec)?;
            live = live.saturating_add(tasks);
            let queue = self
                .queue_names
                .get(&spec.queue)
                .ok_or_else(|| Rejection::UnknownQueue(spec.queue.clone()))?;
            match per_queue.iter_mut().find(|(id, _)| id == queue) {
                Some((_, sum)) => *sum = sum.saturating_add(tasks),
                None => per_queue.push((*queue, tasks)),
            }
        }
        limit("live tasks", live, LIVE_TASKS_MAX)?;
        per_queue.into_iter().try_for_each(|(queue, tasks)| self.check_room(queue, tasks))
    }

    fn check_room(&self, queue: QueueId, tasks: u64) -> Result<(), Rejection> {
        let Some(queue) = self.queues.get(&queue) else {
            return Ok(());
        };
        match queue.spec.tasks_max {
            Some(limit) if queue.counts.live().saturating_add(tasks) > limit => {
                Err(Rejection::QueueFull { queue: queue.spec.name.clone(), limit })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn take_in(&mut self, id: JobId, spec: &JobSpec) {
        let queue = *self.queue_names.get(&spec.queue).expect("admitted jobs name known queues");
        let job = self.fresh_job(spec, queue);
        let sizes: Vec<u64> = job.groups.iter().map(|group| group.fresh.len()).collect();
        self.jobs.insert(id, Box::new(job));
        for (group, tasks) in sizes.into_iter().enumerate() {
            self.shift(GroupAt { job: id, group }, None, Slot::Queued, tasks);
        }
    }

    /// A job none of whose tasks was tried or counted, submitted now.
    pub(crate) fn fresh_job(&mut self, spec: &JobSpec, queue: QueueId) -> Job {
        let mut first = 0;
        let mut groups = Vec::with_capacity(spec.groups.len());
        for group in &spec.groups {
            let group = self.fresh_group(group, first);
            first = group.end();
            groups.push(group);
        }
        let rare = Rare { labels: spec.labels.clone(), retry_of: spec.retry_of, ..Rare::default() };
        Job {
            name: spec.name.clone(),
            submitter: self.submitters.acquire(spec.submitter.clone()),
            queue,
            priority: spec.priority,
            submitted_at: self.now,
            ready_at: self.steady,
            started_at: None,
            live: 0,
            rare: rare.kept(),
            groups: groups.into(),
        }
    }

    fn fresh_group(&mut self, spec: &GroupSpec, first: u32) -> Group {
        let tasks = u32::try_from(spec.array.len()).unwrap_or(u32::MAX);
        Group {
            array: spec.array.clone(),
            action: Arc::clone(&spec.action),
            terms: self.terms.acquire(Terms::of(spec)),
            shape: self.shapes.acquire(&spec.shape),
            first,
            tasks,
            fresh: RangeSet::from_range(first, first.saturating_add(tasks)),
            tally: Tally::default(),
        }
    }
}

/// Refuses a value above its limit.
pub(super) fn limit(what: &'static str, value: u64, limit: u64) -> Result<(), Rejection> {
    if value > limit { Err(Rejection::Limit { what, value, limit }) } else { Ok(()) }
}

pub(super) fn require(holds: bool, what: &'static str, why: &'static str) -> Result<(), Rejection> {
    if holds { Ok(()) } else { Err(Rejection::Invalid { what, why }) }
}

/// Checks a job by itself. Returns how many tasks it has.
fn check_job(spec: &JobSpec) -> Result<u64, Rejection> {
    check_name("job.name", &spec.name)?;
    check_text("job.submitter", &spec.submitter)?;
    limit(
        "job.priority",
        u64::from(spec.priority.unsigned_abs()),
        u64::from(PRIORITY_MAX.unsigned_abs()),
    )?;
    check_labels("job.labels", &spec.labels)?;
    require(!spec.groups.is_empty(), "task", "a job needs at least one task")?;
    limit("task groups in one job", spec.groups.len() as u64, GROUPS_MAX as u64)?;
    let mut tasks: u64 = 0;
    let mut names = BTreeSet::new();
    for group in &spec.groups {
        check_group(group)?;
        let new = names.insert(&group.name);
        require(new, "task.name", "two tasks of one job have the same name")?;
        tasks = tasks.saturating_add(group.array.len());
    }
    limit("tasks in one job", tasks, u64::from(JOB_TASKS_MAX))?;
    Ok(tasks)
}

fn check_group(group: &GroupSpec) -> Result<(), Rejection> {
    check_name("task.name", &group.name)?;
    require(!group.array.is_empty(), "task.array", "an array needs at least one index")?;
    limit("task action bytes", group.action.len() as u64, ACTION_BYTES_MAX as u64)?;
    limit("task.timeout in µs", group.timeout.map_or(0, |span| span.0), TIMEOUT_MAX.0)?;
    require(group.timeout.is_none_or(|span| span.0 > 0), "task.timeout", "must be above zero")?;
    limit("task.estimate in µs", group.estimate.map_or(0, |span| span.0), ESTIMATE_MAX.0)?;
    require(group.parallel_max != Some(0), "task.parallel", "must be at least 1")?;
    check_resources("task.resources", &group.shape.need)?;
    limit("constraints of one task", group.shape.constraints.len() as u64, CONSTRAINTS_MAX as u64)?;
    group.shape.constraints.iter().try_for_each(check_constraint)?;
    check_retry(&group.retry)
}

fn check_retry(retry: &RetryPolicy) -> Result<(), Rejection> {
    require(retry.attempts_max > 0, "task.retry.max", "at least one attempt is needed")?;
    limit("task.retry attempts", u64::from(retry.attempts_max), u64::from(ATTEMPTS_MAX))?;
    limit("task.retry.backoff in µs", retry.backoff.max.0, BACKOFF_MAX.0)?;
    require(
        retry.backoff.base <= retry.backoff.max,
        "task.retry.backoff",
        "the first pause must not be longer than the last",
    )?;
    limit("task.retry.jitter in percent", u64::from(retry.backoff.jitter_percent), 100)?;
    limit("task.retry.on rules", retry.on.len() as u64, RETRY_RULES_MAX as u64)
}

fn check_constraint(constraint: &Constraint) -> Result<(), Rejection> {
    require(!constraint.key.is_empty(), "task.require", "the label's key is empty")?;
    limit("task.require key bytes", constraint.key.len() as u64, LABEL_KEY_BYTES_MAX as u64)?;
    let values = match &constraint.predicate {
        Predicate::In(values) | Predicate::NotIn(values) => values.as_slice(),
        Predicate::Exists | Predicate::Absent => &[],
    };
    limit("values of one constraint", values.len() as u64, CONSTRAINT_VALUES_MAX as u64)?;
    values.iter().try_for_each(|value| {
        limit("task.require value bytes", value.len() as u64, LABEL_VALUE_BYTES_MAX as u64)
    })
}

/// Refuses names that are empty, too long or hold control characters.
pub(super) fn check_name(what: &'static str, name: &str) -> Result<(), Rejection> {
    require(!name.is_empty(), what, "must not be empty")?;
    check_text(what, name)
}

/// Refuses what is longer than a name or holds control characters.
pub(super) fn check_text(what: &'static str, text: &str) -> Result<(), Rejection> {
    check_printable(what, text)?;
    limit(what, text.len() as u64, NAME_BYTES_MAX as u64)
}

pub(super) fn check_printable(what: &'static str, text: &str) -> Result<(), Rejection> {
    require(!text.chars().any(char::is_control), what, "must not hold control characters")
}

pub(super) fn check_labels(what: &'static str, labels: &Labels) -> Result<(), Rejection> {
    limit(what, labels.len() as u64, LABELS_MAX as u64)?;
    labels.iter().try_for_each(|(key, value)| {
        require(!key.is_empty(), what, "a label's key is empty")?;
        check_printable(what, key)?;
        check_printable(what, value)?;
        limit("label key bytes", key.len() as u64, LABEL_KEY_BYTES_MAX as u64)?;
        limit("label value bytes", value.len() as u64, LABEL_VALUE_BYTES_MAX as u64)
    })
}

pub(super) fn check_resources(what: &'static str, resources: &Resources) -> Result<(), Rejection> {
    limit(what, resources.named.len() as u64, RESOURCES_MAX as u64)?;
    limit("cpus in thousandths", resources.cpu_millis, RESOURCE_AMOUNT_MAX)?;
    limit("memory in bytes", resources.memory_bytes, RESOURCE_AMOUNT_MAX)?;
    resources.named.iter().try_for_each(|(name, amount)| {
        check_name(what, name)?;
        require(*amount > 0, what, "a named resource of zero is not a resource")?;
        limit("resource in thousandths", *amount, RESOURCE_AMOUNT_MAX)
    })
}
