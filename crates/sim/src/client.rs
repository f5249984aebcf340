//! Simulated clients: they ask, wait, ask again when they don't know, and remember what they were told.

use rota_core::command::{
    Backoff, CancelTasks, Command, GroupSpec, IdempotencyKey, JobSpec, Outcome, QueueSpec,
    Rejection, Reply, RetryPolicy, RetryRule, Shape, SubmitJobs,
};
use rota_core::queue::{Discipline, Placement};
use rota_types::{Constraint, JobId, NodeId, Predicate, RangeSet, Resources, Span};

use crate::options::{Fault, Options};
use crate::rng::Rng;
use crate::world::{Answer, Happening, MILLI, World};

/// How long a late request may be on its way.
const LATE_MAX: u64 = 90_000 * MILLI;

/// Somebody who asks for things, one after the other.
pub(crate) struct Client {
    rng: Rng,
    left: u32,
}

/// Something that a client asked for.
pub(crate) struct Request {
    pub(crate) client: usize,
    pub(crate) command: Command,
    /// What the client was told.
    pub(crate) told: Option<Outcome>,
    /// The answer never came, and asking again would not be safe.
    pub(crate) abandoned: bool,
    tries: u32,
    /// The server process that was asked first.
    boot: u64,
    must_conflict: bool,
}

impl Client {
    pub(crate) fn new(number: usize, options: &Options) -> Self {
        let share = options.requests.div_ceil(options.clients.max(1));
        Self { rng: Rng::of(options.seed, 1_000 + number as u64), left: share }
    }
}

impl Request {
    pub(crate) fn is_over(&self) -> bool {
        self.told.is_some() || self.abandoned
    }

    /// Whether asking twice is as good as asking once.
    fn is_repeatable(&self) -> bool {
        match &self.command {
            Command::SubmitJobs(submit) => submit.idempotency.is_some(),
            _ => true,
        }
    }
}

impl World {
    pub(crate) fn client_acts(&mut self, client: usize) {
        let Some(state) = self.clients.get_mut(client).filter(|state| state.left > 0) else {
            return;
        };
        if self.finale {
            return;
        }
        state.left = state.left.saturating_sub(1);
        let (command, must_conflict) = self.draw_command(client);
        let verdict = self.oracle.asked(&command);
        self.judge(verdict);
        self.requests.push(Request {
            client,
            command,
            told: None,
            abandoned: false,
            tries: 0,
            boot: self.server.boot,
            must_conflict,
        });
        self.send_request(self.requests.len().saturating_sub(1));
    }

    fn send_request(&mut self, number: usize) {
        let delay = self.net_rng.spread(100, 100 * MILLI);
        let patience = self.net_rng.spread(500 * MILLI, 5_000 * MILLI);
        let request = &mut self.requests[number];
        request.tries = request.tries.saturating_add(1);
        let (tries, repeatable) = (request.tries, request.is_repeatable());
        let late = matches!(request.command, Command::SubmitJobs(_) | Command::CancelTasks(_));
        self.after(delay, Happening::RequestArrives(number));
        self.after(patience, Happening::ClientWaited { request: number, tries });
        if repeatable && late && self.has(Fault::LateRequest) && self.net_rng.chance(25) {
            self.counters.note("late duplicate of a request");
            let delay = self.net_rng.spread(100 * MILLI, LATE_MAX);
            self.late = self.late.saturating_add(1);
            self.after(delay, Happening::LateRequest(number));
        }
    }

    pub(crate) fn request_arrives(&mut self, number: usize) {
        let command = self.requests[number].command.clone();
        self.server_takes(number, command);
    }

    pub(crate) fn late_request_arrives(&mut self, number: usize) {
        self.late = self.late.saturating_sub(1);
        self.request_arrives(number);
    }

    pub(crate) fn answer_client(&mut self, number: usize, answer: Answer) {
        if self.has(Fault::LostAnswer) && self.net_rng.chance(25) {
            self.counters.note("answer lost");
            return;
        }
        let delay = self.net_rng.spread(100, 200 * MILLI);
        self.after(delay, Happening::AnswerArrives(number, answer));
    }

    pub(crate) fn answer_arrives(&mut self, number: usize, answer: Answer) {
        let outcome = match answer {
            Answer::Outcome(outcome) => outcome,
            Answer::Busy => {
                let tries = self.requests[number].tries;
                return self.try_again(number, tries, true);
            }
        };
        if self.requests[number].told.is_none() {
            let request = &self.requests[number];
            if let Ok(Reply::Submitted { replayed: true, .. }) = &outcome {
                self.counters.note("repeated request answered the same");
                let other = u64::from(request.boot != self.server.boot);
                self.counters.add("idempotent retry across a crash", other);
            }
            let conflict = matches!(outcome, Err(Rejection::IdempotencyConflict(_)));
            if request.must_conflict && !conflict {
                let what = format!("I14: a key was used for another request: {outcome:?}");
                return self.fail(what);
            }
            let (client, abandoned) = (request.client, request.abandoned);
            self.requests[number].told = Some(outcome.clone());
            let verdict = self.oracle.told(&self.requests[number].command, &outcome);
            self.judge(verdict);
            if !abandoned {
                self.think(client);
            }
        }
    }

    pub(crate) fn client_waited(&mut self, number: usize, tries: u32) {
        self.try_again(number, tries, false);
    }

    /// Asks again if that is safe: it always is after a refusal.
    fn try_again(&mut self, number: usize, tries: u32, refused: bool) {
        let request = &self.requests[number];
        if request.is_over() || request.tries != tries {
            return;
        }
        if request.is_repeatable() || refused {
            self.send_request(number);
        } else {
            let client = request.client;
            self.requests[number].abandoned = true;
            self.counters.note("request abandoned: nobody knows what it did");
            self.think(client);
        }
    }

    fn think(&mut self, client: usize) {
        let pause = self.clients[client].rng.spread(MILLI, 4_000 * MILLI);
        self.after(pause, Happening::ClientActs(client));
    }

    fn draw_command(&mut self, client: usize) -> (Command, bool) {
        let number = self.requests.len();
        let faults = self.options.faults;
        let tasks_max = u64::from(self.options.tasks_max);
        let nodes = u64::from(self.options.workers).saturating_add(2);
        let known: Vec<JobId> = self.oracle.known_jobs();
        let used: Vec<IdempotencyKey> = self.oracle.used_keys();
        let rng = &mut self.clients[client].rng;
        let wanted = match rng.below(100) {
            0..=19 if faults.has(Fault::Cancel) && !known.is_empty() => draw_cancel(rng, &known),
            20..=34 if faults.has(Fault::QueueChange) => draw_queue_command(rng),
            35..=39 if faults.has(Fault::Purge) => Command::PurgeQueue {
                queue: draw_queue(rng, faults.has(Fault::QueueChange)),
                before: None,
            },
            40..=49 if faults.has(Fault::Drain) => Command::DrainNode {
                node: NodeId(u32::try_from(rng.between(1, nodes)).unwrap_or(1)),
                draining: rng.chance(60),
            },
            50..=54 if faults.has(Fault::RemoveNode) => {
                Command::RemoveNode(NodeId(u32::try_from(rng.between(1, nodes)).unwrap_or(1)))
            }
            _ => {
                let queues = faults.has(Fault::QueueChange);
                let endless = faults.has(Fault::Endless);
                let jobs = (0..rng.between(1, 3))
                    .map(|at| {
                        draw_job(rng, &format!("r{number}-{at}"), (tasks_max, queues, endless))
                    })
                    .collect();
                let digest = u128::try_from(number).unwrap_or(0).to_le_bytes();
                let key = format!("key{number}").into();
                let conflict = !used.is_empty() && rng.chance(5);
                let idempotency = if conflict {
                    Some(IdempotencyKey { digest, ..rng.pick(&used).clone() })
                } else {
                    rng.chance(75).then_some(IdempotencyKey { key, digest })
                };
                return (Command::SubmitJobs(SubmitJobs { jobs, idempotency }), conflict);
            }
        };
        (wanted, false)
    }
}

fn draw_cancel(rng: &mut Rng, known: &[JobId]) -> Command {
    // Often the very last one, before its first attempt has reached a worker.
    let among = if rng.chance(40) { 1 } else { 6 };
    let recent = &known[known.len().saturating_sub(among)..];
    let tasks = rng.chance(50).then(|| {
        let from = u32::try_from(rng.below(6)).unwrap_or(0);
        RangeSet::from_range(from, from.saturating_add(3))
    });
    let grace = *rng.pick(&[Span::ZERO, Span::from_millis(500), Span::from_secs(5)]);
    Command::CancelTasks(CancelTasks {
        job: *rng.pick(recent),
        tasks,
        grace,
        reason: "no longer wanted".into(),
    })
}

fn draw_queue(rng: &mut Rng, several: bool) -> Box<str> {
    if several { (*rng.pick(&["default", "q1", "q2"])).into() } else { "default".into() }
}

fn draw_queue_command(rng: &mut Rng) -> Command {
    let queue = draw_queue(rng, true);
    match rng.below(10) {
        0..=2 => Command::CreateQueue(draw_queue_spec(rng)),
        3..=5 => Command::ConfigureQueue(draw_queue_spec(rng)),
        6 => Command::RemoveQueue { queue },
        _ => Command::PauseQueue { queue, paused: rng.chance(50) },
    }
}

fn draw_queue_spec(rng: &mut Rng) -> QueueSpec {
    let discipline = if rng.chance(50) {
        Discipline::Fifo
    } else {
        Discipline::Priority { aging: Span(rng.spread(1, 10_000 * MILLI)) }
    };
    let placement = *rng.pick(&[
        Placement::FirstFit,
        Placement::BestFit,
        Placement::LeastLoaded,
        Placement::RoundRobin,
        Placement::Random { seed: 7 },
    ]);
    QueueSpec {
        name: draw_queue(rng, true),
        discipline,
        placement,
        weight: u32::try_from(rng.between(1, 4)).unwrap_or(1),
        running_max: rng.chance(40).then(|| u32::try_from(rng.between(1, 4)).unwrap_or(1)),
        tasks_max: rng.chance(20).then(|| rng.between(5, 60)),
    }
}

fn draw_job(rng: &mut Rng, name: &str, (tasks_max, queues, endless): (u64, bool, bool)) -> JobSpec {
    let groups = (0..rng.between(1, 3))
        .map(|at| draw_group(rng, &format!("g{at}"), (tasks_max, endless)))
        .collect();
    JobSpec {
        name: name.into(),
        queue: draw_queue(rng, queues),
        priority: i32::try_from(rng.below(21)).unwrap_or(0) - 10,
        labels: [("team".into(), "sim".into())].into(),
        submitter: "sim".into(),
        retry_of: None,
        groups,
    }
}

fn draw_group(rng: &mut Rng, name: &str, (tasks_max, endless): (u64, bool)) -> GroupSpec {
    let tasks = u32::try_from(rng.spread(1, tasks_max)).unwrap_or(1);
    let mut array = RangeSet::from_range(0, tasks);
    if rng.chance(20) {
        array.insert_range(tasks.saturating_add(5), tasks.saturating_add(7));
    }
    let base = *rng.pick(&[Span::ZERO, Span::from_millis(100), Span::from_secs(2)]);
    let on = match rng.below(3) {
        0 => Vec::new(),
        1 => vec![RetryRule::Exit(1, 10), RetryRule::Http, RetryRule::Start],
        _ => vec![RetryRule::Exit(75, 75), RetryRule::Signal, RetryRule::Timeout],
    };
    let timeout = rng.chance(if endless { 70 } else { 20 });
    GroupSpec {
        name: name.into(),
        is_array: tasks > 1,
        array,
        action: [1, 2, 3].into(),
        shape: draw_shape(rng),
        estimate: rng.chance(30).then(|| Span::from_millis(rng.between(1, 9_000))),
        timeout: timeout.then(|| Span(rng.spread(200 * MILLI, 9_000 * MILLI))),
        retry: RetryPolicy {
            attempts_max: u32::try_from(rng.between(1, 4)).unwrap_or(1),
            backoff: Backoff {
                base,
                max: Span(base.0.saturating_mul(rng.between(1, 4))),
                jitter_percent: *rng.pick(&[0, 50, 100]),
            },
            on,
        },
        parallel_max: rng.chance(30).then(|| u32::try_from(rng.between(1, 3)).unwrap_or(1)),
    }
}

fn draw_shape(rng: &mut Rng) -> Shape {
    let huge = rng.chance(3);
    let cpus = if huge { 64_000 } else { *rng.pick(&[0, 250, 500, 1_000, 2_000, 3_000]) };
    let mut need = Resources::new(cpus, rng.below(4) << 29);
    if rng.chance(15) {
        need.named.insert("gpu".into(), rng.between(1, 4) * 250);
    }
    let predicate = match rng.below(10) {
        0 => Some(Predicate::In(vec!["a".into()])),
        1 => Some(Predicate::NotIn(vec!["a".into()])),
        2 => Some(Predicate::Exists),
        _ => None,
    };
    let constraints = predicate.map(|predicate| Constraint { key: "zone".into(), predicate });
    Shape { need, constraints: constraints.into_iter().collect(), kind: None }
}
