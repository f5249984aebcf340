//! A map from job ids to values that costs little more than the values.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::fmt;

use crate::JobId;

/// Places of one page.
const PAGE: usize = 32;

/// A map from job ids to values, in order of the ids. Ids are given out one after the other, so that those of jobs which are not
/// over stand close together: values lie in pages of 32 places, found through a small ordered map. A full page costs a byte
/// or two for each value, where a node of an ordered map that was filled in order stays half empty; a page with a single survivor
/// costs all 32.
#[derive(Clone, PartialEq, Eq)]
pub struct JobMap<V> {
    pages: BTreeMap<u64, Box<Page<V>>>,
    len: usize,
}

#[derive(Clone, PartialEq, Eq)]
struct Page<V> {
    places: [Option<V>; PAGE],
    used: usize,
}

impl<V> JobMap<V> {
    /// A map without values.
    #[must_use]
    pub const fn new() -> Self {
        Self { pages: BTreeMap::new(), len: 0 }
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no values.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a job.
    #[must_use]
    pub fn get(&self, id: JobId) -> Option<&V> {
        let (page, place) = place_of(id);
        self.pages.get(&page)?.places.get(place)?.as_ref()
    }

    /// The value of a job, to change it.
    pub fn get_mut(&mut self, id: JobId) -> Option<&mut V> {
        let (page, place) = place_of(id);
        self.pages.get_mut(&page)?.places.get_mut(place)?.as_mut()
    }

    /// Gives a job a value. Returns the one that it had.
    pub fn insert(&mut self, id: JobId, value: V) -> Option<V> {
        let (page, place) = place_of(id);
        let page = self.pages.entry(page).or_insert_with(|| Box::new(Page::new()));
        let old = page.places.get_mut(place)?.replace(value);
        if old.is_none() {
            page.used = page.used.saturating_add(1);
            self.len = self.len.saturating_add(1);
        }
        old
    }

    /// Takes a job's value out.
    pub fn remove(&mut self, id: JobId) -> Option<V> {
        let (number, place) = place_of(id);
        let page = self.pages.get_mut(&number)?;
        let old = page.places.get_mut(place)?.take()?;
        page.used = page.used.saturating_sub(1);
        self.len = self.len.saturating_sub(1);
        if page.used == 0 {
            self.pages.remove(&number);
        }
        Some(old)
    }

    /// Every job and its value, by id.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (JobId, &V)> {
        self.pages.iter().flat_map(|(number, page)| page.iter(*number))
    }

    /// Every job whose id is below `end`, and its value, by id.
    pub fn below(&self, end: JobId) -> impl DoubleEndedIterator<Item = (JobId, &V)> {
        let (last, _) = place_of(end);
        let pages = self.pages.range(..=last);
        pages.flat_map(|(number, page)| page.iter(*number)).filter(move |(id, _)| *id < end)
    }

    /// The job with the highest id, and its value.
    #[must_use]
    pub fn last(&self) -> Option<(JobId, &V)> {
        self.iter().next_back()
    }

    /// Takes out the values for which `keep` is false.
    pub fn retain(&mut self, mut keep: impl FnMut(&V) -> bool) {
        self.pages.retain(|_, page| {
            for place in &mut page.places {
                if place.as_ref().is_some_and(|value| !keep(value)) {
                    *place = None;
                    page.used = page.used.saturating_sub(1);
                    self.len = self.len.saturating_sub(1);
                }
            }
            page.used > 0
        });
    }
}

impl<V> Page<V> {
    fn new() -> Self {
        Self { places: [const { None }; PAGE], used: 0 }
    }

    fn iter(&self, number: u64) -> impl DoubleEndedIterator<Item = (JobId, &V)> {
        let first = number.saturating_mul(PAGE as u64);
        self.places.iter().enumerate().filter_map(move |(place, value)| {
            Some((JobId(first.saturating_add(place as u64)), value.as_ref()?))
        })
    }
}

/// The page that a job's value is in, and its place there.
fn place_of(id: JobId) -> (u64, usize) {
    (id.0 / PAGE as u64, (id.0 % PAGE as u64) as usize)
}

impl<V> Default for JobMap<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: fmt::Debug> fmt::Debug for JobMap<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// A tiny generator: the crate has no dependencies, and its tests need none.
    fn random(seed: &mut u64) -> u64 {
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *seed >> 33
    }

    #[test]
    fn a_job_map_equals_an_ordered_map_after_any_changes() {
        for seed in 0..100 {
            let mut seed = seed;
            let (mut map, mut naive) = (JobMap::new(), BTreeMap::new());
            for step in 0..200 {
                let id = JobId(random(&mut seed) % 130);
                match random(&mut seed) % 8 {
                    0..=3 => assert_eq!(map.insert(id, step), naive.insert(id, step)),
                    4..=6 => assert_eq!(map.remove(id), naive.remove(&id)),
                    _ => {
                        let keep = |value: &u64| !value.is_multiple_of(5);
                        map.retain(keep);
                        naive.retain(|_, value| keep(value));
                    }
                }
                assert_eq!((map.len(), map.is_empty()), (naive.len(), naive.is_empty()));
                assert_eq!(map.get(id), naive.get(&id));
                assert_eq!(map.get_mut(id), naive.get_mut(&id));
                assert_eq!(map.last(), naive.last_key_value().map(|(id, value)| (*id, value)));
                assert!(map.iter().eq(naive.iter().map(|(id, value)| (*id, value))));
                let below = naive.range(..id).rev().map(|(id, value)| (*id, value));
                assert!(map.below(id).rev().eq(below));
                assert!(map.pages.values().all(|page| page.used > 0));
            }
        }
    }

    #[test]
    fn the_largest_id_has_a_place() {
        let mut map = JobMap::new();
        map.insert(JobId(u64::MAX), 1);
        assert_eq!(map.iter().collect::<Vec<_>>(), [(JobId(u64::MAX), &1)]);
        assert_eq!(map.below(JobId(u64::MAX)).count(), 0);
        assert_eq!(map.remove(JobId(u64::MAX)), Some(1));
        assert_eq!(map, JobMap::new());
    }
}
