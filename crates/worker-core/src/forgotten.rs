//! The attempts that were settled last.

use alloc::collections::{BTreeSet, VecDeque};

use rota_types::AttemptId;

/// Remembers a bounded number of settled attempts, so that a late set that still names one does not launch it again.
#[derive(Debug, Default)]
pub(crate) struct Forgotten {
    known: BTreeSet<AttemptId>,
    order: VecDeque<AttemptId>,
}

impl Forgotten {
    /// Remembers `attempt`, and drops the oldest one beyond `max`.
    pub(crate) fn insert(&mut self, attempt: AttemptId, max: usize) {
        if self.known.insert(attempt) {
            self.order.push_back(attempt);
        }
        while self.order.len() > max {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    /// Whether `attempt` is remembered.
    pub(crate) fn contains(&self, attempt: AttemptId) -> bool {
        self.known.contains(&attempt)
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
        for number in [1, 2, 2, 3] {
            forgotten.insert(attempt(number), 3);
        }
        assert_eq!([1, 2, 3].map(|number| forgotten.contains(attempt(number))), [true; 3]);
        forgotten.insert(attempt(4), 3);
        assert_eq!(
            [1, 2, 3, 4].map(|number| forgotten.contains(attempt(number))),
            [false, true, true, true]
        );
    }
}
