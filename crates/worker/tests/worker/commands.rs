//! Real processes.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rota_wire::worker::*;
use rota_worker::Shutdown;
use rustix::process::{Resource, getrlimit};

use super::fake::*;

fn exit(code: i32) -> Option<report::End> {
    failed(failed::Kind::Exit(code), "")
}

#[tokio::test]
async fn exit_codes_and_signals_are_reported_as_they_are() {
    let (_server, _worker, mut session) = pair(|_| {}).await;
    assert_eq!(session.run(1, &["true"]).await.end, succeeded());
    assert_eq!(session.run(2, &["false"]).await.end, exit(1));
    assert_eq!(session.run(3, &["sh", "-c", "exit 255"]).await.end, exit(255));
    let killed = session.run(4, &["sh", "-c", "kill -9 $$"]).await;
    assert_eq!(killed.end, failed(failed::Kind::Signal(9), ""));
    assert!(killed.started_micros.is_some_and(|at| at <= killed.ended_micros));
}

#[tokio::test]
async fn what_can_not_start_is_named() {
    let (_server, _worker, mut session) = pair(|_| {}).await;
    let message = |report: Report| match report.end {
        Some(report::End::Failed(Failed { kind: Some(failed::Kind::Start(true)), message })) => {
            message
        }
        other => panic!("not a failure to start: {other:?}"),
    };
    let missing = message(session.run(1, &["no-such-program", "x"]).await);
    assert!(missing.starts_with("no-such-program: no such program in PATH"), "{missing}");
    assert_eq!(message(session.run(2, &["/no/such"]).await), "/no/such: no such file or directory");
    let plain = message(session.run(3, &["/etc/passwd"]).await);
    assert_eq!(plain, "/etc/passwd: permission denied: not an executable file");
    assert_eq!(message(session.run(4, &[]).await), "the command is empty");
    let mut lost = command(5, &["true"]);
    action_of(&mut lost).cwd = "/no/such/dir".into();
    session.start(vec![lost]).await;
    let lost = message(session.report(5).await);
    assert!(lost.starts_with("can't use the working directory /no/such/dir"), "{lost}");
    let mut relative = command(6, &["true"]);
    action_of(&mut relative).cwd = "here".into();
    session.start(vec![relative]).await;
    let relative = message(session.report(6).await);
    assert_eq!(relative, "the working directory here is not an absolute path");
}

#[tokio::test]
async fn a_worker_runs_only_what_it_is_willing_to_run() {
    let (_server, _worker, mut session) = pair(|config| {
        config.allow.programs = vec!["echo".into(), "/bin/sleep".into()];
        config.allow.noop = false;
        config.allow.http = false;
    })
    .await;
    let refused = |message| failed(failed::Kind::Start(true), message);
    assert_eq!(session.run(1, &["echo"]).await.end, succeeded());
    assert_eq!(session.run(2, &["/bin/sleep", "0"]).await.end, succeeded());
    let not_allowed = refused(
        "sh: this worker is not allowed to run it: start the worker with `--allow-program sh` too, \
         or let the task require a label of workers that are",
    );
    assert_eq!(session.run(3, &["sh", "-c", "exit 0"]).await.end, not_allowed);
    session.start(vec![assignment(4, action::Kind::Noop(NoopAction {}))]).await;
    assert_eq!(session.report(4).await.end, refused("this worker does not run no-op tasks"));
    session.start(vec![assignment(5, action::Kind::Http(HttpAction::default()))]).await;
    assert_eq!(session.report(5).await.end, refused("this worker does not run HTTP tasks"));
    let mut disguised = command(6, &["echo"]);
    let elsewhere = EnvVar { name: "PATH".into(), value: "/tmp".into() };
    action_of(&mut disguised).env.push(elsewhere);
    session.start(vec![disguised]).await;
    assert_eq!(session.report(6).await.end, succeeded(), "the worker's own echo ran");
    let mut loader = command(7, &["echo"]);
    let library = EnvVar { name: "LD_PRELOAD".into(), value: "/tmp/x.so".into() };
    action_of(&mut loader).env.push(library);
    session.start(vec![loader]).await;
    let message = "this worker runs only the programs on its list, and LD_PRELOAD could make them \
                   run others";
    assert_eq!(session.report(7).await.end, refused(message));
}

/// A script that starts another, which takes a moment to save its work when it is asked to end, and waits for it.
fn saves_late(file: &Path) -> String {
    let saves = format!("sleep 0.3; echo saved > {}; exit 0", file.display());
    let inner = format!("trap '{saves}' TERM; echo ready; while :; do sleep 0.01; done");
    format!("sh -c \"{inner}\" & wait")
}

#[tokio::test]
async fn what_a_shell_started_has_the_whole_grace_too() {
    let (mut server, worker, mut session) = pair(|_| {}).await;
    let file = |name: &str| worker.dir.path().join(name);
    let mut slow = shell(1, &saves_late(&file("timeout")));
    slow.timeout_micros = Some(700_000);
    action_of(&mut slow).grace_micros = 15_000_000;
    let begun = Instant::now();
    session.start(vec![slow, shell(2, &saves_late(&file("stop")))]).await;
    let mut link = server.output().await;
    let follow = ReadOutput { attempt: Some(id(2)), follow: true, ..ReadOutput::default() };
    let kind = Some(output_request::Kind::Read(follow));
    session.running(2).await;
    link.requests.send(Ok(OutputRequest { id: 1, kind })).await.expect("open");
    let ready = within(link.chunks.message()).await.expect("whole").expect("open");
    assert_eq!(ready.data, b"ready\n");
    session.stop(2, Duration::from_secs(15)).await;
    assert_eq!(session.report(2).await.end, stopped());
    assert_eq!(session.report(1).await.end, failed(failed::Kind::Timeout(true), ""));
    assert!(begun.elapsed() < Duration::from_secs(15), "nobody waits when nothing is left");
    for name in ["timeout", "stop"] {
        assert_eq!(fs::read_to_string(file(name)).expect("saved"), "saved\n");
    }
}

#[tokio::test]
async fn what_a_shell_started_is_killed_when_the_grace_is_over() {
    let (_server, worker, mut session) = pair(|_| {}).await;
    let file = worker.dir.path().join("pid");
    let script = format!(
        "sh -c \"trap '' TERM; echo \\$\\$ > {}; while :; do sleep 0.01; done\" & wait",
        file.display()
    );
    session.start(vec![shell(1, &script)]).await;
    eventually("it runs", || fs::read_to_string(&file).is_ok_and(|pid| pid.ends_with('\n'))).await;
    let pid = fs::read_to_string(&file).expect("written");
    let grace = Duration::from_millis(300);
    let begun = Instant::now();
    session.stop(1, grace).await;
    assert_eq!(session.report(1).await.end, stopped());
    assert!(begun.elapsed() >= grace && !is_alive(&pid));
}

/// The only thread that starts programs is busy.
#[test]
fn a_program_that_is_to_stop_before_its_turn_comes_is_not_started() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (_server, worker, mut session) = pair(|_| {}).await;
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || wait.recv());
        let file = worker.dir.path().join("ran");
        session.start(vec![command(1, &["touch", file.to_str().expect("text")])]).await;
        session.stop(1, Duration::from_secs(5)).await;
        session.start(vec![assignment(2, action::Kind::Noop(NoopAction {}))]).await;
        assert_eq!(session.report(2).await.end, succeeded(), "so the stop was heard");
        go.send(()).expect("it waits");
        busy.await.expect("no panic").expect("told to go on");
        let report = session.report(1).await;
        assert_eq!((report.end, report.started_micros), (stopped(), None));
        assert!(!file.exists());
    });
}

#[tokio::test]
async fn programs_may_open_as_many_files_as_before_and_the_worker_more() {
    let before = getrlimit(Resource::Nofile);
    rota_worker::raise_open_files();
    let (_server, _worker, mut session) = pair(|_| {}).await;
    let after = getrlimit(Resource::Nofile);
    assert_eq!((after.current, after.maximum), (before.maximum, before.maximum));
    let soft = before.current.map_or("unlimited".to_owned(), |most| most.to_string());
    let script = "until [ \"$(ulimit -Sn)\" = \"$0\" ]; do sleep 0.01; done";
    assert_eq!(session.run(1, &["sh", "-c", script, &soft]).await.end, succeeded());
}

#[tokio::test]
async fn a_task_sees_its_identity_and_none_of_the_workers_secrets() {
    let (_server, _worker, mut session) =
        pair(|config| config.advertised_server = Some("http://s:1".into())).await;
    let mut task = command(17, &["env"]);
    task.array_index = Some(40);
    action_of(&mut task).env = vec![
        EnvVar { name: "MINE".into(), value: "{index} of {job}".into() },
        EnvVar { name: "ROTA_ATTEMPT".into(), value: "99".into() },
    ];
    session.start(vec![task]).await;
    let report = session.report(17).await;
    let text = stdout(&report);
    let lines: std::collections::BTreeMap<_, _> =
        text.lines().filter_map(|line| line.split_once('=')).collect();
    let expected = [
        ("MINE", "40 of 17"),
        ("ROTA_ATTEMPT", "2"),
        ("ROTA_JOB_ID", "17"),
        ("ROTA_NODE", "n1"),
        ("ROTA_SERVER", "http://s:1"),
        ("ROTA_TASK_ID", "17.3"),
        ("ROTA_TASK_INDEX", "40"),
    ];
    for (name, value) in expected {
        assert_eq!(lines.get(name), Some(&value), "{name}");
    }
    assert!(lines.contains_key("PATH"));
    assert!(
        std::env::var("CARGO_MANIFEST_DIR").is_ok() && !lines.contains_key("CARGO_MANIFEST_DIR")
    );
}

#[tokio::test]
async fn placeholders_are_filled_in_arguments_and_the_directory() {
    let (_server, worker, mut session) = pair(|_| {}).await;
    let dir = worker.dir.path().join("made-17");
    fs::create_dir(&dir).expect("a fresh directory");
    let mut task = command(17, &["sh", "-c", "pwd; echo \"$0 {}\"", "{task}#{attempt}@{node} {x}"]);
    task.entry = "one line".into();
    let dir = dir.to_str().expect("text");
    action_of(&mut task).cwd = dir.replace("17", "{job}");
    session.start(vec![task]).await;
    let report = session.report(17).await;
    assert_eq!(stdout(&report), format!("{dir}\n17.3#2@n1 {{x}} one line\n"));
}

#[tokio::test]
async fn standard_input_reaches_the_program_and_one_that_does_not_want_it_does_no_harm() {
    let (_server, _worker, mut session) = pair(|_| {}).await;
    for (job, size) in [(1, 5), (2, 300_000)] {
        let mut task = command(job, &["wc", "-c"]);
        action_of(&mut task).stdin = vec![b'x'; size];
        session.start(vec![task]).await;
        assert_eq!(stdout(&session.report(job).await).trim(), size.to_string());
    }
    let mut deaf = command(3, &["true"]);
    action_of(&mut deaf).stdin = vec![b'x'; 300_000];
    session.start(vec![deaf]).await;
    assert_eq!(session.report(3).await.end, succeeded());
    assert_eq!(stdout(&session.run(4, &["wc", "-c"]).await).trim(), "0");
}

#[tokio::test]
async fn an_attempt_gets_a_fresh_directory_that_goes_when_its_report_is_settled() {
    let (_server, worker, mut session) = pair(|_| {}).await;
    let report = session.run(1, &["sh", "-c", "pwd; ls; echo hello > file"]).await;
    let text = stdout(&report);
    let dir = text.trim().to_owned();
    let inside = worker.dir.path().canonicalize().expect("it exists");
    assert!(std::path::Path::new(&dir).starts_with(inside), "{dir} is the only line");
    assert_eq!(fs::read_to_string(format!("{dir}/file")).expect("kept"), "hello\n");
    session.settle(1).await;
    eventually("the directory goes", || !fs::exists(&dir).expect("readable")).await;
}

#[tokio::test]
async fn an_attempt_that_runs_too_long_is_ended_with_everything_it_started() {
    let (_server, worker, mut session) = pair(|_| {}).await;
    let file = worker.dir.path().join("pid");
    let script =
        format!("(trap '' TERM; sleep 1000 & echo $! > {}; wait; sleep 1000)", file.display());
    let mut task = shell(1, &script);
    task.timeout_micros = Some(200_000);
    action_of(&mut task).grace_micros = 100_000;
    session.start(vec![task]).await;
    let report = session.report(1).await;
    assert_eq!(report.end, failed(failed::Kind::Timeout(true), ""));
    let pid = fs::read_to_string(file).expect("written");
    eventually("the grandchild is gone", || !is_alive(&pid)).await;
}

#[tokio::test]
async fn a_stop_asks_first_and_kills_what_does_not_listen() {
    let (_server, worker, mut session) = pair(|_| {}).await;
    let ready = worker.dir.path().join("ready");
    let wait = format!("touch {}; while :; do sleep 0.01; done", ready.display());
    for (job, trap, said) in
        [(1, "trap 'echo bye; exit 3' TERM;", "bye\n"), (2, "trap '' TERM;", "")]
    {
        session.start(vec![shell(job, &format!("{trap} {wait}"))]).await;
        eventually("the trap is set", || ready.exists()).await;
        let asked = std::time::Instant::now();
        session.stop(job, Duration::from_millis(300)).await;
        let report = session.report(job).await;
        assert_eq!(report.end, stopped());
        assert_eq!(stdout(&report), said);
        assert_eq!(asked.elapsed() >= Duration::from_millis(300), job == 2);
        fs::remove_file(&ready).expect("there");
    }
}

#[tokio::test]
async fn a_program_that_leaves_its_group_and_its_parent_is_killed_with_its_attempt() {
    let (_server, worker, mut session) = pair(|_| {}).await;
    let file = worker.dir.path().join("pid");
    let hidden =
        format!("setsid sh -c 'sleep 1000 >/dev/null 2>&1 & echo $! > {}'", file.display());
    session.start(vec![shell(1, &format!("({hidden} &) ; sleep 1000"))]).await;
    eventually("it hides", || fs::read_to_string(&file).is_ok_and(|pid| pid.ends_with('\n'))).await;
    let pid = fs::read_to_string(&file).expect("written");
    assert!(is_alive(&pid));
    session.stop(1, Duration::ZERO).await;
    assert_eq!(session.report(1).await.end, stopped());
    assert!(!is_alive(&pid), "gone before the report");
}

#[tokio::test]
async fn what_a_program_leaves_behind_is_killed_when_it_ends() {
    let (_server, worker, mut session) = pair(|_| {}).await;
    let same_group = session.run(1, &["sh", "-c", "sleep 1000 & echo $!"]).await;
    assert_eq!(same_group.end, succeeded());
    let pid = stdout(&same_group);
    eventually("the background job is gone", || !is_alive(&pid)).await;
    let holds_pipe = session.run(2, &["sh", "-c", "setsid sleep 1000 & echo $!"]).await;
    assert_eq!(holds_pipe.end, succeeded());
    let file = worker.dir.path().join("pid");
    let script =
        format!("setsid sh -c 'sleep 1000 >/dev/null 2>&1 & echo $! > {}'", file.display());
    assert_eq!(session.run(3, &["sh", "-c", &script]).await.end, succeeded());
    let daemon = fs::read_to_string(file).expect("written");
    eventually("the daemon is gone", || !is_alive(&daemon)).await;
}

#[tokio::test]
async fn what_a_killed_worker_left_is_killed_by_the_next_one() {
    let mut server = Server::start().await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("worker-id"), "00112233445566aa").expect("writable");
    let mut orphan = std::process::Command::new("sleep")
        .arg("1000")
        .env("ROTA_MARK", "00112233445566aa.0000000000000001/1.0#1")
        .spawn()
        .expect("sleep exists");
    let pid = orphan.id().to_string();
    let data = dir.path().to_owned();
    let _worker = TestWorker::start(&server, |config| config.data_dir = data);
    let _session = server.welcomed().await;
    assert!(!is_alive(&pid), "gone before the first session");
    assert!(!orphan.wait().expect("a child").success());
}

#[tokio::test]
async fn cpu_time_is_reported() {
    let (_server, _worker, mut session) = pair(|_| {}).await;
    let report =
        session.run(1, &["sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"]).await;
    assert!(report.detail.expect("there").cpu_micros > 0);
}

#[tokio::test]
async fn memory_limits_are_enforced_or_the_report_says_why_not() {
    let (_server, worker, mut session) = pair(|_| {}).await;
    let mut task = shell(1, "x=$(head -c 50000000 /dev/zero | tr '\\0' x); echo ${#x}");
    task.need = Some(Resources { memory_bytes: 8 << 20, cpu_millis: 500, named: vec![] });
    session.start(vec![task]).await;
    let report = session.report(1).await;
    let detail = report.detail.as_ref().expect("there");
    let noted = detail.notes.iter().any(|note| note.starts_with("limits not enforced: "));
    if noted {
        assert_eq!(report.end, succeeded());
    } else {
        let Some(report::End::Failed(Failed { message, .. })) = &report.end else {
            panic!("it used more than it may: {report:?}");
        };
        assert_eq!(message, "used more than its 8388608 bytes of memory");
        assert!(detail.memory_peak_bytes > 4 << 20);
    }
    session.settle(1).await;
    worker.shut_down(Shutdown::Stop).await.expect("a clean end");
}

#[tokio::test]
async fn an_attempt_that_asks_for_memory_gets_limits_where_the_system_has_them() {
    let (_server, worker, mut session) = pair(|_| {}).await;
    let identity = fs::read_to_string(worker.dir.path().join("worker-id")).expect("written");
    let files = format!("find /sys/fs/cgroup -path '*/rota-{identity}/1.*' -type f");
    let print = "while read -r file; do echo \"${file##*/}=$(cat \"$file\" 2>&-)\"; done";
    let mut task = shell(1, &format!("{files} | {print}"));
    task.need = Some(Resources { memory_bytes: 32 << 20, cpu_millis: 500, named: vec![] });
    session.start(vec![task]).await;
    let detail = session.report(1).await.detail.expect("there");
    let told = String::from_utf8_lossy(&detail.stdout_tail);
    let value =
        |name: &str| told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let enforced = !detail.notes.iter().any(|note| note.starts_with("limits not enforced: "));
    let memory = value("memory.max").or(value("memory.limit_in_bytes"));
    assert_eq!(memory, enforced.then_some("33554432"), "{detail:?}");
    for (name, limit) in [("cpu.weight", "50"), ("cpu.shares", "512"), ("pids.max", "32768")] {
        assert_eq!(value(name).unwrap_or(limit), limit, "{name}");
    }
}

#[tokio::test]
async fn without_cgroups_a_report_says_that_limits_are_not_enforced() {
    let (_server, _worker, mut session) = pair(|config| config.cgroups = false).await;
    let mut task = command(1, &["true"]);
    task.need = Some(Resources { memory_bytes: 32 << 20, cpu_millis: 500, named: vec![] });
    session.start(vec![task, command(2, &["true"])]).await;
    let notes = |report: Report| report.detail.expect("there").notes;
    let expected = ["limits not enforced: cgroups are switched off on this worker"];
    assert_eq!(notes(session.report(1).await), expected);
    assert_eq!(notes(session.report(2).await), Vec::<String>::new());
}
