//! Instants and spans, in whole microseconds. Nothing here can tell the time; callers pass it in.

use core::fmt;

/// Wall-clock time: microseconds since 1970-01-01T00:00:00Z. May jump; for people and for stamping entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

/// Time that only passes while there is a leader: microseconds since the cluster began. Back-off and timeouts count in it, so
/// that neither an outage nor a jump of the wall clock expires anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Steady(pub u64);

/// A process's own monotonic clock: microseconds since an arbitrary start. For leases; never stored, never sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(pub u64);

/// A length of time in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub u64);

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// A span of whole milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// A span of whole seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// The span in microseconds.
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.0
    }
}

macro_rules! instant {
    ($name:ident) => {
        impl $name {
            /// The instant `span` later, saturating.
            #[must_use]
            pub const fn plus(self, span: Span) -> Self {
                Self(self.0.saturating_add(span.0))
            }

            /// The span from `earlier` to this instant; zero if `earlier` is later.
            #[must_use]
            pub const fn since(self, earlier: Self) -> Span {
                Span(self.0.saturating_sub(earlier.0))
            }
        }
    };
}

instant!(Timestamp);
instant!(Steady);
instant!(Monotonic);

impl fmt::Display for Span {
    /// Prints the largest unit that loses nothing: `1500ms`, `2m`, `7us`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 6] = [
            (86_400_000_000, "d"),
            (3_600_000_000, "h"),
            (60_000_000, "m"),
            (1_000_000, "s"),
            (1_000, "ms"),
            (1, "us"),
        ];
        for (micros, unit) in UNITS {
            if self.0 >= micros && self.0.is_multiple_of(micros) {
                return write!(f, "{}{unit}", self.0 / micros);
            }
        }
        f.write_str("0s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn spans_print_in_the_largest_exact_unit() {
        let texts = [0, 7, 1_500_000, 120_000_000, 3_600_000_000, 172_800_000_000]
            .map(|micros| Span(micros).to_string());
        assert_eq!(texts, ["0s", "7us", "1500ms", "2m", "1h", "2d"]);
    }

    #[test]
    fn instants_saturate_at_both_ends() {
        assert_eq!(Timestamp(u64::MAX).plus(Span(1)), Timestamp(u64::MAX));
        assert_eq!(Timestamp(3).since(Timestamp(5)), Span::ZERO);
    }
}
