//! Tasks that have been tried and are not over, and their attempts.
//!
//! A task that was never tried is only a number in its group's `fresh` set, and one that is over only a number in a count:
//! that is what makes a million queued array tasks cost no more than one.

use rota_types::{AttemptId, NodeId, Span, Steady, TaskId, Timestamp};

use crate::job::TaskState;

/// A task that has been tried at least once and is not over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Task {
    /// The number of its latest attempt.
    pub attempts: u32,
    /// Attempts that failed and count against the retry policy.
    pub failures: u32,
    /// Attempts that were lost with their node.
    pub lost: u32,
    /// What it does now.
    pub phase: Phase,
}

/// What a task that has been tried does now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// May run again.
    Queued {
        /// Since when.
        since: Steady,
    },
    /// Waits for its back-off to end.
    Waiting {
        /// When it may run again.
        until: Steady,
    },
    /// Has a live attempt.
    Running(Attempt),
}

/// A live attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// The node that runs it.
    pub node: NodeId,
    /// When it was placed, by the leader's wall clock.
    pub placed_at: Timestamp,
    /// Set when it has to stop: the time between the request and the kill.
    pub stop: Option<Span>,
}

/// Where a task of a live job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// Never tried; queued since its job was submitted.
    Fresh,
    /// Tried, and not over.
    Tried(&'a Task),
    /// Over.
    Over(TaskState),
}

impl Task {
    /// The live attempt, if there is one.
    #[must_use]
    pub fn attempt(&self) -> Option<&Attempt> {
        match &self.phase {
            Phase::Running(attempt) => Some(attempt),
            Phase::Queued { .. } | Phase::Waiting { .. } => None,
        }
    }

    /// The id of the latest attempt.
    #[must_use]
    pub fn latest(&self, task: TaskId) -> AttemptId {
        AttemptId { task, number: self.attempts }
    }
}
