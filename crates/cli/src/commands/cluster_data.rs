//! `rota cluster backup`, `restore` and `recover`: what a cluster holds, outside of it.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use rota_api::ErrorCode;
use rota_client::Client;
use rota_server::{Restored, StoreError, Summary};

use super::App;
use crate::screen::{bytes, several};
use crate::trouble::{Result, Trouble};

/// How often the progress is shown.
const SHOW_EVERY: Duration = Duration::from_millis(200);

/// `rota cluster backup`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota cluster backup monday.rota
  rota cluster backup --verify monday.rota

The backup holds state, history, settings and the hashes of tokens; not the output of tasks, which is on the workers, and
no private keys: copy the directory `credentials` of a server yourself.")]
pub(crate) struct BackupArgs {
    /// Where to write it; must not exist yet
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Check a backup that is there instead of making one
    #[arg(long)]
    verify: bool,
}

/// `rota cluster restore`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota cluster restore monday.rota --data /var/lib/rota
  rota cluster restore monday.rota --data s1 && rota server --data s1

The directory is that of a server that runs alone, with an id of its own; `rota server --cluster FILE` founds a cluster on it.
What ran when the backup was made is lost and runs again, under attempt numbers far above those of the old cluster.")]
pub(crate) struct RestoreArgs {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The new server's data directory; must not exist, or be empty
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

/// `rota cluster recover`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota cluster recover --data /var/lib/rota --into /var/lib/rota-new

For a cluster that has lost the disks of a majority, and for nothing else: while a majority can be started again, start it.
Stop the server of this directory first. The old directory is left as it is; take the one whose log is the longest.")]
pub(crate) struct RecoverArgs {
    /// The data directory of a server that is left
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The new server's data directory; must not exist, or be empty
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
}

/// Makes a backup, or checks one.
pub(crate) async fn backup(app: &App, client: &Client, args: &BackupArgs) -> Result<()> {
    let BackupArgs { file, verify } = args;
    if !*verify {
        if file.exists() {
            let message = format!("{} exists already", file.display());
            return Err(Trouble::new(ErrorCode::Usage, message).hint("choose another name"));
        }
        download(app, client, file).await?;
    }
    let summary = blocking(file.clone(), rota_server::verify_backup).await?;
    let line = format!("{} · {}", file.display(), told(app, &summary));
    app.out.answer(&data(&summary), &file.display().to_string(), &line)
}

/// Gets the backup, checks it, and gives it its name.
async fn download(app: &App, client: &Client, file: &Path) -> Result<()> {
    let mut name = file.as_os_str().to_owned();
    name.push(".partial");
    let partial = PathBuf::from(name);
    let got = receive(app, client, &partial).await;
    let checked = match got {
        Ok(()) => blocking(partial.clone(), rota_server::verify_backup).await,
        Err(trouble) => Err(trouble),
    };
    if let Err(trouble) = checked {
        std::fs::remove_file(&partial).ok();
        return Err(trouble);
    }
    std::fs::rename(&partial, file).map_err(|error| Trouble::file(file, &error))
}

async fn receive(app: &App, client: &Client, partial: &Path) -> Result<()> {
    let failed = |error: std::io::Error| Trouble::file(partial, &error);
    let mut download = client.back_up().await?;
    let mut file = File::create(partial).map_err(failed)?;
    let (mut count, mut shown) = (0, Instant::now());
    while let Some(chunk) = download.next().await? {
        file.write_all(&chunk).map_err(failed)?;
        count += chunk.len() as u64;
        if shown.elapsed() >= SHOW_EVERY {
            shown = Instant::now();
            app.screen().progress(&format!("{} received", bytes(count)));
        }
    }
    app.screen().progress("");
    file.sync_all().map_err(failed)
}

/// Makes a data directory from a backup.
pub(crate) async fn restore(app: &App, args: RestoreArgs) -> Result<()> {
    let RestoreArgs { file, data } = args;
    let into = data.clone();
    let restored = blocking(file, move |file| rota_server::restore(file, &into)).await?;
    made(app, &restored, &data)
}

/// Makes a data directory from what is left of a cluster.
pub(crate) async fn recover(app: &App, args: RecoverArgs) -> Result<()> {
    let RecoverArgs { data, into } = args;
    app.screen().remark(
        "what only the lost servers had acknowledged is lost for good; the servers that are left can't come back into the new cluster",
    );
    app.confirm(&format!("make a new cluster from {}", data.display()))?;
    let target = into.clone();
    let restored = blocking(data, move |data| rota_server::recover(data, &target)).await?;
    made(app, &restored, &into)
}

fn made(app: &App, restored: &Restored, directory: &Path) -> Result<()> {
    let mut told_as = data(&restored.from);
    let cluster = restored.cluster.to_string();
    told_as["new_cluster"] = cluster.clone().into();
    told_as["data"] = directory.display().to_string().into();
    let short: String = cluster.chars().take(8).collect();
    let directory = directory.display();
    let from = told(app, &restored.from);
    let line = format!(
        "{directory} · cluster {short} · from {from}\n  \
         next: rota server --data {directory}    or: rota server --cluster FILE --data {directory}"
    );
    app.out.answer(&told_as, &directory.to_string(), &line)
}

fn told(app: &App, summary: &Summary) -> String {
    let about = &summary.about;
    let short: String = about.identity.cluster.to_string().chars().take(8).collect();
    format!(
        "server {} of cluster {short} at entry {} · {} and {} · {}",
        about.identity.server,
        summary.last,
        several(summary.records, "record"),
        several(summary.rows, "history row"),
        app.screen().when(rota_api::Moment(about.taken_at)),
    )
}

fn data(summary: &Summary) -> serde_json::Value {
    serde_json::json!({
        "cluster": summary.about.identity.cluster.to_string(),
        "server": summary.about.identity.server.0,
        "version": summary.about.version,
        "taken_at": rota_api::Moment(summary.about.taken_at),
        "index": summary.last.0,
        "records": summary.records,
        "history_rows": summary.rows,
    })
}

async fn blocking<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce(&Path) -> std::result::Result<T, StoreError> + Send + 'static,
) -> Result<T> {
    let named = path.display().to_string();
    let done = tokio::task::spawn_blocking(move || work(&path)).await;
    let failed = |message: String| Trouble::new(ErrorCode::FileUnreadable, message);
    let done = done.map_err(|error| failed(error.to_string()))?;
    done.map_err(|error| failed(format!("{named}: {error}")))
}
