//! What the server answers about nodes, queues, the cluster and events, and why a task waits.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::output::{Amounts, Counts};
use crate::query::{signed_32, signed_64};
use crate::scalar::{Duration, Moment};
use crate::state::TaskState;

/// Where a node is in its life.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Takes tasks.
    #[default]
    Ready,
    /// Finishes what it runs and takes nothing new.
    Draining,
    /// Its lease ran out; it holds nothing.
    Lost,
}

impl NodeState {
    /// The name in JSON and on screen.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Lost => "lost",
        }
    }
}

impl From<rota_core::node::NodeState> for NodeState {
    fn from(state: rota_core::node::NodeState) -> Self {
        match state {
            rota_core::node::NodeState::Ready => Self::Ready,
            rota_core::node::NodeState::Draining => Self::Draining,
            rota_core::node::NodeState::Lost => Self::Lost,
        }
    }
}

/// A machine with capacity that runs attempts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Its id, given out in order.
    pub id: u32,
    /// Unique in the cluster.
    pub name: String,
    /// Where it is in its life.
    pub state: NodeState,
    /// Whether its worker has a session now.
    pub connected: bool,
    /// When its worker was last heard of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<Moment>,
    /// What it offers.
    pub capacity: Amounts,
    /// What is not held.
    pub free: Amounts,
    /// What live attempts hold.
    pub used: Amounts,
    /// Live attempts.
    pub tasks: u32,
    /// How many attempts it runs at a time at most.
    pub attempts_max: u32,
    /// For constraints and people.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The worker's version.
    pub version: String,
    /// The kinds of actions that its worker runs: `command`, `http`, `noop`.
    #[serde(default)]
    pub runs: Vec<String>,
}

/// Which task of a queue goes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Discipline {
    /// Whoever became ready first.
    #[default]
    Fifo,
    /// Higher priority first; waiting raises it.
    Priority,
}

impl Discipline {
    /// The name in JSON and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fifo => "fifo",
            Self::Priority => "priority",
        }
    }
}

/// Which node a task goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// The first node that fits, by id.
    FirstFit,
    /// The node that is left with the least.
    BestFit,
    /// The node with the smallest share in use.
    #[default]
    LeastLoaded,
    /// One node after the other.
    RoundRobin,
    /// Any node, drawn from a seeded generator.
    Random,
}

impl Placement {
    /// The name in JSON and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FirstFit => "first_fit",
            Self::BestFit => "best_fit",
            Self::LeastLoaded => "least_loaded",
            Self::RoundRobin => "round_robin",
            Self::Random => "random",
        }
    }
}

/// A queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Queue {
    /// Unique in the cluster.
    pub name: String,
    /// Which task goes next.
    pub discipline: Discipline,
    /// With `priority`: the wait that outweighs one point of priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aging: Option<Duration>,
    /// Which node it goes to.
    pub placement: Placement,
    /// With `random`: what makes the draws repeatable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Share of turns among the queues, from 1.
    pub weight: u32,
    /// Whether it starts nothing new.
    pub paused: bool,
    /// How many tasks may run at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_max: Option<u32>,
    /// How many tasks may wait or run before submits are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks_max: Option<u64>,
    /// Its live tasks: those of finished jobs are not counted.
    pub counts: Counts,
}

/// Settings of a queue. What is absent takes its default on creation and stays as it is on a change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueueSettings {
    /// Which task goes next. By default `fifo`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discipline: Option<Discipline>,
    /// With `priority`: the wait that outweighs one point of priority. By default `1m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aging: Option<Duration>,
    /// Which node it goes to. By default `least_loaded`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// With `random`: makes the draws repeatable. By default 0.
    #[serde(deserialize_with = "signed_64", skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Share of turns among the queues. By default 1.
    #[serde(deserialize_with = "signed_32", skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub weight: Option<u32>,
    /// How many tasks may run at a time; 0 takes the limit away.
    #[serde(deserialize_with = "signed_32", skip_serializing_if = "Option::is_none")]
    pub running_max: Option<u32>,
    /// How many tasks may wait or run before submits are refused; 0 takes the limit away.
    #[serde(deserialize_with = "signed_64", skip_serializing_if = "Option::is_none")]
    pub tasks_max: Option<u64>,
}

/// Why a task waits, or where it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explain {
    /// The task's id.
    #[schema(example = "17.3")]
    pub task: String,
    /// Its state.
    pub state: TaskState,
    /// The answer in sentences, most important first.
    pub summary: Vec<String>,
    /// What its queue contributes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<ExplainQueue>,
    /// Where it runs or ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// While it waits for a pause to end: until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_until: Option<Moment>,
    /// What one attempt of it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub need: Option<Amounts>,
    /// How many nodes were looked at.
    pub nodes: u64,
    /// How many of them have room for it now.
    pub nodes_fitting: u64,
    /// Why the other nodes don't take it, most nodes first.
    #[serde(default)]
    pub reasons: Vec<NodeReason>,
    /// Single changes that would let it start.
    #[serde(default)]
    pub suggestions: Vec<String>,
}

/// The queue of a task that waits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExplainQueue {
    /// Its name.
    pub name: String,
    /// Whether it starts nothing new.
    pub paused: bool,
    /// The task's place, from 1, if it is queued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Whether its place is further back than `position` says: before long queues only so much is looked at.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub further_back: bool,
    /// How many tasks are queued.
    pub queued: u64,
    /// How many run.
    pub running: u64,
    /// How many may run at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_max: Option<u32>,
}

/// Why a node does not take a task.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ReasonKind {
    /// It has too little of a resource free now.
    #[default]
    Busy,
    /// It has too little of a resource even when empty.
    TooSmall,
    /// Its worker does not run such actions.
    ActionKind,
    /// It does not meet a requirement.
    Requirement,
    /// It runs as many attempts as it may.
    AttemptsMax,
    /// It drains.
    Draining,
    /// It is lost.
    Lost,
}

/// Nodes that don't take a task for the same reason.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeReason {
    /// The kind of reason.
    pub kind: ReasonKind,
    /// How many nodes.
    pub nodes: u64,
    /// In words: `too few free cpus`, `zone=eu is not met`.
    pub reason: String,
    /// In words: `need 2, best has 1 (node-c)`; may be empty.
    pub detail: String,
    /// Names of some of the nodes.
    #[serde(default)]
    pub examples: Vec<String>,
}

/// Numbers about the whole cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClusterStats {
    /// When they were taken.
    pub at: Moment,
    /// The log index they reflect.
    pub index: u64,
    /// Jobs that are not over.
    pub jobs: u64,
    /// Live tasks by state.
    pub counts: Counts,
    /// Nodes by state.
    pub nodes: NodeCounts,
    /// What all nodes that are not lost offer.
    pub capacity: Amounts,
    /// What live attempts hold.
    pub used: Amounts,
    /// Load L = ΣT/ΣP: expected work that is queued or running, over the power of the cluster. Absent without any estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    /// Demand over supply, R = D/S, per resource.
    pub demand: Vec<DemandSupply>,
    /// How likely a failure is.
    pub failure: FailureOdds,
    /// How long tasks waited, per queue, over the last minutes.
    pub queues: Vec<QueueWaits>,
    /// From ready to placed, over the last minutes, for tasks that found room at once.
    pub scheduling_delay: Percentiles,
    /// Attempts that ended, per second, over the last minute.
    pub tasks_per_second: f64,
    /// The longest and typical time of a log sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_sync: Option<Percentiles>,
}

/// Nodes by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeCounts {
    /// Take tasks.
    pub ready: u64,
    /// Finish what they run.
    pub draining: u64,
    /// Hold nothing.
    pub lost: u64,
}

/// Load L = ΣT/ΣP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Load {
    /// ΣT: cpu-seconds that queued and running tasks are expected to need still.
    pub work_cpu_seconds: f64,
    /// ΣP: cpus of all nodes that are not lost.
    pub power_cpus: f64,
    /// L, in seconds: how long the cluster needs for what it knows of.
    pub seconds: f64,
    /// Live tasks without any estimate, which L leaves out.
    pub tasks_without_estimate: u64,
}

/// Demand over supply of one resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DemandSupply {
    /// `cpus`, `memory`, or a name.
    pub resource: String,
    /// What queued and running tasks need.
    pub demand: f64,
    /// What the nodes that are not lost offer.
    pub supply: f64,
    /// Demand over supply; absent if there is no supply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
}

/// The expected probability of a failure: 1 − (1 − p)ⁿ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FailureOdds {
    /// p: the share of recent attempts that failed.
    pub attempt: f64,
    /// n: live tasks.
    pub tasks: u64,
    /// How likely at least one of the next n attempts fails.
    pub any: f64,
    /// How many recent attempts p is taken from.
    pub sample: u64,
}

/// How long the tasks of a queue waited.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QueueWaits {
    /// The queue's name.
    pub queue: String,
    /// From submit, or the end of a pause, to placed.
    pub wait: Percentiles,
}

/// Percentiles of a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Percentiles {
    /// How many values.
    pub count: u64,
    /// Half of them are at most this, in milliseconds.
    pub p50_ms: f64,
    /// 95 of 100 are at most this.
    pub p95_ms: f64,
    /// 99 of 100 are at most this.
    pub p99_ms: f64,
    /// The largest.
    pub max_ms: f64,
}

/// Something that became true. The stream's id is `index:seq`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// The log index of the entry that made it true.
    pub index: u64,
    /// Its place among the events of that entry, from 0.
    pub seq: u32,
    /// When, by the leader's clock.
    pub at: Moment,
    /// What: `job_submitted`, `attempts_created`, `attempt_ended`, `task_queued`, ….
    #[serde(rename = "type")]
    pub kind: String,
    /// The job it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<u64>,
    /// The task it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The attempt it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<String>,
    /// The name of the node it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The name of the queue it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Whatever else belongs to this type.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    #[schema(value_type = Object)]
    pub data: serde_json::Map<String, serde_json::Value>,
}

/// A page of the events of one job, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobEvents {
    /// What the server still has of it.
    pub items: Vec<Event>,
    /// Whether nothing is missing before these events: a server keeps the latest events of all jobs, from its start on.
    pub complete: bool,
    /// The cursor of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// The log index that the page reflects.
    pub index: u64,
}

/// What a server says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// The server's version.
    pub version: String,
    /// The version of the REST interface.
    #[schema(example = "v1")]
    pub api: String,
}

/// Whether a server is well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`, or what is missing.
    #[schema(example = "ok")]
    pub status: String,
    /// The last log index applied.
    pub index: u64,
    /// Nodes whose worker has a session now.
    pub nodes_connected: u64,
}
