//! Start-up and shutdown: recover, rebuild, listen; then the reverse.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use rota_control::Controller;
use rota_core::State;
use rota_store::disk::{DirLock, Disk, FsDisk};
use rota_store::history::{HISTORY_FILE, History, HistoryOptions, Retention};
use rota_store::recover::{Options, Recovered};
use rota_store::solo::{SoloLimits, SoloLog};
use rota_store::wal::WalOptions;
use rota_store::writer::LogWriter;
use rota_store::{ClusterId, Identity, StoreError, recover};
use rota_types::{LogIndex, ServerId};
use tokio::net::TcpSocket;
use tokio::sync::{Semaphore, oneshot, watch};
use tracing::{info, warn};

use crate::config::{OnFatal, ServerConfig, StartError};
use crate::core_thread::{CoreThread, Parts};
use crate::disk_space::DiskSpace;
use crate::gateway::{Gateway, Outputs};
use crate::handle::{Core, Request};
use crate::rest::{self, App, RequestIds, Shared};
use crate::ring::Ring;
use crate::snapshots::{Files, Snapshots};
use crate::{history, listen};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1_024;
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
    core_thread: Option<JoinHandle<()>>,
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
        let (stop, stopped) = watch::channel(false);
        let opening = config.clone();
        let ended = stop.clone();
        let opened = tokio::task::spawn_blocking(move || open(&opening, ended))
            .await
            .map_err(|error| StartError::recover(&config.data_dir, error))??;
        let Opened { core, history, ring, thread } = opened;
        let listener = socket.listen(BACKLOG).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let outputs = Arc::new(Outputs::default());
        let gateway = Gateway {
            core: core.clone(),
            outputs: Arc::clone(&outputs),
            lease: config.lease,
            heartbeat: config.heartbeat(),
            stop: stopped.clone(),
            sessions: AtomicU64::new(1),
        };
        let (routes, openapi, _) = rest::describe(gateway);
        let history = history::History(Arc::downgrade(&history));
        let app = App(Arc::new(Shared {
            core: core.clone(),
            ring,
            history: history.clone(),
            outputs,
            hosts: config.hosts.clone(),
            request_ids: RequestIds::new(draw() as u32),
            space: DiskSpace::new(config.data_dir.clone(), config.disk_reserve_bytes),
            followers: Arc::new(Semaphore::new(rest::FOLLOWERS_MAX)),
            stop: stopped.clone(),
            openapi: openapi.to_json().unwrap_or_default().into(),
            docs: rest::render_docs(&openapi).into(),
            config: config.clone(),
        }));
        let router = rest::router(routes, &app);
        let retention =
            Retention { jobs_max: config.history_jobs_max, age_max: config.history_age_max };
        tokio::spawn(history.prune(retention, stopped.clone()));
        let serving = tokio::spawn(listen::serve(listener, router, stopped));
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

    /// Waits until it has ended by itself, which it only does when it can't go on.
    pub async fn wait(&mut self) {
        if let Some(serving) = &mut self.serving {
            drop(serving.await);
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

/// Takes the address without listening yet. Until the state is recovered, workers are refused rather than left without an answer:
/// that tells them that nobody can take their tasks away meanwhile.
fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// What recovery leaves behind.
struct Opened {
    core: Core,
    history: Arc<History>,
    ring: Arc<Ring>,
    thread: JoinHandle<()>,
}

/// Opens the directory.
fn open(config: &ServerConfig, ended: watch::Sender<bool>) -> Result<Opened, StartError> {
    let disk = FsDisk::open(&config.data_dir).map_err(|error| unusable(config, error))?;
    open_on(Arc::new(disk), config, ended)
}

/// Recovers what is on the disk and starts the threads that own it. `ended` is told when the core thread has ended.
fn open_on(
    disk: Arc<dyn Disk>,
    config: &ServerConfig,
    ended: watch::Sender<bool>,
) -> Result<Opened, StartError> {
    let on_fatal = on_fatal(config);
    let recovered = recover::recover(&disk, &options()).map_err(|error| unusable(config, error))?;
    for note in &recovered.notes {
        warn!("{note}");
    }
    let history = open_history(config, &recovered.identity, &on_fatal)?;
    let (state, log_bytes) = replay(config, &recovered, &history)?;
    let Recovered { identity, wal, lock, .. } = recovered;
    info!(index = %state.index(), jobs = state.job_count(), "recovered");
    let history = Arc::new(history);
    let (core, requests) = Core::new(state.index());
    let ring = Arc::new(Ring::new(state.index(), config.events_kept_max));
    let files = Files {
        disk,
        identity,
        reader: wal.reader(),
        history: Arc::clone(&history),
        core: core.clone(),
    };
    let last = wal.last_index();
    let log_writer = log_writer(wal, &core)?;
    let parts = Parts {
        controller: Controller::new(&state, config.lease),
        state,
        log: Box::new(SoloLog::new(last, SoloLimits::default())),
        log_writer,
        core: core.clone(),
        ring: Arc::clone(&ring),
        history: Arc::clone(&history),
        snapshots: Snapshots::new(files, config.snapshot_log_bytes, log_bytes),
        on_fatal,
    };
    let thread = std::thread::Builder::new()
        .name("core".to_owned())
        .spawn(move || {
            // Held until everything of the directory is closed.
            let _lock: DirLock = lock;
            CoreThread::new(parts).run(&requests);
            ended.send_replace(true);
        })
        .map_err(StartError::Thread)?;
    Ok(Opened { core, history, ring, thread })
}

fn options() -> Options {
    let mut cluster = [0; 16];
    for (half, bytes) in cluster.chunks_mut(8).zip([draw(), draw()]) {
        half.copy_from_slice(&bytes.to_le_bytes());
    }
    let fresh = Identity { cluster: ClusterId(cluster), server: ServerId(1) };
    Options { fresh, cluster: None, server: None, wal: WalOptions::default() }
}

fn open_history(
    config: &ServerConfig,
    identity: &Identity,
    on_fatal: &OnFatal,
) -> Result<History, StartError> {
    let path = config.data_dir.join(HISTORY_FILE);
    let on_fatal = Arc::clone(on_fatal);
    let failed =
        move |error: StoreError| on_fatal(&format!("the history can't be written: {error}"));
    History::open(&path, identity, HistoryOptions::default(), failed)
        .map_err(|error| unusable(config, error))
}

/// Applies the log behind the snapshot, feeding the history with what it has not stored. Also answers how many bytes that were.
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
        let (ended, mut stopped) = watch::channel(false);
        let opened = open_on(Arc::new(disk.clone()), &config, ended).unwrap();
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
        let (ended, _stopped) = watch::channel(false);
        let opened = open_on(Arc::new(disk.after_kill()), &config, ended).unwrap();
        let kept = opened.core.query(|view| view.state.queue_named("kept").is_some()).await;
        assert_eq!(kept, Ok(true));
        opened.core.tell(Request::Abandon);
        opened.thread.join().unwrap();
    }
}
