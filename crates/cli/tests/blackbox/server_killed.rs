//! The server is killed again and again while clients submit, settings change and tasks run.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::{Arena, Chance, Record, Server, Workload, knob, one_at_a_time, verdict};
use crate::operator::Operator;

/// What the run did to the server.
#[derive(Debug, Default)]
struct Harm {
    kills: u64,
    /// Kills while tasks ran.
    in_the_middle: u64,
    /// Kills before the server was ready.
    while_starting: u64,
}

#[test]
fn whatever_was_acknowledged_survives_a_server_that_is_killed_again_and_again() {
    let _turn = one_at_a_time();
    let kills = knob("ROTA_TEST_KILLS", 20);
    let mut chance = Chance::for_test("server_killed");
    let arena = Arena::new();
    let mut server = arena.server(&mut chance, &[]);
    server.start();
    let api = server.api();
    let mut worker = arena.worker("steady", &server, &["--cpus", "8"]);
    worker.start(api);
    let tasks = knob("ROTA_TEST_TASKS", 2_000);
    let work = Workload::new(&arena.ledger, &mut chance, tasks, (50, 400));
    let stop = AtomicBool::new(false);
    let (harm, operator) = thread::scope(|scope| {
        for _ in 0..4 {
            let draws = chance.fork();
            let work = &work;
            scope.spawn(move || work.submit(api, draws));
        }
        let operator = Operator::new(api, &arena.ledger, chance.fork());
        let operator = scope.spawn(|| operator.work(&stop));
        let harm = harass(&mut server, kills, &mut chance, &work, &arena);
        stop.store(true, Ordering::Relaxed);
        (harm, operator.join().expect("the operator does not fail"))
    });
    worker.process().must_run();
    let record = Record::when_over(api, Duration::from_secs(120));
    let done = work.done();
    eprintln!(
        "server_killed: {harm:?}; {} jobs acknowledged, {} unknown, {} requests interrupted, {} replayed; {operator:?}",
        done.acknowledged.len(),
        done.unknown.len(),
        done.interrupted,
        done.replayed,
    );
    let (record, held) = operator.check(record);
    verdict::nothing_is_lost_or_doubled(&record, &done);
    verdict::everything_ran_once(api, &record, &done, &arena.ledger);
    server.kill();
    server.start();
    let (again, held_again) = operator.check(Record::read(api));
    assert_eq!((again, held_again), (record, held), "the record is another one after a restart");
    assert!(harm.kills >= kills, "void: the server was killed {} times", harm.kills);
    assert!(
        harm.in_the_middle >= kills / 4,
        "void: tasks ran at {} kills only",
        harm.in_the_middle
    );
    assert!(done.interrupted >= kills / 4, "void: {} requests were interrupted", done.interrupted);
    let submitted: u32 =
        done.acknowledged.values().chain(done.unknown.values()).map(|job| job.tasks).sum();
    assert_eq!(u64::from(submitted), tasks, "void: not everything was submitted");
}

/// Kills and restarts the server at random moments, some of them before it is ready again.
fn harass(
    server: &mut Server,
    kills: u64,
    chance: &mut Chance,
    work: &Workload,
    arena: &Arena,
) -> Harm {
    let mut harm = Harm::default();
    while harm.kills < kills {
        let early = harm.kills > 0 && chance.percent(20);
        if early {
            chance.pause(0, 150);
        } else {
            server.wait_ready();
            chance.pause(20, 600);
        }
        let running = arena.ledger.running();
        server.kill();
        harm.kills += 1;
        harm.while_starting += u64::from(early);
        harm.in_the_middle += u64::from(running > 0);
        work.progress.store(harm.kills * 1_000 / kills, Ordering::Relaxed);
        chance.pause(0, 150);
        server.launch();
    }
    server.wait_ready();
    harm
}
