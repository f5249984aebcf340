//! Clusters under simulated faults, as many as you like:
//! `cargo run --release -p rota-consensus --example chaos -- --log raft --seeds 1000 --first 0 --seconds 600`.
//! `--shape chain --servers 5` holds one partition for ten seconds instead, and says how long nothing could be written.
//! Each seed is one cluster with a mixture of faults of its own; a failure is printed with its seed, which gives the same run again.

#[path = "../tests/common/mod.rs"]
mod common;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use rota_ports::contract::{Faults, Options, Protocol, Report, Shape, Weather, run};

struct Arguments {
    paxos: bool,
    seeds: u64,
    first: u64,
    limit: Duration,
    shape: Option<Shape>,
    servers: u64,
}

fn arguments() -> Result<Arguments, String> {
    let limit = Duration::from_secs(3_600);
    let mut found =
        Arguments { paxos: false, seeds: 1_000, first: 0, limit, shape: None, servers: 5 };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let value = given.next().ok_or(format!("{name} needs a value"))?;
        let number = || value.parse().map_err(|_| format!("{name} {value}: not a number"));
        match name.as_str() {
            "--log" if value == "raft" || value == "paxos" => found.paxos = value == "paxos",
            "--log" => return Err(format!("--log {value}: there are raft and paxos")),
            "--seeds" => found.seeds = number()?,
            "--first" => found.first = number()?,
            "--servers" => found.servers = number()?,
            "--shape" => {
                let name = |shape: &Shape| format!("{shape:?}").to_lowercase();
                let shape = Shape::ALL.into_iter().find(|shape| name(shape) == value);
                found.shape = Some(shape.ok_or(format!("--shape {value}: unknown"))?);
            }
            "--seconds" => found.limit = Duration::from_secs(number()?),
            _ => {
                return Err(format!(
                    "{name}: unknown; there are --log, --seeds, --first, --seconds, --shape, --servers"
                ));
            }
        }
    }
    Ok(found)
}

impl Arguments {
    /// A mixture of faults, or ten seconds of one partition.
    fn options(&self, seed: u64) -> Options {
        let mixture = Options::of(seed);
        let Some(shape) = self.shape else { return mixture };
        Options {
            servers: self.servers,
            faults_micros: 10_500_000,
            faults: Faults::default(),
            weather: Weather { in_order: true, ..Weather::default() },
            partition: Some(shape),
            ..mixture
        }
    }
}

/// Runs the clusters, and returns how many broke the contract.
fn all<P: Protocol>(arguments: &Arguments) -> u64 {
    let began = Instant::now();
    let (mut sum, mut failures, mut runs) = (Report::default(), 0, 0);
    let (mut recoveries, mut gaps) = (Vec::new(), Vec::new());
    for seed in (arguments.first..).take(usize::try_from(arguments.seeds).unwrap_or(usize::MAX)) {
        if began.elapsed() > arguments.limit {
            break;
        }
        runs += 1;
        match run::<P>(arguments.options(seed)) {
            Ok(report) => {
                sum.add(&report);
                recoveries.push(report.recovery_micros);
                gaps.push(report.gap_micros);
            }
            Err(error) => {
                failures += 1;
                println!("{error}");
            }
        }
    }
    println!("{runs} clusters in {:?}, {failures} failures", began.elapsed());
    println!("{sum:?}");
    print("from healing to the next acknowledged write", recoveries);
    if arguments.shape.is_some() {
        print("longest time without an acknowledged write", gaps);
    }
    failures
}

fn print(what: &str, mut micros: Vec<u64>) {
    micros.sort_unstable();
    let at = |share: usize| match micros.len() {
        0 => 0,
        count => micros[(count * share / 1_000).min(count - 1)] / 1_000,
    };
    let (p50, p99, most) = (at(500), at(990), at(1_000));
    println!("{what}: p50 {p50} ms, p99 {p99} ms, p99.9 {} ms, most {most} ms", at(999));
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
