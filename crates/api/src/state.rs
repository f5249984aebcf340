//! The states of jobs, tasks and attempts.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::output::Counts;

/// The state of a job, computed from its tasks.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Nothing has started.
    #[default]
    Queued,
    /// Something has started, something is not over.
    Running,
    /// Every task succeeded.
    Succeeded,
    /// All is over, and some task failed.
    Failed,
    /// All is over, nothing failed, and some task was cancelled.
    Cancelled,
}

/// The state of a task.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// May run as soon as a node has room.
    #[default]
    Queued,
    /// Waits for the pause after a failed attempt to end.
    Waiting,
    /// Has a live attempt.
    Running,
    /// Is over, well.
    Succeeded,
    /// Is over, badly.
    Failed,
    /// Was cancelled.
    Cancelled,
}

/// The state of an attempt.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum AttemptState {
    /// Runs, or is about to.
    #[default]
    Live,
    /// Did what was asked.
    Succeeded,
    /// Did not.
    Failed,
    /// Was stopped on request.
    Cancelled,
    /// Its node was lost, or its worker restarted.
    Lost,
    /// Was handed to a node to run next, and taken back before it ran.
    Recalled,
}

impl TaskState {
    /// Whether nothing more happens to the task.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

macro_rules! name_states {
    ($($type:ident { $($variant:ident = $name:literal),* })*) => { $(
        impl $type {
            /// Every state, in the order of a life.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name in JSON, in filters and on screen.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl std::str::FromStr for $type {
            type Err = crate::scalar::ScalarError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|state| state.name() == text).ok_or_else(|| {
                    let names: Vec<&str> = Self::ALL.iter().map(|state| state.name()).collect();
                    crate::scalar::ScalarError {
                        message: format!("\"{text}\" is not a state"),
                        hint: format!("one of {}", names.join(", ")),
                    }
                })
            }
        }
    )* };
}

name_states! {
    JobState {
        Queued = "queued", Running = "running", Succeeded = "succeeded", Failed = "failed", Cancelled = "cancelled"
    }
    TaskState {
        Queued = "queued", Waiting = "waiting", Running = "running", Succeeded = "succeeded", Failed = "failed",
        Cancelled = "cancelled"
    }
    AttemptState {
        Live = "live", Succeeded = "succeeded", Failed = "failed", Cancelled = "cancelled", Lost = "lost", Recalled = "recalled"
    }
}

impl JobState {
    /// Whether nothing of the job can change any more.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// The state of a job with these tasks.
    #[must_use]
    pub const fn of(counts: &Counts, started: bool) -> Self {
        if counts.queued + counts.waiting + counts.running > 0 {
            return if started { Self::Running } else { Self::Queued };
        }
        match (counts.failed, counts.cancelled) {
            (0, 0) => Self::Succeeded,
            (0, _) => Self::Cancelled,
            (_, _) => Self::Failed,
        }
    }
}
