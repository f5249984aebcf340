//! `rota node`: machines that run attempts.

use clap::{Args, Subcommand};
use rota_api::{EventQuery, PageQuery};
use rota_client::Client;

use super::{App, gather};
use crate::complete;
use crate::screen::clean;
use crate::trouble::Result;
use crate::watch::{Frame, Watch};

/// `rota node`
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List nodes
    #[command(
        after_help = "Examples:\n  rota node ls\n  rota node ls --watch\n  rota node ls -o json"
    )]
    Ls(Watch),
    /// Show nodes
    #[command(after_help = "Examples:\n  rota node show node-a")]
    Show(Names),
    /// Let nodes finish what they run and take nothing new
    #[command(after_help = "Examples:\n  rota node drain node-a\n  rota node drain node-a node-b")]
    Drain(Names),
    /// Let nodes take tasks again
    #[command(after_help = "Examples:\n  rota node undrain node-a")]
    Undrain(Names),
    /// Forget nodes that run nothing and whose worker is gone
    #[command(after_help = "Examples:\n  rota node rm node-a --yes")]
    Rm(Names),
}

/// Which nodes.
#[derive(Debug, Args)]
pub(crate) struct Names {
    /// Names of nodes
    #[arg(required = true, value_name = "NODE", add = complete::nodes())]
    nodes: Vec<String>,
}

/// Runs a verb on nodes.
pub(crate) async fn dispatch(app: &App, command: NodeCommand) -> Result<u8> {
    let client = app.client()?;
    match command {
        NodeCommand::Ls(watch) => return ls(app, &client, watch).await,
        NodeCommand::Show(names) => {
            let mut nodes = Vec::new();
            for name in &names.nodes {
                nodes.push(client.node(name).await?);
            }
            app.out.many(&nodes)?;
        }
        NodeCommand::Drain(names) => {
            for name in &names.nodes {
                let node = client.drain(name, true).await?;
                let line = format!("node {} · draining, {} tasks left", clean(name), node.tasks);
                app.out.answer(&node, name, &line)?;
            }
        }
        NodeCommand::Undrain(names) => {
            for name in &names.nodes {
                let node = client.drain(name, false).await?;
                app.out.answer(
                    &node,
                    name,
                    &format!("node {} · takes tasks again", clean(name)),
                )?;
            }
        }
        NodeCommand::Rm(names) => {
            app.confirm(&format!("forget {}", names.nodes.join(", ")))?;
            for name in &names.nodes {
                client.remove_node(name).await?;
                let data = serde_json::json!({ "name": name, "removed": true });
                app.out.answer(&data, name, &format!("node {} · forgotten", clean(name)))?;
            }
        }
    }
    Ok(0)
}

async fn ls(app: &App, client: &Client, watch: Watch) -> Result<u8> {
    let look = async || {
        let page = gather(usize::MAX, |cursor, limit| {
            let client = client.clone();
            async move { client.nodes(&PageQuery { cursor, limit: Some(limit) }).await }
        })
        .await?;
        let mut frame = Frame { data: app.out.page_text(&page)?, ..Frame::default() };
        if page.items.is_empty() {
            frame.remarks.push("no node has joined yet; start a worker: rota worker".to_owned());
        }
        Ok(frame)
    };
    let types = Some("node,task".to_owned());
    watch.show(app, client, EventQuery { types, ..EventQuery::default() }, look).await
}
