//! Every invariant of ARCHITECTURE.md that is about the state, recomputed the slow way. Tests and the simulator call it after
//! each entry.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use rota_types::limits::LOST_ATTEMPTS_MAX;
use rota_types::{NodeId, QueueId, RangeSet, Resources, TaskId};

use crate::job::{Counts, Group, Job, Slot, TaskState};
use crate::pool::Pool;
use crate::shape::ShapeId;
use crate::state::{State, slot_of};
use crate::task::{Phase, Task};
use crate::token::Grant;

/// A broken invariant, by its number in ARCHITECTURE.md, with what was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// I1: capacity is not what is free plus what is held.
    I1Capacity(String),
    /// I2: live attempts and running tasks do not match.
    I2LiveAttempt(String),
    /// I4: a task was tried more often than its policy allows.
    I4Attempts(String),
    /// I8: a lost node holds something.
    I8LostNode(String),
    /// I9: a counter differs from its recomputation.
    I9Counter(String),
    /// I10: an index differs from its recomputation.
    I10Index(String),
    /// I11: a group runs more than its `parallel_max`. The other limits may be lowered while tasks run, so that only the moment of
    /// placing can be checked; the simulator does.
    I11Limit(String),
    /// I16: a join token has no use left, a session has no token, or a token is not under its id.
    I16Token(String),
    /// I17: the key-value store contradicts itself.
    I17Kv(String),
    /// I18: a staged task is behind none of its node, or behind one of another kind, or is not the only one, or nothing runs ahead.
    I18Staged(String),
}

impl State {
    /// Recomputes everything that is derived and compares. Empty if every invariant holds.
    #[must_use]
    pub fn check(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        self.check_nodes(&mut found);
        self.check_staged(&mut found);
        self.check_tasks(&mut found);
        self.check_counts(&mut found);
        self.check_indexes(&mut found);
        self.check_limits(&mut found);
        self.check_tokens(&mut found);
        found.extend(self.kv.check().into_iter().map(Violation::I17Kv));
        found
    }

    fn check_nodes(&self, found: &mut Vec<Violation>) {
        let mut held: BTreeMap<NodeId, (Resources, BTreeSet<TaskId>)> = BTreeMap::new();
        for (id, task) in &self.tasks {
            let (Some(attempt), Some(group)) = (task.running(), self.group(*id)) else {
                continue;
            };
            let (sum, live) = held.entry(attempt.node).or_default();
            sum.add(&self.shape(group.shape).need, 1);
            live.insert(*id);
        }
        for (id, node) in &self.nodes {
            let (sum, live) = held.remove(id).unwrap_or_default();
            let mut free = node.spec.capacity.clone();
            free.sub(&sum, 1);
            if node.held != sum || node.free != free {
                found.push(Violation::I1Capacity(format!("node {id}: {node:?}, held {sum:?}")));
            }
            if node.live != live {
                found.push(Violation::I2LiveAttempt(format!(
                    "node {id}: {:?}, not {live:?}",
                    node.live
                )));
            }
            if node.lost && !(live.is_empty() && sum.is_empty()) {
                found.push(Violation::I8LostNode(format!("node {id} holds {live:?}")));
            }
        }
        if let Some((node, (_, live))) = held.pop_first() {
            found.push(Violation::I2LiveAttempt(format!(
                "{live:?} run on node {node}, which is not there"
            )));
        }
    }

    /// A staged task is behind another of its node, of its queue and shape, as no other is; the first of them runs.
    fn check_staged(&self, found: &mut Vec<Violation>) {
        let mut staged: BTreeMap<NodeId, BTreeMap<TaskId, TaskId>> = BTreeMap::new();
        for (id, task) in &self.tasks {
            let Phase::Staged { attempt, behind, .. } = &task.phase else { continue };
            let ahead = self.tasks.get(behind).and_then(Task::attempt);
            let alike = self.lane(*id) == self.lane(*behind);
            let twice = staged.entry(attempt.node).or_default().insert(*behind, *id).is_some();
            if twice
                || !alike
                || !self.is_behind_running(*id)
                || ahead.is_none_or(|ahead| ahead.node != attempt.node)
            {
                found.push(Violation::I18Staged(format!("{id} behind {behind}: {task:?}")));
            }
        }
        for (id, node) in &self.nodes {
            let expected = staged.remove(id).unwrap_or_default();
            if node.staged != expected {
                let text = format!("node {id}: {:?}, not {expected:?}", node.staged);
                found.push(Violation::I18Staged(text));
            }
        }
        if let Some((node, _)) = staged.pop_first() {
            found.push(Violation::I18Staged(format!("on node {node}, which is not there")));
        }
    }

    /// Whether a running task is at the head of those that a staged one is behind.
    fn is_behind_running(&self, mut id: TaskId) -> bool {
        for _ in 0..=self.tasks.len() {
            match self.tasks.get(&id) {
                Some(Task { phase: Phase::Staged { behind, .. }, .. }) => id = *behind,
                Some(Task { phase: Phase::Running(_), .. }) => return true,
                Some(_) | None => return false,
            }
        }
        false
    }

    fn check_tasks(&self, found: &mut Vec<Violation>) {
        for (id, task) in &self.tasks {
            let Some(group) = self.group(*id) else {
                found.push(Violation::I9Counter(format!("task {id} belongs to no live job")));
                continue;
            };
            let Task { attempts, failures, lost, recalled, .. } = task;
            let live = u32::from(task.attempt().is_some());
            let over = failures.saturating_add(*lost).saturating_add(*recalled);
            let counted = over.saturating_add(live);
            // Numbers were moved when the state became another cluster's.
            let moved = self.attempts_from > 0 && *attempts > counted;
            if (*attempts != counted && !moved)
                || *failures >= group.terms.retry.attempts_max
                || *lost > LOST_ATTEMPTS_MAX
            {
                found.push(Violation::I4Attempts(format!("task {id}: {task:?}")));
            }
        }
    }

    fn check_counts(&self, found: &mut Vec<Violation>) {
        let mut live_tasks: u64 = 0;
        let mut queues: BTreeMap<QueueId, Counts> = BTreeMap::new();
        let mut shapes: BTreeMap<ShapeId, (u64, u64, u64)> = BTreeMap::new();
        for (id, job) in self.jobs() {
            let mut live: u64 = 0;
            for group in &job.groups {
                let counts = self.recount(job, group, id);
                if counts != group.counts() {
                    let text = format!(
                        "job {id} group {}: {:?}, not {counts:?}",
                        group.terms.name,
                        group.counts()
                    );
                    found.push(Violation::I9Counter(text));
                }
                live = live.saturating_add(counts.live());
                let only_live = Counts { succeeded: 0, failed: 0, cancelled: 0, ..counts };
                let sum = queues.entry(job.queue).or_default();
                *sum = sum.plus(&only_live);
                let (groups, queued, running) = shapes.entry(group.shape).or_default();
                *groups = groups.saturating_add(1);
                *queued = queued.saturating_add(counts.queued);
                *running = running.saturating_add(counts.running);
            }
            if live != job.live || live == 0 {
                found
                    .push(Violation::I9Counter(format!("job {id}: {} live, not {live}", job.live)));
            }
            live_tasks = live_tasks.saturating_add(live);
        }
        if live_tasks != self.live_tasks {
            found.push(Violation::I9Counter(format!(
                "{} live tasks, not {live_tasks}",
                self.live_tasks
            )));
        }
        for (id, queue) in &self.queues {
            let counts = queues.remove(id).unwrap_or_default();
            if counts != queue.counts {
                found.push(Violation::I9Counter(format!(
                    "queue {id}: {:?}, not {counts:?}",
                    queue.counts
                )));
            }
        }
        let kept: BTreeMap<_, _> = self
            .shapes
            .iter()
            .map(|(id, entry)| (id, (entry.groups, entry.queued, entry.running)))
            .collect();
        if kept != shapes {
            found.push(Violation::I9Counter(format!("shapes {kept:?}, not {shapes:?}")));
        }
    }

    /// Counts a group's tasks one by one.
    fn recount(&self, job: &Job, group: &Group, id: rota_types::JobId) -> Counts {
        let mut counts = Counts::default();
        for index in group.first..group.end() {
            let slot = if group.fresh.contains(index) {
                Slot::Queued
            } else if let Some(task) = self.tasks.get(&TaskId { job: id, index }) {
                slot_of(&task.phase)
            } else if job.failed().contains(index) {
                Slot::Over(TaskState::Failed)
            } else if job.cancelled().contains(index) {
                Slot::Over(TaskState::Cancelled)
            } else {
                Slot::Over(TaskState::Succeeded)
            };
            let count = counts.slot(slot);
            *count = count.saturating_add(1);
        }
        counts
    }

    fn check_indexes(&self, found: &mut Vec<Violation>) {
        let waiting: BTreeSet<_> = self
            .tasks
            .iter()
            .filter_map(|(id, task)| match task.phase {
                Phase::Waiting { until } => Some((until, *id)),
                Phase::Queued { .. } | Phase::Staged { .. } | Phase::Running(_) => None,
            })
            .collect();
        let nodes: BTreeMap<_, _> =
            self.nodes.iter().map(|(id, node)| (node.spec.name.clone(), *id)).collect();
        let queues: BTreeMap<_, _> =
            self.queues.iter().map(|(id, queue)| (queue.spec.name.clone(), *id)).collect();
        let keys: BTreeSet<_> =
            self.keys.iter().map(|(key, used)| (used.used_at, key.clone())).collect();
        let (mut terms, mut submitters) = (Pool::default(), Pool::default());
        for (_, job) in self.jobs() {
            submitters.note(&job.submitter);
            job.groups.iter().for_each(|group| terms.note(&group.terms));
        }
        for (name, holds) in [
            ("terms", terms == self.terms),
            ("submitters", submitters == self.submitters),
            ("waiting", waiting == self.waiting),
            ("node names", nodes == self.node_names),
            ("queue names", queues == self.queue_names),
            ("keys by age", keys == self.keys_by_age),
        ] {
            if !holds {
                found.push(Violation::I10Index(name.into()));
            }
        }
        for (id, job) in self.jobs() {
            for group in &job.groups {
                let own = RangeSet::from_range(group.first, group.end());
                let fresh_twice = group.fresh.intersection(&own) != group.fresh
                    || !group.fresh.intersection(job.failed()).is_empty()
                    || !group.fresh.intersection(job.cancelled()).is_empty();
                if fresh_twice {
                    found.push(Violation::I10Index(format!(
                        "job {id}: fresh tasks {}",
                        group.fresh
                    )));
                }
            }
        }
    }

    fn check_tokens(&self, found: &mut Vec<Violation>) {
        for (id, token) in &self.tokens {
            let spent = matches!(token.spec.grant, Grant::Join { uses_left: 0, .. });
            let holder = token.spec.session_of.as_ref();
            let orphan = holder.is_some_and(|holder| !self.tokens.contains_key(holder));
            if spent || orphan || *id != token.spec.id {
                found.push(Violation::I16Token(format!("token {id}: {token:?}")));
            }
        }
    }

    fn check_limits(&self, found: &mut Vec<Violation>) {
        for (id, job) in self.jobs() {
            for group in &job.groups {
                if group
                    .terms
                    .parallel_max
                    .is_some_and(|limit| group.counts().running > u64::from(limit))
                {
                    found.push(Violation::I11Limit(format!("job {id} group {}", group.terms.name)));
                }
            }
        }
    }
}
