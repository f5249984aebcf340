//! Seeded chance, and the knobs of the runs.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A small generator (SplitMix64): the same seed gives the same draws. When a signal strikes still depends on the machine.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    /// A generator for the test `name`, which prints how to repeat it.
    pub(crate) fn for_test(name: &str) -> Self {
        let drawn = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |now| now.as_nanos() as u64 % 1_000_000_007);
        let seed = knob("ROTA_TEST_SEED", drawn);
        eprintln!("{name}: ROTA_TEST_SEED={seed}");
        Self::of(seed)
    }

    /// A generator with this seed.
    pub(crate) fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// Another generator with draws of its own.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.draw())
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from `from` up to, and not including, `to`.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.draw() % (to - from)
    }

    /// Whether something of this probability happens.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.between(0, 100) < percent
    }

    /// A pause of so many milliseconds.
    pub(crate) fn pause(&mut self, from: u64, to: u64) {
        std::thread::sleep(Duration::from_millis(self.between(from, to)));
    }
}

/// A number from the environment.
pub(crate) fn knob(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} must be a number")),
        Err(_) => default,
    }
}

static TURN: Mutex<()> = Mutex::new(());

/// The heavy tests take turns: they measure what happens within short leases.
pub(crate) fn one_at_a_time() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
