//! Crashes, damage and full disks: what was acknowledged is there afterwards, or the start is refused.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use rota_core::image::{Meta, Record};
use rota_ports::{EntryBytes, EntryKind, Frame, FrameSeq, LogEntry, Members, SnapshotMeta, Store};
use rota_store::disk::{DirLock, Disk, DiskFile};
use rota_store::mem_disk::{Chance, MemDisk};
use rota_store::recover::{Options, Recovered, recover};
use rota_store::snapshot::Incoming;
use rota_store::wal::WalOptions;
use rota_store::{ClusterId, Identity, StoreError, snapshot};
use rota_types::{
    JobId, LogIndex, NodeId, QueueId, Revision, ServerId, SessionId, Steady, Timestamp,
};

const IDENTITY: Identity = Identity { cluster: ClusterId([7; 16]), server: ServerId(1) };

fn open(disk: &MemDisk) -> Result<Recovered, StoreError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    open_on(&disk)
}

fn open_on(disk: &Arc<dyn Disk>) -> Result<Recovered, StoreError> {
    let wal = WalOptions { segment_bytes: 4096 };
    recover(disk, &Options { fresh: IDENTITY, cluster: None, server: None, wal })
}

/// What a log holds.
#[derive(Clone, Debug, Default, PartialEq)]
struct View {
    /// All entries that are still there; those that a snapshot covers may be gone.
    entries: BTreeMap<u64, LogEntry>,
    last: u64,
    state: Option<Arc<[u8]>>,
}

/// What the log of a server should hold, and what it may.
#[derive(Clone, Default)]
struct Model {
    /// Everything appended.
    issued: View,
    /// Everything acknowledged.
    acked: View,
    /// What is found instead if an operation that was cut off had reached the disk.
    under_way: Option<View>,
    /// The last snapshot that was written to the end.
    snapshot: u64,
    /// Makes every entry different from all others.
    written: usize,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Append(usize),
    /// Appends in the place of this many entries, as far as no snapshot covers them, with a new term.
    Replace(u64),
    /// Stores the protocol's memory.
    Remember,
    Sync,
    Snapshot,
    /// Takes over the snapshot of another server that is this much further.
    Install(u64),
    Truncate,
}

/// A server's storage while it runs.
struct Life {
    disk: Arc<dyn Disk>,
    opened: Recovered,
    frames: u64,
}

impl Model {
    fn of(view: View, snapshot: u64, written: usize) -> Self {
        let issued = view.clone();
        Self { issued, acked: view, under_way: None, snapshot, written }
    }

    fn entry(&mut self, bytes: usize) -> LogEntry {
        self.written += 1;
        let text = format!("entry {} ", self.written);
        let kind = if bytes.is_multiple_of(3) { EntryKind::Internal } else { EntryKind::Command };
        let bytes = text.bytes().cycle().take(bytes).collect();
        LogEntry { term: self.written as u64 / 7, kind, bytes }
    }
}

impl Life {
    fn begin(disk: &MemDisk) -> Result<Self, StoreError> {
        Self::begin_on(Arc::new(disk.clone()))
    }

    fn begin_on(disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        Ok(Self { opened: open_on(&disk)?, disk, frames: 0 })
    }

    fn append(&mut self, frame: &Frame) -> Result<(), StoreError> {
        self.opened.wal.append(frame).map_err(failed)
    }

    fn frame(&mut self, first: u64) -> Frame {
        self.frames += 1;
        let seq = FrameSeq(self.frames);
        Frame { seq, first: LogIndex(first), entries: Vec::new(), state: None, reset: false }
    }

    fn run(&mut self, op: Op, model: &mut Model) -> Result<(), StoreError> {
        match op {
            Op::Append(bytes) => {
                let mut frame = self.frame(model.issued.last + 1);
                frame.entries = vec![model.entry(bytes)];
                model.issued.take(&frame);
                self.append(&frame)
            }
            Op::Replace(count) => {
                let first = (model.issued.last + 1).saturating_sub(count).max(model.snapshot + 1);
                let mut frame = self.frame(first);
                frame.entries = vec![model.entry(120), model.entry(800)];
                model.issued.take(&frame);
                self.append(&frame)
            }
            Op::Remember => {
                let mut frame = self.frame(model.issued.last + 1);
                frame.state = Some(model.entry(40).bytes);
                model.issued.take(&frame);
                self.append(&frame)
            }
            Op::Sync => {
                model.under_way = Some(model.issued.clone());
                self.opened.wal.sync().map_err(failed)?;
                model.acked = model.issued.clone();
                model.under_way = None;
                Ok(())
            }
            Op::Snapshot => {
                let index = self.opened.wal.last_index();
                // A snapshot covers only what can't become void.
                let stays = |view: &View| view.entries.get(&index.0).cloned();
                if stays(&model.issued) != stays(&model.acked) {
                    return Ok(());
                }
                let meta = meta(index);
                snapshot::write(self.disk.as_ref(), &IDENTITY, &meta, records(index))?;
                model.snapshot = index.0;
                Ok(())
            }
            Op::Install(further) => self.install(model.issued.last + further, model),
            Op::Truncate => {
                let done = self.opened.wal.truncate_before(LogIndex(model.snapshot));
                done.map_err(failed)
            }
        }
    }

    fn install(&mut self, index: u64, model: &mut Model) -> Result<(), StoreError> {
        self.run(Op::Sync, model)?;
        let installed =
            View { entries: BTreeMap::new(), last: index, state: model.acked.state.clone() };
        model.under_way = Some(installed.clone());
        let index = LogIndex(index);
        let mut incoming = Incoming::begin(&self.disk, &IDENTITY, meta(index))?;
        for record in records(index) {
            incoming.add(&rota_wire::snapshot::encode_record(&record))?;
        }
        incoming.finish()?;
        model.snapshot = index.0;
        model.acked = installed.clone();
        model.issued = installed;
        model.under_way = None;
        let mut frame = self.frame(index.0 + 1);
        frame.reset = true;
        self.append(&frame)?;
        self.run(Op::Sync, model)
    }
}

impl View {
    fn take(&mut self, frame: &Frame) {
        self.entries.split_off(&frame.first.0);
        self.entries.extend((frame.first.0..).zip(frame.entries.iter().cloned()));
        self.last = frame.first.0 - 1 + frame.entries.len() as u64;
        if frame.state.is_some() {
            self.state.clone_from(&frame.state);
        }
    }
}

fn failed(source: io::Error) -> StoreError {
    StoreError::Io { doing: "test".into(), source }
}

fn meta(index: LogIndex) -> SnapshotMeta {
    let learners = vec![ServerId(index.0)];
    let members =
        Members { voters: vec![ServerId(1), ServerId(2)], learners, ..Members::default() };
    // No entry has that term: a log that does not end before the snapshot does not agree with it.
    SnapshotMeta { index, term: u64::MAX, members }
}

fn records(index: LogIndex) -> impl Iterator<Item = Record> {
    std::iter::once(Record::Meta(Meta {
        index,
        now: Timestamp(0),
        steady: Steady(0),
        next_job: JobId(1),
        next_node: NodeId(1),
        next_queue: QueueId(1),
        next_server: ServerId(1),
        level: 0,
        next_session: SessionId(1),
        revision: Revision(0),
        attempts_from: 0,
    }))
}

/// What was found behind the snapshot that was chosen: all that was acknowledged, or that and all of what was under way.
fn check(opened: &Recovered, model: &Model, context: &str) -> View {
    let start = opened.start();
    if let Some(snapshot) = &opened.snapshot {
        let found: Vec<Record> =
            snapshot.records().expect("opens").collect::<Result<_, _>>().expect("is whole");
        assert_eq!(found, records(start).collect::<Vec<_>>(), "{context}");
        assert_eq!(*snapshot.meta(), meta(start), "{context}");
    }
    let mut found = View {
        entries: BTreeMap::new(),
        last: opened.wal.last_index().0,
        state: opened.wal.protocol_state(),
    };
    for entry in opened.tail() {
        let (index, entry) = entry.unwrap_or_else(|error| panic!("{context}: {error}"));
        found.entries.insert(index.0, entry);
    }
    let indexes: Vec<u64> = found.entries.keys().copied().collect();
    assert_eq!(indexes, (start.0 + 1..=found.last).collect::<Vec<_>>(), "{context}: no gap");
    let behind = |view: &View| {
        let entries = view.entries.iter().filter(|(index, _)| **index > start.0);
        let entries = entries.map(|(index, entry)| (*index, entry.clone())).collect();
        View { entries, last: view.last, state: view.state.clone() }
    };
    let mut expected = std::iter::once(&model.acked).chain(&model.under_way);
    let is_expected = expected.any(|view| behind(view) == found);
    assert!(is_expected, "{context}: {found:?} was found");
    found
}

/// Opens what a crash left, checks it, and checks that the log goes on from there.
fn check_image(image: &MemDisk, model: &Model, context: &str) {
    let mut life = Life::begin(image).unwrap_or_else(|error| panic!("{context}: {error}"));
    let found = check(&life.opened, model, context);
    let mut model = Model::of(found, life.opened.start().0, model.written);
    for op in [Op::Replace(1), Op::Append(700), Op::Sync] {
        life.run(op, &mut model).expect("a healthy disk takes more");
    }
    drop(life);
    let after = image.after_crash(model.acked.last);
    let opened = open(&after).unwrap_or_else(|error| panic!("{context}, again: {error}"));
    check(&opened, &model, context);
}

/// Runs `ops` until the disk stops; returns what is known then.
fn run_until_stop(disk: &MemDisk, ops: &[Op]) -> (Model, bool) {
    run_on(Arc::new(disk.clone()), ops)
}

fn run_on(disk: Arc<dyn Disk>, ops: &[Op]) -> (Model, bool) {
    let mut model = Model::default();
    let Ok(mut life) = Life::begin_on(disk) else {
        return (model, true);
    };
    for op in ops {
        if life.run(*op, &mut model).is_err() {
            return (model, true);
        }
    }
    (model, false)
}

fn every_crash_of(ops: &[Op], images: usize) -> u64 {
    let mut checked = 0;
    for stop in 0.. {
        let disk = MemDisk::new();
        disk.stop_after(stop);
        let (model, stopped) = run_until_stop(&disk, ops);
        for (number, image) in disk.crash_images(images).iter().enumerate() {
            check_image(image, &model, &format!("{ops:?} stopped at {stop}, image {number}"));
            checked += 1;
        }
        let context = format!("{ops:?} killed at {stop}");
        check_image(&disk.after_kill(), &model, &context);
        if !stopped {
            return checked;
        }
    }
    unreachable!("every run ends")
}

#[test]
fn every_crash_of_every_short_workload_keeps_what_was_acknowledged() {
    let common = [Op::Append(300), Op::Append(1_400), Op::Sync, Op::Snapshot, Op::Truncate];
    let all = [&common[..], &[Op::Replace(1), Op::Remember, Op::Install(2)]].concat();
    let mut checked = 0;
    for (choice, length) in [(&common[..], 4), (&all, 3)] {
        for code in 0..choice.len().pow(length) {
            let mut rest = code;
            let mut ops = Vec::new();
            for _ in 0..length {
                ops.push(choice[rest % choice.len()]);
                rest /= choice.len();
            }
            ops.push(Op::Sync);
            checked += every_crash_of(&ops, 8);
        }
    }
    assert!(checked > 50_000, "{checked} crashes checked");
}

#[test]
fn every_crash_of_a_long_workload_keeps_what_was_acknowledged() {
    let mut ops = Vec::new();
    for round in 0..12 {
        ops.extend([Op::Append(200 + round * 150), Op::Append(90), Op::Sync]);
        ops.extend([Op::Replace(2), Op::Remember, Op::Replace(1), Op::Sync]);
        if round == 7 {
            ops.extend([Op::Append(20), Op::Install(9), Op::Truncate]);
        }
        if round % 3 == 2 {
            ops.extend([Op::Snapshot, Op::Append(10), Op::Truncate, Op::Sync]);
        }
    }
    // Larger than a segment.
    ops.extend([Op::Append(9_000), Op::Sync, Op::Append(50), Op::Sync, Op::Snapshot, Op::Truncate]);
    let checked = every_crash_of(&ops, 200);
    assert!(checked > 5_000, "{checked} crashes checked");
}

#[test]
fn a_crash_while_recovering_loses_nothing() {
    let ops = [
        Op::Append(1_400),
        Op::Sync,
        Op::Append(1_400),
        Op::Sync,
        Op::Append(1_400),
        Op::Remember,
        Op::Replace(2),
        Op::Sync,
        Op::Snapshot,
        Op::Truncate,
        Op::Append(1_400),
        Op::Append(1_400),
        Op::Sync,
        Op::Install(3),
    ];
    for stop in 0.. {
        let disk = MemDisk::new();
        disk.stop_after(stop);
        let (model, stopped) = run_until_stop(&disk, &ops);
        let images = disk.crash_images(4).into_iter().chain([disk.after_kill()]);
        for image in images {
            for again in 0.. {
                let image = image.after_kill();
                image.stop_after(again);
                let opened = open(&image).is_ok();
                for second in image.crash_images(4) {
                    check_image(&second, &model, &format!("stopped at {stop}, then at {again}"));
                }
                if opened {
                    break;
                }
            }
        }
        if !stopped {
            return;
        }
    }
}

#[test]
fn random_lives_of_random_servers_keep_what_was_acknowledged() {
    for seed in 0..1_500 {
        let mut chance = Chance(seed);
        let mut disk = MemDisk::new();
        let mut model = Model::default();
        for life_number in 0..6 {
            let context = format!("seed {seed}, life {life_number}");
            if chance.below(3) > 0 {
                disk.stop_after(chance.below(60));
            }
            if let Ok(mut life) = Life::begin(&disk) {
                let found = check(&life.opened, &model, &context);
                model = Model::of(found, life.opened.start().0, model.written);
                for _ in 0..chance.below(25) {
                    let op = match chance.below(24) {
                        0..9 => Op::Append(usize::try_from(chance.below(1_800)).expect("fits")),
                        9..14 => Op::Sync,
                        14..17 => Op::Snapshot,
                        17..19 => Op::Replace(chance.below(9)),
                        19..21 => Op::Remember,
                        21 => Op::Install(1 + chance.below(4)),
                        _ => Op::Truncate,
                    };
                    if life.run(op, &mut model).is_err() {
                        break;
                    }
                }
            }
            disk = if chance.below(2) == 0 {
                disk.after_kill()
            } else {
                disk.after_crash(chance.next_u64())
            };
        }
    }
}

/// A directory with several segments, spares and two snapshots; everything in it is durable and acknowledged.
fn full_directory() -> (MemDisk, Model) {
    let disk = MemDisk::new();
    let mut ops = Vec::new();
    for round in 0..9 {
        ops.extend([Op::Append(500 + round * 90), Op::Append(60), Op::Sync]);
        if round == 5 {
            ops.extend([Op::Remember, Op::Replace(2), Op::Sync]);
        }
        if round == 2 || round == 6 {
            ops.push(Op::Snapshot);
        }
        if round == 4 {
            ops.push(Op::Truncate);
        }
    }
    let (model, stopped) = run_until_stop(&disk, &ops);
    assert!(!stopped);
    (disk, model)
}

/// After tampering: refused for a reason that names a file, or nothing acknowledged is missing or wrong.
fn detected_or_harmless(disk: &MemDisk, model: &Model, context: &str) -> bool {
    match open(disk) {
        Ok(opened) => {
            check(&opened, model, context);
            true
        }
        Err(StoreError::Damage(damage)) => {
            assert!(disk.length(&damage.file).is_some() || damage.what.contains("missing"));
            false
        }
        Err(StoreError::Foreign(text)) => {
            assert!(!text.is_empty(), "{context}");
            false
        }
        Err(other) => panic!("{context}: {other}"),
    }
}

#[test]
fn every_flipped_bit_is_detected_or_harmless() {
    let (disk, model) = full_directory();
    let names = disk.list().expect("lists");
    let (mut harmless, mut detected) = (0, 0);
    for name in names.iter().filter(|name| *name != "lock") {
        let length = disk.length(name).expect("is there");
        // Every third byte, each time another bit: primes keep the pattern from lining up with sectors.
        for bit in (0..length * 8).step_by(29) {
            let copy = disk.after_kill();
            copy.flip_bit(name, bit);
            if detected_or_harmless(&copy, &model, &format!("{name} bit {bit}")) {
                harmless += 1;
            } else {
                detected += 1;
            }
        }
    }
    assert!(detected > 3_000, "{detected} detected, {harmless} harmless");
}

#[test]
fn every_truncated_or_missing_file_is_detected_or_harmless() {
    let (disk, model) = full_directory();
    for name in disk.list().expect("lists") {
        let length = usize::try_from(disk.length(&name).expect("is there")).expect("fits");
        for keep in (0..length).step_by(37) {
            let copy = disk.after_kill();
            copy.tamper(&name, |bytes| bytes.truncate(keep));
            detected_or_harmless(&copy, &model, &format!("{name} cut to {keep}"));
        }
        let copy = disk.after_kill();
        copy.remove(&name).expect("removes");
        detected_or_harmless(&copy, &model, &format!("{name} removed"));
    }
}

#[test]
fn exchanged_and_repeated_sectors_are_detected_or_harmless() {
    let (disk, model) = full_directory();
    let mut chance = Chance(11);
    let names: Vec<String> = disk.list().expect("lists");
    let logs: Vec<&String> = names.iter().filter(|name| name.starts_with("log-")).collect();
    for round in 0..2_000 {
        let mut pick = || {
            let at = usize::try_from(chance.below(logs.len() as u64)).expect("fits");
            let sectors = disk.length(logs[at]).expect("is there") / 512;
            (logs[at], usize::try_from(chance.below(sectors)).expect("fits") * 512)
        };
        let ((from, from_at), (to, to_at)) = (pick(), pick());
        let sector = disk.content(from).expect("is there")[from_at..from_at + 512].to_vec();
        let before = disk.content(to).expect("is there")[to_at..to_at + 512].to_vec();
        // A lost write of the very last batch looks like a write that was cut off: no checksum can tell. It has to be older damage.
        let is_last = *to == *logs[logs.len() - 1];
        if sector == before || is_last {
            continue;
        }
        let copy = disk.after_kill();
        copy.tamper(to, |bytes| bytes[to_at..to_at + 512].copy_from_slice(&sector));
        detected_or_harmless(&copy, &model, &format!("{round}: {from}@{from_at} to {to}@{to_at}"));
    }
}

#[test]
fn an_error_at_any_operation_stops_the_log_for_good() {
    let ops: Vec<Op> = (0..8).flat_map(|_| [Op::Append(900), Op::Append(20), Op::Sync]).collect();
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        for at in 0..40 {
            let disk = MemDisk::new();
            let mut model = Model::default();
            let mut life = Life::begin(&disk).expect("a healthy disk");
            disk.fail_after(at, kind);
            let failed = ops.iter().any(|op| life.run(*op, &mut model).is_err());
            if failed {
                // The disk is well again; the log must not go on all the same.
                assert!(life.opened.wal.sync().is_err(), "failed at {at}");
                let mut next = life.frame(life.opened.wal.last_index().0 + 1);
                next.entries = vec![LogEntry::command(EntryBytes::from(&b"more"[..]))];
                assert!(life.append(&next).is_err(), "failed at {at}");
                assert!(life.opened.wal.truncate_before(LogIndex(1)).is_err());
            }
            drop(life);
            for image in disk.crash_images(16).iter().chain([&disk.after_kill()]) {
                check_image(image, &model, &format!("{kind:?} at {at}"));
            }
        }
    }
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let ops: Vec<Op> = (0..40).flat_map(|_| [Op::Append(900), Op::Sync]).collect();
    for capacity in (5_000..40_000).step_by(1_777) {
        let disk = MemDisk::new();
        disk.set_capacity(Some(capacity));
        let (model, stopped) = run_until_stop(&disk, &ops);
        assert!(stopped, "40 entries do not fit into {capacity} bytes");
        let after = disk.after_kill();
        after.set_capacity(None);
        check_image(&after, &model, &format!("{capacity} bytes"));
    }
}

#[test]
fn a_damaged_newest_snapshot_is_passed_over_only_while_the_log_reaches_back() {
    let (disk, model) = full_directory();
    let indexes = snapshot::list(&disk).expect("lists");
    assert_eq!(indexes.len(), 2);
    let newest = format!("snapshot-{:020}.snap", indexes[1].0);
    disk.flip_bit(&newest, 99);
    let opened = open(&disk).expect("the older one serves");
    assert_eq!(opened.start(), indexes[0]);
    assert!(opened.notes[0].contains(&newest), "{:?}", opened.notes);
    check(&opened, &model, "older snapshot");
    drop(opened);
    let opened = open(&disk).expect("opens again");
    assert_eq!((opened.start(), opened.notes.as_slice()), (indexes[0], &[][..]));
    assert!(disk.length(&format!("damaged-{newest}")).is_some(), "it is kept for a look");
    assert_eq!(snapshot::latest(&disk).expect("lists"), Some(indexes[0]));
    drop(opened);

    let (disk, mut model) = full_directory();
    let mut life = Life::begin(&disk).expect("opens");
    for op in [Op::Append(3_000), Op::Sync, Op::Append(3_000), Op::Sync, Op::Truncate] {
        life.run(op, &mut model).expect("works");
    }
    drop(life);
    disk.flip_bit(&newest, 99);
    let error = open(&disk).err().expect("the log does not reach back").to_string();
    assert!(error.contains(&newest) && error.contains("backup"), "{error}");
}

#[test]
fn a_directory_of_another_server_or_without_identity_is_refused() {
    let (disk, _) = full_directory();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let options = Options {
        fresh: IDENTITY,
        cluster: Some(ClusterId([8; 16])),
        server: None,
        wal: WalOptions { segment_bytes: 4096 },
    };
    let refused = |options: &Options| recover(&shared, options).err().expect("refused").to_string();
    assert!(refused(&options).contains("belongs to cluster 0707"));
    let options = Options { cluster: None, server: Some(ServerId(2)), ..options };
    assert!(refused(&options).contains("belongs to server 1, not to 2"));
    disk.remove("identity").expect("removes");
    let options = Options { server: None, ..options };
    assert!(refused(&options).contains("but no identity file"));
}

#[test]
fn entries_that_are_being_read_are_not_dropped() {
    let (disk, mut model) = full_directory();
    let mut life = Life::begin(&disk).expect("opens");
    let first = life.opened.wal.first_index();
    let reading = life.opened.wal.reader().entries(first);
    life.run(Op::Append(5_000), &mut model).expect("works");
    life.run(Op::Sync, &mut model).expect("works");
    life.opened.wal.truncate_before(LogIndex(model.snapshot)).expect("works");
    assert_eq!(life.opened.wal.first_index(), first);
    let read: Vec<LogIndex> = reading.map(|entry| entry.expect("is there").0).collect();
    assert_eq!(read.last(), Some(&LogIndex(model.acked.last - 1)));
    life.opened.wal.truncate_before(LogIndex(model.snapshot)).expect("works");
    assert!(life.opened.wal.first_index() > first);
    let error = life.opened.wal.replay(first).next().expect("says so").expect_err("is dropped");
    assert!(error.to_string().contains("the log begins with entry"), "{error}");
}

/// A disk that says it has synced and has not.
struct Lying {
    disk: MemDisk,
    files: bool,
    names: bool,
}

struct LyingFile {
    file: Box<dyn DiskFile>,
    lies: bool,
}

impl Lying {
    fn wrap(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(LyingFile { file, lies: self.files })
    }
}

impl Disk for Lying {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.disk.create(name).map(|file| self.wrap(file))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open(name).map(|file| self.wrap(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        if self.names { Ok(()) } else { self.disk.sync_names() }
    }

    fn lock(&self) -> Result<DirLock, StoreError> {
        self.disk.lock()
    }
}

impl DiskFile for LyingFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn allocate(&mut self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.lies { Ok(()) } else { self.file.sync() }
    }
}

#[test]
fn the_checks_catch_a_disk_that_lies_about_syncs() {
    let ops: Vec<Op> = (0..6).flat_map(|_| [Op::Append(1_400), Op::Sync]).collect();
    for (files, names) in [(true, false), (false, true), (false, false)] {
        let disk = MemDisk::new();
        let (model, stopped) = run_on(Arc::new(Lying { disk: disk.clone(), files, names }), &ops);
        assert!(!stopped);
        let wrong = disk.crash_images(64).iter().any(|image| {
            let opened = open(image);
            let whole = |opened: &Recovered| opened.wal.last_index() >= LogIndex(model.acked.last);
            !opened.as_ref().is_ok_and(whole)
        });
        assert_eq!(wrong, files || names, "files {files}, names {names}");
    }
}

#[test]
fn other_files_in_the_directory_are_left_alone() {
    let disk = MemDisk::new();
    for name in ["notes.txt", "other.tmp"] {
        disk.create(name).expect("creates");
    }
    drop(open(&disk).expect("opens"));
    drop(open(&disk).expect("opens again"));
    let names = disk.list().expect("lists");
    assert_eq!(names, ["identity", "log-0000000000000001.seg", "notes.txt", "other.tmp"]);
}

#[test]
fn garbage_anywhere_is_detected_or_harmless() {
    let (disk, model) = full_directory();
    let names: Vec<String> = disk.list().expect("lists");
    let mut chance = Chance(23);
    for round in 0..4_000 {
        let copy = disk.after_kill();
        let mut context = format!("round {round}");
        for _ in 0..=chance.below(3) {
            let name = &names[usize::try_from(chance.below(names.len() as u64)).expect("fits")];
            let length = disk.length(name).expect("is there");
            let start = usize::try_from(chance.below(length)).expect("fits");
            let count = usize::try_from(chance.below(700)).expect("fits");
            context += &format!(", {count} bytes at {name}@{start}");
            copy.tamper(name, |bytes| {
                for byte in bytes.iter_mut().skip(start).take(count) {
                    *byte = u8::try_from(chance.below(256)).expect("fits");
                }
            });
        }
        detected_or_harmless(&copy, &model, &context);
    }
}
