//! The history of finished work, for handlers: reads wait for the disk on threads that may.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Weak;
use std::time::{Duration, Instant};

use rota_core::event::AttemptRecord;
use rota_core::job::FinishedJob;
use rota_store::StoreError;
use rota_store::history::{self, Audited, JobFilter, Page, Retention};
use rota_types::{JobId, LogIndex, TaskId, Timestamp};
use rota_wire::history::TasksCancelled;
use tokio::sync::watch;
use tracing::warn;

/// How long reads that are under way may hold up a shutdown.
const CLOSE_MAX: Duration = Duration::from_secs(5);
/// How often what is too old is removed.
const PRUNE_EVERY: Duration = Duration::from_secs(300);
/// Rows that are removed at a time, so that writers get their turn.
const PRUNE_ROWS: usize = 2_000;

/// Tasks that lie this close together are read at once, with what lies between them.
const CLOSE: u32 = 1_000;

/// Cancels of one job whose reasons are looked at.
const CANCELLED_MAX: usize = 1_000;

/// How much faster than time the clock may go, that decides what is old: a clock that jumps ahead must not empty the history before
/// anybody can set it right, and a server that was off for a month has caught up after two and a half days.
const CATCH_UP: u64 = 12;

/// The time as far as removing is concerned.
struct Believed {
    now: Timestamp,
    at: Instant,
}

impl Believed {
    fn look(&mut self, wall: Timestamp, at: Instant) -> Timestamp {
        let passed = at.saturating_duration_since(self.at);
        let passed = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
        let most = self.now.0.saturating_add(passed.saturating_mul(CATCH_UP));
        *self = Self { now: Timestamp(wall.0.min(most)), at };
        self.now
    }
}

/// Reads finished work. Does not keep the files open: connections may outlive the core thread, which owns them.
#[derive(Clone)]
pub(crate) struct History(pub(crate) Weak<history::History>);

/// The history could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct HistoryError(String);

impl From<HistoryError> for crate::rest::problem::Refused {
    fn from(error: HistoryError) -> Self {
        crate::rest::problem::internal("reading the history", error)
    }
}

impl History {
    /// Waits until nobody has the files open any more, for a few seconds at most.
    pub(crate) async fn closed(&self) {
        let deadline = tokio::time::Instant::now() + CLOSE_MAX;
        while self.0.strong_count() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// A finished job.
    pub(crate) async fn job(&self, id: JobId) -> Result<Option<FinishedJob>, HistoryError> {
        self.read(move |history| history.job(id)).await
    }

    /// Finished jobs below `before`, newest first. A page may be short and not be the last.
    pub(crate) async fn jobs(
        &self,
        filter: JobFilter,
        before: JobId,
        limit: usize,
    ) -> Result<Page<FinishedJob, JobId>, HistoryError> {
        self.read(move |history| history.jobs(&filter, Some(before), limit)).await
    }

    /// Ended attempts of a task.
    pub(crate) async fn attempts(&self, task: TaskId) -> Result<Vec<AttemptRecord>, HistoryError> {
        self.read(move |history| history.attempts(task)).await
    }

    /// The last ended attempt of each of these tasks of a job. What lies between them is passed over.
    pub(crate) async fn last_attempts(
        &self,
        job: JobId,
        wanted: BTreeSet<u32>,
    ) -> Result<BTreeMap<u32, AttemptRecord>, HistoryError> {
        self.read(move |history| {
            let mut last = BTreeMap::new();
            let mut next = wanted.first().copied();
            while let Some(index) = next {
                // Those that lie close together are read at once.
                let close = wanted.range(index..index.saturating_add(CLOSE)).count().max(1);
                let page = history.attempts_of_job(job, index, close)?;
                for record in page.items {
                    let index = record.attempt.task.index;
                    if wanted.contains(&index) {
                        last.insert(index, record);
                    }
                }
                next = page.next.and_then(|reached| wanted.range(reached..).next().copied());
            }
            Ok(last)
        })
        .await
    }

    /// Why tasks of a job were cancelled before they had an attempt, the first few times.
    pub(crate) async fn cancelled(&self, job: JobId) -> Result<Vec<TasksCancelled>, HistoryError> {
        self.read(move |history| history.cancelled(job, CANCELLED_MAX)).await
    }

    /// Requests that changed something, the newest first.
    pub(crate) async fn audit(
        &self,
        before: Option<(LogIndex, u32)>,
        limit: usize,
    ) -> Result<Vec<Audited>, HistoryError> {
        self.read(move |history| history.audit(before, limit)).await
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&history::History) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, HistoryError> {
        let Some(history) = self.0.upgrade() else {
            return Err(HistoryError("the server is shutting down".to_owned()));
        };
        match tokio::task::spawn_blocking(move || read(&history)).await {
            Ok(result) => result.map_err(|error| HistoryError(error.to_string())),
            Err(error) => Err(HistoryError(error.to_string())),
        }
    }

    /// Removes what is too old, now and then, until `stop`.
    ///
    /// `last` is what the clock said when the last entry was recorded: the clock of a machine may be wrong, and jump.
    pub(crate) async fn prune(
        self,
        retention: Retention,
        last: Timestamp,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut believed = Believed { now: last, at: Instant::now() };
        loop {
            let now = believed.look(crate::clock::wall(), Instant::now());
            let more = self.read(move |history| history.prune(&retention, now, PRUNE_ROWS)).await;
            let pause = match more {
                Ok(true) => Duration::from_millis(50),
                Ok(false) => PRUNE_EVERY,
                Err(error) => {
                    warn!(%error, "cannot remove old history");
                    PRUNE_EVERY
                }
            };
            if tokio::time::timeout(pause, crate::stopped(&mut stop)).await.is_ok() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_ahead_is_not_believed_at_once_and_one_that_is_set_right_is() {
        let begin = Instant::now();
        let mut believed = Believed { now: Timestamp(1_000_000), at: begin };
        let mut look =
            |wall, seconds| believed.look(Timestamp(wall), begin + Duration::from_secs(seconds)).0;
        assert_eq!(look(1_500_000, 1), 1_500_000);
        assert_eq!(look(900_000_000, 2), 13_500_000);
        assert_eq!(look(900_000_000, 2), 13_500_000);
        assert_eq!(look(3_000_000, 3), 3_000_000);
    }
}
