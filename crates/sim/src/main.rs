//! Runs seeds of the simulator: `cargo xtask sim` is the way to call it.

use std::process::ExitCode;

use rota_sim::{Counters, Failure, Options, REQUIRED, exhaustive, run, run_traced, shrink, subset};

const USAGE: &str = "usage: rota-sim [--seeds N] [--from S] [--seed S] [--with TEXT] [--options TEXT] [--trace] [--no-shrink] [--counters] [--subset] [--exhaustive DEPTH]";

/// What the command line asks for.
#[derive(Default)]
struct Ask {
    seeds: u64,
    from: u64,
    options: Option<Options>,
    trace: bool,
    keep_size: bool,
    counters: bool,
    subset: bool,
    /// Options that replace those of each seed.
    with: String,
    depth: Option<u32>,
}

fn main() -> ExitCode {
    let ask = match parse(std::env::args().skip(1)) {
        Ok(ask) => ask,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if let Some(depth) = ask.depth {
        return explore(depth);
    }
    let runs = match choose(&ask) {
        Ok(runs) => runs,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let mut total = Total::default();
    for options in &runs {
        let result = if ask.trace { run_traced(options) } else { run(options) };
        match result {
            Ok(report) => {
                if ask.trace {
                    report.trace.iter().for_each(|line| println!("{line}"));
                }
                total.seeds += 1;
                total.simulated += report.simulated;
                total.entries += report.entries;
                total.processes += report.processes;
                total.checks += report.checks;
                total.counters.merge(&report.counters);
            }
            Err(failure) => return report_failure(&ask, failure),
        }
    }
    total.print();
    let missing = total.counters.missing();
    if ask.counters && !missing.is_empty() {
        println!("never reached: {missing:?}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn choose(ask: &Ask) -> Result<Vec<Options>, String> {
    match &ask.options {
        Some(options) => Ok(vec![options.clone()]),
        None if ask.subset => Ok(subset().collect()),
        None => {
            let seeds = ask.from..ask.from.saturating_add(ask.seeds);
            seeds.map(|seed| format!("seed={seed}{}", ask.with).parse()).collect()
        }
    }
}

/// Sums over all runs.
#[derive(Default)]
struct Total {
    seeds: u64,
    simulated: u64,
    entries: u64,
    processes: u64,
    checks: u64,
    counters: Counters,
}

impl Total {
    fn print(&self) {
        let Self { seeds, simulated, entries, processes, checks, counters } = self;
        let hours = simulated / 3_600_000_000;
        let minutes = simulated / 60_000_000 % 60;
        println!(
            "{seeds} seeds, {hours} h {minutes} min simulated, {entries} entries, {processes} processes"
        );
        println!(
            "{checks} invariants evaluated, {} of {} rare situations reached",
            REQUIRED.len() - counters.missing().len(),
            REQUIRED.len()
        );
        print!("{counters}");
    }
}

fn explore(depth: u32) -> ExitCode {
    match exhaustive::explore(depth) {
        Ok(found) => {
            println!("{} states, {} transitions, depth {depth}", found.states, found.transitions);
            ExitCode::SUCCESS
        }
        Err(what) => {
            println!("{what}");
            ExitCode::FAILURE
        }
    }
}

fn report_failure(ask: &Ask, failure: Box<Failure>) -> ExitCode {
    let print = |failure: &Failure| {
        println!("at {} ms: {}", failure.at / 1_000, failure.what);
        println!("replay: cargo xtask sim --options {}", failure.options);
    };
    print(&failure);
    if !ask.keep_size && !ask.trace {
        let smaller = shrink(failure, 300, |options| run(options).err());
        println!("shrunk:");
        print(&smaller);
    } else {
        failure.trace.iter().for_each(|line| println!("{line}"));
    }
    ExitCode::FAILURE
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Ask, String> {
    let mut ask = Ask { seeds: 100, ..Ask::default() };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
        match arg.as_str() {
            "--seeds" => ask.seeds = number(value()?)?,
            "--from" => ask.from = number(value()?)?,
            "--seed" => ask.options = Some(Options::from_seed(number(value()?)?)),
            "--options" => ask.options = Some(value()?.parse()?),
            "--exhaustive" => {
                ask.depth = Some(u32::try_from(number(value()?)?).unwrap_or(u32::MAX));
            }
            "--with" => ask.with = format!(",{}", value()?),
            "--trace" => ask.trace = true,
            "--no-shrink" => ask.keep_size = true,
            "--counters" => ask.counters = true,
            "--subset" => ask.subset = true,
            _ => return Err(format!("no such argument: {arg}")),
        }
    }
    Ok(ask)
}
