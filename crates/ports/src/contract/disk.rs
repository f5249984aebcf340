//! The disk of a simulated server: what is synced, what a crash may keep, and images of the state.
//!
//! A test may put a real store in its place.

use std::collections::VecDeque;
use std::sync::Arc;

use rota_types::LogIndex;

use super::chance::{Chance, fold};
use crate::{Frame, FrameSeq, LogEntry, SnapshotMeta, Stored};

/// The state machine of a simulated server: everything that was applied, as one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// The last entry.
    pub index: u64,
    /// All of them.
    pub digest: u64,
}

impl Machine {
    /// Applies the next entry.
    pub(super) fn apply(&mut self, index: LogIndex, entry: Option<&[u8]>) {
        self.index = index.0;
        if let Some(bytes) = entry {
            self.digest = fold(self.digest ^ index.0, bytes);
        }
    }
}

/// A stored image of the state.
#[derive(Clone, Debug)]
pub struct Image {
    /// What it is of.
    pub meta: SnapshotMeta,
    /// The state.
    pub machine: Machine,
    /// Whether it came from another server, so that it may be ahead of the log.
    pub installed: bool,
}

/// What a simulated server writes to.
pub trait Disk: Default {
    /// Writes a frame. Not durable before the next [`sync`](Self::sync).
    fn append(&mut self, frame: Frame);

    /// The last frame that was written and is not durable.
    fn written(&self) -> Option<FrameSeq>;

    /// Makes frames up to `frame` durable.
    ///
    /// # Errors
    /// If a frame does not fit behind what is there.
    fn sync(&mut self, frame: FrameSeq) -> Result<(), String>;

    /// Loses what was not synced, but for some of the oldest.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    fn crash(&mut self, seed: u64) -> Result<(), String>;

    /// Stores an image, durably, if it is newer than what is there.
    fn store(&mut self, image: Image);

    /// The newest image.
    fn image(&self) -> Option<Image>;

    /// Drops entries that the image covers, but for `tail` of them.
    fn truncate_before(&mut self, tail: u64);

    /// Whether the entry at `index` is durable here: in the log with these bytes, or in the image.
    fn holds(&self, index: u64, bytes: &[u8]) -> bool;

    /// What a starting server finds, and the state that it begins with.
    fn recover(&mut self) -> (Stored, Machine);
}

/// A disk that is only modelled.
#[derive(Debug, Default)]
pub struct PlainDisk {
    /// The index before the first entry.
    before: u64,
    entries: Vec<LogEntry>,
    state: Option<Arc<[u8]>>,
    image: Option<Image>,
    unsynced: VecDeque<Frame>,
}

impl PlainDisk {
    fn last(&self) -> u64 {
        self.before + self.entries.len() as u64
    }

    fn get(&self, index: u64) -> Option<&LogEntry> {
        let at = index.checked_sub(self.before)?.checked_sub(1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    fn take(&mut self, frame: Frame) -> Result<(), String> {
        let first = frame.first.0;
        if frame.reset {
            self.before = first - 1;
            self.entries.clear();
            if self.image.as_ref().is_none_or(|image| image.meta.index.0 < self.before) {
                return Err(format!("a reset to entry {first} without an image"));
            }
        }
        if !(self.before + 1..=self.last() + 1).contains(&first) {
            return Err(format!("a frame starts at {first}, the log ends at {}", self.last()));
        }
        self.entries.truncate(usize::try_from(first - self.before - 1).unwrap_or(usize::MAX));
        self.entries.extend(frame.entries);
        if frame.state.is_some() {
            self.state = frame.state;
        }
        Ok(())
    }
}

impl Disk for PlainDisk {
    fn append(&mut self, frame: Frame) {
        self.unsynced.push_back(frame);
    }

    fn written(&self) -> Option<FrameSeq> {
        self.unsynced.back().map(|frame| frame.seq)
    }

    fn sync(&mut self, frame: FrameSeq) -> Result<(), String> {
        while let Some(frame) = self.unsynced.pop_front_if(|unsynced| unsynced.seq <= frame) {
            self.take(frame)?;
        }
        Ok(())
    }

    fn crash(&mut self, seed: u64) -> Result<(), String> {
        let kept = Chance(seed).below(self.unsynced.len() as u64 + 1);
        for _ in 0..kept {
            if let Some(frame) = self.unsynced.pop_front() {
                self.take(frame)?;
            }
        }
        self.unsynced.clear();
        Ok(())
    }

    fn store(&mut self, image: Image) {
        let is_newer = self.image.as_ref().is_none_or(|own| own.meta.index < image.meta.index);
        if is_newer {
            self.image = Some(image);
        }
    }

    fn image(&self) -> Option<Image> {
        self.image.clone()
    }

    fn truncate_before(&mut self, tail: u64) {
        let Some(covered) = self.image.as_ref().map(|image| image.meta.index.0) else { return };
        let upto = covered.saturating_sub(tail).min(self.last());
        if upto > self.before {
            let count = usize::try_from(upto - self.before).unwrap_or(0);
            self.entries.drain(..count);
            self.before = upto;
        }
    }

    fn holds(&self, index: u64, bytes: &[u8]) -> bool {
        let in_image = self.image.as_ref().is_some_and(|image| image.meta.index.0 >= index);
        in_image || self.get(index).is_some_and(|entry| *entry.bytes == *bytes)
    }

    fn recover(&mut self) -> (Stored, Machine) {
        let state = self.state.clone();
        let Some(Image { meta, machine, installed }) = self.image.clone() else {
            let stored =
                Stored { snapshot: SnapshotMeta::default(), entries: self.entries.clone(), state };
            return (stored, Machine::default());
        };
        let index = meta.index.0;
        let agrees =
            index == self.before || self.get(index).is_some_and(|own| own.term == meta.term);
        if installed && index > self.before && !agrees {
            // The crash came between storing the image and emptying the log.
            self.before = index;
            self.entries.clear();
        }
        let covered = usize::try_from(index.saturating_sub(self.before)).unwrap_or(usize::MAX);
        let entries = self.entries.get(covered..).unwrap_or_default().to_vec();
        (Stored { snapshot: meta, entries, state }, machine)
    }
}
