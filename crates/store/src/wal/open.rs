//! Opening a log: every byte that was acknowledged is found, or the damage is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::body::{self, ProtocolState};
use super::{
    Active, Cut, SPARE_PREFIX, SegmentInfo, Shared, SharedState, Wal, WalOptions, failed,
    make_segment, rounded,
};
use crate::disk::{Disk, DiskFile};
use crate::sector::{PAGE, SECTOR};
use crate::segment::{self, Batch, Found, Header, Kind, Place};
use crate::{Identity, StoreError};

/// A segment as it was found.
struct Scanned {
    file: Box<dyn DiskFile>,
    header: Header,
    /// The sector behind the last whole batch of entries.
    end: u64,
    /// The last entry before that.
    last: u64,
    /// The checksum of the last batch of entries.
    chain: u32,
    /// Whether a seal follows.
    sealed: bool,
    /// The batches that took the place of older entries.
    cuts: Vec<Cut>,
    /// The protocol's memory, as far as this segment holds it.
    state: Option<ProtocolState>,
}

impl Wal {
    /// Starts a log in a directory that has none.
    pub(crate) fn create(
        disk: Arc<dyn Disk>,
        identity: Identity,
        options: WalOptions,
    ) -> Result<Self, StoreError> {
        let header = Header {
            id: 1,
            sectors: segment_sectors(options),
            first: 1,
            chain: 0,
            reset: false,
            is_current: true,
        };
        let made = make_segment(disk.as_ref(), &identity, &header, None);
        let scanned = Scanned {
            file: made.map_err(failed("creating", 1))?,
            header,
            end: 1,
            last: 0,
            chain: 0,
            sealed: false,
            cuts: Vec::new(),
            state: None,
        };
        Ok(Self::assemble(disk, identity, options, vec![scanned]))
    }

    /// Opens the log of a directory that has one.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        identity: Identity,
        options: WalOptions,
    ) -> Result<Self, StoreError> {
        let names = disk.list().map_err(StoreError::io("listing", "the data directory"))?;
        let ids: Vec<u64> = names.iter().filter_map(|name| segment::id_of(name)).collect();
        let Some(first) = ids.first() else {
            let name = segment::file_name(1);
            return Err(StoreError::damage(&name, 0, "the log is missing"));
        };
        let mut segments: Vec<Scanned> = Vec::with_capacity(ids.len());
        for (id, expected) in ids.iter().zip(*first..) {
            if *id != expected {
                let name = segment::file_name(expected);
                return Err(StoreError::damage(&name, 0, "the segment is missing"));
            }
            let is_last = segments.len() + 1 == ids.len();
            let scanned = scan(disk.as_ref(), &identity, *id, is_last)?;
            if let Some(before) = segments.last() {
                follows(before, &scanned, is_last)?;
            }
            segments.push(scanned);
        }
        let mut wal = Self::assemble(disk, identity, options, segments);
        wal.find_spares(&names)?;
        wal.settle()?;
        wal.finish_reset()?;
        Ok(wal)
    }

    fn assemble(
        disk: Arc<dyn Disk>,
        identity: Identity,
        options: WalOptions,
        segments: Vec<Scanned>,
    ) -> Self {
        let infos = segments.iter();
        let infos = infos.map(|scanned| SegmentInfo { header: scanned.header, end: scanned.end });
        let infos: Vec<SegmentInfo> = infos.collect();
        let cuts = segments.iter().flat_map(|scanned| scanned.cuts.iter().copied()).collect();
        let state = segments.iter().rev().find_map(|scanned| scanned.state.clone());
        let active = segments.into_iter().next_back().expect("a log has a segment");
        let has_state = active.state.is_some() || state.is_none();
        let shared = SharedState {
            segments: infos,
            last: active.last,
            cuts,
            pins: BTreeMap::new(),
            next_pin: 0,
        };
        Self {
            disk,
            identity,
            segment_sectors: segment_sectors(options),
            shared: Arc::new(Shared { state: Mutex::new(shared) }),
            active: Active {
                file: active.file,
                header: active.header,
                next_sector: active.end,
                chain: active.chain,
                has_state,
            },
            waiting: None,
            state,
            spares: Vec::new(),
            failed: false,
        }
    }

    /// Drops what a reset made void, if it was interrupted before that.
    fn finish_reset(&mut self) -> Result<(), StoreError> {
        let void = {
            let mut shared = self.shared.lock();
            let reset = shared.segments.iter().rposition(|info| info.header.reset);
            shared.drop_first(reset.unwrap_or(0))
        };
        let names = shared_names(&void);
        self.discard(&void).map_err(StoreError::io("removing", &names))
    }

    fn find_spares(&mut self, names: &[String]) -> Result<(), StoreError> {
        for name in names.iter().filter(|name| name.starts_with(SPARE_PREFIX)) {
            let file = self.disk.open(name).map_err(StoreError::io("opening", name))?;
            let length = file.len().map_err(StoreError::io("reading", name))?;
            if length == self.segment_sectors * SECTOR as u64 {
                self.spares.push(name.clone());
            } else {
                self.disk.remove(name).map_err(StoreError::io("removing", name))?;
            }
        }
        Ok(())
    }

    /// Makes durable what was found: it may have been written, but not synced, by a process that was killed. Then seals the segment
    /// before the last if that was not done: not earlier, because the seal says that the last one's name is durable.
    fn settle(&mut self) -> Result<(), StoreError> {
        self.disk.sync_names().map_err(StoreError::io("syncing", "the data directory"))?;
        let id = self.active.header.id;
        self.active.file.sync().map_err(failed("syncing", id))?;
        let segments = self.shared.lock().segments.clone();
        if let [.., before, _] = segments.as_slice() {
            let id = before.header.id;
            let mut scanned = scan(self.disk.as_ref(), &self.identity, id, false)?;
            if scanned.sealed {
                scanned.file.sync().map_err(failed("syncing", id))?;
            } else {
                let place = Place {
                    salt: self.identity.salt(),
                    id,
                    sector: scanned.end,
                    chain: scanned.chain,
                };
                let span = (scanned.last + 1, 0);
                let (bytes, _) = segment::encode_batch(place, Kind::Seal, span, &[]);
                let mut before = Active {
                    file: scanned.file,
                    header: scanned.header,
                    next_sector: scanned.end,
                    chain: scanned.chain,
                    has_state: true,
                };
                before.write(bytes).map_err(failed("sealing", id))?;
            }
        }
        Ok(())
    }
}

fn shared_names(segments: &[SegmentInfo]) -> String {
    let names: Vec<String> =
        segments.iter().map(|info| segment::file_name(info.header.id)).collect();
    names.join(", ")
}

fn segment_sectors(options: WalOptions) -> u64 {
    rounded(options.segment_bytes.max(PAGE as u64).div_ceil(SECTOR as u64))
}

/// Checks that `next` goes on where `before` ends.
fn follows(before: &Scanned, next: &Scanned, next_is_last: bool) -> Result<(), StoreError> {
    if next.header.reset {
        return Ok(()); // what was before is void, whole or not
    }
    let offset = before.end * SECTOR as u64;
    let name = segment::file_name(before.header.id);
    if (next.header.first, next.header.chain) != (before.last + 1, before.chain) {
        let what = format!(
            "the segment ends with entry {}, the next one begins with entry {}",
            before.last, next.header.first
        );
        return Err(StoreError::damage(&name, offset, what));
    }
    // The seal is written before anything goes into the next segment.
    let next_is_unused = next_is_last && next.end == 1;
    if !before.sealed && !next_is_unused {
        return Err(StoreError::damage(&name, offset, "the segment's seal is missing"));
    }
    Ok(())
}

/// Reads a whole file.
pub(super) fn load(disk: &dyn Disk, id: u64) -> Result<(Box<dyn DiskFile>, Vec<u8>), StoreError> {
    let file = disk.open(&segment::file_name(id)).map_err(failed("opening", id))?;
    let length = file.len().map_err(failed("reading", id))?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let mut bytes = vec![0; length];
    file.read_at(0, &mut bytes).map_err(failed("reading", id))?;
    Ok((file, bytes))
}

fn scan(
    disk: &dyn Disk,
    identity: &Identity,
    id: u64,
    is_last: bool,
) -> Result<Scanned, StoreError> {
    let (file, bytes) = load(disk, id)?;
    let header = Header::decode(&bytes, id, identity)?;
    let mut place = Place { salt: identity.salt(), id, sector: 1, chain: header.chain };
    let mut last = header.first.wrapping_sub(1);
    let (mut sealed, mut cuts, mut state) = (false, Vec::new(), None);
    let name = segment::file_name(id);
    loop {
        let offset = place.sector * SECTOR as u64;
        let batch = match segment::find(&bytes, place) {
            Found::Batch(batch) => batch,
            Found::Damage(offset, what) => return Err(StoreError::damage(&name, offset, what)),
            Found::End => break,
        };
        let first = batch.first;
        let may_cut = batch.kind == Kind::Changes && first <= last;
        if first != last.wrapping_add(1) && !may_cut {
            let what = format!("entry {first} follows entry {last}");
            return Err(StoreError::damage(&name, offset, what));
        }
        if batch.kind == Kind::Seal {
            sealed = true;
            break;
        }
        if may_cut {
            cuts.push(Cut { place: (id, place.sector), first });
        }
        if let Some(found) = state_in(&bytes, place, &batch) {
            state = Some(found);
        }
        last = first.wrapping_sub(1).wrapping_add(u64::from(batch.count));
        place.sector += batch.sectors;
        place.chain = batch.crc;
    }
    let end = place.sector;
    if !sealed && let Some(offset) = segment::stray_batch(&bytes, place) {
        let what = format!("a batch stands here, but the log ends at byte {}", end * SECTOR as u64);
        return Err(StoreError::damage(&name, offset, what));
    }
    if sealed && is_last {
        let next = segment::file_name(id + 1);
        return Err(StoreError::damage(&next, 0, "the segment is missing"));
    }
    Ok(Scanned { file, header, end, last, chain: place.chain, sealed, cuts, state })
}

/// The protocol's memory in the batch at `place`, which was found whole.
fn state_in(segment: &[u8], place: Place, batch: &Batch) -> Option<ProtocolState> {
    let sectors = segment.get(usize::try_from(place.sector).ok()? * SECTOR..)?;
    if !body::has_state(batch.kind, sectors.get(segment::BATCH_HEADER..)?) {
        return None;
    }
    let length = usize::try_from(batch.sectors).ok()? * SECTOR;
    let body = segment::body_of(sectors.get(..length)?, batch.body);
    body::split_state(&body)?.0
}
