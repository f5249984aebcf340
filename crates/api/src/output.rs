//! What the server answers about jobs, tasks and attempts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::job_file::JobFile;
use crate::scalar::{Amount, Duration, Moment};
use crate::state::{AttemptState, JobState, TaskState};

/// One page of a list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items, in the order of the list.
    pub items: Vec<T>,
    /// Where the next page begins; absent on the last page. Pass it as `cursor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// The log index that the page reflects.
    pub index: u64,
}

/// How many tasks are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counts {
    /// May run now.
    pub queued: u64,
    /// Wait for a pause to end.
    pub waiting: u64,
    /// Have a live attempt.
    pub running: u64,
    /// Are over, well.
    pub succeeded: u64,
    /// Are over, badly.
    pub failed: u64,
    /// Were cancelled.
    pub cancelled: u64,
}

impl Counts {
    /// All tasks.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.queued + self.waiting + self.running + self.over()
    }

    /// Tasks that are over.
    #[must_use]
    pub const fn over(&self) -> u64 {
        self.succeeded + self.failed + self.cancelled
    }
}

impl From<rota_core::job::Counts> for Counts {
    fn from(counts: rota_core::job::Counts) -> Self {
        let rota_core::job::Counts { queued, waiting, running, succeeded, failed, cancelled } =
            counts;
        Self { queued, waiting, running, succeeded, failed, cancelled }
    }
}

/// A job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// Its id, given out in order.
    #[schema(example = 17)]
    pub id: u64,
    /// For people; need not be unique.
    pub name: String,
    /// The queue its tasks wait in.
    pub queue: String,
    /// Computed from its tasks.
    pub state: JobState,
    /// How many tasks it has.
    pub tasks: u64,
    /// How many are in each state.
    pub counts: Counts,
    /// −1000 to 1000.
    pub priority: i32,
    /// For people and selectors.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Who submitted.
    pub submitter: String,
    /// When it was submitted.
    pub submitted_at: Moment,
    /// When its first attempt was placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Moment>,
    /// When its last task ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Moment>,
    /// The job whose tasks this one tries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<u64>,
    /// Its kinds of tasks. Only when one job is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// The attempt of a task that failed, if any did. Only when one job is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_failure: Option<Attempt>,
    /// Why tasks were cancelled before they had an attempt: the first times that a reason was given. Only when one job is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cancels: Vec<Cancelled>,
    /// What was submitted. Only with `spec=true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<JobFile>,
}

/// Tasks that were cancelled together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cancelled {
    /// How many.
    pub tasks: u64,
    /// When.
    pub at: Moment,
    /// What whoever cancelled them gave as the reason.
    pub reason: String,
}

/// Tasks of one job that differ only in their array index or entry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Group {
    /// Unique in the job.
    pub name: String,
    /// The index of its first task in the job; the others follow.
    pub first: u32,
    /// How many tasks it has.
    pub tasks: u64,
    /// How many are in each state.
    pub counts: Counts,
    /// Its array indexes, if it is an array.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array: Option<String>,
    /// What one task holds while it runs.
    pub need: Amounts,
}

/// Amounts of resources.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Amounts {
    /// Cpus.
    #[schema(value_type = f64)]
    pub cpus: Amount,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Named resources.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, f64>)]
    pub resources: BTreeMap<String, Amount>,
}

impl From<&rota_types::Resources> for Amounts {
    fn from(resources: &rota_types::Resources) -> Self {
        let named =
            resources.named.iter().map(|(name, amount)| (name.to_string(), Amount(*amount)));
        Self {
            cpus: Amount(resources.cpu_millis),
            memory_bytes: resources.memory_bytes,
            resources: named.collect(),
        }
    }
}

/// A task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Task {
    /// Its id: job, dot, index.
    #[schema(example = "17.3")]
    pub id: String,
    /// The job's id.
    pub job: u64,
    /// The job's name.
    pub job_name: String,
    /// Its place in the job, from 0.
    pub index: u32,
    /// The name of its group.
    pub group: String,
    /// Its state.
    pub state: TaskState,
    /// Its array index, if its group is an array.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array_index: Option<u32>,
    /// Its entry, if its group has entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// How many attempts were made so far; 0 before the first.
    pub attempt: u32,
    /// Where its last attempt runs or ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// While it waits: when it is queued again, as far as can be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_until: Option<Moment>,
    /// When its last attempt was placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Moment>,
    /// When its last attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Moment>,
    /// Why its last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Why it was cancelled before it had an attempt, if a reason was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_reason: Option<String>,
    /// Its attempts, oldest first. Only when one task is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
}

/// One numbered try of a task on one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Attempt {
    /// Its id: task, hash, number.
    #[schema(example = "17.3#2")]
    pub id: String,
    /// The task's id.
    #[schema(example = "17.3")]
    pub task: String,
    /// The name of the task's group.
    pub group: String,
    /// Its number, from 1: the fencing token.
    pub number: u32,
    /// The node's name.
    pub node: String,
    /// Its state.
    pub state: AttemptState,
    /// When it was placed, by the server's clock.
    pub placed_at: Moment,
    /// When the worker launched it, by the worker's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Moment>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Moment>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What is kept of its output and cost once it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<AttemptDetail>,
}

/// What a record keeps of an attempt's output and cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AttemptDetail {
    /// The end of the standard output, with bytes that are not UTF-8 replaced.
    pub stdout_tail: String,
    /// The end of the standard error.
    pub stderr_tail: String,
    /// Everything written to standard output, kept or not.
    pub stdout_bytes: u64,
    /// Everything written to standard error, kept or not.
    pub stderr_bytes: u64,
    /// Cpu time used.
    pub cpu_time: Duration,
    /// The most memory used at a time.
    pub memory_peak_bytes: u64,
    /// Such as limits that could not be enforced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What happened to a failed attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The program exited with a code that is not 0.
    #[default]
    Exit,
    /// The program was ended by a signal.
    Signal,
    /// It ran longer than allowed.
    Timeout,
    /// It could not be started.
    Start,
    /// The HTTP request failed, or was answered with an unexpected status.
    Http,
    /// Its node was lost once too often.
    Lost,
}

/// Why an attempt failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// What happened.
    pub kind: FailureKind,
    /// The exit code, signal or HTTP status, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// For people; may be empty.
    pub message: String,
}

impl From<&rota_core::command::Failure> for Failure {
    fn from(failure: &rota_core::command::Failure) -> Self {
        use rota_core::command::FailureKind as Core;
        let (kind, code) = match failure.kind {
            Core::Exit(code) => (FailureKind::Exit, Some(code)),
            Core::Signal(signal) => (FailureKind::Signal, Some(signal)),
            Core::Timeout => (FailureKind::Timeout, None),
            Core::Start => (FailureKind::Start, None),
            Core::Http(status) => (FailureKind::Http, status.map(i32::from)),
            Core::Lost => (FailureKind::Lost, None),
        };
        Self { kind, code, message: failure.message.to_string() }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.kind, self.code) {
            (FailureKind::Exit, Some(code)) => write!(f, "exit {code}"),
            (FailureKind::Exit, None) => f.write_str("exit"),
            (FailureKind::Signal, Some(signal)) => write!(f, "signal {signal}"),
            (FailureKind::Signal, None) => f.write_str("signal"),
            (FailureKind::Timeout, _) => f.write_str("timeout"),
            (FailureKind::Start, _) => f.write_str("not started"),
            (FailureKind::Http, Some(status)) => write!(f, "HTTP {status}"),
            (FailureKind::Http, None) => f.write_str("HTTP failed"),
            (FailureKind::Lost, _) => f.write_str("node lost"),
        }?;
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

/// The answer to a submit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SubmitReply {
    /// The new jobs, in the order of the request. Ids are consecutive.
    pub jobs: Vec<Submitted>,
    /// Whether an earlier request with the same idempotency key had done it.
    pub replayed: bool,
    /// The log index at which they were taken in.
    pub index: u64,
}

/// A job that was taken in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Submitted {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Its queue.
    pub queue: String,
    /// How many tasks it has.
    pub tasks: u64,
}

/// The answer to a dry run of a submit: what would be taken in, with defaults filled in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Validated {
    /// The job as it would be kept.
    pub job: JobFile,
    /// How many tasks it has.
    pub tasks: u64,
    /// What might surprise, such as a need that no node can meet.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Which tasks of a job to cancel, and how. An empty body cancels all of them gently.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CancelRequest {
    /// Task indexes, such as `0-9,12`; absent means all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[0-9]{1,9}(-[0-9]{1,9})?(,[0-9]{1,9}(-[0-9]{1,9})?)*$")]
    pub tasks: Option<String>,
    /// The time between the request to stop and the kill. By default `10s`; `0s` kills at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace: Option<Duration>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024)]
    pub reason: Option<String>,
}

/// The answer to a cancel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CancelReply {
    /// Tasks that had not started and are over now.
    pub ended: u64,
    /// Tasks whose attempt was told to stop.
    pub stopping: u64,
}

/// Which tasks of a finished job to try again, as a new job. An empty body tries what failed or was cancelled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryRequest {
    /// Whether to run every task again, the successful ones too.
    pub all: bool,
}
