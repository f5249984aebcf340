//! Whole images: the newest snapshot and the history of finished work, for a server that the log no longer reaches.
//!
//! The receiver writes both beside what it has. When both are durable it starts again with them; a crash before leaves it as it was.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use rota_identity::Connector;
use rota_ports::{Members, SnapshotMeta};
use rota_store::backup::{self, About, Source, row_from_wire, row_to_wire};
use rota_store::disk::Disk;
use rota_store::history::{History, HistoryPlace, Row};
use rota_store::snapshot::{self, Incoming};
use rota_store::wal::LogReader;
use rota_store::{Identity, StoreError};
use rota_types::{LogIndex, ServerId};
use rota_wire::peer as pb;
use rota_wire::peer::image_part::Kind;
use rota_wire::peer::peer_gateway_client::PeerGatewayClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::{info, warn};

use super::{MESSAGE_BYTES_MAX, link};
use crate::handle::Core;

/// Bytes of records that are sent together.
const PART_BYTES: usize = 1 << 20;
/// Parts between disk and network.
const PARTS: usize = 4;

/// An image on its way.
pub(crate) type Parts =
    Pin<Box<dyn futures_util::Stream<Item = Result<pb::ImagePart, Status>> + Send>>;

/// The files that images are made of.
#[derive(Clone)]
pub(crate) struct Images {
    pub(crate) disk: Arc<dyn Disk>,
    /// Whose the files say they are: a server that ran alone before is another one now.
    pub(crate) identity: Identity,
    /// Whose they are.
    pub(crate) own: Identity,
    pub(crate) history: std::sync::Weak<History>,
    pub(crate) reader: LogReader,
    pub(crate) place: HistoryPlace,
    pub(crate) core: Core,
    /// How peers are reached, if they have to prove who they are.
    pub(crate) tls: Option<Connector>,
}

impl Images {
    /// The newest image, of at least the entry at `least`; a snapshot is made if there is none.
    pub(super) async fn send(&self, least: LogIndex) -> Result<Parts, Status> {
        self.core.snapshot(least).await.map_err(Status::unavailable)?;
        let (sender, receiver) = mpsc::channel(PARTS);
        let images = self.clone();
        tokio::task::spawn_blocking(move || {
            let outlet = Outlet(sender);
            if let Err(error) = images.read(&outlet) {
                outlet.put(Err(Status::internal(error.to_string())));
            }
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }

    fn read(&self, outlet: &Outlet) -> Result<(), StoreError> {
        let gone = || StoreError::History("the server goes down".to_owned());
        let history = self.history.upgrade().ok_or_else(gone)?;
        let newest = snapshot::latest(self.disk.as_ref())?.ok_or_else(gone)?;
        let snapshot = snapshot::open(&self.disk, &self.identity, newest)?;
        if !outlet.part(Kind::Begin(begin(snapshot.meta()))) {
            return Ok(());
        }
        let (mut records, mut bytes, mut sent) = (Vec::new(), 0, 0);
        for record in snapshot.encoded()? {
            let record = record?;
            (bytes, sent) = (bytes + record.len(), sent + 1);
            records.push(record);
            if bytes >= PART_BYTES {
                bytes = 0;
                let records = std::mem::take(&mut records);
                if !outlet.part(Kind::Records(pb::ImageRecords { records })) {
                    return Ok(());
                }
            }
        }
        if !outlet.part(Kind::Records(pb::ImageRecords { records })) {
            return Ok(());
        }
        let mut rows_sent = 0;
        let reached = history.export(|rows| {
            rows_sent += rows.len() as u64;
            let rows = rows.into_iter().map(row_to_wire).collect();
            outlet.part(Kind::History(pb::HistoryRows { rows }))
        })?;
        let end = pb::ImageEnd { records: sent, rows: rows_sent, history_index: reached.0 };
        outlet.part(Kind::End(end));
        Ok(())
    }

    /// Everything that this server holds, as a backup, piece by piece.
    pub(crate) async fn back_up(&self) -> Result<ReceiverStream<io::Result<Vec<u8>>>, String> {
        self.core.snapshot(LogIndex(1)).await?;
        let (sender, receiver) = mpsc::channel(PARTS);
        let images = self.clone();
        tokio::task::spawn_blocking(move || {
            let mut put = |bytes| sender.blocking_send(Ok(bytes)).is_ok();
            if let Err(error) = images.write_backup(&mut put) {
                warn!(%error, "a backup failed");
                // The answer is cut off: whoever gets it sees that it is not whole.
                drop(sender.blocking_send(Err(io::Error::other(error.to_string()))));
            }
        });
        Ok(ReceiverStream::new(receiver))
    }

    fn write_backup(&self, put: &mut dyn FnMut(Vec<u8>) -> bool) -> Result<(), StoreError> {
        let gone = || StoreError::History("the server goes down".to_owned());
        let history = self.history.upgrade().ok_or_else(gone)?;
        let (disk, identity, reader) = (&self.disk, self.identity, &self.reader);
        let source = Source { disk, identity, history: &history, reader };
        let about = About {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            identity: self.own,
            taken_at: crate::clock::wall(),
            index: LogIndex(0),
        };
        backup::write(&source, &about, || self.core.applied(), put)
    }

    /// Gets an image of at least the entry at `least` and makes it durable beside what is there.
    pub(super) async fn fetch(
        &self,
        address: &str,
        introduction: pb::Introduction,
        least: LogIndex,
    ) -> Result<(), String> {
        let channel =
            link::connect(address, self.tls.as_ref()).await.map_err(|error| error.to_string())?;
        let mut client = PeerGatewayClient::new(channel)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let request = pb::ImageRequest { introduction: Some(introduction), index: least.0 };
        let answer = client.image(request).await.map_err(|status| status.to_string())?;
        let mut parts = answer.into_inner();
        let (sender, receiver) = mpsc::channel(PARTS);
        let images = self.clone();
        let writing = tokio::task::spawn_blocking(move || images.write(receiver));
        while let Some(part) = parts.message().await.map_err(|status| status.to_string())? {
            if let Some(kind) = part.kind
                && sender.send(kind).await.is_err()
            {
                break; // the writer says why
            }
        }
        drop(sender);
        let written = writing.await.map_err(|error| error.to_string())?;
        let index = written.map_err(|error| error.to_string())?;
        info!(%index, "got another server's state");
        Ok(())
    }

    fn write(&self, mut parts: mpsc::Receiver<Kind>) -> Result<LogIndex, StoreError> {
        let broken = |what: &str| StoreError::History(format!("the image {what}"));
        let Some(Kind::Begin(begin)) = parts.blocking_recv() else {
            return Err(broken("does not say what it is of"));
        };
        let meta = meta_of(begin);
        let index = meta.index;
        let mut incoming = Incoming::begin(&self.disk, &self.identity, meta)?;
        let mut history = self.place.begin_import(&self.identity)?;
        let (mut records, mut rows) = (0, 0);
        while let Some(part) = parts.blocking_recv() {
            match part {
                Kind::Begin(_) => return Err(broken("begins twice")),
                Kind::Records(part) => {
                    records += part.records.len() as u64;
                    part.records.iter().try_for_each(|record| incoming.add(record))?;
                }
                Kind::History(part) => {
                    rows += part.rows.len() as u64;
                    let decoded = part.rows.into_iter().map(row_from_wire);
                    let decoded: Option<Vec<Row>> = decoded.collect();
                    history.add(decoded.ok_or_else(|| broken("has rows of an unknown kind"))?)?;
                }
                Kind::End(end) => {
                    if (end.records, end.rows) != (records, rows) || end.history_index < index.0 {
                        return Err(broken("is not whole"));
                    }
                    history.finish(LogIndex(end.history_index))?;
                    incoming.finish()?;
                    return Ok(index);
                }
            }
        }
        Err(broken("was cut off"))
    }
}

/// Where parts are put.
struct Outlet(mpsc::Sender<Result<pb::ImagePart, Status>>);

impl Outlet {
    /// Returns whether anybody still takes them.
    fn part(&self, kind: Kind) -> bool {
        self.put(Ok(pb::ImagePart { kind: Some(kind) }))
    }

    fn put(&self, part: Result<pb::ImagePart, Status>) -> bool {
        self.0.blocking_send(part).is_ok()
    }
}

fn begin(meta: &SnapshotMeta) -> pb::ImageBegin {
    let ids = |servers: &[ServerId]| servers.iter().map(|id| id.0).collect();
    let Members { voters, outgoing, learners, learners_next } = &meta.members;
    pb::ImageBegin {
        index: meta.index.0,
        term: meta.term,
        voters: ids(voters),
        outgoing: ids(outgoing),
        learners: ids(learners),
        learners_next: ids(learners_next),
    }
}

fn meta_of(begin: pb::ImageBegin) -> SnapshotMeta {
    let ids = |servers: Vec<u64>| servers.into_iter().map(ServerId).collect();
    let members = Members {
        voters: ids(begin.voters),
        outgoing: ids(begin.outgoing),
        learners: ids(begin.learners),
        learners_next: ids(begin.learners_next),
    };
    SnapshotMeta { index: LogIndex(begin.index), term: begin.term, members }
}
