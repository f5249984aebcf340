//! Workers are killed again and again while they run tasks.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Api, Arena, Chance, Record, Worker, Workload, knob, one_at_a_time, verdict};

/// A lease short enough to run out within the pauses of this run.
const LEASE: &str = "1s";

#[test]
fn every_task_ends_and_counts_once_whatever_workers_are_killed() {
    let _turn = one_at_a_time();
    let kills = knob("ROTA_TEST_KILLS", 20);
    let mut chance = Chance::for_test("workers_killed");
    let arena = Arena::new();
    let mut server = arena.server(&mut chance, &["--lease", LEASE]);
    server.start();
    let api = server.api();
    let mut crew = Crew::new(&arena, &server, 3);
    crew.start(api);
    let tasks = knob("ROTA_TEST_TASKS", 2_000);
    let work = Workload::new(&arena.ledger, &mut chance, tasks, (100, 500));
    thread::scope(|scope| {
        for _ in 0..2 {
            let draws = chance.fork();
            let work = &work;
            scope.spawn(move || work.submit(api, draws));
        }
        while crew.kills < kills {
            crew.harass(&mut chance, (100, 1_200), &arena);
            work.progress.store(crew.kills * 1_000 / kills, Ordering::Relaxed);
        }
    });
    crew.revive(true);
    let record = Record::when_over(api, Duration::from_secs(180));
    let done = work.done();
    verdict::nothing_is_lost_or_doubled(&record, &done);
    let lost = verdict::only_last_attempts_count(api, &record, &done, &arena.ledger);
    eprintln!(
        "workers_killed: {} kills, {} in the middle, {lost} attempts lost",
        crew.kills, crew.in_the_middle
    );
    assert!(
        crew.in_the_middle >= kills / 2,
        "void: tasks ran at {} kills only",
        crew.in_the_middle
    );
    assert!(lost >= kills / 2, "void: {lost} attempts were lost");
}

/// Several workers, some of which are down for a while.
pub(crate) struct Crew {
    workers: Vec<Worker>,
    /// When those that are down come back.
    back_at: Vec<Instant>,
    pub(crate) kills: u64,
    /// Kills while tasks ran somewhere.
    pub(crate) in_the_middle: u64,
}

impl Crew {
    pub(crate) fn new(arena: &Arena, server: &crate::harness::Server, size: usize) -> Self {
        let worker = |number| arena.worker(&format!("worker-{number}"), server, &["--cpus", "4"]);
        let workers: Vec<Worker> = (1..=size).map(worker).collect();
        let back_at = vec![Instant::now(); size];
        Self { workers, back_at, kills: 0, in_the_middle: 0 }
    }

    pub(crate) fn start(&mut self, api: Api) {
        for worker in &mut self.workers {
            worker.start(api);
        }
    }

    /// Waits a while, then kills a worker that is up, for a time that may be shorter or longer than its lease.
    pub(crate) fn harass(&mut self, chance: &mut Chance, pause: (u64, u64), arena: &Arena) {
        let due = Instant::now() + Duration::from_millis(chance.between(pause.0, pause.1));
        while Instant::now() < due {
            thread::sleep(Duration::from_millis(10));
            self.revive(false);
        }
        let chosen = chance.between(0, self.workers.len() as u64) as usize;
        let running = arena.ledger.running();
        if self.workers[chosen].is_up() {
            self.workers[chosen].kill();
            self.back_at[chosen] = Instant::now() + Duration::from_millis(chance.between(0, 2_500));
            self.kills += 1;
            self.in_the_middle += u64::from(running > 0);
        }
    }

    /// Starts the workers whose time has come, or all.
    pub(crate) fn revive(&mut self, all: bool) {
        for (worker, back_at) in self.workers.iter_mut().zip(&self.back_at) {
            if !worker.is_up() && (all || *back_at <= Instant::now()) {
                worker.launch();
            }
        }
    }
}
