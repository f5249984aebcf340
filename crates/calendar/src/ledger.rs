//! What is decided about each instant, once and in order.
//!
//! The leader calls [`decide`] and proposes its decisions; whoever applies them stores them with the cursor and starts the runs in the
//! same entry. Every instant after the cursor and up to `now` is in exactly one decision, and decisions follow one another without a
//! gap, so that neither a change of leader nor a repeated call decides anything twice.

use alloc::vec::Vec;

use rota_types::limits::{DECISIONS_MAX, INSTANTS_COUNTED_MAX};
use rota_types::{Span, Timestamp};

use crate::policy::{Misfire, Overlap, Policy};
use crate::rule::Rule;
use crate::timetable::Timetable;
use crate::zone::Tzdata;

const MINUTE: u64 = 60_000_000;

/// How far a schedule is decided. Part of the replicated state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// All instants up to this one are decided.
    pub decided_until: Timestamp,
    /// The minute since 1970 in which runs were last counted.
    pub minute: u64,
    /// Runs in that minute.
    pub runs_in_minute: u32,
}

impl Cursor {
    /// The cursor of a schedule that was made, changed or resumed at `now`: nothing before it is decided any more.
    #[must_use]
    pub const fn starting(now: Timestamp) -> Self {
        Self { decided_until: now, minute: 0, runs_in_minute: 0 }
    }
}

/// What the schedule's runs are doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Runs that have started and not ended. A run whose node is lost counts until its lease is over.
    pub running: u32,
    /// Runs that wait for the others to end.
    pub waiting: u32,
    /// When the last run ended.
    pub last_end: Option<Timestamp>,
}

/// One or more instants in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instants {
    /// The first one.
    pub first: Timestamp,
    /// The last one.
    pub last: Timestamp,
    /// How many there are; at least as many if not `counted`.
    pub count: u64,
    /// Whether all were counted; a long outage of a frequent schedule has too many.
    pub counted: bool,
}

/// A record of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What it is about.
    pub instants: Instants,
    /// What was decided.
    pub verdict: Verdict,
    /// When.
    pub decided_at: Timestamp,
    /// The time-zone data that the instants came from.
    pub tzdata: Tzdata,
}

/// What becomes of instants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A run, in time.
    Fired(Run),
    /// A run after the instant was missed.
    CaughtUp(Run),
    /// A later instant stands for them.
    Coalesced {
        /// That instant; it is decided next.
        into: Timestamp,
    },
    /// No run.
    Skipped(Reason),
}

/// A run to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Not to be started before it: now, or later because of jitter.
    pub starts_at: Timestamp,
    /// What has to happen first.
    pub begins: Begins,
    /// The earlier instants that it stands for, too.
    pub stands_for: Option<Instants>,
}

/// What a run waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// Nothing.
    AtOnce,
    /// The end of all runs before it.
    WhenFree,
    /// Nothing, but what runs has to be cancelled.
    AfterCancelling,
}

/// Why there is no run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Missed, and the schedule skips what it missed.
    Missed,
    /// Missed longer ago than the window of catching up.
    TooOld,
    /// Missed, and the outage had enough runs.
    CatchUpLimit,
    /// An earlier run is not done.
    StillRunning,
    /// As many wait as may wait.
    QueueFull,
    /// Too many runs within a minute.
    Runaway,
    /// The schedule was paused.
    Paused,
}

/// The answer to [`decide`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// What was decided, in order of time.
    pub decisions: Vec<Decision>,
    /// The cursor to be stored with it.
    pub cursor: Cursor,
    /// More is due than one call decides: call again with the new cursor and load.
    pub again: bool,
    /// The schedule runs away, and has to be paused.
    pub runaway: bool,
    /// When the next instant is due, as far as is known: a rule that follows the ends of runs has none while one runs.
    pub next_at: Option<Timestamp>,
}

/// Decides every instant after the cursor and up to `now`, or as many as one call may. Its work is bounded.
#[must_use]
pub fn decide(
    table: &Timetable,
    policy: &Policy,
    cursor: Cursor,
    load: Load,
    now: Timestamp,
) -> Decided {
    let ago = |span: Span| Timestamp(now.0.saturating_sub(span.0));
    let missed_before = ago(policy.misfire_after);
    let mut pass = Pass::new(table, policy, cursor, load, now);
    if matches!(table.rule, Rule::AfterEnd { .. }) {
        // What follows an end can be late, but there is only one of it: nothing to skip, nothing to catch up with.
        pass.fire();
        return pass.finish();
    }
    if policy.misfire != Misfire::Skip {
        pass.skip(ago(policy.catch_up_window).min(missed_before), Reason::TooOld);
    }
    match policy.misfire {
        Misfire::Skip => pass.skip(missed_before, Reason::Missed),
        Misfire::Once => pass.catch_up_once(missed_before),
        Misfire::All { .. } if policy.overlap == Overlap::CancelRunning => {
            pass.catch_up_once(missed_before);
        }
        Misfire::All { runs_max } => {
            pass.catch_up(missed_before, runs_max);
            pass.skip(missed_before, Reason::CatchUpLimit);
        }
    }
    pass.fire();
    pass.finish()
}

/// Decides that nothing after the cursor and up to `until` has a run, as when a paused schedule is resumed.
#[must_use]
pub fn pass_over(table: &Timetable, cursor: Cursor, until: Timestamp, now: Timestamp) -> Decided {
    let policy = Policy::of(table);
    let mut pass = Pass::new(table, &policy, cursor, Load::default(), now);
    pass.skip(until.min(now).plus(Span(1)), Reason::Paused);
    pass.finish()
}

impl Overlap {
    /// How many of the waiting runs may start.
    #[must_use]
    pub fn may_start(self, running: u32, waiting: u32) -> u32 {
        match self {
            Self::Queue { .. } | Self::Skip => u32::from(running == 0).min(waiting),
            // None can wait unless the policy was changed meanwhile.
            Self::Allow | Self::CancelRunning => waiting,
        }
    }
}

/// One call of [`decide`].
struct Pass<'a> {
    table: &'a Timetable,
    policy: &'a Policy,
    now: Timestamp,
    cursor: Cursor,
    load: Load,
    /// What the next run stands for, too.
    carried: Option<Instants>,
    decisions: Vec<Decision>,
    again: bool,
    runaway: bool,
}

impl<'a> Pass<'a> {
    fn new(
        table: &'a Timetable,
        policy: &'a Policy,
        cursor: Cursor,
        load: Load,
        now: Timestamp,
    ) -> Self {
        let decisions = Vec::new();
        Self {
            table,
            policy,
            now,
            cursor,
            load,
            carried: None,
            decisions,
            again: false,
            runaway: false,
        }
    }

    fn finish(self) -> Decided {
        let next_at = self.next(self.cursor.decided_until);
        let Self { decisions, cursor, again, runaway, .. } = self;
        Decided { decisions, cursor, again, runaway, next_at }
    }

    /// The first instant after `after`, if it is known yet.
    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let follows = matches!(self.table.rule, Rule::AfterEnd { .. });
        let is_open = follows && (self.load.running > 0 || self.load.waiting > 0);
        if is_open { None } else { self.table.next_run(after, self.load.last_end) }
    }

    /// The first undecided instant before `until`.
    fn undecided(&self, until: Timestamp) -> Option<Timestamp> {
        self.next(self.cursor.decided_until).filter(|instant| *instant < until && !self.runaway)
    }

    /// All undecided instants before `until`.
    fn range(&self, until: Timestamp) -> Option<Instants> {
        let first = self.undecided(until)?;
        let mut instants = Instants { first, last: first, count: 1, counted: true };
        if matches!(self.table.rule, Rule::AfterEnd { .. }) {
            return Some(instants);
        }
        while let Some(next) = self.table.next_after(instants.last).filter(|next| *next < until) {
            if instants.count >= INSTANTS_COUNTED_MAX {
                instants.last = self.table.previous_before(until).unwrap_or(next);
                instants.counted = false;
                break;
            }
            instants.last = next;
            instants.count += 1;
        }
        Some(instants)
    }

    fn record(&mut self, instants: Instants, verdict: Verdict) {
        self.cursor.decided_until = instants.last;
        let tzdata = Tzdata::EMBEDDED;
        self.decisions.push(Decision { instants, verdict, decided_at: self.now, tzdata });
    }

    /// Nothing before `until` has a run.
    fn skip(&mut self, until: Timestamp, reason: Reason) {
        if let Some(instants) = self.range(until) {
            self.record(instants, Verdict::Skipped(reason));
        }
    }

    /// One run for all before `until`: that of the next instant if it is due, or else that of the last one.
    fn catch_up_once(&mut self, until: Timestamp) {
        let Some(missed) = self.range(until) else { return };
        match self.next(missed.last).filter(|next| *next <= self.now) {
            Some(into) => self.coalesce(missed, into),
            None => self.run_last(missed, true),
        }
    }

    /// One run for all: that of the last one.
    fn run_last(&mut self, instants: Instants, is_late: bool) {
        let Instants { last, count, .. } = instants;
        if let Some(before) = self.table.previous_before(last).filter(|_| count > 1) {
            self.coalesce(Instants { last: before, count: count - 1, ..instants }, last);
        }
        self.run(last, is_late);
    }

    /// The run of `into` stands for these, too.
    fn coalesce(&mut self, instants: Instants, into: Timestamp) {
        self.record(instants, Verdict::Coalesced { into });
        let Instants { last, count, counted, .. } = instants;
        self.carried = Some(self.carried.map_or(instants, |carried| Instants {
            last,
            count: carried.count.saturating_add(count),
            counted: carried.counted && counted,
            ..carried
        }));
    }

    /// A run for each before `until`, oldest first.
    fn catch_up(&mut self, until: Timestamp, runs_max: u32) {
        for _ in 0..runs_max {
            let Some(instant) = self.undecided(until) else { return };
            self.run(instant, true);
        }
    }

    /// A run for each that is due and was not missed.
    fn fire(&mut self) {
        let due = self.now.plus(Span(1));
        if self.policy.overlap == Overlap::CancelRunning {
            // All but the last would be cancelled at once.
            return self.range(due).into_iter().for_each(|instants| self.run_last(instants, false));
        }
        for _ in 0..DECISIONS_MAX {
            let Some(instant) = self.undecided(due) else { return };
            self.run(instant, false);
        }
        self.again = self.undecided(due).is_some();
    }

    /// Decides one instant by how its schedule treats overlaps.
    fn run(&mut self, instant: Timestamp, is_late: bool) {
        let one = Instants { first: instant, last: instant, count: 1, counted: true };
        let is_free = self.load.running == 0 && self.load.waiting == 0;
        let begins = match self.policy.overlap {
            Overlap::CancelRunning if !is_free => Begins::AfterCancelling,
            Overlap::CancelRunning | Overlap::Allow => Begins::AtOnce,
            Overlap::Skip | Overlap::Queue { .. } if is_free => Begins::AtOnce,
            Overlap::Skip => return self.record(one, Verdict::Skipped(Reason::StillRunning)),
            Overlap::Queue { waiting_max } if self.load.waiting >= waiting_max => {
                return self.record(one, Verdict::Skipped(Reason::QueueFull));
            }
            Overlap::Queue { .. } => Begins::WhenFree,
        };
        if self.runs_away(instant) {
            return self.record(one, Verdict::Skipped(Reason::Runaway));
        }
        match begins {
            Begins::AtOnce => self.load.running += 1,
            Begins::WhenFree => self.load.waiting += 1,
            Begins::AfterCancelling => self.load.running = 1,
        }
        let starts_at = self.table.start_of(instant).max(self.now);
        let run = Run { starts_at, begins, stands_for: self.carried.take() };
        self.record(one, if is_late { Verdict::CaughtUp(run) } else { Verdict::Fired(run) });
    }

    /// Counts a run, and tells whether there are too many. What was missed for longer than a minute has limits of its own.
    fn runs_away(&mut self, instant: Timestamp) -> bool {
        if self.now.since(instant).0 >= MINUTE {
            return false;
        }
        let minute = self.now.0 / MINUTE;
        if self.cursor.minute != minute {
            (self.cursor.minute, self.cursor.runs_in_minute) = (minute, 0);
        }
        self.runaway = self.cursor.runs_in_minute >= self.policy.runs_per_minute_max;
        self.cursor.runs_in_minute = self.cursor.runs_in_minute.saturating_add(1);
        self.runaway
    }
}
