//! `rota schedule`: when something would be due. Works without a server.

mod translate;

use clap::{Args, Subcommand, ValueEnum};
use rota_api::{Duration, Moment};
use rota_calendar::{DayRule, Fold, Gap, Options, Preview, Rule, Timetable, Tzdata, Zone};
use rota_types::Timestamp;
use serde::Serialize;

use super::App;
use crate::output::grid;
use crate::screen::clean;
use crate::trouble::{Result, Trouble};

/// `rota schedule`
#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    /// Show when an expression is due next, and what changes of the clocks do to it
    Preview(PreviewArgs),
    /// Show what the schedules of another system would be here
    Translate(translate::TranslateArgs),
}

/// `rota schedule preview`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota schedule preview '*/15 9-17 * * MON-FRI'
  rota schedule preview '30 2 * * *' --timezone Europe/Berlin --count 3
  rota schedule preview 'H(0-29) 3 * * *' --name nightly-backup
  rota schedule preview '0 0 13 * FRI' --days both
  rota schedule preview '@every 90s' -o json

Fields: [second] minute hour day-of-month month day-of-week. docs/schedules.md has the whole syntax.")]
pub(crate) struct PreviewArgs {
    /// A cron expression, @every 90s, @after 10m, or @at with an instant
    expression: String,
    /// Whose clocks it means: a name of the IANA database
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    timezone: String,
    /// How many instants to show, up to 1000
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,
    /// Show what is due after this instant [default: now]
    #[arg(long, value_name = "INSTANT")]
    from: Option<Moment>,
    /// Whether a day has to match day of month or day of week, or both, if both are restricted
    #[arg(long, value_name = "RULE", default_value = "either")]
    days: Days,
    /// What becomes of a time that clocks skip
    #[arg(long, value_name = "RULE", default_value = "next")]
    gap: GapRule,
    /// When a time that comes twice is due
    #[arg(long, value_name = "RULE", default_value = "first")]
    fold: FoldRule,
    /// Start runs up to this much after their instant
    #[arg(long, value_name = "TIME", default_value = "0s")]
    jitter: Duration,
    /// The schedule's name, from which H, ~ and jitter are drawn
    #[arg(long, value_name = "NAME", default_value = "")]
    name: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Days {
    Either,
    Both,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum GapRule {
    Next,
    Skip,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FoldRule {
    First,
    Second,
    Both,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Shown {
    expression: String,
    description: String,
    timezone: String,
    tzdata: String,
    warnings: Vec<String>,
    instants: Vec<ShownInstant>,
}

#[derive(Debug, Serialize)]
struct ShownInstant {
    at: Moment,
    local: String,
    starts_at: Moment,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// Runs a verb on schedules.
pub(crate) fn dispatch(app: &App, command: &ScheduleCommand) -> Result<u8> {
    match command {
        ScheduleCommand::Preview(args) => preview(app, args),
        ScheduleCommand::Translate(args) => translate::translate(app, args),
    }
}

fn preview(app: &App, args: &PreviewArgs) -> Result<u8> {
    let from = args.from.unwrap_or_else(Moment::now).0;
    let table = timetable(args)?;
    table.check(from).map_err(|error| refused(&error.to_string()))?;
    let shown = look(&table, from, usize::from(args.count));
    let ids: Vec<String> = shown.instants.iter().map(|instant| instant.at.to_string()).collect();
    app.out.answer(&shown, &ids.join("\n"), &page(&shown))?;
    if app.out.is_for_people() {
        for warning in &shown.warnings {
            app.screen().remark(&format!("{} {}", app.screen().busy("note:"), clean(warning)));
        }
    }
    Ok(0)
}

fn timetable(args: &PreviewArgs) -> Result<Timetable> {
    let days = match args.days {
        Days::Either => DayRule::Either,
        Days::Both => DayRule::Both,
    };
    let options = Options { seed: &args.name, days, ..Options::default() };
    let rule =
        Rule::parse(&args.expression, &options).map_err(|error| refused(&error.to_string()))?;
    let zone = Zone::named(&args.timezone).map_err(|error| refused(&error.to_string()))?;
    let gap = match args.gap {
        GapRule::Next => Gap::Next,
        GapRule::Skip => Gap::Skip,
    };
    let fold = match args.fold {
        FoldRule::First => Fold::First,
        FoldRule::Second => Fold::Second,
        FoldRule::Both => Fold::Both,
    };
    let (jitter, seed) = (args.jitter.0, args.name.clone());
    Ok(Timetable { gap, fold, jitter, seed, ..Timetable::new(rule, zone) })
}

/// A refusal names what is wrong, and behind a semicolon what to do.
fn refused(text: &str) -> Trouble {
    match text.split_once("; ") {
        Some((message, hint)) => Trouble::usage(message).hint(hint),
        None => Trouble::usage(text).hint("docs/schedules.md has the whole syntax"),
    }
}

fn look(table: &Timetable, from: Timestamp, count: usize) -> Shown {
    let instant = |preview: Preview| ShownInstant {
        at: Moment(preview.instant),
        local: preview.local,
        starts_at: Moment(preview.starts_at),
        note: preview.note.map(|note| note.to_string()),
    };
    Shown {
        expression: table.rule.to_string(),
        description: table.rule.describe(),
        timezone: table.zone.name().to_owned(),
        tzdata: Tzdata::EMBEDDED.to_string(),
        warnings: table.warnings(from),
        instants: table.preview(from, count).map(instant).collect(),
    }
}

fn page(shown: &Shown) -> String {
    let Shown { description, timezone, tzdata, instants, .. } = shown;
    let head = format!("{description} · {timezone} · time-zone data {tzdata}");
    let starts_later = instants.iter().any(|instant| instant.starts_at != instant.at);
    let row = |instant: &ShownInstant| {
        let mut cells = vec![instant.local.clone(), instant.at.to_string()];
        if starts_later {
            cells.push(instant.starts_at.to_string());
        }
        cells.push(instant.note.clone().unwrap_or_default());
        cells
    };
    let titles: &[&str] =
        if starts_later { &["LOCAL", "UTC", "STARTS", "NOTE"] } else { &["LOCAL", "UTC", "NOTE"] };
    format!("{head}\n\n{}", grid(titles.iter().copied(), instants.iter().map(row)))
}
