//! Jobs of known outcome, and the clients that submit them whatever happens to the server.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rota_api::SubmitReply;
use serde_json::{Value, json};

use super::{Answer, Api, Chance, Ledger, PATIENCE};

/// What the tasks of a job do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// End well at once.
    Fine,
    /// End well after a while.
    Slow,
    /// Fail.
    Fails,
    /// Fail the first time and end well the second time.
    Flaky,
}

/// A job to submit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    /// Unique in the run.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) tasks: u32,
}

/// One request with one or more jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Without a key, it can't be repeated.
    pub(crate) key: Option<String>,
    pub(crate) jobs: Vec<Planned>,
    /// Whether several jobs go as lines instead of one document.
    pub(crate) lines: bool,
}

/// What clients do while processes are killed.
pub(crate) struct Workload {
    ledger: Ledger,
    requests: Mutex<VecDeque<Request>>,
    total: usize,
    /// Milliseconds that slow tasks take.
    slow: (u64, u64),
    done: Mutex<Done>,
    /// How far the run is, from 0 to 1000: clients don't run ahead of it.
    pub(crate) progress: AtomicU64,
}

/// What the clients know at the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Done {
    /// Acknowledged jobs by id.
    pub(crate) acknowledged: BTreeMap<u64, Planned>,
    /// Names of jobs whose submit had no answer and could not be repeated.
    pub(crate) unknown: BTreeMap<String, Planned>,
    /// Requests whose answer was lost, or that no server took, at least once.
    pub(crate) interrupted: u64,
    /// Repeated requests that turned out to have been done before.
    pub(crate) replayed: u64,
}

impl Workload {
    /// Requests with `tasks` tasks in all: single ones, arrays and batches.
    pub(crate) fn new(ledger: &Ledger, chance: &mut Chance, tasks: u64, slow: (u64, u64)) -> Self {
        let mut requests = VecDeque::new();
        let mut left = tasks as u32;
        while left > 0 {
            let number = requests.len();
            let request = draw(chance, number, left);
            left -= request.jobs.iter().map(|job| job.tasks).sum::<u32>();
            requests.push_back(request);
        }
        Self {
            ledger: ledger.clone(),
            total: requests.len(),
            requests: Mutex::new(requests),
            slow,
            done: Mutex::default(),
            progress: AtomicU64::new(0),
        }
    }

    /// Submits until nothing is left. Several clients may do so at a time.
    pub(crate) fn submit(&self, api: Api, mut chance: Chance) {
        while let Some(request) = self.next() {
            let slow = chance.between(self.slow.0, self.slow.1);
            let body = request_body(&request, &self.ledger, slow);
            self.submit_one(api, &request, &body);
            if request.key.is_some() && chance.percent(5) {
                self.submit_one(api, &request, &body);
                let other =
                    json!({"job": {"name": "imposter"}, "task": [{"noop": true}]}).to_string();
                let answer = insist(api, &request, &other).0;
                assert_eq!((answer.status, answer.code().as_str()), (409, "idempotency-conflict"));
            }
        }
    }

    /// What the clients know; call it when they have ended.
    pub(crate) fn done(&self) -> Done {
        self.done.lock().expect("no client failed").clone()
    }

    /// The next request, once the run is far enough.
    fn next(&self) -> Option<Request> {
        let began = Instant::now();
        loop {
            let mut requests = self.requests.lock().expect("no client failed");
            let sent = (self.total - requests.len()) as u64 * 1_000 / self.total as u64;
            if requests.is_empty() || sent <= self.progress.load(Ordering::Relaxed) {
                return requests.pop_front();
            }
            drop(requests);
            assert!(began.elapsed() < 2 * PATIENCE, "the run is stuck at {sent} of 1000");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn submit_one(&self, api: Api, request: &Request, body: &str) {
        let sent = if request.key.is_some() {
            Some(insist(api, request, body))
        } else {
            send_once(api, request, body)
        };
        let mut done = self.done.lock().expect("no client failed");
        let Some((answer, tries)) = sent else {
            let names = request.jobs.iter().map(|job| (job.name.clone(), job.clone()));
            done.unknown.extend(names);
            done.interrupted += 1;
            return;
        };
        let reply: SubmitReply = answer.expect(201);
        done.interrupted += u64::from(tries > 1);
        done.replayed += u64::from(reply.replayed && tries > 1);
        assert_eq!(reply.jobs.len(), request.jobs.len());
        for (job, planned) in reply.jobs.iter().zip(&request.jobs) {
            assert_eq!(
                (job.name.as_str(), job.tasks),
                (planned.name.as_str(), u64::from(planned.tasks))
            );
            let before = done.acknowledged.insert(job.id, planned.clone());
            assert!(
                before.is_none_or(|before| before == *planned),
                "job {} stands for two requests",
                job.id
            );
        }
        let names: BTreeSet<&str> =
            done.acknowledged.values().map(|job| job.name.as_str()).collect();
        assert_eq!(
            names.len(),
            done.acknowledged.len(),
            "one request was acknowledged as two jobs"
        );
    }
}

/// The whole document of one job.
pub(crate) fn job_body(planned: &Planned, ledger: &Ledger, slow: u64) -> Value {
    let Planned { name, kind, tasks } = planned;
    let (work, exit) = match kind {
        Kind::Fine => (String::new(), "0"),
        Kind::Slow => (format!("sleep {}.{:03}", slow / 1_000, slow % 1_000), "0"),
        Kind::Fails => (String::new(), "7"),
        Kind::Flaky => (String::new(), "$(( ROTA_ATTEMPT < 2 ))"),
    };
    let mut task = json!({"command": ledger.script(name, &work, exit), "cpus": 0.5});
    if *tasks > 1 {
        task["array"] = json!(format!("1-{tasks}"));
    }
    if *kind == Kind::Flaky {
        task["retry"] = json!({"max": 2, "backoff": "20ms"});
    }
    json!({"job": {"name": name}, "task": [task]})
}

/// The body of a request for several jobs.
pub(crate) fn batch_body(jobs: &[Value]) -> Value {
    json!({"jobs": jobs})
}

fn request_body(request: &Request, ledger: &Ledger, slow: u64) -> String {
    let jobs: Vec<Value> = request.jobs.iter().map(|job| job_body(job, ledger, slow)).collect();
    match (jobs.as_slice(), request.lines) {
        (jobs, true) => jobs.iter().map(|job| format!("{job}\n")).collect(),
        ([job], false) => job.to_string(),
        (jobs, false) => batch_body(jobs).to_string(),
    }
}

fn draw(chance: &mut Chance, number: usize, left: u32) -> Request {
    let kind = |chance: &mut Chance| match chance.between(0, 100) {
        0..50 => Kind::Fine,
        50..80 => Kind::Slow,
        80..90 => Kind::Fails,
        _ => Kind::Flaky,
    };
    let (jobs, tasks) = match chance.between(0, 100) {
        0..75 => (1, 1),
        75..88 => (1, chance.between(2, 30) as u32),
        _ => (chance.between(2, 9) as u32, 1),
    };
    let jobs = jobs.min(left);
    let job = |index| Planned {
        name: format!("job-{number}-{index}"),
        kind: kind(chance),
        tasks: tasks.min(left),
    };
    let jobs: Vec<Planned> = (0..jobs).map(job).collect();
    let lines = jobs.len() > 1 && chance.percent(50);
    let key = (!chance.percent(8)).then(|| format!("key-{number}"));
    Request { key, jobs, lines }
}

/// Sends a request with a key until there is an answer, and says how many tries it took.
fn insist(api: Api, request: &Request, body: &str) -> (Answer, u64) {
    let began = Instant::now();
    for tries in 1.. {
        match send(api, request, body) {
            Ok(answer) if !matches!(answer.status, 503 | 504) => return (answer, tries),
            Ok(_) | Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
        assert!(began.elapsed() < PATIENCE, "nobody answers {:?}", request.key);
    }
    unreachable!("tries are not used up")
}

/// Sends a request that must not be repeated once it may have been done.
fn send_once(api: Api, request: &Request, body: &str) -> Option<(Answer, u64)> {
    let began = Instant::now();
    loop {
        match send(api, request, body) {
            Ok(answer) if answer.status == 504 => return None,
            Ok(answer) if answer.status != 503 => return Some((answer, 1)),
            Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => return None,
            // Nothing was done.
            Ok(_) | Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
        assert!(began.elapsed() < PATIENCE, "nobody listens at {api:?}");
    }
}

fn send(api: Api, request: &Request, body: &str) -> io::Result<Answer> {
    let kind = if request.lines { "application/x-ndjson" } else { "application/json" };
    let key = request.key.iter().map(|key| ("idempotency-key", key.as_str()));
    let headers: Vec<(&str, &str)> = std::iter::once(("content-type", kind)).chain(key).collect();
    api.send("POST", "/v1/jobs", &headers, body.as_bytes())
}
