//! Reads of attempts' output from the workers that hold it: one stream per worker carries all of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rota_types::{AttemptId, NodeId};
use rota_wire::worker as pb;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tonic::{Status, Streaming};
use tracing::debug;

/// Chunks that may wait for one reader. One that falls behind is cancelled and asks again from where it is.
const CHUNKS_MAX: usize = 64;
/// Reads that may be open at one worker.
const READS_MAX: usize = 1_024;
/// Requests that may wait to be sent to one worker.
const REQUESTS_MAX: usize = 2 * READS_MAX;

/// The output streams of all workers.
#[derive(Default)]
pub(crate) struct Outputs {
    links: Mutex<BTreeMap<NodeId, Arc<Link>>>,
    next: AtomicU64,
}

/// The output stream of one worker.
pub(crate) struct Link {
    node: NodeId,
    outgoing: mpsc::Sender<pb::OutputRequest>,
    readers: Mutex<BTreeMap<u64, Reader>>,
}

/// Where the chunks of one read go, and room for the message that ends it at the worker.
struct Reader {
    chunks: mpsc::Sender<Chunk>,
    cancel: mpsc::OwnedPermit<pb::OutputRequest>,
}

/// What is wanted of one attempt's output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) attempt: AttemptId,
    pub(crate) stream: pb::OutputStream,
    pub(crate) offset: u64,
    pub(crate) tail_bytes: Option<u64>,
    pub(crate) follow: bool,
}

/// Part of an output.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    pub(crate) offset: u64,
    pub(crate) skipped: u64,
    pub(crate) data: Bytes,
    end: bool,
    error: String,
}

impl Chunk {
    /// The only part of an output that comes from somewhere else.
    pub(crate) fn of(offset: u64, skipped: u64, data: Bytes) -> Self {
        Self { offset, skipped, data, end: true, error: String::new() }
    }
}

/// There is nothing (more) to be had from the worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReadFailed {
    /// No worker of that node is connected.
    NotConnected,
    /// The worker has too many reads open.
    Busy,
    /// The worker says why.
    Refused(String),
}

/// A read that goes on.
pub(crate) struct OutputRead {
    link: Arc<Link>,
    id: u64,
    chunks: mpsc::Receiver<Chunk>,
    wanted: Wanted,
    next: Arc<Outputs>,
    done: bool,
}

impl Outputs {
    /// Takes the worker's stream in place of an earlier one. What it wants sent goes through `sender`.
    pub(super) fn connect(
        self: &Arc<Self>,
        node: NodeId,
        sender: mpsc::Sender<Result<pb::OutputRequest, Status>>,
    ) -> Connected {
        let (outgoing, requests) = mpsc::channel(REQUESTS_MAX);
        let link = Arc::new(Link { node, outgoing, readers: Mutex::default() });
        lock(&self.links).insert(node, Arc::clone(&link));
        Connected { outputs: Arc::clone(self), link, requests, sender }
    }

    /// Begins to read.
    pub(crate) fn read(
        self: &Arc<Self>,
        node: NodeId,
        wanted: Wanted,
    ) -> Result<OutputRead, ReadFailed> {
        let link = lock(&self.links).get(&node).cloned().ok_or(ReadFailed::NotConnected)?;
        let (id, chunks) = self.open(&link, wanted)?;
        Ok(OutputRead { link, id, chunks, wanted, next: Arc::clone(self), done: false })
    }

    fn open(
        &self,
        link: &Link,
        wanted: Wanted,
    ) -> Result<(u64, mpsc::Receiver<Chunk>), ReadFailed> {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
        let cancel = link.outgoing.clone().try_reserve_owned().map_err(|full| not_sent(&full))?;
        {
            let mut readers = lock(&link.readers);
            if readers.len() >= READS_MAX {
                return Err(ReadFailed::Busy);
            }
            readers.insert(id, Reader { chunks: sender, cancel });
        }
        let Wanted { attempt, stream, offset, tail_bytes, follow } = wanted;
        let read = pb::ReadOutput {
            attempt: Some(attempt.into()),
            stream: stream.into(),
            offset,
            tail_bytes,
            follow,
        };
        let kind = Some(pb::output_request::Kind::Read(read));
        if let Err(failed) = link.outgoing.try_send(pb::OutputRequest { id, kind }) {
            lock(&link.readers).remove(&id);
            return Err(not_sent(&failed));
        }
        Ok((id, chunks))
    }
}

/// Why a worker could not be asked: too much waits to be sent to it, or its stream is over.
fn not_sent<T>(failed: &TrySendError<T>) -> ReadFailed {
    match failed {
        TrySendError::Full(_) => ReadFailed::Busy,
        TrySendError::Closed(_) => ReadFailed::NotConnected,
    }
}

impl Link {
    fn cancel(&self, id: u64) {
        if let Some(reader) = lock(&self.readers).remove(&id) {
            let kind = Some(pb::output_request::Kind::Cancel(true));
            reader.cancel.send(pb::OutputRequest { id, kind });
        }
    }

    fn take(&self, message: pb::OutputChunk) {
        let pb::OutputChunk { id, offset, data, end, error, skipped } = message;
        let end = end || !error.is_empty();
        let reader = lock(&self.readers).get(&id).map(|reader| reader.chunks.clone());
        let Some(chunks) = reader else { return };
        let chunk = Chunk { offset, skipped, data: Bytes::from(data), end, error };
        match chunks.try_send(chunk) {
            Ok(()) if end => {
                lock(&self.readers).remove(&id);
            }
            Ok(()) => {}
            // The reader sees its channel end without an end, and asks again when it has caught up.
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => self.cancel(id),
        }
    }
}

impl OutputRead {
    /// What is still to come.
    pub(crate) fn wanted(&self) -> Wanted {
        self.wanted
    }

    /// The next part; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Result<Chunk, ReadFailed>> {
        while !self.done {
            let Some(chunk) = self.chunks.recv().await else {
                match self.again() {
                    Ok(()) => continue,
                    Err(failed) => {
                        self.done = true;
                        return Some(Err(failed));
                    }
                }
            };
            self.done = chunk.end;
            if !chunk.error.is_empty() {
                return Some(Err(ReadFailed::Refused(chunk.error)));
            }
            self.wanted.offset = chunk.offset + chunk.data.len() as u64;
            self.wanted.tail_bytes = None;
            if !chunk.data.is_empty() || chunk.skipped > 0 {
                return Some(Ok(chunk));
            }
        }
        None
    }

    /// Asks for the rest: this reader was too slow, or the worker's stream broke and another took its place.
    fn again(&mut self) -> Result<(), ReadFailed> {
        let current = lock(&self.next.links).get(&self.link.node).cloned();
        self.link = current.ok_or(ReadFailed::NotConnected)?;
        (self.id, self.chunks) = self.next.open(&self.link, self.wanted)?;
        Ok(())
    }
}

impl Drop for OutputRead {
    fn drop(&mut self) {
        self.link.cancel(self.id);
    }
}

/// A connected stream, not yet served.
pub(super) struct Connected {
    outputs: Arc<Outputs>,
    link: Arc<Link>,
    requests: mpsc::Receiver<pb::OutputRequest>,
    sender: mpsc::Sender<Result<pb::OutputRequest, Status>>,
}

impl Connected {
    /// Passes requests and chunks on until the stream ends.
    pub(super) async fn run(
        mut self,
        mut incoming: Streaming<pb::OutputChunk>,
        mut stop: watch::Receiver<bool>,
    ) {
        loop {
            tokio::select! {
                message = incoming.message() => match message {
                    Ok(Some(message)) => self.link.take(message),
                    Ok(None) => break,
                    Err(status) => {
                        debug!(node = %self.link.node, %status, "output stream broke");
                        break;
                    }
                },
                Some(request) = self.requests.recv() => {
                    if self.sender.send(Ok(request)).await.is_err() {
                        break;
                    }
                }
                () = crate::stopped(&mut stop) => break,
            }
        }
        self.end();
    }

    /// Gives the worker up. Whoever reads asks again, and learns that nobody is connected.
    fn end(&mut self) {
        // First, so that nobody asks a stream that is not served any more, and then waits for its answer.
        self.requests.close();
        let mut links = lock(&self.outputs.links);
        if links.get(&self.link.node).is_some_and(|link| Arc::ptr_eq(link, &self.link)) {
            links.remove(&self.link.node);
        }
        lock(&self.link.readers).clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(1);
    const WANTED: Wanted = Wanted {
        attempt: AttemptId {
            task: rota_types::TaskId { job: rota_types::JobId(1), index: 0 },
            number: 1,
        },
        stream: pb::OutputStream::Stdout,
        offset: 0,
        tail_bytes: None,
        follow: true,
    };

    fn connected() -> (Arc<Outputs>, Connected) {
        let outputs = Arc::new(Outputs::default());
        let connected = outputs.connect(NODE, mpsc::channel(1).0);
        (outputs, connected)
    }

    #[test]
    fn a_stream_that_ends_takes_no_reader_that_would_wait_for_ever() {
        let (outputs, mut connected) = connected();
        let link = Arc::clone(&connected.link);
        connected.end();
        assert_eq!(outputs.read(NODE, WANTED).err(), Some(ReadFailed::NotConnected));
        // Somebody who has looked the link up before it ended.
        assert_eq!(outputs.open(&link, WANTED).err(), Some(ReadFailed::NotConnected));
        assert!(lock(&link.readers).is_empty());
    }

    #[test]
    fn a_worker_is_told_of_every_reader_that_leaves_however_much_waits_to_be_sent() {
        let (outputs, mut connected) = connected();
        let mut reads = Vec::new();
        while let Ok(read) = outputs.read(NODE, WANTED) {
            reads.push(read);
        }
        assert_eq!(reads.len(), READS_MAX);
        drop(reads);
        let cancels = std::iter::from_fn(|| connected.requests.try_recv().ok())
            .filter(|request| request.kind == Some(pb::output_request::Kind::Cancel(true)));
        assert_eq!(cancels.count(), READS_MAX);
    }
}
