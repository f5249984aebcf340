//! What must hold of a job beyond its shape: limits, names, and fields that exclude each other.

use std::collections::BTreeSet;

use rota_types::limits::{
    ATTEMPTS_MAX, BACKOFF_MAX, CONSTRAINT_VALUES_MAX, CONSTRAINTS_MAX, ESTIMATE_MAX, GRACE_MAX,
    GROUPS_MAX, JOB_TASKS_MAX, LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX,
    NAME_BYTES_MAX, PRIORITY_MAX, RESOURCE_AMOUNT_MAX, RESOURCES_MAX, RETRY_RULES_MAX,
    SUBMIT_JOBS_MAX, TIMEOUT_MAX,
};
use rota_types::{Predicate, Span};

use crate::job_file::{CommandLine, HttpRequest, JobFile, JobHeader, Mistake, Retry, TaskGroup};
use crate::scalar::{Amount, Duration};

/// Where a job comes from: only a file may name other files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    File,
    Request,
}

/// Everything that is wrong with a job that is about to be submitted.
#[must_use]
pub fn validate(job: &JobFile) -> Vec<Mistake> {
    self::job(job, Origin::Request)
}

/// Notes mistakes below one pointer.
struct Notes<'a> {
    prefix: String,
    mistakes: &'a mut Vec<Mistake>,
}

impl Notes<'_> {
    fn note(&mut self, field: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.mistakes.push(Mistake::new(format!("{}{field}", self.prefix), message, hint));
    }

    /// Notes that there are more than `limit` of something.
    fn at_most(&mut self, field: &str, what: &str, value: u64, limit: u64) {
        if value > limit {
            let message = format!("{what}: {value} is more than the limit of {limit}");
            self.note(field, message, format!("use at most {limit}"));
        }
    }

    fn span(&mut self, field: &str, span: Option<Duration>, limit: Span) {
        if span.is_some_and(|span| span.0 > limit) {
            let message =
                format!("{} is longer than the limit of {limit}", span.unwrap_or_default());
            self.note(field, message, format!("use at most {limit}"));
        }
    }

    fn not_zero(&mut self, field: &str, span: Option<Duration>) {
        if span.is_some_and(|span| span.0 == Span::ZERO) {
            self.note(field, "0 is no time at all", "leave it out, or give it a length");
        }
    }

    fn name(&mut self, field: &str, what: &str, name: &str) {
        if let Some((message, hint)) = name_mistake(what, name) {
            self.note(field, message, hint);
        }
    }
}

/// What is wrong with a name: it is empty, too long, or holds control characters.
pub(crate) fn name_mistake(what: &str, name: &str) -> Option<(String, String)> {
    if name.is_empty() {
        return Some((format!("the {what} is empty"), "leave it out, or fill it in".to_owned()));
    }
    if name.len() > NAME_BYTES_MAX {
        let message = format!("the {what} has {} bytes; the limit is {NAME_BYTES_MAX}", name.len());
        return Some((message, format!("use at most {NAME_BYTES_MAX} bytes")));
    }
    if name.chars().any(char::is_control) {
        let hint = "use visible characters".to_owned();
        return Some((format!("the {what} has control characters"), hint));
    }
    None
}

/// The number of jobs in one request.
pub(crate) fn job_count(count: usize, prefix: &str) -> Option<Mistake> {
    match count {
        0 => Some(Mistake::new(prefix, "there are no jobs", "send at least one")),
        count if count > SUBMIT_JOBS_MAX => Some(Mistake::new(
            prefix,
            format!("{count} jobs in one request; the limit is {SUBMIT_JOBS_MAX}"),
            format!("send at most {SUBMIT_JOBS_MAX} at a time, or use one job with an array"),
        )),
        _ => None,
    }
}

pub(crate) fn job(job: &JobFile, origin: Origin) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    header(&job.job, &mut Notes { prefix: "/job".to_owned(), mistakes: &mut mistakes });
    groups(job, &mut Notes { prefix: String::new(), mistakes: &mut mistakes });
    for (index, group) in job.task.iter().enumerate() {
        let mut notes = Notes { prefix: format!("/task/{index}"), mistakes: &mut mistakes };
        action(group, origin, &mut notes);
        multiplicity(group, &mut notes);
        demands(group, &mut notes);
        times(group, &mut notes);
        if let Some(policy) = &group.retry {
            retry(policy, &mut notes);
        }
    }
    mistakes
}

fn header(job: &JobHeader, notes: &mut Notes<'_>) {
    if let Some(name) = &job.name {
        notes.name("/name", "name", name);
    }
    notes.name("/queue", "queue's name", &job.queue);
    if job.priority.unsigned_abs() > PRIORITY_MAX.unsigned_abs() {
        let message = format!("priority {} is out of range", job.priority);
        notes.note("/priority", message, format!("from -{PRIORITY_MAX} to {PRIORITY_MAX}"));
    }
    notes.at_most("/labels", "labels", job.labels.len() as u64, LABELS_MAX as u64);
    for (key, value) in &job.labels {
        let field = format!("/labels/{}", key.replace('~', "~0").replace('/', "~1"));
        if let Some((message, hint)) = label_mistake(key, value) {
            notes.note(&field, message, hint);
        }
    }
}

/// What is wrong with a label.
pub(crate) fn label_mistake(key: &str, value: &str) -> Option<(String, String)> {
    let broken = |c: char| c.is_control() || c.is_whitespace() || "=!|,".contains(c);
    if key.is_empty() || key.contains(broken) {
        let hint = "use letters, digits, - _ . /".to_owned();
        return Some((format!("\"{}\" can't be a label's key", key.escape_debug()), hint));
    }
    if key.len() > LABEL_KEY_BYTES_MAX {
        let message =
            format!("the label's key has {} bytes; the limit is {LABEL_KEY_BYTES_MAX}", key.len());
        return Some((message, "shorten it".to_owned()));
    }
    if value.len() > LABEL_VALUE_BYTES_MAX {
        let message = format!(
            "the label's value has {} bytes; the limit is {LABEL_VALUE_BYTES_MAX}",
            value.len()
        );
        return Some((message, "shorten it".to_owned()));
    }
    let hint = "use visible characters".to_owned();
    value
        .chars()
        .any(char::is_control)
        .then(|| ("the label's value has control characters".to_owned(), hint))
}

fn groups(job: &JobFile, notes: &mut Notes<'_>) {
    if job.task.is_empty() {
        notes.note("/task", "the job has no tasks", "add a [[task]] table with a command");
    }
    notes.at_most("/task", "kinds of tasks", job.task.len() as u64, GROUPS_MAX as u64);
    let tasks: u64 = job.task.iter().map(task_count).sum();
    if tasks > u64::from(JOB_TASKS_MAX) {
        let message = format!("the job has {tasks} tasks; the limit is {JOB_TASKS_MAX}");
        notes.note("/task", message, "split it into several jobs");
    }
    let mut seen = BTreeSet::new();
    for (index, name) in group_names(job).into_iter().enumerate() {
        if !seen.insert(name.clone()) {
            let message = format!("the name \"{}\" is used twice", name.escape_debug());
            notes.note(&format!("/task/{index}/name"), message, "names are unique within a job");
        }
    }
}

/// How many tasks a group stands for.
pub(crate) fn task_count(group: &TaskGroup) -> u64 {
    match &group.array {
        Some(array) => array.indexes.len(),
        None => (group.entries.len() as u64).max(1),
    }
}

/// Each group's name, given or derived: `task`, `task-2`, ….
pub(crate) fn group_names(job: &JobFile) -> Vec<String> {
    let derived = |index: usize| match index {
        0 => "task".to_owned(),
        index => format!("task-{}", index + 1),
    };
    let name =
        |(index, group): (usize, &TaskGroup)| group.name.clone().unwrap_or_else(|| derived(index));
    job.task.iter().enumerate().map(name).collect()
}

fn action(group: &TaskGroup, origin: Origin, notes: &mut Notes<'_>) {
    if let Some(name) = &group.name {
        notes.name("/name", "name", name);
    }
    let kinds = usize::from(group.command.is_some())
        + usize::from(group.http.is_some())
        + usize::from(group.noop);
    if kinds != 1 {
        let found =
            if kinds == 0 { "the task does nothing" } else { "the task does several things" };
        notes.note("", found, "give it one of command, http and noop");
    }
    match &group.command {
        Some(CommandLine::Program(argv)) if argv.first().is_none_or(String::is_empty) => {
            notes.note("/command", "the command is empty", "write [\"program\", \"argument\"]");
        }
        Some(CommandLine::Shell(line)) if line.trim().is_empty() => {
            notes.note("/command", "the command is empty", "write [\"program\", \"argument\"]");
        }
        Some(_) | None => {}
    }
    if group.command.as_ref().is_some_and(|line| line.argv().iter().any(|word| word.contains('\0')))
    {
        notes.note("/command", "the command has a NUL character", "take it out");
    }
    if group.command.is_none() {
        let only = [
            ("/env", !group.env.is_empty()),
            ("/cwd", group.cwd.is_some()),
            ("/stdin", group.stdin.is_some()),
            ("/grace", group.grace.is_some()),
        ];
        for (field, _) in only.iter().filter(|(_, there)| *there) {
            notes.note(field, "only commands have this", "take it out");
        }
    }
    if let Some(request) = &group.http {
        http(request, notes);
    }
    for (name, value) in &group.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            let message =
                format!("\"{}\" can't be set as an environment variable", name.escape_debug());
            notes.note("/env", message, "use NAME = \"value\" without NUL characters");
        }
    }
    if group.cwd.as_ref().is_some_and(|cwd| cwd.is_empty() || cwd.contains('\0')) {
        notes.note("/cwd", "this is not a directory's path", "leave it out for a fresh directory");
    }
    if origin == Origin::Request && group.each_line.is_some() {
        let hint = "submit the file with `rota submit`, or send its lines as entries";
        notes.note("/each_line", "a server doesn't read files for a job", hint);
    }
}

fn http(request: &HttpRequest, notes: &mut Notes<'_>) {
    let rest = ["http://", "https://"].iter().find_map(|scheme| request.url.strip_prefix(scheme));
    let broken =
        |url: &str| url.is_empty() || url.starts_with('/') || url.contains(char::is_whitespace);
    if rest.is_none_or(broken) || request.url.chars().any(char::is_control) {
        let message = format!("\"{}\" is not a URL", request.url.escape_debug());
        notes.note("/http/url", message, "write http://host/path or https://host/path");
    }
    let token = |text: &str| {
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !text.is_empty() && text.bytes().all(fine)
    };
    if request.method.as_ref().is_some_and(|method| !token(method)) {
        notes.note("/http/method", "this is not an HTTP method", "write GET, POST, PUT, …");
    }
    for (name, value) in &request.headers {
        if !token(name) || value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
            let message = format!("\"{}\" is not a header field", name.escape_debug());
            notes.note("/http/headers", message, "use plain names and one-line values");
        }
    }
    if request.expect.as_ref().is_some_and(|expect| parse_statuses(expect).is_none()) {
        notes.note("/http/expect", "these are not HTTP statuses", "write 200-299, or 200,204");
    }
}

/// Reads `200-299,304`.
pub(crate) fn parse_statuses(text: &str) -> Option<Vec<(u16, u16)>> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (u16, u16) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        (100 <= from && from <= to && to <= 599).then_some((from, to))
    };
    text.split(',').map(range).collect()
}

fn multiplicity(group: &TaskGroup, notes: &mut Notes<'_>) {
    let ways = [
        ("/array", group.array.is_some()),
        ("/entries", !group.entries.is_empty()),
        ("/each_line", group.each_line.is_some()),
    ];
    let mut used = ways.iter().filter(|(_, there)| *there).skip(1);
    if let Some((field, _)) = used.next() {
        let hint = "use one of array, entries and each_line";
        notes.note(field, "the task is multiplied in two ways", hint);
    }
    if let Some(empty) = group.entries.iter().position(String::is_empty) {
        let hint = "leave it out, or write a word that stands for nothing";
        notes.note(&format!("/entries/{empty}"), "the entry is empty", hint);
    }
    if let Some(array) = &group.array {
        notes.at_most("/array", "tasks", array.indexes.len(), u64::from(JOB_TASKS_MAX));
        if array.parallel.is_some() && group.parallel.is_some() {
            notes.note(
                "/parallel",
                "the array says already how many run at a time",
                "use one of % and parallel",
            );
        }
        if array.parallel == Some(0) {
            notes.note("/array", "0 at a time would never start", "use at least %1");
        }
    }
    if group.parallel == Some(0) {
        notes.note("/parallel", "0 at a time would never start", "use at least 1");
    }
}

fn demands(group: &TaskGroup, notes: &mut Notes<'_>) {
    let amount = |notes: &mut Notes<'_>, field: &str, amount: Amount| {
        if amount.0 > RESOURCE_AMOUNT_MAX {
            let limit = Amount(RESOURCE_AMOUNT_MAX);
            notes.note(
                field,
                format!("{amount} is more than the limit of {limit}"),
                format!("use at most {limit}"),
            );
        }
    };
    if let Some(cpus) = group.cpus {
        amount(notes, "/cpus", cpus);
    }
    if let Some(memory) = group.memory {
        notes.at_most("/memory", "bytes of memory", memory.0, RESOURCE_AMOUNT_MAX);
    }
    notes.at_most(
        "/resources",
        "named resources",
        group.resources.len() as u64,
        RESOURCES_MAX as u64,
    );
    for (name, value) in &group.resources {
        notes.name("/resources", "resource's name", name);
        amount(notes, "/resources", *value);
        if let Some(field) = ["cpus", "cpu", "memory"].iter().find(|reserved| *reserved == name) {
            let hint = format!(
                "write {} = … in the task itself",
                if *field == "memory" { field } else { &"cpus" }
            );
            notes.note("/resources", format!("\"{name}\" is not a named resource"), hint);
        }
    }
    notes.at_most("/require", "requirements", group.require.len() as u64, CONSTRAINTS_MAX as u64);
    for (index, requirement) in group.require.iter().enumerate() {
        let constraint = &requirement.0;
        let none: &[Box<str>] = &[];
        let values = match &constraint.predicate {
            Predicate::In(values) | Predicate::NotIn(values) => values.as_slice(),
            Predicate::Exists | Predicate::Absent => none,
        };
        let field = format!("/require/{index}");
        notes.at_most(&field, "values", values.len() as u64, CONSTRAINT_VALUES_MAX as u64);
        let wrong = values.iter().map(|value| label_mistake(&constraint.key, value));
        for (message, hint) in wrong.chain([label_mistake(&constraint.key, "")]).flatten().take(1) {
            notes.note(&field, message, hint);
        }
    }
}

fn times(group: &TaskGroup, notes: &mut Notes<'_>) {
    notes.span("/estimate", group.estimate, ESTIMATE_MAX);
    notes.span("/timeout", group.timeout, TIMEOUT_MAX);
    notes.not_zero("/timeout", group.timeout);
    notes.span("/grace", group.grace, GRACE_MAX);
}

fn retry(policy: &Retry, notes: &mut Notes<'_>) {
    let limit = ATTEMPTS_MAX.saturating_sub(1);
    notes.at_most("/retry/max", "retries", u64::from(policy.max), u64::from(limit));
    if let Some(backoff) = policy.backoff {
        notes.span("/retry/backoff", Some(Duration(backoff.max)), BACKOFF_MAX);
    }
    notes.at_most("/retry/jitter", "percent", u64::from(policy.jitter.unwrap_or_default()), 100);
    notes.at_most("/retry/on", "rules", policy.on.len() as u64, RETRY_RULES_MAX as u64);
}
