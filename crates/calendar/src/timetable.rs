//! When a schedule is due, all things considered: its rule, where, from when until when, and on which days not.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use rota_types::limits::{
    EXCLUSIONS_MAX, JITTER_MAX, SCHEDULE_INTERVAL_MAX, SCHEDULE_INTERVAL_MIN,
};
use rota_types::{Span, Timestamp};

use crate::civil::{DAY, Date};
use crate::rule::Rule;
use crate::search::{Fold, Gap, Search, end};
use crate::spread::draw_below;
use crate::zone::Zone;

const SECOND: u64 = 1_000_000;

/// Days on which nothing is due: a holiday calendar, or several put together. Sorted, without overlaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exclusions {
    /// First and last day of each range.
    ranges: Vec<(Date, Date)>,
}

impl Exclusions {
    /// The days of all these ranges, both ends included.
    ///
    /// # Errors
    /// If there are more ranges than a schedule may have, or one ends before it begins.
    pub fn new(ranges: impl IntoIterator<Item = (Date, Date)>) -> Result<Self, BadTimetable> {
        let mut sorted: Vec<(Date, Date)> = ranges.into_iter().take(EXCLUSIONS_MAX + 1).collect();
        if sorted.len() > EXCLUSIONS_MAX {
            return Err(BadTimetable::Exclusions);
        }
        if let Some((first, last)) = sorted.iter().find(|(first, last)| first > last) {
            return Err(BadTimetable::Range { first: *first, last: *last });
        }
        sorted.sort_unstable();
        let mut merged: Vec<(Date, Date)> = Vec::new();
        for (first, last) in sorted {
            match merged.last_mut() {
                Some((_, end)) if first.days() <= end.days() + 1 => *end = last.max(*end),
                Some(_) | None => merged.push((first, last)),
            }
        }
        Ok(Self { ranges: merged })
    }

    /// The range that holds this day since 1970-01-01.
    fn range(&self, day: i64) -> Option<(i64, i64)> {
        let after = self.ranges.partition_point(|(first, _)| first.days() <= day);
        let (first, last) = self.ranges.get(after.checked_sub(1)?)?;
        (day <= last.days()).then(|| (first.days(), last.days()))
    }
}

/// Why a timetable is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadTimetable {
    /// Too many ranges are excluded.
    Exclusions,
    /// A range ends before it begins.
    Range {
        /// Its first day.
        first: Date,
        /// Its last day.
        last: Date,
    },
    /// The jitter is too long.
    Jitter(Span),
    /// The interval or the pause is outside its limits.
    Interval(Span),
    /// The end is not after the start.
    Bounds,
    /// No instant is left.
    Never,
}

impl fmt::Display for BadTimetable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exclusions => write!(
                f,
                "exclusions: more than {EXCLUSIONS_MAX} ranges of days; join neighbouring days, or exclude weekdays in the expression"
            ),
            Self::Range { first, last } => {
                write!(f, "exclusions: {first} to {last} ends before it begins; write the earlier day first")
            }
            Self::Jitter(jitter) => write!(f, "jitter: {jitter} is longer than {JITTER_MAX}; write a shorter one"),
            Self::Interval(span) => write!(
                f,
                "schedule: {span} is outside the limits: {SCHEDULE_INTERVAL_MIN}–{SCHEDULE_INTERVAL_MAX}"
            ),
            Self::Bounds => f.write_str("ends_at: not after starts_at; write a later end, or none"),
            Self::Never => f.write_str(
                "schedule: nothing is due before its end or the year 2500; check the times that clocks skip, ends_at and exclusions",
            ),
        }
    }
}

impl core::error::Error for BadTimetable {}

/// A schedule's times. Equal timetables with equal time-zone data give equal instants on every machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timetable {
    /// What it follows.
    pub rule: Rule,
    /// Whose clocks a cron expression and excluded days mean.
    pub zone: Zone,
    /// What becomes of spelled-out times that a day does not have.
    pub gap: Gap,
    /// What becomes of spelled-out times that a day has twice.
    pub fold: Fold,
    /// Nothing is due before it.
    pub starts_at: Timestamp,
    /// Nothing is due at or after it.
    pub ends_at: Option<Timestamp>,
    /// Days on which nothing is due.
    pub exclusions: Exclusions,
    /// Runs start up to this much after their instant.
    pub jitter: Span,
    /// What jitter draws from: the schedule's name.
    pub seed: String,
}

impl Timetable {
    /// A rule on the clocks of a zone, with no bounds, exclusions or jitter.
    #[must_use]
    pub fn new(rule: Rule, zone: Zone) -> Self {
        Self {
            rule,
            zone,
            gap: Gap::default(),
            fold: Fold::default(),
            starts_at: Timestamp(0),
            ends_at: None,
            exclusions: Exclusions::default(),
            jitter: Span::ZERO,
            seed: String::new(),
        }
    }

    /// Checks what a new schedule has to satisfy at `now`: its limits, and that something is due at all.
    ///
    /// # Errors
    /// If it is outside a limit, or nothing would ever be due.
    pub fn check(&self, now: Timestamp) -> Result<(), BadTimetable> {
        if self.jitter > JITTER_MAX {
            return Err(BadTimetable::Jitter(self.jitter));
        }
        if let Rule::Every { interval: span, .. } | Rule::AfterEnd { delay: span } = self.rule
            && (span < SCHEDULE_INTERVAL_MIN || span > SCHEDULE_INTERVAL_MAX)
        {
            return Err(BadTimetable::Interval(span));
        }
        if self.ends_at.is_some_and(|ends_at| ends_at <= self.starts_at) {
            return Err(BadTimetable::Bounds);
        }
        let from = Timestamp(now.0.max(self.starts_at.0).saturating_sub(1));
        match self.rule {
            Rule::AfterEnd { .. } if self.ends_at.is_none_or(|ends_at| now < ends_at) => Ok(()),
            _ if self.next_after(from).is_some() => Ok(()),
            _ => Err(BadTimetable::Never),
        }
    }

    /// The first instant after `after`. A rule that follows the ends of runs has none by itself: see [`Timetable::next_run`].
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let from = after.0.checked_add(1)?.max(self.starts_at.0);
        let mut found = self.rule_next(from)?;
        // Each turn passes a range of excluded days; where clocks go back over midnight, the same one once more.
        for _ in 0..=2 * self.exclusions.ranges.len() {
            if self.ends_at.is_some_and(|ends_at| found >= ends_at.0) {
                return None;
            }
            let Some((_, last)) = self.excluded(found) else { return Some(Timestamp(found)) };
            let morning = self.first_second_at(found / SECOND, (last + 1) * DAY);
            found = self.rule_next(morning.checked_mul(SECOND)?.max(found + 1))?;
        }
        None
    }

    /// The last instant before `before`.
    #[must_use]
    pub fn previous_before(&self, before: Timestamp) -> Option<Timestamp> {
        let before = self.ends_at.map_or(before, |ends_at| before.min(ends_at));
        let mut found = self.rule_previous(before.0.checked_sub(1)?)?;
        for _ in 0..=2 * self.exclusions.ranges.len() {
            if found < self.starts_at.0 {
                return None;
            }
            let Some((first, _)) = self.excluded(found) else { return Some(Timestamp(found)) };
            let evening = self.last_second_before(found / SECOND, first * DAY)?;
            let until = evening.checked_mul(SECOND)?.checked_add(SECOND - 1)?;
            found = self.rule_previous(until.min(found - 1))?;
        }
        None
    }

    /// The instant after `after` for a schedule whose last run ended at `last_end`: as [`Timetable::next_after`], but also for a rule that
    /// follows the ends of runs. That one is due at its start, and then a while after the end or `after`, whichever is later.
    #[must_use]
    pub fn next_run(&self, after: Timestamp, last_end: Option<Timestamp>) -> Option<Timestamp> {
        let Rule::AfterEnd { delay } = self.rule else { return self.next_after(after) };
        let due = match last_end {
            None if after < self.starts_at => self.starts_at,
            None | Some(_) => last_end.unwrap_or_default().max(after).plus(delay),
        };
        let due = match self.excluded(due.0) {
            None => due,
            Some((_, last)) => {
                let morning = self.first_second_at(due.0 / SECOND, (last + 1) * DAY);
                Timestamp(morning.saturating_mul(SECOND))
            }
        };
        let end = self.ends_at.unwrap_or(Timestamp(u64::MAX));
        Some(due).filter(|due| *due > after && *due < end)
    }

    /// All instants after `after`, in order.
    pub fn after(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> {
        core::iter::successors(self.next_after(after), |last| self.next_after(*last))
    }

    /// When the run of an instant starts: a fixed time after it, which depends on the seed and the instant alone and is never longer than
    /// the jitter.
    #[must_use]
    pub fn start_of(&self, instant: Timestamp) -> Timestamp {
        let bound = self.jitter.0.saturating_add(1);
        instant.plus(Span(draw_below(&self.seed, &[instant.0], bound)))
    }

    fn search<'a>(&'a self, cron: &'a crate::cron::Cron) -> Search<'a> {
        Search { cron, zone: &self.zone, gap: self.gap, fold: self.fold }
    }

    /// The first instant of the rule at or after `from`, in microseconds.
    fn rule_next(&self, from: u64) -> Option<u64> {
        let found = match &self.rule {
            Rule::Cron(cron) => {
                let second = i64::try_from(from.div_ceil(SECOND)).ok()?;
                u64::try_from(self.search(cron).next(second)?).ok()?.checked_mul(SECOND)?
            }
            Rule::Every { interval, anchor } => {
                let phase = anchor.0.checked_rem(interval.0)?;
                let passed = from % interval.0;
                let wait =
                    if phase >= passed { phase - passed } else { interval.0 - (passed - phase) };
                from.checked_add(wait)?
            }
            Rule::At(at) => Some(at.0).filter(|at| *at >= from)?,
            Rule::AfterEnd { .. } => return None,
        };
        Some(found).filter(|found| *found < end().unsigned_abs() * SECOND)
    }

    /// The last instant of the rule at or before `from`, in microseconds.
    fn rule_previous(&self, from: u64) -> Option<u64> {
        let from = from.min(end().unsigned_abs() * SECOND - 1);
        match &self.rule {
            Rule::Cron(cron) => {
                let second = i64::try_from(from / SECOND).ok()?;
                u64::try_from(self.search(cron).previous(second)?).ok()?.checked_mul(SECOND)
            }
            Rule::Every { interval, anchor } => {
                let phase = anchor.0.checked_rem(interval.0)?;
                let passed = from % interval.0;
                let ago =
                    if passed >= phase { passed - phase } else { interval.0 - (phase - passed) };
                from.checked_sub(ago)
            }
            Rule::At(at) => Some(at.0).filter(|at| *at <= from),
            Rule::AfterEnd { .. } => None,
        }
    }

    /// The excluded days that hold this instant.
    fn excluded(&self, micros: u64) -> Option<(i64, i64)> {
        if self.exclusions.ranges.is_empty() {
            return None;
        }
        let second = i64::try_from(micros / SECOND).ok()?;
        let wall = second + self.zone.stretch(second).offset;
        self.exclusions.range(wall.div_euclid(DAY))
    }

    /// The first second from `from` on at which local clocks show `wall` or later.
    fn first_second_at(&self, from: u64, wall: i64) -> u64 {
        let mut from = from as i64;
        loop {
            let stretch = self.zone.stretch(from);
            let found = (wall - stretch.offset).max(from);
            if found < stretch.end {
                return found.unsigned_abs();
            }
            from = stretch.end;
        }
    }

    /// The last second before `from` at which local clocks show less than `wall`.
    fn last_second_before(&self, from: u64, wall: i64) -> Option<u64> {
        let mut from = from as i64;
        loop {
            let stretch = self.zone.stretch(from);
            let found = (wall - 1 - stretch.offset).min(from);
            if found >= stretch.start {
                return u64::try_from(found).ok();
            }
            from = stretch.start - 1;
        }
    }
}
