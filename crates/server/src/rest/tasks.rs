//! Tasks: lists, one task, its attempts, why it waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use rota_api::{
    Attempt, ErrorCode, Explain, ExplainQueue, Page, Problem, Task, TaskQuery, TaskState,
};
use rota_core::command::JobSpec;
use rota_types::{JobId, NodeId, TaskId};

use super::App;
use super::extract::{PathPart, Query};
use super::jobs::{finished, parse_list};
use super::lists::{self, ListId};
use super::present;
use super::problem::{Answer, refuse};
use crate::core_thread::View;

/// Tasks that one visit to the core thread looks at.
const EXAMINED_MAX: u32 = 4_000;
/// Tasks that one request looks at before it answers with what it has.
const EXAMINED_PER_REQUEST_MAX: u32 = 400_000;

/// Lists the tasks of a job, by index.
#[utoipa::path(get, path = "/v1/jobs/{id}/tasks", tag = "tasks", operation_id = "listTasks",
    params(("id" = u64, Path, description = "The job's id."), TaskQuery), responses(
    (status = 200, description = "A page of tasks.", body = Page<Task>),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list_tasks(
    State(app): State<App>,
    PathPart(id): PathPart<JobId>,
    Query(query): Query<TaskQuery>,
) -> Answer<Json<Page<Task>>> {
    let limit = lists::limit(query.limit)?;
    let filter =
        Filter { states: parse_list(query.state.as_deref(), "state")?, group: query.group.clone() };
    let job_text = id.to_string();
    let list =
        ListId::new("tasks", &[Some(&job_text), query.state.as_deref(), query.group.as_deref()]);
    let begin = list.begin(query.cursor.as_deref())?.unwrap_or(0);
    let mut next = u32::try_from(begin)
        .map_err(|_| refuse(ErrorCode::InvalidCursor, "the cursor is not one of this list"))?;
    let index = app.core.applied();
    let mut items = Vec::new();
    let started = next;
    let next_cursor = loop {
        let wanted = limit - items.len();
        let part = part(&app, id, &filter, next, wanted).await?;
        items.extend(part.tasks);
        match part.next {
            None => break None,
            Some(at) if items.len() >= limit || at - started >= EXAMINED_PER_REQUEST_MAX => {
                break Some(list.cursor(u64::from(at)));
            }
            Some(at) => next = at,
        }
    };
    add_attempts(&app, id, &mut items).await?;
    add_reasons(&app, id, &mut items).await?;
    Ok(Json(Page { items, next_cursor, index: index.0 }))
}

struct Part {
    tasks: Vec<Task>,
    /// The index to go on with; `None` at the end.
    next: Option<u32>,
}

#[derive(Clone)]
struct Filter {
    states: Vec<TaskState>,
    group: Option<String>,
}

impl Filter {
    fn admits<'a>(&self, state: TaskState, group: impl FnOnce() -> Option<&'a str>) -> bool {
        (self.states.is_empty() || self.states.contains(&state))
            && self.group.as_deref().is_none_or(|wanted| group() == Some(wanted))
    }

    fn admits_live(&self, view: &View<'_>, id: TaskId) -> bool {
        if self.states.is_empty() && self.group.is_none() {
            return true;
        }
        let state = present::live_state(view, id);
        state.is_some_and(|state| {
            self.admits(state, || view.state.group(id).map(|group| &*group.terms.name))
        })
    }
}

async fn part(app: &App, id: JobId, filter: &Filter, from: u32, wanted: usize) -> Answer<Part> {
    let live_filter = filter.clone();
    let live = app
        .core
        .query(move |view| {
            let total = view.state.job(id)?.tasks();
            let admits = |index| live_filter.admits_live(view, TaskId { job: id, index });
            let tell = |index| present::live_task(view, TaskId { job: id, index });
            Some(scan(admits, tell, total, from, wanted))
        })
        .await?;
    if let Some(part) = live {
        return Ok(part);
    }
    let job = finished(app, id).await?;
    let total = u32::try_from(job.counts.total()).unwrap_or(u32::MAX);
    let admits = |index| {
        let state = present::finished_state(&job, index);
        let group = || present::group_at(&job.spec, index).map(|(_, group)| &*group.name);
        filter.admits(state, group)
    };
    Ok(scan(admits, |index| present::finished_task(&job, index), total, from, wanted))
}

fn scan(
    admits: impl Fn(u32) -> bool,
    tell: impl Fn(u32) -> Option<Task>,
    total: u32,
    from: u32,
    wanted: usize,
) -> Part {
    let mut tasks = Vec::new();
    let end = total.min(from.saturating_add(EXAMINED_MAX));
    for index in from..end {
        if tasks.len() >= wanted {
            return Part { tasks, next: Some(index) };
        }
        if admits(index) {
            tasks.extend(tell(index));
        }
    }
    Part { tasks, next: (end < total).then_some(end) }
}

/// Adds to each task on a page what its last ended attempt tells.
async fn add_attempts(app: &App, job: JobId, tasks: &mut [Task]) -> Answer<()> {
    // Only those that tell nothing of a live attempt.
    let wanted = |task: &Task| {
        task.node.is_none() && !matches!(task.state, TaskState::Queued if task.attempt == 0)
    };
    let indexes: BTreeSet<u32> =
        tasks.iter().filter(|task| wanted(task)).map(|task| task.index).collect();
    if indexes.is_empty() {
        return Ok(());
    }
    let last = app.history.last_attempts(job, indexes).await?;
    let nodes = last.values().map(|record| record.node).collect();
    let names = names(app, nodes).await?;
    for task in tasks.iter_mut().filter(|task| wanted(task)) {
        if let Some(record) = last.get(&task.index) {
            let node = names.get(&record.node).cloned().unwrap_or_default();
            present::add_last(task, &present::ended_attempt(record, node, &task.group));
        }
    }
    Ok(())
}

/// Adds to each task that was cancelled before it had an attempt why that was.
async fn add_reasons(app: &App, job: JobId, tasks: &mut [Task]) -> Answer<()> {
    let wanted = |task: &Task| task.state == TaskState::Cancelled && task.attempt == 0;
    if !tasks.iter().any(wanted) {
        return Ok(());
    }
    let all = app.history.cancelled(job).await?;
    for task in tasks.iter_mut().filter(|task| wanted(task)) {
        let why = all.iter().find(|cancelled| cancelled.tasks.contains(task.index));
        let reason = why.map(|cancelled| cancelled.reason.to_string());
        task.cancel_reason = reason.filter(|reason| !reason.is_empty());
    }
    Ok(())
}

async fn names(app: &App, nodes: BTreeSet<NodeId>) -> Answer<BTreeMap<NodeId, String>> {
    let named = move |view: &View<'_>| -> BTreeMap<NodeId, String> {
        nodes.into_iter().map(|node| (node, present::node_name(view.state, node))).collect()
    };
    Ok(app.core.query(named).await?)
}

/// Shows one task with its attempts.
#[utoipa::path(get, path = "/v1/tasks/{id}", tag = "tasks", operation_id = "showTask",
    params(("id" = String, Path, description = "The task's id.", example = "17.3", pattern = "^[0-9]{1,18}[.][0-9]{1,9}$")), responses(
    (status = 200, description = "The task.", body = Task),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn show_task(
    State(app): State<App>,
    PathPart(id): PathPart<TaskId>,
) -> Answer<Json<Task>> {
    Ok(Json(task(&app, id).await?))
}

/// Lists the attempts of a task, oldest first.
#[utoipa::path(get, path = "/v1/tasks/{id}/attempts", tag = "tasks", operation_id = "listAttempts",
    params(("id" = String, Path, description = "The task's id.", example = "17.3", pattern = "^[0-9]{1,18}[.][0-9]{1,9}$")), responses(
    (status = 200, description = "The attempts.", body = Page<Attempt>),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list_attempts(
    State(app): State<App>,
    PathPart(id): PathPart<TaskId>,
) -> Answer<Json<Page<Attempt>>> {
    let index = app.core.applied().0;
    let task = task(&app, id).await?;
    Ok(Json(Page { items: task.attempts, next_cursor: None, index }))
}

/// A task with its attempts.
pub(super) async fn task(app: &App, id: TaskId) -> Answer<Task> {
    let live = app
        .core
        .query(move |view| {
            let task = present::live_task(view, id)?;
            let group = view.state.group(id)?;
            // The action may be large: it is decoded elsewhere.
            Some((task, Arc::clone(&group.action), id.index - group.first))
        })
        .await?;
    let mut told = match live {
        Some((told, action, place)) => Task { entry: entry(&action, place), ..told },
        None => ended_task(app, id).await?,
    };
    told.attempts = attempts(app, id).await?;
    if let Some(last) = told.attempts.last().cloned() {
        present::add_last(&mut told, &last);
    }
    add_reasons(app, id.job, std::slice::from_mut(&mut told)).await?;
    Ok(told)
}

async fn ended_task(app: &App, id: TaskId) -> Answer<Task> {
    if app.core.query(move |view| view.state.job(id.job).is_some()).await? {
        return Err(refuse(
            ErrorCode::TaskNotFound,
            format!("job {} has no task {}", id.job, id.index),
        ));
    }
    let job = finished(app, id.job).await?;
    let mut told = present::finished_task(&job, id.index).ok_or_else(|| {
        refuse(ErrorCode::TaskNotFound, format!("job {} has no task {}", id.job, id.index))
    })?;
    told.entry = entry_of(&job.spec, id.index);
    Ok(told)
}

fn entry_of(spec: &JobSpec, index: u32) -> Option<String> {
    let (first, group) = present::group_at(spec, index)?;
    entry(&group.action, index - first)
}

fn entry(action: &[u8], place: u32) -> Option<String> {
    let group = rota_wire::action::decode_group_action(action).ok()?;
    group.entries.into_iter().nth(place as usize)
}

/// The attempts of a task, oldest first, the live one included.
pub(super) async fn attempts(app: &App, id: TaskId) -> Answer<Vec<Attempt>> {
    let (live, group) = app
        .core
        .query(move |view| {
            let task = view.state.task(id);
            let live = task.and_then(|task| {
                let attempt = task.attempt()?;
                Some(present::live_attempt(view, task.latest(id), attempt))
            });
            let group = view.state.group(id).map(|group| group.terms.name.to_string());
            (live, group)
        })
        .await?;
    let records = app.history.attempts(id).await?;
    if records.is_empty() && live.is_none() {
        return Ok(Vec::new());
    }
    let group = match group {
        Some(group) => group,
        None => {
            let job = finished(app, id.job).await?;
            present::group_at(&job.spec, id.index)
                .map(|(_, group)| group.name.to_string())
                .unwrap_or_default()
        }
    };
    let names = names(app, records.iter().map(|record| record.node).collect()).await?;
    let ended = records.iter().map(|record| {
        let node = names.get(&record.node).cloned().unwrap_or_default();
        present::ended_attempt(record, node, &group)
    });
    let mut all: Vec<Attempt> = ended.collect();
    let last = all.last().map_or(0, |attempt| attempt.number);
    all.extend(live.filter(|live| live.number > last));
    Ok(all)
}

/// Says why a task waits, or where it is.
#[utoipa::path(get, path = "/v1/tasks/{id}/explain", tag = "tasks", operation_id = "explainTask",
    params(("id" = String, Path, description = "The task's id.", example = "17.3", pattern = "^[0-9]{1,18}[.][0-9]{1,9}$")), responses(
    (status = 200, description = "The explanation.", body = Explain),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn explain_task(
    State(app): State<App>,
    PathPart(id): PathPart<TaskId>,
) -> Answer<Json<Explain>> {
    if let Some(told) = app.core.query(move |view| super::explain::explain(view, id)).await? {
        return Ok(Json(told));
    }
    let task = ended_task(&app, id).await?;
    Ok(Json(Explain {
        task: task.id,
        state: task.state,
        summary: vec![format!("the job is over; this task {}", task.state)],
        queue: None::<ExplainQueue>,
        ..Explain::default()
    }))
}
