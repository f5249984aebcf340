//! Identifiers. Small integers given out in order, so that people can type them.

use core::fmt;
use core::str::FromStr;

macro_rules! define_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl $name {
            /// The id after this one.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.parse().map(Self).map_err(|_| ParseIdError)
            }
        }
    };
}

define_id!(
    /// A job: what a user submits.
    JobId(u64)
);
define_id!(
    /// A node: a machine with capacity that runs attempts.
    NodeId(u32)
);
define_id!(
    /// A queue: tasks waiting under one discipline.
    QueueId(u32)
);
define_id!(
    /// A server: a member of the control plane. Never a [`NodeId`].
    ServerId(u64)
);
define_id!(
    /// A position in the replicated log; the first entry has index 1.
    LogIndex(u64)
);
define_id!(
    /// A session: what the keys and locks of one client live as long as.
    SessionId(u64)
);
define_id!(
    /// A position in the history of the key-value store: it rises by one with each change.
    Revision(u64)
);

/// A task: the smallest unit that is placed. Printed `17.3`: job 17, task 3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// The job that owns the task.
    pub job: JobId,
    /// The task's place in the job, from 0.
    pub index: u32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.job, self.index)
    }
}

impl FromStr for TaskId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let (job, index) = text.split_once('.').ok_or(ParseIdError)?;
        Ok(Self { job: job.parse()?, index: index.parse().map_err(|_| ParseIdError)? })
    }
}

/// One numbered try of a task. Printed `17.3#2`. Numbers rise by one from 1: the number is the fencing token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    /// The task that is tried.
    pub task: TaskId,
    /// Which try this is, from 1.
    pub number: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.task, self.number)
    }
}

impl FromStr for AttemptId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let (task, number) = text.split_once('#').ok_or(ParseIdError)?;
        Ok(Self { task: task.parse()?, number: number.parse().map_err(|_| ParseIdError)? })
    }
}

/// The text is not an id of the kind asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseIdError;

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an id: write a job as 17, a task as 17.3, an attempt as 17.3#2")
    }
}

impl core::error::Error for ParseIdError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn ids_print_and_parse_as_people_write_them() {
        let attempt = AttemptId { task: TaskId { job: JobId(17), index: 3 }, number: 2 };
        assert_eq!(attempt.to_string(), "17.3#2");
        assert_eq!("17.3#2".parse(), Ok(attempt));
        assert_eq!("17.3".parse(), Ok(attempt.task));
        for wrong in ["", "17", "17.", ".3", "17.3#", "17.-1", "17.4294967296"] {
            assert_eq!(wrong.parse::<TaskId>().is_err(), wrong != "17.3", "{wrong}");
            assert_eq!(wrong.parse::<AttemptId>(), Err(ParseIdError), "{wrong}");
        }
    }
}
