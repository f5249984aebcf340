//! The clocks of this process: the only place that reads them for the core.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rota_server_core::Moment;
use rota_types::{Monotonic, Timestamp};

/// Counts from the moment it was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }

    /// What the clocks show now.
    pub(crate) fn now(self) -> Moment {
        Moment { monotonic: Monotonic(micros(self.0.elapsed())), wall: wall() }
    }

    /// How long it is until the monotonic clock shows `at`.
    pub(crate) fn until(self, at: Monotonic) -> Duration {
        Duration::from_micros(at.0).saturating_sub(self.0.elapsed())
    }
}

/// The wall clock.
pub(crate) fn wall() -> Timestamp {
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, micros))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
