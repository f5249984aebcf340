//! A server and workers inside this process, for `run` without a server and for `dev`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rota_api::ErrorCode;
use rota_client::{Client, ClientConfig};
use rota_identity::IdentityDir;
use rota_server::{Out, RunningServer, Server, ServerConfig, StartError};
use rota_types::Resources;
use rota_worker::{Shutdown, Worker, WorkerConfig, WorkerError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::trouble::{Result, Trouble};

/// How long the server may take until it answers.
const READY_MAX: Duration = Duration::from_secs(60);

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct LocalConfig {
    /// Holds what server and workers store, in directories of their own.
    pub(crate) data: PathBuf,
    pub(crate) listen: SocketAddr,
    /// How many workers share this machine.
    pub(crate) workers: u32,
    /// What all workers together offer, if not everything this machine has.
    pub(crate) capacity: Option<Resources>,
    /// Bytes of output that are kept of attempts that are over.
    pub(crate) kept_bytes: u64,
}

/// More than any output has.
pub(crate) const WHOLE_BYTES: u64 = 1 << 50;
/// What a worker that goes on for long keeps of attempts that are over.
pub(crate) const KEPT_BYTES: u64 = 1 << 30;

/// A server with workers that run in this process.
pub(crate) struct Local {
    server: RunningServer,
    workers: Workers,
    pub(crate) client: Client,
    pub(crate) address: String,
}

impl Local {
    /// Starts everything and waits until the server answers and every worker has joined.
    pub(crate) async fn start(config: &LocalConfig) -> std::result::Result<Self, NotStarted> {
        let mut server = ServerConfig::new(config.data.join("server"));
        if IdentityDir::below(&server.data_dir).exists() {
            let message =
                format!("{} belongs to a server with an identity", server.data_dir.display());
            let hint = "start it with `rota server`, and name it with --server; or work elsewhere";
            return Err(NotStarted::Other(
                Trouble::new(ErrorCode::StartFailed, message).hint(hint),
            ));
        }
        server.listen = config.listen;
        let server = Server::start(server).await?;
        let address = format!("http://{}", server.address());
        let client = Client::new(&ClientConfig {
            servers: vec![address.clone()],
            timeout: Duration::from_secs(30),
            retry: true,
            submitter: crate::config::user(),
            access: rota_client::Access::default(),
        })?;
        let count = config.workers.max(1);
        let servers = [address.clone()];
        let offered = (config.capacity.clone(), config.kept_bytes);
        let workers = Workers::start(&config.data, &servers, count, offered);
        let mut local = Self { server, workers, client, address };
        match local.joined(count).await {
            Ok(()) => Ok(local),
            Err(trouble) => {
                local.stop(Shutdown::Stop).await;
                Err(NotStarted::Other(trouble))
            }
        }
    }

    /// Waits until the server is ready and this many workers have a session.
    async fn joined(&mut self, count: u32) -> Result<()> {
        let deadline = tokio::time::Instant::now() + READY_MAX;
        loop {
            if let Some(ended) = self.workers.tasks.iter_mut().find(|worker| worker.is_finished()) {
                let reason = match ended.await {
                    Ok(Err(error)) => error.to_string(),
                    Ok(Ok(())) => "the worker ended".to_owned(),
                    Err(error) => error.to_string(),
                };
                return Err(Trouble::new(ErrorCode::StartFailed, reason));
            }
            match self.client.ready().await {
                Ok(health) if health.nodes_connected >= u64::from(count) => return Ok(()),
                Ok(_) | Err(_) if tokio::time::Instant::now() < deadline => {}
                Ok(_) => {
                    return Err(Trouble::new(
                        ErrorCode::StartFailed,
                        "the workers did not join in time",
                    ));
                }
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until something has ended by itself.
    pub(crate) async fn failed(&mut self) {
        tokio::select! {
            _ = self.server.wait() => {}
            () = self.workers.any_ended() => {}
        }
    }

    /// Tells the workers how to end; may be called again to be less patient.
    pub(crate) fn tell(&self, shutdown: Shutdown) {
        self.workers.tell(shutdown);
    }

    /// Waits until the workers have ended.
    pub(crate) async fn workers_ended(&mut self) {
        self.workers.ended().await;
    }

    /// Ends the workers, then the server.
    pub(crate) async fn stop(mut self, shutdown: Shutdown) {
        self.tell(shutdown);
        self.workers_ended().await;
        self.server.shutdown().await;
    }
}

/// Nothing was started.
pub(crate) enum NotStarted {
    /// The data directory can't be used; another process may use it.
    Data(Trouble),
    /// Something else is wrong.
    Other(Trouble),
}

impl NotStarted {
    /// What to tell people.
    pub(crate) fn trouble(self) -> Trouble {
        match self {
            Self::Data(trouble) | Self::Other(trouble) => trouble,
        }
    }
}

impl From<StartError> for NotStarted {
    fn from(error: StartError) -> Self {
        let trouble = not_started(&error);
        if matches!(error, StartError::Data { .. }) {
            Self::Data(trouble)
        } else {
            Self::Other(trouble)
        }
    }
}

impl From<rota_client::Error> for NotStarted {
    fn from(error: rota_client::Error) -> Self {
        Self::Other(error.into())
    }
}

/// Workers that run in this process and share this machine.
pub(crate) struct Workers {
    tasks: Vec<JoinHandle<std::result::Result<(), WorkerError>>>,
    shutdown: watch::Sender<Shutdown>,
}

impl Workers {
    /// Starts `count` workers of these servers. Together they offer `capacity`, or everything this machine has, and each keeps so many bytes of output of
    /// attempts that are over.
    pub(crate) fn start(
        data: &Path,
        servers: &[String],
        count: u32,
        (capacity, kept_bytes): (Option<Resources>, u64),
    ) -> Self {
        let (shutdown, told) = watch::channel(Shutdown::No);
        let start = |number| {
            let mut config = WorkerConfig::new("", data.join(format!("worker-{number}")));
            config.servers = servers.to_vec();
            config.advertised_server = Some(servers.join(","));
            // On one's own machine nothing is cut out of the middle: `run` passes output through whole.
            config.output.head_bytes = WHOLE_BYTES;
            config.output.total_bytes = kept_bytes;
            let whole = capacity.clone().unwrap_or(config.capacity);
            let share = u64::from(count.max(1));
            config.capacity = Resources::new(whole.cpu_millis / share, whole.memory_bytes / share);
            config.capacity.named = whole.named;
            if count > 1 {
                config.name = format!("{}-{number}", config.name);
            }
            tokio::spawn(Worker::run(config, told.clone()))
        };
        Self { tasks: (1..=count).map(start).collect(), shutdown }
    }

    /// Tells them how to end; may be called again to be less patient.
    pub(crate) fn tell(&self, shutdown: Shutdown) {
        self.shutdown.send_replace(shutdown);
    }

    /// Waits until one of them has ended.
    pub(crate) async fn any_ended(&mut self) {
        futures_util::future::select_all(&mut self.tasks).await.0.ok();
    }

    /// Waits until they have ended.
    pub(crate) async fn ended(&mut self) {
        for worker in &mut self.tasks {
            if !worker.is_finished() {
                // Whatever it ends with, it has ended.
                worker.await.ok();
            }
        }
    }
}

/// Why a server must not take part in its cluster, for people.
pub(crate) fn put_out(out: &Out) -> Trouble {
    Trouble::new(ErrorCode::PutOut, out.to_string()).hint(out.hint())
}

/// Why the server did not start, for people.
pub(crate) fn not_started(error: &StartError) -> Trouble {
    if let StartError::Out(out) = error {
        return put_out(out);
    }
    let text = error.to_string();
    let (message, hint) = text.split_once("; ").unwrap_or((&text, ""));
    let trouble = Trouble::new(ErrorCode::StartFailed, message);
    if hint.is_empty() { trouble } else { trouble.hint(hint) }
}
