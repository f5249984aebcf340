//! `rota worker`: makes this machine a node.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;
use rota_api::{Amount, ErrorCode, Size};
use rota_identity::{Connector, Identity, IdentityDir, Peer, Reloadable};
use rota_types::{Labels, Resources};
use rota_worker::{Shutdown, Worker, WorkerConfig, known_servers};
use tokio::sync::watch;

use super::App;
use crate::commands::run::interrupt;
use crate::job_args::pair;
use crate::join_token;
use crate::trouble::{Result, Trouble};

/// What a node offers.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct CapacityArgs {
    /// Cpus to offer [default: all]
    #[arg(long, value_name = "N")]
    cpus: Option<Amount>,
    /// Memory to offer, such as 16GiB [default: 90 % of what there is]
    #[arg(long, visible_alias = "mem", value_name = "SIZE")]
    memory: Option<Size>,
    /// Another resource to offer, such as gpu=2
    #[arg(long, value_name = "NAME=N")]
    resource: Vec<String>,
}

impl CapacityArgs {
    /// Replaces what is named.
    fn apply(&self, capacity: &mut Resources) -> Result<()> {
        if let Some(cpus) = self.cpus {
            capacity.cpu_millis = cpus.0;
        }
        if let Some(memory) = self.memory {
            capacity.memory_bytes = memory.0;
        }
        for text in &self.resource {
            let (name, amount) = pair(text, "a resource", "gpu=2")?;
            let amount: Amount = amount.parse().map_err(|error: rota_api::ScalarError| {
                Trouble::usage(error.message).hint(error.hint)
            })?;
            if amount.0 > 0 {
                capacity.named.insert(name.into(), amount.0);
            }
        }
        Ok(())
    }

    /// This machine's capacity with what is named replaced; `None` if nothing is.
    pub(crate) fn apply_to_machine(&self) -> Result<Option<Resources>> {
        if self.cpus.is_none() && self.memory.is_none() && self.resource.is_empty() {
            return Ok(None);
        }
        let mut capacity = WorkerConfig::new("", "").capacity;
        self.apply(&mut capacity)?;
        Ok(Some(capacity))
    }
}

/// `rota worker`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota worker --server http://127.0.0.1:7600
  rota worker --cpus 8 --memory 32GiB --resource gpu=2 --label zone=a --label ssd
  ROTA_JOIN=rotajoin_... rota worker --server https://rota.example:7600    once; then without the token
  rota worker --name node-b --data /var/lib/rota-b --allow-network 10.0.0.0/8

The first Ctrl-C drains: nothing new starts, what runs may finish. The second one stops it at once.")]
pub(crate) struct WorkerArgs {
    /// The node's name, unique in the cluster [default: this machine's]
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    capacity: CapacityArgs,
    /// A label of the node, for requirements of tasks
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// How many attempts to run at a time, whatever they need
    #[arg(long, value_name = "N")]
    attempts_max: Option<u32>,
    /// Join a cluster with a token of `rota token create --role worker`; @FILE reads it from a file
    #[arg(long, value_name = "TOKEN", env = "ROTA_JOIN", hide_env_values = true)]
    join: Option<String>,
    /// Where output, working directories and the worker's certificate are kept
    #[arg(long, value_name = "DIR", default_value = ".rota/worker")]
    data: PathBuf,
    /// Run no programs; the server places none here
    #[arg(long)]
    no_commands: bool,
    /// Send no HTTP requests; the server places none here
    #[arg(long)]
    no_http: bool,
    /// Run only these programs; others fail here, since the server does not know the list
    #[arg(long, value_name = "PROGRAM")]
    allow_program: Vec<String>,
    /// Let HTTP tasks reach this internal network, such as 10.0.0.0/8
    #[arg(long, value_name = "NETWORK")]
    allow_network: Vec<rota_worker::Network>,
    /// Let HTTP tasks reach this host whatever its address is
    #[arg(long, value_name = "HOST")]
    allow_host: Vec<String>,
    /// Let HTTP tasks reach this port besides 80 and 443
    #[arg(long, value_name = "PORT")]
    allow_port: Vec<u16>,
    /// Don't enforce limits by cgroups
    #[arg(long)]
    no_cgroups: bool,
    /// How long a draining worker lets attempts run
    #[arg(long, value_name = "TIME", default_value = "30s")]
    drain_grace: rota_api::Duration,
}

/// Runs a worker until told to stop.
pub(crate) async fn worker(app: &App, args: WorkerArgs) -> Result<u8> {
    let identity = identify(app, &args).await?;
    let mut config = configure(app, args)?;
    if let Some(identity) = identity {
        identity.equip(&mut config)?;
    } else if config.servers.iter().any(|server| server.starts_with("https://")) {
        let message = "that server takes workers with a certificate only, and this worker has none";
        let hint =
            "get a token with `rota token create NAME --role worker` and give it to --join once";
        return Err(Trouble::usage(message).hint(hint));
    }
    let servers = config.servers.join(", ");
    let line =
        format!("rota {} · worker {} · server {servers}", env!("CARGO_PKG_VERSION"), config.name);
    let data = serde_json::json!({ "name": config.name, "servers": config.servers });
    let name = config.name.clone();
    let (shutdown, told) = watch::channel(Shutdown::No);
    let mut running = tokio::spawn(Worker::run(config, told));
    app.out.answer(&data, &name, &line)?;
    let stops = async {
        interrupt().await;
        app.screen().remark("draining: what runs may finish; Ctrl-C again stops it");
        shutdown.send_replace(Shutdown::Drain);
        interrupt().await;
        app.screen().remark("stopping");
        shutdown.send_replace(Shutdown::Stop);
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        ended = &mut running => ended,
        () = stops => unreachable!("waits for ever"),
    };
    match ended {
        Ok(Ok(())) => Ok(0),
        Ok(Err(error)) => Err(Trouble::new(ErrorCode::StartFailed, error.to_string())),
        Err(error) => Err(Trouble::new(ErrorCode::Internal, format!("the worker broke: {error}"))),
    }
}

/// How often it is looked whether the certificate has to be replaced.
const RENEW_EVERY: Duration = Duration::from_secs(3_600);

/// A worker's certificate, and where it is kept.
struct Identified {
    dir: IdentityDir,
    identity: Identity,
}

/// Takes up the worker's certificate, or gets one with the token for joining.
async fn identify(app: &App, args: &WorkerArgs) -> Result<Option<Identified>> {
    let dir = IdentityDir::below(&args.data);
    let known = if dir.exists() { Some(Identity::load(&dir)?) } else { None };
    let expired = known.as_ref().is_some_and(|known| known.expires_at() <= SystemTime::now());
    if let Some(identity) = known.filter(|_| !expired) {
        return Ok(Some(Identified { dir, identity }));
    }
    let Some(token) = &args.join else {
        if expired {
            let message = "this worker's certificate has expired";
            let hint = "join again: `rota token create NAME --role worker`, then `rota worker --join TOKEN`";
            return Err(Trouble::new(ErrorCode::InvalidConfig, message).hint(hint));
        }
        return Ok(None);
    };
    let token = join_token::read("--join", token)?;
    let name = args.name.clone().unwrap_or_else(|| WorkerConfig::new("", "").name);
    let identity = rota_client::join_worker(&app.config.servers.value, &token, &name, &dir).await?;
    app.screen().remark(&format!("joined cluster {} as {}", identity.cluster(), identity.peer()));
    Ok(Some(Identified { dir, identity }))
}

impl Identified {
    /// Lets the worker prove itself, and keeps its certificate renewed.
    fn equip(self, config: &mut WorkerConfig) -> Result<()> {
        let Self { dir, mut identity } = self;
        let Peer::Worker(name) = identity.peer().clone() else {
            let message = format!("{} holds the identity of a server", dir.path().display());
            return Err(Trouble::usage(message).hint("give the worker a --data of its own"));
        };
        config.name = name;
        for server in &mut config.servers {
            if let Some(rest) = server.strip_prefix("http://") {
                *server = format!("https://{rest}");
            }
        }
        config.advertised_server = config.servers.first().cloned();
        let shown = Reloadable::new(&identity);
        config.connector = Some(Connector::new(identity.authority(), shown.clone())?);
        let (servers, data_dir) = (config.servers.clone(), config.data_dir.clone());
        tokio::spawn(async move {
            loop {
                if identity.renew_at() <= SystemTime::now() {
                    // The one that the worker was given may be gone.
                    let servers = known_servers(&data_dir, &servers);
                    match rota_client::renew_worker(&servers, &identity, &dir).await {
                        Ok(renewed) => {
                            shown.replace(&renewed);
                            identity = renewed;
                        }
                        Err(error) => tracing::warn!(%error, "cannot renew the certificate"),
                    }
                }
                tokio::time::sleep(RENEW_EVERY).await;
            }
        });
        Ok(())
    }
}

fn configure(app: &App, args: WorkerArgs) -> Result<WorkerConfig> {
    let mut config = WorkerConfig::new("", args.data);
    config.servers = app.config.servers.value.iter().map(|server| with_scheme(server)).collect();
    config.name = args.name.unwrap_or(config.name);
    args.capacity.apply(&mut config.capacity)?;
    config.labels = labels(&args.label);
    config.attempts_max = args.attempts_max.unwrap_or(config.attempts_max);
    config.allow.commands = !args.no_commands;
    config.allow.http = !args.no_http;
    config.allow.programs = args.allow_program;
    config.http.networks = args.allow_network;
    config.http.hosts = args.allow_host;
    config.http.ports = args.allow_port;
    config.cgroups = !args.no_cgroups;
    config.drain_grace = Duration::from_micros(args.drain_grace.0.micros());
    config.advertised_server = config.servers.first().cloned();
    Ok(config)
}

fn with_scheme(server: &str) -> String {
    if server.contains("://") { server.to_owned() } else { format!("http://{server}") }
}

fn labels(texts: &[String]) -> Labels {
    let split = |text: &String| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        (Box::from(key), Box::from(value))
    };
    texts.iter().map(split).collect()
}
