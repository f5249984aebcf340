//! One worker's session: registration, then reports and heartbeats one way, changes of the desired set the other way.

use std::net::IpAddr;
use std::sync::Arc;

use rota_core::command::{AttemptReport, Command, NodeSpec, Reply};
use rota_server_core::{Asker, Beat};
use rota_types::limits::{BATCH_MAX, TAIL_BYTES_MAX};
use rota_types::{AttemptId, NodeId, Span, Timestamp};
use rota_wire::worker as pb;
use tokio::sync::{Semaphore, mpsc, watch};
use tonic::{Status, Streaming};
use tracing::{debug, info, warn};

use crate::handle::{Attach, Caller, Core, Proposal, Request, Urgency};
use crate::outbox::{Ending, Outbox, Pending, Start};
use crate::refusals::Refusals;

/// Batches of reports of one worker that may wait for their commit.
const BATCHES_MAX: usize = 8;
/// Roughly the bytes of a report without its tails.
const REPORT_BYTES: usize = 128;
/// Bytes of reports that are put into one entry of the log.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Assignments in one message: with the largest actions it stays within the limit of a message.
const STARTS_MAX: usize = 1_024;
/// Bytes of actions in one message.
const START_BYTES_MAX: usize = 8 << 20;

/// How long a worker may leave a message unread.
const SEND_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

type Incoming = Streaming<pb::WorkerMessage>;

pub(super) struct Session {
    pub(super) number: u64,
    /// The only node that the worker may serve, by its certificate.
    pub(super) only: Option<String>,
    pub(super) from: Option<IpAddr>,
    pub(super) refusals: Arc<Refusals>,
    pub(super) core: Core,
    pub(super) lease: Span,
    pub(super) heartbeat: Span,
    pub(super) is_sole: bool,
    pub(super) sender: mpsc::Sender<Result<pb::ServerMessage, Status>>,
}

/// A session whose node is known.
struct Registered {
    node: NodeId,
    outbox: Arc<Outbox>,
}

impl Session {
    /// Serves the worker until either side ends it.
    pub(super) async fn run(self, mut incoming: Incoming, mut stop: watch::Receiver<bool>) {
        let registered = match self.register(&mut incoming).await {
            Ok(registered) => registered,
            Err(status) => {
                debug!(%status, "a worker could not register");
                // Perhaps another server leads: the worker has to know where that may be.
                let told = told_of(&self.core.servers().borrow());
                self.say(pb::server_message::Kind::Servers(told)).await;
                drop(self.sender.send(Err(status)).await);
                return;
            }
        };
        let Some(Registered { node, outbox }) = registered else { return };
        tokio::select! {
            () = self.receive(node, incoming) => {}
            () = self.send(&outbox) => {}
            () = crate::stopped(&mut stop) => {
                drop(self.sender.send(Err(Status::unavailable("the server shuts down"))).await);
            }
        }
        self.core.tell(Request::Detach(node, self.number));
    }

    /// Takes the worker's first message, makes its node known, and takes the node over. `None` if the worker was refused.
    async fn register(&self, incoming: &mut Incoming) -> Result<Option<Registered>, Status> {
        let first = incoming.message().await?.and_then(|message| message.kind);
        let Some(pb::worker_message::Kind::Hello(hello)) = first else {
            return Err(Status::invalid_argument("a session begins with a Hello"));
        };
        if hello.protocol != pb::PROTOCOL {
            let reason = format!(
                "this server speaks protocol {}, the worker speaks {}",
                pb::PROTOCOL,
                hello.protocol
            );
            self.refuse(reason, "run the same version of rota on both sides").await;
            return Ok(None);
        }
        let spec = match NodeSpec::try_from(hello) {
            Ok(spec) => spec,
            Err(error) => return Err(Status::invalid_argument(error.to_string())),
        };
        let (name, incarnation) = (spec.name.clone(), spec.incarnation);
        if let Some(only) = self.only.as_ref().filter(|only| **only != *name) {
            let reason =
                format!("the worker's certificate is of the node {only:?}, not of {name:?}");
            if let Some(from) = self.from {
                self.refusals.note(from, &format!("worker {only}"), &reason, "forbidden");
            }
            self.refuse(reason, "start it with that name, or join again with a new join token")
                .await;
            return Ok(None);
        }
        let answer = self.core.command(Urgency::Finishing, Command::RegisterNode(spec)).await;
        let (_, outcome) = answer.map_err(|error| Status::unavailable(error.to_string()))?;
        let node = match outcome {
            Ok(Reply::Node(node)) => node,
            Ok(_) => {
                return Err(Status::internal("a registration was answered with something else"));
            }
            Err(rejection) => {
                let reason = crate::rest::problem::explain_rejection(&rejection);
                self.refuse(reason, "change the worker's options and start it again").await;
                return Ok(None);
            }
        };
        info!(%node, %name, "worker connected");
        let outbox = Arc::new(Outbox::default());
        let attach =
            Attach { node, session: self.number, incarnation, outbox: Arc::clone(&outbox) };
        self.core.tell(Request::Attach(attach));
        Ok(Some(Registered { node, outbox }))
    }

    /// Reads what the worker says until it stops.
    async fn receive(&self, node: NodeId, mut incoming: Incoming) {
        let batches = Arc::new(Semaphore::new(BATCHES_MAX));
        let mut leaving = pb::Leaving::Staying;
        loop {
            let message = match incoming.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return,
                Err(status) => {
                    debug!(%node, %status, "session broke");
                    return;
                }
            };
            match message.kind {
                Some(pb::worker_message::Kind::Heartbeat(heartbeat)) => {
                    let (session, sent_micros) = (self.number, heartbeat.sent_micros);
                    self.core.tell(Request::Heartbeat(Beat { node, session, sent_micros }));
                    if heartbeat.leaving() != leaving {
                        leaving = heartbeat.leaving();
                        self.core.tell(Request::Leaving { node, session, leaving });
                    }
                }
                Some(pb::worker_message::Kind::Reports(reports)) => {
                    self.started(node, reports.started);
                    if !self.ended(node, reports.ended, &batches).await {
                        return;
                    }
                }
                // Of a kind that this version does not know.
                None => {}
                Some(pb::worker_message::Kind::Hello(_)) => {
                    warn!(%node, "a worker sent something that has no place in a session");
                    return;
                }
            }
        }
    }

    fn started(&self, node: NodeId, started: Vec<pb::Started>) {
        let launched: Vec<(AttemptId, Timestamp)> = started
            .into_iter()
            .filter_map(|started| {
                started.attempt.map(|attempt| (attempt.into(), Timestamp(started.at_micros)))
            })
            .collect();
        if !launched.is_empty() {
            let session = self.number;
            self.core.tell(Request::Started { node, session, launched });
        }
    }

    /// Proposes reports. They are settled through the outbox when they have been applied, taken or refused.
    async fn ended(
        &self,
        node: NodeId,
        reports: Vec<pb::Report>,
        batches: &Arc<Semaphore>,
    ) -> bool {
        let mut decoded = Vec::with_capacity(reports.len().min(BATCH_MAX));
        for report in reports {
            match report_of(node, report) {
                Ok(report) => decoded.push(report),
                Err(error) => {
                    warn!(%node, %error, "a worker sent a report that can't be read");
                    return false;
                }
            }
        }
        while !decoded.is_empty() {
            let rest = decoded.split_off(batch_of(&decoded));
            let batch = std::mem::replace(&mut decoded, rest);
            let Ok(permit) = Arc::clone(batches).acquire_owned().await else { return false };
            let bytes = batch.iter().map(report_bytes).sum();
            let commands = vec![Command::EndAttempts(batch)];
            let asker = Asker::Outside(Caller::Session(permit));
            self.core.tell(Request::Propose(Proposal { commands, bytes, asker }));
        }
        true
    }

    /// Sends what gathers in the outbox until the session has to end.
    async fn send(&self, outbox: &Outbox) {
        let mut servers = self.core.servers();
        let mut is_welcome = false;
        loop {
            let pending = tokio::select! {
                pending = outbox.take() => pending,
                Ok(()) = servers.changed(), if is_welcome => {
                    let told = told_of(&servers.borrow_and_update());
                    if self.say(pb::server_message::Kind::Servers(told)).await {
                        continue;
                    }
                    return;
                }
            };
            is_welcome |= pending.welcome.is_some();
            let ending = pending.ending;
            if !(self.greet(&pending).await && self.tell(pending).await) {
                return;
            }
            if let Some(ending) = ending {
                return self.end(ending).await;
            }
        }
    }

    /// Welcomes the worker, and acknowledges its heartbeat.
    async fn greet(&self, pending: &Pending) -> bool {
        if let Some(node) = pending.welcome {
            let welcome = pb::Welcome {
                node: node.0,
                lease_micros: self.lease.micros(),
                heartbeat_micros: self.heartbeat.micros(),
                sole_server: self.is_sole,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                servers: Some(told_of(&self.core.servers().borrow())),
            };
            if !self.say(pb::server_message::Kind::Welcome(welcome)).await {
                return false;
            }
        }
        match pending.renewed {
            Some(sent_micros) => {
                let ack = pb::HeartbeatAck { sent_micros };
                self.say(pb::server_message::Kind::HeartbeatAck(ack)).await
            }
            None => true,
        }
    }

    /// Sends changes of the desired set, or the whole of it, in as many messages as it needs.
    async fn tell(&self, pending: Pending) -> bool {
        let Pending { full, start, stop, settled, recall, .. } = pending;
        let empty = |full| pb::Desired { full, ..pb::Desired::default() };
        let mut desired = empty(full);
        let mut bytes = 0;
        for start in start {
            bytes += start.launch.action.len();
            if desired.start.len() >= STARTS_MAX || bytes > START_BYTES_MAX {
                // What does not fit into one message goes on in the next. Stops come behind all starts.
                let mut part = std::mem::replace(&mut desired, empty(false));
                part.more = full;
                if !self.say(pb::server_message::Kind::Desired(part)).await {
                    return false;
                }
                bytes = start.launch.action.len();
            }
            match assignment(&start) {
                Some(assignment) => desired.start.push(assignment),
                None => self.cannot_run(start.attempt),
            }
        }
        desired.stop = stop.into_iter().map(|(attempt, grace)| stop_of(attempt, grace)).collect();
        desired.settled = settled.into_iter().map(Into::into).collect();
        desired.recall = recall.into_iter().map(Into::into).collect();
        let any = desired != pb::Desired::default();
        !any || self.say(pb::server_message::Kind::Desired(desired)).await
    }

    fn cannot_run(&self, attempt: AttemptId) {
        // Submits are checked before they are logged; only a newer version writes such an action.
        warn!(%attempt, "its action can't be read");
    }

    async fn end(&self, ending: Ending) {
        match ending {
            Ending::Replaced => {
                let reason = "another worker process has taken this node's name".to_owned();
                self.refuse(reason, "give each worker its own name with --name").await;
            }
            Ending::Renewed => self.close("a newer session of this worker took over").await,
            Ending::Lost => self.close("the node's lease ran out: register again").await,
            Ending::Removed => self.close("the node was removed: register again").await,
            Ending::Stopping => self.close("the server shuts down").await,
            Ending::NotLeading => self.close("another server leads").await,
        }
    }

    async fn close(&self, why: &'static str) {
        drop(self.sender.send_timeout(Err(Status::unavailable(why)), SEND_TIMEOUT).await);
    }

    async fn refuse(&self, reason: String, remedy: &str) {
        let refused = pb::Refused { reason, remedy: remedy.to_owned() };
        self.say(pb::server_message::Kind::Refused(refused)).await;
    }

    async fn say(&self, kind: pb::server_message::Kind) -> bool {
        // A worker that does not read must not keep its session from ending.
        let message = Ok(pb::ServerMessage { kind: Some(kind) });
        self.sender.send_timeout(message, SEND_TIMEOUT).await.is_ok()
    }
}

/// Where the servers are reached, as workers are told.
fn told_of(addresses: &[String]) -> pb::Servers {
    pb::Servers { addresses: addresses.to_vec() }
}

/// A report with its tails cut to what a record keeps.
fn report_of(
    node: NodeId,
    mut report: pb::Report,
) -> Result<AttemptReport, rota_wire::DecodeError> {
    if let Some(detail) = &mut report.detail {
        if detail.stdout_tail.len() + detail.stderr_tail.len() > TAIL_BYTES_MAX {
            keep_tail(&mut detail.stdout_tail, TAIL_BYTES_MAX / 2);
            keep_tail(&mut detail.stderr_tail, TAIL_BYTES_MAX / 2);
        }
        detail.notes.truncate(8);
        for note in &mut detail.notes {
            let end = (0..=note.len().min(256)).rev().find(|end| note.is_char_boundary(*end));
            note.truncate(end.unwrap_or(0));
        }
    }
    pb::report_from_wire(node, report)
}

/// Roughly the bytes of a report in an entry of the log.
fn report_bytes(report: &AttemptReport) -> usize {
    REPORT_BYTES + report.detail.len()
}

/// How many of these go into one entry: as many as may be, and as fit.
fn batch_of(reports: &[AttemptReport]) -> usize {
    let mut bytes = 0;
    let fitting = reports.iter().take(BATCH_MAX).take_while(|report| {
        bytes += report_bytes(report);
        bytes <= BATCH_BYTES_MAX
    });
    fitting.count().max(1)
}

fn keep_tail(bytes: &mut Vec<u8>, max: usize) {
    let excess = bytes.len().saturating_sub(max);
    bytes.drain(..excess);
}

fn stop_of(attempt: AttemptId, grace: Span) -> pb::Stop {
    pb::Stop { attempt: Some(attempt.into()), grace_micros: grace.micros() }
}

/// What the worker is told of an attempt; `None` if the action can't be read.
fn assignment(start: &Start) -> Option<pb::Assignment> {
    let launch = &start.launch;
    let group = launch
        .decoded
        .get_or_init(|| rota_wire::action::decode_group_action(&launch.action).unwrap_or_default());
    Some(pb::Assignment {
        attempt: Some(start.attempt.into()),
        action: Some(group.action.clone()?),
        array_index: start.array_index,
        entry: group.entries.get(start.place).cloned().unwrap_or_default(),
        need: Some((&launch.need).into()),
        timeout_micros: launch.timeout.map(Span::micros),
        job_name: launch.job_name.to_string(),
        group_name: launch.group_name.to_string(),
        stop: start.stop.map(|grace| stop_of(start.attempt, grace)),
        placed_micros: start.placed_at.0,
        behind: start.behind.map(Into::into),
    })
}
