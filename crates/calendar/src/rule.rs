//! What a schedule follows: a cron expression, an interval, a pause after each run, or one instant.

use alloc::format;
use core::fmt;

use rota_types::limits::{SCHEDULE_INTERVAL_MAX, SCHEDULE_INTERVAL_MIN};
use rota_types::{Span, Timestamp};

use crate::civil::{DAY, Date};
use crate::cron::{Cron, Options};
use crate::error::TextError;
use crate::parse::{self, Part};

/// When a schedule is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// At the times of a cron expression, on the clocks of a zone.
    Cron(Cron),
    /// At the anchor and every interval before and after it, in elapsed time.
    Every {
        /// The time between two instants.
        interval: Span,
        /// An instant that is one of them.
        anchor: Timestamp,
    },
    /// A while after the end of the last run; the first time at the schedule's start.
    AfterEnd {
        /// The time between an end and the next start.
        delay: Span,
    },
    /// Once.
    At(Timestamp),
}

impl Rule {
    /// Reads a cron expression, `@every 90s` (also `every 90s`; anchored at 1970-01-01T00:00:00Z), `@after 10m`, or
    /// `@at 2026-12-24T18:00:00Z`.
    ///
    /// # Errors
    /// If it is none of these, or outside the limits.
    pub fn parse(text: &str, options: &Options<'_>) -> Result<Self, TextError> {
        let whole = parse::whole(text)?;
        let start = text.len() - text.trim_start().len();
        let trimmed = whole.slice(start, text.trim_end().len().max(start));
        let Some((word, rest)) = trimmed.cut(' ') else {
            return Ok(Self::Cron(Cron::parse(text, options)?));
        };
        let is = |name: &str| {
            word.text.eq_ignore_ascii_case(name) || word.text.strip_prefix('@') == Some(name)
        };
        if is("every") {
            Ok(Self::Every { interval: interval(&rest)?, anchor: Timestamp(0) })
        } else if is("after") {
            Ok(Self::AfterEnd { delay: interval(&rest)? })
        } else if is("at") {
            Ok(Self::At(instant(&rest)?))
        } else {
            Ok(Self::Cron(Cron::parse(text, options)?))
        }
    }
}

impl fmt::Display for Rule {
    /// Prints what [`Rule::parse`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cron(cron) => write!(f, "{cron}"),
            Self::Every { interval, .. } => write!(f, "@every {interval}"),
            Self::AfterEnd { delay } => write!(f, "@after {delay}"),
            Self::At(at) => write!(f, "@at {}", Utc(*at)),
        }
    }
}

/// Prints an instant as `2026-12-24T18:00:00Z`, with a fraction only if there is one.
pub(crate) struct Utc(pub(crate) Timestamp);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.0.0 / 1_000_000, self.0.0 % 1_000_000);
        let second = seconds as i64 % DAY;
        let date = Date::of_days(seconds as i64 / DAY);
        write!(f, "{date}T{:02}:{:02}:{:02}", second / 3_600, second / 60 % 60, second % 60)?;
        if micros != 0 {
            write!(f, ".{micros:06}")?;
        }
        f.write_str("Z")
    }
}

/// Reads `90s` or `1h30m`.
fn interval(part: &Part<'_>) -> Result<Span, TextError> {
    let bad = || {
        part.error(format!(
            "{} is not a time span; write one like 90s, 15m, 1h30m or 2d",
            part.text.trim().escape_debug()
        ))
    };
    let span = Span(span(part.text.trim()).ok_or_else(bad)?);
    if span < SCHEDULE_INTERVAL_MIN || span > SCHEDULE_INTERVAL_MAX {
        return Err(part.error(format!(
            "{span} is outside the limits: {SCHEDULE_INTERVAL_MIN}–{SCHEDULE_INTERVAL_MAX}"
        )));
    }
    Ok(span)
}

/// Microseconds in a text of numbers with units.
fn span(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 5] = [
        ("d", 86_400_000_000),
        ("h", 3_600_000_000),
        ("ms", 1_000),
        ("m", 60_000_000),
        ("s", 1_000_000),
    ];
    let mut rest = text;
    let mut sum = 0_u64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let (unit, micros) = UNITS.iter().find(|(unit, _)| tail.starts_with(unit))?;
        sum = sum.checked_add(number.parse::<u64>().ok()?.checked_mul(*micros)?)?;
        rest = &tail[unit.len()..];
    }
    (!text.is_empty()).then_some(sum)
}

/// Reads an instant of RFC 3339 within the calendar.
fn instant(part: &Part<'_>) -> Result<Timestamp, TextError> {
    let text = part.text.trim();
    let bad = || {
        part.error(format!(
            "{} is not an instant between 1970 and 2499; write one like 2026-12-24T18:00:00Z or 2026-12-24T18:00:00+01:00",
            text.escape_debug()
        ))
    };
    let at = text.parse::<jiff::Timestamp>().map_err(|_| bad())?;
    let micros = u64::try_from(at.as_microsecond()).map_err(|_| bad())?;
    let end = crate::search::end().unsigned_abs() * 1_000_000;
    if micros < end { Ok(Timestamp(micros)) } else { Err(bad()) }
}
