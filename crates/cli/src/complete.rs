//! What a shell may complete: ids and names that the server knows now.
//!
//! The shell calls this program for every Tab, so there is little time: a server that does not answer at once completes nothing, and
//! nothing is ever said about it. The server is the one of the environment or the configuration file; a `--server` that was typed
//! on the same line is not seen here.

use std::ffi::OsStr;
use std::time::Duration;

use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use rota_api::{JobQuery, KeyQuery, LockQuery, PAGE_MAX, PageQuery, TaskQuery};
use rota_client::{Client, ClientConfig};

use crate::args::Global;
use crate::config::Config;
use crate::screen::clean;

/// The longest that a Tab may take.
const TIMEOUT: Duration = Duration::from_millis(500);
/// Jobs and tasks that are offered, the newest jobs first.
const OFFERED_MAX: u32 = 50;

/// Completes jobs.
pub(crate) fn jobs() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let mut all = ask(known_jobs);
        all.push(candidate("last", "the newest job"));
        all.extend(
            ["queued", "running", "succeeded", "failed", "cancelled"]
                .map(|state| candidate(&format!("@{state}"), "all jobs in this state")),
        );
        beginning(all, typed)
    })
}

/// Completes tasks: jobs, and behind a job's dot its tasks.
pub(crate) fn tasks() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let job = typed.to_str().and_then(|text| text.split_once('.')).map(|(job, _)| job.parse());
        let all = match job {
            Some(Ok(job)) => ask(async |client| known_tasks(client, job).await),
            Some(Err(_)) => Vec::new(),
            None => ask(known_jobs),
        };
        beginning(all, typed)
    })
}

/// Completes nodes.
pub(crate) fn nodes() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let all = ask(async |client| {
            let page =
                client.nodes(&PageQuery { limit: Some(PAGE_MAX), cursor: None }).await.ok()?;
            let one = |node: &rota_api::Node| candidate(&node.name, &format!("{:?}", node.state));
            Some(page.items.iter().map(one).collect())
        });
        beginning(all, typed)
    })
}

/// Completes queues.
pub(crate) fn queues() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let all = ask(async |client| {
            let page =
                client.queues(&PageQuery { limit: Some(PAGE_MAX), cursor: None }).await.ok()?;
            let one = |queue: &rota_api::Queue| {
                candidate(&queue.name, &format!("{} queued", queue.counts.queued))
            };
            Some(page.items.iter().map(one).collect())
        });
        beginning(all, typed)
    })
}

/// Completes keys.
pub(crate) fn keys() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let prefix = typed.to_str().map(str::to_owned);
        let all = ask(async |client| {
            let query = KeyQuery {
                prefix,
                keys_only: Some(true),
                limit: Some(OFFERED_MAX),
                ..KeyQuery::default()
            };
            let page = client.keys(&query).await.ok()?;
            let one = |key: &rota_api::Key| candidate(&key.key, &format!("{} bytes", key.size));
            Some(page.items.iter().map(one).collect())
        });
        beginning(all, typed)
    })
}

/// Completes locks that somebody holds.
pub(crate) fn locks() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let prefix = typed.to_str().map(str::to_owned);
        let all = ask(async |client| {
            let query = LockQuery { prefix, limit: Some(OFFERED_MAX), cursor: None };
            let page = client.locks(&query).await.ok()?;
            let one = |lock: &rota_api::Lock| {
                candidate(&lock.lock, &format!("held by session {}", lock.holder.session))
            };
            Some(page.items.iter().map(one).collect())
        });
        beginning(all, typed)
    })
}

/// Completes sessions.
pub(crate) fn sessions() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let all = ask(async |client| {
            let query = PageQuery { limit: Some(OFFERED_MAX), cursor: None };
            let page = client.sessions(&query).await.ok()?;
            let one = |session: &rota_api::Session| {
                candidate(&session.id.to_string(), &format!("{} locks", session.locks))
            };
            Some(page.items.iter().map(one).collect())
        });
        beginning(all, typed)
    })
}

async fn known_jobs(client: Client) -> Option<Vec<CompletionCandidate>> {
    let page =
        client.jobs(&JobQuery { limit: Some(OFFERED_MAX), ..JobQuery::default() }).await.ok()?;
    let one = |job: &rota_api::Job| {
        candidate(&job.id.to_string(), &format!("{}, {}", clean(&job.name), job.state))
    };
    Some(page.items.iter().map(one).collect())
}

async fn known_tasks(client: Client, job: u64) -> Option<Vec<CompletionCandidate>> {
    let query = TaskQuery { limit: Some(OFFERED_MAX), ..TaskQuery::default() };
    let page = client.tasks(job, &query).await.ok()?;
    let one = |task: &rota_api::Task| {
        candidate(&task.id, &format!("{}, {}", clean(&task.group), task.state))
    };
    Some(page.items.iter().map(one).collect())
}

fn candidate(value: &str, help: &str) -> CompletionCandidate {
    CompletionCandidate::new(value).help(Some(help.to_owned().into()))
}

/// Those that begin with what was typed, in their order.
fn beginning(all: Vec<CompletionCandidate>, typed: &OsStr) -> Vec<CompletionCandidate> {
    let typed = typed.as_encoded_bytes();
    let fits = |one: &CompletionCandidate| one.get_value().as_encoded_bytes().starts_with(typed);
    all.into_iter()
        .filter(fits)
        .enumerate()
        .map(|(place, one)| one.display_order(Some(place)))
        .collect()
}

/// What the configured server says, or nothing.
fn ask(
    question: impl AsyncFnOnce(Client) -> Option<Vec<CompletionCandidate>>,
) -> Vec<CompletionCandidate> {
    let answer = || {
        let settled = Config::load(&Global::default()).ok()?;
        let (servers, access) = (settled.servers.value, settled.access);
        let config =
            ClientConfig { servers, timeout: TIMEOUT, retry: false, submitter: None, access };
        let client = Client::new(&config).ok()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        runtime.block_on(async { tokio::time::timeout(TIMEOUT, question(client)).await.ok()? })
    };
    answer().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_begins_like_the_typed_text_is_offered_in_its_order() {
        let all = ["17", "last", "1", "21"].map(|value| candidate(value, "")).into();
        let found = beginning(all, OsStr::new("1"));
        let values: Vec<&OsStr> = found.iter().map(CompletionCandidate::get_value).collect();
        assert_eq!(values, ["17", "1"]);
    }
}
