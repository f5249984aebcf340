//! What is true, in the words of the interface.

use rota_api::{
    Amounts, Attempt, AttemptDetail, AttemptState, Counts, Duration, Failure, Group, Job, JobFile,
    JobState, Moment, Task, TaskState,
};
use rota_core::State;
use rota_core::command::{GroupSpec, JobSpec};
use rota_core::event::{self, AttemptRecord};
use rota_core::job::{self, FinishedJob};
use rota_core::task::{self, Phase, Standing};
use rota_types::{AttemptId, JobId, Labels, NodeId, RangeSet, Resources, Span, TaskId};

use crate::core_thread::View;

/// Labels in JSON.
pub(crate) fn labels(labels: &Labels) -> std::collections::BTreeMap<String, String> {
    labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

/// A node's name; its number if it was removed.
pub(crate) fn node_name(state: &State, node: NodeId) -> String {
    state.node(node).map_or_else(|| format!("#{node}"), |node| node.spec.name.to_string())
}

/// How a task ended.
pub(crate) fn over(state: job::TaskState) -> TaskState {
    match state {
        job::TaskState::Succeeded => TaskState::Succeeded,
        job::TaskState::Failed => TaskState::Failed,
        job::TaskState::Cancelled => TaskState::Cancelled,
    }
}

/// A job that is not over.
pub(crate) fn live_job(state: &State, id: JobId, job: &job::Job) -> Job {
    let queue = state.queue(job.queue).map(|queue| queue.spec.name.to_string());
    Job {
        id: id.0,
        name: job.name.to_string(),
        queue: queue.unwrap_or_default(),
        state: live_job_state(job),
        tasks: u64::from(job.tasks()),
        counts: job.counts().into(),
        priority: job.priority,
        labels: labels(job.labels()),
        submitter: job.submitter.to_string(),
        submitted_at: Moment(job.submitted_at),
        started_at: job.started_at.map(Moment),
        finished_at: None,
        retry_of: job.retry_of().map(|id| id.0),
        ..Job::default()
    }
}

pub(crate) fn live_job_state(job: &job::Job) -> JobState {
    if job.started_at.is_none() { JobState::Queued } else { JobState::Running }
}

/// The kinds of tasks of a live job.
pub(crate) fn live_groups(state: &State, job: &job::Job) -> Vec<Group> {
    job.groups
        .iter()
        .map(|group| Group {
            name: group.terms.name.to_string(),
            first: group.first,
            tasks: group.array.len(),
            counts: group.counts().into(),
            array: group.terms.is_array.then(|| group.array.to_string()),
            need: Amounts::from(&state.shape(group.shape).need),
        })
        .collect()
}

/// A job that is over.
pub(crate) fn finished_job(job: &FinishedJob) -> Job {
    let spec = &job.spec;
    let counts: Counts = job.counts.into();
    Job {
        id: job.id.0,
        name: spec.name.to_string(),
        queue: spec.queue.to_string(),
        state: JobState::of(&counts, job.started_at.is_some()),
        tasks: counts.total(),
        counts,
        priority: spec.priority,
        labels: labels(&spec.labels),
        submitter: spec.submitter.to_string(),
        submitted_at: Moment(job.submitted_at),
        started_at: job.started_at.map(Moment),
        finished_at: Some(Moment(job.finished_at)),
        retry_of: spec.retry_of.map(|id| id.0),
        ..Job::default()
    }
}

/// The kinds of tasks of a job that is over.
pub(crate) fn finished_groups(job: &FinishedJob) -> Vec<Group> {
    groups_of(&job.spec)
        .map(|(first, group)| {
            let tasks = group.array.len();
            let end = first.saturating_add(u32::try_from(tasks).unwrap_or(u32::MAX));
            let own = RangeSet::from_range(first, end);
            let failed = job.failed.intersection(&own).len();
            let cancelled = job.cancelled.intersection(&own).len();
            let succeeded = tasks.saturating_sub(failed).saturating_sub(cancelled);
            Group {
                name: group.name.to_string(),
                first,
                tasks,
                counts: Counts { succeeded, failed, cancelled, ..Counts::default() },
                array: group.is_array.then(|| group.array.to_string()),
                need: Amounts::from(&group.shape.need),
            }
        })
        .collect()
}

/// The groups of a job with the index of each one's first task.
pub(crate) fn groups_of(spec: &JobSpec) -> impl Iterator<Item = (u32, &GroupSpec)> {
    let mut next = 0_u32;
    spec.groups.iter().map(move |group| {
        let first = next;
        next = next.saturating_add(u32::try_from(group.array.len()).unwrap_or(u32::MAX));
        (first, group)
    })
}

/// The group that has the task with this index, and its first task.
pub(crate) fn group_at(spec: &JobSpec, index: u32) -> Option<(u32, &GroupSpec)> {
    groups_of(spec)
        .filter(|(first, _)| *first <= index)
        .last()
        .filter(|(first, group)| u64::from(index - first) < group.array.len())
}

/// The array index of a task that is the `place`-th of its group.
pub(crate) fn array_index(array: &RangeSet, place: u32) -> Option<u32> {
    let mut rest = place;
    for (start, end) in array.ranges() {
        if rest < end - start {
            return Some(start + rest);
        }
        rest -= end - start;
    }
    None
}

/// What all answers about a task of a live job have in common, and its live attempt if it has one.
pub(crate) fn live_task(view: &View<'_>, id: TaskId) -> Option<Task> {
    let state = view.state;
    let job = state.job(id.job)?;
    let group = state.group(id)?;
    let mut told = Task {
        id: id.to_string(),
        job: id.job.0,
        job_name: job.name.to_string(),
        index: id.index,
        group: group.terms.name.to_string(),
        array_index: group.array_index(id.index).filter(|_| group.terms.is_array),
        ..Task::default()
    };
    match state.standing(id)? {
        Standing::Fresh => {}
        Standing::Over(how) => told.state = over(how),
        Standing::Tried(task) => {
            told.attempt = task.attempts;
            match &task.phase {
                Phase::Queued { .. } => {}
                Phase::Waiting { until } => {
                    told.state = TaskState::Waiting;
                    let pause = until.since(view.steady);
                    told.waiting_until = Some(Moment(crate::clock::wall().plus(pause)));
                }
                Phase::Staged { attempt, .. } => told.node = Some(node_name(state, attempt.node)),
                Phase::Running(attempt) => {
                    told.state = TaskState::Running;
                    told.node = Some(node_name(state, attempt.node));
                    told.started_at = Some(Moment(attempt.placed_at));
                }
            }
        }
    }
    Some(told)
}

/// The state of a task of a live job.
pub(crate) fn live_state(view: &View<'_>, id: TaskId) -> Option<TaskState> {
    Some(match view.state.standing(id)? {
        Standing::Fresh => TaskState::Queued,
        Standing::Over(how) => over(how),
        Standing::Tried(task) => match task.phase {
            Phase::Queued { .. } | Phase::Staged { .. } => TaskState::Queued,
            Phase::Waiting { .. } => TaskState::Waiting,
            Phase::Running(_) => TaskState::Running,
        },
    })
}

/// The state of a task of a job that is over.
pub(crate) fn finished_state(job: &FinishedJob, index: u32) -> TaskState {
    if job.failed.contains(index) {
        TaskState::Failed
    } else if job.cancelled.contains(index) {
        TaskState::Cancelled
    } else {
        TaskState::Succeeded
    }
}

/// A task of a job that is over.
pub(crate) fn finished_task(job: &FinishedJob, index: u32) -> Option<Task> {
    let (first, group) = group_at(&job.spec, index)?;
    let state = finished_state(job, index);
    Some(Task {
        id: TaskId { job: job.id, index }.to_string(),
        job: job.id.0,
        job_name: job.spec.name.to_string(),
        index,
        group: group.name.to_string(),
        state,
        array_index: array_index(&group.array, index - first).filter(|_| group.is_array),
        ..Task::default()
    })
}

/// The live attempt of a task.
pub(crate) fn live_attempt(view: &View<'_>, id: AttemptId, attempt: &task::Attempt) -> Attempt {
    let group = view.state.group(id.task).map(|group| group.terms.name.to_string());
    Attempt {
        id: id.to_string(),
        task: id.task.to_string(),
        group: group.unwrap_or_default(),
        number: id.number,
        node: node_name(view.state, attempt.node),
        state: AttemptState::Live,
        placed_at: Moment(attempt.placed_at),
        started_at: view.launched.at(id).map(Moment),
        ..Attempt::default()
    }
}

/// An attempt that is over. The name of its group has to be filled in by the caller.
pub(crate) fn ended_attempt(record: &AttemptRecord, node: String, group: &str) -> Attempt {
    Attempt {
        id: record.attempt.to_string(),
        task: record.attempt.task.to_string(),
        group: group.to_owned(),
        number: record.attempt.number,
        node,
        state: attempt_state(record.state),
        placed_at: Moment(record.placed_at),
        started_at: record.started_at.map(Moment),
        ended_at: Some(Moment(record.ended_at)),
        failure: record.failure.as_ref().map(Failure::from),
        detail: detail(&record.detail),
    }
}

pub(crate) fn attempt_state(state: event::AttemptState) -> AttemptState {
    match state {
        event::AttemptState::Succeeded => AttemptState::Succeeded,
        event::AttemptState::Failed => AttemptState::Failed,
        event::AttemptState::Cancelled => AttemptState::Cancelled,
        event::AttemptState::Lost => AttemptState::Lost,
        event::AttemptState::Recalled => AttemptState::Recalled,
    }
}

fn detail(bytes: &[u8]) -> Option<AttemptDetail> {
    if bytes.is_empty() {
        return None;
    }
    let detail = rota_wire::worker::decode_detail(bytes).ok()?;
    Some(AttemptDetail {
        stdout_tail: String::from_utf8_lossy(&detail.stdout_tail).into_owned(),
        stderr_tail: String::from_utf8_lossy(&detail.stderr_tail).into_owned(),
        stdout_bytes: detail.stdout_bytes,
        stderr_bytes: detail.stderr_bytes,
        cpu_time: Duration(Span(detail.cpu_micros)),
        memory_peak_bytes: detail.memory_peak_bytes,
        notes: detail.notes,
    })
}

/// Adds to a task what its last attempt tells.
pub(crate) fn add_last(task: &mut Task, last: &Attempt) {
    task.attempt = task.attempt.max(last.number);
    if last.number == task.attempt {
        task.node = Some(last.node.clone());
        task.started_at = Some(last.placed_at);
        task.finished_at = last.ended_at;
        task.failure.clone_from(&last.failure);
    }
}

/// What was submitted.
pub(crate) fn spec(spec: &JobSpec) -> JobFile {
    JobFile::from_spec(spec)
}

/// Amounts in JSON.
pub(crate) fn amounts(resources: &Resources) -> Amounts {
    Amounts::from(resources)
}
