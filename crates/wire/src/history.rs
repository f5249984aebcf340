//! Finished work, as the history keeps it.

use prost::Message;
use rota_core::event::{AttemptRecord, AttemptState, Next};
use rota_core::job::{Counts, FinishedJob};
use rota_core::token::Noted;
use rota_types::{JobId, NodeId, RangeSet, Steady, Timestamp};

use crate::common::{attempt_id, required, shared, task_state_from, task_state_to};
use crate::{DecodeError, pb};

/// Tasks that were cancelled before they had an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TasksCancelled {
    /// The job that owns them.
    pub job: JobId,
    /// Their indexes.
    pub tasks: RangeSet,
    /// For people.
    pub reason: Box<str>,
    /// When, by the leader's wall clock.
    pub at: Timestamp,
}

/// Encodes records of attempts of one job. Those of other jobs must not be among them.
#[must_use]
pub fn encode_attempts<'a>(
    job: JobId,
    records: impl IntoIterator<Item = &'a AttemptRecord>,
) -> Vec<u8> {
    let records = records.into_iter().inspect(|record| {
        debug_assert_eq!(record.attempt.task.job, job);
    });
    pb::AttemptBlock { job: job.0, records: records.map(Into::into).collect() }.encode_to_vec()
}

/// Decodes what [`encode_attempts`] made.
///
/// # Errors
/// If the bytes are something else.
pub fn decode_attempts(bytes: &[u8]) -> Result<Vec<AttemptRecord>, DecodeError> {
    let block = pb::AttemptBlock::decode(bytes).map_err(DecodeError::malformed("attempt block"))?;
    block.records.into_iter().map(|record| attempt_from(block.job, record)).collect()
}

/// Encodes a job that is over.
#[must_use]
pub fn encode_finished_job(job: &FinishedJob) -> Vec<u8> {
    pb::FinishedJob::from(job).encode_to_vec()
}

/// Decodes what [`encode_finished_job`] made.
///
/// # Errors
/// If the bytes are something else.
pub fn decode_finished_job(bytes: &[u8]) -> Result<FinishedJob, DecodeError> {
    pb::FinishedJob::decode(bytes).map_err(DecodeError::malformed("finished job"))?.try_into()
}

/// Encodes a note of the audit, which became true at this time.
#[must_use]
pub fn encode_noted(noted: &Noted, at: Timestamp) -> Vec<u8> {
    let note = Some((&noted.note).into());
    pb::Noted { note, refused: noted.refused, at_micros: at.0 }.encode_to_vec()
}

/// Decodes what [`encode_noted`] made.
///
/// # Errors
/// If the bytes are something else.
pub fn decode_noted(bytes: &[u8]) -> Result<(Noted, Timestamp), DecodeError> {
    let message = pb::Noted::decode(bytes).map_err(DecodeError::malformed("audit note"))?;
    let note = required("a note", message.note)?.into();
    Ok((Noted { note, refused: message.refused }, Timestamp(message.at_micros)))
}

/// Encodes a note about cancelled tasks.
#[must_use]
pub fn encode_tasks_cancelled(cancelled: &TasksCancelled) -> Vec<u8> {
    pb::TasksCancelled {
        job: cancelled.job.0,
        tasks: Some((&cancelled.tasks).into()),
        reason: cancelled.reason.to_string(),
        at_micros: cancelled.at.0,
    }
    .encode_to_vec()
}

/// Decodes what [`encode_tasks_cancelled`] made.
///
/// # Errors
/// If the bytes are something else.
pub fn decode_tasks_cancelled(bytes: &[u8]) -> Result<TasksCancelled, DecodeError> {
    let message = pb::TasksCancelled::decode(bytes);
    let message = message.map_err(DecodeError::malformed("note about cancelled tasks"))?;
    Ok(TasksCancelled {
        job: JobId(message.job),
        tasks: required("the tasks cancelled", message.tasks)?.try_into()?,
        reason: message.reason.into(),
        at: Timestamp(message.at_micros),
    })
}

impl From<&AttemptRecord> for pb::AttemptRecord {
    fn from(record: &AttemptRecord) -> Self {
        use pb::attempt_record::Next as Kind;
        Self {
            index: record.attempt.task.index,
            number: record.attempt.number,
            node: record.node.0,
            placed_micros: record.placed_at.0,
            started_micros: record.started_at.map(|at| at.0),
            ended_micros: record.ended_at.0,
            state: match record.state {
                AttemptState::Succeeded => pb::AttemptState::Succeeded,
                AttemptState::Failed => pb::AttemptState::Failed,
                AttemptState::Cancelled => pb::AttemptState::Cancelled,
                AttemptState::Lost => pb::AttemptState::Lost,
                AttemptState::Recalled => pb::AttemptState::Recalled,
            }
            .into(),
            failure: record.failure.as_ref().map(Into::into),
            detail: record.detail.to_vec(),
            next: Some(match record.next {
                Next::Queued => Kind::Queued(pb::Unit {}),
                Next::Waiting(until) => Kind::WaitingSteadyMicros(until.0),
                Next::Finished(state) => Kind::Finished(task_state_to(state).into()),
            }),
        }
    }
}

fn attempt_from(job: u64, message: pb::AttemptRecord) -> Result<AttemptRecord, DecodeError> {
    use pb::attempt_record::Next as Kind;
    Ok(AttemptRecord {
        attempt: attempt_id(job, message.index, message.number),
        node: NodeId(message.node),
        placed_at: Timestamp(message.placed_micros),
        started_at: message.started_micros.map(Timestamp),
        ended_at: Timestamp(message.ended_micros),
        state: match pb::AttemptState::try_from(message.state) {
            Ok(pb::AttemptState::Succeeded) => AttemptState::Succeeded,
            Ok(pb::AttemptState::Failed) => AttemptState::Failed,
            Ok(pb::AttemptState::Cancelled) => AttemptState::Cancelled,
            Ok(pb::AttemptState::Lost) => AttemptState::Lost,
            Ok(pb::AttemptState::Recalled) => AttemptState::Recalled,
            Ok(pb::AttemptState::Unspecified) | Err(_) => {
                return Err(DecodeError::Unknown("an attempt's state"));
            }
        },
        failure: message.failure.map(TryInto::try_into).transpose()?,
        detail: shared(message.detail),
        next: match required("what became of the task", message.next)? {
            Kind::Queued(pb::Unit {}) => Next::Queued,
            Kind::WaitingSteadyMicros(until) => Next::Waiting(Steady(until)),
            Kind::Finished(state) => Next::Finished(task_state_from(state)?),
        },
    })
}

impl From<Counts> for pb::Counts {
    fn from(counts: Counts) -> Self {
        let Counts { queued, waiting, running, succeeded, failed, cancelled } = counts;
        Self { queued, waiting, running, succeeded, failed, cancelled }
    }
}

impl From<pb::Counts> for Counts {
    fn from(message: pb::Counts) -> Self {
        let pb::Counts { queued, waiting, running, succeeded, failed, cancelled } = message;
        Self { queued, waiting, running, succeeded, failed, cancelled }
    }
}

impl From<&FinishedJob> for pb::FinishedJob {
    fn from(job: &FinishedJob) -> Self {
        Self {
            id: job.id.0,
            spec: Some((&job.spec).into()),
            submitted_micros: job.submitted_at.0,
            started_micros: job.started_at.map(|at| at.0),
            finished_micros: job.finished_at.0,
            counts: Some(job.counts.into()),
            failed: Some((&job.failed).into()),
            cancelled: Some((&job.cancelled).into()),
        }
    }
}

impl TryFrom<pb::FinishedJob> for FinishedJob {
    type Error = DecodeError;

    fn try_from(message: pb::FinishedJob) -> Result<Self, DecodeError> {
        Ok(Self {
            id: JobId(message.id),
            spec: required("a job's description", message.spec)?.try_into()?,
            submitted_at: Timestamp(message.submitted_micros),
            started_at: message.started_micros.map(Timestamp),
            finished_at: Timestamp(message.finished_micros),
            counts: required("a job's counts", message.counts)?.into(),
            failed: required("a job's failed tasks", message.failed)?.try_into()?,
            cancelled: required("a job's cancelled tasks", message.cancelled)?.try_into()?,
        })
    }
}
