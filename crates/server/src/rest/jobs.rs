//! Jobs: lists, one job, cancel.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use rota_api::{
    CancelReply, CancelRequest, Cancelled, ErrorCode, GRACE_DEFAULT, Job, JobQuery, JobShowQuery,
    JobState, Moment, Page, Problem, Requirement, parse_ranges,
};
use rota_core::command::{CancelTasks, Command, Reply};
use rota_core::job::FinishedJob;
use rota_store::history::JobFilter;
use rota_types::limits::{GRACE_MAX, MESSAGE_BYTES_MAX};
use rota_types::{Constraint, JobId, RangeSet, Span};

use rota_wire::history::TasksCancelled;

use super::App;
use super::extract::{OptionalJson, PathPart, Query};
use super::lists::{self, ListId};
use super::present;
use super::problem::{About, Answer, refuse, rejected};
use crate::core_thread::View;
use crate::handle::Urgency;

/// Live jobs that one visit to the core thread looks at.
const EXAMINED_MAX: usize = 2_000;
/// Jobs that one request looks at, wanted or not, before it answers with what it has.
const EXAMINED_PER_REQUEST_MAX: usize = 100_000;
/// Reasons of cancels that one job tells.
const CANCELS_MAX: usize = 10;

/// Lists jobs, newest first: those that are not over and those of the history.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", operation_id = "listJobs", params(JobQuery), responses(
    (status = 200, description = "A page of jobs.", body = Page<Job>),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list_jobs(
    State(app): State<App>,
    Query(query): Query<JobQuery>,
) -> Answer<Json<Page<Job>>> {
    let limit = lists::limit(query.limit)?;
    let filter = Filter::new(&query)?;
    let parts = [&query.state, &query.queue, &query.name, &query.label, &query.submitter];
    let list = ListId::new("jobs", &parts.map(Option::as_deref));
    let mut before = JobId(list.begin(query.cursor.as_deref())?.unwrap_or(u64::MAX));
    let mut gathered = Gathered { limit, jobs: Vec::new(), examined: 0 };
    let index = app.core.applied();
    let rest = loop {
        match gathered.take(merged(&app, &filter, before, gathered.wanted()).await?) {
            Next::Look(below) => before = below,
            Next::Answer(rest) => break rest,
        }
    };
    let next_cursor = rest.map(|below| list.cursor(below.0));
    Ok(Json(Page { items: gathered.jobs, next_cursor, index: index.0 }))
}

/// What one request has found so far.
struct Gathered {
    limit: usize,
    jobs: Vec<Job>,
    examined: usize,
}

/// What to do after a part.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Look at what is below this id.
    Look(JobId),
    /// Answer; the next page begins below this id, if there is one.
    Answer(Option<JobId>),
}

impl Gathered {
    /// How many jobs the next part may have: one more than fits tells that there is a next page.
    fn wanted(&self) -> usize {
        self.limit + 1 - self.jobs.len()
    }

    fn take(&mut self, part: Part) -> Next {
        self.examined += part.examined;
        self.jobs.extend(part.jobs);
        if self.jobs.len() > self.limit {
            self.jobs.truncate(self.limit);
            return Next::Answer(self.jobs.last().map(|job| JobId(job.id)));
        }
        match part.floor {
            Some(floor) if self.examined < EXAMINED_PER_REQUEST_MAX => Next::Look(floor),
            rest => Next::Answer(rest),
        }
    }
}

/// Part of a list.
struct Part {
    /// Newest first.
    jobs: Vec<Job>,
    /// Everything with this id and above was looked at; `None` if there is nothing below.
    floor: Option<JobId>,
    examined: usize,
}

/// Up to `wanted` jobs below `before`, from the state and from the history.
async fn merged(app: &App, filter: &Filter, before: JobId, wanted: usize) -> Answer<Part> {
    // The state first: a job that leaves it meanwhile is in the history when that is read.
    let live_filter = filter.clone();
    let live = app.core.query(move |view| live_part(view, &live_filter, before, wanted)).await?;
    let rota_store::history::Page { items: stored, next: stored_floor, looked } =
        app.history.jobs(filter.stored(), before, wanted).await?;
    let floor = match (live.floor, stored_floor) {
        (Some(live), Some(stored)) => Some(live.max(stored)),
        (live, stored) => live.or(stored),
    };
    let above = |id: u64| floor.is_none_or(|floor| id >= floor.0);
    let examined = live.examined + looked;
    let mut jobs: Vec<Job> = live.jobs;
    // A job that was live a moment ago is told once, as it was then.
    let known: std::collections::BTreeSet<u64> = live.seen.into_iter().collect();
    let fresh = stored.iter().filter(|job| !known.contains(&job.id.0));
    jobs.extend(fresh.map(present::finished_job));
    jobs.retain(|job| above(job.id));
    jobs.sort_unstable_by_key(|job| std::cmp::Reverse(job.id));
    let cut = jobs.len() > wanted;
    jobs.truncate(wanted);
    let floor = if cut { jobs.last().map(|job| JobId(job.id)) } else { floor };
    Ok(Part { jobs, floor, examined })
}

/// What one visit to the core thread found.
struct LivePart {
    jobs: Vec<Job>,
    /// Ids that were looked at and may be in the history as well by now.
    seen: Vec<u64>,
    floor: Option<JobId>,
    examined: usize,
}

fn live_part(view: &View<'_>, filter: &Filter, before: JobId, wanted: usize) -> LivePart {
    let mut part = LivePart { jobs: Vec::new(), seen: Vec::new(), floor: None, examined: 0 };
    for (id, job) in view.state.jobs_before(before) {
        if part.examined >= EXAMINED_MAX || part.jobs.len() >= wanted {
            part.floor = Some(id.next());
            return part;
        }
        part.examined += 1;
        part.seen.push(id.0);
        if filter.admits_live(view, job) {
            part.jobs.push(present::live_job(view.state, id, job));
        }
    }
    part
}

/// Which jobs to list.
#[derive(Clone)]
struct Filter {
    states: Vec<JobState>,
    queue: Option<String>,
    name: Option<String>,
    submitter: Option<String>,
    labels: Vec<Constraint>,
}

impl Filter {
    fn new(query: &JobQuery) -> Answer<Self> {
        let states: Vec<JobState> = parse_list(query.state.as_deref(), "state")?;
        let labels: Vec<Requirement> = parse_list(query.label.as_deref(), "label")?;
        Ok(Self {
            states,
            queue: query.queue.clone(),
            name: query.name.clone(),
            submitter: query.submitter.clone(),
            labels: labels.into_iter().map(|requirement| requirement.0).collect(),
        })
    }

    fn admits_live(&self, view: &View<'_>, job: &rota_core::job::Job) -> bool {
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        let queue = || view.state.queue(job.queue).map_or("", |queue| &queue.spec.name);
        (self.states.is_empty() || self.states.contains(&present::live_job_state(job)))
            && is(&self.name, &job.name)
            && (self.queue.is_none() || is(&self.queue, queue()))
            && is(&self.submitter, &job.submitter)
            && self.labels.iter().all(|constraint| constraint.admits(job.labels()))
    }

    /// The same for jobs that are over.
    fn stored(&self) -> JobFilter {
        let text = |wanted: &Option<String>| wanted.as_deref().map(Into::into);
        JobFilter {
            states: self.states.iter().copied().map(core_state).collect(),
            queue: text(&self.queue),
            name: text(&self.name),
            submitter: text(&self.submitter),
            labels: self.labels.clone(),
        }
    }
}

fn core_state(state: JobState) -> rota_core::job::JobState {
    match state {
        JobState::Queued => rota_core::job::JobState::Queued,
        JobState::Running => rota_core::job::JobState::Running,
        JobState::Succeeded => rota_core::job::JobState::Succeeded,
        JobState::Failed => rota_core::job::JobState::Failed,
        JobState::Cancelled => rota_core::job::JobState::Cancelled,
    }
}

/// Parses a list with commas between its parts.
pub(super) fn parse_list<T>(text: Option<&str>, what: &str) -> Answer<Vec<T>>
where
    T: std::str::FromStr<Err = rota_api::ScalarError>,
{
    let parts = text.filter(|text| !text.is_empty()).into_iter().flat_map(|text| text.split(','));
    parts
        .map(|part| {
            part.trim().parse().map_err(|error: rota_api::ScalarError| {
                let detail = format!("{what}: {}", error.message);
                let refused = refuse(ErrorCode::InvalidParameter, detail);
                if error.hint.is_empty() { refused } else { refused.with_hint(&error.hint) }
            })
        })
        .collect()
}

/// Shows one job.
#[utoipa::path(get, path = "/v1/jobs/{id}", tag = "jobs", operation_id = "showJob",
    params(("id" = u64, Path, description = "The job's id."), JobShowQuery), responses(
    (status = 200, description = "The job.", body = Job),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn show_job(
    State(app): State<App>,
    PathPart(id): PathPart<JobId>,
    Query(query): Query<JobShowQuery>,
) -> Answer<Json<Job>> {
    let with_spec = query.spec.unwrap_or(false);
    let found = app
        .core
        .query(move |view| {
            let job = view.state.job(id)?;
            let mut told = present::live_job(view.state, id, job);
            told.groups = present::live_groups(view.state, job);
            let spec = with_spec.then(|| view.state.spec_of(job));
            Some((told, spec, job.failed().clone()))
        })
        .await?;
    let (mut told, spec, failed) = match found {
        Some(live) => live,
        None => {
            let job = finished(&app, id).await?;
            let mut told = present::finished_job(&job);
            told.groups = present::finished_groups(&job);
            (told, with_spec.then_some(job.spec), job.failed)
        }
    };
    told.spec = spec.as_ref().map(present::spec);
    if let Some((first, _)) = failed.first_range() {
        let task = rota_types::TaskId { job: id, index: first };
        told.first_failure = super::tasks::attempts(&app, task).await?.pop();
    }
    if told.counts.cancelled > 0 {
        let cancels = app.history.cancelled(id).await?.into_iter();
        let cancels = cancels.filter(|cancelled| !cancelled.reason.is_empty());
        told.cancels = cancels.take(CANCELS_MAX).map(cancelled).collect();
    }
    Ok(Json(told))
}

fn cancelled(TasksCancelled { tasks, at, reason, job: _ }: TasksCancelled) -> Cancelled {
    Cancelled { tasks: tasks.len(), at: Moment(at), reason: reason.into() }
}

/// A job that is over.
pub(super) async fn finished(app: &App, id: JobId) -> Answer<FinishedJob> {
    let stored = app.history.job(id).await?;
    stored.ok_or_else(|| refuse(ErrorCode::JobNotFound, format!("there is no job {id}")))
}

/// Cancels a job's tasks: what waits is over at once, what runs is asked to stop.
#[utoipa::path(post, path = "/v1/jobs/{id}/cancel", tag = "jobs", operation_id = "cancelJob",
    params(("id" = u64, Path, description = "The job's id.")), request_body = Option<CancelRequest>, responses(
    (status = 202, description = "It is recorded.", body = CancelReply),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn cancel_job(
    State(app): State<App>,
    PathPart(id): PathPart<JobId>,
    OptionalJson(request): OptionalJson<CancelRequest>,
) -> Answer<(StatusCode, Json<CancelReply>)> {
    cancel(&app, id, request).await
}

/// Cancels a job's tasks and kills what runs without asking.
#[utoipa::path(post, path = "/v1/jobs/{id}/kill", tag = "jobs", operation_id = "killJob",
    params(("id" = u64, Path, description = "The job's id.")), request_body = Option<CancelRequest>, responses(
    (status = 202, description = "It is recorded.", body = CancelReply),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn kill_job(
    State(app): State<App>,
    PathPart(id): PathPart<JobId>,
    OptionalJson(request): OptionalJson<CancelRequest>,
) -> Answer<(StatusCode, Json<CancelReply>)> {
    let grace = Some(rota_api::Duration(Span::ZERO));
    cancel(&app, id, CancelRequest { grace, ..request }).await
}

async fn cancel(
    app: &App,
    id: JobId,
    request: CancelRequest,
) -> Answer<(StatusCode, Json<CancelReply>)> {
    let CancelRequest { tasks, grace, reason } = request;
    let invalid = |detail: String| refuse(ErrorCode::InvalidRequest, detail);
    let tasks: Option<RangeSet> = match tasks {
        None => None,
        Some(text) => Some(parse_ranges(&text).ok_or_else(|| {
            invalid(format!("tasks: {text:?} is not a list of ranges such as 0-9,12"))
        })?),
    };
    let grace = grace.map_or(GRACE_DEFAULT, |grace| grace.0);
    if grace > GRACE_MAX {
        return Err(invalid(format!("grace: {grace} is longer than {GRACE_MAX}")));
    }
    let reason = reason.unwrap_or_default();
    if reason.len() > MESSAGE_BYTES_MAX {
        return Err(invalid(format!("reason: at most {MESSAGE_BYTES_MAX} bytes are kept")));
    }
    let command =
        Command::CancelTasks(CancelTasks { job: id, tasks, grace, reason: reason.into() });
    let (_, outcome) = app.core.command(Urgency::Finishing, command).await?;
    match outcome {
        Ok(Reply::Cancelled { ended, stopping }) => {
            Ok((StatusCode::ACCEPTED, Json(CancelReply { ended, stopping })))
        }
        Ok(other) => {
            Err(super::problem::internal("cancelling", format!("answered with {other:?}")))
        }
        Err(rota_core::command::Rejection::UnknownJob(_)) => {
            // A job that is over is known, and has nothing left to cancel.
            finished(app, id).await?;
            Err(rejected(About::Job, &rota_core::command::Rejection::NothingToCancel(id)))
        }
        Err(rejection) => Err(rejected(About::Job, &rejection)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(ids: &[u64], floor: Option<u64>, examined: usize) -> Part {
        let jobs = ids.iter().map(|id| Job { id: *id, ..Job::default() }).collect();
        Part { jobs, floor: floor.map(JobId), examined }
    }

    fn ids(gathered: &Gathered) -> Vec<u64> {
        gathered.jobs.iter().map(|job| job.id).collect()
    }

    #[test]
    fn a_list_answers_once_it_has_looked_at_enough_even_if_nothing_was_wanted() {
        for (examined, next) in [
            (EXAMINED_PER_REQUEST_MAX - 1, Next::Look(JobId(7))),
            (EXAMINED_PER_REQUEST_MAX, Next::Answer(Some(JobId(7)))),
            (EXAMINED_PER_REQUEST_MAX + 1, Next::Answer(Some(JobId(7)))),
        ] {
            let mut gathered = Gathered { limit: 2, jobs: Vec::new(), examined: 0 };
            assert_eq!(gathered.take(part(&[], Some(9), 1)), Next::Look(JobId(9)));
            assert_eq!(gathered.take(part(&[], Some(7), examined - 1)), next, "{examined}");
        }
    }

    #[test]
    fn a_page_is_as_long_as_its_limit_and_the_next_one_begins_behind_it() {
        let mut gathered = Gathered { limit: 2, jobs: Vec::new(), examined: 0 };
        assert_eq!(gathered.take(part(&[9], Some(9), 1)), Next::Look(JobId(9)));
        assert_eq!(gathered.wanted(), 2);
        assert_eq!(gathered.take(part(&[8, 5], Some(5), 1)), Next::Answer(Some(JobId(8))));
        assert_eq!(ids(&gathered), [9, 8]);
        let mut whole = Gathered { limit: 2, jobs: Vec::new(), examined: 0 };
        assert_eq!(whole.take(part(&[9, 8], None, 1)), Next::Answer(None));
        assert_eq!(ids(&whole), [9, 8]);
    }
}
