//! From local times to instants: the rules about clocks that are set forward and back.
//!
//! Time in a zone is a row of [`Stretch`]es, in each of which local clocks run evenly. Within one, instants and local times are the
//! same up to a constant. What a change of the clocks does to times that are spelled out is said at the edges: a time in a gap is
//! made up for at the first instant after it, and of two passes through an hour one is left out. Every step leaves a stretch or
//! finds an instant, and the calendar ends with the year 2499, so every search ends.

use crate::civil::{DAY, days_of};
use crate::cron::Cron;
use crate::zone::{Stretch, Zone};

/// What becomes of a spelled-out time that a day does not have, because clocks are set forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gap {
    /// It fires at the first instant after the gap.
    #[default]
    Next,
    /// It is left out.
    Skip,
}

/// What becomes of a spelled-out time that a day has twice, because clocks are set back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fold {
    /// It fires the first time.
    #[default]
    First,
    /// It fires the second time.
    Second,
    /// It fires both times.
    Both,
}

/// The first second after the calendar: 2500-01-01T00:00:00Z.
pub(crate) fn end() -> i64 {
    days_of(2500, 1, 1) * DAY
}

/// An expression in a place.
#[derive(Clone, Copy)]
pub(crate) struct Search<'a> {
    pub(crate) cron: &'a Cron,
    pub(crate) zone: &'a Zone,
    pub(crate) gap: Gap,
    pub(crate) fold: Fold,
}

impl Search<'_> {
    /// The first second at or after `from` at which it is due.
    pub(crate) fn next(&self, from: i64) -> Option<i64> {
        let mut from = from.max(0);
        while from < end() {
            let stretch = self.zone.stretch(from);
            if stretch.start == from && self.makes_up(&stretch) {
                return Some(from);
            }
            let (begin, close) = self.counted(&stretch);
            let begin = begin.max(from);
            let wall = self.cron.next(begin + stretch.offset, end() + DAY);
            let found = wall.map_or(i64::MAX, |wall| wall - stretch.offset);
            if found < close {
                return Some(found).filter(|found| *found < end());
            }
            // Clocks never differ by more than a day, so nothing is due until then but near the place where this search began.
            let is_far = stretch.end.saturating_sub(begin) >= 2 * DAY;
            from = stretch.end.max(if is_far { found - 2 * DAY } else { 0 });
        }
        None
    }

    /// The last second at or before `from` at which it was due, from 1970 on.
    pub(crate) fn previous(&self, from: i64) -> Option<i64> {
        let mut from = from.min(end() - 1);
        while from >= 0 {
            let stretch = self.zone.stretch(from);
            let (begin, close) = self.counted(&stretch);
            let last = (close - 1).min(from);
            let wall = self.cron.previous(last + stretch.offset);
            let found = wall.map_or(i64::MIN, |wall| wall - stretch.offset);
            if found >= begin && found >= 0 {
                return Some(found);
            }
            if self.makes_up(&stretch) && stretch.start >= 0 {
                return Some(stretch.start);
            }
            let far = if last.saturating_sub(stretch.start) >= 2 * DAY {
                found.saturating_add(2 * DAY)
            } else {
                i64::MAX
            };
            from = stretch.start.saturating_sub(1).min(far);
        }
        None
    }

    /// The seconds of a stretch that count: all, or without one of the two passes through an hour.
    fn counted(&self, stretch: &Stretch) -> (i64, i64) {
        let Stretch { start, end, offset, before, after } = *stretch;
        let is_fixed = self.cron.is_fixed();
        let second_pass =
            if is_fixed && self.fold == Fold::First { (before - offset).max(0) } else { 0 };
        let first_pass =
            if is_fixed && self.fold == Fold::Second { (offset - after).max(0) } else { 0 };
        (start.saturating_add(second_pass), end - first_pass)
    }

    /// Whether something is due at the beginning of the stretch because its own time fell into the gap before. A gap of a day or more,
    /// as when a country moves to the other side of the date line, takes whole days with it, and what was due on them.
    fn makes_up(&self, stretch: &Stretch) -> bool {
        let Stretch { start, offset, before, .. } = *stretch;
        let in_gap = || self.cron.next(start + before, start + offset).is_some();
        self.gap == Gap::Next
            && self.cron.is_fixed()
            && (1..DAY).contains(&(offset - before))
            && in_gap()
    }
}
