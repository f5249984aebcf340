//! Who was turned away: counted, remembered in memory, and told in the process's log; all of it within bounds, since whoever is turned away
//! decides how often.
//!
//! Kept apart from the audit of changes: what nobody has authenticated must not be able to fill the replicated log.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rota_types::Timestamp;
use tracing::warn;

use crate::clock;

/// Kinds of refusals that are remembered, by who, from where, what and why.
const KINDS_MAX: usize = 1_024;
/// Kinds from one address; what comes beyond is counted as one.
const KINDS_PER_SOURCE_MAX: usize = 32;
/// Lines that are written to the log of the process in one [`WINDOW`].
const LINES_MAX: u32 = 30;
const WINDOW: Duration = Duration::from_secs(60);
/// Bytes of each text that is remembered.
const TEXT_BYTES_MAX: usize = 200;

/// What was turned away.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    /// The address.
    pub(crate) source: String,
    /// Who it was, as far as that was proved; empty if nobody did.
    pub(crate) who: String,
    /// Method and path, or what was done instead of a request.
    pub(crate) action: String,
    /// Why: the code of the problem, or of what was wrong with the connection.
    pub(crate) code: &'static str,
}

/// One kind of refusal, and how often it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Turned {
    pub(crate) kind: Kind,
    pub(crate) count: u64,
    pub(crate) first_at: Timestamp,
    pub(crate) last_at: Timestamp,
}

/// Everybody who was turned away since the process started.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    counts: BTreeMap<&'static str, u64>,
    kinds: BTreeMap<Kind, Seen>,
    lines: Lines,
}

#[derive(Clone, Copy)]
struct Seen {
    count: u64,
    first_at: Timestamp,
    last_at: Timestamp,
}

/// How many lines may still be written.
#[derive(Default)]
struct Lines {
    since: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl Refusals {
    /// Counts and remembers a refusal.
    pub(crate) fn note(&self, from: IpAddr, who: &str, action: &str, code: &'static str) {
        let (source, who, action) = (network(from), short(who), short(action));
        let kind = Kind { source, who, action, code };
        let mut memory = self.memory();
        if let Some(left_out) = memory.lines.take(Instant::now()) {
            let Kind { source, who, action, code } = &kind;
            warn!(%source, %who, %action, %code, left_out, "turned away");
        }
        memory.note(kind, clock::wall());
    }

    /// How often each code was the reason.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.memory().counts.clone()
    }

    /// Who was turned away, the last one first.
    pub(crate) fn list(&self) -> Vec<Turned> {
        let memory = self.memory();
        let turned = memory.kinds.iter().map(|(kind, seen)| {
            let Seen { count, first_at, last_at } = *seen;
            Turned { kind: kind.clone(), count, first_at, last_at }
        });
        let mut list: Vec<Turned> = turned.collect();
        list.sort_by_key(|turned| std::cmp::Reverse(turned.last_at));
        list
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn note(&mut self, mut kind: Kind, now: Timestamp) {
        *self.counts.entry(kind.code).or_default() += 1;
        if !self.kinds.contains_key(&kind) {
            let known = self.kinds.keys().filter(|known| known.source == kind.source).count();
            if known + 1 >= KINDS_PER_SOURCE_MAX {
                (kind.who, kind.action, kind.code) = (String::new(), "and more".to_owned(), "");
            }
        }
        if !self.kinds.contains_key(&kind) && self.kinds.len() >= KINDS_MAX {
            let oldest = self.kinds.iter().min_by_key(|(_, seen)| seen.last_at);
            if let Some(oldest) = oldest.map(|(kind, _)| kind.clone()) {
                self.kinds.remove(&oldest);
            }
        }
        let seen = self.kinds.entry(kind).or_insert(Seen { count: 0, first_at: now, last_at: now });
        seen.count += 1;
        seen.last_at = seen.last_at.max(now);
    }
}

impl Lines {
    /// Whether a line may be written now; if so, how many were left out before it.
    fn take(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.duration_since(since) >= WINDOW) {
            (self.since, self.written) = (Some(now), 0);
        }
        if self.written >= LINES_MAX {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// The address as it is remembered: who has one address of version 6 has all of its network.
fn network(from: IpAddr) -> String {
    match from.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) if address.is_loopback() => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// The text as it is remembered: nobody else's line breaks get into the log.
fn short(text: &str) -> String {
    let end = (0..=text.len().min(TEXT_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end));
    let text = text.get(..end.unwrap_or(0)).unwrap_or("");
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(source: usize, action: usize) -> Kind {
        let (source, action) = (source.to_string(), action.to_string());
        Kind { source, who: String::new(), action, code: "forbidden" }
    }

    #[test]
    fn what_is_the_same_is_remembered_once_and_counted() {
        let refusals = Refusals::default();
        let from = "192.0.2.7".parse().unwrap();
        for _ in 0..3 {
            refusals.note(from, "a (x)", "GET /v1/jobs", "forbidden");
        }
        refusals.note(from, "", &"ä".repeat(TEXT_BYTES_MAX), "unauthenticated");
        assert_eq!(short("a\nb\u{1b}[2J"), "a b [2J");
        assert_eq!(refusals.counts(), [("forbidden", 3), ("unauthenticated", 1)].into());
        let mut list: Vec<(String, u64)> =
            refusals.list().into_iter().map(|turned| (turned.kind.action, turned.count)).collect();
        list.sort();
        let long = "ä".repeat(TEXT_BYTES_MAX / 2);
        assert_eq!(list, [("GET /v1/jobs".to_owned(), 3), (long, 1)]);
    }

    #[test]
    fn one_address_can_not_push_others_out_of_the_memory() {
        let mut memory = Memory::default();
        memory.note(kind(0, 0), Timestamp(1));
        for action in 1..=KINDS_PER_SOURCE_MAX - 1 {
            memory.note(kind(1, action), Timestamp(2));
            assert_eq!(memory.kinds.len(), 1 + action);
        }
        for action in 0..10 * KINDS_MAX {
            memory.note(kind(1, 1_000 + action), Timestamp(3));
        }
        // The last place of an address is for all that goes beyond.
        assert_eq!(memory.kinds.len(), 1 + KINDS_PER_SOURCE_MAX);
        let rest = memory.kinds.iter().find(|(kind, _)| kind.action == "and more").unwrap().1.count;
        assert_eq!(rest, 10 * KINDS_MAX as u64);
        assert_eq!(memory.counts["forbidden"], 1 + 31 + 10 * KINDS_MAX as u64);
    }

    #[test]
    fn the_memory_holds_as_many_kinds_as_it_may_and_forgets_the_oldest() {
        let mut memory = Memory::default();
        for source in 0..KINDS_MAX {
            memory.note(kind(source, 0), Timestamp(source as u64 + 1));
        }
        assert_eq!(memory.kinds.len(), KINDS_MAX);
        memory.note(kind(KINDS_MAX, 0), Timestamp(KINDS_MAX as u64 + 1));
        assert_eq!(memory.kinds.len(), KINDS_MAX);
        assert!(!memory.kinds.contains_key(&kind(0, 0)) && memory.kinds.contains_key(&kind(1, 0)));
    }

    #[test]
    fn the_log_gets_so_many_lines_a_minute_and_is_told_what_it_missed() {
        let mut lines = Lines::default();
        let begin = Instant::now();
        for _ in 0..LINES_MAX {
            assert_eq!(lines.take(begin), Some(0));
        }
        assert_eq!((lines.take(begin), lines.take(begin + WINDOW / 2)), (None, None));
        assert_eq!(lines.take(begin + WINDOW), Some(2));
        assert_eq!(lines.take(begin + WINDOW), Some(0));
    }

    #[test]
    fn addresses_of_one_network_are_one() {
        let told = |from: &str| network(from.parse().unwrap());
        assert_eq!(told("192.0.2.7"), "192.0.2.7");
        assert_eq!(told("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(told("::1"), "::1");
        assert_eq!(told("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
    }
}
