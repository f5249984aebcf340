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
    /// Attempts that were taken back from their node before they ran.
    pub recalled: u32,
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
    /// Was handed to a node before there is room for it there, and starts as soon as the task ahead, running or staged itself, has
    /// ended. Its attempt holds nothing yet. The node may have started it already, without the server knowing.
    Staged {
        /// The attempt that the node was given.
        attempt: Attempt,
        /// The task of the same node whose room it will take.
        behind: TaskId,
        /// Since when it has been ready: its place in the queue if it is taken back.
        since: Steady,
    },
    /// Has an attempt that holds what it needs.
    Running(Attempt),
}

/// An attempt that is not over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// The node that runs it or will.
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
    /// A task that is tried for the first time. `before` is the number that no attempt has any more.
    pub(crate) fn first(before: u32, phase: Phase) -> Self {
        Self { attempts: before.saturating_add(1), failures: 0, lost: 0, recalled: 0, phase }
    }

    /// The live attempt, if there is one: it runs, or its node was given it to run next.
    #[must_use]
    pub fn attempt(&self) -> Option<&Attempt> {
        match &self.phase {
            Phase::Running(attempt) | Phase::Staged { attempt, .. } => Some(attempt),
            Phase::Queued { .. } | Phase::Waiting { .. } => None,
        }
    }

    /// The attempt that holds what it needs, if there is one.
    #[must_use]
    pub fn running(&self) -> Option<&Attempt> {
        match &self.phase {
            Phase::Running(attempt) => Some(attempt),
            Phase::Staged { .. } | Phase::Queued { .. } | Phase::Waiting { .. } => None,
        }
    }

    /// The task behind which this one is staged.
    #[must_use]
    pub fn behind(&self) -> Option<TaskId> {
        match self.phase {
            Phase::Staged { behind, .. } => Some(behind),
            Phase::Running(_) | Phase::Queued { .. } | Phase::Waiting { .. } => None,
        }
    }

    pub(crate) fn attempt_mut(&mut self) -> Option<&mut Attempt> {
        match &mut self.phase {
            Phase::Running(attempt) | Phase::Staged { attempt, .. } => Some(attempt),
            Phase::Queued { .. } | Phase::Waiting { .. } => None,
        }
    }

    /// Gives the next attempt its number. `before` is the number that no attempt has any more.
    pub(crate) fn begin_attempt(&mut self, before: u32) {
        self.attempts = self.attempts.max(before).saturating_add(1);
    }

    /// The id of the latest attempt.
    #[must_use]
    pub fn latest(&self, task: TaskId) -> AttemptId {
        AttemptId { task, number: self.attempts }
    }
}
