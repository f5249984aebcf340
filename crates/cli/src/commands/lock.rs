//! `rota lock`: locks and leader election.

use std::time::Duration as Time;

use clap::{Args, Subcommand};
use rota_api::{
    AcquireRequest, Acquired, Duration, ErrorCode, LockQuery, SessionRequest, WatchQuery, exit,
};
use rota_client::Client;
use tokio::time::Instant;

use super::{App, gather, kv, lock_run};
use crate::complete;
use crate::screen::clean;
use crate::trouble::{Result, Trouble};

/// `rota lock`
#[derive(Debug, Subcommand)]
pub(crate) enum LockCommand {
    /// Run a command while a lock is held; end it if the lock is lost
    Run(lock_run::RunArgs),
    /// Take a lock and keep it until its session ends
    Acquire(AcquireArgs),
    /// Give a lock back, or a place in its queue
    #[command(after_help = "Examples:\n  rota lock release nightly-report --session 7")]
    Release(ReleaseArgs),
    /// Show who holds a lock, and who waits for it
    #[command(after_help = "Examples:\n  rota lock show nightly-report")]
    Show(Name),
    /// List locks that are held
    #[command(after_help = "Examples:\n  rota lock ls\n  rota lock ls leader/ -o json")]
    Ls(LsArgs),
    /// Print who holds a lock, whenever that changes
    Watch(WatchArgs),
}

/// Which lock.
#[derive(Debug, Args)]
pub(crate) struct Name {
    /// The lock's name
    #[arg(value_name = "LOCK", add = complete::locks())]
    lock: String,
}

/// `rota lock acquire`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota lock acquire deploy --ttl 10m          a session of its own, which ends after ten minutes
  rota lock acquire deploy --session 7 --wait 1m
  rota lock release deploy --session 7

Prints the fencing token: it rises with each holder. Whatever the lock guards should refuse tokens below the
highest that it has seen. `rota lock run` renews the session by itself.")]
pub(crate) struct AcquireArgs {
    /// The lock's name
    #[arg(value_name = "LOCK", add = complete::locks())]
    lock: String,
    /// The session that is to hold it
    #[arg(long, value_name = "SESSION", add = complete::sessions())]
    session: Option<u64>,
    /// Without --session: how long the lock is held unless the session is renewed
    #[arg(long, value_name = "TIME", default_value = "1m", conflicts_with = "session")]
    ttl: Duration,
    /// How long to wait for the lock [default: not at all]
    #[arg(long, value_name = "TIME")]
    wait: Option<Duration>,
    /// What others see of the holder, such as an address
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    value: String,
}

/// `rota lock release`
#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    /// The lock's name
    #[arg(value_name = "LOCK", add = complete::locks())]
    lock: String,
    /// The session that holds it, or waits for it
    #[arg(long, value_name = "SESSION", add = complete::sessions())]
    session: u64,
}

/// `rota lock ls`
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// What the names begin with
    #[arg(value_name = "PREFIX", default_value = "", hide_default_value = true, add = complete::locks())]
    prefix: String,
}

/// `rota lock watch`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota lock watch leader/web                  who leads, whenever that changes
  rota lock watch leader/ --prefix -o jsonl")]
pub(crate) struct WatchArgs {
    /// The lock's name
    #[arg(value_name = "LOCK", add = complete::locks())]
    lock: String,
    /// Watch every lock that begins like this
    #[arg(long)]
    prefix: bool,
    /// Begin after this position: INDEX or INDEX:SEQ
    #[arg(long, value_name = "POSITION")]
    since: Option<String>,
    /// Stop after this many changes
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// Runs a verb on locks.
pub(crate) async fn dispatch(app: &App, command: LockCommand) -> Result<u8> {
    if let LockCommand::Run(args) = command {
        return lock_run::run(app, args).await;
    }
    let client = app.client()?;
    match command {
        LockCommand::Run(_) => {}
        LockCommand::Acquire(args) => acquire(app, &client, args).await?,
        LockCommand::Release(ReleaseArgs { lock, session }) => {
            client.release_lock(&lock, session).await?;
            let data = serde_json::json!({ "lock": lock, "session": session, "released": true });
            app.out.answer(&data, &lock, &format!("lock {} · given back", clean(&lock)))?;
        }
        LockCommand::Show(name) => app.out.one(&client.lock(&name.lock).await?)?,
        LockCommand::Ls(args) => {
            let page = gather(usize::MAX, |cursor, limit| {
                let (client, prefix) = (client.clone(), Some(args.prefix.clone()));
                async move { client.locks(&LockQuery { prefix, limit: Some(limit), cursor }).await }
            });
            app.out.page(&page.await?)?;
        }
        LockCommand::Watch(WatchArgs { lock, prefix, since, count }) => {
            let query = if prefix {
                WatchQuery { lock_prefix: Some(lock), since, ..WatchQuery::default() }
            } else {
                WatchQuery { lock: Some(lock), since, ..WatchQuery::default() }
            };
            kv::follow(app, &client, &query, count).await?;
        }
    }
    Ok(0)
}

async fn acquire(app: &App, client: &Client, args: AcquireArgs) -> Result<()> {
    let AcquireArgs { lock, session, ttl, wait, value } = args;
    let own = session.is_none();
    let session = match session {
        Some(session) => session,
        None => client.open_session(&SessionRequest { ttl: Some(ttl) }).await?.id,
    };
    let acquired = match take(client, &lock, (session, &value), wait).await {
        Ok(acquired) => acquired,
        Err(trouble) => {
            if own {
                client.close_session(session).await.ok();
            }
            return Err(trouble);
        }
    };
    let token = acquired.token.unwrap_or_default();
    let line = format!("lock {} · held by session {session} under token {token}", clean(&lock));
    app.out.answer(&acquired, &session.to_string(), &line)
}

/// Takes a lock, or says why not.
pub(super) async fn take(
    client: &Client,
    lock: &str,
    (session, value): (u64, &str),
    wait: Option<Duration>,
) -> Result<Acquired> {
    let Some(wait) = wait else {
        let request = AcquireRequest { session, value: value.to_owned(), wait: None };
        return Ok(client.acquire_lock(lock, &request).await?);
    };
    let until = Instant::now().checked_add(Time::from(wait));
    let acquired = client.await_lock(lock, (session, value), until).await?;
    acquired.ok_or_else(|| {
        let message = format!("the lock {lock:?} was not free within {wait}");
        let trouble = Trouble::new(ErrorCode::LockHeld, message);
        Trouble { exit: Some(exit::WAITED_TOO_LONG), ..trouble }
            .hint("`rota lock show` names the holder; --wait takes a longer time")
    })
}
