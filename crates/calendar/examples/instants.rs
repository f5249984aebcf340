//! Answers questions about expressions on standard input, one per line, for comparison with other programs; and measures itself.
//!
//! A line is `ZONE <tab> FOLD <tab> FROM <tab> UNTIL <tab> COUNT <tab> EXPRESSION`, with seconds since 1970 and `first`, `second` or
//! `both`. The answer is a line with the first instants from FROM on and before UNTIL, or with the reason why there is none.
//! `--version` prints the version of the time-zone data, `--bench` how many instants per second the search finds.

use std::collections::HashMap;
use std::io::{BufRead, BufWriter, Write};
use std::time::Instant;

use rota_calendar::{
    Cron, Cursor, Fold, Load, Options, Overlap, Policy, Rule, Timetable, Tzdata, Zone, decide,
};
use rota_types::{Span, Timestamp};

fn main() -> std::io::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("--version") => println!("{}", Tzdata::EMBEDDED),
        Some("--bench") => bench(),
        Some(_) | None => answer_all()?,
    }
    Ok(())
}

fn answer_all() -> std::io::Result<()> {
    let mut zones = HashMap::new();
    let mut out = BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let text = answer(&line?, &mut zones).unwrap_or_else(|reason| format!("error: {reason}"));
        writeln!(out, "{text}")?;
    }
    out.flush()
}

fn answer(line: &str, zones: &mut HashMap<String, Zone>) -> Result<String, String> {
    let fields: Vec<&str> = line.splitn(6, '\t').collect();
    let [zone, fold, from, until, count, expression] = fields[..] else {
        return Err("six fields are needed".to_owned());
    };
    let seconds = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
    let fold = match fold {
        "first" => Fold::First,
        "second" => Fold::Second,
        _ => Fold::Both,
    };
    let named = || Zone::named(zone).map_err(|error| error.to_string());
    let zone = match zones.get(zone) {
        Some(known) => known.clone(),
        None => zones.entry(zone.to_owned()).or_insert(named()?).clone(),
    };
    let cron = Cron::parse(expression, &Options::default()).map_err(|error| error.to_string())?;
    let table = Timetable { fold, ..Timetable::new(Rule::Cron(cron), zone) };
    let micros = |seconds: u64| Timestamp(seconds.saturating_mul(1_000_000));
    let (after, until) = (Timestamp(micros(seconds(from)?).0.saturating_sub(1)), seconds(until)?);
    let instants = table.after(after).take_while(|at| *at < micros(until));
    let shown = instants.take(seconds(count)? as usize).map(|at| (at.0 / 1_000_000).to_string());
    Ok(shown.collect::<Vec<_>>().join(" "))
}

fn bench() {
    const COUNT: usize = 1_000_000;
    for (zone, expression) in [
        ("UTC", "* * * * * *"),
        ("UTC", "*/5 * * * *"),
        ("Europe/Berlin", "*/5 * * * *"),
        ("Europe/Berlin", "30 2 * * *"),
        ("Europe/Berlin", "0 9 * * MON-FRI"),
        ("Africa/Casablanca", "0 0 L * *"),
        ("America/New_York", "0 0 29 2 *"),
    ] {
        let rule = Rule::parse(expression, &Options::default()).expect("a rule");
        let table = Timetable::new(rule, Zone::named(zone).expect("a zone"));
        let begun = Instant::now();
        let mut found = 0;
        while found < COUNT {
            found += table.after(Timestamp(1_700_000_000_000_000)).take(COUNT - found).count();
        }
        let nanos = begun.elapsed().as_nanos() / COUNT as u128;
        println!("{expression:16} {zone:18} {nanos:5} ns per instant");
    }
    bench_rest();
    let begun = Instant::now();
    let zones = Zone::names().filter(|name| Zone::named(name).is_ok()).count();
    println!("{zones} zones read in {} ms", begun.elapsed().as_millis());
}

/// The longest search, and a decision.
fn bench_rest() {
    const ROUNDS: u128 = 1_000;
    let berlin = Zone::named("Europe/Berlin").expect("a zone");
    let rule = |text| Rule::parse(text, &Options::default()).expect("a rule");
    let never = Timetable::new(rule("* 2 * 3 SUNL"), berlin.clone());
    let begun = Instant::now();
    let found = (0..ROUNDS).filter(|_| never.next_after(Timestamp(1 << 50)).is_some()).count();
    let micros = begun.elapsed().as_micros() / ROUNDS;
    println!("{:35} {micros:5} us until the end of the calendar ({found} found)", never.rule);
    let table = Timetable::new(rule("*/5 * * * *"), berlin);
    let policy = Policy { overlap: Overlap::Allow, ..Policy::of(&table) };
    let mut cursor = Cursor::starting(Timestamp(1_700_000_000_000_000));
    let begun = Instant::now();
    let mut decided = 0;
    for _ in 0..ROUNDS * 100 {
        let now = cursor.decided_until.plus(Span::from_secs(300));
        let answer = decide(&table, &policy, cursor, Load::default(), now);
        decided += answer.decisions.len();
        cursor = answer.cursor;
    }
    let nanos = begun.elapsed().as_nanos() / (ROUNDS * 100);
    println!("{:35} {nanos:5} ns per decision ({decided} decided)", table.rule);
}
