//! From submit to start, under a steady load.

use std::time::Duration;

use hdrhistogram::Histogram;
use rota_types::Timestamp;
use tokio::time::{Instant, MissedTickBehavior};

use super::rig::{Rig, bin_true};
use super::{Figure, trouble};
use crate::trouble::Result;

/// Attempts that run at a time: more than the load needs, so that nothing waits for room.
const ATTEMPTS: u32 = 64;

/// Submits `rate` jobs of `/bin/true` per second for `seconds`, whether or not earlier ones have been answered, and compares
/// the instant before each submit with the start that the worker recorded: one machine, one clock.
pub(crate) async fn measure(rate: u32, seconds: u32) -> Result<Vec<Figure>> {
    let mut rig = Rig::start().await?;
    rig.add_worker(ATTEMPTS).await?;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut submits = Vec::new();
    let begun = Instant::now();
    for _ in 0..rate * seconds {
        ticks.tick().await;
        let client = rig.client.clone();
        submits.push(tokio::spawn(async move {
            let (at, begun) = (wall_clock(), Instant::now());
            let reply = client.submit(&bin_true(None), &rota_client::fresh_key()).await;
            reply.map(|reply| (at, begun.elapsed(), reply))
        }));
    }
    let offered = begun.elapsed();
    let mut acknowledged = histogram()?;
    let mut jobs = Vec::new();
    for submit in submits {
        let (at, took, reply) = submit
            .await
            .map_err(|error| trouble("a sender broke", error))?
            .map_err(|error| trouble("a submit was not taken", error))?;
        acknowledged.saturating_record(micros(took));
        jobs.extend(reply.jobs.iter().map(|job| (job.id, at)));
    }
    rig.wait_until_idle().await?;
    let mut started = histogram()?;
    for (job, at) in &jobs {
        started.saturating_record(start_of(&rig, *job, *at).await?);
    }
    Ok(vec![
        Figure::new("submits", jobs.len() as f64, ""),
        Figure::new("submits per second", jobs.len() as f64 / offered.as_secs_f64(), "/s"),
        Figure::millis("submit to acknowledgement, p50", acknowledged.value_at_quantile(0.5)),
        Figure::millis("submit to acknowledgement, p99", acknowledged.value_at_quantile(0.99)),
        Figure::millis("submit to start, p50", started.value_at_quantile(0.5)),
        Figure::millis("submit to start, p99", started.value_at_quantile(0.99)),
        Figure::millis("submit to start, max", started.max()),
    ])
}

async fn start_of(rig: &Rig, job: u64, submitted: Timestamp) -> Result<u64> {
    let task = rig
        .client
        .task(&format!("{job}.0"))
        .await
        .map_err(|error| trouble("a task is not in the record", error))?;
    // The start that the worker saw, not the moment at which the task was placed.
    let started = task.attempts.last().and_then(|attempt| attempt.started_at);
    let started = started.ok_or_else(|| trouble("a task never started", job))?;
    Ok(started.0.since(submitted).micros())
}

/// The longest time that is told apart: ten minutes.
pub(super) const MICROS_MAX: u64 = 600_000_000;

pub(super) fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, MICROS_MAX, 3).map_err(|error| trouble("no histogram", error))
}

fn wall_clock() -> Timestamp {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Timestamp(micros(since))
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
