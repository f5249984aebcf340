//! `rota kv`: keys and values.

use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use rota_api::{
    DeleteQuery, Duration, ErrorCode, KeyQuery, KeysChanged, PrefixQuery, PutQuery, SessionRequest,
    Stream, WatchQuery,
};
use rota_client::{Client, KeyIs};

use super::{App, gather};
use crate::complete;
use crate::output::{Format, written};
use crate::screen::{clean, several};
use crate::show_keys;
use crate::sink::Sink;
use crate::trouble::{Result, Trouble};

/// Bytes that are read of a value: one more than a key takes, so that the server says what is wrong.
const VALUE_BYTES_MAX: u64 = rota_types::limits::KEY_VALUE_BYTES_MAX as u64 + 1;

/// `rota kv`
#[derive(Debug, Subcommand)]
pub(crate) enum KvCommand {
    /// Give a key a value
    Put(PutArgs),
    /// Print a key's value as it is
    Get(GetArgs),
    /// Change a key only if nobody has changed it since (compare and set)
    Cas(CasArgs),
    /// Delete a key, or all that begin alike
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
    /// List keys
    Ls(LsArgs),
    /// Print changes as they happen
    Watch(WatchArgs),
}

/// `rota kv put`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota kv put config/web/port 8080
  rota kv put config/web/motd --file motd.txt
  date | rota kv put last-backup
  rota kv put service/web/host-a 10.0.0.7:80 --ttl 1m     gone after a minute, unless its session is renewed
  rota kv put report/state done --lock report --token $ROTA_FENCING_TOKEN")]
pub(crate) struct PutArgs {
    /// The key
    #[arg(value_name = "KEY", add = complete::keys())]
    key: String,
    #[command(flatten)]
    value: Value,
    #[command(flatten)]
    lock: UnderLock,
    /// Delete the key when this session ends
    #[arg(long, value_name = "SESSION", add = complete::sessions())]
    session: Option<u64>,
    /// Open a session that lives so long, and delete the key when it ends
    #[arg(long, value_name = "TIME", conflicts_with = "session")]
    ttl: Option<Duration>,
}

/// A value, wherever it is.
#[derive(Debug, Args)]
struct Value {
    /// The value; without it, or as `-`, standard input
    #[arg(value_name = "VALUE", allow_hyphen_values = true)]
    value: Option<String>,
    /// A file with the value
    #[arg(long, value_name = "FILE", conflicts_with = "value")]
    file: Option<PathBuf>,
}

/// A lock that has to be held.
#[derive(Debug, Args)]
struct UnderLock {
    /// Only if this lock is still held under --token
    #[arg(long, value_name = "LOCK", requires = "token", add = complete::locks())]
    lock: Option<String>,
    /// The fencing token of --lock
    #[arg(long, value_name = "N", requires = "lock")]
    token: Option<u64>,
}

/// `rota kv get`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota kv get config/web/port
  rota kv get config/web/port -o json        with revision and session; the value in base64
  rota kv get config/web/logo > logo.png     byte for byte")]
pub(crate) struct GetArgs {
    /// The key
    #[arg(value_name = "KEY", add = complete::keys())]
    key: String,
}

/// `rota kv cas`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota kv cas config/web/port 0 8080         only if there is no such key
  rota kv cas config/web/port 12 9090        only if it was changed last at revision 12")]
pub(crate) struct CasArgs {
    /// The key
    #[arg(value_name = "KEY", add = complete::keys())]
    key: String,
    /// The revision of the change that you have seen; 0 if there must be no such key
    #[arg(value_name = "REVISION")]
    revision: u64,
    #[command(flatten)]
    value: Value,
    #[command(flatten)]
    lock: UnderLock,
    /// Delete the key when this session ends
    #[arg(long, value_name = "SESSION", add = complete::sessions())]
    session: Option<u64>,
}

/// `rota kv delete`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota kv delete config/web/port
  rota kv delete config/web/port --revision 12
  rota kv delete config/web/ --prefix --yes")]
pub(crate) struct DeleteArgs {
    /// The key
    #[arg(value_name = "KEY", add = complete::keys())]
    key: String,
    /// Delete every key that begins like this
    #[arg(long, conflicts_with_all = ["revision", "lock"])]
    prefix: bool,
    /// Only if it was changed last at this revision
    #[arg(long, value_name = "REVISION")]
    revision: Option<u64>,
    #[command(flatten)]
    lock: UnderLock,
}

/// `rota kv ls`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota kv ls
  rota kv ls config/web/ -o wide             with the beginning of each value
  rota kv ls config/ -o jsonl --keys-only")]
pub(crate) struct LsArgs {
    /// What the keys begin with
    #[arg(value_name = "PREFIX", default_value = "", hide_default_value = true, add = complete::keys())]
    prefix: String,
    /// Leave the values out
    #[arg(long)]
    keys_only: bool,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

/// `rota kv watch`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota kv watch config/web/port
  rota kv watch config/ --prefix -o jsonl
  rota kv watch config/ --prefix --since 812 --count 1")]
pub(crate) struct WatchArgs {
    /// The key
    #[arg(value_name = "KEY", add = complete::keys())]
    key: String,
    /// Watch every key that begins like this
    #[arg(long)]
    prefix: bool,
    /// Begin after this position: INDEX or INDEX:SEQ
    #[arg(long, value_name = "POSITION")]
    since: Option<String>,
    /// Stop after this many changes
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// Runs a verb on keys.
pub(crate) async fn dispatch(app: &App, command: KvCommand) -> Result<u8> {
    let client = app.client()?;
    match command {
        KvCommand::Put(args) => put(app, &client, args).await?,
        KvCommand::Get(args) => get(app, &client, &args.key).await?,
        KvCommand::Cas(args) => cas(app, &client, args).await?,
        KvCommand::Delete(args) => delete(app, &client, args).await?,
        KvCommand::Ls(args) => ls(app, &client, args).await?,
        KvCommand::Watch(args) => {
            let WatchArgs { key, prefix, since, count } = args;
            let query = if prefix {
                WatchQuery { prefix: Some(key), since, ..WatchQuery::default() }
            } else {
                WatchQuery { key: Some(key), since, ..WatchQuery::default() }
            };
            follow(app, &client, &query, count).await?;
        }
    }
    Ok(0)
}

async fn put(app: &App, client: &Client, args: PutArgs) -> Result<()> {
    let PutArgs { key, value, lock, session, ttl } = args;
    let value = value.read()?;
    let session = match ttl {
        Some(ttl) => Some(client.open_session(&SessionRequest { ttl: Some(ttl) }).await?.id),
        None => session,
    };
    let query = PutQuery { session, lock: lock.lock, token: lock.token };
    let changed = client.put_key(&key, value, KeyIs::Anything, &query).await?;
    answer(app, &key, &changed, session)
}

async fn cas(app: &App, client: &Client, args: CasArgs) -> Result<()> {
    let CasArgs { key, revision, value, lock, session } = args;
    let has_to_be = if revision == 0 { KeyIs::Absent } else { KeyIs::At(revision) };
    let query = PutQuery { session, lock: lock.lock, token: lock.token };
    let changed = client.put_key(&key, value.read()?, has_to_be, &query).await?;
    answer(app, &key, &changed, session)
}

fn answer(app: &App, key: &str, changed: &KeysChanged, session: Option<u64>) -> Result<()> {
    let with = session.map_or(String::new(), |session| format!(" · goes with session {session}"));
    let line = format!("key {} · put at revision {}{with}", clean(key), changed.revision);
    app.out.answer(changed, key, &line)
}

async fn get(app: &App, client: &Client, key: &str) -> Result<()> {
    let found = client.key(key).await?;
    if !matches!(app.out.format, Format::Table | Format::Wide) {
        return app.out.one(&found);
    }
    let value = found.value.unwrap_or_default().0;
    let mut out = io::stdout();
    if !out.is_terminal() {
        written(out.write_all(&value))?;
        return written(out.flush());
    }
    let mut sink = Sink::new(Stream::Stdout, String::new(), true);
    sink.write(&value)?;
    sink.finish()?;
    if value.last().is_some_and(|last| *last != b'\n') { app.out.text("") } else { Ok(()) }
}

async fn delete(app: &App, client: &Client, args: DeleteArgs) -> Result<()> {
    let DeleteArgs { key, prefix, revision, lock } = args;
    if prefix {
        let what = if key.is_empty() {
            "every key".to_owned()
        } else {
            format!("every key that begins with {key:?}")
        };
        app.confirm(&format!("delete {what}"))?;
        return delete_all(app, client, key).await;
    }
    let has_to_be = revision.map_or(KeyIs::Anything, KeyIs::At);
    let query = DeleteQuery { lock: lock.lock, token: lock.token };
    let changed = client.delete_key(&key, has_to_be, &query).await?;
    if changed.deleted == 0 {
        return Err(Trouble::new(ErrorCode::KeyNotFound, format!("there is no key {key:?}")));
    }
    app.out.answer(&changed, &key, &format!("key {} · deleted", clean(&key)))
}

/// Deletes as many at a time as one request may.
async fn delete_all(app: &App, client: &Client, prefix: String) -> Result<()> {
    let query = PrefixQuery { prefix, at_most: None };
    let mut all = KeysChanged::default();
    loop {
        let changed = client.delete_keys(&query).await?;
        let deleted = all.deleted + changed.deleted;
        let over = changed.deleted < rota_types::limits::KEYS_DELETED_MAX;
        all = KeysChanged { deleted, ..changed };
        if over {
            let line = format!("{} deleted", several(u64::from(all.deleted), "key"));
            return app.out.answer(&all, &query.prefix, &line);
        }
    }
}

async fn ls(app: &App, client: &Client, args: LsArgs) -> Result<()> {
    let LsArgs { prefix, keys_only, limit } = args;
    let keys_only = keys_only || app.screen().quiet || app.out.format == Format::Table;
    let page = gather(limit.unwrap_or(usize::MAX), |cursor, limit| {
        let client = client.clone();
        let (prefix, keys_only, limit) = (Some(prefix.clone()), Some(keys_only), Some(limit));
        async move { client.keys(&KeyQuery { prefix, keys_only, limit, cursor }).await }
    });
    app.out.page(&page.await?)
}

/// Prints changes until there were so many.
pub(super) async fn follow(
    app: &App,
    client: &Client,
    query: &WatchQuery,
    mut left: Option<u64>,
) -> Result<()> {
    let mut changes = client.watch(query).await?;
    while left != Some(0) {
        let change = changes.next().await?;
        app.out.item(&change, &show_keys::change(&change, app.screen()))?;
        left = left.map(|left| left - 1);
    }
    Ok(())
}

impl Value {
    fn read(self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match (self.value, self.file) {
            (Some(value), None) if value != "-" => return Ok(value.into_bytes()),
            (_, Some(path)) => std::fs::File::open(&path)
                .and_then(|file| file.take(VALUE_BYTES_MAX).read_to_end(&mut bytes))
                .map_err(|error| Trouble::file(&path, &error))?,
            (Some(_) | None, None) => io::stdin()
                .lock()
                .take(VALUE_BYTES_MAX)
                .read_to_end(&mut bytes)
                .map_err(|error| Trouble::file("standard input".as_ref(), &error))?,
        };
        Ok(bytes)
    }
}
