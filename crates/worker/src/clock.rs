//! The worker's clocks.

use std::time::{Duration, SystemTime};

use rota_types::{Monotonic, Timestamp};
use rustix::time::{ClockId, clock_gettime};

/// Monotonic time that also passes while the machine sleeps: a lease does not wait for a sleeping worker.
pub(crate) fn now() -> Monotonic {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Monotonic(seconds.saturating_mul(1_000_000).saturating_add(nanos / 1_000))
}

/// Wall-clock time, for people.
pub(crate) fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// How long it takes until `at`.
pub(crate) fn until(at: Monotonic) -> Duration {
    Duration::from_micros(at.since(now()).micros())
}

/// A number that nobody can guess and that hardly ever repeats.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_u64(now().0);
    hasher.finish()
}
