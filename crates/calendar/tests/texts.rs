//! What is refused, and what is said about it.

use proptest::prelude::*;
use rota_calendar::{BadTimetable, Cron, Date, Exclusions, Options, Rule, Timetable, Zone};
use rota_types::limits::{
    EXCLUSIONS_MAX, JITTER_MAX, SCHEDULE_INTERVAL_MAX, SCHEDULE_INTERVAL_MIN,
    SCHEDULE_TEXT_BYTES_MAX,
};
use rota_types::{Span, Timestamp};

fn refusal(text: &str) -> String {
    match Rule::parse(text, &Options::default()) {
        Err(error) => error.to_string(),
        Ok(rule) => panic!("{text} is taken as {rule}"),
    }
}

/// What is refused, and the whole answer.
const REFUSALS: &[(&str, &str)] = &[
    ("0 0 1 13 *", "month, column 7: 13 is not a month: 1–12 or JAN–DEC"),
    ("0 0 1 FOO *", "month, column 7: FOO is not a month: 1–12 or JAN–DEC"),
    ("60 * * * *", "minute, column 1: 60 is not a minute: 0–59"),
    ("0 24 * * *", "hour, column 3: 24 is not an hour: 0–23"),
    ("0 0 0 * *", "day of month, column 5: 0 is not a day of month: 1–31"),
    (
        "0 0 1,,2 * *",
        "day of month, column 7: a value is missing next to a comma; remove the comma or write a value",
    ),
    (
        "0 0 * * 8",
        "day of week, column 9: 8 is not a day of week: 0–7 (Sunday is 0 and 7) or SUN–SAT",
    ),
    (
        "0 0 * * L",
        "day of week, column 9: L alone is no day of week; write SAT, or FRIL for the last Friday of the month",
    ),
    (
        "0 0 * * FRI#6",
        "day of week, column 13: 6 is not a week of the month: 1–5; for the last one write L after the day, as in FRIL",
    ),
    ("0 0 32W * *", "day of month, column 5: 32 is not a day before W: 1–31"),
    (
        "0 0 L-31 * *",
        "day of month, column 7: 31 is not a number of days before the last one: 0–30",
    ),
    ("*/0 * * * *", "minute, column 3: a step of 0 never moves; write a step of 1–60"),
    (
        "*/90 * * * *",
        "minute, column 3: a step of 90 is longer than the whole minute field, at most 60; for an even interval write @every 90m",
    ),
    ("? * * * *", "minute, column 1: ? stands for any day of month or day of week only; write *"),
    (
        "H(9-3) * * * *",
        "minute, column 1: \"H(9-3)\" begins after its end; write the smaller value first",
    ),
    ("H(9 * * * *", "minute, column 1: \"H(9\" is not a spread; write one like H(0-29)"),
    ("1- * * * *", "minute, column 3: a minute is missing: 0–59"),
    (
        "0 0 * *",
        "schedule, column 1: 4 fields, but an expression has 5 or 6; write minute, hour, day of month, month, day of week; with seconds, put them first",
    ),
    (
        "0 0 0 * * * 2026",
        "schedule, column 1: 7 fields are too many, at most 6: years are not part of an expression; give the schedule a start and an end",
    ),
    (
        "",
        "schedule, column 1: there is nothing; write minute, hour, day of month, month, day of week; with seconds, put them first",
    ),
    (
        "0 0 30 2 *",
        "schedule, column 1: no such day ever comes, as with 30 February; check day of month, month and day of week together",
    ),
    (
        "0 0 31 4,6,9,11 *",
        "schedule, column 1: no such day ever comes, as with 30 February; check day of month, month and day of week together",
    ),
    (
        "@reboot",
        "schedule, column 1: @reboot is not a time: no machine stands for the cluster; write one of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly, or run a service",
    ),
    (
        "@often",
        "schedule, column 1: \"@often\" is not a shorthand; write one of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly, @every 90s, @after 10m, or @at with an instant",
    ),
    (
        "@every often",
        "schedule, column 8: often is not a time span; write one like 90s, 15m, 1h30m or 2d",
    ),
    ("@every 999ms", "schedule, column 8: 999ms is outside the limits: 1s–400d"),
    ("@every 400d1ms", "schedule, column 8: 34560000001ms is outside the limits: 1s–400d"),
    (
        "@at noon",
        "schedule, column 5: noon is not an instant between 1970 and 2499; write one like 2026-12-24T18:00:00Z or 2026-12-24T18:00:00+01:00",
    ),
    (
        "@at 2500-01-01T00:00:00Z",
        "schedule, column 5: 2500-01-01T00:00:00Z is not an instant between 1970 and 2499; write one like 2026-12-24T18:00:00Z or 2026-12-24T18:00:00+01:00",
    ),
];

#[test]
fn refusals_name_the_field_the_column_the_limit_and_a_remedy() {
    for (text, expected) in REFUSALS {
        assert_eq!(refusal(text), *expected, "{text}");
    }
}

#[test]
fn what_is_taken_prints_as_it_is_written() {
    for text in [
        "*/5 9-17 * * MON-FRI",
        "0 30 2 1,15,L * ?",
        "h h(0-7) * * *",
        "~ 0~5 * * *",
        "@daily",
        "@every 90s",
        "@every 1s",
        "@every 400d",
        "@after 10m",
        "@at 2499-12-31T23:59:59Z",
        "0 0 29 2 *",
        "*/60 */24 * * *",
    ] {
        let rule = Rule::parse(text, &Options::default()).expect(text);
        assert_eq!(rule.to_string(), text);
        assert_eq!(Rule::parse(&rule.to_string(), &Options::default()), Ok(rule));
    }
    let spaced = Rule::parse(" 0\t0 * *  MON ", &Options::default()).expect("spaces do not matter");
    assert_eq!(spaced.to_string(), "0 0 * * MON");
    assert_eq!(
        Rule::parse("every 15m", &Options::default()).expect("an interval").to_string(),
        "@every 15m"
    );
}

#[test]
fn texts_are_as_long_as_the_limit_allows() {
    let text = |bytes: usize| format!("{:<bytes$}", "0 0 * * *");
    assert!(Cron::parse(&text(SCHEDULE_TEXT_BYTES_MAX - 1), &Options::default()).is_ok());
    assert!(Cron::parse(&text(SCHEDULE_TEXT_BYTES_MAX), &Options::default()).is_ok());
    assert_eq!(
        refusal(&text(SCHEDULE_TEXT_BYTES_MAX + 1)),
        "schedule, column 1: 257 bytes are too many, at most 256; use ranges and steps, or several schedules"
    );
}

#[test]
fn quartz_numbers_days_of_the_week_from_one() {
    let quartz = Options { quartz: true, ..Options::default() };
    let same = |numbers: &str, names: &str| {
        let days = |text, options| {
            let cron = Cron::parse(text, options).expect("an expression");
            let table = Timetable::new(Rule::Cron(cron), Zone::utc());
            table.after(Timestamp(0)).take(20).collect::<Vec<_>>()
        };
        assert_eq!(days(numbers, &quartz), days(names, &Options::default()), "{numbers}");
    };
    same("0 0 0 ? * 1", "0 0 0 ? * SUN");
    same("0 0 0 ? * 2-6", "0 0 0 ? * MON-FRI");
    same("0 0 0 ? * 7L", "0 0 0 ? * SATL");
    for wrong in ["0 0 0 ? * 0", "0 0 0 ? * 8"] {
        assert!(Cron::parse(wrong, &quartz).is_err(), "{wrong}");
    }
}

#[test]
fn exclusions_and_jitter_have_limits() {
    let days = |count: usize| {
        let day = |index: usize| {
            Date::new(2000 + index as i32 / 300, index as u32 % 300 / 25 + 1, index as u32 % 25 + 1)
        };
        Exclusions::new((0..count).map(|index| day(index).expect("a date")).map(|day| (day, day)))
    };
    assert!(days(EXCLUSIONS_MAX - 1).is_ok());
    assert!(days(EXCLUSIONS_MAX).is_ok());
    assert_eq!(days(EXCLUSIONS_MAX + 1), Err(BadTimetable::Exclusions));
    let day = |text| Date::parse(text).expect("a date");
    let backwards = Exclusions::new([(day("2026-01-02"), day("2026-01-01"))]);
    assert_eq!(
        backwards.map_err(|error| error.to_string()),
        Err("exclusions: 2026-01-02 to 2026-01-01 ends before it begins; write the earlier day first".to_owned())
    );
    let rule = Rule::parse("@hourly", &Options::default()).expect("a rule");
    let mut table = Timetable::new(rule, Zone::utc());
    for (jitter, expected) in [
        (JITTER_MAX.0 - 1, Ok(())),
        (JITTER_MAX.0, Ok(())),
        (JITTER_MAX.0 + 1, Err(BadTimetable::Jitter(Span(JITTER_MAX.0 + 1)))),
    ] {
        table.jitter = Span(jitter);
        assert_eq!(table.check(Timestamp(0)), expected);
    }
    table.jitter = Span::ZERO;
    let interval = |interval: Span| {
        let rule = Rule::Every { interval, anchor: Timestamp(0) };
        Timetable { rule, ..table.clone() }.check(Timestamp(0))
    };
    for inside in [
        SCHEDULE_INTERVAL_MIN.0,
        SCHEDULE_INTERVAL_MIN.0 + 1,
        SCHEDULE_INTERVAL_MAX.0 - 1,
        SCHEDULE_INTERVAL_MAX.0,
    ] {
        assert_eq!(interval(Span(inside)), Ok(()));
    }
    for outside in [0, SCHEDULE_INTERVAL_MIN.0 - 1, SCHEDULE_INTERVAL_MAX.0 + 1, u64::MAX] {
        assert_eq!(interval(Span(outside)), Err(BadTimetable::Interval(Span(outside))));
    }
    table.starts_at = Timestamp(5);
    table.ends_at = Some(Timestamp(5));
    assert_eq!(table.check(Timestamp(0)), Err(BadTimetable::Bounds));
    table.ends_at = Some(Timestamp(6));
    assert_eq!(table.check(Timestamp(0)), Err(BadTimetable::Never));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn no_text_makes_the_parser_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        drop(Rule::parse(&String::from_utf8_lossy(&bytes), &Options::default()));
    }

    #[test]
    fn no_likely_text_makes_the_parser_panic_and_what_it_takes_is_due_some_time(
        text in "[0-9*?,/~#@HLW() A-Zä-]{0,24}( [0-9*?,/~#HLW()A-Z-]{1,8}){0,6}",
        quartz in any::<bool>(),
    ) {
        let options = Options { quartz, ..Options::default() };
        if let Ok(rule) = Rule::parse(&text, &options) {
            let again = Rule::parse(&rule.to_string(), &options);
            prop_assert_eq!(again.as_ref(), Ok(&rule));
            if let Rule::Cron(_) = rule {
                let table = Timetable::new(rule, Zone::utc());
                prop_assert!(table.next_after(Timestamp(0)).is_some());
            }
        }
    }

    #[test]
    fn fields_made_of_the_right_pieces_are_taken_or_refused_in_order(
        fields in prop::collection::vec(prop::collection::vec(piece(), 1..4), 5..7),
    ) {
        let fields: Vec<String> = fields.iter().map(|items| items.join(",")).collect();
        if let Err(error) = Rule::parse(&fields.join(" "), &Options::default()) {
            prop_assert!(error.column >= 1 && error.column <= fields.join(" ").chars().count());
        }
    }
}

fn piece() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        (0..62_u32).prop_map(|number| number.to_string()),
        prop::sample::select(vec!["MON", "jan", "L", "H", "~", "*", "?", "LW"])
            .prop_map(String::from),
    ];
    let more = prop_oneof![
        Just(String::new()),
        (0..62_u32).prop_map(|number| format!("-{number}")),
        (0..62_u32).prop_map(|number| format!("/{number}")),
        (0..7_u32).prop_map(|number| format!("#{number}")),
        prop::sample::select(vec!["L", "W", "~9", "(0-9)", "(1-5)/2", "-3/2"])
            .prop_map(String::from),
    ];
    (value, more).prop_map(|(value, more)| value + &more)
}
