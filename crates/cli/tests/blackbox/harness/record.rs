//! What the server says happened.

use std::collections::BTreeMap;
use std::time::Duration;

use rota_api::{Attempt, Job, Page, Task};

use super::{Api, until};

/// Every job with its tasks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) jobs: BTreeMap<u64, (Job, Vec<Task>)>,
}

impl Record {
    /// Waits until every job is over, then reads everything.
    pub(crate) fn when_over(api: Api, limit: Duration) -> Self {
        until("the end of every job", limit, || {
            let answer = api.send("GET", "/v1/jobs?state=queued,running&limit=1", &[], b"").ok()?;
            // No server leads for a moment.
            let answer = (answer.status != 503).then_some(answer)?;
            let page: Page<Job> = answer.expect(200);
            page.items.is_empty().then_some(())
        });
        Self::read(api)
    }

    /// Reads everything.
    pub(crate) fn read(api: Api) -> Self {
        let mut jobs = BTreeMap::new();
        for job in pages::<Job>(api, "/v1/jobs?limit=1000") {
            let id = job.id;
            let tasks = pages(api, &format!("/v1/jobs/{id}/tasks?limit=1000"));
            let before = jobs.insert(id, (job, tasks));
            assert!(before.is_none(), "job {id} is listed twice");
        }
        Self { jobs }
    }

    /// The jobs by name; every name stands for one job.
    pub(crate) fn by_name(&self) -> BTreeMap<&str, &(Job, Vec<Task>)> {
        let mut named = BTreeMap::new();
        for entry in self.jobs.values() {
            let before = named.insert(entry.0.name.as_str(), entry);
            assert!(
                before.is_none(),
                "two jobs for one request: {:?} and {:?}",
                before.map(|it| &it.0),
                entry.0
            );
        }
        named
    }

    pub(crate) fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.jobs.values().flat_map(|(_, tasks)| tasks)
    }
}

/// The attempts of a task, oldest first.
pub(crate) fn attempts(api: Api, task: &str) -> Vec<Attempt> {
    api.get::<Task>(&format!("/v1/tasks/{task}")).attempts
}

fn pages<T: serde::de::DeserializeOwned>(api: Api, path: &str) -> Vec<T> {
    let mut items = Vec::new();
    let mut cursor = String::new();
    loop {
        let page: Page<T> = api.get(&format!("{path}{cursor}"));
        items.extend(page.items);
        match page.next_cursor {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return items,
        }
    }
}
