//! What people write to mean jobs and tasks: `5`, `1-3`, `5,7`, `last`, `@failed`, `-l team=render`, `17.3`.

use std::collections::BTreeSet;

use rota_api::{ErrorCode, JobQuery, JobState, PAGE_MAX, TaskQuery};
use rota_client::Client;
use rota_types::TaskId;

use crate::trouble::{Result, Trouble};

/// Jobs that one selector may name.
const SELECTED_MAX: usize = 10_000;

/// A part of a selector for jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JobSelector {
    /// Ids from the first to the second, both included.
    Ids(u64, u64),
    /// The newest job.
    Last,
    /// Every job in this state.
    State(JobState),
}

/// Reads a selector such as `5,7-9,last`.
pub(crate) fn parse_jobs(text: &str) -> Result<Vec<JobSelector>> {
    text.split(',').map(|part| parse_one(part, text)).collect()
}

fn parse_one(part: &str, whole: &str) -> Result<JobSelector> {
    let wrong =
        || Trouble::new(ErrorCode::BadSelector, format!("\"{whole}\" does not select jobs"));
    if part == "last" {
        return Ok(JobSelector::Last);
    }
    if let Some(state) = part.strip_prefix('@') {
        let state =
            state.parse().map_err(|error: rota_api::ScalarError| wrong().hint(error.hint))?;
        return Ok(JobSelector::State(state));
    }
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let (first, last) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
    if last < first || last - first >= SELECTED_MAX as u64 {
        return Err(wrong());
    }
    Ok(JobSelector::Ids(first, last))
}

/// The jobs that the selectors and labels name, ascending, each once.
pub(crate) async fn jobs(
    client: &Client,
    selectors: &[String],
    labels: &[String],
) -> Result<Vec<u64>> {
    if selectors.is_empty() && labels.is_empty() {
        return Err(Trouble::new(ErrorCode::BadSelector, "no job is selected"));
    }
    let mut ids = Vec::new();
    for selector in
        selectors.iter().map(|text| parse_jobs(text)).collect::<Result<Vec<_>>>()?.concat()
    {
        match selector {
            JobSelector::Ids(first, last) => ids.extend(first..=last),
            JobSelector::Last => ids.push(last(client).await?),
            JobSelector::State(state) => {
                let query = JobQuery { state: Some(state.to_string()), ..JobQuery::default() };
                ids.extend(matching(client, query).await?);
            }
        }
    }
    if !labels.is_empty() {
        let query = JobQuery { label: Some(labels.join(",")), ..JobQuery::default() };
        let labelled: BTreeSet<u64> = matching(client, query).await?.into_iter().collect();
        if selectors.is_empty() {
            ids = labelled.into_iter().collect();
        } else {
            ids.retain(|id| labelled.contains(id));
        }
    }
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return Err(Trouble::new(ErrorCode::JobNotFound, "no job is like that"));
    }
    Ok(ids)
}

/// One job: an id or `last`.
pub(crate) async fn job(client: &Client, text: &str) -> Result<u64> {
    match jobs(client, &[text.to_owned()], &[]).await?.as_slice() {
        [id] => Ok(*id),
        several => {
            let message = format!("\"{text}\" selects {} jobs; one is needed", several.len());
            Err(Trouble::new(ErrorCode::BadSelector, message))
        }
    }
}

/// The newest job.
async fn last(client: &Client) -> Result<u64> {
    let page = client.jobs(&JobQuery { limit: Some(1), ..JobQuery::default() }).await?;
    let newest = page.items.first().map(|job| job.id);
    newest.ok_or_else(|| Trouble::new(ErrorCode::JobNotFound, "there are no jobs yet"))
}

async fn matching(client: &Client, query: JobQuery) -> Result<Vec<u64>> {
    let mut query = JobQuery { limit: Some(PAGE_MAX), ..query };
    let mut ids = Vec::new();
    loop {
        let page = client.jobs(&query).await?;
        ids.extend(page.items.iter().map(|job| job.id));
        if page.next_cursor.is_none() {
            return Ok(ids);
        }
        if ids.len() >= SELECTED_MAX {
            let message = format!("more than {SELECTED_MAX} jobs are like that: nothing was done");
            let hint = "select fewer: by ids such as 1-9999, or by another label";
            return Err(Trouble::new(ErrorCode::LimitExceeded, message).hint(hint));
        }
        query.cursor = page.next_cursor;
    }
}

/// A task and, if one was named, an attempt of it: `17.3`, `17.3#2`, `last.0`. A job alone means its first task that needs attention:
/// one that failed, else one that is not over, else the first.
pub(crate) async fn task(client: &Client, text: &str) -> Result<(TaskId, Option<u32>)> {
    let wrong = || {
        let message = format!("\"{text}\" does not name a task");
        Trouble::new(ErrorCode::BadSelector, message)
            .hint("write 17.3 for task 3 of job 17, 17.3#2 for its second attempt")
    };
    let (task, attempt) = match text.split_once('#') {
        Some((task, attempt)) => (task, Some(attempt.parse().map_err(|_| wrong())?)),
        None => (text, None),
    };
    let task = match task.rsplit_once('.') {
        Some((of, index)) => {
            let index = index.parse().map_err(|_| wrong())?;
            TaskId { job: rota_types::JobId(job(client, of).await?), index }
        }
        None => notable(client, job(client, task).await?).await?,
    };
    Ok((task, attempt))
}

/// The task of a job that somebody who names only the job is likely to mean.
async fn notable(client: &Client, job: u64) -> Result<TaskId> {
    for state in [Some("failed"), Some("queued,waiting"), Some("running"), None] {
        let state = state.map(str::to_owned);
        let page =
            client.tasks(job, &TaskQuery { state, limit: Some(1), ..TaskQuery::default() }).await?;
        if let Some(task) = page.items.first() {
            return Ok(TaskId { job: rota_types::JobId(job), index: task.index });
        }
    }
    Err(Trouble::new(ErrorCode::TaskNotFound, format!("job {job} has no tasks")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_ids_ranges_lists_the_last_and_states() {
        let parsed = parse_jobs("5,7-9,last,@failed");
        let wanted = vec![
            JobSelector::Ids(5, 5),
            JobSelector::Ids(7, 9),
            JobSelector::Last,
            JobSelector::State(JobState::Failed),
        ];
        assert_eq!(parsed, Ok(wanted));
    }

    #[test]
    fn what_selects_nothing_is_refused() {
        for wrong in ["", "a", "5,", "9-7", "-3", "@", "@fialed", "1-10001", "17.3"] {
            let code = parse_jobs(wrong).map_err(|trouble| trouble.code);
            assert_eq!(code, Err(ErrorCode::BadSelector), "{wrong}");
        }
    }
}
