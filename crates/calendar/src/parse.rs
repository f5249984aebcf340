//! Reads cron expressions. Whatever the bytes are, the answer is an expression or a [`TextError`].

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use rota_types::limits::SCHEDULE_TEXT_BYTES_MAX;

use crate::cron::{Cron, Days, Options, Values, Weekdays};
use crate::error::{Field, TextError};
use crate::item::{self, Item};

/// Shorthands, and what they stand for.
const SHORTHANDS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];
const ORDER: [Field; 6] =
    [Field::Second, Field::Minute, Field::Hour, Field::Day, Field::Month, Field::Weekday];

/// A piece of the text and where it stands.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) field: Field,
    pub(crate) column: usize,
    pub(crate) text: &'a str,
}

impl<'a> Part<'a> {
    pub(crate) fn error(&self, message: impl Into<alloc::string::String>) -> TextError {
        TextError { field: self.field, column: self.column, message: message.into() }
    }

    /// The part of it from byte `start` to byte `end`.
    pub(crate) fn slice(&self, start: usize, end: usize) -> Self {
        let before = self.text.get(..start).unwrap_or_default();
        let text = self.text.get(start..end).unwrap_or_default();
        Self { field: self.field, column: self.column + before.chars().count(), text }
    }

    /// Both sides of the first `mark`, if there is one.
    pub(crate) fn cut(&self, mark: char) -> Option<(Self, Self)> {
        let at = self.text.find(mark)?;
        Some((self.slice(0, at), self.slice(at + mark.len_utf8(), self.text.len())))
    }
}

/// The whole text, if it is not too long.
pub(crate) fn whole(text: &str) -> Result<Part<'_>, TextError> {
    let part = Part { field: Field::Whole, column: 1, text };
    if text.len() > SCHEDULE_TEXT_BYTES_MAX {
        let message = format!(
            "{} bytes are too many, at most {SCHEDULE_TEXT_BYTES_MAX}; use ranges and steps, or several schedules",
            text.len()
        );
        return Err(part.error(message));
    }
    Ok(part)
}

pub(crate) fn cron(text: &str, options: &Options<'_>) -> Result<Cron, TextError> {
    let part = whole(text)?;
    let trimmed = text.trim();
    let known = SHORTHANDS.iter().find(|(name, _)| trimmed.eq_ignore_ascii_case(name));
    if let Some((name, expression)) = known {
        let cron = cron(expression, options)?;
        return Ok(Cron { text: name.to_string(), ..cron });
    }
    if trimmed.starts_with('@') {
        return Err(part.error(unknown_shorthand(trimmed)));
    }
    let cron = fields(&part, options)?;
    if !cron.has_days() {
        let message = "no such day ever comes, as with 30 February; check day of month, month and day of week together";
        return Err(part.error(message));
    }
    Ok(cron)
}

fn unknown_shorthand(text: &str) -> alloc::string::String {
    let names: Vec<&str> = SHORTHANDS.iter().map(|(name, _)| *name).collect();
    let names = names.join(", ");
    if text.eq_ignore_ascii_case("@reboot") {
        return format!(
            "@reboot is not a time: no machine stands for the cluster; write one of {names}, or run a service"
        );
    }
    format!(
        "{text:?} is not a shorthand; write one of {names}, @every 90s, @after 10m, or @at with an instant"
    )
}

fn fields(whole: &Part<'_>, options: &Options<'_>) -> Result<Cron, TextError> {
    let parts = words(whole);
    let fields = match parts.len() {
        5 => &ORDER[1..],
        6 => &ORDER[..],
        count => return Err(whole.error(wrong_count(count))),
    };
    let mut cron = Cron {
        text: parts.iter().map(|part| part.text).collect::<Vec<_>>().join(" "),
        seconds: Values { bits: 1, wild: false },
        minutes: Values::default(),
        hours: Values::default(),
        months: Values::default(),
        days: Days::default(),
        weekdays: Weekdays::default(),
        rule: options.days,
    };
    for (field, part) in fields.iter().zip(parts) {
        let part = Part { field: *field, ..part };
        let items = item::list(&part, options)?;
        match field {
            Field::Whole | Field::Second => cron.seconds = values(*field, &items),
            Field::Minute => cron.minutes = values(*field, &items),
            Field::Hour => cron.hours = values(*field, &items),
            Field::Month => cron.months = values(*field, &items),
            Field::Day => cron.days = days(&items),
            Field::Weekday => cron.weekdays = weekdays(&items),
        }
    }
    Ok(cron)
}

fn words<'a>(whole: &Part<'a>) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    let mut start = None;
    let ends = whole.text.char_indices().chain([(whole.text.len(), ' ')]);
    for (at, char) in ends {
        match (start, char.is_whitespace()) {
            (None, false) => start = Some(at),
            (Some(from), true) => {
                parts.push(whole.slice(from, at));
                start = None;
            }
            (None, true) | (Some(_), false) => {}
        }
    }
    parts
}

fn wrong_count(count: usize) -> alloc::string::String {
    let form = "write minute, hour, day of month, month, day of week; with seconds, put them first";
    match count {
        0 => format!("there is nothing; {form}"),
        7 => "7 fields are too many, at most 6: years are not part of an expression; give the schedule a start and an end".to_string(),
        _ => format!("{count} fields, but an expression has 5 or 6; {form}"),
    }
}

fn values(field: Field, items: &[Item]) -> Values {
    let (least, most) = field.limits();
    let mut values = Values::default();
    for item in items {
        if let Item::Values { bits, wild, .. } = item {
            values.bits |= bits;
            values.wild |= wild;
        }
    }
    values.wild |= values.bits.count_ones() == most - least + 1;
    values
}

fn days(items: &[Item]) -> Days {
    let mut days = Days::default();
    for item in items {
        match *item {
            Item::Values { bits, any, .. } => {
                days.plain |= bits as u32;
                days.any |= any;
            }
            Item::BeforeLast(before) => days.before_last |= 1 << before,
            Item::NearestWeekday(day) => days.nearest_weekday |= 1 << day,
            Item::LastWeekday => days.last_weekday = true,
            Item::Nth { .. } | Item::Last(_) => {}
        }
    }
    days
}

fn weekdays(items: &[Item]) -> Weekdays {
    let mut weekdays = Weekdays::default();
    for item in items {
        match *item {
            Item::Values { bits, any, .. } => {
                weekdays.plain |= bits as u8;
                weekdays.any |= any;
            }
            Item::Nth { weekday, nth } => weekdays.nth[nth as usize - 1] |= 1 << weekday,
            Item::Last(weekday) => weekdays.last |= 1 << weekday,
            Item::BeforeLast(_) | Item::NearestWeekday(_) | Item::LastWeekday => {}
        }
    }
    weekdays
}
