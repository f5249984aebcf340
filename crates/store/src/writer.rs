//! The log thread: it owns the [`Store`], and nothing waits for the disk but it.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rota_ports::{Frame, FrameSeq, Store};
use rota_types::LogIndex;

/// Frames are gathered into one sync until they hold this much.
const GATHER_BYTES_MAX: usize = 32 << 20;

/// Frames up to one are durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// The last one.
    pub frame: FrameSeq,
    /// How many frames one sync covered.
    pub frames: usize,
    /// How long writing and syncing them took.
    pub took: Duration,
}

/// The handle of the log thread. When it is dropped, the thread finishes what it was given and ends.
#[derive(Debug)]
pub struct LogWriter {
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Request {
    Append(Frame),
    TruncateBefore(LogIndex),
}

impl LogWriter {
    /// Starts the thread. `on_durable` is called after every sync, `on_fatal` once if the store fails: the caller then ends the process,
    /// because nobody knows what is on the disk.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn spawn(
        store: impl Store,
        on_durable: impl FnMut(Durable) + Send + 'static,
        on_fatal: impl FnOnce(io::Error) + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new().name("log".into()).spawn(move || {
            // Whoever waits for this thread must hear of its end, also if that is a bug.
            let ended = catch_unwind(AssertUnwindSafe(|| run(store, &receiver, on_durable)));
            let ended = ended.unwrap_or_else(|_| Err(io::Error::other("the log thread panicked")));
            if let Err(error) = ended {
                on_fatal(error);
            }
        })?;
        Ok(Self { requests: Some(sender), thread: Some(thread) })
    }

    /// Hands over a frame, to be made durable in order. After the store has failed, nothing happens.
    pub fn append(&self, frame: Frame) {
        self.send(Request::Append(frame));
    }

    /// Asks for entries up to and including `index` to be dropped.
    pub fn truncate_before(&self, index: LogIndex) {
        self.send(Request::TruncateBefore(index));
    }

    fn send(&self, request: Request) {
        if let Some(requests) = &self.requests {
            // The thread only ends early after a fatal error, which it has reported by itself.
            let _sent = requests.send(request);
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; there is nobody to tell here.
            let _ended = thread.join();
        }
    }
}

fn run(
    mut store: impl Store,
    requests: &Receiver<Request>,
    mut on_durable: impl FnMut(Durable),
) -> io::Result<()> {
    while let Ok(first) = requests.recv() {
        let began = Instant::now();
        let (mut frames, mut bytes, mut last, mut truncate) = (0, 0, None, None);
        let mut next = Some(first);
        while let Some(request) = next {
            match request {
                Request::Append(frame) => {
                    store.append(&frame)?;
                    frames += 1;
                    bytes += frame.bytes();
                    last = Some(frame.seq);
                }
                Request::TruncateBefore(index) => truncate = truncate.max(Some(index)),
            }
            next = (bytes < GATHER_BYTES_MAX).then(|| requests.try_recv().ok()).flatten();
        }
        if let Some(frame) = last {
            store.sync()?;
            on_durable(Durable { frame, frames, took: began.elapsed() });
        }
        if let Some(index) = truncate {
            store.truncate_before(index)?;
        }
    }
    Ok(())
}
