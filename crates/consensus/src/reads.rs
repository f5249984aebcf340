//! Rounds that confirm leadership: for reads, and for leases.
//!
//! All reads that were asked for since the last round share the next one. A round is known to the library by a number that is never
//! used again; an answer to a round of an earlier leadership finds nothing here, and the library has dropped it before.

use std::collections::VecDeque;

use rota_ports::ReadId;
use rota_types::LogIndex;

/// Reads that may wait for rounds.
const READS_MAX: usize = 1 << 16;

#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// Asked for since the last round began.
    asked: Vec<ReadId>,
    rounds: VecDeque<Round>,
    answered: Vec<(ReadId, LogIndex)>,
    waiting: usize,
    last: u64,
    confirmed_tick: u64,
}

#[derive(Debug)]
struct Round {
    number: u64,
    began: u64,
    reads: Vec<ReadId>,
}

impl Reads {
    /// Takes in a read; `None` if too many wait.
    pub(crate) fn ask(&mut self, read: ReadId) -> Option<()> {
        (self.waiting < READS_MAX).then_some(())?;
        self.waiting += 1;
        self.asked.push(read);
        Some(())
    }

    pub(crate) fn has_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Begins a round for all that was asked, and returns its number.
    pub(crate) fn begin(&mut self, tick: u64) -> u64 {
        self.last += 1;
        let reads = std::mem::take(&mut self.asked);
        self.rounds.push_back(Round { number: self.last, began: tick, reads });
        self.last
    }

    /// Notes that a majority answered round `number`: its reads may be served from `index` on.
    pub(crate) fn confirm(&mut self, number: u64, index: LogIndex) {
        let Some(at) = self.rounds.iter().position(|round| round.number == number) else { return };
        let Some(Round { began, reads, .. }) = self.rounds.remove(at) else { return };
        self.confirmed_tick = self.confirmed_tick.max(began);
        self.waiting -= reads.len();
        self.answered.extend(reads.into_iter().map(|read| (read, index)));
    }

    pub(crate) fn take_answered(&mut self) -> Vec<(ReadId, LogIndex)> {
        std::mem::take(&mut self.answered)
    }

    pub(crate) fn confirmed_tick(&self) -> u64 {
        self.confirmed_tick
    }

    /// Drops everything that belongs to a leadership that is over.
    pub(crate) fn clear(&mut self) {
        *self = Self {
            last: self.last,
            answered: std::mem::take(&mut self.answered),
            ..Self::default()
        };
    }
}
