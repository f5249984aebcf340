//! Entries of the replicated log.

use std::sync::Arc;

use prost::Message;
use rota_core::command::{
    AttemptEnd, AttemptReport, CancelTasks, Command, Entry, Placement, Plan, Staging,
};
use rota_types::{JobId, LogIndex, NodeId, Span, Steady, TaskId, Timestamp};

use crate::common::{all, attempt_id, narrow, required, shared};
use crate::proto::rota::v1 as worker;
use crate::{DecodeError, pb};

/// The newest format of entries that this version reads, and the one it writes.
const FORMAT: u32 = 0;

/// Encodes one entry of the log.
#[must_use]
pub fn encode_entry(at: Timestamp, steady: Steady, commands: &[Command]) -> Arc<[u8]> {
    let body = pb::EntryBody {
        format: FORMAT,
        at_micros: at.0,
        steady_micros: steady.0,
        commands: commands.iter().map(Into::into).collect(),
    };
    Arc::from(body.encode_to_vec())
}

/// How many bytes these commands take in an entry.
#[must_use]
pub fn encoded_bytes(commands: &[Command]) -> usize {
    let bytes = commands.iter().map(|command| {
        let bytes = pb::Command::from(command).encoded_len();
        1 + prost::length_delimiter_len(bytes) + bytes
    });
    bytes.sum()
}

/// Decodes the entry at `index`.
///
/// # Errors
/// If the bytes are not an entry, or hold anything that this version does not know. A server stops then: to skip a command would
/// make its state differ from the others'.
pub fn decode_entry(index: LogIndex, bytes: &[u8]) -> Result<Entry, DecodeError> {
    let body = pb::EntryBody::decode(bytes).map_err(DecodeError::malformed("log entry"))?;
    if body.format > FORMAT {
        return Err(DecodeError::Format { what: "a log entry", format: body.format });
    }
    Ok(Entry {
        index,
        at: Timestamp(body.at_micros),
        steady: Steady(body.steady_micros),
        commands: all(body.commands)?,
    })
}

impl From<&Command> for pb::Command {
    fn from(command: &Command) -> Self {
        use pb::command::Kind;
        let kind = match command {
            Command::SubmitJobs(submit) => Kind::SubmitJobs(submit.into()),
            Command::CancelTasks(cancel) => Kind::CancelTasks(cancel.into()),
            Command::CommitPlan(plan) => Kind::CommitPlan(plan.into()),
            Command::EndAttempts(reports) => Kind::EndAttempts(pb::EndAttempts {
                reports: reports.iter().map(Into::into).collect(),
            }),
            Command::RegisterNode(node) => Kind::RegisterNode(node.into()),
            Command::LoseNode(node) => Kind::LoseNode(node.0),
            Command::DrainNode { node, draining } => {
                Kind::DrainNode(pb::DrainNode { node: node.0, draining: *draining })
            }
            Command::LeaveNode(node) => Kind::LeaveNode(node.0),
            Command::RemoveNode(node) => Kind::RemoveNode(node.0),
            Command::CreateQueue(queue) => Kind::CreateQueue(queue.into()),
            Command::ConfigureQueue(queue) => Kind::ConfigureQueue(queue.into()),
            Command::PauseQueue { queue, paused } => {
                Kind::PauseQueue(pb::PauseQueue { queue: queue.to_string(), paused: *paused })
            }
            Command::PurgeQueue { queue, before: None } => Kind::PurgeQueue(queue.to_string()),
            Command::PurgeQueue { queue, before: Some(before) } => {
                Kind::PurgeJobs(pb::PurgeJobs { queue: queue.to_string(), before: before.0 })
            }
            Command::RemoveQueue { queue } => Kind::RemoveQueue(queue.to_string()),
            Command::Servers(command) => Kind::Servers(command.into()),
            Command::Tokens(command) => Kind::Tokens(command.into()),
            Command::Note(note) => Kind::Note(note.into()),
            Command::Kv(command) => Kind::Kv(command.into()),
            Command::Tick => Kind::Tick(pb::Unit {}),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<pb::Command> for Command {
    type Error = DecodeError;

    fn try_from(message: pb::Command) -> Result<Self, DecodeError> {
        use pb::command::Kind;
        Ok(match required("a command", message.kind)? {
            Kind::SubmitJobs(submit) => Self::SubmitJobs(submit.try_into()?),
            Kind::CancelTasks(cancel) => Self::CancelTasks(cancel.try_into()?),
            Kind::CommitPlan(plan) => Self::CommitPlan(plan.try_into()?),
            Kind::EndAttempts(ended) => Self::EndAttempts(all(ended.reports)?),
            Kind::RegisterNode(node) => Self::RegisterNode(node.try_into()?),
            Kind::LoseNode(node) => Self::LoseNode(NodeId(node)),
            Kind::DrainNode(pb::DrainNode { node, draining }) => {
                Self::DrainNode { node: NodeId(node), draining }
            }
            Kind::LeaveNode(node) => Self::LeaveNode(NodeId(node)),
            Kind::RemoveNode(node) => Self::RemoveNode(NodeId(node)),
            Kind::CreateQueue(queue) => Self::CreateQueue(queue.try_into()?),
            Kind::ConfigureQueue(queue) => Self::ConfigureQueue(queue.try_into()?),
            Kind::PauseQueue(pb::PauseQueue { queue, paused }) => {
                Self::PauseQueue { queue: queue.into(), paused }
            }
            Kind::PurgeQueue(queue) => Self::PurgeQueue { queue: queue.into(), before: None },
            Kind::PurgeJobs(pb::PurgeJobs { queue, before }) => {
                Self::PurgeQueue { queue: queue.into(), before: Some(JobId(before)) }
            }
            Kind::RemoveQueue(queue) => Self::RemoveQueue { queue: queue.into() },
            Kind::Servers(command) => Self::Servers(command.try_into()?),
            Kind::Tokens(command) => Self::Tokens(command.try_into()?),
            Kind::Note(note) => Self::Note(note.into()),
            Kind::Kv(command) => Self::Kv(command.try_into()?),
            Kind::Tick(pb::Unit {}) => Self::Tick,
        })
    }
}

impl From<&CancelTasks> for pb::CancelTasks {
    fn from(cancel: &CancelTasks) -> Self {
        Self {
            job: cancel.job.0,
            tasks: cancel.tasks.as_ref().map(Into::into),
            grace_micros: cancel.grace.micros(),
            reason: cancel.reason.to_string(),
        }
    }
}

impl TryFrom<pb::CancelTasks> for CancelTasks {
    type Error = DecodeError;

    fn try_from(message: pb::CancelTasks) -> Result<Self, DecodeError> {
        Ok(Self {
            job: JobId(message.job),
            tasks: message.tasks.map(TryInto::try_into).transpose()?,
            grace: Span(message.grace_micros),
            reason: message.reason.into(),
        })
    }
}

impl From<&Plan> for pb::Plan {
    fn from(plan: &Plan) -> Self {
        let count = plan.placements.len();
        let mut columns = Self {
            job_steps: Vec::with_capacity(count),
            index_steps: Vec::with_capacity(count),
            counts: Vec::with_capacity(count),
            nodes: Vec::with_capacity(count),
            staged: plan.staged.iter().map(Into::into).collect(),
        };
        let (mut job, mut behind) = (0, 0);
        for placement in &plan.placements {
            let Placement { task, count, node } = *placement;
            columns.job_steps.push(task.job.0.wrapping_sub(job).cast_signed());
            columns.index_steps.push(i64::from(task.index) - behind);
            columns.counts.push(count);
            columns.nodes.push(node.0);
            job = task.job.0;
            behind = i64::from(task.index) + i64::from(count);
        }
        columns
    }
}

impl TryFrom<pb::Plan> for Plan {
    type Error = DecodeError;

    fn try_from(columns: pb::Plan) -> Result<Self, DecodeError> {
        let pb::Plan { job_steps, index_steps, counts, nodes, staged } = columns;
        let rows = job_steps.len();
        if [index_steps.len(), counts.len(), nodes.len()] != [rows; 3] {
            return Err(DecodeError::Inconsistent("the columns of a plan differ in length"));
        }
        let mut placements = Vec::with_capacity(rows);
        let (mut job, mut behind) = (0_u64, 0_i64);
        for (((job_step, index_step), count), node) in
            job_steps.into_iter().zip(index_steps).zip(counts).zip(nodes)
        {
            job = job.wrapping_add(job_step.cast_unsigned());
            let index = behind.wrapping_add(index_step);
            let index: u32 = narrow("a placement's task", index.cast_unsigned())?;
            let task = TaskId { job: JobId(job), index };
            placements.push(Placement { task, count, node: NodeId(node) });
            behind = i64::from(index) + i64::from(count);
        }
        let staged = staged.into_iter().map(Into::into).collect();
        Ok(Self { placements, staged })
    }
}

impl From<&Staging> for pb::Staging {
    fn from(Staging { task, behind }: &Staging) -> Self {
        Self {
            job: task.job.0,
            index: task.index,
            behind_job: behind.job.0,
            behind_index: behind.index,
        }
    }
}

impl From<pb::Staging> for Staging {
    fn from(message: pb::Staging) -> Self {
        let pb::Staging { job, index, behind_job, behind_index } = message;
        Self {
            task: TaskId { job: JobId(job), index },
            behind: TaskId { job: JobId(behind_job), index: behind_index },
        }
    }
}

impl From<&AttemptReport> for pb::AttemptReport {
    fn from(report: &AttemptReport) -> Self {
        use pb::attempt_report::End;
        let end = match &report.end {
            AttemptEnd::Succeeded => End::Succeeded(worker::Succeeded {}),
            AttemptEnd::Failed(failure) => End::Failed(failure.into()),
            AttemptEnd::Stopped => End::Stopped(worker::Stopped {}),
            AttemptEnd::Recalled => End::Recalled(worker::Recalled {}),
        };
        Self {
            job: report.attempt.task.job.0,
            index: report.attempt.task.index,
            number: report.attempt.number,
            node: report.node.0,
            end: Some(end),
            started_micros: report.started_at.map(|at| at.0),
            ended_micros: report.ended_at.0,
            detail: report.detail.to_vec(),
        }
    }
}

impl TryFrom<pb::AttemptReport> for AttemptReport {
    type Error = DecodeError;

    fn try_from(message: pb::AttemptReport) -> Result<Self, DecodeError> {
        use pb::attempt_report::End;
        let end = match required("how an attempt ended", message.end)? {
            End::Succeeded(worker::Succeeded {}) => AttemptEnd::Succeeded,
            End::Failed(failure) => AttemptEnd::Failed(failure.try_into()?),
            End::Stopped(worker::Stopped {}) => AttemptEnd::Stopped,
            End::Recalled(worker::Recalled {}) => AttemptEnd::Recalled,
        };
        Ok(Self {
            attempt: attempt_id(message.job, message.index, message.number),
            node: NodeId(message.node),
            end,
            started_at: message.started_micros.map(Timestamp),
            ended_at: Timestamp(message.ended_micros),
            detail: shared(message.detail),
        })
    }
}
