//! The leader's brain: when to plan, whom to give up, when to wake.
//!
//! [`Controller::step`] is told what happened and answers with what it wants proposed. It keeps only what the state can give back
//! after a restart: the ranked queues, the policies' cursors, the leases. Nothing in it is needed for safety.
//!
//! Absent on purpose: I/O, clocks, the log. The shell proposes what it is asked to, and says when that was answered.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod lease;
mod staging;

use alloc::vec::Vec;

use rota_core::State;
use rota_core::command::{Command, Staging};
use rota_core::event::Event;
use rota_policy::{Ahead, Budget, Planner, Ranked};
use rota_types::{AttemptId, Monotonic, NodeId, Span, Steady, TaskId};

use lease::Leases;
use staging::Lanes;
pub use staging::{RECALL_AFTER, STAGED_MAX, STAGED_MEAN_MAX};

/// The leader's memory.
#[derive(Debug)]
pub struct Controller {
    /// Whether this server leads. One that does not keeps the ranks up, so that it can lead at once, and wants nothing.
    leads: bool,
    ranked: Ranked,
    planner: Planner,
    leases: Leases,
    lanes: Lanes,
    /// What the last plan staged, and nothing else. To propose that again helps nobody: it was refused.
    staged: Vec<Staging>,
    /// Something may be placed that could not be placed before.
    dirty: bool,
    plan_in_flight: bool,
    tick_in_flight: bool,
    wake_at: Option<Monotonic>,
}

/// Something that the controller has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// This server leads from now on: every node gets a full lease.
    Elected,
    /// Another server leads from now on, or nobody does. What was proposed is not answered any more.
    Deposed,
    /// An entry was applied.
    Applied(&'a [Event]),
    /// A proposal of the controller's was applied, or dropped before it could be.
    Answered(Tag),
    /// A node's worker was heard.
    Heartbeat(NodeId),
    /// The time of a [`Output::WakeAt`] has come.
    Woke,
}

/// Something that the controller wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Propose this, and say [`Input::Answered`] afterwards.
    Propose(Tag, Command),
    /// Ask the node to give this attempt back, unless it was started. Its report says what came of it.
    Recall(NodeId, AttemptId),
    /// Say [`Input::Woke`] at this time; replaces any earlier one.
    WakeAt(Monotonic),
}

/// Names a proposal of the controller's. Each is in flight at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tag {
    /// A plan.
    Plan,
    /// A tick.
    Tick,
    /// The loss of a node.
    Lose(NodeId),
}

/// What the shell's clocks say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// This process's monotonic clock.
    pub monotonic: Monotonic,
    /// The steady time that an entry stamped now would carry.
    pub steady: Steady,
}

impl Controller {
    /// A controller that does not lead yet. `lease` is how long a silent node keeps its attempts.
    #[must_use]
    pub fn new(state: &State, lease: Span) -> Self {
        Self {
            leads: false,
            ranked: Ranked::new(state),
            planner: Planner::default(),
            leases: Leases::new(lease),
            lanes: Lanes::default(),
            staged: Vec::new(),
            dirty: true,
            plan_in_flight: false,
            tick_in_flight: false,
            wake_at: None,
        }
    }

    /// How long a silent node keeps its attempts.
    #[must_use]
    pub fn lease(&self) -> Span {
        self.leases.length()
    }

    /// Whether the node's lease runs on: only then may its worker be told that it was heard. While its loss is proposed a worker
    /// that believes in a new lease would start what is about to be started elsewhere.
    #[must_use]
    pub fn renews(&self, node: NodeId) -> bool {
        self.leases.runs_on(node)
    }

    /// How many queued tasks of its queue go before this one, as far as `runs_max` runs of them tell; `None` if it is not queued or
    /// may not start now.
    #[must_use]
    pub fn ahead(&self, state: &State, task: TaskId, runs_max: usize) -> Option<Ahead> {
        self.ranked.ahead(state, task, runs_max)
    }

    /// Takes one input in and says what follows from it.
    pub fn step(&mut self, state: &State, input: Input<'_>, now: Now) -> Vec<Output> {
        match input {
            Input::Elected => self.elected(state, now),
            Input::Deposed => {
                self.leads = false;
                self.lanes = Lanes::default();
            }
            Input::Applied(events) => self.observe(state, events, now),
            Input::Answered(tag) => self.answered(tag),
            Input::Heartbeat(node) => self.leases.renew(node, now.monotonic),
            Input::Woke => self.wake_at = None,
        }
        let mut outputs = Vec::new();
        if !self.leads {
            return outputs;
        }
        self.expire(now, &mut outputs);
        self.tick(state, now, &mut outputs);
        self.plan(state, &mut outputs);
        self.recall(state, now, &mut outputs);
        self.set_alarm(state, now, &mut outputs);
        outputs
    }

    /// The plan that can follow `commands` in the same entry: what ends there makes room before it is applied. Saves the wait for
    /// a commit between the end of one task and the start of the next. If the guess is wrong `apply` refuses what does not hold.
    /// The plan counts as proposed under [`Tag::Plan`]: say [`Input::Answered`] afterwards.
    pub fn anticipate(&mut self, state: &State, commands: &[Command]) -> Option<Command> {
        if self.plan_in_flight {
            return None;
        }
        let ending = ending(state, commands);
        if ending.is_empty() {
            return None;
        }
        let (mut plan, _) = self.planner.plan_after(state, &self.ranked, &ending, Budget::PASS);
        self.lanes.stage(state, &self.ranked, &ending, &mut plan);
        if plan.is_empty() {
            return None;
        }
        self.plan_in_flight = true;
        Some(Command::CommitPlan(plan))
    }

    fn elected(&mut self, state: &State, now: Now) {
        self.leads = true;
        self.dirty = true;
        self.plan_in_flight = false;
        self.tick_in_flight = false;
        self.wake_at = None;
        self.leases.grant_all(state, now.monotonic);
        self.lanes = Lanes::new(state, now.monotonic);
    }

    fn observe(&mut self, state: &State, events: &[Event], now: Now) {
        for event in events {
            self.dirty |= may_start_something(event);
            if self.leads {
                self.lanes.observe(state, event, now.monotonic);
            }
            match event {
                Event::JobSubmitted(job) | Event::TasksCancelled { job, .. } => {
                    self.ranked.refresh_job(state, *job);
                }
                Event::AttemptsCreated(placement) => {
                    self.ranked.refresh_around(state, placement.task);
                }
                Event::AttemptEnded(record) => {
                    self.ranked.refresh_around(state, record.attempt.task);
                }
                Event::AttemptStaged { task, .. } => self.ranked.refresh_around(state, *task),
                Event::TaskQueued(task) => self.ranked.refresh_around(state, *task),
                Event::JobFinished(job) => self.ranked.refresh_job(state, job.id),
                Event::NodeRegistered(node) => self.leases.grant(*node, now.monotonic),
                Event::NodeLost(node) | Event::NodeRemoved { node, .. } => {
                    self.leases.forget(*node);
                }
                Event::QueueConfigured(_) | Event::QueueRemoved(_) => {
                    self.ranked.refresh_queues(state);
                }
                Event::AttemptPromoted { .. }
                | Event::StopRequested(_)
                | Event::NodeDraining(..)
                | Event::NodeLeaving(_)
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
    }

    fn answered(&mut self, tag: Tag) {
        match tag {
            Tag::Plan => {
                // Whatever `apply` refused has to be planned again.
                self.plan_in_flight = false;
                self.dirty = true;
            }
            Tag::Tick => self.tick_in_flight = false,
            Tag::Lose(node) => self.leases.answered(node),
        }
    }

    fn expire(&mut self, now: Now, outputs: &mut Vec<Output>) {
        for node in self.leases.expired(now.monotonic) {
            outputs.push(Output::Propose(Tag::Lose(node), Command::LoseNode(node)));
        }
    }

    fn tick(&mut self, state: &State, now: Now, outputs: &mut Vec<Output>) {
        let due = state.next_deadline().is_some_and(|deadline| deadline <= now.steady);
        if due && !self.tick_in_flight {
            self.tick_in_flight = true;
            outputs.push(Output::Propose(Tag::Tick, Command::Tick));
        }
    }

    /// Plans if something may start and no plan is in flight: one at a time, so that no pass works on what another has taken.
    fn plan(&mut self, state: &State, outputs: &mut Vec<Output>) {
        if !self.dirty || self.plan_in_flight {
            return;
        }
        let (mut plan, more) = self.planner.plan(state, &self.ranked, Budget::PASS);
        self.lanes.stage(state, &self.ranked, &[], &mut plan);
        if plan.placements.is_empty() && plan.staged == self.staged {
            plan.staged.clear();
        } else {
            self.staged.clone_from(&plan.staged);
        }
        self.dirty = more && !plan.is_empty();
        if !plan.is_empty() {
            self.plan_in_flight = true;
            outputs.push(Output::Propose(Tag::Plan, Command::CommitPlan(plan)));
        }
    }

    /// Asks for what was staged and does not get its turn.
    fn recall(&mut self, state: &State, now: Now, outputs: &mut Vec<Output>) {
        let overdue = self.lanes.overdue(state, now.monotonic);
        outputs.extend(overdue.into_iter().map(|(node, attempt)| Output::Recall(node, attempt)));
    }

    fn set_alarm(&mut self, state: &State, now: Now, outputs: &mut Vec<Output>) {
        let deadline = state
            .next_deadline()
            .filter(|_| !self.tick_in_flight)
            .map(|deadline| now.monotonic.plus(deadline.since(now.steady)));
        let next = [deadline, self.leases.next_expiry(), self.lanes.next_recall()];
        let next = next.into_iter().flatten().min();
        if let Some(next) = next
            && self.wake_at.is_none_or(|at| next < at)
        {
            self.wake_at = Some(next);
            outputs.push(Output::WakeAt(next));
        }
    }
}

/// The tasks whose live attempt the commands report as over, each once.
fn ending(state: &State, commands: &[Command]) -> Vec<TaskId> {
    let mut tasks: Vec<TaskId> = Vec::new();
    for command in commands {
        if let Command::EndAttempts(reports) = command {
            let live = reports.iter().filter(|report| state.is_live(report));
            tasks.extend(live.map(|report| report.attempt.task));
        }
    }
    tasks.sort_unstable();
    tasks.dedup();
    tasks
}

/// Whether a task may start after this event that could not before.
fn may_start_something(event: &Event) -> bool {
    match event {
        Event::JobSubmitted(_)
        | Event::AttemptEnded(_)
        | Event::AttemptPromoted { .. }
        | Event::TaskQueued(_)
        | Event::NodeRegistered(_)
        | Event::NodeDraining(_, false)
        | Event::QueueConfigured(_)
        | Event::QueuePaused(_, false) => true,
        Event::AttemptsCreated(_)
        | Event::AttemptStaged { .. }
        | Event::StopRequested(_)
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
