//! Clusters under simulated faults, as many as you like:
//! `cargo run --release -p rota-consensus --example chaos -- --log raft --seeds 1000 --first 0 --seconds 600`.
//! Each seed is one cluster with a mixture of faults of its own; a failure is printed with its seed, which gives the same run again.

#[path = "../tests/common/mod.rs"]
mod common;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use rota_ports::contract::{Options, Protocol, Report, run};

struct Arguments {
    paxos: bool,
    seeds: u64,
    first: u64,
    limit: Duration,
}

fn arguments() -> Result<Arguments, String> {
    let limit = Duration::from_secs(3_600);
    let mut found = Arguments { paxos: false, seeds: 1_000, first: 0, limit };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let value = given.next().ok_or(format!("{name} needs a value"))?;
        let number = || value.parse().map_err(|_| format!("{name} {value}: not a number"));
        match name.as_str() {
            "--log" if value == "raft" || value == "paxos" => found.paxos = value == "paxos",
            "--log" => return Err(format!("--log {value}: there are raft and paxos")),
            "--seeds" => found.seeds = number()?,
            "--first" => found.first = number()?,
            "--seconds" => found.limit = Duration::from_secs(number()?),
            _ => {
                return Err(format!(
                    "{name}: unknown; there are --log, --seeds, --first, --seconds"
                ));
            }
        }
    }
    Ok(found)
}

/// Runs the clusters, and returns how many broke the contract.
fn all<P: Protocol>(arguments: &Arguments) -> u64 {
    let began = Instant::now();
    let (mut sum, mut failures, mut runs) = (Report::default(), 0, 0);
    let mut recoveries = Vec::new();
    for seed in (arguments.first..).take(usize::try_from(arguments.seeds).unwrap_or(usize::MAX)) {
        if began.elapsed() > arguments.limit {
            break;
        }
        runs += 1;
        match run::<P>(Options::of(seed)) {
            Ok(report) => {
                sum.add(&report);
                recoveries.push(report.recovery_micros);
            }
            Err(error) => {
                failures += 1;
                println!("{error}");
            }
        }
    }
    recoveries.sort_unstable();
    let at = |share: usize| match recoveries.len() {
        0 => 0,
        count => recoveries[(count * share / 1_000).min(count - 1)] / 1_000,
    };
    println!("{runs} clusters in {:?}, {failures} failures", began.elapsed());
    println!("{sum:?}");
    println!(
        "from healing to the next acknowledged write: p50 {} ms, p99 {} ms, p99.9 {} ms, most {} ms",
        at(500),
        at(990),
        at(999),
        at(1_000)
    );
    failures
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let failures = if arguments.paxos {
        all::<common::Paxos>(&arguments)
    } else {
        all::<common::Raft>(&arguments)
    };
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
