//! A shell that types what pages say.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

const ROTA: &str = env!("CARGO_BIN_EXE_rota");
/// The port that pages speak of.
const PORT: &str = "7600";

/// One shell in a directory of its own, until dropped.
pub(crate) struct Session {
    shell: Child,
    input: ChildStdin,
    answers: Receiver<String>,
    deadline: Instant,
    /// Where servers listen instead.
    port: String,
    backgrounds: usize,
    dir: tempfile::TempDir,
}

impl Session {
    pub(crate) fn start(deadline: Instant) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let port = free_port();
        for name in ["bin", "home", "work"] {
            std::fs::create_dir(dir.path().join(name)).expect("a directory is made");
        }
        wrap(&dir.path().join("bin/rota"), &port);
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        for name in [
            "ROTA_SERVER",
            "ROTA_CONTEXT",
            "ROTA_OUTPUT",
            "ROTA_TIMEOUT",
            "ROTA_CONFIG",
            "ROTA_TOKEN",
            "ROTA_CA",
            "ROTA_JOIN",
            "CLICOLOR_FORCE",
        ] {
            command.env_remove(name);
        }
        command
            .args(["--noprofile", "--norc"])
            .env("PATH", format!("{}:{path}", dir.path().join("bin").display()))
            .env("HOME", dir.path().join("home"))
            .env_remove("XDG_CONFIG_HOME")
            .env("NO_COLOR", "1")
            .env("LC_ALL", "C.UTF-8")
            .current_dir(dir.path().join("work"))
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut shell = command.spawn().expect("bash starts");
        let input = shell.stdin.take().expect("standard input is piped");
        let output = shell.stdout.take().expect("standard output is piped");
        let (send, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                send.send(line).ok();
            }
        });
        copy_examples(&dir.path().join("work"));
        Self { shell, input, answers, deadline, port, backgrounds: 0, dir }
    }

    /// Sends a line to the shell and waits for the answer that ends it.
    fn ask(&mut self, line: &str, what: &str) -> String {
        writeln!(self.input, "{line}").expect("bash reads");
        let left = self.deadline.saturating_duration_since(Instant::now());
        self.answers.recv_timeout(left).unwrap_or_else(|_| panic!("{what}: the page took too long"))
    }

    /// Runs a command. Returns its exit code and what it printed.
    pub(crate) fn run(&mut self, command: &str, place: &str) -> (i32, String) {
        let file = self.dir.path().join("output");
        let command = command.replace(PORT, &self.port);
        let line = format!("{{ {command}\n}} > {} 2>&1 < /dev/null\necho $?", file.display());
        let answer = self.ask(&line, place);
        let output = std::fs::read(&file).expect("the output is read");
        let output = String::from_utf8_lossy(&output)
            .replace(&format!(":{}", self.port), &format!(":{PORT}"));
        // What the shell says of processes that were killed depends on when it notices.
        let told = output
            .lines()
            .filter(|line| !(line.starts_with("bash: line") && line.contains("Killed")));
        (answer.parse().expect("an exit code"), told.map(|line| format!("{line}\n")).collect())
    }

    /// Writes a file into the shell's current directory.
    pub(crate) fn write(&mut self, name: &str, text: &str) {
        let directory = self.ask("pwd", name);
        std::fs::write(Path::new(&directory).join(name), text.replace(PORT, &self.port))
            .expect("the file is written");
    }

    /// Starts a command that goes on, and waits until it has said something.
    pub(crate) fn background(&mut self, command: &str, place: &str) {
        self.backgrounds += 1;
        let file = self.dir.path().join(format!("background-{}", self.backgrounds));
        let command = command.replace(PORT, &self.port);
        let pids = self.dir.path().join("pids");
        let line = format!(
            "( exec {command} ) > {} 2>&1 < /dev/null & echo $! >> {}\necho started",
            file.display(),
            pids.display()
        );
        self.ask(&line, place);
        while !std::fs::read_to_string(&file).is_ok_and(|text| text.contains('\n')) {
            assert!(Instant::now() < self.deadline, "{place}: {command} says nothing");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops what was started in the background, and waits until it is gone.
    pub(crate) fn interrupt(&mut self) {
        let pids = self.dir.path().join("pids");
        let line =
            format!("kill $(cat {0}); wait $(cat {0}); rm {0}; echo stopped", pids.display());
        self.ask(&line, "interrupt");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let group = Pid::from_child(&self.shell);
        let deadline = Instant::now() + Duration::from_secs(5);
        // Servers and workers drain at the first signal and end at the second.
        while Instant::now() < deadline && test_kill_process_group(group).is_ok() {
            kill_process_group(group, Signal::TERM).ok();
            self.shell.try_wait().ok();
            std::thread::sleep(Duration::from_millis(50));
        }
        kill_process_group(group, Signal::KILL).ok();
        self.shell.wait().ok();
    }
}

/// A port that nobody listens on.
fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it has an address").port().to_string()
}

/// A `rota` that lets servers listen at `port` unless told otherwise.
fn wrap(path: &Path, port: &str) {
    let script = format!(
        "#!/bin/sh\ncase \"$1\" in dev | server)\n  case \"$*\" in *--listen*) ;; *) set -- \"$@\" --listen 127.0.0.1:{port} ;; esac ;;\n\
         esac\nexec '{ROTA}' \"$@\"\n"
    );
    std::fs::write(path, script).expect("the script is written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("it can be run");
}

/// Pages speak of the examples as seen from the checkout.
fn copy_examples(to: &Path) {
    let from = super::root().join("examples");
    let to = to.join("examples");
    std::fs::create_dir(&to).expect("a directory is made");
    for entry in std::fs::read_dir(from).expect("the examples are listed") {
        let entry = entry.expect("the entry is read");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("the example is copied");
    }
}
