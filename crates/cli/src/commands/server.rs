//! `rota server`: a server and nothing else.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use rota_api::{AddServer, ErrorCode};
use rota_client::Access;
use rota_identity::{Fingerprint, IdentityDir};
use rota_server::{ClusterConfig, ClusterId, Ended, LogKind, RunningServer, Server, ServerConfig};
use rota_types::ServerId;

use super::App;
use crate::cluster_file;
use crate::commands::run::interrupt;
use crate::embedded::{not_started, put_out};
use crate::join_token;
use crate::trouble::{Result, Trouble};

/// `rota server`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota server --data /var/lib/rota
  rota server --data ./data --listen 127.0.0.1:0 -q    prints the address it got
  rota server --data /var/lib/rota --listen 0.0.0.0:7600 --host rota.example    after `rota cluster init`
  rota server --cluster cluster.toml --listen 127.0.0.1:7601 --data s1
  rota server --join http://127.0.0.1:7601 --listen 127.0.0.1:7604 --data s4
  rota server --join https://10.0.0.1:7600 --token @join.token --listen 10.0.0.4:7600 --data /var/lib/rota

A file for --cluster, the same on every server that founds the cluster:

  name = \"demo\"
  log = \"raft\"                  # or \"paxos\"
  [[server]]
  id = 1
  address = \"http://127.0.0.1:7601\"
  [[server]]
  id = 2
  address = \"http://127.0.0.1:7602\"
  [[server]]
  id = 3
  address = \"http://127.0.0.1:7603\"

Once it belongs to a cluster, a server needs neither --cluster nor --join any more: its data directory knows.")]
pub(crate) struct ServerArgs {
    /// Where log, snapshots and history are kept
    #[arg(long, value_name = "DIR", default_value = ".rota/server")]
    data: PathBuf,
    /// Where to listen; loopback only unless `rota cluster init` was run on the data; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7600")]
    listen: SocketAddr,
    /// Where others reach this server, if that is not http:// and the address it listens on
    #[arg(long, value_name = "URL")]
    advertise: Option<String>,
    /// Found a cluster with the servers of this file
    #[arg(long, value_name = "FILE", conflicts_with = "join")]
    cluster: Option<PathBuf>,
    /// Which server of the file this is, if its address does not tell
    #[arg(long, value_name = "NUMBER", requires = "cluster")]
    id: Option<u64>,
    /// Join the cluster that the server at this address belongs to
    #[arg(long, value_name = "URL")]
    join: Option<String>,
    /// Prove that this server may join, with a token of `rota token create --role server`; @FILE reads it from a file
    #[arg(long, value_name = "TOKEN", env = "ROTA_JOIN", hide_env_values = true)]
    token: Option<String>,
    /// How long a silent node keeps its attempts
    #[arg(long, value_name = "TIME", default_value = "10s")]
    lease: rota_api::Duration,
    /// Another name or address under which the server is reached; stands in its certificate
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
}

/// Runs a server until told to stop.
pub(crate) async fn server(app: &App, args: ServerArgs) -> Result<u8> {
    let mut config = ServerConfig::new(&args.data);
    config.listen = args.listen;
    config.lease = args.lease.0;
    config.cluster = place(app, &args).await?;
    config.hosts = args.host;
    config.advertise = args.advertise;
    config.level = level();
    let mut server = start(&config).await?;
    if let Err(trouble) = welcome(app, &config, &server).await {
        server.shutdown().await;
        return Err(trouble);
    }
    loop {
        tokio::select! {
            () = interrupt() => break,
            ended = server.wait() => match ended {
                Ended::StartAgain => {
                    app.screen().remark("starting again with another server's state");
                    server = start(&config).await?;
                }
                Ended::Out(out) => return Err(put_out(&out)),
                Ended::Failed => {
                    let message = "the server can't go on";
                    return Err(Trouble::new(ErrorCode::StartFailed, message));
                }
            },
        }
    }
    app.screen().remark("stopping");
    server.shutdown().await;
    Ok(0)
}

async fn start(config: &ServerConfig) -> Result<RunningServer> {
    Server::start(config.clone()).await.map_err(|error| not_started(&error))
}

/// Says that the server is ready, and where. One of a cluster may have to wait for the others before it can do anything.
async fn welcome(app: &App, config: &ServerConfig, server: &RunningServer) -> Result<()> {
    let dir = IdentityDir::below(&config.data_dir);
    let (scheme, authority) =
        if dir.exists() { ("https", Some(dir.authority()?)) } else { ("http", None) };
    let address = format!("{scheme}://{}", reached(server.address()));
    if config.cluster.is_none() {
        let client = app.client_with(vec![address.clone()], Access { authority, token: None })?;
        let failed = |error| format!("the server is not ready: {error}");
        let ready = client.ready().await.map_err(failed);
        ready.map_err(|message| Trouble::new(ErrorCode::StartFailed, message))?;
    }
    let part = config.cluster.as_ref().map_or_else(String::new, |place| {
        let ClusterConfig { server, log, .. } = place;
        format!(" · server {server} of cluster {} ({})", short(place), log.name())
    });
    let banner = format!(
        "rota {} · server ready at {address}{part} · data in {}\n  next: rota worker --server {address}",
        env!("CARGO_PKG_VERSION"),
        config.data_dir.display()
    );
    let data = serde_json::json!({ "address": address, "data": config.data_dir });
    app.out.answer(&data, &address, &banner)?;
    if config.listen.ip().is_unspecified() && config.hosts.is_empty() {
        app.screen().remark("others can't check this server: name it with --host NAME_OR_ADDRESS");
    }
    Ok(())
}

/// An address at which this machine reaches what listens on `address`.
fn reached(address: SocketAddr) -> SocketAddr {
    let loopback: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let ip = if address.ip().is_unspecified() { loopback } else { address.ip() };
    SocketAddr::new(ip, address.port())
}

/// The beginning of a cluster's id: enough for people.
fn short(place: &ClusterConfig) -> String {
    place.cluster.to_string().chars().take(8).collect()
}

/// The server's place in a cluster: what the data directory says, or what the flags say if it is new.
async fn place(app: &App, args: &ServerArgs) -> Result<Option<ClusterConfig>> {
    let failed =
        |message: String, hint: &str| Err(Trouble::new(ErrorCode::StartFailed, message).hint(hint));
    let data = args.data.display();
    let unusable = |error: std::io::Error| {
        Trouble::new(
            ErrorCode::StartFailed,
            format!("cannot use the data directory {data}: {error}"),
        )
    };
    let known = ClusterConfig::load(&args.data).map_err(unusable)?;
    if known.is_none() && args.join.is_some() && holds_a_server(&args.data) {
        let message = format!("{data} holds the data of a server that ran alone");
        return failed(message, "join with an empty directory");
    }
    let identity = IdentityDir::below(&args.data);
    let authority = if identity.exists() { Some(identity.fingerprint()?) } else { None };
    let wanted = match (&args.cluster, &args.join) {
        (Some(file), _) => Some(found(file, args, authority)?),
        (None, Some(server)) if known.is_none() => Some(join(app, args, server).await?),
        (None, _) => None,
    };
    let same = |known: &ClusterConfig, wanted: &ClusterConfig| {
        (known.cluster, known.server) == (wanted.cluster, wanted.server)
    };
    match (known, wanted) {
        (Some(known), Some(wanted)) if !same(&known, &wanted) => failed(
            format!(
                "{data} belongs to server {} of cluster {}, not to server {} of cluster {}",
                known.server,
                short(&known),
                wanted.server,
                short(&wanted)
            ),
            "choose another directory, or leave out --cluster to go on as that server",
        ),
        (Some(mut known), _) => {
            if known.authority.is_none() && authority.is_some() {
                known.authority = authority.map(|authority| authority.to_string());
                known.save(&args.data).map_err(unusable)?;
            }
            Ok(Some(known))
        }
        (None, Some(_)) if args.join.is_some() && holds_a_server(&args.data) => failed(
            format!("{data} holds the data of a server that ran alone"),
            "join with an empty directory, or found a cluster on this data with --cluster",
        ),
        (None, Some(wanted)) => {
            wanted.save(&args.data).map_err(unusable)?;
            Ok(Some(wanted))
        }
        (None, None) => Ok(None),
    }
}

fn holds_a_server(data: &Path) -> bool {
    data.join("identity").is_file()
}

/// The place in the cluster that the file describes and this authority vouches for.
fn found(file: &Path, args: &ServerArgs, authority: Option<Fingerprint>) -> Result<ClusterConfig> {
    let place = cluster_file::read(file, args.id, args.listen)?;
    let is_secure = |address: &String| address.starts_with("https://");
    let wrong = |message: String, hint: &str| {
        let message = format!("{}: {message}", file.display());
        Err(Trouble::new(ErrorCode::InvalidConfig, message).hint(hint))
    };
    match authority {
        Some(authority) if place.founders.values().all(is_secure) => Ok(place.under(authority)),
        Some(_) => wrong(
            format!("{} holds an identity, and addresses begin with http://", args.data.display()),
            "servers with an identity speak TLS: write https:// for every server",
        ),
        None if !place.founders.values().any(is_secure) => Ok(place),
        None => wrong(
            format!("addresses begin with https://, and {} holds no identity", args.data.display()),
            "on the first server run `rota cluster init --cluster FILE`, and do what it prints",
        ),
    }
}

/// Asks a cluster for a place in it.
async fn join(app: &App, args: &ServerArgs, server: &str) -> Result<ClusterConfig> {
    let dir = IdentityDir::below(&args.data);
    let is_secured = args.token.is_some() || dir.exists();
    let address = own_address(args, if is_secured { "https" } else { "http" })?;
    let servers = vec![server.to_owned()];
    let new = AddServer { address: address.clone(), level: Some(level()) };
    let added = match &args.token {
        Some(token) => {
            let token = join_token::read("--token", token)?;
            if dir.exists() && dir.fingerprint()? != token.authority() {
                let message =
                    format!("{} is of another cluster than the token", dir.path().display());
                let hint = "choose another data directory, or ask the right cluster for a token";
                return Err(Trouble::usage(message).hint(hint));
            }
            rota_client::join_server(&servers, &token, new, &dir).await?
        }
        None if server.starts_with("https://") && !dir.exists() => {
            let message = "that cluster takes servers with a token only";
            let hint =
                "`rota token create NAME --role server`, then give it to --token or ROTA_JOIN";
            return Err(Trouble::usage(message).hint(hint));
        }
        None => {
            let mut access = app.config.access.clone();
            if access.authority.is_none() && dir.exists() {
                access.authority = Some(dir.authority()?);
            }
            let client = app.client_with(servers, access)?;
            client.add_server(&new).await?
        }
    };
    let strange =
        || Trouble::new(ErrorCode::StartFailed, "the cluster gave an answer that makes no sense");
    let authority = if dir.exists() { Some(dir.fingerprint()?.to_string()) } else { None };
    Ok(ClusterConfig {
        cluster: ClusterId::parse(&added.cluster).ok_or_else(strange)?,
        server: ServerId(added.id),
        log: LogKind::named(&added.log).ok_or_else(strange)?,
        founders: BTreeMap::new(),
        address: Some(address),
        authority,
    })
}

/// The feature level that this version understands. In builds for tests it can be made to say another one, as an older or newer version would.
fn level() -> u32 {
    #[cfg(debug_assertions)]
    if let Some(level) = std::env::var("ROTA_TEST_LEVEL").ok().and_then(|text| text.parse().ok()) {
        return level;
    }
    rota_server::LEVEL
}

/// Where the others will reach this server.
fn own_address(args: &ServerArgs, scheme: &str) -> Result<String> {
    if let Some(address) = &args.advertise {
        return Ok(address.clone());
    }
    let usage = |message: &str| Err(Trouble::new(ErrorCode::Usage, message));
    if args.listen.port() == 0 {
        return usage("--join needs a fixed port in --listen: the others have to know it");
    }
    if args.listen.ip().is_unspecified() {
        return usage(
            "--join needs to know where others reach this server: name it with --advertise URL",
        );
    }
    Ok(format!("{scheme}://{}", args.listen))
}
