//! Instants of known expressions in known places, next to known changes of the clocks.

use rota_calendar::{Cron, Date, DayRule, Exclusions, Fold, Gap, Options, Rule, Timetable, Zone};
use rota_types::{Span, Timestamp};

fn at(text: &str) -> Timestamp {
    match Rule::parse(&format!("@at {text}"), &Options::default()) {
        Ok(Rule::At(at)) => at,
        other => panic!("{text}: {other:?}"),
    }
}

fn show(at: Timestamp) -> String {
    Rule::At(at).to_string().replace("@at ", "").replace(":00Z", "Z")
}

fn timetable(zone: &str, expression: &str) -> Timetable {
    let rule = Rule::parse(expression, &Options::default()).expect("a rule");
    Timetable::new(rule, Zone::named(zone).expect("a zone"))
}

/// The instants from `from` on and before `until`, both ways round.
fn between(table: &Timetable, from: &str, until: &str) -> Vec<String> {
    let (from, until) = (at(from), at(until));
    let forward: Vec<Timestamp> =
        table.after(Timestamp(from.0 - 1)).take_while(|at| *at < until).collect();
    let backward =
        std::iter::successors(table.previous_before(until), |at| table.previous_before(*at));
    let mut backward: Vec<Timestamp> = backward.take_while(|at| *at >= from).collect();
    backward.reverse();
    assert_eq!(forward, backward, "{} forth and back", table.rule);
    forward.into_iter().map(show).collect()
}

fn due(zone: &str, expression: &str, from: &str, until: &str) -> Vec<String> {
    between(&timetable(zone, expression), from, until)
}

#[test]
fn a_time_that_new_york_skips_fires_when_clocks_have_gone_forward() {
    let day = ("2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z");
    let mut table = timetable("America/New_York", "30 2 * * *");
    assert_eq!(between(&table, day.0, day.1), ["2026-03-08T07:00Z"]);
    table.gap = Gap::Skip;
    assert_eq!(between(&table, day.0, day.1), [""; 0]);
    // Several times in one gap, and one right after it, are one instant.
    let crowd = "0,30 2,3 * * *";
    assert_eq!(
        due("America/New_York", crowd, day.0, day.1),
        ["2026-03-08T07:00Z", "2026-03-08T07:30Z"]
    );
    let quarters = "*/15 * * * *";
    assert_eq!(
        due("America/New_York", quarters, "2026-03-08T06:40:00Z", "2026-03-08T07:20:00Z"),
        ["2026-03-08T06:45Z", "2026-03-08T07:00Z", "2026-03-08T07:15Z"]
    );
}

#[test]
fn a_time_that_new_york_has_twice_fires_the_first_time_unless_told_otherwise() {
    let day = ("2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z");
    let mut table = timetable("America/New_York", "30 1 * * *");
    assert_eq!(between(&table, day.0, day.1), ["2026-11-01T05:30Z"]);
    table.fold = Fold::Second;
    assert_eq!(between(&table, day.0, day.1), ["2026-11-01T06:30Z"]);
    table.fold = Fold::Both;
    assert_eq!(between(&table, day.0, day.1), ["2026-11-01T05:30Z", "2026-11-01T06:30Z"]);
    assert_eq!(due("America/New_York", "0 * * * *", day.0, day.1).len(), 25);
    assert_eq!(due("America/New_York", "0 0-22 * * *", day.0, day.1).len(), 23);
    let spring = ("2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z");
    assert_eq!(due("America/New_York", "0 * * * *", spring.0, spring.1).len(), 23);
}

#[test]
fn berlin_and_dublin_change_alike_though_irish_winter_time_is_the_exception() {
    for (zone, expression) in [("Europe/Berlin", "30 2 * * *"), ("Europe/Dublin", "30 1 * * *")] {
        let spring = due(zone, expression, "2026-03-28T23:00:00Z", "2026-03-29T23:00:00Z");
        assert_eq!(spring, ["2026-03-29T01:00Z"], "{zone}");
        let autumn = due(zone, expression, "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
        assert_eq!(autumn, ["2026-10-25T00:30Z"], "{zone}");
    }
}

#[test]
fn midnight_that_is_skipped_or_repeated_fires_once() {
    let midnights = |zone, from: &str, until: &str| due(zone, "0 0 * * *", from, until);
    assert_eq!(
        midnights("Africa/Cairo", "2026-04-23T12:00:00Z", "2026-04-25T12:00:00Z"),
        ["2026-04-23T22:00Z", "2026-04-24T21:00Z"]
    );
    assert_eq!(
        midnights("Africa/Cairo", "2026-10-28T12:00:00Z", "2026-10-30T12:00:00Z"),
        ["2026-10-28T21:00Z", "2026-10-29T22:00Z"]
    );
    assert_eq!(
        midnights("Asia/Beirut", "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z"),
        ["2026-03-28T22:00Z"]
    );
    assert_eq!(
        midnights("America/Santiago", "2026-09-05T12:00:00Z", "2026-09-06T12:00:00Z"),
        ["2026-09-06T04:00Z"]
    );
    assert_eq!(
        midnights("America/Sao_Paulo", "2018-11-03T12:00:00Z", "2018-11-04T12:00:00Z"),
        ["2018-11-04T03:00Z"]
    );
}

#[test]
fn half_an_hour_is_enough_of_a_change() {
    let day =
        |expression, from: &str, until: &str| due("Australia/Lord_Howe", expression, from, until);
    assert_eq!(
        day("15 2 * * *", "2026-10-03T12:00:00Z", "2026-10-04T12:00:00Z"),
        ["2026-10-03T15:30Z"]
    );
    assert_eq!(
        day("45 1 * * *", "2026-04-04T12:00:00Z", "2026-04-05T12:00:00Z"),
        ["2026-04-04T14:45Z"]
    );
}

#[test]
fn morocco_leaves_its_time_for_ramadan() {
    let day =
        |expression, from: &str, until: &str| due("Africa/Casablanca", expression, from, until);
    assert_eq!(
        day("30 2 * * *", "2026-02-14T12:00:00Z", "2026-02-15T12:00:00Z"),
        ["2026-02-15T01:30Z"]
    );
    assert_eq!(
        day("30 2 * * *", "2026-03-21T12:00:00Z", "2026-03-22T12:00:00Z"),
        ["2026-03-22T02:00Z"]
    );
}

#[test]
fn a_day_that_samoa_never_had_is_not_made_up_for() {
    assert_eq!(
        due("Pacific/Apia", "0 9 * * *", "2011-12-29T00:00:00Z", "2011-12-31T12:00:00Z"),
        ["2011-12-29T19:00Z", "2011-12-30T19:00Z"]
    );
}

#[test]
fn places_without_daylight_saving_and_odd_offsets() {
    let first =
        |zone, expression| due(zone, expression, "2026-06-01T00:00:00Z", "2026-06-02T00:00:00Z");
    assert_eq!(first("Asia/Kathmandu", "0 9 * * *"), ["2026-06-01T03:15Z"]);
    // The sign of these names is the other way round.
    assert_eq!(first("Etc/GMT+5", "0 9 * * *"), ["2026-06-01T14:00Z"]);
    assert_eq!(first("UTC", "0 9 * * *"), ["2026-06-01T09:00Z"]);
}

#[test]
fn days_of_months_and_weeks() {
    let year = |expression| {
        let days = due("UTC", expression, "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z");
        days.iter().map(|day| day[5..10].to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(year("0 0 L * *").split(' ').count(), 12);
    assert_eq!(year("0 0 L 2 *"), "02-28");
    assert_eq!(year("0 0 L-2 2,3 *"), "02-26 03-29");
    assert_eq!(year("0 0 LW 1,2,5 *"), "01-30 02-27 05-29");
    assert_eq!(year("0 0 1W 1,2,3,8 *"), "01-01 02-02 03-02 08-03");
    assert_eq!(year("0 0 31W 1,2,5,10 *"), "01-30 05-29 10-30");
    assert_eq!(year("0 0 15W 8,11 *"), "08-14 11-16");
    assert_eq!(year("0 0 * * FRI#5"), "01-30 05-29 07-31 10-30");
    assert_eq!(year("0 0 * 1 MON#1,FRIL"), "01-05 01-30");
    assert_eq!(year("0 0 * 2 5L"), "02-27");
    assert_eq!(year("0 0 31 * *"), "01-31 03-31 05-31 07-31 08-31 10-31 12-31");
    assert_eq!(year("0 0 1 NOV-FEB *"), "01-01 02-01 11-01 12-01");
    assert_eq!(year("0 0 28-2 2-3 ?"), "02-01 02-02 02-28 03-01 03-02 03-28 03-29 03-30 03-31");
    assert_eq!(year("0 0 ? 1 SAT-MON/2"), "01-03 01-05 01-10 01-12 01-17 01-19 01-24 01-26 01-31");
    assert_eq!(year("0 0 * 1 7"), year("0 0 * 1 0"));
    assert_eq!(year("0 0 * 1 0-7"), year("0 0 * 1 *"));
    assert_eq!(year("0 0 * 1 5-7"), year("0 0 * 1 FRI-SUN"));
}

#[test]
fn both_days_restricted_means_either_unless_told_otherwise() {
    let days = |rule| {
        let options = Options { days: rule, ..Options::default() };
        let cron = Cron::parse("0 0 13 * FRI", &options).expect("an expression");
        let table = Timetable::new(Rule::Cron(cron), Zone::utc());
        between(&table, "2026-02-01T00:00:00Z", "2026-03-14T00:00:00Z").len()
    };
    assert_eq!((days(DayRule::Either), days(DayRule::Both)), (6, 2));
}

#[test]
fn rare_days_are_found_and_the_calendar_has_an_end() {
    let leap = timetable("UTC", "0 0 29 2 *");
    let next = |table: &Timetable, from: &str| table.next_after(at(from)).map(show);
    assert_eq!(next(&leap, "2096-02-29T00:00:00Z").as_deref(), Some("2104-02-29T00:00Z"));
    let options = Options { days: DayRule::Both, ..Options::default() };
    let rare = Cron::parse("0 0 29 2 MON", &options).expect("an expression");
    let rare = Timetable::new(Rule::Cron(rare), Zone::utc());
    assert_eq!(next(&rare, "2072-03-01T00:00:00Z").as_deref(), Some("2112-02-29T00:00Z"));
    let yearly = timetable("Europe/Berlin", "@yearly");
    assert_eq!(next(&yearly, "2037-12-31T23:00:00Z").as_deref(), Some("2038-12-31T23:00Z"));
    assert_eq!(next(&yearly, "2499-12-31T23:00:00Z"), None);
    assert_eq!(yearly.previous_before(at("1970-12-31T00:00:00Z")), None);
    let seconds = timetable("UTC", "* * * * * *");
    assert_eq!(next(&seconds, "2499-12-31T23:59:58Z").as_deref(), Some("2499-12-31T23:59:59Z"));
    assert_eq!(next(&seconds, "2499-12-31T23:59:59Z"), None);
    assert_eq!(seconds.next_after(Timestamp(u64::MAX)), None);
    assert_eq!(seconds.previous_before(Timestamp(0)), None);
}

#[test]
fn times_that_only_exist_in_gaps_are_never_due() {
    // On the last Sunday of March there is no hour 2 in Berlin since 1981.
    let table = timetable("Europe/Berlin", "* 2 * 3 SUNL");
    assert_eq!(table.next_after(at("2026-01-01T00:00:00Z")), None);
    assert_eq!(
        table.check(at("2026-01-01T00:00:00Z")).map_err(|error| error.to_string()),
        Err("schedule: nothing is due before its end or the year 2500; check the times that clocks skip, ends_at and exclusions".to_owned())
    );
}

#[test]
fn intervals_follow_elapsed_time_from_their_anchor() {
    let table = timetable("America/New_York", "@every 1h30m");
    assert_eq!(
        between(&table, "2026-03-08T05:00:00Z", "2026-03-08T09:00:00Z"),
        ["2026-03-08T06:00Z", "2026-03-08T07:30Z"]
    );
    let rule = Rule::Every { interval: Span::from_secs(3_600), anchor: at("2026-01-01T00:20:00Z") };
    let table = Timetable::new(rule, Zone::utc());
    assert_eq!(
        between(&table, "2025-12-31T22:20:00Z", "2026-01-01T00:20:01Z"),
        ["2025-12-31T22:20Z", "2025-12-31T23:20Z", "2026-01-01T00:20Z"]
    );
    let once = timetable("UTC", "@at 2026-12-24T18:00:00+01:00");
    assert_eq!(
        between(&once, "2020-01-01T00:00:00Z", "2030-01-01T00:00:00Z"),
        ["2026-12-24T17:00Z"]
    );
}

#[test]
fn a_pause_after_the_end_counts_from_the_end() {
    let mut table = timetable("UTC", "@after 10m");
    table.starts_at = at("2026-01-01T00:00:00Z");
    assert_eq!(table.next_after(at("2026-01-01T00:00:00Z")), None);
    let next = |table: &Timetable, after: &str, end: Option<&str>| {
        table.next_run(at(after), end.map(at)).map(show)
    };
    assert_eq!(next(&table, "2025-01-01T00:00:00Z", None).as_deref(), Some("2026-01-01T00:00Z"));
    assert_eq!(
        next(&table, "2026-01-01T00:00:00Z", Some("2026-01-01T03:00:00Z")).as_deref(),
        Some("2026-01-01T03:10Z")
    );
    // Without an end since, the one before was skipped.
    assert_eq!(next(&table, "2026-01-01T04:00:00Z", None).as_deref(), Some("2026-01-01T04:10Z"));
    table.exclusions = Exclusions::new([(
        Date::new(2026, 1, 1).expect("a date"),
        Date::new(2026, 1, 2).expect("a date"),
    )])
    .expect("a range");
    assert_eq!(next(&table, "2026-01-01T04:00:00Z", None).as_deref(), Some("2026-01-03T00:00Z"));
}

#[test]
fn bounds_hold_and_the_end_is_outside() {
    let mut table = timetable("UTC", "0 * * * *");
    table.starts_at = at("2026-01-01T05:00:00Z");
    table.ends_at = Some(at("2026-01-01T08:00:00Z"));
    let all = between(&table, "2025-01-01T00:00:00Z", "2027-01-01T00:00:00Z");
    assert_eq!(all, ["2026-01-01T05:00Z", "2026-01-01T06:00Z", "2026-01-01T07:00Z"]);
    assert_eq!(table.check(at("2026-01-01T06:59:00Z")), Ok(()));
    assert!(table.check(at("2026-01-01T07:00:01Z")).is_err());
}

#[test]
fn excluded_days_are_local_days() {
    let day = |text| Date::parse(text).expect("a date");
    let mut table = timetable("Africa/Cairo", "30 * * * *");
    // Clocks go back from midnight to 23:00 at the end of the excluded day.
    table.exclusions = Exclusions::new([(day("2026-10-29"), day("2026-10-29"))]).expect("a range");
    assert_eq!(
        between(&table, "2026-10-28T20:00:00Z", "2026-10-29T23:00:00Z"),
        ["2026-10-28T20:30Z", "2026-10-29T22:30Z"]
    );
    // The day after begins when clocks have gone forward over midnight.
    table.exclusions = Exclusions::new([(day("2026-04-22"), day("2026-04-23"))]).expect("a range");
    assert_eq!(
        between(&table, "2026-04-21T21:00:00Z", "2026-04-23T23:00:00Z"),
        ["2026-04-21T21:30Z", "2026-04-23T22:30Z"]
    );
}

#[test]
fn a_spread_stays_within_its_range_and_depends_on_the_name_alone() {
    let minutes = |expression: &str, seed: &str| {
        let options = Options { seed, ..Options::default() };
        let rule = Rule::parse(expression, &options).expect("a rule");
        let table = Timetable::new(rule, Zone::utc());
        let start = at("2026-01-01T00:00:00Z");
        table
            .after(start)
            .take(4)
            .map(|at| (at.since(start).0 / 60_000_000) as u32 % 60)
            .collect::<Vec<_>>()
    };
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..500 {
        let name = format!("schedule-{number}");
        assert_eq!(minutes("H * * * *", &name), minutes("H * * * *", &name));
        let quarter = minutes("H(10-19) * * * *", &name)[0];
        assert!((10..=19).contains(&quarter));
        assert!((5..=9).contains(&minutes("5~9 * * * *", &name)[0]));
        let mut steps = minutes("H/15 * * * *", &name);
        steps.sort_unstable();
        assert!(steps[0] < 15 && steps.windows(2).all(|pair| pair[1] == pair[0] + 15), "{steps:?}");
        seen.insert(minutes("H * * * *", &name)[0]);
    }
    assert!(seen.len() > 55, "{} minutes of 60", seen.len());
    // Fixed for ever: a new release must not move anybody's schedule.
    let pinned = ["H * * * *", "H(0-29) * * * *", "~ * * * *", "H,H * * * *"];
    let first = pinned.map(|expression| minutes(expression, "nightly")[0]);
    assert_eq!(first, [56, 28, 56, 40]);
}

#[test]
fn jitter_is_bounded_fixed_and_never_early() {
    let mut table = timetable("UTC", "0 * * * *");
    table.seed = "nightly".to_owned();
    table.jitter = Span::from_secs(60);
    let mut starts = std::collections::BTreeSet::new();
    for instant in table.after(at("2026-01-01T00:00:00Z")).take(1_000) {
        let start = table.start_of(instant);
        assert!(start >= instant && start.since(instant) <= table.jitter);
        assert_eq!(table.start_of(instant), start);
        starts.insert(start.since(instant));
    }
    assert!(starts.len() > 990);
    table.jitter = Span::ZERO;
    assert_eq!(table.start_of(at("2026-01-01T00:00:00Z")), at("2026-01-01T00:00:00Z"));
}
