//! Simulated clients: they ask, wait, ask again when they don't know, and remember what they were told.

use rota_core::command::{
    Backoff, CancelTasks, Command, GroupSpec, IdempotencyKey, JobSpec, Outcome, QueueSpec,
    Rejection, Reply, RetryPolicy, RetryRule, Shape, SubmitJobs,
};
use rota_core::kv::{AcquireLock, ChangeKeys, Condition, KeyChange, KvCommand};
use rota_core::queue::{Discipline, Placement};
use rota_core::token::{Grant, Role, TokenCommand, TokenSpec};
use rota_types::{
    Constraint, JobId, LogIndex, NodeId, Predicate, RangeSet, Resources, Revision, SessionId, Span,
};

use crate::kv::KvModel;
use crate::options::{Fault, Options};
use crate::rng::Rng;
use crate::shell::Asker;
use crate::world::{Happening, MILLI, Told, World};

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
    pub(crate) ask: Ask,
    /// What the client was told.
    pub(crate) told: Option<Outcome>,
    /// The answer never came, and asking again would not be safe.
    pub(crate) abandoned: bool,
    tries: u32,
    /// What had been told to anybody when it was asked first.
    floor: LogIndex,
    /// How often servers had begun to lead then.
    elections: u64,
    must_conflict: bool,
    /// A read was answered.
    was_read: bool,
}

/// What a client asks.
pub(crate) enum Ask {
    /// For a change.
    Change(Command),
    /// To see everything that anybody was told of before.
    Read,
}

impl Client {
    pub(crate) fn new(number: usize, options: &Options) -> Self {
        let share = options.requests.div_ceil(options.clients.max(1));
        Self { rng: Rng::of(options.seed, 1_000 + number as u64), left: share }
    }
}

impl Request {
    pub(crate) fn is_over(&self) -> bool {
        self.told.is_some() || self.was_read || self.abandoned
    }

    /// Whether asking twice is as good as asking once.
    fn is_repeatable(&self) -> bool {
        match &self.ask {
            Ask::Change(Command::SubmitJobs(submit)) => submit.idempotency.is_some(),
            Ask::Change(_) | Ask::Read => true,
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
        let (ask, must_conflict) = self.draw(client);
        if let Ask::Change(command) = &ask {
            let verdict = self.oracle.asked(command);
            self.judge(verdict);
        }
        self.requests.push(Request {
            client,
            ask,
            floor: self.oracle.seen(),
            elections: self.counters.get("a server begins to lead"),
            was_read: false,
            told: None,
            abandoned: false,
            tries: 0,
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
        let late =
            matches!(request.ask, Ask::Change(Command::SubmitJobs(_) | Command::CancelTasks(_)));
        let server = usize::try_from(self.net_rng.below(self.hosts.len() as u64)).unwrap_or(0);
        let forwarded = false;
        self.after(delay, Happening::RequestArrives { server, number, forwarded });
        self.after(patience, Happening::ClientWaited { request: number, tries });
        if repeatable && late && self.has(Fault::LateRequest) && self.net_rng.chance(25) {
            self.counters.note("late duplicate of a request");
            let delay = self.net_rng.spread(100 * MILLI, LATE_MAX);
            self.late = self.late.saturating_add(1);
            self.after(delay, Happening::LateRequest { server, number });
        }
    }

    /// A request reaches a server: that answers if it leads, or passes it on to the one that does.
    pub(crate) fn request_arrives(&mut self, server: usize, number: usize, forwarded: bool) {
        let Some(process) = self.hosts.get(server).and_then(|host| host.process.as_ref()) else {
            if self.net_rng.chance(50) {
                self.answer_client(number, Told::NotDone); // the connection was refused
            }
            return;
        };
        if self.has(Fault::LogBusy) && self.rng.chance(10) {
            return self.answer_client(number, Told::NotDone);
        }
        if process.standing.leads {
            return match &self.requests[number].ask {
                Ask::Change(command) => {
                    let command = command.clone();
                    self.propose(server, command, Some(Asker::Client(number)));
                }
                Ask::Read => self.drive(server, |machine, hands| machine.read(number, hands)),
            };
        }
        let leader = process.standing.leader.clone().filter(|_| !forwarded);
        let leader = leader.filter(|(_, address)| !address.is_empty());
        let to = leader.and_then(|(id, _)| self.number_of(id)).filter(|to| *to != server);
        match to {
            Some(to) if self.hosts[to].is_up() && !self.is_cut(server, to) => {
                self.counters.note("request passed on to the leader");
                let delay = self.net_rng.spread(100, 20 * MILLI);
                let forwarded = true;
                self.after(delay, Happening::RequestArrives { server: to, number, forwarded });
            }
            Some(_) | None => self.answer_client(number, Told::NotDone),
        }
    }

    pub(crate) fn late_request_arrives(&mut self, server: usize, number: usize) {
        self.late = self.late.saturating_sub(1);
        self.request_arrives(server, number, false);
    }

    /// A read was served by a server that had applied everything up to `index`, or was refused.
    pub(crate) fn read_served(&mut self, number: usize, index: Option<LogIndex>) {
        let Some(index) = index else { return self.answer_client(number, Told::NotDone) };
        let floor = self.requests[number].floor;
        self.oracle.checks += 1;
        if index < floor {
            self.fail(format!("a read that began at {floor} saw the state at {index} only"));
        }
        self.answer_client(number, Told::Seen(index));
    }

    pub(crate) fn answer_client(&mut self, number: usize, told: Told) {
        if self.has(Fault::LostAnswer) && self.net_rng.chance(25) {
            self.counters.note("answer lost");
            return;
        }
        let delay = self.net_rng.spread(100, 200 * MILLI);
        self.after(delay, Happening::AnswerArrives(number, told));
    }

    pub(crate) fn answer_arrives(&mut self, number: usize, told: Told) {
        let tries = self.requests[number].tries;
        let outcome = match told {
            Told::Outcome(index, outcome) => {
                self.oracle.saw(index);
                outcome
            }
            Told::Seen(index) => {
                self.oracle.saw(index);
                self.counters.note("read answered");
                let request = &mut self.requests[number];
                let first = !std::mem::replace(&mut request.was_read, true) && !request.abandoned;
                let client = request.client;
                if first {
                    self.think(client);
                }
                return;
            }
            Told::NotDone => return self.try_again(number, tries, true),
            Told::Unknown => return self.try_again(number, tries, false),
        };
        if self.requests[number].told.is_none() {
            let request = &self.requests[number];
            if let Ok(Reply::Submitted { replayed: true, .. }) = &outcome {
                self.counters.note("repeated request answered the same");
                let other = request.elections < self.counters.get("a server begins to lead");
                self.counters.add("idempotent retry across a change of leader", u64::from(other));
            }
            let conflict = matches!(outcome, Err(Rejection::IdempotencyConflict(_)));
            if request.must_conflict && !conflict {
                let what = format!("I14: a key was used for another request: {outcome:?}");
                return self.fail(what);
            }
            let (client, abandoned) = (request.client, request.abandoned);
            self.requests[number].told = Some(outcome.clone());
            if let Ask::Change(command) = &self.requests[number].ask {
                let verdict = self.oracle.told(command, &outcome);
                self.judge(verdict);
            }
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

    fn draw(&mut self, client: usize) -> (Ask, bool) {
        let rng = &mut self.clients[client].rng;
        if rng.chance(10) {
            return (Ask::Read, false);
        }
        if self.options.faults.has(Fault::Kv) && rng.chance(35) {
            return (Ask::Change(draw_kv(rng, &self.oracle.kv)), false);
        }
        let (command, must_conflict) = self.draw_command(client);
        (Ask::Change(command), must_conflict)
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

/// Something about keys, sessions, locks or tokens. Few names, so that they meet.
fn draw_kv(rng: &mut Rng, model: &KvModel) -> Command {
    let key: Box<str> = (*rng.pick(&["a", "a/b", "a/c", "b"])).into();
    let lock: Box<str> = (*rng.pick(&["l", "l", "l", "m"])).into();
    let sessions = model.sessions();
    // Sometimes one that is over, or never was.
    let session = if sessions.is_empty() || rng.chance(10) {
        SessionId(rng.between(1, 9))
    } else {
        *rng.pick(&sessions)
    };
    let since = Revision(rng.below(4));
    Command::Kv(match rng.below(24) {
        0..=2 => KvCommand::OpenSession { ttl: Span(rng.spread(1_000 * MILLI, 20_000 * MILLI)) },
        3 => KvCommand::CloseSession(session),
        4 | 5 => KvCommand::RenewSessions(vec![session, SessionId(rng.between(1, 9))]),
        6 => KvCommand::DeletePrefix { prefix: "a".into(), at_most: 2 },
        7..=13 => {
            let (value, wait) = ([1].into(), rng.chance(60));
            KvCommand::AcquireLock(AcquireLock { lock, session, value, wait })
        }
        14 => KvCommand::ReleaseLock { lock, session },
        15 => return draw_token(rng),
        _ => {
            let condition = match rng.below(5) {
                0 => Some(Condition::Absent { key: key.clone() }),
                1 | 2 => {
                    let since = model.modified(&key).unwrap_or(since);
                    Some(Condition::Unchanged { key: key.clone(), since })
                }
                3 => {
                    let token = model.token_of(&lock).unwrap_or(since);
                    Some(Condition::Held { lock, token })
                }
                _ => None,
            };
            let session = rng.chance(40).then_some(session);
            let value = rng.draw().to_le_bytes().into();
            let put = KeyChange::Put { key, value, session };
            let delete = KeyChange::Delete { key: "b/d".into() };
            let changes = if rng.chance(20) { vec![delete, put] } else { vec![put] };
            KvCommand::Change(ChangeKeys { conditions: condition.into_iter().collect(), changes })
        }
    })
}

fn draw_token(rng: &mut Rng) -> Command {
    let id: Box<str> = (*rng.pick(&["t1", "t2"])).into();
    let hash = [if &*id == "t1" { 1 } else { 2 }; 32];
    Command::Tokens(match rng.below(6) {
        0 | 1 => TokenCommand::Add(TokenSpec {
            id,
            hash,
            grant: Grant::Api(Role::Operator),
            name: "sim".into(),
            expires_at: None,
            created_by: "sim".into(),
            session_of: None,
        }),
        2 => TokenCommand::Revoke(id),
        _ => TokenCommand::Use(id),
    })
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
