//! The worker gateway: sessions and output streams over gRPC.

mod outputs;
mod session;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rota_types::{NodeId, Span};
use rota_wire::worker as pb;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

pub(crate) use outputs::{Chunk, OutputRead, Outputs, ReadFailed, Wanted};

use crate::auth::{Caller, Connection};
use crate::config::ServerConfig;
use crate::core_thread::View;
use crate::handle::Core;
use crate::refusals::Refusals;

/// Bytes of one message, both ways.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Messages to a worker that may wait for the network; behind them, changes gather in the outbox.
const SEND_QUEUE: usize = 4;
/// Names the node on the output stream.
const NODE_KEY: &str = "rota-node";

/// The service as it is mounted.
pub(crate) type Service = pb::worker_gateway_server::WorkerGatewayServer<Gateway>;
type Outgoing<T> = Pin<Box<dyn futures_util::Stream<Item = Result<T, Status>> + Send>>;

/// Serves workers.
pub(crate) struct Gateway {
    core: Core,
    outputs: Arc<Outputs>,
    lease: Span,
    heartbeat: Span,
    stop: watch::Receiver<bool>,
    sessions: AtomicU64,
    /// Whether this server runs alone: nobody else can take a worker's tasks away.
    is_sole: bool,
    refusals: Arc<Refusals>,
}

impl Gateway {
    /// Serves the workers of a server that is set up like this.
    pub(crate) fn new(
        config: &ServerConfig,
        core: Core,
        (outputs, refusals): (Arc<Outputs>, Arc<Refusals>),
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            core,
            outputs,
            lease: config.lease,
            heartbeat: config.heartbeat(),
            stop,
            sessions: AtomicU64::new(1),
            is_sole: config.cluster.is_none(),
            refusals,
        }
    }

    /// The service with its limits.
    pub(crate) fn service(self) -> Service {
        Service::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl pb::worker_gateway_server::WorkerGateway for Gateway {
    type SessionStream = Outgoing<pb::ServerMessage>;
    type OutputStream = Outgoing<pb::OutputRequest>;

    async fn session(
        &self,
        request: Request<Streaming<pb::WorkerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (sender, receiver) = mpsc::channel(SEND_QUEUE);
        let session = session::Session {
            only: request.extensions().get::<Caller>().and_then(node_of),
            from: request.extensions().get::<Connection>().map(|one| one.from.ip()),
            refusals: Arc::clone(&self.refusals),
            number: self.sessions.fetch_add(1, Ordering::Relaxed),
            core: self.core.clone(),
            lease: self.lease,
            heartbeat: self.heartbeat,
            is_sole: self.is_sole,
            sender,
        };
        tokio::spawn(session.run(request.into_inner(), self.stop.clone()));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn output(
        &self,
        request: Request<Streaming<pb::OutputChunk>>,
    ) -> Result<Response<Self::OutputStream>, Status> {
        let node = request
            .metadata()
            .get(NODE_KEY)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.parse::<NodeId>().ok())
            .ok_or_else(|| {
                Status::invalid_argument("the metadata `rota-node` has to be the node's number")
            })?;
        if let Some(own) = request.extensions().get::<Caller>().and_then(node_of) {
            let named = move |view: &View<'_>| {
                view.state.node(node).is_some_and(|node| *node.spec.name == *own)
            };
            let named = self.core.query(named).await;
            if !named.map_err(|error| Status::unavailable(error.to_string()))? {
                return Err(Status::permission_denied("the certificate is of another node"));
            }
        }
        let (sender, receiver) = mpsc::channel(SEND_QUEUE);
        let link = self.outputs.connect(node, sender);
        tokio::spawn(link.run(request.into_inner(), self.stop.clone()));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// The only node that the caller may serve; `None` if nobody was asked.
fn node_of(caller: &Caller) -> Option<String> {
    match caller {
        Caller::Worker(name) => Some(name.clone()),
        Caller::Anyone | Caller::Holder(_) | Caller::Server(_) | Caller::Unknown(_) => None,
    }
}
