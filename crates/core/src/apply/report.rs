//! `EndAttempts`, and every other way in which an attempt ends.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use rota_types::limits::{LOST_ATTEMPTS_MAX, MESSAGE_BYTES_MAX};
use rota_types::{AttemptId, JobId, NodeId, Span, Steady, TaskId, Timestamp};

use crate::command::{
    AttemptEnd, AttemptReport, Backoff, Failure, FailureKind, GroupSpec, JobSpec, Reply,
    RetryPolicy, RetryRule,
};
use crate::event::{AttemptRecord, AttemptState, Event, Next};
use crate::job::{FinishedJob, Group, Job, TaskState, Terms};
use crate::state::{GroupAt, State};
use crate::task::{Phase, Task};

/// How an attempt ended, and what its record keeps.
pub(super) struct Ending {
    pub(super) state: AttemptState,
    pub(super) failure: Option<Failure>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) ended_at: Timestamp,
    pub(super) detail: Arc<[u8]>,
}

impl State {
    pub(super) fn end_attempts(
        &mut self,
        reports: &[AttemptReport],
        events: &mut Vec<Event>,
    ) -> Reply {
        let (mut taken, mut refused): (u64, u64) = (0, 0);
        for report in reports {
            if self.is_live(report) {
                taken = taken.saturating_add(1);
                self.end_attempt(report.attempt.task, ending(report), events);
            } else {
                refused = refused.saturating_add(1);
            }
        }
        Reply::Accepted { taken, refused }
    }

    /// Whether the report is about a live attempt and comes from the node that holds it (I3).
    #[must_use]
    pub fn is_live(&self, report: &AttemptReport) -> bool {
        self.tasks.get(&report.attempt.task).is_some_and(|task| {
            task.attempts == report.attempt.number
                && task.attempt().is_some_and(|attempt| attempt.node == report.node)
        })
    }

    /// Ends a task's live attempt: gives back what it held and decides what becomes of the task.
    pub(super) fn end_attempt(&mut self, id: TaskId, ending: Ending, events: &mut Vec<Event>) {
        let Some(group_at) = self.jobs.get(id.job).and_then(|job| job.group_of(id.index)) else {
            return;
        };
        let at = GroupAt { job: id.job, group: group_at };
        let Some(group) = self.jobs.get(id.job).and_then(|job| job.groups.get(group_at)) else {
            return;
        };
        let Some(task) = self.tasks.get_mut(&id) else {
            return;
        };
        let Some(attempt) = task.attempt().cloned() else {
            return;
        };
        let (behind, ready_at) = match task.phase {
            Phase::Staged { behind, since, .. } => (Some(behind), since),
            _ => (None, self.steady),
        };
        let attempt_id = task.latest(id);
        let state = if attempt.stop.is_some() { AttemptState::Cancelled } else { ending.state };
        let ended = Judged { attempt: attempt_id, state, failure: ending.failure, at: self.steady };
        let verdict = judge(task, &group.terms.retry, ended);
        match behind {
            Some(behind) => self.unstage(id, attempt.node, behind),
            None => self.release(id, at, attempt.node),
        }
        match verdict.next {
            Next::Queued if state == AttemptState::Recalled => {
                self.set_phase(id, at, Phase::Queued { since: ready_at });
            }
            Next::Queued => self.set_phase(id, at, Phase::Queued { since: self.steady }),
            Next::Waiting(until) => self.set_phase(id, at, Phase::Waiting { until }),
            Next::Finished(how) => self.end_task(id, at, how),
        }
        events.push(Event::AttemptEnded(Box::new(AttemptRecord {
            attempt: attempt_id,
            node: attempt.node,
            placed_at: attempt.placed_at,
            started_at: ending.started_at,
            ended_at: ending.ended_at,
            state,
            failure: verdict.failure,
            detail: ending.detail,
            next: verdict.next,
        })));
        if behind.is_none() {
            self.promote(id, attempt.node, events);
        }
        self.finish_if_over(id.job, events);
    }

    fn release(&mut self, id: TaskId, at: GroupAt, node: NodeId) {
        let Some(group) = self.jobs.get(at.job).and_then(|job| job.groups.get(at.group)) else {
            return;
        };
        let shape = self.shapes.get(group.shape);
        if let Some(node) = self.nodes.get_mut(&node) {
            node.give_back(&shape.shape.need);
            node.live.remove(&id);
        }
    }

    /// Lets a job leave the state if none of its tasks is live any more.
    pub(super) fn finish_if_over(&mut self, id: JobId, events: &mut Vec<Event>) {
        if self.jobs.get(id).is_none_or(|job| job.live > 0) {
            return;
        }
        let Some(job) = self.jobs.remove(id) else {
            return;
        };
        let counts = job.counts();
        let (submitted_at, started_at) = (job.submitted_at, job.started_at);
        let (failed, cancelled) = (job.failed().clone(), job.cancelled().clone());
        let spec = self.spec_of(&job);
        self.submitters.release(&job.submitter);
        for group in &job.groups {
            self.shapes.release(group.shape);
            self.terms.release(&group.terms);
        }
        events.push(Event::JobFinished(Box::new(FinishedJob {
            id,
            spec,
            submitted_at,
            started_at,
            finished_at: self.now,
            counts,
            failed,
            cancelled,
        })));
    }

    /// What was submitted.
    #[must_use]
    pub fn spec_of(&self, job: &Job) -> JobSpec {
        JobSpec {
            name: job.name.clone(),
            queue: self
                .queues
                .get(&job.queue)
                .map(|queue| queue.spec.name.clone())
                .unwrap_or_default(),
            priority: job.priority,
            labels: job.labels().clone(),
            submitter: job.submitter.as_ref().clone(),
            retry_of: job.retry_of(),
            groups: job.groups.iter().map(|group| self.group_spec(group)).collect(),
        }
    }

    fn group_spec(&self, group: &Group) -> GroupSpec {
        let Terms { name, is_array, estimate, timeout, retry, parallel_max } = group.terms.as_ref();
        GroupSpec {
            name: name.clone(),
            array: group.array.clone(),
            is_array: *is_array,
            action: Arc::clone(&group.action),
            shape: self.shape(group.shape).as_ref().clone(),
            estimate: *estimate,
            timeout: *timeout,
            retry: retry.clone(),
            parallel_max: *parallel_max,
        }
    }
}

/// What becomes of a task, and the failure its record keeps.
struct Verdict {
    next: Next,
    failure: Option<Failure>,
}

/// An attempt that ended, as far as it decides what comes next.
struct Judged {
    attempt: AttemptId,
    state: AttemptState,
    failure: Option<Failure>,
    at: Steady,
}

/// Decides what becomes of a task whose attempt ended, and counts the attempt (I4).
fn judge(task: &mut Task, retry: &RetryPolicy, ended: Judged) -> Verdict {
    let Judged { attempt, state, failure, at } = ended;
    match state {
        AttemptState::Succeeded => {
            Verdict { next: Next::Finished(TaskState::Succeeded), failure: None }
        }
        AttemptState::Cancelled => {
            Verdict { next: Next::Finished(TaskState::Cancelled), failure: None }
        }
        AttemptState::Lost => {
            task.lost = task.lost.saturating_add(1);
            if task.lost <= LOST_ATTEMPTS_MAX {
                return Verdict { next: Next::Queued, failure };
            }
            let message = "its node was lost too often: does the task bring its worker down?";
            let failure = Failure { kind: FailureKind::Lost, message: message.into() };
            Verdict { next: Next::Finished(TaskState::Failed), failure: Some(failure) }
        }
        AttemptState::Recalled => {
            task.recalled = task.recalled.saturating_add(1);
            Verdict { next: Next::Queued, failure: None }
        }
        AttemptState::Failed => {
            task.failures = task.failures.saturating_add(1);
            let again = task.failures < retry.attempts_max
                && failure.as_ref().is_some_and(|failure| is_retried(retry, failure.kind));
            let next = if again {
                match backoff(retry.backoff, task.failures, attempt) {
                    Span::ZERO => Next::Queued,
                    pause => Next::Waiting(at.plus(pause)),
                }
            } else {
                Next::Finished(TaskState::Failed)
            };
            Verdict { next, failure }
        }
    }
}

fn ending(report: &AttemptReport) -> Ending {
    let (state, failure) = match &report.end {
        AttemptEnd::Succeeded => (AttemptState::Succeeded, None),
        AttemptEnd::Failed(Failure { kind: FailureKind::Lost, .. }) | AttemptEnd::Stopped => {
            (AttemptState::Lost, None)
        }
        AttemptEnd::Recalled => (AttemptState::Recalled, None),
        AttemptEnd::Failed(failure) => {
            let message = clip(&failure.message, MESSAGE_BYTES_MAX).into();
            (AttemptState::Failed, Some(Failure { kind: failure.kind, message }))
        }
    };
    Ending {
        state,
        failure,
        started_at: report.started_at,
        ended_at: report.ended_at,
        detail: Arc::clone(&report.detail),
    }
}

/// The longest beginning of `text` that has at most `bytes` bytes.
fn clip(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.get(..end).unwrap_or("")
}

fn is_retried(retry: &RetryPolicy, kind: FailureKind) -> bool {
    retry.on.is_empty()
        || retry.on.iter().any(|rule| match (rule, kind) {
            (RetryRule::Exit(from, to), FailureKind::Exit(code)) => (*from..=*to).contains(&code),
            (RetryRule::Signal, FailureKind::Signal(_))
            | (RetryRule::Timeout, FailureKind::Timeout)
            | (RetryRule::Start, FailureKind::Start)
            | (RetryRule::Http, FailureKind::Http(_)) => true,
            (
                RetryRule::Exit(..)
                | RetryRule::Signal
                | RetryRule::Timeout
                | RetryRule::Start
                | RetryRule::Http,
                _,
            ) => false,
        })
}

/// The pause after the `failures`-th failure: doubled each time up to its maximum, plus a part of it that is drawn from the
/// attempt's id, so that every server draws the same.
fn backoff(backoff: Backoff, failures: u32, attempt: AttemptId) -> Span {
    let doublings = failures.saturating_sub(1).min(63);
    let pause = u128::from(backoff.base.0).saturating_mul(1_u128 << doublings);
    let pause = pause.min(u128::from(backoff.max.0));
    let most = pause.saturating_mul(u128::from(backoff.jitter_percent)) / 100;
    let draw = u128::from(mix(attempt)) % most.saturating_add(1);
    Span(u64::try_from(pause.saturating_add(draw)).unwrap_or(u64::MAX))
}

/// Mixes an attempt's id into 64 bits that look random (the finaliser of SplitMix64; Steele, Lea and Flood, OOPSLA 2014).
fn mix(attempt: AttemptId) -> u64 {
    let AttemptId { task: TaskId { job, index }, number } = attempt;
    let mut z = job.0.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z ^= u64::from(index) << 32 | u64::from(number);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
