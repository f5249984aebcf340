//! `rota lock run`: a command that runs while a lock is held.

use std::io::{self, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration as Time;

use clap::Args;
use rota_api::{Acquired, ChangeKind, Duration, ErrorCode, WatchQuery, exit};
use rota_client::{Client, Kept};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::{App, lock};
use crate::complete;
use crate::screen::clean;
use crate::trouble::{Result, Trouble};

/// `rota lock run`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota lock run nightly-report -- ./report.sh                 waits until the lock is free
  rota lock run nightly-report --wait 0s -- ./report.sh       only if it is free now
  rota lock run leader/web --value \"$(hostname)\" -- ./serve   leader election: others see who leads

The command sees ROTA_LOCK, ROTA_FENCING_TOKEN and ROTA_SESSION. The session is renewed while it runs. If the lock
is lost, the command gets SIGTERM and, a sixth of --ttl later, SIGKILL. The exit code is the command's own; trouble
of rota's own, a lost lock included, is 125.")]
pub(crate) struct RunArgs {
    /// The lock's name
    #[arg(value_name = "LOCK", add = complete::locks())]
    lock: String,
    /// How long the lock stays taken when this machine is lost, from 1s to 24h
    #[arg(long, value_name = "TIME", default_value = "15s")]
    ttl: Duration,
    /// How long to wait for the lock [default: as long as it takes]
    #[arg(long, value_name = "TIME")]
    wait: Option<Duration>,
    /// The exit code if the lock is not free in time
    #[arg(long, value_name = "CODE", default_value_t = exit::TROUBLE)]
    busy_exit: u8,
    /// What others see of the holder, such as an address
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    value: String,
    /// The command
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

/// How a command came to its end.
enum End {
    Exited(ExitStatus),
    /// The lock was lost; the command has ended since.
    Lost(String),
}

/// Runs the command. Returns its exit code.
pub(crate) async fn run(app: &App, args: RunArgs) -> Result<u8> {
    let own = |trouble: Trouble| Trouble { exit: Some(exit::TROUBLE), ..trouble };
    let client = app.client().map_err(own)?;
    let ttl = Time::from(args.ttl);
    let mut kept = client.keep_session(ttl).await.map_err(|error| own(error.into()))?;
    let taken = tokio::select! {
        taken = take(&client, &args, kept.id()) => taken,
        error = kept.lost() => Err(own(error.into())),
        () = asked_to_stop() => {
            Err(Trouble::new(ErrorCode::Interrupted, "interrupted while waiting for the lock"))
        }
    };
    let acquired = match taken {
        Ok(acquired) => acquired,
        Err(trouble) => {
            kept.close().await.ok();
            return Err(trouble);
        }
    };
    let end = guarded(&client, &args, &acquired, &mut kept).await;
    // Whoever waits gets it at once; else it is free when the session ends.
    if let Err(error) = kept.close().await
        && !error.is(ErrorCode::SessionNotFound)
    {
        app.screen().remark(&format!("the lock is given back within {}: {error}", args.ttl));
    }
    match end? {
        End::Exited(status) => Ok(code(status)),
        End::Lost(why) => {
            let message =
                format!("the lock {:?} was lost ({why}); the command was ended", args.lock);
            Err(own(Trouble::new(ErrorCode::LockLost, message)))
        }
    }
}

async fn take(client: &Client, args: &RunArgs, session: u64) -> Result<Acquired> {
    let claim = (session, args.value.as_str());
    let taken = match args.wait {
        // Without an end, there is nothing to be late for.
        None => match client.await_lock(&args.lock, claim, None).await {
            Ok(Some(acquired)) => Ok(acquired),
            Ok(None) => Err(Trouble::new(ErrorCode::LockHeld, "the lock was not free")),
            Err(error) => Err(error.into()),
        },
        Some(wait) => {
            let wait = (wait.0.0 > 0).then_some(wait);
            lock::take(client, &args.lock, claim, wait).await
        }
    };
    taken.map_err(|trouble| {
        let busy = trouble.code == ErrorCode::LockHeld;
        Trouble { exit: Some(if busy { args.busy_exit } else { exit::TROUBLE }), ..trouble }
    })
}

/// Runs the command until it ends, or until the lock is lost.
async fn guarded(
    client: &Client,
    args: &RunArgs,
    acquired: &Acquired,
    kept: &mut Kept,
) -> Result<End> {
    let (mut child, target) = start(args, acquired)?;
    let why = tokio::select! {
        ended = child.wait() => return ended.map(End::Exited).map_err(failed),
        error = kept.lost() => error.to_string(),
        why = passed_on(client, acquired) => why,
        error = relay(target) => error.to_string(),
    };
    target.signal(Signal::TERM);
    if tokio::time::timeout(Time::from(args.ttl) / 6, child.wait()).await.is_err() {
        tracing::warn!("the command has not ended by itself and is killed");
    }
    // What it has started in its group ends as well.
    target.signal(Signal::KILL);
    child.wait().await.map_err(failed)?;
    Ok(End::Lost(clean(&why)))
}

fn failed(error: io::Error) -> Trouble {
    let trouble = Trouble::new(ErrorCode::StartFailed, format!("waiting for the command: {error}"));
    Trouble { exit: Some(exit::TROUBLE), ..trouble }
}

/// Returns when somebody else holds the lock, or nobody.
async fn passed_on(client: &Client, acquired: &Acquired) -> String {
    let since = Some(acquired.index.to_string());
    let lock = Some(acquired.lock.clone());
    let query = WatchQuery { lock, since, ..WatchQuery::default() };
    let Ok(mut changes) = client.watch(&query).await else {
        // The session tells as well, if later.
        return std::future::pending().await;
    };
    loop {
        match changes.next().await {
            Ok(change) if Some(change.revision) == acquired.token => {}
            Ok(change) if change.kind == ChangeKind::Free => return "it was given back".to_owned(),
            Ok(_) => return "another session holds it".to_owned(),
            Err(error) if error.is(ErrorCode::EventsCompacted) => {
                match client.lock(&acquired.lock).await {
                    Ok(lock) if Some(lock.token) == acquired.token => {}
                    Ok(_) => return "another session holds it".to_owned(),
                    Err(error) if error.is(ErrorCode::LockNotHeld) => {
                        return "it was given back".to_owned();
                    }
                    Err(_) => {}
                }
            }
            Err(_) => return std::future::pending().await,
        }
    }
}

/// Whom signals are for.
#[derive(Clone, Copy, Debug)]
struct Target {
    pid: Pid,
    /// Whether the command leads a process group of its own. At a terminal it does not: it could not read from it.
    group: bool,
}

impl Target {
    fn signal(self, signal: Signal) {
        let sent = if self.group {
            kill_process_group(self.pid, signal)
        } else {
            kill_process(self.pid, signal)
        };
        // It may have ended by itself.
        sent.ok();
    }
}

fn start(args: &RunArgs, acquired: &Acquired) -> Result<(Child, Target)> {
    let (program, rest) = args.command.split_first().ok_or_else(|| Trouble::usage("no command"))?;
    let group = !io::stdin().is_terminal();
    let mut command = Command::new(program);
    command
        .args(rest)
        .env("ROTA_LOCK", &args.lock)
        .env("ROTA_SESSION", acquired.session.to_string())
        .env("ROTA_FENCING_TOKEN", acquired.token.unwrap_or_default().to_string());
    if group {
        command.process_group(0);
    }
    let refused = |error: io::Error| {
        let exit = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
        let trouble = Trouble::new(ErrorCode::StartFailed, format!("{program}: {error}"));
        Trouble { exit: Some(exit), ..trouble }.hint("check the command behind --")
    };
    let child = command.spawn().map_err(refused)?;
    let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let pid = pid.ok_or_else(|| Trouble::new(ErrorCode::StartFailed, "the command has no id"))?;
    Ok((child, Target { pid, group }))
}

/// Passes on what asks to stop: the command decides, and the lock is held until it has ended. Returns if that can't be heard.
async fn relay(target: Target) -> io::Error {
    let heard =
        || Ok::<_, io::Error>((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?));
    let (mut interrupt, mut terminate) = match heard() {
        Ok(heard) => heard,
        Err(error) => return error,
    };
    loop {
        tokio::select! {
            // At a terminal, Ctrl-C reaches the command without us.
            _ = interrupt.recv() => if target.group { target.signal(Signal::INT) },
            _ = terminate.recv() => target.signal(Signal::TERM),
        }
    }
}

/// Returns when somebody asks this process to stop.
async fn asked_to_stop() {
    if let Ok(mut terminate) = signal(SignalKind::terminate()) {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    }
}

/// The exit code as shells tell it.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::TROUBLE)
}
