//! Reading the output of attempts from afar.

use std::collections::BTreeMap;
use std::sync::Arc;

use rota_types::AttemptId;
use rota_wire::worker::{OutputChunk, OutputRequest, OutputStream, ReadOutput, output_request};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::{Status, Streaming};

use crate::executor::Host;
use crate::spool::{Capture, Channel, Piece};

/// Bytes in one chunk.
const CHUNK_BYTES: usize = 64 << 10;
/// Requests that are served at a time; further ones are refused.
const READS_MAX: usize = 1_024;

/// Serves the server's requests for output.
#[derive(Clone)]
pub(crate) struct Outputs(pub(crate) Arc<Host>);

impl Outputs {
    /// Answers requests until the stream ends.
    pub(crate) async fn serve(
        &self,
        mut requests: Streaming<OutputRequest>,
        chunks: mpsc::Sender<OutputChunk>,
    ) -> Result<(), Status> {
        let mut reads = JoinSet::new();
        let mut running = BTreeMap::new();
        loop {
            tokio::select! {
                request = requests.message() => {
                    let Some(OutputRequest { id, kind }) = request? else { return Ok(()) };
                    match kind {
                        Some(output_request::Kind::Read(read)) if running.len() < READS_MAX => {
                            let read = self.clone().read(id, read, chunks.clone());
                            let read = async move { read.await; id };
                            running.insert(id, reads.spawn_on(read, &self.0.runtime));
                        }
                        Some(output_request::Kind::Read(_)) => {
                            let error = "this worker serves too many readers".into();
                            let chunk = OutputChunk { id, end: true, error, ..OutputChunk::default() };
                            drop(chunks.try_send(chunk));
                        }
                        Some(output_request::Kind::Cancel(_)) | None => {
                            if let Some(read) = running.remove(&id) {
                                read.abort();
                            }
                        }
                    }
                }
                Some(done) = reads.join_next() => {
                    if let Ok(id) = done {
                        running.remove(&id);
                    }
                }
            }
        }
    }

    async fn read(self, id: u64, read: ReadOutput, chunks: mpsc::Sender<OutputChunk>) {
        let attempt = read.attempt.map(AttemptId::from).unwrap_or_default();
        let end = match self.0.spool.find(attempt) {
            Some(capture) => match send(id, &read, &capture, &chunks).await {
                Ok(offset) => OutputChunk { id, offset, end: true, ..OutputChunk::default() },
                Err(error) => OutputChunk {
                    id,
                    end: true,
                    error: error.to_string(),
                    ..OutputChunk::default()
                },
            },
            None => {
                let error = format!("this worker has no output of {attempt} (any more)");
                OutputChunk { id, end: true, error, ..OutputChunk::default() }
            }
        };
        drop(chunks.send(end).await);
    }
}

/// Sends everything that was asked for. Returns the offset behind it.
async fn send(
    id: u64,
    read: &ReadOutput,
    capture: &Capture,
    chunks: &mpsc::Sender<OutputChunk>,
) -> std::io::Result<u64> {
    let channel = match read.stream() {
        OutputStream::Stdout => Channel::Stdout,
        OutputStream::Stderr => Channel::Stderr,
    };
    let mut wanted = match read.tail_bytes {
        Some(tail) => capture.written(channel).saturating_sub(tail),
        None => read.offset,
    };
    loop {
        let changed = capture.changed();
        let mut changed = std::pin::pin!(changed);
        changed.as_mut().enable();
        let over = capture.is_over();
        let Piece { offset, data, skipped } = capture.read(channel, wanted, CHUNK_BYTES)?;
        if !data.is_empty() {
            wanted = offset + data.len() as u64;
            let chunk = OutputChunk { id, offset, data, skipped, ..OutputChunk::default() };
            if chunks.send(chunk).await.is_err() {
                return Ok(wanted);
            }
        } else if over || !read.follow {
            return Ok(wanted);
        } else {
            changed.await;
        }
    }
}
