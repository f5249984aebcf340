//! What each command does, and each reason for which it is refused.

mod world;

use rota_core::command::{
    AttemptEnd, Backoff, CancelTasks, Command, FailureKind, IdempotencyKey, NodeSpec, Outcome,
    QueueSpec, Rejection, Reply, RetryRule, SubmitJobs,
};
use rota_core::event::{AttemptState, Event, Next};
use rota_core::job::{Counts, TaskState};
use rota_core::node::Unfit;
use rota_core::queue::Discipline;
use rota_core::task::{Phase, Standing};
use rota_types::limits::{IDEMPOTENCY_WINDOW, LOST_ATTEMPTS_MAX, PURGE_JOBS_MAX, SUBMIT_JOBS_MAX};
use rota_types::{
    ActionKind, ActionKinds, JobId, LogIndex, NodeId, RangeSet, Resources, Span, Steady, Timestamp,
};
use world::{World, attempt, failed, group, job, job_with, node, report, task};

fn world_with_node() -> World {
    let mut world = World::new();
    assert_eq!(world.apply(Command::RegisterNode(node("n", 4_000))), Ok(Reply::Node(NodeId(1))));
    world
}

fn accepted(taken: u64, refused: u64) -> Outcome {
    Ok(Reply::Accepted { taken, refused })
}

fn submitted(first: u64, replayed: bool) -> Outcome {
    Ok(Reply::Submitted { first: JobId(first), count: 1, replayed })
}

fn next_of(events: &[Event]) -> Vec<Next> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::AttemptEnded(record) => Some(record.next),
            _ => None,
        })
        .collect()
}

#[test]
fn a_purge_in_parts_leaves_later_jobs_alone_and_comes_to_an_end() {
    let mut world = World::new();
    let jobs = vec![job(1); SUBMIT_JOBS_MAX];
    let submit = Command::SubmitJobs(SubmitJobs { jobs, idempotency: None });
    let steps = PURGE_JOBS_MAX / SUBMIT_JOBS_MAX + 1;
    for _ in 0..steps {
        let entry = rota_core::command::Entry {
            index: LogIndex(1),
            at: Timestamp(0),
            steady: Steady(0),
            commands: vec![submit.clone()],
        };
        world.state.apply(&entry);
    }
    let before = Some(world.state.next_job());
    world.submit(job(1)).expect("a job more");
    let purge = Command::PurgeQueue { queue: "default".into(), before };
    for ended in [PURGE_JOBS_MAX, SUBMIT_JOBS_MAX, 0] {
        let ended = ended as u64;
        assert_eq!(world.apply(purge.clone()), Ok(Reply::Cancelled { ended, stopping: 0 }));
    }
    assert_eq!(world.state.live_tasks(), 1);
}

#[test]
fn a_job_ends_when_its_last_task_ends_and_leaves_the_state() {
    let mut world = world_with_node();
    assert_eq!(world.submit(job(2)), submitted(1, false));
    assert_eq!(world.place(1, 0, 2, 1), accepted(2, 0));
    assert_eq!(world.end(attempt(1, 0, 1), 1, AttemptEnd::Succeeded), accepted(1, 0));
    let last = report(attempt(1, 1, 1), 1, failed(FailureKind::Exit(3)));
    let applied = world.entry(vec![Command::EndAttempts(vec![last])]);
    let Some(Event::JobFinished(over)) = applied.events.last() else {
        panic!("{:?}", applied.events);
    };
    assert_eq!(over.counts, Counts { succeeded: 1, failed: 1, ..Counts::default() });
    assert_eq!((&over.spec, &over.failed), (&job(2), &RangeSet::from_range(1, 2)));
    assert_eq!((world.state.job_count(), world.state.live_tasks()), (0, 0));
    assert_eq!(world.state.shapes().count(), 0);
}

#[test]
fn jobs_of_a_submit_are_taken_in_all_or_none() {
    let mut world = World::new();
    let mut wrong = job(1);
    wrong.queue = "nowhere".into();
    let jobs = vec![job(1), wrong];
    let submit = |jobs| Command::SubmitJobs(SubmitJobs { jobs, idempotency: None });
    assert_eq!(world.apply(submit(jobs)), Err(Rejection::UnknownQueue("nowhere".into())));
    assert_eq!((world.state.job_count(), world.state.next_job()), (0, JobId(1)));
    let reply = Reply::Submitted { first: JobId(1), count: 2, replayed: false };
    assert_eq!(world.apply(submit(vec![job(1), job(1)])), Ok(reply));
}

#[test]
fn a_key_answers_the_same_ids_for_its_window_and_no_longer() {
    let keyed = |digest: u8| {
        let idempotency = Some(IdempotencyKey { key: "k".into(), digest: [digest; 16] });
        Command::SubmitJobs(SubmitJobs { jobs: vec![job(1)], idempotency })
    };
    let mut world = World::new();
    world.steady = 5_000_000;
    assert_eq!(world.apply(keyed(1)), submitted(1, false));
    assert_eq!(world.apply(keyed(1)), submitted(1, true));
    assert_eq!(world.apply(keyed(2)), Err(Rejection::IdempotencyConflict("k".into())));
    let end = 5_000_000 + IDEMPOTENCY_WINDOW.0;
    assert_eq!(world.state.next_deadline(), Some(Steady(end)));
    world.steady = end - 1;
    assert_eq!(world.apply(Command::Tick), Ok(Reply::Done));
    assert_eq!(world.apply(keyed(1)), submitted(1, true));
    world.steady = end;
    assert_eq!(world.apply(Command::Tick), Ok(Reply::Done));
    assert_eq!(world.state.next_deadline(), None);
    assert_eq!(world.apply(keyed(2)), submitted(2, false));
}

#[test]
fn keys_are_forgotten_at_most_once_a_second() {
    let mut world = World::new();
    for used_at in [1, 2, 999_999] {
        world.steady = used_at;
        let idempotency =
            Some(IdempotencyKey { key: format!("{used_at}").into(), digest: [0; 16] });
        let submit = SubmitJobs { jobs: vec![job(1)], idempotency };
        assert!(world.apply(Command::SubmitJobs(submit)).is_ok());
    }
    let deadline = IDEMPOTENCY_WINDOW.0 + 1_000_000;
    assert_eq!(world.state.next_deadline(), Some(Steady(deadline)));
    world.steady = deadline;
    assert_eq!(world.apply(Command::Tick), Ok(Reply::Done));
    assert_eq!(world.state.next_deadline(), None);
}

#[test]
fn failed_attempts_are_tried_again_by_rule_until_the_policy_is_used_up() {
    let cases = [
        (RetryRule::Exit(2, 4), FailureKind::Exit(2), true),
        (RetryRule::Exit(2, 4), FailureKind::Exit(4), true),
        (RetryRule::Exit(2, 4), FailureKind::Exit(5), false),
        (RetryRule::Signal, FailureKind::Signal(9), true),
        (RetryRule::Signal, FailureKind::Exit(9), false),
        (RetryRule::Timeout, FailureKind::Timeout, true),
        (RetryRule::Start, FailureKind::Start, true),
        (RetryRule::Http, FailureKind::Http(None), true),
        (RetryRule::Http, FailureKind::Http(Some(500)), true),
        (RetryRule::Http, FailureKind::Timeout, false),
    ];
    for (rule, kind, again) in cases {
        let mut world = world_with_node();
        let spec = job_with(1, |group| {
            group.retry.attempts_max = 2;
            group.retry.on = vec![rule];
        });
        assert_eq!(world.submit(spec), submitted(1, false));
        for number in 1..=2 {
            assert_eq!(world.place(1, 0, 1, 1), accepted(1, 0));
            let end = Command::EndAttempts(vec![report(attempt(1, 0, number), 1, failed(kind))]);
            let next = next_of(&world.entry(vec![end]).events);
            let over = Next::Finished(TaskState::Failed);
            let expected = if again && number == 1 { Next::Queued } else { over };
            assert_eq!(next, vec![expected], "{rule:?} {kind:?}");
            if next == vec![over] {
                break;
            }
        }
    }
}

#[test]
fn pauses_double_up_to_their_maximum() {
    let pauses = pauses(Backoff { base: Span(100), max: Span(350), jitter_percent: 0 });
    assert_eq!(pauses, [100, 200, 350, 350]);
    let longest = Backoff { base: Span(1), max: Span(1), jitter_percent: 0 };
    assert_eq!(self::pauses(longest), [1, 1, 1, 1]);
}

#[test]
fn jitter_only_adds_and_stays_in_its_bounds_and_is_the_same_every_time() {
    let backoff = Backoff { base: Span(1_000), max: Span(1_000), jitter_percent: 20 };
    let drawn = pauses(backoff);
    assert!(drawn.iter().all(|pause| (1_000..=1_200).contains(pause)), "{drawn:?}");
    assert!(drawn.iter().any(|pause| *pause != drawn[0]), "{drawn:?}");
    assert_eq!(drawn, pauses(backoff));
}

/// The pauses after four failures.
fn pauses(backoff: Backoff) -> Vec<u64> {
    let mut world = world_with_node();
    let spec = job_with(1, |group| {
        group.retry.attempts_max = 5;
        group.retry.backoff = backoff;
    });
    assert_eq!(world.submit(spec), submitted(1, false));
    (1..=4)
        .map(|number| {
            assert_eq!(world.place(1, 0, 1, 1), accepted(1, 0));
            let id = attempt(1, 0, number);
            assert_eq!(world.end(id, 1, failed(FailureKind::Exit(1))), accepted(1, 0));
            assert_eq!(world.place(1, 0, 1, 1), accepted(0, 1), "a waiting task does not start");
            let until = world.state.next_deadline().expect("the back-off has an end").0;
            let pause = until - world.steady;
            world.steady = until - 1;
            assert_eq!(world.entry(vec![Command::Tick]).events, vec![]);
            world.steady = until;
            let queued = Event::TaskQueued(task(1, 0));
            assert_eq!(world.entry(vec![Command::Tick]).events, vec![queued]);
            pause
        })
        .collect()
}

#[test]
fn a_task_may_be_lost_five_times_and_fails_the_sixth_time() {
    let mut world = world_with_node();
    assert_eq!(world.submit(job(1)), submitted(1, false));
    for number in 1..=LOST_ATTEMPTS_MAX + 1 {
        assert_eq!(
            world.apply(Command::RegisterNode(node("n", 4_000))),
            Ok(Reply::Node(NodeId(1)))
        );
        assert_eq!(world.place(1, 0, 1, 1), accepted(1, 0));
        let next = next_of(&world.entry(vec![Command::LoseNode(NodeId(1))]).events);
        let over = Next::Finished(TaskState::Failed);
        let expected = if number <= LOST_ATTEMPTS_MAX { Next::Queued } else { over };
        assert_eq!(next, vec![expected], "loss {number}");
    }
    assert_eq!(world.state.job_count(), 0);
}

#[test]
fn cancelling_ends_what_does_not_run_and_stops_what_does() {
    let mut world = world_with_node();
    let spec = job_with(4, |group| {
        group.retry.attempts_max = 9;
        group.retry.backoff = Backoff { base: Span(9), max: Span(9), jitter_percent: 0 };
    });
    assert_eq!(world.submit(spec), submitted(1, false));
    // 0 runs, 1 waits, 2 is queued again, 3 is fresh.
    assert_eq!(world.place(1, 0, 3, 1), accepted(3, 0));
    assert_eq!(world.end(attempt(1, 1, 1), 1, failed(FailureKind::Exit(1))), accepted(1, 0));
    assert_eq!(world.end(attempt(1, 2, 1), 1, AttemptEnd::Stopped), accepted(1, 0));
    assert!(matches!(world.state.standing(task(1, 3)), Some(Standing::Fresh)));
    assert_eq!(world.cancel(1, None), Ok(Reply::Cancelled { ended: 3, stopping: 1 }));
    for index in 1..4 {
        let over = Some(Standing::Over(TaskState::Cancelled));
        assert_eq!(world.state.standing(task(1, index)), over);
        assert_eq!(world.place(1, index, 1, 1), accepted(0, 1), "I12");
    }
    let stop = world.state.task(task(1, 0)).and_then(|task| task.attempt()?.stop);
    assert_eq!(stop, Some(Span::from_secs(1)));
    // The program fails on its way out: that is no reason to try it again.
    let end = report(attempt(1, 0, 1), 1, failed(FailureKind::Signal(15)));
    let applied = world.entry(vec![Command::EndAttempts(vec![end])]);
    assert_eq!(next_of(&applied.events), vec![Next::Finished(TaskState::Cancelled)]);
    assert_eq!(world.cancel(1, None), Err(Rejection::UnknownJob(JobId(1))));
}

#[test]
fn cancelling_every_second_task_of_a_wide_array_is_quick_and_exact() {
    let mut world = World::new();
    assert_eq!(world.submit(job(60_000)), submitted(1, false));
    let odd: RangeSet = (0..60_000).filter(|index| index % 2 == 1).collect();
    assert_eq!(
        world.cancel(1, Some(odd.clone())),
        Ok(Reply::Cancelled { ended: 30_000, stopping: 0 })
    );
    let job = world.state.job(JobId(1)).expect("half of it is left");
    assert_eq!(*job.cancelled(), odd);
    assert_eq!(job.groups[0].fresh, (0..60_000).step_by(2).collect());
    let beyond = RangeSet::from_range(59_999, u32::MAX);
    assert_eq!(world.cancel(1, Some(beyond)), Err(Rejection::NothingToCancel(JobId(1))));
}

#[test]
fn only_the_live_attempt_on_its_own_node_is_heard() {
    let mut world = world_with_node();
    assert_eq!(world.apply(Command::RegisterNode(node("m", 4_000))), Ok(Reply::Node(NodeId(2))));
    assert_eq!(world.submit(job(1)), submitted(1, false));
    assert_eq!(world.place(1, 0, 1, 1), accepted(1, 0));
    assert_eq!(world.apply(Command::LoseNode(NodeId(1))), Ok(Reply::Done));
    assert_eq!(world.place(1, 0, 1, 2), accepted(1, 0));
    let before = world.state.task(task(1, 0)).cloned();
    for (id, node) in
        [(attempt(1, 0, 1), 1), (attempt(1, 0, 2), 1), (attempt(1, 0, 3), 2), (attempt(9, 0, 1), 2)]
    {
        assert_eq!(world.end(id, node, AttemptEnd::Succeeded), accepted(0, 1), "I3: {id} {node}");
        assert_eq!(world.state.task(task(1, 0)).cloned(), before);
    }
    assert_eq!(world.end(attempt(1, 0, 2), 2, AttemptEnd::Succeeded), accepted(1, 0));
}

#[test]
fn a_worker_that_restarted_has_lost_its_attempts_and_one_that_came_back_has_not() {
    let mut world = world_with_node();
    assert_eq!(world.submit(job(1)), submitted(1, false));
    assert_eq!(world.place(1, 0, 1, 1), accepted(1, 0));
    assert_eq!(world.apply(Command::RegisterNode(node("n", 500))), Ok(Reply::Node(NodeId(1))));
    assert_eq!(world.state.desired(NodeId(1)).count(), 1);
    let free = world.state.node(NodeId(1)).map(|node| node.free.clone());
    assert_eq!(free, Some(Resources::default()), "more is held than there is");
    let mut restarted = node("n", 4_000);
    restarted.incarnation = 2;
    let applied = world.entry(vec![Command::RegisterNode(restarted)]);
    let states: Vec<_> = applied
        .events
        .iter()
        .filter_map(|event| match event {
            Event::AttemptEnded(record) => Some(record.state),
            _ => None,
        })
        .collect();
    assert_eq!(states, vec![AttemptState::Lost]);
    assert_eq!(world.state.desired(NodeId(1)).count(), 0);
}

#[test]
fn a_draining_node_finishes_what_it_runs_and_takes_nothing_new() {
    let mut world = world_with_node();
    assert_eq!(world.submit(job(2)), submitted(1, false));
    assert_eq!(world.place(1, 0, 1, 1), accepted(1, 0));
    let drain = |draining| Command::DrainNode { node: NodeId(1), draining };
    assert_eq!(world.apply(drain(true)), Ok(Reply::Done));
    assert_eq!(world.place(1, 1, 1, 1), accepted(0, 1));
    assert_eq!(world.apply(Command::RemoveNode(NodeId(1))), Err(Rejection::NodeBusy(NodeId(1))));
    assert_eq!(world.apply(drain(false)), Ok(Reply::Done));
    assert_eq!(world.place(1, 1, 1, 1), accepted(1, 0));
    for index in 0..2 {
        assert_eq!(world.end(attempt(1, index, 1), 1, AttemptEnd::Succeeded), accepted(1, 0));
    }
    assert_eq!(world.apply(Command::RemoveNode(NodeId(1))), Ok(Reply::Done));
    for command in [drain(true), Command::LoseNode(NodeId(1)), Command::RemoveNode(NodeId(1))] {
        assert_eq!(world.apply(command), Err(Rejection::UnknownNode(NodeId(1))));
    }
}

#[test]
fn a_node_takes_only_the_kinds_of_actions_that_its_worker_runs() {
    let mut world = World::new();
    let runs = [ActionKind::Http, ActionKind::Noop].into_iter().collect();
    let hooks = NodeSpec { runs, ..node("hooks", 9_000) };
    assert_eq!(world.apply(Command::RegisterNode(hooks.clone())), Ok(Reply::Node(NodeId(1))));
    let kinds = [ActionKind::Command, ActionKind::Http, ActionKind::Noop].map(Some);
    for (kind, id) in kinds.into_iter().chain([None]).zip(1..) {
        let spec = job_with(1, |group| group.shape.kind = kind);
        assert_eq!(world.submit(spec), submitted(id, false));
        let refused = kind == Some(ActionKind::Command);
        let unfit = if refused { vec![Unfit::Refused(ActionKind::Command)] } else { vec![] };
        let told = world.state.explain(task(id, 0)).expect("a live task");
        assert_eq!(told.nodes, vec![(NodeId(1), unfit)]);
        assert_eq!(world.place(id, 0, 1, 1), accepted(u64::from(!refused), u64::from(refused)));
    }
    // The same worker, started again with other settings.
    let willing = NodeSpec { runs: ActionKinds::EVERY, incarnation: 2, ..hooks };
    assert_eq!(world.apply(Command::RegisterNode(willing)), Ok(Reply::Node(NodeId(1))));
    assert_eq!(world.place(1, 0, 1, 1), accepted(1, 0));
}

#[test]
fn a_plan_is_taken_as_far_as_every_limit_allows() {
    let mut world = world_with_node();
    let spec = job_with(9, |group| group.parallel_max = Some(3));
    assert_eq!(world.submit(spec), submitted(1, false));
    assert_eq!(world.place(1, 0, u32::MAX, 1), accepted(3, u64::from(u32::MAX) - 3), "the group");
    assert_eq!(world.submit(job(9)), submitted(2, false));
    assert_eq!(world.place(2, 0, 9, 1), accepted(1, 8), "the node's capacity");
    let mut wide = node("wide", 64_000);
    wide.attempts_max = 2;
    assert_eq!(world.apply(Command::RegisterNode(wide)), Ok(Reply::Node(NodeId(2))));
    assert_eq!(world.place(2, 1, 8, 2), accepted(2, 6), "the node's attempts");
    let queue = QueueSpec { running_max: Some(7), ..QueueSpec::named("default") };
    assert_eq!(world.apply(Command::ConfigureQueue(queue)), Ok(Reply::Done));
    assert_eq!(
        world.apply(Command::RegisterNode(node("third", 64_000))),
        Ok(Reply::Node(NodeId(3)))
    );
    assert_eq!(world.place(2, 3, 6, 3), accepted(1, 5), "the queue");
    let pause = Command::PauseQueue { queue: "default".into(), paused: true };
    assert_eq!(world.apply(pause), Ok(Reply::Done));
    assert_eq!(world.place(2, 4, 1, 3), accepted(0, 1), "I13");
    assert_eq!(world.place(7, 0, 1, 3), accepted(0, 1), "no such job");
    assert_eq!(world.place(2, 4, 1, 9), accepted(0, 1), "no such node");
    assert_eq!(world.place(2, u32::MAX, u32::MAX, 3), accepted(0, u64::from(u32::MAX)));
}

#[test]
fn a_queue_takes_as_many_tasks_as_it_may_hold() {
    let mut world = World::new();
    let queue = QueueSpec { tasks_max: Some(5), ..QueueSpec::named("default") };
    assert_eq!(world.apply(Command::ConfigureQueue(queue)), Ok(Reply::Done));
    let full = Err(Rejection::QueueFull { queue: "default".into(), limit: 5 });
    assert_eq!(world.submit(job(6)), full);
    assert_eq!(world.submit(job(4)), submitted(1, false));
    assert_eq!(world.submit(job(2)), full);
    assert_eq!(world.submit(job(1)), submitted(2, false));
    assert_eq!(world.submit(job(1)), full);
}

#[test]
fn queues_come_and_go_but_never_with_tasks_in_them() {
    let mut world = world_with_node();
    let create = |name| Command::CreateQueue(QueueSpec::named(name));
    let remove = |name: &str| Command::RemoveQueue { queue: name.into() };
    assert_eq!(world.apply(create("q")), Ok(Reply::Done));
    assert_eq!(world.apply(create("q")), Err(Rejection::QueueExists("q".into())));
    assert_eq!(world.apply(remove("default")), Err(Rejection::QueueProtected("default".into())));
    let mut spec = job(3);
    spec.queue = "q".into();
    assert_eq!(world.submit(spec), submitted(1, false));
    assert_eq!(world.apply(remove("q")), Err(Rejection::QueueNotEmpty("q".into())));
    assert_eq!(world.place(1, 0, 1, 1), accepted(1, 0));
    let purge = |name: &str| Command::PurgeQueue { queue: name.into(), before: None };
    assert_eq!(world.apply(purge("q")), Ok(Reply::Cancelled { ended: 2, stopping: 0 }));
    assert_eq!(world.apply(remove("q")), Err(Rejection::QueueNotEmpty("q".into())));
    assert_eq!(world.end(attempt(1, 0, 1), 1, AttemptEnd::Succeeded), accepted(1, 0));
    assert_eq!(world.apply(remove("q")), Ok(Reply::Done));
    let unknown = Err(Rejection::UnknownQueue("q".into()));
    let pause = Command::PauseQueue { queue: "q".into(), paused: true };
    let configure = Command::ConfigureQueue(QueueSpec::named("q"));
    for command in [remove("q"), purge("q"), pause, configure] {
        assert_eq!(world.apply(command), unknown);
    }
}

#[test]
fn values_that_make_no_sense_are_refused_by_name() {
    let what = |outcome: Outcome| match outcome {
        Err(Rejection::Invalid { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    let mut world = World::new();
    let queue = |change: fn(&mut QueueSpec)| {
        let mut spec = QueueSpec::named("q");
        change(&mut spec);
        Command::CreateQueue(spec)
    };
    assert_eq!(what(world.apply(queue(|q| q.weight = 0))), "queue.weight");
    assert_eq!(what(world.apply(queue(|q| q.name = "".into()))), "queue.name");
    assert_eq!(what(world.apply(queue(|q| q.name = "a\nb".into()))), "queue.name");
    let starving = queue(|q| q.discipline = Discipline::Priority { aging: Span::ZERO });
    assert_eq!(what(world.apply(starving)), "queue.aging");
    let mut twice = job(1);
    twice.groups.push(group("work", 1));
    assert_eq!(what(world.submit(twice)), "task.name");
    let mut none = job(1);
    none.groups.clear();
    assert_eq!(what(world.submit(none)), "task");
    assert_eq!(what(world.submit(job(0))), "task.array");
    assert_eq!(what(world.submit(job_with(1, |g| g.parallel_max = Some(0)))), "task.parallel");
    assert_eq!(what(world.submit(job_with(1, |g| g.timeout = Some(Span(0))))), "task.timeout");
    assert_eq!(what(world.submit(job_with(1, |g| g.retry.attempts_max = 0))), "task.retry.max");
    let backwards = |g: &mut rota_core::command::GroupSpec| g.retry.backoff.base = Span(1);
    assert_eq!(what(world.submit(job_with(1, backwards))), "task.retry.backoff");
    let zero = |g: &mut rota_core::command::GroupSpec| {
        g.shape.need.named.insert("gpu".into(), 0);
    };
    assert_eq!(what(world.submit(job_with(1, zero))), "task.resources");
    let empty = Command::SubmitJobs(SubmitJobs { jobs: vec![], idempotency: None });
    assert_eq!(what(world.apply(empty)), "jobs");
}

#[test]
fn time_never_goes_back() {
    let mut world = World::new();
    world.steady = 50;
    assert_eq!(world.apply(Command::Tick), Ok(Reply::Done));
    world.steady = 10;
    assert_eq!(world.apply(Command::Tick), Ok(Reply::Done));
    assert_eq!((world.state.steady(), world.state.now().0), (Steady(50), 50), "I6");
}

#[test]
fn a_second_cancel_can_only_shorten_the_grace() {
    let mut world = world_with_node();
    assert_eq!(world.submit(job(1)), submitted(1, false));
    assert_eq!(world.place(1, 0, 1, 1), accepted(1, 0));
    for (grace, expected) in [(5, 5), (9, 5), (2, 2), (0, 0)] {
        let cancel =
            CancelTasks { job: JobId(1), tasks: None, grace: Span(grace), reason: "".into() };
        let stopping = Ok(Reply::Cancelled { ended: 0, stopping: 1 });
        assert_eq!(world.apply(Command::CancelTasks(cancel)), stopping);
        let phase = world.state.task(task(1, 0)).map(|task| &task.phase);
        assert!(
            matches!(phase, Some(Phase::Running(live)) if live.stop == Some(Span(expected))),
            "{phase:?}"
        );
    }
}
