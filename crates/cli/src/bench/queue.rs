//! What many queued tasks cost: memory, a planning pass, a restart.

use std::time::{Duration, Instant};

use rota_api::QueueSettings;

use super::rig::{Rig, noop};
use super::{Figure, Shape, trouble};
use crate::trouble::Result;

/// Jobs in one request.
const BATCH: u32 = 1_000;

/// Queues `tasks` tasks that nothing runs, then kills the server with -9 and starts it again.
pub(crate) async fn measure(tasks: u32, shape: Shape) -> Result<Vec<Figure>> {
    let mut rig = Rig::start().await?;
    let empty = rig.server_memory();
    let begun = Instant::now();
    fill(&rig, tasks, shape).await?;
    let filled = begun.elapsed();
    let queued = queued(&rig).await?;
    let (full, peak) = (rig.server_memory(), rig.server_memory_peak());
    let restart = rig.restart_server().await?;
    let recovered = self::queued(&rig).await?;
    if queued != u64::from(tasks) || recovered != queued {
        return Err(trouble(
            "tasks are missing",
            format!("{tasks} sent, {queued} queued, {recovered} recovered"),
        ));
    }
    let after = rig.server_memory();
    let answer = answer_time(&rig).await?;
    Ok(vec![
        Figure::new("queued tasks", f64::from(tasks), ""),
        Figure::seconds("to submit them", filled),
        Figure::mebibytes("server memory, empty", empty),
        Figure::mebibytes("server memory, all queued", full),
        Figure::mebibytes("server memory, peak", peak),
        Figure::seconds("kill -9 to ready again", restart),
        Figure::mebibytes("server memory, after the restart", after),
        Figure::millis("a queue's settings, answered in", answer),
    ])
}

async fn fill(rig: &Rig, tasks: u32, shape: Shape) -> Result<()> {
    match shape {
        Shape::Array => {
            let key = rota_client::fresh_key();
            let sent = rig.client.submit(&noop(Some(tasks)), &key).await;
            sent.map(drop).map_err(|error| trouble("the job was not taken", error))
        }
        Shape::Separate => {
            let line =
                serde_json::to_string(&noop(None)).map_err(|error| trouble("no JSON", error))?;
            let mut left = tasks;
            while left > 0 {
                let count = left.min(BATCH);
                let lines = format!("{line}\n").repeat(count as usize).into_bytes();
                let sent = rig.client.submit_ndjson(lines, &rota_client::fresh_key()).await;
                sent.map_err(|error| trouble("jobs were not taken", error))?;
                left -= count;
            }
            Ok(())
        }
    }
}

async fn queued(rig: &Rig) -> Result<u64> {
    let queue = rig.client.queue("default").await.map_err(|error| trouble("no queue", error))?;
    Ok(queue.counts.queued)
}

/// A change that is committed and applied, in microseconds: it has to wait behind whatever the core thread does.
async fn answer_time(rig: &Rig) -> Result<u64> {
    let begun = Instant::now();
    let changes = 20;
    for _ in 0..changes {
        let settings = QueueSettings::default();
        let done = rig.client.configure_queue("default", &settings).await;
        done.map_err(|error| trouble("the queue was not changed", error))?;
    }
    let each: Duration = begun.elapsed() / changes;
    Ok(u64::try_from(each.as_micros()).unwrap_or(u64::MAX))
}
