//! Start-up and shutdown: recover, rebuild, listen; then the reverse.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rota_identity::Names;
use rota_store::history::Retention;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, oneshot, watch};
use tracing::info;

use crate::auth::Secured;
use crate::config::{ServerConfig, StartError};
use crate::core_thread::End;
use crate::disk_space::DiskSpace;
use crate::gateway::{Gateway, Outputs};
use crate::handle::{Core, Request};
use crate::history;
use crate::listen::Tls;
use crate::opening::{Opened, Opening, draw};
use crate::out::Out;
use crate::peers::PeerGateway;
use crate::refusals::Refusals;
use crate::rest::{self, App, Bodies, RequestIds, Shared};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1_024;
/// How long it may take to reach the leader.
const FORWARD_CONNECT: Duration = Duration::from_secs(1);

/// Starts servers.
pub struct Server;

/// A server that runs. Dropping it ends it as if the process had been killed; [`shutdown`](Self::shutdown) ends it in order.
pub struct RunningServer {
    address: SocketAddr,
    core: Core,
    stop: watch::Sender<bool>,
    serving: Option<tokio::task::JoinHandle<()>>,
    core_thread: Option<JoinHandle<End>>,
    history: history::History,
}

impl Server {
    /// Recovers what `config.data_dir` holds, and serves. Has to be called within a Tokio runtime.
    ///
    /// # Errors
    /// If the configuration, the directory or the address can't be used; the message says what to do.
    pub async fn start(config: ServerConfig) -> Result<RunningServer, StartError> {
        config.check()?;
        let refused = |source| StartError::Listen { address: config.listen, source };
        // The port first: whoever finds it taken must not wait for a recovery.
        let socket = bind(config.listen).map_err(refused)?;
        let address = socket.local_addr().map_err(refused)?;
        let (stop, stopped) = watch::channel(false);
        let opened = recover(&config, address, stop.clone()).await?;
        let Opened {
            core,
            history,
            ring,
            origin,
            images,
            doorkeeper,
            thread,
            secured,
            recorded_at,
        } = opened;
        let tls = secured.as_deref().map(Tls::new).transpose()?;
        let (listener, thread) = listen(socket, &core, thread).await.map_err(refused)?;
        let outputs = Arc::new(Outputs::default());
        let refusals = Arc::new(Refusals::default());
        let shared = (Arc::clone(&outputs), Arc::clone(&refusals));
        let gateway = Gateway::new(&config, core.clone(), shared, stopped.clone());
        let identity = origin.identity;
        let peers = PeerGateway {
            origin,
            core: core.clone(),
            images: images.clone(),
            doorkeeper,
            refusals: Arc::clone(&refusals),
            stop: stopped.clone(),
        };
        let (routes, openapi, table) = rest::describe(gateway, peers);
        let history = history::History(Arc::downgrade(&history));
        let app = App(Arc::new(Shared {
            core: core.clone(),
            ring,
            images,
            history: history.clone(),
            outputs,
            hosts: names(&config).0,
            secured: secured.clone(),
            identity,
            forwarder: forwarder(secured.as_deref())?,
            request_ids: RequestIds::new(draw() as u32),
            space: DiskSpace::new(config.data_dir.clone(), config.disk_reserve_bytes),
            refusals: Arc::clone(&refusals),
            followers: Arc::new(Semaphore::new(config.followers_max)),
            bodies: Bodies::default(),
            names: crate::rest::events::Names::default(),
            changing: tokio::sync::Mutex::default(),
            renewals: Arc::default(),
            stop: stopped.clone(),
            openapi: openapi.to_json().unwrap_or_default().into(),
            docs: rest::render_docs(&openapi, &table).into(),
            config: config.clone(),
        }));
        let router = rest::router(routes, &app);
        tokio::spawn(history.clone().prune(retention(&config), recorded_at, stopped.clone()));
        if let Some(secured) = secured {
            attend(secured, &config, &core, &stopped).await;
        }
        let listening = (listener, config.connections_max);
        let serving =
            tokio::spawn(crate::listen::serve(listening, (router, refusals), tls, stopped));
        info!(%address, "listening");
        let (serving, core_thread) = (Some(serving), Some(thread));
        Ok(RunningServer { address, core, stop, serving, core_thread, history })
    }
}

impl RunningServer {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it in order: what was taken in is recorded and answered, connections are closed, the files are synced.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        if let Some(serving) = self.serving.take() {
            drop(serving.await);
        }
        let (reply, stopped) = oneshot::channel();
        self.core.tell(Request::Stop(reply));
        drop(stopped.await);
        if let Some(thread) = self.core_thread.take() {
            drop(tokio::task::spawn_blocking(move || thread.join()).await);
        }
        // A read may still be under way: the files are free for the next server when this returns.
        self.history.closed().await;
        info!("stopped");
    }

    /// Waits until it has ended by itself.
    pub async fn wait(&mut self) -> Ended {
        if let Some(serving) = &mut self.serving {
            drop(serving.await);
        }
        self.serving = None;
        let Some(thread) = self.core_thread.take() else { return Ended::Failed };
        match tokio::task::spawn_blocking(move || thread.join()).await {
            Ok(Ok(End::Replaced)) => Ended::StartAgain,
            Ok(Ok(End::Out(out))) => Ended::Out(out),
            Ok(Ok(End::Stopped | End::Failed) | Err(_)) | Err(_) => Ended::Failed,
        }
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(serving) = &self.serving {
            serving.abort();
        }
        if let Some(thread) = self.core_thread.take() {
            // The files are free for the next server when this returns.
            self.core.tell(Request::Abandon);
            drop(thread.join());
        }
    }
}

/// Why a server has ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It can't go on.
    Failed,
    /// It must not take part in its cluster, or not any more.
    Out(Out),
    /// Another server's state has taken the place of what it had: it has to be started again, and goes on from there.
    StartAgain,
}

/// Recovers what the data directory holds.
async fn recover(
    config: &ServerConfig,
    address: SocketAddr,
    stop: watch::Sender<bool>,
) -> Result<Opened, StartError> {
    let address = config.address(address);
    let runtime = tokio::runtime::Handle::current();
    let opening = Opening { config: config.clone(), address, runtime, stop };
    tokio::task::spawn_blocking(move || opening.open())
        .await
        .map_err(|error| StartError::recover(&config.data_dir, error))?
}

/// Listens. If that fails, the core thread is ended first: the files are free when this returns.
async fn listen(
    socket: TcpSocket,
    core: &Core,
    thread: JoinHandle<End>,
) -> io::Result<(TcpListener, JoinHandle<End>)> {
    match socket.listen(BACKLOG) {
        Ok(listener) => Ok((listener, thread)),
        Err(error) => {
            core.tell(Request::Abandon);
            drop(tokio::task::spawn_blocking(move || thread.join()).await);
            Err(error)
        }
    }
}

/// What of the past is kept.
fn retention(config: &ServerConfig) -> Retention {
    Retention { jobs_max: config.history_jobs_max, age_max: config.history_age_max }
}

/// Takes the address without listening yet. Until the state is recovered, workers are refused rather than left without an answer:
/// that tells them that nobody can take their tasks away meanwhile.
fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Lets the first administrator in, and keeps the server's certificate valid.
async fn attend(
    secured: Arc<Secured>,
    config: &ServerConfig,
    core: &Core,
    stopped: &watch::Receiver<bool>,
) {
    if config.cluster.is_none() {
        // Whoever is told that the server is ready may use the token at once.
        secured.take_in_admin_token(core).await;
    } else {
        tokio::spawn(Arc::clone(&secured).keep_taking_in(core.clone(), stopped.clone()));
    }
    tokio::spawn(secured.keep_renewed(stopped.clone()));
}

/// The names and addresses under which others reach this server.
pub(crate) fn names(config: &ServerConfig) -> Names {
    let mut names = config.hosts.clone();
    let told = config.address(config.listen).parse::<http::Uri>().ok();
    let told = told.as_ref().and_then(http::Uri::host);
    names.extend(told.map(|host| host.trim_matches(['[', ']']).to_owned()));
    names.push(config.listen.ip().to_string());
    names.retain(|name| !name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified()));
    names.sort();
    names.dedup();
    Names(names)
}

/// Passes requests on to the leader. Nothing between servers goes through a proxy.
fn forwarder(secured: Option<&Secured>) -> Result<reqwest::Client, StartError> {
    // Somebody else in this process may have installed one; any will do.
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut client = reqwest::Client::builder().no_proxy().tcp_nodelay(true);
    if let Some(secured) = secured {
        client = client.tls_backend_preconfigured(secured.client()?);
    }
    let client =
        client.connect_timeout(FORWARD_CONNECT).redirect(reqwest::redirect::Policy::none());
    client.build().map_err(|error| StartError::Thread(io::Error::other(error)))
}
