//! `/bin/true` under rota, against a loop that only spawns and waits.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::rig::{Rig, bin_true};
use super::{Figure, trouble};
use crate::trouble::Result;

/// Runs `tasks` processes, `concurrency` at a time, both ways.
pub(crate) async fn measure(tasks: u32, concurrency: u32) -> Result<Vec<Figure>> {
    // Bare, rota, bare: the machine may change its mind in between.
    let before = bare(tasks, concurrency)?;
    let (rota, server, worker) = under_rota(tasks, concurrency).await?;
    let after = bare(tasks, concurrency)?;
    let bare = (before + after) / 2;
    let rate = |elapsed: Duration| f64::from(tasks) / elapsed.as_secs_f64();
    Ok(vec![
        Figure::new("processes", f64::from(tasks), ""),
        Figure::new("at a time", f64::from(concurrency), ""),
        Figure::new("bare spawn loop, before", rate(before), "/s"),
        Figure::new("bare spawn loop, after", rate(after), "/s"),
        Figure::new("rota, submit to last result recorded", rate(rota), "/s"),
        Figure::new("rota of bare", 100.0 * bare.as_secs_f64() / rota.as_secs_f64(), "%"),
        Figure::new("server cpu per process", server.as_secs_f64() * 1e6 / f64::from(tasks), "µs"),
        Figure::new("worker cpu per process", worker.as_secs_f64() * 1e6 / f64::from(tasks), "µs"),
    ])
}

fn bare(tasks: u32, concurrency: u32) -> Result<Duration> {
    let next = AtomicU32::new(0);
    let begun = Instant::now();
    let broken = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..concurrency)
            .map(|_| {
                scope.spawn(|| {
                    while next.fetch_add(1, Ordering::Relaxed) < tasks {
                        Command::new("/bin/true").status()?;
                    }
                    Ok::<(), std::io::Error>(())
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()?.err()).next()
    });
    match broken {
        Some(error) => Err(trouble("cannot run /bin/true", error)),
        None => Ok(begun.elapsed()),
    }
}

/// How long it took, and the cpu time of server and worker, their children not counted.
async fn under_rota(tasks: u32, concurrency: u32) -> Result<(Duration, Duration, Duration)> {
    let mut rig = Rig::start().await?;
    rig.add_worker(concurrency).await?;
    let (server_before, worker_before) = rig.cpu();
    let begun = Instant::now();
    let reply = rig
        .client
        .submit(&bin_true(Some(tasks)), &rota_client::fresh_key())
        .await
        .map_err(|error| trouble("the job was not taken", error))?;
    rig.wait_until_idle().await?;
    let elapsed = begun.elapsed();
    let (server, worker) = rig.cpu();
    for job in reply.jobs {
        rig.expect_success(job.id).await?;
    }
    Ok((elapsed, server - server_before, worker - worker_before))
}
