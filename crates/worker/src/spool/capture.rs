//! The output of one attempt.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use rota_types::AttemptId;
use tokio::sync::Notify;

use super::stream::{Piece, Stream};
use super::{lock, shelf};
use crate::config::OutputLimits;

/// One of the two streams of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    Stdout,
    Stderr,
}

/// The output of one attempt.
#[derive(Debug)]
pub(crate) struct Capture {
    pub(super) id: AttemptId,
    dir: PathBuf,
    limits: OutputLimits,
    streams: [Mutex<Stream>; 2],
    over: AtomicBool,
    /// Whether it was there before: see [`Capture::lasts`].
    seen: AtomicBool,
    changed: Notify,
}

/// What a report says about one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) tail: Vec<u8>,
    pub(crate) written: u64,
    pub(crate) note: Option<String>,
}

impl Channel {
    pub(super) const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

impl Capture {
    pub(super) fn new(id: AttemptId, dir: &Path, limits: OutputLimits) -> Self {
        let (over, seen, changed) = (false.into(), false.into(), Notify::new());
        let streams = Default::default();
        Self { id, dir: dir.to_path_buf(), limits, streams, over, seen, changed }
    }

    /// The output of an attempt that is over, from its files; `None` if they are gone.
    pub(super) fn reopen(id: AttemptId, dir: &Path, limits: OutputLimits) -> Option<Self> {
        let files =
            Channel::ALL.map(|channel| Stream::reopen(&shelf::file(dir, id, channel), &limits));
        if files.iter().all(Option::is_none) {
            return None;
        }
        // A stream without a file is one to which nothing was written.
        let streams = files.map(|stream| Mutex::new(stream.unwrap_or_default()));
        Some(Self { streams, over: true.into(), ..Self::new(id, dir, limits) })
    }

    /// Adds what a process wrote. A disk that does not take it costs the output, not the attempt.
    pub(crate) fn write(&self, channel: Channel, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.stream(channel).write(&self.limits, data, || self.file(channel));
        self.changed.notify_waiters();
    }

    /// Up to `max` bytes from `offset` on. Empty if there is nothing (yet).
    pub(crate) fn read(&self, channel: Channel, offset: u64, max: usize) -> io::Result<Piece> {
        self.stream(channel).read(&self.limits, offset, max)
    }

    /// All that was written so far, kept or not.
    pub(crate) fn written(&self, channel: Channel) -> u64 {
        self.stream(channel).written()
    }

    /// Whether nothing will be added.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Wakes on every change. Ask for it before looking.
    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// The end of a stream, and what became of the rest.
    pub(crate) fn summary(&self, channel: Channel) -> Summary {
        let stream = self.stream(channel);
        let (written, name) = (stream.written(), channel.name());
        let dropped = written.saturating_sub(self.limits.head_bytes + self.limits.tail_bytes);
        let note = match stream.failure() {
            Some(failure) => Some(format!("{name}: {failure}")),
            None if dropped > 0 => Some(format!(
                "{name}: {dropped} of {written} bytes dropped between the first {} and the last {}",
                self.limits.head_bytes, self.limits.tail_bytes
            )),
            None => None,
        };
        Summary { tail: stream.tail(&self.limits).unwrap_or_default(), written, note }
    }

    /// Whether it was asked for before: true from the second time on.
    pub(super) fn lasts(&self) -> bool {
        self.seen.swap(true, Ordering::Relaxed)
    }

    /// Puts what is in memory into files, so that it outlives the worker.
    pub(super) fn spill(&self) {
        for channel in Channel::ALL {
            self.stream(channel).spill(&self.limits, || self.file(channel));
        }
    }

    /// Nothing will be added. Returns what its files take on disk, if it has any: then all that was kept is in them.
    pub(super) fn close(&self) -> Option<u64> {
        if Channel::ALL.iter().any(|channel| self.stream(*channel).has_file()) {
            self.spill();
        }
        let closed = Channel::ALL.map(|channel| self.stream(channel).close(&self.limits));
        let on_disk = if let [Ok(stdout), Ok(stderr)] = closed {
            let sizes = [stdout, stderr].into_iter().flatten();
            sizes.map(shelf::on_disk).reduce(u64::saturating_add)
        } else {
            // A file that lacks something would be taken for the whole after a restart.
            shelf::remove_files(&self.dir, self.id);
            for channel in Channel::ALL {
                self.stream(channel).lose_file(&self.limits);
            }
            None
        };
        self.over.store(true, Ordering::Release);
        self.changed.notify_waiters();
        on_disk
    }

    fn file(&self, channel: Channel) -> PathBuf {
        shelf::file(&self.dir, self.id, channel)
    }

    fn stream(&self, channel: Channel) -> MutexGuard<'_, Stream> {
        let [stdout, stderr] = &self.streams;
        lock(match channel {
            Channel::Stdout => stdout,
            Channel::Stderr => stderr,
        })
    }
}
