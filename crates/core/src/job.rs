//! Jobs, their groups and their tasks.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use rota_types::{JobId, Labels, LogIndex, NodeId, QueueId, RangeSet, Span, Steady, Timestamp};

use crate::command::{GroupSpec, JobSpec, RetryPolicy};

/// How a task ended. Final: to run it again is a new job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskState {
    /// Its last attempt succeeded.
    Succeeded,
    /// Its last attempt failed and was not to be tried again.
    Failed,
    /// It was cancelled.
    Cancelled,
}

/// How many tasks of a job are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Counts {
    /// May run now.
    pub queued: u64,
    /// Wait for a back-off to end.
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

/// A job that is over, as it leaves the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedJob {
    /// Its id.
    pub id: JobId,
    /// What was submitted.
    pub spec: JobSpec,
    /// When it was submitted, by the leader's wall clock.
    pub submitted_at: Timestamp,
    /// When its first attempt was placed.
    pub started_at: Option<Timestamp>,
    /// When its last task ended.
    pub finished_at: Timestamp,
    /// How its tasks ended.
    pub counts: Counts,
    /// Tasks that failed.
    pub failed: RangeSet,
    /// Tasks that were cancelled.
    pub cancelled: RangeSet,
}
