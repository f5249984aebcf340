//! What is handed out before there is room, and what is asked back.

#[path = "../../core/tests/world/mod.rs"]
mod world;

use rota_control::{
    Controller, Input, Now, Output, RECALL_AFTER, STAGED_MAX, STAGED_MEAN_MAX, Tag,
};
use rota_core::STAGING_LEVEL;
use rota_core::command::{
    AttemptEnd, AttemptReport, Command, JobSpec, NodeSpec, Placement, Plan, QueueSpec, Staging,
    SubmitJobs,
};
use rota_core::event::Event;
use rota_core::server::ServerCommand;
use rota_types::{ActionKind, AttemptId, Monotonic, NodeId, Span, Steady, Timestamp};
use world::{World, attempt, job, job_with, node, report, task};

/// A node of one cpu, and the leader's memory. Proposals are applied at once.
struct Led {
    world: World,
    control: Controller,
    now: u64,
    recalled: Vec<AttemptId>,
}

impl Led {
    fn new(level: u32) -> Self {
        let mut world = World::new();
        let raise = ServerCommand::RaiseLevel(level);
        world.apply(Command::Servers(raise)).expect("nobody objects");
        world.apply(Command::RegisterNode(node("n", 1_000))).expect("a new node");
        let control = Controller::new(&world.state, Span(u64::MAX / 4));
        let mut led = Self { world, control, now: 1, recalled: Vec::new() };
        led.tell(Input::Elected);
        led
    }

    fn tell(&mut self, input: Input<'_>) {
        let now = Now { monotonic: Monotonic(self.now), steady: Steady(0) };
        let mut outputs = self.control.step(&self.world.state, input, now);
        while !outputs.is_empty() {
            for output in std::mem::take(&mut outputs) {
                match output {
                    Output::Propose(tag, command) => {
                        let applied = self.world.entry(vec![command]);
                        let events = Input::Applied(&applied.events);
                        outputs.extend(self.control.step(&self.world.state, events, now));
                        let answered = Input::Answered(tag);
                        outputs.extend(self.control.step(&self.world.state, answered, now));
                    }
                    Output::Recall(node, attempt) => {
                        assert_eq!(self.node_of(attempt), node.0, "{attempt}");
                        self.recalled.push(attempt);
                    }
                    Output::WakeAt(_) => {}
                }
            }
        }
    }

    fn apply(&mut self, command: Command) {
        let applied = self.world.entry(vec![command]);
        assert!(applied.outcomes[0].is_ok(), "{applied:?}");
        self.tell(Input::Applied(&applied.events));
    }

    fn submit(&mut self, spec: JobSpec) {
        self.apply(Command::SubmitJobs(SubmitJobs { jobs: vec![spec], idempotency: None }));
    }

    /// Where an attempt is.
    fn node_of(&self, id: AttemptId) -> u32 {
        let task = self.world.state.task(id.task).expect("live");
        task.attempt().expect("it has an attempt").node.0
    }

    /// Ends a task of another node.
    fn end_at(&mut self, index: u32, node: u32, took: Span) {
        let done = AttemptReport { node: NodeId(node), ..ran(index, took) };
        self.apply(Command::EndAttempts(vec![done]));
    }

    /// What the controller wants in the entry that ends a task which ran so long.
    fn end(&mut self, index: u32, took: Span) -> Vec<Event> {
        let end = Command::EndAttempts(vec![ran(index, took)]);
        let plan = self.control.anticipate(&self.world.state, std::slice::from_ref(&end));
        let planned = plan.is_some();
        let commands = std::iter::once(end).chain(plan).collect();
        let events = self.world.entry(commands).events;
        self.tell(Input::Applied(&events));
        if planned {
            self.tell(Input::Answered(Tag::Plan));
        }
        events
    }

    /// The tasks behind the one that runs, in order.
    fn staged(&self) -> Vec<u32> {
        let node = self.world.state.node(NodeId(1)).expect("there");
        let mut line = Vec::new();
        let mut last = node.live.first();
        while let Some(next) = last.and_then(|task| node.staged.get(task)) {
            line.push(next.index);
            last = Some(next);
        }
        line
    }
}

fn ran(index: u32, took: Span) -> AttemptReport {
    let done = report(attempt(1, index, 1), 1, AttemptEnd::Succeeded);
    AttemptReport { started_at: Some(Timestamp(5)), ended_at: Timestamp(5 + took.0), ..done }
}

const QUICK: Span = Span(1_000);

#[test]
fn quick_tasks_are_staged_once_it_is_known_that_they_are_quick() {
    let mut led = Led::new(STAGING_LEVEL);
    led.submit(job(20));
    assert_eq!(led.staged(), vec![], "nobody knows how long they take");
    led.end(0, QUICK);
    assert_eq!(led.staged(), vec![2, 3, 4, 5], "behind 1");
    assert_eq!(led.staged().len(), STAGED_MAX as usize);
    // The entry that ends one brings the next one.
    let events = led.end(1, QUICK);
    let next = Event::AttemptStaged { task: task(1, 6), node: NodeId(1), behind: task(1, 5) };
    assert_eq!(events[1..], [Event::AttemptPromoted { task: task(1, 2), node: NodeId(1) }, next]);
    assert_eq!(led.staged(), vec![3, 4, 5, 6]);
}

#[test]
fn the_longer_they_take_the_fewer_are_staged_and_long_ones_never() {
    let steps = [
        (Span(1_700), vec![2, 3, 4]),
        (Span::from_millis(3), vec![2, 3]),
        (Span::from_millis(6), vec![2]),
        (Span(STAGED_MEAN_MAX.0 - 1), vec![2]),
        (STAGED_MEAN_MAX, vec![2]),
        (Span(STAGED_MEAN_MAX.0 + 1), vec![]),
    ];
    for (took, staged) in steps {
        let mut led = Led::new(STAGING_LEVEL);
        led.submit(job(20));
        led.end(0, took);
        assert_eq!(led.staged(), staged, "{took:?}");
    }
}

#[test]
fn nothing_is_staged_below_the_feature_level_for_no_ops_or_for_limited_groups() {
    let noop = job_with(20, |group| group.shape.kind = Some(ActionKind::Noop));
    let limited = job_with(20, |group| group.parallel_max = Some(9));
    let cases = [(STAGING_LEVEL - 1, job(20)), (STAGING_LEVEL, noop), (STAGING_LEVEL, limited)];
    for (level, spec) in cases {
        let mut led = Led::new(level);
        led.submit(spec);
        led.end(0, QUICK);
        led.end(1, QUICK);
        assert_eq!(led.staged(), vec![], "level {level}");
    }
}

#[test]
fn nobody_is_staged_before_who_goes_first_and_has_no_room() {
    let mut led = Led::new(STAGING_LEVEL);
    led.submit(job_with(1, |group| group.name = "first".into()));
    led.end(0, QUICK);
    // What needs two cpus waits for ever; what is behind it may start, but takes no turn ahead of time.
    led.submit(job_with(1, |group| group.shape.need = rota_types::Resources::new(2_000, 0)));
    led.submit(job(5));
    assert_eq!(led.world.state.node(NodeId(1)).expect("there").live.len(), 1);
    assert_eq!(led.staged(), vec![]);
}

#[test]
fn nobody_is_staged_while_another_queue_waits() {
    let mut led = Led::new(STAGING_LEVEL);
    led.submit(job(9));
    led.end(0, QUICK);
    assert_eq!(led.staged(), vec![2, 3, 4, 5]);
    led.apply(Command::CreateQueue(QueueSpec::named("other")));
    led.submit(JobSpec { queue: "other".into(), ..job(1) });
    led.end(1, QUICK);
    assert_eq!(led.staged(), vec![3, 4, 5], "no more");
    for index in 2..5 {
        led.end(index, QUICK);
    }
    led.end(5, QUICK);
    let live = led.world.state.node(NodeId(1)).expect("there").live.first().copied();
    assert_eq!(live.map(|task| task.job.0), Some(2), "the other queue has its turn");
}

#[test]
fn what_does_not_get_its_turn_is_asked_back_again_and_again() {
    let mut led = Led::new(STAGING_LEVEL);
    led.submit(job(3));
    led.end(0, QUICK);
    assert_eq!(led.staged(), vec![2]);
    led.now = 1 + RECALL_AFTER.0 - 1;
    led.tell(Input::Woke);
    assert_eq!(led.recalled, vec![]);
    led.now += 1;
    led.tell(Input::Woke);
    assert_eq!(led.recalled, vec![attempt(1, 2, 1)]);
    led.now += RECALL_AFTER.0;
    led.tell(Input::Woke);
    assert_eq!(led.recalled, vec![attempt(1, 2, 1); 2], "it has not answered");
    let back = report(attempt(1, 2, 1), 1, AttemptEnd::Recalled);
    led.apply(Command::EndAttempts(vec![back]));
    assert_eq!(led.staged(), vec![], "these are not quick");
    led.now += RECALL_AFTER.0;
    led.tell(Input::Woke);
    assert_eq!(led.recalled.len(), 2, "it is back");
}

#[test]
fn nothing_is_proposed_that_would_be_refused() {
    let old = NodeSpec { stages: false, ..node("n", 1_000) };
    let drained = Command::DrainNode { node: NodeId(1), draining: true };
    for change in [Command::RegisterNode(old), drained] {
        let mut led = Led::new(STAGING_LEVEL);
        led.submit(job(9));
        let why = format!("{change:?}");
        // A proposal that is refused and made again would never end.
        led.world.entry(vec![change]);
        let end = Command::EndAttempts(vec![ran(0, QUICK)]);
        led.apply(end);
        assert_eq!(led.staged(), vec![], "{why}");
    }
}

#[test]
fn nothing_is_staged_again_behind_one_that_takes_long_among_quick_ones() {
    let mut led = Led::new(STAGING_LEVEL);
    led.world.apply(Command::RegisterNode(node("m", 1_000))).expect("a new node");
    led.submit(job(100));
    // 0 runs on the first node for ever; what runs on the second is quick.
    for index in 1..4 {
        led.end_at(index, 2, QUICK);
    }
    assert_ne!(led.staged(), vec![]);
    led.now += RECALL_AFTER.0;
    led.tell(Input::Woke);
    let recalled = std::mem::take(&mut led.recalled);
    let back: Vec<_> = recalled.into_iter().map(|id| (id, led.node_of(id))).collect();
    for (id, at) in back {
        led.apply(Command::EndAttempts(vec![report(id, at, AttemptEnd::Recalled)]));
    }
    for _ in 0..40 {
        let next = led.world.state.node(NodeId(2)).expect("there").live.first().copied();
        let next = next.expect("the second node has work");
        let number = led.world.state.task(next).expect("live").attempts;
        let id = AttemptId { task: next, number };
        let done = AttemptReport { attempt: id, node: NodeId(2), ..ran(0, QUICK) };
        led.apply(Command::EndAttempts(vec![done]));
    }
    assert_eq!(led.staged(), vec![], "behind what has proved to be long");
    assert!(!led.world.state.node(NodeId(2)).expect("there").staged.is_empty());
}

#[test]
fn a_new_leader_asks_back_what_the_old_one_staged() {
    let mut led = Led::new(STAGING_LEVEL);
    led.submit(job(3));
    led.end(0, QUICK);
    led.control = Controller::new(&led.world.state, Span(u64::MAX / 4));
    led.tell(Input::Elected);
    led.now += RECALL_AFTER.0;
    led.tell(Input::Woke);
    assert_eq!(led.recalled, vec![attempt(1, 2, 1)]);
}

#[test]
fn placements_and_stagings_of_one_plan_name_different_tasks() {
    let mut led = Led::new(STAGING_LEVEL);
    led.submit(job(9));
    led.end(0, QUICK);
    // Two cpus more, which the next plan is the first to see: some start there, and the next one is staged.
    led.world.apply(Command::RegisterNode(node("m", 2_000))).expect("a new node");
    let end = Command::EndAttempts(vec![ran(1, QUICK)]);
    let plan = led.control.anticipate(&led.world.state, &[end]);
    let Some(Command::CommitPlan(Plan { placements, staged })) = plan else { panic!("{plan:?}") };
    let placed = |staging: &Staging| {
        placements.iter().any(|Placement { task, count, .. }| {
            (task.index..task.index + count).contains(&staging.task.index)
        })
    };
    assert!(!staged.is_empty() && !staged.iter().any(placed), "{placements:?} {staged:?}");
}
