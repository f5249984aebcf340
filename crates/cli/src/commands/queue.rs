//! `rota queue`: which task goes next, and where to.

use clap::{Args, Subcommand, ValueEnum};
use rota_api::{Discipline, Duration, EventQuery, PageQuery, Placement, QueueSettings};
use rota_client::Client;

use super::{App, gather};
use crate::complete;
use crate::output::Show;
use crate::screen::{clean, several};
use crate::trouble::{Result, Trouble};
use crate::watch::{Frame, Watch};

/// `rota queue`
#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// List queues
    #[command(
        after_help = "Examples:\n  rota queue ls\n  rota queue ls --watch\n  rota queue ls -o json"
    )]
    Ls(Watch),
    /// Show a queue
    #[command(after_help = "Examples:\n  rota queue show default")]
    Show(Name),
    /// Add a queue
    #[command(after_help = "Examples:
  rota queue create batch --order priority --aging 5m --place best_fit
  rota queue create gpu --running-max 8 --weight 3")]
    Create(Settings),
    /// Change how a queue orders and places its tasks, while they wait
    #[command(after_help = "Examples:
  rota queue set-policy batch --order fifo --place round_robin
  rota queue set-policy batch --running-max 0     (0 takes the limit away)")]
    SetPolicy(Settings),
    /// Start nothing more from a queue; what runs goes on
    #[command(after_help = "Examples:\n  rota queue pause batch")]
    Pause(Name),
    /// Start tasks of a queue again
    #[command(after_help = "Examples:\n  rota queue resume batch")]
    Resume(Name),
    /// Cancel everything in a queue that is not running
    #[command(after_help = "Examples:\n  rota queue purge batch --yes")]
    Purge(Name),
    /// Remove an empty queue
    #[command(after_help = "Examples:\n  rota queue rm batch --yes")]
    Rm(Name),
}

/// Which queue.
#[derive(Debug, Args)]
pub(crate) struct Name {
    /// The queue's name
    #[arg(value_name = "QUEUE", add = complete::queues())]
    queue: String,
}

/// A queue and its settings.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// The queue's name
    #[arg(value_name = "QUEUE", add = complete::queues())]
    queue: String,
    /// Which task goes next
    #[arg(long, value_enum, value_name = "ORDER")]
    order: Option<Order>,
    /// With `priority`: the wait that outweighs one point of priority
    #[arg(long, value_name = "TIME")]
    aging: Option<Duration>,
    /// Which node a task goes to
    #[arg(long, value_enum, value_name = "POLICY")]
    place: Option<Place>,
    /// With `random`: makes the draws repeatable
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Share of turns among the queues, from 1
    #[arg(long, value_name = "N")]
    weight: Option<u32>,
    /// How many tasks may run at a time; 0 for no limit
    #[arg(long, value_name = "N")]
    running_max: Option<u32>,
    /// How many tasks may wait or run before submits are refused; 0 for no limit
    #[arg(long, value_name = "N")]
    tasks_max: Option<u64>,
}

/// Which task of a queue goes next.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Order {
    /// Whoever became ready first
    Fifo,
    /// Higher priority first; waiting raises it
    Priority,
}

/// Which node a task goes to.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Place {
    /// The first node that fits
    FirstFit,
    /// The node that is left with the least
    BestFit,
    /// The node with the smallest share in use
    LeastLoaded,
    /// One node after the other
    RoundRobin,
    /// Any node
    Random,
}

impl Settings {
    fn settings(&self) -> QueueSettings {
        QueueSettings {
            discipline: self.order.map(|order| match order {
                Order::Fifo => Discipline::Fifo,
                Order::Priority => Discipline::Priority,
            }),
            aging: self.aging,
            placement: self.place.map(|place| match place {
                Place::FirstFit => Placement::FirstFit,
                Place::BestFit => Placement::BestFit,
                Place::LeastLoaded => Placement::LeastLoaded,
                Place::RoundRobin => Placement::RoundRobin,
                Place::Random => Placement::Random,
            }),
            seed: self.seed,
            weight: self.weight,
            running_max: self.running_max,
            tasks_max: self.tasks_max,
        }
    }
}

/// Runs a verb on queues.
pub(crate) async fn dispatch(app: &App, command: QueueCommand) -> Result<u8> {
    let client = app.client()?;
    match command {
        QueueCommand::Ls(watch) => return ls(app, &client, watch).await,
        QueueCommand::Show(name) => app.out.one(&client.queue(&name.queue).await?)?,
        QueueCommand::Create(settings) => {
            let queue = client.create_queue(&settings.queue, &settings.settings()).await?;
            app.out.answer(&queue, &queue.id(), &describe(&queue, "created"))?;
        }
        QueueCommand::SetPolicy(settings) => {
            if settings.settings() == QueueSettings::default() {
                return Err(Trouble::usage("nothing to change")
                    .hint("name a setting, such as --order priority"));
            }
            let queue = client.configure_queue(&settings.queue, &settings.settings()).await?;
            app.out.answer(&queue, &queue.id(), &describe(&queue, "changed"))?;
        }
        QueueCommand::Pause(name) => {
            let queue = client.pause_queue(&name.queue, true).await?;
            let line = format!(
                "queue {} · paused, {} tasks go on",
                clean(&queue.name),
                queue.counts.running
            );
            app.out.answer(&queue, &queue.id(), &line)?;
        }
        QueueCommand::Resume(name) => {
            let queue = client.pause_queue(&name.queue, false).await?;
            app.out.answer(&queue, &queue.id(), &format!("queue {} · open", clean(&queue.name)))?;
        }
        QueueCommand::Purge(name) => {
            app.confirm(&format!("cancel everything that waits in queue {}", name.queue))?;
            let reply = client.purge_queue(&name.queue).await?;
            let line = format!(
                "queue {} · {} cancelled",
                clean(&name.queue),
                several(reply.ended, "task")
            );
            app.out.answer(&reply, &name.queue, &line)?;
        }
        QueueCommand::Rm(name) => {
            app.confirm(&format!("remove queue {}", name.queue))?;
            client.remove_queue(&name.queue).await?;
            let data = serde_json::json!({ "name": name.queue, "removed": true });
            app.out.answer(
                &data,
                &name.queue,
                &format!("queue {} · removed", clean(&name.queue)),
            )?;
        }
    }
    Ok(0)
}

async fn ls(app: &App, client: &Client, watch: Watch) -> Result<u8> {
    let look = async || {
        let page = gather(usize::MAX, |cursor, limit| {
            let client = client.clone();
            async move { client.queues(&PageQuery { cursor, limit: Some(limit) }).await }
        })
        .await?;
        Ok(Frame { data: app.out.page_text(&page)?, ..Frame::default() })
    };
    let types = Some("queue,job,task".to_owned());
    watch.show(app, client, EventQuery { types, ..EventQuery::default() }, look).await
}

fn describe(queue: &rota_api::Queue, verb: &str) -> String {
    let aging = queue.aging.map_or(String::new(), |aging| format!(" (aging {aging})"));
    format!(
        "queue {} · {verb}: order {}{aging}, place {}, weight {}",
        clean(&queue.name),
        queue.discipline.name(),
        queue.placement.name(),
        queue.weight
    )
}
