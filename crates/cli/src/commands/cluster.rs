//! `rota cluster`: the cluster as a whole.

use clap::Subcommand;
use rota_api::EventQuery;

use super::App;
use crate::trouble::Result;
use crate::watch::{Frame, Watch};

/// `rota cluster`
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Load, demand and supply, failure odds, waits and delays
    #[command(after_help = "Examples:
  rota cluster stats
  rota cluster stats --watch
  rota cluster stats -o json")]
    Stats(Watch),
}

/// Runs a verb on the cluster.
pub(crate) async fn dispatch(app: &App, command: ClusterCommand) -> Result<u8> {
    let ClusterCommand::Stats(watch) = command;
    let client = app.client()?;
    let look = async || {
        let stats = client.stats().await?;
        Ok(Frame { data: app.out.one_text(&stats)?, ..Frame::default() })
    };
    watch.show(app, &client, EventQuery::default(), look).await
}
