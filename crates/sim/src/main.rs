//! Runs seeds of the simulator: `cargo xtask sim` is the way to call it.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rota_sim::{
    Counters, Failure, Options, REQUIRED, REQUIRED_FULL, Report, exhaustive, run, run_traced,
    shrink, subset, subset_full,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: rota-sim [--logic | --full] [--rough] [--seeds N] [--start S] [--minutes M] [--seed S] [--with TEXT] [--options TEXT] [--trace] \
    [--no-shrink] [--keep-going] [--counters] [--subset] [--exhaustive DEPTH]";
/// Lines of the trace of a failure that are shown unasked.
const TRACE_LINES: usize = 40;
/// How often the progress line changes.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// What the command line asks for.
#[derive(Default)]
struct Ask {
    seeds: u64,
    from: u64,
    /// On the real log and store.
    full: bool,
    /// Little work and many faults.
    rough: bool,
    minutes: Option<u64>,
    seed: Option<u64>,
    options: Option<Options>,
    trace: bool,
    keep_size: bool,
    counters: bool,
    /// Goes on after a failure.
    keep_going: bool,
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
    let mut progress = Progress::new(&ask);
    for options in runs {
        if progress.is_over() {
            break;
        }
        let result = if ask.trace { run_traced(&options) } else { run(&options) };
        match result {
            Ok(report) => {
                report.trace.iter().for_each(|line| println!("{line}"));
                total.add(&report);
            }
            Err(failure) => {
                progress.clear();
                report_failure(&ask, failure);
                total.failures += 1;
                if !ask.keep_going {
                    break;
                }
            }
        }
        progress.show(&total);
    }
    progress.clear();
    total.print(ask.full);
    let missing = total.counters.missing(required(ask.full));
    if !missing.is_empty() {
        println!("never reached: {missing:?}");
    }
    if total.failures > 0 || ask.counters && !missing.is_empty() {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// The situations that a run over many seeds has to reach.
fn required(full: bool) -> &'static [&'static str] {
    if full { &REQUIRED_FULL } else { &REQUIRED }
}

/// What to run, drawn as it is needed.
fn choose(ask: &Ask) -> Result<Box<dyn Iterator<Item = Options>>, String> {
    if let Some(options) = &ask.options {
        return Ok(Box::new(std::iter::once(options.clone())));
    }
    let full = ask.full;
    if ask.subset {
        return Ok(if full { Box::new(subset_full()) } else { Box::new(subset()) });
    }
    let (with, rough) = (ask.with.clone(), ask.rough);
    let expand = move |seed| {
        let options = match (full, rough) {
            (false, false) => Options::from_seed(seed),
            (false, true) => Options::rough(seed),
            (true, false) => Options::full(seed),
            (true, true) => Options::rough_full(seed),
        };
        format!("{options}{with}").parse()
    };
    let first: Result<Options, String> = expand(ask.from);
    first?;
    let last = ask.from.saturating_add(ask.seeds);
    let (from, last) = ask.seed.map_or((ask.from, last), |seed| (seed, seed.saturating_add(1)));
    Ok(Box::new((from..last).filter_map(move |seed| expand(seed).ok())))
}

/// Tells how far a long run is, where somebody looks.
struct Progress {
    started: Instant,
    shown: Option<Instant>,
    until: Option<Instant>,
    seeds: u64,
    is_watched: bool,
}

impl Progress {
    fn new(ask: &Ask) -> Self {
        let started = Instant::now();
        let until = ask.minutes.map(|minutes| started + Duration::from_secs(minutes * 60));
        let is_watched = std::io::stderr().is_terminal() && !ask.trace;
        Self { started, shown: None, until, seeds: ask.seeds, is_watched }
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
    }

    fn show(&mut self, total: &Total) {
        let now = Instant::now();
        if self.shown.is_some_and(|shown| now - shown < PROGRESS_EVERY) || !self.is_watched {
            return;
        }
        self.shown = Some(now);
        let seconds = (now - self.started).as_secs_f64();
        let rate = total.seeds as f64 / seconds.max(0.001);
        let (seeds, failures) = (total.seeds, total.failures);
        eprint!("\r{seeds} of {} seeds, {rate:.0} a second, {failures} failures ", self.seeds);
        drop(std::io::stderr().flush());
    }

    fn clear(&mut self) {
        if self.shown.take().is_some() {
            eprint!("\r\x1b[2K");
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
    failures: u64,
    counters: Counters,
}

impl Total {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.simulated += report.simulated;
        self.entries += report.entries;
        self.processes += report.processes;
        self.checks += report.checks;
        self.counters.merge(&report.counters);
    }

    fn print(&self, full: bool) {
        let Self { seeds, simulated, entries, processes, checks, failures, counters } = self;
        let hours = simulated / 3_600_000_000;
        let minutes = simulated / 60_000_000 % 60;
        println!(
            "{seeds} seeds, {hours} h {minutes} min simulated, {entries} entries, {processes} processes, {failures} failures"
        );
        println!(
            "{checks} invariants evaluated, {} of {} rare situations reached",
            required(full).len() - counters.missing(required(full)).len(),
            required(full).len()
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

fn report_failure(ask: &Ask, failure: Box<Failure>) {
    let print = |failure: &Failure| {
        println!("at {} ms: {}", failure.at / 1_000, failure.what);
        println!("replay: cargo xtask sim --options {}", failure.options);
    };
    print(&failure);
    if ask.trace {
        return failure.trace.iter().for_each(|line| println!("{line}"));
    }
    if ask.keep_size {
        return;
    }
    let smaller = shrink(failure, 300, |options| run(options).err());
    println!("shrunk:");
    print(&smaller);
    if let Err(traced) = run_traced(&smaller.options) {
        println!("its end, all of it with --trace:");
        let from = traced.trace.len().saturating_sub(TRACE_LINES);
        traced.trace[from..].iter().for_each(|line| println!("{line}"));
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Ask, String> {
    let mut ask = Ask { seeds: 100, ..Ask::default() };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
        match arg.as_str() {
            "--seeds" => ask.seeds = number(value()?)?,
            "--start" | "--from" => ask.from = number(value()?)?,
            "--seed" => ask.seed = Some(number(value()?)?),
            "--minutes" => ask.minutes = Some(number(value()?)?),
            "--full" => ask.full = true,
            "--logic" => ask.full = false,
            "--rough" => ask.rough = true,
            "--keep-going" => ask.keep_going = true,
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
