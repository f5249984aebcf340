//! The ranked index against its naive twins, and plans against what `apply` takes of them.

#[path = "../../core/tests/world/mod.rs"]
mod world;

use rota_core::State;
use rota_core::command::{Command, Placement, Plan, Reply};
use rota_core::event::Event;
use rota_core::job::Group;
use rota_core::queue::Discipline;
use rota_core::task::{Phase, Standing};
use rota_policy::{Ahead, Budget, Planner, RankInput, Ranked, discipline};
use rota_types::{NodeId, QueueId, TaskId};
use world::{World, history};

/// What the controller does with events.
fn observe(ranked: &mut Ranked, state: &State, events: &[Event]) {
    for event in events {
        match event {
            Event::JobSubmitted(job) | Event::TasksCancelled { job, .. } => {
                ranked.refresh_job(state, *job);
            }
            Event::JobFinished(job) => ranked.refresh_job(state, job.id),
            Event::AttemptsCreated(placement) => ranked.refresh_around(state, placement.task),
            Event::AttemptEnded(record) => ranked.refresh_around(state, record.attempt.task),
            Event::AttemptStaged { task, .. } => ranked.refresh_around(state, *task),
            Event::TaskQueued(task) => ranked.refresh_around(state, *task),
            Event::QueueConfigured(_) | Event::QueueRemoved(_) => ranked.refresh_queues(state),
            _ => {}
        }
    }
}

#[test]
fn an_index_that_followed_the_events_equals_one_built_anew() {
    for seed in 0..60 {
        let mut ranked = Ranked::new(&State::new());
        let mut step = 0;
        history(seed, 150, |world, applied| {
            if step == 0 {
                ranked = Ranked::new(&world.state);
            }
            observe(&mut ranked, &world.state, &applied.events);
            assert_eq!(ranked, Ranked::new(&world.state), "seed {seed}, step {step}");
            step += 1;
        });
    }
}

#[test]
fn a_task_that_was_lost_in_the_instant_of_its_submit_keeps_its_place() {
    let mut world = World::new();
    world.apply(Command::RegisterNode(world::node("n", 1_000))).expect("a new node");
    world.submit(world::job(3)).expect("a new job");
    let mut ranked = Ranked::new(&world.state);
    let first = Placement { task: world::task(1, 0), count: 1, node: NodeId(1) };
    let plan = Command::CommitPlan(Plan { placements: vec![first], ..Plan::default() });
    let applied = world.entry(vec![plan, Command::LoseNode(NodeId(1))]);
    observe(&mut ranked, &world.state, &applied.events);
    assert_eq!(ranked, Ranked::new(&world.state));
}

#[test]
fn apply_takes_all_of_a_plan_that_nothing_raced() {
    for seed in 0..60 {
        let mut world = history(seed, 80, |_, _| {});
        let mut planner = Planner::default();
        for pass in 0..50 {
            let ranked = Ranked::new(&world.state);
            let (plan, _) = planner.plan(&world.state, &ranked, Budget::PASS);
            let planned: u64 = plan.placements.iter().map(|place| u64::from(place.count)).sum();
            let taken = world.apply(Command::CommitPlan(plan));
            assert_eq!(taken, Ok(Reply::Accepted { taken: planned, refused: 0 }), "seed {seed}");
            assert!(pass < 49, "planning must come to rest");
            if planned == 0 {
                break;
            }
        }
        assert_eq!(startable(&world.state), vec![], "seed {seed}: L1");
    }
}

/// Every queued task, with its rank and queue.
fn queued(state: &State) -> Vec<(QueueId, i64, TaskId, &Group)> {
    let mut all = Vec::new();
    for (id, job) in state.jobs() {
        let settings = state.queue(job.queue).map_or(Discipline::Fifo, |q| q.spec.discipline);
        for index in 0..job.tasks() {
            let task = TaskId { job: id, index };
            let ready_at = match state.standing(task) {
                Some(Standing::Fresh) => job.ready_at,
                Some(Standing::Tried(tried)) => match tried.phase {
                    Phase::Queued { since } => since,
                    _ => continue,
                },
                _ => continue,
            };
            let group = state.group(task).expect("every task has a group");
            let input =
                RankInput { ready_at, priority: job.priority, estimate: group.terms.estimate };
            all.push((job.queue, discipline(settings).rank(&input).0, task, group));
        }
    }
    all.sort_by_key(|(queue, rank, task, _)| (*queue, *rank, *task));
    all
}

/// Tasks that could start right now.
fn startable(state: &State) -> Vec<TaskId> {
    let fits = |group: &Group| state.nodes().any(|(_, n)| n.times(state.shape(group.shape)) > 0);
    queued(state)
        .into_iter()
        .filter(|(queue, _, _, group)| {
            state.queue(*queue).is_some_and(|q| q.room() > 0) && group.room() > 0 && fits(group)
        })
        .map(|(_, _, task, _)| task)
        .collect()
}

#[test]
fn the_tasks_ahead_are_those_that_the_discipline_puts_before() {
    for seed in 0..60 {
        // Where a group has a limit or its array has gaps, only some of its tasks are in the index.
        let plain = |g: &Group| g.terms.parallel_max.is_none() && g.fresh.ranges().count() <= 1;
        history(seed, 60, |world, _| {
            let (state, ranked) = (&world.state, Ranked::new(&world.state));
            let all = queued(state);
            let comparable = all.iter().all(|(.., group)| plain(group));
            for (place, (queue, _, task, _)) in all.iter().enumerate().filter(|_| comparable) {
                let naive = all.iter().take(place).filter(|other| other.0 == *queue).count();
                let whole = Some(Ahead { tasks: naive as u64, more: false });
                assert_eq!(ranked.ahead(state, *task, naive), whole, "seed {seed} {task}");
                if place + 1 < all.len() {
                    continue;
                }
                // As many runs as there are, one more, and fewer: then there are more tasks than were counted.
                let mut runs = 0;
                while let Some(Ahead { tasks, more: true }) = ranked.ahead(state, *task, runs) {
                    assert!((runs as u64..naive as u64).contains(&tasks), "seed {seed} {task}");
                    runs += 1;
                }
                for enough in [runs, runs + 1] {
                    assert_eq!(ranked.ahead(state, *task, enough), whole, "seed {seed} {task}");
                }
            }
            for (node, _) in state.nodes() {
                for (running, _) in state.desired(node) {
                    assert_eq!(ranked.ahead(state, running.task, 9), None);
                }
            }
        });
    }
}
