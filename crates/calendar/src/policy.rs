//! What a schedule wants done about instants that were missed, and about runs that are not done when the next one is due.

use core::fmt;

use rota_types::Span;
use rota_types::limits::{CATCH_UP_RUNS_MAX, CATCH_UP_WINDOW_MAX, WAITING_RUNS_MAX};

use crate::rule::Rule;
use crate::timetable::Timetable;

/// What happens to instants that were missed: because there was no leader, or the schedule was paused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Misfire {
    /// They are skipped.
    Skip,
    /// One run stands for all of them.
    #[default]
    Once,
    /// Each has its run, oldest first; beyond `runs_max` of them they are skipped.
    All {
        /// How many runs one outage may cause.
        runs_max: u32,
    },
}

/// What happens to an instant while an earlier run of the schedule is not done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Overlap {
    /// It is skipped.
    #[default]
    Skip,
    /// It runs beside.
    Allow,
    /// It waits until the others are done, unless too many wait already.
    Queue {
        /// How many may wait.
        waiting_max: u32,
    },
    /// What runs is cancelled, and it runs instead. If several are due or missed at a time, the last one stands for all.
    CancelRunning,
}

/// How a schedule's instants are decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What happens to missed instants.
    pub misfire: Misfire,
    /// How late an instant may be decided without being missed.
    pub misfire_after: Span,
    /// How old a missed instant may be and still have a run.
    pub catch_up_window: Span,
    /// What happens while an earlier run is not done.
    pub overlap: Overlap,
    /// More runs than this within a minute stop the schedule: something is wrong.
    pub runs_per_minute_max: u32,
}

/// Which setting of a policy is outside its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPolicy {
    /// Runs after an outage: 1 to the limit.
    CatchUpRuns(u32),
    /// The window of catching up, or the tolerance before an instant is missed.
    Window(Span),
    /// Runs that wait: 1 to the limit.
    WaitingRuns(u32),
}

impl fmt::Display for BadPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CatchUpRuns(runs) => {
                write!(
                    f,
                    "misfire: {runs} runs after an outage are outside the limits 1–{CATCH_UP_RUNS_MAX}; for none, write skip"
                )
            }
            Self::Window(span) => write!(
                f,
                "catch_up_window: {span} is longer than {CATCH_UP_WINDOW_MAX}; write a shorter one"
            ),
            Self::WaitingRuns(runs) => {
                write!(
                    f,
                    "overlap: {runs} waiting runs are outside the limits 1–{WAITING_RUNS_MAX}; for none, write skip"
                )
            }
        }
    }
}

impl core::error::Error for BadPolicy {}

impl Policy {
    /// What is done unless told otherwise: one run for what was missed in the last day, no run beside another one, and three times the
    /// runs that the timetable can ask for in a minute, but at least ten.
    #[must_use]
    pub fn of(table: &Timetable) -> Self {
        const MINUTE: u64 = 60_000_000;
        let expected = match &table.rule {
            Rule::Cron(cron) => cron.runs_per_minute(),
            Rule::Every { interval: Span(micros), .. } | Rule::AfterEnd { delay: Span(micros) } => {
                u32::try_from(MINUTE.div_ceil((*micros).max(1))).unwrap_or(u32::MAX)
            }
            Rule::At(_) => 1,
        };
        Self {
            misfire: Misfire::default(),
            misfire_after: Span::from_secs(60),
            catch_up_window: Span::from_secs(24 * 3_600),
            overlap: Overlap::default(),
            runs_per_minute_max: expected.saturating_mul(3).max(10),
        }
    }

    /// Checks the settings against their limits.
    ///
    /// # Errors
    /// If one is outside.
    pub fn check(&self) -> Result<(), BadPolicy> {
        match self.misfire {
            Misfire::All { runs_max } if runs_max == 0 || runs_max > CATCH_UP_RUNS_MAX => {
                return Err(BadPolicy::CatchUpRuns(runs_max));
            }
            Misfire::All { .. } | Misfire::Skip | Misfire::Once => {}
        }
        match self.overlap {
            Overlap::Queue { waiting_max }
                if waiting_max == 0 || waiting_max > WAITING_RUNS_MAX =>
            {
                return Err(BadPolicy::WaitingRuns(waiting_max));
            }
            Overlap::Queue { .. } | Overlap::Skip | Overlap::Allow | Overlap::CancelRunning => {}
        }
        match self.catch_up_window.max(self.misfire_after) {
            window if window > CATCH_UP_WINDOW_MAX => Err(BadPolicy::Window(window)),
            _ => Ok(()),
        }
    }
}
