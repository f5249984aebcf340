//! `rota login`: keeps a cluster and a token for it.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use rota_api::{ErrorCode, Secret};
use rota_client::{Access, Client, ClientConfig};

use super::App;
use crate::config::{self, Kept};
use crate::screen::clean;
use crate::trouble::{Result, Trouble};

/// `rota login`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota login https://rota.example:7600 --ca ca.pem
  rota login --server https://rota.example:7600 --ca ca.pem     asks for the token
  rota login lab --server https://10.0.0.7:7600 --ca ca.pem < token.txt
  ROTA_TOKEN=$(cat token.txt) rota login lab --server https://10.0.0.7:7600 --ca ca.pem

The token is checked with the server and kept in the configuration file, which nobody else may read.
The cluster's ca.pem is in the directory credentials below the data directory of each server. The context
becomes the current one.")]
pub(crate) struct LoginArgs {
    /// The name of the context, or the address of a server; the name is then \"cluster\"
    #[arg(default_value = "cluster", value_name = "NAME_OR_URL")]
    name: String,
    /// The certificate of the cluster's authority
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// Checks a token and keeps it.
pub(crate) async fn login(app: &App, mut args: LoginArgs) -> Result<u8> {
    let Some(path) = &app.config.path else {
        let message = "there is no place for a configuration file: HOME is not set";
        return Err(Trouble::new(ErrorCode::InvalidConfig, message).hint("set HOME or ROTA_CONFIG"));
    };
    let mut servers = app.config.servers.value.clone();
    if args.name.contains("://") {
        servers = vec![std::mem::replace(&mut args.name, "cluster".to_owned())];
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if args.name.is_empty() || !args.name.bytes().all(plain) {
        let message = format!("\"{}\" is not a name for a context", args.name);
        return Err(Trouble::usage(message).hint("use letters, digits, - and _"));
    }
    if !servers.iter().all(|server| server.starts_with("https://")) {
        let message =
            "a token is sent over TLS only, and the server's address does not begin with https://";
        return Err(Trouble::usage(message).hint("name it: --server https://HOST:7600"));
    }
    let authority = match &args.ca {
        Some(file) => {
            Some(std::fs::read_to_string(file).map_err(|error| Trouble::file(file, &error))?)
        }
        None => app.config.access.authority.clone(),
    };
    let token = match std::env::var("ROTA_TOKEN") {
        Ok(token) if !token.is_empty() => token,
        _ => ask(app)?,
    };
    let access = Access { authority: authority.clone(), token: Some(Secret(token.clone())) };
    let client = Client::new(&ClientConfig {
        servers: servers.clone(),
        timeout: app.config.timeout.value,
        retry: true,
        submitter: None,
        access,
    })?;
    let who = client.whoami().await?;
    let servers = with_others(servers, &client).await?;
    let kept = Kept { name: &args.name, servers: &servers, authority, token: &token };
    config::keep(path, &kept)?;
    let line = format!(
        "logged in to {} as {} ({}) · context {} in {}",
        servers.join(", "),
        clean(&who.name),
        clean(&who.role),
        args.name,
        path.display()
    );
    app.out.answer(&who, &args.name, &line)?;
    Ok(0)
}

/// `rota logout`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota logout
  rota logout lab

The token itself stays valid: `rota token revoke ID` ends it.")]
pub(crate) struct LogoutArgs {
    /// The name of the context [default: the current one]
    name: Option<String>,
}

/// Forgets the token that is kept for a cluster.
pub(crate) fn logout(app: &App, args: LogoutArgs) -> Result<u8> {
    let current = app.config.context.as_ref().map(|context| context.value.clone());
    let Some((path, name)) = app.config.path.as_ref().zip(args.name.or(current)) else {
        let message = "no context is in use";
        return Err(Trouble::usage(message).hint("name one: rota logout NAME"));
    };
    let known = config::forget(path, &name)?;
    let line = if known { "its token is forgotten" } else { "no token was kept for it" };
    let data = serde_json::json!({ "context": name, "forgotten": known });
    app.out.answer(&data, &name, &format!("context {name} · {line}"))?;
    Ok(0)
}

/// These servers, and those that they know: one of them is enough to log in, and may be gone tomorrow.
async fn with_others(mut servers: Vec<String>, client: &Client) -> Result<Vec<String>> {
    let known = client.cluster_status().await?.servers.into_iter().map(|server| server.address);
    let known: Vec<String> = known.filter(|address| address.starts_with("https://")).collect();
    servers.extend(known);
    let mut seen = std::collections::BTreeSet::new();
    servers.retain(|server| seen.insert(server.clone()));
    Ok(servers)
}

/// Reads the token from standard input.
fn ask(app: &App) -> Result<String> {
    if std::io::stdin().is_terminal() {
        app.screen().note("token:");
    }
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    let token = line.trim();
    if read.is_err() || token.is_empty() {
        let hint = "paste it, pipe it in, or set ROTA_TOKEN";
        return Err(Trouble::usage("no token was given").hint(hint));
    }
    Ok(token.to_owned())
}
