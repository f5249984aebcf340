//! Sets of task indexes as sorted ranges: a million neighbours cost no more than one.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::ops::Range;
use core::slice;

/// A set of `u32` kept as disjoint, non-adjacent, ascending half-open ranges. Every group of every job holds a few of these, most
/// of them of at most one range: such a set is 16 bytes and allocates nothing.
#[derive(Clone, Debug)]
pub struct RangeSet {
    ranges: Ranges,
}

/// `(start, end)`, end exclusive.
#[derive(Clone, Debug)]
enum Ranges {
    /// At most one range: none if it is empty, and then it is [`NOTHING`].
    One((u32, u32)),
    /// At least two.
    #[expect(
        clippy::box_collection,
        reason = "a vector in place would double the size of every set"
    )]
    Many(Box<Vec<(u32, u32)>>),
}

const NOTHING: (u32, u32) = (0, 0);

impl RangeSet {
    /// The set of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: Ranges::One(NOTHING) }
    }

    /// The set of everything from `start` up to, not including, `end`.
    #[must_use]
    pub const fn from_range(start: u32, end: u32) -> Self {
        Self { ranges: Ranges::One(if start < end { (start, end) } else { NOTHING }) }
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slice().is_empty()
    }

    /// How many numbers are in the set.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.ranges().map(|(start, end)| u64::from(end.saturating_sub(start))).sum()
    }

    /// Whether `value` is in the set.
    #[must_use]
    pub fn contains(&self, value: u32) -> bool {
        let ranges = self.slice();
        let after = ranges.partition_point(|(start, _)| *start <= value);
        after.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|(_, end)| value < *end)
    }

    /// The smallest range, end exclusive.
    #[must_use]
    pub fn first_range(&self) -> Option<(u32, u32)> {
        self.slice().first().copied()
    }

    /// The ranges in ascending order, end exclusive.
    pub fn ranges(&self) -> impl DoubleEndedIterator<Item = (u32, u32)> + '_ {
        self.slice().iter().copied()
    }

    /// The numbers in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges().flat_map(|(start, end)| start..end)
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
        let ranges = self.slice();
        let from = ranges.partition_point(|(_, e)| *e < start);
        let to = ranges.partition_point(|(s, _)| *s <= end);
        let merged = ranges
            .get(from..to)
            .unwrap_or(&[])
            .iter()
            .fold((start, end), |(low, high), (s, e)| (low.min(*s), high.max(*e)));
        self.replace(from..to.max(from), [Some(merged), None]);
    }

    /// Takes one number away. Returns whether it was there.
    pub fn remove(&mut self, value: u32) -> bool {
        let there = self.contains(value);
        self.remove_range(value, value.saturating_add(1));
        there
    }

    /// Takes away everything from `start` up to, not including, `end`.
    pub fn remove_range(&mut self, start: u32, end: u32) {
        let ranges = self.slice();
        let from = ranges.partition_point(|(_, e)| *e <= start);
        let to = ranges.partition_point(|(s, _)| *s < end);
        if start >= end || from >= to {
            return;
        }
        let left = ranges.get(from).filter(|(s, _)| *s < start).map(|(s, _)| (*s, start));
        let last = to.saturating_sub(1);
        let right = ranges.get(last).filter(|(_, e)| *e > end).map(|(_, e)| (end, *e));
        self.replace(from..to, [left, right]);
    }

    /// The numbers that are in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::default();
        for (start, end) in self.ranges() {
            let from = other.slice().partition_point(|(_, e)| *e <= start);
            for (s, e) in other.ranges().skip(from).take_while(|(s, _)| *s < end) {
                both.insert_range(start.max(s), end.min(e));
            }
        }
        both
    }

    fn slice(&self) -> &[(u32, u32)] {
        match &self.ranges {
            Ranges::One(NOTHING) => &[],
            Ranges::One(range) => slice::from_ref(range),
            Ranges::Many(ranges) => ranges,
        }
    }

    /// Puts `new` where the ranges at `places` are.
    fn replace(&mut self, places: Range<usize>, new: [Option<(u32, u32)>; 2]) {
        let old = self.slice();
        let before = old.get(..places.start).unwrap_or(&[]);
        let behind = old.get(places.end..).unwrap_or(&[]);
        let new = new.into_iter().flatten();
        let mut all = before.iter().copied().chain(new.clone()).chain(behind.iter().copied());
        let first = all.next().unwrap_or(NOTHING);
        let Some(second) = all.next() else {
            self.ranges = Ranges::One(first);
            return;
        };
        match &mut self.ranges {
            Ranges::Many(ranges) => {
                ranges.splice(places, new);
            }
            // One range became two: a change puts in one range, or two in place of one.
            Ranges::One(_) => self.ranges = Ranges::Many(Box::new(vec![first, second])),
        }
    }
}

impl Default for RangeSet {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for RangeSet {
    fn eq(&self, other: &Self) -> bool {
        self.slice() == other.slice()
    }
}

impl Eq for RangeSet {}

impl PartialOrd for RangeSet {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RangeSet {
    fn cmp(&self, other: &Self) -> Ordering {
        self.slice().cmp(other.slice())
    }
}

impl Hash for RangeSet {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.slice().hash(hasher);
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
    fn a_set_is_two_words() {
        assert_eq!(size_of::<RangeSet>(), 16);
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
