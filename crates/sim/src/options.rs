//! What one run is made of. A seed expands to options, options print as one line, and that line replays the run.

use std::fmt;
use std::str::FromStr;

use crate::rng::Rng;

/// A kind of trouble, or of work that makes trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Fault {
    /// The server is killed and starts again.
    ServerCrash,
    /// The server stays away longer than a lease.
    LongOutage,
    /// The server's wall clock jumps, both ways.
    ClockJump,
    /// Snapshots are taken while work runs; restarts begin from them.
    Snapshot,
    /// The log refuses proposals.
    LogBusy,
    /// Answers to clients are lost, so that they ask again.
    LostAnswer,
    /// Requests arrive a second time, much later.
    LateRequest,
    /// Workers are killed; their processes die with them.
    WorkerCrash,
    /// Workers stand still, up to longer than a lease, and go on as if nothing had happened.
    WorkerPause,
    /// Workers and server can't reach each other for a while.
    Partition,
    /// Sessions break.
    SessionReset,
    /// Reports arrive late, twice and out of order.
    LateReport,
    /// Programs ignore the request to end.
    Stubborn,
    /// Programs never end by themselves.
    Endless,
    /// Programs fail.
    Failing,
    /// Programs bring their worker down.
    Poison,
    /// Nodes drain and come back.
    Drain,
    /// Queues are created, configured, paused and resumed.
    QueueChange,
    /// Queues are purged.
    Purge,
    /// Jobs and tasks are cancelled.
    Cancel,
    /// Workers come back with another capacity.
    Resize,
    /// Nodes are removed.
    RemoveNode,
    /// Workers drain, go, and come back.
    Leave,
    /// Keys, sessions and locks of the key-value store are used.
    Kv,
    /// Another server comes to lead, though the one before it may not know.
    LeaderChange,
    /// Servers stand still for a while.
    ServerPause,
    /// Servers can't reach each other, in one of several shapes; workers and clients are on one side.
    ServerPartition,
    /// Messages between servers are lost, repeated and late.
    BadLinks,
    /// Disks are slow.
    SlowDisk,
    /// Disks are full, or fail once.
    FailingDisk,
    /// Files are damaged while a server is down; such a server is replaced by a new one.
    Damage,
    /// Servers join and leave.
    Members,
}

/// A set of [`Fault`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults(u64);

/// What the servers of a run stand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// A log in the place of consensus that does what any log may do, and far more often; disks that forget nothing but what was on its way.
    Logic,
    /// One server on the real log and store, on a disk that fails.
    Solo,
    /// Raft on the real log and store, on disks and a network that fail.
    Raft,
    /// The same with Paxos.
    Paxos,
}

impl Ground {
    const ALL: [Self; 4] = [Self::Logic, Self::Solo, Self::Raft, Self::Paxos];

    const fn name(self) -> &'static str {
        match self {
            Self::Logic => "logic",
            Self::Solo => "solo",
            Self::Raft => "raft",
            Self::Paxos => "paxos",
        }
    }
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Decides everything that the other fields leave open.
    pub seed: u64,
    /// What the servers stand on.
    pub ground: Ground,
    /// How many servers there are at first.
    pub servers: u32,
    /// How many workers there are.
    pub workers: u32,
    /// How many clients there are.
    pub clients: u32,
    /// How many requests the clients make in all.
    pub requests: u32,
    /// How long faults go on, in simulated milliseconds.
    pub trouble_millis: u64,
    /// How long a silent node keeps its attempts.
    pub lease_millis: u64,
    /// The most tasks of one group.
    pub tasks_max: u32,
    /// The longest that making an entry durable takes.
    pub sync_millis: u64,
    /// What may go wrong.
    pub faults: Faults,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Self; 32] = [
        Self::ServerCrash,
        Self::LongOutage,
        Self::ClockJump,
        Self::Snapshot,
        Self::LogBusy,
        Self::LostAnswer,
        Self::LateRequest,
        Self::WorkerCrash,
        Self::WorkerPause,
        Self::Partition,
        Self::SessionReset,
        Self::LateReport,
        Self::Stubborn,
        Self::Endless,
        Self::Failing,
        Self::Poison,
        Self::Drain,
        Self::QueueChange,
        Self::Purge,
        Self::Cancel,
        Self::Resize,
        Self::RemoveNode,
        Self::Leave,
        Self::Kv,
        Self::LeaderChange,
        Self::ServerPause,
        Self::ServerPartition,
        Self::BadLinks,
        Self::SlowDisk,
        Self::FailingDisk,
        Self::Damage,
        Self::Members,
    ];

    /// The name that options print.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ServerCrash => "server-crash",
            Self::LongOutage => "long-outage",
            Self::ClockJump => "clock-jump",
            Self::Snapshot => "snapshot",
            Self::LogBusy => "log-busy",
            Self::LostAnswer => "lost-answer",
            Self::LateRequest => "late-request",
            Self::WorkerCrash => "worker-crash",
            Self::WorkerPause => "worker-pause",
            Self::Partition => "partition",
            Self::SessionReset => "session-reset",
            Self::LateReport => "late-report",
            Self::Stubborn => "stubborn",
            Self::Endless => "endless",
            Self::Failing => "failing",
            Self::Poison => "poison",
            Self::Drain => "drain",
            Self::QueueChange => "queue-change",
            Self::Purge => "purge",
            Self::Cancel => "cancel",
            Self::Resize => "resize",
            Self::RemoveNode => "remove-node",
            Self::Leave => "leave",
            Self::Kv => "kv",
            Self::LeaderChange => "leader-change",
            Self::ServerPause => "server-pause",
            Self::ServerPartition => "server-partition",
            Self::BadLinks => "bad-links",
            Self::SlowDisk => "slow-disk",
            Self::FailingDisk => "failing-disk",
            Self::Damage => "damage",
            Self::Members => "members",
        }
    }
}

impl Faults {
    /// Nothing goes wrong.
    pub const NONE: Self = Self(0);

    /// Everything may go wrong.
    #[must_use]
    pub fn all() -> Self {
        Fault::ALL.into_iter().fold(Self::NONE, Self::with)
    }

    /// The set with one kind more.
    #[must_use]
    pub const fn with(self, fault: Fault) -> Self {
        Self(self.0 | 1 << fault as u32)
    }

    /// The set with one kind less.
    #[must_use]
    pub const fn without(self, fault: Fault) -> Self {
        Self(self.0 & !(1 << fault as u32))
    }

    /// Whether the kind is in the set.
    #[must_use]
    pub const fn has(self, fault: Fault) -> bool {
        self.0 & 1 << fault as u32 != 0
    }

    /// The kinds in the set.
    pub fn iter(self) -> impl Iterator<Item = Fault> {
        Fault::ALL.into_iter().filter(move |fault| self.has(*fault))
    }
}

impl Options {
    /// Expands a seed. A twentieth of all seeds has no faults, a fifth has one kind, the rest a random subset: a run with everything
    /// at once hides what a run with two things shows.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = Rng::of(seed, 1);
        let faults = match rng.below(20) {
            0 => Faults::NONE,
            1..=4 => Faults::NONE.with(*rng.pick(&Fault::ALL)),
            _ => {
                let percent = rng.between(20, 80);
                let chosen = Fault::ALL.into_iter().filter(|_| rng.chance(percent));
                chosen.fold(Faults::NONE, Faults::with)
            }
        };
        Self {
            seed,
            ground: Ground::Logic,
            servers: *rng.pick(&[1, 1, 2, 3]),
            workers: u32::try_from(rng.between(1, 4)).unwrap_or(1),
            clients: u32::try_from(rng.between(1, 4)).unwrap_or(1),
            requests: u32::try_from(rng.between(5, 60)).unwrap_or(5),
            trouble_millis: rng.spread(5_000, 120_000),
            lease_millis: rng.between(1_000, 8_000),
            tasks_max: u32::try_from(rng.spread(1, 40)).unwrap_or(1),
            sync_millis: rng.spread(1, 200),
            faults,
        }
    }

    /// Expands a seed to a run on the real log and store.
    #[must_use]
    pub fn full(seed: u64) -> Self {
        let mut rng = Rng::of(seed, 4);
        let (ground, servers) = match rng.below(10) {
            0 => (Ground::Solo, 1),
            1..=5 => (Ground::Raft, *rng.pick(&[3, 3, 3, 5])),
            _ => (Ground::Paxos, *rng.pick(&[3, 3, 3, 5])),
        };
        let base = Self::from_seed(seed);
        Self {
            ground,
            servers,
            requests: base.requests.min(40),
            trouble_millis: rng.spread(4_000, 30_000),
            lease_millis: rng.between(1_000, 4_000),
            tasks_max: base.tasks_max.min(16),
            sync_millis: rng.spread(1, 40),
            ..base
        }
    }

    /// A seed with little time, many requests and everything that makes workers vanish: reaches in a few runs what others reach
    /// in hundreds.
    #[must_use]
    pub fn rough(seed: u64) -> Self {
        let calm = [Fault::Drain, Fault::RemoveNode, Fault::Purge, Fault::LogBusy, Fault::Resize];
        let faults = calm.into_iter().fold(Faults::all(), Faults::without);
        Self {
            workers: 4,
            clients: 6,
            requests: 90,
            trouble_millis: 60_000,
            lease_millis: 1_000,
            tasks_max: 12,
            sync_millis: 120,
            faults,
            ..Self::from_seed(seed)
        }
    }
}

impl Options {
    /// The same on the real log and store: little work, and everything that happens to servers.
    #[must_use]
    pub fn rough_full(seed: u64) -> Self {
        let calm = [
            Fault::Drain,
            Fault::RemoveNode,
            Fault::Purge,
            Fault::LogBusy,
            Fault::Resize,
            Fault::Poison,
            Fault::Endless,
            Fault::QueueChange,
            Fault::Cancel,
            Fault::WorkerCrash,
        ];
        let ground = if seed.is_multiple_of(3) { Ground::Paxos } else { Ground::Raft };
        Self {
            ground,
            servers: if seed.is_multiple_of(4) { 5 } else { 3 },
            workers: 2,
            clients: 5,
            requests: 70,
            trouble_millis: 40_000,
            lease_millis: 1_500,
            tasks_max: 3,
            sync_millis: 15,
            faults: calm.into_iter().fold(Faults::all(), Faults::without),
            ..Self::from_seed(seed)
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(Fault::name).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join("+"))
    }
}

impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::NONE);
        }
        text.split('+').try_fold(Self::NONE, |faults, name| {
            let known = Fault::ALL.into_iter().find(|fault| fault.name() == name);
            known.map(|fault| faults.with(fault)).ok_or_else(|| format!("no such fault: {name}"))
        })
    }
}

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Ground {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|ground| ground.name() == text);
        known
            .ok_or_else(|| format!("no such ground: {text}; there are logic, solo, raft and paxos"))
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            ground,
            servers,
            workers,
            clients,
            requests,
            trouble_millis,
            lease_millis,
            tasks_max,
            sync_millis,
            faults,
        } = self;
        write!(
            f,
            "seed={seed},ground={ground},servers={servers},workers={workers},clients={clients},requests={requests},trouble={trouble_millis},\
             lease={lease_millis},tasks={tasks_max},sync={sync_millis},faults={faults}"
        )
    }
}

impl FromStr for Options {
    type Err = String;

    /// Reads what [`Display`](fmt::Display) prints. What is left out comes from the seed.
    fn from_str(text: &str) -> Result<Self, String> {
        let fields: Vec<(&str, &str)> = text
            .split(',')
            .map(|field| field.split_once('=').ok_or_else(|| format!("not a field: {field}")))
            .collect::<Result<_, _>>()?;
        let number =
            |value: &str| value.parse::<u64>().map_err(|error| format!("{value}: {error}"));
        let small = |value: &str| value.parse::<u32>().map_err(|error| format!("{value}: {error}"));
        let seed = fields.iter().find(|(name, _)| *name == "seed").map_or("0", |(_, seed)| seed);
        let seed = number(seed)?;
        let ground = fields.iter().find(|(name, _)| *name == "ground");
        let ground: Ground = ground.map_or(Ok(Ground::Logic), |(_, ground)| ground.parse())?;
        let expanded = match ground {
            Ground::Logic => Self::from_seed(seed),
            Ground::Solo | Ground::Raft | Ground::Paxos => Self::full(seed),
        };
        let mut options = Self { ground, ..expanded };
        for (name, value) in fields {
            match name {
                "seed" | "ground" => {}
                "servers" => options.servers = small(value)?,
                "workers" => options.workers = small(value)?,
                "clients" => options.clients = small(value)?,
                "requests" => options.requests = small(value)?,
                "trouble" => options.trouble_millis = number(value)?,
                "lease" => options.lease_millis = number(value)?,
                "tasks" => options.tasks_max = small(value)?,
                "sync" => options.sync_millis = number(value)?,
                "faults" => options.faults = value.parse()?,
                _ => return Err(format!("no such option: {name}")),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_read_what_they_print() {
        for seed in 0..200 {
            let options = Options::from_seed(seed);
            assert_eq!(options.to_string().parse(), Ok(options));
            let full = Options::full(seed);
            assert_eq!(full.to_string().parse(), Ok(full));
        }
        assert_eq!("seed=7".parse(), Ok(Options::from_seed(7)));
        assert!("seed=7,faults=earthquake".parse::<Options>().is_err());
    }
}
