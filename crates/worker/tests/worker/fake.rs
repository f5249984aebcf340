//! A server that says what the test tells it to say.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rota_wire::worker::worker_gateway_server::{WorkerGateway, WorkerGatewayServer};
use rota_wire::worker::*;
use rota_worker::{Shutdown, Worker, WorkerConfig, WorkerError};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// Nothing in these tests takes this long, unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

type Outgoing<T> = Pin<Box<dyn futures_util::Stream<Item = Result<T, Status>> + Send>>;

/// A listening server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    sessions: mpsc::UnboundedReceiver<Session>,
    outputs: mpsc::UnboundedReceiver<OutputLink>,
    serving: JoinHandle<()>,
}

/// One session of a worker that said hello.
pub(crate) struct Session {
    pub(crate) hello: Hello,
    pub(crate) reports: mpsc::UnboundedReceiver<Reports>,
    pub(crate) heartbeats: mpsc::UnboundedReceiver<Heartbeat>,
    pub(crate) acks: Arc<AtomicBool>,
    to_worker: mpsc::Sender<Result<ServerMessage, Status>>,
    ended: BTreeMap<u64, Report>,
    pub(crate) started: Vec<AttemptRef>,
}

/// The stream on which a worker answers requests for output.
pub(crate) struct OutputLink {
    pub(crate) node: String,
    pub(crate) chunks: Streaming<OutputChunk>,
    pub(crate) requests: mpsc::Sender<Result<OutputRequest, Status>>,
}

struct Gateway {
    sessions: mpsc::UnboundedSender<Session>,
    outputs: mpsc::UnboundedSender<OutputLink>,
}

#[tonic::async_trait]
impl WorkerGateway for Gateway {
    type SessionStream = Outgoing<ServerMessage>;
    type OutputStream = Outgoing<OutputRequest>;

    async fn session(
        &self,
        request: Request<Streaming<WorkerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut incoming = request.into_inner();
        let (to_worker, from_test) = mpsc::channel(64);
        let (reports_in, reports) = mpsc::unbounded_channel();
        let (heartbeats_in, heartbeats) = mpsc::unbounded_channel();
        let acks = Arc::new(AtomicBool::new(true));
        let sessions = self.sessions.clone();
        let acking = Arc::clone(&acks);
        tokio::spawn(async move {
            let Ok(Some(WorkerMessage { kind: Some(worker_message::Kind::Hello(hello)) })) =
                incoming.message().await
            else {
                panic!("a session begins with a hello");
            };
            let answers = to_worker.downgrade();
            let (ended, started) = (BTreeMap::new(), Vec::new());
            let session = Session { hello, reports, heartbeats, acks, to_worker, ended, started };
            drop(sessions.send(session));
            while let Ok(Some(message)) = incoming.message().await {
                match message.kind.expect("a message has a kind") {
                    worker_message::Kind::Hello(_) => panic!("a second hello"),
                    worker_message::Kind::Reports(message) => drop(reports_in.send(message)),
                    worker_message::Kind::Heartbeat(heartbeat) => {
                        let _ = heartbeats_in.send(heartbeat);
                        let kind = server_message::Kind::HeartbeatAck(HeartbeatAck {
                            sent_micros: heartbeat.sent_micros,
                        });
                        if acking.load(Ordering::SeqCst)
                            && let Some(to_worker) = answers.upgrade()
                        {
                            drop(to_worker.send(Ok(ServerMessage { kind: Some(kind) })).await);
                        }
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(from_test))))
    }

    async fn output(
        &self,
        request: Request<Streaming<OutputChunk>>,
    ) -> Result<Response<Self::OutputStream>, Status> {
        let node = request.metadata().get("rota-node").expect("workers name their node");
        let node = node.to_str().expect("a number").to_owned();
        let (requests, from_test) = mpsc::channel(64);
        drop(self.outputs.send(OutputLink { node, chunks: request.into_inner(), requests }));
        Ok(Response::new(Box::pin(ReceiverStream::new(from_test))))
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address")).await
    }

    /// Listens where an earlier server did.
    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("loopback can be bound");
        let address = listener.local_addr().expect("bound");
        let (sessions_in, sessions) = mpsc::unbounded_channel();
        let (outputs_in, outputs) = mpsc::unbounded_channel();
        let gateway = Gateway { sessions: sessions_in, outputs: outputs_in };
        let service = WorkerGatewayServer::new(gateway).max_decoding_message_size(64 << 20);
        let router = tonic::transport::Server::builder().add_service(service);
        let serving = tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener).map(|stream| {
                stream.inspect(|stream| stream.set_nodelay(true).expect("a TCP connection"))
            });
            drop(router.serve_with_incoming(incoming).await);
        });
        Self { address, sessions, outputs, serving }
    }

    /// The next worker that says hello.
    pub(crate) async fn session(&mut self) -> Session {
        within(self.sessions.recv()).await.expect("the gateway holds a sender")
    }

    /// The next session, welcomed with a lease that no test reaches by chance.
    pub(crate) async fn welcomed(&mut self) -> Session {
        let session = self.session().await;
        session.welcome(Duration::from_secs(30), false).await;
        session
    }

    pub(crate) async fn output(&mut self) -> OutputLink {
        within(self.outputs.recv()).await.expect("the gateway holds a sender")
    }

    /// Stops listening and closes every connection that this server still has.
    pub(crate) async fn stop(self) -> SocketAddr {
        self.serving.abort();
        drop(self.serving.await);
        self.address
    }
}

impl Session {
    pub(crate) async fn say(&self, kind: server_message::Kind) {
        drop(self.to_worker.send(Ok(ServerMessage { kind: Some(kind) })).await);
    }

    /// Sends a message of a kind that this version does not know.
    pub(crate) async fn say_nothing_known(&self) {
        drop(self.to_worker.send(Ok(ServerMessage { kind: None })).await);
    }

    /// Ends the session with an error.
    pub(crate) async fn fail(&self, status: Status) {
        drop(self.to_worker.send(Err(status)).await);
    }

    pub(crate) async fn welcome(&self, lease: Duration, sole_server: bool) {
        let micros = u64::try_from(lease.as_micros()).expect("small");
        self.say(server_message::Kind::Welcome(Welcome {
            node: 7,
            lease_micros: micros,
            heartbeat_micros: micros / 10,
            sole_server,
            version: "test".into(),
            servers: None,
        }))
        .await;
    }

    pub(crate) async fn desire(&self, desired: Desired) {
        self.say(server_message::Kind::Desired(desired)).await;
    }

    /// Adds attempts to the desired set.
    pub(crate) async fn start(&self, start: Vec<Assignment>) {
        self.desire(Desired { start, ..Desired::default() }).await;
    }

    pub(crate) async fn stop(&self, job: u64, grace: Duration) {
        let grace_micros = u64::try_from(grace.as_micros()).expect("small");
        let stop = vec![Stop { attempt: Some(id(job)), grace_micros }];
        self.desire(Desired { stop, ..Desired::default() }).await;
    }

    pub(crate) async fn settle(&self, job: u64) {
        let settled = vec![id(job)];
        self.desire(Desired { settled, ..Desired::default() }).await;
    }

    /// Waits until the attempt of `job` is over.
    pub(crate) async fn report(&mut self, job: u64) -> Report {
        loop {
            if let Some(report) = self.ended.remove(&job) {
                return report;
            }
            let reports = within(self.reports.recv()).await.expect("the session is open");
            self.started.extend(reports.started.into_iter().filter_map(|note| note.attempt));
            for report in reports.ended {
                let job = report.attempt.expect("a report names its attempt").job;
                self.ended.insert(job, report);
            }
        }
    }

    /// Waits until the worker says that an attempt runs.
    pub(crate) async fn running(&mut self, job: u64) {
        while !self.started.contains(&id(job)) {
            let reports = within(self.reports.recv()).await.expect("the session is open");
            self.started.extend(reports.started.into_iter().filter_map(|note| note.attempt));
            for report in reports.ended {
                let job = report.attempt.expect("a report names its attempt").job;
                self.ended.insert(job, report);
            }
        }
    }

    /// Runs a command and returns its report.
    pub(crate) async fn run(&mut self, job: u64, argv: &[&str]) -> Report {
        self.start(vec![command(job, argv)]).await;
        self.report(job).await
    }
}

/// A worker that runs in this process.
pub(crate) struct TestWorker {
    pub(crate) dir: TempDir,
    pub(crate) shutdown: watch::Sender<Shutdown>,
    pub(crate) ended: JoinHandle<Result<(), WorkerError>>,
}

impl TestWorker {
    /// A worker of `server`, changed as the test likes.
    pub(crate) fn start(server: &Server, change: impl FnOnce(&mut WorkerConfig)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut config = WorkerConfig::new(format!("http://{}", server.address), dir.path());
        config.name = "n1".into();
        config.guardian = false;
        change(&mut config);
        let (shutdown, orders) = watch::channel(Shutdown::No);
        let ended = tokio::spawn(Worker::run(config, orders));
        Self { dir, shutdown, ended }
    }

    /// Shuts down and waits for it.
    pub(crate) async fn shut_down(self, how: Shutdown) -> Result<(), WorkerError> {
        self.shutdown.send_replace(how);
        within(self.ended).await.expect("the worker does not panic")
    }
}

/// A server and a worker with an open session.
pub(crate) async fn pair(change: impl FnOnce(&mut WorkerConfig)) -> (Server, TestWorker, Session) {
    let mut server = Server::start().await;
    let worker = TestWorker::start(&server, change);
    let session = server.welcomed().await;
    session.desire(Desired { full: true, ..Desired::default() }).await;
    (server, worker, session)
}

pub(crate) fn id(job: u64) -> AttemptRef {
    AttemptRef { job, index: 3, number: 2 }
}

pub(crate) fn assignment(job: u64, kind: action::Kind) -> Assignment {
    let action = Some(Action { kind: Some(kind) });
    Assignment { attempt: Some(id(job)), action, placed_micros: 1, ..Assignment::default() }
}

pub(crate) fn command(job: u64, argv: &[&str]) -> Assignment {
    let argv = argv.iter().map(|argument| (*argument).to_owned()).collect();
    let command = CommandAction { argv, ..CommandAction::default() };
    assignment(job, action::Kind::Command(command))
}

pub(crate) fn shell(job: u64, script: &str) -> Assignment {
    command(job, &["sh", "-c", script])
}

/// What a command's assignment says, to be changed.
pub(crate) fn action_of(assignment: &mut Assignment) -> &mut CommandAction {
    match &mut assignment.action {
        Some(Action { kind: Some(action::Kind::Command(command)) }) => command,
        other => panic!("not a command: {other:?}"),
    }
}

pub(crate) fn succeeded() -> Option<report::End> {
    Some(report::End::Succeeded(Succeeded {}))
}

pub(crate) fn stopped() -> Option<report::End> {
    Some(report::End::Stopped(Stopped {}))
}

pub(crate) fn failed(kind: failed::Kind, message: &str) -> Option<report::End> {
    Some(report::End::Failed(Failed { kind: Some(kind), message: message.into() }))
}

pub(crate) fn stdout(report: &Report) -> String {
    let detail = report.detail.as_ref().expect("a report has a detail");
    String::from_utf8(detail.stdout_tail.clone()).expect("text")
}

pub(crate) async fn within<F: IntoFuture>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("this does not take so long")
}

/// Looks again and again until it is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a process is there and not a zombie.
pub(crate) fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}
