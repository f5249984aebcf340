//! The receiving end of the links.

use std::net::IpAddr;
use std::sync::Arc;

use rota_core::server::ServerSpec;
use rota_types::{LogIndex, ServerId};
use rota_wire::peer as pb;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};
use tracing::debug;

use super::founding::Doorkeeper;
use super::{Images, MESSAGE_BYTES_MAX, Origin, REMOVED};
use crate::auth::{Caller, Connection};
use crate::handle::{self, Core};
use crate::refusals::Refusals;

/// The service as it is mounted.
pub(crate) type Service = pb::peer_gateway_server::PeerGatewayServer<PeerGateway>;

/// Takes what other servers send.
pub(crate) struct PeerGateway {
    pub(crate) origin: Origin,
    pub(crate) core: Core,
    pub(crate) images: Images,
    pub(crate) doorkeeper: Doorkeeper,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) stop: watch::Receiver<bool>,
}

impl PeerGateway {
    /// The service with its limits.
    pub(crate) fn service(self) -> Service {
        Service::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// What the sender says of itself, if it means this server and still belongs to the cluster; who does not is noted.
    async fn admit(
        &self,
        introduction: Option<pb::Introduction>,
        sender: &Sender,
    ) -> Result<ServerSpec, Status> {
        let checked = self.identify(introduction, sender.shown).inspect_err(|status| {
            if let Some(from) = sender.from {
                let who = sender.shown.map_or_else(String::new, |shown| format!("server {shown}"));
                self.refusals.note(from, &who, status.message(), "wrong-server");
            }
        });
        let spec = checked?;
        let id = spec.id;
        let has_gone = self.core.peek(move |view| {
            view.replica.members().iter().all(|member| member.id != id) && view.state.has_gone(id)
        });
        match has_gone.await {
            Ok(false) => Ok(spec),
            Ok(true) => Err(Status::new(REMOVED, format!("server {id} was removed"))),
            Err(error) => Err(Status::unavailable(error.to_string())),
        }
    }

    /// Whether the sender means this server, and what it says of itself.
    fn identify(
        &self,
        introduction: Option<pb::Introduction>,
        shown: Option<u64>,
    ) -> Result<ServerSpec, Status> {
        let Some(introduction) = introduction else {
            return Err(Status::invalid_argument("a link begins with an introduction"));
        };
        let pb::Introduction { protocol, cluster, from, to, address, version, level } =
            introduction;
        let own = self.origin.identity;
        if protocol != pb::PROTOCOL {
            let known = pb::PROTOCOL;
            return Err(Status::failed_precondition(format!(
                "this server speaks protocol {known} with its peers, server {from} speaks {protocol}"
            )));
        }
        if cluster != own.cluster.0 || to != own.server.0 {
            return Err(Status::failed_precondition(format!(
                "this is server {} of cluster {}: the sender looks for another one at this address",
                own.server, own.cluster
            )));
        }
        if shown.is_some_and(|shown| shown != from) {
            return Err(Status::permission_denied("the certificate is of another server"));
        }
        if from == own.server.0 {
            return Err(Status::failed_precondition(format!(
                "server {from} runs already: two servers must not have one number"
            )));
        }
        let (id, address, version) = (ServerId(from), address.into(), version.into());
        Ok(ServerSpec { id, address, version, level })
    }
}

#[tonic::async_trait]
impl pb::peer_gateway_server::PeerGateway for PeerGateway {
    type ImageStream = super::image::Parts;

    async fn exchange(
        &self,
        request: Request<Streaming<pb::Batch>>,
    ) -> Result<Response<pb::Done>, Status> {
        let sender = Sender::of(&request);
        let mut incoming = request.into_inner();
        let first = incoming.message().await?.unwrap_or_default();
        let spec = self.admit(first.introduction, &sender).await?;
        let from = spec.id;
        self.doorkeeper.meet(from).await?;
        self.core.tell(handle::Request::Introduced(spec));
        let mut stop = self.stop.clone();
        loop {
            let batch = tokio::select! {
                batch = incoming.message() => batch?,
                () = crate::stopped(&mut stop) => return Err(Status::unavailable("the server shuts down")),
            };
            let Some(batch) = batch else {
                debug!(peer = %from, "link closed");
                return Ok(Response::new(pb::Done {}));
            };
            for pb::Sample { index, digest, version } in batch.samples {
                // While servers are upgraded one by one, only those of one version can be compared.
                if version == env!("CARGO_PKG_VERSION") {
                    self.core.tell(handle::Request::Sample(from, LogIndex(index), digest));
                }
            }
            self.core.tell(handle::Request::Peer(from, batch.messages));
        }
    }

    async fn image(
        &self,
        request: Request<pb::ImageRequest>,
    ) -> Result<Response<Self::ImageStream>, Status> {
        let sender = Sender::of(&request);
        let pb::ImageRequest { introduction, index } = request.into_inner();
        self.admit(introduction, &sender).await?;
        self.images.send(LogIndex(index)).await.map(Response::new)
    }

    async fn acquaint(
        &self,
        request: Request<pb::Introduction>,
    ) -> Result<Response<pb::Acquainted>, Status> {
        let sender = Sender::of(&request);
        let from = self.admit(Some(request.into_inner()), &sender).await?.id;
        Ok(Response::new(self.doorkeeper.tell(from)))
    }
}

/// Who sent a request, as the connection tells.
struct Sender {
    /// The number in the certificate; `None` if nobody was asked.
    shown: Option<u64>,
    from: Option<IpAddr>,
}

impl Sender {
    fn of<T>(request: &Request<T>) -> Self {
        let shown = match request.extensions().get::<Caller>() {
            Some(Caller::Server(number)) => Some(*number),
            Some(Caller::Anyone | Caller::Holder(_) | Caller::Worker(_) | Caller::Unknown(_))
            | None => None,
        };
        let connection = request.extensions().get::<Connection>();
        Self { shown, from: connection.map(|connection| connection.from.ip()) }
    }
}
