//! The same on a real file system.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use rota_core::State;
use rota_core::command::{Command as Asked, QueueSpec};
use rota_ports::{Frame, FrameSeq, ReplicatedLog, Store};
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

fn entry(number: u64) -> rota_ports::EntryBytes {
    let queue = QueueSpec::named(&format!("queue-{number}"));
    rota_wire::log::encode_entry(Timestamp(number), Steady(number), &[Asked::CreateQueue(queue)])
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
            let entries = vec![entry(index.0)];
            live.apply(&rota_wire::log::decode_entry(index, &entries[0]).expect("decodes"));
            opened.wal.append(&Frame { seq: FrameSeq(1), first: index, entries }).expect("works");
            opened.wal.sync().expect("works");
        }
        if life > 0 {
            let index = opened.wal.last_index();
            let written = snapshot::write(
                disk(directory.path()).as_ref(),
                &opened.identity,
                index,
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
        for (index, entry) in effects.committed {
            assert!(reader.last_index() >= index, "what is committed is durable");
            committed.push(entry);
        }
        if committed.len() < proposed.len() {
            log.persisted(durable.recv_timeout(Duration::from_secs(20)).expect("goes on"));
        }
    }
    assert_eq!(committed, proposed);
    drop(writer);
    let read = reader.entries(LogIndex(1)).map(|entry| entry.expect("is whole").1);
    assert_eq!(read.collect::<Vec<_>>(), proposed);
}
