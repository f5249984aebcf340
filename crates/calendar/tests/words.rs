//! What people are told about schedules.

use rota_calendar::{DayRule, Fold, Note, Options, Preview, Rule, Timetable, Zone};
use rota_types::{Span, Timestamp};

fn rule(text: &str) -> Rule {
    Rule::parse(text, &Options::default()).expect("a rule")
}

fn at(text: &str) -> Timestamp {
    match rule(&format!("@at {text}")) {
        Rule::At(at) => at,
        other => panic!("{other}"),
    }
}

#[test]
fn rules_are_described_in_plain_english() {
    for (text, expected) in [
        ("* * * * *", "every minute"),
        ("* * * * * *", "every second"),
        ("*/10 * * * * *", "every 10 seconds"),
        ("*/15 * * * *", "every 15 minutes"),
        ("7-59/15 * * * *", "every 15 minutes from 7 on"),
        ("5 * * * *", "minute 5 of every hour"),
        ("@hourly", "minute 0 of every hour"),
        ("30 2 * * *", "at 02:30 every day"),
        ("15 30 2 * * *", "at 02:30:15 every day"),
        ("0,30 9,17 * * MON-FRI", "at 09:00, 09:30, 17:00 and 17:30 on Monday to Friday"),
        ("0 9-17 * * MON-FRI", "minute 0 of hours 9 to 17 on Monday to Friday"),
        ("*/5 8-18 * * *", "every 5 minutes of hours 8 to 18"),
        ("0 */2 * * *", "minute 0 of every 2 hours"),
        ("0 0 1 1 *", "at 00:00 on day 1 of the month in January"),
        ("0 0 1,15,L * *", "at 00:00 on days 1 and 15 and the last day of the month"),
        ("0 0 */2 * *", "at 00:00 on days 1, 3 and so on to 31 of the month"),
        ("0 0 L-3 * ?", "at 00:00 on the day 3 days before the last of the month"),
        (
            "0 0 15W 1-3,6 *",
            "at 00:00 on the weekday nearest to day 15 of the month in January to March and June",
        ),
        ("0 0 LW * *", "at 00:00 on the last weekday of the month"),
        ("0 0 * * FRI#2,FRIL", "at 00:00 on the second Friday and the last Friday of the month"),
        ("0 0 13 * FRI", "at 00:00 on day 13 of the month, and on Friday"),
        ("@every 90s", "every 90s of elapsed time"),
        ("@after 10m", "10m after the end of the run before"),
        ("@at 2026-12-24T18:00:00Z", "once, at 2026-12-24T18:00:00Z"),
    ] {
        assert_eq!(rule(text).describe(), expected, "{text}");
    }
    let both = Options { days: DayRule::Both, ..Options::default() };
    let friday = Rule::parse("0 0 13 5 FRI", &both).expect("a rule");
    assert_eq!(friday.describe(), "at 00:00 on day 13 of the month if that is Friday, in May");
    let anchored =
        Rule::Every { interval: Span::from_secs(3_600), anchor: at("2026-01-01T00:20:00Z") };
    assert_eq!(anchored.describe(), "every 1h of elapsed time, counted from 2026-01-01T00:20:00Z");
}

#[test]
fn previews_say_what_the_clocks_do() {
    let berlin = Zone::named("Europe/Berlin").expect("a zone");
    let notes = |text: &str, fold: Fold, from: &str| {
        let table = Timetable { fold, ..Timetable::new(rule(text), berlin.clone()) };
        table
            .preview(at(from), 3)
            .map(|Preview { local, note, .. }| (local, note))
            .collect::<Vec<_>>()
    };
    let row = |local: &str, note: Option<Note>| (local.to_owned(), note);
    assert_eq!(
        notes("30 2 * * *", Fold::First, "2026-03-27T12:00:00Z"),
        [
            row("2026-03-28 02:30:00+01:00", None),
            row("2026-03-29 03:00:00+02:00", Some(Note::MadeUp)),
            row("2026-03-30 02:30:00+02:00", None)
        ]
    );
    assert_eq!(
        notes("30 2 * * *", Fold::Both, "2026-10-24T12:00:00Z"),
        [
            row("2026-10-25 02:30:00+02:00", Some(Note::FirstPass)),
            row("2026-10-25 02:30:00+01:00", Some(Note::SecondPass)),
            row("2026-10-26 02:30:00+01:00", None)
        ]
    );
    let day_back = notes("0 9 * * *", Fold::First, "2026-10-24T12:00:00Z");
    let changed = Note::Changed { seconds: -3_600 };
    assert_eq!(day_back[0], row("2026-10-25 09:00:00+01:00", Some(changed)));
    assert_eq!(day_back[1].1, None);
    assert_eq!(changed.to_string(), "clocks have gone back by 1h");
    let odd = Timetable::new(rule("@hourly"), Zone::named("Africa/Monrovia").expect("a zone"));
    assert_eq!(odd.local(Timestamp(0)), "1969-12-31 23:15:30-00:44:30");
}

#[test]
fn previews_say_when_jitter_starts_the_run() {
    let mut table = Timetable::new(rule("@daily"), Zone::utc());
    table.jitter = Span::from_secs(3_600);
    for preview in table.preview(at("2026-01-01T00:00:00Z"), 20) {
        assert_eq!(preview.starts_at, table.start_of(preview.instant));
    }
}

#[test]
fn warnings_name_what_may_surprise() {
    let warnings = |zone: &str, text: &str| {
        let table = Timetable::new(rule(text), Zone::named(zone).expect("a zone"));
        table.warnings(at("2026-01-01T00:00:00Z"))
    };
    assert_eq!(warnings("UTC", "30 2 * * *"), [""; 0]);
    assert_eq!(warnings("Europe/Berlin", "*/15 * * * *"), [""; 0]);
    assert_eq!(warnings("UTC", "@every 7m"), [""; 0]);
    assert_eq!(
        warnings("Europe/Berlin", "30 2 * * *"),
        [
            "2026-03-29 02:30:00 is a time that clocks in Europe/Berlin skip; it runs at 2026-03-29 03:00:00",
            "2026-10-25 02:30:00 comes twice in Europe/Berlin; it runs the first time"
        ]
    );
    assert_eq!(
        warnings("UTC", "*/7 * * * *"),
        ["every 7 minutes begins anew with each hour; for an even interval write @every 7m"]
    );
    assert_eq!(
        warnings("UTC", "0 0 31 * *"),
        ["not every month has a day 31; write L for the last day of each month"]
    );
    assert_eq!(warnings("UTC", "0 0 31 1,3 *"), [""; 0]);
    assert_eq!(
        warnings("UTC", "0 0 13 * FRI"),
        [
            "day of month and day of week are both restricted: a day counts if either matches; ask for both if you mean both"
        ]
    );
}
