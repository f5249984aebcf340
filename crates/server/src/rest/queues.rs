//! Queues.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{HeaderMap, IF_NONE_MATCH, LOCATION};
use rota_api::{
    CancelReply, Discipline, Duration, ErrorCode, Page, PageQuery, Placement, Problem, Queue,
    QueueSettings,
};
use rota_core::command::{Command, QueueSpec, Rejection, Reply};
use rota_core::queue;
use rota_types::Span;

use super::App;
use super::extract::{OptionalJson, PathPart, Query};
use super::lists::{self, ListId};
use super::problem::{About, Answer, Refused, internal, refuse, rejected};
use crate::handle::Urgency;

/// The wait that outweighs one point of priority, unless a queue says otherwise.
const AGING_DEFAULT: Span = Span::from_secs(60);

/// Lists queues, oldest first.
#[utoipa::path(get, path = "/v1/queues", tag = "queues", operation_id = "listQueues", params(PageQuery), responses(
    (status = 200, description = "A page of queues.", body = Page<Queue>),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list_queues(
    State(app): State<App>,
    Query(query): Query<PageQuery>,
) -> Answer<Json<Page<Queue>>> {
    let limit = lists::limit(query.limit)?;
    let list = ListId::new("queues", &[]);
    let after = list.begin(query.cursor.as_deref())?;
    let page = app
        .core
        .query(move |view| {
            let behind = |id: u32| after.is_none_or(|after| u64::from(id) > after);
            let mut queues = view.state.queues().filter(|(id, _)| behind(id.0));
            let mut last = None;
            let items: Vec<Queue> = queues
                .by_ref()
                .take(limit)
                .map(|(id, queue)| {
                    last = Some(u64::from(id.0));
                    tell(queue)
                })
                .collect();
            let next_cursor = queues.next().and(last).map(|last| list.cursor(last));
            Page { items, next_cursor, index: view.state.index().0 }
        })
        .await?;
    Ok(Json(page))
}

/// Shows one queue.
#[utoipa::path(get, path = "/v1/queues/{name}", tag = "queues", operation_id = "showQueue",
    params(("name" = String, Path, description = "The queue's name.")), responses(
    (status = 200, description = "The queue.", body = Queue),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn show_queue(
    State(app): State<App>,
    PathPart(name): PathPart<String>,
) -> Answer<Json<Queue>> {
    show(&app, &name).await.map(Json)
}

/// For the description; the handler reads them by itself.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only described")]
struct PutHeaders {
    /// `*` only creates.
    #[param(rename = "If-None-Match", nullable = false, inline)]
    if_none_match: Option<AnyTag>,
}

#[derive(serde::Serialize, utoipa::ToSchema)]
#[expect(dead_code, reason = "only described")]
enum AnyTag {
    #[serde(rename = "*")]
    Any,
}

/// Creates a queue. With `If-None-Match: *` an existing one is left as it is and refused; without, its settings are replaced.
#[utoipa::path(put, path = "/v1/queues/{name}", tag = "queues", operation_id = "putQueue",
    params(("name" = String, Path, description = "The queue's name."),
        PutHeaders),
    request_body = Option<QueueSettings>, responses(
    (status = 200, description = "The queue's settings were replaced.", body = Queue),
    (status = 201, description = "The queue was created.", body = Queue),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn put_queue(
    State(app): State<App>,
    PathPart(name): PathPart<String>,
    headers: HeaderMap,
    OptionalJson(settings): OptionalJson<QueueSettings>,
) -> Answer<Response> {
    let creates_only = match headers.get(IF_NONE_MATCH).map(http::HeaderValue::as_bytes) {
        None => false,
        Some(b"*") => true,
        Some(_) => return Err(refuse(ErrorCode::InvalidParameter, "If-None-Match can only be *")),
    };
    let spec = merge(fresh(&name), &settings)?;
    let _changing = app.changing.lock().await;
    let created =
        match app.core.command(Urgency::Finishing, Command::CreateQueue(spec.clone())).await? {
            (_, Ok(_)) => true,
            (_, Err(Rejection::QueueExists(_))) if !creates_only => {
                configure(&app, spec).await?;
                false
            }
            (_, Err(rejection)) => return Err(rejected(About::Queue, &rejection)),
        };
    let queue = show(&app, &name).await.map_err(Refused::after_a_change)?;
    if !created {
        return Ok(Json(queue).into_response());
    }
    let mut response = (StatusCode::CREATED, Json(queue)).into_response();
    let path: String = name.bytes().map(encode).collect();
    if let Ok(location) = http::HeaderValue::try_from(format!("/v1/queues/{path}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// A byte of a name in a path.
fn encode(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

/// Changes some of a queue's settings.
#[utoipa::path(patch, path = "/v1/queues/{name}", tag = "queues", operation_id = "changeQueue",
    params(("name" = String, Path, description = "The queue's name.")), request_body = Option<QueueSettings>, responses(
    (status = 200, description = "The queue.", body = Queue),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn change_queue(
    State(app): State<App>,
    PathPart(name): PathPart<String>,
    OptionalJson(settings): OptionalJson<QueueSettings>,
) -> Answer<Json<Queue>> {
    let _changing = app.changing.lock().await;
    let current = app
        .core
        .query({
            let name = name.clone();
            move |view| view.state.queue_named(&name).map(|(_, queue)| queue.spec.clone())
        })
        .await?
        .ok_or_else(|| unknown(&name))?;
    configure(&app, merge(current, &settings)?).await?;
    show(&app, &name).await.map(Json).map_err(Refused::after_a_change)
}

async fn configure(app: &App, spec: QueueSpec) -> Answer<()> {
    match app.core.command(Urgency::Finishing, Command::ConfigureQueue(spec)).await? {
        (_, Ok(_)) => Ok(()),
        (_, Err(rejection)) => Err(rejected(About::Queue, &rejection)),
    }
}

/// Starts nothing new from a queue until it is resumed.
#[utoipa::path(post, path = "/v1/queues/{name}/pause", tag = "queues", operation_id = "pauseQueue",
    params(("name" = String, Path, description = "The queue's name.")), responses(
    (status = 200, description = "The queue is paused.", body = Queue),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn pause_queue(
    State(app): State<App>,
    PathPart(name): PathPart<String>,
) -> Answer<Json<Queue>> {
    pause(&app, &name, true).await
}

/// Starts tasks of a queue again.
#[utoipa::path(post, path = "/v1/queues/{name}/resume", tag = "queues", operation_id = "resumeQueue",
    params(("name" = String, Path, description = "The queue's name.")), responses(
    (status = 200, description = "The queue is not paused.", body = Queue),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn resume_queue(
    State(app): State<App>,
    PathPart(name): PathPart<String>,
) -> Answer<Json<Queue>> {
    pause(&app, &name, false).await
}

async fn pause(app: &App, name: &str, paused: bool) -> Answer<Json<Queue>> {
    let command = Command::PauseQueue { queue: name.into(), paused };
    match app.core.command(Urgency::Finishing, command).await? {
        (_, Ok(_)) => show(app, name).await.map(Json).map_err(Refused::after_a_change),
        (_, Err(rejection)) => Err(rejected(About::Queue, &rejection)),
    }
}

/// Cancels everything in a queue that does not run.
#[utoipa::path(post, path = "/v1/queues/{name}/purge", tag = "queues", operation_id = "purgeQueue",
    params(("name" = String, Path, description = "The queue's name.")), responses(
    (status = 200, description = "What was cancelled.", body = CancelReply),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn purge_queue(
    State(app): State<App>,
    PathPart(name): PathPart<String>,
) -> Answer<Json<CancelReply>> {
    // A part at a time: others have their turn meanwhile, and what has ended need not be held at once.
    let before = Some(app.core.query(|view| view.state.next_job()).await?);
    let mut ended_before = 0;
    loop {
        let command = Command::PurgeQueue { queue: name.as_str().into(), before };
        match app.core.command(Urgency::Finishing, command).await? {
            (_, Ok(Reply::Cancelled { ended: 0, stopping })) => {
                return Ok(Json(CancelReply { ended: ended_before, stopping }));
            }
            (_, Ok(Reply::Cancelled { ended, .. })) => ended_before += ended,
            (_, Ok(other)) => return Err(internal("purging", format!("answered with {other:?}"))),
            (_, Err(rejection)) => return Err(rejected(About::Queue, &rejection)),
        }
    }
}

/// Forgets a queue without live tasks.
#[utoipa::path(delete, path = "/v1/queues/{name}", tag = "queues", operation_id = "removeQueue",
    params(("name" = String, Path, description = "The queue's name.")), responses(
    (status = 204, description = "The queue is forgotten."),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn remove_queue(
    State(app): State<App>,
    PathPart(name): PathPart<String>,
) -> Answer<StatusCode> {
    let command = Command::RemoveQueue { queue: name.into() };
    match app.core.command(Urgency::Finishing, command).await? {
        (_, Ok(_)) => Ok(StatusCode::NO_CONTENT),
        (_, Err(rejection)) => Err(rejected(About::Queue, &rejection)),
    }
}

async fn show(app: &App, name: &str) -> Answer<Queue> {
    let found = app
        .core
        .query({
            let name = name.to_owned();
            move |view| view.state.queue_named(&name).map(|(_, queue)| tell(queue))
        })
        .await?;
    found.ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> Refused {
    refuse(ErrorCode::QueueNotFound, format!("there is no queue {name:?}"))
}

fn fresh(name: &str) -> QueueSpec {
    QueueSpec { placement: queue::Placement::LeastLoaded, ..QueueSpec::named(name) }
}

/// The settings with what is asked for changed.
fn merge(mut spec: QueueSpec, settings: &QueueSettings) -> Answer<QueueSpec> {
    let wrong = |detail: &str| Err(refuse(ErrorCode::InvalidQueue, detail));
    let aging = settings.aging.map(|aging| aging.0);
    spec.discipline = match (settings.discipline, spec.discipline) {
        (Some(Discipline::Fifo), _) | (None, queue::Discipline::Fifo) if aging.is_some() => {
            return wrong("aging: only the discipline `priority` ages");
        }
        (Some(Discipline::Fifo), _) => queue::Discipline::Fifo,
        (Some(Discipline::Priority), queue::Discipline::Priority { aging: old }) => {
            queue::Discipline::Priority { aging: aging.unwrap_or(old) }
        }
        (Some(Discipline::Priority), queue::Discipline::Fifo) => {
            queue::Discipline::Priority { aging: aging.unwrap_or(AGING_DEFAULT) }
        }
        (None, queue::Discipline::Priority { aging: old }) => {
            queue::Discipline::Priority { aging: aging.unwrap_or(old) }
        }
        (None, queue::Discipline::Fifo) => queue::Discipline::Fifo,
    };
    let random = match settings.placement {
        Some(placement) => placement == Placement::Random,
        None => matches!(spec.placement, queue::Placement::Random { .. }),
    };
    if settings.seed.is_some() && !random {
        return wrong("seed: only the placement `random` draws");
    }
    let old_seed = match spec.placement {
        queue::Placement::Random { seed } => seed,
        _ => 0,
    };
    let seed = settings.seed.unwrap_or(old_seed);
    spec.placement = match settings.placement {
        Some(Placement::FirstFit) => queue::Placement::FirstFit,
        Some(Placement::BestFit) => queue::Placement::BestFit,
        Some(Placement::LeastLoaded) => queue::Placement::LeastLoaded,
        Some(Placement::RoundRobin) => queue::Placement::RoundRobin,
        Some(Placement::Random) => queue::Placement::Random { seed },
        None if random => queue::Placement::Random { seed },
        None => spec.placement,
    };
    spec.weight = settings.weight.unwrap_or(spec.weight);
    if let Some(max) = settings.running_max {
        spec.running_max = (max > 0).then_some(max);
    }
    if let Some(max) = settings.tasks_max {
        spec.tasks_max = (max > 0).then_some(max);
    }
    Ok(spec)
}

fn tell(queue: &rota_core::queue::Queue) -> Queue {
    let spec = &queue.spec;
    let (discipline, aging) = match spec.discipline {
        queue::Discipline::Fifo => (Discipline::Fifo, None),
        queue::Discipline::Priority { aging } => (Discipline::Priority, Some(Duration(aging))),
    };
    let (placement, seed) = match spec.placement {
        queue::Placement::FirstFit => (Placement::FirstFit, None),
        queue::Placement::BestFit => (Placement::BestFit, None),
        queue::Placement::LeastLoaded => (Placement::LeastLoaded, None),
        queue::Placement::RoundRobin => (Placement::RoundRobin, None),
        queue::Placement::Random { seed } => (Placement::Random, Some(seed)),
    };
    Queue {
        name: spec.name.to_string(),
        discipline,
        aging,
        placement,
        seed,
        weight: spec.weight,
        paused: queue.paused,
        running_max: spec.running_max,
        tasks_max: spec.tasks_max,
        counts: queue.counts.into(),
    }
}
