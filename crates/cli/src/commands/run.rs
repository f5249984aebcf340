//! `rota run`: runs a command or a job file to completion, with a server inside this process if none is configured.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt;
use rota_api::{
    CancelRequest, Counts, ErrorCode, FailureKind, Job, JobFile, JobState, QueueSettings, Stream,
    Submitted, Task, TaskQuery, TaskState, Validated, exit,
};
use rota_client::{Client, fresh_key};
use rota_worker::Shutdown;

use super::{App, logs, submit};
use crate::embedded::{Local, LocalConfig, NotStarted, WHOLE_BYTES};
use crate::follow::{self, Pace, Progress};
use crate::job_args::{Asked, JobArgs};
use crate::output::READER_GONE;
use crate::screen::{clean, counts, grouped};
use crate::show::failure;
use crate::trouble::{Result, Trouble};

/// Where a server inside this process keeps its data unless told otherwise.
const DATA: &str = ".rota";
/// Tasks whose output is fetched ahead.
const AHEAD: usize = 8;
/// Failed tasks of a job that are shown.
const FAILED_SHOWN: u32 = 3;
/// Kinds of single tasks whose output is printed after a job file has run.
const RESULTS_SHOWN: usize = 20;

/// `rota run`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota run -- make test                              output and exit code are the command's
  ls *.png | rota run --each-line - -- convert {} {}.jpg    one task per line, like xargs
  rota run --array 1-1000 -j 8 -- ./frame.sh {index}  one task per number
  rota run --retries 3 --timeout 1m -- curl -fsS example.org
  rota run examples/quickstart.toml                  a job file, with progress and a summary

Without a configured server, run starts one with a worker inside this process and keeps its data in
./.rota. With --server, ROTA_SERVER or a context it uses that one.")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    job: JobArgs,
    /// Where the server inside this process keeps its data
    #[arg(long, value_name = "DIR", default_value = DATA)]
    data: PathBuf,
    /// Only check the job; nothing is run, and no server started
    #[arg(long)]
    dry_run: bool,
}

/// Runs what the arguments describe. Returns the exit code it calls for.
pub(crate) async fn run(app: &App, args: RunArgs) -> Result<u8> {
    let embedded = !app.config.has_server();
    let here = std::env::current_dir().ok().filter(|_| embedded || app.server_is_here());
    let asked = args.job.jobs(here.as_deref()).map_err(own)?;
    let key = args.job.idempotency_key.clone().unwrap_or_else(fresh_key);
    if args.dry_run {
        return if embedded {
            check_here(app, asked.jobs)
        } else {
            check_there(app, &asked.jobs).await
        }
        .map_err(own);
    }
    if !embedded {
        let client = app.client().map_err(own)?;
        return carry_out(app, &client, asked, &key, false).await.map_err(own);
    }
    let (local, temporary) = start(app, &args).await.map_err(own)?;
    let result = carry_out(app, &local.client, asked, &key, true).await.map_err(own);
    tokio::select! {
        () = local.stop(Shutdown::Stop) => {}
        // Whoever insists: what still runs is killed when this process is gone.
        () = interrupt() => std::process::exit(i32::from(exit::INTERRUPTED)),
    }
    drop(temporary);
    result
}

async fn check_there(app: &App, jobs: &[JobFile]) -> Result<u8> {
    submit::check(app, &app.client()?, jobs).await
}

/// Checks jobs as far as that is possible without a server.
fn check_here(app: &App, jobs: Vec<JobFile>) -> Result<u8> {
    for job in jobs {
        let tasks = rota_api::tasks_of(&job);
        let checked = Validated { job: job.clone(), tasks, warnings: Vec::new() };
        rota_api::into_spec(job, "check").map_err(Trouble::mistakes)?;
        app.out.answer(&checked, "", &submit::valid(tasks))?;
    }
    Ok(exit::OK)
}

/// Exit codes below 125 belong to the task, so that trouble of rota's own has another one.
fn own(trouble: Trouble) -> Trouble {
    let keep = matches!(trouble.code, ErrorCode::Interrupted);
    Trouble { exit: if keep { trouble.exit } else { Some(exit::TROUBLE) }, ..trouble }
}

/// Starts a server and a worker in this process; in a temporary directory if another process uses the usual one.
async fn start(app: &App, args: &RunArgs) -> Result<(Local, Option<TemporaryDir>)> {
    let mut config = LocalConfig {
        data: args.data.clone(),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        workers: 1,
        capacity: None,
        // Whatever was printed by then is shown before it could go.
        kept_bytes: WHOLE_BYTES,
    };
    let reason = match Local::start(&config).await {
        Ok(local) => return Ok((local, None)),
        Err(NotStarted::Data(trouble)) if args.data == Path::new(DATA) => trouble.message,
        Err(error) => return Err(error.trouble()),
    };
    let dir = TemporaryDir::make()?;
    config.data.clone_from(&dir.0);
    app.screen()
        .remark(&format!("note: {reason}; this run keeps its record in a temporary directory"));
    Ok((Local::start(&config).await.map_err(NotStarted::trouble)?, Some(dir)))
}

/// A directory that is removed when it is not needed any more.
struct TemporaryDir(PathBuf);

impl TemporaryDir {
    fn make() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("rota-{}", fresh_key()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| Trouble::file(&path, &error))?;
        Ok(Self(path))
    }
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        // What can't be removed is left to the system's own cleaning.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Submits the jobs and sees them through, or stops at Ctrl-C.
async fn carry_out(
    app: &App,
    client: &Client,
    asked: Asked,
    key: &str,
    embedded: bool,
) -> Result<u8> {
    if embedded && asked.from_file {
        create_queues(app, client, &asked.jobs).await?;
    }
    let reply = match asked.jobs.as_slice() {
        [job] => client.submit(job, key).await?,
        _ => client.submit_all(asked.jobs.clone(), key).await?,
    };
    let ids: Vec<u64> = reply.jobs.iter().map(|job| job.id).collect();
    let see_through = async {
        match ids.as_slice() {
            [id] if asked.single => single(app, client, *id).await,
            [id] if !asked.from_file => several(app, client, *id).await,
            _ => file(app, client, &reply.jobs).await,
        }
    };
    tokio::pin!(see_through);
    let result = tokio::select! {
        result = &mut see_through => result,
        () = interrupt() => {
            if embedded {
                cancel(client, &ids).await;
                stopping(client, &ids, &mut see_through).await;
                return Err(stopped());
            }
            let names: Vec<String> = ids.iter().map(u64::to_string).collect();
            let hint = format!("the job goes on; stop it with: rota job cancel {}", names.join(","));
            return Err(Trouble::new(ErrorCode::Interrupted, "interrupted").hint(hint));
        }
    };
    if embedded && matches!(&result, Err(trouble) if trouble.exit == Some(READER_GONE)) {
        cancel(client, &ids).await;
        let mut progress = Progress::new(app.screen(), false);
        let over = follow::wait(client, &ids, &mut progress, None);
        tokio::time::timeout(STOP_MAX, over).await.ok();
    }
    result
}

/// How long the tasks of an interrupted run may take to stop.
const STOP_MAX: Duration = Duration::from_secs(12);
/// How long they may take once they are killed.
const KILL_MAX: Duration = Duration::from_secs(2);

fn stopped() -> Trouble {
    let hint = "what it had started was stopped";
    Trouble::new(ErrorCode::Interrupted, "interrupted").hint(hint)
}

/// Waits for Ctrl-C, a request to terminate, or the end of the terminal.
pub(crate) async fn interrupt() {
    use tokio::signal::unix::{SignalKind, signal};
    let (terminate, hangup) = (signal(SignalKind::terminate()), signal(SignalKind::hangup()));
    let (Ok(mut terminate), Ok(mut hangup)) = (terminate, hangup) else {
        tokio::signal::ctrl_c().await.ok();
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

/// Cancels what an interrupted run has left in its own server.
async fn cancel(client: &Client, ids: &[u64]) {
    let reason = Some("interrupted".to_owned());
    let request = CancelRequest { reason, ..CancelRequest::default() };
    for id in ids {
        // A job that is over already can't be cancelled, which is as good.
        client.cancel(*id, &request).await.ok();
    }
}

/// Goes on printing while tasks stop. The second Ctrl-C kills them.
async fn stopping(
    client: &Client,
    ids: &[u64],
    see_through: &mut (impl Future<Output = Result<u8>> + Unpin),
) {
    tokio::select! {
        _ = &mut *see_through => return,
        () = tokio::time::sleep(STOP_MAX) => {}
        () = interrupt() => {}
    }
    let request = CancelRequest {
        grace: Some(rota_api::Duration(rota_types::Span::ZERO)),
        ..CancelRequest::default()
    };
    for id in ids {
        client.cancel(*id, &request).await.ok();
    }
    tokio::select! {
        _ = see_through => {}
        () = tokio::time::sleep(KILL_MAX) => {}
        () = interrupt() => {}
    }
}

/// Creates the queues that the jobs name and that don't exist: only a server that belongs to this run is changed like this.
async fn create_queues(app: &App, client: &Client, jobs: &[JobFile]) -> Result<()> {
    let names: std::collections::BTreeSet<&str> =
        jobs.iter().map(|job| job.job.queue.as_str()).collect();
    for name in names {
        match client.create_queue(name, &QueueSettings::default()).await {
            Ok(_) => app.screen().remark(&format!("note: created the queue {}", clean(name))),
            Err(error) if error.is(ErrorCode::QueueExists) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Runs one command as if there were nothing in between.
async fn single(app: &App, client: &Client, job: u64) -> Result<u8> {
    let streams = vec![Stream::Stdout, Stream::Stderr];
    let style = logs::Style { streams, tail: None, prefix: false, safe: Vec::new() };
    let task = logs::follow_task(client, &format!("{job}.0"), &style).await?;
    let failure = match (task.state, task.failure) {
        (TaskState::Succeeded, _) => return Ok(exit::OK),
        (TaskState::Failed, Some(failure)) => failure,
        (_, _) => {
            return Err(Trouble::new(
                ErrorCode::JobFailed,
                format!("task {} was cancelled", task.id),
            ));
        }
    };
    if matches!(failure.kind, FailureKind::Exit | FailureKind::Signal)
        && !failure.message.is_empty()
    {
        // Not its own doing: it used too much memory.
        app.screen().remark(&clean(&failure.to_string()));
    }
    let code = u8::try_from(failure.code.unwrap_or(1)).unwrap_or(exit::FAILED);
    match failure.kind {
        FailureKind::Exit => Ok(code),
        // As a shell has it.
        FailureKind::Signal => Ok(code.saturating_add(128)),
        FailureKind::Start | FailureKind::Timeout | FailureKind::Http | FailureKind::Lost => {
            Err(Trouble::new(ErrorCode::JobFailed, failure.to_string()).hint(""))
        }
    }
}

/// Runs many tasks of one command: their output in their order, progress on the side.
async fn several(app: &App, client: &Client, job: u64) -> Result<u8> {
    let streams = vec![Stream::Stdout, Stream::Stderr];
    let style = logs::Style { streams, tail: None, prefix: false, safe: app.screen().terminals() };
    let mut progress = Progress::new(app.screen(), true);
    let mut window = logs::Window::new(job);
    let (mut pace, mut more) = (Pace::new(), true);
    loop {
        let now = client.job(job, false).await?;
        progress.show(&now.counts);
        let mut ready = Vec::new();
        if more {
            (ready, more) = window.next(client, true).await?;
        }
        let tasks = ready.iter().filter(|task| task.attempt > 0);
        let mut outputs = futures_util::stream::iter(tasks)
            .map(|task| logs::output(client, task, &style))
            .buffered(AHEAD);
        while let Some(output) = outputs.next().await {
            let output = output?;
            progress.aside(|| output.write())?;
        }
        if now.state.is_over() && !more {
            progress.finish();
            return several_ended(app, client, &now).await;
        }
        if ready.is_empty() {
            pace.wait().await;
        }
    }
}

async fn several_ended(app: &App, client: &Client, job: &Job) -> Result<u8> {
    if job.state == JobState::Succeeded {
        return Ok(exit::OK);
    }
    let failed = failed_tasks(client, job.id).await?;
    for task in &failed {
        let why = task
            .failure
            .as_ref()
            .map_or("cancelled".to_owned(), |failure| clean(&failure.to_string()));
        let what =
            task.entry.as_deref().map_or(String::new(), |entry| format!(" ({})", clean(entry)));
        app.screen().remark(&format!("task {}{what}: {why}", task.id));
    }
    let rest = job.counts.failed.saturating_sub(failed.len() as u64);
    if rest > 0 {
        app.screen().remark(&format!("… and {} more", grouped(rest)));
    }
    Ok(exit::FAILED)
}

async fn failed_tasks(client: &Client, job: u64) -> Result<Vec<Task>> {
    let state = Some("failed".to_owned());
    let query = TaskQuery { state, limit: Some(FAILED_SHOWN), ..TaskQuery::default() };
    Ok(client.tasks(job, &query).await?.items)
}

/// Runs the jobs of a file: a bar while they run, then what became of each, and what single tasks wrote.
async fn file(app: &App, client: &Client, submitted: &[Submitted]) -> Result<u8> {
    for job in submitted {
        app.screen().remark(&submit::line(job));
    }
    let ids: Vec<u64> = submitted.iter().map(|job| job.id).collect();
    let mut progress = Progress::new(app.screen(), true);
    let jobs = follow::wait(client, &ids, &mut progress, None).await?;
    let mut tasks = Counts::default();
    for job in &jobs {
        follow::add(&mut tasks, &job.counts);
    }
    app.out.page(&rota_api::Page { items: jobs.clone(), ..rota_api::Page::default() })?;
    if app.out.is_for_people() {
        for job in &jobs {
            results(app, client, job).await?;
        }
        for job in jobs.iter().filter(|job| job.state == JobState::Failed) {
            show_failures(app, client, job).await?;
        }
        let first = jobs.iter().filter_map(|job| job.started_at).min();
        let last = jobs.iter().filter_map(|job| job.finished_at).max();
        let took = app.screen().took(first, last);
        app.screen().remark(&format!(
            "{} tasks in {took}: {}",
            grouped(tasks.total()),
            counts(&tasks)
        ));
    }
    Ok(super::job::finish(&jobs))
}

/// Prints what the single tasks of a job wrote: arrays work, single tasks report.
async fn results(app: &App, client: &Client, job: &Job) -> Result<()> {
    let shown = client.job(job.id, false).await?;
    let streams = vec![Stream::Stdout];
    let style = logs::Style { streams, tail: None, prefix: false, safe: app.screen().terminals() };
    let single =
        shown.groups.iter().filter(|group| group.tasks == 1 && group.counts.succeeded == 1);
    for group in single.take(RESULTS_SHOWN) {
        let task = client.task(&format!("{}.{}", job.id, group.first)).await?;
        logs::output(client, &task, &style).await?.write()?;
    }
    Ok(())
}

async fn show_failures(app: &App, client: &Client, job: &Job) -> Result<()> {
    for task in failed_tasks(client, job.id).await? {
        let task = client.task(&task.id).await?;
        if let Some(attempt) = task.attempts.last() {
            app.screen().remark(&failure(attempt, app.screen()));
        }
    }
    Ok(())
}
