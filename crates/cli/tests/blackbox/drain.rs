//! The first SIGTERM lets what runs come to its end.

use std::time::Duration;

use rota_api::{SubmitReply, Task, TaskState};
use serde_json::json;

use crate::harness::{
    Api, Arena, Chance, PATIENCE, Process, Record, Server, Signal, free_port, one_at_a_time, until,
};

/// Submits two tasks of `seconds` each, and waits until one runs and the other can't.
fn one_runs_and_one_waits(api: Api, arena: &Arena, seconds: u32) -> u64 {
    let script = arena.ledger.script("drained", &format!("sleep {seconds}"), "0");
    let body = json!({"task": [{"command": script, "array": "0-1"}]});
    let reply: SubmitReply =
        api.json("POST", "/v1/jobs", &body).expect("the server answers").expect(201);
    until("a running task", PATIENCE, || (arena.ledger.running() == 1).then_some(()));
    reply.jobs[0].id
}

fn told(api: Api, job: u64) -> Vec<(TaskState, u32)> {
    let tasks = [0, 1].map(|index| api.get::<Task>(&format!("/v1/tasks/{job}.{index}")));
    tasks.map(|task| (task.state, task.attempt)).into()
}

#[test]
fn a_worker_that_is_told_to_end_finishes_what_it_runs_and_takes_nothing_new() {
    let _turn = one_at_a_time();
    let mut chance = Chance::for_test("drain");
    let arena = Arena::new();
    let mut server = arena.server(&mut chance, &[]);
    server.start();
    let api = server.api();
    let mut worker = arena.worker("leaver", &server, &["--cpus", "1"]);
    worker.start(api);
    let job = one_runs_and_one_waits(api, &arena, 2);
    worker.process().signal(Signal::TERM);
    let status = worker.process().wait(Duration::from_secs(15));
    assert!(status.success(), "{status}\n{}", worker.process().printed());
    let (over, waits) = ((TaskState::Succeeded, 1), (TaskState::Queued, 0));
    assert_eq!(told(api, job), [over, waits]);
    let mut next = arena.worker("next", &server, &["--cpus", "1"]);
    next.start(api);
    Record::when_over(api, PATIENCE);
    assert_eq!(told(api, job), [over, over]);
    assert_eq!(
        arena.ledger.counts(),
        [0, 1].map(|index| ((format!("{job}.{index}"), 1), [1, 1])).into()
    );
}

#[test]
fn a_server_that_is_told_to_end_leaves_its_workers_alone_and_goes_on_where_it_was() {
    let _turn = one_at_a_time();
    let mut chance = Chance::for_test("drain");
    let arena = Arena::new();
    let mut server = arena.server(&mut chance, &[]);
    server.start();
    let api = server.api();
    let mut worker = arena.worker("keeper", &server, &["--cpus", "1"]);
    worker.start(api);
    let job = one_runs_and_one_waits(api, &arena, 2);
    let before = Record::read(api);
    server.process().signal(Signal::TERM);
    let status = server.process().wait(Duration::from_secs(15));
    assert!(status.success(), "{status}\n{}", server.process().printed());
    assert_eq!(arena.ledger.running(), 1, "the task goes on");
    server.start();
    let after = Record::read(api);
    let ids = |record: &Record| record.jobs.keys().copied().collect::<Vec<_>>();
    assert_eq!(ids(&after), ids(&before));
    Record::when_over(api, PATIENCE);
    let over = (TaskState::Succeeded, 1);
    assert_eq!(told(api, job), [over, over]);
    assert_eq!(
        arena.ledger.counts(),
        [0, 1].map(|index| ((format!("{job}.{index}"), 1), [1, 1])).into()
    );
}

#[test]
fn a_development_server_that_is_told_to_end_finishes_what_it_runs() {
    let _turn = one_at_a_time();
    let mut chance = Chance::for_test("drain");
    let arena = Arena::new();
    let listen = free_port(&mut chance);
    let data = arena.path("dev").display().to_string();
    let text = |text: &str| text.to_owned();
    let listen_at = listen.to_string();
    let arguments = [
        text("dev"),
        text("--data"),
        data,
        text("--listen"),
        listen_at,
        text("--workers"),
        text("1"),
    ];
    let start = || {
        let mut process = Process::start(&arguments, &arena.path("dev.log"));
        until("a development server with a node", PATIENCE, || {
            process.must_run();
            let answer = Api::at(listen).send("GET", "/readyz", &[], b"").ok()?;
            let ready =
                answer.status == 200 && answer.json::<rota_api::Health>().nodes_connected > 0;
            ready.then_some(())
        });
        process
    };
    let mut dev = start();
    let script = arena.ledger.script("drained", "sleep 2", "0");
    let body = json!({"task": [{"command": script}]});
    let answer = Api::at(listen).json("POST", "/v1/jobs", &body).expect("the server answers");
    let id = answer.expect::<SubmitReply>(201).jobs[0].id;
    until("a running task", PATIENCE, || (arena.ledger.running() == 1).then_some(()));
    dev.signal(Signal::TERM);
    let status = dev.wait(Duration::from_secs(20));
    assert!(status.success(), "{status}\n{}", dev.printed());
    assert_eq!(arena.ledger.counts(), [((format!("{id}.0"), 1), [1, 1])].into());
    drop(dev);
    let _dev = start();
    let record = Record::when_over(Api::at(listen), PATIENCE);
    let task = &record.jobs[&id].1[0];
    assert_eq!((task.state, task.attempt), (TaskState::Succeeded, 1));
}

#[test]
fn a_second_server_on_the_same_data_is_refused_and_the_first_goes_on() {
    let mut chance = Chance::for_test("drain");
    let arena = Arena::new();
    let mut server = arena.server(&mut chance, &[]);
    server.start();
    let log = arena.path("second.log");
    let mut second = Server::new(&arena.path("server"), &log, free_port(&mut chance), &[]);
    second.launch();
    let status = second.process().wait(PATIENCE);
    let start_failed = i32::from(rota_api::ErrorCode::StartFailed.exit_code());
    assert_eq!(status.code(), Some(start_failed), "{}", second.process().printed());
    assert!(second.process().printed().contains("in use"), "{}", second.process().printed());
    server.process().must_run();
    server.wait_ready();
}
