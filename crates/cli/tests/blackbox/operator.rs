//! Somebody who changes settings and cancels jobs while the server is killed, and remembers what was acknowledged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rota_api::{Job, JobState, Page, Queue, Task, TaskState};
use serde_json::{Value, json};

use crate::harness::{Answer, Api, Chance, Kind, Ledger, PATIENCE, Planned, Record, job_body};

/// The settings that were acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Settings {
    weight: u32,
    paused: bool,
}

/// Somebody who changes settings and cancels jobs.
pub(crate) struct Operator {
    api: Api,
    ledger: Ledger,
    chance: Chance,
    queues: BTreeMap<String, Settings>,
    cancelled: Vec<u64>,
    /// Requests that were sent more than once.
    repeated: u64,
}

/// The name of the queue that is paused for ever.
const HELD: &str = "held";
/// What jobs in that queue are called.
const NEVER: &str = "never-";

impl Operator {
    pub(crate) fn new(api: Api, ledger: &Ledger, chance: Chance) -> Self {
        let ledger = ledger.clone();
        Self { api, ledger, chance, queues: BTreeMap::new(), cancelled: Vec::new(), repeated: 0 }
    }

    /// Works until told to stop.
    pub(crate) fn work(mut self, stop: &AtomicBool) -> Self {
        self.create(HELD);
        self.pause(HELD, true);
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            number += 1;
            match self.chance.between(0, 4) {
                0 => self.create(&format!("queue-{number}")),
                1 => self.reweigh(),
                2 => self.toggle(),
                _ => self.submit_and_cancel(number),
            }
            self.chance.pause(5, 60);
        }
        self
    }

    /// Compares the server's settings with what was acknowledged, and takes the cancelled jobs out of the record.
    pub(crate) fn check(&self, mut record: Record) -> (Record, Vec<(Job, Vec<Task>)>) {
        let page: Page<Queue> = self.api.get("/v1/queues?limit=1000");
        let told = page.items.into_iter().filter(|queue| queue.name != "default");
        let settings =
            |queue: Queue| (queue.name, Settings { weight: queue.weight, paused: queue.paused });
        assert_eq!(told.map(settings).collect::<BTreeMap<_, _>>(), self.queues);
        let taken = self.cancelled.iter().map(|id| record.jobs.remove(id));
        let held: Vec<(Job, Vec<Task>)> =
            taken.map(|job| job.expect("a cancelled job is in the record")).collect();
        for (job, tasks) in &held {
            assert_eq!(job.state, JobState::Cancelled, "{job:?}");
            for task in tasks {
                assert_eq!((task.state, task.attempt), (TaskState::Cancelled, 0), "{task:?}");
            }
        }
        let ran = self.ledger.marks();
        let wrong: Vec<_> = ran.iter().filter(|mark| mark.label.starts_with(NEVER)).collect();
        assert!(wrong.is_empty(), "cancelled before they could start, but started: {wrong:?}");
        (record, held)
    }

    fn create(&mut self, name: &str) {
        let weight = self.chance.between(1, 100) as u32;
        let path = format!("/v1/queues/{name}");
        let body = json!({ "weight": weight }).to_string();
        let (answer, tries) = self.insist(|api| {
            let headers = [("content-type", "application/json"), ("if-none-match", "*")];
            api.send("PUT", &path, &headers, body.as_bytes())
        });
        // A second try may find what the first one made.
        let made = answer.status == 201 || (tries > 1 && answer.code() == "queue-exists");
        assert!(made, "{answer:?}");
        self.queues.insert(name.to_owned(), Settings { weight, paused: false });
    }

    fn reweigh(&mut self) {
        let name = self.any_queue();
        let weight = self.chance.between(1, 100) as u32;
        self.json("PATCH", &format!("/v1/queues/{name}"), &json!({ "weight": weight }), 200);
        if let Some(settings) = self.queues.get_mut(&name) {
            settings.weight = weight;
        }
    }

    fn toggle(&mut self) {
        let name = self.any_queue();
        let paused = !self.queues[&name].paused;
        if name != HELD {
            self.pause(&name, paused);
        }
    }

    fn pause(&mut self, name: &str, paused: bool) {
        let verb = if paused { "pause" } else { "resume" };
        self.json("POST", &format!("/v1/queues/{name}/{verb}"), &json!({}), 200);
        if let Some(settings) = self.queues.get_mut(name) {
            settings.paused = paused;
        }
    }

    /// Submits a job to the queue that starts nothing, and cancels it.
    fn submit_and_cancel(&mut self, number: u64) {
        let planned = Planned { name: format!("{NEVER}{number}"), kind: Kind::Fine, tasks: 3 };
        let mut body = job_body(&planned, &self.ledger, 0);
        body["job"]["queue"] = json!(HELD);
        let key = format!("never-{number}");
        let (answer, _) = self.insist(|api| {
            let headers = [("content-type", "application/json"), ("idempotency-key", key.as_str())];
            api.send("POST", "/v1/jobs", &headers, body.to_string().as_bytes())
        });
        let id = answer.expect::<rota_api::SubmitReply>(201).jobs[0].id;
        let path = format!("/v1/jobs/{id}/cancel");
        let (answer, tries) = self.insist(|api| api.json("POST", &path, &json!({})));
        // A second try may find nothing left to cancel.
        let cancelled = answer.status == 202 || (tries > 1 && answer.code() == "nothing-to-cancel");
        assert!(cancelled, "{answer:?}");
        self.cancelled.push(id);
    }

    fn any_queue(&mut self) -> String {
        let chosen = self.chance.between(0, self.queues.len() as u64) as usize;
        self.queues.keys().nth(chosen).cloned().expect("there is a queue")
    }

    fn json(&mut self, method: &str, path: &str, body: &Value, status: u16) {
        let (answer, _) = self.insist(|api| api.json(method, path, body));
        assert_eq!(
            answer.status,
            status,
            "{method} {path}: {}",
            String::from_utf8_lossy(&answer.body)
        );
    }

    /// Repeats a request until there is an answer, and says how many tries it took.
    fn insist(&mut self, send: impl Fn(Api) -> std::io::Result<Answer>) -> (Answer, u64) {
        let began = Instant::now();
        let mut tries = 1;
        loop {
            match send(self.api) {
                Ok(answer) if !matches!(answer.status, 503 | 504) => return (answer, tries),
                Ok(_) | Err(_) => std::thread::sleep(std::time::Duration::from_millis(20)),
            }
            tries += 1;
            self.repeated += 1;
            assert!(began.elapsed() < PATIENCE, "nobody answers");
        }
    }
}

impl std::fmt::Debug for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { queues, cancelled, repeated, .. } = self;
        let (queues, cancelled) = (queues.len(), cancelled.len());
        write!(f, "{queues} queues set, {cancelled} jobs cancelled, {repeated} requests repeated")
    }
}
