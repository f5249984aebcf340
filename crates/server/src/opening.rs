//! Opening the data directory: what it holds is recovered, and the threads that own it are started.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use rota_core::State;
use rota_core::server::ServerSpec;
use rota_identity::IdentityError;
use rota_ports::ReplicatedLog;
use rota_server_core::Parts;
use rota_store::disk::{DirLock, Disk, FsDisk};
use rota_store::history::{HISTORY_FILE, History, HistoryPlace};
use rota_store::recover::{Options, Recovered};
use rota_store::wal::WalOptions;
use rota_store::writer::LogWriter;
use rota_store::{StoreError, recover};
use rota_types::{LogIndex, ServerId, Timestamp};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::auth::{Secured, Tokens};
use crate::clock::Clock;
use crate::config::{ClusterConfig, OnFatal, ServerConfig, StartError};
use crate::core_thread::{CoreThread, End, Hands};
use crate::disk_space::DiskSpace;
use crate::founding;
use crate::handle::{Core, Request};
use crate::memory::{Ground, Memory};
use crate::metrics::{Launched, Metrics};
use crate::peers::{Doorkeeper, Founders, Images, Origin, Outside, Peers};
use crate::ring::Ring;
use crate::samples::Samples;
use crate::snapshots::{Files, Snapshots};
use crate::start::names;

/// Exit code of a process that can't go on.
const EXIT_FATAL: i32 = 70;

/// What recovery leaves behind.
pub(crate) struct Opened {
    pub(crate) core: Core,
    pub(crate) history: Arc<History>,
    pub(crate) ring: Arc<Ring>,
    pub(crate) origin: Origin,
    pub(crate) images: Images,
    pub(crate) doorkeeper: Doorkeeper,
    pub(crate) thread: JoinHandle<End>,
    pub(crate) secured: Option<Arc<Secured>>,
    /// When the last entry was recorded; now, if there is none.
    pub(crate) recorded_at: Timestamp,
}

/// What recovery needs.
pub(crate) struct Opening {
    pub(crate) config: ServerConfig,
    /// Where others reach this server.
    pub(crate) address: String,
    pub(crate) runtime: tokio::runtime::Handle,
    /// Told when the core thread has ended, and by whoever shuts the server down.
    pub(crate) stop: watch::Sender<bool>,
}

impl Opening {
    /// Opens the directory.
    pub(crate) fn open(&self) -> Result<Opened, StartError> {
        let config = &self.config;
        let disk = FsDisk::open(&config.data_dir).map_err(|error| unusable(config, error))?;
        self.open_on(Arc::new(disk))
    }

    /// Recovers what is on the disk and starts the threads that own it.
    fn open_on(&self, disk: Arc<dyn Disk>) -> Result<Opened, StartError> {
        let config = &self.config;
        let on_fatal = on_fatal(config);
        let (recovered, memory) = recover(config, &disk)?;
        let identity = recovered.identity;
        let place = HistoryPlace::new(&config.data_dir);
        let history = open_history(config, &place, &recovered, &on_fatal)?;
        let (founds, start) = (founding::founds(config, &recovered), recovered.start());
        let (state, log_bytes) = replay(config.cluster.is_none() || founds, &recovered, &history)
            .map_err(|reason| StartError::recover(&config.data_dir, reason))?;
        info!(index = %state.index(), jobs = state.job_count(), "recovered");
        let recorded_at =
            if state.index() == LogIndex(0) { crate::clock::wall() } else { state.now() };
        let history = Arc::new(history);
        let (core, requests) = Core::new(state.index());
        core.note_servers(&state);
        let ring = Arc::new(Ring::new(state.index(), config.events_kept_max));
        let tokens = Arc::new(Tokens::of(&state));
        let own = config.cluster.as_ref().map_or(identity, ClusterConfig::identity);
        let secured = secure(config, own.server, Arc::clone(&tokens))?;
        check_level(config, &state)?;
        check_identity(config, secured.as_deref(), &state)?;
        let images = Images {
            disk: Arc::clone(&disk),
            identity,
            own,
            history: Arc::downgrade(&history),
            reader: recovered.wal.reader(),
            place,
            core: core.clone(),
            tls: secured.as_deref().map(Secured::connector).transpose()?,
        };
        let (address, level) = (self.address.clone(), config.level);
        let origin = Origin { identity: own, address, level };
        let peers = config.cluster.is_some().then(|| self.peers(&origin, &images, &core));
        let (log, gate) = founding::open_log(config, &recovered)?;
        let doorkeeper = Doorkeeper { memory, ground: founding::ground(founds, &state), gate };
        if founds {
            self.assemble(&origin, doorkeeper.ground, &images, &core);
        }
        let Recovered { wal, lock, .. } = recovered;
        let files = Files {
            disk,
            identity,
            reader: wal.reader(),
            history: Arc::clone(&history),
            core: core.clone(),
            space: Arc::new(DiskSpace::new(config.data_dir.clone(), config.disk_reserve_bytes)),
        };
        let writer = log_writer(wal, &core)?;
        let hands = Hands {
            clock: Clock::new(),
            writer,
            peers,
            takes_part: false,
            samples: Samples::new(state.steady()),
            own: own.server,
            doorkeeper: doorkeeper.clone(),
            core: core.clone(),
            ring: Arc::clone(&ring),
            history: Arc::clone(&history),
            snapshots: Snapshots::new(files, config.snapshot_log_bytes, (start, log_bytes)),
            tokens,
            launched: Launched::default(),
            metrics: Metrics::new(),
            on_fatal: Arc::clone(&on_fatal),
            end: None,
        };
        let parts = (self.parts(&origin, state, log), hands);
        let thread = run(parts, requests, (lock, self.stop.clone()))?;
        Ok(Opened { core, history, ring, origin, images, doorkeeper, thread, secured, recorded_at })
    }

    fn parts(&self, origin: &Origin, state: State, log: Box<dyn ReplicatedLog>) -> Parts {
        let cluster = self.config.cluster.as_ref();
        let founders = cluster.into_iter().flat_map(|cluster| &cluster.founders);
        let own = ServerSpec {
            id: origin.identity.server,
            address: origin.address.as_str().into(),
            version: env!("CARGO_PKG_VERSION").into(),
            level: self.config.level,
        };
        Parts {
            state,
            lease: self.config.lease,
            log,
            own,
            configured: founders.map(|(id, at)| (*id, Arc::from(at.as_str()))).collect(),
            is_sole: cluster.is_none(),
        }
    }

    fn peers(&self, origin: &Origin, images: &Images, core: &Core) -> Arc<Peers> {
        let outside = Outside { runtime: self.runtime.clone(), stop: self.stop.subscribe() };
        Peers::new(origin.clone(), images.clone(), core.clone(), outside)
    }

    /// Looks for the other founders.
    fn assemble(&self, origin: &Origin, ground: Ground, images: &Images, core: &Core) {
        let founders = self.config.cluster.iter().flat_map(|place| place.founders.clone());
        let others = founders.filter(|(id, _)| *id != origin.identity.server).collect();
        let (origin, images, core) = (origin.clone(), images.clone(), core.clone());
        let founders = Founders { origin, others, ground, images, core };
        let mut stop = self.stop.subscribe();
        self.runtime.spawn(async move {
            tokio::select! {
                () = founders.assemble() => {}
                () = crate::stopped(&mut stop) => {}
            }
        });
    }
}

/// Refuses to let everybody in where tokens were asked for before.
fn check_identity(
    config: &ServerConfig,
    secured: Option<&Secured>,
    state: &State,
) -> Result<(), StartError> {
    if secured.is_none() && state.tokens().next().is_some() {
        return Err(StartError::IdentityGone { data: config.data_dir.clone() });
    }
    Ok(())
}

/// Opens what is on the disk, if it is this server's.
fn recover(config: &ServerConfig, disk: &Arc<dyn Disk>) -> Result<(Recovered, Memory), StartError> {
    let memory = founding::recall(config)?;
    let recovered = recover::recover(disk, &options(config));
    let recovered = recovered.map_err(|error| unusable(config, error))?;
    for note in &recovered.notes {
        warn!("{note}");
    }
    founding::check_owner(config, &recovered, &memory)?;
    Ok((recovered, memory))
}

/// Starts the core thread.
fn run(
    (parts, hands): (Parts, Hands),
    requests: mpsc::Receiver<Request>,
    (lock, stop): (DirLock, watch::Sender<bool>),
) -> Result<JoinHandle<End>, StartError> {
    let on_fatal = Arc::clone(&hands.on_fatal);
    let thread = std::thread::Builder::new().name("core".to_owned());
    let run = move || {
        // Held until everything of the directory is closed.
        let _lock = lock;
        // Whoever waits for this thread must hear of its end, also if that is a bug.
        let ran = catch_unwind(AssertUnwindSafe(|| CoreThread::new(parts, hands).run(&requests)));
        stop.send_replace(true);
        ran.unwrap_or_else(|_| {
            on_fatal("the core thread panicked, which is a bug");
            End::Failed
        })
    };
    thread.spawn(run).map_err(StartError::Thread)
}

fn options(config: &ServerConfig) -> Options {
    let fresh = config.cluster.as_ref().map_or_else(crate::restore::fresh, ClusterConfig::identity);
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

/// The state to begin with, and how many bytes of log were applied to it. In a cluster the log itself says later what of it is committed;
/// in the log of one server everything is, and the history is fed with what it has not stored.
fn replay(
    is_committed: bool,
    recovered: &Recovered,
    history: &History,
) -> Result<(State, u64), String> {
    let broken = |error: StoreError| error.to_string();
    let mut state = recovered.state().map_err(broken)?;
    let stored = history.durable_index();
    if stored < state.index() {
        return Err(format!(
            "the history ends at entry {stored}, and the snapshot at {} no longer holds what was finished in between: {HISTORY_FILE} was \
             removed, or is older than the rest",
            state.index()
        ));
    }
    if !is_committed {
        return Ok((state, 0));
    }
    if stored > recovered.wal.last_index() {
        return Err(format!("the history knows entry {stored}, which the log does not have"));
    }
    let mut entries = recovered.entries();
    for entry in entries.by_ref() {
        let entry = entry.map_err(broken)?;
        let applied = state.apply(&entry);
        history.feed(entry.index, state.now(), &applied.events);
    }
    Ok((state, entries.bytes()))
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
pub(crate) fn draw() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_u64(crate::clock::wall().0);
    hasher.finish()
}

/// Refuses what a newer version has recorded: this one would make something else of it than the other servers.
fn check_level(config: &ServerConfig, state: &State) -> Result<(), StartError> {
    if state.level() <= config.level {
        return Ok(());
    }
    let (path, level) = (config.data_dir.clone(), state.level());
    Err(StartError::TooNew { path, level, known: config.level })
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
