//! Sessions: reconnects, re-adoption, settling, stale attempts, leases, going away.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rota_wire::worker::{
    ActionKind, ActionKinds, Assignment, Desired, Heartbeat, Leaving, NoopAction, Refused, Servers,
    Stop, action, failed, report, server_message,
};
use rota_worker::{Shutdown, WorkerError};
use tonic::Status;

use super::fake::{
    Server, Session, TestWorker, assignment, command, eventually, failed as failed_end, id, pair,
    shell, stopped, succeeded, within,
};

fn noop(job: u64) -> Assignment {
    assignment(job, action::Kind::Noop(NoopAction {}))
}

fn full(start: Vec<Assignment>) -> Desired {
    Desired { full: true, start, ..Desired::default() }
}

fn lost(message: &str) -> Option<report::End> {
    failed_end(failed::Kind::Lost(true), message)
}

/// The jobs whose reports the next message holds.
async fn reported(session: &mut Session) -> Vec<u64> {
    let reports = within(session.reports.recv()).await.expect("the session is open");
    let jobs = reports.ended.iter().filter_map(|report| Some(report.attempt?.job));
    jobs.collect()
}

#[tokio::test]
async fn a_hello_says_what_the_node_offers() {
    let (_server, _worker, session) = pair(|config| config.attempts_max = 5).await;
    let hello = &session.hello;
    let capacity = hello.capacity.as_ref().expect("a node has a capacity");
    assert_eq!((hello.name.as_str(), hello.protocol, hello.attempts_max), ("n1", 1, 5));
    assert!(capacity.cpu_millis >= 1_000 && capacity.memory_bytes > 1 << 20);
    assert_ne!(hello.incarnation, 0);
    let every = [ActionKind::Command, ActionKind::Http, ActionKind::Noop].map(i32::from);
    assert_eq!(hello.runs, Some(ActionKinds { kinds: every.into() }));
}

#[tokio::test]
async fn a_hello_says_which_kinds_of_actions_the_worker_runs() {
    let (_server, _worker, session) = pair(|config| config.allow.commands = false).await;
    let kinds = [ActionKind::Http, ActionKind::Noop].map(i32::from);
    assert_eq!(session.hello.runs, Some(ActionKinds { kinds: kinds.into() }));
}

#[tokio::test]
async fn a_batch_of_no_ops_is_reported_in_one_message() {
    let (_server, _worker, mut session) = pair(|_| {}).await;
    session.start((0..500).map(noop).collect()).await;
    assert_eq!(reported(&mut session).await, (0..500).collect::<Vec<_>>());
}

#[tokio::test]
async fn reports_are_repeated_in_every_session_until_they_are_settled() {
    let (mut server, _worker, mut session) = pair(|_| {}).await;
    session.start(vec![noop(1), noop(2)]).await;
    assert_eq!(reported(&mut session).await, [1, 2]);
    session.settle(1).await;
    drop(session);
    let mut session = server.welcomed().await;
    session.desire(full(vec![noop(2)])).await;
    let report = session.report(2).await;
    session.desire(full(vec![noop(2)])).await;
    assert_eq!(session.report(2).await, report, "it is not run again");
    session.settle(2).await;
    drop(session);
    let mut session = server.welcomed().await;
    session.desire(full(vec![noop(3)])).await;
    assert_eq!(reported(&mut session).await, [3]);
}

#[tokio::test]
async fn a_restarted_server_finds_its_attempts_running_and_gets_their_reports() {
    let (mut server, worker, mut session) = pair(|_| {}).await;
    let go = worker.dir.path().join("go");
    let waiting =
        |job| shell(job, &format!("echo $$; until [ -e {} ]; do sleep 0.01; done", go.display()));
    session.start(vec![waiting(1), waiting(2)]).await;
    session.running(1).await;
    session.running(2).await;
    let incarnation = session.hello.incarnation;
    drop(session);
    let address = server.stop().await;
    server = Server::start_at(address).await;
    let mut session = server.welcomed().await;
    assert_eq!(session.hello.incarnation, incarnation, "the same worker");
    session.desire(full(vec![waiting(1), waiting(2)])).await;
    session.running(1).await;
    session.running(2).await;
    fs::write(&go, "").expect("writable");
    assert_eq!(session.report(1).await.end, succeeded());
    let report = session.report(2).await;
    let detail = report.detail.expect("there");
    assert_eq!(detail.stdout_tail.split(|byte| *byte == b'\n').count(), 2, "it ran once");
}

#[tokio::test]
async fn a_server_with_another_log_gets_its_own_attempts_and_nobody_elses_results() {
    let (mut server, worker, mut session) = pair(|_| {}).await;
    let pids = worker.dir.path().join("pids");
    let script = |job| shell(job, &format!("echo $$ >> {}; sleep 1000", pids.display()));
    let lines = || fs::read_to_string(&pids).unwrap_or_default().lines().count();
    session.start(vec![script(1), noop(2), noop(3)]).await;
    session.running(1).await;
    assert_eq!(session.report(2).await.end, succeeded());
    assert_eq!(session.report(3).await.end, succeeded());
    session.settle(3).await;
    eventually("it runs", || lines() == 1).await;
    let old = fs::read_to_string(&pids).expect("written");
    drop(session);
    let again = |job| Assignment { placed_micros: 2, ..script(job) };
    let set = || full(vec![again(1), again(2), again(3)]);
    let mut session = loop {
        let mut session = server.welcomed().await;
        session.desire(set()).await;
        // It is closed as long as something of the other log is left.
        if let Some(first) = within(session.reports.recv()).await {
            session.started.extend(first.started.iter().filter_map(|note| note.attempt));
            break session;
        }
    };
    eventually("all three run", || lines() == 4).await;
    assert!(!super::fake::is_alive(&old), "it was of the other log");
    session.stop(3, Duration::ZERO).await;
    assert_eq!(session.report(3).await.end, stopped());
    assert!(session.reports.try_recv().is_err(), "nothing else is over");
}

#[tokio::test]
async fn an_older_copy_of_the_log_learns_that_an_attempt_is_over_here() {
    let (mut server, _worker, mut session) = pair(|_| {}).await;
    session.start(vec![noop(1), noop(2)]).await;
    assert_eq!(reported(&mut session).await, [1, 2]);
    session.settle(1).await;
    session.settle(2).await;
    drop(session);
    let mut session = server.welcomed().await;
    session.desire(full(vec![noop(1), noop(2)])).await;
    for job in [1, 2] {
        let message = "it was over before, but the server's record is older";
        assert_eq!(session.report(job).await.end, lost(message));
        session.settle(job).await;
        session.stop(job, Duration::ZERO).await;
        assert_eq!(session.report(job).await.end, stopped(), "a cancel ends, too");
    }
}

#[tokio::test]
async fn what_the_server_does_not_know_any_more_is_killed_and_not_reported() {
    let (mut server, worker, mut session) = pair(|_| {}).await;
    let file = worker.dir.path().join("pid");
    session.start(vec![shell(1, &format!("echo $$ > {}; sleep 1000", file.display()))]).await;
    session.running(1).await;
    eventually("it runs", || fs::read_to_string(&file).is_ok_and(|pid| pid.ends_with('\n'))).await;
    let pid = fs::read_to_string(&file).expect("written");
    drop(session);
    let mut session = server.welcomed().await;
    session.desire(full(vec![])).await;
    eventually("it is gone", || !super::fake::is_alive(&pid)).await;
    session.start(vec![noop(2)]).await;
    while let Some(reports) = within(session.reports.recv()).await {
        assert!(reports.ended.iter().all(|report| report.attempt != Some(id(1))));
        if reports.ended.iter().any(|report| report.attempt == Some(id(2))) {
            break;
        }
    }
}

#[tokio::test]
async fn an_attempt_that_is_to_stop_at_once_never_runs() {
    let (_server, worker, mut session) = pair(|_| {}).await;
    let file = worker.dir.path().join("ran");
    let mut task = command(1, &["touch", file.to_str().expect("text")]);
    task.stop = Some(Stop { attempt: Some(id(1)), grace_micros: 0 });
    session.desire(full(vec![task])).await;
    let report = session.report(1).await;
    assert_eq!((report.end, report.started_micros), (stopped(), None));
    assert!(!file.exists());
}

#[tokio::test]
async fn a_worker_that_hears_nothing_stops_its_attempts_before_the_lease_is_over() {
    let mut server = Server::start().await;
    let _worker = TestWorker::start(&server, |_| {});
    let mut session = server.session().await;
    let lease = Duration::from_secs(2);
    session.welcome(lease, true).await;
    session.acks.store(false, Ordering::SeqCst);
    let began = Instant::now();
    session.desire(full(vec![command(1, &["sleep", "1000"])])).await;
    session.running(1).await;
    let report = session.report(1).await;
    assert_eq!(report.end, lost("stopped: the worker could not renew its lease in time"));
    let took = began.elapsed();
    assert!(took >= lease / 2 && took < lease, "stopped after {took:?}");
}

#[tokio::test]
async fn attempts_outlive_a_refusing_sole_server_and_no_other() {
    for sole_server in [true, false] {
        let mut server = Server::start().await;
        let worker = TestWorker::start(&server, |_| {});
        let mut session = server.session().await;
        let lease = Duration::from_secs(3);
        session.welcome(lease, sole_server).await;
        let file = worker.dir.path().join("pid");
        let script = format!("echo $$ > {}; sleep 1000", file.display());
        session.desire(full(vec![shell(1, &script)])).await;
        session.running(1).await;
        eventually("it runs", || fs::read_to_string(&file).is_ok_and(|pid| pid.ends_with('\n')))
            .await;
        let pid = fs::read_to_string(&file).expect("written");
        drop(session);
        let address = server.stop().await;
        let gone = Instant::now();
        while gone.elapsed() < lease * 2 && super::fake::is_alive(&pid) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(super::fake::is_alive(&pid), sole_server);
        let mut server = Server::start_at(address).await;
        let mut session = server.welcomed().await;
        session.desire(full(vec![shell(1, &script)])).await;
        if sole_server {
            session.stop(1, Duration::ZERO).await;
            assert_eq!(session.report(1).await.end, stopped());
        } else {
            let message = "stopped: the worker could not renew its lease in time";
            assert_eq!(session.report(1).await.end, lost(message));
        }
    }
}

#[tokio::test]
async fn a_draining_worker_finishes_what_runs_says_so_and_goes() {
    let (_server, worker, mut session) = pair(|_| {}).await;
    let go = worker.dir.path().join("go");
    let script = format!("until [ -e {} ]; do sleep 0.01; done", go.display());
    session.start(vec![shell(1, &script)]).await;
    session.running(1).await;
    worker.shutdown.send_replace(Shutdown::Drain);
    let leaving = |beat: Option<Heartbeat>| beat.expect("the session is open").leaving();
    while leaving(within(session.heartbeats.recv()).await) != Leaving::Draining {}
    session.start(vec![noop(2)]).await;
    fs::write(&go, "").expect("writable");
    assert_eq!(session.report(1).await.end, succeeded());
    session.settle(1).await;
    while leaving(within(session.heartbeats.recv()).await) != Leaving::Gone {}
    within(worker.ended).await.expect("no panic").expect("a clean end");
    assert_eq!(session.reports.try_recv().ok(), None, "what came too late was not run");
}

#[tokio::test]
async fn a_draining_worker_waits_for_a_session_to_hand_in_its_last_results() {
    let (mut server, worker, mut session) = pair(|_| {}).await;
    let (go, ran) = (worker.dir.path().join("go"), worker.dir.path().join("ran"));
    let script =
        format!("until [ -e {} ]; do sleep 0.01; done; echo > {}", go.display(), ran.display());
    session.start(vec![shell(1, &script)]).await;
    session.running(1).await;
    drop(session);
    let address = server.stop().await;
    worker.shutdown.send_replace(Shutdown::Drain);
    fs::write(&go, "").expect("writable");
    eventually("it is over", || ran.exists()).await;
    server = Server::start_at(address).await;
    let mut session = server.welcomed().await;
    session.desire(full(vec![shell(1, &script)])).await;
    assert_eq!(session.report(1).await.end, succeeded());
    session.settle(1).await;
    within(worker.ended).await.expect("no panic").expect("a clean end");
}

#[tokio::test]
async fn a_draining_worker_without_a_server_goes_all_the_same() {
    let (server, worker, mut session) = pair(|_| {}).await;
    session.start(vec![noop(1)]).await;
    assert_eq!(session.report(1).await.end, succeeded());
    drop(session);
    server.stop().await;
    worker.shutdown.send_replace(Shutdown::Drain);
    within(worker.ended).await.expect("no panic").expect("a clean end");
}

#[tokio::test]
async fn a_server_that_can_never_take_this_worker_ends_it() {
    for (status, expected) in [
        (
            Status::invalid_argument("the name is too long"),
            "the name is too long; change the worker's options and start it again",
        ),
        (
            Status::unimplemented("no such method"),
            "no such method; check the address: what listens there is no server of rota that knows workers",
        ),
    ] {
        let mut server = Server::start().await;
        let worker = TestWorker::start(&server, |_| {});
        server.session().await.fail(status).await;
        let error = within(worker.ended).await.expect("no panic").expect_err("refused");
        assert_eq!(error.to_string(), format!("the server refused this worker: {expected}"));
    }
}

#[tokio::test]
async fn a_worker_does_not_start_with_an_address_that_can_not_work() {
    let server = Server::start().await;
    let worker = TestWorker::start(&server, |config| config.servers[0] = "https://a:1".into());
    let error = within(worker.ended).await.expect("no panic").expect_err("no address");
    assert!(matches!(error, WorkerError::Address { .. }), "{error}");
}

#[tokio::test]
async fn nobody_else_can_look_into_the_directory_that_a_worker_makes() {
    let mut server = Server::start().await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("new/data");
    let made = data.clone();
    let _worker = TestWorker::start(&server, |config| config.data_dir = made);
    let _session = server.welcomed().await;
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!([data.parent().expect("below"), &data].map(mode), [0o700; 2]);
    assert_eq!(["worker-id", "worker.lock"].map(|name| mode(&data.join(name))), [0o600; 2]);
}

#[tokio::test]
async fn a_worker_that_has_to_stop_stops_what_runs_and_reports_it_as_lost() {
    let (_server, worker, mut session) = pair(|_| {}).await;
    session.start(vec![command(1, &["sleep", "1000"])]).await;
    session.running(1).await;
    worker.shutdown.send_replace(Shutdown::Drain);
    worker.shutdown.send_replace(Shutdown::Stop);
    assert_eq!(session.report(1).await.end, lost("stopped: the worker was shut down"));
    session.settle(1).await;
    within(worker.ended).await.expect("no panic").expect("a clean end");
}

#[tokio::test]
async fn a_draining_worker_loses_patience_when_its_grace_is_over() {
    let grace = Duration::from_millis(100);
    let (_server, worker, mut session) = pair(|config| config.drain_grace = grace).await;
    session.start(vec![command(1, &["sleep", "1000"])]).await;
    session.running(1).await;
    worker.shutdown.send_replace(Shutdown::Drain);
    assert_eq!(session.report(1).await.end, lost("stopped: the worker was shut down"));
}

#[tokio::test]
async fn a_refused_worker_ends_what_runs_and_says_why() {
    let (_server, worker, mut session) = pair(|_| {}).await;
    let file = worker.dir.path().join("pid");
    session.start(vec![shell(1, &format!("echo $$ > {}; sleep 1000", file.display()))]).await;
    eventually("it runs", || fs::read_to_string(&file).is_ok_and(|pid| pid.ends_with('\n'))).await;
    session.running(1).await;
    let refused = Refused { reason: "the name is taken".into(), remedy: "use another".into() };
    session.say(server_message::Kind::Refused(refused)).await;
    let pid = fs::read_to_string(&file).expect("written");
    let error = within(worker.ended).await.expect("no panic").expect_err("refused");
    let text = "the server refused this worker: the name is taken; use another";
    assert_eq!(error.to_string(), text);
    assert!(!super::fake::is_alive(&pid));
}

#[tokio::test]
async fn two_workers_can_not_share_a_directory() {
    let (server, worker, _session) = pair(|_| {}).await;
    let shared = worker.dir.path().to_owned();
    let second = TestWorker::start(&server, |config| config.data_dir = shared);
    let error = within(second.ended).await.expect("no panic").expect_err("in use");
    assert!(matches!(error, WorkerError::InUse { .. }), "{error}");
}

#[tokio::test]
async fn a_worker_that_nobody_waits_for_any_more_ends_what_it_runs_and_goes() {
    let (server, worker, mut session) = pair(|_| {}).await;
    let file = worker.dir.path().join("pid");
    session.start(vec![shell(1, &format!("echo $$ > {}; sleep 1000", file.display()))]).await;
    session.running(1).await;
    eventually("it runs", || fs::read_to_string(&file).is_ok_and(|pid| pid.ends_with('\n'))).await;
    let pid = fs::read_to_string(&file).expect("written");
    worker.ended.abort();
    eventually("it is gone", || !super::fake::is_alive(&pid)).await;
    while within(session.reports.recv()).await.is_some() {}
    let data_dir = worker.dir.path().to_owned();
    let lock = || fs::File::open(data_dir.join("worker.lock")).expect("made by the worker");
    eventually("its directory is free", || lock().try_lock().is_ok()).await;
    drop(server);
}

#[tokio::test]
async fn a_set_in_parts_is_one_set() {
    let (_server, _worker, mut session) = pair(|_| {}).await;
    session.start(vec![command(1, &["sleep", "1000"]), command(2, &["sleep", "1000"])]).await;
    session.running(1).await;
    session.running(2).await;
    let first = command(1, &["sleep", "1000"]);
    session.desire(Desired { more: true, ..full(vec![first]) }).await;
    session.start(vec![command(2, &["sleep", "1000"])]).await;
    session.stop(2, Duration::ZERO).await;
    assert_eq!(session.report(2).await.end, stopped(), "not killed as unknown");
}

#[tokio::test]
async fn a_worker_goes_to_the_servers_that_it_was_told_of_and_passes_over_what_it_does_not_know() {
    let (server, _worker, session) = pair(|_| {}).await;
    let mut other = Server::start().await;
    let addresses = vec![format!("http://{}", other.address)];
    session.say_nothing_known().await;
    session.say(server_message::Kind::Servers(Servers { addresses })).await;
    session.fail(Status::unavailable("another server leads")).await;
    let elsewhere = other.welcomed().await;
    assert_eq!(elsewhere.hello.name, "n1");
    server.stop().await;
}
