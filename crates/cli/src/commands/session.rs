//! `rota session`: what keys and locks go with.

use clap::{Args, Subcommand};
use rota_api::{Duration, PageQuery, SessionRequest};

use super::{App, gather};
use crate::complete;
use crate::output::Show;
use crate::trouble::Result;

/// `rota session`
#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// Open a session: it ends after its time unless it is renewed
    #[command(after_help = "Examples:
  ID=$(rota session open --ttl 1m -q)
  rota kv put service/web/host-a 10.0.0.7:80 --session $ID
  rota session renew $ID")]
    Open(OpenArgs),
    /// Let a session live for its whole time from now on
    #[command(after_help = "Examples:\n  rota session renew 7")]
    Renew(Id),
    /// End a session: its keys are deleted and its locks passed on
    #[command(after_help = "Examples:\n  rota session close 7")]
    Close(Id),
    /// Show a session
    #[command(after_help = "Examples:\n  rota session show 7")]
    Show(Id),
    /// List sessions
    #[command(after_help = "Examples:\n  rota session ls\n  rota session ls -o json")]
    Ls,
}

/// `rota session open`
#[derive(Debug, Args)]
pub(crate) struct OpenArgs {
    /// How long it lives without being renewed, from 1s to 24h
    #[arg(long, value_name = "TIME", default_value = "30s")]
    ttl: Duration,
}

/// Which session.
#[derive(Debug, Args)]
pub(crate) struct Id {
    /// The session's id
    #[arg(value_name = "SESSION", add = complete::sessions())]
    id: u64,
}

/// Runs a verb on sessions.
pub(crate) async fn dispatch(app: &App, command: SessionCommand) -> Result<u8> {
    let client = app.client()?;
    match command {
        SessionCommand::Open(args) => {
            let session = client.open_session(&SessionRequest { ttl: Some(args.ttl) }).await?;
            let line = format!(
                "session {} · open · ends in {} unless it is renewed",
                session.id, session.ttl
            );
            app.out.answer(&session, &session.id(), &line)?;
        }
        SessionCommand::Renew(Id { id }) => {
            let session = client.renew_session(id).await?;
            app.out.answer(
                &session,
                &session.id(),
                &format!("session {id} · renewed for {}", session.ttl),
            )?;
        }
        SessionCommand::Close(Id { id }) => {
            client.close_session(id).await?;
            let data = serde_json::json!({ "id": id, "closed": true });
            app.out.answer(&data, &id.to_string(), &format!("session {id} · closed"))?;
        }
        SessionCommand::Show(Id { id }) => app.out.one(&client.session(id).await?)?,
        SessionCommand::Ls => {
            let page = gather(usize::MAX, |cursor, limit| {
                let client = client.clone();
                async move { client.sessions(&PageQuery { cursor, limit: Some(limit) }).await }
            });
            app.out.page(&page.await?)?;
        }
    }
    Ok(0)
}
