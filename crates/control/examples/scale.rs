//! Measures the state machine and the planning pass at a million tasks, on one core and without any I/O.
//!
//! `cargo run --release -p rota-control --example scale`

use std::fmt::Display;
use std::fs;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rota_control::{Controller, Input, Now, Output, Tag};
use rota_core::State;
use rota_core::command::{
    AttemptEnd, AttemptReport, Backoff, Command, Entry, GroupSpec, JobSpec, NodeSpec, Plan,
    RetryPolicy, Shape, SubmitJobs,
};
use rota_core::event::Event;
use rota_core::image::BadImage;
use rota_policy::{Budget, Planner, Ranked};
use rota_types::limits::BATCH_MAX;
use rota_types::{
    ActionKinds, AttemptId, LogIndex, Monotonic, RangeSet, Resources, Span, Steady, Timestamp,
};

/// What the `rota` binary allocates with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MILLION: u32 = 1_000_000;
/// Jobs in one entry, as a server gathers them.
const BATCH: u32 = 1_000;
const GIB: u64 = 1 << 30;

fn main() {
    // Memory first: later the allocator reuses what earlier worlds gave back, and the kernel's count says nothing.
    memory("1,000,000 separate jobs", MILLION, 1);
    memory("an array of 1,000,000", 1, MILLION);
    throughput("array of 1,000,000", 1, MILLION);
    throughput("200,000 separate jobs", 200_000, 1);
    passes();
}

/// Submits, plans and ends no-op tasks until nothing is left.
fn throughput(what: &str, jobs: u32, array: u32) {
    let mut world = World::new();
    world.add_nodes(4, 4_096);
    let start = Instant::now();
    world.submit(jobs, array, 1);
    say(what, "submit", per_second(jobs, start.elapsed()), "jobs/s");
    let start = Instant::now();
    world.run();
    say(what, "plan + start + end", per_second(jobs * array, start.elapsed()), "tasks/s");
    let Parts { apply, step } = world.spent;
    say(what, "of which apply", apply.as_millis(), "ms");
    say(what, "of which controller", step.as_millis(), "ms");
    assert_eq!(world.state.live_tasks(), 0);
}

/// What queued tasks cost, and how long an image of them takes.
fn memory(what: &str, jobs: u32, array: u32) {
    let before = resident_bytes();
    let mut world = World::new();
    world.submit(jobs, array, 1);
    let bytes = resident_bytes().saturating_sub(before);
    say(what, "memory", bytes >> 20, "MiB");
    say(what, "memory per job", bytes / u64::from(jobs), "bytes");
    let before = resident_bytes();
    let replica = replica(jobs, array);
    let bytes = resident_bytes().saturating_sub(before);
    say(what, "a second replica, per job", bytes / u64::from(jobs), "bytes");
    drop(black_box(replica));
    let start = Instant::now();
    black_box(Ranked::new(&world.state));
    say(what, "Ranked::new", start.elapsed().as_millis(), "ms");
    let start = Instant::now();
    black_box(world.state.records().count());
    say(what, "records", start.elapsed().as_millis(), "ms");
    let start = Instant::now();
    let restored =
        State::restore(world.state.records().map(Ok::<_, BadImage>)).expect("an own image");
    say(what, "records and restore", start.elapsed().as_millis(), "ms");
    let start = Instant::now();
    let (digest, other) = (restored.digest(), world.state.digest());
    assert_eq!(digest, other);
    say(what, "digest", start.elapsed().as_millis() / 2, "ms");
    drop(restored);
    let before = Some(world.state.next_job());
    let (mut longest, mut parts) = (Duration::ZERO, 0);
    while world.state.live_tasks() > 0 {
        let start = Instant::now();
        world.apply(Command::PurgeQueue { queue: "default".into(), before });
        longest = longest.max(start.elapsed());
        parts += 1;
    }
    say(what, "purge in parts", parts, "");
    say(what, "of which the longest took", longest.as_millis(), "ms");
}

/// What a snapshot is made from: the state alone, out of the same log.
fn replica(jobs: u32, array: u32) -> State {
    let mut state = State::new();
    for (index, first) in (0..jobs).step_by(BATCH as usize).enumerate() {
        let jobs = (first..jobs.min(first + BATCH)).map(|place| job(place, array, 1)).collect();
        state.apply(&Entry {
            index: LogIndex(index as u64 + 1),
            at: Timestamp(0),
            steady: Steady(index as u64),
            commands: vec![Command::SubmitJobs(SubmitJobs { jobs, idempotency: None })],
        });
    }
    state
}

/// How long one planning pass takes by how much is queued, with shapes that fit and shapes that don't.
fn passes() {
    for (jobs, array) in [(1_000, 1), (MILLION, 1), (1, 1_000), (1, MILLION)] {
        let mut world = World::new();
        world.submit(jobs, array, 8);
        world.add_nodes(40, 8);
        let ranked = Ranked::new(&world.state);
        let mut planner = Planner::default();
        let mut shortest = Duration::MAX;
        let mut placed = 0;
        for _ in 0..50 {
            let start = Instant::now();
            let (plan, _) = planner.plan(&world.state, &ranked, Budget::PASS);
            shortest = shortest.min(start.elapsed());
            placed = tasks_of(&plan);
        }
        let what = format!("{jobs} jobs of {array}");
        say(&what, &format!("pass that places {placed}"), shortest.as_micros(), "µs");
    }
}

struct World {
    state: State,
    control: Controller,
    index: u64,
    spent: Parts,
    wanted: Vec<(Tag, Command)>,
    live: Vec<AttemptReport>,
}

#[derive(Default)]
struct Parts {
    apply: Duration,
    step: Duration,
}

impl World {
    fn new() -> Self {
        let state = State::new();
        let mut control = Controller::new(&state, Span::from_secs(10));
        control.step(&state, Input::Elected, Now::default());
        let (spent, wanted, live) = (Parts::default(), Vec::new(), Vec::new());
        Self { state, control, index: 0, spent, wanted, live }
    }

    fn add_nodes(&mut self, nodes: u32, attempts_max: u32) {
        for node in 0..nodes {
            self.apply(Command::RegisterNode(NodeSpec {
                name: format!("node-{node}").into(),
                incarnation: 1,
                capacity: Resources::new(u64::from(attempts_max) * 1_000, GIB * 64),
                attempts_max,
                labels: Default::default(),
                version: "1".into(),
                runs: ActionKinds::EVERY,
                stages: true,
            }));
        }
    }

    /// Submits jobs of one array each, in turn of one of `shapes` shapes of which every second fits nowhere.
    fn submit(&mut self, jobs: u32, array: u32, shapes: u32) {
        let mut done = 0;
        while done < jobs {
            let batch = BATCH.min(jobs - done);
            let specs = (done..done + batch).map(|place| job(place, array, shapes)).collect();
            self.apply(Command::SubmitJobs(SubmitJobs { jobs: specs, idempotency: None }));
            done += batch;
        }
    }

    /// Carries out what the controller wants, and ends what it started, until it wants nothing more.
    fn run(&mut self) {
        while !self.wanted.is_empty() || !self.live.is_empty() {
            for (tag, command) in std::mem::take(&mut self.wanted) {
                self.apply(command);
                self.step(Input::Answered(tag));
            }
            let reports: Vec<_> = self.live.drain(..self.live.len().min(BATCH_MAX)).collect();
            self.apply(Command::EndAttempts(reports));
        }
    }

    fn apply(&mut self, command: Command) {
        self.index += 1;
        let entry = Entry {
            index: LogIndex(self.index),
            at: Timestamp(self.index),
            steady: Steady(self.index),
            commands: vec![command],
        };
        let start = Instant::now();
        let applied = self.state.apply(&entry);
        self.spent.apply += start.elapsed();
        self.step(Input::Applied(&applied.events));
        for event in &applied.events {
            if let Event::AttemptsCreated(placed) = event {
                self.live.extend((0..placed.count).map(|offset| AttemptReport {
                    attempt: AttemptId {
                        task: rota_types::TaskId {
                            index: placed.task.index + offset,
                            ..placed.task
                        },
                        number: 1,
                    },
                    node: placed.node,
                    end: AttemptEnd::Succeeded,
                    started_at: None,
                    ended_at: Timestamp(self.index),
                    detail: Arc::from([]),
                }));
            }
        }
    }

    fn step(&mut self, input: Input<'_>) {
        let now = Now { monotonic: Monotonic(self.index), steady: Steady(self.index) };
        let start = Instant::now();
        let outputs = self.control.step(&self.state, input, now);
        self.spent.step += start.elapsed();
        for output in outputs {
            match output {
                Output::Propose(tag, command) => self.wanted.push((tag, command)),
                Output::Recall(..) | Output::WakeAt(_) => {}
            }
        }
    }
}

/// A job like that of `rota submit -- true`.
fn job(place: u32, array: u32, shapes: u32) -> JobSpec {
    let shape = place % shapes;
    let cpus = if shape.is_multiple_of(2) { 1_000 } else { 10_000_000 };
    let need = Resources::new(cpus + u64::from(shape), 0);
    JobSpec {
        name: "true".into(),
        queue: "default".into(),
        priority: 0,
        labels: Default::default(),
        submitter: "somebody".into(),
        retry_of: None,
        groups: vec![GroupSpec {
            name: "true".into(),
            array: RangeSet::from_range(0, array),
            is_array: array > 1,
            action: Arc::from([7; 40]),
            shape: Shape { need, constraints: Vec::new(), kind: None },
            estimate: None,
            timeout: None,
            retry: RetryPolicy {
                attempts_max: 1,
                backoff: Backoff {
                    base: Span::from_secs(1),
                    max: Span::from_secs(60),
                    jitter_percent: 10,
                },
                on: Vec::new(),
            },
            parallel_max: None,
        }],
    }
}

fn tasks_of(plan: &Plan) -> u32 {
    plan.placements.iter().map(|placement| placement.count).sum()
}

/// Memory that this process has in use, by the kernel's count.
fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("Linux tells a process its size");
    let pages: u64 = statm.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    pages * 4_096
}

fn per_second(count: u32, spent: Duration) -> u128 {
    u128::from(count) * 1_000_000_000 / spent.as_nanos().max(1)
}

fn say(what: &str, figure: &str, value: impl Display, unit: &str) {
    println!("{what:>24}  {figure:<24} {value:>12} {unit}");
}
