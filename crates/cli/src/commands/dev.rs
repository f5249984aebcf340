//! `rota dev`: a server with workers on this machine, until Ctrl-C.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use rota_worker::Shutdown;

use super::App;
use crate::commands::run::interrupt;
use crate::embedded::{Local, LocalConfig, NotStarted};
use crate::trouble::Result;

/// `rota dev`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota dev
  rota dev --workers 3 --data /tmp/rota
  rota dev --listen 127.0.0.1:0 -o json       prints the address it got

The first Ctrl-C drains: nothing new starts, what runs may finish. The second one stops it at once.
What was submitted is kept in the data directory and goes on at the next start.")]
pub(crate) struct DevArgs {
    /// Where everything is kept
    #[arg(long, value_name = "DIR", default_value = ".rota")]
    data: PathBuf,
    /// How many workers share this machine
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: u32,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7600")]
    listen: SocketAddr,
    #[command(flatten)]
    capacity: super::worker::CapacityArgs,
}

/// Runs server and workers until told to stop.
pub(crate) async fn dev(app: &App, args: DevArgs) -> Result<u8> {
    let config = LocalConfig {
        data: args.data.clone(),
        listen: args.listen,
        workers: args.workers,
        capacity: args.capacity.apply_to_machine()?,
    };
    let mut local = Local::start(&config).await.map_err(NotStarted::trouble)?;
    let address = local.address.clone();
    let plural = if args.workers == 1 { "" } else { "s" };
    let banner = format!(
        "rota {} · ready at {address} · {} worker{plural} · data in {}\n  \
         try: rota submit -- echo hello     rota logs last     rota node ls\n  \
         stop: Ctrl-C drains, a second one stops at once",
        env!("CARGO_PKG_VERSION"),
        args.workers,
        args.data.display(),
    );
    let data =
        serde_json::json!({ "address": address, "workers": args.workers, "data": args.data });
    app.out.answer(&data, &address, &banner)?;
    interrupt().await;
    app.screen().remark("draining: what runs may finish; Ctrl-C again stops it");
    local.tell(Shutdown::Drain);
    tokio::select! {
        () = local.workers_ended() => {}
        () = interrupt() => app.screen().remark("stopping"),
    }
    local.stop(Shutdown::Stop).await;
    Ok(0)
}
