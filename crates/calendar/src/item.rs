//! One field of an expression: a list of items such as `1-5`, `*/15`, `H(0-29)`, `LW` or `FRI#2`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::cron::Options;
use crate::error::{Field, TextError};
use crate::parse::Part;
use crate::spread::draw_below;

/// The last day of the month that `H` picks by itself, so that every month has it.
const SPREAD_DAY_MAX: u32 = 28;

/// What one item of a list means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// Plain values.
    Values {
        bits: u64,
        /// Written with `*`, `?` or a step.
        wild: bool,
        /// Nothing but `*` or `?`.
        any: bool,
    },
    /// `L-3`: so many days before the last one of the month.
    BeforeLast(u32),
    /// `15W`.
    NearestWeekday(u32),
    /// `LW`.
    LastWeekday,
    /// `FRI#2`.
    Nth { weekday: u32, nth: u32 },
    /// `FRIL`.
    Last(u32),
}

/// A range of values, and whether it came from chance.
struct Range {
    first: u32,
    last: u32,
    spread: bool,
    /// It is `*`.
    star: bool,
}

/// Reads a field.
pub(crate) fn list(field: &Part<'_>, options: &Options<'_>) -> Result<Vec<Item>, TextError> {
    let mut items = Vec::new();
    let mut start = 0;
    let ends = field.text.char_indices().filter(|(_, char)| *char == ',').map(|(at, _)| at);
    for end in ends.chain([field.text.len()]) {
        let part = field.slice(start, end);
        start = end + 1;
        if part.text.is_empty() {
            return Err(
                part.error("a value is missing next to a comma; remove the comma or write a value")
            );
        }
        let draw = |bound: u32| {
            let parts = [field.field as u64, items.len() as u64];
            draw_below(options.seed, &parts, u64::from(bound)) as u32
        };
        let item = item(&part, options, &draw)?;
        items.push(item);
    }
    Ok(items)
}

fn item(
    part: &Part<'_>,
    options: &Options<'_>,
    draw: &dyn Fn(u32) -> u32,
) -> Result<Item, TextError> {
    if let Some(special) = special(part, options)? {
        return Ok(special);
    }
    let (range, step) = match part.cut('/') {
        Some((range, step)) => (range, Some(step)),
        None => (*part, None),
    };
    let read = range_of(&range, options)?;
    let Some(step) = step else {
        let Range { first, last, spread, star } = read;
        let drawn = || 1 << (first + draw(1 + span(part.field, first, last)));
        let bits = if spread { drawn() } else { walk(part.field, first, last, 1) };
        return Ok(Item::Values { bits, wild: star, any: star });
    };
    let (least, most) = part.field.limits();
    let steps = format!("1–{}", most - least + 1);
    let step_by = number(&step, "a step", &steps)?;
    if step_by == 0 || step_by > most - least + 1 {
        return Err(step.error(bad_step(part.field, step_by)));
    }
    let Range { first, last, spread, star } = read;
    // `5/15` is 5 and every 15 after it.
    let is_open = !star && !spread && !range.text.contains('-');
    let last = if is_open { most } else { last };
    let first =
        if spread { first + draw(step_by.min(1 + span(part.field, first, last))) } else { first };
    let bits = walk(part.field, first, last, step_by);
    Ok(Item::Values { bits, wild: true, any: star && step_by == 1 })
}

fn bad_step(field: Field, step: u32) -> String {
    let (least, most) = field.limits();
    let name = field.name();
    if step == 0 {
        return format!("a step of 0 never moves; write a step of 1–{}", most - least + 1);
    }
    let hint = match field {
        Field::Whole | Field::Second => format!("@every {step}s"),
        Field::Minute => format!("@every {step}m"),
        Field::Hour => format!("@every {step}h"),
        Field::Day | Field::Month | Field::Weekday => String::from("an interval with @every"),
    };
    format!(
        "a step of {step} is longer than the whole {name} field, at most {}; for an even interval write {hint}",
        most - least + 1
    )
}

/// Reads what may stand before a step.
fn range_of(part: &Part<'_>, options: &Options<'_>) -> Result<Range, TextError> {
    let (least, most) = part.field.limits();
    let is_day = matches!(part.field, Field::Day | Field::Weekday);
    match part.text {
        "*" => return Ok(Range { first: least, last: most, spread: false, star: true }),
        "?" if is_day => return Ok(Range { first: least, last: most, spread: false, star: true }),
        "?" => return Err(part.error("? stands for any day of month or day of week only; write *")),
        "H" | "h" | "~" => {
            let last = if part.field == Field::Day { SPREAD_DAY_MAX } else { most };
            return Ok(Range { first: least, last, spread: true, star: false });
        }
        _ => {}
    }
    if part.text.starts_with(['H', 'h']) && part.text[1..].starts_with('(') {
        let inner = part.slice(2, part.text.len().saturating_sub(1));
        let Some((first, last)) = inner.cut('-').filter(|_| part.text.ends_with(')')) else {
            return Err(
                part.error(format!("{:?} is not a spread; write one like H(0-29)", part.text))
            );
        };
        return ordered(part, value(&first, options)?, value(&last, options)?);
    }
    if let Some((first, last)) = part.cut('~') {
        let first = if first.text.is_empty() { least } else { value(&first, options)? };
        let last = if last.text.is_empty() { most } else { value(&last, options)? };
        return ordered(part, first, last);
    }
    if let Some((first, last)) = part.cut('-') {
        let whole_week = part.field == Field::Weekday && last.text == "7" && !options.quartz;
        let (first, last) = (value(&first, options)?, value(&last, options)?);
        let last = if whole_week && first == 0 { most } else { last };
        return Ok(Range { first, last, spread: false, star: false });
    }
    let first = value(part, options)?;
    Ok(Range { first, last: first, spread: false, star: false })
}

/// A range to draw from, which does not wrap around.
fn ordered(part: &Part<'_>, first: u32, last: u32) -> Result<Range, TextError> {
    if first > last {
        let message =
            format!("{:?} begins after its end; write the smaller value first", part.text);
        return Err(part.error(message));
    }
    Ok(Range { first, last, spread: true, star: false })
}

/// How many steps lead from `first` to `last`, over the end of the field if need be.
fn span(field: Field, first: u32, last: u32) -> u32 {
    let (least, most) = field.limits();
    if first <= last { last - first } else { last + (most - least + 1) - first }
}

/// Every `step`th value from `first` to `last`; `FRI-MON` goes on over the end of the field.
fn walk(field: Field, first: u32, last: u32, step: u32) -> u64 {
    let (least, most) = field.limits();
    let values = (0..=span(field, first, last)).step_by(step as usize).map(|walked| first + walked);
    let wrapped = values.map(|value| if value > most { value - (most - least + 1) } else { value });
    wrapped.fold(0, |bits, value| bits | 1 << value)
}

/// Reads one value: a number or a name.
fn value(part: &Part<'_>, options: &Options<'_>) -> Result<u32, TextError> {
    let field = part.field;
    let (least, most) = field.limits();
    if let Some(at) = field.names().iter().position(|name| part.text.eq_ignore_ascii_case(name)) {
        return Ok(least + at as u32);
    }
    let number = number(part, field.one(), allowed(field, options))?;
    let sunday_is_seven = field == Field::Weekday && !options.quartz;
    match number {
        7 if sunday_is_seven => Ok(0),
        1..=7 if field == Field::Weekday && options.quartz => Ok(number - 1),
        _ if number >= least && number <= most && !(field == Field::Weekday && options.quartz) => {
            Ok(number)
        }
        _ => {
            let allowed = allowed(field, options);
            Err(part.error(format!("{} is not {}: {allowed}", part.text, field.one())))
        }
    }
}

/// What may be written for a value of the field.
fn allowed(field: Field, options: &Options<'_>) -> &'static str {
    match field {
        Field::Weekday if options.quartz => "1–7 (Sunday is 1) or SUN–SAT",
        _ => field.allowed(),
    }
}

/// Reads a number of at most four digits.
fn number(part: &Part<'_>, what: &str, allowed: &str) -> Result<u32, TextError> {
    let is_number = part.text.bytes().all(|byte| byte.is_ascii_digit());
    if part.text.is_empty() {
        return Err(part.error(format!("{what} is missing: {allowed}")));
    }
    if !is_number || part.text.len() > 4 {
        return Err(part.error(format!("{} is not {what}: {allowed}", part.text.escape_debug())));
    }
    Ok(part.text.bytes().fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
}

/// Reads what only days of a month or of a week know.
fn special(part: &Part<'_>, options: &Options<'_>) -> Result<Option<Item>, TextError> {
    match part.field {
        Field::Day => day(part),
        Field::Weekday => weekday(part, options),
        Field::Whole | Field::Second | Field::Minute | Field::Hour | Field::Month => Ok(None),
    }
}

fn day(part: &Part<'_>) -> Result<Option<Item>, TextError> {
    let text = part.text.as_bytes();
    match text {
        [b'L' | b'l'] => Ok(Some(Item::BeforeLast(0))),
        [b'L' | b'l', b'W' | b'w'] => Ok(Some(Item::LastWeekday)),
        [b'L' | b'l', b'-', ..] => {
            let before = part.slice(2, part.text.len());
            match number(&before, "a number of days before the last one", "0–30")? {
                before @ 0..=30 => Ok(Some(Item::BeforeLast(before))),
                _ => Err(before.error(format!(
                    "{} is not a number of days before the last one: 0–30",
                    before.text
                ))),
            }
        }
        [.., b'W' | b'w'] => {
            let wanted = part.slice(0, part.text.len() - 1);
            match number(&wanted, "a day before W", Field::Day.allowed())? {
                day @ 1..=31 => Ok(Some(Item::NearestWeekday(day))),
                _ => Err(wanted.error(format!("{} is not a day before W: 1–31", wanted.text))),
            }
        }
        _ => Ok(None),
    }
}

fn weekday(part: &Part<'_>, options: &Options<'_>) -> Result<Option<Item>, TextError> {
    if let Some((weekday, nth)) = part.cut('#') {
        let weekday = value(&weekday, options)?;
        return match number(&nth, "a week of the month", "1–5")? {
            number @ 1..=5 => Ok(Some(Item::Nth { weekday, nth: number })),
            _ => Err(nth.error(format!("{} is not a week of the month: 1–5; for the last one write L after the day, as in FRIL", nth.text))),
        };
    }
    match part.text.as_bytes() {
        [b'L' | b'l'] => Err(part.error(
            "L alone is no day of week; write SAT, or FRIL for the last Friday of the month",
        )),
        [.., b'L' | b'l'] => {
            let weekday = value(&part.slice(0, part.text.len() - 1), options)?;
            Ok(Some(Item::Last(weekday)))
        }
        _ => Ok(None),
    }
}
