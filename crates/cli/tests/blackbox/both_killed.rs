//! Server and workers are killed in turn.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::harness::{Arena, Chance, Record, Workload, knob, one_at_a_time, verdict};
use crate::workers_killed::Crew;

#[test]
fn every_task_ends_and_counts_once_whatever_is_killed() {
    let _turn = one_at_a_time();
    let kills = knob("ROTA_TEST_KILLS", 20) / 2;
    let mut chance = Chance::for_test("both_killed");
    let arena = Arena::new();
    let mut server = arena.server(&mut chance, &["--lease", "1s"]);
    server.start();
    let api = server.api();
    let mut crew = Crew::new(&arena, &server, 2);
    crew.start(api);
    let tasks = knob("ROTA_TEST_TASKS", 2_000) / 4;
    let work = Workload::new(&arena.ledger, &mut chance, tasks, (100, 600));
    let mut server_kills = 0;
    thread::scope(|scope| {
        let draws = chance.fork();
        scope.spawn(|| work.submit(api, draws));
        while crew.kills < kills || server_kills < kills {
            if chance.percent(50) {
                crew.harass(&mut chance, (50, 800), &arena);
            } else {
                chance.pause(50, 800);
                server.kill();
                server_kills += 1;
                chance.pause(0, 300);
                server.launch();
                server.wait_ready();
            }
            let sent = (crew.kills + server_kills) * 500 / kills.max(1);
            work.progress.store(sent, Ordering::Relaxed);
        }
        work.progress.store(1_000, Ordering::Relaxed);
    });
    crew.revive(true);
    let record = Record::when_over(api, Duration::from_secs(120));
    let done = work.done();
    verdict::nothing_is_lost_or_doubled(&record, &done);
    let lost = verdict::only_last_attempts_count(api, &record, &done, &arena.ledger);
    eprintln!("both_killed: {server_kills} + {} kills, {lost} attempts lost", crew.kills);
    assert!(lost >= kills / 4, "void: {lost} attempts were lost");
    assert!(crew.in_the_middle > 0, "void: no task ran when a worker was killed");
}
