//! The oracle's own idea of the key-value store and of tokens: plain maps, and the rules as users read them.

use std::collections::{BTreeMap, BTreeSet};

use rota_core::command::{Outcome, Rejection, Reply};
use rota_core::kv::{
    AcquireLock, ChangeKeys, Condition, KeyChange, KvCommand, KvRejection, KvReply, Store,
};
use rota_core::token::{Grant, TokenCommand};
use rota_types::{Revision, SessionId, Span, Steady};

/// A key: value, session, created, modified, version.
type Held = (Box<[u8]>, Option<SessionId>, u64, u64, u64);

/// What is believed of the store.
#[derive(Debug, Default)]
pub(crate) struct KvModel {
    revision: u64,
    keys: BTreeMap<Box<str>, Held>,
    sessions: BTreeMap<SessionId, (Span, Steady)>,
    opened: u64,
    /// Who claims a lock, the holder first, and the holder's token.
    locks: BTreeMap<Box<str>, (u64, Vec<SessionId>)>,
    /// The highest token that each lock ever had.
    tokens: BTreeMap<Box<str>, u64>,
    /// Join tokens and other tokens by id, with the uses that are left.
    grants: BTreeMap<Box<str>, Option<u32>>,
    pub(crate) expired: u64,
    pub(crate) passed: u64,
}

impl KvModel {
    pub(crate) fn sessions(&self) -> Vec<SessionId> {
        self.sessions.keys().copied().collect()
    }

    /// The token of a lock, if it is held.
    pub(crate) fn token_of(&self, lock: &str) -> Option<Revision> {
        self.locks.get(lock).map(|(token, _)| Revision(*token))
    }

    /// The revision of a key's last change.
    pub(crate) fn modified(&self, key: &str) -> Option<Revision> {
        self.keys.get(key).map(|held| Revision(held.3))
    }

    /// What the command has to be answered, and does (I17).
    pub(crate) fn judge(
        &mut self,
        command: &KvCommand,
        outcome: &Outcome,
        steady: Steady,
    ) -> Result<(), String> {
        let expected = self.apply(command, steady)?;
        let expected = expected.map(Reply::Kv).map_err(Rejection::from);
        if *outcome == expected {
            return Ok(());
        }
        Err(format!("I17: {command:?} is answered {outcome:?}, not {expected:?}"))
    }

    fn apply(
        &mut self,
        command: &KvCommand,
        steady: Steady,
    ) -> Result<Result<KvReply, KvRejection>, String> {
        Ok(match command {
            KvCommand::Change(change) => self.change(change),
            KvCommand::DeletePrefix { prefix, at_most } => {
                let found = self.keys.keys().filter(|key| key.starts_with(&**prefix)).cloned();
                let found: Vec<Box<str>> = found.take(*at_most as usize).collect();
                self.revision += u64::from(!found.is_empty());
                found.iter().for_each(|key| drop(self.keys.remove(key)));
                let deleted = u32::try_from(found.len()).unwrap_or(u32::MAX);
                Ok(KvReply::Changed { revision: Revision(self.revision), deleted })
            }
            KvCommand::OpenSession { ttl } => {
                self.opened += 1;
                let id = SessionId(self.opened);
                self.sessions.insert(id, (*ttl, steady.plus(*ttl)));
                Ok(KvReply::Opened(id))
            }
            KvCommand::RenewSessions(ids) => {
                let mut over = Vec::new();
                for id in ids {
                    match self.sessions.get_mut(id) {
                        Some((ttl, deadline)) => *deadline = steady.plus(*ttl),
                        None => over.push(*id),
                    }
                }
                Ok(KvReply::Renewed { over })
            }
            KvCommand::CloseSession(id) => {
                if !self.sessions.contains_key(id) {
                    return Ok(Err(KvRejection::UnknownSession(*id)));
                }
                self.end(*id)?;
                Ok(KvReply::Done)
            }
            KvCommand::AcquireLock(acquire) => return self.acquire(acquire),
            KvCommand::ReleaseLock { lock, session } => {
                let claims = self.locks.get(lock).is_some_and(|(_, all)| all.contains(session));
                if !claims {
                    let (lock, session) = (lock.clone(), *session);
                    return Ok(Err(KvRejection::NoClaim { lock, session }));
                }
                let revision = self.revision + 1;
                if self.drop_claim(lock, *session, revision)? {
                    self.revision = revision;
                }
                Ok(KvReply::Done)
            }
        })
    }

    fn change(&mut self, change: &ChangeKeys) -> Result<KvReply, KvRejection> {
        for change in &change.changes {
            if let KeyChange::Put { session: Some(id), .. } = change
                && !self.sessions.contains_key(id)
            {
                return Err(KvRejection::UnknownSession(*id));
            }
        }
        for condition in &change.conditions {
            let (key, wanted) = match condition {
                Condition::Absent { key } => (key, None),
                Condition::Unchanged { key, since } => (key, Some(*since)),
                Condition::Held { lock, token } => {
                    let found = self.token_of(lock);
                    if found != Some(*token) {
                        return Err(KvRejection::LockLost { lock: lock.clone(), found });
                    }
                    continue;
                }
            };
            let found = self.modified(key);
            if found != wanted {
                return Err(KvRejection::KeyChanged { key: key.clone(), found });
            }
        }
        let revision = self.revision + 1;
        let (mut deleted, mut changed) = (0, false);
        for change in &change.changes {
            match change {
                KeyChange::Put { key, value, session } => {
                    let old = self.keys.get(key);
                    let (created, version) = old.map_or((revision, 1), |held| (held.2, held.4 + 1));
                    let held = ((**value).into(), *session, created, revision, version);
                    self.keys.insert(key.clone(), held);
                    changed = true;
                }
                KeyChange::Delete { key } => {
                    let there = self.keys.remove(key).is_some();
                    deleted += u32::from(there);
                    changed |= there;
                }
            }
        }
        self.revision += u64::from(changed);
        Ok(KvReply::Changed { revision: Revision(self.revision), deleted })
    }

    fn acquire(&mut self, acquire: &AcquireLock) -> Result<Result<KvReply, KvRejection>, String> {
        let AcquireLock { lock, session, wait, .. } = acquire;
        if !self.sessions.contains_key(session) {
            return Ok(Err(KvRejection::UnknownSession(*session)));
        }
        let waiting = |ahead: usize| u32::try_from(ahead).unwrap_or(u32::MAX);
        let Some((token, claims)) = self.locks.get_mut(lock) else {
            self.revision += 1;
            let token = self.revision;
            self.locks.insert(lock.clone(), (token, vec![*session]));
            self.rises(lock, token)?;
            return Ok(Ok(KvReply::Held { token: Revision(token) }));
        };
        Ok(match claims.iter().position(|claim| claim == session) {
            Some(0) => Ok(KvReply::Held { token: Revision(*token) }),
            Some(place) => Ok(KvReply::Waiting { ahead: waiting(place - 1) }),
            None if *wait => {
                claims.push(*session);
                Ok(KvReply::Waiting { ahead: waiting(claims.len() - 2) })
            }
            None => Err(KvRejection::LockHeld {
                lock: lock.clone(),
                holder: claims[0],
                token: Revision(*token),
            }),
        })
    }

    /// Fencing: each holder's token is above those of all before it.
    fn rises(&mut self, lock: &str, token: u64) -> Result<(), String> {
        let highest = self.tokens.insert(lock.into(), token);
        if highest.is_some_and(|highest| highest >= token) {
            return Err(format!("I17: the token of {lock} goes from {highest:?} to {token}"));
        }
        Ok(())
    }

    /// Returns whether the lock changed hands.
    fn drop_claim(
        &mut self,
        name: &str,
        session: SessionId,
        revision: u64,
    ) -> Result<bool, String> {
        let Some((token, claims)) = self.locks.get_mut(name) else { return Ok(false) };
        let Some(place) = claims.iter().position(|claim| *claim == session) else {
            return Ok(false);
        };
        claims.remove(place);
        if place > 0 {
            return Ok(false);
        }
        if claims.is_empty() {
            self.locks.remove(name);
            return Ok(true);
        }
        *token = revision;
        self.passed += 1;
        self.rises(name, revision)?;
        Ok(true)
    }

    /// A session is over, and all that was bound to it.
    fn end(&mut self, id: SessionId) -> Result<(), String> {
        self.sessions.remove(&id);
        let revision = self.revision + 1;
        let before = self.keys.len();
        self.keys.retain(|_, held| held.1 != Some(id));
        let mut changed = self.keys.len() < before;
        let locks: BTreeSet<Box<str>> = self.locks.keys().cloned().collect();
        for lock in locks {
            changed |= self.drop_claim(&lock, id, revision)?;
        }
        self.revision += u64::from(changed);
        Ok(())
    }

    /// Time has passed: sessions whose time ran out end, the earliest first.
    pub(crate) fn tick(&mut self, steady: Steady) -> Result<(), String> {
        let due = self.sessions.iter().filter(|(_, (_, deadline))| *deadline <= steady);
        let mut due: Vec<(Steady, SessionId)> =
            due.map(|(id, (_, deadline))| (*deadline, *id)).collect();
        due.sort_unstable();
        self.expired += due.len() as u64;
        due.into_iter().try_for_each(|(_, id)| self.end(id))
    }

    /// Whether the store holds what it should.
    pub(crate) fn is(&self, store: &Store) -> Result<(), String> {
        let keys = store.list("", None).map(|(key, pair)| {
            let held = (pair.created.0, pair.modified.0, pair.version);
            (&**key, &*pair.value, pair.session, held)
        });
        let own = self
            .keys
            .iter()
            .map(|(key, held)| (&**key, &*held.0, held.1, (held.2, held.3, held.4)));
        let locks = store.locks("", None).map(|(name, lock)| {
            (&**name, lock.token.0, lock.claims().map(|claim| claim.session).collect::<Vec<_>>())
        });
        let own_locks =
            self.locks.iter().map(|(name, (token, claims))| (&**name, *token, claims.clone()));
        let sessions = store.sessions_after(SessionId(0)).map(|(id, one)| (id, one.deadline));
        let own_sessions = self.sessions.iter().map(|(id, (_, deadline))| (*id, *deadline));
        let right = store.revision().0 == self.revision
            && keys.eq(own)
            && locks.eq(own_locks)
            && sessions.eq(own_sessions);
        if right { Ok(()) } else { Err(format!("I17: the store is not {self:?}")) }
    }

    /// What becomes of tokens (I16): nobody's clock ends one here.
    pub(crate) fn judge_tokens(
        &mut self,
        command: &TokenCommand,
        outcome: &Outcome,
    ) -> Result<(), String> {
        let unknown = |id: &str| Err(Rejection::UnknownToken(id.into()));
        let expected = match command {
            TokenCommand::Add(spec) => {
                let uses = match spec.grant {
                    Grant::Join { uses_left, .. } => Some(uses_left),
                    Grant::Api(_) => None,
                };
                self.grants.entry(spec.id.clone()).or_insert(uses);
                Ok(Reply::Done)
            }
            TokenCommand::Revoke(id) => {
                self.grants.remove(id).map_or_else(|| unknown(id), |_| Ok(Reply::Done))
            }
            TokenCommand::Use(id) => match self.grants.get_mut(id) {
                Some(Some(uses)) => {
                    *uses -= 1;
                    if *uses == 0 {
                        self.grants.remove(id);
                    }
                    Ok(Reply::Done)
                }
                Some(None) | None => unknown(id),
            },
        };
        if *outcome == expected {
            return Ok(());
        }
        Err(format!("I16: {command:?} is answered {outcome:?}, not {expected:?}"))
    }
}
