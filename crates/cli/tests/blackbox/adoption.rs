//! Tasks that run while there is no server.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Arena, Chance, PATIENCE, Record, one_at_a_time, until};

#[test]
fn tasks_that_run_while_the_server_is_down_for_longer_than_a_lease_are_adopted_and_run_once() {
    let _turn = one_at_a_time();
    let mut chance = Chance::for_test("adoption");
    let arena = Arena::new();
    let mut server = arena.server(&mut chance, &["--lease", "3s"]);
    server.start();
    let api = server.api();
    let mut worker = arena.worker("keeper", &server, &["--cpus", "8"]);
    worker.start(api);
    // Two end while the server is down, two after it is back; one fails while it is down.
    let tasks = [("a", 3, 0), ("b", 3, 0), ("c", 9, 0), ("d", 9, 0), ("e", 3, 7)].map(
        |(name, seconds, exit)| {
            let script = arena.ledger.script(name, &format!("sleep {seconds}"), &exit.to_string());
            json!({"name": name, "command": script, "cpus": 1})
        },
    );
    let answer = api.json("POST", "/v1/jobs", &json!({"task": tasks})).expect("the server answers");
    let reply: rota_api::SubmitReply = answer.expect(201);
    until("five running tasks", PATIENCE, || (arena.ledger.running() == 5).then_some(()));
    server.kill();
    thread::sleep(Duration::from_millis(5_000));
    assert_eq!(
        arena.ledger.running(),
        2,
        "void: the server has to be down while tasks end and others go on"
    );
    worker.process().must_run();
    server.start();
    let record = Record::when_over(api, PATIENCE);
    let (job, tasks) = &record.jobs[&reply.jobs[0].id];
    let told: Vec<_> = tasks
        .iter()
        .map(|task| {
            (
                task.group.as_str(),
                task.state.name(),
                task.attempt,
                task.failure.as_ref().and_then(|it| it.code),
            )
        })
        .collect();
    let expected = [
        ("a", "succeeded", 1, None),
        ("b", "succeeded", 1, None),
        ("c", "succeeded", 1, None),
        ("d", "succeeded", 1, None),
        ("e", "failed", 1, Some(7)),
    ];
    assert_eq!(told, expected, "{job:?}");
    let ran = arena.ledger.counts();
    let once = tasks.iter().map(|task| ((task.id.clone(), 1), [1, 1]));
    assert_eq!(ran, once.collect(), "each ran once, from start to end");
}

#[test]
fn a_server_that_recovers_refuses_connections_until_it_can_answer_them() {
    let _turn = one_at_a_time();
    let mut chance = Chance::for_test("adoption");
    let arena = Arena::new();
    let mut server = arena.server(&mut chance, &[]);
    server.start();
    let api = server.api();
    for _ in 0..50 {
        let body = json!({"task": [{"command": ["true"], "stdin": "x".repeat(900_000)}]});
        let answer = api.json("POST", "/v1/jobs", &body).expect("the server answers");
        assert_eq!(answer.status, 201);
    }
    server.kill();
    let launched = Instant::now();
    server.launch();
    let connected = until("a connection", PATIENCE, || {
        TcpStream::connect(server.listen).is_ok().then(|| launched.elapsed())
    });
    server.wait_ready();
    let ready = launched.elapsed();
    eprintln!("adoption: connected after {connected:?}, ready after {ready:?}");
    assert!(ready > Duration::from_millis(200), "void: the recovery took no time");
    // A worker that hangs can't tell a server that is busy recovering from one that gives its tasks away.
    assert!(ready - connected < ready / 2, "connected after {connected:?}, ready after {ready:?}");
}
