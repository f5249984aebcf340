//! Reads schedules of other systems: what they run, when, and what can't be carried over.
//!
//! Text in, [`Import`] out: no file is opened and nothing is submitted. Whatever is not understood is a [`Note`], never silently lost;
//! a schedule whose times can't be kept is left out with a note, rather than taken with other times.

mod celery;
mod crontab;
mod dkron;
mod fields;
mod kubernetes;
mod xxl_job;

use std::collections::BTreeSet;

use rota_calendar::{DayRule, Options, Policy, Rule, Timetable, Zone};

pub use celery::celery;
pub use crontab::{Crontab, crontab};
pub use dkron::dkron;
pub use kubernetes::kubernetes;
pub use xxl_job::xxl_job;

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Import {
    /// The schedules, in the order of the source.
    pub schedules: Vec<Imported>,
    /// What was not carried over, or only in part.
    pub notes: Vec<Note>,
}

/// A schedule of another system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Its name there, or one made from its command; unique within an import.
    pub name: String,
    /// When it is due.
    pub timetable: Timetable,
    /// How day of month and day of week go together in its expression.
    pub days: DayRule,
    /// Whether its expression numbers days of the week from 1.
    pub quartz: bool,
    /// What is done about missed and overlapping instants there.
    pub policy: Policy,
    /// What it runs.
    pub action: Action,
    /// Whether it is switched off.
    pub paused: bool,
}

/// What a schedule runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A line for a shell.
    Shell {
        /// The shell, if not `/bin/sh`.
        shell: Option<String>,
        /// The line.
        script: String,
        /// What it reads on standard input.
        stdin: Option<String>,
        /// Its environment.
        env: Vec<(String, String)>,
    },
    /// A program with arguments.
    Command {
        /// The program and its arguments.
        argv: Vec<String>,
        /// Its environment.
        env: Vec<(String, String)>,
    },
    /// An HTTP request.
    Http {
        /// Its method.
        method: String,
        /// Where it goes.
        url: String,
        /// What it carries.
        body: String,
    },
    /// Code that is registered under a name.
    Handler {
        /// The name.
        name: String,
        /// What it is called with, as JSON or text.
        argument: String,
    },
}

/// Something that was not carried over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The line, the schedule's name, or the field.
    pub place: String,
    /// What about it, and what to do.
    pub message: String,
}

/// A schedule being read: what all sources have in common.
struct Draft<'a> {
    /// Where it stands, for notes.
    place: &'a str,
    name: &'a str,
    expression: &'a str,
    timezone: &'a str,
    days: DayRule,
    quartz: bool,
    action: Action,
}

impl Import {
    fn note(&mut self, place: &str, message: impl Into<String>) {
        self.notes.push(Note { place: place.to_owned(), message: message.into() });
    }

    /// Adds a schedule if its times can be kept.
    fn add(&mut self, draft: Draft<'_>) -> Option<&mut Imported> {
        let Draft { place, name, expression, timezone, days, quartz, action } = draft;
        let options = Options { seed: name, days, quartz };
        let rule = match Rule::parse(expression, &options) {
            Ok(rule) => rule,
            Err(error) => {
                self.note(place, format!("left out: {error}"));
                return None;
            }
        };
        let zone = match Zone::named(timezone) {
            Ok(zone) => zone,
            Err(error) => {
                self.note(place, format!("left out: {error}"));
                return None;
            }
        };
        let timetable = Timetable { seed: name.to_owned(), ..Timetable::new(rule, zone) };
        let name = self.unique(name);
        let policy = Policy::of(&timetable);
        self.schedules.push(Imported {
            name,
            timetable,
            days,
            quartz,
            policy,
            action,
            paused: false,
        });
        self.schedules.last_mut()
    }

    /// The name, with a number behind it if it is taken.
    fn unique(&self, name: &str) -> String {
        let taken: BTreeSet<&str> =
            self.schedules.iter().map(|known| known.name.as_str()).collect();
        let numbered = (2..).map(|number| format!("{name}-{number}"));
        let mut names = std::iter::once(name.to_owned()).chain(numbered);
        names.find(|name| !taken.contains(name.as_str())).unwrap_or_default()
    }
}

/// How crons that know a field by its first character combine days: if one of them begins with a star, a day has to match both.
fn days_of_star(day: &str, weekday: &str) -> DayRule {
    let is_star = |field: &str| field.starts_with(['*', '?']);
    if is_star(day) || is_star(weekday) { DayRule::Both } else { DayRule::Either }
}

/// The same for a whole expression, whose last fields are day of month, month and day of week.
fn days_of_expression(expression: &str) -> DayRule {
    match expression.split_whitespace().rev().collect::<Vec<_>>()[..] {
        [weekday, _, day, ..] => days_of_star(day, weekday),
        _ => DayRule::Either,
    }
}
