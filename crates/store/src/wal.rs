//! The log on disk.

mod body;
mod open;
mod read;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rota_ports::{Frame, LogEntry, Store};
use rota_types::LogIndex;

use crate::disk::{Disk, DiskFile};
use crate::sector::{PAGE, SECTOR};
use crate::segment::{self, Header, Kind, Place};
use crate::{Identity, StoreError};

use body::ProtocolState;
pub use read::{Entries, LogReader};

/// How long a segment is unless told otherwise.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// How many segments that are not needed any more are kept for their space: to write over space that was written before takes half
/// the time.
const SPARES_MAX: usize = 2;
const SPARE_PREFIX: &str = "spare-";
const TEMPORARY: &str = "log.tmp";

/// How a log is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalOptions {
    /// The length of a segment; rounded up to a whole page, and exceeded by a batch that needs more.
    pub segment_bytes: u64,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES }
    }
}

/// The log on disk: segments of fixed size, written one after the other, and dropped from the front once a snapshot covers them.
///
/// Entries at the end can become void: a batch says from which index on its entries take the place of older ones. The protocol's
/// own memory lies in the log as well, and again at the start of each segment, so that it outlives the dropped ones.
///
/// What is appended is written by the next [`sync`](Store::sync) as one batch, so that at most one write is ever under way: whatever
/// follows a write that was cut off can't be part of the log. After any error the log refuses everything.
pub struct Wal {
    disk: Arc<dyn Disk>,
    identity: Identity,
    segment_sectors: u64,
    shared: Arc<Shared>,
    active: Active,
    waiting: Option<Waiting>,
    /// The protocol's memory, as it is stored.
    state: Option<ProtocolState>,
    /// Files whose space can be written over.
    spares: Vec<String>,
    failed: bool,
}

/// The segment that is being written.
struct Active {
    file: Box<dyn DiskFile>,
    header: Header,
    next_sector: u64,
    /// The checksum of the last batch.
    chain: u32,
    /// Whether the protocol's memory, if there is any, is in this segment.
    has_state: bool,
}

/// What has been appended and not synced.
struct Waiting {
    first: u64,
    entries: Vec<LogEntry>,
    state: Option<ProtocolState>,
    reset: bool,
}

/// What readers need to know.
struct Shared {
    state: Mutex<SharedState>,
}

struct SharedState {
    /// All segments, oldest first; the last one is being written.
    segments: Vec<SegmentInfo>,
    /// The last durable entry.
    last: u64,
    /// Where entries became void, oldest first.
    cuts: Vec<Cut>,
    /// Where readers begin: segments from there on stay.
    pins: BTreeMap<u64, u64>,
    next_pin: u64,
}

/// What is in a segment.
#[derive(Clone, Copy, Debug)]
struct SegmentInfo {
    header: Header,
    /// The sector behind the last durable batch of entries.
    end: u64,
}

/// A batch that took the place of older entries.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// The batch's segment and sector.
    place: (u64, u64),
    /// Entries from this one on that stand before that place are void.
    first: u64,
}

impl SharedState {
    /// Notes a durable batch of `count` entries from `first` on.
    fn note_batch(&mut self, place: (u64, u64), first: u64, count: u64) {
        if first <= self.last {
            self.cuts.push(Cut { place, first });
        }
        self.last = first - 1 + count;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, SharedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wal {
    /// The index of the first entry that is still there; of the next one if there is none.
    #[must_use]
    pub fn first_index(&self) -> LogIndex {
        let state = self.shared.lock();
        LogIndex(state.segments.first().map_or(1, |info| info.header.first))
    }

    /// The index of the last durable entry; of the last one dropped if there is none.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        LogIndex(self.shared.lock().last)
    }

    /// The names of the first and of the last segment's file.
    pub(crate) fn edge_files(&self) -> (String, String) {
        let state = self.shared.lock();
        let first = state.segments.first().map_or(1, |info| info.header.id);
        (segment::file_name(first), segment::file_name(self.active.header.id))
    }

    /// Something that reads durable entries, here or on another thread.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.disk), self.identity, Arc::clone(&self.shared))
    }

    /// The durable entries from `from` on.
    #[must_use]
    pub fn replay(&self, from: LogIndex) -> Entries {
        self.reader().entries(from)
    }

    fn guard<T>(&mut self, done: io::Result<T>) -> io::Result<T> {
        self.failed |= done.is_err();
        done
    }

    fn check(&self) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("the log has failed before and takes nothing more"));
        }
        Ok(())
    }

    /// The protocol's memory that was found, or was made durable last.
    #[must_use]
    pub fn protocol_state(&self) -> Option<Arc<[u8]>> {
        self.state.clone()
    }

    /// Declares everything void: a durable snapshot leads up to `first`.
    pub(crate) fn reset(&mut self, first: LogIndex) -> io::Result<()> {
        self.waiting =
            Some(Waiting { first: first.0, entries: Vec::new(), state: None, reset: true });
        self.sync()
    }

    fn take(&mut self, frame: &Frame) -> io::Result<()> {
        let first = frame.first.0;
        let (start, oldest) = (self.last_index().0 + 1, self.first_index().0);
        let waiting = self.waiting.get_or_insert_with(|| Waiting {
            first: start,
            entries: Vec::new(),
            state: None,
            reset: false,
        });
        if frame.reset {
            waiting.first = first;
            waiting.entries.clear();
            waiting.reset = true;
        }
        let next = waiting.first + waiting.entries.len() as u64;
        let lowest = if waiting.reset { waiting.first } else { oldest };
        if !(lowest..=next).contains(&first) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("frame starts at {first}, the log goes from {lowest} to {next}"),
            ));
        }
        let kept = usize::try_from(first.saturating_sub(waiting.first)).unwrap_or(usize::MAX);
        waiting.entries.truncate(kept);
        waiting.first = waiting.first.min(first);
        waiting.entries.extend(frame.entries.iter().cloned());
        if frame.state.is_some() {
            waiting.state.clone_from(&frame.state);
        }
        Ok(())
    }

    fn write_waiting(&mut self, waiting: Waiting) -> io::Result<()> {
        let Waiting { first, entries, state, reset } = waiting;
        self.active.has_state &= state.is_none();
        if state.is_some() {
            self.state = state;
        }
        let needed = segment::batch_sectors(body::length(self.state.as_ref(), &entries));
        // One sector stays free for the seal.
        let is_full = self.active.next_sector + needed + 1 > self.active.header.sectors;
        if is_full || reset || !self.active.header.is_current {
            self.roll(needed, reset.then_some(first))?;
        }
        let state = self.state.as_ref().filter(|_| !self.active.has_state);
        let too_big = || io::Error::new(io::ErrorKind::InvalidInput, "too much at once");
        let body = body::encode(state, &entries).ok_or_else(too_big)?;
        let count = u32::try_from(entries.len()).map_err(|_| too_big())?;
        let place = (self.active.header.id, self.active.next_sector);
        self.write_batch(Kind::Changes, (first, count), &body)?;
        self.active.has_state = true;
        let mut shared = self.shared.lock();
        if reset {
            shared.cuts.clear();
            shared.last = first - 1;
        }
        shared.note_batch(place, first, u64::from(count));
        if let Some(info) = shared.segments.last_mut() {
            info.end = self.active.next_sector;
        }
        drop(shared);
        if reset { self.drop_void() } else { Ok(()) }
    }

    fn write_batch(&mut self, kind: Kind, span: (u64, u32), body: &[u8]) -> io::Result<()> {
        let (bytes, crc) = segment::encode_batch(self.place(), kind, span, body);
        self.active.write(bytes)?;
        self.active.chain = crc;
        Ok(())
    }

    fn place(&self) -> Place {
        Place {
            salt: self.identity.salt(),
            id: self.active.header.id,
            sector: self.active.next_sector,
            chain: self.active.chain,
        }
    }

    /// Goes on in a new segment with room for a batch of `needed` sectors, after a reset with entry `reset`. The new one is durable
    /// before the old one is sealed, and the old one is sealed before anything is written to the new one: a segment that is missing
    /// shows either way.
    fn roll(&mut self, needed: u64, reset: Option<u64>) -> io::Result<()> {
        let next = self.last_index().0 + 1;
        let header = Header {
            id: self.active.header.id + 1,
            sectors: self.segment_sectors.max(rounded(needed + 2)),
            first: reset.unwrap_or(next),
            chain: self.active.chain,
            reset: reset.is_some(),
            is_current: true,
        };
        let file = self.make_segment(&header)?;
        self.write_batch(Kind::Seal, (next, 0), &[])?;
        let has_state = self.state.is_none();
        self.active = Active { file, header, next_sector: 1, chain: header.chain, has_state };
        self.shared.lock().segments.push(SegmentInfo { header, end: 1 });
        Ok(())
    }

    fn make_segment(&mut self, header: &Header) -> io::Result<Box<dyn DiskFile>> {
        let spare = (header.sectors == self.segment_sectors).then(|| self.spares.pop()).flatten();
        make_segment(self.disk.as_ref(), &self.identity, header, spare)
    }

    fn drop_before(&mut self, index: LogIndex) -> io::Result<()> {
        let gone = {
            let mut state = self.shared.lock();
            let pinned = state.pins.values().min().copied().unwrap_or(u64::MAX);
            let keep_from = index.0.saturating_add(1).min(pinned);
            // A segment goes when the one behind it begins at or before what is kept.
            let later = state.segments.iter().skip(1);
            let count = later.take_while(|info| info.header.first <= keep_from).count();
            state.drop_first(count)
        };
        self.discard(&gone)
    }

    /// Drops the segments before the active one, whoever reads them.
    fn drop_void(&mut self) -> io::Result<()> {
        let gone = {
            let mut state = self.shared.lock();
            let count = state.segments.len() - 1;
            state.drop_first(count)
        };
        self.discard(&gone)
    }

    fn discard(&mut self, gone: &[SegmentInfo]) -> io::Result<()> {
        if gone.is_empty() {
            return Ok(());
        }
        self.keep_state()?;
        for info in gone {
            let name = segment::file_name(info.header.id);
            if self.spares.len() < SPARES_MAX && info.header.sectors == self.segment_sectors {
                let spare = format!("{SPARE_PREFIX}{:016}.seg", info.header.id);
                self.disk.rename(&name, &spare)?;
                self.spares.push(spare);
            } else {
                self.disk.remove(&name)?;
            }
        }
        self.disk.sync_names()
    }

    /// Makes sure that the protocol's memory is in the active segment.
    fn keep_state(&mut self) -> io::Result<()> {
        if self.active.has_state {
            return Ok(());
        }
        let (first, entries) = (self.last_index().0 + 1, Vec::new());
        self.write_waiting(Waiting { first, entries, state: None, reset: false })
    }
}

impl SharedState {
    fn drop_first(&mut self, count: usize) -> Vec<SegmentInfo> {
        let gone: Vec<SegmentInfo> = self.segments.drain(..count).collect();
        let oldest = self.segments.first().map_or(0, |info| info.header.id);
        self.cuts.retain(|cut| cut.place.0 >= oldest);
        gone
    }
}

impl Store for Wal {
    fn append(&mut self, frame: &Frame) -> io::Result<()> {
        self.check()?;
        let done = self.take(frame);
        self.guard(done)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.check()?;
        let Some(waiting) = self.waiting.take() else {
            return Ok(());
        };
        let done = self.write_waiting(waiting);
        self.guard(done)
    }

    fn truncate_before(&mut self, index: LogIndex) -> io::Result<()> {
        self.check()?;
        let done = self.drop_before(index);
        self.guard(done)
    }
}

impl Active {
    /// Writes sectors at the end and makes them durable. The rest of the last page is blanked, which spares reading it.
    fn write(&mut self, mut bytes: Vec<u8>) -> io::Result<()> {
        let start = self.next_sector * SECTOR as u64;
        self.next_sector += (bytes.len() / SECTOR) as u64;
        let end = start + bytes.len() as u64;
        let file_end = self.header.sectors * SECTOR as u64;
        let padded = end.next_multiple_of(PAGE as u64).min(file_end);
        bytes.resize(usize::try_from(padded - start).unwrap_or(bytes.len()), 0);
        self.file.write_at(start, &bytes)?;
        self.file.sync()
    }
}

/// A whole number of pages.
fn rounded(sectors: u64) -> u64 {
    sectors.next_multiple_of((PAGE / SECTOR) as u64)
}

/// Makes a segment. It gets its name once its header is durable.
fn make_segment(
    disk: &dyn Disk,
    identity: &Identity,
    header: &Header,
    spare: Option<String>,
) -> io::Result<Box<dyn DiskFile>> {
    let (mut file, name) = match spare {
        Some(name) => (disk.open(&name)?, name),
        None => {
            let mut file = disk.create(TEMPORARY)?;
            file.allocate(header.sectors * SECTOR as u64)?;
            (file, TEMPORARY.to_owned())
        }
    };
    let mut bytes = header.encode(identity);
    bytes.resize(PAGE, 0);
    file.write_at(0, &bytes)?;
    file.sync()?;
    disk.rename(&name, &segment::file_name(header.id))?;
    disk.sync_names()?;
    Ok(file)
}

/// Says where the error happened.
fn failed(doing: &'static str, id: u64) -> impl FnOnce(io::Error) -> StoreError {
    let name = segment::file_name(id);
    move |error| StoreError::io(doing, &name)(error)
}
