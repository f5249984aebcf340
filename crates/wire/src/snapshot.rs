//! The records of a snapshot.

use std::sync::Arc;

use prost::Message;
use rota_core::image::{JobRecord, KeyUse, Meta, NodeRecord, QueueRecord, Record};
use rota_core::server::Server;
use rota_core::task::{Attempt, Phase, Task};
use rota_core::token::Token;
use rota_types::{
    JobId, LogIndex, NodeId, QueueId, Revision, ServerId, SessionId, Span, Steady, TaskId,
    Timestamp,
};

use crate::common::{micros, required};
use crate::{DecodeError, kv, pb};

/// The newest format of snapshots that this version reads, and the one it writes.
const FORMAT: u32 = 0;

/// Encodes one record.
#[must_use]
pub fn encode_record(record: &Record) -> Vec<u8> {
    use pb::record::Kind;
    let kind = match record {
        Record::Meta(meta) => Kind::Meta(meta_to(meta)),
        Record::Server(server) => Kind::Server(pb::ServerRecord {
            spec: Some((&server.spec).into()),
            joined_micros: server.joined_at.0,
        }),
        Record::Token(token) => Kind::Token(pb::TokenRecord {
            spec: Some((&token.spec).into()),
            created_micros: token.created_at.0,
        }),
        Record::Session(session) => Kind::Session(kv::session_to(session)),
        Record::Pair(key, pair) => Kind::Pair(kv::pair_to(key, pair)),
        Record::Lock(name, lock) => Kind::Lock(kv::lock_to(name, lock)),
        Record::Queue(queue) => Kind::Queue(pb::QueueRecord {
            id: queue.id.0,
            spec: Some((&queue.spec).into()),
            paused: queue.paused,
        }),
        Record::Node(node) => Kind::Node(pb::NodeRecord {
            id: node.id.0,
            spec: Some((&node.spec).into()),
            draining: node.draining,
            leaving: node.leaving,
            lost: node.lost,
            registered_micros: node.registered_at.0,
        }),
        Record::Job(job) => Kind::Job(job_to(job)),
        Record::Task(id, task) => Kind::Task(task_to(*id, task)),
        Record::Key(key, used) => Kind::Key(pb::KeyRecord {
            key: key.to_string(),
            digest: used.digest.to_vec(),
            first: used.first.0,
            count: used.count,
            used_steady_micros: used.used_at.0,
        }),
    };
    pb::Record { kind: Some(kind) }.encode_to_vec()
}

/// Decodes one record.
///
/// # Errors
/// If the bytes are not a record, or one of a kind that this version does not know.
pub fn decode_record(bytes: &[u8]) -> Result<Record, DecodeError> {
    use pb::record::Kind;
    let message = pb::Record::decode(bytes).map_err(DecodeError::malformed("snapshot record"))?;
    Ok(match required("a record", message.kind)? {
        Kind::Meta(meta) => Record::Meta(meta_from(&meta)?),
        Kind::Server(server) => Record::Server(Server {
            spec: required("a server's description", server.spec)?.into(),
            joined_at: Timestamp(server.joined_micros),
        }),
        Kind::Token(token) => Record::Token(Token {
            spec: required("a token's description", token.spec)?.try_into()?,
            created_at: Timestamp(token.created_micros),
        }),
        Kind::Session(session) => kv::session_from(&session),
        Kind::Pair(pair) => kv::pair_from(pair),
        Kind::Lock(lock) => kv::lock_from(lock)?,
        Kind::Queue(queue) => Record::Queue(QueueRecord {
            id: QueueId(queue.id),
            spec: required("a queue's settings", queue.spec)?.try_into()?,
            paused: queue.paused,
        }),
        Kind::Node(node) => Record::Node(NodeRecord {
            id: NodeId(node.id),
            spec: required("a node's description", node.spec)?.try_into()?,
            draining: node.draining,
            leaving: node.leaving,
            lost: node.lost,
            registered_at: Timestamp(node.registered_micros),
        }),
        Kind::Job(job) => Record::Job(Box::new(job_from(job)?)),
        Kind::Task(task) => task_from(&task)?,
        Kind::Key(key) => Record::Key(
            Arc::from(key.key),
            KeyUse {
                digest: key
                    .digest
                    .try_into()
                    .map_err(|_| DecodeError::Inconsistent("a digest is not 16 bytes"))?,
                first: JobId(key.first),
                count: key.count,
                used_at: Steady(key.used_steady_micros),
            },
        ),
    })
}

fn meta_to(meta: &Meta) -> pb::Meta {
    pb::Meta {
        format: FORMAT,
        index: meta.index.0,
        now_micros: meta.now.0,
        steady_micros: meta.steady.0,
        next_job: meta.next_job.0,
        next_node: meta.next_node.0,
        next_queue: meta.next_queue.0,
        last_server: meta.next_server.0.saturating_sub(1),
        level: meta.level,
        last_session: meta.next_session.0.saturating_sub(1),
        revision: meta.revision.0,
        attempts_from: meta.attempts_from,
    }
}

fn meta_from(meta: &pb::Meta) -> Result<Meta, DecodeError> {
    if meta.format > FORMAT {
        return Err(DecodeError::Format { what: "a snapshot", format: meta.format });
    }
    Ok(Meta {
        index: LogIndex(meta.index),
        now: Timestamp(meta.now_micros),
        steady: Steady(meta.steady_micros),
        next_job: JobId(meta.next_job),
        next_node: NodeId(meta.next_node),
        next_queue: QueueId(meta.next_queue),
        next_server: ServerId(meta.last_server).next(),
        level: meta.level,
        next_session: SessionId(meta.last_session).next(),
        revision: Revision(meta.revision),
        attempts_from: meta.attempts_from,
    })
}

fn job_to(job: &JobRecord) -> pb::JobRecord {
    pb::JobRecord {
        id: job.id.0,
        queue: job.queue.0,
        spec: Some((&job.spec).into()),
        submitted_micros: job.submitted_at.0,
        ready_steady_micros: job.ready_at.0,
        started_micros: job.started_at.map(|at| at.0),
        fresh: Some((&job.fresh).into()),
        failed: Some((&job.failed).into()),
        cancelled: Some((&job.cancelled).into()),
    }
}

fn job_from(job: pb::JobRecord) -> Result<JobRecord, DecodeError> {
    Ok(JobRecord {
        id: JobId(job.id),
        queue: QueueId(job.queue),
        spec: required("a job's description", job.spec)?.try_into()?,
        submitted_at: Timestamp(job.submitted_micros),
        ready_at: Steady(job.ready_steady_micros),
        started_at: job.started_micros.map(Timestamp),
        fresh: required("a job's fresh tasks", job.fresh)?.try_into()?,
        failed: required("a job's failed tasks", job.failed)?.try_into()?,
        cancelled: required("a job's cancelled tasks", job.cancelled)?.try_into()?,
    })
}

fn task_to(id: TaskId, task: &Task) -> pb::TaskRecord {
    use pb::task_record::Phase as Kind;
    pb::TaskRecord {
        job: id.job.0,
        index: id.index,
        attempts: task.attempts,
        failures: task.failures,
        lost: task.lost,
        recalled: task.recalled,
        phase: Some(match &task.phase {
            Phase::Queued { since } => Kind::QueuedSinceSteadyMicros(since.0),
            Phase::Waiting { until } => Kind::WaitingUntilSteadyMicros(until.0),
            Phase::Running(attempt) => Kind::Running(attempt_to(attempt)),
            Phase::Staged { attempt, behind, since } => Kind::Staged(pb::Staged {
                attempt: Some(attempt_to(attempt)),
                behind_job: behind.job.0,
                behind_index: behind.index,
                since_steady_micros: since.0,
            }),
        }),
    }
}

fn attempt_to(attempt: &Attempt) -> pb::Running {
    pb::Running {
        node: attempt.node.0,
        placed_micros: attempt.placed_at.0,
        stop_grace_micros: micros(attempt.stop),
    }
}

fn attempt_from(attempt: pb::Running) -> Attempt {
    Attempt {
        node: NodeId(attempt.node),
        placed_at: Timestamp(attempt.placed_micros),
        stop: attempt.stop_grace_micros.map(Span),
    }
}

fn task_from(task: &pb::TaskRecord) -> Result<Record, DecodeError> {
    use pb::task_record::Phase as Kind;
    let phase = match required("a task's phase", task.phase)? {
        Kind::QueuedSinceSteadyMicros(since) => Phase::Queued { since: Steady(since) },
        Kind::WaitingUntilSteadyMicros(until) => Phase::Waiting { until: Steady(until) },
        Kind::Running(attempt) => Phase::Running(attempt_from(attempt)),
        Kind::Staged(staged) => Phase::Staged {
            attempt: attempt_from(required("a staged task's attempt", staged.attempt)?),
            behind: TaskId { job: JobId(staged.behind_job), index: staged.behind_index },
            since: Steady(staged.since_steady_micros),
        },
    };
    let task_id = TaskId { job: JobId(task.job), index: task.index };
    let pb::TaskRecord { attempts, failures, lost, recalled, .. } = *task;
    Ok(Record::Task(task_id, Task { attempts, failures, lost, recalled, phase }))
}
