//! What the simulated processes really did. The oracle judges records by it; no machine under test can see it.

use std::collections::{BTreeMap, BTreeSet};

use rota_core::command::FailureKind;
use rota_types::{AttemptId, TaskId};

/// Every process that was ever started.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    runs: BTreeMap<AttemptId, Run>,
    active: BTreeMap<TaskId, BTreeSet<AttemptId>>,
}

/// One process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Which worker started it.
    pub(crate) worker: usize,
    /// When.
    pub(crate) started: u64,
    /// How it ended, if it has.
    pub(crate) end: Option<End>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself, well.
    Succeeded,
    /// By itself, badly; or it could not be started, or it ran too long.
    Failed(FailureKind),
    /// Its worker stopped it.
    Stopped,
    /// Its worker died.
    Orphaned,
}

impl Truth {
    /// Notes that a process starts. Returns the other processes of the task that still run.
    ///
    /// # Errors
    /// If the attempt was started before.
    pub(crate) fn start(
        &mut self,
        attempt: AttemptId,
        worker: usize,
        now: u64,
    ) -> Result<Vec<Run>, String> {
        let run = Run { worker, started: now, end: None };
        if let Some(earlier) = self.runs.insert(attempt, run) {
            return Err(format!("attempt {attempt} was started twice; first {earlier:?}"));
        }
        let active = self.active.entry(attempt.task).or_default();
        let others = active.iter().filter_map(|other| self.runs.get(other).copied()).collect();
        active.insert(attempt);
        Ok(others)
    }

    /// Notes that a process is over.
    pub(crate) fn end(&mut self, attempt: AttemptId, how: End) {
        if let Some(run) = self.runs.get_mut(&attempt) {
            run.end.get_or_insert(how);
        }
        if let Some(active) = self.active.get_mut(&attempt.task) {
            active.remove(&attempt);
            if active.is_empty() {
                self.active.remove(&attempt.task);
            }
        }
    }

    /// The process of an attempt, if it was ever started.
    #[must_use]
    pub(crate) fn run(&self, attempt: AttemptId) -> Option<Run> {
        self.runs.get(&attempt).copied()
    }

    /// Whether the process of an attempt runs.
    pub(crate) fn is_running(&self, attempt: AttemptId) -> bool {
        self.active.get(&attempt.task).is_some_and(|active| active.contains(&attempt))
    }

    /// How many processes run now.
    #[must_use]
    pub(crate) fn running(&self) -> usize {
        self.active.values().map(BTreeSet::len).sum()
    }

    /// How many processes were ever started.
    #[must_use]
    pub(crate) fn started(&self) -> usize {
        self.runs.len()
    }
}
