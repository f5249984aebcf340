//! Jobs and their groups.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};
use core::slice;

use rota_types::{JobId, Labels, QueueId, RangeSet, Span, Steady, Timestamp};

use crate::command::{GroupSpec, JobSpec, RetryPolicy};
use crate::shape::ShapeId;

/// A job that is not over. There may be millions: what jobs have in common is shared, and what few of them have is kept apart.
#[derive(Clone, Debug)]
pub struct Job {
    /// For people.
    pub name: Box<str>,
    /// Who submitted it.
    pub submitter: Arc<Box<str>>,
    /// Where its tasks wait.
    pub queue: QueueId,
    /// Higher goes first under the `priority` discipline.
    pub priority: i32,
    /// When it was submitted, by the leader's wall clock.
    pub submitted_at: Timestamp,
    /// When its fresh tasks became ready.
    pub ready_at: Steady,
    /// When its first attempt was placed.
    pub started_at: Option<Timestamp>,
    /// Tasks that are not over.
    pub live: u64,
    /// What most jobs don't have.
    pub(crate) rare: Option<Box<Rare>>,
    /// The kinds of tasks, in order; never empty.
    pub groups: Groups,
}

/// What most jobs don't have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rare {
    pub(crate) labels: Labels,
    pub(crate) retry_of: Option<JobId>,
    pub(crate) failed: RangeSet,
    pub(crate) cancelled: RangeSet,
}

static NOTHING_RARE: Rare = Rare {
    labels: Labels::new(),
    retry_of: None,
    failed: RangeSet::new(),
    cancelled: RangeSet::new(),
};

/// The groups of a job. The single group that most jobs have lies in the job itself.
#[derive(Clone, Debug)]
pub enum Groups {
    /// One group.
    One(Group),
    /// Any number of groups.
    Many(Box<[Group]>),
}

/// Tasks of one job that differ only in their array index.
#[derive(Clone, Debug)]
pub struct Group {
    /// The array indexes, one task each.
    pub array: RangeSet,
    /// What to do; opaque here.
    pub action: Arc<[u8]>,
    /// How it is called and may run.
    pub terms: Arc<Terms>,
    /// What a node must offer.
    pub shape: ShapeId,
    /// The index of its first task.
    pub first: u32,
    /// How many tasks it has: as many as `array` has indexes.
    pub tasks: u32,
    /// Tasks that were never tried and are queued.
    pub fresh: RangeSet,
    /// How many of its tasks are in each state.
    pub(crate) tally: Tally,
}

/// How a group is called and may run. Groups with equal terms share them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Terms {
    /// Unique in the job.
    pub name: Box<str>,
    /// Whether tasks see their array index.
    pub is_array: bool,
    /// How long one task is expected to run.
    pub estimate: Option<Span>,
    /// How long one attempt may run.
    pub timeout: Option<Span>,
    /// What to do when an attempt fails.
    pub retry: RetryPolicy,
    /// How many may run at a time.
    pub parallel_max: Option<u32>,
}

/// [`Counts`] of one group: no job has more tasks than these can count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    queued: u32,
    waiting: u32,
    pub(crate) running: u32,
    pub(crate) succeeded: u32,
    failed: u32,
    cancelled: u32,
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
        self.groups.iter().fold(Counts::default(), |sum, group| sum.plus(&group.counts()))
    }

    /// For people and selectors.
    #[must_use]
    pub fn labels(&self) -> &Labels {
        &self.rare().labels
    }

    /// The job whose tasks it tries again.
    #[must_use]
    pub fn retry_of(&self) -> Option<JobId> {
        self.rare().retry_of
    }

    /// Tasks that failed.
    #[must_use]
    pub fn failed(&self) -> &RangeSet {
        &self.rare().failed
    }

    /// Tasks that were cancelled.
    #[must_use]
    pub fn cancelled(&self) -> &RangeSet {
        &self.rare().cancelled
    }

    fn rare(&self) -> &Rare {
        self.rare.as_deref().unwrap_or(&NOTHING_RARE)
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

impl Rare {
    /// What to keep of this: nothing if there is nothing.
    pub(crate) fn kept(self) -> Option<Box<Self>> {
        (self != NOTHING_RARE).then(|| Box::new(self))
    }
}

impl From<Vec<Group>> for Groups {
    fn from(mut groups: Vec<Group>) -> Self {
        match groups.pop() {
            Some(only) if groups.is_empty() => Self::One(only),
            last => {
                groups.extend(last);
                Self::Many(groups.into_boxed_slice())
            }
        }
    }
}

impl Deref for Groups {
    type Target = [Group];

    fn deref(&self) -> &[Group] {
        match self {
            Self::One(group) => slice::from_ref(group),
            Self::Many(groups) => groups,
        }
    }
}

impl DerefMut for Groups {
    fn deref_mut(&mut self) -> &mut [Group] {
        match self {
            Self::One(group) => slice::from_mut(group),
            Self::Many(groups) => groups,
        }
    }
}

impl<'a> IntoIterator for &'a Groups {
    type Item = &'a Group;
    type IntoIter = slice::Iter<'a, Group>;

    fn into_iter(self) -> slice::Iter<'a, Group> {
        self.iter()
    }
}

impl Terms {
    /// The part of a group's description that many groups have in common.
    pub(crate) fn of(spec: &GroupSpec) -> Self {
        Self {
            name: spec.name.clone(),
            is_array: spec.is_array,
            estimate: spec.estimate,
            timeout: spec.timeout,
            retry: spec.retry.clone(),
            parallel_max: spec.parallel_max,
        }
    }
}

impl Group {
    /// How many of its tasks are in each state.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let Tally { queued, waiting, running, succeeded, failed, cancelled } = self.tally;
        Counts {
            queued: queued.into(),
            waiting: waiting.into(),
            running: running.into(),
            succeeded: succeeded.into(),
            failed: failed.into(),
            cancelled: cancelled.into(),
        }
    }

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
        let limit = self.terms.parallel_max.map_or(u64::MAX, u64::from);
        limit.saturating_sub(u64::from(self.tally.running))
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

impl Tally {
    /// Counts `tasks` more in one state.
    pub(crate) fn more(&mut self, slot: Slot, tasks: u64) {
        let count = self.slot(slot);
        *count = count.saturating_add(u32::try_from(tasks).unwrap_or(u32::MAX));
    }

    /// Counts `tasks` less in one state.
    ///
    /// # Panics
    /// If there are not that many: every task is counted before it moves (I9).
    pub(crate) fn less(&mut self, slot: Slot, tasks: u64) {
        let count = self.slot(slot);
        let tasks = u32::try_from(tasks).ok();
        let left = tasks.and_then(|tasks| count.checked_sub(tasks));
        *count = left.expect("every task is counted before it moves");
    }

    fn slot(&mut self, slot: Slot) -> &mut u32 {
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
