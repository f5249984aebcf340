//! Dates of the proleptic Gregorian calendar as numbers of days.

use core::fmt;

/// Seconds of a day without a change of the clocks.
pub(crate) const DAY: i64 = 86_400;
/// Months after which the calendar repeats, weekdays included.
pub(crate) const CYCLE_MONTHS: u32 = 400 * 12;

/// A day of the calendar. Orders by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    year: i32,
    month: u32,
    day: u32,
}

impl Date {
    /// The date, if there is such a day between 1970 and 2499.
    #[must_use]
    pub const fn new(year: i32, month: u32, day: u32) -> Option<Self> {
        let is_year = year >= 1970 && year < 2500;
        if is_year && month >= 1 && month <= 12 && day >= 1 && day <= month_days(year, month) {
            Some(Self { year, month, day })
        } else {
            None
        }
    }

    /// Reads `2026-12-24`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-');
        let mut number = |digits: usize| {
            let part = parts.next()?;
            let is_number = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
            if is_number { part.parse::<u32>().ok() } else { None }
        };
        let (year, month, day) = (number(4)?, number(2)?, number(2)?);
        Self::new(i32::try_from(year).ok()?, month, day)
    }

    /// The date `days` after 1970-01-01. The algorithm is `civil_from_days` of Howard Hinnant's "chrono-compatible low-level date
    /// algorithms".
    pub(crate) fn of_days(days: i64) -> Self {
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let of_era = shifted.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Self { year: year as i32, month: month as u32, day: day as u32 }
    }

    /// Days since 1970-01-01.
    pub(crate) fn days(self) -> i64 {
        days_of(self.year, self.month, self.day)
    }

    pub(crate) const fn year(self) -> i32 {
        self.year
    }

    pub(crate) const fn month(self) -> u32 {
        self.month
    }

    pub(crate) const fn day(self) -> u32 {
        self.day
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// Days from 1970-01-01 to a date: Hinnant's `days_from_civil`.
pub(crate) fn days_of(year: i32, month: u32, day: u32) -> i64 {
    let year = i64::from(year) - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = i64::from(if month > 2 { month - 3 } else { month + 9 });
    let of_year = (153 * shifted_month + 2) / 5 + i64::from(day) - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    era * 146_097 + of_era - 719_468
}

/// How many days the month has.
pub(crate) const fn month_days(year: i32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// The weekday of a day since 1970-01-01: Sunday is 0.
pub(crate) fn weekday(days: i64) -> u32 {
    (days + 4).rem_euclid(7) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn every_day_of_the_calendar_follows_the_one_before() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..days_of(2500, 1, 1) {
            let date = Date::of_days(days);
            assert_eq!((date.year, date.month, date.day), (year, month, day));
            assert_eq!(days_of(year, month, day), days);
            assert_eq!(weekday(days), ((days + 4) % 7) as u32);
            day += 1;
            if Date::new(year, month, day).is_none() {
                (month, day) = (month + 1, 1);
            }
            if month == 13 {
                (year, month) = (year + 1, 1);
            }
        }
        assert_eq!((year, month, day), (2500, 1, 1));
    }

    #[test]
    fn dates_are_read_as_they_are_printed() {
        for text in ["1970-01-01", "2024-02-29", "2499-12-31"] {
            assert_eq!(Date::parse(text).map(|date| date.to_string()).as_deref(), Some(text));
        }
        for text in
            ["1969-12-31", "2500-01-01", "2025-02-29", "2026-1-1", "2026-13-01", "+026-01-01", ""]
        {
            assert_eq!(Date::parse(text), None, "{text}");
        }
    }
}
