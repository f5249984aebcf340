//! What the command line asks for.

use std::time::Duration;

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) length: Duration,
    pub(crate) servers: usize,
    /// `raft` or `paxos`.
    pub(crate) log: String,
    pub(crate) seed: u64,
    /// Faults of this kind only, by its name; all if it is empty.
    pub(crate) only: String,
}

/// What is to be done.
pub(crate) enum Wanted {
    /// What runs beside the other tests.
    Test,
    /// What `cargo xtask netbox` asks for, after the word `run`.
    Command(Options),
}

/// The arguments of the program: those of a test, or `run` and options.
pub(crate) fn wanted(arguments: &[String]) -> Result<Wanted, String> {
    match arguments.split_first().map(|(it, rest)| (it.as_str(), rest)) {
        Some(("run", rest)) => Options::parse(rest).map(Wanted::Command),
        _ => Ok(Wanted::Test),
    }
}

impl Default for Options {
    fn default() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seed = now.map_or(0, |now| now.as_nanos() as u64 % 1_000_000_007);
        let (log, only) = ("raft".to_owned(), String::new());
        Self { length: Duration::from_secs(180), servers: 3, log, seed, only }
    }
}

impl Options {
    /// Reads options in any order.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        for pair in arguments.chunks(2) {
            let [name, value] = pair else {
                return Err(format!("{} needs a value", pair[0]));
            };
            let number = || value.parse::<u64>().map_err(|_| format!("{name} {value}: a number"));
            match name.as_str() {
                "--minutes" => options.length = Duration::from_secs(60 * number()?),
                "--seconds" => options.length = Duration::from_secs(number()?),
                "--servers" if ["3", "5"].contains(&value.as_str()) => {
                    options.servers = number()? as usize;
                }
                "--log" if ["raft", "paxos"].contains(&value.as_str()) => {
                    options.log.clone_from(value);
                }
                "--seed" => options.seed = number()?,
                "--only" => options.only.clone_from(value),
                _ => return Err(format!("{name} {value}: {USAGE}")),
            }
        }
        Ok(options)
    }

    /// The same options as arguments.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let Self { length, servers, log, seed, only } = self;
        let (length, servers, seed) =
            (length.as_secs().to_string(), servers.to_string(), seed.to_string());
        let pairs = [("--seconds", &length), ("--servers", &servers), ("--log", log)];
        let pairs = pairs.into_iter().chain([("--seed", &seed)]);
        let pairs = pairs.chain((!only.is_empty()).then_some(("--only", only)));
        pairs.flat_map(|(name, value)| [name.to_owned(), value.clone()]).collect()
    }
}

const USAGE: &str =
    "expected --minutes M | --seconds S, --servers 3|5, --log raft|paxos, --seed S, --only KIND";
