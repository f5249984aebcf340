//! Crontabs, as cronie and Debian's cron read them.

use rota_calendar::{Misfire, Overlap};
use rota_types::Span;

use crate::{Action, Draft, Import, days_of_star};

/// How a crontab is to be read.
#[derive(Clone, Copy, Debug)]
pub struct Crontab<'a> {
    /// Whether a user's name stands before each command, as in `/etc/crontab` and `/etc/cron.d`.
    pub has_users: bool,
    /// The zone of the machine that it comes from.
    pub timezone: &'a str,
}

/// What lines above an entry have set.
struct Settings {
    timezone: String,
    shell: Option<String>,
    jitter: Span,
    env: Vec<(String, String)>,
}

/// Reads a crontab. Cron has no catching up and lets runs overlap, and so do the schedules.
#[must_use]
pub fn crontab(text: &str, how: Crontab<'_>) -> Import {
    let mut import = Import::default();
    let mut settings = Settings {
        timezone: how.timezone.to_owned(),
        shell: None,
        jitter: Span::ZERO,
        env: Vec::new(),
    };
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        let place = format!("line {number}");
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match variable(line) {
            Some((name, value)) => set(&mut settings, &mut import, &place, (name, value)),
            None => entry(&settings, &mut import, &place, (line, how.has_users)),
        }
    }
    import
}

/// `NAME = value`, in quotes or not.
fn variable(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let quoted =
        ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
    is_name.then_some((name, quoted.unwrap_or(value)))
}

fn set(settings: &mut Settings, import: &mut Import, place: &str, (name, value): (&str, &str)) {
    match name {
        "CRON_TZ" => settings.timezone = value.to_owned(),
        "SHELL" => settings.shell = Some(value.to_owned()).filter(|shell| shell != "/bin/sh"),
        "RANDOM_DELAY" => match value.parse::<u64>() {
            Ok(minutes) => settings.jitter = Span::from_secs(minutes.saturating_mul(60)),
            Err(_) => import
                .note(place, format!("RANDOM_DELAY: {value} is not a number of minutes; ignored")),
        },
        "MAILTO" | "MAILFROM" | "CONTENT_TYPE" | "CONTENT_TRANSFER_ENCODING"
            if value.is_empty() => {}
        "MAILTO" | "MAILFROM" | "CONTENT_TYPE" | "CONTENT_TRANSFER_ENCODING" => {
            import.note(place, format!("{name}: nothing is mailed; output is kept with each task"));
        }
        _ => {
            settings.env.retain(|(known, _)| known != name);
            settings.env.push((name.to_owned(), value.to_owned()));
        }
    }
}

fn entry(settings: &Settings, import: &mut Import, place: &str, (line, has_users): (&str, bool)) {
    let Some((fields, rest)) = split(line, if line.starts_with('@') { 1 } else { 5 }) else {
        return import.note(place, "left out: neither five fields and a command, nor a variable");
    };
    let (user, command) = match split(rest, 1).filter(|_| has_users) {
        Some((user, command)) => (Some(user), command),
        None if has_users => return import.note(place, "left out: no command behind the user"),
        None => (None, rest),
    };
    let (script, stdin) = percent(command);
    let expression = fields.split_whitespace().collect::<Vec<_>>();
    let days = match expression[..] {
        [_, _, day, _, weekday] => days_of_star(day, weekday),
        _ => rota_calendar::DayRule::Either,
    };
    let name = name_of(&script);
    let (shell, env) = (settings.shell.clone(), settings.env.clone());
    let added = import.add(Draft {
        place,
        name: &name,
        expression: &expression.join(" "),
        timezone: &settings.timezone,
        days,
        quartz: false,
        action: Action::Shell { shell, script, stdin, env },
    });
    let Some(added) = added else { return };
    added.policy.misfire = Misfire::Skip;
    added.policy.overlap = Overlap::Allow;
    added.timetable.jitter = settings.jitter;
    if let Some(user) = user {
        import.note(place, format!("it ran as {user}; here it runs as the worker's user"));
    }
}

/// The first `count` words, and what is behind them.
fn split(line: &str, count: usize) -> Option<(&str, &str)> {
    let mut rest = line.trim_start();
    for _ in 0..count {
        rest = rest[rest.find(char::is_whitespace)?..].trim_start();
    }
    (!rest.is_empty()).then(|| (line[..line.len() - rest.len()].trim(), rest))
}

/// An unescaped `%` ends the command; what follows is its standard input, in which `%` ends a line.
fn percent(command: &str) -> (String, Option<String>) {
    let mut parts = vec![String::new()];
    let mut is_escaped = false;
    for char in command.chars() {
        match (is_escaped, char) {
            (true, '%') => parts.last_mut().into_iter().for_each(|part| part.push('%')),
            (true, _) => parts.last_mut().into_iter().for_each(|part| part.extend(['\\', char])),
            (false, '%') => parts.push(String::new()),
            (false, '\\') => {}
            (false, _) => parts.last_mut().into_iter().for_each(|part| part.push(char)),
        }
        is_escaped = char == '\\' && !is_escaped;
    }
    if is_escaped {
        parts.last_mut().into_iter().for_each(|part| part.push('\\'));
    }
    let script = parts.remove(0).trim_end().to_owned();
    let stdin = (!parts.is_empty()).then(|| parts.join("\n") + "\n");
    (script, stdin)
}

/// The program's file name.
fn name_of(script: &str) -> String {
    let words = script.split_whitespace();
    let program = words.into_iter().find(|word| !word.contains('=')).unwrap_or("job");
    let file = program.rsplit('/').next().unwrap_or(program);
    let kept: String =
        file.chars().filter(|c| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(c)).collect();
    if kept.is_empty() { "job".to_owned() } else { kept.chars().take(64).collect() }
}
