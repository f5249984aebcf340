//! Says what is wrong. It knows what clients were told, which entries became durable, and what processes really did.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rota_core::command::{
    AttemptEnd, Command, Entry, IdempotencyKey, NodeSpec, Outcome, QueueSpec, Reply, SubmitJobs,
};
use rota_core::event::{AttemptRecord, AttemptState, Event, Next};
use rota_core::{Applied, State};
use rota_types::{AttemptId, JobId, LogIndex, NodeId, Steady, Timestamp};

use crate::client::{Ask, Request};
use crate::counters::Counters;
use crate::kv::KvModel;
use crate::model::{Model, ModelNode, ModelQueue};
use crate::same::{restores, same};
use crate::shell::DIGEST_EVERY;
use crate::truth::{End, Truth};

/// The judge of a run.
pub(crate) struct Oracle {
    /// Applies each durable entry once and is never restored from anything.
    witness: State,
    model: Model,
    pub(crate) kv: KvModel,
    /// What the witness made of each entry.
    made: Vec<Applied>,
    /// The state's digest after some entries: the witness's, or that of the first server that was asked.
    digests: BTreeMap<LogIndex, u64>,
    /// The last entry that anybody outside was told of.
    seen: LogIndex,
    now: (Timestamp, Steady),
    /// Names of jobs that clients have asked for.
    asked: BTreeSet<Box<str>>,
    /// The job that each name became.
    became: BTreeMap<Box<str>, Vec<JobId>>,
    acknowledged: Vec<JobId>,
    keys: Vec<IdempotencyKey>,
    lost: BTreeSet<AttemptId>,
    pub(crate) checks: u64,
    pub(crate) counters: Counters,
}

/// What the commands of one entry bring along that its events only name.
#[derive(Default)]
struct Brought {
    nodes: BTreeMap<NodeId, VecDeque<NodeSpec>>,
    queues: BTreeMap<Box<str>, VecDeque<QueueSpec>>,
    jobs: BTreeMap<JobId, rota_core::command::JobSpec>,
}

impl Oracle {
    pub(crate) fn new() -> Self {
        Self {
            witness: State::new(),
            model: Model::new(),
            kv: KvModel::default(),
            made: Vec::new(),
            digests: BTreeMap::new(),
            seen: LogIndex(0),
            now: (Timestamp(0), Steady(0)),
            asked: BTreeSet::new(),
            became: BTreeMap::new(),
            acknowledged: Vec::new(),
            keys: Vec::new(),
            lost: BTreeSet::new(),
            checks: 0,
            counters: Counters::default(),
        }
    }

    pub(crate) fn index(&self) -> LogIndex {
        self.witness.index()
    }

    /// What is committed.
    pub(crate) fn state(&self) -> &State {
        &self.witness
    }

    /// The last entry that a client was told of: every read that begins now has to see it.
    pub(crate) fn seen(&self) -> LogIndex {
        self.seen
    }

    /// A client was told of an entry, or of a state that contains it.
    pub(crate) fn saw(&mut self, index: LogIndex) {
        self.seen = self.seen.max(index);
    }

    pub(crate) fn entries(&self) -> u64 {
        self.witness.index().0
    }

    /// Jobs whose submit was acknowledged, oldest first.
    pub(crate) fn known_jobs(&self) -> Vec<JobId> {
        self.acknowledged.clone()
    }

    /// Keys of submits that were acknowledged.
    pub(crate) fn used_keys(&self) -> Vec<IdempotencyKey> {
        self.keys.clone()
    }

    /// A client asks for something.
    pub(crate) fn asked(&mut self, command: &Command) -> Result<(), String> {
        if let Command::SubmitJobs(submit) = command {
            self.asked.extend(submit.jobs.iter().map(|job| job.name.clone()));
        }
        Ok(())
    }

    /// A client was told something.
    pub(crate) fn told(&mut self, command: &Command, outcome: &Outcome) -> Result<(), String> {
        let (Command::SubmitJobs(submit), Ok(Reply::Submitted { first, count, .. })) =
            (command, outcome)
        else {
            return Ok(());
        };
        if *count as usize != submit.jobs.len() {
            return Err(format!("I14: {} jobs were asked for, {count} given", submit.jobs.len()));
        }
        for (at, job) in submit.jobs.iter().enumerate() {
            let id = JobId(first.0 + at as u64);
            if self.became.get(&job.name).is_none_or(|ids| !ids.contains(&id)) {
                return Err(format!(
                    "I15: {} was acknowledged as job {id}, which it is not",
                    job.name
                ));
            }
            self.acknowledged.push(id);
        }
        self.keys.extend(submit.idempotency.clone());
        Ok(())
    }

    /// A process starts.
    pub(crate) fn may_start(&mut self, attempt: AttemptId, node: &str) -> Result<(), String> {
        self.checks += 1;
        self.model.is_granted(attempt, node)
    }

    /// An entry became durable; `live` is what the server made of it, unless it learns of the entry only now.
    pub(crate) fn commit(
        &mut self,
        entry: &Entry,
        live: Option<&Applied>,
        truth: &Truth,
    ) -> Result<(), String> {
        let at = |what: String| format!("entry {}: {what}", entry.index);
        if entry.index != self.witness.index().next() {
            return Err(at(format!("follows {}", self.witness.index())));
        }
        let applied = self.witness.apply(entry);
        if live.is_some_and(|live| *live != applied) {
            return Err(at(format!("I7: the server answers {live:?}, the witness {applied:?}")));
        }
        let now = (self.witness.now(), self.witness.steady());
        if now.0 < self.now.0 || now.1 < self.now.1 {
            return Err(at(format!("I6: from {:?} to {now:?}", self.now)));
        }
        self.now = now;
        self.follow(entry, &applied, truth).map_err(at)?;
        self.kv.is(self.witness.kv()).map_err(at)?;
        let violations = self.witness.check();
        self.checks += 13;
        self.note_made(applied);
        if violations.is_empty() { Ok(()) } else { Err(at(format!("{violations:?}"))) }
    }

    /// An entry of the log's own.
    pub(crate) fn internal(&mut self, index: LogIndex) -> Result<(), String> {
        if index != self.witness.index().next() {
            return Err(format!("entry {index} follows {}", self.witness.index()));
        }
        let applied = self.witness.apply(&Entry::internal(index));
        self.note_made(applied);
        Ok(())
    }

    fn note_made(&mut self, applied: Applied) {
        self.made.push(applied);
        let index = self.witness.index();
        if index.0.is_multiple_of(DIGEST_EVERY) {
            self.digests.insert(index, self.witness.digest());
        }
    }

    /// Another server has applied an entry that is known (I7).
    pub(crate) fn repeated(&mut self, index: LogIndex, applied: &Applied) -> Result<(), String> {
        self.checks += 1;
        let place = index.0.checked_sub(1).and_then(|place| usize::try_from(place).ok());
        match place.and_then(|place| self.made.get(place)) {
            Some(made) if made == applied => Ok(()),
            made => Err(format!("I7: entry {index}: one server has {applied:?}, another {made:?}")),
        }
    }

    /// A server's state after an entry (I7).
    pub(crate) fn same_digest(&mut self, index: LogIndex, digest: u64) -> Result<(), String> {
        self.checks += 1;
        let known = *self.digests.entry(index).or_insert(digest);
        if known == digest { Ok(()) } else { Err(format!("I7: states differ at {index}")) }
    }

    /// A server begins with a state that its disk gave back (I7).
    pub(crate) fn begins_with(&mut self, state: &State) -> Result<(), String> {
        self.checks += 1;
        let index = state.index();
        if index == LogIndex(0) {
            return Ok(());
        }
        if index > self.witness.index() {
            return Err(format!("I7: a snapshot of entry {index}, which was never committed"));
        }
        let violations = state.check();
        if !violations.is_empty() {
            return Err(format!("after a restart: {violations:?}"));
        }
        self.same_digest(index, state.digest())
    }

    fn follow(&mut self, entry: &Entry, applied: &Applied, truth: &Truth) -> Result<(), String> {
        let mut brought = brought(entry, applied);
        for event in &applied.events {
            self.checks += 1;
            match event {
                Event::AttemptEnded(record) => {
                    self.model.ended(record, self.now.1)?;
                    self.judge_record(entry, record, truth)?;
                }
                Event::AttemptsCreated(placement) => self.model.created(*placement)?,
                Event::AttemptStaged { task, node, behind } => {
                    self.counters.note("task staged");
                    self.model.staged(*task, *node, *behind)?;
                }
                Event::AttemptPromoted { task, node } => {
                    self.counters.note("staged task has its turn");
                    self.model.promoted(*task, *node)?;
                }
                Event::StopRequested(attempt) => {
                    self.counters.note("cancel of a running attempt");
                    self.model.stop_requested(*attempt)?;
                }
                Event::TaskQueued(task) => {
                    self.counters.note("attempt retried after back-off");
                    self.model.queued(*task, self.now.1)?;
                }
                Event::TasksCancelled { job, tasks, .. } => self.model.cancelled(*job, tasks)?,
                Event::JobFinished(job) => self.model.job_finished(job)?,
                Event::JobSubmitted(job) => {
                    let spec = brought.jobs.remove(job).ok_or("a job came from nowhere")?;
                    if !self.asked.contains(&spec.name) {
                        return Err(format!("nobody asked for {}", spec.name));
                    }
                    self.became.entry(spec.name.clone()).or_default().push(*job);
                    self.model.submitted(*job, spec)?;
                }
                _ => self.follow_settings(event, &mut brought)?,
            }
        }
        self.model.entry_over();
        self.judge_outcomes(entry, applied)
    }

    fn follow_settings(&mut self, event: &Event, brought: &mut Brought) -> Result<(), String> {
        match event {
            Event::NodeRegistered(id) => {
                let spec = brought.nodes.get_mut(id).and_then(VecDeque::pop_front);
                let spec = spec.ok_or("a node came from nowhere")?;
                let draining = self.model.nodes.get(id).is_some_and(|node| node.draining);
                self.counters.add("node registers while it drains", u64::from(draining));
                self.model
                    .nodes
                    .insert(*id, ModelNode { spec, draining, leaving: false, lost: false });
            }
            Event::NodeLost(id) => {
                let node = self.model.nodes.get_mut(id).ok_or("an unknown node is lost")?;
                node.lost = true;
                if self.model.live.values().any(|at| at == id) {
                    return Err(format!("I8: lost node {id} keeps attempts"));
                }
            }
            Event::NodeLeaving(id) => {
                let node = self.model.nodes.get_mut(id).ok_or("an unknown node leaves")?;
                node.leaving = true;
            }
            Event::NodeDraining(id, draining) => {
                let node = self.model.nodes.get_mut(id).ok_or("an unknown node drains")?;
                node.draining = *draining;
            }
            Event::NodeRemoved { node, .. } => {
                if self.model.live.values().any(|at| at == node) {
                    return Err(format!("node {node} is removed and runs attempts"));
                }
                self.model.nodes.remove(node);
            }
            Event::QueueConfigured(name) => {
                let spec = brought.queues.get_mut(name).and_then(VecDeque::pop_front);
                let spec = spec.ok_or("a queue's settings came from nowhere")?;
                let paused = self.model.queues.get(name).is_some_and(|queue| queue.paused);
                self.model.queues.insert(name.clone(), ModelQueue { spec, paused });
            }
            Event::QueuePaused(name, paused) => {
                self.model.queues.get_mut(name).ok_or("an unknown queue is paused")?.paused =
                    *paused;
            }
            Event::QueueRemoved(name) => {
                self.model.queues.remove(name);
            }
            _ => {}
        }
        Ok(())
    }

    /// A record must say what a process really did.
    fn judge_record(
        &mut self,
        entry: &Entry,
        record: &AttemptRecord,
        truth: &Truth,
    ) -> Result<(), String> {
        let end = truth.run(record.attempt).and_then(|run| run.end);
        let wrong = || Err(format!("{record:?}, but the process ended {end:?}"));
        match record.state {
            AttemptState::Succeeded if end != Some(End::Succeeded) => wrong(),
            AttemptState::Failed => match (end, &record.failure) {
                (Some(End::Failed(kind)), Some(failure)) if failure.kind == kind => {
                    let at_once = record.next == Next::Queued;
                    self.counters.add("attempt retried at once", u64::from(at_once));
                    Ok(())
                }
                _ => wrong(),
            },
            AttemptState::Lost => {
                self.lost.insert(record.attempt);
                let too_often = matches!(record.next, Next::Finished(_));
                self.counters.add("attempt lost too often", u64::from(too_often));
                let node_gone = entry.commands.iter().any(|command| match command {
                    Command::LoseNode(node) => *node == record.node,
                    Command::RegisterNode(_) => true,
                    _ => false,
                });
                let stopped = !node_gone
                    && (end == Some(End::Stopped) || truth.run(record.attempt).is_none());
                if node_gone || stopped { Ok(()) } else { wrong() }
            }
            AttemptState::Recalled => {
                self.counters.note("staged task taken back");
                if truth.run(record.attempt).is_none() { Ok(()) } else { wrong() }
            }
            AttemptState::Succeeded | AttemptState::Cancelled => Ok(()),
        }
    }

    fn judge_outcomes(&mut self, entry: &Entry, applied: &Applied) -> Result<(), String> {
        let mut lost_nodes: u64 = 0;
        for (command, outcome) in entry.commands.iter().zip(&applied.outcomes) {
            match (command, outcome) {
                (Command::CancelTasks(cancel), Ok(reply)) => {
                    self.model.is_cancelled(cancel.job, cancel.tasks.as_ref())?;
                    if let Reply::Cancelled { ended, .. } = reply {
                        self.counters.add("cancel of a waiting task", *ended);
                    }
                }
                (Command::EndAttempts(reports), Ok(Reply::Accepted { refused, .. })) => {
                    self.counters.add("report refused", *refused);
                    let late = reports.iter().filter(|report| {
                        !matches!(report.end, AttemptEnd::Stopped | AttemptEnd::Recalled)
                            && self.lost.contains(&report.attempt)
                    });
                    self.counters.add("report of a lost attempt refused", late.count() as u64);
                }
                (Command::LoseNode(_), Ok(_)) => lost_nodes += 1,
                (Command::CommitPlan(_), Ok(Reply::Accepted { refused, .. })) => {
                    self.counters.add("plan partially refused", u64::from(*refused > 0));
                    let with = entry.commands.len() > 1;
                    self.counters.add("plan anticipated", u64::from(with));
                }
                (Command::Kv(command), outcome) => {
                    self.kv.judge(command, outcome, self.now.1)?;
                }
                (Command::Tokens(command), outcome) => self.kv.judge_tokens(command, outcome)?,
                (Command::Tick, _) => self.kv.tick(self.now.1)?,
                _ => {}
            }
        }
        self.counters.add("several nodes lost in one entry", u64::from(lost_nodes > 1));
        Ok(())
    }

    /// A state that was taken to pieces and put together again must be the same (I7).
    pub(crate) fn restores(&mut self, state: &State) -> Result<(), String> {
        self.checks += 1;
        same(&restores(state)?, &self.witness)
    }

    /// Everything has settled: each acknowledged job is in the history once, each task ended once (I14, I15).
    pub(crate) fn at_the_end(&mut self, requests: &[Request]) -> Result<(), String> {
        for (id, job) in &self.model.jobs {
            if !job.finished || job.tasks.iter().any(|task| task.over.is_none()) {
                return Err(format!("I15: job {id} never finished: {:?}", job.tasks));
            }
        }
        for request in requests {
            let Ask::Change(Command::SubmitJobs(SubmitJobs { jobs, idempotency })) = &request.ask
            else {
                continue;
            };
            let accepted = matches!(request.told, Some(Ok(_)));
            let refused = matches!(request.told, Some(Err(_)));
            for job in jobs {
                let made = self.became.get(&job.name).map_or(0, Vec::len);
                self.checks += 1;
                let right = match (accepted, refused) {
                    (true, _) => made == 1,
                    // A refusal is not remembered under the key: a second copy of the request may still be granted.
                    (_, true) => made == 0 || made == 1 && idempotency.is_some(),
                    (false, false) => made <= 1,
                };
                if !right {
                    return Err(format!(
                        "I15: {} was told {:?} and made {made} jobs",
                        job.name, request.told
                    ));
                }
            }
        }
        Ok(())
    }
}

fn brought(entry: &Entry, applied: &Applied) -> Brought {
    let mut brought = Brought::default();
    for (command, outcome) in entry.commands.iter().zip(&applied.outcomes) {
        match (command, outcome) {
            (Command::RegisterNode(spec), Ok(Reply::Node(id))) => {
                brought.nodes.entry(*id).or_default().push_back(spec.clone());
            }
            (Command::CreateQueue(spec) | Command::ConfigureQueue(spec), Ok(_)) => {
                brought.queues.entry(spec.name.clone()).or_default().push_back(spec.clone());
            }
            (
                Command::SubmitJobs(SubmitJobs { jobs, .. }),
                Ok(Reply::Submitted { first, replayed: false, .. }),
            ) => {
                let ids = (first.0..).map(JobId);
                brought.jobs.extend(ids.zip(jobs.iter().cloned()));
            }
            _ => {}
        }
    }
    brought
}
