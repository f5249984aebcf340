//! Builders, and random histories from a seed, for the tests of the pure crates.
#![expect(dead_code, reason = "each test file uses its part")]
#![allow(clippy::expect_used, unreachable_pub)]

use std::sync::Arc;

use rota_core::command::{
    AttemptEnd, AttemptReport, Backoff, CancelTasks, Command, Entry, Failure, FailureKind,
    GroupSpec, JobSpec, NodeSpec, Outcome, Placement, Plan, QueueSpec, RetryPolicy, Shape, Staging,
    SubmitJobs,
};
use rota_core::kv::{AcquireLock, ChangeKeys, Condition, KeyChange, KvCommand};
use rota_core::queue::{Discipline, Placement as Policy};
use rota_core::server::ServerCommand;
use rota_core::token::{Grant, Joins, Role, TokenCommand, TokenSpec};
use rota_core::{Applied, State};
use rota_types::limits::SESSION_TTL_MIN;
use rota_types::{
    ActionKind, ActionKinds, AttemptId, JobId, LogIndex, NodeId, RangeSet, Resources, Revision,
    SessionId, Span, Steady, TaskId, Timestamp,
};

/// A state, and the position of its log.
pub struct World {
    pub state: State,
    pub steady: u64,
    index: u64,
}

impl World {
    pub fn new() -> Self {
        Self { state: State::new(), steady: 0, index: 0 }
    }

    /// Applies one entry and checks every invariant.
    pub fn entry(&mut self, commands: Vec<Command>) -> Applied {
        self.index += 1;
        let (at, steady) = (Timestamp(self.steady), Steady(self.steady));
        let applied =
            self.state.apply(&Entry { index: LogIndex(self.index), at, steady, commands });
        assert_eq!(self.state.check(), vec![]);
        applied
    }

    pub fn apply(&mut self, command: Command) -> Outcome {
        self.entry(vec![command]).outcomes.pop().expect("each command has an outcome")
    }

    pub fn submit(&mut self, job: JobSpec) -> Outcome {
        self.apply(Command::SubmitJobs(SubmitJobs { jobs: vec![job], idempotency: None }))
    }

    pub fn place(&mut self, job: u64, index: u32, count: u32, node: u32) -> Outcome {
        let placement = Placement { task: task(job, index), count, node: NodeId(node) };
        self.apply(Command::CommitPlan(Plan { placements: vec![placement], ..Plan::default() }))
    }

    pub fn end(&mut self, attempt: AttemptId, node: u32, end: AttemptEnd) -> Outcome {
        self.apply(Command::EndAttempts(vec![report(attempt, node, end)]))
    }

    pub fn cancel(&mut self, job: u64, tasks: Option<RangeSet>) -> Outcome {
        let grace = Span::from_secs(1);
        self.apply(Command::CancelTasks(CancelTasks {
            job: JobId(job),
            tasks,
            grace,
            reason: "because".into(),
        }))
    }
}

pub fn task(job: u64, index: u32) -> TaskId {
    TaskId { job: JobId(job), index }
}

pub fn attempt(job: u64, index: u32, number: u32) -> AttemptId {
    AttemptId { task: task(job, index), number }
}

pub fn report(attempt: AttemptId, node: u32, end: AttemptEnd) -> AttemptReport {
    AttemptReport {
        attempt,
        node: NodeId(node),
        end,
        started_at: None,
        ended_at: Timestamp(0),
        detail: Arc::from([]),
    }
}

pub fn failed(kind: FailureKind) -> AttemptEnd {
    AttemptEnd::Failed(Failure { kind, message: "".into() })
}

pub fn node(name: &str, cpu_millis: u64) -> NodeSpec {
    NodeSpec {
        name: name.into(),
        incarnation: 1,
        capacity: Resources::new(cpu_millis, 0),
        attempts_max: 100,
        labels: Default::default(),
        version: "1".into(),
        runs: ActionKinds::EVERY,
        stages: true,
    }
}

pub fn group(name: &str, tasks: u32) -> GroupSpec {
    GroupSpec {
        name: name.into(),
        array: RangeSet::from_range(0, tasks),
        is_array: tasks > 1,
        action: Arc::from([1]),
        shape: Shape { need: Resources::new(1_000, 0), constraints: vec![], kind: None },
        estimate: None,
        timeout: None,
        retry: RetryPolicy {
            attempts_max: 1,
            backoff: Backoff { base: Span::ZERO, max: Span::ZERO, jitter_percent: 0 },
            on: vec![],
        },
        parallel_max: None,
    }
}

pub fn job(tasks: u32) -> JobSpec {
    JobSpec {
        name: "job".into(),
        queue: "default".into(),
        priority: 0,
        labels: Default::default(),
        submitter: "me".into(),
        retry_of: None,
        groups: vec![group("work", tasks)],
    }
}

/// A job of one group that `change` has changed.
pub fn job_with(tasks: u32, change: impl FnOnce(&mut GroupSpec)) -> JobSpec {
    let mut spec = job(tasks);
    change(&mut spec.groups[0]);
    spec
}

/// `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end.max(1)
    }

    fn small(&mut self, end: u32) -> u32 {
        self.below(u64::from(end)) as u32
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Any command; most of them make sense in `state`.
    pub fn command(&mut self, state: &State) -> Command {
        match self.below(20) {
            0..=3 => self.submit_command(),
            4..=8 => self.plan_command(state),
            9..=13 => self.end_command(state),
            14 => self.cancel_command(),
            15 => Command::RegisterNode(self.node_spec()),
            16 => self.node_command(),
            17 => Command::ConfigureQueue(self.queue_spec()),
            18 if self.chance(30) => self.token_command(),
            19 if self.chance(70) => Command::Kv(self.kv_command()),
            19 if self.chance(30) => Command::Servers(ServerCommand::RaiseLevel(2)),
            18 => self.queue_command(),
            _ => Command::Tick,
        }
    }

    fn submit_command(&mut self) -> Command {
        let jobs = (0..1 + self.below(3)).map(|_| self.job_spec()).collect();
        Command::SubmitJobs(SubmitJobs { jobs, idempotency: None })
    }

    fn job_spec(&mut self) -> JobSpec {
        let groups = (0..1 + self.small(2))
            .map(|place| {
                let mut spec = group(&format!("g{place}"), 1 + self.small(8));
                spec.shape.need = Resources::new(500 * (1 + self.below(8)), 0);
                spec.shape.kind = self.chance(30).then_some(ActionKind::Http);
                spec.parallel_max = self.chance(40).then(|| 1 + self.small(3));
                spec.retry.attempts_max = 1 + self.small(4);
                let base = Span(self.below(3) * 10);
                spec.retry.backoff = Backoff { base, max: Span(40), jitter_percent: 50 };
                spec
            })
            .collect();
        let queue = ["default", "other"][self.below(2) as usize].into();
        JobSpec { queue, priority: self.small(5) as i32, groups, ..job(1) }
    }

    fn plan_command(&mut self, state: &State) -> Command {
        let jobs: Vec<_> = state.jobs().map(|(id, job)| (id.0, job.tasks())).collect();
        let placements = (0..1 + self.below(4)).map(|_| {
            let (id, tasks) = match jobs.len() {
                0 => (1, 1),
                len => jobs[self.below(len as u64) as usize],
            };
            let task = task(id, self.small(tasks + 1));
            Placement { task, count: self.small(6), node: NodeId(1 + self.small(4)) }
        });
        let placements = placements.collect();
        Command::CommitPlan(Plan { placements, staged: self.stagings(state, &jobs) })
    }

    fn stagings(&mut self, state: &State, jobs: &[(u64, u32)]) -> Vec<Staging> {
        let live: Vec<TaskId> = state
            .nodes()
            .flat_map(|(node, _)| state.desired(node).map(|(id, _)| id.task))
            .collect();
        let some = if jobs.is_empty() || live.is_empty() { 0 } else { self.below(5) };
        let staged = (0..some).map(|_| {
            let (id, tasks) = jobs[self.below(jobs.len() as u64) as usize];
            let behind = live[self.below(live.len() as u64) as usize];
            Staging { task: task(id, self.small(tasks)), behind }
        });
        staged.collect()
    }

    fn end_command(&mut self, state: &State) -> Command {
        let live: Vec<_> = state
            .nodes()
            .flat_map(|(node, _)| state.desired(node).map(move |(id, _)| (id, node.0)))
            .collect();
        let mut reports = Vec::new();
        for (id, node) in live {
            if self.chance(40) {
                let end = match self.below(5) {
                    0 | 1 => AttemptEnd::Succeeded,
                    4 => AttemptEnd::Recalled,
                    2 => failed(FailureKind::Exit(1)),
                    _ => AttemptEnd::Stopped,
                };
                reports.push(report(
                    AttemptId { number: id.number + self.small(5) / 4, ..id },
                    node,
                    end,
                ));
            }
        }
        Command::EndAttempts(reports)
    }

    fn cancel_command(&mut self) -> Command {
        let tasks = self.chance(70).then(|| (0..3).map(|_| self.small(8)).collect());
        let job = JobId(1 + self.below(40));
        let grace = Span::from_secs(self.below(3));
        Command::CancelTasks(CancelTasks { job, tasks, grace, reason: "".into() })
    }

    fn node_spec(&mut self) -> NodeSpec {
        let name = format!("n{}", self.below(4));
        let (incarnation, attempts_max) = (self.below(2), self.small(8));
        let capacity = Resources::new(1_000 * self.below(6), 0);
        let runs = match self.below(4) {
            0 => [ActionKind::Command].into_iter().collect(),
            _ => ActionKinds::EVERY,
        };
        NodeSpec { incarnation, attempts_max, capacity, runs, ..node(&name, 0) }
    }

    fn node_command(&mut self) -> Command {
        let node = NodeId(1 + self.small(5));
        match self.below(4) {
            0 => Command::LoseNode(node),
            1 => Command::RemoveNode(node),
            _ => Command::DrainNode { node, draining: self.chance(50) },
        }
    }

    fn queue_spec(&mut self) -> QueueSpec {
        QueueSpec {
            discipline: match self.below(2) {
                0 => Discipline::Fifo,
                _ => Discipline::Priority { aging: Span(1 + self.below(50)) },
            },
            placement: Policy::BestFit,
            running_max: self.chance(30).then(|| self.small(6)),
            tasks_max: self.chance(10).then(|| self.below(50)),
            ..QueueSpec::named(["default", "other"][self.below(2) as usize])
        }
    }

    fn token_command(&mut self) -> Command {
        let id: Box<str> = format!("t{}", self.below(4)).into();
        match self.below(4) {
            0 => Command::Tokens(TokenCommand::Revoke(id)),
            1 => Command::Tokens(TokenCommand::Use(id)),
            _ => {
                let grant = match self.below(3) {
                    0 => Grant::Api(Role::Reader),
                    uses => Grant::Join { joins: Joins::Worker, uses_left: uses as u32 },
                };
                let expires_at = Some(Timestamp(self.below(2_000)));
                let (hash, name, created_by) = ([7; 32], "n".into(), "c".into());
                let session_of = (self.below(3) == 0).then(|| format!("t{}", self.below(4)).into());
                let spec = TokenSpec { id, hash, grant, name, expires_at, created_by, session_of };
                Command::Tokens(TokenCommand::Add(spec))
            }
        }
    }

    /// Any command for the key-value store: few keys, locks and sessions, so that they meet.
    pub fn kv_command(&mut self) -> KvCommand {
        let session = SessionId(1 + self.below(6));
        let lock: Box<str> = ["l", "m/n"][self.below(2) as usize].into();
        let value = Arc::from(vec![7; self.below(4) as usize]);
        match self.below(10) {
            0..=3 => {
                let conditions = (0..self.below(5) / 3).map(|_| self.condition()).collect();
                let changes = (0..1 + self.below(5) / 3).map(|_| self.key_change()).collect();
                KvCommand::Change(ChangeKeys { conditions, changes })
            }
            4 => {
                let prefix = ["", "a", "a/"][self.below(3) as usize].into();
                KvCommand::DeletePrefix { prefix, at_most: 1 + self.small(3) }
            }
            5 => KvCommand::OpenSession { ttl: Span(SESSION_TTL_MIN.0 * (1 + self.below(3))) },
            6 => KvCommand::RenewSessions(vec![session, SessionId(1 + self.below(6))]),
            7 if self.chance(40) => KvCommand::CloseSession(session),
            7 => KvCommand::ReleaseLock { lock, session },
            _ => {
                let wait = self.chance(70);
                KvCommand::AcquireLock(AcquireLock { lock, session, value, wait })
            }
        }
    }

    fn key(&mut self) -> Box<str> {
        ["a", "a/b", "a/c", "b"][self.below(4) as usize].into()
    }

    fn condition(&mut self) -> Condition {
        match self.below(4) {
            0 => Condition::Absent { key: self.key() },
            1 => Condition::Held { lock: "l".into(), token: Revision(self.below(20)) },
            _ => Condition::Unchanged { key: self.key(), since: Revision(self.below(20)) },
        }
    }

    fn key_change(&mut self) -> KeyChange {
        let key = self.key();
        if self.chance(30) {
            return KeyChange::Delete { key };
        }
        let session = self.chance(40).then(|| SessionId(1 + self.below(6)));
        KeyChange::Put { key, value: Arc::from(vec![1; self.below(4) as usize]), session }
    }

    fn queue_command(&mut self) -> Command {
        let queue: Box<str> = ["default", "other"][self.below(2) as usize].into();
        match self.below(6) {
            0 => {
                let before = self.chance(50).then(|| JobId(self.below(40)));
                Command::PurgeQueue { queue, before }
            }
            1 => Command::RemoveQueue { queue },
            2 => Command::CreateQueue(QueueSpec::named(&queue)),
            _ => Command::PauseQueue { queue, paused: self.chance(30) },
        }
    }
}

/// Applies `steps` random entries and shows the state and events after each.
pub fn history(seed: u64, steps: u32, mut look: impl FnMut(&World, &Applied)) -> World {
    let (mut world, mut random) = (World::new(), Random(seed));
    for name in 0..3 {
        world
            .apply(Command::RegisterNode(node(&format!("n{name}"), 4_000)))
            .expect("nodes may register");
    }
    world.apply(Command::CreateQueue(QueueSpec::named("other"))).expect("a new queue");
    for _ in 0..steps {
        world.steady += random.below(2) * random.below(30);
        let mut commands = vec![random.command(&world.state)];
        if random.chance(30) {
            commands.push(random.command(&world.state));
        }
        let applied = world.entry(commands);
        look(&world, &applied);
    }
    world
}
