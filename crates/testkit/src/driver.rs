//! Applies commands to a state and looks at every invariant after each.

use rota_core::command::{
    AttemptEnd, AttemptReport, CancelTasks, Command, Entry, Failure, FailureKind, Outcome,
    Placement, Plan, Reply,
};
use rota_core::event::Event;
use rota_core::image::BadImage;
use rota_core::{Applied, State};
use rota_types::{AttemptId, JobId, NodeId, Span, Steady, TaskId, Timestamp};

use crate::build::{JobBuilder, NodeBuilder};

/// A state, its clocks, and a check after each entry.
#[derive(Clone, Debug, Default)]
pub struct Driver {
    state: State,
    at: Timestamp,
    steady: Steady,
}

impl Driver {
    /// Begins before the first entry, at time zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The state as it is.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Applies one entry.
    ///
    /// # Panics
    /// If an invariant is broken afterwards, or if the state can't be restored from its records.
    pub fn apply_all(&mut self, commands: Vec<Command>) -> Applied {
        let index = self.state.index().next();
        let entry = Entry { index, at: self.at, steady: self.steady, commands };
        let applied = self.state.apply(&entry);
        assert_eq!(self.state.check(), vec![], "after {entry:?}");
        let again = State::restore(self.state.records().map(Ok::<_, BadImage>));
        let again = again.expect("a state can be restored from its records");
        assert_eq!(again.check(), vec![], "restored after {entry:?}");
        assert_eq!(again.digest(), self.state.digest(), "restored after {entry:?}");
        applied
    }

    /// Applies one command in an entry of its own.
    ///
    /// # Panics
    /// As [`apply_all`](Self::apply_all).
    pub fn apply(&mut self, command: Command) -> (Outcome, Vec<Event>) {
        let mut applied = self.apply_all(vec![command]);
        (applied.outcomes.pop().expect("each command has an outcome"), applied.events)
    }

    /// Applies a command that must not be refused.
    ///
    /// # Panics
    /// If it is refused.
    pub fn grant(&mut self, command: Command) -> Reply {
        let (outcome, _) = self.apply(command);
        outcome.expect("the command is granted")
    }

    /// Lets time pass, and ticks.
    pub fn pass(&mut self, span: Span) -> Vec<Event> {
        self.at = self.at.plus(span);
        self.steady = self.steady.plus(span);
        self.apply(Command::Tick).1
    }

    /// Takes a job in.
    ///
    /// # Panics
    /// If it is refused.
    pub fn submit(&mut self, job: &JobBuilder) -> JobId {
        match self.grant(job.submit()) {
            Reply::Submitted { first, .. } => first,
            other => panic!("a submit was answered with {other:?}"),
        }
    }

    /// Takes a node in.
    ///
    /// # Panics
    /// If it is refused.
    pub fn register(&mut self, node: &NodeBuilder) -> NodeId {
        match self.grant(Command::RegisterNode(node.build())) {
            Reply::Node(id) => id,
            other => panic!("a registration was answered with {other:?}"),
        }
    }

    /// Starts `count` tasks on a node.
    ///
    /// # Panics
    /// If not all of them start.
    pub fn place(&mut self, task: TaskId, count: u32, node: NodeId) {
        let placements = vec![Placement { task, count, node }];
        let reply = self.grant(Command::CommitPlan(Plan { placements, ..Plan::default() }));
        assert_eq!(reply, Reply::Accepted { taken: u64::from(count), refused: 0 });
    }

    /// Ends the live attempt of a task well.
    ///
    /// # Panics
    /// If the task does not run.
    pub fn succeed(&mut self, task: TaskId) -> Vec<Event> {
        self.end(task, AttemptEnd::Succeeded)
    }

    /// Ends the live attempt of a task with exit code 1.
    ///
    /// # Panics
    /// If the task does not run.
    pub fn fail(&mut self, task: TaskId) -> Vec<Event> {
        let failure = Failure { kind: FailureKind::Exit(1), message: "".into() };
        self.end(task, AttemptEnd::Failed(failure))
    }

    /// Ends the live attempt of a task.
    ///
    /// # Panics
    /// If the task does not run.
    pub fn end(&mut self, task: TaskId, end: AttemptEnd) -> Vec<Event> {
        let live = self.state.task(task).expect("the task was tried");
        let node = live.attempt().expect("the task runs").node;
        let report = self.report(live.latest(task), node, end);
        let (outcome, events) = self.apply(Command::EndAttempts(vec![report]));
        assert_eq!(outcome, Ok(Reply::Accepted { taken: 1, refused: 0 }));
        events
    }

    /// A report, true or not.
    #[must_use]
    pub fn report(&self, attempt: AttemptId, node: NodeId, end: AttemptEnd) -> AttemptReport {
        let detail = [].into();
        AttemptReport { attempt, node, end, started_at: None, ended_at: self.at, detail }
    }

    /// Cancels a whole job.
    ///
    /// # Errors
    /// The rejection, if there was nothing to cancel.
    pub fn cancel(&mut self, job: JobId, grace: Span) -> Outcome {
        let cancel = CancelTasks { job, tasks: None, grace, reason: "test".into() };
        self.apply(Command::CancelTasks(cancel)).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{group, job, node};

    #[test]
    fn a_failed_task_runs_again_after_its_back_off() {
        let mut driver = Driver::new();
        let worker = driver.register(&node("w"));
        let pause = Span::from_secs(1);
        let tries = group("g").cpus(1).attempts(2).backoff(pause, pause, 0);
        let id = TaskId { job: driver.submit(&job("j").group(tries)), index: 0 };
        driver.place(id, 1, worker);
        driver.fail(id);
        assert_eq!(driver.pass(Span(pause.0 - 1)), vec![]);
        assert_eq!(driver.pass(Span(1)), vec![Event::TaskQueued(id)]);
        driver.place(id, 1, worker);
        driver.succeed(id);
        assert_eq!(driver.state().job_count(), 0);
    }
}
