//! `rota task`: tasks, their attempts, and why they wait.

use clap::{Args, Subcommand};
use rota_api::TaskQuery;
use rota_client::Client;

use super::{App, gather, logs};
use crate::select;
use crate::trouble::Result;

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
  rota task ls last --state failed,running
  rota task ls 17 --group load -o wide")]
pub(crate) struct LsArgs {
    /// A job: 17, last
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
}

/// `rota task show`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota task show 17.3
  rota task show last -o json")]
pub(crate) struct ShowArgs {
    /// Tasks: 17.3; a job stands for its first task that needs attention
    #[arg(required = true, value_name = "TASK")]
    tasks: Vec<String>,
}

/// `rota task explain`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota task explain 17.3
  rota task explain last")]
pub(crate) struct ExplainArgs {
    /// A task: 17.3; a job stands for its first task that needs attention
    task: String,
}

/// Runs a verb on tasks.
pub(crate) async fn dispatch(app: &App, command: TaskCommand) -> Result<u8> {
    match command {
        TaskCommand::Ls(args) => {
            let client = app.client()?;
            let job = select::job(&client, &args.job).await?;
            let state = (!args.state.is_empty()).then(|| args.state.join(","));
            let query = TaskQuery { state, group: args.group, ..TaskQuery::default() };
            list(app, &client, job, query, args.limit).await?;
        }
        TaskCommand::Show(args) => {
            let client = app.client()?;
            let mut tasks = Vec::new();
            for text in &args.tasks {
                let (id, _) = select::task(&client, text).await?;
                tasks.push(client.task(&id.to_string()).await?);
            }
            app.out.many(&tasks)?;
        }
        TaskCommand::Logs(args) => return logs::logs(app, args).await,
        TaskCommand::Explain(args) => {
            let client = app.client()?;
            let (id, _) = select::task(&client, &args.task).await?;
            app.out.one(&client.explain(&id.to_string()).await?)?;
        }
    }
    Ok(0)
}

/// Prints the tasks of a job.
pub(crate) async fn list(
    app: &App,
    client: &Client,
    job: u64,
    query: TaskQuery,
    limit: usize,
) -> Result<()> {
    let page = gather(limit, |cursor, limit| {
        let (client, query) =
            (client.clone(), TaskQuery { cursor, limit: Some(limit), ..query.clone() });
        async move { client.tasks(job, &query).await }
    })
    .await?;
    app.out.page(&page)?;
    if page.next_cursor.is_some() {
        app.screen()
            .remark(&format!("… the first {} are shown; --limit N shows more", page.items.len()));
    }
    Ok(())
}
