//! Celery's `beat_schedule`, written as JSON.

use rota_calendar::{DayRule, Misfire, Overlap};
use serde_json::Value;

use crate::fields::Fields;
use crate::{Action, Draft, Import};

/// The fields of Celery's `crontab`, in the order of an expression.
const CRONTAB: [&str; 5] = ["minute", "hour", "day_of_month", "month_of_year", "day_of_week"];

/// Reads a `beat_schedule`: names to entries, whose `schedule` is a number of seconds, an expression, or an object with the arguments of
/// `crontab`. Celery's zone is one for all.
#[must_use]
pub fn celery(text: &str, timezone: &str) -> Import {
    let mut import = Import::default();
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(entries)) => {
            for (name, value) in entries {
                entry(&mut import, (&name, timezone), value);
            }
        }
        Ok(_) => import.note("document", "not an object of names and entries"),
        Err(error) => import.note("document", format!("not JSON: {error}")),
    }
    import
}

fn entry(import: &mut Import, (name, timezone): (&str, &str), value: Value) {
    let mut fields = Fields::of(name, value);
    let task = fields.text("task").unwrap_or_default();
    let args = fields.take("args").unwrap_or_else(|| Value::Array(Vec::new()));
    let kwargs = fields.take("kwargs").unwrap_or_else(|| serde_json::json!({}));
    let enabled = fields.text("enabled").is_none_or(|enabled| enabled == "true");
    let expression = expression(fields.take("schedule"));
    fields.finish(import);
    let Some(expression) = expression else {
        return import.note(
            name,
            "left out: the schedule is neither seconds, nor an expression, nor a crontab",
        );
    };
    let argument = serde_json::json!({ "args": args, "kwargs": kwargs }).to_string();
    let added = import.add(Draft {
        place: name,
        name,
        expression: &expression,
        timezone,
        // All fields of Celery's crontab have to match.
        days: DayRule::Both,
        quartz: false,
        action: Action::Handler { name: task, argument },
    });
    let Some(added) = added else { return };
    added.paused = !enabled;
    added.policy.misfire = Misfire::Once;
    added.policy.overlap = Overlap::Allow;
}

fn expression(schedule: Option<Value>) -> Option<String> {
    match schedule? {
        Value::Number(seconds) => {
            let text = seconds.to_string();
            let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
            let millis = format!("{part:0<3}").get(..3)?.parse::<u64>().ok()?;
            let whole = whole.parse::<u64>().ok()?;
            Some(format!("@every {}ms", whole.checked_mul(1_000)?.checked_add(millis)?))
        }
        Value::String(text) => Some(text),
        object @ Value::Object(_) => {
            let mut fields = Fields::of("schedule", object);
            let parts = CRONTAB.map(|key| fields.text(key).unwrap_or_else(|| "*".to_owned()));
            Some(parts.map(|part| part.replace(' ', "")).join(" "))
        }
        Value::Null | Value::Bool(_) | Value::Array(_) => None,
    }
}
