//! What a worker is told when it starts.

use std::path::PathBuf;
use std::time::Duration;

use rota_identity::Connector;
use rota_types::{ActionKind, ActionKinds, Labels, Resources};

use crate::executor::guard::HttpPolicy;

/// How a worker is set up. [`WorkerConfig::new`] fills in what the machine offers.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Addresses of servers, such as `http://127.0.0.1:7600`. Tried in turn.
    pub servers: Vec<String>,
    /// How to reach servers whose addresses begin with `https`.
    pub connector: Option<Connector>,
    /// The node's name, unique in the cluster.
    pub name: String,
    /// What the node offers.
    pub capacity: Resources,
    /// How many attempts it runs at a time, whatever they need.
    pub attempts_max: u32,
    /// For constraints and people.
    pub labels: Labels,
    /// Where output, working directories and the worker's identity live. Only one worker at a time can use it.
    pub data_dir: PathBuf,
    /// How much output is kept.
    pub output: OutputLimits,
    /// What this worker is willing to run.
    pub allow: Allowed,
    /// Which addresses HTTP tasks may reach.
    pub http: HttpPolicy,
    /// Whether to enforce limits by cgroups where the system permits it.
    pub cgroups: bool,
    /// Whether to keep a small helper process that kills everything this worker started if the worker itself is killed.
    pub guardian: bool,
    /// How long a draining worker lets attempts run before it stops them.
    pub drain_grace: Duration,
    /// What tasks see as `ROTA_SERVER`.
    pub advertised_server: Option<String>,
}

/// How much output of an attempt is kept, per stream, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputLimits {
    /// Bytes kept from the beginning.
    pub head_bytes: u64,
    /// Bytes kept from the end.
    pub tail_bytes: u64,
    /// Bytes on disk of all attempts that are over; the oldest go first.
    pub total_bytes: u64,
    /// How long the output of an attempt that is over is kept.
    pub age: Duration,
}

/// What a worker is willing to run. The server's wish does not change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Whether command tasks run here.
    pub commands: bool,
    /// Whether HTTP tasks run here.
    pub http: bool,
    /// Whether no-op tasks run here.
    pub noop: bool,
    /// If not empty, the only programs that may be run: absolute paths, or names as tasks write them.
    pub programs: Vec<String>,
}

/// Attempts that a worker runs at a time, unless told otherwise: four per cpu, at least this many. Tasks that wait for a network
/// need no cpu, so that the cpus alone would bound them too tightly; tasks that compute are bounded by the cpus they ask for.
const ATTEMPTS_MAX_LEAST: u32 = 64;

impl WorkerConfig {
    /// A worker of `server` with everything that this machine offers: all cpus, 90 % of the memory.
    #[must_use]
    pub fn new(server: impl Into<String>, data_dir: impl Into<PathBuf>) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let cpus = u32::try_from(cpus).unwrap_or(u32::MAX);
        Self {
            servers: vec![server.into()],
            connector: None,
            name: host_name(),
            capacity: Resources::new(u64::from(cpus) * 1_000, memory_bytes() / 10 * 9),
            attempts_max: cpus.saturating_mul(4).max(ATTEMPTS_MAX_LEAST),
            labels: Labels::new(),
            data_dir: data_dir.into(),
            output: OutputLimits::default(),
            allow: Allowed::default(),
            http: HttpPolicy::default(),
            cgroups: true,
            guardian: true,
            drain_grace: Duration::from_secs(30),
            advertised_server: None,
        }
    }
}

impl Default for OutputLimits {
    fn default() -> Self {
        Self {
            head_bytes: 1 << 20,
            tail_bytes: 1 << 20,
            total_bytes: 1 << 30,
            age: Duration::from_secs(24 * 3600),
        }
    }
}

impl Default for Allowed {
    fn default() -> Self {
        Self { commands: true, http: true, noop: true, programs: Vec::new() }
    }
}

impl Allowed {
    /// What the worker tells the server: nothing else is placed here. The server does not know `programs`.
    pub(crate) fn kinds(&self) -> ActionKinds {
        let allows = |kind: &ActionKind| match kind {
            ActionKind::Command => self.commands,
            ActionKind::Http => self.http,
            ActionKind::Noop => self.noop,
        };
        ActionKind::ALL.into_iter().filter(allows).collect()
    }
}

/// The machine's own name.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The memory of this machine, or of the container that this process runs in if that is less.
fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    #[expect(clippy::useless_conversion, reason = "the field's width depends on the platform")]
    let total =
        u64::try_from(info.totalram).unwrap_or(u64::MAX).saturating_mul(info.mem_unit.into());
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    limits
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok())
        .fold(total, u64::min)
}
