//! Priority with aging.

use rota_types::Span;

use super::{QueueDiscipline, Rank, RankInput, signed};

/// Higher priority goes first, but every `aging` of waiting is worth one point: a task of priority p is overtaken only by tasks
/// that become ready within `(p_max − p) · aging` after it, so nothing starves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Priority {
    /// The wait that outweighs one point of priority.
    pub(super) aging: Span,
}

impl QueueDiscipline for Priority {
    fn name(&self) -> &'static str {
        "priority"
    }

    fn rank(&self, task: &RankInput) -> Rank {
        let head_start = i64::from(task.priority).saturating_mul(signed(self.aging.0));
        Rank(signed(task.ready_at.0).saturating_sub(head_start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rota_types::Steady;

    #[test]
    fn a_point_of_priority_is_worth_exactly_the_aging_span() {
        let order = Priority { aging: Span(10) };
        let rank = |priority, ready| {
            order.rank(&RankInput { ready_at: Steady(ready), priority, estimate: None })
        };
        assert!(rank(1, 109) < rank(0, 100));
        assert_eq!(rank(1, 110), rank(0, 100));
        assert!(rank(1, 111) > rank(0, 100));
    }

    #[test]
    fn extreme_priorities_do_not_overflow() {
        let order = Priority { aging: Span(u64::MAX) };
        let rank = |priority| {
            order.rank(&RankInput { ready_at: Steady(u64::MAX), priority, estimate: None })
        };
        assert!(rank(i32::MAX) < rank(i32::MIN));
    }
}
