//! Clients that change a few keys at the same time, and write down what they asked and what they were answered.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder};
use rota_testkit::{Answer, Ask, Operation, Value};
use serde_json::Value as Json;

/// The longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What all clients have in common.
#[derive(Clone)]
pub struct Clients {
    http: reqwest::Client,
    begun: Instant,
    history: Arc<Mutex<Vec<Operation>>>,
}

impl Clients {
    pub fn new(http: &reqwest::Client) -> Self {
        Self { http: http.clone(), begun: Instant::now(), history: Arc::default() }
    }

    /// What was asked and answered so far.
    pub fn history(&self) -> Vec<Operation> {
        self.history.lock().unwrap().clone()
    }

    /// One client: asks these servers in turn, again and again until then.
    pub async fn run(self, number: u64, servers: Vec<SocketAddr>, keys: u64, until: Instant) {
        let mut draw = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut below = |end: u64| {
            draw = draw
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (draw >> 33) % end
        };
        let mut value: Value = number << 32;
        // The revision and value that this client has seen last.
        let mut seen: Option<(u64, u64, Value)> = None;
        while Instant::now() < until {
            value += 1;
            let key = below(keys);
            let server = servers[usize::try_from(below(servers.len() as u64)).unwrap()];
            let url = format!("http://{server}/v1/kv/key-{key}");
            let put = || self.http.put(&url).body(value.to_string());
            let (ask, request) = match (below(8), seen) {
                (0..=2, _) => (Ask::Get, self.http.get(&url)),
                (3, _) => (Ask::Put(value), put()),
                (4, _) => (Ask::Delete, self.http.request(Method::DELETE, &url)),
                (5, _) => (Ask::Swap { from: None, to: value }, put().header("If-None-Match", "*")),
                (_, Some((of, revision, from))) if of == key => {
                    let ask = Ask::Swap { from: Some(from), to: value };
                    (ask, put().header("If-Match", revision))
                }
                _ => continue,
            };
            if let Some(revision) = self.ask(format!("key-{key}"), ask, request).await {
                seen = Some((key, revision.0, revision.1));
            } else if ask != Ask::Get {
                seen = None;
            }
        }
    }

    /// Asks, and writes it down. Answers the revision and the value of what was read.
    async fn ask(&self, key: String, ask: Ask, request: RequestBuilder) -> Option<(u64, Value)> {
        let called = self.now();
        let (answer, revision) = match request.timeout(TIMEOUT).send().await {
            Ok(response) => {
                let status = response.status().as_u16();
                let revision = response.headers().get("x-rota-revision");
                let revision = revision.map(|number| number.to_str().unwrap().parse().unwrap());
                let Ok(text) = response.text().await else {
                    self.note(key, ask, called, Answer::Unknown);
                    return None;
                };
                (judge(ask, status, &text)?, revision)
            }
            // Nothing was sent.
            Err(error) if error.is_connect() => return None,
            Err(_) => (Answer::Unknown, None),
        };
        self.note(key, ask, called, answer);
        match (answer, revision) {
            (Answer::Holds(Some(value)), Some(revision)) => Some((revision, value)),
            _ => None,
        }
    }

    fn note(&self, key: String, ask: Ask, called: u64, answer: Answer) {
        let operation = Operation { key, ask, answer, called, answered: self.now() };
        self.history.lock().unwrap().push(operation);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap()
    }
}

/// What an answer says; `None` if it says that nothing was done.
fn judge(ask: Ask, status: u16, text: &str) -> Option<Answer> {
    let json: Json = serde_json::from_str(text).unwrap_or_default();
    let code = json["code"].as_str().unwrap_or_default();
    match (status, ask) {
        (200, Ask::Get) => Some(Answer::Holds(Some(text.parse().unwrap()))),
        (404, Ask::Get) => Some(Answer::Holds(None)),
        (200, Ask::Delete) if json["deleted"] == 0 => Some(Answer::Refused),
        (200, _) => Some(Answer::Done),
        (412, Ask::Swap { .. }) => Some(Answer::Refused),
        (503, _) if ["no-leader", "overloaded"].contains(&code) => None,
        (503 | 504, _) => Some(Answer::Unknown),
        (status, ask) => panic!("{ask:?} was answered with {status} {text}"),
    }
}
