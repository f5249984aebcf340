//! Every history of a tiny world, breadth first: two nodes, two jobs, three tasks, and whatever anybody may ask.
//!
//! It finds short bugs without luck; the seeds find long ones. Time moves only with ticks and positions are left out of the
//! comparison, so that histories that lead to the same state meet.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use rota_core::State;
use rota_core::command::{
    AttemptEnd, AttemptReport, Backoff, CancelTasks, Command, Entry, Failure, FailureKind,
    GroupSpec, IdempotencyKey, JobSpec, NodeSpec, Placement, Plan, Reply, RetryPolicy, Shape,
    SubmitJobs,
};
use rota_core::event::Event;
use rota_core::image::{Meta, Record};
use rota_core::node::NodeState;
use rota_core::task::Standing;
use rota_types::{
    ActionKinds, AttemptId, Constraint, JobId, LogIndex, NodeId, Predicate, RangeSet, Resources,
    Span, Steady, TaskId, Timestamp,
};

use crate::same::restores;

/// What was explored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explored {
    /// Distinct states.
    pub states: usize,
    /// Entries that were applied.
    pub transitions: usize,
}

/// A state on the way, and how it was reached.
struct Visited {
    parent: usize,
    command: Option<Command>,
}

/// The tasks of the two jobs: job 1 has two tasks, job 2 has one.
const TASKS: [TaskId; 3] = [
    TaskId { job: JobId(1), index: 0 },
    TaskId { job: JobId(1), index: 1 },
    TaskId { job: JobId(2), index: 0 },
];
const NODES: [NodeId; 2] = [NodeId(1), NodeId(2)];

/// Explores all histories of at most `depth` entries.
///
/// # Errors
/// The shortest history that breaks an invariant.
pub fn explore(depth: u32) -> Result<Explored, String> {
    let start = State::new();
    let mut visited = vec![Visited { parent: 0, command: None }];
    let mut known = HashSet::from([identity(&start)]);
    let mut frontier = vec![(0_usize, start)];
    let mut transitions = 0;
    for _ in 0..depth {
        let mut next = Vec::new();
        for (at, state) in frontier {
            for command in commands(&state) {
                transitions += 1;
                let step = apply(&state, &command);
                let after = match step {
                    Ok(after) => after,
                    Err(what) => return Err(tell(&visited, at, &command, &what)),
                };
                if known.insert(identity(&after)) {
                    next.push((visited.len(), after));
                    visited.push(Visited { parent: at, command: Some(command) });
                }
            }
        }
        frontier = next;
    }
    Ok(Explored { states: visited.len(), transitions })
}

fn tell(visited: &[Visited], mut at: usize, last: &Command, what: &str) -> String {
    let mut history = vec![format!("{last:?}")];
    while let Some(Visited { parent, command: Some(command) }) = visited.get(at) {
        history.push(format!("{command:?}"));
        at = *parent;
    }
    history.reverse();
    format!("{what}\nafter\n{}", history.join("\n"))
}

/// What makes two states the same: everything but the position.
fn identity(state: &State) -> u128 {
    let mut low = DefaultHasher::new();
    let mut high = DefaultHasher::new();
    high.write_u8(1);
    for record in state.records() {
        let record = match record {
            Record::Meta(meta) => Record::Meta(Meta { index: LogIndex(0), ..meta }),
            other => other,
        };
        record.hash(&mut low);
        record.hash(&mut high);
    }
    u128::from(low.finish()) << 64 | u128::from(high.finish())
}

fn apply(before: &State, command: &Command) -> Result<State, String> {
    let mut after = before.clone();
    let pass = u64::from(matches!(command, Command::Tick));
    let stale = matches!(command, Command::PauseQueue { .. });
    let steady = Steady(if stale { 0 } else { before.steady().0 + pass });
    let applied = after.apply(&Entry {
        index: before.index().next(),
        at: Timestamp(u64::from(!stale)),
        steady,
        commands: vec![command.clone()],
    });
    let violations = after.check();
    if !violations.is_empty() {
        return Err(format!("{violations:?}"));
    }
    judge(before, command, &applied.events, &after)?;
    if let (Command::CancelTasks(cancel), Some(Ok(Reply::Cancelled { .. }))) =
        (command, applied.outcomes.first())
    {
        is_cancelled(cancel, &after)?;
    }
    restores(&after)?;
    Ok(after)
}

/// What may not change, and how the rest may (I3, I5, I6, I8, I11, I12, I13, I14).
fn judge(before: &State, command: &Command, events: &[Event], after: &State) -> Result<(), String> {
    if after.now() < before.now() || after.steady() < before.steady() {
        return Err("I6: time went back".into());
    }
    for task in TASKS {
        let (was, is) = (before.standing(task), after.standing(task));
        match (was, is) {
            (Some(Standing::Over(was)), Some(is)) if is != Standing::Over(was) => {
                return Err(format!("I5: {task} was {was:?} and is {is:?}"));
            }
            (Some(Standing::Tried(was)), Some(Standing::Tried(is))) => {
                let steps = is.attempts.checked_sub(was.attempts);
                let placed = matches!(command, Command::CommitPlan(_));
                if steps.is_none_or(|steps| steps > u32::from(placed)) {
                    return Err(format!("I3: {task}: from {was:?} to {is:?}"));
                }
                if was.attempt().is_some_and(|attempt| attempt.stop.is_some())
                    && is.attempt().is_none()
                {
                    return Err(format!("I12: {task} was told to stop and goes on: {is:?}"));
                }
            }
            (Some(Standing::Tried(_)), Some(Standing::Fresh)) => {
                return Err(format!("I3: {task} forgot its attempts"));
            }
            (None, Some(_)) if before.next_job() > task.job => {
                return Err(format!("I14: {task} came back"));
            }
            _ => {}
        }
    }
    events.iter().try_for_each(|event| judge_event(before, command, event, after))
}

fn judge_event(
    before: &State,
    command: &Command,
    event: &Event,
    after: &State,
) -> Result<(), String> {
    match event {
        Event::AttemptsCreated(placement) => {
            let Placement { task, count, node } = *placement;
            let state = before.node(node).map(rota_core::node::Node::state);
            if state != Some(NodeState::Ready) {
                return Err(format!("I8: {task} starts on node {node}, which is {state:?}"));
            }
            if before.queues().any(|(_, queue)| queue.paused) {
                return Err(format!("I13: {task} starts in a paused queue"));
            }
            let group = after.group(task).ok_or("a task without a group was placed")?;
            let running =
                TASKS.iter().filter(|other| other.job == task.job && runs(after, **other));
            let running = running.count();
            if group.terms.parallel_max.is_some_and(|max| running > max as usize) {
                return Err(format!("I11: {running} tasks of job {} run", task.job));
            }
            let on_node = TASKS.iter().filter(|other| runs_on(after, **other, node)).count();
            let max = after.node(node).map_or(0, |node| node.spec.attempts_max);
            if on_node > max as usize || count == 0 {
                return Err(format!("I11: {on_node} attempts on node {node}"));
            }
        }
        Event::AttemptEnded(record) => {
            if let Command::EndAttempts(reports) = command {
                let task = record.attempt.task;
                let live = before.task(task).is_some_and(|was| was.latest(task) == record.attempt);
                let right = reports.iter().any(|report| {
                    report.attempt == record.attempt && runs_on(before, task, report.node)
                });
                if !live || !right {
                    return Err(format!("I3: {reports:?} ended {}", record.attempt));
                }
            }
        }
        Event::JobSubmitted(job) if *job < before.next_job() => {
            return Err(format!("I14: job {job} was made twice"));
        }
        _ => {}
    }
    Ok(())
}

fn is_cancelled(cancel: &CancelTasks, after: &State) -> Result<(), String> {
    for (id, task) in after.tasks_of(cancel.job) {
        let chosen = cancel.tasks.as_ref().is_none_or(|tasks| tasks.contains(id.index));
        if chosen && task.attempt().is_none_or(|attempt| attempt.stop.is_none()) {
            return Err(format!("I12: {id} was cancelled and goes on: {task:?}"));
        }
    }
    Ok(())
}

fn runs(state: &State, task: TaskId) -> bool {
    NODES.iter().any(|node| runs_on(state, task, *node))
}

fn runs_on(state: &State, task: TaskId, node: NodeId) -> bool {
    state.task(task).and_then(|task| task.attempt()).is_some_and(|attempt| attempt.node == node)
}

/// Everything that anybody may ask of this state, wisely or not.
fn commands(state: &State) -> Vec<Command> {
    let mut commands =
        vec![submit(1), submit(2), Command::PauseQueue { queue: "default".into(), paused: true }];
    commands.push(Command::PauseQueue { queue: "default".into(), paused: false });
    if state.steady() < Steady(3) {
        commands.push(Command::Tick);
    }
    for node in NODES {
        for incarnation in [1, 2] {
            commands.push(register(node, incarnation));
        }
        commands.push(Command::LoseNode(node));
        commands.push(Command::DrainNode { node, draining: true });
        commands.push(Command::DrainNode { node, draining: false });
        commands.push(Command::RemoveNode(node));
    }
    for job in [JobId(1), JobId(2)] {
        commands.push(cancel(job, None));
    }
    commands.push(cancel(JobId(1), Some(RangeSet::from_range(0, 1))));
    for task in TASKS {
        for node in NODES {
            let count = if task.index == 0 { 2 } else { 1 };
            let placements = vec![Placement { task, count, node }];
            commands.push(Command::CommitPlan(Plan { placements, staged: Vec::new() }));
            let latest = state.task(task).map_or(0, |task| task.attempts);
            for number in latest.saturating_sub(1).max(1)..=latest {
                let attempt = AttemptId { task, number };
                commands.extend(reports(attempt, node));
            }
        }
    }
    commands
}

fn reports(attempt: AttemptId, node: NodeId) -> impl Iterator<Item = Command> {
    let failure = Failure { kind: FailureKind::Exit(1), message: "".into() };
    let ends = [AttemptEnd::Succeeded, AttemptEnd::Failed(failure), AttemptEnd::Stopped];
    ends.into_iter().map(move |end| {
        Command::EndAttempts(vec![AttemptReport {
            attempt,
            node,
            end,
            started_at: None,
            ended_at: Timestamp(1),
            detail: [].into(),
        }])
    })
}

fn cancel(job: JobId, tasks: Option<RangeSet>) -> Command {
    Command::CancelTasks(CancelTasks { job, tasks, grace: Span(1), reason: "".into() })
}

fn register(node: NodeId, incarnation: u64) -> Command {
    let labels =
        if node == NodeId(1) { [("ssd".into(), "yes".into())].into() } else { Default::default() };
    Command::RegisterNode(NodeSpec {
        name: format!("n{node}").into(),
        incarnation,
        // The second worker process of node 1 offers less than the first: capacity may shrink below use.
        capacity: Resources::new(
            if node == NodeId(1) && incarnation == 1 { 2_000 } else { 1_000 },
            1,
        ),
        attempts_max: 2,
        labels,
        version: "".into(),
        runs: ActionKinds::EVERY,
        stages: true,
    })
}

fn submit(job: u8) -> Command {
    let first = job == 1;
    let constraint = Constraint { key: "ssd".into(), predicate: Predicate::Exists };
    let group = GroupSpec {
        name: "g".into(),
        array: RangeSet::from_range(0, if first { 2 } else { 1 }),
        is_array: first,
        action: [].into(),
        shape: Shape {
            need: Resources::new(1_000, 0),
            constraints: if first { Vec::new() } else { vec![constraint] },
            kind: None,
        },
        estimate: None,
        timeout: None,
        retry: RetryPolicy {
            attempts_max: if first { 2 } else { 1 },
            backoff: Backoff { base: Span(1), max: Span(1), jitter_percent: 0 },
            on: Vec::new(),
        },
        parallel_max: first.then_some(1),
    };
    Command::SubmitJobs(SubmitJobs {
        jobs: vec![JobSpec {
            name: "j".into(),
            queue: "default".into(),
            priority: 0,
            labels: Default::default(),
            submitter: "".into(),
            retry_of: None,
            groups: vec![group],
        }],
        idempotency: Some(IdempotencyKey { key: format!("k{job}").into(), digest: [job; 16] }),
    })
}
