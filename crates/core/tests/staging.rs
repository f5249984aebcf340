//! Tasks that are handed out before there is room for them.

mod world;

use rota_core::STAGING_LEVEL;
use rota_core::command::{
    AttemptEnd, Command, FailureKind, NodeSpec, Outcome, Plan, QueueSpec, Reply, Staging,
};
use rota_core::event::{AttemptState, Event, Next};
use rota_core::explain::Hold;
use rota_core::job::{Counts, TaskState};
use rota_core::server::ServerCommand;
use rota_core::task::Phase;
use rota_types::{NodeId, Resources, Steady, TaskId};
use world::{World, attempt, failed, group, job, job_with, node, report, task};

const NODE: NodeId = NodeId(1);

/// A node of one cpu that runs the first of `tasks` tasks of one cpu each.
fn full(tasks: u32) -> World {
    let mut world = World::new();
    let raise = ServerCommand::RaiseLevel(STAGING_LEVEL);
    assert_eq!(world.apply(Command::Servers(raise)), Ok(Reply::Done));
    assert_eq!(world.apply(Command::RegisterNode(node("n", 1_000))), Ok(Reply::Node(NODE)));
    world.submit(job(tasks)).expect("a good job");
    assert_eq!(world.place(1, 0, 1, 1), accepted(1, 0));
    world
}

fn accepted(taken: u64, refused: u64) -> Outcome {
    Ok(Reply::Accepted { taken, refused })
}

fn staging(index: u32, behind: u32) -> Staging {
    Staging { task: task(1, index), behind: task(1, behind) }
}

fn stage_all(staged: Vec<Staging>) -> Command {
    Command::CommitPlan(Plan { placements: Vec::new(), staged })
}

fn stage(world: &mut World, index: u32, behind: u32) -> Outcome {
    world.apply(stage_all(vec![staging(index, behind)]))
}

fn end(world: &mut World, index: u32, end: AttemptEnd) -> Vec<Event> {
    let report = report(attempt(1, index, 1), 1, end);
    let applied = world.entry(vec![Command::EndAttempts(vec![report])]);
    assert_eq!(applied.outcomes, vec![accepted(1, 0)]);
    applied.events
}

fn promoted(events: &[Event]) -> Vec<TaskId> {
    let promoted = events.iter().filter_map(|event| match event {
        Event::AttemptPromoted { task, node: NODE } => Some(*task),
        _ => None,
    });
    promoted.collect()
}

fn counts(world: &World) -> Counts {
    world.state.job(rota_types::JobId(1)).expect("live").counts()
}

fn desired(world: &World) -> Vec<TaskId> {
    world.state.desired(NODE).map(|(id, _)| id.task).collect()
}

#[test]
fn a_staged_task_is_handed_out_holds_nothing_and_takes_over_what_the_one_ahead_held() {
    let mut world = full(3);
    let applied = world.entry(vec![stage_all(vec![staging(1, 0), staging(2, 1)])]);
    assert_eq!(applied.outcomes, vec![accepted(2, 0)]);
    let staged = |index, behind| Event::AttemptStaged {
        task: task(1, index),
        node: NODE,
        behind: task(1, behind),
    };
    assert_eq!(applied.events, vec![staged(1, 0), staged(2, 1)]);
    assert_eq!(counts(&world), Counts { queued: 2, running: 1, ..Counts::default() });
    assert_eq!(desired(&world), vec![task(1, 0), task(1, 1), task(1, 2)]);
    let at = |world: &World| world.state.node(NODE).expect("there").held.cpu_millis;
    assert_eq!(at(&world), 1_000);
    assert_eq!(promoted(&end(&mut world, 0, AttemptEnd::Succeeded)), vec![task(1, 1)]);
    assert_eq!(counts(&world), Counts { queued: 1, running: 1, succeeded: 1, ..Counts::default() });
    assert_eq!(at(&world), 1_000);
    let failure = failed(FailureKind::Exit(1));
    assert_eq!(promoted(&end(&mut world, 1, failure)), vec![task(1, 2)]);
    assert_eq!(promoted(&end(&mut world, 2, AttemptEnd::Succeeded)), vec![]);
    assert_eq!((at(&world), world.state.job_count()), (0, 0));
}

#[test]
fn the_end_of_a_staged_task_may_be_told_before_that_of_the_one_ahead() {
    let mut world = full(3);
    assert_eq!(world.apply(stage_all(vec![staging(1, 0), staging(2, 1)])), accepted(2, 0));
    assert_eq!(promoted(&end(&mut world, 1, AttemptEnd::Succeeded)), vec![]);
    assert_eq!(desired(&world), vec![task(1, 0), task(1, 2)], "the one behind has moved up");
    assert_eq!(promoted(&end(&mut world, 0, AttemptEnd::Succeeded)), vec![task(1, 2)]);
}

#[test]
fn a_recalled_task_keeps_its_place_and_its_tries() {
    let mut world = full(2);
    assert_eq!(stage(&mut world, 1, 0), accepted(1, 0));
    world.steady = 50;
    let events = end(&mut world, 1, AttemptEnd::Recalled);
    let [Event::AttemptEnded(record)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((record.state, record.next), (AttemptState::Recalled, Next::Queued));
    let recalled = world.state.task(task(1, 1)).expect("live");
    assert_eq!(recalled.phase, Phase::Queued { since: Steady(0) });
    assert_eq!((recalled.attempts, recalled.recalled, recalled.failures), (1, 1, 0));
    assert_eq!(stage(&mut world, 1, 0), accepted(1, 0), "again, with the next number");
    let late = report(attempt(1, 1, 1), 1, AttemptEnd::Succeeded);
    assert_eq!(world.apply(Command::EndAttempts(vec![late])), accepted(0, 1));
}

#[test]
fn a_recall_that_comes_after_the_turn_gives_the_room_back() {
    let mut world = full(3);
    assert_eq!(world.apply(stage_all(vec![staging(1, 0), staging(2, 1)])), accepted(2, 0));
    assert_eq!(promoted(&end(&mut world, 0, AttemptEnd::Succeeded)), vec![task(1, 1)]);
    assert_eq!(promoted(&end(&mut world, 1, AttemptEnd::Recalled)), vec![task(1, 2)]);
    assert_eq!(counts(&world), Counts { queued: 1, running: 1, succeeded: 1, ..Counts::default() });
}

#[test]
fn a_lost_node_loses_what_was_staged_there_too() {
    let mut world = full(3);
    assert_eq!(world.apply(stage_all(vec![staging(1, 0), staging(2, 1)])), accepted(2, 0));
    let events = world.entry(vec![Command::LoseNode(NODE)]).events;
    let lost = events.iter().filter_map(|event| match event {
        Event::AttemptEnded(record) => Some((record.attempt.task, record.state)),
        _ => None,
    });
    let all = [0, 1, 2].map(|index| (task(1, index), AttemptState::Lost));
    assert_eq!(lost.collect::<Vec<_>>(), all, "they may have run there");
    assert_eq!(counts(&world), Counts { queued: 3, ..Counts::default() });
    assert_eq!(desired(&world), vec![]);
}

#[test]
fn a_cancelled_staged_task_is_told_to_stop_and_is_over_when_its_node_says_so() {
    let mut world = full(2);
    assert_eq!(stage(&mut world, 1, 0), accepted(1, 0));
    let reply = world.cancel(1, Some([1].into_iter().collect()));
    assert_eq!(reply, Ok(Reply::Cancelled { ended: 0, stopping: 1 }));
    let events = end(&mut world, 1, AttemptEnd::Stopped);
    assert!(matches!(events.as_slice(), [Event::AttemptEnded(record)]
        if record.next == Next::Finished(TaskState::Cancelled)));
    assert_eq!(counts(&world), Counts { running: 1, cancelled: 1, ..Counts::default() });
}

#[test]
fn what_a_node_is_told_names_each_staged_task_behind_the_one_ahead() {
    let mut world = full(4);
    let line = vec![staging(3, 0), staging(1, 3), staging(2, 1)];
    assert_eq!(world.apply(stage_all(line)), accepted(3, 0));
    assert_eq!(desired(&world), [0, 3, 1, 2].map(|index| task(1, index)));
}

#[test]
fn numbers_of_staged_attempts_are_new_in_another_cluster() {
    let mut world = full(2);
    assert_eq!(stage(&mut world, 1, 0), accepted(1, 0));
    world.apply(Command::Servers(ServerCommand::Renew)).expect("it makes sense");
    world
        .apply(Command::RegisterNode(NodeSpec { incarnation: 9, ..node("n", 1_000) }))
        .expect("back");
    assert_eq!(world.place(1, 0, 1, 1), accepted(1, 0));
    assert_eq!(stage(&mut world, 1, 0), accepted(1, 0));
    let number = |index| world.state.task(task(1, index)).expect("live").attempts;
    assert_eq!(number(0), number(1));
    assert!(number(1) > 1_000_000, "{}", number(1));
}

#[test]
fn it_is_explained() {
    let mut world = full(2);
    assert_eq!(stage(&mut world, 1, 0), accepted(1, 0));
    let told = world.state.explain(task(1, 1)).expect("live");
    assert_eq!(told.holds, vec![Hold::Staged(NODE, task(1, 0))]);
}

/// Refused, and nothing has changed.
fn refuses(world: &mut World, staged: Staging, why: &str) {
    let applied = world.entry(vec![stage_all(vec![staged])]);
    assert_eq!((applied.outcomes, applied.events), (vec![accepted(0, 1)], vec![]), "{why}");
    assert_eq!(desired(world), vec![task(1, 0)], "{why}");
}

#[test]
fn nothing_is_staged_below_its_feature_level() {
    let mut world = World::new();
    world.apply(Command::RegisterNode(node("n", 1_000))).expect("a new node");
    world.submit(job(2)).expect("a good job");
    assert_eq!(world.place(1, 0, 1, 1), accepted(1, 0));
    refuses(&mut world, staging(1, 0), "level 0");
    for (level, taken) in [(STAGING_LEVEL - 1, 0), (STAGING_LEVEL, 1)] {
        let raise = ServerCommand::RaiseLevel(level);
        assert_eq!(world.apply(Command::Servers(raise)), Ok(Reply::Done));
        assert_eq!(stage(&mut world, 1, 0), accepted(taken, 1 - taken), "level {level}");
    }
}

#[test]
fn a_task_is_staged_only_behind_one_whose_room_it_can_take() {
    let mut world = full(2);
    refuses(&mut world, staging(1, 1), "behind itself");
    refuses(&mut world, staging(0, 0), "it runs");
    refuses(&mut world, staging(7, 0), "there is no such task");
    refuses(&mut world, staging(1, 9), "there is no such task ahead");
    let bigger = job_with(1, |group| group.shape.need = Resources::new(2_000, 0));
    world.submit(bigger).expect("a good job");
    let other = Staging { task: task(2, 0), behind: task(1, 0) };
    refuses(&mut world, other, "it needs more");
    let limited = job_with(1, |group| group.parallel_max = Some(1));
    world.submit(limited).expect("a good job");
    let other = Staging { task: task(3, 0), behind: task(1, 0) };
    refuses(&mut world, other, "its group is limited");
    world.apply(Command::CreateQueue(QueueSpec::named("other"))).expect("a new queue");
    let elsewhere = rota_core::command::JobSpec { queue: "other".into(), ..job(1) };
    world.submit(elsewhere).expect("a good job");
    let other = Staging { task: task(4, 0), behind: task(1, 0) };
    refuses(&mut world, other, "it is of another queue");
    assert_eq!(stage(&mut world, 1, 0), accepted(1, 0));
    let mut same = job(1);
    same.groups = vec![group("same", 1)];
    world.submit(same).expect("a good job");
    let taken = Staging { task: task(5, 0), behind: task(1, 0) };
    assert_eq!(world.apply(stage_all(vec![taken])), accepted(0, 1), "another is behind it");
}

#[test]
fn nothing_is_staged_where_nothing_would_be_placed() {
    let paused = Command::PauseQueue { queue: "default".into(), paused: true };
    let drained = Command::DrainNode { node: NODE, draining: true };
    let old = Command::RegisterNode(NodeSpec { stages: false, ..node("n", 1_000) });
    let smaller = Command::RegisterNode(node("n", 999));
    let fewer = Command::RegisterNode(NodeSpec { attempts_max: 0, ..node("n", 1_000) });
    for command in [paused, drained, old, smaller, fewer] {
        let mut world = full(2);
        let why = format!("{command:?}");
        world.apply(command).expect("it makes sense");
        refuses(&mut world, staging(1, 0), &why);
    }
    let mut world = full(2);
    world.cancel(1, Some([0].into_iter().collect())).expect("it runs");
    refuses(&mut world, staging(1, 0), "the one ahead is about to stop");
}

#[test]
fn a_queue_at_its_limit_goes_on_with_staged_tasks_and_one_above_it_does_not() {
    for (running_max, taken) in [(0, 0), (1, 1), (2, 1)] {
        let mut world = full(2);
        let spec = QueueSpec { running_max: Some(running_max), ..QueueSpec::named("default") };
        world.apply(Command::ConfigureQueue(spec)).expect("good settings");
        assert_eq!(stage(&mut world, 1, 0), accepted(taken, 1 - taken), "{running_max}");
    }
}
