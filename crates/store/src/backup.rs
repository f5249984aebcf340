//! Backups: what a server holds, as one stream of bytes, and a data directory made from it.
//!
//! A backup is the newest snapshot, the history of finished work, and the log behind the snapshot: together they are a server at one entry,
//! though each was read at another moment. It says what it is of, each part has a checksum, and the whole has a digest at its end.

mod rebuild;

use std::io::{self, Read};
use std::sync::Arc;

use rota_ports::EntryKind;
use rota_types::{LogIndex, ServerId, Timestamp};
use rota_wire::backup::{self as pb, Message, part::Kind};
use rota_wire::peer::{HistoryRow, HistoryRows, ImageRecords, history_row};

use crate::disk::Disk;
use crate::history::{History, Row, Table};
use crate::snapshot;
use crate::wal::LogReader;
use crate::{ClusterId, Identity, StoreError};

pub use rebuild::{Rebuild, copy};

const MAGIC: &[u8; 8] = b"rotabak\x01";
const HEAD_BYTES: usize = 8;
/// Bytes that are gathered into one part.
const PART_BYTES: usize = 1 << 20;
/// The largest part that is read: an entry or a row of the largest size with what goes around it.
const PART_BYTES_MAX: u32 = 256 << 20;

/// What a backup is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The version of the server that wrote it.
    pub version: String,
    /// Whose data it is.
    pub identity: Identity,
    /// When it was begun.
    pub taken_at: Timestamp,
    /// The snapshot's entry.
    pub index: LogIndex,
}

/// What a backup held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// What it is of.
    pub about: About,
    /// The last entry.
    pub last: LogIndex,
    /// Records of the state.
    pub records: u64,
    /// Rows of the history.
    pub rows: u64,
}

/// What backups are made of.
pub struct Source<'a> {
    /// The data directory.
    pub disk: &'a Arc<dyn Disk>,
    /// Whose it is.
    pub identity: Identity,
    /// Its history.
    pub history: &'a History,
    /// Its log.
    pub reader: &'a LogReader,
}

struct Writer<'a> {
    digest: blake3::Hasher,
    out: &'a mut dyn FnMut(Vec<u8>) -> bool,
    wanted: bool,
}

impl Writer<'_> {
    fn put(&mut self, kind: Kind) {
        let part = pb::Part { kind: Some(kind) }.encode_to_vec();
        let mut bytes = Vec::with_capacity(HEAD_BYTES + part.len());
        bytes.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(crc32c::crc32c(&part).to_le_bytes());
        bytes.extend(part);
        self.raw(bytes);
    }

    fn raw(&mut self, bytes: Vec<u8>) {
        if self.wanted {
            self.digest.update(&bytes);
            self.wanted = (self.out)(bytes);
        }
    }
}

/// Writes a backup, piece by piece, until `out` answers `false`. `applied` tells up to where the log is committed, asked once the history has
/// been read.
///
/// # Errors
/// If there is no snapshot, or what is read is damaged.
pub fn write(
    source: &Source<'_>,
    about: &About,
    applied: impl FnOnce() -> LogIndex,
    out: &mut dyn FnMut(Vec<u8>) -> bool,
) -> Result<(), StoreError> {
    let nothing = || StoreError::History("there is no snapshot to begin with".to_owned());
    let newest = snapshot::latest(source.disk.as_ref())?.ok_or_else(nothing)?;
    let snapshot = snapshot::open(source.disk, &source.identity, newest)?;
    // The log is not cut behind the snapshot while this is there.
    let _pin = source.reader.entries(newest.next());
    let mut writer = Writer { digest: blake3::Hasher::new(), out, wanted: true };
    writer.raw(MAGIC.to_vec());
    writer.put(Kind::Begin(pb::Begin {
        format: pb::FORMAT,
        version: about.version.clone(),
        cluster: about.identity.cluster.0.to_vec(),
        server: about.identity.server.0,
        index: newest.0,
        taken_micros: about.taken_at.0,
    }));
    let (mut records, mut bytes, mut count) = (Vec::new(), 0, 0);
    for record in snapshot.encoded()? {
        let record = record?;
        (bytes, count) = (bytes + record.len(), count + 1);
        records.push(record);
        if bytes >= PART_BYTES {
            bytes = 0;
            writer.put(Kind::Records(ImageRecords { records: std::mem::take(&mut records) }));
        }
    }
    writer.put(Kind::Records(ImageRecords { records }));
    let mut rows_written = 0;
    let reached = source.history.export(|rows| {
        rows_written += rows.len() as u64;
        let rows = rows.into_iter().map(row_to_wire).collect();
        writer.put(Kind::History(HistoryRows { rows }));
        writer.wanted
    })?;
    let last = applied().max(reached);
    write_log(source, (newest, last), &mut writer)?;
    let digest = writer.digest.finalize().as_bytes().to_vec();
    let (history_index, last_index) = (reached.0, last.0);
    let end = pb::End { records: count, rows: rows_written, history_index, last_index, digest };
    writer.put(Kind::End(end));
    Ok(())
}

fn write_log(
    source: &Source<'_>,
    (after, last): (LogIndex, LogIndex),
    writer: &mut Writer<'_>,
) -> Result<(), StoreError> {
    let (mut entries, mut bytes, mut written) = (Vec::new(), 0, after);
    for entry in source.reader.entries(after.next()) {
        let (index, entry) = entry?;
        if index > last || !writer.wanted {
            break;
        }
        let is_command = entry.kind == EntryKind::Command;
        let own = if is_command { entry.bytes.to_vec() } else { Vec::new() };
        (bytes, written) = (bytes + own.len(), index);
        entries.push(pb::Entry { index: index.0, bytes: own });
        if bytes >= PART_BYTES {
            bytes = 0;
            writer.put(Kind::Entries(pb::Entries { entries: std::mem::take(&mut entries) }));
        }
    }
    writer.put(Kind::Entries(pb::Entries { entries }));
    if written < last && writer.wanted {
        let what = format!("the log on the disk ends at entry {written}, before {last}: try again");
        return Err(StoreError::History(what));
    }
    Ok(())
}

/// Reads a backup and hands its parts to `each`, after checking each of them; says at the end whether it was whole.
///
/// # Errors
/// If it is no backup, of another format, damaged or cut off, or if `each` refuses; the message says where.
pub fn read(
    input: &mut dyn Read,
    mut each: impl FnMut(Piece) -> Result<(), StoreError>,
) -> Result<Summary, StoreError> {
    let mut reader = Reader { input, offset: 0, digest: blake3::Hasher::new() };
    let mut magic = [0; MAGIC.len()];
    reader.fill(&mut magic)?;
    if &magic != MAGIC {
        return Err(StoreError::Foreign("this is not a backup of rota".to_owned()));
    }
    let Kind::Begin(begin) = reader.part()?.0 else {
        return Err(reader.wrong("it does not say what it is of"));
    };
    let about = about_of(begin).ok_or_else(|| {
        StoreError::Foreign(format!("the backup has another format than {}", pb::FORMAT))
    })?;
    each(Piece::Begin(about.clone()))?;
    let (mut records, mut rows, mut last) = (0, 0, about.index);
    loop {
        let (kind, digest) = reader.part()?;
        match kind {
            Kind::Begin(_) => return Err(reader.wrong("it begins twice")),
            Kind::Records(part) => {
                records += part.records.len() as u64;
                part.records.into_iter().try_for_each(|record| each(Piece::Record(record)))?;
            }
            Kind::History(part) => {
                rows += part.rows.len() as u64;
                let decoded: Option<Vec<Row>> = part.rows.into_iter().map(row_from_wire).collect();
                let decoded = decoded.ok_or_else(|| reader.wrong("a row is of an unknown kind"))?;
                each(Piece::Rows(decoded))?;
            }
            Kind::Entries(part) => {
                for pb::Entry { index, bytes } in part.entries {
                    if LogIndex(index) != last.next() {
                        return Err(reader.wrong("an entry of the log is missing"));
                    }
                    last = LogIndex(index);
                    each(Piece::Entry(bytes))?;
                }
            }
            Kind::End(end) => {
                let counted = (end.records, end.rows, end.last_index) == (records, rows, last.0);
                if !counted || end.digest != digest || !reader.is_at_end()? {
                    return Err(reader.wrong("it is not whole"));
                }
                each(Piece::End { reached: LogIndex(end.history_index) })?;
                return Ok(Summary { about, last, records, rows });
            }
        }
    }
}

/// A piece of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// What it is of.
    Begin(About),
    /// A record of the state, as a snapshot holds it.
    Record(Vec<u8>),
    /// Rows of the history.
    Rows(Vec<Row>),
    /// The next entry of the log; nothing for one of the protocol's own.
    Entry(Vec<u8>),
    /// All was there. The history holds what was finished up to `reached`.
    End {
        /// An index.
        reached: LogIndex,
    },
}

struct Reader<'a> {
    input: &'a mut dyn Read,
    offset: u64,
    digest: blake3::Hasher,
}

impl Reader<'_> {
    fn wrong(&self, what: &str) -> StoreError {
        StoreError::Foreign(format!("the backup is damaged at byte {}: {what}", self.offset))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), StoreError> {
        match self.input.read_exact(bytes) {
            Ok(()) => {
                self.offset += bytes.len() as u64;
                self.digest.update(bytes);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.wrong("it is cut off"))
            }
            Err(error) => Err(StoreError::io("reading", "the backup")(error)),
        }
    }

    /// The next part, and the digest of everything before it.
    fn part(&mut self) -> Result<(Kind, Vec<u8>), StoreError> {
        let before = self.digest.finalize().as_bytes().to_vec();
        let (mut length, mut crc) = ([0; 4], [0; 4]);
        self.fill(&mut length)?;
        self.fill(&mut crc)?;
        let length = u32::from_le_bytes(length);
        if length > PART_BYTES_MAX {
            return Err(self.wrong("a part is longer than any can be"));
        }
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        if crc32c::crc32c(&bytes).to_le_bytes() != crc {
            return Err(self.wrong("the checksum of the part before is wrong"));
        }
        let part = pb::Part::decode(bytes.as_slice()).ok().and_then(|part| part.kind);
        Ok((part.ok_or_else(|| self.wrong("a part can't be read"))?, before))
    }

    fn is_at_end(&mut self) -> Result<bool, StoreError> {
        let read = self.input.read(&mut [0]).map_err(StoreError::io("reading", "the backup"))?;
        Ok(read == 0)
    }
}

fn about_of(begin: pb::Begin) -> Option<About> {
    let cluster = ClusterId(begin.cluster.try_into().ok()?);
    (begin.format == pb::FORMAT).then_some(About {
        version: begin.version,
        identity: Identity { cluster, server: ServerId(begin.server) },
        taken_at: Timestamp(begin.taken_micros),
        index: LogIndex(begin.index),
    })
}

/// A row as it travels.
#[must_use]
pub fn row_to_wire(row: Row) -> HistoryRow {
    let table = match row.table {
        Table::Jobs => history_row::Table::Jobs,
        Table::Attempts => history_row::Table::Attempts,
        Table::Cancelled => history_row::Table::Cancelled,
        Table::Audit => history_row::Table::Audit,
    };
    HistoryRow { table: table.into(), key: row.key, value: row.value }
}

/// A row that has travelled; `None` if it is of an unknown kind.
#[must_use]
pub fn row_from_wire(row: HistoryRow) -> Option<Row> {
    let table = match row.table() {
        history_row::Table::Unknown => return None,
        history_row::Table::Jobs => Table::Jobs,
        history_row::Table::Attempts => Table::Attempts,
        history_row::Table::Cancelled => Table::Cancelled,
        history_row::Table::Audit => Table::Audit,
    };
    Some(Row { table, key: row.key, value: row.value })
}
