//! Kubernetes `CronJob` manifests in YAML or JSON.

use rota_calendar::{Misfire, Overlap};
use rota_types::Span;
use serde_json::Value;

use crate::fields::Fields;
use crate::{Action, Draft, Import, days_of_expression};

/// Reads manifests. A zone is the job's own, or UTC, which is what control planes run in.
#[must_use]
pub fn kubernetes(text: &str) -> Import {
    let mut import = Import::default();
    match serde_saphyr::from_multiple::<Value>(text) {
        Ok(documents) => documents.into_iter().for_each(|document| manifest(&mut import, document)),
        Err(error) => import.note("document", format!("not YAML: {error}")),
    }
    import
}

fn manifest(import: &mut Import, document: Value) {
    let mut fields = Fields::of("document", document);
    match fields.text("kind").as_deref() {
        Some("CronJob") => cron_job(import, fields),
        Some("List" | "CronJobList") => {
            if let Some(Value::Array(items)) = fields.take("items") {
                items.into_iter().for_each(|item| manifest(import, item));
            }
        }
        Some(other) => import.note("document", format!("{other} is no CronJob; ignored")),
        None => {}
    }
}

fn cron_job(import: &mut Import, mut fields: Fields) {
    let mut metadata = fields.object("metadata");
    let name = metadata.text("name").unwrap_or_else(|| "cronjob".to_owned());
    let place = format!("CronJob {name}");
    let mut spec = Fields::of(place.clone(), fields.take("spec").unwrap_or_default());
    let schedule = spec.text("schedule").unwrap_or_default();
    let zone_inside =
        ["CRON_TZ=", "TZ="].iter().find_map(|key| schedule.strip_prefix(*key)?.split_once(' '));
    let (inside, expression) =
        zone_inside.map_or((None, schedule.as_str()), |(zone, rest)| (Some(zone), rest));
    let timezone =
        spec.text("timeZone").or(inside.map(str::to_owned)).unwrap_or_else(|| "UTC".to_owned());
    let concurrency = spec.text("concurrencyPolicy");
    let deadline = spec.number("startingDeadlineSeconds");
    let suspend = spec.flag("suspend");
    spec.forget(&["successfulJobsHistoryLimit", "failedJobsHistoryLimit"]);
    let template = spec.object("jobTemplate").object("spec");
    let action = pod(import, &place, template);
    spec.finish(import);
    let added = import.add(Draft {
        place: &place,
        name: &name,
        expression: expression.trim(),
        timezone: &timezone,
        days: days_of_expression(expression),
        quartz: false,
        action,
    });
    let Some(added) = added else { return };
    added.paused = suspend;
    added.policy.misfire = Misfire::Once;
    if let Some(seconds) = deadline {
        added.policy.catch_up_window = Span::from_secs(seconds);
    }
    added.policy.overlap = match concurrency.as_deref() {
        Some("Forbid") => Overlap::Skip,
        Some("Replace") => Overlap::CancelRunning,
        Some(_) | None => Overlap::Allow,
    };
}

/// The command of the only container.
fn pod(import: &mut Import, place: &str, mut job: Fields) -> Action {
    let mut pod = job.object("template").object("spec");
    job.finish(import);
    let mut containers = match pod.take("containers") {
        Some(Value::Array(containers)) => containers,
        Some(_) | None => Vec::new(),
    };
    if containers.len() > 1 {
        import.note(
            place,
            format!("only the first of {} containers is carried over", containers.len()),
        );
    }
    containers.truncate(1);
    pod.forget(&["restartPolicy"]);
    pod.finish(import);
    let mut container = Fields::of(place, containers.pop().unwrap_or_default());
    if let Some(image) = container.text("image") {
        import.note(
            place,
            format!("the image {image} is not carried over: the command runs on the worker itself"),
        );
    }
    let mut argv = container.texts("command");
    argv.extend(container.texts("args"));
    if argv.is_empty() {
        import.note(place, "no command: the image's own is not known; write one");
    }
    let mut env = Vec::new();
    for variable in container.take("env").map(crate::fields::objects).unwrap_or_default() {
        let mut variable = Fields::of(place, variable);
        let name = variable.text("name").unwrap_or_default();
        match variable.text("value") {
            Some(value) => env.push((name, value)),
            None => import
                .note(place, format!("the value of {name} comes from elsewhere; set it by hand")),
        }
    }
    container.forget(&[
        "name",
        "imagePullPolicy",
        "terminationMessagePath",
        "terminationMessagePolicy",
    ]);
    container.finish(import);
    Action::Command { argv, env }
}
