//! Servers of a cluster are killed again and again, the one that leads above all, while clients submit to any of them and tasks run.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use rota_api::ClusterStatus;

use crate::harness::{
    Api, Arena, Chance, PATIENCE, Record, Server, Signal, Workload, knob, one_at_a_time, until,
    verdict,
};

/// What the run did to the servers.
#[derive(Debug, Default)]
struct Harm {
    /// Kills of the server that led.
    leaders: u64,
    /// Leaders that were stopped for a while, so that they did not know that another one had taken over.
    pauses: u64,
    /// Kills of another one.
    followers: u64,
    /// Kills while tasks ran.
    in_the_middle: u64,
    /// From each kill of a leader to the next change that was acknowledged.
    outages: Vec<Duration>,
}

#[test]
fn whatever_was_acknowledged_survives_leaders_that_are_killed_again_and_again() {
    let _turn = one_at_a_time();
    let kills = knob("ROTA_TEST_KILLS", 12);
    let mut chance = Chance::for_test("leader_killed");
    let arena = Arena::new();
    let mut servers = arena.servers(&mut chance, 3, &[]);
    servers.iter_mut().for_each(Server::launch);
    servers.iter_mut().for_each(Server::wait_ready);
    let listen: Vec<_> = servers.iter().map(|server| server.listen).collect();
    let api = Api::of(&listen);
    let mut worker = arena.worker_of("steady", &servers, &["--cpus", "8"]);
    worker.start(api);
    let tasks = knob("ROTA_TEST_TASKS", 1_000);
    let work = Workload::new(&arena.ledger, &mut chance, tasks, (300, 1_500));
    let harm = thread::scope(|scope| {
        for _ in 0..4 {
            let draws = chance.fork();
            let work = &work;
            scope.spawn(move || work.submit(api, draws));
        }
        harass(&mut servers, kills, &mut chance, &work, &arena)
    });
    worker.process().must_run();
    let record = Record::when_over(api, Duration::from_secs(120));
    let done = work.done();
    eprintln!(
        "leader_killed: {} jobs acknowledged, {} unknown, {} requests interrupted, {} replayed; {harm:?}",
        done.acknowledged.len(),
        done.unknown.len(),
        done.interrupted,
        done.replayed,
    );
    verdict::nothing_is_lost_or_doubled(&record, &done);
    verdict::everything_ran_once(api, &record, &done, &arena.ledger);
    verdict::every_server_tells_the_same(&servers);
    assert!(harm.pauses > 0, "void: no leader was stopped");
    assert!(harm.leaders >= kills / 2, "void: {} leaders were killed", harm.leaders);
    assert!(
        harm.in_the_middle >= kills / 4,
        "void: tasks ran at {} kills only",
        harm.in_the_middle
    );
}

/// Kills and restarts servers at random moments, mostly the one that leads, one at a time.
fn harass(
    servers: &mut [Server],
    kills: u64,
    chance: &mut Chance,
    work: &Workload,
    arena: &Arena,
) -> Harm {
    let mut harm = Harm::default();
    let listen: Vec<_> = servers.iter().map(|server| server.listen).collect();
    let api = Api::of(&listen);
    while harm.leaders + harm.followers < kills {
        chance.pause(100, 900);
        let leader = leader(api);
        if chance.percent(25) {
            pause(servers, leader, chance);
            harm.pauses += 1;
            continue;
        }
        let other = chance.percent(20);
        let victim = if other { (leader + 1) % servers.len() } else { leader };
        let running = arena.ledger.running();
        servers[victim].kill();
        harm.in_the_middle += u64::from(running > 0);
        if other {
            harm.followers += 1;
        } else {
            harm.leaders += 1;
            harm.outages.push(outage(api));
        }
        work.progress.store((harm.leaders + harm.followers) * 1_000 / kills, Ordering::Relaxed);
        chance.pause(0, 400);
        servers[victim].launch();
        servers[victim].wait_ready();
    }
    harm
}

/// Stops the leader for a while. When it goes on, it must not answer from what it knew: the others have gone on.
fn pause(servers: &mut [Server], leader: usize, chance: &mut Chance) {
    let others: Vec<_> = (0..servers.len())
        .filter(|place| *place != leader)
        .map(|place| servers[place].listen)
        .collect();
    servers[leader].process().signal(Signal::STOP);
    let others = Api::of(&others);
    outage(others);
    let path = "/v1/queues/default";
    let change = serde_json::json!({ "running_max": chance.between(1_000, 1_000_000) });
    until("a change that is acknowledged", PATIENCE, || {
        let answer = others.json("PATCH", path, &change).ok()?;
        (answer.status == 200).then_some(())
    });
    servers[leader].process().signal(Signal::CONT);
    let seen: serde_json::Value = until("an answer of the one that was stopped", PATIENCE, || {
        let answer = servers[leader].api().send("GET", path, &[], b"").ok()?;
        (answer.status == 200).then(|| answer.json())
    });
    assert_eq!(
        seen["running_max"], change["running_max"],
        "a server that was overtaken answered: {seen}"
    );
}

/// Which server leads, from 0.
fn leader(api: Api) -> usize {
    let api = api.within(Duration::from_secs(5));
    until("a leader", PATIENCE, || {
        let answer = api.send("GET", "/v1/cluster/status", &[], b"").ok()?;
        let status: Option<ClusterStatus> = (answer.status == 200).then(|| answer.json());
        Some(usize::try_from(status?.leader?).ok()? - 1)
    })
}

/// How long it takes until a change is acknowledged.
fn outage(api: Api) -> Duration {
    let began = Instant::now();
    until("a change that is acknowledged", PATIENCE, || {
        let answer = api.send("POST", "/v1/queues/default/resume", &[], b"").ok()?;
        (answer.status == 200).then(|| began.elapsed())
    })
}
