//! `rota token`: who may do what, and who may join.

use clap::{Args, Subcommand};
use rota_api::{AuditRecord, Page, RefusedRecord, Token, TokenRequest, TokenRole};

use super::App;
use crate::output::{Column, Show};
use crate::screen::{Screen, clean};
use crate::trouble::Result;

/// `rota token`
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token; it is printed once
    Create(CreateArgs),
    /// List tokens
    #[command(after_help = "Examples:\n  rota token ls\n  rota token ls -o json")]
    Ls,
    /// End tokens; streams that they opened end within seconds
    #[command(
        after_help = "Examples:\n  rota token revoke mzxw6ytboi2c4\n  rota token revoke mzxw6ytboi2c4 --yes"
    )]
    Revoke(RevokeArgs),
}

/// `rota token create`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota token create ci --role submitter
  rota token create dashboard --role reader --valid-for 365d
  rota token create rack-7 --role worker --uses 40 --valid-for 1h    for `rota worker --join`

Roles: a reader sees everything; a submitter also submits, cancels and retries jobs, and changes keys
and locks; an operator also changes nodes and queues; an admin also makes tokens and reads the audit. The roles worker and server
make a token for joining, which is good for nothing else.")]
pub(crate) struct CreateArgs {
    /// Who or what will hold it
    name: String,
    /// What it is good for: reader, submitter, operator, admin, worker or server
    #[arg(long)]
    role: TokenRole,
    /// How long it is valid [default: 90d, or 10m for joining]
    #[arg(long, value_name = "TIME")]
    valid_for: Option<rota_api::Duration>,
    /// How often a token for joining may be used [default: once]
    #[arg(long, value_name = "N")]
    uses: Option<u32>,
}

/// `rota token revoke`
#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// Ids of tokens: what stands between `rota_` and the next `_`
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

/// Runs a verb on tokens.
pub(crate) async fn dispatch(app: &App, command: TokenCommand) -> Result<u8> {
    let client = app.client()?;
    match command {
        TokenCommand::Create(args) => {
            let CreateArgs { name, role, valid_for, uses } = args;
            let made = client.create_token(&TokenRequest { name, role, valid_for, uses }).await?;
            app.out.answer(&made, &made.token.0, &made.token.0)?;
            let info = &made.info;
            let ends = info.expires_at.map_or("never".to_owned(), |at| app.screen().when(at));
            app.screen().remark(&format!(
                "token {} · {} · ends {ends} · it is not shown again",
                clean(&info.id),
                info.role.name()
            ));
        }
        TokenCommand::Ls => {
            let list = client.tokens().await?;
            app.out.page(&Page { items: list.items, next_cursor: None, index: list.index })?;
        }
        TokenCommand::Revoke(args) => {
            app.confirm(&format!("revoke {}", args.ids.join(", ")))?;
            for id in &args.ids {
                client.revoke_token(id).await?;
                let data = serde_json::json!({ "id": id, "revoked": true });
                app.out.answer(&data, id, &format!("token {} · revoked", clean(id)))?;
            }
        }
    }
    Ok(0)
}

fn column<T>(title: &'static str, cell: fn(&T, &Screen) -> String) -> Column<T> {
    Column { title, wide: false, cell }
}

impl Show for Token {
    fn columns() -> Vec<Column<Self>> {
        vec![
            column("ID", |token, _| clean(&token.id)),
            column("NAME", |token, _| clean(&token.name)),
            column("ROLE", |token, _| token.role.name().to_owned()),
            column("MADE", |token, screen| screen.when(token.created_at)),
            column("ENDS", |token, screen| {
                token.expires_at.map_or("never".to_owned(), |at| screen.when(at))
            }),
            column("USES", |token, _| {
                token.uses_left.map_or("-".to_owned(), |uses| uses.to_string())
            }),
            column("BY", |token, _| match &token.session_of {
                Some(holder) => format!("login with {}", clean(holder)),
                None => clean(&token.created_by),
            }),
        ]
    }

    fn id(&self) -> String {
        self.id.clone()
    }

    fn detail(&self, screen: &Screen) -> String {
        let head = screen.strong(&format!("token {}", clean(&self.id)));
        format!("{head} · {} · {}", clean(&self.name), self.role.name())
    }
}

impl Show for AuditRecord {
    fn columns() -> Vec<Column<Self>> {
        vec![
            column("INDEX", |record, _| record.index.to_string()),
            column("AT", |record, screen| screen.when(record.at)),
            column("WHO", |record, _| clean(&record.who)),
            column("FROM", |record, _| clean(&record.source)),
            column("WHAT", |record, _| clean(&record.action)),
            column("DONE", |record, screen| match record.refused {
                0 => screen.good("done"),
                refused if refused >= record.commands => screen.bad("refused"),
                refused => screen.bad(&format!("{refused} of {} refused", record.commands)),
            }),
        ]
    }

    fn id(&self) -> String {
        self.index.to_string()
    }

    fn detail(&self, screen: &Screen) -> String {
        format!("{} {} {}", screen.when(self.at), clean(&self.who), clean(&self.action))
    }
}

impl Show for RefusedRecord {
    fn columns() -> Vec<Column<Self>> {
        vec![
            column("SERVER", |record, _| record.server.to_string()),
            column("LAST", |record, screen| screen.when(record.last_at)),
            column("COUNT", |record, _| record.count.to_string()),
            column("WHO", |record, _| match record.who.as_str() {
                "" => "-".to_owned(),
                who => clean(who),
            }),
            column("FROM", |record, _| clean(&record.source)),
            column("WHAT", |record, _| clean(&record.action)),
            column("WHY", |record, _| clean(&record.code)),
        ]
    }

    fn id(&self) -> String {
        self.source.clone()
    }

    fn detail(&self, screen: &Screen) -> String {
        format!("{} {} {}", screen.when(self.last_at), clean(&self.source), clean(&self.action))
    }
}
