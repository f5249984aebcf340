//! Commands: a process group of its own, watched until nothing of it is left.
//!
//! The attempt is over when its first process is; what that process leaves behind is killed. Only if it was asked to end, what it
//! started has the rest of the grace, too. A process is started on the cheap
//! path of the system (`posix_spawn`). The thread that starts it sleeps until the program has been loaded, and stays for the few
//! milliseconds in which most short programs end: such a program costs no event. What takes longer gives the thread back, and its
//! pipes and its end become events of the reactor.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rota_core::command::{AttemptEnd, FailureKind};
use rota_types::Timestamp;
use rota_wire::worker::CommandAction;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

use super::pipes::Pipes;
use super::program::{self, Program};
use super::{Attempt, Ending, Host, StopOrder, StopSignal, Task, failed};
use crate::cgroup::{AttemptCgroup, Limits};
use crate::spool::Capture;
use crate::{clock, process};

/// A program that ends sooner is waited for where it was started, is not announced, and its pipes are read once: everything else
/// would cost more than it gains.
const ANNOUNCE: Duration = Duration::from_millis(5);
/// How long a pipe may stay open behind the end of its process before somebody is looked for who holds it.
const DRAIN: Duration = Duration::from_millis(50);
/// How long it may stay open in all.
const DRAIN_MAX: Duration = Duration::from_secs(1);
/// How soon it is looked again whether anything of an attempt that was asked to end is left; the pause doubles up to the longest.
const LOOK: Duration = Duration::from_millis(10);
const LOOK_MAX: Duration = Duration::from_millis(500);

/// Runs a command to its end.
pub(crate) async fn run(host: &Arc<Host>, attempt: &mut Attempt, action: CommandAction) -> Ending {
    let grace = Duration::from_micros(action.grace_micros);
    let starting = {
        let (host, task) = (Arc::clone(host), Arc::clone(&attempt.task));
        let (capture, stop) = (Arc::clone(&attempt.capture), attempt.stop.clone());
        let patience = attempt.timeout.map_or(ANNOUNCE, |timeout| timeout.min(ANNOUNCE));
        host.runtime.clone().spawn_blocking(move || {
            let running = start(&host, &task, &action, &stop)?;
            let at = clock::wall();
            Ok((at, running.linger(&host, &task, &capture, patience)))
        })
    };
    let started: Result<(Timestamp, Progress), AttemptEnd> =
        starting.await.unwrap_or_else(|error| Err(not_started(error.to_string())));
    match started {
        Ok((at, Progress::Over(ending))) => {
            attempt.started(at);
            ending
        }
        Ok((at, Progress::Running(mut running))) => {
            attempt.started(at);
            let mut attempt = attempt.clone();
            let at = Arc::clone(host);
            let watching = async move { running.watch(&at, &mut attempt, grace).await };
            let watched = Elsewhere(host.runtime.spawn(watching)).ended().await;
            watched.unwrap_or_else(|message| Ending::of(not_started(message)))
        }
        Err(end) => Ending::of(end),
    }
}

fn not_started(message: String) -> AttemptEnd {
    failed(FailureKind::Start, message)
}

/// A future on another runtime that ends with whoever waits for it.
struct Elsewhere<T>(JoinHandle<T>);

impl<T> Elsewhere<T> {
    async fn ended(&mut self) -> Result<T, String> {
        (&mut self.0).await.map_err(|_| "a bug in the worker ended this attempt".to_owned())
    }
}

impl<T> Drop for Elsewhere<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts a command in its place, unless it is to stop already.
fn start(
    host: &Host,
    task: &Task,
    action: &CommandAction,
    stop: &StopSignal,
) -> Result<Running, AttemptEnd> {
    let program = program::prepare(host, task, action).map_err(not_started)?;
    let mut notes = Vec::new();
    let cgroup = limit(host, task, &mut notes);
    // It may have waited for its turn for long, and neither a cancel nor the lease waits.
    if let Some(order) = stop.order() {
        return Err(order.end());
    }
    let mark = program::mark(host, task);
    Running::start(program, action, mark, cgroup, notes).map_err(not_started)
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
    /// Tells the end of the first process; gone while somebody listens to it.
    handle: Option<OwnedFd>,
    pipes: Pipes,
    cgroup: Option<AttemptCgroup>,
    notes: Vec<String>,
    begun: Instant,
    reaped: bool,
}

/// How far a process has come.
enum Progress {
    Over(Ending),
    Running(Box<Running>),
}

/// An attempt that was asked to end.
struct Asked {
    cause: Cause,
    /// When it is killed; `None` once it was.
    kill_at: Option<Instant>,
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
        let pipes =
            Pipes::connect(&mut command, &action.stdin).map_err(|error| describe(&error))?;
        let begun = Instant::now();
        let child = process::spawn(&mut command).map_err(|error| describe(&error))?;
        drop(command); // it holds the other ends of the pipes
        let root = child.id().cast_signed();
        let unwatched = Unwatched(Some(child));
        let handle = Pid::from_raw(root).ok_or(io::ErrorKind::InvalidData.into());
        let handle = handle.and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?));
        let handle = handle.map_err(|error| describe(&error))?;
        if let Some(Err(error)) = cgroup.as_ref().map(|cgroup| cgroup.add(root.cast_unsigned())) {
            notes.push(format!("limits not enforced: can't enter a cgroup: {error}"));
        }
        Ok(Self {
            child: unwatched.watched(),
            root,
            mark,
            handle: Some(handle),
            pipes,
            cgroup,
            notes,
            begun,
            reaped: false,
        })
    }

    /// Waits a moment for a program that needs nothing meanwhile. Blocking.
    fn linger(
        mut self,
        host: &Host,
        task: &Task,
        capture: &Capture,
        patience: Duration,
    ) -> Progress {
        let simple = self.pipes.stdin.is_none() && self.cgroup.is_none();
        if simple && self.ends_within(patience) {
            process::signal_group(self.root, Signal::KILL); // what it left behind
            self.pipes.pump(capture);
            if !self.pipes.are_open() {
                return Progress::Over(self.conclude(host, task, None));
            }
        }
        Progress::Running(Box::new(self))
    }

    fn ends_within(&self, patience: Duration) -> bool {
        let Some(handle) = &self.handle else { return false };
        let timeout = Timespec::try_from(patience).ok();
        poll(&mut [PollFd::new(handle, PollFlags::IN)], timeout.as_ref())
            .is_ok_and(|ready| ready > 0)
    }

    async fn watch(&mut self, host: &Host, attempt: &mut Attempt, grace: Duration) -> Ending {
        let end = self.handle.take().ok_or_else(|| io::ErrorKind::InvalidInput.into());
        let asked = match end.and_then(watch_handle) {
            Ok(end) => self.until_exit(&end, attempt, grace).await,
            Err(error) => {
                let message = format!("the process can't be watched: {error}");
                return Ending::of(failed(FailureKind::Start, message));
            }
        };
        if let Some(kill_at) = asked.as_ref().and_then(|asked| asked.kill_at) {
            self.until_empty(attempt, kill_at).await;
        }
        self.sweep(attempt, asked.is_some()).await;
        self.conclude(host, &attempt.task, asked.map(|asked| asked.cause))
    }

    /// Reads what is known of a process that has ended, and lets it go.
    fn conclude(&mut self, host: &Host, task: &Task, cause: Option<Cause>) -> Ending {
        let cpu_micros = self.cpu_micros(host);
        let usage = self.cgroup.as_ref().map(AttemptCgroup::usage).unwrap_or_default();
        let end = match (self.reap(), cause) {
            (_, Some(Cause::Timeout)) => failed(FailureKind::Timeout, ""),
            (_, Some(Cause::Stop(order))) => order.end(),
            (Err(error), None) => {
                failed(FailureKind::Start, format!("the end of the process was missed: {error}"))
            }
            (Ok(status), None) => judge(status, usage.killed_for_memory, task.memory_bytes),
        };
        let notes = std::mem::take(&mut self.notes);
        Ending { end, cpu_micros, memory_peak_bytes: usage.memory_peak_bytes, notes }
    }

    /// The cpu time that was used, in whole ticks. What was over before all cpus together could have ticked once is not asked.
    fn cpu_micros(&self, host: &Host) -> u64 {
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        let most = self.begun.elapsed().saturating_mul(host.cpus);
        if most < Duration::from_secs(1) / u32::try_from(per_second).unwrap_or(u32::MAX) {
            return 0;
        }
        let ticks = process::stat(self.root).map_or(0, |stat| stat.cpu_ticks);
        ticks.saturating_mul(1_000_000) / per_second
    }

    /// Feeds, listens and obeys until the first process has ended.
    async fn until_exit(
        &mut self,
        end: &AsyncFd<OwnedFd>,
        attempt: &mut Attempt,
        grace: Duration,
    ) -> Option<Asked> {
        let mut asked: Option<Asked> = None;
        let mut announce_at = Some(self.begun + ANNOUNCE);
        let timeout_at = attempt.timeout.map(|timeout| self.begun + timeout);
        loop {
            let due = asked.as_ref().map_or(timeout_at, |asked| asked.kill_at);
            tokio::select! {
                biased;
                order = attempt.stop.requested() => match &mut asked {
                    None => asked = Some(self.ask(Cause::Stop(order), order.kill_at).await),
                    Some(Asked { kill_at, .. }) => {
                        *kill_at = Some(kill_at.map_or(order.kill_at, |at| at.min(order.kill_at)));
                    }
                },
                () = sleep_until(due) => match &mut asked {
                    None => asked = Some(self.ask(Cause::Timeout, Instant::now() + grace).await),
                    Some(asked) => {
                        self.kill_everything().await;
                        asked.kill_at = None;
                    }
                },
                _ = end.readable() => return asked,
                () = self.pipes.stdout.ready() => self.pipes.stdout.pump(&attempt.capture),
                () = self.pipes.stderr.ready() => self.pipes.stderr.pump(&attempt.capture),
                () = Pipes::ready_for_input(self.pipes.stdin.as_ref()) => self.pipes.feed(),
                () = sleep_until(announce_at) => {
                    attempt.announce();
                    announce_at = None;
                    self.pipes.watch(&mut self.notes);
                }
            }
        }
    }

    /// Asks everything to end, unless the kill is due anyway.
    async fn ask(&self, cause: Cause, kill_at: Instant) -> Asked {
        if kill_at > Instant::now() {
            process::signal_group(self.root, Signal::TERM);
            let (root, mark) = (self.root, self.mark.clone());
            let send = move || process::signal_others(root, &mark, Signal::TERM);
            drop(tokio::task::spawn_blocking(send).await);
        }
        Asked { cause, kill_at: Some(kill_at) }
    }

    /// Leaves what the first process started the rest of the grace. A shell is gone at once; the program that it runs may still have
    /// work to save.
    async fn until_empty(&mut self, attempt: &mut Attempt, mut kill_at: Instant) {
        let mut pause = LOOK;
        self.pipes.watch(&mut self.notes);
        while kill_at > Instant::now() && self.is_anything_left().await {
            let again_at = Instant::now() + pause;
            pause = (pause * 2).min(LOOK_MAX);
            loop {
                tokio::select! {
                    biased;
                    order = attempt.stop.requested() => kill_at = kill_at.min(order.kill_at),
                    () = sleep_until(Some(again_at.min(kill_at))) => break,
                    () = self.pipes.stdout.ready() => self.pipes.stdout.pump(&attempt.capture),
                    () = self.pipes.stderr.ready() => self.pipes.stderr.pump(&attempt.capture),
                }
            }
        }
    }

    async fn is_anything_left(&self) -> bool {
        let (root, mark) = (self.root, self.mark.clone());
        let look = move || !process::members(root, &mark).is_empty();
        tokio::task::spawn_blocking(look).await.unwrap_or(false)
    }

    /// Kills everything that belongs to the attempt, and looks again until nothing is left.
    async fn kill_everything(&mut self) {
        process::signal_group(self.root, Signal::KILL);
        if let Some(kill) = self.cgroup.as_ref().map(AttemptCgroup::killer) {
            drop(tokio::task::spawn_blocking(kill).await);
        }
        for _ in 0..100 {
            let (root, mark) = (self.root, self.mark.clone());
            let look = move || process::kill(root, &mark);
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
        } else {
            process::signal_group(self.root, Signal::KILL);
        }
        let ended = Instant::now();
        self.drain(&attempt.capture, ended + DRAIN).await;
        if self.pipes.are_open() {
            self.kill_everything().await;
            self.drain(&attempt.capture, ended + DRAIN_MAX).await;
        }
        if self.pipes.are_open() {
            self.notes.push("a process that could not be found kept the output open".into());
        }
    }

    /// Reads until both pipes are closed, or until `deadline`.
    async fn drain(&mut self, capture: &Capture, deadline: Instant) {
        let mut late = pin!(sleep_until(Some(deadline)));
        let pipes = &mut self.pipes;
        pipes.pump(capture);
        pipes.watch(&mut self.notes);
        while pipes.are_open() {
            tokio::select! {
                biased;
                () = &mut late => return,
                () = pipes.stdout.ready() => pipes.stdout.pump(capture),
                () = pipes.stderr.ready() => pipes.stderr.pump(capture),
            }
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
            process::kill(self.root, &self.mark);
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

/// Makes the end of a process an event of the reactor.
#[expect(
    deprecated,
    reason = "an owned descriptor stays the same until it is closed, which is all that its unsafe successor asks for"
)]
fn watch_handle(handle: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(handle)
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
