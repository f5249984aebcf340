//! One link: a stream of messages to one peer, opened again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rota_identity::Connector;
use rota_ports::MessageBytes;
use rota_types::ServerId;
use rota_wire::peer as pb;
use rota_wire::peer::peer_gateway_client::PeerGatewayClient;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tracing::{debug, info, warn};

use super::{MESSAGE_BYTES_MAX, REMOVED};
use crate::handle::{Core, Request};

/// Messages that may wait on one link.
const MESSAGES_MAX: usize = 4_096;
/// Bytes of them.
const BYTES_MAX: usize = 64 << 20;
/// Bytes that are gathered into one batch. One message alone may be larger.
const BATCH_BYTES: usize = 1 << 20;
/// Batches between the link and the network.
const BATCHES: usize = 4;
/// A peer on the same network answers within milliseconds; after a partition the next attempt has to come soon.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// How often a silent connection is asked whether it is still there, and how long it may take to answer. Without that a cut
/// link would be retried by TCP at growing intervals, long after it has healed.
const KEEP_ALIVE: Duration = Duration::from_millis(500);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(1);
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(300);
const WINDOW_BYTES: u32 = 8 << 20;

/// Something to be sent.
pub(super) enum Item {
    Message(MessageBytes),
    Sample(pb::Sample),
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Self::Message(message) => message.len(),
            Self::Sample(_) => size_of::<pb::Sample>(),
        }
    }
}

/// The core thread's end of a link. Dropping it closes the link.
pub(super) struct Link {
    address: Arc<str>,
    sender: mpsc::Sender<Item>,
    waiting: Arc<AtomicUsize>,
}

/// Where a link leads, and what it says first.
pub(super) struct Line {
    pub(super) peer: ServerId,
    pub(super) address: Arc<str>,
    pub(super) introduction: pb::Introduction,
    pub(super) core: Core,
    pub(super) tls: Option<Connector>,
}

impl Link {
    /// Opens a link and keeps it open until it is dropped or `stop` says so.
    pub(super) fn open(
        line: Line,
        runtime: &tokio::runtime::Handle,
        mut stop: watch::Receiver<bool>,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
        let waiting = Arc::new(AtomicUsize::new(0));
        let link = Self { address: line.address.clone(), sender, waiting: Arc::clone(&waiting) };
        let queue = Queue { receiver, waiting };
        runtime.spawn(async move {
            tokio::select! {
                () = line.run(queue) => {}
                () = crate::stopped(&mut stop) => {}
            }
        });
        link
    }

    /// Whether the link leads there.
    pub(super) fn leads_to(&self, address: &str) -> bool {
        &*self.address == address
    }

    /// Sends something if there is room.
    pub(super) fn send(&self, item: Item) {
        let length = item.bytes();
        if self.waiting.load(Ordering::Relaxed).saturating_add(length) > BYTES_MAX {
            return;
        }
        self.waiting.fetch_add(length, Ordering::Relaxed);
        if self.sender.try_send(item).is_err() {
            self.waiting.fetch_sub(length, Ordering::Relaxed);
        }
    }
}

/// What waits on a link.
struct Queue {
    receiver: mpsc::Receiver<Item>,
    waiting: Arc<AtomicUsize>,
}

impl Queue {
    /// Takes what waits, as much as one batch may hold. `None` if the link was closed.
    async fn take(&mut self) -> Option<pb::Batch> {
        let mut next = self.receiver.recv().await;
        next.as_ref()?;
        let (mut batch, mut bytes) = (pb::Batch::default(), 0);
        while let Some(item) = next {
            bytes += item.bytes();
            match item {
                Item::Message(message) => batch.messages.push(message),
                Item::Sample(sample) => batch.samples.push(sample),
            }
            next = (bytes < BATCH_BYTES).then(|| self.receiver.try_recv().ok()).flatten();
        }
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        Some(batch)
    }

    /// Throws away what waits: it was meant for a connection that is gone.
    fn clear(&mut self) {
        while let Ok(item) = self.receiver.try_recv() {
            self.waiting.fetch_sub(item.bytes(), Ordering::Relaxed);
        }
    }
}

/// Why a connection is over.
enum Over {
    /// The link is not wanted any more.
    Closed,
    /// It failed, before or after it carried messages.
    Failed,
    /// The other side will not have it: waiting does not help.
    Refused(String),
}

impl Line {
    async fn run(&self, mut queue: Queue) {
        let mut pause = PAUSE_MIN;
        let mut told = None;
        loop {
            match connect(&self.address, self.tls.as_ref()).await {
                Ok(channel) => {
                    pause = PAUSE_MIN;
                    queue.clear();
                    self.core.tell(Request::LinkReset(self.peer));
                    info!(peer = %self.peer, address = %self.address, "linked");
                    match self.carry(channel, &mut queue).await {
                        Over::Closed => return,
                        Over::Failed => told = None,
                        Over::Refused(reason) => self.warn(reason, &mut told),
                    }
                    info!(peer = %self.peer, "link lost");
                    self.core.tell(Request::LinkReset(self.peer));
                }
                Err(error) => match about_certificate(&error) {
                    Some(reason) => self.warn(reason, &mut told),
                    None => debug!(peer = %self.peer, %error, "no link"),
                },
            }
            queue.clear();
            if queue.receiver.is_closed() {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Says what somebody has to mend, once.
    fn warn(&self, reason: String, told: &mut Option<String>) {
        if told.as_ref() != Some(&reason) {
            warn!(peer = %self.peer, address = %self.address, %reason, "no link: is that a server of this cluster?");
            *told = Some(reason);
        }
    }

    /// Carries messages until the connection ends or the link is closed.
    async fn carry(&self, channel: Channel, queue: &mut Queue) -> Over {
        let mut client = PeerGatewayClient::new(channel)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let (batches, outgoing) = mpsc::channel(BATCHES);
        let introduction = Some(self.introduction.clone());
        drop(batches.try_send(pb::Batch { introduction, ..pb::Batch::default() }));
        let answer = client.exchange(ReceiverStream::new(outgoing));
        let feed = async {
            while let Some(batch) = queue.take().await {
                if batches.send(batch).await.is_err() {
                    return Over::Failed;
                }
            }
            Over::Closed
        };
        tokio::select! {
            over = feed => over,
            ended = answer => {
                if let Err(status) = ended {
                    if status.code() == REMOVED {
                        self.core.tell(Request::Expelled);
                    }
                    debug!(peer = %self.peer, %status, "link ended");
                    if matches!(status.code(), Code::FailedPrecondition | Code::PermissionDenied | Code::Unauthenticated) {
                        return Over::Refused(status.message().to_owned());
                    }
                }
                Over::Failed
            }
        }
    }
}

/// What is wrong with the certificate that one side showed the other, if that is why there is no connection.
fn about_certificate(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts = causes.map(ToString::to_string);
    texts.into_iter().find(|text| text.contains("certificate") || text.contains("fatal alert"))
}

/// Opens a connection to a server.
pub(super) async fn connect(
    address: &str,
    tls: Option<&Connector>,
) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(address.to_owned())?
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(2 * WINDOW_BYTES);
    match tls {
        Some(tls) => endpoint.connect_with_connector(tls.clone()).await,
        None => endpoint.connect().await,
    }
}
