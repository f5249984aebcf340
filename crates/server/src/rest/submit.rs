//! Taking jobs in: one, many, streamed; dry runs; retries.

mod streamed;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue, LOCATION};
use rota_api::{
    ErrorCode, JobFile, Mistake, Problem, RetryRequest, SubmitReply, SubmitRequest, Submitted,
    Validated, into_spec, parse_ndjson, parse_submit, tasks_of,
};
use rota_core::command::{Command, GroupSpec, IdempotencyKey, JobSpec, Reply, SubmitJobs};
use rota_core::job::FinishedJob;
use rota_types::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use rota_types::{JobId, RangeSet};

use self::streamed::Streamed;
use super::App;
use super::extract::{
    OptionalJson, PathPart, WholeBody, aside, check_depth, media_type, read_body, unsupported,
};
use super::problem::{About, Answer, Refused, internal, refuse, rejected};
use super::{jobs, present};
use crate::handle::Urgency;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
pub(super) const SUBMITTER: HeaderName = HeaderName::from_static("x-rota-submitter");
const NDJSON: &str = "application/x-ndjson";

/// For the description; the handlers read them by themselves.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only described")]
struct SubmitHeaders {
    /// Makes it safe to repeat the request.
    #[param(
        rename = "Idempotency-Key",
        nullable = false,
        min_length = 1,
        max_length = 128,
        pattern = "^[!-~]+$"
    )]
    idempotency_key: Option<String>,
    /// Who submits, for lists and the record; "anonymous" by default. Nobody checks it until there are tokens.
    #[param(
        rename = "X-Rota-Submitter",
        nullable = false,
        min_length = 1,
        max_length = 128,
        pattern = "^[!-~]+$"
    )]
    x_rota_submitter: Option<String>,
}

/// Submits jobs.
///
/// The body is one job, `{"jobs": […]}` with up to 1000, or (as `application/x-ndjson`) one job per line, up to 1000; all are taken
/// in, or none.
/// With `Accept: application/x-ndjson`, lines are taken in as they come, up to 1000 per commit, and each is answered by a line. Where
/// such a submit ends early, the last answer names the first line that was not taken in: more than 1000 lines were refused, or the
/// body broke off or is too large.
#[utoipa::path(post, path = "/v1/jobs", tag = "jobs", operation_id = "submitJobs",
    params(SubmitHeaders),
    request_body(content(
        (SubmitRequest = "application/json"),
        (String = "application/x-ndjson"),
    )), responses(
    (status = 200, description = "The lines' answers, for a streamed submit.", body = String, content_type = "application/x-ndjson"),
    (status = 201, description = "The jobs are recorded.", body = SubmitReply),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn submit_jobs(State(app): State<App>, request: Request) -> Answer<Response> {
    let (parts, body) = request.into_parts();
    let headers = parts.headers;
    let submitter = submitter(&headers)?;
    let key = idempotency_key(&headers)?;
    let lines = match media_type(&headers).as_str() {
        "application/json" => false,
        NDJSON => true,
        _ => return Err(unsupported(&headers)),
    };
    if lines && accepts_lines(&headers) {
        return Streamed::new(app, submitter, key).run(body).await;
    }
    let max = if lines { app.config.bulk_bytes_max } else { app.config.body_bytes_max };
    let WholeBody { bytes, room } = read_body(&app, &headers, body, max).await?;
    let length = bytes.len();
    let (specs, digest) = aside(length, move || {
        let jobs = if lines { lines_of(&bytes) } else { json_of(&bytes) };
        Ok((specs(jobs?, &submitter)?, digest(&[b"submit", &bytes])))
    })
    .await?;
    drop(room);
    let idempotency = key.map(|key| IdempotencyKey { key, digest });
    let reply = take_in(&app, specs, idempotency, length).await?;
    Ok(created(reply))
}

fn json_of(bytes: &[u8]) -> Answer<Vec<JobFile>> {
    check_depth(bytes)?;
    parse_submit(bytes).map_err(mistaken)
}

fn lines_of(bytes: &[u8]) -> Answer<Vec<JobFile>> {
    for line in bytes.split(|byte| *byte == b'\n') {
        check_depth(line)?;
    }
    parse_ndjson(bytes).map_err(mistaken)
}

/// Checks a job without taking it in, and shows how it would be kept.
#[utoipa::path(post, path = "/v1/jobs/validate", tag = "jobs", operation_id = "validateJob", request_body = JobFile, responses(
    (status = 200, description = "It is valid.", body = Validated),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn validate_job(
    State(app): State<App>,
    request: Request,
) -> Answer<Json<Validated>> {
    let (parts, body) = request.into_parts();
    let submitter = submitter(&parts.headers)?;
    if media_type(&parts.headers) != "application/json" {
        return Err(unsupported(&parts.headers));
    }
    let body = read_body(&app, &parts.headers, body, app.config.body_bytes_max).await?;
    let mut jobs = aside(body.bytes.len(), move || json_of(&body.bytes)).await?;
    let (Some(job), true) = (jobs.pop(), jobs.is_empty()) else {
        return Err(refuse(ErrorCode::InvalidRequest, "one job at a time is checked"));
    };
    let tasks = tasks_of(&job);
    let spec = into_spec(job, &submitter).map_err(mistaken)?;
    let kept = present::spec(&spec);
    let warnings = app.core.query(move |view| warnings(view.state, &spec)).await?;
    Ok(Json(Validated { job: kept, tasks, warnings }))
}

/// What might surprise whoever submits this.
fn warnings(state: &rota_core::State, spec: &JobSpec) -> Vec<String> {
    let mut warnings = Vec::new();
    match state.queue_named(&spec.queue) {
        None => {
            warnings.push(format!("there is no queue {:?}: a submit would be refused", spec.queue));
        }
        Some((_, queue)) if queue.paused => {
            warnings.push(format!("the queue {:?} is paused: nothing would start", spec.queue));
        }
        Some(_) => {}
    }
    for group in &spec.groups {
        let able = state.nodes().any(|(_, node)| {
            node.admits(&group.shape) && node.spec.capacity.covers(&group.shape.need)
        });
        if !able {
            warnings.push(format!("no node that is ready now can ever run {:?}", group.name));
        }
    }
    warnings
}

/// Tries the tasks of a finished job again, as a new job.
#[utoipa::path(post, path = "/v1/jobs/{id}/retry", tag = "jobs", operation_id = "retryJob",
    params(("id" = u64, Path, description = "The job's id."),
        SubmitHeaders),
    request_body = Option<RetryRequest>, responses(
    (status = 201, description = "The new job is recorded.", body = SubmitReply),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn retry_job(
    State(app): State<App>,
    PathPart(id): PathPart<JobId>,
    headers: HeaderMap,
    OptionalJson(request): OptionalJson<RetryRequest>,
) -> Answer<Response> {
    let submitter = submitter(&headers)?;
    let key = idempotency_key(&headers)?;
    if app.core.query(move |view| view.state.job(id).is_some()).await? {
        return Err(refuse(ErrorCode::JobNotFinished, format!("job {id} is not over")));
    }
    let job = jobs::finished(&app, id).await?;
    let spec = retried(&job, request.all, &submitter)?;
    let all = [u8::from(request.all)];
    let idempotency = key
        .map(|key| IdempotencyKey { key, digest: digest(&[b"retry", &id.0.to_le_bytes(), &all]) });
    let bytes = spec.groups.iter().map(|group| group.action.len() + 256).sum();
    let reply = take_in(&app, vec![spec], idempotency, bytes).await?;
    Ok(created(reply))
}

/// A job of the tasks of `job` that did not succeed, or of all of them.
fn retried(job: &FinishedJob, all: bool, submitter: &str) -> Answer<JobSpec> {
    let mut groups = Vec::new();
    for (first, group) in present::groups_of(&job.spec) {
        let places: RangeSet = if all {
            RangeSet::from_range(0, u32::try_from(group.array.len()).unwrap_or(u32::MAX))
        } else {
            let end = first.saturating_add(u32::try_from(group.array.len()).unwrap_or(u32::MAX));
            let own = RangeSet::from_range(first, end);
            let mut places = RangeSet::default();
            for set in [&job.failed, &job.cancelled] {
                for (start, end) in set.intersection(&own).ranges() {
                    places.insert_range(start - first, end - first);
                }
            }
            places
        };
        if !places.is_empty() {
            groups.push(part_of(group, &places)?);
        }
    }
    if groups.is_empty() {
        let detail = format!("every task of job {} succeeded", job.id);
        return Err(refuse(ErrorCode::NothingToRetry, detail));
    }
    Ok(JobSpec { groups, submitter: submitter.into(), retry_of: Some(job.id), ..job.spec.clone() })
}

/// The group with only the tasks at these places, each with its own array index and entry.
fn part_of(group: &GroupSpec, places: &RangeSet) -> Answer<GroupSpec> {
    let mut array = RangeSet::default();
    let mut before = 0_u32;
    for (start, end) in group.array.ranges() {
        let here = RangeSet::from_range(before, before + (end - start));
        for (from, to) in places.intersection(&here).ranges() {
            array.insert_range(start + (from - before), start + (to - before));
        }
        before += end - start;
    }
    let mut action = rota_wire::action::decode_group_action(&group.action)
        .map_err(|error| internal("reading the job's action", error))?;
    let encoded = if action.entries.is_empty() {
        group.action.clone()
    } else {
        let entries = std::mem::take(&mut action.entries);
        let kept = entries
            .into_iter()
            .enumerate()
            .filter(|(place, _)| u32::try_from(*place).is_ok_and(|place| places.contains(place)));
        action.entries = kept.map(|(_, entry)| entry).collect();
        rota_wire::action::encode_group_action(&action)
    };
    Ok(GroupSpec { array, action: encoded, ..group.clone() })
}

/// Proposes jobs and waits until they are recorded.
async fn take_in(
    app: &App,
    jobs: Vec<JobSpec>,
    idempotency: Option<IdempotencyKey>,
    bytes: usize,
) -> Answer<SubmitReply> {
    app.space.check()?;
    let told: Vec<Submitted> = jobs.iter().map(submitted).collect();
    let command = Command::SubmitJobs(SubmitJobs { jobs, idempotency });
    let mut applied = app.core.propose(Urgency::New, vec![command], bytes).await?;
    match applied.outcomes.pop() {
        Some(Ok(Reply::Submitted { first, replayed, .. })) => {
            let jobs = (first.0..).zip(told).map(|(id, job)| Submitted { id, ..job }).collect();
            Ok(SubmitReply { jobs, replayed, index: applied.index.0 })
        }
        Some(Err(rejection)) => Err(rejected(About::Job, &rejection)),
        other => Err(internal("submitting", format!("answered with {other:?}"))),
    }
}

fn submitted(spec: &JobSpec) -> Submitted {
    Submitted {
        id: 0,
        name: spec.name.to_string(),
        queue: spec.queue.to_string(),
        tasks: spec.groups.iter().map(|group| group.array.len()).sum(),
    }
}

fn created(reply: SubmitReply) -> Response {
    let location = match reply.jobs.as_slice() {
        [only] => HeaderValue::try_from(format!("/v1/jobs/{}", only.id)).ok(),
        _ => None,
    };
    let replayed = reply.replayed;
    let index = reply.index;
    let mut response = (StatusCode::CREATED, Json(reply)).into_response();
    let headers = response.headers_mut();
    headers.insert(super::guard::ROTA_INDEX, HeaderValue::from(index));
    if let Some(location) = location {
        headers.insert(LOCATION, location);
    }
    if replayed {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

fn specs(jobs: Vec<JobFile>, submitter: &str) -> Answer<Vec<JobSpec>> {
    let several = jobs.len() > 1;
    let mut specs = Vec::with_capacity(jobs.len());
    let mut wrong = Vec::new();
    for (index, job) in jobs.into_iter().enumerate() {
        match into_spec(job, submitter) {
            Ok(spec) => specs.push(spec),
            Err(mistakes) => wrong.extend(mistakes.into_iter().map(|mistake| Mistake {
                pointer: if several {
                    format!("/jobs/{index}{}", mistake.pointer)
                } else {
                    mistake.pointer
                },
                ..mistake
            })),
        }
    }
    if wrong.is_empty() { Ok(specs) } else { Err(mistaken(wrong)) }
}

/// The refusal of jobs with these mistakes: 400 if it was not even JSON.
fn mistaken(mistakes: Vec<Mistake>) -> Refused {
    match mistakes.as_slice() {
        [Mistake { line: Some(line), column, pointer, message, .. }] if pointer.is_empty() => {
            let column = column.unwrap_or(1);
            let detail = format!("line {line}, column {column}: {message}");
            refuse(ErrorCode::InvalidJson, detail).with_errors(mistakes)
        }
        _ => {
            let problem = Problem::invalid_job(mistakes);
            refuse(ErrorCode::InvalidJob, problem.detail).with_errors(problem.errors)
        }
    }
}

fn submitter(headers: &HeaderMap) -> Answer<String> {
    match headers.get(SUBMITTER).map(HeaderValue::to_str) {
        None => Ok("anonymous".to_owned()),
        Some(Ok(name)) if !name.is_empty() => Ok(name.to_owned()),
        Some(_) => Err(refuse(ErrorCode::InvalidParameter, "X-Rota-Submitter is not a name")),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Answer<Option<Box<str>>> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= IDEMPOTENCY_KEY_BYTES_MAX => {
            Ok(Some(key.into()))
        }
        _ => {
            let detail = format!(
                "Idempotency-Key has to have 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible characters"
            );
            Err(refuse(ErrorCode::InvalidParameter, detail))
        }
    }
}

fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    let mut first = [0; 16];
    hasher.finalize_xof().fill(&mut first);
    first
}

fn accepts_lines(headers: &HeaderMap) -> bool {
    headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains(NDJSON))
}
