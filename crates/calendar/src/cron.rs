//! A cron expression as sets of values, and the search for the next local time in them.

use alloc::string::String;
use core::fmt;

use crate::civil::{CYCLE_MONTHS, DAY, Date, days_of, month_days, weekday};
use crate::error::TextError;
use crate::parse;

/// How day of month and day of week go together if both are restricted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DayRule {
    /// A day has to match one of them, as cron always did.
    #[default]
    Either,
    /// A day has to match both: `0 0 13 * FRI` is Friday the 13th.
    Both,
}

/// What a text is read with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options<'a> {
    /// What `H` and `~` draw from: the schedule's name, so that many schedules spread out and each stays where it is.
    pub seed: &'a str,
    /// How day of month and day of week go together.
    pub days: DayRule,
    /// Days of the week are numbered from 1, Sunday, as in Quartz.
    pub quartz: bool,
}

/// A cron expression of five or six fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    pub(crate) text: String,
    pub(crate) seconds: Values,
    pub(crate) minutes: Values,
    pub(crate) hours: Values,
    pub(crate) months: Values,
    pub(crate) days: Days,
    pub(crate) weekdays: Weekdays,
    pub(crate) rule: DayRule,
}

/// The values of a field, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Values {
    pub(crate) bits: u64,
    /// Written with `*`, `?` or a step, or naming every value: follows the clock as it runs.
    pub(crate) wild: bool,
}

/// Which days of a month.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Days {
    /// Bit `n`: day `n`.
    pub(crate) plain: u32,
    /// Bit `n`: `n` days before the last one.
    pub(crate) before_last: u32,
    /// Bit `n`: the weekday nearest to day `n`.
    pub(crate) nearest_weekday: u32,
    /// The last weekday.
    pub(crate) last_weekday: bool,
    /// Written as `*` or `?`.
    pub(crate) any: bool,
}

/// Which days of a week; bit 0 is Sunday.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weekdays {
    /// Every such day.
    pub(crate) plain: u8,
    /// `nth[0]`: the first such day of the month.
    pub(crate) nth: [u8; 5],
    /// The last such day of the month.
    pub(crate) last: u8,
    /// Written as `*` or `?`.
    pub(crate) any: bool,
}

impl Cron {
    /// Reads an expression.
    ///
    /// # Errors
    /// If it is not one, or names no day that exists, such as 30 February.
    pub fn parse(text: &str, options: &Options<'_>) -> Result<Self, TextError> {
        parse::cron(text, options)
    }

    /// Whether it fires at times of the local clock that are spelled out (`30 2 * * *`), rather than as time passes (`*/15 * * * *`):
    /// the former make up for an hour that the clocks skip, and do not repeat one that they repeat.
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        !self.minutes.wild && !self.hours.wild
    }

    /// How often it can be due within a minute.
    pub(crate) fn runs_per_minute(&self) -> u32 {
        self.seconds.bits.count_ones()
    }

    /// Whether any day matches. The calendar repeats after 400 years.
    pub(crate) fn has_days(&self) -> bool {
        (0..CYCLE_MONTHS)
            .any(|month| self.matching_days(2000 + (month / 12) as i32, month % 12 + 1) != 0)
    }

    /// The first matching local second from `from` on and before `until`, in seconds since 1970 on the local clock.
    pub(crate) fn next(&self, from: i64, until: i64) -> Option<i64> {
        let today = from.div_euclid(DAY);
        let date = Date::of_days(today);
        let mut days = self.matching_days(date.year(), date.month()) & (u32::MAX << date.day());
        if days & (1 << date.day()) != 0 {
            if let Some(time) = self.next_time(from.rem_euclid(DAY)) {
                return Some(today * DAY + time).filter(|wall| *wall < until);
            }
            days &= days - 1;
        }
        let (mut year, mut month) = (date.year(), date.month());
        while days == 0 {
            (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
            if days_of(year, month, 1) * DAY >= until {
                return None;
            }
            days = self.matching_days(year, month);
        }
        let day = days_of(year, month, days.trailing_zeros());
        self.next_time(0).map(|time| day * DAY + time).filter(|wall| *wall < until)
    }

    /// The last matching local second up to `from`, and not before 1970.
    pub(crate) fn previous(&self, from: i64) -> Option<i64> {
        let today = from.div_euclid(DAY);
        let date = Date::of_days(today);
        let mut days =
            self.matching_days(date.year(), date.month()) & !(u32::MAX << date.day() << 1);
        if days & (1 << date.day()) != 0 {
            if let Some(time) = self.previous_time(from.rem_euclid(DAY)) {
                return Some(today * DAY + time).filter(|wall| *wall >= -DAY);
            }
            days &= !(1 << date.day());
        }
        let (mut year, mut month) = (date.year(), date.month());
        while days == 0 {
            (year, month) = if month == 1 { (year - 1, 12) } else { (year, month - 1) };
            if year < 1969 {
                return None;
            }
            days = self.matching_days(year, month);
        }
        let day = days_of(year, month, days.ilog2());
        self.previous_time(DAY - 1).map(|time| day * DAY + time)
    }

    /// Bit `n`: day `n` of the month matches.
    fn matching_days(&self, year: i32, month: u32) -> u32 {
        if self.months.bits & (1 << month) == 0 {
            return 0;
        }
        let length = month_days(year, month);
        let first = weekday(days_of(year, month, 1));
        let all = (1_u32 << length << 1).wrapping_sub(2);
        match (self.days.any, self.weekdays.any) {
            (true, true) => all,
            (true, false) => self.weekdays.of_month(first, length),
            (false, true) => self.days.of_month(first, length),
            (false, false) => {
                let days = self.days.of_month(first, length);
                let weekdays = self.weekdays.of_month(first, length);
                match self.rule {
                    DayRule::Either => days | weekdays,
                    DayRule::Both => days & weekdays,
                }
            }
        }
    }

    fn next_time(&self, from: i64) -> Option<i64> {
        let (hour, minute, second) = split(from);
        let first = |values: &Values| values.bits.trailing_zeros();
        let hour_now = self.hours.bits & (1 << hour) != 0;
        if hour_now
            && self.minutes.bits & (1 << minute) != 0
            && let Some(second) = at_least(self.seconds.bits, second)
        {
            return Some(join(hour, minute, second));
        }
        if hour_now && let Some(minute) = at_least(self.minutes.bits, minute + 1) {
            return Some(join(hour, minute, first(&self.seconds)));
        }
        let hour = at_least(self.hours.bits, hour + 1)?;
        Some(join(hour, first(&self.minutes), first(&self.seconds)))
    }

    fn previous_time(&self, from: i64) -> Option<i64> {
        let (hour, minute, second) = split(from);
        let last = |values: &Values| values.bits.checked_ilog2().unwrap_or(0);
        let hour_now = self.hours.bits & (1 << hour) != 0;
        if hour_now
            && self.minutes.bits & (1 << minute) != 0
            && let Some(second) = below(self.seconds.bits, second + 1)
        {
            return Some(join(hour, minute, second));
        }
        if hour_now && let Some(minute) = below(self.minutes.bits, minute) {
            return Some(join(hour, minute, last(&self.seconds)));
        }
        let hour = below(self.hours.bits, hour)?;
        Some(join(hour, last(&self.minutes), last(&self.seconds)))
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Days {
    /// The days of a month that begins on the weekday `first`, as bits.
    fn of_month(&self, first: u32, length: u32) -> u32 {
        let mut days = self.plain & (1_u32 << length << 1).wrapping_sub(2);
        for before in bits(u64::from(self.before_last)) {
            days |= if before < length { 1 << (length - before) } else { 0 };
        }
        for wanted in bits(u64::from(self.nearest_weekday)).filter(|wanted| *wanted <= length) {
            days |= 1 << nearest_weekday(wanted, first, length);
        }
        if self.last_weekday {
            days |= 1 << nearest_weekday(length, first, length);
        }
        days
    }
}

/// The Monday to Friday of the same month that is nearest to `day`.
fn nearest_weekday(day: u32, first: u32, length: u32) -> u32 {
    match (first + day - 1) % 7 {
        6 if day == 1 => 3,
        6 => day - 1,
        0 if day == length => day - 2,
        0 => day + 1,
        _ => day,
    }
}

impl Weekdays {
    /// The days of a month that begins on the weekday `first`, as bits.
    fn of_month(&self, first: u32, length: u32) -> u32 {
        const WEEKLY: u32 = 1 | 1 << 7 | 1 << 14 | 1 << 21 | 1 << 28;
        let all = (1_u32 << length << 1).wrapping_sub(2);
        let mut days = 0;
        for weekday in 0..7 {
            let day = 1 + (weekday + 7 - first) % 7;
            let is_in = |set: u8| set & (1 << weekday) != 0;
            let every = (WEEKLY << day) & all;
            if is_in(self.plain) {
                days |= every;
            }
            for (nth, set) in (0..).zip(self.nth) {
                days |= if is_in(set) {
                    1_u32.checked_shl(day + 7 * nth).unwrap_or(0) & all
                } else {
                    0
                };
            }
            if is_in(self.last) {
                days |= 1 << every.ilog2();
            }
        }
        days
    }
}

/// The set bits, smallest first.
pub(crate) fn bits(mut set: u64) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        let bit = set.trailing_zeros();
        set &= set.checked_sub(1)?;
        Some(bit)
    })
}

fn at_least(set: u64, from: u32) -> Option<u32> {
    let rest = set & u64::MAX.checked_shl(from)?;
    (rest != 0).then(|| rest.trailing_zeros())
}

fn below(set: u64, end: u32) -> Option<u32> {
    (set & !(u64::MAX << end)).checked_ilog2()
}

fn split(time: i64) -> (u32, u32, u32) {
    ((time / 3_600) as u32, (time / 60 % 60) as u32, (time % 60) as u32)
}

fn join(hour: u32, minute: u32, second: u32) -> i64 {
    i64::from(hour) * 3_600 + i64::from(minute) * 60 + i64::from(second)
}
