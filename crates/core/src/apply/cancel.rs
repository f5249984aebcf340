//! `CancelTasks`: what has not started ends now, what runs is told to stop.

use alloc::boxed::Box;
use alloc::vec::Vec;

use rota_types::limits::{GRACE_MAX, MESSAGE_BYTES_MAX};
use rota_types::{JobId, RangeSet, Span, TaskId};

use crate::apply::submit::{check_printable, limit};
use crate::command::{CancelTasks, Outcome, Rejection, Reply};
use crate::event::Event;
use crate::job::{Slot, TaskState};
use crate::state::{GroupAt, State};
use crate::task::Phase;

/// Which tasks of a job to cancel, and how.
pub(super) struct Cancelling<'a> {
    pub(super) job: JobId,
    pub(super) tasks: &'a RangeSet,
    /// `None` leaves running tasks alone.
    pub(super) grace: Option<Span>,
    pub(super) reason: &'a str,
}

impl State {
    pub(super) fn cancel_tasks(
        &mut self,
        cancel: &CancelTasks,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let CancelTasks { job, tasks, grace, reason } = cancel;
        limit("grace in µs", grace.0, GRACE_MAX.0)?;
        limit("cancel.reason bytes", reason.len() as u64, MESSAGE_BYTES_MAX as u64)?;
        check_printable("cancel.reason", reason)?;
        let size = self.jobs.get(*job).ok_or(Rejection::UnknownJob(*job))?.tasks();
        let all = RangeSet::from_range(0, size);
        let tasks = tasks.as_ref().unwrap_or(&all);
        let cancelling = Cancelling { job: *job, tasks, grace: Some(*grace), reason };
        let (ended, stopping) = self.cancel(&cancelling, events);
        if ended == 0 && stopping == 0 {
            return Err(Rejection::NothingToCancel(*job));
        }
        Ok(Reply::Cancelled { ended, stopping })
    }

    /// Returns how many tasks ended and how many were told to stop.
    pub(super) fn cancel(&mut self, what: &Cancelling<'_>, events: &mut Vec<Event>) -> (u64, u64) {
        let mut ended = self.cancel_fresh(what);
        let (idle, running) = self.tried(what);
        for (id, group) in idle {
            self.end_task(id, GroupAt { job: what.job, group }, TaskState::Cancelled);
            ended.insert(id.index);
        }
        let mut stopping: u64 = 0;
        if let Some(grace) = what.grace {
            for id in running {
                stopping = stopping.saturating_add(1);
                self.request_stop(id, grace, events);
            }
        }
        let count = ended.len();
        if count > 0 {
            let reason: Box<str> = what.reason.into();
            events.push(Event::TasksCancelled { job: what.job, tasks: ended, reason });
        }
        self.finish_if_over(what.job, events);
        (count, stopping)
    }

    fn cancel_fresh(&mut self, what: &Cancelling<'_>) -> RangeSet {
        let mut ended = RangeSet::default();
        let groups = self.jobs.get(what.job).map_or(0, |job| job.groups.len());
        for group in 0..groups {
            let chosen = self
                .jobs
                .get_mut(what.job)
                .and_then(|job| job.groups.get_mut(group))
                .map(|group| {
                    let chosen = group.fresh.intersection(what.tasks);
                    group.fresh = without(&group.fresh, &chosen);
                    chosen
                })
                .unwrap_or_default();
            let at = GroupAt { job: what.job, group };
            self.shift(at, Some(Slot::Queued), Slot::Over(TaskState::Cancelled), chosen.len());
            for (start, end) in chosen.ranges() {
                ended.insert_range(start, end);
            }
        }
        self.note_end(what.job, ended.clone(), TaskState::Cancelled);
        ended
    }

    /// The chosen tasks that have been tried: those without a live attempt, with their group, and those with one.
    fn tried(&self, what: &Cancelling<'_>) -> (Vec<(TaskId, usize)>, Vec<TaskId>) {
        let (mut idle, mut running) = (Vec::new(), Vec::new());
        let Some(job) = self.jobs.get(what.job) else {
            return (idle, running);
        };
        for (id, task) in what.tasks.ranges().flat_map(|range| self.tasks_in(what.job, range)) {
            match (&task.phase, job.group_of(id.index)) {
                (Phase::Running(_) | Phase::Staged { .. }, _) => running.push(id),
                (Phase::Queued { .. } | Phase::Waiting { .. }, Some(group)) => {
                    idle.push((id, group));
                }
                (Phase::Queued { .. } | Phase::Waiting { .. }, None) => {}
            }
        }
        (idle, running)
    }

    /// Notes that a live attempt has to stop. A second request can only shorten the grace.
    fn request_stop(&mut self, id: TaskId, grace: Span, events: &mut Vec<Event>) {
        let Some(task) = self.tasks.get_mut(&id) else {
            return;
        };
        let latest = task.latest(id);
        if let Some(attempt) = task.attempt_mut() {
            attempt.stop = Some(attempt.stop.map_or(grace, |earlier| earlier.min(grace)));
            events.push(Event::StopRequested(latest));
        }
    }
}

/// The numbers of `set` that are not in `less`. One walk over both: taking out range by range would shift the rest each time.
fn without(set: &RangeSet, less: &RangeSet) -> RangeSet {
    let mut rest = RangeSet::default();
    let mut gaps = less.ranges().peekable();
    for (start, end) in set.ranges() {
        let mut from = start;
        while let Some((gap, after)) = gaps.peek().copied().filter(|(gap, _)| *gap < end) {
            rest.insert_range(from, gap);
            from = from.max(after);
            if after > end {
                break;
            }
            gaps.next();
        }
        rest.insert_range(from, end);
    }
    rest
}
