//! Stamps of entries, from the clocks of the host.

use rota_types::{Monotonic, Steady, Timestamp};

/// What the clocks of a host show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Time since some moment before this process's machine was made. Never goes back.
    pub monotonic: Monotonic,
    /// The wall clock. May jump.
    pub wall: Timestamp,
}

/// Stamps entries: wall time never goes back, steady time goes on from where the log left it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// From when on steady time runs, and what it was then.
    resumed: Monotonic,
    steady_base: Steady,
    last: Timestamp,
}

impl Clock {
    /// A clock for a state that was last stamped `last` and `steady`.
    #[must_use]
    pub fn new(last: Timestamp, steady: Steady, now: Moment) -> Self {
        Self { resumed: now.monotonic, steady_base: steady, last }
    }

    /// Goes on from where another leader left the log: steady time stood still meanwhile.
    pub fn resume(&mut self, last: Timestamp, steady: Steady, now: Moment) {
        self.resumed = now.monotonic;
        self.steady_base = steady;
        self.last = self.last.max(last);
    }

    /// The stamps of an entry that is proposed now (I6).
    pub fn stamp(&mut self, now: Moment) -> (Timestamp, Steady) {
        self.last = now.wall.max(self.last);
        (self.last, self.steady(now))
    }

    /// Steady time now.
    #[must_use]
    pub fn steady(&self, now: Moment) -> Steady {
        Steady(self.steady_base.0.saturating_add(now.monotonic.since(self.resumed).0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(monotonic: u64, wall: u64) -> Moment {
        Moment { monotonic: Monotonic(monotonic), wall: Timestamp(wall) }
    }

    #[test]
    fn stamps_never_go_back_even_if_the_wall_clock_did() {
        let mut clock = Clock::new(Timestamp(900), Steady(500), at(10, 100));
        assert_eq!(clock.stamp(at(10, 100)), (Timestamp(900), Steady(500)));
        assert_eq!(clock.stamp(at(30, 1_000)), (Timestamp(1_000), Steady(520)));
        assert_eq!(clock.stamp(at(31, 999)), (Timestamp(1_000), Steady(521)));
    }

    #[test]
    fn steady_time_goes_on_from_where_the_log_left_it() {
        let mut clock = Clock::new(Timestamp(0), Steady(4_000_000), at(0, 0));
        clock.resume(Timestamp(800), Steady(5), at(1_000, 70));
        assert_eq!(clock.stamp(at(1_002, 72)), (Timestamp(800), Steady(7)));
    }
}
