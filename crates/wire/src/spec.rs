//! Conversions of what users and workers describe: jobs, nodes, queues.

use rota_core::command::{
    Backoff, GroupSpec, IdempotencyKey, JobSpec, NodeSpec, QueueSpec, RetryPolicy, RetryRule,
    Shape, SubmitJobs,
};
use rota_core::queue::{Discipline, Placement};
use rota_types::{ActionKinds, JobId, Span};

use crate::common::{
    all, kind_from, kind_to, kinds_to, labels_from, labels_to, micros, narrow, required, shared,
};
use crate::{DecodeError, pb};

impl From<&SubmitJobs> for pb::SubmitJobs {
    fn from(submit: &SubmitJobs) -> Self {
        Self {
            jobs: submit.jobs.iter().map(Into::into).collect(),
            idempotency: submit.idempotency.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<pb::SubmitJobs> for SubmitJobs {
    type Error = DecodeError;

    fn try_from(message: pb::SubmitJobs) -> Result<Self, DecodeError> {
        Ok(Self {
            jobs: all(message.jobs)?,
            idempotency: message.idempotency.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<&IdempotencyKey> for pb::IdempotencyKey {
    fn from(key: &IdempotencyKey) -> Self {
        Self { key: key.key.to_string(), digest: key.digest.to_vec() }
    }
}

impl TryFrom<pb::IdempotencyKey> for IdempotencyKey {
    type Error = DecodeError;

    fn try_from(message: pb::IdempotencyKey) -> Result<Self, DecodeError> {
        let digest = message.digest.try_into();
        let digest = digest.map_err(|_| DecodeError::Inconsistent("a digest is not 16 bytes"))?;
        Ok(Self { key: message.key.into(), digest })
    }
}

impl From<&JobSpec> for pb::JobSpec {
    fn from(spec: &JobSpec) -> Self {
        Self {
            name: spec.name.to_string(),
            queue: spec.queue.to_string(),
            priority: spec.priority,
            labels: labels_to(&spec.labels),
            submitter: spec.submitter.to_string(),
            retry_of: spec.retry_of.map(|job| job.0),
            groups: spec.groups.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<pb::JobSpec> for JobSpec {
    type Error = DecodeError;

    fn try_from(message: pb::JobSpec) -> Result<Self, DecodeError> {
        Ok(Self {
            name: message.name.into(),
            queue: message.queue.into(),
            priority: message.priority,
            labels: labels_from(message.labels)?,
            submitter: message.submitter.into(),
            retry_of: message.retry_of.map(JobId),
            groups: all(message.groups)?,
        })
    }
}

impl From<&GroupSpec> for pb::GroupSpec {
    fn from(group: &GroupSpec) -> Self {
        Self {
            name: group.name.to_string(),
            array: Some((&group.array).into()),
            is_array: group.is_array,
            action: group.action.to_vec(),
            shape: Some((&group.shape).into()),
            estimate_micros: micros(group.estimate),
            timeout_micros: micros(group.timeout),
            retry: Some((&group.retry).into()),
            parallel_max: group.parallel_max,
        }
    }
}

impl TryFrom<pb::GroupSpec> for GroupSpec {
    type Error = DecodeError;

    fn try_from(message: pb::GroupSpec) -> Result<Self, DecodeError> {
        Ok(Self {
            name: message.name.into(),
            array: required("a group's array", message.array)?.try_into()?,
            is_array: message.is_array,
            action: shared(message.action),
            shape: required("a group's shape", message.shape)?.try_into()?,
            estimate: message.estimate_micros.map(Span),
            timeout: message.timeout_micros.map(Span),
            retry: required("a group's retry policy", message.retry)?.try_into()?,
            parallel_max: message.parallel_max,
        })
    }
}

impl From<&Shape> for pb::Shape {
    fn from(shape: &Shape) -> Self {
        Self {
            need: Some((&shape.need).into()),
            constraints: shape.constraints.iter().map(Into::into).collect(),
            kind: shape.kind.map(kind_to),
        }
    }
}

impl TryFrom<pb::Shape> for Shape {
    type Error = DecodeError;

    fn try_from(message: pb::Shape) -> Result<Self, DecodeError> {
        Ok(Self {
            need: required("a shape's need", message.need)?.try_into()?,
            constraints: all(message.constraints)?,
            kind: message.kind.map(kind_from).transpose()?,
        })
    }
}

impl From<&RetryPolicy> for pb::RetryPolicy {
    fn from(policy: &RetryPolicy) -> Self {
        Self {
            attempts_max: policy.attempts_max,
            backoff_base_micros: policy.backoff.base.micros(),
            backoff_max_micros: policy.backoff.max.micros(),
            jitter_percent: policy.backoff.jitter_percent.into(),
            on: policy.on.iter().map(|rule| (*rule).into()).collect(),
        }
    }
}

impl TryFrom<pb::RetryPolicy> for RetryPolicy {
    type Error = DecodeError;

    fn try_from(message: pb::RetryPolicy) -> Result<Self, DecodeError> {
        Ok(Self {
            attempts_max: message.attempts_max,
            backoff: Backoff {
                base: Span(message.backoff_base_micros),
                max: Span(message.backoff_max_micros),
                jitter_percent: narrow("jitter", message.jitter_percent)?,
            },
            on: all(message.on)?,
        })
    }
}

impl From<RetryRule> for pb::RetryRule {
    fn from(rule: RetryRule) -> Self {
        use pb::retry_rule::Kind;
        Self {
            kind: Some(match rule {
                RetryRule::Exit(from, to) => Kind::Exit(pb::ExitRange { from, to }),
                RetryRule::Signal => Kind::Signal(pb::Unit {}),
                RetryRule::Timeout => Kind::Timeout(pb::Unit {}),
                RetryRule::Start => Kind::Start(pb::Unit {}),
                RetryRule::Http => Kind::Http(pb::Unit {}),
            }),
        }
    }
}

impl TryFrom<pb::RetryRule> for RetryRule {
    type Error = DecodeError;

    fn try_from(message: pb::RetryRule) -> Result<Self, DecodeError> {
        use pb::retry_rule::Kind;
        Ok(match required("a retry rule", message.kind)? {
            Kind::Exit(pb::ExitRange { from, to }) => Self::Exit(from, to),
            Kind::Signal(pb::Unit {}) => Self::Signal,
            Kind::Timeout(pb::Unit {}) => Self::Timeout,
            Kind::Start(pb::Unit {}) => Self::Start,
            Kind::Http(pb::Unit {}) => Self::Http,
        })
    }
}

impl From<&NodeSpec> for pb::NodeSpec {
    fn from(node: &NodeSpec) -> Self {
        Self {
            name: node.name.to_string(),
            incarnation: node.incarnation,
            capacity: Some((&node.capacity).into()),
            attempts_max: node.attempts_max,
            labels: labels_to(&node.labels),
            version: node.version.to_string(),
            runs: kinds_to(node.runs),
            stages: node.stages,
        }
    }
}

impl TryFrom<pb::NodeSpec> for NodeSpec {
    type Error = DecodeError;

    fn try_from(message: pb::NodeSpec) -> Result<Self, DecodeError> {
        Ok(Self {
            name: message.name.into(),
            incarnation: message.incarnation,
            capacity: required("a node's capacity", message.capacity)?.try_into()?,
            attempts_max: message.attempts_max,
            labels: labels_from(message.labels)?,
            version: message.version.into(),
            runs: match message.runs {
                Some(runs) => runs.kinds.into_iter().map(kind_from).collect::<Result<_, _>>()?,
                None => ActionKinds::EVERY,
            },
            stages: message.stages,
        })
    }
}

impl From<&QueueSpec> for pb::QueueSpec {
    fn from(queue: &QueueSpec) -> Self {
        use pb::queue_spec::{Discipline as D, Placement as P};
        let unit = pb::Unit {};
        Self {
            name: queue.name.to_string(),
            discipline: Some(match queue.discipline {
                Discipline::Fifo => D::Fifo(unit),
                Discipline::Priority { aging } => {
                    D::Priority(pb::Priority { aging_micros: aging.micros() })
                }
            }),
            placement: Some(match queue.placement {
                Placement::FirstFit => P::FirstFit(unit),
                Placement::BestFit => P::BestFit(unit),
                Placement::LeastLoaded => P::LeastLoaded(unit),
                Placement::RoundRobin => P::RoundRobin(unit),
                Placement::Random { seed } => P::Random(pb::RandomPlacement { seed }),
            }),
            weight: queue.weight,
            running_max: queue.running_max,
            tasks_max: queue.tasks_max,
        }
    }
}

impl TryFrom<pb::QueueSpec> for QueueSpec {
    type Error = DecodeError;

    fn try_from(message: pb::QueueSpec) -> Result<Self, DecodeError> {
        use pb::queue_spec::{Discipline as D, Placement as P};
        Ok(Self {
            name: message.name.into(),
            discipline: match required("a queue's discipline", message.discipline)? {
                D::Fifo(pb::Unit {}) => Discipline::Fifo,
                D::Priority(priority) => {
                    Discipline::Priority { aging: Span(priority.aging_micros) }
                }
            },
            placement: match required("a queue's placement", message.placement)? {
                P::FirstFit(pb::Unit {}) => Placement::FirstFit,
                P::BestFit(pb::Unit {}) => Placement::BestFit,
                P::LeastLoaded(pb::Unit {}) => Placement::LeastLoaded,
                P::RoundRobin(pb::Unit {}) => Placement::RoundRobin,
                P::Random(random) => Placement::Random { seed: random.seed },
            },
            weight: message.weight,
            running_max: message.running_max,
            tasks_max: message.tasks_max,
        })
    }
}
