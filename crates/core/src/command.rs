//! What can be asked of the state machine, and the answers.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use rota_types::{
    ActionKind, ActionKinds, AttemptId, Constraint, JobId, Labels, LogIndex, NodeId, RangeSet,
    Resources, ServerId, Span, Steady, TaskId, Timestamp,
};

use crate::kv::{KvCommand, KvRejection, KvReply};
use crate::queue::{Discipline, Placement as PlacementKind};
use crate::server::ServerCommand;
use crate::token::{Note, TokenCommand};

/// One position of the log: when it was stamped, and what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The entry's position.
    pub index: LogIndex,
    /// The leader's wall clock when it proposed.
    pub at: Timestamp,
    /// The leader's steady time when it proposed.
    pub steady: Steady,
    /// What was asked, in order. Each has an outcome of its own.
    pub commands: Vec<Command>,
}

impl Entry {
    /// An entry that moves the state's index and nothing else: the protocol of the log has entries of its own.
    #[must_use]
    pub fn internal(index: LogIndex) -> Self {
        Self { index, at: Timestamp(0), steady: Steady(0), commands: Vec::new() }
    }
}

/// Something asked of the state machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Take jobs in, all or none.
    SubmitJobs(SubmitJobs),
    /// End tasks that have not ended.
    CancelTasks(CancelTasks),
    /// Start attempts.
    CommitPlan(Plan),
    /// Record how attempts ended.
    EndAttempts(Vec<AttemptReport>),
    /// Take a node in, or note that its worker came back.
    RegisterNode(NodeSpec),
    /// Give up on a node whose lease has run out.
    LoseNode(NodeId),
    /// Stop (`true`) or resume (`false`) placing tasks on a node.
    DrainNode {
        /// Which node.
        node: NodeId,
        /// Whether it drains from now on.
        draining: bool,
    },
    /// Stop placing tasks on a node because its worker is about to go.
    LeaveNode(NodeId),
    /// Forget a node that holds nothing.
    RemoveNode(NodeId),
    /// Add a queue.
    CreateQueue(QueueSpec),
    /// Change a queue's settings.
    ConfigureQueue(QueueSpec),
    /// Stop (`true`) or resume (`false`) starting tasks of a queue.
    PauseQueue {
        /// The queue's name.
        queue: Box<str>,
        /// Whether it is paused from now on.
        paused: bool,
    },
    /// Cancel everything in a queue that is not running.
    PurgeQueue {
        /// The queue's name.
        queue: Box<str>,
        /// Only in jobs with an id below this, and in the first [`PURGE_JOBS_MAX`](rota_types::limits::PURGE_JOBS_MAX) of them that have
        /// anything to cancel: to purge a queue of millions, ask until nothing ends. `None` for everything at once.
        before: Option<JobId>,
    },
    /// Forget a queue that is empty.
    RemoveQueue {
        /// The queue's name.
        queue: Box<str>,
    },
    /// Change what is known of the servers.
    Servers(ServerCommand),
    /// Add, use or revoke tokens.
    Tokens(TokenCommand),
    /// Say who asked for the commands before this one.
    Note(Note),
    /// Change the key-value store, its sessions or its locks.
    Kv(KvCommand),
    /// Nothing but the passing of time: back-offs and sessions end, idempotency keys expire.
    Tick,
}

/// Jobs to take in together, all or none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SubmitJobs {
    /// The jobs, in order. They get consecutive ids.
    pub jobs: Vec<JobSpec>,
    /// Makes a repeated submit answer the same ids.
    pub idempotency: Option<IdempotencyKey>,
}

/// A client's name for one request, so that repeating it is safe.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey {
    /// Chosen by the client.
    pub key: Box<str>,
    /// A digest of the request: the same key with another digest is refused.
    pub digest: [u8; 16],
}

/// What a user submits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JobSpec {
    /// For people; need not be unique.
    pub name: Box<str>,
    /// The queue's name.
    pub queue: Box<str>,
    /// Higher goes first in a queue with the `priority` discipline; −1000 to 1000.
    pub priority: i32,
    /// For people and selectors.
    pub labels: Labels,
    /// Who submitted.
    pub submitter: Box<str>,
    /// The job whose tasks this one tries again, if any.
    pub retry_of: Option<JobId>,
    /// The kinds of tasks, in order. Task indexes run through all groups.
    pub groups: Vec<GroupSpec>,
}

/// Tasks of one job that differ only in their array index.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupSpec {
    /// Unique in the job.
    pub name: Box<str>,
    /// The array indexes, one task each, in ascending order. A single task has the index 0.
    pub array: RangeSet,
    /// Whether the user asked for an array: only then do tasks see their array index.
    pub is_array: bool,
    /// What to do, encoded by the shell; opaque to the core.
    pub action: Arc<[u8]>,
    /// What a node must offer.
    pub shape: Shape,
    /// How long one task is expected to run.
    pub estimate: Option<Span>,
    /// How long one attempt may run.
    pub timeout: Option<Span>,
    /// What to do when an attempt fails.
    pub retry: RetryPolicy,
    /// How many of the group may run at a time.
    pub parallel_max: Option<u32>,
}

/// What a task demands of a node. Tasks of equal shape fit in the same places.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape {
    /// Held while an attempt is live.
    pub need: Resources,
    /// All must be met.
    pub constraints: Vec<Constraint>,
    /// What the tasks do; `None` if the submitter did not say: then any node will do.
    pub kind: Option<ActionKind>,
}

/// When a failed attempt is followed by another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RetryPolicy {
    /// Attempts in all, the first included; lost ones do not count. From 1.
    pub attempts_max: u32,
    /// The pause before the next attempt.
    pub backoff: Backoff,
    /// Which failures are tried again; empty means all.
    pub on: Vec<RetryRule>,
}

/// The pause between attempts: `base · 2ⁿ` up to `max` if exponential, else `base`; made longer by up to `jitter_percent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backoff {
    /// The first pause.
    pub base: Span,
    /// The longest pause. Equal to `base` for a fixed pause.
    pub max: Span,
    /// How much of the pause may be added at random, in percent; 0 to 100.
    pub jitter_percent: u8,
}

/// A kind of failure that is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RetryRule {
    /// Exit codes from the first to the second, both included.
    Exit(i32, i32),
    /// Any signal.
    Signal,
    /// The attempt ran longer than its timeout.
    Timeout,
    /// The attempt could not be started.
    Start,
    /// The HTTP request failed or was answered with a status that was not expected.
    Http,
}

/// Which tasks to end, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CancelTasks {
    /// The job that owns them.
    pub job: JobId,
    /// Task indexes; `None` means all.
    pub tasks: Option<RangeSet>,
    /// Time between the request to stop and the kill; zero kills at once.
    pub grace: Span,
    /// For people.
    pub reason: Box<str>,
}

/// Placements that a planning pass proposes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Plan {
    /// In the order of decision.
    pub placements: Vec<Placement>,
    /// Taken up after the placements; from feature level [`STAGING_LEVEL`](crate::STAGING_LEVEL) on.
    pub staged: Vec<Staging>,
}

impl Plan {
    /// Whether nothing is proposed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.placements.is_empty() && self.staged.is_empty()
    }
}

/// A queued task that is handed to a node before there is room for it there, so that no time is lost between the end of one task
/// and the start of the next (HyperQueue calls this prefilling; Beránek et al., SoftwareX 27, 2024).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Staging {
    /// The task to hand out.
    pub task: TaskId,
    /// The running or staged task, of the same queue and shape, whose room it takes over.
    pub behind: TaskId,
}

/// `count` tasks with consecutive indexes, to be started on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Placement {
    /// The first task.
    pub task: TaskId,
    /// How many tasks, from 1.
    pub count: u32,
    /// Where.
    pub node: NodeId,
}

/// What a worker says about an attempt that is over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttemptReport {
    /// Which attempt.
    pub attempt: AttemptId,
    /// The node that says so; must be the one that holds the attempt.
    pub node: NodeId,
    /// How it ended.
    pub end: AttemptEnd,
    /// When the worker launched it, by the worker's wall clock; `None` if it never ran.
    pub started_at: Option<Timestamp>,
    /// When it ended, by the worker's wall clock.
    pub ended_at: Timestamp,
    /// The last output and other details, encoded by the shell; opaque to the core.
    pub detail: Arc<[u8]>,
}

/// How an attempt ended, as its worker saw it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AttemptEnd {
    /// Exit code 0, or the expected HTTP status.
    Succeeded,
    /// Anything else that the program did by itself.
    Failed(Failure),
    /// Stopped because the state machine asked for it.
    Stopped,
    /// Never started: it was staged, and its node was asked to give it back.
    Recalled,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Failure {
    /// What happened.
    pub kind: FailureKind,
    /// For people; may be empty.
    pub message: Box<str>,
}

/// What happened to a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The program exited with this code.
    Exit(i32),
    /// The program was ended by this signal.
    Signal(i32),
    /// It ran longer than allowed.
    Timeout,
    /// It could not be started.
    Start,
    /// The HTTP request failed (`None`) or was answered with this unexpected status.
    Http(Option<u16>),
    /// Its node was lost once too often.
    Lost,
}

/// A node as its worker describes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeSpec {
    /// Unique in the cluster.
    pub name: Box<str>,
    /// Drawn when the worker process starts: another value means that the old process and its attempts are gone.
    pub incarnation: u64,
    /// What the node offers.
    pub capacity: Resources,
    /// How many attempts it runs at a time, whatever they need.
    pub attempts_max: u32,
    /// For constraints and people.
    pub labels: Labels,
    /// The worker's version, for people.
    pub version: Box<str>,
    /// What it is willing to run.
    pub runs: ActionKinds,
    /// Whether it understands that an attempt waits for the end of another.
    pub stages: bool,
}

/// A queue's settings.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QueueSpec {
    /// Unique in the cluster.
    pub name: Box<str>,
    /// Which task goes next.
    pub discipline: Discipline,
    /// Which node it goes to.
    pub placement: PlacementKind,
    /// Share of turns among the queues, from 1.
    pub weight: u32,
    /// How many tasks may run at a time.
    pub running_max: Option<u32>,
    /// How many tasks may wait or run before submits are refused.
    pub tasks_max: Option<u64>,
}

/// The answer to one command.
pub type Outcome = Result<Reply, Rejection>;

/// A command did what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// Jobs were taken in, or had been by an earlier request with the same key.
    Submitted {
        /// The first job; the others follow.
        first: JobId,
        /// How many.
        count: u32,
        /// Whether an earlier request had done it.
        replayed: bool,
    },
    /// Tasks were cancelled or asked to stop.
    Cancelled {
        /// Tasks that had not started and are over now.
        ended: u64,
        /// Tasks whose attempt was told to stop.
        stopping: u64,
    },
    /// Part of a plan or of a batch of reports was taken; the rest did not hold any more.
    Accepted {
        /// How many tasks were taken.
        taken: u64,
        /// How many were refused, harmlessly.
        refused: u64,
    },
    /// A node is known under this id.
    Node(NodeId),
    /// A server is known under this id.
    Server(ServerId),
    /// The key-value store answers.
    Kv(KvReply),
    /// Done.
    Done,
}

/// Why a command was refused. A value, not an error: nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// No such live job. It may be in the history.
    UnknownJob(JobId),
    /// The job has no such tasks that could still be cancelled.
    NothingToCancel(JobId),
    /// No such queue.
    UnknownQueue(Box<str>),
    /// The queue exists already.
    QueueExists(Box<str>),
    /// The queue still holds tasks.
    QueueNotEmpty(Box<str>),
    /// The queue `default` can't be removed.
    QueueProtected(Box<str>),
    /// The queue's `tasks_max` would be exceeded.
    QueueFull {
        /// The queue's name.
        queue: Box<str>,
        /// Its limit.
        limit: u64,
    },
    /// No such node.
    UnknownNode(NodeId),
    /// The node still runs attempts, or its worker is connected.
    NodeBusy(NodeId),
    /// No such server, or no longer: numbers are not given out twice.
    UnknownServer(ServerId),
    /// No such token, or one that has ended or is used up.
    UnknownToken(Box<str>),
    /// Another token has this id.
    TokenExists(Box<str>),
    /// The key was used for another request.
    IdempotencyConflict(Box<str>),
    /// The key-value store refuses.
    Kv(KvRejection),
    /// A limit would be exceeded.
    Limit {
        /// Which field or count, as users know it.
        what: &'static str,
        /// What was asked for.
        value: u64,
        /// What is allowed.
        limit: u64,
    },
    /// A field's value makes no sense.
    Invalid {
        /// Which field, as users know it.
        what: &'static str,
        /// Why.
        why: &'static str,
    },
}

impl From<KvRejection> for Rejection {
    fn from(rejection: KvRejection) -> Self {
        Self::Kv(rejection)
    }
}
