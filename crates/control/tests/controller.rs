//! The leader's memory: leases, alarms, and one plan at a time.

#[path = "../../core/tests/world/mod.rs"]
mod world;

use rota_control::{Controller, Input, Now, Output, Tag};
use rota_core::State;
use rota_core::command::{AttemptEnd, Backoff, Command, FailureKind, Placement, Plan};
use rota_types::{Monotonic, NodeId, Span, Steady};
use world::{World, attempt, failed, job, job_with, node, report, task};

const LEASE: Span = Span(100);

fn at(monotonic: u64) -> Now {
    Now { monotonic: Monotonic(monotonic), steady: Steady(0) }
}

fn lose(node: u32) -> Output {
    Output::Propose(Tag::Lose(NodeId(node)), Command::LoseNode(NodeId(node)))
}

fn wake(at: u64) -> Output {
    Output::WakeAt(Monotonic(at))
}

fn plan(job: u64, index: u32, count: u32) -> Output {
    let placement = Placement { task: task(job, index), count, node: NodeId(1) };
    Output::Propose(
        Tag::Plan,
        Command::CommitPlan(Plan { placements: vec![placement], ..Plan::default() }),
    )
}

/// A world of nodes with four cpus each, and its controller, just elected at 1,000.
fn led(nodes: u32) -> (World, Controller) {
    let mut world = World::new();
    for id in 0..nodes {
        world.apply(Command::RegisterNode(node(&format!("n{id}"), 4_000))).expect("a new node");
    }
    let mut control = Controller::new(&world.state, LEASE);
    let alarm = if nodes > 0 { vec![wake(1_100)] } else { vec![] };
    assert_eq!(control.step(&world.state, Input::Elected, at(1_000)), alarm);
    (world, control)
}

/// Applies a command and tells the controller.
fn apply(world: &mut World, control: &mut Controller, command: Command, now: Now) -> Vec<Output> {
    let applied = world.entry(vec![command]);
    control.step(&world.state, Input::Applied(&applied.events), now)
}

fn submit(spec: rota_core::command::JobSpec) -> Command {
    Command::SubmitJobs(rota_core::command::SubmitJobs { jobs: vec![spec], idempotency: None })
}

#[test]
fn a_new_leader_gives_silent_nodes_a_full_lease_and_lost_ones_none() {
    let (mut world, _) = led(2);
    world.apply(Command::LoseNode(NodeId(2))).expect("it was there");
    let mut control = Controller::new(&world.state, LEASE);
    let state = &world.state;
    assert_eq!(control.step(state, Input::Elected, at(500)), vec![wake(600)]);
    assert_eq!(control.step(state, Input::Woke, at(599)), vec![wake(600)]);
    assert_eq!(control.step(state, Input::Woke, at(600)), vec![lose(1)]);
}

#[test]
fn a_heartbeat_renews_the_lease_of_its_node_only() {
    let (world, mut control) = led(2);
    let state = &world.state;
    assert_eq!(control.step(state, Input::Heartbeat(NodeId(1)), at(1_050)), vec![]);
    assert_eq!(control.step(state, Input::Woke, at(1_100)), vec![lose(2), wake(1_150)]);
    assert_eq!(control.step(state, Input::Woke, at(1_149)), vec![wake(1_150)]);
    assert_eq!(control.step(state, Input::Woke, at(1_150)), vec![lose(1)]);
}

#[test]
fn a_loss_is_proposed_once_until_it_is_answered() {
    let (mut world, mut control) = led(1);
    assert_eq!(control.step(&world.state, Input::Woke, at(1_100)), vec![lose(1)]);
    assert_eq!(control.step(&world.state, Input::Woke, at(1_200)), vec![]);
    assert_eq!(control.step(&world.state, Input::Heartbeat(NodeId(1)), at(1_201)), vec![]);
    let dropped = Input::Answered(Tag::Lose(NodeId(1)));
    assert_eq!(control.step(&world.state, dropped, at(1_202)), vec![lose(1)]);
    let lost = apply(&mut world, &mut control, Command::LoseNode(NodeId(1)), at(1_203));
    assert_eq!(lost, vec![]);
    assert_eq!(control.step(&world.state, dropped, at(1_204)), vec![]);
    let back = Command::RegisterNode(node("n0", 4_000));
    assert_eq!(apply(&mut world, &mut control, back, at(2_000)), vec![wake(2_100)]);
}

#[test]
fn a_lease_runs_on_until_its_loss_is_proposed_whatever_registers_in_between() {
    let (mut world, mut control) = led(1);
    assert!(control.renews(NodeId(1)));
    assert_eq!(control.step(&world.state, Input::Woke, at(1_100)), vec![lose(1)]);
    assert!(!control.renews(NodeId(1)), "its worker must not believe that it goes on");
    // A registration that was proposed before the loss is applied before it, too.
    let back = Command::RegisterNode(node("n0", 4_000));
    apply(&mut world, &mut control, back.clone(), at(1_101));
    assert!(!control.renews(NodeId(1)), "the loss is still on its way");
    apply(&mut world, &mut control, Command::LoseNode(NodeId(1)), at(1_102));
    assert!(!control.renews(NodeId(1)));
    apply(&mut world, &mut control, back, at(1_103));
    assert!(control.renews(NodeId(1)));
}

#[test]
fn one_plan_is_in_flight_at_a_time_and_what_was_refused_is_planned_again() {
    let (mut world, mut control) = led(1);
    let outputs = apply(&mut world, &mut control, submit(job(3)), at(1_001));
    assert_eq!(outputs, vec![plan(1, 0, 3)]);
    assert_eq!(apply(&mut world, &mut control, submit(job(1)), at(1_002)), vec![]);
    // The plan was dropped: nothing of it became true.
    let answered = Input::Answered(Tag::Plan);
    let outputs = control.step(&world.state, answered, at(1_003));
    let [Output::Propose(Tag::Plan, Command::CommitPlan(again))] = outputs.as_slice() else {
        panic!("{outputs:?}");
    };
    let tasks: Vec<_> = again.placements.iter().map(|p| (p.task, p.count)).collect();
    assert_eq!(tasks, vec![(task(1, 0), 3), (task(2, 0), 1)]);
    let commit = Command::CommitPlan(again.clone());
    assert_eq!(apply(&mut world, &mut control, commit, at(1_004)), vec![]);
    assert_eq!(control.step(&world.state, answered, at(1_005)), vec![], "nothing is left to plan");
}

#[test]
fn a_quiet_cluster_proposes_nothing() {
    let (mut world, mut control) = led(1);
    let too_big = job_with(1, |group| group.shape.need.cpu_millis = 5_000);
    assert_eq!(apply(&mut world, &mut control, submit(too_big), at(1_001)), vec![]);
    for now in 1_002..1_050 {
        assert_eq!(control.step(&world.state, Input::Heartbeat(NodeId(1)), at(now)), vec![]);
    }
    let bigger = Command::RegisterNode(node("n0", 5_000));
    let outputs = apply(&mut world, &mut control, bigger, at(1_050));
    assert_eq!(outputs, vec![plan(1, 0, 1)]);
}

#[test]
fn the_alarm_goes_off_when_a_back_off_ends_and_the_tick_is_proposed_once() {
    let (mut world, mut control) = led(1);
    let flaky = job_with(1, |group| {
        group.retry.attempts_max = 2;
        group.retry.backoff = Backoff { base: Span(30), max: Span(30), jitter_percent: 0 };
    });
    assert_eq!(apply(&mut world, &mut control, submit(flaky), at(1_001)), vec![plan(1, 0, 1)]);
    let placement = Placement { task: task(1, 0), count: 1, node: NodeId(1) };
    let commit = Command::CommitPlan(Plan { placements: vec![placement], ..Plan::default() });
    assert_eq!(apply(&mut world, &mut control, commit, at(1_002)), vec![]);
    let end = report(attempt(1, 0, 1), 1, failed(FailureKind::Exit(1)));
    control.step(&world.state, Input::Answered(Tag::Plan), at(1_002));
    let ended = Command::EndAttempts(vec![end]);
    assert_eq!(apply(&mut world, &mut control, ended, at(1_010)), vec![wake(1_040)]);
    let due = Now { monotonic: Monotonic(1_040), steady: Steady(30) };
    let tick = Output::Propose(Tag::Tick, Command::Tick);
    assert_eq!(control.step(&world.state, Input::Woke, due), vec![tick, wake(1_100)]);
    assert_eq!(control.step(&world.state, Input::Heartbeat(NodeId(1)), due), vec![]);
    world.steady = 30;
    assert_eq!(apply(&mut world, &mut control, Command::Tick, due), vec![plan(1, 0, 1)]);
    assert_eq!(control.step(&world.state, Input::Answered(Tag::Tick), due), vec![]);
}

#[test]
fn everything_that_fits_ends_whatever_the_limits_are() {
    let (mut world, mut control) = led(2);
    let now = at(1_001);
    let mut wanted = Vec::new();
    for place in 0..6 {
        let spec = job_with(7, |group| {
            group.parallel_max = (place % 2 == 0).then_some(2);
            group.retry.attempts_max = 2;
            group.shape.need.cpu_millis = 500 * (1 + place);
        });
        wanted.extend(apply(&mut world, &mut control, submit(spec), now));
    }
    for round in 0.. {
        assert!(round < 500, "L1");
        for output in std::mem::take(&mut wanted) {
            if let Output::Propose(tag, command) = output {
                wanted.extend(apply(&mut world, &mut control, command, now));
                wanted.extend(control.step(&world.state, Input::Answered(tag), now));
            }
        }
        let reports: Vec<_> = live(&world.state)
            .into_iter()
            .map(|(id, node)| match (id.number, id.task.index % 3) {
                (1, 0) => report(id, node, failed(FailureKind::Exit(1))),
                _ => report(id, node, AttemptEnd::Succeeded),
            })
            .collect();
        if reports.is_empty() && wanted.is_empty() {
            break;
        }
        wanted.extend(apply(&mut world, &mut control, Command::EndAttempts(reports), now));
    }
    assert_eq!(world.state.live_tasks(), 0, "L1");
}

fn live(state: &State) -> Vec<(rota_types::AttemptId, u32)> {
    state
        .nodes()
        .flat_map(|(node, _)| state.desired(node).map(move |(id, _)| (id, node.0)))
        .collect()
}

#[test]
fn the_end_of_a_task_and_the_start_of_the_next_share_an_entry() {
    let (mut world, mut control) = led(1);
    let spec = job_with(2, |group| group.shape.need.cpu_millis = 4_000);
    let first = apply(&mut world, &mut control, submit(spec), at(1_001));
    assert_eq!(first, vec![plan(1, 0, 1)]);
    let Some(Output::Propose(tag, commit)) = first.into_iter().next() else { panic!("no plan") };
    apply(&mut world, &mut control, commit, at(1_002));
    assert_eq!(control.step(&world.state, Input::Answered(tag), at(1_002)), vec![]);

    let done = Command::EndAttempts(vec![report(attempt(1, 0, 1), 1, AttemptEnd::Succeeded)]);
    let other = [Command::Tick, done.clone()];
    let next = Placement { task: task(1, 1), count: 1, node: NodeId(1) };
    let expected = Command::CommitPlan(Plan { placements: vec![next], ..Plan::default() });
    assert_eq!(control.anticipate(&world.state, &[Command::Tick]), None, "nothing ends");
    assert_eq!(control.anticipate(&world.state, &other), Some(expected.clone()));
    assert_eq!(control.anticipate(&world.state, &other), None, "one plan at a time");

    let applied = world.entry(vec![done.clone(), expected]);
    assert_eq!(
        applied.outcomes[1],
        Ok(rota_core::command::Reply::Accepted { taken: 1, refused: 0 })
    );
    assert_eq!(control.step(&world.state, Input::Applied(&applied.events), at(1_003)), vec![]);
    assert_eq!(control.step(&world.state, Input::Answered(Tag::Plan), at(1_003)), vec![]);
    assert_eq!(control.anticipate(&world.state, &[done]), None, "a late report frees nothing");
}

#[test]
fn a_server_that_does_not_lead_wants_nothing_and_one_that_leads_again_starts_afresh() {
    let (mut world, mut control) = led(1);
    let wanted = apply(&mut world, &mut control, submit(job(1)), at(1_001));
    assert_eq!(wanted, vec![plan(1, 0, 1)]);
    assert_eq!(control.step(&world.state, Input::Deposed, at(1_002)), vec![]);
    assert_eq!(apply(&mut world, &mut control, submit(job(1)), at(1_003)), vec![]);
    assert_eq!(control.step(&world.state, Input::Woke, at(9_000)), vec![]);
    // The plan of the first term was never answered; now both jobs are planned.
    let wanted = control.step(&world.state, Input::Elected, at(10_000));
    let placements = vec![
        Placement { task: task(1, 0), count: 1, node: NodeId(1) },
        Placement { task: task(2, 0), count: 1, node: NodeId(1) },
    ];
    let both =
        Output::Propose(Tag::Plan, Command::CommitPlan(Plan { placements, ..Plan::default() }));
    assert_eq!(wanted, vec![both, wake(10_100)]);
}
