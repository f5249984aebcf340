//! Waiting for jobs, with a bar on terminals and a line now and then elsewhere.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rota_api::{Counts, ErrorCode, Job};
use rota_client::Client;

use crate::screen::{Screen, counts, grouped, short_span};
use crate::trouble::{Result, Trouble};

/// The first pause between two looks; it grows to [`LOOK_MAX`].
const LOOK_FIRST: Duration = Duration::from_millis(20);
/// The longest pause between two looks.
const LOOK_MAX: Duration = Duration::from_millis(250);
/// How often a line is printed where a bar can't move.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Pauses that grow: quick answers for quick work, few questions for long work.
pub(crate) struct Pace(Duration);

impl Pace {
    pub(crate) fn new() -> Self {
        Self(LOOK_FIRST)
    }

    /// Waits for the next look.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 5 / 4).min(LOOK_MAX);
    }
}

/// Shows how far some jobs are.
pub(crate) struct Progress {
    screen: Screen,
    bar: Option<ProgressBar>,
    began: Instant,
    line_at: Instant,
    first: Option<u64>,
}

impl Progress {
    /// A bar on terminals; nothing with `quiet`.
    pub(crate) fn new(screen: &Screen, visible: bool) -> Self {
        let style = ProgressStyle::with_template("{bar:24.cyan/dim} {pos}/{len} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = (visible && screen.live && !screen.quiet).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            bar.with_style(style.progress_chars("█▌░"))
        });
        let now = Instant::now();
        Self { screen: screen.clone(), bar, began: now, line_at: now + LINE_EVERY, first: None }
    }

    /// Shows these counts.
    pub(crate) fn show(&mut self, tasks: &Counts) {
        let first = *self.first.get_or_insert(tasks.over());
        let seconds = self.began.elapsed().as_secs_f64();
        let rate = (tasks.over() - first.min(tasks.over())) as f64 / seconds.max(0.001);
        let left = tasks.total() - tasks.over();
        let eta = match left {
            0 => String::new(),
            _ if rate > 0.0 && seconds > 0.5 => {
                format!(" · ETA {}", short_span((left as f64 / rate * 1e6) as u64))
            }
            _ => " · ETA -".to_owned(),
        };
        let message = format!("{} · {rate:.1}/s{eta}", counts(tasks));
        if let Some(bar) = &self.bar {
            bar.set_length(tasks.total());
            bar.set_position(tasks.over());
            bar.set_message(message);
        } else if Instant::now() >= self.line_at {
            self.line_at += LINE_EVERY;
            let share = format!("{}/{}", grouped(tasks.over()), grouped(tasks.total()));
            self.screen.remark(&format!("{share} tasks · {message}"));
        }
    }

    /// Runs `write` while the bar is out of the way.
    pub(crate) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Waits until all jobs are over, at most until `until`. Returns them in the order of `ids`.
pub(crate) async fn wait(
    client: &Client,
    ids: &[u64],
    progress: &mut Progress,
    until: Option<Instant>,
) -> Result<Vec<Job>> {
    let mut over: BTreeMap<u64, Job> = BTreeMap::new();
    let mut pace = Pace::new();
    let mut patience = Patience::new();
    loop {
        let mut tasks = Counts::default();
        for id in ids {
            if !over.contains_key(id) {
                let job = match client.job(*id, false).await {
                    Ok(job) => job,
                    Err(error) => {
                        patience.bear(error, &progress.screen)?;
                        continue;
                    }
                };
                patience.restore();
                add(&mut tasks, &job.counts);
                if job.state.is_over() {
                    over.insert(*id, job);
                }
                continue;
            }
            if let Some(job) = over.get(id) {
                add(&mut tasks, &job.counts);
            }
        }
        if patience.is_unbroken() {
            progress.show(&tasks);
        }
        if ids.iter().all(|id| over.contains_key(id)) {
            progress.finish();
            return Ok(ids.iter().filter_map(|id| over.get(id).cloned()).collect());
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            progress.finish();
            let left = ids.iter().filter(|id| !over.contains_key(id)).count();
            let message = format!("{left} of {} jobs are not over yet", ids.len());
            return Err(Trouble::new(ErrorCode::WaitTimeout, message));
        }
        pace.wait().await;
    }
}

/// How long somebody who waits goes on without an answer: servers restart, and jobs go on meanwhile.
const PATIENCE: Duration = Duration::from_secs(120);

/// Bears with servers that do not answer for a while.
pub(crate) struct Patience {
    silent_since: Option<Instant>,
}

impl Patience {
    pub(crate) fn new() -> Self {
        Self { silent_since: None }
    }

    /// Notes an answer.
    pub(crate) fn restore(&mut self) {
        self.silent_since = None;
    }

    fn is_unbroken(&self) -> bool {
        self.silent_since.is_none()
    }

    /// Notes that there was no answer. Says so once, and gives up after a while, or at once if asking again can't help.
    pub(crate) fn bear(&mut self, error: rota_client::Error, screen: &Screen) -> Result<()> {
        use rota_client::Error::{InvalidAnswer, Problem, Timeout, Unreachable};
        let may_pass = match &error {
            Unreachable { .. } | Timeout { .. } | InvalidAnswer { .. } => true,
            Problem(problem) => matches!(
                problem.error_code(),
                Some(ErrorCode::NoLeader | ErrorCode::Overloaded | ErrorCode::ShuttingDown)
            ),
            _ => false,
        };
        let now = Instant::now();
        let since = *self.silent_since.get_or_insert_with(|| {
            if may_pass {
                screen.remark(&format!("{error}; the job goes on, waiting for an answer"));
            }
            now
        });
        if may_pass && now.duration_since(since) < PATIENCE { Ok(()) } else { Err(error.into()) }
    }
}

/// Adds the tasks of another job.
pub(crate) fn add(sum: &mut Counts, more: &Counts) {
    sum.queued += more.queued;
    sum.waiting += more.waiting;
    sum.running += more.running;
    sum.succeeded += more.succeeded;
    sum.failed += more.failed;
    sum.cancelled += more.cancelled;
}
