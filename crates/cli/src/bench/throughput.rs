//! Durable no-op tasks per second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use super::rig::{Rig, noop};
use super::{Figure, trouble};
use crate::trouble::Result;

/// How many attempts the worker takes at a time.
const ATTEMPTS: u32 = 8_192;

/// One array job, from the submit until its last task is recorded.
pub(crate) async fn array(tasks: u32) -> Result<Vec<Figure>> {
    let mut rig = Rig::start().await?;
    rig.add_worker(ATTEMPTS).await?;
    let (server_before, worker_before) = rig.cpu();
    let begun = Instant::now();
    let reply = rig
        .client
        .submit(&noop(Some(tasks)), &rota_client::fresh_key())
        .await
        .map_err(|error| trouble("the job was not taken", error))?;
    rig.wait_until_idle().await?;
    let elapsed = begun.elapsed();
    let (server, worker) = rig.cpu();
    for job in reply.jobs {
        rig.expect_success(job.id).await?;
    }
    let per_task = |cpu: std::time::Duration| cpu.as_secs_f64() * 1e6 / f64::from(tasks);
    Ok(vec![
        Figure::new("tasks", f64::from(tasks), ""),
        Figure::seconds("submit to last result recorded", elapsed),
        Figure::new("tasks per second", f64::from(tasks) / elapsed.as_secs_f64(), "/s"),
        Figure::new("server cpu per task", per_task(server - server_before), "µs"),
        Figure::new("worker cpu per task", per_task(worker - worker_before), "µs"),
        Figure::mebibytes("server memory, peak", rig.server_memory_peak()),
    ])
}

/// Separate jobs, from the first submit until the last task is recorded.
pub(crate) async fn submit(jobs: u32, connections: u32, batch: u32) -> Result<Vec<Figure>> {
    let mut rig = Rig::start().await?;
    rig.add_worker(ATTEMPTS).await?;
    let batch = batch.max(1);
    let requests = jobs.div_ceil(batch);
    let (server_before, worker_before) = rig.cpu();
    let begun = Instant::now();
    let next = Arc::new(AtomicU32::new(0));
    let senders: Vec<_> = (0..connections)
        .map(|_| {
            let (client, next) = (rig.client.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                while next.fetch_add(1, Ordering::Relaxed) < requests {
                    send(&client, batch).await?;
                }
                Ok(())
            })
        })
        .collect();
    for sender in senders {
        let sent: Result<()> = sender.await.map_err(|error| trouble("a sender broke", error))?;
        sent?;
    }
    let acknowledged = begun.elapsed();
    rig.wait_until_idle().await?;
    let elapsed = begun.elapsed();
    let (server, worker) = rig.cpu();
    let sent = f64::from(requests * batch);
    let per_task = |cpu: std::time::Duration| cpu.as_secs_f64() * 1e6 / sent;
    Ok(vec![
        Figure::new("jobs", sent, ""),
        Figure::new("jobs per request", f64::from(batch), ""),
        Figure::seconds("first submit to last acknowledgement", acknowledged),
        Figure::new("submits acknowledged per second", sent / acknowledged.as_secs_f64(), "/s"),
        Figure::seconds("first submit to last result recorded", elapsed),
        Figure::new("jobs completed per second", sent / elapsed.as_secs_f64(), "/s"),
        Figure::new("server cpu per job", per_task(server - server_before), "µs"),
        Figure::new("worker cpu per job", per_task(worker - worker_before), "µs"),
    ])
}

async fn send(client: &rota_client::Client, batch: u32) -> Result<()> {
    let key = rota_client::fresh_key();
    let sent = if batch == 1 {
        client.submit(&noop(None), &key).await
    } else {
        let line = serde_json::to_string(&noop(None)).map_err(|error| trouble("no JSON", error))?;
        let lines = format!("{line}\n").repeat(batch as usize);
        client.submit_ndjson(lines.into_bytes(), &key).await
    };
    sent.map(drop).map_err(|error| trouble("a submit was not taken", error))
}
