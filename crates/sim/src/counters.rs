//! How often rare situations were reached: a simulator that never gets there proves nothing about them.

use std::collections::BTreeMap;
use std::fmt;

/// Counts of named situations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<&'static str, u64>);

/// Situations that the seeds of the logic simulation in CI must reach, each at least once.
pub const REQUIRED: [&str; 44] = [
    "an old leader is left in its belief",
    "a server ceases to lead",
    "crash keeps a proposal that nobody was told of",
    "crash loses a proposal that was taken",
    "crash loses sight of a proposal",
    "crash of a leader",
    "crash with unsynced frames",
    "idempotent retry across a change of leader",
    "image installed",
    "lock passed on",
    "outcome unknown",
    "read answered",
    "request passed on to the leader",
    "restart from a snapshot",
    "session ran out",
    "two servers believe that they lead",
    "outage longer than the lease",
    "lease runs out after a restart",
    "attempt survives an outage",
    "snapshot while attempts run",
    "snapshot restored beside the running server",
    "repeated request answered the same",
    "late duplicate of a request",
    "answer lost",
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
    "plan partially refused",
    "plan anticipated",
];

/// Situations that the seeds of the full simulation must reach, besides.
pub const REQUIRED_FULL: [&str; 36] = [
    "a damaged server refuses to start",
    "a disk failed and its server ended",
    "a server ceases to lead",
    "all servers crash at once",
    "crash loses sight of a proposal",
    "crash of a leader",
    "crash while an image is installed",
    "crash with unsynced frames",
    "damaged server replaced",
    "idempotent retry across a change of leader",
    "image could not be had",
    "image installed",
    "leadership is handed over",
    "learner becomes a voter",
    "lease runs out",
    "lock passed on",
    "message between servers lost",
    "only a majority is mended at first",
    "outcome unknown",
    "partition: alone",
    "partition: bridge",
    "partition: chain",
    "partition: deaf",
    "partition: halves",
    "partition: mute",
    "partition: star",
    "read answered",
    "request passed on to the leader",
    "restart from a snapshot",
    "server added",
    "server removed",
    "session ran out",
    "snapshot while attempts run",
    "two servers believe that they lead",
    "worker fences itself",
    "worker is cut off together with an old leader",
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

    /// Which of these situations were never reached.
    #[must_use]
    pub fn missing(&self, required: &[&'static str]) -> Vec<&'static str> {
        required.iter().copied().filter(|what| self.get(what) == 0).collect()
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, count)| writeln!(f, "{count:>10}  {what}"))
    }
}
