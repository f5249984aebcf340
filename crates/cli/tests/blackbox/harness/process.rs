//! A child process that never outlives its test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::until;

pub(crate) use rustix::process::Signal;

/// A running `rota`.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    /// Whether it was reaped: its id may belong to somebody else by now.
    over: Option<ExitStatus>,
}

impl Process {
    /// Starts `rota` with these arguments. What it prints is added to the file `log`.
    pub(crate) fn start(arguments: &[String], log: &Path) -> Self {
        Self::start_in(&[], arguments, log)
    }

    /// Starts `rota` with these arguments and variables of the environment.
    pub(crate) fn start_in(
        environment: &[(&str, String)],
        arguments: &[String],
        log: &Path,
    ) -> Self {
        let open = || {
            let file = File::options().append(true).create(true).open(log);
            file.expect("the log can be opened")
        };
        let child = Command::new(env!("CARGO_BIN_EXE_rota"))
            .args(arguments)
            .env_remove("ROTA_SERVER")
            .env("NO_COLOR", "1")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(open())
            .stderr(open())
            .spawn()
            .expect("rota starts");
        Self { child, log: log.to_path_buf(), over: None }
    }

    /// Sends a signal, unless it is over.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.exited().is_none() {
            let pid = rustix::process::Pid::from_child(&self.child);
            rustix::process::kill_process(pid, signal)
                .expect("a child that was not reaped takes signals");
        }
    }

    /// Kills it at once and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        if self.over.is_none() {
            self.child.kill().expect("a child that was not reaped can be killed");
            self.over = Some(self.child.wait().expect("a child can be waited for"));
        }
    }

    /// How it ended, if it has.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        if self.over.is_none() {
            self.over = self.child.try_wait().expect("a child can be waited for");
        }
        self.over
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(&mut self, limit: Duration) -> ExitStatus {
        let log = self.log.clone();
        let what = format!("the end of the process that writes {}", log.display());
        until(&what, limit, || self.exited())
    }

    /// Everything that it and its predecessors printed.
    pub(crate) fn printed(&self) -> String {
        let bytes = std::fs::read(&self.log).expect("the log can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Fails the test if it has ended by itself.
    pub(crate) fn must_run(&mut self) {
        if let Some(status) = self.exited() {
            panic!("rota ended by itself with {status}:\n{}", self.printed());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A stopped process dies of this, too.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
        if std::thread::panicking() {
            let printed = self.printed();
            let lines: Vec<&str> = printed.lines().collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            eprintln!("--- the end of {}\n{}", self.log.display(), tail.join("\n"));
        }
    }
}
