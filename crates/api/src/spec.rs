//! Between what people submit and what the state machine keeps.

use std::collections::BTreeMap;
use std::sync::Arc;

use rota_core::command::{Backoff, GroupSpec, JobSpec, RetryPolicy, Shape};
use rota_types::limits::{ACTION_BYTES_MAX, NAME_BYTES_MAX};
use rota_types::{ActionKind, RangeSet, Resources, Span};
use rota_wire::action::{decode_group_action, encode_group_action};
use rota_wire::worker::{
    Action, CommandAction, EnvVar, GroupAction, Header, HttpAction, NoopAction, StatusRange, action,
};

use crate::job_file::{HttpRequest, JobFile, JobHeader, Mistake, Retry, TaskGroup};
use crate::scalar::{Amount, ArrayRange, BackoffRange, Duration, Requirement, RetryOn, Size};
use crate::validate::{group_names, parse_statuses, task_count, validate};
use crate::{CommandLine, validate::name_mistake};

/// The time between the request to stop and the kill, unless a job says otherwise.
pub const GRACE_DEFAULT: Span = Span::from_secs(10);
/// The pause between attempts, unless a job says otherwise.
pub const BACKOFF_DEFAULT: BackoffRange =
    BackoffRange { base: Span::from_secs(1), max: Span::from_secs(60) };
/// How much of a pause may be added at random, in percent, unless a job says otherwise.
pub const JITTER_DEFAULT: u8 = 10;

/// How many tasks a job has.
#[must_use]
pub fn tasks_of(job: &JobFile) -> u64 {
    job.task.iter().map(task_count).sum()
}

/// Makes a job that the state machine takes.
///
/// # Errors
/// Everything that is wrong with the job.
pub fn into_spec(job: JobFile, submitter: &str) -> Result<JobSpec, Vec<Mistake>> {
    let mut mistakes = validate(&job);
    mistakes.extend(
        name_mistake("submitter", submitter).map(|(message, hint)| Mistake::new("", message, hint)),
    );
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let names = group_names(&job);
    let name = job.job.name.clone().unwrap_or_else(|| default_name(&job, &names));
    let mut groups = Vec::with_capacity(job.task.len());
    for (index, (group, name)) in job.task.into_iter().zip(names).enumerate() {
        let spec = group_spec(group, name);
        if spec.action.len() > ACTION_BYTES_MAX {
            let message = format!(
                "command, environment, standard input and entries take {} bytes; the limit is {ACTION_BYTES_MAX}",
                spec.action.len()
            );
            let hint = "put large input into files, or split the entries over several jobs";
            mistakes.push(Mistake::new(format!("/task/{index}"), message, hint));
        }
        groups.push(spec);
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let labels = job.job.labels.into_iter().map(|(key, value)| (key.into(), value.into()));
    Ok(JobSpec {
        name: name.into(),
        queue: job.job.queue.into(),
        priority: job.job.priority,
        labels: labels.collect(),
        submitter: submitter.into(),
        retry_of: None,
        groups,
    })
}

/// A job without a name is called like its first task or, failing that, like its program.
fn default_name(job: &JobFile, names: &[String]) -> String {
    let first = job.task.first();
    let program = || {
        let argv = first?.command.as_ref().map(CommandLine::argv)?;
        let base = argv.first()?.rsplit('/').next()?.to_owned();
        let fits =
            !base.is_empty() && base.len() <= NAME_BYTES_MAX && !base.contains(char::is_control);
        fits.then_some(base)
    };
    let named = first.and_then(|group| group.name.clone());
    named.or_else(program).or_else(|| names.first().cloned()).unwrap_or_default()
}

fn group_spec(group: TaskGroup, name: String) -> GroupSpec {
    let (array, parallel_max) = match &group.array {
        Some(array) => (array.indexes.clone(), array.parallel.or(group.parallel)),
        None => {
            let count = u32::try_from(task_count(&group)).unwrap_or(u32::MAX);
            (RangeSet::from_range(0, count), group.parallel)
        }
    };
    GroupSpec {
        name: name.into(),
        array,
        is_array: group.array.is_some() || !group.entries.is_empty(),
        shape: shape(&group),
        estimate: group.estimate.map(|estimate| estimate.0),
        timeout: group.timeout.map(|timeout| timeout.0),
        retry: retry_policy(group.retry.clone().unwrap_or_default()),
        parallel_max,
        action: encode(group),
    }
}

fn shape(group: &TaskGroup) -> Shape {
    let cpus = if group.command.is_some() { Amount::whole(1) } else { Amount::default() };
    let mut need = Resources::new(group.cpus.unwrap_or(cpus).0, group.memory.unwrap_or_default().0);
    let named = group.resources.iter().filter(|(_, amount)| amount.0 > 0);
    need.named = named.map(|(name, amount)| (name.as_str().into(), amount.0)).collect();
    Shape {
        need,
        constraints: group.require.iter().map(|requirement| requirement.0.clone()).collect(),
        kind: Some(kind(group)),
    }
}

fn kind(group: &TaskGroup) -> ActionKind {
    if group.command.is_some() {
        ActionKind::Command
    } else if group.http.is_some() {
        ActionKind::Http
    } else {
        ActionKind::Noop
    }
}

fn retry_policy(retry: Retry) -> RetryPolicy {
    let backoff = retry.backoff.unwrap_or(BACKOFF_DEFAULT);
    RetryPolicy {
        attempts_max: retry.max.saturating_add(1),
        backoff: Backoff {
            base: backoff.base,
            max: backoff.max,
            jitter_percent: retry.jitter.unwrap_or(JITTER_DEFAULT),
        },
        on: retry.on.into_iter().map(|rule| rule.0).collect(),
    }
}

fn encode(group: TaskGroup) -> Arc<[u8]> {
    let kind = match (&group.command, group.http) {
        (Some(command), _) => action::Kind::Command(CommandAction {
            argv: command.argv(),
            env: group.env.into_iter().map(|(name, value)| EnvVar { name, value }).collect(),
            cwd: group.cwd.unwrap_or_default(),
            stdin: group.stdin.unwrap_or_default().into_bytes(),
            grace_micros: group.grace.map_or(GRACE_DEFAULT, |grace| grace.0).micros(),
        }),
        (None, Some(request)) => action::Kind::Http(http_action(request)),
        (None, None) => action::Kind::Noop(NoopAction {}),
    };
    encode_group_action(&GroupAction {
        action: Some(Action { kind: Some(kind) }),
        entries: group.entries,
    })
}

fn http_action(request: HttpRequest) -> HttpAction {
    let method = match (request.method, &request.body) {
        (Some(method), _) => method,
        (None, Some(_)) => "POST".to_owned(),
        (None, None) => "GET".to_owned(),
    };
    let expect = request.expect.as_deref().and_then(parse_statuses).unwrap_or_default();
    let range = |(from, to): (u16, u16)| StatusRange { from: from.into(), to: to.into() };
    HttpAction {
        method,
        url: request.url,
        headers: request.headers.into_iter().map(|(name, value)| Header { name, value }).collect(),
        body: request.body.unwrap_or_default().into_bytes(),
        expect: expect.into_iter().map(range).collect(),
    }
}

impl JobFile {
    /// The job file that gives this job again, with defaults filled in where they were taken.
    #[must_use]
    pub fn from_spec(spec: &JobSpec) -> Self {
        let job = JobHeader {
            name: Some(spec.name.to_string()),
            queue: spec.queue.to_string(),
            priority: spec.priority,
            labels: spec
                .labels
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
        };
        Self { job, task: spec.groups.iter().map(group_of).collect() }
    }
}

fn group_of(spec: &GroupSpec) -> TaskGroup {
    let need = &spec.shape.need;
    let mut group = TaskGroup {
        name: Some(spec.name.to_string()),
        parallel: spec.parallel_max,
        cpus: Some(Amount(need.cpu_millis)),
        memory: (need.memory_bytes > 0).then_some(Size(need.memory_bytes)),
        resources: need
            .named
            .iter()
            .map(|(name, amount)| (name.to_string(), Amount(*amount)))
            .collect(),
        require: spec.shape.constraints.iter().cloned().map(Requirement).collect(),
        estimate: spec.estimate.map(Duration),
        timeout: spec.timeout.map(Duration),
        retry: retry_of(&spec.retry),
        ..TaskGroup::default()
    };
    let mut has_entries = false;
    // An action that this version can't read leaves the group without one.
    if let Ok(decoded) = decode_group_action(&spec.action) {
        has_entries = !decoded.entries.is_empty();
        group.entries = decoded.entries;
        if let Some(kind) = decoded.action.and_then(|action| action.kind) {
            set_action(&mut group, kind);
        }
    }
    if spec.is_array && !has_entries {
        group.array = Some(ArrayRange { indexes: spec.array.clone(), parallel: None });
    }
    group
}

fn retry_of(policy: &RetryPolicy) -> Option<Retry> {
    (policy.attempts_max > 1).then(|| Retry {
        max: policy.attempts_max.saturating_sub(1),
        backoff: Some(BackoffRange { base: policy.backoff.base, max: policy.backoff.max }),
        jitter: Some(policy.backoff.jitter_percent),
        on: policy.on.iter().copied().map(RetryOn).collect(),
    })
}

fn set_action(group: &mut TaskGroup, kind: action::Kind) {
    let text =
        |bytes: &[u8]| (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes).into_owned());
    match kind {
        action::Kind::Command(command) => {
            group.command = Some(CommandLine::Program(command.argv));
            group.env = command.env.into_iter().map(|var| (var.name, var.value)).collect();
            group.cwd = (!command.cwd.is_empty()).then_some(command.cwd);
            group.stdin = text(&command.stdin);
            group.grace = Some(Duration(Span(command.grace_micros)));
        }
        action::Kind::Http(request) => {
            let headers = request.headers.into_iter().map(|header| (header.name, header.value));
            let range = |range: &StatusRange| match (range.from, range.to) {
                (from, to) if from == to => from.to_string(),
                (from, to) => format!("{from}-{to}"),
            };
            let expect: Vec<String> = request.expect.iter().map(range).collect();
            group.http = Some(HttpRequest {
                method: Some(request.method),
                url: request.url,
                headers: headers.collect::<BTreeMap<_, _>>(),
                body: text(&request.body),
                expect: (!expect.is_empty()).then(|| expect.join(",")),
            });
        }
        action::Kind::Noop(NoopAction {}) => group.noop = true,
    }
}
