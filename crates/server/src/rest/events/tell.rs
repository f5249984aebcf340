//! Events as JSON.

use rota_api::{Event, Moment};
use rota_core::command::Placement;
use rota_core::event::{self, AttemptRecord, Next};
use rota_core::job::FinishedJob;
use rota_core::kv::KvEvent;
use rota_types::{JobId, LogIndex, NodeId, TaskId, Timestamp};
use serde_json::{Map, Value, json};

use crate::rest::present;

/// The job that an event is about.
pub(super) fn job_of(event: &event::Event) -> Option<JobId> {
    match event {
        event::Event::JobSubmitted(job) | event::Event::TasksCancelled { job, .. } => Some(*job),
        event::Event::JobFinished(job) => Some(job.id),
        event::Event::AttemptsCreated(placement) => Some(placement.task.job),
        event::Event::AttemptStaged { task, .. } | event::Event::AttemptPromoted { task, .. } => {
            Some(task.job)
        }
        event::Event::AttemptEnded(record) => Some(record.attempt.task.job),
        event::Event::StopRequested(attempt) => Some(attempt.task.job),
        event::Event::TaskQueued(task) => Some(task.job),
        event::Event::NodeRegistered(_)
        | event::Event::NodeLost(_)
        | event::Event::NodeDraining(..)
        | event::Event::NodeLeaving(_)
        | event::Event::NodeRemoved { .. }
        | event::Event::QueueConfigured(_)
        | event::Event::QueuePaused(..)
        | event::Event::QueueRemoved(_)
        | event::Event::ServerChanged(_)
        | event::Event::ServerRemoved(_)
        | event::Event::LevelRaised(_)
        | event::Event::TokenAdded(_)
        | event::Event::TokenRevoked(_)
        | event::Event::Noted(_)
        | event::Event::Kv(_) => None,
    }
}

/// The node that an event is about, by its id.
pub(super) fn node_of(event: &event::Event) -> Option<NodeId> {
    match event {
        event::Event::AttemptsCreated(placement) => Some(placement.node),
        event::Event::AttemptStaged { node, .. } | event::Event::AttemptPromoted { node, .. } => {
            Some(*node)
        }
        event::Event::AttemptEnded(record) => Some(record.node),
        event::Event::NodeRegistered(node)
        | event::Event::NodeLost(node)
        | event::Event::NodeDraining(node, _)
        | event::Event::NodeLeaving(node) => Some(*node),
        event::Event::JobSubmitted(_)
        | event::Event::StopRequested(_)
        | event::Event::TaskQueued(_)
        | event::Event::TasksCancelled { .. }
        | event::Event::JobFinished(_)
        | event::Event::NodeRemoved { .. }
        | event::Event::QueueConfigured(_)
        | event::Event::QueuePaused(..)
        | event::Event::QueueRemoved(_)
        | event::Event::ServerChanged(_)
        | event::Event::ServerRemoved(_)
        | event::Event::LevelRaised(_)
        | event::Event::TokenAdded(_)
        | event::Event::TokenRevoked(_)
        | event::Event::Noted(_)
        | event::Event::Kv(_) => None,
    }
}

/// What an event is about, and the event in JSON.
pub(super) fn tell(
    index: LogIndex,
    seq: u32,
    at: Timestamp,
    event: &event::Event,
    node: Option<String>,
) -> (&'static str, Event) {
    let mut told = Event { index: index.0, seq, at: Moment(at), node, ..Event::default() };
    let (subject, kind) = match event {
        event::Event::JobSubmitted(job) => {
            told.job = Some(job.0);
            ("job", "job_submitted")
        }
        event::Event::JobFinished(job) => {
            tell_finished(&mut told, job);
            ("job", "job_finished")
        }
        event::Event::TasksCancelled { job, tasks, reason } => {
            told.job = Some(job.0);
            told.data = object(json!({"tasks": tasks.to_string(), "reason": reason}));
            ("task", "tasks_cancelled")
        }
        event::Event::AttemptsCreated(placement) => {
            tell_created(&mut told, placement);
            ("task", "attempts_created")
        }
        event::Event::AttemptStaged { task, behind, .. } => {
            about_task(&mut told, *task);
            put(&mut told.data, "behind", json!(behind.to_string()));
            ("task", "attempt_staged")
        }
        event::Event::AttemptPromoted { task, .. } => {
            about_task(&mut told, *task);
            ("task", "attempt_promoted")
        }
        event::Event::AttemptEnded(record) => {
            tell_ended(&mut told, record);
            ("task", "attempt_ended")
        }
        event::Event::StopRequested(attempt) => {
            about_task(&mut told, attempt.task);
            told.attempt = Some(attempt.to_string());
            ("task", "stop_requested")
        }
        event::Event::TaskQueued(task) => {
            about_task(&mut told, *task);
            ("task", "task_queued")
        }
        event::Event::NodeRegistered(_) => ("node", "node_registered"),
        event::Event::NodeLost(_) => ("node", "node_lost"),
        event::Event::NodeLeaving(_) => ("node", "node_leaving"),
        event::Event::NodeDraining(_, draining) => {
            put(&mut told.data, "draining", json!(draining));
            ("node", "node_draining")
        }
        event::Event::NodeRemoved { name, .. } => {
            told.node = Some(name.to_string());
            ("node", "node_removed")
        }
        event::Event::QueueConfigured(_)
        | event::Event::QueuePaused(..)
        | event::Event::QueueRemoved(_)
        | event::Event::ServerChanged(_)
        | event::Event::ServerRemoved(_)
        | event::Event::LevelRaised(_)
        | event::Event::TokenAdded(_)
        | event::Event::TokenRevoked(_)
        | event::Event::Noted(_)
        | event::Event::Kv(_) => tell_cluster(&mut told, event),
    };
    kind.clone_into(&mut told.kind);
    (subject, told)
}

/// What an event of the cluster itself is about, and its kind.
fn tell_cluster(told: &mut Event, event: &event::Event) -> (&'static str, &'static str) {
    match event {
        event::Event::QueueConfigured(queue) => {
            told.queue = Some(queue.to_string());
            ("queue", "queue_configured")
        }
        event::Event::QueuePaused(queue, paused) => {
            told.queue = Some(queue.to_string());
            put(&mut told.data, "paused", json!(paused));
            ("queue", "queue_paused")
        }
        event::Event::QueueRemoved(queue) => {
            told.queue = Some(queue.to_string());
            ("queue", "queue_removed")
        }
        event::Event::ServerChanged(server) => {
            put(&mut told.data, "server", json!(server.0));
            ("server", "server_changed")
        }
        event::Event::ServerRemoved(server) => {
            put(&mut told.data, "server", json!(server.0));
            ("server", "server_removed")
        }
        event::Event::LevelRaised(level) => {
            put(&mut told.data, "level", json!(level));
            ("server", "level_raised")
        }
        event::Event::TokenAdded(id) => {
            put(&mut told.data, "token", json!(id));
            ("token", "token_added")
        }
        event::Event::TokenRevoked(id) => {
            put(&mut told.data, "token", json!(id));
            ("token", "token_revoked")
        }
        event::Event::Noted(noted) => {
            put(&mut told.data, "who", json!(noted.note.who));
            put(&mut told.data, "action", json!(noted.note.action));
            put(&mut told.data, "refused", json!(noted.refused));
            ("audit", "noted")
        }
        event::Event::Kv(event) => tell_kv(told, event),
        event::Event::JobSubmitted(_)
        | event::Event::JobFinished(_)
        | event::Event::TasksCancelled { .. }
        | event::Event::AttemptsCreated(_)
        | event::Event::AttemptStaged { .. }
        | event::Event::AttemptPromoted { .. }
        | event::Event::AttemptEnded(_)
        | event::Event::StopRequested(_)
        | event::Event::TaskQueued(_)
        | event::Event::NodeRegistered(_)
        | event::Event::NodeLost(_)
        | event::Event::NodeDraining(..)
        | event::Event::NodeLeaving(_)
        | event::Event::NodeRemoved { .. } => ("task", "other"),
    }
}

/// Values are left out: they may be large, and are read by their key.
fn tell_kv(told: &mut Event, event: &KvEvent) -> (&'static str, &'static str) {
    match event {
        KvEvent::KeyChanged { key, revision, pair } => {
            let deleted = pair.is_none();
            told.data = object(json!({"key": key, "revision": revision.0, "deleted": deleted}));
            ("kv", "key_changed")
        }
        KvEvent::SessionOpened(session) => {
            put(&mut told.data, "session", json!(session.0));
            ("kv", "session_opened")
        }
        KvEvent::SessionEnded { session, expired } => {
            told.data = object(json!({"session": session.0, "expired": expired}));
            ("kv", "session_ended")
        }
        KvEvent::LockPassed { lock, revision, holder, value: _ } => {
            let session = holder.map(|session| session.0);
            told.data = object(json!({"lock": lock, "revision": revision.0, "session": session}));
            ("kv", "lock_passed")
        }
    }
}

/// The fields of an object.
fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(fields) = value { fields } else { Map::new() }
}

fn put(data: &mut Map<String, Value>, key: &str, value: Value) {
    data.insert(key.to_owned(), value);
}

fn about_task(told: &mut Event, task: TaskId) {
    told.job = Some(task.job.0);
    told.task = Some(task.to_string());
}

fn tell_created(told: &mut Event, placement: &Placement) {
    about_task(told, placement.task);
    put(&mut told.data, "count", json!(placement.count));
}

fn tell_ended(told: &mut Event, record: &AttemptRecord) {
    about_task(told, record.attempt.task);
    told.attempt = Some(record.attempt.to_string());
    put(&mut told.data, "state", json!(present::attempt_state(record.state)));
    if let Some(failure) = &record.failure {
        put(&mut told.data, "failure", json!(rota_api::Failure::from(failure)));
    }
    let next = match record.next {
        Next::Queued => json!("queued"),
        Next::Waiting(_) => json!("waiting"),
        Next::Finished(state) => json!(present::over(state)),
    };
    put(&mut told.data, "task_state", next);
}

fn tell_finished(told: &mut Event, job: &FinishedJob) {
    let finished = present::finished_job(job);
    told.job = Some(job.id.0);
    told.queue = Some(finished.queue);
    put(&mut told.data, "name", json!(finished.name));
    put(&mut told.data, "state", json!(finished.state));
    put(&mut told.data, "counts", json!(finished.counts));
}
