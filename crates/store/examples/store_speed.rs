//! How fast the log and the history take things, on the disk of the directory given:
//! `cargo run --release -p rota-store --example store_speed -- DIRECTORY`.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rota_core::event::{AttemptRecord, AttemptState, Event, Next};
use rota_core::job::TaskState;
use rota_ports::{EntryBytes, Frame, FrameSeq, LogEntry, ReplicatedLog, Store};
use rota_store::disk::{Disk, FsDisk};
use rota_store::history::{HISTORY_FILE, History, HistoryOptions};
use rota_store::recover::{Options, Recovered, recover};
use rota_store::solo::{SoloLimits, SoloLog};
use rota_store::wal::WalOptions;
use rota_store::writer::LogWriter;
use rota_store::{ClusterId, Identity, StoreError};
use rota_types::{AttemptId, JobId, LogIndex, NodeId, ServerId, TaskId, Timestamp};

const IDENTITY: Identity = Identity { cluster: ClusterId([1; 16]), server: ServerId(1) };
const RUN: Duration = Duration::from_secs(3);

fn open(path: &Path) -> Result<Recovered, StoreError> {
    let disk: Arc<dyn Disk> = Arc::new(FsDisk::open(path)?);
    let wal = WalOptions::default();
    recover(&disk, &Options { fresh: IDENTITY, cluster: None, server: None, wal })
}

/// Single appends, one sync each.
fn one_writer(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut wal = open(path)?.wal;
    let mut times = Vec::new();
    let began = Instant::now();
    while began.elapsed() < RUN {
        let start = Instant::now();
        let entries = vec![LogEntry::command(EntryBytes::from([7; 200]))];
        let first = wal.last_index().next();
        wal.append(&Frame { seq: FrameSeq(1), first, entries, state: None, reset: false })?;
        wal.sync()?;
        times.push(start.elapsed());
    }
    times.sort();
    let at = |share: usize| times[times.len() * share / 1_000];
    println!(
        "1 entry a sync: {} /s, p50 {:?}, p99 {:?}, p99.9 {:?}, max {:?}",
        times.len() / 3,
        at(500),
        at(990),
        at(999),
        at(999).max(times[times.len() - 1]),
    );
    Ok(())
}

/// `writers` clients that each wait for their entry before they send another.
fn group_commit(path: &Path, writers: usize) -> Result<(), Box<dyn std::error::Error>> {
    let recovered = open(path)?;
    let last = recovered.wal.last_index();
    let (sender, durable) = channel();
    let writer = LogWriter::spawn(
        recovered.wal,
        move |done| {
            let _sent = sender.send(done.frame);
        },
        |error| panic!("{error}"),
    )?;
    let mut log = SoloLog::new(last, SoloLimits { entries: writers, ..SoloLimits::default() });
    let began = Instant::now();
    let (mut waiting, mut committed, mut frames) = (0, 0, 0);
    while began.elapsed() < RUN {
        while waiting < writers && log.propose(EntryBytes::from([7; 200])).is_ok() {
            waiting += 1;
        }
        if let Some(frame) = log.poll().frame {
            writer.append(frame);
            frames += 1;
        }
        log.persisted(durable.recv()?);
        let done = log.poll();
        if let Some(frame) = done.frame {
            writer.append(frame);
            frames += 1;
        }
        committed += done.committed.len();
        waiting -= done.committed.len();
    }
    println!("{writers} writers: {} entries/s in {} syncs/s", committed / 3, frames / 3);
    Ok(())
}

fn history(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let file = path.join(HISTORY_FILE);
    let options = HistoryOptions::default();
    let history = History::open(&file, &IDENTITY, options, |error| panic!("{error}"))?;
    let detail: Arc<[u8]> = Arc::from([7; 100]);
    let record = |index| AttemptRecord {
        attempt: AttemptId { task: TaskId { job: JobId(1), index }, number: 1 },
        node: NodeId(3),
        placed_at: Timestamp(1_800_000_000_000_000),
        started_at: Some(Timestamp(1_800_000_000_000_000)),
        ended_at: Timestamp(1_800_000_000_000_000),
        state: AttemptState::Succeeded,
        failure: None,
        detail: Arc::clone(&detail),
        next: Next::Finished(TaskState::Succeeded),
    };
    let total = 2_000_000_u32;
    let mut feeding = Vec::new();
    let began = Instant::now();
    for (number, start) in (1..).zip((0..total).step_by(2_000)) {
        let ended = |index| Event::AttemptEnded(Box::new(record(index)));
        let events: Vec<Event> = (start..start + 2_000).map(ended).collect();
        let start = Instant::now();
        history.feed(LogIndex(number), Timestamp(1), &events);
        feeding.push(start.elapsed());
    }
    history.flush();
    feeding.sort();
    let all = began.elapsed().as_secs_f64();
    println!(
        "history: {:.0} attempts/s durable, feeding takes {} ns each, {} bytes each",
        f64::from(total) / all,
        feeding[feeding.len() / 2].as_nanos() / 2_000,
        std::fs::metadata(&file)?.len() / u64::from(total),
    );
    let began = Instant::now();
    for n in 0..1_000 {
        let index = n * 1_999 % total;
        let found = history.attempts(TaskId { job: JobId(1), index })?;
        assert_eq!(found.len(), 1);
    }
    println!("history: one task's attempts in {:?}", began.elapsed() / 1_000);
    let began = Instant::now();
    for n in 0..100 {
        assert_eq!(history.attempts_of_job(JobId(1), n * 10_000, 100)?.items.len(), 100);
    }
    println!("history: a page of 100 attempts in {:?}", began.elapsed() / 100);
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args().nth(1).ok_or("name a directory for the test's files")?;
    let directory = Path::new(&directory);
    let began = Instant::now();
    drop(open(&directory.join("log"))?);
    println!("a new directory in {:?}", began.elapsed());
    one_writer(&directory.join("log"))?;
    for writers in [1, 16, 64, 256, 1_024] {
        group_commit(&directory.join("log"), writers)?;
    }
    let began = Instant::now();
    let recovered = open(&directory.join("log"))?;
    let count = recovered.wal.replay(LogIndex(1)).count();
    println!("opening and reading {count} entries in {:?}", began.elapsed());
    std::fs::create_dir_all(directory.join("history"))?;
    history(&directory.join("history"))
}
