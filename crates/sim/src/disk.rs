//! A server's disk: what it finds there when it starts, and what is on its way there.

use std::collections::VecDeque;
use std::sync::Arc;

use rota_core::State;
use rota_core::image::Record;
use rota_ports::{Frame, FrameSeq, SnapshotMeta, Store, Stored};
use rota_store::disk::Disk as Directory;
use rota_store::mem_disk::MemDisk;
use rota_store::recover::{self, Options as Opening, Recovered};
use rota_store::snapshot::{self, Incoming};
use rota_store::wal::WalOptions;
use rota_store::{ClusterId, Identity, StoreError};
use rota_types::{LogIndex, ServerId};

use crate::rng::Rng;

/// Whose data it all is.
const CLUSTER: ClusterId = ClusterId([7; 16]);
/// Segments are short, so that there are many.
const SEGMENT_BYTES: u64 = 32_768;

/// A state's image on its way from one server to another.
pub(crate) struct Image {
    pub(crate) meta: SnapshotMeta,
    records: Vec<Record>,
}

/// What a server finds.
pub(crate) struct Found {
    pub(crate) state: State,
    pub(crate) stored: Stored,
    /// Whether there is nothing yet.
    pub(crate) is_new: bool,
    /// Something was damaged, and what was left made it good.
    pub(crate) notes: usize,
}

/// A disk.
pub(crate) enum Disk {
    Memo(Memo),
    Real(Box<Real>),
}

/// A disk of the logic simulation: the log itself is in the cloud.
#[derive(Default)]
pub(crate) struct Memo {
    image: Option<(SnapshotMeta, Vec<Record>)>,
    unsynced: VecDeque<FrameSeq>,
}

/// The real store on a directory in memory.
pub(crate) struct Real {
    directory: MemDisk,
    identity: Identity,
    opened: Option<Recovered>,
    unsynced: VecDeque<Frame>,
}

fn says(error: &StoreError) -> String {
    error.to_string()
}

impl Disk {
    pub(crate) fn memo() -> Self {
        Self::Memo(Memo::default())
    }

    pub(crate) fn real(server: ServerId) -> Self {
        let identity = Identity { cluster: CLUSTER, server };
        let (directory, unsynced) = (MemDisk::new(), VecDeque::new());
        Self::Real(Box::new(Real { directory, identity, opened: None, unsynced }))
    }

    /// Opens it for a process that starts.
    ///
    /// # Errors
    /// If it is damaged, or says nonsense.
    pub(crate) fn open(&mut self) -> Result<Found, String> {
        match self {
            Self::Memo(memo) => memo.open(),
            Self::Real(real) => real.open(),
        }
    }

    pub(crate) fn append(&mut self, frame: Frame) {
        match self {
            Self::Memo(memo) => memo.unsynced.push_back(frame.seq),
            Self::Real(real) => real.unsynced.push_back(frame),
        }
    }

    /// The last frame that waits.
    pub(crate) fn waiting(&self) -> Option<FrameSeq> {
        match self {
            Self::Memo(memo) => memo.unsynced.back().copied(),
            Self::Real(real) => real.unsynced.back().map(|frame| frame.seq),
        }
    }

    /// Writes and syncs the frames up to this one.
    ///
    /// # Errors
    /// If the disk does not.
    pub(crate) fn sync(&mut self, upto: FrameSeq) -> Result<(), String> {
        match self {
            Self::Memo(memo) => {
                memo.unsynced.retain(|seq| *seq > upto);
                Ok(())
            }
            Self::Real(real) => real.sync(upto),
        }
    }

    /// The process dies, and the machine with it if `power` is lost.
    pub(crate) fn crash(&mut self, power: bool, rng: &mut Rng) {
        match self {
            Self::Memo(memo) => memo.unsynced.clear(),
            Self::Real(real) => real.crash(power, rng),
        }
    }

    /// Makes a snapshot of the state, which is described by `meta`, the way a running server does: from the one before and the log.
    /// Returns up to where the log may be dropped; `None` if the log on the disk does not reach that far yet.
    ///
    /// # Errors
    /// If the disk fails, or the snapshot and the log make another state than this.
    pub(crate) fn snapshot(
        &mut self,
        meta: &SnapshotMeta,
        state: (&State, u64),
    ) -> Result<Option<LogIndex>, String> {
        match self {
            Self::Memo(memo) => {
                if state.0.index() == meta.index {
                    memo.image = Some((meta.clone(), state.0.records().collect()));
                    return Ok(Some(meta.index));
                }
                Ok(None)
            }
            Self::Real(real) => real.snapshot(meta, state.1),
        }
    }

    /// Lets the log drop what comes before.
    ///
    /// # Errors
    /// If the disk fails.
    pub(crate) fn truncate_before(&mut self, index: LogIndex) -> Result<(), String> {
        let Self::Real(real) = self else { return Ok(()) };
        let Some(opened) = &mut real.opened else { return Ok(()) };
        opened.wal.truncate_before(index).map_err(|error| error.to_string())
    }

    /// The newest image.
    pub(crate) fn image(&self) -> Option<Image> {
        match self {
            Self::Memo(memo) => {
                let (meta, records) = memo.image.clone()?;
                Some(Image { meta, records })
            }
            Self::Real(real) => real.image().ok().flatten(),
        }
    }

    /// Stores another server's image beside what there is. With `torn`, the machine stops on the way.
    ///
    /// # Errors
    /// If the disk fails.
    pub(crate) fn install(&mut self, image: Image, torn: Option<u64>) -> Result<(), String> {
        match self {
            Self::Memo(memo) => {
                if torn.is_none() {
                    memo.image = Some((image.meta, image.records));
                }
                Ok(())
            }
            Self::Real(real) => real.install(&image, torn),
        }
    }

    /// Lets one of the next operations fail.
    pub(crate) fn fail_soon(&mut self, full: bool, rng: &mut Rng) {
        if let Self::Real(real) = self {
            if full {
                let names = real.directory.list().unwrap_or_default();
                let used: u64 = names.iter().filter_map(|name| real.directory.length(name)).sum();
                real.directory.set_capacity(Some(used + rng.below(SEGMENT_BYTES)));
            } else {
                real.directory.fail_after(rng.below(12), std::io::ErrorKind::Other);
            }
        }
    }

    /// There is room again.
    pub(crate) fn make_room(&mut self) {
        if let Self::Real(real) = self {
            real.directory.set_capacity(None);
        }
    }

    /// Flips a bit somewhere. Nobody runs meanwhile. Returns which file it was.
    pub(crate) fn damage(&mut self, rng: &mut Rng) -> Option<String> {
        let Self::Real(real) = self else { return None };
        let names = real.directory.list().ok()?;
        let names: Vec<String> = names.into_iter().filter(|name| *name != "lock").collect();
        if names.is_empty() {
            return None;
        }
        let name = rng.pick(&names).clone();
        let length = real.directory.length(&name).unwrap_or(0);
        // What was written lies at the start of a segment.
        let within = if rng.chance(70) { length.min(4_096) } else { length };
        if within == 0 {
            return None;
        }
        real.directory.flip_bit(&name, rng.below(within * 8));
        Some(name)
    }
}

impl Memo {
    fn open(&self) -> Result<Found, String> {
        let Some((meta, records)) = &self.image else {
            let stored = Stored::default();
            return Ok(Found { state: State::new(), stored, is_new: true, notes: 0 });
        };
        let state =
            State::restore(records.iter().cloned().map(Ok::<_, rota_core::image::BadImage>))
                .map_err(|error| format!("I7: {error}"))?;
        let stored = Stored { snapshot: meta.clone(), ..Stored::default() };
        Ok(Found { state, stored, is_new: false, notes: 0 })
    }
}

impl Real {
    fn shared(&self) -> Arc<dyn Directory> {
        Arc::new(self.directory.clone())
    }

    fn open(&mut self) -> Result<Found, String> {
        self.opened = None;
        self.unsynced.clear();
        let Identity { cluster, server } = self.identity;
        let options = Opening {
            fresh: self.identity,
            cluster: Some(cluster),
            server: Some(server),
            wal: WalOptions { segment_bytes: SEGMENT_BYTES },
        };
        let recovered = recover::recover(&self.shared(), &options).map_err(|error| says(&error))?;
        let state = recovered.state().map_err(|error| says(&error))?;
        let stored = recovered.stored().map_err(|error| says(&error))?;
        let is_new = stored.state.is_none()
            && stored.entries.is_empty()
            && stored.snapshot.index == LogIndex(0);
        let notes = recovered.notes.len();
        self.opened = Some(recovered);
        Ok(Found { state, stored, is_new, notes })
    }

    fn sync(&mut self, upto: FrameSeq) -> Result<(), String> {
        let Some(opened) = &mut self.opened else { return Ok(()) };
        while let Some(frame) = self.unsynced.pop_front_if(|frame| frame.seq <= upto) {
            opened.wal.append(&frame).map_err(|error| error.to_string())?;
        }
        opened.wal.sync().map_err(|error| error.to_string())
    }

    fn crash(&mut self, power: bool, rng: &mut Rng) {
        // Somewhere in the next sync: what that wrote is there, or not, or partly.
        self.directory.stop_after(rng.below(8));
        if let Some(last) = self.unsynced.back().map(|frame| frame.seq) {
            let _cut_off = self.sync(last);
        }
        self.unsynced.clear();
        self.opened = None;
        self.directory = if power {
            self.directory.after_crash(rng.draw())
        } else {
            self.directory.after_kill()
        };
    }

    fn snapshot(&mut self, meta: &SnapshotMeta, digest: u64) -> Result<Option<LogIndex>, String> {
        let Some(opened) = &self.opened else { return Ok(None) };
        let shared = self.shared();
        let newest = snapshot::latest(shared.as_ref()).map_err(|error| says(&error))?;
        let mut state = match newest {
            Some(index) => {
                let before = snapshot::open(&shared, &self.identity, index);
                let records = before.and_then(|before| before.records());
                State::restore(records.map_err(|error| says(&error))?)
                    .map_err(|error: StoreError| says(&error))?
            }
            None => State::new(),
        };
        let mut entries = recover::decoded(opened.wal.reader().entries(state.index().next()));
        while state.index() < meta.index
            && let Some(entry) = entries.next()
        {
            state.apply(&entry.map_err(|error| says(&error))?);
        }
        if state.index() != meta.index {
            return Ok(None);
        }
        if state.digest() != digest {
            return Err(format!(
                "I7: the last snapshot and the log behind it make another state at {}",
                meta.index
            ));
        }
        let written = snapshot::write(shared.as_ref(), &self.identity, meta, state.records());
        let written = written.map_err(|error| says(&error))?;
        Ok(Some(written.previous.unwrap_or(LogIndex(0))))
    }

    fn image(&self) -> Result<Option<Image>, StoreError> {
        let shared = self.shared();
        let Some(index) = snapshot::latest(shared.as_ref())? else { return Ok(None) };
        let snapshot = snapshot::open(&shared, &self.identity, index)?;
        let records: Result<Vec<Record>, StoreError> = snapshot.records()?.collect();
        Ok(Some(Image { meta: snapshot.meta().clone(), records: records? }))
    }

    fn install(&mut self, image: &Image, torn: Option<u64>) -> Result<(), String> {
        let shared = self.shared();
        if let Some(operations) = torn {
            self.directory.stop_after(operations);
        }
        let write = || -> Result<(), StoreError> {
            let mut incoming = Incoming::begin(&shared, &self.identity, image.meta.clone())?;
            for record in &image.records {
                incoming.add(&rota_wire::snapshot::encode_record(record))?;
            }
            incoming.finish().map(drop)
        };
        match (write(), torn) {
            (Err(error), None) => Err(says(&error)),
            (Ok(()) | Err(_), _) => Ok(()),
        }
    }
}
