//! Says in plain English when a rule is due.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::cron::{Cron, DayRule, Days, Values, Weekdays, bits};
use crate::error::Field;
use crate::rule::{Rule, Utc};

/// As many times of day are spelled out.
const TIMES_MAX: u32 = 6;
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const ORDINALS: [&str; 5] = ["first", "second", "third", "fourth", "fifth"];

impl Rule {
    /// When it is due, in plain English: `at 02:30 on Monday to Friday`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Cron(cron) => describe(cron),
            Self::Every { interval, anchor } if anchor.0.is_multiple_of(interval.0.max(1)) => {
                format!("every {interval} of elapsed time")
            }
            Self::Every { interval, anchor } => {
                format!("every {interval} of elapsed time, counted from {}", Utc(*anchor))
            }
            Self::AfterEnd { delay } => format!("{delay} after the end of the run before"),
            Self::At(at) => format!("once, at {}", Utc(*at)),
        }
    }
}

fn describe(cron: &Cron) -> String {
    let mut text = times(cron).unwrap_or_else(|| clock(cron));
    let is_spelled_out = !cron.minutes.wild && !cron.hours.wild;
    match days(cron) {
        Some(days) => text = format!("{text} {days}"),
        None if is_spelled_out => text += " every day",
        None => {}
    }
    if cron.months.bits.count_ones() < 12 {
        let name = |month: u32| MONTHS[month as usize - 1].to_string();
        text = format!("{text} in {}", listed(&runs(cron.months.bits, &name)));
    }
    text
}

/// A few times of day: `at 09:00 and 17:30`.
fn times(cron: &Cron) -> Option<String> {
    let [seconds, minutes, hours] = [cron.seconds, cron.minutes, cron.hours].map(|set| set.bits);
    let count = seconds.count_ones() * minutes.count_ones() * hours.count_ones();
    if count > TIMES_MAX {
        return None;
    }
    let mut times = Vec::new();
    for hour in bits(hours) {
        for minute in bits(minutes) {
            for second in bits(seconds) {
                let seconds = if seconds == 1 { String::new() } else { format!(":{second:02}") };
                times.push(format!("{hour:02}:{minute:02}{seconds}"));
            }
        }
    }
    Some(format!("at {}", listed(&times)))
}

/// Seconds, minutes and hours one after another: `every 15 minutes of the hours 9 to 17`.
fn clock(cron: &Cron) -> String {
    let mut parts = Vec::new();
    if cron.seconds.bits != 1 {
        parts.push(unit(cron.seconds, Field::Second));
    }
    let all = |values: Values, field| even(values.bits, field) == Some((0, 1));
    let is_every_minute = all(cron.minutes, Field::Minute);
    if parts.is_empty() || !is_every_minute {
        parts.push(unit(cron.minutes, Field::Minute));
    }
    if !all(cron.hours, Field::Hour) {
        parts.push(unit(cron.hours, Field::Hour));
    } else if !cron.minutes.wild {
        parts.push("every hour".to_string());
    }
    parts.join(" of ")
}

/// A field of the clock: `every 15 minutes`, `minute 5`, `minutes 0 to 9 and 30`.
fn unit(values: Values, field: Field) -> String {
    let name = field.name();
    match even(values.bits, field) {
        Some((0, 1)) => format!("every {name}"),
        Some((0, step)) => format!("every {step} {name}s"),
        Some((start, step)) => format!("every {step} {name}s from {start} on"),
        None if values.bits.count_ones() == 1 => format!("{name} {}", values.bits.trailing_zeros()),
        None => format!("{name}s {}", listed(&runs(values.bits, &|value| value.to_string()))),
    }
}

/// First value and step, if the values go evenly through the whole field.
pub(crate) fn even(set: u64, field: Field) -> Option<(u32, u32)> {
    let (least, most) = field.limits();
    let mut values = bits(set);
    let (first, second) = (values.next()?, values.next()?);
    let step = second - first;
    let expected =
        (first..=most).step_by(step as usize).fold(0, |bits, value| bits | 1_u64 << value);
    let few = set.count_ones() < 3 && most - least > 2 * step;
    (set == expected && first < least + step && !few).then_some((first, step))
}

fn days(cron: &Cron) -> Option<String> {
    let month_days = (!cron.days.any).then(|| of_month(&cron.days));
    let week_days = (!cron.weekdays.any).then(|| of_week(&cron.weekdays));
    match (month_days, week_days) {
        (None, None) => None,
        (Some(days), None) | (None, Some(days)) => Some(format!("on {days}")),
        (Some(days), Some(week)) => match cron.rule {
            DayRule::Either => Some(format!("on {days}, and on {week},")),
            DayRule::Both => Some(format!("on {days} if that is {week},")),
        },
    }
    .map(|text| {
        if cron.months.bits.count_ones() == 12 {
            text.trim_end_matches(',').to_string()
        } else {
            text
        }
    })
}

fn of_month(days: &Days) -> String {
    let mut parts = Vec::new();
    let plain = u64::from(days.plain);
    if plain != 0 {
        parts.push(match even(plain, Field::Day) {
            Some((first, step)) if step > 1 => {
                format!("days {first}, {} and so on to {}", first + step, plain.ilog2())
            }
            _ if plain.count_ones() == 1 => format!("day {}", plain.ilog2()),
            _ => format!("days {}", listed(&runs(plain, &|day| day.to_string()))),
        });
    }
    for before in bits(u64::from(days.before_last)) {
        parts.push(match before {
            0 => "the last day".to_string(),
            1 => "the day before the last".to_string(),
            _ => format!("the day {before} days before the last"),
        });
    }
    parts.extend(
        bits(u64::from(days.nearest_weekday))
            .map(|day| format!("the weekday nearest to day {day}")),
    );
    if days.last_weekday {
        parts.push("the last weekday".to_string());
    }
    format!("{} of the month", listed(&parts))
}

fn of_week(days: &Weekdays) -> String {
    let name = |day: u32| WEEKDAYS[day as usize].to_string();
    let mut parts = runs(u64::from(days.plain), &name);
    let mut special = Vec::new();
    for (ordinal, set) in ORDINALS.iter().zip(days.nth) {
        special.extend(bits(u64::from(set)).map(|day| format!("the {ordinal} {}", name(day))));
    }
    special.extend(bits(u64::from(days.last)).map(|day| format!("the last {}", name(day))));
    if !special.is_empty() {
        parts.push(format!("{} of the month", listed(&special)));
    }
    listed(&parts)
}

/// The values as ranges of three or more, and single ones.
fn runs(set: u64, name: &dyn Fn(u32) -> String) -> Vec<String> {
    let values: Vec<u32> = bits(set).collect();
    let mut parts = Vec::new();
    let mut start = 0;
    for at in 0..values.len() {
        let ends = values.get(at + 1).is_none_or(|next| *next != values[at] + 1);
        if ends {
            match &values[start..=at] {
                [first, _, .., last] => parts.push(format!("{} to {}", name(*first), name(*last))),
                few => parts.extend(few.iter().map(|value| name(*value))),
            }
            start = at + 1;
        }
    }
    parts
}

/// `a`, `a and b`, `a, b and c`.
fn listed(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}
