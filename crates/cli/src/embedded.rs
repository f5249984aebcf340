//! A server and workers inside this process, for `run` without a server and for `dev`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rota_api::ErrorCode;
use rota_client::{Client, ClientConfig};
use rota_server::{RunningServer, Server, ServerConfig, StartError};
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
}

/// A server with workers that run in this process.
pub(crate) struct Local {
    server: RunningServer,
    workers: Vec<JoinHandle<std::result::Result<(), WorkerError>>>,
    shutdown: watch::Sender<Shutdown>,
    pub(crate) client: Client,
    pub(crate) address: String,
}

impl Local {
    /// Starts everything and waits until the server answers and every worker has joined.
    pub(crate) async fn start(config: &LocalConfig) -> std::result::Result<Self, NotStarted> {
        let mut server = ServerConfig::new(config.data.join("server"));
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
        let (shutdown, told) = watch::channel(Shutdown::No);
        let count = config.workers.max(1);
        let configs = (1..=count).map(|number| worker_config(config, &address, number));
        let workers: Vec<_> =
            configs.map(|config| tokio::spawn(Worker::run(config, told.clone()))).collect();
        let mut local = Self { server, workers, shutdown, client, address };
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
            if let Some(ended) = self.workers.iter_mut().find(|worker| worker.is_finished()) {
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

    /// Tells the workers how to end; may be called again to be less patient.
    pub(crate) fn tell(&self, shutdown: Shutdown) {
        self.shutdown.send_replace(shutdown);
    }

    /// Waits until the workers have ended.
    pub(crate) async fn workers_ended(&mut self) {
        for worker in &mut self.workers {
            if !worker.is_finished() {
                // Whatever it ends with, it has ended.
                worker.await.ok();
            }
        }
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

/// One of the workers that share this machine.
fn worker_config(config: &LocalConfig, address: &str, number: u32) -> WorkerConfig {
    let mut worker = WorkerConfig::new(address, config.data.join(format!("worker-{number}")));
    let whole = config.capacity.clone().unwrap_or(worker.capacity);
    let share = u64::from(config.workers.max(1));
    worker.capacity = Resources::new(whole.cpu_millis / share, whole.memory_bytes / share);
    worker.capacity.named = whole.named;
    worker.advertised_server = Some(address.to_owned());
    if config.workers > 1 {
        worker.name = format!("{}-{number}", worker.name);
    }
    worker
}

/// Why the server did not start, for people.
pub(crate) fn not_started(error: &StartError) -> Trouble {
    let text = error.to_string();
    let (message, hint) = text.split_once("; ").unwrap_or((&text, ""));
    let trouble = Trouble::new(ErrorCode::StartFailed, message);
    if hint.is_empty() { trouble } else { trouble.hint(hint) }
}
