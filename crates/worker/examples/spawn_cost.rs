//! What a task costs beyond its process: a bare loop that starts `/bin/true`, against a worker with a session over gRPC that is
//! told to run the same program as often, with the same number at a time.
//!
//! Run with `cargo run --release -p rota-worker --example spawn_cost -- [TASKS] [AT A TIME]`.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../tests/worker/fake.rs"]
mod fake;

const PROGRAM: &str = "/bin/true";

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse().expect("a number"));
    let tasks: usize = arguments.next().unwrap_or(4_000);
    let width: usize = arguments.next().unwrap_or(8);
    for _ in 0..3 {
        measure("bare", tasks, || bare(tasks, width, Stdio::null));
        measure("bare, output captured", tasks, || bare(tasks, width, Stdio::piped));
        let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
        measure("worker", tasks, || runtime.block_on(worker(tasks, width, false)));
        measure("worker, no-ops", tasks, || runtime.block_on(worker(tasks, 1_024, true)));
    }
}

/// Prints what one way costs: tasks per second, and cpu time per task with everything that was started. The latter does not depend
/// on what else the machine does.
fn measure(name: &str, tasks: usize, run: impl FnOnce() -> Duration) {
    let before = cpu_ticks();
    let elapsed = run();
    let ticks = cpu_ticks() - before;
    let rate = tasks as f64 / elapsed.as_secs_f64();
    let cpu_micros = ticks as f64 * 10_000.0 / tasks as f64;
    println!("{name:24} {rate:8.0} tasks/s {cpu_micros:6.0} us of cpu per task");
}

/// Hundredths of a second that this process and its children have used.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("this is Linux");
    let (_, fields) = stat.rsplit_once(')').expect("the name is in parentheses");
    let numbers = fields.split_ascii_whitespace().skip(11).take(4);
    numbers.map(|field| field.parse::<u64>().expect("a number")).sum()
}

/// Starts and waits, on `width` threads.
fn bare(tasks: usize, width: usize, output: fn() -> Stdio) -> Duration {
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..width {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < tasks {
                    let mut command = Command::new(PROGRAM);
                    command.stdin(Stdio::null()).stdout(output()).stderr(output());
                    let child = command.spawn().expect("it exists");
                    let ended = child.wait_with_output().expect("it is a child");
                    assert!(ended.status.success());
                }
            });
        }
    });
    began.elapsed()
}

/// Keeps `width` attempts desired until all have been reported.
async fn worker(tasks: usize, width: usize, noop: bool) -> Duration {
    use rota_wire::worker::{Desired, NoopAction, action};
    let (_server, worker, mut session) = fake::pair(|config| config.attempts_max = 1_024).await;
    let task = |job| match noop {
        true => fake::assignment(job, action::Kind::Noop(NoopAction {})),
        false => fake::command(job, &[PROGRAM]),
    };
    let began = Instant::now();
    let mut next = width.min(tasks) as u64;
    session.start((0..next).map(task).collect()).await;
    let mut done = 0;
    while done < tasks {
        let reports = session.reports.recv().await.expect("the session is open").ended;
        done += reports.len();
        let settled = reports.iter().filter_map(|report| report.attempt).collect();
        let more = (tasks as u64 - next).min(reports.len() as u64);
        let start = (next..next + more).map(task).collect();
        next += more;
        session.desire(Desired { start, settled, ..Desired::default() }).await;
    }
    let elapsed = began.elapsed();
    worker.shut_down(rota_worker::Shutdown::Stop).await.expect("a clean end");
    elapsed
}
