//! Commands: a process group of its own, watched until nothing of it is left.
//!
//! The attempt is over when its first process is; what that process leaves behind is killed. A process is started on the cheap
//! path of the system (`posix_spawn`), and its pipes and its end are events of the reactor: no thread waits for it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rota_core::command::{AttemptEnd, FailureKind};
use rota_wire::worker::CommandAction;
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe::{Receiver, Sender};

use super::program::{self, Program};
use super::{Attempt, Ending, Host, StopOrder, Task, failed};
use crate::cgroup::{AttemptCgroup, Limits};
use crate::process;
use crate::spool::{Capture, Channel};

/// A program that ends sooner is not announced and its pipes are read once: everything else would cost more than it gains.
const ANNOUNCE: Duration = Duration::from_millis(5);
/// How long a pipe may stay open behind the end of its process before somebody is looked for who holds it.
const DRAIN: Duration = Duration::from_millis(50);
/// How long it may stay open in all.
const DRAIN_MAX: Duration = Duration::from_secs(1);
/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;

/// Runs a command to its end.
pub(crate) async fn run(host: &Arc<Host>, attempt: &mut Attempt, action: CommandAction) -> Ending {
    let grace = Duration::from_micros(action.grace_micros);
    // Whoever starts a program sleeps until the program has been loaded. A thread that has nothing else to do can afford that, and
    // several of them keep all cpus busy.
    let (host, task) = (Arc::clone(host), Arc::clone(&attempt.task));
    let starting = tokio::task::spawn_blocking(move || start(&host, &task, &action));
    match starting.await {
        Ok(Ok(mut running)) => {
            attempt.started();
            running.watch(attempt, grace).await
        }
        Ok(Err(message)) => Ending::of(failed(FailureKind::Start, message)),
        Err(error) => Ending::of(failed(FailureKind::Start, error.to_string())),
    }
}

/// Starts a command in its place. The error says what is wrong.
fn start(host: &Host, task: &Task, action: &CommandAction) -> Result<Running, String> {
    let program = program::prepare(host, task, action)?;
    let mut notes = Vec::new();
    let cgroup = limit(host, task, &mut notes);
    Running::start(program, action, program::mark(host, task), cgroup, notes)
}

/// Makes the cgroups of an attempt that asks for memory.
fn limit(host: &Host, task: &Task, notes: &mut Vec<String>) -> Option<AttemptCgroup> {
    if task.memory_bytes == 0 {
        return None;
    }
    let Some(cgroups) = host.cgroups() else {
        notes.push("limits not enforced: cgroups are switched off on this worker".into());
        return None;
    };
    if let Some(reason) = &cgroups.missing {
        notes.push(format!("limits not enforced: {reason}"));
    }
    let limits = Limits { cpu_millis: task.cpu_millis, memory_bytes: task.memory_bytes };
    match cgroups.create(task.id, limits) {
        Ok(cgroup) => Some(cgroup),
        Err(error) => {
            notes.push(format!("limits not enforced: can't make a cgroup: {error}"));
            None
        }
    }
}

/// A process that has not been waited for.
struct Running {
    child: Child,
    /// The first process and its group.
    root: i32,
    mark: String,
    handle: AsyncFd<OwnedFd>,
    stdin: Option<Input>,
    stdout: Output,
    stderr: Output,
    cgroup: Option<AttemptCgroup>,
    notes: Vec<String>,
    reaped: bool,
}

/// What is still to be written to a process.
struct Input {
    pipe: Sender,
    data: Vec<u8>,
    done: usize,
}

/// What a process still writes.
struct Output {
    pipe: Pipe,
    channel: Channel,
}

/// The reading end of a pipe. Does not block.
enum Pipe {
    /// Looked at when its process ends, or when that takes too long: until then the system keeps what is written.
    Unwatched(OwnedFd),
    /// An event of the reactor.
    Watched(Receiver),
    Closed,
}

/// Why the attempt will not have ended by itself.
enum Cause {
    Timeout,
    Stop(StopOrder),
}

impl Running {
    fn start(
        program: Program,
        action: &CommandAction,
        mark: String,
        cgroup: Option<AttemptCgroup>,
        mut notes: Vec<String>,
    ) -> Result<Self, String> {
        let Program { mut command, name, .. } = program;
        let describe = |error: &io::Error| format!("{name}: {}", program::describe(error));
        let prepared = prepare_pipes(&mut command, !action.stdin.is_empty());
        let (stdin, stdout, stderr) = prepared.map_err(|error| describe(&error))?;
        let child = process::spawn(&mut command).map_err(|error| describe(&error))?;
        drop(command); // it holds the other ends of the pipes
        let root = child.id().cast_signed();
        let unwatched = Unwatched(Some(child));
        let handle = Pid::from_raw(root).ok_or(io::ErrorKind::InvalidData.into());
        let handle = handle.and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?));
        let handle = handle.and_then(watch_handle).map_err(|error| describe(&error))?;
        let data = action.stdin.clone();
        if let Some(Err(error)) = cgroup.as_ref().map(|cgroup| cgroup.add(root.cast_unsigned())) {
            notes.push(format!("limits not enforced: can't enter a cgroup: {error}"));
        }
        Ok(Self {
            child: unwatched.watched(),
            root,
            mark,
            handle,
            stdin: stdin.map(|pipe| Input { pipe, data, done: 0 }),
            stdout: Output { pipe: Pipe::Unwatched(stdout), channel: Channel::Stdout },
            stderr: Output { pipe: Pipe::Unwatched(stderr), channel: Channel::Stderr },
            cgroup,
            notes,
            reaped: false,
        })
    }

    async fn watch(&mut self, attempt: &mut Attempt, grace: Duration) -> Ending {
        let cause = self.until_exit(attempt, grace).await;
        self.sweep(attempt, cause.is_some()).await;
        let cpu_micros = process::stat(self.root).map_or(0, |stat| ticks_to_micros(stat.cpu_ticks));
        let usage = self.cgroup.as_ref().map(AttemptCgroup::usage).unwrap_or_default();
        let end = match (self.reap(), cause) {
            (_, Some(Cause::Timeout)) => failed(FailureKind::Timeout, ""),
            (_, Some(Cause::Stop(order))) => order.end(),
            (Err(error), None) => {
                failed(FailureKind::Start, format!("the end of the process was missed: {error}"))
            }
            (Ok(status), None) => judge(status, usage.killed_for_memory, attempt.task.memory_bytes),
        };
        let notes = std::mem::take(&mut self.notes);
        Ending { end, cpu_micros, memory_peak_bytes: usage.memory_peak_bytes, notes }
    }

    /// Feeds, listens and obeys until the first process has ended.
    async fn until_exit(&mut self, attempt: &mut Attempt, grace: Duration) -> Option<Cause> {
        let mut cause = None;
        let mut kill_at = None;
        let mut announce_at = Some(Instant::now() + ANNOUNCE);
        let timeout_at = attempt.timeout.map(|timeout| Instant::now() + timeout);
        loop {
            let due = if cause.is_none() { timeout_at } else { kill_at };
            tokio::select! {
                biased;
                order = attempt.stop.requested() => {
                    if cause.is_none() {
                        self.signal(Signal::TERM, order.kill_at).await;
                    }
                    kill_at = Some(kill_at.map_or(order.kill_at, |at: Instant| at.min(order.kill_at)));
                    cause.get_or_insert(Cause::Stop(order));
                }
                () = sleep_until(due) => {
                    if cause.is_none() {
                        let at = Instant::now() + grace;
                        self.signal(Signal::TERM, at).await;
                        kill_at = Some(at);
                        cause = Some(Cause::Timeout);
                    } else {
                        self.kill_everything().await;
                        kill_at = None;
                    }
                }
                () = self.stdout.ready() => self.stdout.pump(&attempt.capture),
                () = self.stderr.ready() => self.stderr.pump(&attempt.capture),
                () = ready_for_input(self.stdin.as_ref()) => self.feed(),
                _ = self.handle.readable() => return cause,
                () = sleep_until(announce_at) => {
                    attempt.announce();
                    announce_at = None;
                    self.stdout.watch();
                    self.stderr.watch();
                }
            }
        }
    }

    /// Signals everything, unless the kill is due anyway.
    async fn signal(&self, signal: Signal, kill_at: Instant) {
        if kill_at > Instant::now() {
            let (root, mark) = (self.root, self.mark.clone());
            let send = move || process::signal(root, &mark, signal, true);
            drop(tokio::task::spawn_blocking(send).await);
        }
    }

    /// Kills everything that belongs to the attempt, and looks again until nothing is left.
    async fn kill_everything(&mut self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        for _ in 0..100 {
            let (root, mark) = (self.root, self.mark.clone());
            let look = move || process::signal(root, &mark, Signal::KILL, true);
            if tokio::task::spawn_blocking(look).await.is_ok_and(|found| found == 0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.notes.push("some processes could not be killed".into());
    }

    /// Ends what the first process left behind and reads what is left in the pipes.
    async fn sweep(&mut self, attempt: &Attempt, thoroughly: bool) {
        if thoroughly || self.cgroup.is_some() {
            self.kill_everything().await;
        } else if let Some(group) = Pid::from_raw(self.root) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let ended = Instant::now();
        self.drain(&attempt.capture, ended + DRAIN).await;
        if self.stdout.is_open() || self.stderr.is_open() {
            self.kill_everything().await;
            self.drain(&attempt.capture, ended + DRAIN_MAX).await;
        }
        if self.stdout.is_open() || self.stderr.is_open() {
            self.notes.push("a process that could not be found kept the output open".into());
        }
    }

    /// Reads until both pipes are closed, or until `deadline`.
    async fn drain(&mut self, capture: &Capture, deadline: Instant) {
        let mut late = pin!(sleep_until(Some(deadline)));
        for output in [&mut self.stdout, &mut self.stderr] {
            output.pump(capture);
            if output.is_open() {
                output.watch();
            }
        }
        while self.stdout.is_open() || self.stderr.is_open() {
            tokio::select! {
                biased;
                () = self.stdout.ready() => self.stdout.pump(capture),
                () = self.stderr.ready() => self.stderr.pump(capture),
                () = &mut late => return,
            }
        }
    }

    fn feed(&mut self) {
        let Some(Input { pipe, data, done }) = &mut self.stdin else { return };
        match pipe.try_write(data.get(*done..).unwrap_or_default()) {
            Ok(written) => *done += written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => *done = data.len(), // it does not want the rest
        }
        if *done >= data.len() {
            self.stdin = None;
        }
    }

    fn reap(&mut self) -> io::Result<ExitStatus> {
        self.reaped = true;
        let status = self.child.wait();
        process::forget(self.child.id());
        status
    }
}

impl Drop for Running {
    /// Whoever stops watching leaves nothing running.
    fn drop(&mut self) {
        if !self.reaped {
            process::signal(self.root, &self.mark, Signal::KILL, true);
            drop(self.reap());
        }
    }
}

/// A child that is killed unless somebody comes to watch it.
struct Unwatched(Option<Child>);

impl Unwatched {
    fn watched(mut self) -> Child {
        self.0.take().expect("taken only here")
    }
}

impl Drop for Unwatched {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            drop(child.kill());
            drop(child.wait());
            process::forget(child.id());
        }
    }
}

impl Output {
    fn is_open(&self) -> bool {
        !matches!(self.pipe, Pipe::Closed)
    }

    /// Makes the pipe an event of the reactor.
    fn watch(&mut self) {
        self.pipe = match std::mem::replace(&mut self.pipe, Pipe::Closed) {
            Pipe::Unwatched(pipe) => {
                Receiver::from_owned_fd_unchecked(pipe).map_or(Pipe::Closed, Pipe::Watched)
            }
            other => other,
        };
    }

    /// Waits until there is something to read; for ever if nobody watches the pipe.
    async fn ready(&self) {
        match &self.pipe {
            Pipe::Watched(pipe) => drop(pipe.readable().await),
            Pipe::Unwatched(_) | Pipe::Closed => std::future::pending().await,
        }
    }

    /// Takes what is there, but not so much that nobody else has a turn.
    fn pump(&mut self, capture: &Capture) {
        thread_local! {
            static BUFFER: std::cell::RefCell<Vec<u8>> = std::cell::RefCell::new(vec![0; READ_BYTES]);
        }
        BUFFER.with_borrow_mut(|buffer| {
            for _ in 0..16 {
                let read = match &self.pipe {
                    Pipe::Unwatched(pipe) => {
                        rustix::io::read(pipe, &mut *buffer).map_err(io::Error::from)
                    }
                    Pipe::Watched(pipe) => pipe.try_read(buffer),
                    Pipe::Closed => return,
                };
                match read {
                    Ok(length @ 1..) => {
                        capture.write(self.channel, buffer.get(..length).unwrap_or_default());
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                    Ok(0) | Err(_) => self.pipe = Pipe::Closed,
                }
            }
        });
    }
}

/// Connects a command that is about to be started: its input if it gets any, and its two outputs.
fn prepare_pipes(
    command: &mut std::process::Command,
    input: bool,
) -> io::Result<(Option<Sender>, OwnedFd, OwnedFd)> {
    let mut stdin = None;
    if input {
        let (theirs, ours) = io::pipe()?;
        command.stdin(Stdio::from(theirs));
        stdin = Some(Sender::from_owned_fd(ours.into())?);
    } else {
        command.stdin(Stdio::null());
    }
    let (stdout, theirs) = io::pipe()?;
    command.stdout(Stdio::from(theirs));
    let (stderr, theirs) = io::pipe()?;
    command.stderr(Stdio::from(theirs));
    for pipe in [&stdout, &stderr] {
        rustix::fs::fcntl_setfl(pipe, OFlags::NONBLOCK)?;
    }
    Ok((stdin, stdout.into(), stderr.into()))
}

/// Makes the end of a process an event of the reactor.
#[expect(
    deprecated,
    reason = "an owned descriptor stays the same until it is closed, which is all that its unsafe successor asks for"
)]
fn watch_handle(handle: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(handle)
}

async fn ready_for_input(input: Option<&Input>) {
    match input {
        Some(input) => drop(input.pipe.writable().await),
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn judge(status: ExitStatus, killed_for_memory: bool, memory_bytes: u64) -> AttemptEnd {
    let message = if killed_for_memory {
        format!("used more than its {memory_bytes} bytes of memory")
    } else {
        String::new()
    };
    match (status.code(), status.signal()) {
        (Some(0), _) => AttemptEnd::Succeeded,
        (Some(code), _) => failed(FailureKind::Exit(code), message),
        (None, signal) => failed(FailureKind::Signal(signal.unwrap_or(0)), message),
    }
}

fn ticks_to_micros(ticks: u64) -> u64 {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    ticks.saturating_mul(1_000_000) / per_second
}
