//! Sets of task indexes as sorted ranges: a million neighbours cost eight bytes.

use alloc::vec::Vec;
use core::fmt;

/// A set of `u32` kept as disjoint, non-adjacent, ascending half-open ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RangeSet {
    /// `(start, end)`, end exclusive.
    ranges: Vec<(u32, u32)>,
}

impl RangeSet {
    /// The set of everything from `start` up to, not including, `end`.
    #[must_use]
    pub fn from_range(start: u32, end: u32) -> Self {
        // Room for one range and no more: every group of every job holds a few of these.
        let ranges = if start < end { alloc::vec![(start, end)] } else { Vec::new() };
        Self { ranges }
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many numbers are in the set.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|(start, end)| u64::from(end.saturating_sub(*start))).sum()
    }

    /// Whether `value` is in the set.
    #[must_use]
    pub fn contains(&self, value: u32) -> bool {
        let after = self.ranges.partition_point(|(start, _)| *start <= value);
        after.checked_sub(1).and_then(|at| self.ranges.get(at)).is_some_and(|(_, end)| value < *end)
    }

    /// The smallest range, end exclusive.
    #[must_use]
    pub fn first_range(&self) -> Option<(u32, u32)> {
        self.ranges.first().copied()
    }

    /// The ranges in ascending order, end exclusive.
    pub fn ranges(&self) -> impl DoubleEndedIterator<Item = (u32, u32)> + '_ {
        self.ranges.iter().copied()
    }

    /// The numbers in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges.iter().flat_map(|(start, end)| *start..*end)
    }

    /// Adds one number. Returns whether it was new.
    pub fn insert(&mut self, value: u32) -> bool {
        let new = !self.contains(value);
        self.insert_range(value, value.saturating_add(1));
        new
    }

    /// Adds everything from `start` up to, not including, `end`.
    pub fn insert_range(&mut self, start: u32, end: u32) {
        if start >= end {
            return;
        }
        let from = self.ranges.partition_point(|(_, e)| *e < start);
        let to = self.ranges.partition_point(|(s, _)| *s <= end);
        let merged = self
            .ranges
            .get(from..to)
            .unwrap_or(&[])
            .iter()
            .fold((start, end), |(low, high), (s, e)| (low.min(*s), high.max(*e)));
        self.ranges.splice(from..to.max(from), [merged]);
    }

    /// Takes one number away. Returns whether it was there.
    pub fn remove(&mut self, value: u32) -> bool {
        let there = self.contains(value);
        self.remove_range(value, value.saturating_add(1));
        there
    }

    /// Takes away everything from `start` up to, not including, `end`.
    pub fn remove_range(&mut self, start: u32, end: u32) {
        let from = self.ranges.partition_point(|(_, e)| *e <= start);
        let to = self.ranges.partition_point(|(s, _)| *s < end);
        if start >= end || from >= to {
            return;
        }
        let left = self.ranges.get(from).filter(|(s, _)| *s < start).map(|(s, _)| (*s, start));
        let last = to.saturating_sub(1);
        let right = self.ranges.get(last).filter(|(_, e)| *e > end).map(|(_, e)| (end, *e));
        self.ranges.splice(from..to, left.into_iter().chain(right));
    }

    /// The numbers that are in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::default();
        for (start, end) in self.ranges() {
            let from = other.ranges.partition_point(|(_, e)| *e <= start);
            for (s, e) in other.ranges.iter().skip(from).take_while(|(s, _)| *s < end) {
                both.insert_range(start.max(*s), end.min(*e));
            }
        }
        both
    }
}

impl FromIterator<u32> for RangeSet {
    fn from_iter<I: IntoIterator<Item = u32>>(values: I) -> Self {
        let mut set = Self::default();
        for value in values {
            set.insert(value);
        }
        set
    }
}

impl fmt::Display for RangeSet {
    /// Prints `1-3,7`: both ends of a range included.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (start, end)) in self.ranges().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            match end.saturating_sub(1) {
                last if last == start => write!(f, "{comma}{start}")?,
                last => write!(f, "{comma}{start}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::string::ToString;

    /// A tiny generator: the crate has no dependencies, and its tests need none.
    fn random(seed: &mut u64) -> u32 {
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) as u32
    }

    #[test]
    fn a_range_set_equals_a_plain_set_after_any_changes() {
        for seed in 0..200 {
            let mut seed = seed;
            let (mut set, mut naive) = (RangeSet::default(), BTreeSet::new());
            for _ in 0..60 {
                let start = random(&mut seed) % 40;
                let end = start + random(&mut seed) % 8;
                if random(&mut seed).is_multiple_of(2) {
                    set.insert_range(start, end);
                    naive.extend(start..end);
                } else {
                    set.remove_range(start, end);
                    naive.retain(|value| !(start..end).contains(value));
                }
                assert_eq!(set.iter().collect::<BTreeSet<_>>(), naive);
                assert_eq!(set.len(), naive.len() as u64);
                assert_eq!(set, naive.iter().copied().collect());
                assert!((0..50).all(|value| set.contains(value) == naive.contains(&value)));
            }
        }
    }

    #[test]
    fn intersections_hold_what_both_sets_hold() {
        let odd: RangeSet = (0..40).filter(|value| value % 2 == 1).collect();
        let mut low = RangeSet::from_range(0, 10);
        low.insert_range(30, 34);
        assert_eq!(low.intersection(&odd).to_string(), "1,3,5,7,9,31,33");
    }

    #[test]
    fn sets_print_inclusive_ranges() {
        assert_eq!([1, 2, 3, 7].into_iter().collect::<RangeSet>().to_string(), "1-3,7");
    }
}
