//! `rota event`: what becomes true, as it does.

use clap::{Args, Subcommand};
use rota_api::{Event, EventQuery, JobEvents, PAGE_MAX, PageQuery};
use rota_client::Client;

use super::App;
use crate::complete;
use crate::output::{Format, each_text};
use crate::screen::clean;
use crate::select;
use crate::trouble::Result;
use crate::watch::Frame;

/// `rota event`
#[derive(Debug, Subcommand)]
pub(crate) enum EventCommand {
    /// Print events until Ctrl-C
    Follow(FollowArgs),
}

/// `rota event follow`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota event follow
  rota event follow --job last --type task
  rota event follow --since 1200 -o jsonl")]
pub(crate) struct FollowArgs {
    /// Only about this job
    #[arg(long, add = complete::jobs())]
    job: Option<String>,
    /// Only these kinds: job, task, node, queue, server, token, audit
    #[arg(long = "type", value_name = "KIND")]
    types: Vec<String>,
    /// Begin after this event: INDEX or INDEX:SEQ
    #[arg(long, value_name = "POSITION")]
    since: Option<String>,
    /// Stop after this many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// Runs a verb on events.
pub(crate) async fn dispatch(app: &App, command: EventCommand) -> Result<u8> {
    let EventCommand::Follow(args) = command;
    let client = app.client()?;
    let job = match &args.job {
        Some(text) => Some(select::job(&client, text).await?),
        None => None,
    };
    let types = (!args.types.is_empty()).then(|| args.types.join(","));
    let mut events = client.events(EventQuery { types, job, since: args.since }).await?;
    let mut left = args.count;
    while left != Some(0) {
        let event = events.next().await?;
        app.out.item(&event, &line(app, &event))?;
        left = left.map(|left| left - 1);
    }
    Ok(0)
}

/// Adds the events of one job that the server still has.
pub(crate) async fn list(app: &App, client: &Client, job: u64, frame: &mut Frame) -> Result<()> {
    let mut query = PageQuery { limit: Some(PAGE_MAX), cursor: None };
    let mut all = client.job_events(job, &query).await?;
    while let Some(cursor) = all.next_cursor.take() {
        query.cursor = Some(cursor);
        let more = client.job_events(job, &query).await?;
        all = JobEvents { items: [all.items, more.items].concat(), complete: all.complete, ..more };
    }
    let lines =
        |all: &JobEvents| all.items.iter().map(|event| line(app, event)).collect::<Vec<_>>();
    frame.add(&match app.out.format {
        _ if app.screen().quiet => String::new(),
        Format::Table | Format::Wide => lines(&all).join("\n"),
        Format::Jsonl => each_text(&all.items)?,
        Format::Json | Format::Yaml => app.out.document_text(&all)?,
    });
    if !all.complete {
        frame.remarks.push(format!(
            "… earlier events are not kept: a server keeps the latest of all jobs, from its start on; every attempt is in: rota task show {job}.N"
        ));
    }
    Ok(())
}

/// `12:0  3s ago  attempt_ended  17.3#2  node-a  …`.
fn line(app: &App, event: &Event) -> String {
    let subject = event
        .attempt
        .clone()
        .or_else(|| event.task.clone())
        .or_else(|| event.job.map(|job| job.to_string()));
    let mut parts = vec![
        format!("{:>8}", format!("{}:{}", event.index, event.seq)),
        if app.screen().utc { event.at.to_string() } else { time_of_day(event) },
        format!("{:<18}", clean(&event.kind)),
    ];
    parts.extend(subject.as_deref().map(clean));
    parts.extend(event.node.as_deref().map(|node| format!("on {}", clean(node))));
    parts.extend(event.queue.as_deref().map(|queue| format!("queue {}", clean(queue))));
    if !event.data.is_empty() {
        parts.push(
            app.screen().faint(&clean(&serde_json::Value::Object(event.data.clone()).to_string())),
        );
    }
    parts.join("  ")
}

/// The time of day in UTC, to the second.
fn time_of_day(event: &Event) -> String {
    let seconds = event.at.0.0 / 1_000_000 % 86_400;
    format!("{:02}:{:02}:{:02}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}
