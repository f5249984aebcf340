//! A directory in memory that fails the way disks do, for tests and the simulator.
//!
//! It knows which sectors were written and not synced, and which names. A crash keeps any part of them: every sector of an unsynced
//! write may be there or not, in any combination; names become durable in order. It can also stop at any operation, fail once, run out
//! of space, and have bits flipped in what was durable. All chance comes from a seed.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::StoreError;
use crate::disk::{DirLock, Disk, DiskFile};

const SECTOR: usize = 512;

/// A directory in memory. Clones are the same directory.
#[derive(Clone, Default)]
pub struct MemDisk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Clone, Default)]
struct Inner {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    unsynced_names: Vec<NameChange>,
    operations: u64,
    stop_at: Option<u64>,
    fail_at: Option<(u64, io::ErrorKind)>,
    capacity: Option<u64>,
    locked: bool,
}

#[derive(Clone, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// For each sector written and not synced, what was written, oldest first.
    unsynced: BTreeMap<usize, Vec<Vec<u8>>>,
}

#[derive(Clone)]
enum NameChange {
    Set(String, usize),
    Rename(String, String),
    Remove(String),
}

/// One thing that a crash may keep or lose.
#[derive(Clone, Copy, Debug)]
enum Unit {
    /// The new length of a file.
    Length(usize),
    /// A sector of a file.
    Sector(usize, usize),
}

/// A small generator of chance (SplitMix64 by Steele, Lea and Flood).
#[derive(Clone, Debug)]
pub struct Chance(pub u64);

impl Chance {
    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }
}

impl MemDisk {
    /// An empty directory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock_inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn from_inner(inner: Inner) -> Self {
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// How many operations that change something there have been.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock_inner().operations
    }

    /// Stops the machine during the operation after `operations` more: it and all later ones fail. A write or a change of names that is
    /// cut off may be kept by the crash, a sync has not happened.
    pub fn stop_after(&self, operations: u64) {
        let mut inner = self.lock_inner();
        inner.stop_at = Some(inner.operations + operations);
    }

    /// Lets one operation after `operations` more fail, with whatever it wrote in an unknown state.
    pub fn fail_after(&self, operations: u64, kind: io::ErrorKind) {
        let mut inner = self.lock_inner();
        inner.fail_at = Some((inner.operations + operations, kind));
    }

    /// Limits the sum of all files' lengths; writes beyond fail with `StorageFull`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock_inner().capacity = bytes;
    }

    /// The length of a file, as a process sees it.
    #[must_use]
    pub fn length(&self, name: &str) -> Option<u64> {
        let inner = self.lock_inner();
        let file = *inner.names.get(name)?;
        inner.files.get(file).map(|content| content.now.len() as u64)
    }

    /// The content of a file, as a process sees it.
    #[must_use]
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let inner = self.lock_inner();
        let file = *inner.names.get(name)?;
        inner.files.get(file).map(|content| content.now.clone())
    }

    /// Changes a file behind everybody's back, durably.
    pub fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.lock_inner();
        let file = inner.names.get(name).copied();
        if let Some(content) = file.and_then(|file| inner.files.get_mut(file)) {
            change(&mut content.now);
            content.durable = content.now.clone();
            content.unsynced.clear();
        }
    }

    /// Flips one bit of a file, durably.
    pub fn flip_bit(&self, name: &str, bit: u64) {
        self.tamper(name, |bytes| {
            let at = usize::try_from(bit / 8).unwrap_or(usize::MAX);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (bit % 8);
            }
        });
    }

    /// A directory as the next process finds it if this one is killed and the machine goes on: everything written is there, and not
    /// yet durable.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let mut inner = self.lock_inner().clone();
        inner.clear_faults();
        Self::from_inner(inner)
    }

    /// A directory as it may be after a power loss, drawn by `seed`.
    #[must_use]
    pub fn after_crash(&self, seed: u64) -> Self {
        let inner = self.lock_inner();
        let mut chance = Chance(seed);
        let names = chance.below(inner.unsynced_names.len() as u64 + 1);
        let density = chance.below(5);
        let kept = |_| chance.below(4) < density;
        let kept: Vec<bool> = inner.units().into_iter().map(kept).collect();
        let mut versions = Chance(seed ^ 0x5EED);
        inner.image(usize::try_from(names).unwrap_or(0), &kept, |count| {
            usize::try_from(versions.below(count as u64)).unwrap_or(0)
        })
    }

    /// Directories as they may be after a power loss: all combinations if they are at most `limit`, else all, none, each alone, all but
    /// each, and some at random.
    #[must_use]
    pub fn crash_images(&self, limit: usize) -> Vec<Self> {
        let inner = self.lock_inner();
        let count = inner.units().len();
        let exhaustive = count < 16 && (1 << count) <= limit;
        let mut choices: Vec<Vec<bool>> = Vec::new();
        if exhaustive {
            choices.extend(
                (0..1_u32 << count)
                    .map(|bits| (0..count).map(|unit| bits >> unit & 1 == 1).collect()),
            );
        } else {
            choices.extend([vec![false; count], vec![true; count]]);
            let mut chance = Chance(count as u64);
            for _ in 0..limit.saturating_sub(2) {
                let one = usize::try_from(chance.below(count as u64)).unwrap_or(0);
                choices.push(match chance.below(3) {
                    0 => (0..count).map(|unit| unit == one).collect(),
                    1 => (0..count).map(|unit| unit != one).collect(),
                    _ => (0..count).map(|_| chance.below(2) == 0).collect(),
                });
            }
        }
        let mut images = Vec::new();
        for names in 0..=inner.unsynced_names.len() {
            let last = |versions: usize| versions - 1;
            images.extend(choices.iter().map(|kept| inner.image(names, kept, last)));
        }
        images
    }
}

impl Inner {
    fn clear_faults(&mut self) {
        self.stop_at = None;
        self.fail_at = None;
        self.locked = false;
    }

    /// Everything that a crash may keep or lose, names excepted.
    fn units(&self) -> Vec<Unit> {
        let mut units = Vec::new();
        for (file, content) in self.files.iter().enumerate() {
            if content.now.len() != content.durable.len() {
                units.push(Unit::Length(file));
            }
            let sectors = content.unsynced.keys();
            units.extend(sectors.map(|sector| Unit::Sector(file, *sector)));
        }
        units
    }

    /// The directory after a crash that kept the first `names` changes of names and the units marked. `version` picks one of several
    /// unsynced writes to a sector.
    fn image(
        &self,
        names: usize,
        kept: &[bool],
        mut version: impl FnMut(usize) -> usize,
    ) -> MemDisk {
        let mut after = self.clone();
        after.clear_faults();
        for content in &mut after.files {
            content.now = content.durable.clone();
            content.unsynced.clear();
        }
        let units = || self.units().into_iter().zip(kept);
        let kept_units = units().filter_map(|(unit, kept)| kept.then_some(unit));
        for unit in kept_units {
            match unit {
                Unit::Length(file) => {
                    let length = self.files[file].now.len();
                    after.files[file].now.resize(length, 0);
                }
                Unit::Sector(file, sector) => {
                    let versions = &self.files[file].unsynced[&sector];
                    let bytes = &versions[version(versions.len())];
                    let now = &mut after.files[file].now;
                    let start = (sector * SECTOR).min(now.len());
                    let end = (start + bytes.len()).min(now.len());
                    now[start..end].copy_from_slice(&bytes[..end - start]);
                }
            }
        }
        for content in &mut after.files {
            content.durable = content.now.clone();
        }
        let mut durable = self.durable_names.clone();
        for change in &self.unsynced_names[..names.min(self.unsynced_names.len())] {
            change.apply(&mut durable);
        }
        after.names = durable.clone();
        after.durable_names = durable;
        after.unsynced_names.clear();
        MemDisk::from_inner(after)
    }

    /// Counts an operation and says whether it fails. What it changes is to be noted as unsynced all the same.
    fn operate(&mut self) -> io::Result<()> {
        let number = self.operations;
        self.operations += 1;
        if self.stop_at.is_some_and(|stop| number >= stop) {
            return Err(io::Error::other("the machine has stopped"));
        }
        match self.fail_at {
            Some((at, kind)) if at == number => Err(io::Error::from(kind)),
            _ => Ok(()),
        }
    }

    /// Whether the machine had stopped before the operation that was counted last.
    fn is_down(&self) -> bool {
        self.stop_at.is_some_and(|stop| self.operations > stop + 1)
    }

    fn change_names(&mut self, change: NameChange) -> io::Result<()> {
        let done = self.operate();
        if !self.is_down() {
            change.apply(&mut self.names);
            self.unsynced_names.push(change);
        }
        done
    }

    fn grow(&mut self, file: usize, length: usize) -> io::Result<()> {
        let used: usize = self.names.values().map(|file| self.files[*file].now.len()).sum();
        let now = self.files[file].now.len();
        let more = length.saturating_sub(now);
        if self.capacity.is_some_and(|capacity| (used + more) as u64 > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.files[file].now.resize(now.max(length), 0);
        Ok(())
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Set(name, file) => {
                names.insert(name.clone(), *file);
            }
            Self::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl Disk for MemDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock_inner().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut inner = self.lock_inner();
        if inner.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = inner.files.len();
        inner.files.push(Content::default());
        inner.change_names(NameChange::Set(name.into(), file))?;
        Ok(Box::new(MemFile { disk: self.clone(), file }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let inner = self.lock_inner();
        let file = *inner.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(MemFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.lock_inner();
        if !inner.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.change_names(NameChange::Rename(from.into(), to.into()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.lock_inner();
        if !inner.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.change_names(NameChange::Remove(name.into()))
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut inner = self.lock_inner();
        inner.operate()?;
        inner.unsynced_names.clear();
        inner.durable_names = inner.names.clone();
        Ok(())
    }

    fn lock(&self) -> Result<DirLock, StoreError> {
        let mut inner = self.lock_inner();
        if inner.locked {
            return Err(StoreError::InUse {
                path: "the directory in memory".into(),
                pid: Some(std::process::id()),
            });
        }
        inner.locked = true;
        Ok(DirLock::new(Held(self.clone())))
    }
}

struct Held(MemDisk);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.lock_inner().locked = false;
    }
}

struct MemFile {
    disk: MemDisk,
    file: usize,
}

impl DiskFile for MemFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock_inner().files[self.file].now.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let inner = self.disk.lock_inner();
        let now = &inner.files[self.file].now;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = start.checked_add(buffer.len()).and_then(|end| now.get(start..end));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.lock_inner();
        let done = inner.operate();
        if inner.is_down() {
            return done;
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.checked_add(bytes.len()).ok_or(io::ErrorKind::InvalidInput)?;
        inner.grow(self.file, end)?;
        let content = &mut inner.files[self.file];
        content.now[start..end].copy_from_slice(bytes);
        if !bytes.is_empty() {
            for sector in start / SECTOR..=(end - 1) / SECTOR {
                let from = sector * SECTOR;
                let to = (from + SECTOR).min(content.now.len());
                let version = content.now[from..to].to_vec();
                content.unsynced.entry(sector).or_default().push(version);
            }
        }
        done
    }

    fn allocate(&mut self, len: u64) -> io::Result<()> {
        let mut inner = self.disk.lock_inner();
        let done = inner.operate();
        if !inner.is_down() {
            inner.grow(self.file, usize::try_from(len).unwrap_or(usize::MAX))?;
        }
        done
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut inner = self.disk.lock_inner();
        inner.operate()?;
        let content = &mut inner.files[self.file];
        content.durable = content.now.clone();
        content.unsynced.clear();
        Ok(())
    }
}
