//! The output of attempts: little of it stays in memory, more goes to files, too much loses its middle.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rota_types::AttemptId;
use tokio::sync::Notify;

use crate::config::OutputLimits;

/// Output up to this size never touches the disk, per stream.
pub(crate) const SPILL_BYTES: u64 = 4 << 10;
/// Bytes of each stream that travel with the report.
pub(crate) const DETAIL_TAIL_BYTES: u64 = 4 << 10;
/// Attempts that are over and whose output is still in memory.
const FINISHED_MAX: usize = 4_096;

/// One of the two streams of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    Stdout,
    Stderr,
}

/// The outputs that this worker keeps.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: PathBuf,
    limits: OutputLimits,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    captures: BTreeMap<AttemptId, Arc<Capture>>,
    /// Attempts that are over, oldest first, with their bytes on disk.
    finished: VecDeque<(Instant, AttemptId, u64)>,
    disk_bytes: u64,
}

/// The output of one attempt.
#[derive(Debug)]
pub(crate) struct Capture {
    id: AttemptId,
    dir: PathBuf,
    limits: OutputLimits,
    streams: [Mutex<Stream>; 2],
    over: std::sync::atomic::AtomicBool,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Stream {
    /// All that was written, kept or not.
    written: u64,
    memory: Vec<u8>,
    file: Option<File>,
    failure: Option<String>,
}

/// A part of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Of the first byte in the whole stream.
    pub(crate) offset: u64,
    pub(crate) data: Vec<u8>,
    /// Bytes between what was asked for and `offset` that were dropped.
    pub(crate) skipped: u64,
}

/// What a report says about one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) tail: Vec<u8>,
    pub(crate) written: u64,
    pub(crate) note: Option<String>,
}

impl Spool {
    /// Opens a directory of its own and removes what an earlier worker left there.
    pub(crate) fn open(dir: PathBuf, limits: OutputLimits) -> io::Result<Self> {
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => private_dir(&dir)?,
        }
        Ok(Self { dir, limits, kept: Mutex::default() })
    }

    /// Begins to capture the output of an attempt.
    pub(crate) fn begin(&self, id: AttemptId) -> Arc<Capture> {
        let capture = Arc::new(Capture {
            id,
            dir: self.dir.clone(),
            limits: self.limits,
            streams: Default::default(),
            over: false.into(),
            changed: Notify::new(),
        });
        lock(&self.kept).captures.insert(id, Arc::clone(&capture));
        capture
    }

    /// The attempt is over. Old outputs go if there are too many.
    pub(crate) fn finish(&self, capture: &Capture) {
        capture.over.store(true, std::sync::atomic::Ordering::Release);
        capture.changed.notify_waiters();
        let kept = &mut *lock(&self.kept);
        let bytes = capture.disk_bytes();
        kept.disk_bytes = kept.disk_bytes.saturating_add(bytes);
        kept.finished.push_back((Instant::now(), capture.id, bytes));
        kept.expire(&self.limits);
    }

    /// Lets go of what has become too old.
    pub(crate) fn expire(&self) {
        lock(&self.kept).expire(&self.limits);
    }

    /// The output of an attempt that is running, or was not long ago.
    pub(crate) fn find(&self, id: AttemptId) -> Option<Arc<Capture>> {
        lock(&self.kept).captures.get(&id).map(Arc::clone)
    }
}

impl Kept {
    /// Removes the oldest outputs until the rest is within the limits.
    fn expire(&mut self, limits: &OutputLimits) {
        while let Some((at, id, bytes)) = self.finished.front().copied() {
            let stays = self.disk_bytes <= limits.total_bytes
                && self.finished.len() <= FINISHED_MAX
                && at.elapsed() <= limits.age;
            if stays {
                break;
            }
            self.finished.pop_front();
            self.disk_bytes = self.disk_bytes.saturating_sub(bytes);
            if let Some(old) = self.captures.remove(&id) {
                old.remove_files();
            }
        }
    }
}

impl Capture {
    /// Adds what a process wrote. A disk that does not take it costs the output, not the attempt.
    pub(crate) fn write(&self, channel: Channel, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let stream = &mut *self.stream(channel);
        if stream.failure.is_none()
            && let Err(error) = stream.append(&self.limits, data, || self.path(channel))
        {
            stream.failure = Some(format!("output not kept: {error}"));
        }
        stream.written = stream.written.saturating_add(data.len() as u64);
        self.changed.notify_waiters();
    }

    /// Up to `max` bytes from `offset` on. Empty if there is nothing (yet).
    pub(crate) fn read(&self, channel: Channel, offset: u64, max: usize) -> io::Result<Piece> {
        self.stream(channel).read(&self.limits, offset, max)
    }

    /// All that was written so far, kept or not.
    pub(crate) fn written(&self, channel: Channel) -> u64 {
        self.stream(channel).written
    }

    /// Whether nothing will be added.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Wakes on every change. Ask for it before looking.
    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// The end of a stream, and what became of the rest.
    pub(crate) fn summary(&self, channel: Channel) -> Summary {
        let stream = self.stream(channel);
        let tail = stream.tail(&self.limits).unwrap_or_default();
        let name = channel.name();
        let dropped =
            stream.written.saturating_sub(self.limits.head_bytes + self.limits.tail_bytes);
        let note = match &stream.failure {
            Some(failure) => Some(format!("{name}: {failure}")),
            None if dropped > 0 => Some(format!(
                "{name}: {dropped} of {} bytes dropped between the first {} and the last {}",
                stream.written, self.limits.head_bytes, self.limits.tail_bytes
            )),
            None => None,
        };
        Summary { tail, written: stream.written, note }
    }

    fn disk_bytes(&self) -> u64 {
        let most = self.limits.head_bytes + self.limits.tail_bytes;
        let bytes = |channel| {
            let stream = self.stream(channel);
            if stream.file.is_some() { stream.written.min(most) } else { 0 }
        };
        bytes(Channel::Stdout) + bytes(Channel::Stderr)
    }

    fn remove_files(&self) {
        for channel in [Channel::Stdout, Channel::Stderr] {
            if self.stream(channel).file.is_some() {
                drop(fs::remove_file(self.path(channel)));
            }
        }
    }

    fn path(&self, channel: Channel) -> PathBuf {
        let AttemptId { task, number } = self.id;
        let name = format!("{}.{}.{number}.{}", task.job, task.index, channel.name());
        Path::join(&self.dir, name)
    }

    fn stream(&self, channel: Channel) -> MutexGuard<'_, Stream> {
        let [stdout, stderr] = &self.streams;
        lock(match channel {
            Channel::Stdout => stdout,
            Channel::Stderr => stderr,
        })
    }
}

impl Channel {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

impl Stream {
    fn append(
        &mut self,
        limits: &OutputLimits,
        data: &[u8],
        path: impl Fn() -> PathBuf,
    ) -> io::Result<()> {
        let after = self.written + data.len() as u64;
        if self.file.is_none() {
            if after <= SPILL_BYTES.min(limits.head_bytes) {
                self.memory.extend_from_slice(data);
                return Ok(());
            }
            let file =
                File::options().read(true).write(true).create(true).truncate(true).open(path())?;
            file.write_all_at(&self.memory, 0)?;
            self.memory = Vec::new();
            self.file = Some(file);
        }
        let Some(file) = &self.file else { return Ok(()) };
        let mut rest = data;
        let mut offset = self.written;
        while !rest.is_empty() {
            let (at, room) = place(limits, offset);
            let length = usize::try_from(room).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at(length.max(usize::from(room == 0) * rest.len()));
            if room > 0 {
                file.write_all_at(now, at)?;
            }
            offset += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    fn read(&self, limits: &OutputLimits, offset: u64, max: usize) -> io::Result<Piece> {
        if let Some(failure) = &self.failure {
            return Err(io::Error::other(failure.clone()));
        }
        let kept_from = self.written.saturating_sub(limits.tail_bytes).max(limits.head_bytes);
        let begin = if offset < limits.head_bytes { offset } else { offset.max(kept_from) };
        let begin = begin.min(self.written.max(offset));
        let skipped = begin - offset;
        let (at, room) = place(limits, begin);
        let length = room.min(self.written.saturating_sub(begin));
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(max);
        let data = match &self.file {
            Some(file) => {
                let mut data = vec![0; length];
                file.read_exact_at(&mut data, at)?;
                data
            }
            None => {
                let start = usize::try_from(begin).unwrap_or(usize::MAX);
                self.memory.get(start..).unwrap_or_default().iter().copied().take(length).collect()
            }
        };
        Ok(Piece { offset: begin, data, skipped })
    }

    /// The last [`DETAIL_TAIL_BYTES`], as far as they are kept.
    fn tail(&self, limits: &OutputLimits) -> io::Result<Vec<u8>> {
        let mut offset = self.written.saturating_sub(DETAIL_TAIL_BYTES);
        let mut tail = Vec::new();
        loop {
            let piece = self.read(limits, offset, usize::MAX)?;
            if piece.skipped > 0 {
                tail.clear();
            }
            if piece.data.is_empty() {
                return Ok(tail);
            }
            offset = piece.offset + piece.data.len() as u64;
            tail.extend(piece.data);
        }
    }
}

/// Where the byte at `offset` of a stream lives in its file, and how many follow it there. The head comes first; behind it the
/// tail goes round in a ring.
fn place(limits: &OutputLimits, offset: u64) -> (u64, u64) {
    match offset.checked_sub(limits.head_bytes) {
        None => (offset, limits.head_bytes - offset),
        Some(_) if limits.tail_bytes == 0 => (limits.head_bytes, 0),
        Some(behind) => {
            let at = behind % limits.tail_bytes;
            (limits.head_bytes + at, limits.tail_bytes - at)
        }
    }
}

/// Makes a directory into which nobody else can look.
pub(crate) fn private_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// A panic elsewhere leaves the bookkeeping usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "spool_tests.rs"]
mod tests;
