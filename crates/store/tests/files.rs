//! The same on a real file system.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use rota_core::State;
use rota_core::command::{Command as Asked, QueueSpec};
use rota_ports::{
    Committed, EntryBytes, Frame, FrameSeq, LogEntry, ReplicatedLog, SnapshotMeta, Store,
};
use rota_store::disk::{Disk, FsDisk};
use rota_store::recover::{Options, Recovered, recover};
use rota_store::solo::{SoloLimits, SoloLog};
use rota_store::wal::WalOptions;
use rota_store::writer::LogWriter;
use rota_store::{ClusterId, Identity, StoreError, snapshot};
use rota_types::{LogIndex, ServerId, Steady, Timestamp};

const IDENTITY: Identity = Identity { cluster: ClusterId([7; 16]), server: ServerId(1) };

fn disk(path: &Path) -> Arc<dyn Disk> {
    Arc::new(FsDisk::open(path).expect("opens"))
}

fn open(path: &Path) -> Result<Recovered, StoreError> {
    let wal = WalOptions { segment_bytes: 16 << 10 };
    recover(&disk(path), &Options { fresh: IDENTITY, cluster: None, server: None, wal })
}

#[test]
fn nobody_else_can_read_a_data_directory() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("made/server");
    let recovered = open(&data).expect("opens");
    let history = data.join(rota_store::history::HISTORY_FILE);
    let options = rota_store::history::HistoryOptions::default();
    let opened = rota_store::history::History::open(&history, &IDENTITY, options, |_| {});
    drop(opened.expect("opens"));
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!([data.parent().expect("below"), &data].map(mode), [0o700; 2]);
    let mut files: Vec<_> = std::fs::read_dir(&data).expect("there").collect();
    assert!(files.len() > 3, "log, lock, identity, history");
    for file in files.drain(..) {
        let path = file.expect("there").path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    drop(recovered);
}

fn entry(number: u64) -> rota_ports::EntryBytes {
    let queue = QueueSpec::named(&format!("queue-{number}"));
    rota_wire::log::encode_entry(Timestamp(number), Steady(number), &[Asked::CreateQueue(queue)])
}

fn frame(first: LogIndex, bytes: EntryBytes) -> Frame {
    let entries = vec![LogEntry::command(bytes)];
    Frame { seq: FrameSeq(1), first, entries, state: None, reset: false }
}

/// Applies everything that a directory holds.
fn state_of(opened: &Recovered) -> State {
    let mut state = opened.state().expect("restores");
    for entry in opened.entries() {
        state.apply(&entry.expect("is whole"));
    }
    state
}

#[test]
fn a_directory_is_used_by_one_process_at_a_time_and_the_error_names_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let opened = open(directory.path()).expect("opens");
    let error = open(directory.path()).err().expect("is in use").to_string();
    let holder = format!("process {}", std::process::id());
    assert!(error.contains(&holder) && error.contains("choose another"), "{error}");
    drop(opened);
    open(directory.path()).expect("is free again");
}

#[test]
fn a_holder_that_is_gone_leaves_the_directory_free() {
    let directory = tempfile::tempdir().expect("a directory");
    drop(open(directory.path()).expect("opens"));
    let lock = directory.path().join("lock");
    // `flock` of another process, which then ends without cleaning up.
    let mut holder = Command::new("flock")
        .arg(&lock)
        .args(["sh", "-c", "echo locked; read line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("flock is installed");
    let mut line = [0; 7];
    std::io::Read::read_exact(&mut holder.stdout.take().expect("piped"), &mut line).expect("reads");
    assert!(matches!(open(directory.path()), Err(StoreError::InUse { .. })));
    drop(holder.stdin.take());
    holder.wait().expect("ends");
    open(directory.path()).expect("is free again");
}

#[test]
fn snapshot_and_log_give_back_the_state() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut live = State::new();
    for life in 0..4 {
        let mut opened = open(directory.path()).expect("opens");
        assert_eq!(opened.is_new, life == 0);
        assert_eq!(state_of(&opened).digest(), live.digest(), "life {life}");
        for _ in 0..40 {
            let index = opened.wal.last_index().next();
            let bytes = entry(index.0);
            live.apply(&rota_wire::log::decode_entry(index, &bytes).expect("decodes"));
            opened.wal.append(&frame(index, bytes)).expect("works");
            opened.wal.sync().expect("works");
        }
        if life > 0 {
            let index = opened.wal.last_index();
            let written = snapshot::write(
                disk(directory.path()).as_ref(),
                &opened.identity,
                &SnapshotMeta::solo(index),
                live.records(),
            );
            assert_eq!(written.expect("works").records, live.records().count() as u64);
            opened.wal.truncate_before(index).expect("works");
        }
    }
    let opened = open(directory.path()).expect("opens");
    assert_eq!(opened.start(), LogIndex(160));
    assert!(opened.wal.first_index() > LogIndex(1), "segments were dropped");
}

#[test]
fn log_writer_and_solo_log_commit_what_is_on_the_disk() {
    let directory = tempfile::tempdir().expect("a directory");
    let opened = open(directory.path()).expect("opens");
    let reader = opened.wal.reader();
    let (sender, durable) = channel();
    let writer = LogWriter::spawn(
        opened.wal,
        move |done| sender.send(done.frame).expect("the test listens"),
        |error| panic!("{error}"),
    );
    let writer = writer.expect("starts");
    let mut log = SoloLog::new(LogIndex(0), SoloLimits::default());
    let (mut proposed, mut committed) = (Vec::new(), Vec::new());
    while committed.len() < 500 {
        while proposed.len() < 500 && proposed.len() < committed.len() + 64 {
            let entry = entry(proposed.len() as u64);
            log.propose(Arc::clone(&entry)).expect("there is room");
            proposed.push(entry);
        }
        let effects = log.poll();
        if let Some(frame) = effects.frame {
            writer.append(frame);
        }
        for Committed { index, entry } in effects.committed {
            assert!(reader.last_index() >= index, "what is committed is durable");
            committed.push(entry.expect("a log of one server has no entries of its own"));
        }
        if committed.len() < proposed.len() {
            log.persisted(durable.recv_timeout(Duration::from_secs(20)).expect("goes on"));
        }
    }
    assert_eq!(committed, proposed);
    drop(writer);
    let read = reader.entries(LogIndex(1)).map(|entry| entry.expect("is whole").1.bytes);
    assert_eq!(read.collect::<Vec<_>>(), proposed);
}

/// A directory that the first format of the log and of snapshots was written to: twelve entries, two segments, a snapshot of entry 5.
const FORMAT_1: [(&str, &[u8]); 4] = [
    ("identity", include_bytes!("golden/format1/identity")),
    ("log-0000000000000001.seg", include_bytes!("golden/format1/log-0000000000000001.seg")),
    ("log-0000000000000002.seg", include_bytes!("golden/format1/log-0000000000000002.seg")),
    (
        "snapshot-00000000000000000005.snap",
        include_bytes!("golden/format1/snapshot-00000000000000000005.snap"),
    ),
];

#[test]
fn a_directory_of_the_first_format_is_read_and_goes_on_in_todays() {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, bytes) in FORMAT_1 {
        std::fs::write(directory.path().join(name), bytes).expect("writes");
    }
    let mut live = State::new();
    for number in 1..=12 {
        let decoded = rota_wire::log::decode_entry(LogIndex(number), &entry(number));
        live.apply(&decoded.expect("decodes"));
    }
    let mut opened = open(directory.path()).expect("opens");
    assert_eq!((opened.start(), opened.wal.last_index()), (LogIndex(5), LogIndex(12)));
    assert_eq!(opened.snapshot_meta(), SnapshotMeta::solo(LogIndex(5)));
    assert_eq!(state_of(&opened).digest(), live.digest());
    opened.wal.append(&frame(LogIndex(13), entry(13))).expect("works");
    opened.wal.sync().expect("works");
    live.apply(&rota_wire::log::decode_entry(LogIndex(13), &entry(13)).expect("decodes"));
    drop(opened);
    let opened = open(directory.path()).expect("opens");
    assert_eq!(state_of(&opened).digest(), live.digest());
    let names: Vec<String> = disk(directory.path()).list().expect("lists");
    assert!(names.contains(&"log-0000000000000003.seg".to_owned()), "{names:?}");
}
