//! `rota server`: a server and nothing else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use rota_api::ErrorCode;
use rota_client::Access;
use rota_identity::IdentityDir;
use rota_server::{Server, ServerConfig};

use super::App;
use crate::commands::run::interrupt;
use crate::embedded::not_started;
use crate::trouble::{Result, Trouble};

/// `rota server`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota server --data /var/lib/rota
  rota server --data ./data --listen 127.0.0.1:0 -q    prints the address it got
  rota server --data /var/lib/rota --listen 0.0.0.0:7600 --host rota.example    after `rota cluster init`")]
pub(crate) struct ServerArgs {
    /// Where log, snapshots and history are kept
    #[arg(long, value_name = "DIR", default_value = ".rota/server")]
    data: PathBuf,
    /// Where to listen; loopback only unless `rota cluster init` was run on the data; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7600")]
    listen: SocketAddr,
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
    config.hosts = args.host;
    let server = Server::start(config).await.map_err(|error| not_started(&error))?;
    let dir = IdentityDir::below(&args.data);
    let (scheme, authority) =
        if dir.exists() { ("https", Some(dir.authority()?)) } else { ("http", None) };
    let reached = match server.address() {
        address if address.ip().is_unspecified() => {
            let ip: IpAddr = match address {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            };
            SocketAddr::new(ip, address.port())
        }
        address => address,
    };
    let address = format!("{scheme}://{reached}");
    let client = app.client_with(vec![address.clone()], Access { authority, token: None })?;
    if let Err(error) = client.ready().await {
        server.shutdown().await;
        return Err(Trouble::new(
            ErrorCode::StartFailed,
            format!("the server is not ready: {error}"),
        ));
    }
    let banner = format!(
        "rota {} · server ready at {address} · data in {}\n  next: rota worker --server {address}",
        env!("CARGO_PKG_VERSION"),
        args.data.display()
    );
    let data = serde_json::json!({ "address": address, "data": args.data });
    app.out.answer(&data, &address, &banner)?;
    interrupt().await;
    app.screen().remark("stopping");
    server.shutdown().await;
    Ok(0)
}
