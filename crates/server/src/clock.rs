//! The clocks of this process: the only place that reads them for the core.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rota_types::{Monotonic, Steady, Timestamp};

/// Stamps entries: wall time never goes back, steady time goes on from where the log left it.
pub(crate) struct Clock {
    started: Instant,
    /// From when on steady time runs, and what it was then.
    resumed: Instant,
    steady_base: Steady,
    last: Timestamp,
}

impl Clock {
    /// A clock for a state that was last stamped `last` and `steady`.
    pub(crate) fn new(last: Timestamp, steady: Steady) -> Self {
        let now = Instant::now();
        Self { started: now, resumed: now, steady_base: steady, last }
    }

    /// Goes on from where another leader left the log: steady time stood still meanwhile.
    pub(crate) fn resume(&mut self, last: Timestamp, steady: Steady) {
        self.resumed = Instant::now();
        self.steady_base = steady;
        self.last = self.last.max(last);
    }

    /// Time since the process started.
    pub(crate) fn monotonic(&self) -> Monotonic {
        Monotonic(micros(self.started.elapsed()))
    }

    /// The stamps of an entry that is proposed now (I6).
    pub(crate) fn stamp(&mut self) -> (Timestamp, Steady) {
        self.last = wall().max(self.last);
        (self.last, self.steady())
    }

    /// Steady time now.
    pub(crate) fn steady(&self) -> Steady {
        Steady(self.steady_base.0.saturating_add(micros(self.resumed.elapsed())))
    }

    /// When the monotonic clock will show `at`.
    pub(crate) fn instant(&self, at: Monotonic) -> Instant {
        self.started + std::time::Duration::from_micros(at.0)
    }
}

/// The wall clock.
pub(crate) fn wall() -> Timestamp {
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, micros))
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_never_go_back_even_if_the_wall_clock_did() {
        let future = Timestamp(wall().0 + 3_600_000_000);
        let mut clock = Clock::new(future, Steady(500));
        let (at, steady) = clock.stamp();
        assert_eq!(at, future);
        assert!(steady >= Steady(500));
        assert!(clock.stamp() >= (at, steady));
    }

    #[test]
    fn steady_time_goes_on_from_where_the_log_left_it() {
        let mut clock = Clock::new(Timestamp(0), Steady(u64::from(u32::MAX)));
        let far = Timestamp(wall().0 + 3_600_000_000);
        clock.resume(far, Steady(5));
        let (at, steady) = clock.stamp();
        assert_eq!(at, far);
        assert!((Steady(5)..Steady(1_000_000_000)).contains(&steady), "{steady:?}");
    }
}
