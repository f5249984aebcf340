//! `rota cluster add` and `replace`: what a new server needs.

use clap::Args;
use rota_api::{ClusterStatus, ErrorCode, Secret, TokenRequest, TokenRole};
use rota_client::Client;

use super::App;
use crate::commands::cluster::ServerArg;
use crate::trouble::{Result, Trouble};

/// `rota cluster add`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rota cluster add\n  rota cluster add -q > start-server.sh")]
pub(crate) struct AddArgs {}

/// Says how a new server is started.
pub(crate) async fn add(app: &App, client: &Client) -> Result<()> {
    let status = changeable(client).await?;
    invite(app, client, &status, None).await
}

/// Removes a server for good, and says how the one that takes its place is started.
pub(crate) async fn replace(app: &App, client: &Client, old: &ServerArg) -> Result<()> {
    let status = changeable(client).await?;
    let old = old.number;
    let Some(server) = status.servers.iter().find(|server| server.id == old) else {
        let message = format!("there is no server {old}");
        let hint = "`rota cluster status` lists them; `rota cluster add` lets another one in";
        return Err(Trouble::new(ErrorCode::ServerNotFound, message).hint(hint));
    };
    if server.healthy == Some(true) {
        let message = format!("server {old} is there and healthy");
        let hint =
            format!("stop it first; or `rota cluster remove {old}`, then `rota cluster add`");
        return Err(Trouble::new(ErrorCode::InvalidChange, message).hint(hint));
    }
    app.confirm(&format!("remove server {old} for good and let another one take its place"))?;
    client.remove_server(old).await?;
    invite(app, client, &status, Some(old)).await
}

/// The cluster, if its members can be changed.
async fn changeable(client: &Client) -> Result<ClusterStatus> {
    let status = client.cluster_status().await?;
    let refused =
        |message: &str, hint: &str| Err(Trouble::new(ErrorCode::InvalidChange, message).hint(hint));
    match status.log.as_str() {
        "solo" => refused(
            "this server runs alone",
            "`rota server --cluster FILE` founds a cluster on its data",
        ),
        "paxos" => refused(
            "the members of a cluster with Paxos can't be changed yet",
            "back it up and restore the backup into a new cluster: rota cluster backup FILE",
        ),
        _ => Ok(status),
    }
}

async fn invite(
    app: &App,
    client: &Client,
    status: &ClusterStatus,
    replaced: Option<u64>,
) -> Result<()> {
    let others = status.servers.iter().filter(|server| Some(server.id) != replaced);
    let mut members = others.filter(|server| server.healthy != Some(false));
    let member = members.find(|server| !server.address.is_empty());
    let address = member.map_or_else(|| client.server().to_owned(), |one| one.address.clone());
    let token = if address.starts_with("https://") {
        let (name, role) = ("a new server".to_owned(), TokenRole::Server);
        let request = TokenRequest { name, role, valid_for: None, uses: None };
        Some(client.create_token(&request).await?.token.0)
    } else {
        None
    };
    let with = token.as_ref().map_or_else(String::new, |token| format!(" --token {token}"));
    let command =
        format!("rota server --join {address}{with} --listen ADDRESS:7600 --data NEW_DIRECTORY");
    let mut data = serde_json::json!({ "command": command, "token": token.map(Secret) });
    let mut line =
        format!("on the new machine, with its own address and an empty directory:\n  {command}");
    if let Some(old) = replaced {
        data["removed"] = old.into();
        line = format!("server {old} · removed\n{line}");
    }
    app.out.answer(&data, &command, &line)
}
