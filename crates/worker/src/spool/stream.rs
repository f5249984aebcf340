//! One stream of an attempt: first in memory, then in a file that holds its head and, in a ring behind it, its tail.
//!
//! As long as nothing was dropped, a file's size is the stream's length. Once the ring goes round, a mark behind it says how far the
//! stream had come and whether it has ended; a file that a killed worker left may lack the last write, and what that has overwritten.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{DETAIL_TAIL_BYTES, SPILL_BYTES};
use crate::config::OutputLimits;

/// Bytes written to a file at a time: the most that a file can be ahead of its mark.
const WRITE_BYTES: usize = 64 << 10;
/// The stream's length and whether it has ended, as little-endian numbers.
const MARK_BYTES: u64 = 16;

/// One stream of an attempt.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// All that was written, kept or not.
    written: u64,
    /// All of it as long as there is no file; the last of it after a failure.
    memory: Vec<u8>,
    file: Option<File>,
    /// Whether the file has a mark.
    marked: bool,
    /// Bytes at the beginning of the tail that may have been overwritten.
    unsure: u64,
    /// Why not all that the limits allow can be read.
    failure: Option<String>,
    closed: bool,
}

/// Something of a stream was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotKept;

/// A part of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Of the first byte in the whole stream.
    pub(crate) offset: u64,
    pub(crate) data: Vec<u8>,
    /// Bytes between what was asked for and `offset` that were dropped.
    pub(crate) skipped: u64,
}

impl Stream {
    /// What a file holds, however its writer ended; `None` if there is none.
    pub(super) fn reopen(path: &Path, limits: &OutputLimits) -> Option<Self> {
        match File::open(path) {
            Ok(file) => Some(Self::found(file, limits).unwrap_or_else(|error| {
                let failure = Some(format!("output can't be read: {error}"));
                Self { failure, closed: true, ..Self::default() }
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let failure = Some(format!("output can't be read: {error}"));
                Some(Self { failure, closed: true, ..Self::default() })
            }
        }
    }

    fn found(file: File, limits: &OutputLimits) -> io::Result<Self> {
        let (size, most) = (file.metadata()?.len(), most(limits));
        let (written, unsure) = if size <= most {
            (size, 0)
        } else if size == most.saturating_add(MARK_BYTES) {
            let mut mark = [0; MARK_BYTES as usize];
            file.read_exact_at(&mut mark, most)?;
            let (length, ended) = mark.split_at(8);
            let length = length.try_into().map_or(0, u64::from_le_bytes);
            (length, if ended == 1_u64.to_le_bytes() { 0 } else { WRITE_BYTES as u64 })
        } else {
            // The mark is damaged: only the head can be trusted.
            (most, limits.tail_bytes)
        };
        Ok(Self { written, unsure, file: Some(file), closed: true, ..Self::default() })
    }

    pub(super) fn written(&self) -> u64 {
        self.written
    }

    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    pub(super) fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// Adds `data`. After a failure only the last [`DETAIL_TAIL_BYTES`] are kept, in memory: why an attempt failed is said at its end,
    /// and that the disk is full may be the reason.
    pub(super) fn write(&mut self, limits: &OutputLimits, data: &[u8], path: impl Fn() -> PathBuf) {
        for part in data.chunks(WRITE_BYTES) {
            let after = self.written.saturating_add(part.len() as u64);
            if self.failure.is_none()
                && let Err(error) = self.append(limits, part, after, &path)
            {
                self.fail(limits, &error);
            }
            if self.failure.is_some() {
                self.remember(part);
            }
            self.written = after;
        }
    }

    fn append(
        &mut self,
        limits: &OutputLimits,
        data: &[u8],
        after: u64,
        path: impl Fn() -> PathBuf,
    ) -> io::Result<()> {
        if self.file.is_none() {
            if after <= SPILL_BYTES.min(limits.head_bytes) {
                self.memory.extend_from_slice(data);
                return Ok(());
            }
            self.make_file(path)?;
        }
        let Some(file) = &self.file else { return Ok(()) };
        let wraps = after > most(limits);
        if wraps && !self.marked {
            // Before anything is overwritten, so that the file's size says that this may happen.
            mark(file, limits, self.written, false)?;
            self.marked = true;
        }
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
        if wraps { mark(file, limits, after, false) } else { Ok(()) }
    }

    fn make_file(&mut self, path: impl Fn() -> PathBuf) -> io::Result<()> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(path())?;
        file.write_all_at(&self.memory, 0)?;
        self.memory = Vec::new();
        self.file = Some(file);
        Ok(())
    }

    fn fail(&mut self, limits: &OutputLimits, error: &dyn std::fmt::Display) {
        // What was about to be written may have overwritten the end of a short ring.
        let is_whole = limits.tail_bytes >= WRITE_BYTES as u64 + DETAIL_TAIL_BYTES
            || self.written.saturating_add(WRITE_BYTES as u64) <= most(limits);
        let kept = if is_whole { self.tail(limits).unwrap_or_default() } else { Vec::new() };
        self.memory = kept;
        self.failure = Some(format!("output not kept: {error}"));
    }

    /// Keeps the end of a stream that has no file any more.
    fn remember(&mut self, data: &[u8]) {
        self.memory.extend_from_slice(data);
        let most = usize::try_from(DETAIL_TAIL_BYTES).unwrap_or(usize::MAX);
        let excess = self.memory.len().saturating_sub(most);
        self.memory.drain(..excess);
    }

    /// Puts what is in memory into a file.
    pub(super) fn spill(&mut self, limits: &OutputLimits, path: impl Fn() -> PathBuf) {
        let wanted = !self.memory.is_empty() && !self.closed && self.failure.is_none();
        if wanted && let Err(error) = self.make_file(path) {
            self.fail(limits, &error);
        }
    }

    /// Nothing will be added. Returns the size of the file, if there is one.
    ///
    /// # Errors
    /// If something was not kept.
    pub(super) fn close(&mut self, limits: &OutputLimits) -> Result<Option<u64>, NotKept> {
        self.closed = true;
        if let (Some(file), true, None) = (&self.file, self.marked, &self.failure)
            && let Err(error) = mark(file, limits, self.written, true)
        {
            self.fail(limits, &error);
        }
        let marks = if self.marked { MARK_BYTES } else { 0 };
        let size = self.written.min(most(limits)).saturating_add(marks);
        match self.failure {
            Some(_) => Err(NotKept),
            None => Ok(self.file.as_ref().map(|_| size)),
        }
    }

    /// The file is gone, because the other stream could not be kept.
    pub(super) fn lose_file(&mut self, limits: &OutputLimits) {
        if self.file.is_some() && self.failure.is_none() {
            self.fail(limits, &"the disk failed");
        }
        self.file = None;
    }

    pub(super) fn read(&self, limits: &OutputLimits, offset: u64, max: usize) -> io::Result<Piece> {
        if let Some(failure) = &self.failure {
            return self.read_rest(offset, max).ok_or_else(|| io::Error::other(failure.clone()));
        }
        let tail_from = self.written.saturating_sub(limits.tail_bytes).saturating_add(self.unsure);
        let kept_from = tail_from.max(limits.head_bytes);
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

    /// What was kept in memory after a failure, if anything was.
    fn read_rest(&self, offset: u64, max: usize) -> Option<Piece> {
        let first = self.written.saturating_sub(self.memory.len() as u64);
        let begin = offset.max(first);
        let from = usize::try_from(begin - first).unwrap_or(usize::MAX);
        let data: Vec<u8> =
            self.memory.get(from..).into_iter().flatten().copied().take(max).collect();
        let piece = Piece { offset: begin, data, skipped: begin - offset };
        (!self.memory.is_empty()).then_some(piece)
    }

    /// The last [`DETAIL_TAIL_BYTES`], as far as they are kept.
    pub(super) fn tail(&self, limits: &OutputLimits) -> io::Result<Vec<u8>> {
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

/// Bytes of a stream that a file holds.
fn most(limits: &OutputLimits) -> u64 {
    limits.head_bytes.saturating_add(limits.tail_bytes)
}

/// Notes how far the stream has come.
fn mark(file: &File, limits: &OutputLimits, written: u64, ended: bool) -> io::Result<()> {
    let [length, ended] = [written, u64::from(ended)].map(u64::to_le_bytes);
    file.write_all_at(&[length, ended].concat(), most(limits))
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
