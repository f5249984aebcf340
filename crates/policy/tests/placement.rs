//! Each placement policy's choice against a naive twin, skipping ahead, and turns by weight.

#[path = "../../core/tests/world/mod.rs"]
mod world;

use std::collections::BTreeMap;

use rota_core::State;
use rota_core::command::{Command, NodeSpec, Placement, QueueSpec};
use rota_core::queue::Placement as Policy;
use rota_policy::{Budget, Planner, Ranked};
use rota_types::{ActionKind, Constraint, NodeId, Predicate, TaskId};
use world::{Random, World, job, job_with, node};

/// A cluster of nodes of different sizes that run something already, and `tasks` queued tasks of one cpu.
fn cluster(seed: u64, policy: Policy, tasks: u32) -> World {
    let (mut world, mut random) = (World::new(), Random(seed));
    let nodes = 2 + random.below(4) as u32;
    for id in 0..nodes {
        let cpus = 1_000 * (1 + random.below(8));
        world.apply(Command::RegisterNode(node(&format!("n{id}"), cpus))).expect("a new node");
        world.submit(job(3)).expect("a new job");
        world.place(u64::from(id) + 1, 0, random.below(4) as u32, id + 1).expect("as much as fits");
        world.cancel(u64::from(id) + 1, None).expect("what did not fit");
    }
    let spec = QueueSpec { placement: policy, ..QueueSpec::named("default") };
    world.apply(Command::ConfigureQueue(spec)).expect("a known queue");
    world.submit(job(tasks)).expect("a new job");
    world
}

fn plan(state: &State) -> Vec<Placement> {
    Planner::default().plan(state, &Ranked::new(state), Budget::PASS).0.placements
}

/// The nodes of a plan, one per task.
fn nodes_of(plan: &[Placement]) -> Vec<u32> {
    plan.iter().flat_map(|p| (0..p.count).map(move |_| p.node.0)).collect()
}

/// Free and whole cpus of each node, by id.
fn cpus(state: &State) -> Vec<(u32, u64, u64)> {
    let cpus = |(id, node): (NodeId, &rota_core::node::Node)| {
        (id.0, node.free.cpu_millis / 1_000, node.spec.capacity.cpu_millis / 1_000)
    };
    state.nodes().map(cpus).collect()
}

/// Decides task by task with the whole table in view.
fn naively(
    state: &State,
    tasks: u32,
    mut choose: impl FnMut(&[(u32, u64, u64)]) -> u32,
) -> Vec<u32> {
    let mut table = cpus(state);
    let mut chosen = Vec::new();
    for _ in 0..tasks {
        let fitting: Vec<_> = table.iter().copied().filter(|(_, free, _)| *free > 0).collect();
        if fitting.is_empty() {
            break;
        }
        let id = choose(&fitting);
        chosen.push(id);
        for (_, free, _) in table.iter_mut().filter(|row| row.0 == id) {
            *free -= 1;
        }
    }
    chosen
}

fn share(part: u64, whole: u64) -> u64 {
    part * 1_000_000 / whole
}

#[test]
fn each_policy_chooses_what_its_naive_twin_chooses() {
    for seed in 0..200 {
        let world = cluster(seed, Policy::FirstFit, 12);
        let naive = naively(&world.state, 12, |fitting| fitting[0].0);
        assert_eq!(nodes_of(&plan(&world.state)), naive, "first fit, seed {seed}");

        let world = cluster(seed, Policy::BestFit, 12);
        let naive = naively(&world.state, 12, |fitting| {
            let left = |row: &(u32, u64, u64)| (share(row.1 - 1, row.2), row.0);
            fitting.iter().min_by_key(|row| left(row)).map_or(0, |row| row.0)
        });
        assert_eq!(nodes_of(&plan(&world.state)), naive, "best fit, seed {seed}");

        let world = cluster(seed, Policy::LeastLoaded, 12);
        let naive = naively(&world.state, 12, |fitting| {
            let load = |row: &(u32, u64, u64)| (share(row.2 - row.1, row.2), row.2 - row.1, row.0);
            fitting.iter().min_by_key(|row| load(row)).map_or(0, |row| row.0)
        });
        assert_eq!(nodes_of(&plan(&world.state)), naive, "least loaded, seed {seed}");

        let world = cluster(seed, Policy::RoundRobin, 12);
        let mut last = 0;
        let naive = naively(&world.state, 12, |fitting| {
            let next = fitting.iter().find(|row| row.0 > last).or(fitting.first());
            last = next.map_or(0, |row| row.0);
            last
        });
        assert_eq!(nodes_of(&plan(&world.state)), naive, "round robin, seed {seed}");
    }
}

#[test]
fn random_placement_follows_its_seed_and_spares_no_node() {
    let on = |seed| {
        let mut world = World::new();
        for id in 0..4 {
            let spec = node(&format!("n{id}"), 1_000_000);
            world.apply(Command::RegisterNode(spec)).expect("a new node");
        }
        let placement = Policy::Random { seed };
        let spec = QueueSpec { placement, ..QueueSpec::named("default") };
        world.apply(Command::ConfigureQueue(spec)).expect("a known queue");
        world.submit(job(200)).expect("a new job");
        nodes_of(&plan(&world.state))
    };
    assert_eq!(on(7), on(7));
    assert_ne!(on(7), on(8));
    for id in 1..=4 {
        let share = on(7).iter().filter(|node| **node == id).count();
        assert!((30..=70).contains(&share), "node {id} got {share} of 200");
    }
}

#[test]
fn a_head_that_fits_nowhere_does_not_hold_up_the_others() {
    let mut world = World::new();
    world.apply(Command::RegisterNode(node("n", 2_000))).expect("a new node");
    let big = job_with(5, |group| group.shape.need.cpu_millis = 64_000);
    world.submit(big).expect("a new job");
    world.submit(job(5)).expect("a new job");
    let task = |job, index| TaskId { job: rota_types::JobId(job), index };
    let expected = Placement { task: task(2, 0), count: 2, node: NodeId(1) };
    assert_eq!(plan(&world.state), vec![expected]);
}

#[test]
fn queues_share_turns_by_weight_and_none_starves() {
    for (heavy, whole) in [(1, 2), (3, 4), (7, 8), (u32::MAX, u32::MAX)] {
        let mut world = World::new();
        let mut spec = node("n", 8_000_000);
        spec.attempts_max = 60_000;
        world.apply(Command::RegisterNode(spec)).expect("a new node");
        let other = QueueSpec { weight: heavy, ..QueueSpec::named("other") };
        world.apply(Command::CreateQueue(other)).expect("a new queue");
        for queue in ["default", "other"] {
            let mut spec = job(20_000);
            spec.queue = queue.into();
            world.submit(spec).expect("a new job");
        }
        let plan = plan(&world.state);
        let of =
            |job| -> u32 { plan.iter().filter(|p| p.task.job.0 == job).map(|p| p.count).sum() };
        let expected = u64::from(of(1) + of(2)) * u64::from(heavy) / u64::from(whole);
        assert!(u64::from(of(2)).abs_diff(expected) <= 64, "{} of {expected}", of(2));
        assert!(of(1) > 0, "weight {heavy} against 1");
    }
}

#[test]
fn steps_spent_on_what_fits_nowhere_do_not_hide_what_fits() {
    let mut world = World::new();
    for id in 0..5 {
        world.apply(Command::RegisterNode(node(&format!("n{id}"), 1_000))).expect("a new node");
    }
    for place in 0..10 {
        let picky = job_with(1, |group| {
            let key = format!("label-{place}").into();
            group.shape.constraints = vec![Constraint { key, predicate: Predicate::Exists }];
        });
        world.submit(picky).expect("a new job");
    }
    world.submit(job(9)).expect("a new job");
    let ranked = Ranked::new(&world.state);
    let (plan, more) = Planner::default().plan(&world.state, &ranked, Budget::new(3, 100));
    let task = TaskId { job: rota_types::JobId(11), index: 0 };
    assert_eq!(plan.placements, vec![Placement { task, count: 1, node: NodeId(1) }]);
    assert!(more);
}

#[test]
fn no_policy_chooses_a_node_that_does_not_run_such_actions() {
    for policy in [
        Policy::FirstFit,
        Policy::BestFit,
        Policy::LeastLoaded,
        Policy::RoundRobin,
        Policy::Random { seed: 7 },
    ] {
        let mut world = World::new();
        for (name, kind) in [("hooks", ActionKind::Http), ("programs", ActionKind::Command)] {
            let spec = NodeSpec { runs: [kind].into_iter().collect(), ..node(name, 9_000) };
            world.apply(Command::RegisterNode(spec)).expect("a new node");
        }
        let spec = QueueSpec { placement: policy, ..QueueSpec::named("default") };
        world.apply(Command::ConfigureQueue(spec)).expect("a known queue");
        for kind in [ActionKind::Command, ActionKind::Http, ActionKind::Noop] {
            let spec = job_with(2, |group| group.shape.kind = Some(kind));
            world.submit(spec).expect("a new job");
        }
        let mut chosen = BTreeMap::new();
        for p in plan(&world.state) {
            *chosen.entry((p.task.job.0, p.node.0)).or_insert(0) += p.count;
        }
        assert_eq!(chosen, BTreeMap::from([((1, 2), 2), ((2, 1), 2)]), "{policy:?}");
    }
}
