//! What is wrong with a text, where, and what to write instead.

use alloc::string::String;
use core::fmt;

/// A part of a schedule's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// The text as a whole.
    Whole,
    /// Second of the minute: the first of six fields.
    Second,
    /// Minute of the hour.
    Minute,
    /// Hour of the day.
    Hour,
    /// Day of the month.
    Day,
    /// Month of the year.
    Month,
    /// Day of the week.
    Weekday,
}

impl Field {
    /// What the field is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Whole => "schedule",
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day of month",
            Self::Month => "month",
            Self::Weekday => "day of week",
        }
    }

    /// One of its values.
    pub(crate) const fn one(self) -> &'static str {
        match self {
            Self::Whole => "a schedule",
            Self::Second => "a second",
            Self::Minute => "a minute",
            Self::Hour => "an hour",
            Self::Day => "a day of month",
            Self::Month => "a month",
            Self::Weekday => "a day of week",
        }
    }

    /// The smallest and the largest value.
    pub(crate) const fn limits(self) -> (u32, u32) {
        match self {
            Self::Whole | Self::Second | Self::Minute => (0, 59),
            Self::Hour => (0, 23),
            Self::Day => (1, 31),
            Self::Month => (1, 12),
            Self::Weekday => (0, 6),
        }
    }

    /// What may be written for one value.
    pub(crate) const fn allowed(self) -> &'static str {
        match self {
            Self::Whole | Self::Second | Self::Minute => "0–59",
            Self::Hour => "0–23",
            Self::Day => "1–31",
            Self::Month => "1–12 or JAN–DEC",
            Self::Weekday => "0–7 (Sunday is 0 and 7) or SUN–SAT",
        }
    }

    /// The short names of its values, from the smallest on.
    pub(crate) const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Month => &MONTHS,
            Self::Weekday => &WEEKDAYS,
            Self::Whole | Self::Second | Self::Minute | Self::Hour | Self::Day => &[],
        }
    }
}

const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextError {
    /// The part that is wrong.
    pub field: Field,
    /// The character where it begins; the first is 1.
    pub column: usize,
    /// What is wrong, which limit it breaks, and what to write instead.
    pub message: String,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, column, message } = self;
        write!(f, "{}, column {column}: {message}", field.name())
    }
}

impl core::error::Error for TextError {}
