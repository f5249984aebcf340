//! Which task of a queue goes next.

use alloc::boxed::Box;
use core::fmt;

use rota_core::queue::Discipline;
use rota_types::{Span, Steady};

mod fifo;
mod priority;

use fifo::Fifo;
use priority::Priority;

/// A place in a queue: the smallest goes first. A key rather than a comparison, so that an ordered map can hold it; waiting at a
/// constant rate needs no clock, because `priority · k + (now − ready_at)` orders like `ready_at − priority · k`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank(pub i64);

/// What a discipline may look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RankInput {
    /// When the task became ready.
    pub ready_at: Steady,
    /// The job's priority.
    pub priority: i32,
    /// How long the task is expected to run.
    pub estimate: Option<Span>,
}

/// Orders the tasks of one queue. Depends on nothing but its arguments; ties go to the smaller task id.
pub trait QueueDiscipline: fmt::Debug + Send + Sync {
    /// The discipline's name in settings.
    fn name(&self) -> &'static str;

    /// The task's place.
    fn rank(&self, task: &RankInput) -> Rank;
}

/// The discipline that a queue's settings ask for.
#[must_use]
pub fn discipline(settings: Discipline) -> Box<dyn QueueDiscipline> {
    match settings {
        Discipline::Fifo => Box::new(Fifo),
        Discipline::Priority { aging } => Box::new(Priority { aging }),
    }
}

/// Microseconds as a signed number, saturating.
fn signed(micros: u64) -> i64 {
    i64::try_from(micros).unwrap_or(i64::MAX)
}
