//! `rota cluster`: the cluster as a whole.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::{Args, Subcommand};
use rota_api::{ErrorCode, EventQuery, Page, PageQuery, RefusedRecord, Secret, TransferRequest};
use rota_client::Client;
use rota_identity::{AdminToken, ApiToken, Authority, IdentityDir};

use super::cluster_data::{self, BackupArgs, RecoverArgs, RestoreArgs};
use super::cluster_members::{self, AddArgs};
use super::{App, gather};
use crate::cluster_file;
use crate::trouble::{Result, Trouble};
use crate::watch::{Frame, Watch};

/// `rota cluster`
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Load, demand and supply, failure odds, waits and delays
    #[command(after_help = "Examples:
  rota cluster stats
  rota cluster stats --watch
  rota cluster stats -o json")]
    Stats(Watch),
    /// The servers: who leads, how far each is, what it does
    #[command(after_help = "Examples:
  rota cluster status
  rota cluster status --watch
  rota cluster status -o json")]
    Status(Watch),
    /// Say how a new server is started, with a token for it if the cluster is secured
    Add(AddArgs),
    /// Remove a dead server for good, and say how the one that takes its place is started
    #[command(
        after_help = "Examples:\n  rota cluster replace 3\n  rota cluster replace 3 --yes -q"
    )]
    Replace(ServerArg),
    /// Remove a server, whether it runs or not; its number is never given out again
    #[command(after_help = "Examples:\n  rota cluster remove 3 --yes")]
    Remove(ServerArg),
    /// Hand the lead to another server, as before a planned restart
    #[command(after_help = "Examples:\n  rota cluster transfer\n  rota cluster transfer 2")]
    Transfer(TransferArgs),
    /// Make the certificate authority of a new cluster, and its first administrator token
    Init(InitArgs),
    /// Make another administrator token on a server's disk, when every other one is lost
    AdminToken(AdminTokenArgs),
    /// Write everything that the cluster holds into a file, while it runs
    Backup(BackupArgs),
    /// Make a new server from a backup
    Restore(RestoreArgs),
    /// Make a new server from one that is left when a majority is lost for good
    Recover(RecoverArgs),
    /// Who changed what, the newest first
    Audit(AuditArgs),
}

/// Which server.
#[derive(Debug, Args)]
pub(crate) struct ServerArg {
    /// The number of a server
    #[arg(value_name = "SERVER")]
    pub(super) number: u64,
}

/// Which server is to lead.
#[derive(Debug, Args)]
pub(crate) struct TransferArgs {
    /// The number of a server; without one, the healthy one that is furthest
    #[arg(value_name = "SERVER")]
    number: Option<u64>,
}

/// `rota cluster init`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota cluster init --data /var/lib/rota
  rota cluster init --data /var/lib/rota -q > admin.token
  rota cluster init --cluster cluster.toml --data /var/lib/rota

From then on the server that is started on this directory asks everybody who they are, speaks TLS only,
and may listen on addresses that other machines reach. With --cluster, it prints one command for each of the
other servers: it brings the authority there, with its private key, over SSH.")]
pub(crate) struct InitArgs {
    /// The server's data directory
    #[arg(long, value_name = "DIR", default_value = ".rota/server")]
    data: PathBuf,
    /// The file of `rota server --cluster`: the servers that are to found a cluster, with https:// addresses
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,
}

/// `rota cluster admin-token`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota cluster admin-token --data /var/lib/rota

The server takes the token in when it is started the next time.")]
pub(crate) struct AdminTokenArgs {
    /// The server's data directory
    #[arg(long, value_name = "DIR", default_value = ".rota/server")]
    data: PathBuf,
}

/// `rota cluster audit`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota cluster audit
  rota cluster audit -n 1000 -o jsonl
  rota cluster audit --refused")]
pub(crate) struct AuditArgs {
    /// How many requests to show
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Show instead whom each server turned away since it was started, and how often
    #[arg(long)]
    refused: bool,
}

/// Runs a verb on the cluster.
pub(crate) async fn dispatch(app: &App, command: ClusterCommand) -> Result<u8> {
    let client = app.client()?;
    match command {
        ClusterCommand::Stats(watch) => {
            let look = async || {
                let stats = client.stats().await?;
                Ok(Frame { data: app.out.one_text(&stats)?, ..Frame::default() })
            };
            return watch.show(app, &client, EventQuery::default(), look).await;
        }
        ClusterCommand::Status(watch) => {
            let look = async || {
                let status = client.cluster_status().await?;
                Ok(Frame { data: app.out.one_text(&status)?, ..Frame::default() })
            };
            return watch.show(app, &client, EventQuery::default(), look).await;
        }
        ClusterCommand::Add(AddArgs {}) => cluster_members::add(app, &client).await?,
        ClusterCommand::Replace(old) => cluster_members::replace(app, &client, &old).await?,
        ClusterCommand::Backup(args) => cluster_data::backup(app, &client, &args).await?,
        ClusterCommand::Restore(args) => cluster_data::restore(app, args).await?,
        ClusterCommand::Recover(args) => cluster_data::recover(app, args).await?,
        ClusterCommand::Remove(ServerArg { number: server }) => {
            app.confirm(&format!("remove server {server} from the cluster"))?;
            client.remove_server(server).await?;
            let data = serde_json::json!({ "id": server, "removed": true });
            app.out.answer(&data, &server.to_string(), &format!("server {server} · removed"))?;
        }
        ClusterCommand::Transfer(TransferArgs { number: server }) => {
            client.transfer_lead(&TransferRequest { to: server }).await?;
            let status = client.cluster_status().await?;
            let leader = status.leader.unwrap_or_default();
            let line = format!("server {leader} leads, in term {}", status.term);
            app.out.answer(&status, &leader.to_string(), &line)?;
        }
        ClusterCommand::Init(args) => init(app, &args)?,
        ClusterCommand::AdminToken(args) => {
            let dir = IdentityDir::below(&args.data);
            // Only a server's directory has the authority's key.
            Authority::load(&dir)?;
            let token = admin_token(&dir, false)?;
            let data = serde_json::json!({ "token": Secret(token.clone()) });
            app.out.answer(&data, &token, &token)?;
            app.screen().remark("the server takes it in when it is started; it is not shown again");
        }
        ClusterCommand::Audit(args) if args.refused => {
            app.out.page(&refused(app, &client, args.limit).await?)?;
        }
        ClusterCommand::Audit(args) => {
            let page = gather(args.limit, |cursor, limit| {
                let client = client.clone();
                async move { client.audit(&PageQuery { cursor, limit: Some(limit) }).await }
            });
            app.out.page(&page.await?)?;
        }
    }
    Ok(0)
}

/// Whom the servers turned away: each has a list of its own.
async fn refused(app: &App, client: &Client, limit: usize) -> Result<Page<RefusedRecord>> {
    let status = client.cluster_status().await?;
    let elsewhere = status.servers.iter().filter(|server| server.id != status.server);
    // The server that tells the status is the one that leads; which one the client speaks to does not matter.
    let addresses = elsewhere.map(|server| server.address.clone());
    let mut page = Page { items: Vec::new(), next_cursor: None, index: status.index };
    let own = status.servers.iter().find(|server| server.id == status.server);
    let own = own.map_or_else(|| client.server().to_owned(), |server| server.address.clone());
    for address in std::iter::once(own).chain(addresses).filter(|address| !address.is_empty()) {
        match app.client_of(vec![address.clone()])?.turned_away().await {
            Ok(more) => page.items.extend(more.items),
            Err(error) => app.screen().remark(&format!("{address} did not answer: {error}")),
        }
    }
    page.items.sort_by_key(|record| std::cmp::Reverse(record.last_at));
    page.items.truncate(limit);
    Ok(page)
}

fn init(app: &App, args: &InitArgs) -> Result<()> {
    let founders = args.cluster.as_deref().map(secured_founders).transpose()?.unwrap_or_default();
    let dir = IdentityDir::below(&args.data);
    let authority = Authority::create(&dir, SystemTime::now())?;
    let token = admin_token(&dir, true)?;
    let ca = dir.path().join("ca.pem");
    let data = args.data.display();
    let copies: Vec<String> = founders
        .iter()
        .skip(1)
        .map(|host| {
            format!(
                "tar -C {data} -c credentials | ssh {host} 'mkdir -p {data} && tar -C {data} -xp'"
            )
        })
        .collect();
    let told = serde_json::json!({
        "cluster": authority.cluster().to_string(),
        "fingerprint": authority.fingerprint().to_string(),
        "ca": ca,
        "token": Secret(token.clone()),
        "copies": copies,
    });
    app.out.answer(&told, &token, &token)?;
    let next = match &args.cluster {
        None => format!("rota server --data {data} --listen ADDRESS:7600 --host NAME"),
        Some(file) => {
            let copies: String = copies.iter().map(|copy| format!("{copy}\n        ")).collect();
            let start = format!("rota server --cluster {} --data {data}", file.display());
            format!("{copies}{start} --listen ADDRESS:7600    on each server")
        }
    };
    app.screen().remark(&format!(
        "the administrator's token of cluster {}; it is not shown again\n  \
         next: {next}\n        \
         rota login --server https://NAME:7600 --ca {}",
        authority.cluster(),
        ca.display(),
    ));
    Ok(())
}

/// The hosts of the servers in the file, the first one first.
fn secured_founders(file: &Path) -> Result<Vec<String>> {
    let founders = cluster_file::founding(file)?.founders;
    let host = |address: &String| {
        let host = address.strip_prefix("https://")?.rsplit_once(':')?.0;
        Some(host.trim_matches(['[', ']']).to_owned())
    };
    let hosts: Option<Vec<String>> = founders.values().map(host).collect();
    hosts.ok_or_else(|| {
        let message = format!("{}: servers with an identity speak TLS", file.display());
        Trouble::new(ErrorCode::InvalidConfig, message).hint("write https:// for every server")
    })
}

/// Draws an administrator's token and leaves its hash for the server.
fn admin_token(dir: &IdentityDir, is_first: bool) -> Result<String> {
    let token = ApiToken::generate()?;
    dir.save_admin_token(&AdminToken { id: token.id(), hash: token.hash(), is_first })?;
    Ok(token.reveal())
}
