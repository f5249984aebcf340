//! What a schedule will do, for people to look at before they rely on it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use rota_types::{Span, Timestamp};

use crate::civil::{DAY, Date};
use crate::cron::{Cron, DayRule};
use crate::describe::even;
use crate::error::Field;
use crate::rule::Rule;
use crate::search::{Fold, Gap};
use crate::timetable::Timetable;

/// How far ahead [`Timetable::warnings`] looks for changes of the clocks: a year, but none of them twice.
const AHEAD: i64 = 350 * DAY;

/// One instant to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// When it is due.
    pub instant: Timestamp,
    /// The same on the clocks of the zone: `2026-03-29 03:00:00+02:00`.
    pub local: String,
    /// When the run may start, if that is later because of jitter.
    pub starts_at: Timestamp,
    /// What the clocks do there.
    pub note: Option<Note>,
}

/// What a change of the clocks does to an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// It makes up for a time that the clocks skip.
    MadeUp,
    /// The first of two times with the same name.
    FirstPass,
    /// The second of two times with the same name.
    SecondPass,
    /// Clocks were set since the instant before, forward if positive.
    Changed {
        /// By so many seconds.
        seconds: i64,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MadeUp => f.write_str("for a time that the clocks skip"),
            Self::FirstPass => f.write_str("this time comes twice, this is the first"),
            Self::SecondPass => f.write_str("this time comes twice, this is the second"),
            Self::Changed { seconds } => {
                let way = if *seconds > 0 { "forward" } else { "back" };
                let by = Span::from_secs(seconds.unsigned_abs());
                write!(f, "clocks have gone {way} by {by}")
            }
        }
    }
}

impl Timetable {
    /// The first `count` instants after `after`.
    pub fn preview(&self, after: Timestamp, count: usize) -> impl Iterator<Item = Preview> {
        let mut before = self.offset(after);
        self.after(after).take(count).map(move |instant| {
            let offset = self.offset(instant);
            let changed = offset - core::mem::replace(&mut before, offset);
            let starts_at = self.start_of(instant);
            Preview {
                instant,
                local: self.local(instant),
                starts_at,
                note: self.note(instant, changed),
            }
        })
    }

    /// The instant on the clocks of the zone, with their distance from UTC: `2026-03-29 03:00:00+02:00`.
    #[must_use]
    pub fn local(&self, instant: Timestamp) -> String {
        let offset = self.offset(instant);
        let (sign, ahead) = if offset < 0 { ('-', -offset) } else { ('+', offset) };
        let wall = second(instant) + offset;
        let seconds = if ahead % 60 == 0 { String::new() } else { format!(":{:02}", ahead % 60) };
        format!("{}{sign}{:02}:{:02}{seconds}", Clock(wall), ahead / 3_600, ahead / 60 % 60)
    }

    /// What may surprise about the schedule, in sentences that say what to write instead. Looks a year ahead from `now`.
    #[must_use]
    pub fn warnings(&self, now: Timestamp) -> Vec<String> {
        let Rule::Cron(cron) = &self.rule else { return Vec::new() };
        let mut warnings = Vec::new();
        if !cron.days.any && !cron.weekdays.any && cron.rule == DayRule::Either {
            warnings.push(
                "day of month and day of week are both restricted: a day counts if either matches; ask for both if you mean both"
                    .to_string(),
            );
        }
        if let Some(day) = cron.rare_day() {
            warnings.push(format!(
                "not every month has a day {day}; write L for the last day of each month"
            ));
        }
        if let Some((_, step)) =
            even(cron.minutes.bits, Field::Minute).filter(|(_, step)| 60 % step != 0)
        {
            warnings.push(format!(
                "every {step} minutes begins anew with each hour; for an even interval write @every {step}m"
            ));
        }
        warnings.extend(self.surprises(cron, now));
        warnings
    }

    /// Spelled-out times that fall into the next changes of the clocks.
    fn surprises(&self, cron: &Cron, now: Timestamp) -> Vec<String> {
        let mut surprises = Vec::new();
        let mut stretch = self.zone.stretch(second(now));
        while cron.is_fixed() && stretch.end < second(now) + AHEAD {
            let (old, new) = (stretch.end + stretch.offset, stretch.end + stretch.after);
            let zone = self.zone.name();
            if let Some(wall) = cron.next(old, new) {
                let then = match self.gap {
                    Gap::Next if new - old < DAY => format!("it runs at {}", Clock(new)),
                    Gap::Next | Gap::Skip => "it does not run".to_string(),
                };
                surprises
                    .push(format!("{} is a time that clocks in {zone} skip; {then}", Clock(wall)));
            }
            if let Some(wall) = cron.next(new, old) {
                let then = match self.fold {
                    Fold::First => "it runs the first time",
                    Fold::Second => "it runs the second time",
                    Fold::Both => "it runs both times",
                };
                surprises.push(format!("{} comes twice in {zone}; {then}", Clock(wall)));
            }
            stretch = self.zone.stretch(stretch.end);
        }
        surprises
    }

    fn note(&self, instant: Timestamp, changed: i64) -> Option<Note> {
        let Rule::Cron(cron) = &self.rule else { return changed_note(changed) };
        let at = second(instant);
        let stretch = self.zone.stretch(at);
        let wall = at + stretch.offset;
        if cron.next(wall, wall + 1).is_none() {
            return Some(Note::MadeUp);
        }
        let is_repeated = at < stretch.start.saturating_add(stretch.before - stretch.offset);
        let is_first = at >= stretch.end.saturating_sub(stretch.offset - stretch.after);
        match (is_repeated, is_first) {
            (true, _) => Some(Note::SecondPass),
            (false, true) => Some(Note::FirstPass),
            (false, false) => changed_note(changed),
        }
    }

    fn offset(&self, instant: Timestamp) -> i64 {
        self.zone.stretch(second(instant)).offset
    }
}

impl Cron {
    /// The first of its days, if some month of its own lacks all of them.
    fn rare_day(&self) -> Option<u32> {
        let has_others = self.days.before_last != 0
            || self.days.last_weekday
            || self.days.nearest_weekday != 0
            || !self.weekdays.any;
        let first = self.days.plain.trailing_zeros();
        let lacks = |month: u32| first > crate::civil::month_days(2001, month);
        let some_lack = crate::cron::bits(self.months.bits).any(lacks);
        (!self.days.any && !has_others && some_lack).then_some(first)
    }
}

fn changed_note(seconds: i64) -> Option<Note> {
    (seconds != 0).then_some(Note::Changed { seconds })
}

fn second(instant: Timestamp) -> i64 {
    (instant.0 / 1_000_000) as i64
}

/// Prints seconds of a local clock since 1970: `2026-03-29 02:30:00`.
struct Clock(i64);

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = Date::of_days(self.0.div_euclid(DAY));
        let second = self.0.rem_euclid(DAY);
        let (hour, minute) = (second / 3_600, second / 60 % 60);
        write!(f, "{date} {hour:02}:{minute:02}:{:02}", second % 60)
    }
}
