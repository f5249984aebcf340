//! `rota doctor`: looks for what is wrong with the setup.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use rota_api::{NodeState, PageQuery, exit};
use rota_identity::{Identity, IdentityDir};
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
  rota doctor --data /var/lib/rota/server    also looks at the certificate that is kept there

Exits with 0 if nothing is wrong, with 1 if something is.")]
pub(crate) struct DoctorArgs {
    /// The data directory of a server or worker on this machine, to look at its certificate
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

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
pub(crate) async fn doctor(app: &App, args: DoctorArgs) -> Result<u8> {
    let mut checks = vec![configuration(app)];
    checks.extend(args.data.map(|data| certificate(&IdentityDir::below(&data), SystemTime::now())));
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
    checks.extend(token(&client).await);
    checks.push(nodes(&client).await?);
    checks.extend(queues(&client).await?);
    checks.extend(log_sync(&client).await?);
    Ok(checks)
}

/// The certificate of a server or worker on this machine, which replaces it by itself long before it ends.
fn certificate(dir: &IdentityDir, now: SystemTime) -> Check {
    const WHAT: &str = "certificate";
    if !dir.exists() {
        let found = format!("there is no {}", dir.path().display());
        return Check::odd(
            WHAT,
            found,
            "name the data directory of a server or worker that has one",
        );
    }
    let identity = match Identity::load(dir) {
        Ok(identity) => identity,
        Err(error) => {
            return Check::wrong(WHAT, error.to_string(), "see `docs/security.md`, Files");
        }
    };
    let who = format!("{} of cluster {}", identity.peer(), identity.cluster());
    let Ok(left) = identity.expires_at().duration_since(now) else {
        let fix =
            "a server makes a new one when it is started; a worker has to join again with a token";
        return Check::wrong(WHAT, format!("that of {who} has expired"), fix);
    };
    let days = left.as_secs() / 86_400;
    let found = format!("that of {who} ends in {days} days");
    // It is tried every hour.
    match now.duration_since(identity.renew_at()) {
        Ok(late) if late > Duration::from_secs(7_200) => {
            let fix = "it should have been replaced by now: is the process running, and does its log say why not?";
            Check::odd(WHAT, found, fix)
        }
        _ => Check::fine(WHAT, found),
    }
}

/// The token of whoever asks, if it ends soon.
async fn token(client: &rota_client::Client) -> Option<Check> {
    const SOON: rota_types::Span = rota_types::Span::from_secs(7 * 86_400);
    let ends = client.whoami().await.ok()?.expires_at?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = rota_types::Timestamp(u64::try_from(now.as_micros()).unwrap_or(u64::MAX));
    let left = ends.0.since(now);
    let found = format!("ends in {} days", left.micros() / 86_400_000_000);
    Some(if left < SOON {
        Check::odd("token", found, "ask an administrator for the next one: rota token create")
    } else {
        Check::fine("token", found)
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use rota_identity::{Authority, Names, Peer, RENEW_AFTER, VALID_FOR};

    #[test]
    fn a_certificate_that_was_not_replaced_in_time_is_told() {
        let home = tempfile::tempdir().expect("a directory");
        let dir = IdentityDir::below(home.path());
        let now = SystemTime::now();
        let finding = |at| certificate(&dir, at).state;
        assert_eq!(finding(now), Finding::Odd);
        let authority = Authority::create(&dir, now).expect("an authority");
        let who = (&Peer::Server(1), &Names::default());
        Identity::issue(&dir, &authority, who, now).expect("an identity");
        let hour = Duration::from_secs(3_600);
        assert_eq!((finding(now), finding(now + RENEW_AFTER)), (Finding::Fine, Finding::Fine));
        assert_eq!(finding(now + RENEW_AFTER + 3 * hour), Finding::Odd);
        assert_eq!(finding(now + VALID_FOR + hour), Finding::Wrong);
        std::fs::write(dir.path().join("node.pem"), "x").expect("is written");
        assert_eq!(finding(now), Finding::Wrong);
    }
}
