//! `rota schedule translate`: what the schedules of another system would be here.

use std::io::Read;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use rota_calendar::{Misfire, Overlap};
use rota_import::{Action, Crontab, Import, Imported};
use serde::Serialize;

use super::App;
use crate::output::grid;
use crate::screen::clean;
use crate::trouble::{Result, Trouble};

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// `rota schedule translate`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  crontab -l | rota schedule translate crontab - --timezone Europe/Berlin
  rota schedule translate system-crontab /etc/crontab
  kubectl get cronjobs -o yaml | rota schedule translate kubernetes -
  rota schedule translate dkron jobs.json -o json

Nothing is submitted. What can't be carried over is told on standard error.")]
pub(crate) struct TranslateArgs {
    /// Which system they come from
    source: Source,
    /// The file, or - for standard input
    file: PathBuf,
    /// The zone of schedules that name none
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    timezone: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Source {
    /// A user's crontab
    Crontab,
    /// /etc/crontab or a file of /etc/cron.d, with users
    SystemCrontab,
    /// CronJob manifests in YAML or JSON
    Kubernetes,
    /// Jobs of Dkron in JSON
    Dkron,
    /// Rows of xxl_job_info in JSON
    XxlJob,
    /// Celery's beat_schedule in JSON
    Celery,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Translated {
    schedules: Vec<Shown>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    expression: String,
    description: String,
    timezone: String,
    missed: &'static str,
    overlap: &'static str,
    paused: bool,
    runs: String,
}

/// Reads and prints.
pub(super) fn translate(app: &App, args: &TranslateArgs) -> Result<u8> {
    let text = read(args)?;
    let zone = args.timezone.as_str();
    let import = match args.source {
        Source::Crontab => {
            rota_import::crontab(&text, Crontab { has_users: false, timezone: zone })
        }
        Source::SystemCrontab => {
            rota_import::crontab(&text, Crontab { has_users: true, timezone: zone })
        }
        Source::Kubernetes => rota_import::kubernetes(&text),
        Source::Dkron => rota_import::dkron(&text),
        Source::XxlJob => rota_import::xxl_job(&text, zone),
        Source::Celery => rota_import::celery(&text, zone),
    };
    let translated = shown(&import);
    let names: Vec<&str> = translated.schedules.iter().map(|one| one.name.as_str()).collect();
    app.out.answer(&translated, &names.join("\n"), &page(&translated.schedules))?;
    if app.out.is_for_people() {
        for note in &translated.notes {
            app.screen().remark(&format!("{} {}", app.screen().busy("note:"), clean(note)));
        }
    }
    Ok(0)
}

fn read(args: &TranslateArgs) -> Result<String> {
    let wrong = |error: std::io::Error| Trouble::file(&args.file, &error);
    let mut text = String::new();
    let limit = FILE_BYTES_MAX + 1;
    let count = if args.file.as_os_str() == "-" {
        std::io::stdin().lock().take(limit).read_to_string(&mut text).map_err(wrong)?
    } else {
        let file = std::fs::File::open(&args.file).map_err(wrong)?;
        file.take(limit).read_to_string(&mut text).map_err(wrong)?
    };
    if count as u64 > FILE_BYTES_MAX {
        let message = format!("{}: more than 16 MiB", args.file.display());
        return Err(Trouble::usage(message).hint("split it into several files"));
    }
    Ok(text)
}

fn shown(import: &Import) -> Translated {
    let one = |schedule: &Imported| Shown {
        name: schedule.name.clone(),
        expression: schedule.timetable.rule.to_string(),
        description: schedule.timetable.rule.describe(),
        timezone: schedule.timetable.zone.name().to_owned(),
        missed: match schedule.policy.misfire {
            Misfire::Skip => "skip",
            Misfire::Once => "once",
            Misfire::All { .. } => "all",
        },
        overlap: match schedule.policy.overlap {
            Overlap::Skip => "skip",
            Overlap::Allow => "allow",
            Overlap::Queue { .. } => "queue",
            Overlap::CancelRunning => "cancel_running",
        },
        paused: schedule.paused,
        runs: match &schedule.action {
            Action::Shell { script, .. } => script.clone(),
            Action::Command { argv, .. } => argv.join(" "),
            Action::Http { method, url, .. } => format!("{method} {url}"),
            Action::Handler { name, .. } => name.clone(),
        },
    };
    let notes = import.notes.iter().map(|note| format!("{}: {}", note.place, note.message));
    Translated { schedules: import.schedules.iter().map(one).collect(), notes: notes.collect() }
}

fn page(schedules: &[Shown]) -> String {
    let row = |one: &Shown| {
        let paused = if one.paused { " (paused)" } else { "" };
        vec![
            clean(&one.name),
            format!("{}{paused}", one.description),
            one.timezone.clone(),
            one.missed.to_owned(),
            one.overlap.to_owned(),
            clean(&one.runs),
        ]
    };
    let titles = ["NAME", "DUE", "TIMEZONE", "MISSED", "OVERLAP", "RUNS"];
    grid(titles, schedules.iter().map(row))
}
