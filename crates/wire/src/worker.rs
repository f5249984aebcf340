//! The messages between servers and workers, with the client and server of their streams, and their conversions.

use std::sync::Arc;

use prost::Message;
use rota_core::command::{AttemptEnd, AttemptReport, NodeSpec};
use rota_types::{
    ActionKinds as CoreKinds, AttemptId, Labels, NodeId, Resources as CoreResources, Timestamp,
};

use crate::DecodeError;
use crate::common::{attempt_id, kind_from, kinds_to, labels_from, labels_to, required};

pub use crate::proto::rota::v1::*;

/// The protocol that this version speaks; a [`Hello`] with another is refused.
pub const PROTOCOL: u32 = 1;

impl From<AttemptId> for AttemptRef {
    fn from(attempt: AttemptId) -> Self {
        Self { job: attempt.task.job.0, index: attempt.task.index, number: attempt.number }
    }
}

impl From<AttemptRef> for AttemptId {
    fn from(message: AttemptRef) -> Self {
        attempt_id(message.job, message.index, message.number)
    }
}

/// Labels as messages, in order of their keys.
#[must_use]
pub fn labels_to_wire(labels: &Labels) -> Vec<Label> {
    labels_to(labels)
}

/// Labels of messages.
///
/// # Errors
/// If a key is there twice.
pub fn labels_from_wire(labels: Vec<Label>) -> Result<Labels, DecodeError> {
    labels_from(labels)
}

/// A worker's description of itself in its first message.
#[must_use]
pub fn hello(spec: &NodeSpec) -> Hello {
    Hello {
        protocol: PROTOCOL,
        name: spec.name.to_string(),
        incarnation: spec.incarnation,
        capacity: Some((&spec.capacity).into()),
        attempts_max: spec.attempts_max,
        labels: labels_to(&spec.labels),
        version: spec.version.to_string(),
        runs: kinds_to(spec.runs),
        stages: spec.stages,
    }
}

impl TryFrom<Hello> for NodeSpec {
    type Error = DecodeError;

    fn try_from(message: Hello) -> Result<Self, DecodeError> {
        if message.protocol != PROTOCOL {
            let value = message.protocol.into();
            return Err(DecodeError::OutOfRange { what: "the worker's protocol", value });
        }
        let capacity = required("a node's capacity", message.capacity)?;
        Ok(Self {
            name: message.name.into(),
            incarnation: message.incarnation,
            capacity: CoreResources::try_from(capacity)?,
            attempts_max: message.attempts_max,
            labels: labels_from(message.labels)?,
            version: message.version.into(),
            stages: message.stages,
            // A newer worker may run what this version has no tasks of.
            runs: message.runs.map_or(CoreKinds::EVERY, |runs| {
                runs.kinds.into_iter().filter_map(|kind| kind_from(kind).ok()).collect()
            }),
        })
    }
}

/// A report as a worker sends it.
///
/// # Errors
/// If the report's detail is not an encoded [`Detail`].
pub fn report_to_wire(report: &AttemptReport) -> Result<Report, DecodeError> {
    Ok(Report {
        attempt: Some(report.attempt.into()),
        end: Some(match &report.end {
            AttemptEnd::Succeeded => report::End::Succeeded(Succeeded {}),
            AttemptEnd::Failed(failure) => report::End::Failed(failure.into()),
            AttemptEnd::Stopped => report::End::Stopped(Stopped {}),
            AttemptEnd::Recalled => report::End::Recalled(Recalled {}),
        }),
        started_micros: report.started_at.map(|at| at.0),
        ended_micros: report.ended_at.0,
        detail: Some(decode_detail(&report.detail)?),
    })
}

/// A report that `node`'s worker sent.
///
/// # Errors
/// If the report lacks something or is of a kind that this version does not know.
pub fn report_from_wire(node: NodeId, message: Report) -> Result<AttemptReport, DecodeError> {
    let end = match required("how an attempt ended", message.end)? {
        report::End::Succeeded(Succeeded {}) => AttemptEnd::Succeeded,
        report::End::Failed(failure) => AttemptEnd::Failed(failure.try_into()?),
        report::End::Stopped(Stopped {}) => AttemptEnd::Stopped,
        report::End::Recalled(Recalled {}) => AttemptEnd::Recalled,
    };
    Ok(AttemptReport {
        attempt: required("a report's attempt", message.attempt)?.into(),
        node,
        end,
        started_at: message.started_micros.map(Timestamp),
        ended_at: Timestamp(message.ended_micros),
        detail: message.detail.as_ref().map(encode_detail).unwrap_or_default(),
    })
}

/// Encodes an attempt's detail, as records hold it.
#[must_use]
pub fn encode_detail(detail: &Detail) -> Arc<[u8]> {
    match detail.encoded_len() {
        0 => Arc::default(),
        _ => Arc::from(detail.encode_to_vec()),
    }
}

/// Decodes an attempt's detail. No bytes are an empty detail.
///
/// # Errors
/// If the bytes are something else.
pub fn decode_detail(bytes: &[u8]) -> Result<Detail, DecodeError> {
    Detail::decode(bytes).map_err(DecodeError::malformed("detail of an attempt"))
}
