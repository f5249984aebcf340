//! What tasks wrote is still there after their worker was killed and started again.

use std::net::SocketAddr;
use std::process::Command;

use rota_api::{SubmitReply, TaskState};
use serde_json::json;

use crate::harness::{
    Api, Arena, Chance, PATIENCE, Process, Record, free_port, one_at_a_time, until,
};

/// What `rota logs` prints: standard output and standard error.
fn logs(server: SocketAddr, target: &str) -> [String; 2] {
    let output = Command::new(env!("CARGO_BIN_EXE_rota"))
        .args(["--server", &format!("http://{server}"), "logs", target])
        .env("NO_COLOR", "1")
        .output()
        .expect("rota runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the output is text");
    let [stdout, stderr] = [output.stdout, output.stderr].map(text);
    assert!(output.status.success(), "{stderr}");
    [stdout, stderr]
}

/// What `seq` prints.
fn numbers(from: u32, to: u32) -> String {
    (from..=to).map(|number| format!("{number}\n")).collect()
}

fn submit(api: Api, script: &str) -> u64 {
    let body = json!({"task": [{"command": ["sh", "-c", script], "cpus": 1}]});
    let answer = api.json("POST", "/v1/jobs", &body).expect("the server answers");
    answer.expect::<SubmitReply>(201).jobs[0].id
}

#[test]
fn output_of_finished_and_of_killed_attempts_survives_a_kill_of_the_worker() {
    let _turn = one_at_a_time();
    let mut chance = Chance::for_test("output");
    let arena = Arena::new();
    let mut server = arena.server(&mut chance, &["--lease", "2s"]);
    server.start();
    let api = server.api();
    let mut worker = arena.worker("keeper", &server, &["--cpus", "4"]);
    worker.start(api);
    let long = submit(api, "seq 1 20000; echo careful >&2");
    let short = submit(api, "echo short");
    let silent = submit(api, "true");
    // Three million bytes: the middle is dropped.
    let huge = submit(api, "seq 1000001 1375000");
    let listen = server.listen;
    let finished_is_whole = || {
        // Until a worker that has just joined can be asked for outputs, there is only the end that came with the report.
        until("outputs from the worker", PATIENCE, || {
            let whole = [numbers(1, 20_000), "careful\n".into()];
            (logs(listen, &long.to_string()) == whole).then_some(())
        });
        assert_eq!(logs(listen, &short.to_string()), ["short\n", ""]);
        assert_eq!(logs(listen, &silent.to_string()), ["", ""]);
        let all = numbers(1_000_001, 1_375_000);
        let (head, tail) = (&all[..1 << 20], &all[all.len() - (1 << 20)..]);
        let mark = "[… 902848 bytes were dropped by the output limit …]\n";
        let kept = [head, tail].concat();
        assert_eq!(logs(listen, &huge.to_string()), [kept, mark.to_owned()]);
    };
    Record::when_over(api, PATIENCE);
    finished_is_whole();
    // One is in the middle of its work when its worker is killed.
    let running = submit(api, "seq 1 2000; echo partial >&2; test $ROTA_ATTEMPT = 2 || sleep 600");
    let spool = arena.path("keeper").join("output/1048576+1048576");
    let streams = ["stdout", "stderr"].map(|name| spool.join(format!("{running}.0.1.{name}")));
    until("the output of a running attempt on disk", PATIENCE, || {
        let sizes = streams.each_ref().map(|file| file.metadata().map_or(0, |file| file.len()));
        (sizes == [numbers(1, 2_000).len() as u64, 8]).then_some(())
    });
    worker.kill();
    worker.start(api);
    finished_is_whole();
    let first = format!("{running}.0#1");
    assert_eq!(logs(listen, &first), [numbers(1, 2_000), "partial\n".into()]);
    let record = Record::when_over(api, PATIENCE);
    let task = &record.jobs[&running].1[0];
    assert_eq!((task.state, task.attempt), (TaskState::Succeeded, 2), "{task:?}");
    // And again: what was taken over is kept like what was written since.
    worker.kill();
    worker.start(api);
    finished_is_whole();
    for attempt in [1, 2] {
        let target = format!("{running}.0#{attempt}");
        assert_eq!(logs(listen, &target), [numbers(1, 2_000), "partial\n".into()]);
    }
}

#[test]
fn a_restart_of_rota_dev_keeps_the_output() {
    let _turn = one_at_a_time();
    let mut chance = Chance::for_test("output-dev");
    let arena = Arena::new();
    let listen = free_port(&mut chance);
    let data = arena.path("data").display().to_string();
    let arguments = ["dev", "--listen", &listen.to_string(), "--data", &data].map(str::to_owned);
    let start = || {
        let mut process = Process::start(&arguments, &arena.path("dev.log"));
        until("rota dev that is ready", PATIENCE, || {
            process.must_run();
            let ready = Api::at(listen).send("GET", "/readyz", &[], b"").ok()?.status == 200;
            let nodes = || Api::at(listen).send("GET", "/v1/nodes", &[], b"").ok();
            ready
                .then(nodes)??
                .body
                .windows(16)
                .any(|text| text == b"\"connected\":true")
                .then_some(())
        });
        process
    };
    let mut dev = start();
    let job = submit(Api::at(listen), "seq 1 20000");
    Record::when_over(Api::at(listen), PATIENCE);
    for _ in 0..2 {
        dev.kill();
        dev = start();
        assert_eq!(logs(listen, &job.to_string()), [numbers(1, 20_000), String::new()]);
    }
}
