//! The key-value store in the log and in snapshots.

use std::collections::VecDeque;

use rota_core::image::{Record, SessionRecord};
use rota_core::kv::{AcquireLock, ChangeKeys, Claim, Condition, KeyChange, KvCommand, Lock, Pair};
use rota_types::{Revision, SessionId, Span, Steady, Timestamp};

use crate::common::{all, required, shared};
use crate::{DecodeError, pb};

impl From<&KvCommand> for pb::KvCommand {
    fn from(command: &KvCommand) -> Self {
        use pb::kv_command::Kind;
        let kind = match command {
            KvCommand::Change(change) => Kind::Change(change.into()),
            KvCommand::DeletePrefix { prefix, at_most } => Kind::DeletePrefix(pb::DeletePrefix {
                prefix: prefix.to_string(),
                at_most: *at_most,
            }),
            KvCommand::OpenSession { ttl } => Kind::OpenSessionTtlMicros(ttl.micros()),
            KvCommand::RenewSessions(ids) => {
                Kind::RenewSessions(pb::Sessions { ids: ids.iter().map(|id| id.0).collect() })
            }
            KvCommand::CloseSession(id) => Kind::CloseSession(id.0),
            KvCommand::AcquireLock(acquire) => Kind::AcquireLock(pb::AcquireLock {
                lock: acquire.lock.to_string(),
                session: acquire.session.0,
                value: acquire.value.to_vec(),
                wait: acquire.wait,
            }),
            KvCommand::ReleaseLock { lock, session } => {
                Kind::ReleaseLock(pb::ReleaseLock { lock: lock.to_string(), session: session.0 })
            }
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<pb::KvCommand> for KvCommand {
    type Error = DecodeError;

    fn try_from(message: pb::KvCommand) -> Result<Self, DecodeError> {
        use pb::kv_command::Kind;
        Ok(match required("a command for the key-value store", message.kind)? {
            Kind::Change(change) => Self::Change(change.try_into()?),
            Kind::DeletePrefix(pb::DeletePrefix { prefix, at_most }) => {
                Self::DeletePrefix { prefix: prefix.into(), at_most }
            }
            Kind::OpenSessionTtlMicros(ttl) => Self::OpenSession { ttl: Span(ttl) },
            Kind::RenewSessions(sessions) => {
                Self::RenewSessions(sessions.ids.into_iter().map(SessionId).collect())
            }
            Kind::CloseSession(id) => Self::CloseSession(SessionId(id)),
            Kind::AcquireLock(pb::AcquireLock { lock, session, value, wait }) => {
                let (lock, value) = (lock.into(), shared(value));
                Self::AcquireLock(AcquireLock { lock, session: SessionId(session), value, wait })
            }
            Kind::ReleaseLock(pb::ReleaseLock { lock, session }) => {
                Self::ReleaseLock { lock: lock.into(), session: SessionId(session) }
            }
        })
    }
}

impl From<&ChangeKeys> for pb::ChangeKeys {
    fn from(change: &ChangeKeys) -> Self {
        Self {
            conditions: change.conditions.iter().map(Into::into).collect(),
            changes: change.changes.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<pb::ChangeKeys> for ChangeKeys {
    type Error = DecodeError;

    fn try_from(message: pb::ChangeKeys) -> Result<Self, DecodeError> {
        Ok(Self { conditions: all(message.conditions)?, changes: all(message.changes)? })
    }
}

impl From<&Condition> for pb::KvCondition {
    fn from(condition: &Condition) -> Self {
        use pb::kv_condition::Kind;
        let at = |key: &str, revision: Revision| pb::KeyRevision {
            key: key.to_owned(),
            revision: revision.0,
        };
        let kind = match condition {
            Condition::Absent { key } => Kind::Absent(key.to_string()),
            Condition::Unchanged { key, since } => Kind::Unchanged(at(key, *since)),
            Condition::Held { lock, token } => Kind::Held(at(lock, *token)),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<pb::KvCondition> for Condition {
    type Error = DecodeError;

    fn try_from(message: pb::KvCondition) -> Result<Self, DecodeError> {
        use pb::kv_condition::Kind;
        Ok(match required("a condition", message.kind)? {
            Kind::Absent(key) => Self::Absent { key: key.into() },
            Kind::Unchanged(pb::KeyRevision { key, revision }) => {
                Self::Unchanged { key: key.into(), since: Revision(revision) }
            }
            Kind::Held(pb::KeyRevision { key, revision }) => {
                Self::Held { lock: key.into(), token: Revision(revision) }
            }
        })
    }
}

impl From<&KeyChange> for pb::KeyChange {
    fn from(change: &KeyChange) -> Self {
        use pb::key_change::Kind;
        let kind = match change {
            KeyChange::Put { key, value, session } => Kind::Put(pb::PutKey {
                key: key.to_string(),
                value: value.to_vec(),
                session: session.map(|id| id.0),
            }),
            KeyChange::Delete { key } => Kind::Delete(key.to_string()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<pb::KeyChange> for KeyChange {
    type Error = DecodeError;

    fn try_from(message: pb::KeyChange) -> Result<Self, DecodeError> {
        use pb::key_change::Kind;
        Ok(match required("a change to a key", message.kind)? {
            Kind::Put(pb::PutKey { key, value, session }) => {
                Self::Put { key: key.into(), value: shared(value), session: session.map(SessionId) }
            }
            Kind::Delete(key) => Self::Delete { key: key.into() },
        })
    }
}

pub(crate) fn session_to(session: &SessionRecord) -> pb::SessionRecord {
    pb::SessionRecord {
        id: session.id.0,
        ttl_micros: session.ttl.micros(),
        deadline_steady_micros: session.deadline.0,
        opened_micros: session.opened_at.0,
    }
}

pub(crate) fn session_from(session: &pb::SessionRecord) -> Record {
    Record::Session(SessionRecord {
        id: SessionId(session.id),
        ttl: Span(session.ttl_micros),
        deadline: Steady(session.deadline_steady_micros),
        opened_at: Timestamp(session.opened_micros),
    })
}

pub(crate) fn pair_to(key: &str, pair: &Pair) -> pb::PairRecord {
    pb::PairRecord {
        key: key.to_owned(),
        value: pair.value.to_vec(),
        session: pair.session.map(|id| id.0),
        created: pair.created.0,
        modified: pair.modified.0,
        version: pair.version,
    }
}

pub(crate) fn pair_from(pair: pb::PairRecord) -> Record {
    let pb::PairRecord { key, value, session, created, modified, version } = pair;
    let pair = Pair {
        value: shared(value),
        session: session.map(SessionId),
        created: Revision(created),
        modified: Revision(modified),
        version,
    };
    Record::Pair(key.into(), pair)
}

pub(crate) fn lock_to(name: &str, lock: &Lock) -> pb::LockRecord {
    let claims = lock.claims();
    pb::LockRecord {
        name: name.to_owned(),
        token: lock.token.0,
        claims: claims
            .map(|claim| pb::Claim { session: claim.session.0, value: claim.value.to_vec() })
            .collect(),
    }
}

pub(crate) fn lock_from(lock: pb::LockRecord) -> Result<Record, DecodeError> {
    let pb::LockRecord { name, token, claims } = lock;
    let mut claims: VecDeque<Claim> = claims
        .into_iter()
        .map(|claim| Claim { session: SessionId(claim.session), value: shared(claim.value) })
        .collect();
    let holder = required("a lock's holder", claims.pop_front())?;
    Ok(Record::Lock(name.into(), Lock { token: Revision(token), holder, waiters: claims }))
}
