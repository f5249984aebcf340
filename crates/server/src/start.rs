//! Start-up and shutdown: recover, rebuild, listen; then the reverse.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use rota_consensus::paxos::{self, PaxosConfig, PaxosLog};
use rota_consensus::raft::{self, RaftConfig, RaftLog};
use rota_control::Controller;
use rota_core::server::ServerSpec;
use rota_core::{LEVEL, State};
use rota_identity::{IdentityError, Names};
use rota_ports::{ReplicatedLog, Store};
use rota_store::disk::{DirLock, Disk, FsDisk};
use rota_store::history::{HISTORY_FILE, History, HistoryPlace, Retention};
use rota_store::recover::{Options, Recovered};
use rota_store::solo::{SoloLimits, SoloLog};
use rota_store::wal::WalOptions;
use rota_store::writer::LogWriter;
use rota_store::{ClusterId, Identity, StoreError, recover};
use rota_types::{LogIndex, ServerId};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, oneshot, watch};
use tracing::{info, warn};

use crate::auth::{Secured, Tokens};
use crate::config::{ClusterConfig, LogKind, OnFatal, ServerConfig, StartError};
use crate::core_thread::{CoreThread, End, Parts};
use crate::disk_space::DiskSpace;
use crate::gateway::{Gateway, Outputs};
use crate::handle::{Core, Request};
use crate::history;
use crate::listen::Tls;
use crate::peers::{Images, Origin, Outside, PeerGateway, Peers};
use crate::replica::Replica;
use crate::rest::{self, App, Bodies, RequestIds, Shared};
use crate::ring::Ring;
use crate::servers::Servers;
use crate::snapshots::{Files, Snapshots};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1_024;
/// How long it may take to reach the leader.
const FORWARD_CONNECT: Duration = Duration::from_secs(1);
/// Exit code of a process that can't go on.
const EXIT_FATAL: i32 = 70;

/// Starts servers.
pub struct Server;

/// A server that runs. Dropping it ends it as if the process had been killed; [`shutdown`](Self::shutdown) ends it in order.
pub struct RunningServer {
    address: SocketAddr,
    core: Core,
    stop: watch::Sender<bool>,
    serving: Option<tokio::task::JoinHandle<()>>,
    core_thread: Option<JoinHandle<End>>,
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
        let opening = Opening {
            config: config.clone(),
            address: config.address(address),
            runtime: tokio::runtime::Handle::current(),
            stop: stop.clone(),
        };
        let opened = tokio::task::spawn_blocking(move || opening.open())
            .await
            .map_err(|error| StartError::recover(&config.data_dir, error))??;
        let Opened { core, history, ring, origin, images, thread, secured } = opened;
        let tls = secured.as_deref().map(Tls::new).transpose()?;
        let (listener, thread) = listen(socket, &core, thread).await.map_err(refused)?;
        let outputs = Arc::new(Outputs::default());
        let gateway = Gateway {
            core: core.clone(),
            outputs: Arc::clone(&outputs),
            lease: config.lease,
            heartbeat: config.heartbeat(),
            stop: stopped.clone(),
            sessions: AtomicU64::new(1),
            is_sole: config.cluster.is_none(),
        };
        let identity = origin.identity;
        let peers = PeerGateway { origin, core: core.clone(), images, stop: stopped.clone() };
        let (routes, openapi, table) = rest::describe(gateway, peers);
        let history = history::History(Arc::downgrade(&history));
        let app = App(Arc::new(Shared {
            core: core.clone(),
            ring,
            history: history.clone(),
            outputs,
            hosts: names(&config).0,
            secured: secured.clone(),
            identity,
            forwarder: forwarder(secured.as_deref())?,
            request_ids: RequestIds::new(draw() as u32),
            space: DiskSpace::new(config.data_dir.clone(), config.disk_reserve_bytes),
            followers: Arc::new(Semaphore::new(config.followers_max)),
            bodies: Bodies::default(),
            changing: tokio::sync::Mutex::default(),
            stop: stopped.clone(),
            openapi: openapi.to_json().unwrap_or_default().into(),
            docs: rest::render_docs(&openapi, &table).into(),
            config: config.clone(),
        }));
        let router = rest::router(routes, &app);
        let retention =
            Retention { jobs_max: config.history_jobs_max, age_max: config.history_age_max };
        tokio::spawn(history.prune(retention, stopped.clone()));
        if let Some(secured) = secured {
            attend(secured, &config, &core, &stopped).await;
        }
        let listening = (listener, config.connections_max);
        let serving = tokio::spawn(crate::listen::serve(listening, router, tls, stopped));
        info!(%address, "listening");
        let (serving, core_thread) = (Some(serving), Some(thread));
        Ok(RunningServer { address, core, stop, serving, core_thread })
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It can't go on.
    Failed,
    /// Another server's state has taken the place of what it had: it has to be started again, and goes on from there.
    StartAgain,
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

/// Takes the address without listening yet. Until the state is recovered, workers are refused rather than left without an answer:
/// that tells them that nobody can take their tasks away meanwhile.
fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Takes up the server's identity, if it has one.
fn secure(
    config: &ServerConfig,
    server: ServerId,
    tokens: Arc<Tokens>,
) -> Result<Option<Arc<Secured>>, IdentityError> {
    let dir = config.identity();
    if !dir.exists() {
        return Ok(None);
    }
    let mut names = names(config);
    names.0.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    names.0.sort();
    names.0.dedup();
    Secured::open(dir, server, names, tokens).map(|secured| Some(Arc::new(secured)))
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
fn names(config: &ServerConfig) -> Names {
    let mut names = config.hosts.clone();
    let advertised = config.advertise.as_ref().and_then(|url| url.parse::<http::Uri>().ok());
    names.extend(advertised.and_then(|url| url.host().map(str::to_owned)));
    if !config.listen.ip().is_unspecified() {
        names.push(config.listen.ip().to_string());
    }
    Names(names)
}

/// What recovery leaves behind.
struct Opened {
    core: Core,
    history: Arc<History>,
    ring: Arc<Ring>,
    origin: Origin,
    images: Images,
    thread: JoinHandle<End>,
    secured: Option<Arc<Secured>>,
}

/// What recovery needs.
struct Opening {
    config: ServerConfig,
    /// Where others reach this server.
    address: String,
    runtime: tokio::runtime::Handle,
    /// Told when the core thread has ended, and by whoever shuts the server down.
    stop: watch::Sender<bool>,
}

impl Opening {
    /// Opens the directory.
    fn open(&self) -> Result<Opened, StartError> {
        let config = &self.config;
        let disk = FsDisk::open(&config.data_dir).map_err(|error| unusable(config, error))?;
        self.open_on(Arc::new(disk))
    }

    /// Recovers what is on the disk and starts the threads that own it.
    fn open_on(&self, disk: Arc<dyn Disk>) -> Result<Opened, StartError> {
        let config = &self.config;
        let on_fatal = on_fatal(config);
        let options = options(config);
        let mut recovered =
            recover::recover(&disk, &options).map_err(|error| unusable(config, error))?;
        for note in &recovered.notes {
            warn!("{note}");
        }
        let identity = recovered.identity;
        let place = HistoryPlace::new(&config.data_dir);
        let history = open_history(config, &place, &recovered, &on_fatal)?;
        let (state, log_bytes) = replay(config, &recovered, &history)?;
        info!(index = %state.index(), jobs = state.job_count(), "recovered");
        let history = Arc::new(history);
        let (core, requests) = Core::new(state.index());
        let ring = Arc::new(Ring::new(state.index(), config.events_kept_max));
        let tokens = Arc::new(Tokens::of(&state));
        let secured = secure(config, identity.server, Arc::clone(&tokens))?;
        let images = Images {
            disk: Arc::clone(&disk),
            identity,
            history: Arc::downgrade(&history),
            place,
            core: core.clone(),
            tls: secured.as_deref().map(Secured::connector).transpose()?,
        };
        let origin = Origin { identity, address: self.address.clone() };
        let peers = config.cluster.is_some().then(|| self.peers(&origin, &images, &core));
        let start = recovered.start();
        let log = open_log(config, &mut recovered)?;
        let Recovered { wal, lock, .. } = recovered;
        let files = Files {
            disk,
            identity,
            reader: wal.reader(),
            history: Arc::clone(&history),
            core: core.clone(),
        };
        let writer = log_writer(wal, &core)?;
        let parts = Parts {
            tokens,
            controller: Controller::new(&state, config.lease),
            state,
            servers: servers(config, &origin, peers.clone()),
            replica: Replica::new(log, writer, peers),
            core: core.clone(),
            ring: Arc::clone(&ring),
            history: Arc::clone(&history),
            snapshots: Snapshots::new(files, config.snapshot_log_bytes, (start, log_bytes)),
            on_fatal: Arc::clone(&on_fatal),
        };
        let thread = run(parts, requests, (lock, self.stop.clone()))?;
        Ok(Opened { core, history, ring, origin, images, thread, secured })
    }

    fn peers(&self, origin: &Origin, images: &Images, core: &Core) -> Arc<Peers> {
        let outside = Outside { runtime: self.runtime.clone(), stop: self.stop.subscribe() };
        Peers::new(origin.clone(), images.clone(), core.clone(), outside)
    }
}

/// Starts the core thread.
fn run(
    parts: Parts,
    requests: mpsc::Receiver<Request>,
    (lock, stop): (DirLock, watch::Sender<bool>),
) -> Result<JoinHandle<End>, StartError> {
    let on_fatal = Arc::clone(&parts.on_fatal);
    let thread = std::thread::Builder::new().name("core".to_owned());
    let run = move || {
        // Held until everything of the directory is closed.
        let _lock = lock;
        // Whoever waits for this thread must hear of its end, also if that is a bug.
        let ran = catch_unwind(AssertUnwindSafe(|| CoreThread::new(parts).run(&requests)));
        stop.send_replace(true);
        ran.unwrap_or_else(|_| {
            on_fatal("the core thread panicked, which is a bug");
            End::Failed
        })
    };
    thread.spawn(run).map_err(StartError::Thread)
}

/// The log, behind what was recovered. In a directory that is new, a founder's log begins with who founds the cluster.
fn open_log(
    config: &ServerConfig,
    recovered: &mut Recovered,
) -> Result<Box<dyn ReplicatedLog>, StartError> {
    let Some(cluster) = &config.cluster else {
        let last = recovered.wal.last_index();
        return Ok(Box::new(SoloLog::new(last, SoloLimits::default())));
    };
    let broken = |error: StoreError| StartError::recover(&config.data_dir, error);
    let wal = &mut recovered.wal;
    let is_empty = wal.last_index() == LogIndex(0) && wal.protocol_state().is_none();
    if is_empty && !cluster.founders.is_empty() {
        let founders: Vec<ServerId> = cluster.founders.keys().copied().collect();
        let frame = match cluster.log {
            LogKind::Raft => raft::founding_frame(LogIndex(0), &founders),
            LogKind::Paxos => paxos::founding_frame(LogIndex(0), &founders),
        };
        let written = wal.append(&frame).and_then(|()| wal.sync());
        written.map_err(|error| StartError::recover(&config.data_dir, error))?;
    }
    let stored = recovered.stored().map_err(broken)?;
    let refused = |error| StartError::recover(&config.data_dir, error);
    match cluster.log {
        LogKind::Raft => {
            let log = RaftLog::new(RaftConfig::new(cluster.server, draw()), stored);
            Ok(Box::new(log.map_err(refused)?))
        }
        LogKind::Paxos => {
            let log = PaxosLog::new(PaxosConfig::new(cluster.server, draw()), stored);
            Ok(Box::new(log.map_err(refused)?))
        }
    }
}

fn servers(config: &ServerConfig, origin: &Origin, peers: Option<Arc<Peers>>) -> Servers {
    let own = ServerSpec {
        id: origin.identity.server,
        address: origin.address.as_str().into(),
        version: env!("CARGO_PKG_VERSION").into(),
        level: LEVEL,
    };
    let founders = config.cluster.iter().flat_map(|cluster| &cluster.founders);
    let addresses = founders.map(|(id, address)| (*id, Arc::from(address.as_str())));
    Servers::new(own, addresses.collect(), peers)
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

fn options(config: &ServerConfig) -> Options {
    if let Some(ClusterConfig { cluster, server, .. }) = config.cluster {
        return Options {
            fresh: Identity { cluster, server },
            cluster: Some(cluster),
            server: Some(server),
            wal: WalOptions::default(),
        };
    }
    let mut cluster = [0; 16];
    for (half, bytes) in cluster.chunks_mut(8).zip([draw(), draw()]) {
        half.copy_from_slice(&bytes.to_le_bytes());
    }
    let fresh = Identity { cluster: ClusterId(cluster), server: ServerId(1) };
    Options { fresh, cluster: None, server: None, wal: WalOptions::default() }
}

fn open_history(
    config: &ServerConfig,
    place: &HistoryPlace,
    recovered: &Recovered,
    on_fatal: &OnFatal,
) -> Result<History, StartError> {
    let on_fatal = Arc::clone(on_fatal);
    let failed =
        move |error: StoreError| on_fatal(&format!("the history can't be written: {error}"));
    place
        .open(&recovered.identity, recovered.start(), failed)
        .map_err(|error| unusable(config, error))
}

/// Applies the log behind the snapshot, feeding the history with what it has not stored. Also answers how many bytes that were. In a cluster
/// the log itself says later what of it is committed.
fn replay(
    config: &ServerConfig,
    recovered: &Recovered,
    history: &History,
) -> Result<(State, u64), StartError> {
    let broken = |error: StoreError| StartError::recover(&config.data_dir, error);
    let mut state = recovered.state().map_err(broken)?;
    let stored = history.durable_index();
    if stored < state.index() {
        let reason = format!(
            "the history ends at entry {stored}, and the snapshot at {} no longer holds what was finished in between: {HISTORY_FILE} was \
             removed, or is older than the rest",
            state.index()
        );
        return Err(StartError::recover(&config.data_dir, reason));
    }
    if config.cluster.is_some() {
        return Ok((state, 0));
    }
    if stored > recovered.wal.last_index() {
        let reason = format!("the history knows entry {stored}, which the log does not have");
        return Err(StartError::recover(&config.data_dir, reason));
    }
    let began: LogIndex = state.index();
    for entry in recovered.entries() {
        let entry = entry.map_err(broken)?;
        let applied = state.apply(&entry);
        history.feed(entry.index, state.now(), &applied.events);
    }
    // Roughly: only the distance matters, to make the next snapshot in time.
    let bytes = state.index().0.saturating_sub(began.0).saturating_mul(512);
    Ok((state, bytes))
}

fn log_writer(wal: rota_store::Wal, core: &Core) -> Result<LogWriter, StartError> {
    let (durable, fatal) = (core.clone(), core.clone());
    LogWriter::spawn(
        wal,
        move |done| durable.tell(Request::Persisted(done.frame, done.took)),
        move |error| fatal.tell(Request::LogFailed(format!("the log can't be written: {error}"))),
    )
    .map_err(StartError::Thread)
}

fn on_fatal(config: &ServerConfig) -> OnFatal {
    config.on_fatal.clone().unwrap_or_else(|| {
        Arc::new(|reason: &str| {
            eprintln!(
                "rota: {reason}\nrota: nothing more can be promised, so the process ends; what was acknowledged is on the disk. \
                 Look at the disk, then start again."
            );
            std::process::exit(EXIT_FATAL);
        })
    })
}

fn unusable(config: &ServerConfig, error: StoreError) -> StartError {
    let path = config.data_dir.clone();
    match error {
        StoreError::Io { .. } => StartError::Data {
            path,
            reason: error.to_string(),
            remedy: "check that the directory exists, is writable and has space",
        },
        StoreError::InUse { .. } | StoreError::Foreign(_) => StartError::Data {
            path,
            reason: error.to_string(),
            remedy: "each server needs a data directory of its own",
        },
        _ => StartError::recover(&path, error),
    }
}

/// A number that nobody can guess, from the seed that the standard library draws for its hash maps.
fn draw() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_u64(crate::clock::wall().0);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::{CoreError, Urgency};
    use rota_core::command::{Command, QueueSpec, Reply};
    use rota_store::mem_disk::MemDisk;
    use std::sync::mpsc;

    fn create(name: &str) -> Command {
        Command::CreateQueue(QueueSpec::named(name))
    }

    #[tokio::test]
    async fn a_failed_sync_acknowledges_nothing_more_and_ends_the_process() {
        let dir = tempfile::TempDir::new().unwrap();
        let (fatal, told) = mpsc::channel();
        let mut config = ServerConfig::new(dir.path());
        config.on_fatal = Some(Arc::new(move |reason: &str| drop(fatal.send(reason.to_owned()))));
        let disk = MemDisk::new();
        let (stop, mut stopped) = watch::channel(false);
        let runtime = tokio::runtime::Handle::current();
        let mut opening = Opening { config, address: String::new(), runtime, stop };
        let opened = opening.open_on(Arc::new(disk.clone())).unwrap();
        let done = opened.core.command(Urgency::New, create("kept")).await.unwrap();
        assert_eq!(done, (LogIndex(1), Ok(Reply::Done)));
        disk.fail_after(0, std::io::ErrorKind::Other);
        let refused = opened.core.command(Urgency::New, create("unknown")).await;
        assert_eq!(refused.err(), Some(CoreError::Stopped));
        crate::stopped(&mut stopped).await;
        let reason = told.recv().unwrap();
        assert!(reason.starts_with("the log can't be written"), "{reason}");
        assert_eq!(opened.core.query(|_| ()).await.err(), Some(CoreError::Stopped));
        opened.thread.join().unwrap();
        drop(opened.history);
        // What was acknowledged is there for the next process.
        opening.stop = watch::Sender::new(false);
        let opened = opening.open_on(Arc::new(disk.after_kill())).unwrap();
        let kept = opened.core.query(|view| view.state.queue_named("kept").is_some()).await;
        assert_eq!(kept, Ok(true));
        opened.core.tell(Request::Abandon);
        opened.thread.join().unwrap();
    }
}
