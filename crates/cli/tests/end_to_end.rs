//! The built binary against itself: `rota dev` on a free port, and the commands that talk to it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const ROTA: &str = env!("CARGO_BIN_EXE_rota");

/// A command that sees nothing of the settings of whoever runs the tests.
fn rota(dir: &Path) -> Command {
    let mut command = Command::new(ROTA);
    for name in ["ROTA_SERVER", "ROTA_CONTEXT", "ROTA_OUTPUT", "ROTA_TIMEOUT", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command.env("ROTA_CONFIG", dir.join("config.toml")).env("NO_COLOR", "1").current_dir(dir);
    command.stdin(Stdio::null());
    command
}

/// `rota dev` in a directory of its own, until dropped.
struct Dev {
    child: Child,
    address: String,
    dir: PathBuf,
    _temporary: tempfile::TempDir,
}

impl Dev {
    fn start() -> Self {
        let temporary = tempfile::tempdir().expect("a directory");
        let dir = temporary.path().to_path_buf();
        std::fs::write(dir.join("config.toml"), "").expect("the configuration is written");
        let mut child = rota(&dir)
            .args(["dev", "--listen", "127.0.0.1:0", "-q"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("rota starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("the output is piped");
        BufReader::new(out).read_line(&mut line).expect("the address is printed");
        let address = line.trim().to_owned();
        assert!(address.starts_with("http://127.0.0.1:"), "{address}");
        Self { child, address, dir, _temporary: temporary }
    }

    fn run(&self, args: &[&str]) -> Output {
        rota(&self.dir).env("ROTA_SERVER", &self.address).args(args).output().expect("rota runs")
    }

    /// Standard output of a command that must succeed.
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
        serde_json::from_str(&self.ok(&args)).expect("the output is JSON")
    }

    /// Exit code and standard error of a command.
    fn fails(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = self.run(args);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().ok();
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn a_command_runs_without_a_server_and_its_output_and_exit_code_pass_through() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("config.toml"), "").expect("the configuration is written");
    let script = "echo out; echo err >&2; test -n \"$ROTA_TASK_ID\" || exit 9; exit 7";
    let output =
        rota(dir.path()).args(["run", "--", "sh", "-c", script]).output().expect("rota runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let got = (output.status.code(), text(&output.stdout), text(&output.stderr));
    assert_eq!(got, (Some(7), "out\n".to_owned(), "err\n".to_owned()));
}

#[test]
fn every_attempt_of_a_command_is_heard_and_the_last_exit_code_counts() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("config.toml"), "").expect("the configuration is written");
    let retry = [
        "run",
        "--retries",
        "2",
        "--backoff",
        "1ms",
        "--",
        "sh",
        "-c",
        "echo $ROTA_ATTEMPT; exit 4",
    ];
    let output = rota(dir.path()).args(retry).output().expect("rota runs");
    let lines = String::from_utf8_lossy(&output.stdout).lines().count();
    assert_eq!((output.status.code(), lines), (Some(4), 3));
}

#[test]
fn one_task_per_line_prints_in_the_order_of_the_lines() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("config.toml"), "").expect("the configuration is written");
    let mut child = rota(dir.path())
        .args(["run", "-q", "--each-line", "-", "--cpus", "0.1", "--", "printf", "%s.\\n", "{}"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("rota starts");
    let mut stdin = child.stdin.take().expect("the input is piped");
    stdin.write_all(b"one\ntwo words\nthree\n").expect("the lines are written");
    drop(stdin);
    let output = child.wait_with_output().expect("rota ends");
    let got = (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned());
    assert_eq!(got, (Some(0), "one.\ntwo words.\nthree.\n".to_owned()));
}

#[test]
fn trouble_of_its_own_exits_with_125_from_run_and_with_a_code_per_kind_elsewhere() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("config.toml"), "").expect("the configuration is written");
    let code =
        |args: &[&str]| rota(dir.path()).args(args).output().expect("rota runs").status.code();
    assert_eq!(code(&["run", "no-such-file.toml"]), Some(125));
    assert_eq!(code(&["run", "--", "/no/such/program"]), Some(125));
    assert_eq!(code(&["-s", "127.0.0.1:9", "job", "ls"]), Some(6));
    assert_eq!(code(&["job", "lint", "config.toml"]), Some(3));
    assert_eq!(code(&["job", "show", "x"]), Some(2));
    assert_eq!(code(&["frobnicate"]), Some(2));
    assert_eq!(code(&["explain", "queue-full"]), Some(0));
}

#[test]
fn a_job_goes_from_submit_to_its_record() {
    let dev = Dev::start();
    let submit = [
        "submit", "-q", "--name", "render", "--array", "1-20", "--cpus", "0.1", "-l", "team=r",
        "--",
    ];
    let id = dev.ok(&[&submit[..], &["sh", "-c", "echo frame $ROTA_TASK_INDEX"]].concat());
    assert_eq!(id, "1\n");
    dev.ok(&["job", "wait", "last"]);

    let job = dev.json(&["job", "show", "1"]);
    assert_eq!(
        (&job["name"], &job["state"], &job["tasks"]),
        (&"render".into(), &"succeeded".into(), &20.into())
    );
    assert_eq!(job["counts"]["succeeded"], 20);
    assert_eq!(dev.json(&["job", "ls", "-l", "team=r"])["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        dev.json(&["job", "ls", "-l", "team=other"])["items"].as_array().map(Vec::len),
        Some(0)
    );
    assert_eq!(dev.json(&["task", "ls", "last"])["items"].as_array().map(Vec::len), Some(20));

    assert_eq!(dev.ok(&["logs", "1.4"]), "frame 5\n");
    let all = dev.ok(&["job", "logs", "last"]);
    assert_eq!(all.lines().next_back(), Some("1.19 | frame 20"));
    assert_eq!(dev.json(&["task", "show", "1.4"])["attempts"][0]["id"], "1.4#1");
    assert_eq!(dev.fails(&["job", "show", "99"]).0, Some(4));
}

#[test]
fn the_last_lines_are_whole_however_long_they_are_also_when_following() {
    let dev = Dev::start();
    let script = "for n in 1 2 3 4; do printf '%02000d\\n' $n; done";
    dev.ok(&["submit", "--wait", "-q", "--", "sh", "-c", script]);
    let wanted: String = [3, 4].map(|n| format!("{n:02000}\n")).concat();
    assert_eq!(dev.ok(&["logs", "last", "--tail", "2"]), wanted);
    assert_eq!(dev.ok(&["logs", "last", "--tail", "2", "-f"]), wanted);
    assert_eq!(dev.ok(&["logs", "last", "--tail", "0", "-f"]), "");
}

#[test]
fn what_waits_is_explained_and_what_is_cancelled_says_so() {
    let dev = Dev::start();
    dev.ok(&["submit", "--cpus", "9999", "--", "true"]);
    let explained = dev.json(&["task", "explain", "last"]);
    assert_eq!((&explained["task"], &explained["state"]), (&"1.0".into(), &"queued".into()));
    assert_eq!(explained["reasons"][0]["nodes"], 1);
    assert!(explained["suggestions"].as_array().is_some_and(|list| !list.is_empty()));
    assert_eq!(dev.fails(&["job", "wait", "last", "--for", "100ms"]).0, Some(7));
    assert_eq!(dev.json(&["job", "cancel", "last"])["ended"], 1);
    assert_eq!(dev.fails(&["job", "wait", "last"]).0, Some(1));
    assert_eq!(dev.fails(&["job", "cancel", "last"]).0, Some(8));
}

#[test]
fn failed_tasks_can_be_tried_again_as_a_new_job() {
    let dev = Dev::start();
    let script = "test $ROTA_TASK_INDEX -ne 2 || test -f fixed || { echo broken >&2; exit 3; }";
    let (code, _) =
        dev.fails(&["submit", "--wait", "-q", "--array", "1-3", "--", "sh", "-c", script]);
    assert_eq!(code, Some(1));
    let failure = dev.json(&["job", "show", "1"])["first_failure"].clone();
    assert_eq!(
        (&failure["failure"]["kind"], &failure["failure"]["code"]),
        (&"exit".into(), &3.into())
    );
    assert_eq!(failure["detail"]["stderr_tail"], "broken\n");
    std::fs::write(dev.dir.join("fixed"), "").expect("the file is written");
    dev.ok(&["job", "retry", "@failed", "--wait", "-q"]);
    let again = dev.json(&["job", "show", "last"]);
    assert_eq!(
        (&again["retry_of"], &again["tasks"], &again["state"]),
        (&1.into(), &1.into(), &"succeeded".into())
    );
}

#[test]
fn queues_are_created_changed_paused_and_removed() {
    let dev = Dev::start();
    dev.ok(&["queue", "create", "batch", "--order", "priority", "--place", "best_fit"]);
    assert_eq!(dev.fails(&["queue", "create", "batch"]).0, Some(8));
    let changed =
        dev.json(&["queue", "set-policy", "batch", "--order", "fifo", "--running-max", "1"]);
    let got = (&changed["discipline"], &changed["placement"], &changed["running_max"]);
    assert_eq!(got, (&"fifo".into(), &"best_fit".into(), &1.into()));
    assert_eq!(dev.json(&["queue", "pause", "batch"])["paused"], true);
    dev.ok(&["submit", "-q", "--queue", "batch", "--", "true"]);
    assert_eq!(
        dev.fails(&["queue", "purge", "batch"]).0,
        Some(2),
        "purging needs --yes without a terminal"
    );
    assert_eq!(dev.json(&["queue", "purge", "batch", "--yes"])["ended"], 1);
    dev.ok(&["queue", "rm", "batch", "--yes"]);
    let (code, text) = dev.fails(&["submit", "--queue", "batch", "--", "true"]);
    assert_eq!(code, Some(3));
    assert!(
        text.starts_with("error: ") && text.contains("\nsee:   rota explain unknown-queue"),
        "{text}"
    );
}

#[test]
fn a_repeated_submit_under_its_key_makes_one_job() {
    let dev = Dev::start();
    let submit = ["submit", "-q", "--idempotency-key", "k1", "--", "true"];
    assert_eq!((dev.ok(&submit), dev.ok(&submit)), ("1\n".to_owned(), "1\n".to_owned()));
    let other = ["submit", "-q", "--idempotency-key", "k1", "--", "false"];
    assert_eq!(dev.fails(&other).0, Some(8));
}

#[test]
fn every_format_and_every_listing_prints() {
    let dev = Dev::start();
    dev.ok(&["submit", "--wait", "-q", "--", "true"]);
    for format in ["table", "wide", "json", "jsonl", "yaml"] {
        let listings: [&[&str]; 9] = [
            &["job", "ls"],
            &["job", "show", "1", "--spec", "--tasks"],
            &["task", "ls", "1"],
            &["task", "show", "1.0"],
            &["node", "ls"],
            &["queue", "ls"],
            &["cluster", "stats"],
            &["doctor"],
            &["event", "follow", "--since", "0", "--count", "2"],
        ];
        for listing in listings {
            let text = dev.ok(&[listing, &["-o", format]].concat());
            assert!(!text.trim().is_empty(), "{listing:?} as {format} prints nothing");
        }
    }
}

#[test]
fn a_node_drains_and_takes_tasks_again() {
    let dev = Dev::start();
    let name = dev.ok(&["node", "ls", "-q"]).trim().to_owned();
    assert_eq!(dev.json(&["node", "drain", &name])["state"], "draining");
    dev.ok(&["submit", "-q", "--", "true"]);
    assert_eq!(dev.fails(&["job", "wait", "last", "--for", "300ms"]).0, Some(7));
    assert_eq!(dev.json(&["node", "undrain", &name])["state"], "ready");
    dev.ok(&["job", "wait", "last", "--for", "20s"]);
    assert_eq!(dev.fails(&["node", "rm", &name, "--yes"]).0, Some(8));
}

#[test]
fn the_examples_are_valid_and_the_pages_are_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    for example in std::fs::read_dir(examples).expect("there are examples") {
        let path = example.expect("the directory can be read").path();
        let lint = Command::new(ROTA).args(["job", "lint"]).arg(&path).status().expect("rota runs");
        assert!(lint.success(), "{}", path.display());
    }
    let man = Command::new(ROTA).arg("man").arg(dir.path()).status().expect("rota runs");
    assert!(man.success() && dir.path().join("rota-job-ls.1").exists());
    for shell in ["bash", "zsh", "fish"] {
        let script = Command::new(ROTA).args(["completion", shell]).output().expect("rota runs");
        assert!(script.status.success() && script.stdout.len() > 50, "{shell}");
    }
}

/// What a shell would offer for the last of these words.
fn completed(dir: &Path, server: &str, words: &[&str]) -> Vec<String> {
    let mut command = rota(dir);
    command.env("COMPLETE", "fish").env("ROTA_SERVER", server).args(["--", "rota"]).args(words);
    let output = command.output().expect("rota runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    lines.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn shells_complete_what_the_server_knows_and_stay_silent_without_one() {
    let dev = Dev::start();
    dev.ok(&["submit", "-q", "--array", "1-3", "--name", "a", "--", "true"]);
    dev.ok(&["submit", "-q", "--", "true"]);
    dev.ok(&["queue", "create", "batch"]);
    let node = dev.json(&["node", "ls"])["items"][0]["name"].as_str().map(str::to_owned);
    let offered = |words: &[&str]| completed(&dev.dir, &dev.address, words);
    assert_eq!(offered(&["job", "show", ""])[..3], ["2", "1", "last"]);
    assert_eq!(offered(&["job", "cancel", "@q"]), ["@queued"]);
    assert_eq!(offered(&["task", "explain", "1."]), ["1.0", "1.1", "1.2"]);
    assert_eq!(offered(&["queue", "pause", "b"]), ["batch"]);
    assert_eq!(offered(&["node", "drain", ""]).first(), node.as_ref());
    assert_eq!(offered(&["job", "sh"]), ["show"]);
    assert_eq!(completed(&dev.dir, "127.0.0.1:1", &["job", "show", "1"]), [""; 0]);
}

#[test]
fn watching_shows_what_changes_and_ends_with_the_job() {
    let dev = Dev::start();
    let line = "while [ ! -e go ]; do sleep 0.05; done";
    dev.ok(&["submit", "-q", "--name", "slow", "--", "sh", "-c", line]);
    let watch = |args: &[&str]| {
        let mut command = rota(&dev.dir);
        command.env("ROTA_SERVER", &dev.address).args(args).stdout(Stdio::piped());
        command.spawn().expect("rota starts")
    };
    let mut show = watch(&["job", "show", "last", "--watch", "-o", "jsonl"]);
    let mut list = watch(&["job", "ls", "-w", "-o", "jsonl"]);
    let states = |child: &mut Child| {
        let lines = BufReader::new(child.stdout.take().expect("the output is piped")).lines();
        lines.map_while(|line| serde_json::from_str::<Value>(&line.ok()?).ok())
    };
    let mut shown = states(&mut show).map(|job| job["state"].clone());
    let mut listed = states(&mut list);
    let first = shown.next();
    assert!(first == Some(Value::from("queued")) || first == Some(Value::from("running")));
    assert_eq!(listed.next().map(|job| job["name"].clone()), Some(Value::from("slow")));
    std::fs::write(dev.dir.join("go"), "").expect("the file is written");
    assert_eq!(shown.last(), Some(Value::from("succeeded")));
    assert!(show.wait().expect("it ends").success());
    let over = listed.find(|job| job["state"] == "succeeded");
    assert_eq!(over.map(|job| job["id"].clone()), Some(Value::from(1)));
    list.kill().and_then(|()| list.wait()).expect("it is ended");
}

#[test]
fn the_events_of_a_job_are_listed_and_a_submitter_finds_their_own_jobs() {
    let dev = Dev::start();
    dev.ok(&["submit", "-q", "--wait", "--", "true"]);
    let mut other = rota(&dev.dir);
    other.env("ROTA_SERVER", &dev.address).env("USER", "ana").args(["submit", "-q", "--", "true"]);
    assert!(other.status().expect("rota runs").success());
    let text = dev.ok(&["job", "show", "1", "--events"]);
    for kind in ["job_submitted", "attempts_created", "attempt_ended", "job_finished"] {
        assert!(text.contains(kind), "{kind} is missing in\n{text}");
    }
    assert_eq!(dev.ok(&["job", "ls", "-q", "--submitter", "ana"]), "2\n");
    assert_eq!(dev.ok(&["job", "ls", "-q", "--submitter", "nobody"]), "");
}

#[test]
fn short_tasks_wait_at_their_node_and_never_overlap() {
    let dev = Dev::start();
    let nodes = dev.json(&["node", "ls"]);
    let cpus = nodes["items"][0]["capacity"]["cpus"]
        .as_f64()
        .expect("a node says what it has")
        .to_string();
    // Each takes all cpus: one that starts before the one ahead is over finds the directory there.
    let busy = dev.dir.join("busy").display().to_string();
    let script = format!("mkdir {busy} && rmdir {busy}");
    let words = ["run", "--cpus", &cpus, "--array", "1-60", "--", "sh", "-c", &script];
    let output = dev.run(&words);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let events = dev.ok(&["job", "show", "last", "--events"]);
    let count = |what: &str| events.matches(what).count();
    assert_eq!(count("attempt_ended"), 60);
    assert!(count("attempt_staged") > 10, "{events}");
    assert!(count("attempt_promoted") <= count("attempt_staged"), "{events}");
}

#[test]
fn a_dry_run_starts_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("config.toml"), "").expect("the configuration is written");
    let dry = |args: &[&str]| {
        let output = rota(dir.path()).args(["run", "--dry-run"]).args(args).output();
        let output = output.expect("rota runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let said = "valid: 9 tasks, nothing was submitted\n".to_owned();
    assert_eq!(dry(&["--array", "1-9", "--", "touch", "x"]), (Some(0), said));
    assert_eq!(dry(&["--require", "=", "--", "true"]).0, Some(2));
    assert_eq!(std::fs::read_dir(dir.path()).map(Iterator::count).ok(), Some(1));
}

#[test]
fn a_mistake_on_the_command_line_is_told_once_and_with_a_remedy() {
    let dev = Dev::start();
    let told = |args: &[&str], what: &str, remedy: &str| {
        let (_, text) = dev.fails(args);
        assert_eq!(text.matches(what).count(), 1, "{args:?}: {text}");
        assert!(text.contains(remedy), "{args:?}: {text}");
    };
    told(&["submit", "echo", "hi"], "'hi'", "put -- before it");
    told(&["submit", "--memory", "5Q", "--", "true"], "is not a size", "512MiB");
    told(&["submit", "--timeout", "99d", "--", "true"], "longer than the limit", "use at most 7d");
    told(&["submit", "--require", "a==b", "--", "true"], "is not a requirement", "zone=a");
}

#[test]
fn a_run_of_its_own_passes_output_of_any_length_through() {
    let temporary = tempfile::tempdir().expect("a directory");
    std::fs::write(temporary.path().join("config.toml"), "").expect("the configuration is written");
    let expected: String = (1..=1_000_000).map(|number| format!("{number}\n")).collect();
    let one = ["run", "--", "seq", "1", "1000000"];
    let two = ["run", "--array", "1-2", "--", "seq", "1", "1000000"];
    for (args, times) in [(one.as_slice(), 1), (two.as_slice(), 2)] {
        let output = rota(temporary.path()).args(args).output().expect("rota runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let whole = output.stdout == expected.repeat(times).into_bytes();
        assert!(whole, "{args:?}: {} bytes of {}", output.stdout.len(), times * expected.len());
    }
}

#[test]
fn keys_are_put_read_changed_and_deleted() {
    let dev = Dev::start();
    let put = dev.json(&["kv", "put", "config/port", "8080"]);
    assert_eq!((&put["revision"], &put["deleted"]), (&Value::from(1), &Value::from(0)));
    assert_eq!(dev.ok(&["kv", "get", "config/port"]), "8080");
    let (code, error) = dev.fails(&["kv", "cas", "config/port", "0", "9090"]);
    assert_eq!(code, Some(8), "{error}");
    assert!(error.contains("see:   rota explain revision-mismatch"), "{error}");
    assert_eq!(
        dev.ok(&["kv", "cas", "config/port", "1", "9090"]),
        "key config/port · put at revision 2\n"
    );
    let key = dev.json(&["kv", "get", "config/port"]);
    assert_eq!((&key["version"], &key["value"]), (&Value::from(2), &Value::from("OTA5MA==")));
    // Any bytes, from standard input, and as they are on the way out.
    let bytes: Vec<u8> = (0..=255).collect();
    let mut child = rota(&dev.dir)
        .env("ROTA_SERVER", &dev.address)
        .args(["kv", "put", "bytes"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("rota runs");
    child.stdin.take().expect("a pipe").write_all(&bytes).expect("it reads");
    assert!(child.wait().expect("it ends").success());
    assert_eq!(dev.run(&["kv", "get", "bytes"]).stdout, bytes);
    let large = dev.dir.join("large");
    std::fs::write(&large, vec![0; (64 << 10) + 1]).expect("a file");
    let (code, error) = dev.fails(&["kv", "put", "large", "--file", "large"]);
    assert_eq!(code, Some(3), "{error}");
    dev.ok(&["kv", "put", "config/harmful", "a\u{1b}[31mb"]);
    let list = dev.ok(&["kv", "ls", "config/", "-o", "wide"]);
    assert!(list.contains("a\\u{1b}[31mb") && !list.contains('\u{1b}'), "{list}");
    assert_eq!(dev.ok(&["kv", "ls", "-q"]), "bytes\nconfig/harmful\nconfig/port\n");
    let changes = dev
        .ok(&["kv", "watch", "config/", "--prefix", "--since", "0", "--count", "3", "-o", "jsonl"]);
    let revisions: Vec<Value> = changes
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a change")["revision"].clone())
        .collect();
    assert_eq!(revisions, [1, 2, 4]);
    assert_eq!(dev.fails(&["kv", "delete", "config/port", "--revision", "1"]).0, Some(8));
    assert_eq!(dev.ok(&["kv", "delete", "config/port"]), "key config/port · deleted\n");
    assert_eq!(dev.fails(&["kv", "delete", "config/port"]).0, Some(4));
    assert_eq!(dev.fails(&["kv", "delete", "", "--prefix"]).0, Some(2));
    assert_eq!(dev.ok(&["kv", "delete", "", "--prefix", "--yes"]), "2 keys deleted\n");
}

#[test]
fn a_command_runs_while_a_lock_is_held_and_ends_when_it_is_lost() {
    let dev = Dev::start();
    let script = "echo $ROTA_LOCK $ROTA_FENCING_TOKEN; exit 7";
    let output = dev.run(&["lock", "run", "a", "--", "sh", "-c", script]);
    assert_eq!(
        (output.status.code(), String::from_utf8_lossy(&output.stdout)),
        (Some(7), "a 1\n".into())
    );
    let session = dev.ok(&["lock", "acquire", "a", "--value", "host", "-q"]);
    let run = ["lock", "run", "a", "--wait", "0s", "--busy-exit", "75", "--", "true"];
    assert_eq!(dev.fails(&run).0, Some(75));
    assert_eq!(dev.fails(&["lock", "run", "a", "--wait", "200ms", "--", "true"]).0, Some(125));
    assert_eq!(dev.json(&["lock", "show", "a"])["holder"]["value"], "host");
    dev.ok(&["lock", "release", "a", "--session", session.trim()]);
    assert_eq!(dev.fails(&["lock", "show", "a"]).0, Some(4));
    // Somebody ends the session of a holder: its command ends, and so does what it has started.
    let marker = dev.dir.join("still-there");
    let script = format!("trap '' TERM; (while :; do touch {}; sleep 0.1; done)", marker.display());
    let holder = rota(&dev.dir)
        .env("ROTA_SERVER", &dev.address)
        .args(["lock", "run", "b", "--ttl", "3s", "--", "sh", "-c", &script])
        .stderr(Stdio::piped())
        .spawn()
        .expect("rota runs");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !marker.exists() {
        assert!(Instant::now() < deadline, "it does not run");
        std::thread::sleep(Duration::from_millis(20));
    }
    let session = dev.json(&["lock", "show", "b"])["holder"]["session"].to_string();
    dev.ok(&["session", "close", &session]);
    let output = holder.wait_with_output().expect("it ends");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{error}");
    assert!(error.contains("rota explain lock-lost"), "{error}");
    std::fs::remove_file(&marker).expect("a file");
    std::thread::sleep(Duration::from_millis(400));
    assert!(!marker.exists(), "what the command has started goes on");
}
