//! `rota cluster`: the cluster as a whole.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use rota_api::{EventQuery, PageQuery, Secret, TransferRequest};
use rota_identity::{AdminToken, ApiToken, Authority, IdentityDir};

use super::{App, gather};
use crate::trouble::Result;
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
    /// Who changed what, the newest first
    Audit(AuditArgs),
}

/// Which server.
#[derive(Debug, Args)]
pub(crate) struct ServerArg {
    /// The number of a server
    #[arg(value_name = "SERVER")]
    number: u64,
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

From then on the server that is started on this directory asks everybody who they are, speaks TLS only,
and may listen on addresses that other machines reach.")]
pub(crate) struct InitArgs {
    /// The server's data directory
    #[arg(long, value_name = "DIR", default_value = ".rota/server")]
    data: PathBuf,
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
#[command(after_help = "Examples:\n  rota cluster audit\n  rota cluster audit -n 1000 -o jsonl")]
pub(crate) struct AuditArgs {
    /// How many requests to show
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    limit: usize,
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
            let token = first_token(&dir)?;
            let data = serde_json::json!({ "token": Secret(token.clone()) });
            app.out.answer(&data, &token, &token)?;
            app.screen().remark("the server takes it in when it is started; it is not shown again");
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

fn init(app: &App, args: &InitArgs) -> Result<()> {
    let dir = IdentityDir::below(&args.data);
    let authority = Authority::create(&dir, SystemTime::now())?;
    let token = first_token(&dir)?;
    let ca = dir.path().join("ca.pem");
    let data = serde_json::json!({
        "cluster": authority.cluster().to_string(),
        "fingerprint": authority.fingerprint().to_string(),
        "ca": ca,
        "token": Secret(token.clone()),
    });
    app.out.answer(&data, &token, &token)?;
    let (data, ca) = (args.data.display(), ca.display());
    app.screen().remark(&format!(
        "the administrator's token of cluster {}; it is not shown again\n  \
         next: rota server --data {data} --listen ADDRESS:7600 --host NAME\n        \
         rota login --server https://NAME:7600 --ca {ca}",
        authority.cluster(),
    ));
    Ok(())
}

/// Draws an administrator's token and leaves its hash for the server.
fn first_token(dir: &IdentityDir) -> Result<String> {
    let token = ApiToken::generate()?;
    dir.save_admin_token(&AdminToken { id: token.id(), hash: token.hash() })?;
    Ok(token.reveal())
}
