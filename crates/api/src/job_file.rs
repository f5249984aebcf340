//! What people submit: the job file, which is also the body of `POST /v1/jobs`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::scalar::{Amount, ArrayRange, BackoffRange, Duration, Requirement, RetryOn, Size};

/// The queue of jobs that name none. It always exists.
pub const DEFAULT_QUEUE: &str = "default";

/// A job and its tasks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobFile {
    /// What holds for the whole job.
    #[serde(default)]
    #[schema(nullable)]
    pub job: JobHeader,
    /// The kinds of tasks, at least one.
    #[schema(min_items = 1, max_items = 1000)]
    pub task: Vec<TaskGroup>,
}

/// What holds for a whole job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JobHeader {
    /// For people; need not be unique. By default the name of the first task.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128)]
    pub name: Option<String>,
    /// The queue that the tasks wait in.
    #[schema(nullable, min_length = 1, max_length = 128, example = "default")]
    pub queue: String,
    /// Higher goes first in a queue with the `priority` discipline; −1000 to 1000.
    #[serde(skip_serializing_if = "is_default")]
    #[schema(nullable, minimum = -1000, maximum = 1000)]
    pub priority: i32,
    /// For people and selectors.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(nullable)]
    pub labels: BTreeMap<String, String>,
}

impl Default for JobHeader {
    fn default() -> Self {
        let queue = DEFAULT_QUEUE.to_owned();
        Self { name: None, queue, priority: 0, labels: BTreeMap::new() }
    }
}

/// Tasks that differ only in their array index or entry. Has one of `command`, `http` and `noop`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TaskGroup {
    /// Unique in the job. By default `task`, `task-2`, ….
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128)]
    pub name: Option<String>,
    /// A program and its arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandLine>,
    /// An HTTP request instead of a program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpRequest>,
    /// Nothing at all: ends well at once. For benchmarks and barriers.
    #[serde(skip_serializing_if = "is_default")]
    #[schema(nullable)]
    pub noop: bool,
    /// One task per index: `1-1000`, `1-9,20`, `1-100%8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub array: Option<ArrayRange>,
    /// One task per entry; a task finds its own as `{entry}` or `{}` in its command.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(nullable)]
    pub entries: Vec<String>,
    /// A file with one entry per line. Only in files: `rota` reads it when it submits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub each_line: Option<String>,
    /// How many of these tasks may run at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub parallel: Option<u32>,
    /// Environment variables.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(nullable)]
    pub env: BTreeMap<String, String>,
    /// The working directory on the node. By default a fresh directory of the attempt's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// What the program reads on standard input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Cpus that one task holds while it runs. By default 1 for a command, 0 for the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Amount>,
    /// Memory that one task holds while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// Named resources that one task holds while it runs, such as `gpu = 1`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(nullable)]
    pub resources: BTreeMap<String, Amount>,
    /// What a node's labels must satisfy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(nullable, max_items = 32)]
    pub require: Vec<Requirement>,
    /// How long one task is expected to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Duration>,
    /// How long one attempt may run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// The time between the request to stop and the kill when the timeout strikes. By default `10s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace: Option<Duration>,
    /// What to do when an attempt fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
}

/// A program and its arguments, or one line for `sh -c`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum CommandLine {
    /// Run as it is, without a shell.
    Program(Vec<String>),
    /// Run by `sh -c`.
    Shell(String),
}

impl CommandLine {
    /// The argument vector.
    #[must_use]
    pub fn argv(&self) -> Vec<String> {
        match self {
            Self::Program(argv) => argv.clone(),
            Self::Shell(line) => vec!["sh".to_owned(), "-c".to_owned(), line.clone()],
        }
    }
}

/// An HTTP request that a worker makes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpRequest {
    /// The method. By default `GET`, with a body `POST`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Where to.
    #[schema(example = "http://example.org/hook")]
    pub url: String,
    /// Header fields.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(nullable)]
    pub headers: BTreeMap<String, String>,
    /// The request's body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Which statuses are a success: `200-299`, `200,204`. By default `200-299`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        pattern = "^[1-5][0-9][0-9](-[1-5][0-9][0-9])?(,[1-5][0-9][0-9](-[1-5][0-9][0-9])?)*$"
    )]
    pub expect: Option<String>,
}

/// What to do when an attempt fails. Attempts that are lost with their node are always tried again, within a limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Further attempts after the first.
    #[schema(nullable, maximum = 99)]
    pub max: u32,
    /// The pause before the next attempt: `10s`, or `5s..5m` for one that doubles. By default `1s..1m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<BackoffRange>,
    /// How much of the pause may be added at random, in percent. By default 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 100)]
    pub jitter: Option<u8>,
    /// Which failures are tried again. By default all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(nullable, max_items = 32)]
    pub on: Vec<RetryOn>,
}

/// Many jobs for one `POST /v1/jobs`: all are taken in, or none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobBatch {
    /// At most 1000.
    #[schema(min_items = 1, max_items = 1000)]
    pub jobs: Vec<JobFile>,
}

/// The body of `POST /v1/jobs`.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(example = json!({
    "job": { "name": "frames" },
    "task": [{ "command": ["./frame.sh", "{index}"], "array": "1-100" }],
}))]
pub enum SubmitRequest {
    /// One job.
    One(JobFile),
    /// Up to 1000 jobs.
    Several(JobBatch),
}

/// Something wrong with a job file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Mistake {
    /// The file's name, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line, from 1; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The column in characters, from 1; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// Where in the document, as a JSON pointer: `/task/1/retry/backoff`.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

impl Mistake {
    /// A mistake at `pointer`; its place in the text is filled in by the parser.
    #[must_use]
    pub fn new(
        pointer: impl Into<String>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let (pointer, message, hint) = (pointer.into(), message.into(), hint.into());
        Self { pointer, message, hint, ..Self::default() }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
