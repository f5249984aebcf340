//! The connection to the server: opened again and again, for ever.

use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rota_identity::Connector as TlsConnector;
use rota_types::limits::ENTRY_BYTES_MAX;
use rota_types::{Monotonic, Span};
use rota_wire::worker as pb;
use rota_wire::worker::worker_gateway_client::WorkerGatewayClient;
use rota_wire::worker::{
    Desired, Hello, OutputChunk, OutputRequest, ServerMessage, WorkerMessage, server_message,
    worker_message,
};
use rota_worker_core::Session;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status, Streaming};
use tracing::{debug, info, warn};

use crate::clock;
use crate::output::Outputs;
use crate::servers::Servers;
use crate::worker::WorkerError;

/// The pause before the second attempt to connect; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server may take to welcome a worker.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a server is asked whether it is still there, and how long it may take to say so. One that was stopped or cut off keeps its
/// connections; the others wait for this worker meanwhile.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// The flow-control windows of HTTP/2: a slow reader of output must not hold up reports.
const WINDOW_BYTES: u32 = 4 << 20;

/// Messages to the server. Not bounded by itself: each attempt's report goes out once per session, and attempts are bounded.
pub(crate) type Outgoing = mpsc::UnboundedSender<WorkerMessage>;

/// What the connection says.
#[derive(Debug)]
pub(crate) enum Link {
    /// The server welcomed this worker.
    Opened(Session, Outgoing),
    /// The session is over.
    Closed,
    /// Every address refused a connection that was begun at this time.
    ConnectionRefused(Monotonic),
    /// The server said what this node must run.
    Desired(Desired),
    /// The server acknowledged a heartbeat.
    HeartbeatAck(Monotonic),
    /// The server will not have this worker.
    Refused {
        /// Why.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
}

/// Keeps a session with one of the servers open.
pub(crate) struct Connector {
    pub(crate) servers: Mutex<Servers>,
    pub(crate) tls: Option<TlsConnector>,
    pub(crate) hello: Hello,
    pub(crate) links: mpsc::Sender<Link>,
    pub(crate) outputs: Outputs,
}

/// A session that lasted less was none: the next attempt to connect waits longer, not shorter. So a server that welcomes and closes
/// is not asked without end, and one that crashes again and again has its worker back soon.
const SESSION_MIN: Duration = PAUSE_MIN;
/// How long a worker may be without a session before it says why.
const SILENCE: Duration = Duration::from_secs(5);

/// Attempts to connect.
struct Tries {
    /// How long to wait between two: never so long that a lease could run out between two refusals.
    pause: Duration,
    pause_max: Duration,
    /// Since when there has been no session.
    since: Instant,
    /// Why there is none, as it was said last.
    told: Option<String>,
}

/// Why a session could not be opened or is over.
enum Failure {
    /// Nobody listens there.
    Refused,
    /// Anything else that may pass.
    Broken(String),
    /// Nobody listens to this task any more.
    Unwanted,
}

impl Connector {
    /// Connects until nobody wants to know any more.
    pub(crate) async fn run(self) {
        let mut tries = Tries::new(Instant::now());
        loop {
            let began = clock::now();
            let mut refused = 0;
            let mut reasons = Vec::new();
            let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner).all();
            for server in &servers {
                let failure = match self.session(server, &mut tries).await {
                    Failure::Unwanted => return,
                    failure => failure,
                };
                refused += usize::from(matches!(failure, Failure::Refused));
                let reason = failure.reason();
                debug!(%server, %reason, "no session");
                reasons.push(format!("{server}: {reason}"));
            }
            if let Some(reason) = tries.news(reasons.join("; "), Instant::now()) {
                warn!(%reason, "no session with any server");
            }
            let gone = refused == servers.len();
            if gone && self.links.send(Link::ConnectionRefused(began)).await.is_err() {
                return;
            }
            let jitter = clock::random() % 256;
            let jitter = u32::try_from(jitter).unwrap_or(0) + 256;
            tokio::time::sleep(tries.pause * jitter / 512).await;
            tries.pause = (tries.pause * 2).min(tries.pause_max);
        }
    }

    /// Opens a session and serves it to its end.
    async fn session(&self, server: &str, tries: &mut Tries) -> Failure {
        let channel = match connect(server, self.tls.as_ref()).await {
            Ok(channel) => channel,
            Err(failure) => return failure,
        };
        let mut client = WorkerGatewayClient::new(channel.clone())
            .max_decoding_message_size(ENTRY_BYTES_MAX)
            .max_encoding_message_size(ENTRY_BYTES_MAX);
        let (outgoing, messages) = mpsc::unbounded_channel();
        let sent = clock::now();
        let hello = worker_message::Kind::Hello(self.hello.clone());
        drop(outgoing.send(WorkerMessage { kind: Some(hello) }));
        let opening = client.session(UnboundedReceiverStream::new(messages));
        let opened = tokio::time::timeout(WELCOME_TIMEOUT, opening).await;
        let mut incoming = match opened {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return self.not_welcome(&status).await,
            Err(_) => return Failure::Broken("no answer in time".into()),
        };
        let (node, session) = match self.welcome(&mut incoming, sent).await {
            Ok(welcome) => welcome,
            Err(failure) => return failure,
        };
        info!(%server, node, "session opened");
        tries.opened(session.lease);
        let opened_at = Instant::now();
        if self.links.send(Link::Opened(session, outgoing)).await.is_err() {
            return Failure::Unwanted;
        }
        let failure = tokio::select! {
            failure = self.listen(&mut incoming, session.lease) => failure,
            never = self.serve_output(client, node) => match never {},
        };
        tries.closed(opened_at, Instant::now());
        info!(%server, node, reason = failure.reason(), "session closed");
        if self.links.send(Link::Closed).await.is_err() {
            return Failure::Unwanted;
        }
        failure
    }

    async fn welcome(
        &self,
        incoming: &mut Streaming<ServerMessage>,
        sent: Monotonic,
    ) -> Result<(u32, Session), Failure> {
        let message = loop {
            let next = tokio::time::timeout(WELCOME_TIMEOUT, incoming.message()).await;
            match next {
                // One that does not lead says where to go, and closes.
                Ok(Ok(Some(ServerMessage { kind: Some(server_message::Kind::Servers(told)) }))) => {
                    self.learn(Some(told));
                }
                Ok(Ok(Some(message))) => break message,
                Ok(Ok(None)) => return Err(Failure::Broken("closed without a welcome".into())),
                Ok(Err(status)) => return Err(self.not_welcome(&status).await),
                Err(_) => return Err(Failure::Broken("no welcome in time".into())),
            }
        };
        match message.kind {
            Some(server_message::Kind::Welcome(welcome)) => {
                self.learn(welcome.servers);
                let session = Session {
                    sent,
                    lease: Span(welcome.lease_micros),
                    heartbeat: Span(welcome.heartbeat_micros),
                    sole_server: welcome.sole_server,
                };
                Ok((welcome.node, session))
            }
            Some(server_message::Kind::Refused(refused)) => {
                let link = Link::Refused { reason: refused.reason, remedy: refused.remedy };
                drop(self.links.send(link).await);
                Err(Failure::Unwanted)
            }
            _ => Err(Failure::Broken("began with something else than a welcome".into())),
        }
    }

    /// Takes what a server says of the others.
    fn learn(&self, told: Option<pb::Servers>) {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(draft) = told.and_then(|told| servers.learn(told.addresses)) {
            // A slow disk must not hold up heartbeats.
            drop(tokio::task::spawn_blocking(move || draft.write()));
        }
    }

    /// What an error instead of a welcome means. Some don't pass by waiting.
    async fn not_welcome(&self, status: &Status) -> Failure {
        let remedy = match status.code() {
            Code::InvalidArgument => "change the worker's options and start it again",
            Code::Unimplemented => {
                "check the address: what listens there is no server of rota that knows workers"
            }
            _ => return Failure::Broken(status.to_string()),
        };
        let (reason, remedy) = (status.message().to_owned(), remedy.to_owned());
        drop(self.links.send(Link::Refused { reason, remedy }).await);
        Failure::Unwanted
    }

    /// Passes on what the server says. A server that says nothing for a whole lease, not even that it heard a heartbeat, is gone.
    async fn listen(&self, incoming: &mut Streaming<ServerMessage>, lease: Span) -> Failure {
        let silence = Duration::from_micros(lease.micros()).max(PAUSE_MIN);
        let mut parts: Option<Desired> = None;
        loop {
            let message = match tokio::time::timeout(silence, incoming.message()).await {
                Ok(Ok(Some(message))) => message,
                Ok(Ok(None)) => return Failure::Broken("closed by the server".into()),
                Ok(Err(status)) => return Failure::Broken(status.to_string()),
                Err(_) => return Failure::Broken("the server fell silent".into()),
            };
            let link = match message.kind {
                Some(server_message::Kind::Desired(desired)) => match join(&mut parts, desired) {
                    Some(desired) => Link::Desired(desired),
                    None => continue,
                },
                Some(server_message::Kind::HeartbeatAck(ack)) => {
                    Link::HeartbeatAck(Monotonic(ack.sent_micros))
                }
                Some(server_message::Kind::Refused(refused)) => {
                    Link::Refused { reason: refused.reason, remedy: refused.remedy }
                }
                Some(server_message::Kind::Servers(told)) => {
                    self.learn(Some(told));
                    continue;
                }
                // Of a kind that this version does not know.
                None => continue,
                Some(server_message::Kind::Welcome(_)) => {
                    return Failure::Broken("a message that has no place in a session".into());
                }
            };
            let last = matches!(link, Link::Refused { .. });
            if self.links.send(link).await.is_err() || last {
                return Failure::Unwanted;
            }
        }
    }

    /// Answers requests for output as long as the session lasts.
    async fn serve_output(
        &self,
        mut client: WorkerGatewayClient<Channel>,
        node: u32,
    ) -> std::convert::Infallible {
        loop {
            if let Err(status) = self.output_stream(&mut client, node).await {
                debug!(%status, "output stream broke");
            }
            tokio::time::sleep(PAUSE_MAX).await;
        }
    }

    async fn output_stream(
        &self,
        client: &mut WorkerGatewayClient<Channel>,
        node: u32,
    ) -> Result<(), Status> {
        let (chunks, outgoing) = mpsc::channel::<OutputChunk>(16);
        let mut request = Request::new(ReceiverStream::new(outgoing));
        request.metadata_mut().insert("rota-node", node.into());
        let requests: Streaming<OutputRequest> = client.output(request).await?.into_inner();
        self.outputs.serve(requests, chunks).await
    }
}

impl Tries {
    fn new(now: Instant) -> Self {
        Self { pause: PAUSE_MIN, pause_max: PAUSE_MAX, since: now, told: None }
    }

    /// A server has granted a lease.
    fn opened(&mut self, lease: Span) {
        let quarter = Duration::from_micros((lease.micros() / 4).max(1_000));
        self.pause_max = PAUSE_MAX.min(quarter);
        self.pause = self.pause.min(self.pause_max);
        self.told = None;
    }

    fn closed(&mut self, opened_at: Instant, now: Instant) {
        self.since = now;
        if now.duration_since(opened_at) >= SESSION_MIN {
            self.pause = PAUSE_MIN.min(self.pause_max);
        }
    }

    /// Why there is no session, if that is worth telling: once there has been none for a while, and once for each reason.
    fn news(&mut self, reason: String, now: Instant) -> Option<&str> {
        if now.duration_since(self.since) < SILENCE || self.told.as_ref() == Some(&reason) {
            return None;
        }
        Some(self.told.insert(reason))
    }
}

impl Failure {
    fn reason(&self) -> &str {
        match self {
            Self::Refused => "nobody listens there",
            Self::Broken(reason) => reason,
            Self::Unwanted => "the worker ends",
        }
    }
}

/// Finds out whether a worker can connect to an address at all.
pub(crate) fn check_address(address: &str, has_identity: bool) -> Result<(), WorkerError> {
    let wrong = |reason: &str| {
        Err(WorkerError::Address { address: address.to_owned(), reason: reason.to_owned() })
    };
    match address.parse::<Uri>() {
        Err(error) => wrong(&error.to_string()),
        Ok(uri) if uri.host().is_none_or(str::is_empty) => wrong("it names no host"),
        Ok(uri) => match uri.scheme_str() {
            Some("http") => Ok(()),
            Some("https") if has_identity => Ok(()),
            Some("https") => wrong("a worker needs an identity for HTTPS: join the cluster first"),
            _ => wrong("it begins neither with http:// nor with https://"),
        },
    }
}

/// Puts the parts of a full set together. What is not part of one passes through.
fn join(parts: &mut Option<Desired>, desired: Desired) -> Option<Desired> {
    let more = desired.more;
    let whole = match parts.take() {
        Some(mut whole) if !desired.full => {
            whole.start.extend(desired.start);
            whole.stop.extend(desired.stop);
            whole.settled.extend(desired.settled);
            whole
        }
        _ => desired,
    };
    if more {
        *parts = Some(whole);
        return None;
    }
    Some(whole)
}

async fn connect(server: &str, tls: Option<&TlsConnector>) -> Result<Channel, Failure> {
    let endpoint = Endpoint::from_shared(server.to_owned())
        .map_err(|error| Failure::Broken(error.to_string()))?
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES * 2);
    let connected = match tls.filter(|_| server.starts_with("https://")) {
        Some(tls) => endpoint.connect_with_connector(tls.clone()).await,
        None => endpoint.connect().await,
    };
    connected.map_err(|error| {
        if is_refused(&error) { Failure::Refused } else { Failure::Broken(innermost(&error)) }
    })
}

/// What is at the bottom of an error: the layers above say only that they could not connect.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Whether the other host said that nobody listens there.
fn is_refused(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use rota_wire::worker::{Assignment, AttemptRef};

    fn part(full: bool, more: bool, job: u64) -> Desired {
        let attempt = Some(AttemptRef { job, index: 0, number: 1 });
        let start = vec![Assignment { attempt, ..Assignment::default() }];
        Desired { full, more, start, ..Desired::default() }
    }

    #[test]
    fn only_a_session_that_lasted_lets_the_next_attempt_come_soon() {
        let begin = Instant::now();
        for (lasted, pause) in [
            (SESSION_MIN - Duration::from_millis(1), PAUSE_MAX),
            (SESSION_MIN, PAUSE_MIN),
            (SESSION_MIN + Duration::from_millis(1), PAUSE_MIN),
        ] {
            let mut tries = Tries { pause: PAUSE_MAX, ..Tries::new(begin) };
            tries.opened(Span::from_secs(30));
            tries.closed(begin, begin + lasted);
            assert_eq!(tries.pause, pause, "after {lasted:?}");
        }
        let mut short = Tries::new(begin);
        short.opened(Span::from_millis(40));
        short.closed(begin, begin + SESSION_MIN);
        assert_eq!([short.pause, short.pause_max], [Duration::from_millis(10); 2]);
    }

    #[test]
    fn a_worker_without_a_session_says_why_after_a_while_and_once_for_each_reason() {
        let begin = Instant::now();
        let mut tries = Tries::new(begin);
        let mut told = |after: Duration, reason: &str| {
            tries.news(reason.to_owned(), begin + after).map(str::to_owned)
        };
        let some = |reason: &str| Some(reason.to_owned());
        assert_eq!(told(SILENCE - Duration::from_millis(1), "a"), None);
        assert_eq!(told(SILENCE, "a"), some("a"));
        assert_eq!(told(SILENCE * 2, "a"), None);
        assert_eq!(told(SILENCE * 2, "b"), some("b"));
        tries.opened(Span::from_secs(30));
        tries.closed(begin, begin + SILENCE * 3);
        assert_eq!(tries.news("b".to_owned(), begin + SILENCE * 3), None);
        assert_eq!(tries.news("b".to_owned(), begin + SILENCE * 4), Some("b"));
    }

    #[test]
    fn an_address_that_can_never_work_is_refused() {
        let told =
            |address, identity| check_address(address, identity).map_err(|error| error.to_string());
        assert_eq!(told("http://127.0.0.1:7600", false), Ok(()));
        assert_eq!(told("https://127.0.0.1:7600", true), Ok(()));
        for (address, reason) in [
            ("https://a:1", "a worker needs an identity for HTTPS: join the cluster first"),
            ("ftp://a", "it begins neither with http:// nor with https://"),
            ("a:1", "it begins neither with http:// nor with https://"),
            ("/a", "it names no host"),
            ("http://a b", "invalid uri character"),
        ] {
            let expected = format!("can't use {address} as the address of a server: {reason}");
            assert_eq!(told(address, false), Err(expected));
        }
    }

    #[test]
    fn a_full_set_in_parts_is_acted_on_as_a_whole() {
        let mut parts = None;
        assert_eq!(join(&mut parts, part(true, true, 1)), None);
        assert_eq!(join(&mut parts, part(false, true, 2)), None);
        let whole = join(&mut parts, part(false, false, 3)).expect("the last part");
        let jobs = whole.start.iter().filter_map(|start| Some(start.attempt?.job));
        assert!(whole.full);
        assert_eq!(jobs.collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(join(&mut parts, part(false, false, 4)), Some(part(false, false, 4)));
    }
}
