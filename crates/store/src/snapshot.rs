//! Snapshots: the state at one log index, as records in a file.
//!
//! A snapshot is written beside the others under a temporary name, synced, and renamed; the one before is kept as well. Records are
//! gathered in chunks with a checksum each; the end of the file holds their number and a digest of everything, so that a snapshot is
//! whole or refused.

mod header;
mod incoming;

use std::sync::Arc;

use rota_core::image::Record;
use rota_ports::SnapshotMeta;
use rota_types::LogIndex;

use crate::disk::{Disk, DiskFile};
use crate::identity::Fields;
use crate::{Identity, StoreError};

use header::{Described, FORMAT, FORMAT_1_BYTES, LENGTH_BYTES, MAGIC, META_BYTES_MAX, START_BYTES};
pub use incoming::Incoming;

pub(crate) use incoming::INCOMING;

const CHUNK_HEADER_BYTES: usize = 4 + 4 + 4;
const TRAILER_BYTES: usize = 4 + 8 + 32;
const CHUNK_BYTES: usize = 256 << 10;
/// A snapshot is synced this often while it is written: one large sync at the end would hold up those of the log.
const SYNC_EVERY_BYTES: u64 = 8 << 20;
const TEMPORARY: &str = "snapshot.tmp";
/// How many snapshots are kept.
const KEPT: usize = 2;

/// What a finished snapshot leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// How many bytes the file has.
    pub bytes: u64,
    /// How many records it holds.
    pub records: u64,
    /// The snapshot before, which is still there. While the log reaches back to it, damage to the new one can be made good.
    pub previous: Option<LogIndex>,
}

/// Writes the snapshot that `meta` describes. When this returns it is durable, and all but one of the older ones are removed.
///
/// # Errors
/// If the file system refuses; nothing is lost then.
pub fn write(
    disk: &dyn Disk,
    identity: &Identity,
    meta: &SnapshotMeta,
    records: impl Iterator<Item = Record>,
) -> Result<Written, StoreError> {
    let described = Described { meta: meta.clone(), installed: false };
    let write = || {
        let mut writer = prepare(disk, identity, &described, TEMPORARY)?;
        for record in records {
            let added = writer.add(&rota_wire::snapshot::encode_record(&record));
            added.map_err(StoreError::io("writing", TEMPORARY))?;
        }
        finish(disk, &mut writer, meta.index, TEMPORARY)
    };
    let written = write();
    if written.is_err() {
        clear(disk, TEMPORARY);
    }
    written
}

/// Removes what a failed attempt has left: on a full disk the log needs the space. What can't be removed now goes at the next start.
fn clear(disk: &dyn Disk, temporary: &str) {
    let _removed = disk.remove(temporary);
}

/// Begins a file.
fn prepare(
    disk: &dyn Disk,
    identity: &Identity,
    described: &Described,
    temporary: &str,
) -> Result<Writer, StoreError> {
    let names = disk.list().map_err(StoreError::io("listing", "the data directory"))?;
    if names.iter().any(|name| name == temporary) {
        disk.remove(temporary).map_err(StoreError::io("removing", temporary))?;
    }
    let file = disk.create(temporary).map_err(StoreError::io("creating", temporary))?;
    let mut writer = Writer::new(file, seed(identity, described.meta.index));
    let begun = writer.write(&header::encode(identity, described));
    begun.map_err(StoreError::io("writing", temporary))?;
    Ok(writer)
}

/// Makes a file durable under its name, and removes the oldest.
fn finish(
    disk: &dyn Disk,
    writer: &mut Writer,
    index: LogIndex,
    temporary: &str,
) -> Result<Written, StoreError> {
    let name = file_name(index);
    writer.finish().map_err(StoreError::io("writing", &name))?;
    let renamed = disk.rename(temporary, &name).and_then(|()| disk.sync_names());
    renamed.map_err(StoreError::io("renaming", &name))?;
    let mut older = list(disk)?;
    older.retain(|other| *other < index);
    for old in older.iter().rev().skip(KEPT - 1) {
        let name = file_name(*old);
        disk.remove(&name).map_err(StoreError::io("removing", &name))?;
    }
    Ok(Written { bytes: writer.offset, records: writer.total, previous: older.last().copied() })
}

/// The indexes of all snapshots that are there, oldest first.
///
/// # Errors
/// If the file system refuses.
pub fn list(disk: &dyn Disk) -> Result<Vec<LogIndex>, StoreError> {
    let names = disk.list().map_err(StoreError::io("listing", "the data directory"))?;
    let indexes = names.iter().filter_map(|name| {
        let digits = name.strip_prefix("snapshot-")?.strip_suffix(".snap")?;
        (digits.len() == 20).then(|| digits.parse().ok().map(LogIndex)).flatten()
    });
    Ok(indexes.collect())
}

/// Renames the snapshot at `index`, which is damaged, so that it is in nobody's way and can still be looked at. Returns its new name.
///
/// # Errors
/// If the file system refuses.
pub fn set_aside(disk: &dyn Disk, index: LogIndex) -> Result<String, StoreError> {
    let name = file_name(index);
    let aside = format!("damaged-{name}");
    disk.rename(&name, &aside).map_err(StoreError::io("renaming", &name))?;
    disk.sync_names().map_err(StoreError::io("syncing the directory of", &aside))?;
    Ok(aside)
}

/// The newest snapshot, if there is one.
///
/// # Errors
/// If the file system refuses.
pub fn latest(disk: &dyn Disk) -> Result<Option<LogIndex>, StoreError> {
    Ok(list(disk)?.last().copied())
}

/// Opens the snapshot at `index` and reads all of it once, to see whether it is whole.
///
/// # Errors
/// If it is damaged, of another server, or of another version.
pub fn open(
    disk: &Arc<dyn Disk>,
    identity: &Identity,
    index: LogIndex,
) -> Result<Snapshot, StoreError> {
    let described = Described { meta: SnapshotMeta::solo(index), installed: false };
    let mut snapshot =
        Snapshot { disk: Arc::clone(disk), identity: *identity, described, bytes: 0 };
    let (mut chunks, described) = snapshot.chunks()?;
    while chunks.next_chunk()?.is_some() {}
    (snapshot.described, snapshot.bytes) = (described, chunks.length);
    Ok(snapshot)
}

/// A snapshot that was found whole.
pub struct Snapshot {
    disk: Arc<dyn Disk>,
    identity: Identity,
    described: Described,
    bytes: u64,
}

impl Snapshot {
    /// The state's log index.
    #[must_use]
    pub fn index(&self) -> LogIndex {
        self.described.meta.index
    }

    /// How many bytes the file has.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What it is of.
    #[must_use]
    pub fn meta(&self) -> &SnapshotMeta {
        &self.described.meta
    }

    /// Whether it came from another server.
    pub(crate) fn is_installed(&self) -> bool {
        self.described.installed
    }

    /// The records as they are stored, for [`Incoming::add`] on another server.
    ///
    /// # Errors
    /// If the file can't be opened any more.
    pub fn encoded(&self) -> Result<EncodedRecords, StoreError> {
        let (chunks, _) = self.chunks()?;
        Ok(EncodedRecords { chunks, chunk: Vec::new(), at: 0, done: false })
    }

    /// The records, in the order in which they were written.
    ///
    /// # Errors
    /// If the file can't be opened any more.
    pub fn records(&self) -> Result<Records, StoreError> {
        Ok(Records { encoded: self.encoded()? })
    }

    fn chunks(&self) -> Result<(Chunks, Described), StoreError> {
        let index = self.index();
        let name = file_name(index);
        let file = self.disk.open(&name).map_err(StoreError::io("opening", &name))?;
        let length = file.len().map_err(StoreError::io("reading", &name))?;
        let mut chunks = Chunks {
            file,
            name,
            length,
            offset: 0,
            seed: seed(&self.identity, index),
            sequence: 0,
            total: 0,
            digest: blake3::Hasher::new(),
        };
        let described = chunks.begin(&self.identity, index)?;
        Ok((chunks, described))
    }
}

/// The file name of the snapshot at `index`.
pub(crate) fn file_name(index: LogIndex) -> String {
    format!("snapshot-{:020}.snap", index.0)
}

/// What all checksums of a snapshot begin with.
fn seed(identity: &Identity, index: LogIndex) -> u32 {
    crc32c::crc32c_append(identity.salt(), &index.0.to_le_bytes())
}

/// The checksum of chunk number `sequence`.
fn chunk_crc(seed: u32, sequence: u64, count: u32, payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(seed, &sequence.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &count.to_le_bytes());
    crc32c::crc32c_append(crc, payload)
}

struct Writer {
    file: Box<dyn DiskFile>,
    seed: u32,
    offset: u64,
    synced: u64,
    sequence: u64,
    total: u64,
    chunk: Vec<u8>,
    count: u32,
    digest: blake3::Hasher,
}

impl Writer {
    fn new(file: Box<dyn DiskFile>, seed: u32) -> Self {
        Self {
            file,
            seed,
            offset: 0,
            synced: 0,
            sequence: 0,
            total: 0,
            chunk: Vec::new(),
            count: 0,
            digest: blake3::Hasher::new(),
        }
    }

    fn add(&mut self, record: &[u8]) -> std::io::Result<()> {
        let length = u32::try_from(record.len()).map_err(std::io::Error::other)?;
        self.chunk.extend(length.to_le_bytes());
        self.chunk.extend_from_slice(record);
        self.count += 1;
        if self.chunk.len() >= CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        let payload = std::mem::take(&mut self.chunk);
        let length = u32::try_from(payload.len()).map_err(std::io::Error::other)?;
        let crc = chunk_crc(self.seed, self.sequence, self.count, &payload);
        let mut head = Vec::with_capacity(CHUNK_HEADER_BYTES);
        head.extend(length.to_le_bytes());
        head.extend(self.count.to_le_bytes());
        head.extend(crc.to_le_bytes());
        self.write(&head)?;
        self.write(&payload)?;
        self.sequence += 1;
        self.total += u64::from(self.count);
        self.count = 0;
        self.chunk = payload;
        self.chunk.clear();
        if self.offset - self.synced >= SYNC_EVERY_BYTES {
            self.synced = self.offset;
            self.file.sync()?;
        }
        Ok(())
    }

    fn finish(&mut self) -> std::io::Result<()> {
        self.flush()?;
        let mut trailer = 0_u32.to_le_bytes().to_vec();
        trailer.extend(self.total.to_le_bytes());
        self.digest.update(&trailer);
        trailer.extend(self.digest.finalize().as_bytes());
        self.file.write_at(self.offset, &trailer)?;
        self.offset += trailer.len() as u64;
        self.file.sync()
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_at(self.offset, bytes)?;
        self.digest.update(bytes);
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

/// The chunks of a snapshot, each checked, the whole checked at the end.
struct Chunks {
    file: Box<dyn DiskFile>,
    name: String,
    length: u64,
    offset: u64,
    seed: u32,
    sequence: u64,
    total: u64,
    digest: blake3::Hasher,
}

impl Chunks {
    fn damaged(&self, what: &str) -> StoreError {
        StoreError::damage(&self.name, self.offset, what)
    }

    fn read(&mut self, length: usize) -> Result<Vec<u8>, StoreError> {
        if self.offset.checked_add(length as u64).is_none_or(|end| end > self.length) {
            return Err(self.damaged("the file is cut off"));
        }
        let mut bytes = vec![0; length];
        let read = self.file.read_at(self.offset, &mut bytes);
        read.map_err(StoreError::io("reading", &self.name))?;
        self.offset += length as u64;
        Ok(bytes)
    }

    fn begin(&mut self, identity: &Identity, index: LogIndex) -> Result<Described, StoreError> {
        let mut found = self.read(START_BYTES)?;
        let format = u32::from_le_bytes(Fields(&found[MAGIC.len()..]).take());
        let rest = if format == FORMAT {
            let length = self.read(LENGTH_BYTES)?;
            found.extend_from_slice(&length);
            usize::try_from(u32::from_le_bytes(Fields(&length).take())).unwrap_or(usize::MAX)
        } else {
            FORMAT_1_BYTES
        };
        if !(4..=META_BYTES_MAX).contains(&rest) {
            self.offset = 0;
            return Err(self.damaged("the header is not whole"));
        }
        found.extend(self.read(rest)?);
        self.digest.update(&found);
        let (covered, crc) = found.split_at(found.len() - 4);
        if !found.starts_with(MAGIC) || crc32c::crc32c(covered).to_le_bytes() != crc {
            self.offset = 0;
            return Err(self.damaged("the header is not whole"));
        }
        header::decode(&found, identity, index).ok_or_else(|| {
            StoreError::Foreign(format!(
                "{} has another format than 1 or {FORMAT}, or belongs to another server, cluster or log index",
                self.name
            ))
        })
    }

    /// The payload of the next chunk; `None` behind the last one, if all is well.
    fn next_chunk(&mut self) -> Result<Option<(u32, Vec<u8>)>, StoreError> {
        let length = self.read(4)?;
        let length_value = u32::from_le_bytes(Fields(&length).take());
        if length_value == 0 {
            return self.end(&length).map(|()| None);
        }
        let rest = self.read(CHUNK_HEADER_BYTES - 4)?;
        let mut fields = Fields(&rest);
        let (count, crc) = (u32::from_le_bytes(fields.take()), u32::from_le_bytes(fields.take()));
        let payload = self.read(length_value as usize)?;
        if chunk_crc(self.seed, self.sequence, count, &payload) != crc {
            return Err(self.damaged("the checksum of the chunk before is wrong"));
        }
        for part in [&length, &rest, &payload] {
            self.digest.update(part);
        }
        self.sequence += 1;
        self.total += u64::from(count);
        Ok(Some((count, payload)))
    }

    fn end(&mut self, mark: &[u8]) -> Result<(), StoreError> {
        let trailer = self.read(TRAILER_BYTES - 4)?;
        let (total, digest) = trailer.split_at(8);
        self.digest.update(mark);
        self.digest.update(total);
        let whole = total == self.total.to_le_bytes()
            && digest == self.digest.finalize().as_bytes()
            && self.offset == self.length;
        if whole { Ok(()) } else { Err(self.damaged("the digest of the file is wrong")) }
    }
}

/// The records of a snapshot as they are stored, in order. After an error nothing more comes.
pub struct EncodedRecords {
    chunks: Chunks,
    chunk: Vec<u8>,
    at: usize,
    done: bool,
}

impl EncodedRecords {
    fn next_record(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        while self.at >= self.chunk.len() {
            match self.chunks.next_chunk()? {
                Some((_, payload)) => (self.chunk, self.at) = (payload, 0),
                None => return Ok(None),
            }
        }
        let rest = &self.chunk[self.at..];
        let record = rest
            .split_first_chunk::<4>()
            .and_then(|(length, rest)| rest.get(..u32::from_le_bytes(*length) as usize));
        let record = record.ok_or_else(|| self.chunks.damaged("a record is cut off"))?;
        self.at += 4 + record.len();
        Ok(Some(record.to_vec()))
    }
}

impl Iterator for EncodedRecords {
    type Item = Result<Vec<u8>, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.next_record().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}

/// The records of a snapshot, in order. After an error nothing more comes.
pub struct Records {
    encoded: EncodedRecords,
}

impl Iterator for Records {
    type Item = Result<Record, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let decoded = self.encoded.next()?.and_then(|record| {
            let file = || self.encoded.chunks.name.clone();
            let decoded = rota_wire::snapshot::decode_record(&record);
            decoded.map_err(|source| StoreError::Record { file: file(), source })
        });
        self.encoded.done |= decoded.is_err();
        Some(decoded)
    }
}
