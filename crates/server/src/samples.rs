//! What servers have made of the same log: equal prefixes of the log give equal states (invariant I7), so whoever has another one is wrong.
//!
//! The first entry of every few seconds of the log's own time is where all servers look: the log tells each of them the same. Who finds that a
//! majority has something else takes itself out before it can lead, or answer anybody, with what is wrong.

use std::collections::BTreeMap;

use rota_core::State;
use rota_types::{LogIndex, ServerId, Span, Steady, Timestamp};

/// How often a sample is taken, in the log's steady time.
const EVERY: Span = Span::from_secs(5);
/// Entries that are older are not looked at: they are caught up on, and nobody else has them any more.
const AGE_MAX: Span = Span::from_secs(60);
/// How many entries are remembered.
const KEPT: usize = 32;

/// What this server and the others have said.
#[derive(Debug)]
pub(crate) struct Samples {
    /// The number of the period that the last entry was in.
    period: u64,
    told: BTreeMap<LogIndex, BTreeMap<ServerId, u64>>,
}

/// What follows from that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// Nobody has said anything else.
    Agrees,
    /// Somebody has, but not a majority.
    Unclear(ServerId),
    /// A majority has.
    Differs,
}

impl Samples {
    /// For a state that begins at `steady`.
    pub(crate) fn new(steady: Steady) -> Self {
        Self { period: period(steady), told: BTreeMap::new() }
    }

    /// Whether a sample is due at the state's entry.
    pub(crate) fn is_due(&mut self, state: &State, wall: Timestamp) -> bool {
        let now = period(state.steady());
        let begins = std::mem::replace(&mut self.period, now) != now;
        begins && wall.0.saturating_sub(state.now().0) <= AGE_MAX.micros()
    }

    /// Notes what a server has made of the log up to this entry.
    pub(crate) fn note(&mut self, index: LogIndex, server: ServerId, digest: u64) {
        self.told.entry(index).or_default().insert(server, digest);
        while self.told.len() > KEPT {
            self.told.pop_first();
        }
    }

    /// What follows for this server.
    pub(crate) fn judge(&self, index: LogIndex, own: ServerId, voters: &[ServerId]) -> Judgement {
        let Some(told) = self.told.get(&index) else { return Judgement::Agrees };
        let Some(mine) = told.get(&own) else { return Judgement::Agrees };
        let others: Vec<(ServerId, u64)> = voters
            .iter()
            .filter_map(|id| told.get(id).map(|digest| (*id, *digest)))
            .filter(|(_, digest)| digest != mine)
            .collect();
        let agree = |digest: u64| others.iter().filter(|(_, other)| *other == digest).count();
        match others.first() {
            None => Judgement::Agrees,
            Some(_) if others.iter().any(|(_, digest)| agree(*digest) > voters.len() / 2) => {
                Judgement::Differs
            }
            Some((other, _)) => Judgement::Unclear(*other),
        }
    }
}

fn period(steady: Steady) -> u64 {
    steady.0 / EVERY.micros()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(digests: &[(u64, u64)], voters: u64) -> Judgement {
        let mut samples = Samples::new(Steady(0));
        for (server, digest) in digests {
            samples.note(LogIndex(7), ServerId(*server), *digest);
        }
        let voters: Vec<ServerId> = (1..=voters).map(ServerId).collect();
        samples.judge(LogIndex(7), ServerId(1), &voters)
    }

    #[test]
    fn one_is_wrong_when_a_majority_agrees_on_something_else() {
        let unclear = |id| Judgement::Unclear(ServerId(id));
        assert_eq!(judge(&[], 3), Judgement::Agrees);
        assert_eq!(judge(&[(2, 9), (3, 9)], 3), Judgement::Agrees, "has nothing to compare yet");
        assert_eq!(judge(&[(1, 8), (2, 8), (3, 9)], 3), unclear(3));
        assert_eq!(judge(&[(1, 8), (2, 9)], 3), unclear(2));
        assert_eq!(judge(&[(1, 8), (2, 9), (3, 9)], 3), Judgement::Differs);
        assert_eq!(judge(&[(1, 8), (2, 9), (3, 7)], 3), unclear(2));
        assert_eq!(judge(&[(1, 8), (2, 9)], 2), unclear(2));
        assert_eq!(judge(&[(1, 8), (2, 9), (3, 9)], 5), unclear(2));
        assert_eq!(judge(&[(1, 8), (2, 9), (3, 9), (4, 9)], 5), Judgement::Differs);
        assert_eq!(judge(&[(1, 8), (8, 9), (9, 9)], 3), Judgement::Agrees, "they do not vote");
    }

    #[test]
    fn only_so_many_entries_are_remembered() {
        let mut samples = Samples::new(Steady(0));
        for index in 0..=KEPT as u64 {
            samples.note(LogIndex(index), ServerId(1), 0);
        }
        assert_eq!(samples.told.len(), KEPT);
        assert!(!samples.told.contains_key(&LogIndex(0)));
    }
}
