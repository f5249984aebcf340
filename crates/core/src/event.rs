//! What became true.

use alloc::boxed::Box;
use alloc::sync::Arc;

use rota_types::{AttemptId, JobId, NodeId, RangeSet, ServerId, Steady, TaskId, Timestamp};

use crate::command::{Failure, Placement};
use crate::job::{FinishedJob, TaskState};
use crate::kv::KvEvent;
use crate::token::Noted;

/// A fact. Events come in the order in which they became true; the state already holds them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A job was taken in; its tasks are queued.
    JobSubmitted(JobId),
    /// Attempts were created on a node. The number of each is its task's current one.
    AttemptsCreated(Placement),
    /// A task was staged. The number of its attempt is its current one.
    AttemptStaged {
        /// The task.
        task: TaskId,
        /// The node that was given it.
        node: NodeId,
        /// The task that it is behind.
        behind: TaskId,
    },
    /// The task ahead of a staged one has ended: it runs.
    AttemptPromoted {
        /// The task.
        task: TaskId,
        /// Its node.
        node: NodeId,
    },
    /// An attempt is over.
    AttemptEnded(Box<AttemptRecord>),
    /// A live attempt has to stop; the worker learns it from the desired set.
    StopRequested(AttemptId),
    /// A task that waited may run again.
    TaskQueued(TaskId),
    /// Tasks that had no live attempt were cancelled.
    TasksCancelled {
        /// The job that owns them.
        job: JobId,
        /// Their indexes.
        tasks: RangeSet,
        /// For people.
        reason: Box<str>,
    },
    /// Every task of a job is over; the job has left the state.
    JobFinished(Box<FinishedJob>),
    /// A node joined, or its worker came back.
    NodeRegistered(NodeId),
    /// A node's lease ran out; it holds nothing any more.
    NodeLost(NodeId),
    /// A node began (`true`) or ceased (`false`) to drain.
    NodeDraining(NodeId, bool),
    /// A node's worker is about to go.
    NodeLeaving(NodeId),
    /// A node was forgotten.
    NodeRemoved {
        /// Its former id.
        node: NodeId,
        /// Its name.
        name: Box<str>,
    },
    /// A queue was created or its settings changed.
    QueueConfigured(Box<str>),
    /// A queue was paused (`true`) or resumed (`false`).
    QueuePaused(Box<str>, bool),
    /// A queue was forgotten.
    QueueRemoved(Box<str>),
    /// A token was made.
    TokenAdded(Box<str>),
    /// A token is of no use any more: it was revoked, is used up, or had ended.
    TokenRevoked(Box<str>),
    /// Somebody asked for something, for the audit.
    Noted(Box<Noted>),
    /// A server was taken in, or says something else of itself.
    ServerChanged(ServerId),
    /// A server was forgotten.
    ServerRemoved(ServerId),
    /// What this feature level brings is on.
    LevelRaised(u32),
    /// Something changed in the key-value store.
    Kv(KvEvent),
}

/// An attempt that is over: what the history keeps of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttemptRecord {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Where it ran.
    pub node: NodeId,
    /// When it was placed, by the leader's wall clock.
    pub placed_at: Timestamp,
    /// When the worker launched it, by the worker's clock.
    pub started_at: Option<Timestamp>,
    /// When it ended, by the worker's clock, or by the leader's if the node was lost.
    pub ended_at: Timestamp,
    /// How it ended.
    pub state: AttemptState,
    /// Why, if it failed.
    pub failure: Option<Failure>,
    /// The last output, encoded by the shell.
    pub detail: Arc<[u8]>,
    /// What became of the task.
    pub next: Next,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttemptState {
    /// It did what was asked.
    Succeeded,
    /// It did not.
    Failed,
    /// It was stopped on request.
    Cancelled,
    /// Its node was lost, or its worker restarted.
    Lost,
    /// It was staged, and taken back before it ran.
    Recalled,
}

/// What became of a task when its attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Next {
    /// It is queued again.
    Queued,
    /// It waits until this steady time, then it is queued again.
    Waiting(Steady),
    /// It is over.
    Finished(TaskState),
}
