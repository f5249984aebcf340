//! How often rare situations were reached: a simulator that never gets there proves nothing about them.

use std::collections::BTreeMap;
use std::fmt;

/// Counts of named situations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<&'static str, u64>);

/// Situations that the seeds of CI must reach, each at least once.
pub const REQUIRED: [&str; 35] = [
    "crash with unsynced entries",
    "crash loses a proposal that a client waits for",
    "crash keeps a proposal that nobody was told of",
    "restart from a snapshot",
    "restart replays entries",
    "outage longer than the lease",
    "lease runs out after a restart",
    "attempt survives an outage",
    "snapshot while attempts run",
    "snapshot restored beside the running server",
    "stale stamp",
    "repeated request answered the same",
    "idempotent retry across a crash",
    "late duplicate of a request",
    "answer lost",
    "plan partially refused",
    "plan anticipated",
    "a worker never comes back",
    "report refused",
    "report of a lost attempt refused",
    "report repeated in a new session",
    "worker comes back as a zombie",
    "worker fences itself",
    "two processes of one task under a pause",
    "attempt lost too often",
    "attempt retried after back-off",
    "attempt retried at once",
    "cancel of a running attempt",
    "cancel races the end",
    "cancel of a waiting task",
    "kill after ignored request",
    "timeout",
    "launch skipped because of a stop",
    "capacity shrinks below use",
    "node registers while it drains",
];

impl Counters {
    /// Notes that a situation was reached.
    pub fn note(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    /// Adds to a count.
    pub fn add(&mut self, what: &'static str, count: u64) {
        if count > 0 {
            let sum = self.0.entry(what).or_insert(0);
            *sum = sum.saturating_add(count);
        }
    }

    /// Adds every count of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            self.add(what, *count);
        }
    }

    /// One count.
    #[must_use]
    pub fn get(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// Required situations that were never reached.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        REQUIRED.into_iter().filter(|what| self.get(what) == 0).collect()
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, count)| writeln!(f, "{count:>10}  {what}"))
    }
}
