//! How fast entries are encoded and decoded: `cargo run --release -p rota-wire --example throughput`.

use std::time::Instant;

use rota_core::command::{AttemptEnd, AttemptReport, Command, Placement, Plan};
use rota_core::event::{AttemptRecord, AttemptState, Next};
use rota_core::job::TaskState;
use rota_types::{AttemptId, JobId, LogIndex, NodeId, Steady, TaskId, Timestamp};
use rota_wire::{history, log, worker};

const BATCH: u32 = 8_192;
const ROUNDS: u32 = 200;

fn attempt(index: u32) -> AttemptId {
    AttemptId { task: TaskId { job: JobId(1_234_567), index }, number: 1 }
}

fn plan() -> Command {
    let placement = |n| Placement {
        task: TaskId { job: JobId(1_234_567 + u64::from(n)), index: n * 7 },
        count: 1,
        node: NodeId(n % 5_000),
    };
    Command::CommitPlan(Plan { placements: (0..BATCH).map(placement).collect(), ..Plan::default() })
}

fn reports(detail: &worker::Detail) -> Command {
    let detail = worker::encode_detail(detail);
    let report = |n| AttemptReport {
        attempt: attempt(n),
        node: NodeId(n % 5_000),
        end: AttemptEnd::Succeeded,
        started_at: Some(Timestamp(1_800_000_000_000_000)),
        ended_at: Timestamp(1_800_000_000_100_000),
        detail: detail.clone(),
    };
    Command::EndAttempts((0..BATCH).map(report).collect())
}

fn measure(name: &str, command: Command) {
    let commands = [command];
    let began = Instant::now();
    let mut bytes = log::encode_entry(Timestamp(1), Steady(1), &commands);
    for _ in 1..ROUNDS {
        bytes = log::encode_entry(Timestamp(1), Steady(1), &commands);
    }
    let encode = began.elapsed();
    let began = Instant::now();
    for _ in 0..ROUNDS {
        let entry = log::decode_entry(LogIndex(1), &bytes).expect("was just encoded");
        assert_eq!(entry.commands.len(), 1);
    }
    let decode = began.elapsed();
    let rate = |seconds: f64| f64::from(BATCH * ROUNDS) / seconds / 1e6;
    println!(
        "{name:24} encode {:6.2} M/s, decode {:6.2} M/s, both {:6.2} M/s, {:.1} bytes each",
        rate(encode.as_secs_f64()),
        rate(decode.as_secs_f64()),
        rate((encode + decode).as_secs_f64()),
        f64::from(u32::try_from(bytes.len()).unwrap_or(u32::MAX)) / f64::from(BATCH),
    );
}

fn main() {
    measure("placements", plan());
    measure("reports, no detail", reports(&worker::Detail::default()));
    let tail = worker::Detail {
        stdout_tail: vec![b'x'; 200],
        stdout_bytes: 200,
        cpu_micros: 1_234,
        memory_peak_bytes: 4 << 20,
        ..worker::Detail::default()
    };
    measure("reports, 200 byte tail", reports(&tail));
    let record = |n| AttemptRecord {
        attempt: attempt(n),
        node: NodeId(3),
        placed_at: Timestamp(1_800_000_000_000_000),
        started_at: Some(Timestamp(1_800_000_000_000_000)),
        ended_at: Timestamp(1_800_000_000_000_000),
        state: AttemptState::Succeeded,
        failure: None,
        detail: worker::encode_detail(&tail),
        next: Next::Finished(TaskState::Succeeded),
    };
    let records: Vec<AttemptRecord> = (0..512).map(record).collect();
    let began = Instant::now();
    for _ in 0..1_000 {
        assert!(!history::encode_attempts(JobId(1_234_567), &records).is_empty());
    }
    let rate = 512_000.0 / began.elapsed().as_secs_f64() / 1e6;
    println!("{:24} encode {rate:6.2} M/s", "history records");
}
