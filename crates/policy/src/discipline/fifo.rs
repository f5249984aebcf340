//! First in, first out.

use super::{QueueDiscipline, Rank, RankInput, signed};

/// Whoever became ready first goes first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fifo;

impl QueueDiscipline for Fifo {
    fn name(&self) -> &'static str {
        "fifo"
    }

    fn rank(&self, task: &RankInput) -> Rank {
        Rank(signed(task.ready_at.0))
    }
}
