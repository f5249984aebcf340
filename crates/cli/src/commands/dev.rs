//! `rota dev`: a server with workers on this machine, until Ctrl-C.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use rota_api::ErrorCode;
use rota_worker::Shutdown;

use super::App;
use crate::commands::run::interrupt;
use crate::embedded::{KEPT_BYTES, Local, LocalConfig, NotStarted};
use crate::trouble::{Result, Trouble};

/// `rota dev`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota dev
  rota dev --workers 3 --data /tmp/rota
  rota dev --listen 127.0.0.1:0 -o json       prints the address it got
  rota dev --servers 3 --workers 4            a whole cluster: kill a server and watch

The first Ctrl-C drains: nothing new starts, what runs may finish. The second one stops it at once.
What was submitted is kept in the data directory and goes on at the next start.")]
pub(crate) struct DevArgs {
    /// Where everything is kept
    #[arg(long, value_name = "DIR", default_value = ".rota")]
    pub(crate) data: PathBuf,
    /// How many servers to start, each a process of its own; they listen on one port behind the other
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=7))]
    pub(crate) servers: u16,
    /// How the servers agree
    #[arg(long, value_name = "LOG", value_enum, default_value_t = Log::Raft)]
    pub(crate) log: Log,
    /// How many workers share this machine
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) workers: u32,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7600")]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) capacity: super::worker::CapacityArgs,
}

/// How servers agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Log {
    /// Raft
    Raft,
    /// Multi-Paxos
    Paxos,
}

impl Log {
    /// Its name in files.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Raft => "raft",
            Self::Paxos => "paxos",
        }
    }
}

/// Runs server and workers until told to stop.
pub(crate) async fn dev(app: &App, args: DevArgs) -> Result<u8> {
    if args.servers > 1 {
        return super::dev_cluster::run(app, &args).await;
    }
    let config = LocalConfig {
        data: args.data.clone(),
        listen: args.listen,
        workers: args.workers,
        capacity: args.capacity.apply_to_machine()?,
        kept_bytes: KEPT_BYTES,
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
    tokio::select! {
        () = interrupt() => {}
        () = local.failed() => {
            local.stop(Shutdown::Stop).await;
            let message = "the server or a worker has ended by itself; what it said is above";
            return Err(Trouble::new(ErrorCode::StartFailed, message));
        }
    }
    app.screen().remark("draining: what runs may finish; Ctrl-C again stops it");
    local.tell(Shutdown::Drain);
    tokio::select! {
        () = local.workers_ended() => {}
        () = interrupt() => app.screen().remark("stopping"),
    }
    local.stop(Shutdown::Stop).await;
    Ok(0)
}
