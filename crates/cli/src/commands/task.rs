//! `rota task`: tasks, their attempts, and why they wait.

use clap::{Args, Subcommand};
use rota_api::{EventQuery, TaskQuery};
use rota_client::Client;

use super::{App, gather, logs};
use crate::complete;
use crate::select;
use crate::trouble::Result;
use crate::watch::{Frame, Watch};

/// `rota task`
#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// List the tasks of a job
    Ls(LsArgs),
    /// Show tasks with their attempts
    Show(ShowArgs),
    /// Print the output of a task
    Logs(logs::LogsArgs),
    /// Say why a task waits, and what would let it start
    Explain(ExplainArgs),
}

/// `rota task ls`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota task ls 17
  rota task ls last --state failed,running --watch
  rota task ls 17 --group load -o wide")]
pub(crate) struct LsArgs {
    /// A job: 17, last
    #[arg(add = complete::jobs())]
    job: String,
    /// Only tasks in these states: queued, waiting, running, succeeded, failed, cancelled
    #[arg(long, value_name = "STATE")]
    state: Vec<String>,
    /// Only tasks of this group
    #[arg(long)]
    group: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: usize,
    #[command(flatten)]
    watch: Watch,
}

/// `rota task show`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota task show 17.3
  rota task show 17.3 --watch
  rota task show last -o json")]
pub(crate) struct ShowArgs {
    /// Tasks: 17.3; a job stands for its first task that needs attention
    #[arg(required = true, value_name = "TASK", add = complete::tasks())]
    tasks: Vec<String>,
    #[command(flatten)]
    watch: Watch,
}

/// `rota task explain`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota task explain 17.3
  rota task explain last")]
pub(crate) struct ExplainArgs {
    /// A task: 17.3; a job stands for its first task that needs attention
    #[arg(add = complete::tasks())]
    task: String,
}

/// Runs a verb on tasks.
pub(crate) async fn dispatch(app: &App, command: TaskCommand) -> Result<u8> {
    match command {
        TaskCommand::Ls(args) => ls(app, args).await,
        TaskCommand::Show(args) => show(app, args).await,
        TaskCommand::Logs(args) => logs::logs(app, args).await,
        TaskCommand::Explain(args) => {
            let client = app.client()?;
            let (id, _) = select::task(&client, &args.task).await?;
            app.out.one(&client.explain(&id.to_string()).await?)?;
            Ok(0)
        }
    }
}

async fn ls(app: &App, args: LsArgs) -> Result<u8> {
    let client = app.client()?;
    let job = select::job(&client, &args.job).await?;
    let state = (!args.state.is_empty()).then(|| args.state.join(","));
    let query = TaskQuery { state, group: args.group, ..TaskQuery::default() };
    let look = async || {
        let mut frame = Frame::default();
        list(app, &client, job, (&query, args.limit), &mut frame).await?;
        Ok(frame)
    };
    args.watch.show(app, &client, events_of(Some(job)), look).await
}

async fn show(app: &App, args: ShowArgs) -> Result<u8> {
    let client = app.client()?;
    let mut ids = Vec::new();
    for text in &args.tasks {
        ids.push(select::task(&client, text).await?.0);
    }
    let look = async || {
        let mut tasks = Vec::new();
        for id in &ids {
            tasks.push(client.task(&id.to_string()).await?);
        }
        let over = tasks.iter().all(|task| task.state.is_over());
        Ok(Frame { data: app.out.many_text(&tasks)?, over, ..Frame::default() })
    };
    let job = ids.first().map(|id| id.job.0).filter(|job| ids.iter().all(|id| id.job.0 == *job));
    args.watch.show(app, &client, events_of(job), look).await
}

/// Events that may change tasks of a job, or of any.
fn events_of(job: Option<u64>) -> EventQuery {
    EventQuery { types: Some("job,task".to_owned()), job, ..EventQuery::default() }
}

/// Adds the tasks of a job.
pub(crate) async fn list(
    app: &App,
    client: &Client,
    job: u64,
    (query, limit): (&TaskQuery, usize),
    frame: &mut Frame,
) -> Result<()> {
    let page = gather(limit, |cursor, limit| {
        let (client, query) =
            (client.clone(), TaskQuery { cursor, limit: Some(limit), ..query.clone() });
        async move { client.tasks(job, &query).await }
    })
    .await?;
    frame.add(&app.out.page_text(&page)?);
    if page.next_cursor.is_some() {
        let shown = page.items.len();
        frame.remarks.push(format!("… the first {shown} are shown; --limit N shows more"));
    }
    Ok(())
}
