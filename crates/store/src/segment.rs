//! One segment file of the log: a header sector, then batches, each starting at a sector.
//!
//! A batch is everything that one sync made durable. Its checksum covers the file's id, its place in the file and the checksum of the
//! batch before it, so that nothing left over from an earlier use of the file can be taken for it.

use crate::identity::Fields;
use crate::sector::{self, PAYLOAD, SECTOR, Sector};
use crate::{Identity, StoreError};

const MAGIC: &[u8; 8] = b"rotalog\x01";
/// The format written. Format 1 has no flags, and batches of plain entries only.
const FORMAT: u32 = 2;
const HEADER_BYTES: usize = 8 + 4 + 4 + 8 + 8 + 8 + 4 + 4;
/// Header flag: what comes before this segment is void.
const RESET: u32 = 1;
const BATCH_MAGIC: u32 = 0x6862_7461;
/// Bytes of a batch before its body.
pub(crate) const BATCH_HEADER: usize = 4 + 4 + 8 + 8 + 4 + 4 + 4 + 4;

/// The first sector of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Rises by one from segment to segment, and is never used twice.
    pub id: u64,
    /// The length of the file in sectors.
    pub sectors: u64,
    /// The index of the first entry, whether it is there yet or not.
    pub first: u64,
    /// The checksum of the batch before the first one.
    pub chain: u32,
    /// Whether everything in the segments before is void: a snapshot leads up to `first`.
    pub reset: bool,
    /// Whether batches of today's format may be written to it.
    pub is_current: bool,
}

/// What a batch holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    /// Entries of format 1: commands without terms, behind all that came before.
    Plain,
    /// Nothing: the log goes on in the next segment.
    Seal,
    /// Entries, before which those from the first index on become void, and the protocol's own memory.
    Changes,
}

/// A batch that was found whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub kind: Kind,
    pub first: u64,
    pub count: u32,
    /// Bytes behind the batch's header.
    pub body: u64,
    /// Its checksum.
    pub crc: u32,
    /// How many sectors it takes.
    pub sectors: u64,
}

/// Where a batch is, and behind which other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// See [`Identity::salt`].
    pub salt: u32,
    /// The segment's id.
    pub id: u64,
    /// The batch's first sector.
    pub sector: u64,
    /// The checksum of the batch before.
    pub chain: u32,
}

/// What is at a place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A whole batch.
    Batch(Batch),
    /// Nothing, or a batch whose write was cut off.
    End,
    /// Something that no interrupted write leaves behind: the byte offset and what is wrong.
    Damage(u64, &'static str),
}

/// The file name of a segment.
pub(crate) fn file_name(id: u64) -> String {
    format!("log-{id:016}.seg")
}

/// The segment's id, if the name is one of a segment.
pub(crate) fn id_of(name: &str) -> Option<u64> {
    let id = name.strip_prefix("log-")?.strip_suffix(".seg")?;
    (id.len() == 16).then(|| id.parse().ok()).flatten()
}

impl Header {
    /// The header sector.
    pub(crate) fn encode(&self, identity: &Identity) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend(identity.salt().to_le_bytes());
        bytes.extend(self.id.to_le_bytes());
        bytes.extend(self.sectors.to_le_bytes());
        bytes.extend(self.first.to_le_bytes());
        bytes.extend(self.chain.to_le_bytes());
        bytes.extend(if self.reset { RESET } else { 0 }.to_le_bytes());
        sector::seal(&bytes)
    }

    /// Reads and checks the header of a whole segment. A file only gets a segment's name once its header is durable, so that any
    /// other header is damage.
    pub(crate) fn decode(bytes: &[u8], id: u64, identity: &Identity) -> Result<Self, StoreError> {
        let name = file_name(id);
        let damaged = |what: &str| StoreError::damage(&name, 0, what);
        let Some(first) = bytes.get(..SECTOR) else {
            return Err(damaged("the file is cut off"));
        };
        if sector::judge(first) != Sector::Whole || !first.starts_with(MAGIC) {
            return Err(damaged("the segment's header is not whole"));
        }
        let mut fields = Fields(&first[MAGIC.len()..]);
        let format = u32::from_le_bytes(fields.take());
        if !(1..=FORMAT).contains(&format) {
            return Err(StoreError::Foreign(format!(
                "{name} has format {format}, this version of rota reads formats 1 to {FORMAT}"
            )));
        }
        if u32::from_le_bytes(fields.take()) != identity.salt() {
            return Err(StoreError::Foreign(format!(
                "{name} belongs to another server or cluster than the data directory"
            )));
        }
        let header = Self {
            id: u64::from_le_bytes(fields.take()),
            sectors: u64::from_le_bytes(fields.take()),
            first: u64::from_le_bytes(fields.take()),
            chain: u32::from_le_bytes(fields.take()),
            // Zero in format 1, as is everything behind its last field.
            reset: u32::from_le_bytes(fields.take()) == RESET,
            is_current: format == FORMAT,
        };
        if header.id != id {
            return Err(damaged("the header is that of another segment"));
        }
        if header.sectors.checked_mul(SECTOR as u64) != Some(bytes.len() as u64) {
            return Err(damaged("the file's length is not what its header says"));
        }
        Ok(header)
    }
}

/// The sectors of a batch, and its checksum.
pub(crate) fn encode_batch(
    place: Place,
    kind: Kind,
    (first, count): (u64, u32),
    body: &[u8],
) -> (Vec<u8>, u32) {
    let mut bytes = Vec::with_capacity(BATCH_HEADER + body.len());
    bytes.extend(BATCH_MAGIC.to_le_bytes());
    bytes.extend((kind as u32).to_le_bytes());
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(first.to_le_bytes());
    bytes.extend(count.to_le_bytes());
    bytes.extend(place.chain.to_le_bytes());
    let header_crc = header_crc(place, &bytes);
    bytes.extend(header_crc.to_le_bytes());
    let crc = crc32c::crc32c_append(header_crc, body);
    bytes.extend(crc.to_le_bytes());
    bytes.extend(body);
    (sector::seal(&bytes), crc)
}

/// How many sectors a batch with a body of this length takes.
pub(crate) fn batch_sectors(body: usize) -> u64 {
    (BATCH_HEADER + body).div_ceil(PAYLOAD) as u64
}

/// Looks for the batch at `place`. `segment` is the whole file.
pub(crate) fn find(segment: &[u8], place: Place) -> Found {
    let offset = place.sector * SECTOR as u64;
    let Some(rest) = usize::try_from(offset).ok().and_then(|at| segment.get(at..)) else {
        return Found::End;
    };
    let Some(head) = rest.get(..SECTOR) else {
        return Found::End;
    };
    match sector::judge(head) {
        Sector::Blank => return Found::End,
        Sector::Bad => return Found::Damage(offset, "a sector's checksum is wrong"),
        Sector::Whole => {}
    }
    let Some((batch, chain)) = decode_header(head, place) else {
        return Found::End; // left over from an earlier use of the file, or from a write that was cut off
    };
    if chain != place.chain {
        return Found::Damage(offset, "a batch does not follow the one before it");
    }
    let length = usize::try_from(batch.sectors).ok().and_then(|n| n.checked_mul(SECTOR));
    let Some(sectors) = length.and_then(|length| rest.get(..length)) else {
        return Found::Damage(offset, "a batch is longer than its segment");
    };
    for (sector, at) in sectors.chunks_exact(SECTOR).zip((offset..).step_by(SECTOR)) {
        if sector::judge(sector) == Sector::Bad {
            return Found::Damage(at, "a sector's checksum is wrong");
        }
    }
    let body = body_of(sectors, batch.body);
    let header_crc = u32::from_le_bytes(Fields(&head[BATCH_HEADER - 8..]).take());
    if crc32c::crc32c_append(header_crc, &body) == batch.crc {
        Found::Batch(batch)
    } else {
        Found::End // every sector is whole, but not all are of this batch: its write was cut off
    }
}

/// The body of a batch whose sectors begin `sectors`.
pub(crate) fn body_of(sectors: &[u8], length: u64) -> Vec<u8> {
    let mut bytes = sector::payload(sectors);
    bytes.drain(..BATCH_HEADER);
    bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
    bytes
}

/// The first sector from `place` on that holds a batch of this segment's present use, whatever it follows.
pub(crate) fn stray_batch(segment: &[u8], place: Place) -> Option<u64> {
    let start = usize::try_from(place.sector).ok()? * SECTOR;
    let sectors = segment.get(start..)?.chunks_exact(SECTOR);
    sectors.zip(place.sector..).find_map(|(head, sector)| {
        let begins = head.starts_with(&BATCH_MAGIC.to_le_bytes());
        let found = begins && decode_header(head, Place { sector, ..place }).is_some();
        (found && sector > place.sector).then_some(sector * SECTOR as u64)
    })
}

/// The batch whose header is at the start of `head`, and the checksum that it follows.
fn decode_header(head: &[u8], place: Place) -> Option<(Batch, u32)> {
    let (covered, crcs) = head.get(..BATCH_HEADER)?.split_at(BATCH_HEADER - 8);
    let mut crcs = Fields(crcs);
    let mut fields = Fields(covered);
    let magic = u32::from_le_bytes(fields.take());
    if magic != BATCH_MAGIC || u32::from_le_bytes(crcs.take()) != header_crc(place, covered) {
        return None;
    }
    let kind = match u32::from_le_bytes(fields.take()) {
        0 => Kind::Plain,
        1 => Kind::Seal,
        2 => Kind::Changes,
        _ => return None,
    };
    let body = u64::from_le_bytes(fields.take());
    let batch = Batch {
        kind,
        body,
        first: u64::from_le_bytes(fields.take()),
        count: u32::from_le_bytes(fields.take()),
        crc: u32::from_le_bytes(crcs.take()),
        sectors: batch_sectors(usize::try_from(body).ok()?.checked_add(0)?),
    };
    Some((batch, u32::from_le_bytes(fields.take())))
}

fn header_crc(place: Place, covered: &[u8]) -> u32 {
    let mut crc = crc32c::crc32c(&place.salt.to_le_bytes());
    crc = crc32c::crc32c_append(crc, &place.id.to_le_bytes());
    crc = crc32c::crc32c_append(crc, &place.sector.to_le_bytes());
    crc32c::crc32c_append(crc, covered)
}
