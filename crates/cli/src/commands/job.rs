//! `rota job`: jobs, as a list, one by one, and what can be done with them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use rota_api::{
    CancelReply, CancelRequest, ErrorCode, EventQuery, Job, JobQuery, JobState, RetryRequest,
    TaskQuery, exit,
};
use rota_client::{Client, fresh_key};
use rota_types::Span;
use serde::Serialize;

use super::{App, event, gather, logs, submit, task};
use crate::complete;
use crate::follow::{self, Progress};
use crate::job_args::read_job_files;
use crate::screen::{clean, counts, several};
use crate::select;
use crate::trouble::{Result, Trouble};
use crate::watch::{Frame, Watch};

/// `rota job`
#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// List jobs, newest first
    Ls(LsArgs),
    /// Show jobs
    Show(ShowArgs),
    /// Wait until jobs are over, and exit with their status
    Wait(WaitArgs),
    /// Print the output of a job
    Logs(logs::LogsArgs),
    /// End jobs gently: stop what runs, drop what waits
    Cancel(CancelArgs),
    /// End jobs at once
    Kill(KillArgs),
    /// Run the tasks of a finished job that failed again, as a new job
    Retry(RetryArgs),
    /// Write a commented job file
    Init(InitArgs),
    /// Check job files without submitting them
    Lint(LintArgs),
    /// Submit a command or a job file
    Submit(Box<submit::SubmitArgs>),
}

/// `rota job ls`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota job ls
  rota job ls --state failed,cancelled --queue nightly
  rota job ls -l team=render -o json
  rota job ls --submitter ana --watch
  rota job ls -q --state running")]
pub(crate) struct LsArgs {
    /// Only jobs in these states: queued, running, succeeded, failed, cancelled
    #[arg(long, value_name = "STATE")]
    state: Vec<String>,
    /// Only jobs of this queue
    #[arg(long, add = complete::queues())]
    queue: Option<String>,
    /// Only jobs of this name
    #[arg(long)]
    name: Option<String>,
    /// Only jobs with this label: team=render, team!=render, test, !test
    #[arg(short, long, value_name = "LABEL")]
    label: Vec<String>,
    /// Only jobs that this user submitted
    #[arg(long, value_name = "USER")]
    submitter: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 50, value_name = "N")]
    limit: usize,
    #[command(flatten)]
    watch: Watch,
}

/// Which jobs are meant.
#[derive(Debug, Args)]
pub(crate) struct Selected {
    /// Jobs: 17, 5,7, 17-30, last, @failed
    #[arg(value_name = "JOB", add = complete::jobs())]
    jobs: Vec<String>,
    /// Only jobs with this label
    #[arg(short, long, value_name = "LABEL")]
    label: Vec<String>,
}

impl Selected {
    async fn ids(&self, client: &Client) -> Result<Vec<u64>> {
        select::jobs(client, &self.jobs, &self.label).await
    }
}

/// `rota job show`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota job show 17
  rota job show last --explain
  rota job show last --tasks --watch
  rota job show 17 --events
  rota job show 17 --spec -o yaml")]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    jobs: Selected,
    /// Say why its tasks wait
    #[arg(long)]
    explain: bool,
    /// List its tasks
    #[arg(long)]
    tasks: bool,
    /// List its events, as far as the server still has them
    #[arg(long)]
    events: bool,
    /// Add what was submitted
    #[arg(long)]
    spec: bool,
    #[command(flatten)]
    watch: Watch,
}

/// `rota job wait`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota job wait last
  rota job wait 17-30 --for 10m
  rota job wait -l team=render && echo all done")]
pub(crate) struct WaitArgs {
    #[command(flatten)]
    jobs: Selected,
    /// Give up after this time, with exit code 7; the jobs go on
    #[arg(long = "for", value_name = "TIME")]
    at_most: Option<rota_api::Duration>,
}

/// `rota job cancel`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota job cancel 17
  rota job cancel last --grace 30s --reason 'wrong input'
  rota job cancel 17 --tasks 0-99
  rota job cancel @queued --yes")]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    jobs: Selected,
    /// Only tasks with these indexes, such as 0-9,12
    #[arg(long, value_name = "RANGE")]
    tasks: Option<String>,
    /// The time between the request to stop and the kill [default: 10s]
    #[arg(long, value_name = "TIME")]
    grace: Option<rota_api::Duration>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// `rota job kill`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota job kill 17
  rota job kill @running --yes")]
pub(crate) struct KillArgs {
    #[command(flatten)]
    jobs: Selected,
}

/// `rota job retry`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota job retry last
  rota job retry @failed
  rota job retry 17 --all --wait")]
pub(crate) struct RetryArgs {
    #[command(flatten)]
    jobs: Selected,
    /// Run the tasks that succeeded again as well
    #[arg(long)]
    all: bool,
    /// Wait until the new jobs are over, and exit with their status
    #[arg(long)]
    wait: bool,
}

/// `rota job init`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota job init
  rota job init render.toml && rota job lint render.toml")]
pub(crate) struct InitArgs {
    /// Where to write it; `-` prints it
    #[arg(default_value = "job.toml")]
    file: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

/// `rota job lint`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota job lint job.toml
  rota job lint jobs/*.toml -o json")]
pub(crate) struct LintArgs {
    /// Job files: TOML, YAML or JSON
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// Runs a verb on jobs.
pub(crate) async fn dispatch(app: &App, command: JobCommand) -> Result<u8> {
    match command {
        JobCommand::Ls(args) => ls(app, args).await,
        JobCommand::Show(args) => show(app, args).await,
        JobCommand::Wait(args) => wait(app, args).await,
        JobCommand::Logs(args) => logs::logs(app, args).await,
        JobCommand::Cancel(args) => cancel(app, args).await,
        JobCommand::Kill(args) => kill(app, args).await,
        JobCommand::Retry(args) => retry(app, args).await,
        JobCommand::Init(args) => init(app, &args),
        JobCommand::Lint(args) => lint(app, &args),
        JobCommand::Submit(args) => submit::submit(app, *args).await,
    }
}

/// Lists jobs.
pub(crate) async fn ls(app: &App, args: LsArgs) -> Result<u8> {
    let client = app.client()?;
    let some = |list: &[String]| (!list.is_empty()).then(|| list.join(","));
    let query = JobQuery {
        state: some(&args.state),
        queue: args.queue,
        name: args.name,
        label: some(&args.label),
        submitter: args.submitter,
        ..JobQuery::default()
    };
    let look = async || {
        let page = gather(args.limit, |cursor, limit| {
            let (client, query) =
                (client.clone(), JobQuery { cursor, limit: Some(limit), ..query.clone() });
            async move { client.jobs(&query).await }
        })
        .await?;
        let mut frame = Frame { data: app.out.page_text(&page)?, ..Frame::default() };
        if page.next_cursor.is_some() {
            let shown = page.items.len();
            frame.remarks.push(format!("… the newest {shown} are shown; --limit N shows more"));
        }
        Ok(frame)
    };
    let types = Some("job,task".to_owned());
    args.watch.show(app, &client, EventQuery { types, ..EventQuery::default() }, look).await
}

async fn show(app: &App, args: ShowArgs) -> Result<u8> {
    let client = app.client()?;
    let ids = args.jobs.ids(&client).await?;
    let job = if let [only] = ids.as_slice() { Some(*only) } else { None };
    let look = async || look_at(app, &client, &ids, &args).await;
    args.watch.show(app, &client, EventQuery { job, ..EventQuery::default() }, look).await
}

/// Everything that `job show` shows.
async fn look_at(app: &App, client: &Client, ids: &[u64], args: &ShowArgs) -> Result<Frame> {
    let mut jobs = Vec::with_capacity(ids.len());
    for id in ids {
        jobs.push(client.job(*id, args.spec).await?);
    }
    let over = jobs.iter().all(|job| job.state.is_over());
    let mut frame = Frame { data: app.out.many_text(&jobs)?, over, ..Frame::default() };
    for job in &jobs {
        if args.tasks {
            task::list(app, client, job.id, (&TaskQuery::default(), 1_000), &mut frame).await?;
        }
        if args.events {
            event::list(app, client, job.id, &mut frame).await?;
        }
        if args.explain && !job.state.is_over() {
            let (task, _) = select::task(client, &job.id.to_string()).await?;
            frame.add(&app.out.one_text(&client.explain(&task.to_string()).await?)?);
        }
    }
    Ok(frame)
}

async fn wait(app: &App, args: WaitArgs) -> Result<u8> {
    let client = app.client()?;
    let ids = args.jobs.ids(&client).await?;
    let until = args.at_most.map(|time| Instant::now() + Duration::from_micros(time.0.micros()));
    let mut progress = Progress::new(app.screen(), true);
    let jobs = follow::wait(&client, &ids, &mut progress, until).await?;
    app.out.page(&rota_api::Page { items: jobs.clone(), ..rota_api::Page::default() })?;
    Ok(finish(&jobs))
}

/// The exit code that jobs which are over call for.
pub(crate) fn finish(jobs: &[Job]) -> u8 {
    let well = jobs.iter().all(|job| job.state == JobState::Succeeded);
    if well { exit::OK } else { exit::FAILED }
}

/// Says on the side how jobs ended. Returns the exit code that they call for.
pub(crate) fn tell_end(app: &App, jobs: &[Job]) -> u8 {
    for job in jobs {
        let screen = app.screen();
        let (state, counts) = (screen.job_state(job.state), counts(&job.counts));
        screen.remark(&format!("job {} {} · {state} · {counts}", job.id, clean(&job.name)));
        if job.state == JobState::Failed {
            screen.remark(&format!("  why: rota job show {}", job.id));
        }
    }
    finish(jobs)
}

/// What a cancel did to one job.
#[derive(Debug, Serialize)]
struct Cancelled {
    job: u64,
    #[serde(flatten)]
    reply: CancelReply,
}

async fn cancel(app: &App, args: CancelArgs) -> Result<u8> {
    let request = CancelRequest { tasks: args.tasks, grace: args.grace, reason: args.reason };
    cancel_all(app, &args.jobs, &request).await
}

async fn kill(app: &App, args: KillArgs) -> Result<u8> {
    let grace = Some(rota_api::Duration(Span::ZERO));
    cancel_all(app, &args.jobs, &CancelRequest { grace, ..CancelRequest::default() }).await
}

async fn cancel_all(app: &App, jobs: &Selected, request: &CancelRequest) -> Result<u8> {
    let client = app.client()?;
    let ids = jobs.ids(&client).await?;
    if ids.len() > 1 {
        app.confirm(&format!("cancel {} jobs", ids.len()))?;
    }
    each(app, &ids, async |id| {
        let reply = client.cancel(id, request).await?;
        let line = format!(
            "job {id} · {} cancelled, {} told to stop",
            several(reply.ended, "task"),
            several(reply.stopping, "attempt")
        );
        app.out.answer(&Cancelled { job: id, reply }, &id.to_string(), &line)
    })
    .await
}

async fn retry(app: &App, args: RetryArgs) -> Result<u8> {
    let client = app.client()?;
    let ids = args.jobs.ids(&client).await?;
    let request = RetryRequest { all: args.all };
    let new = std::cell::RefCell::new(Vec::new());
    let code = each(app, &ids, async |id| {
        let reply = client.retry(id, &request, &fresh_key()).await?;
        let names: Vec<String> = reply.jobs.iter().map(|job| job.id.to_string()).collect();
        let lines: Vec<String> = reply
            .jobs
            .iter()
            .map(|job| format!("{} · tries job {id} again", submit::line(job)))
            .collect();
        new.borrow_mut().extend(reply.jobs.iter().map(|job| job.id));
        app.out.answer(&reply, &names.join("\n"), &lines.join("\n"))
    })
    .await?;
    if !args.wait {
        return Ok(code);
    }
    let mut progress = Progress::new(app.screen(), true);
    let jobs = follow::wait(&client, &new.into_inner(), &mut progress, None).await?;
    Ok(tell_end(app, &jobs).max(code))
}

/// Does something to each job. What one job refuses doesn't stop the others.
async fn each(app: &App, ids: &[u64], act: impl AsyncFn(u64) -> Result<()>) -> Result<u8> {
    let mut refused = Vec::new();
    for id in ids {
        if let Err(trouble) = act(*id).await {
            if ids.len() == 1 || trouble.code.exit_code() == exit::UNREACHABLE {
                return Err(trouble);
            }
            app.screen().note(&format!("job {id}: {}", clean(&trouble.message)));
            refused.push(trouble);
        }
    }
    match refused.len() {
        0 => Ok(exit::OK),
        count if count == ids.len() => Err(refused.swap_remove(0)),
        count => {
            let message = format!("{count} of {} jobs were refused", ids.len());
            Err(Trouble::new(ErrorCode::Partial, message))
        }
    }
}

/// The job file that `rota job init` writes.
pub(crate) const TEMPLATE: &str = include_str!("job_template.toml");

fn init(app: &App, args: &InitArgs) -> Result<u8> {
    if args.file.as_os_str() == "-" {
        app.out.text(TEMPLATE.trim_end())?;
        return Ok(0);
    }
    if args.file.exists() && !args.force {
        let message = format!("{} exists already", args.file.display());
        return Err(Trouble { exit: Some(exit::CONFLICT), ..Trouble::usage(message) }
            .hint("choose another name, or replace it with --force"));
    }
    std::fs::write(&args.file, TEMPLATE).map_err(|error| Trouble::file(&args.file, &error))?;
    let file = args.file.display().to_string();
    app.out.answer(&serde_json::json!({ "file": file }), &file, &format!("wrote {file}"))?;
    app.screen().remark(&format!("  next: rota run {file}"));
    Ok(0)
}

/// What `job lint` says of one file.
#[derive(Debug, Serialize)]
struct Linted {
    file: String,
    valid: bool,
    jobs: usize,
    tasks: u64,
    errors: Vec<rota_api::Mistake>,
}

fn lint(app: &App, args: &LintArgs) -> Result<u8> {
    let mut mistakes = Vec::new();
    for path in &args.files {
        let file = path.display().to_string();
        let checked = read_job_files(path).and_then(|jobs| {
            let specs = jobs.iter().map(|job| rota_api::into_spec(job.clone(), "lint").map(drop));
            specs.collect::<std::result::Result<Vec<()>, _>>().map_err(Trouble::mistakes)?;
            Ok(jobs)
        });
        match checked {
            Ok(jobs) => {
                let tasks = jobs.iter().map(rota_api::tasks_of).sum();
                let line = format!(
                    "{file}: {}, {}, valid",
                    several(jobs.len() as u64, "job"),
                    several(tasks, "task")
                );
                let answer = Linted {
                    file: file.clone(),
                    valid: true,
                    jobs: jobs.len(),
                    tasks,
                    errors: Vec::new(),
                };
                app.out.answer(&answer, &file, &line)?;
            }
            Err(trouble) if trouble.mistakes.is_empty() => return Err(trouble),
            Err(trouble) => {
                if !app.out.is_for_people() && !app.screen().quiet {
                    let errors = trouble.mistakes.clone();
                    let answer =
                        Linted { file: file.clone(), valid: false, jobs: 0, tasks: 0, errors };
                    app.out.answer(&answer, &file, "")?;
                }
                mistakes.extend(trouble.mistakes);
            }
        }
    }
    // The code's own hint is to do what was just done.
    if mistakes.is_empty() { Ok(0) } else { Err(Trouble::mistakes(mistakes).hint("")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rota_api::Format;

    #[test]
    fn the_template_is_a_valid_job_file() {
        let jobs = rota_api::parse_job_files(TEMPLATE, Format::Toml, None);
        assert_eq!(jobs.map(|jobs| jobs.len()), Ok(1));
    }
}
