//! A server in this process, and a worker that does what a test tells it.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

pub mod clients;

use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder, Response};
use rota_server::{RunningServer, Server, ServerConfig};
use rota_types::Span;
use rota_wire::worker as pb;
use rota_wire::worker::worker_gateway_client::WorkerGatewayClient;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Longer than anything takes that works.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct World {
    pub dir: TempDir,
    pub server: Option<RunningServer>,
    pub client: reqwest::Client,
    change: Box<dyn Fn(&mut ServerConfig) + Send + Sync>,
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl Fn(&mut ServerConfig) + Send + Sync + 'static) -> Self {
        // A second test in the same process finds it installed.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let dir = TempDir::new().unwrap();
        let mut world = Self { dir, server: None, client, change: Box::new(change) };
        world.start().await;
        world
    }

    pub async fn start(&mut self) {
        let mut config = ServerConfig::new(self.dir.path().join("data"));
        config.listen = "127.0.0.1:0".parse().unwrap();
        config.lease = Span::from_secs(5);
        config.disk_reserve_bytes = 0;
        (self.change)(&mut config);
        let deadline = Instant::now() + Duration::from_secs(10);
        self.server = loop {
            match Server::start(config.clone()).await {
                Ok(server) => break Some(server),
                // A snapshot that was being made when the server was dropped holds the history until it is done: a thread of this
                // process, where a killed process would have none.
                Err(error) if error.to_string().contains("already open") => {
                    assert!(Instant::now() < deadline, "{error}");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
    }

    /// As if the process had been killed, then started again.
    pub async fn kill_and_restart(&mut self) {
        let server = self.server.take();
        tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
        self.start().await;
    }

    pub async fn shut_down(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown().await;
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.as_ref().unwrap().address())
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path)).timeout(PATIENCE)
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        read(self.request(Method::GET, path).send().await.unwrap()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        read(self.request(Method::POST, path).json(body).send().await.unwrap()).await
    }

    /// Submits a job and answers its id.
    pub async fn submit(&self, job: &Value) -> u64 {
        let (status, reply) = self.post("/v1/jobs", job).await;
        assert_eq!(status, 201, "{reply}");
        reply["jobs"][0]["id"].as_u64().unwrap()
    }

    /// Asks until the answer is as wanted.
    pub async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (_, value) = self.get(path).await;
            if wanted(&value) {
                return value;
            }
            assert!(Instant::now() < deadline, "{path} stays {value}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The output stream of a worker.
    pub async fn output(&self, node: u32) -> FakeOutput {
        let mut client = WorkerGatewayClient::connect(self.url("")).await.unwrap();
        let (sender, receiver) = mpsc::channel(16);
        let mut request = tonic::Request::new(ReceiverStream::new(receiver));
        request.metadata_mut().insert("rota-node", node.into());
        let incoming = client.output(request).await.unwrap().into_inner();
        FakeOutput { sender, incoming }
    }

    pub async fn worker(&self, name: &str, incarnation: u64) -> FakeWorker {
        let mut worker = FakeWorker::connect(&self.url(""), name, incarnation).await;
        worker.node = worker.welcome().await;
        worker
    }

    /// A worker that runs only these kinds of actions.
    pub async fn choosy_worker(&self, name: &str, kinds: &[pb::ActionKind]) -> FakeWorker {
        let kinds = kinds.iter().map(|kind| i32::from(*kind)).collect();
        let hello = pb::Hello { runs: Some(pb::ActionKinds { kinds }), ..hello(name, 1) };
        let mut worker = FakeWorker::connect_as(&self.url(""), hello).await;
        worker.node = worker.welcome().await;
        worker
    }
}

pub async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// A job of one group of tasks that do nothing.
pub fn noop_job(name: &str, tasks: u32) -> Value {
    json!({"job": {"name": name}, "task": [{"noop": true, "array": format!("1-{tasks}")}]})
}

/// What a worker says of itself that runs everything.
fn hello(name: &str, incarnation: u64) -> pb::Hello {
    pb::Hello {
        protocol: pb::PROTOCOL,
        name: name.to_owned(),
        incarnation,
        capacity: Some(pb::Resources { cpu_millis: 4_000, memory_bytes: 1 << 30, named: vec![] }),
        attempts_max: 100,
        labels: vec![],
        version: "test".to_owned(),
        runs: None,
        stages: true,
    }
}

/// Speaks the worker's side of a session, and runs nothing.
pub struct FakeWorker {
    pub node: u32,
    sender: mpsc::Sender<pb::WorkerMessage>,
    incoming: tonic::Streaming<pb::ServerMessage>,
}

impl FakeWorker {
    pub async fn connect(url: &str, name: &str, incarnation: u64) -> Self {
        Self::connect_as(url, hello(name, incarnation)).await
    }

    async fn connect_as(url: &str, hello: pb::Hello) -> Self {
        let mut client = WorkerGatewayClient::connect(url.to_owned()).await.unwrap();
        let (sender, receiver) = mpsc::channel(16);
        say(&sender, pb::worker_message::Kind::Hello(hello)).await;
        let incoming = client.session(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        Self { node: 0, sender, incoming }
    }

    /// The next message; `None` when the session is over.
    pub async fn next(&mut self) -> Option<pb::server_message::Kind> {
        let message = tokio::time::timeout(PATIENCE, self.incoming.message()).await.unwrap();
        message.ok().flatten().and_then(|message| message.kind)
    }

    async fn welcome(&mut self) -> u32 {
        match self.next().await {
            Some(pb::server_message::Kind::Welcome(welcome)) => welcome.node,
            other => panic!("expected a welcome, got {other:?}"),
        }
    }

    /// The next change of the desired set.
    pub async fn desired(&mut self) -> pb::Desired {
        loop {
            match self.next().await {
                Some(pb::server_message::Kind::Desired(desired)) => return desired,
                Some(pb::server_message::Kind::HeartbeatAck(_)) => {}
                other => panic!("expected a desired set, got {other:?}"),
            }
        }
    }

    /// Gathers attempts to start until there are `count`.
    pub async fn starts(&mut self, count: usize) -> Vec<pb::Assignment> {
        let mut starts = Vec::new();
        while starts.len() < count {
            starts.extend(self.desired().await.start);
        }
        starts
    }

    pub async fn heartbeat(&self) {
        let heartbeat = pb::Heartbeat { sent_micros: 1, ..pb::Heartbeat::default() };
        say(&self.sender, pb::worker_message::Kind::Heartbeat(heartbeat)).await;
    }

    pub async fn leave(&self, leaving: pb::Leaving) {
        let heartbeat = pb::Heartbeat { sent_micros: 1, leaving: leaving.into() };
        say(&self.sender, pb::worker_message::Kind::Heartbeat(heartbeat)).await;
    }

    /// Reports ends of attempts that wrote something.
    pub async fn report(&self, attempts: &[pb::AttemptRef], end: &pb::report::End) {
        let detail = pb::Detail {
            stdout_tail: b"the end\n".to_vec(),
            stdout_bytes: 100,
            ..pb::Detail::default()
        };
        self.report_detail(attempts, end, &detail).await;
    }

    /// Reports ends of attempts.
    pub async fn report_detail(
        &self,
        attempts: &[pb::AttemptRef],
        end: &pb::report::End,
        detail: &pb::Detail,
    ) {
        let ended = attempts
            .iter()
            .map(|attempt| pb::Report {
                attempt: Some(*attempt),
                end: Some(end.clone()),
                started_micros: Some(1),
                ended_micros: 2,
                detail: Some(detail.clone()),
            })
            .collect();
        let reports = pb::Reports { started: vec![], ended };
        say(&self.sender, pb::worker_message::Kind::Reports(reports)).await;
    }

    pub async fn succeed(&self, attempts: &[pb::AttemptRef]) {
        self.report(attempts, &pb::report::End::Succeeded(pb::Succeeded {})).await;
    }

    /// Gathers settled reports until there are `count`.
    pub async fn settled(&mut self, count: usize) -> Vec<pb::AttemptRef> {
        let mut settled = Vec::new();
        while settled.len() < count {
            settled.extend(self.desired().await.settled);
        }
        settled
    }
}

/// Serves output as a test says.
pub struct FakeOutput {
    sender: mpsc::Sender<pb::OutputChunk>,
    incoming: tonic::Streaming<pb::OutputRequest>,
}

impl FakeOutput {
    pub async fn asked(&mut self) -> (u64, Option<pb::output_request::Kind>) {
        let request = tokio::time::timeout(PATIENCE, self.incoming.message()).await.unwrap();
        let request = request.unwrap().unwrap();
        (request.id, request.kind)
    }

    /// What is asked by now; waits for it if `wait`.
    pub async fn asked_now(
        &mut self,
        wait: bool,
    ) -> Option<(u64, Option<pb::output_request::Kind>)> {
        if wait {
            return Some(self.asked().await);
        }
        let now = tokio::time::timeout(Duration::ZERO, self.incoming.message()).await;
        now.ok().map(|request| request.unwrap().unwrap()).map(|request| (request.id, request.kind))
    }

    pub async fn answer(&self, id: u64, offset: u64, data: &[u8], end: bool) {
        self.send(pb::OutputChunk {
            id,
            offset,
            data: data.to_vec(),
            end,
            ..pb::OutputChunk::default()
        })
        .await;
    }

    pub async fn send(&self, chunk: pb::OutputChunk) {
        self.sender.send(chunk).await.unwrap();
    }
}

pub fn refs(starts: &[pb::Assignment]) -> Vec<pb::AttemptRef> {
    starts.iter().filter_map(|start| start.attempt).collect()
}

async fn say(sender: &mpsc::Sender<pb::WorkerMessage>, kind: pb::worker_message::Kind) {
    sender.send(pb::WorkerMessage { kind: Some(kind) }).await.unwrap();
}
