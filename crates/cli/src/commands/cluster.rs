//! `rota cluster`: the cluster as a whole.

use clap::Subcommand;

use super::App;
use crate::trouble::Result;

/// `rota cluster`
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Load, demand and supply, failure odds, waits and delays
    #[command(after_help = "Examples:\n  rota cluster stats\n  rota cluster stats -o json")]
    Stats,
}

/// Runs a verb on the cluster.
pub(crate) async fn dispatch(app: &App, command: ClusterCommand) -> Result<u8> {
    match command {
        ClusterCommand::Stats => app.out.one(&app.client()?.stats().await?)?,
    }
    Ok(0)
}
