//! `rota doctor`: looks for what is wrong with the setup.

use std::time::Instant;

use clap::Args;
use rota_api::{NodeState, PageQuery, exit};
use serde::Serialize;

use super::{App, gather};
use crate::config::Origin;
use crate::screen::{clean, short_span};
use crate::trouble::Result;

/// `rota doctor`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota doctor
  rota doctor -o json

Exits with 0 if nothing is wrong, with 1 if something is.")]
pub(crate) struct DoctorArgs {}

/// What was looked at, and what was found.
#[derive(Debug, Serialize)]
struct Check {
    what: &'static str,
    state: Finding,
    found: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    fix: String,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Finding {
    Fine,
    Odd,
    Wrong,
}

impl Check {
    fn fine(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, state: Finding::Fine, found: found.into(), fix: String::new() }
    }

    fn odd(what: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what, state: Finding::Odd, found: found.into(), fix: fix.into() }
    }

    fn wrong(what: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what, state: Finding::Wrong, found: found.into(), fix: fix.into() }
    }
}

/// Looks at everything and says what it found.
pub(crate) async fn doctor(app: &App, _: DoctorArgs) -> Result<u8> {
    let mut checks = vec![configuration(app)];
    checks.extend(server(app).await?);
    let lines: Vec<String> = checks.iter().map(|check| line(app, check)).collect();
    app.out.answer(&checks, &lines.join("\n"), &lines.join("\n"))?;
    let wrong = checks.iter().any(|check| check.state == Finding::Wrong);
    Ok(if wrong { exit::FAILED } else { exit::OK })
}

fn line(app: &App, check: &Check) -> String {
    let screen = app.screen();
    let symbol = match check.state {
        Finding::Fine => screen.good("✔"),
        Finding::Odd => screen.busy("!"),
        Finding::Wrong => screen.bad("✖"),
    };
    let fix = if check.fix.is_empty() {
        String::new()
    } else {
        format!("\n    fix: {}", clean(&check.fix))
    };
    format!("{symbol} {}: {}{fix}", check.what, clean(&check.found))
}

fn configuration(app: &App) -> Check {
    let config = &app.config;
    let servers = config.servers.value.join(", ");
    let origin = match &config.servers.origin {
        Origin::Flag => "--server".to_owned(),
        Origin::Environment(name) => (*name).to_owned(),
        Origin::File(path) => path.display().to_string(),
        Origin::Default => "default".to_owned(),
    };
    Check::fine("configuration", format!("server {servers} (from {origin})"))
}

async fn server(app: &App) -> Result<Vec<Check>> {
    let client = app.client()?;
    let began = Instant::now();
    let version = match client.version().await {
        Ok(version) => version,
        Err(error) => {
            let fix = error.code().hint();
            return Ok(vec![Check::wrong("server", error.to_string(), fix)]);
        }
    };
    let answer = short_span(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
    let mut checks =
        vec![Check::fine("server", format!("{} answers in {answer}", client.server()))];
    let mine = env!("CARGO_PKG_VERSION");
    checks.push(if version.version == mine {
        Check::fine("version", mine)
    } else {
        let found = format!("the server has {}, this command {mine}", version.version);
        Check::odd("version", found, "use the same version on both sides")
    });
    checks.push(match client.ready().await {
        Ok(health) => {
            Check::fine("readiness", format!("{}, log index {}", health.status, health.index))
        }
        Err(error) => Check::wrong("readiness", error.to_string(), error.code().hint()),
    });
    checks.push(nodes(&client).await?);
    checks.extend(queues(&client).await?);
    checks.extend(log_sync(&client).await?);
    Ok(checks)
}

async fn nodes(client: &rota_client::Client) -> Result<Check> {
    let page = gather(usize::MAX, |cursor, limit| {
        let client = client.clone();
        async move { client.nodes(&PageQuery { cursor, limit: Some(limit) }).await }
    })
    .await?;
    let ready =
        page.items.iter().filter(|node| node.state == NodeState::Ready && node.connected).count();
    let gone: Vec<&str> =
        page.items.iter().filter(|node| !node.connected).map(|node| node.name.as_str()).collect();
    let found = format!("{ready} of {} take tasks", page.items.len());
    Ok(match (ready, gone.is_empty()) {
        (0, _) => Check::wrong("nodes", found, "start a worker: rota worker --server URL"),
        (_, false) => {
            let names = gone.into_iter().take(5).collect::<Vec<_>>().join(", ");
            Check::odd("nodes", found, format!("no worker is connected on {names}"))
        }
        (_, true) => Check::fine("nodes", found),
    })
}

async fn queues(client: &rota_client::Client) -> Result<Vec<Check>> {
    let page = client.queues(&PageQuery { limit: Some(rota_api::PAGE_MAX), cursor: None }).await?;
    let paused = page.items.iter().filter(|queue| queue.paused && queue.counts.queued > 0);
    let check = |queue: &rota_api::Queue| {
        let found = format!("{} is paused with {} tasks queued", queue.name, queue.counts.queued);
        Check::odd("queues", found, format!("rota queue resume {}", queue.name))
    };
    let checks: Vec<Check> = paused.map(check).collect();
    Ok(if checks.is_empty() {
        vec![Check::fine("queues", format!("{} open", page.items.len()))]
    } else {
        checks
    })
}

async fn log_sync(client: &rota_client::Client) -> Result<Option<Check>> {
    let stats = client.stats().await?;
    Ok(stats.log_sync.filter(|sync| sync.count > 0).map(|sync| {
        let found = format!("p50 {:.1} ms, p99 {:.1} ms", sync.p50_ms, sync.p99_ms);
        if sync.p99_ms > 100.0 {
            Check::odd("log sync", found, "put the data directory on a faster disk")
        } else {
            Check::fine("log sync", found)
        }
    }))
}
