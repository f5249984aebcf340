//! Finished outputs on disk: which there are, how much they take and which is the oldest.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rota_types::{AttemptId, JobId, TaskId};

use super::capture::Channel;
use crate::config::OutputLimits;

/// What the smallest file takes on disk.
const BLOCK_BYTES: u64 = 4 << 10;

/// What is on disk, by id and by age.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    outputs: BTreeMap<AttemptId, Output>,
    ended: BTreeSet<(SystemTime, AttemptId)>,
    disk_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Output {
    ended_at: SystemTime,
    disk_bytes: u64,
}

impl Shelf {
    /// Takes in every output of `dir`, and removes what is none. Says how much that was.
    pub(super) fn open(dir: &Path) -> io::Result<(Self, usize)> {
        let (mut shelf, mut strange) = (Self::default(), 0);
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let known = attempt_of(&entry.file_name());
            match (known, entry.metadata()) {
                (Some(id), Ok(file)) if file.is_file() => {
                    let ended_at = file.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    shelf.put(id, ended_at, on_disk(file.len()));
                }
                (_, _) => {
                    discard(&entry.path())?;
                    strange += 1;
                }
            }
        }
        Ok((shelf, strange))
    }

    /// Adds a file or the files of an attempt. It ended when the last of them was written.
    pub(super) fn put(&mut self, id: AttemptId, ended_at: SystemTime, disk_bytes: u64) {
        let earlier = self.outputs.get(&id).copied();
        self.take(id);
        let output = earlier.map_or(Output { ended_at, disk_bytes }, |earlier| Output {
            ended_at: ended_at.max(earlier.ended_at),
            disk_bytes: disk_bytes.saturating_add(earlier.disk_bytes),
        });
        self.disk_bytes = self.disk_bytes.saturating_add(output.disk_bytes);
        self.ended.insert((output.ended_at, id));
        self.outputs.insert(id, output);
    }

    pub(super) fn has(&self, id: AttemptId) -> bool {
        self.outputs.contains_key(&id)
    }

    /// Forgets an output. Says whether it was there.
    pub(super) fn take(&mut self, id: AttemptId) -> bool {
        let Some(output) = self.outputs.remove(&id) else { return false };
        self.ended.remove(&(output.ended_at, id));
        self.disk_bytes = self.disk_bytes.saturating_sub(output.disk_bytes);
        true
    }

    /// Forgets the oldest outputs until the rest is within the limits. Returns them.
    pub(super) fn expire(&mut self, limits: &OutputLimits) -> Vec<AttemptId> {
        let mut gone = Vec::new();
        while let Some((ended_at, id)) = self.ended.first().copied() {
            let age = ended_at.elapsed().unwrap_or_default();
            if self.disk_bytes <= limits.total_bytes && age <= limits.age {
                break;
            }
            self.take(id);
            gone.push(id);
        }
        gone
    }
}

/// What a file of this size takes on disk.
pub(super) fn on_disk(bytes: u64) -> u64 {
    bytes.max(1).checked_next_multiple_of(BLOCK_BYTES).unwrap_or(bytes)
}

/// The file of one stream.
pub(super) fn file(dir: &Path, id: AttemptId, channel: Channel) -> PathBuf {
    let AttemptId { task, number } = id;
    dir.join(format!("{}.{}.{number}.{}", task.job, task.index, channel.name()))
}

/// Whose output a file of this name is.
fn attempt_of(name: &OsStr) -> Option<AttemptId> {
    let mut parts = name.to_str()?.split('.');
    let mut part = || parts.next();
    let job = JobId(part()?.parse().ok()?);
    let index = part()?.parse().ok()?;
    let id = AttemptId { task: TaskId { job, index }, number: part()?.parse().ok()? };
    let channel = part()?;
    let whole = part().is_none() && Channel::ALL.iter().any(|known| known.name() == channel);
    whole.then_some(id)
}

/// Removes the files of an attempt, as far as they are there.
pub(super) fn remove_files(dir: &Path, id: AttemptId) {
    for channel in Channel::ALL {
        drop(fs::remove_file(file(dir, id, channel)));
    }
}

/// Removes everything in `root` but one directory. Says how much that was.
pub(super) fn clear_but(root: &Path, stays: &str) -> io::Result<usize> {
    let mut strange = 0;
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_name() != stays {
            discard(&entry.path())?;
            strange += 1;
        }
    }
    Ok(strange)
}

fn discard(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}
