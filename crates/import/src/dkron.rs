//! Jobs of Dkron, as its API and `dkron` files have them in JSON.

use rota_calendar::{Misfire, Options, Overlap, Rule};
use rota_types::Timestamp;
use serde_json::Value;

use crate::fields::{Fields, objects};
use crate::{Action, Draft, Import, days_of_expression};

/// What Dkron reports about a job, rather than what it is.
const REPORTED: [&str; 11] = [
    "id",
    "displayname",
    "owner",
    "owner_email",
    "success_count",
    "error_count",
    "last_success",
    "last_error",
    "next",
    "status",
    "dependent_jobs",
];

/// Reads one job or a list of jobs.
#[must_use]
pub fn dkron(text: &str) -> Import {
    let mut import = Import::default();
    match serde_json::from_str::<Value>(text) {
        Ok(document) => objects(document).into_iter().for_each(|value| job(&mut import, value)),
        Err(error) => import.note("document", format!("not JSON: {error}")),
    }
    import
}

fn job(import: &mut Import, value: Value) {
    let mut fields = Fields::of("job", value);
    let name = fields.text("name").unwrap_or_else(|| "job".to_owned());
    let place = format!("job {name}");
    fields = fields.at(&place);
    let schedule = fields.text("schedule").unwrap_or_default();
    let timezone = fields.text("timezone").unwrap_or_else(|| "UTC".to_owned());
    let forbids = fields.text("concurrency").as_deref() == Some("forbid");
    let paused = fields.flag("disabled");
    let (starts_at, ends_at) = (fields.text("starts_at"), fields.text("expires_at"));
    let executor = fields.text("executor").unwrap_or_default();
    let action = action(import, &executor, fields.object("executor_config"));
    fields.forget(&REPORTED);
    fields.finish(import);
    let expression = match schedule.as_str() {
        "@manually" => return import.note(&place, "left out: it only runs by hand; submit a job"),
        "@minutely" => "* * * * *",
        other => other,
    };
    let added = import.add(Draft {
        place: &place,
        name: &name,
        expression,
        timezone: &timezone,
        days: days_of_expression(expression),
        quartz: false,
        action,
    });
    let Some(added) = added else { return };
    added.paused = paused;
    added.policy.misfire = Misfire::Skip;
    added.policy.overlap = if forbids { Overlap::Skip } else { Overlap::Allow };
    added.timetable.starts_at = starts_at.as_deref().and_then(instant).unwrap_or_default();
    added.timetable.ends_at = ends_at.as_deref().and_then(instant);
}

fn instant(text: &str) -> Option<Timestamp> {
    match Rule::parse(&format!("@at {text}"), &Options::default()) {
        Ok(Rule::At(at)) => Some(at),
        Ok(_) | Err(_) => None,
    }
}

fn action(import: &mut Import, executor: &str, mut config: Fields) -> Action {
    let action = match executor {
        "shell" => {
            let script = config.text("command").unwrap_or_default();
            let in_shell = config.flag("shell");
            let env = config.text("env").unwrap_or_default();
            let pairs = env.split(',').filter_map(|pair| pair.split_once('='));
            let env = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            if in_shell {
                Action::Shell { shell: None, script, stdin: None, env }
            } else {
                let argv = script.split_whitespace().map(str::to_owned).collect();
                Action::Command { argv, env }
            }
        }
        "http" => Action::Http {
            method: config.text("method").unwrap_or_else(|| "GET".to_owned()),
            url: config.text("url").unwrap_or_default(),
            body: config.text("body").unwrap_or_default(),
        },
        other => Action::Handler { name: other.to_owned(), argument: String::new() },
    };
    config.finish(import);
    action
}
