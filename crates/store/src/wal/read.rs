//! Reading durable entries, also while the log is being written.

use std::collections::VecDeque;
use std::sync::Arc;

use rota_ports::LogEntry;
use rota_types::LogIndex;

use super::body;
use super::open::load;
use super::{Cut, SegmentInfo, Shared};
use crate::disk::Disk;
use crate::sector::SECTOR;
use crate::segment::{self, Batch, Found, Header, Kind, Place};
use crate::{Identity, StoreError};

/// Reads durable entries of a log, on any thread.
#[derive(Clone)]
pub struct LogReader {
    disk: Arc<dyn Disk>,
    identity: Identity,
    shared: Arc<Shared>,
}

/// Durable entries in order, as they were when this was made: later on, entries that are not committed may become void. What they
/// stand on is not dropped before they are, unless a snapshot of another server takes the place of the whole log.
pub struct Entries {
    disk: Arc<dyn Disk>,
    identity: Identity,
    segments: VecDeque<SegmentInfo>,
    cuts: Vec<Cut>,
    started: bool,
    open: Option<OpenSegment>,
    ready: VecDeque<(LogIndex, LogEntry)>,
    next: u64,
    last: u64,
    _pin: Pin,
}

struct OpenSegment {
    bytes: Vec<u8>,
    place: Place,
    end: u64,
}

/// Keeps segments from being dropped.
struct Pin {
    shared: Arc<Shared>,
    key: u64,
}

impl LogReader {
    pub(super) fn new(disk: Arc<dyn Disk>, identity: Identity, shared: Arc<Shared>) -> Self {
        Self { disk, identity, shared }
    }

    /// The last durable entry.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        LogIndex(self.shared.lock().last)
    }

    /// The entries from `from` on that are durable now. If `from` was dropped, the first item says so.
    #[must_use]
    pub fn entries(&self, from: LogIndex) -> Entries {
        let mut state = self.shared.lock();
        let skip = state.segments.iter().skip(1);
        let skip = skip.take_while(|info| info.header.first <= from.0).count();
        let segments: VecDeque<SegmentInfo> = state.segments.iter().skip(skip).copied().collect();
        let key = state.next_pin;
        state.next_pin += 1;
        state.pins.insert(key, from.0);
        Entries {
            disk: Arc::clone(&self.disk),
            identity: self.identity,
            segments,
            cuts: state.cuts.clone(),
            started: false,
            open: None,
            ready: VecDeque::new(),
            next: from.0,
            last: state.last,
            _pin: Pin { shared: Arc::clone(&self.shared), key },
        }
    }
}

impl Entries {
    /// Reads on until something is ready or everything is read.
    fn advance(&mut self) -> Result<(), StoreError> {
        while self.ready.is_empty() && self.next <= self.last {
            if self.open.is_none() {
                self.open_next()?;
            }
            self.read_batch()?;
        }
        Ok(())
    }

    fn open_next(&mut self) -> Result<(), StoreError> {
        let Some(info) = self.segments.pop_front() else {
            let what = format!("entry {} is missing", self.next);
            return Err(StoreError::damage("log", 0, what));
        };
        let id = info.header.id;
        // In a later segment older entries may stand as well, in the place of void ones.
        if info.header.first > self.next && !self.started {
            let what = format!(
                "entry {} was asked for, the log begins with entry {}",
                self.next, info.header.first
            );
            return Err(StoreError::damage(&segment::file_name(id), 0, what));
        }
        self.started = true;
        let (_, bytes) = load(self.disk.as_ref(), id)?;
        let header = Header::decode(&bytes, id, &self.identity)?;
        let salt = self.identity.salt();
        let place = Place { salt, id, sector: 1, chain: header.chain };
        self.open = Some(OpenSegment { bytes, place, end: info.end });
        Ok(())
    }

    fn read_batch(&mut self) -> Result<(), StoreError> {
        let Some(OpenSegment { bytes, place, end }) = &mut self.open else {
            return Ok(());
        };
        if place.sector >= *end {
            self.open = None;
            return Ok(());
        }
        let name = || segment::file_name(place.id);
        match segment::find(bytes, *place) {
            Found::Batch(batch @ Batch { kind: Kind::Plain | Kind::Changes, .. }) => {
                let start = usize::try_from(place.sector).unwrap_or(usize::MAX) * SECTOR;
                let length = usize::try_from(batch.sectors).unwrap_or(usize::MAX) * SECTOR;
                let body = segment::body_of(&bytes[start..start + length], batch.body);
                let entries = body::split(&body, &batch).ok_or_else(|| {
                    StoreError::damage(&name(), start as u64, "a batch's entries do not fill it")
                })?;
                let here = (place.id, place.sector);
                let later = self.cuts.iter().filter(|cut| cut.place > here);
                let valid_to = later.map(|cut| cut.first - 1).min().unwrap_or(u64::MAX);
                place.sector += batch.sectors;
                place.chain = batch.crc;
                let wanted = self.next..=self.last.min(valid_to);
                self.ready
                    .extend(entries.into_iter().filter(|(index, _)| wanted.contains(&index.0)));
                if self.ready.front().is_some_and(|(index, _)| index.0 != self.next) {
                    let what = format!("entry {} is missing", self.next);
                    return Err(StoreError::damage(&name(), start as u64, what));
                }
                if let Some((index, _)) = self.ready.back() {
                    self.next = index.0 + 1;
                }
                Ok(())
            }
            Found::Damage(offset, what) => Err(StoreError::damage(&name(), offset, what)),
            Found::Batch(_) | Found::End => {
                let offset = place.sector * SECTOR as u64;
                Err(StoreError::damage(&name(), offset, "a batch that was there is gone"))
            }
        }
    }
}

impl Iterator for Entries {
    type Item = Result<(LogIndex, LogEntry), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = self.advance() {
            self.last = 0; // nothing after an error
            self.ready.clear();
            return Some(Err(error));
        }
        let next = self.ready.pop_front()?;
        if self.ready.is_empty() && self.next > self.last {
            self.open = None;
        }
        Some(Ok(next))
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.shared.lock().pins.remove(&self.key);
    }
}
