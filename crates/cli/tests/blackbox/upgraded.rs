//! Servers are replaced by newer ones, one after the other, while clients submit to any of them and tasks run. The newer version is the same
//! program that says it understands one feature level more.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use rota_api::ClusterStatus;

use crate::harness::{
    Api, Arena, Chance, PATIENCE, Record, Server, Signal, Workload, free_port, knob, one_at_a_time,
    until, verdict,
};

const OLD: u32 = 1;
const NEW: u32 = 2;

fn status(api: Api) -> ClusterStatus {
    until("the cluster's status", PATIENCE, || {
        let answer = api.send("GET", "/v1/cluster/status", &[], b"").ok()?;
        (answer.status == 200).then(|| answer.json())
    })
}

/// Waits until every server has said these levels of itself and the cluster has agreed on this one.
fn until_level(api: Api, levels: [u32; 3], level: u32) {
    until("what the servers say of themselves and agree on", PATIENCE, || {
        let status = status(api);
        let told = status.servers.iter().map(|server| server.level);
        (told.eq(levels) && status.level == level).then_some(())
    });
}

#[test]
fn three_servers_are_upgraded_one_by_one_under_load_and_the_level_rises_with_the_last() {
    let _turn = one_at_a_time();
    let mut chance = Chance::for_test("upgraded");
    let arena = Arena::new();
    let mut servers = arena.servers(&mut chance, 3, &[]);
    for server in &mut servers {
        server.level = Some(OLD);
        server.launch();
    }
    servers.iter_mut().for_each(Server::wait_ready);
    let listen: Vec<_> = servers.iter().map(|server| server.listen).collect();
    let api = Api::of(&listen);
    let mut worker = arena.worker_of("steady", &servers, &["--cpus", "8"]);
    worker.start(api);
    let tasks = knob("ROTA_TEST_TASKS", 400);
    let work = Workload::new(&arena.ledger, &mut chance, tasks, (300, 1_500));
    thread::scope(|scope| {
        for _ in 0..4 {
            let draws = chance.fork();
            let work = &work;
            scope.spawn(move || work.submit(api, draws));
        }
        upgrade(&mut servers, api, &work);
    });
    worker.process().must_run();
    let record = Record::when_over(api, Duration::from_secs(120));
    let done = work.done();
    eprintln!(
        "upgraded: {} jobs acknowledged, {} unknown",
        done.acknowledged.len(),
        done.unknown.len()
    );
    verdict::nothing_is_lost_or_doubled(&record, &done);
    verdict::everything_ran_once(api, &record, &done, &arena.ledger);
    the_old_version_is_refused(&arena, &mut servers, &mut chance);
}

/// Stops each server in order and starts the newer version on its directory.
fn upgrade(servers: &mut [Server], api: Api, work: &Workload) {
    let mut levels = [OLD; 3];
    until_level(api, levels, OLD);
    for place in 0..servers.len() {
        let server = &mut servers[place];
        server.process().signal(Signal::TERM);
        assert!(server.process().wait(PATIENCE).success());
        server.level = Some(NEW);
        server.start();
        levels[place] = NEW;
        work.progress.store((place as u64 + 1) * 300, Ordering::Relaxed);
        if levels.contains(&OLD) {
            until_level(api, levels, OLD);
            // It stays there: what the others said is known by now.
            thread::sleep(Duration::from_millis(300));
            assert_eq!(status(api).level, OLD, "{levels:?}");
        }
    }
    until_level(api, levels, NEW);
    work.progress.store(1_000, Ordering::Relaxed);
}

/// Whether it was a member or wants to become one.
fn the_old_version_is_refused(arena: &Arena, servers: &mut [Server], chance: &mut Chance) {
    let join = format!("http://{}", servers[1].listen);
    let (data, log) = (arena.path("old"), arena.path("old.log"));
    let mut late = Server::new(&data, &log, free_port(chance), &["--join", &join]);
    late.level = Some(OLD);
    late.launch();
    assert!(!late.process().wait(PATIENCE).success());
    let told = late.printed();
    assert!(told.contains("feature level 2, and the new one knows 1"), "{told}");
    servers[0].kill();
    servers[0].level = Some(OLD);
    servers[0].launch();
    assert!(!servers[0].process().wait(PATIENCE).success());
    let told = servers[0].printed();
    assert!(told.contains("feature level 2") && told.contains("newer version"), "{told}");
    // The newer version goes on where the older one was refused.
    servers[0].level = Some(NEW);
    servers[0].launch();
    servers[0].wait_ready();
    until_level(servers[1].api(), [NEW; 3], NEW);
}
