//! The loop: what happened goes into the machine, what it answers is done.

mod home;
mod shell;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rota_core::command::NodeSpec;
use rota_types::Span;
use rota_wire::worker::{Leaving, hello};
use rota_worker_core::Input;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};

use crate::clock;
use crate::config::WorkerConfig;
use crate::executor::{Event, Host};
use crate::output::Outputs;
use crate::process;
use crate::servers::Servers;
use crate::session::{Connector, Link, check_address};
use home::Home;
use shell::Shell;

/// Events that are taken at once.
const EVENTS_MAX: usize = 4_096;
/// How often orphans are looked for.
const ORPHANS_EVERY: Duration = Duration::from_millis(500);
/// What attempts get between the request to stop and the kill when the worker shuts down.
const STOP_GRACE: Span = Span::from_secs(5);
/// How long a worker that has nothing left to run waits for its last reports to be settled.
const SETTLE_MAX: Duration = Duration::from_secs(3);
/// How long it waits for the server to close the session.
const GOODBYE_MAX: Duration = Duration::from_millis(500);

/// How far a worker has to shut down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shutdown {
    /// Not at all.
    #[default]
    No,
    /// Launch nothing new, finish what runs within the grace, report, go.
    Drain,
    /// Stop what runs, report, go.
    Stop,
}

/// Why a worker could not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The data directory can't be used.
    #[error("can't use the data directory {dir}: {source}")]
    Data {
        /// Which one.
        dir: String,
        /// Why.
        source: std::io::Error,
    },
    /// Another worker uses the data directory.
    #[error("another worker uses the data directory {dir}: give each worker its own")]
    InUse {
        /// Which one.
        dir: String,
    },
    /// The thread of the session can't be started.
    #[error("can't start a thread: {0}")]
    Thread(std::io::Error),
    /// An address of a server can't be used.
    #[error("can't use {address} as the address of a server: {reason}")]
    Address {
        /// Which one.
        address: String,
        /// Why.
        reason: String,
    },
    /// HTTPS can't be set up.
    #[error("can't set up HTTPS: {0}")]
    Tls(String),
    /// The server will not have this worker.
    #[error("the server refused this worker: {reason}; {remedy}")]
    Refused {
        /// Why.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
}

/// A worker.
#[derive(Clone, Copy, Debug)]
pub struct Worker;

impl Worker {
    /// Serves one node until told to shut down, or until nobody can tell it any more. Reconnects for ever; ends what it runs before it returns.
    ///
    /// A process that runs a worker becomes a subreaper: orphans of its tasks become its children, and it waits for them.
    ///
    /// The session is served by a thread of its own, which does nothing else: whatever goes on between a task's end and the next
    /// one's start costs no change of threads, and whatever may keep a thread for long can't delay a heartbeat. That runs where this
    /// is called.
    ///
    /// # Errors
    /// If the worker can't start, or if the server will not have it.
    pub async fn run(
        config: WorkerConfig,
        shutdown: watch::Receiver<Shutdown>,
    ) -> Result<(), WorkerError> {
        let (reply, answer) = oneshot::channel();
        // Dropped with this future: then the thread ends too.
        let (_wanted, unwanted) = oneshot::channel::<()>();
        let here = Handle::current();
        let thread = std::thread::Builder::new().name("session".into());
        let thread = thread.spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            let ended = runtime.map_err(WorkerError::Thread).and_then(|runtime| {
                let ended = runtime.block_on(async {
                    tokio::select! {
                        ended = Self::serve(config, shutdown, here) => ended,
                        _ = unwanted => Ok(()),
                    }
                });
                runtime.shutdown_background(); // nobody waits for a name that can't be resolved
                ended
            });
            drop(reply.send(ended));
        });
        let thread = thread.map_err(WorkerError::Thread)?;
        match answer.await {
            Ok(ended) => ended,
            Err(_) => match thread.join() {
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(()) => unreachable!("it answers unless it panics"),
            },
        }
    }

    async fn serve(
        config: WorkerConfig,
        mut shutdown: watch::Receiver<Shutdown>,
        elsewhere: Handle,
    ) -> Result<(), WorkerError> {
        for address in &config.servers {
            check_address(address, config.connector.is_some())?;
        }
        let spec = NodeSpec {
            name: config.name.as_str().into(),
            incarnation: clock::random(),
            capacity: config.capacity.clone(),
            attempts_max: config.attempts_max,
            labels: config.labels.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            runs: config.allow.kinds(),
            stages: true,
        };
        let (data_dir, configured) = (config.data_dir.clone(), config.servers.clone());
        let tls = config.connector.clone();
        let incarnation = spec.incarnation;
        let opening =
            tokio::task::spawn_blocking(move || Home::open(config, incarnation, elsewhere));
        let home = opening.await.map_err(|error| WorkerError::Tls(error.to_string()))??;
        let servers = tokio::task::spawn_blocking(move || Servers::open(&data_dir, configured));
        let servers = servers.await.map_err(|error| WorkerError::Tls(error.to_string()))?;
        let (links_in, links) = mpsc::channel(256);
        let connector = Connector {
            servers: Mutex::new(servers),
            tls,
            hello: hello(&spec),
            links: links_in,
            outputs: Outputs(Arc::clone(&home.host)),
        };
        let connecting = tokio::spawn(connector.run());
        let (events_in, events) = mpsc::unbounded_channel();
        let shell = Shell::new(Arc::clone(&home.host), events_in);
        let ended = Running { shell, links, events, leave_at: None, gave_up: false, refused: None }
            .run(&mut shutdown)
            .await;
        connecting.abort();
        ended
    }
}

/// A worker that has started.
struct Running {
    shell: Shell,
    links: mpsc::Receiver<Link>,
    events: mpsc::UnboundedReceiver<Event>,
    /// When a draining worker stops waiting: first for attempts, then for their reports to be settled.
    leave_at: Option<Instant>,
    /// Whether it has waited long enough for its reports to be settled.
    gave_up: bool,
    refused: Option<WorkerError>,
}

impl Running {
    async fn run(mut self, shutdown: &mut watch::Receiver<Shutdown>) -> Result<(), WorkerError> {
        let mut orphans = tokio::time::interval(ORPHANS_EVERY);
        orphans.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        self.obey(*shutdown.borrow_and_update());
        while !self.is_done() {
            self.hurry();
            let wake = self.shell.wake_in();
            tokio::select! {
                biased;
                changed = shutdown.changed() => {
                    let wanted = *shutdown.borrow_and_update();
                    self.obey(if changed.is_ok() { wanted } else { Shutdown::Stop });
                    if changed.is_err() {
                        return self.finish_unattended().await;
                    }
                }
                link = self.links.recv() => match link {
                    Some(link) => self.hear(link),
                    None => return self.finish_unattended().await,
                },
                taken = self.events.recv_many(&mut batch, EVENTS_MAX) => {
                    debug_assert!(taken > 0, "the shell holds a sender");
                    self.shell.observe(&mut batch);
                }
                () = pause(self.shell.report_in()) => self.shell.report(),
                () = pause(wake) => self.shell.feed(Input::Woke),
                _ = orphans.tick() => reap(&self.shell.host),
                () = pause(self.leave_at.map(|at| at.duration_since(Instant::now()))) => self.lose_patience(),
            }
        }
        self.say_goodbye().await;
        self.refused.map_or(Ok(()), Err)
    }

    /// Nobody can give orders any more, or no server will have this worker: ends what runs and goes.
    async fn finish_unattended(mut self) -> Result<(), WorkerError> {
        self.shell.feed(Input::Stop { grace: STOP_GRACE });
        let mut batch = Vec::new();
        while self.shell.machine.running().next().is_some() {
            let wake = self.shell.wake_in();
            tokio::select! {
                biased;
                _ = self.events.recv_many(&mut batch, EVENTS_MAX) => {
                    self.shell.observe(&mut batch);
                    self.shell.report();
                }
                // The lease may end before the grace does.
                () = pause(wake) => self.shell.feed(Input::Woke),
            }
        }
        self.say_goodbye().await;
        self.refused.map_or(Ok(()), Err)
    }

    fn obey(&mut self, wanted: Shutdown) {
        match wanted {
            Shutdown::No => {}
            Shutdown::Drain if self.shell.leaving == Leaving::Staying => {
                info!("draining");
                self.leave_at = Some(Instant::now() + self.shell.host.config.drain_grace);
                self.shell.feed(Input::Drain);
                self.shell.leave(Leaving::Draining);
            }
            Shutdown::Drain => {}
            Shutdown::Stop => self.stop(STOP_GRACE),
        }
    }

    fn stop(&mut self, grace: Span) {
        let grace_max = Duration::from_micros(grace.micros());
        self.leave_at = Some(Instant::now() + grace_max + SETTLE_MAX);
        self.shell.feed(Input::Stop { grace });
        self.shell.leave(Leaving::Draining);
    }

    fn hear(&mut self, link: Link) {
        match link {
            Link::Opened(session, outgoing) => self.shell.open(session, outgoing),
            Link::Closed => self.shell.close(),
            Link::ConnectionRefused(at) => self.shell.feed(Input::ConnectionRefused { at }),
            Link::Desired(desired) => self.shell.desire(desired),
            Link::HeartbeatAck(sent) => self.shell.feed(Input::HeartbeatAck { sent }),
            Link::Refused { reason, remedy } => {
                warn!(reason, remedy, "refused by the server");
                self.shell.close();
                self.refused = Some(WorkerError::Refused { reason, remedy });
                self.stop(Span::ZERO);
            }
        }
    }

    /// Whether a worker that has to go can go.
    fn is_done(&self) -> bool {
        let settled = self.shell.machine.unsettled().next().is_none();
        self.leave_at.is_some() && self.is_idle() && (settled || self.gave_up)
    }

    fn is_idle(&self) -> bool {
        self.shell.machine.running().next().is_none()
    }

    /// A worker that has to go and runs nothing waits for its last reports to be settled only, with or without a session: the server
    /// may be starting again at the same time.
    fn hurry(&mut self) {
        if let Some(at) = self.leave_at.filter(|_| self.is_idle()) {
            self.leave_at = Some(at.min(Instant::now() + SETTLE_MAX));
        }
    }

    /// The grace of a draining worker is over.
    fn lose_patience(&mut self) {
        if self.is_idle() {
            self.gave_up = true;
            self.shell.close(); // the reports stay unsettled: the server learns it from the lease
        } else {
            self.stop(STOP_GRACE);
        }
    }

    async fn say_goodbye(&mut self) {
        self.shell.leave(Leaving::Gone);
        if self.shell.is_connected() {
            self.shell.close();
            let closed = async {
                while let Some(link) = self.links.recv().await {
                    if matches!(link, Link::Closed) {
                        break;
                    }
                }
            };
            drop(tokio::time::timeout(GOODBYE_MAX, closed).await);
        }
        self.shell.tasks.shutdown().await;
    }
}

async fn pause(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// Waits for orphans, and ends those of attempts that are over.
fn reap(host: &Arc<Host>) {
    let host = Arc::clone(host);
    drop(tokio::task::spawn_blocking(move || {
        host.spool.tend();
        process::reap_orphans(&host.mark, |attempt| {
            attempt.parse().is_ok_and(|attempt| host.is_live(attempt))
        });
    }));
}
