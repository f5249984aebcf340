//! The attempts that were settled last.

use alloc::collections::{BTreeMap, VecDeque};

use rota_types::{AttemptId, Timestamp};

/// Remembers a bounded number of settled attempts, so that a late set that still names one does not launch it again.
#[derive(Debug, Default)]
pub(crate) struct Forgotten {
    /// When each was placed.
    known: BTreeMap<AttemptId, Timestamp>,
    order: VecDeque<AttemptId>,
}

impl Forgotten {
    /// Remembers `attempt`, and drops the oldest one beyond `max`.
    pub(crate) fn insert(&mut self, attempt: AttemptId, placed_at: Timestamp, max: usize) {
        if self.known.insert(attempt, placed_at).is_none() {
            self.order.push_back(attempt);
        }
        while self.order.len() > max {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    /// When `attempt` was placed, if it is remembered.
    pub(crate) fn get(&self, attempt: AttemptId) -> Option<Timestamp> {
        self.known.get(&attempt).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rota_types::{JobId, TaskId};

    #[test]
    fn only_the_oldest_beyond_the_limit_is_dropped() {
        let attempt = |number| AttemptId { task: TaskId { job: JobId(1), index: 0 }, number };
        let mut forgotten = Forgotten::default();
        for (number, placed_at) in [(1, 10), (2, 20), (2, 21), (3, 30)] {
            forgotten.insert(attempt(number), Timestamp(placed_at), 3);
        }
        let at = |micros| Some(Timestamp(micros));
        assert_eq!(
            [1, 2, 3].map(|number| forgotten.get(attempt(number))),
            [at(10), at(21), at(30)]
        );
        forgotten.insert(attempt(4), Timestamp(40), 3);
        assert_eq!(
            [1, 2, 3, 4].map(|number| forgotten.get(attempt(number))),
            [None, at(21), at(30), at(40)]
        );
    }
}
