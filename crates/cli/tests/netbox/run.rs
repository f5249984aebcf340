//! One run: the cluster, the load, the faults, the verdict and the report.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::faults::{Cluster, Done};
use crate::harness::{Arena, Chance, Record, Server, Workload, verdict};
use crate::judge;
use crate::net::{Net, listen};
use crate::options::Options;
use crate::plan::{Fault, Step, plan};
use crate::register::{self, Operation, Register};

const WORKERS: usize = 4;
/// Processors that each worker offers; every task asks for half of one.
const CPUS: usize = 2;
const TASKS_PER_SECOND: u64 = 6;

/// Runs and prints the report. Ends the process unless everything held.
pub(crate) fn run(options: &Options) {
    register::check_the_checker();
    println!("netbox: {}", options.arguments().join(" "));
    let mut chance = Chance::of(options.seed);
    let steps: Vec<Step> = plan(&mut chance, options.length);
    let only = |step: &Step| options.only.is_empty() || format!("{:?}", step.fault) == options.only;
    let steps = if options.only.is_empty() { steps } else { all_of_one(steps, &options.only) };
    assert!(steps.iter().all(only), "no fault is called {}", options.only);
    let parties = options.servers + WORKERS + 1;
    let net = Net::new(parties, &mut chance);
    net.enter(parties - 1);
    let arena = Arena::new();
    let addresses: Vec<_> = (0..options.servers).map(listen).collect();
    let servers = arena.servers_at(&addresses, &options.log, &["--lease", "5s"]);
    let api = crate::harness::Api::of(&addresses).within(Duration::from_secs(3));
    let cpus = CPUS.to_string();
    let worker = |number| arena.worker_of(&format!("w{number}"), &servers, &["--cpus", &cpus]);
    let workers = (1..=WORKERS).map(worker).collect();
    let mut cluster = Cluster { net: &net, servers, workers, api, began: Instant::now() };
    (0..options.servers).for_each(|place| cluster.launch_server(place));
    cluster.servers.iter_mut().for_each(Server::wait_ready);
    (0..WORKERS).for_each(|place| cluster.launch_worker(place));
    cluster.workers.iter_mut().for_each(|worker| worker.wait_connected(api));
    cluster.began = Instant::now();
    let (work, register, faults) = under_load(&mut cluster, &arena, &mut chance, &steps);
    let history = register.history();
    let judged = catch_unwind(AssertUnwindSafe(|| judge(&cluster, &arena, &work, &faults)));
    let mut wrong = Vec::new();
    let mut figures = match judged {
        Ok((figures, found)) => {
            wrong.extend(found);
            figures
        }
        Err(panic) => {
            wrong.push(said(&*panic));
            json!({})
        }
    };
    wrong.extend(register.done_though_refused());
    wrong.extend(register::check(&history).err());
    let void = void(&faults, &steps, &history);
    report(&faults, &history, &mut figures);
    let verdict = if !wrong.is_empty() {
        "FAILED"
    } else if void.is_empty() {
        "passed"
    } else {
        "void"
    };
    let packets = format!("{:?}", net.packets());
    figures["packets"] = json!(packets);
    figures["run"] = json!(options.arguments().join(" "));
    figures["verdict"] = json!(verdict);
    figures["wrong"] = json!(wrong);
    figures["void"] = json!(void);
    println!("{figures}");
    println!("netbox: {verdict}");
    wrong.iter().chain(&void).for_each(|why| println!("  {why}"));
    if verdict != "passed" {
        stay(&arena);
    }
}

/// The plan with every fault replaced by this one.
fn all_of_one(steps: Vec<Step>, name: &str) -> Vec<Step> {
    let fault = Fault::ALL.into_iter().find(|fault| format!("{fault:?}") == name);
    let of = |step: Step| Step { fault: fault.unwrap_or(step.fault), ..step };
    steps.into_iter().map(of).collect()
}

/// Clients submit, write and read while the plan is carried out.
fn under_load(
    cluster: &mut Cluster<'_>,
    arena: &Arena,
    chance: &mut Chance,
    steps: &[Step],
) -> (Workload, Register, Vec<Done>) {
    let api = cluster.api;
    let total: Duration = steps.iter().map(|step| step.lasts + step.rest).sum();
    let tasks = total.as_secs() * TASKS_PER_SECOND;
    let work = Workload::new(&arena.ledger, chance, tasks, (300, 2_500));
    let register = Register::new(api, cluster.began);
    let faults = thread::scope(|scope| {
        for client in register::FIRST_CLIENT..4 {
            let (draws, work, register) = (chance.fork(), &work, &register);
            scope.spawn(move || work.submit(api, draws));
            scope.spawn(move || register.use_it(client, api));
        }
        let mut faults = Vec::new();
        let mut past = Duration::ZERO;
        for step in steps {
            let done = catch_unwind(AssertUnwindSafe(|| cluster.strike(step)));
            let done = done.unwrap_or_else(|panic| {
                // The clients would wait for the end of the run.
                eprintln!("netbox: {step:?}: {}", said(&*panic));
                stay(arena)
            });
            println!("{:7.1} s  {:?} {:?}", done.from.as_secs_f64(), done.fault, step.lasts);
            faults.push(done);
            past += step.lasts + step.rest;
            let share = past.as_millis() * 1_000 / total.as_millis();
            work.progress.store(share as u64, Ordering::Relaxed);
        }
        register.end();
        faults
    });
    (work, register, faults)
}

/// What record, acknowledgements and ledger say; figures, and what is wrong.
fn judge(
    cluster: &Cluster<'_>,
    arena: &Arena,
    work: &Workload,
    faults: &[Done],
) -> (Value, Vec<String>) {
    let record = Record::when_over(cluster.api, Duration::from_secs(120));
    let done = work.done();
    let mut wrong = Vec::new();
    let mut try_it = |check: &mut dyn FnMut()| {
        let checked = catch_unwind(AssertUnwindSafe(check));
        wrong.extend(checked.err().map(|panic| said(&*panic)));
    };
    let mut lost = 0;
    try_it(&mut || verdict::nothing_is_lost_or_doubled(&record, &done));
    try_it(&mut || {
        lost = verdict::attempts_make_sense(cluster.api, &record, &done, &arena.ledger);
    });
    try_it(&mut || verdict::every_server_tells_the_same(&cluster.servers));
    let marks = arena.ledger.marks();
    let late = verdict::overlaps(&marks);
    let (explained, broken) = judge::overlaps(&late, faults);
    wrong.extend(broken.iter().map(|mark| format!("the next attempt had begun: {mark:?}")));
    let most = judge::most_at_once(&marks);
    for (node, most) in most.iter().filter(|(_, most)| **most > 2 * CPUS) {
        wrong.push(format!("{node} ran {most} tasks at once, and has room for {}", 2 * CPUS));
    }
    let figures = json!({
        "jobs_acknowledged": done.acknowledged.len(),
        "jobs_unknown": done.unknown.len(),
        "requests_interrupted": done.interrupted,
        "requests_replayed": done.replayed,
        "tasks": record.tasks().count(),
        "attempts_lost": lost,
        "overlaps_of_frozen_workers": explained,
        "most_at_once": most,
    });
    (figures, wrong)
}

/// Why a run proves nothing.
fn void(faults: &[Done], steps: &[Step], history: &[Operation]) -> Vec<String> {
    let idle = |done: &&Done| done.fault.is_of_the_network() && done.packets == 0;
    let mut void: Vec<String> = faults
        .iter()
        .filter(idle)
        .map(|done| format!("{:?} at {:?} touched no packet", done.fault, done.from))
        .collect();
    if faults.len() < steps.len() {
        void.push(format!("{} faults of {}", faults.len(), steps.len()));
    }
    let answered = history.iter().filter(|it| it.to.is_some()).count();
    if answered < 10 * faults.len() {
        void.push(format!("only {answered} operations on the register were answered"));
    }
    void
}

/// The table of faults.
fn report(faults: &[Done], history: &[Operation], figures: &mut Value) {
    let mut kinds: BTreeMap<Fault, Vec<&Done>> = BTreeMap::new();
    faults.iter().for_each(|done| kinds.entry(done.fault).or_default().push(done));
    println!("longest time without an acknowledged write, in ms: of all clients, of one client");
    println!("{:<16}{:>8}{:>10}{:>8}{:>8}", "FAULT", "TIMES", "PACKETS", "ALL", "ONE");
    let mut table = Vec::new();
    let mut worst = [Duration::ZERO; 2];
    for (fault, all) in kinds {
        let packets: u64 = all.iter().map(|done| done.packets).sum();
        let mut longest = [Duration::ZERO; 2];
        for done in &all {
            let [together, one] = register::pauses(history, (done.from, done.to));
            longest = [longest[0].max(together), longest[1].max(one)];
        }
        worst = [worst[0].max(longest[0]), worst[1].max(longest[1])];
        let (name, times) = (format!("{fault:?}"), all.len());
        let [together, one] = longest.map(|pause| pause.as_millis() as u64);
        println!("{name:<16}{times:>8}{packets:>10}{together:>8}{one:>8}");
        table.push(json!({
            "fault": name, "times": times, "packets": packets, "longest_ms": together, "longest_of_one_ms": one,
        }));
    }
    let of = |write: bool, answered: bool| {
        let those = history.iter().filter(|it| it.write == write && it.to.is_some() == answered);
        those.count()
    };
    figures["faults"] = json!(table);
    figures["longest_ms"] = json!(worst[0].as_millis() as u64);
    figures["longest_of_one_ms"] = json!(worst[1].as_millis() as u64);
    figures["writes"] = json!(of(true, true));
    figures["writes_unknown"] = json!(of(true, false));
    figures["reads"] = json!(of(false, true));
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "a check panicked".to_owned())
}

/// Ends without cleaning up: logs and data stay.
fn stay(arena: &Arena) -> ! {
    println!("netbox: logs and data are left in {}", arena.path("").display());
    std::process::exit(1)
}
