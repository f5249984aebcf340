//! `rota server`: a server and nothing else.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use rota_api::{AddServer, ErrorCode};
use rota_client::Access;
use rota_identity::IdentityDir;
use rota_server::{ClusterConfig, ClusterId, Ended, LogKind, RunningServer, Server, ServerConfig};
use rota_types::ServerId;

use super::App;
use crate::cluster_file;
use crate::commands::run::interrupt;
use crate::embedded::not_started;
use crate::trouble::{Result, Trouble};

/// `rota server`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota server --data /var/lib/rota
  rota server --data ./data --listen 127.0.0.1:0 -q    prints the address it got
  rota server --data /var/lib/rota --listen 0.0.0.0:7600 --host rota.example    after `rota cluster init`
  rota server --cluster cluster.toml --listen 127.0.0.1:7601 --data s1
  rota server --join http://127.0.0.1:7601 --listen 127.0.0.1:7604 --data s4

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
    let wanted = match (&args.cluster, &args.join) {
        (Some(file), _) => Some(cluster_file::read(file, args.id, args.listen)?),
        (None, Some(server)) if known.is_none() => Some(join(app, args, server).await?),
        (None, _) => None,
    };
    match (known, wanted) {
        (Some(known), Some(wanted)) if known != wanted => failed(
            format!(
                "{data} belongs to server {} of cluster {}, not to server {} of cluster {}",
                known.server,
                short(&known),
                wanted.server,
                short(&wanted)
            ),
            "choose another directory, or leave out --cluster to go on as that server",
        ),
        (Some(known), _) => Ok(Some(known)),
        (None, Some(_)) if holds_a_server(&args.data) => failed(
            format!("{data} holds the data of a server that ran alone"),
            "found the cluster on empty directories",
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

/// Asks a cluster for a place in it.
async fn join(app: &App, args: &ServerArgs, server: &str) -> Result<ClusterConfig> {
    if args.listen.port() == 0 && args.advertise.is_none() {
        let message = "--join needs a fixed port in --listen: the others have to know it";
        return Err(Trouble::new(ErrorCode::Usage, message));
    }
    let address = args.advertise.clone().unwrap_or_else(|| format!("http://{}", args.listen));
    let client = app.client_of(vec![server.to_owned()])?;
    let added = client.add_server(&AddServer { address }).await?;
    let strange =
        || Trouble::new(ErrorCode::StartFailed, "the cluster gave an answer that makes no sense");
    Ok(ClusterConfig {
        cluster: ClusterId::parse(&added.cluster).ok_or_else(strange)?,
        server: ServerId(added.id),
        log: LogKind::named(&added.log).ok_or_else(strange)?,
        founders: BTreeMap::new(),
    })
}
