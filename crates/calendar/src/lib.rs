//! When schedules are due, and what is decided about each instant.
//!
//! [`Rule`] reads what people write; a [`Timetable`] adds a time zone, bounds and excluded days, and answers which instant comes next.
//! A [`Policy`] says what is done about instants that were missed or overlap; [`decide`] turns all of it into [`Decision`]s to be stored.
//! Nothing here reads a clock, a file or the system's time-zone data, and nothing here runs anything: equal arguments give equal
//! answers on every server that has the same [`Tzdata`]. Every search ends, because the calendar ends with the year 2499.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod civil;
mod cron;
mod describe;
mod error;
mod item;
mod ledger;
mod parse;
mod policy;
mod preview;
mod rule;
mod search;
mod spread;
mod timetable;
mod zone;

pub use civil::Date;
pub use cron::{Cron, DayRule, Options};
pub use error::{Field, TextError};
pub use ledger::{
    Begins, Cursor, Decided, Decision, Instants, Load, Reason, Run, Verdict, decide, pass_over,
};
pub use policy::{BadPolicy, Misfire, Overlap, Policy};
pub use preview::{Note, Preview};
pub use rule::Rule;
pub use search::{Fold, Gap};
pub use timetable::{BadTimetable, Exclusions, Timetable};
pub use zone::{Tzdata, UnknownZone, Zone};
