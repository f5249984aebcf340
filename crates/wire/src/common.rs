//! Conversions of the small values that messages share.

use std::sync::Arc;

use rota_core::command::{Failure, FailureKind};
use rota_core::job::TaskState;
use rota_types::{
    ActionKind, ActionKinds, AttemptId, Constraint, JobId, Labels, Predicate, RangeSet, Resources,
    Span, TaskId,
};

use crate::proto::rota::v1 as worker;
use crate::{DecodeError, pb};

/// Converts a number, or says that `what` is out of range.
pub(crate) fn narrow<T: TryFrom<u64>>(
    what: &'static str,
    value: impl Into<u64>,
) -> Result<T, DecodeError> {
    let value = value.into();
    T::try_from(value).map_err(|_| DecodeError::OutOfRange { what, value })
}

/// Shares bytes; empty ones cost nothing.
pub(crate) fn shared(bytes: Vec<u8>) -> Arc<[u8]> {
    if bytes.is_empty() { Arc::default() } else { Arc::from(bytes) }
}

pub(crate) fn attempt_id(job: u64, index: u32, number: u32) -> AttemptId {
    AttemptId { task: TaskId { job: JobId(job), index }, number }
}

pub(crate) fn labels_to(labels: &Labels) -> Vec<worker::Label> {
    labels
        .iter()
        .map(|(key, value)| worker::Label { key: key.to_string(), value: value.to_string() })
        .collect()
}

pub(crate) fn labels_from(labels: Vec<worker::Label>) -> Result<Labels, DecodeError> {
    let count = labels.len();
    let labels: Labels =
        labels.into_iter().map(|label| (label.key.into(), label.value.into())).collect();
    if labels.len() == count {
        Ok(labels)
    } else {
        Err(DecodeError::Inconsistent("a label is there twice"))
    }
}

/// A kind of action as a message's number.
pub(crate) fn kind_to(kind: ActionKind) -> i32 {
    let kind = match kind {
        ActionKind::Command => worker::ActionKind::Command,
        ActionKind::Http => worker::ActionKind::Http,
        ActionKind::Noop => worker::ActionKind::Noop,
    };
    kind.into()
}

pub(crate) fn kind_from(number: i32) -> Result<ActionKind, DecodeError> {
    match worker::ActionKind::try_from(number) {
        Ok(worker::ActionKind::Command) => Ok(ActionKind::Command),
        Ok(worker::ActionKind::Http) => Ok(ActionKind::Http),
        Ok(worker::ActionKind::Noop) => Ok(ActionKind::Noop),
        Err(_) => Err(DecodeError::Unknown("a kind of action")),
    }
}

/// The kinds that a node runs; nothing is said of one that runs everything.
pub(crate) fn kinds_to(kinds: ActionKinds) -> Option<worker::ActionKinds> {
    (kinds != ActionKinds::EVERY)
        .then(|| worker::ActionKinds { kinds: kinds.iter().map(kind_to).collect() })
}

impl From<&Resources> for worker::Resources {
    fn from(resources: &Resources) -> Self {
        let named = resources.named.iter();
        Self {
            cpu_millis: resources.cpu_millis,
            memory_bytes: resources.memory_bytes,
            named: named
                .map(|(name, millis)| worker::Amount { name: name.to_string(), millis: *millis })
                .collect(),
        }
    }
}

impl TryFrom<worker::Resources> for Resources {
    type Error = DecodeError;

    fn try_from(message: worker::Resources) -> Result<Self, DecodeError> {
        let mut resources = Self::new(message.cpu_millis, message.memory_bytes);
        for amount in message.named {
            if amount.millis == 0 {
                return Err(DecodeError::Inconsistent("a named resource has the amount zero"));
            }
            if resources.named.insert(amount.name.into(), amount.millis).is_some() {
                return Err(DecodeError::Inconsistent("a named resource is there twice"));
            }
        }
        Ok(resources)
    }
}

impl From<&RangeSet> for pb::RangeSet {
    fn from(set: &RangeSet) -> Self {
        let mut behind = 0;
        let mut spans = Vec::new();
        for (start, end) in set.ranges() {
            spans.extend([start - behind, end - start]);
            behind = end;
        }
        Self { spans }
    }
}

impl TryFrom<pb::RangeSet> for RangeSet {
    type Error = DecodeError;

    fn try_from(message: pb::RangeSet) -> Result<Self, DecodeError> {
        let (pairs, rest) = message.spans.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(DecodeError::Inconsistent("a range has a start but no length"));
        }
        let mut set = Self::default();
        let mut behind = 0_u32;
        for (place, [gap, length]) in pairs.iter().enumerate() {
            if *length == 0 || (*gap == 0 && place > 0) {
                return Err(DecodeError::Inconsistent("a range is empty or touches another"));
            }
            let start: u32 = narrow("range start", u64::from(behind) + u64::from(*gap))?;
            let end: u32 = narrow("range end", u64::from(start) + u64::from(*length))?;
            set.insert_range(start, end);
            behind = end;
        }
        Ok(set)
    }
}

impl From<&Constraint> for pb::Constraint {
    fn from(constraint: &Constraint) -> Self {
        use pb::constraint::Predicate as Kind;
        let values = |values: &[Box<str>]| pb::Values {
            values: values.iter().map(ToString::to_string).collect(),
        };
        let predicate = match &constraint.predicate {
            Predicate::In(list) => Kind::IsIn(values(list)),
            Predicate::NotIn(list) => Kind::NotIn(values(list)),
            Predicate::Exists => Kind::Exists(pb::Unit {}),
            Predicate::Absent => Kind::Absent(pb::Unit {}),
        };
        Self { key: constraint.key.to_string(), predicate: Some(predicate) }
    }
}

impl TryFrom<pb::Constraint> for Constraint {
    type Error = DecodeError;

    fn try_from(message: pb::Constraint) -> Result<Self, DecodeError> {
        use pb::constraint::Predicate as Kind;
        let values = |list: pb::Values| list.values.into_iter().map(Into::into).collect();
        let predicate = match message.predicate.ok_or(DecodeError::Unknown("a predicate"))? {
            Kind::IsIn(list) => Predicate::In(values(list)),
            Kind::NotIn(list) => Predicate::NotIn(values(list)),
            Kind::Exists(pb::Unit {}) => Predicate::Exists,
            Kind::Absent(pb::Unit {}) => Predicate::Absent,
        };
        Ok(Self { key: message.key.into(), predicate })
    }
}

impl From<&Failure> for worker::Failed {
    fn from(failure: &Failure) -> Self {
        use worker::failed::Kind;
        let kind = match failure.kind {
            FailureKind::Exit(code) => Kind::Exit(code),
            FailureKind::Signal(signal) => Kind::Signal(signal),
            FailureKind::Timeout => Kind::Timeout(true),
            FailureKind::Start => Kind::Start(true),
            FailureKind::Http(status) => {
                Kind::Http(worker::HttpFailure { status: status.map(u32::from) })
            }
            FailureKind::Lost => Kind::Lost(true),
        };
        Self { kind: Some(kind), message: failure.message.to_string() }
    }
}

impl TryFrom<worker::Failed> for Failure {
    type Error = DecodeError;

    fn try_from(message: worker::Failed) -> Result<Self, DecodeError> {
        use worker::failed::Kind;
        let kind = match message.kind.ok_or(DecodeError::Unknown("a failure's kind"))? {
            Kind::Exit(code) => FailureKind::Exit(code),
            Kind::Signal(signal) => FailureKind::Signal(signal),
            Kind::Timeout(_) => FailureKind::Timeout,
            Kind::Start(_) => FailureKind::Start,
            Kind::Http(http) => FailureKind::Http(
                http.status.map(|status| narrow("HTTP status", status)).transpose()?,
            ),
            Kind::Lost(_) => FailureKind::Lost,
        };
        Ok(Self { kind, message: message.message.into() })
    }
}

pub(crate) fn task_state_to(state: TaskState) -> pb::TaskState {
    match state {
        TaskState::Succeeded => pb::TaskState::Succeeded,
        TaskState::Failed => pb::TaskState::Failed,
        TaskState::Cancelled => pb::TaskState::Cancelled,
    }
}

pub(crate) fn task_state_from(number: i32) -> Result<TaskState, DecodeError> {
    match pb::TaskState::try_from(number) {
        Ok(pb::TaskState::Succeeded) => Ok(TaskState::Succeeded),
        Ok(pb::TaskState::Failed) => Ok(TaskState::Failed),
        Ok(pb::TaskState::Cancelled) => Ok(TaskState::Cancelled),
        Ok(pb::TaskState::Unspecified) | Err(_) => Err(DecodeError::Unknown("a task's state")),
    }
}

pub(crate) fn micros(span: Option<Span>) -> Option<u64> {
    span.map(Span::micros)
}

/// The field's value, or an error that names it.
pub(crate) fn required<T>(what: &'static str, field: Option<T>) -> Result<T, DecodeError> {
    field.ok_or(DecodeError::Unknown(what))
}

/// Converts every message of a list.
pub(crate) fn all<M, T>(messages: Vec<M>) -> Result<Vec<T>, DecodeError>
where
    T: TryFrom<M, Error = DecodeError>,
{
    messages.into_iter().map(TryInto::try_into).collect()
}
