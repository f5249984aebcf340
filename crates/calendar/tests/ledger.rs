//! What is decided about instants: missed ones, overlapping ones, too many.

use proptest::prelude::*;
use rota_calendar::{
    BadPolicy, Begins, Cursor, Decided, Decision, Instants, Load, Misfire, Options, Overlap,
    Policy, Reason, Rule, Run, Timetable, Tzdata, Verdict, Zone, decide, pass_over,
};
use rota_types::limits::{
    CATCH_UP_RUNS_MAX, CATCH_UP_WINDOW_MAX, DECISIONS_MAX, INSTANTS_COUNTED_MAX, WAITING_RUNS_MAX,
};
use rota_types::{Span, Timestamp};

const HOUR: u64 = 3_600;
const BUSY: Load = Load { running: 1, waiting: 0, last_end: None };

fn table(text: &str) -> Timetable {
    Timetable::new(Rule::parse(text, &Options::default()).expect("a rule"), Zone::utc())
}

fn secs(secs: u64) -> Timestamp {
    Timestamp(secs * 1_000_000)
}

fn hours(hours: u64) -> Timestamp {
    secs(hours * HOUR)
}

fn hourly(misfire: Misfire, overlap: Overlap, load: Load, now: Timestamp) -> Decided {
    let table = table("@hourly");
    let policy = Policy { misfire, overlap, ..Policy::of(&table) };
    decide(&table, &policy, Cursor::starting(Timestamp(0)), load, now)
}

/// First and last hour of each decision, and the verdict in a word.
fn words(decided: &Decided) -> Vec<String> {
    let word = |decision: &Decision| {
        let hour = |at: Timestamp| at.0 / 1_000_000 / HOUR;
        let verdict = match decision.verdict {
            Verdict::Fired(run) => format!("fired {}", begins(run)),
            Verdict::CaughtUp(run) => format!("caught up {}", begins(run)),
            Verdict::Coalesced { into } => format!("into {}", hour(into)),
            Verdict::Skipped(reason) => format!("{reason:?}"),
        };
        let Instants { first, last, count, .. } = decision.instants;
        format!("{}-{} x{count} {verdict}", hour(first), hour(last))
    };
    decided.decisions.iter().map(word).collect()
}

fn begins(run: Run) -> String {
    let begins = match run.begins {
        Begins::AtOnce => "at once",
        Begins::WhenFree => "when free",
        Begins::AfterCancelling => "after cancelling",
    };
    run.stands_for.map_or(begins.to_owned(), |others| format!("{begins} for {}", others.count))
}

#[test]
fn an_instant_is_fired_when_it_is_due_and_decided_once() {
    let table = table("@hourly");
    let policy = Policy::of(&table);
    let start = Cursor::starting(secs(10));
    let before = decide(&table, &policy, start, Load::default(), Timestamp(hours(1).0 - 1));
    assert_eq!((before.decisions.len(), before.next_at), (0, Some(hours(1))));
    let due = decide(&table, &policy, before.cursor, Load::default(), hours(1));
    let one = Instants { first: hours(1), last: hours(1), count: 1, counted: true };
    let run = Run { starts_at: hours(1), begins: Begins::AtOnce, stands_for: None };
    let expected = Decided {
        decisions: vec![Decision {
            instants: one,
            verdict: Verdict::Fired(run),
            decided_at: hours(1),
            tzdata: Tzdata::EMBEDDED,
        }],
        cursor: Cursor { decided_until: hours(1), minute: 60, runs_in_minute: 1 },
        again: false,
        runaway: false,
        next_at: Some(hours(2)),
    };
    assert_eq!(due, expected);
    let after = decide(&table, &policy, due.cursor, Load::default(), hours(1));
    assert_eq!(after.decisions, vec![]);
}

#[test]
fn an_instant_is_missed_when_more_than_the_tolerance_has_passed() {
    let late = |micros: u64| {
        words(&hourly(
            Misfire::Skip,
            Overlap::Skip,
            Load::default(),
            Timestamp(hours(1).0 + micros),
        ))
    };
    assert_eq!(late(59_999_999), ["1-1 x1 fired at once"]);
    assert_eq!(late(60_000_000), ["1-1 x1 fired at once"]);
    assert_eq!(late(60_000_001), ["1-1 x1 Missed"]);
}

#[test]
fn what_was_missed_is_skipped_run_once_or_run_in_full() {
    let outage = |misfire, now| words(&hourly(misfire, Overlap::Allow, Load::default(), now));
    let (between, sharp) = (secs(5 * HOUR + 600), hours(6));
    assert_eq!(outage(Misfire::Skip, between), ["1-5 x5 Missed"]);
    assert_eq!(outage(Misfire::Skip, sharp), ["1-5 x5 Missed", "6-6 x1 fired at once"]);
    assert_eq!(outage(Misfire::Once, between), ["1-4 x4 into 5", "5-5 x1 caught up at once for 4"]);
    assert_eq!(outage(Misfire::Once, sharp), ["1-5 x5 into 6", "6-6 x1 fired at once for 5"]);
    assert_eq!(
        outage(Misfire::All { runs_max: 3 }, sharp),
        [
            "1-1 x1 caught up at once",
            "2-2 x1 caught up at once",
            "3-3 x1 caught up at once",
            "4-5 x2 CatchUpLimit",
            "6-6 x1 fired at once"
        ]
    );
    assert_eq!(outage(Misfire::All { runs_max: 5 }, sharp).len(), 6);
    assert_eq!(outage(Misfire::Once, secs(HOUR + 61)), ["1-1 x1 caught up at once"]);
}

#[test]
fn what_was_missed_before_the_window_is_too_old() {
    let outage =
        |misfire| words(&hourly(misfire, Overlap::Skip, Load::default(), secs(30 * HOUR + 600)));
    assert_eq!(
        outage(Misfire::Once),
        ["1-6 x6 TooOld", "7-29 x23 into 30", "30-30 x1 caught up at once for 23"]
    );
    assert_eq!(outage(Misfire::Skip), ["1-30 x30 Missed"]);
}

#[test]
fn overlaps_are_skipped_allowed_queued_or_end_what_runs() {
    let busy = |overlap, load| words(&hourly(Misfire::Skip, overlap, load, hours(1)));
    assert_eq!(busy(Overlap::Skip, BUSY), ["1-1 x1 StillRunning"]);
    assert_eq!(busy(Overlap::Allow, BUSY), ["1-1 x1 fired at once"]);
    assert_eq!(busy(Overlap::CancelRunning, BUSY), ["1-1 x1 fired after cancelling"]);
    let queue = |waiting| busy(Overlap::Queue { waiting_max: 3 }, Load { waiting, ..BUSY });
    assert_eq!(queue(1), ["1-1 x1 fired when free"]);
    assert_eq!(queue(2), ["1-1 x1 fired when free"]);
    assert_eq!(queue(3), ["1-1 x1 QueueFull"]);
}

#[test]
fn runs_of_one_call_overlap_each_other() {
    let crowd =
        |overlap| words(&hourly(Misfire::All { runs_max: 9 }, overlap, Load::default(), hours(4)));
    assert_eq!(
        crowd(Overlap::Skip),
        [
            "1-1 x1 caught up at once",
            "2-2 x1 StillRunning",
            "3-3 x1 StillRunning",
            "4-4 x1 StillRunning"
        ]
    );
    assert_eq!(
        crowd(Overlap::Queue { waiting_max: 2 }),
        [
            "1-1 x1 caught up at once",
            "2-2 x1 caught up when free",
            "3-3 x1 caught up when free",
            "4-4 x1 QueueFull"
        ]
    );
    let table = table("* * * * * *");
    let cancel = Policy { overlap: Overlap::CancelRunning, ..Policy::of(&table) };
    let decided = decide(&table, &cancel, Cursor::starting(secs(0)), BUSY, secs(90));
    let counts = decided.decisions.iter().map(|decision| decision.instants.count);
    assert_eq!(counts.collect::<Vec<_>>(), [29, 60, 1], "missed, due, and the one that runs");
    let Verdict::Fired(run) = decided.decisions[2].verdict else { panic!("{decided:?}") };
    assert_eq!(begins(run), "after cancelling for 89");
    assert_eq!(crowd(Overlap::CancelRunning), ["1-3 x3 into 4", "4-4 x1 fired at once for 3"]);
}

#[test]
fn waiting_runs_start_when_nothing_runs() {
    let queue = Overlap::Queue { waiting_max: 5 };
    assert_eq!([queue.may_start(1, 4), queue.may_start(0, 4), queue.may_start(0, 0)], [0, 1, 0]);
    assert_eq!([Overlap::Skip.may_start(1, 4), Overlap::Allow.may_start(1, 4)], [0, 4]);
}

#[test]
fn too_many_runs_in_a_minute_stop_the_schedule() {
    let table = table("* * * * * *");
    let policy = Policy { overlap: Overlap::Allow, runs_per_minute_max: 10, ..Policy::of(&table) };
    let decide_at = |cursor, now| decide(&table, &policy, cursor, Load::default(), secs(now));
    let start = Cursor::starting(secs(600));
    let fine = decide_at(start, 609);
    assert_eq!((fine.decisions.len(), fine.runaway), (9, false));
    let full = decide_at(fine.cursor, 610);
    assert_eq!((full.decisions.len(), full.runaway), (1, false));
    let over = decide_at(full.cursor, 611);
    assert_eq!(over.decisions[0].verdict, Verdict::Skipped(Reason::Runaway));
    assert!(over.runaway);
    let next_minute = decide_at(full.cursor, 660);
    assert!(next_minute.runaway, "ten of fifty");
    assert_eq!(next_minute.decisions.len(), 11);
    assert_eq!(Policy::of(&table).runs_per_minute_max, 180);
    assert_eq!(Policy::of(&self::table("@hourly")).runs_per_minute_max, 10);
    assert_eq!(Policy::of(&self::table("@every 10s")).runs_per_minute_max, 18);
}

#[test]
fn a_call_decides_no_more_than_its_limit() {
    let table = table("* * * * * *");
    let rest = |due: u64| {
        let policy = Policy {
            overlap: Overlap::Allow,
            misfire_after: Span::from_secs(9_999),
            runs_per_minute_max: u32::MAX,
            ..Policy::of(&table)
        };
        let decided =
            decide(&table, &policy, Cursor::starting(secs(0)), Load::default(), secs(due));
        (decided.decisions.len() as u64, decided.again)
    };
    let most = DECISIONS_MAX as u64;
    assert_eq!(rest(most - 1), (most - 1, false));
    assert_eq!(rest(most), (most, false));
    assert_eq!(rest(most + 1), (most, true));
}

#[test]
fn a_long_outage_is_counted_up_to_a_limit_and_decided_in_full() {
    let table = table("* * * * * *");
    let policy = Policy { misfire: Misfire::Skip, misfire_after: Span(0), ..Policy::of(&table) };
    let missed = |count: u64| {
        let now = secs(count + 1);
        let decided = decide(&table, &policy, Cursor::starting(secs(0)), Load::default(), now);
        let Instants { last, count, counted, .. } = decided.decisions[0].instants;
        (last.0 / 1_000_000, count, counted)
    };
    let most = INSTANTS_COUNTED_MAX;
    assert_eq!(missed(most - 1), (most - 1, most - 1, true));
    assert_eq!(missed(most), (most, most, true));
    assert_eq!(missed(most + 1), (most + 1, most, false));
    assert_eq!(missed(400_000_000), (400_000_000, most, false));
}

#[test]
fn a_pause_after_the_end_waits_for_the_end() {
    let table = table("@after 10m");
    let policy = Policy::of(&table);
    let start = Cursor::starting(secs(0));
    let first = decide(&table, &policy, start, Load::default(), secs(600));
    assert_eq!(first.decisions.len(), 1);
    let running = decide(&table, &policy, first.cursor, BUSY, hours(5));
    assert_eq!((running.decisions.len(), running.next_at), (0, None));
    let ended = Load { last_end: Some(hours(5)), ..Load::default() };
    let waits = decide(&table, &policy, first.cursor, ended, hours(5));
    assert_eq!((waits.decisions.len(), waits.next_at), (0, Some(secs(5 * HOUR + 600))));
    let again = decide(&table, &policy, first.cursor, ended, secs(5 * HOUR + 600));
    assert_eq!(again.decisions.len(), 1);
    // A pause that is over for long makes one run all the same.
    let late = decide(&table, &policy, first.cursor, ended, hours(9));
    assert_eq!(late.decisions.len(), 1);
    assert!(matches!(late.decisions[0].verdict, Verdict::Fired(_)));
    // One that was skipped comes again.
    let paused = pass_over(&table, first.cursor, secs(1_300), secs(1_300));
    assert_eq!((paused.decisions.len(), paused.next_at), (1, Some(secs(1_800))));
}

#[test]
fn a_pause_of_the_schedule_makes_no_misses() {
    let table = table("@hourly");
    let paused = pass_over(&table, Cursor::starting(secs(0)), hours(3), secs(3 * HOUR + 5));
    assert_eq!(words(&paused), ["1-3 x3 Paused"]);
    assert_eq!(paused.next_at, Some(hours(4)));
}

#[test]
fn settings_have_limits() {
    let base = Policy::of(&table("@hourly"));
    for (runs_max, expected) in [
        (0, Err(BadPolicy::CatchUpRuns(0))),
        (1, Ok(())),
        (CATCH_UP_RUNS_MAX - 1, Ok(())),
        (CATCH_UP_RUNS_MAX, Ok(())),
        (CATCH_UP_RUNS_MAX + 1, Err(BadPolicy::CatchUpRuns(CATCH_UP_RUNS_MAX + 1))),
    ] {
        assert_eq!(Policy { misfire: Misfire::All { runs_max }, ..base }.check(), expected);
    }
    for (waiting_max, expected) in [
        (0, Err(BadPolicy::WaitingRuns(0))),
        (1, Ok(())),
        (WAITING_RUNS_MAX - 1, Ok(())),
        (WAITING_RUNS_MAX, Ok(())),
        (WAITING_RUNS_MAX + 1, Err(BadPolicy::WaitingRuns(WAITING_RUNS_MAX + 1))),
    ] {
        assert_eq!(Policy { overlap: Overlap::Queue { waiting_max }, ..base }.check(), expected);
    }
    let most = CATCH_UP_WINDOW_MAX.0;
    let longer = Span(most + 1);
    for (window, expected) in
        [(Span(most - 1), Ok(())), (Span(most), Ok(())), (longer, Err(BadPolicy::Window(longer)))]
    {
        assert_eq!(Policy { catch_up_window: window, ..base }.check(), expected);
    }
    assert_eq!(
        BadPolicy::CatchUpRuns(0).to_string(),
        "misfire: 0 runs after an outage are outside the limits 1–1000; for none, write skip"
    );
}

fn policies() -> impl Strategy<Value = (Misfire, Overlap, u64, u64)> {
    let misfire = prop_oneof![
        Just(Misfire::Skip),
        Just(Misfire::Once),
        (1..5_u32).prop_map(|runs_max| Misfire::All { runs_max })
    ];
    let overlap = prop_oneof![
        Just(Overlap::Skip),
        Just(Overlap::Allow),
        (1..3_u32).prop_map(|waiting_max| Overlap::Queue { waiting_max }),
        Just(Overlap::CancelRunning)
    ];
    (misfire, overlap, 0..200_u64, 0..20_000_u64)
}

proptest! {
    #[test]
    fn every_instant_is_decided_once_and_in_order_however_time_passes(
        (misfire, overlap, tolerance, window) in policies(),
        text in prop::sample::select(vec!["@every 7s", "* * * * *", "*/20 * * * * *", "0 3 * * *", "30 2 * * *"]),
        steps in prop::collection::vec((0..9_000_u64, 0..3_u32, 0..3_u32), 1..30),
    ) {
        // Berlin's clocks go forward two hours later.
        let start = secs(1_774_738_800);
        let mut table = table(text);
        table.zone = Zone::named("Europe/Berlin").expect("a zone");
        let policy = Policy {
            misfire,
            overlap,
            misfire_after: Span::from_secs(tolerance),
            catch_up_window: Span::from_secs(window),
            runs_per_minute_max: 500,
        };
        let (mut cursor, mut now) = (Cursor::starting(start), start);
        let mut last = start;
        for (step, running, waiting) in steps {
            now = now.plus(Span::from_secs(step));
            let load = Load { running, waiting, last_end: None };
            let decided = decide(&table, &policy, cursor, load, now);
            prop_assert_eq!(&decided, &decide(&table, &policy, cursor, load, now));
            for decision in &decided.decisions {
                let Instants { first, last: end, count, counted } = decision.instants;
                prop_assert_eq!(table.next_after(last), Some(first));
                let inside = table.after(last).take_while(|at| *at <= end).count() as u64;
                prop_assert!(inside == count && counted);
                prop_assert!(end <= now && end >= first);
                last = end;
            }
            prop_assert!(!decided.again && !decided.runaway);
            prop_assert_eq!(decided.next_at, table.next_after(last));
            prop_assert!(decided.next_at.is_none_or(|next| next > now));
            prop_assert_eq!(decided.cursor.decided_until, last);
            cursor = decided.cursor;
        }
    }
}
