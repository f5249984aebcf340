//! `rota bench`: bounded loads against a server and a worker of its own, on loopback, in a directory that it throws away.
//!
//! Each subject prints what it measured, on which machine and how. The server and the worker are separate processes of this
//! binary, so that their memory and cpu time can be told from the load's.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use rota_api::{ErrorCode, exit};
use serde::Serialize;

use crate::output::{Format, Output};
use crate::trouble::{Result, Trouble};

mod failover;
mod latency;
mod process;
mod queue;
mod rig;
mod throughput;

/// What to measure.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rota bench array --tasks 1000000     durable no-op tasks of one array job, per second
  rota bench submit --jobs 50000       the same as separate submits over 64 connections
  rota bench process --tasks 5000      /bin/true under rota against a bare spawn loop
  rota bench latency --rate 200        submit to start, under a steady load
  rota bench queue --tasks 1000000     memory and restart with a million queued tasks
  rota bench failover --kills 300      a cluster whose leader is killed again and again")]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Debug, Subcommand)]
enum Subject {
    /// No-op tasks of one array job: recorded, assigned, executed and completed durably.
    Array {
        /// How many tasks.
        #[arg(long, default_value_t = 1_000_000)]
        tasks: u32,
    },
    /// No-op tasks as separate jobs, each submitted and acknowledged by itself.
    Submit {
        /// How many jobs.
        #[arg(long, default_value_t = 50_000)]
        jobs: u32,
        /// How many submits are under way at a time.
        #[arg(long, default_value_t = 64)]
        connections: u32,
        /// How many jobs go into one request; above 1 they are sent as newline-delimited JSON.
        #[arg(long, default_value_t = 1)]
        batch: u32,
    },
    /// Real processes, against a bare spawn loop of the same concurrency.
    Process {
        /// How many processes.
        #[arg(long, default_value_t = 5_000)]
        tasks: u32,
        /// How many at a time.
        #[arg(long, default_value_t = 4)]
        concurrency: u32,
    },
    /// From submit to start under a steady load of /bin/true.
    Latency {
        /// Submits per second.
        #[arg(long, default_value_t = 200)]
        rate: u32,
        /// For how long, in seconds.
        #[arg(long, default_value_t = 30)]
        seconds: u32,
    },
    /// Memory of the server with many queued tasks, what a planning pass costs then, and how long a restart takes after kill -9.
    Queue {
        /// How many tasks.
        #[arg(long, default_value_t = 1_000_000)]
        tasks: u32,
        /// One array job, or a job each.
        #[arg(long, value_enum, default_value_t = Shape::Array)]
        shape: Shape,
    },
    /// From the loss of the leader to the next acknowledged change, in a cluster on this machine.
    Failover {
        /// How often the leader goes.
        #[arg(long, default_value_t = 300)]
        kills: u32,
        /// How many servers.
        #[arg(long, default_value_t = 3)]
        servers: u32,
        /// How the servers agree.
        #[arg(long, value_enum, default_value_t = crate::commands::dev::Log::Raft)]
        log: crate::commands::dev::Log,
        /// How the leader goes.
        #[arg(long, value_enum, default_value_t = Way::Kill)]
        way: Way,
    },
}

/// How a leader goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    /// Killed with -9.
    Kill,
    /// It hands over, as before a planned restart.
    Transfer,
}

/// How tasks are queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    /// One array job.
    Array,
    /// One job per task.
    Separate,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Measurement {
    /// The subject.
    subject: &'static str,
    /// What the machine offers.
    machine: String,
    /// The figures, in the order in which they are printed.
    figures: Vec<Figure>,
}

/// One figure.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    name: &'static str,
    value: f64,
    unit: &'static str,
}

impl Figure {
    pub(crate) fn new(name: &'static str, value: f64, unit: &'static str) -> Self {
        Self { name, value, unit }
    }

    pub(crate) fn seconds(name: &'static str, value: Duration) -> Self {
        Self::new(name, value.as_secs_f64(), "s")
    }

    pub(crate) fn millis(name: &'static str, micros: u64) -> Self {
        Self::new(name, micros as f64 / 1e3, "ms")
    }

    pub(crate) fn mebibytes(name: &'static str, bytes: u64) -> Self {
        Self::new(name, bytes as f64 / f64::from(1 << 20), "MiB")
    }
}

/// Runs one subject and prints what it measured.
pub(crate) async fn run(args: BenchArgs, output: &Output) -> Result<u8> {
    let (subject, figures) = match args.subject {
        Subject::Array { tasks } => ("array", throughput::array(tasks).await?),
        Subject::Submit { jobs, connections, batch } => {
            ("submit", throughput::submit(jobs, connections, batch).await?)
        }
        Subject::Process { tasks, concurrency } => {
            ("process", process::measure(tasks, concurrency).await?)
        }
        Subject::Latency { rate, seconds } => ("latency", latency::measure(rate, seconds).await?),
        Subject::Queue { tasks, shape } => ("queue", queue::measure(tasks, shape).await?),
        Subject::Failover { kills, servers, log, way } => {
            ("failover", failover::measure((servers, log), kills, way).await?)
        }
    };
    print(&Measurement { subject, machine: machine(), figures }, output)?;
    Ok(exit::OK)
}

fn print(measurement: &Measurement, output: &Output) -> Result<()> {
    match output.format {
        Format::Table | Format::Wide => {
            let mut text = format!("bench {} · {}\n", measurement.subject, measurement.machine);
            for Figure { name, value, unit } in &measurement.figures {
                text.push_str(&format!("  {name:<44} {value:>14.3} {unit}\n"));
            }
            output.text(text.trim_end())
        }
        Format::Json | Format::Jsonl | Format::Yaml => output.document(measurement),
    }
}

/// What the machine is, in a line.
fn machine() -> String {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map(|rest| rest.trim_start_matches(['\t', ' ', ':']).to_owned())
        .unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cpus} cpus, {model}, Linux {}, rota {}", kernel.trim(), env!("CARGO_PKG_VERSION"))
}

/// The benchmark itself could not go on.
pub(crate) fn trouble(what: &str, error: impl std::fmt::Display) -> Trouble {
    Trouble::new(ErrorCode::Internal, format!("{what}: {error}"))
}
