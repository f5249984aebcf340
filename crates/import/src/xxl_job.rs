//! Jobs of XXL-JOB: rows of `xxl_job_info` as JSON, with the names of its API.

use rota_calendar::{DayRule, Misfire, Overlap};
use serde_json::Value;

use crate::fields::{Fields, objects};
use crate::{Action, Draft, Import};

/// What is about the admin console, or only reported.
const REPORTED: [&str; 10] = [
    "jobGroup",
    "author",
    "alarmEmail",
    "addTime",
    "updateTime",
    "glueUpdatetime",
    "glueRemark",
    "triggerLastTime",
    "triggerNextTime",
    "executorRouteStrategy",
];

/// Reads one job or a list of jobs, which mean the admin's time zone.
#[must_use]
pub fn xxl_job(text: &str, timezone: &str) -> Import {
    let mut import = Import::default();
    match serde_json::from_str::<Value>(text) {
        Ok(document) => {
            objects(document).into_iter().for_each(|value| job(&mut import, value, timezone));
        }
        Err(error) => import.note("document", format!("not JSON: {error}")),
    }
    import
}

fn job(import: &mut Import, value: Value, timezone: &str) {
    let mut fields = Fields::of("job", value);
    let id = fields.text("id").unwrap_or_default();
    let handler = fields.text("executorHandler").unwrap_or_default();
    let title = fields.text("jobDesc").unwrap_or_else(|| handler.clone());
    let place = format!("job {id} {title}");
    fields = fields.at(&place);
    let argument = fields.text("executorParam").unwrap_or_default();
    let glue = fields.text("glueType");
    let kind = fields.text("scheduleType");
    let conf = fields.text("scheduleConf").unwrap_or_default();
    let misfire = fields.text("misfireStrategy");
    let block = fields.text("executorBlockStrategy");
    let is_on = fields.text("triggerStatus").is_none_or(|status| status == "1");
    fields.forget(&REPORTED);
    fields.finish(import);
    if glue.is_some_and(|glue| glue != "BEAN") {
        import.note(&place, "its code is kept in the admin's database; submit it as a command");
    }
    let expression = match kind.as_deref() {
        Some("CRON") => without_year(&conf),
        Some("FIX_RATE") => Ok(format!("@every {conf}s")),
        Some("FIX_DELAY") => Ok(format!("@after {conf}s")),
        Some("NONE") | None => Err("it only runs by hand; submit a job".to_owned()),
        Some(other) => Err(format!("{other} is not a known kind of schedule")),
    };
    let expression = match expression {
        Ok(expression) => expression,
        Err(reason) => return import.note(&place, format!("left out: {reason}")),
    };
    let added = import.add(Draft {
        place: &place,
        name: &title,
        expression: &expression,
        timezone,
        days: DayRule::Either,
        quartz: true,
        action: Action::Handler { name: handler, argument },
    });
    let Some(added) = added else { return };
    added.paused = !is_on;
    added.policy.misfire = match misfire.as_deref() {
        Some("FIRE_ONCE_NOW") => Misfire::Once,
        Some(_) | None => Misfire::Skip,
    };
    added.policy.overlap = match block.as_deref() {
        Some("DISCARD_LATER") => Overlap::Skip,
        Some("COVER_EARLY") => Overlap::CancelRunning,
        Some(_) | None => Overlap::Queue { waiting_max: rota_types::limits::WAITING_RUNS_MAX },
    };
}

/// Quartz allows a year as the seventh field.
fn without_year(conf: &str) -> Result<String, String> {
    let fields: Vec<&str> = conf.split_whitespace().collect();
    match fields[..] {
        [.., "*" | "?"] if fields.len() == 7 => Ok(fields[..6].join(" ")),
        [.., year] if fields.len() == 7 => Err(format!(
            "the year {year} is not part of an expression here; give the schedule a start and an end"
        )),
        _ => Ok(fields.join(" ")),
    }
}
