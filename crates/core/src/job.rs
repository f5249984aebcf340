//! Jobs and their groups.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use rota_types::{JobId, Labels, QueueId, RangeSet, Span, Steady, Timestamp};

use crate::command::{JobSpec, RetryPolicy};
use crate::shape::ShapeId;

/// A job that is not over.
#[derive(Clone, Debug)]
pub struct Job {
    /// For people.
    pub name: Box<str>,
    /// Where its tasks wait.
    pub queue: QueueId,
    /// Higher goes first under the `priority` discipline.
    pub priority: i32,
    /// For people and selectors.
    pub labels: Labels,
    /// Who submitted it.
    pub submitter: Box<str>,
    /// The job whose tasks it tries again.
    pub retry_of: Option<JobId>,
    /// When it was submitted, by the leader's wall clock.
    pub submitted_at: Timestamp,
    /// When its fresh tasks became ready.
    pub ready_at: Steady,
    /// When its first attempt was placed.
    pub started_at: Option<Timestamp>,
    /// Tasks that failed.
    pub failed: RangeSet,
    /// Tasks that were cancelled.
    pub cancelled: RangeSet,
    /// Tasks that are not over.
    pub live: u64,
    /// The kinds of tasks, in order; never empty.
    pub groups: Vec<Group>,
}

/// Tasks of one job that differ only in their array index.
#[derive(Clone, Debug)]
pub struct Group {
    /// Unique in the job.
    pub name: Box<str>,
    /// The array indexes, one task each.
    pub array: RangeSet,
    /// Whether tasks see their array index.
    pub is_array: bool,
    /// What to do; opaque here.
    pub action: Arc<[u8]>,
    /// What a node must offer.
    pub shape: ShapeId,
    /// How long one task is expected to run.
    pub estimate: Option<Span>,
    /// How long one attempt may run.
    pub timeout: Option<Span>,
    /// What to do when an attempt fails.
    pub retry: RetryPolicy,
    /// How many may run at a time.
    pub parallel_max: Option<u32>,
    /// The index of its first task.
    pub first: u32,
    /// How many tasks it has: as many as `array` has indexes.
    pub tasks: u32,
    /// Tasks that were never tried and are queued.
    pub fresh: RangeSet,
    /// How many of its tasks are in each state.
    pub counts: Counts,
}

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

/// How many tasks are in each state.
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

/// One of the states that [`Counts`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// May run now.
    Queued,
    /// Waits for a back-off to end.
    Waiting,
    /// Has a live attempt.
    Running,
    /// Is over.
    Over(TaskState),
}

/// Where a job stands: computed from its counts, never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobState {
    /// No task was ever tried.
    Queued,
    /// Some task was tried, and some task is not over.
    Running,
    /// Every task succeeded.
    Succeeded,
    /// Every task is over and at least one failed.
    Failed,
    /// Every task is over, none failed, at least one was cancelled.
    Cancelled,
}

/// A job that is over, as it leaves the state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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

impl Job {
    /// How many tasks of all groups are in each state.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.groups.iter().fold(Counts::default(), |sum, group| sum.plus(&group.counts))
    }

    /// How many tasks the job has.
    #[must_use]
    pub fn tasks(&self) -> u32 {
        self.groups.last().map_or(0, Group::end)
    }

    /// The place in `groups` of the group that has the task with this index.
    #[must_use]
    pub fn group_of(&self, index: u32) -> Option<usize> {
        let after = self.groups.partition_point(|group| group.first <= index);
        let place = after.checked_sub(1)?;
        self.groups.get(place).filter(|group| index < group.end()).map(|_| place)
    }

    /// Where the job stands.
    #[must_use]
    pub fn state(&self) -> JobState {
        if self.started_at.is_none() { JobState::Queued } else { JobState::Running }
    }
}

impl Group {
    /// The index after its last task.
    #[must_use]
    pub fn end(&self) -> u32 {
        self.first.saturating_add(self.tasks)
    }

    /// The array index of the task with this index in the job.
    #[must_use]
    pub fn array_index(&self, index: u32) -> Option<u32> {
        let mut offset = index.checked_sub(self.first)?;
        for (start, end) in self.array.ranges() {
            let length = end.saturating_sub(start);
            if offset < length {
                return start.checked_add(offset);
            }
            offset = offset.saturating_sub(length);
        }
        None
    }

    /// How many more of the group may run now.
    #[must_use]
    pub fn room(&self) -> u64 {
        let limit = self.parallel_max.map_or(u64::MAX, u64::from);
        limit.saturating_sub(self.counts.running)
    }
}

impl Counts {
    /// Both counts added.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            queued: self.queued.saturating_add(other.queued),
            waiting: self.waiting.saturating_add(other.waiting),
            running: self.running.saturating_add(other.running),
            succeeded: self.succeeded.saturating_add(other.succeeded),
            failed: self.failed.saturating_add(other.failed),
            cancelled: self.cancelled.saturating_add(other.cancelled),
        }
    }

    /// Tasks that are not over.
    #[must_use]
    pub fn live(&self) -> u64 {
        self.queued.saturating_add(self.waiting).saturating_add(self.running)
    }

    /// All tasks.
    #[must_use]
    pub fn total(&self) -> u64 {
        let over = self.succeeded.saturating_add(self.failed).saturating_add(self.cancelled);
        self.live().saturating_add(over)
    }

    /// The count of one state.
    pub(crate) fn slot(&mut self, slot: Slot) -> &mut u64 {
        match slot {
            Slot::Queued => &mut self.queued,
            Slot::Waiting => &mut self.waiting,
            Slot::Running => &mut self.running,
            Slot::Over(TaskState::Succeeded) => &mut self.succeeded,
            Slot::Over(TaskState::Failed) => &mut self.failed,
            Slot::Over(TaskState::Cancelled) => &mut self.cancelled,
        }
    }
}

impl FinishedJob {
    /// How the job ended.
    #[must_use]
    pub fn state(&self) -> JobState {
        match self.counts {
            Counts { failed: 0, cancelled: 0, .. } => JobState::Succeeded,
            Counts { failed: 0, .. } => JobState::Cancelled,
            Counts { .. } => JobState::Failed,
        }
    }
}
