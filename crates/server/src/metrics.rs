//! Counters and histograms of this process, fed by events. Lost with the process, except where they can be had from the state.

use std::collections::{BTreeMap, VecDeque};

use hdrhistogram::Histogram;
use rota_api::Percentiles;
use rota_core::State;
use rota_core::command::{Command, Outcome, Placement, Reply};
use rota_core::event::{AttemptRecord, AttemptState, Event, Next};
use rota_types::{AttemptId, QueueId, Span, Steady, TaskId, Timestamp};

/// The longest wait that the histograms tell apart: a week.
const SPAN_MAX_MICROS: u64 = 7 * 24 * 3_600 * 1_000_000;
/// Tasks whose second readiness is remembered; beyond, their waits are not measured.
const READY_MAX: usize = 1_000_000;

/// What happened since the process started.
pub(crate) struct Metrics {
    /// From the moment a task could run to its placement, per queue.
    pub(crate) queue_waits: BTreeMap<QueueId, Waits>,
    /// From the moment a task could run and room was made to its placement: how long the scheduler itself takes.
    pub(crate) scheduling_delay: Waits,
    /// From placement to launch.
    pub(crate) start_latency: Waits,
    /// From launch to end.
    pub(crate) run_time: Waits,
    /// Writing and syncing the log.
    pub(crate) log_sync: Waits,
    /// Attempts that ended lately, and how many of them failed.
    pub(crate) ended: Recently,
    pub(crate) counters: Counters,
    ready: BTreeMap<TaskId, Steady>,
    /// When room was last made: an attempt ended, a node came, a queue was opened.
    room_at: Steady,
}

/// Queues whose waits are measured.
const QUEUES_MAX: usize = 1_000;
/// How long a window of recent values is; what is told covers one to two of them.
const WINDOW: Span = Span::from_secs(300);
/// Buckets of the count of recent ends, one second each.
const SECONDS: usize = 60;

/// Monotonic counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) entries: u64,
    pub(crate) commands: u64,
    pub(crate) events: u64,
    pub(crate) jobs_submitted: u64,
    pub(crate) jobs_finished: u64,
    pub(crate) attempts_created: u64,
    pub(crate) attempts_succeeded: u64,
    pub(crate) attempts_failed: u64,
    pub(crate) attempts_cancelled: u64,
    pub(crate) attempts_lost: u64,
    pub(crate) attempts_recalled: u64,
    pub(crate) nodes_lost: u64,
    pub(crate) rejections: u64,
    pub(crate) stale_reports: u64,
    pub(crate) snapshots: u64,
    pub(crate) snapshot_failures: u64,
}

/// Spans of the last minutes in two histograms that take turns, and their sum and count since the process started.
pub(crate) struct Waits {
    current: Histogram<u64>,
    before: Histogram<u64>,
    since: Steady,
    pub(crate) count: u64,
    pub(crate) sum_micros: u64,
}

impl Waits {
    fn new() -> Self {
        let empty = || {
            Histogram::new_with_bounds(1, SPAN_MAX_MICROS, 2)
                .expect("one microsecond to a week with two figures is a valid range")
        };
        Self { current: empty(), before: empty(), since: Steady(0), count: 0, sum_micros: 0 }
    }

    fn record(&mut self, span: Span, now: Steady) {
        if now.since(self.since) >= WINDOW {
            std::mem::swap(&mut self.current, &mut self.before);
            self.current.reset();
            self.since = now;
        }
        self.current.saturating_record(span.micros().clamp(1, SPAN_MAX_MICROS));
        self.count += 1;
        self.sum_micros = self.sum_micros.saturating_add(span.micros());
    }

    /// The percentiles of the last minutes.
    pub(crate) fn percentiles(&self) -> Percentiles {
        let mut all = self.current.clone();
        if all.add(&self.before).is_err() {
            all.clone_from(&self.current);
        }
        if all.is_empty() {
            return Percentiles::default();
        }
        let millis = |micros: u64| micros as f64 / 1_000.0;
        Percentiles {
            count: all.len(),
            p50_ms: millis(all.value_at_quantile(0.50)),
            p95_ms: millis(all.value_at_quantile(0.95)),
            p99_ms: millis(all.value_at_quantile(0.99)),
            max_ms: millis(all.max()),
        }
    }
}

/// Ends of attempts, second by second.
#[derive(Default)]
pub(crate) struct Recently {
    buckets: VecDeque<(u64, u64, u64)>,
}

impl Recently {
    fn record(&mut self, failed: bool, now: Steady) {
        let second = now.0 / 1_000_000;
        if self.buckets.back().is_none_or(|(last, ..)| *last != second) {
            self.buckets.push_back((second, 0, 0));
            if self.buckets.len() > SECONDS {
                self.buckets.pop_front();
            }
        }
        if let Some((_, ended, failures)) = self.buckets.back_mut() {
            *ended += 1;
            *failures += u64::from(failed);
        }
    }

    /// Attempts that ended in the last minute, and how many of them failed.
    pub(crate) fn minute(&self, now: Steady) -> (u64, u64) {
        let from = (now.0 / 1_000_000).saturating_sub(SECONDS as u64);
        self.buckets
            .iter()
            .filter(|(second, ..)| *second > from)
            .fold((0, 0), |(all, failed), (_, more, bad)| (all + more, failed + bad))
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            queue_waits: BTreeMap::new(),
            scheduling_delay: Waits::new(),
            start_latency: Waits::new(),
            run_time: Waits::new(),
            log_sync: Waits::new(),
            ended: Recently::default(),
            counters: Counters::default(),
            ready: BTreeMap::new(),
            room_at: Steady(0),
        }
    }

    /// Counts what an entry did. `state` already holds it.
    pub(crate) fn observe(&mut self, state: &State, events: &[Event]) {
        self.counters.entries += 1;
        self.counters.events += events.len() as u64;
        for event in events {
            self.observe_event(state, event);
        }
        // Behind the placements of the same entry: those used the room that was there before.
        if events.iter().any(makes_room) {
            self.room_at = state.steady();
        }
    }

    fn observe_event(&mut self, state: &State, event: &Event) {
        match event {
            Event::JobSubmitted(_) => self.counters.jobs_submitted += 1,
            Event::JobFinished(_) => self.counters.jobs_finished += 1,
            Event::AttemptsCreated(placement) => self.placed(state, placement),
            // Its wait ends when its turn comes.
            Event::AttemptPromoted { task, node } => {
                self.placed(state, &Placement { task: *task, count: 1, node: *node });
            }
            Event::AttemptEnded(record) => self.ended(state, record),
            Event::TaskQueued(task) => self.note_ready(*task, state.steady()),
            Event::TasksCancelled { job, tasks, .. } => {
                let ids = tasks.ranges().flat_map(|(start, end)| {
                    let id = |index| TaskId { job: *job, index };
                    self.ready.range(id(start)..id(end)).map(|(id, _)| *id)
                });
                for id in ids.collect::<Vec<_>>() {
                    self.ready.remove(&id);
                }
            }
            Event::NodeLost(_) => self.counters.nodes_lost += 1,
            Event::QueueRemoved(_) => self.queue_waits.retain(|id, _| state.queue(*id).is_some()),
            Event::AttemptStaged { .. }
            | Event::StopRequested(_)
            | Event::NodeRegistered(_)
            | Event::NodeDraining(..)
            | Event::NodeLeaving(_)
            | Event::NodeRemoved { .. }
            | Event::QueueConfigured(_)
            | Event::QueuePaused(..)
            | Event::ServerChanged(_)
            | Event::ServerRemoved(_)
            | Event::LevelRaised(_)
            | Event::TokenAdded(_)
            | Event::TokenRevoked(_)
            | Event::Noted(_)
            | Event::Kv(_) => {}
        }
    }

    /// Counts how commands were answered.
    pub(crate) fn note_outcomes(&mut self, commands: &[Command], outcomes: &[Outcome]) {
        self.counters.commands += commands.len() as u64;
        for (command, outcome) in commands.iter().zip(outcomes) {
            match (command, outcome) {
                (_, Err(_)) => self.counters.rejections += 1,
                (Command::EndAttempts(_), Ok(Reply::Accepted { refused, .. })) => {
                    self.counters.stale_reports += refused;
                }
                _ => {}
            }
        }
    }

    /// Notes how long a sync of the log took.
    pub(crate) fn note_sync(&mut self, took: std::time::Duration, now: Steady) {
        let span = Span(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        self.log_sync.record(span, now);
    }

    fn placed(&mut self, state: &State, placement: &Placement) {
        self.counters.attempts_created += u64::from(placement.count);
        let Some(job) = state.job(placement.task.job) else { return };
        let now = state.steady();
        let room = self.queue_waits.len() < QUEUES_MAX || self.queue_waits.contains_key(&job.queue);
        let first_wait = now.since(job.ready_at);
        for offset in 0..placement.count {
            let index = placement.task.index.saturating_add(offset);
            let ready = self.ready.remove(&TaskId { job: placement.task.job, index });
            let wait = ready.map_or(first_wait, |ready| now.since(ready));
            self.scheduling_delay.record(wait.min(now.since(self.room_at)), now);
            if room {
                self.queue_waits.entry(job.queue).or_insert_with(Waits::new).record(wait, now);
            }
        }
    }

    fn ended(&mut self, state: &State, record: &AttemptRecord) {
        let counters = &mut self.counters;
        let count = match record.state {
            AttemptState::Succeeded => &mut counters.attempts_succeeded,
            AttemptState::Failed => &mut counters.attempts_failed,
            AttemptState::Cancelled => &mut counters.attempts_cancelled,
            AttemptState::Lost => &mut counters.attempts_lost,
            AttemptState::Recalled => &mut counters.attempts_recalled,
        };
        *count += 1;
        if record.state == AttemptState::Recalled {
            return; // it has waited since before, and goes on waiting
        }
        self.ready.remove(&record.attempt.task);
        self.ended.record(record.state == AttemptState::Failed, state.steady());
        if let Some(started) = record.started_at {
            // The worker's clock and ours: a difference below zero is their disagreement.
            self.start_latency.record(started.since(record.placed_at), state.steady());
            self.run_time.record(record.ended_at.since(started), state.steady());
        }
        if matches!(record.next, Next::Queued) {
            self.note_ready(record.attempt.task, state.steady());
        }
    }

    fn note_ready(&mut self, task: TaskId, at: Steady) {
        if self.ready.len() < READY_MAX {
            self.ready.insert(task, at);
        }
    }
}

/// Whether a task may find room after this event that found none before.
fn makes_room(event: &Event) -> bool {
    match event {
        Event::AttemptEnded(_)
        | Event::NodeRegistered(_)
        | Event::NodeDraining(_, false)
        | Event::QueueConfigured(_)
        | Event::QueuePaused(_, false) => true,
        Event::JobSubmitted(_)
        | Event::AttemptsCreated(_)
        | Event::AttemptStaged { .. }
        | Event::AttemptPromoted { .. }
        | Event::StopRequested(_)
        | Event::TaskQueued(_)
        | Event::TasksCancelled { .. }
        | Event::JobFinished(_)
        | Event::NodeLost(_)
        | Event::NodeDraining(_, true)
        | Event::NodeLeaving(_)
        | Event::NodeRemoved { .. }
        | Event::QueuePaused(_, true)
        | Event::QueueRemoved(_)
        | Event::ServerChanged(_)
        | Event::ServerRemoved(_)
        | Event::LevelRaised(_)
        | Event::TokenAdded(_)
        | Event::TokenRevoked(_)
        | Event::Noted(_)
        | Event::Kv(_) => false,
    }
}

/// When live attempts were launched, as their workers said. For display only.
#[derive(Default)]
pub(crate) struct Launched(BTreeMap<AttemptId, Timestamp>);

impl Launched {
    pub(crate) fn note(&mut self, state: &State, attempt: AttemptId, at: Timestamp) {
        let live = state
            .task(attempt.task)
            .is_some_and(|task| task.attempt().is_some() && task.attempts == attempt.number);
        if live {
            self.0.insert(attempt, at);
        }
    }

    pub(crate) fn forget(&mut self, events: &[Event]) {
        for event in events {
            if let Event::AttemptEnded(record) = event {
                self.0.remove(&record.attempt);
            }
        }
    }

    pub(crate) fn at(&self, attempt: AttemptId) -> Option<Timestamp> {
        self.0.get(&attempt).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waits_of_a_removed_queue_are_forgotten() {
        let state = State::new();
        let kept = state.queues().next().expect("there is a default queue").0;
        let mut metrics = Metrics::new();
        for id in [kept, QueueId(77)] {
            metrics.queue_waits.insert(id, Waits::new());
        }
        metrics.observe(&state, &[Event::QueueRemoved("gone".into())]);
        assert_eq!(metrics.queue_waits.keys().copied().collect::<Vec<_>>(), [kept]);
    }
}
