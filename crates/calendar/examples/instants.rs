//! Answers questions about expressions on standard input, one per line, for comparison with other programs; and measures itself.
//!
//! A line is `ZONE <tab> FOLD <tab> FROM <tab> UNTIL <tab> COUNT <tab> EXPRESSION`, with seconds since 1970 and `first`, `second` or
//! `both`. The answer is a line with the first instants from FROM on and before UNTIL, or with the reason why there is none.
//! `--version` prints the version of the time-zone data, `--bench` how many instants per second the search finds.

use std::collections::HashMap;
use std::io::{BufRead, BufWriter, Write};
use std::time::Instant;

use rota_calendar::{Cron, Fold, Options, Rule, Timetable, Tzdata, Zone};
use rota_types::Timestamp;

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
    let begun = Instant::now();
    let zones = Zone::names().filter(|name| Zone::named(name).is_ok()).count();
    println!("{zones} zones read in {} ms", begun.elapsed().as_millis());
}
