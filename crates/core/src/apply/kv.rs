//! Commands of the key-value store.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;

use rota_types::limits::{
    BATCH_MAX, CLAIM_VALUE_BYTES_MAX, CLAIMS_MAX, KEY_BYTES_MAX, KEY_CHANGES_MAX,
    KEY_VALUE_BYTES_MAX, KEYS_BYTES_MAX, KEYS_DELETED_MAX, KEYS_MAX, LOCK_WAITERS_MAX,
    SESSION_KEYS_MAX, SESSION_TTL_MAX, SESSION_TTL_MIN, SESSIONS_MAX,
};
use rota_types::{Revision, SessionId, Span};

use crate::apply::submit::{limit, require};
use crate::command::{Outcome, Rejection, Reply};
use crate::event::Event;
use crate::kv::{
    AcquireLock, ChangeKeys, Claim, Condition, KeyChange, KvCommand, KvEvent, KvRejection, KvReply,
    Lock, Pair, Session, Store,
};
use crate::state::State;

impl State {
    pub(super) fn apply_kv(&mut self, command: &KvCommand, events: &mut Vec<Event>) -> Outcome {
        let reply = match command {
            KvCommand::Change(change) => self.kv.change(change, events)?,
            KvCommand::DeletePrefix { prefix, at_most } => {
                self.kv.delete_prefix(prefix, *at_most, events)?
            }
            KvCommand::OpenSession { ttl } => self.open_session(*ttl, events)?,
            KvCommand::RenewSessions(sessions) => self.renew_sessions(sessions)?,
            KvCommand::CloseSession(session) => {
                self.kv.known(*session)?;
                self.kv.end_session(*session, false, events);
                KvReply::Done
            }
            KvCommand::AcquireLock(acquire) => self.kv.acquire(acquire, events)?,
            KvCommand::ReleaseLock { lock, session } => self.kv.release(lock, *session, events)?,
        };
        Ok(Reply::Kv(reply))
    }

    fn open_session(&mut self, ttl: Span, events: &mut Vec<Event>) -> Result<KvReply, Rejection> {
        require(ttl >= SESSION_TTL_MIN, "session.ttl", "must be at least one second")?;
        limit("session.ttl in µs", ttl.0, SESSION_TTL_MAX.0)?;
        let sessions = (self.kv.sessions.len() as u64).saturating_add(1);
        limit("open sessions", sessions, SESSIONS_MAX as u64)?;
        let id = self.kv.next_session;
        self.kv.next_session = id.next();
        let deadline = self.steady.plus(ttl);
        let (keys, locks) = (BTreeSet::new(), BTreeSet::new());
        let session = Session { ttl, deadline, opened_at: self.now, keys, locks };
        self.kv.deadlines.insert((deadline, id));
        self.kv.sessions.insert(id, session);
        events.push(Event::Kv(KvEvent::SessionOpened(id)));
        Ok(KvReply::Opened(id))
    }

    fn renew_sessions(&mut self, sessions: &[SessionId]) -> Result<KvReply, Rejection> {
        limit("sessions renewed together", sessions.len() as u64, BATCH_MAX as u64)?;
        let mut over = Vec::new();
        for id in sessions {
            let Some(session) = self.kv.sessions.get_mut(id) else {
                over.push(*id);
                continue;
            };
            self.kv.deadlines.remove(&(session.deadline, *id));
            session.deadline = self.steady.plus(session.ttl);
            self.kv.deadlines.insert((session.deadline, *id));
        }
        Ok(KvReply::Renewed { over })
    }

    /// Ends the sessions whose time has run out: some at a time, so that no entry takes long. The next tick takes up the rest.
    pub(super) fn end_sessions(&mut self, events: &mut Vec<Event>) {
        let enough = events.len().saturating_add(KEYS_DELETED_MAX as usize);
        while let Some((deadline, id)) = self.kv.deadlines.first().copied() {
            if deadline > self.steady || events.len() >= enough {
                return;
            }
            self.kv.end_session(id, true, events);
        }
    }
}

impl State {
    /// Ends every session, whatever its time.
    pub(super) fn end_all_sessions(&mut self, events: &mut Vec<Event>) {
        while let Some((_, id)) = self.kv.deadlines.first().copied() {
            self.kv.end_session(id, true, events);
        }
    }
}

impl Store {
    fn change(
        &mut self,
        change: &ChangeKeys,
        events: &mut Vec<Event>,
    ) -> Result<KvReply, Rejection> {
        let ChangeKeys { conditions, changes } = change;
        check_change(change)?;
        self.admit_sessions(changes)?;
        conditions.iter().try_for_each(|condition| self.holds(condition))?;
        self.admit(changes)?;
        let revision = self.revision.next();
        let mut deleted: u32 = 0;
        let before = events.len();
        for change in changes {
            match change {
                KeyChange::Put { key, value, session } => {
                    self.put(key, (value, *session), revision, events);
                }
                KeyChange::Delete { key } => {
                    let there = self.delete(key, revision, events);
                    deleted = deleted.saturating_add(u32::from(there));
                }
            }
        }
        self.note_changes(revision, before, events);
        Ok(KvReply::Changed { revision: self.revision, deleted })
    }

    fn delete_prefix(
        &mut self,
        prefix: &str,
        at_most: u32,
        events: &mut Vec<Event>,
    ) -> Result<KvReply, Rejection> {
        limit("prefix bytes", prefix.len() as u64, KEY_BYTES_MAX as u64)?;
        require(at_most > 0, "at_most", "must be at least 1")?;
        limit("at_most", u64::from(at_most), u64::from(KEYS_DELETED_MAX))?;
        let keys = self.list(prefix, None).map(|(key, _)| Arc::clone(key));
        let keys: Vec<Arc<str>> = keys.take(at_most as usize).collect();
        let revision = self.revision.next();
        let before = events.len();
        for key in &keys {
            self.delete(key, revision, events);
        }
        self.note_changes(revision, before, events);
        let deleted = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        Ok(KvReply::Changed { revision: self.revision, deleted })
    }

    /// Takes the new revision up if anything became true since there were `before` events.
    fn note_changes(&mut self, revision: Revision, before: usize, events: &[Event]) {
        if events.len() > before {
            self.revision = revision;
        }
    }

    fn known(&self, session: SessionId) -> Result<(), KvRejection> {
        let known = self.sessions.contains_key(&session);
        if known { Ok(()) } else { Err(KvRejection::UnknownSession(session)) }
    }

    /// Refuses unknown sessions, and sessions that would have too many keys.
    fn admit_sessions(&self, changes: &[KeyChange]) -> Result<(), Rejection> {
        let mut bound: BTreeMap<SessionId, u64> = BTreeMap::new();
        for change in changes {
            let KeyChange::Put { key, session: Some(id), .. } = change else {
                continue;
            };
            let session = self.sessions.get(id).ok_or(KvRejection::UnknownSession(*id))?;
            let count = bound.entry(*id).or_insert(session.keys.len() as u64);
            *count = count.saturating_add(u64::from(!session.keys.contains(key.as_ref())));
        }
        let most = bound.into_values().max().unwrap_or(0);
        limit("keys of one session", most, SESSION_KEYS_MAX as u64)
    }

    fn holds(&self, condition: &Condition) -> Result<(), KvRejection> {
        let modified = |key: &str| self.get(key).map(|pair| pair.modified);
        let (key, wanted) = match condition {
            Condition::Absent { key } => (key, None),
            Condition::Unchanged { key, since } => (key, Some(*since)),
            Condition::Held { lock, token } => {
                let found = self.lock(lock).map(|lock| lock.token);
                let held = found == Some(*token);
                let lost = || KvRejection::LockLost { lock: lock.clone(), found };
                return if held { Ok(()) } else { Err(lost()) };
            }
        };
        let found = modified(key);
        if found == wanted {
            Ok(())
        } else {
            Err(KvRejection::KeyChanged { key: key.clone(), found })
        }
    }

    /// Refuses changes after which the store would hold too much.
    fn admit(&self, changes: &[KeyChange]) -> Result<(), Rejection> {
        let (mut keys, mut bytes) = (self.pairs.len() as u64, self.usage.bytes);
        let (mut keys_gone, mut bytes_gone): (u64, u64) = (0, 0);
        for change in changes {
            let (key, added) = match change {
                KeyChange::Put { key, value, .. } => {
                    keys = keys.saturating_add(1);
                    (key, (key.len() as u64).saturating_add(value.len() as u64))
                }
                KeyChange::Delete { key } => (key, 0),
            };
            bytes = bytes.saturating_add(added);
            if let Some(old) = self.get(key) {
                keys_gone = keys_gone.saturating_add(1);
                bytes_gone = bytes_gone.saturating_add(old.bytes(key));
            }
        }
        limit("keys in the store", keys.saturating_sub(keys_gone), KEYS_MAX as u64)?;
        limit("bytes in the store", bytes.saturating_sub(bytes_gone), KEYS_BYTES_MAX)
    }

    fn put(
        &mut self,
        key: &str,
        (value, session): (&Arc<[u8]>, Option<SessionId>),
        revision: Revision,
        events: &mut Vec<Event>,
    ) {
        let old = self.pairs.remove_entry(key);
        let pair = Pair {
            value: Arc::clone(value),
            session,
            created: old.as_ref().map_or(revision, |(_, old)| old.created),
            modified: revision,
            version: old.as_ref().map_or(1, |(_, old)| old.version.saturating_add(1)),
        };
        let key = match old {
            Some((key, old)) => {
                self.forget_pair(&key, &old);
                key
            }
            None => Arc::from(key),
        };
        self.insert_pair(Arc::clone(&key), pair.clone());
        let pair = Some(Box::new(pair));
        events.push(Event::Kv(KvEvent::KeyChanged { key, revision, pair }));
    }

    /// Returns whether the key was there.
    fn delete(&mut self, key: &str, revision: Revision, events: &mut Vec<Event>) -> bool {
        let Some((key, old)) = self.pairs.remove_entry(key) else {
            return false;
        };
        self.forget_pair(&key, &old);
        events.push(Event::Kv(KvEvent::KeyChanged { key, revision, pair: None }));
        true
    }

    /// Keeps what is derived from a pair in line with its going.
    fn forget_pair(&mut self, key: &str, old: &Pair) {
        self.usage.bytes = self.usage.bytes.saturating_sub(old.bytes(key));
        if let Some(session) = old.session.and_then(|id| self.sessions.get_mut(&id)) {
            session.keys.remove(key);
        }
    }

    /// Takes a pair in, with all that is derived from it.
    pub(crate) fn insert_pair(&mut self, key: Arc<str>, pair: Pair) {
        self.usage.bytes = self.usage.bytes.saturating_add(pair.bytes(&key));
        if let Some(session) = pair.session.and_then(|id| self.sessions.get_mut(&id)) {
            session.keys.insert(Arc::clone(&key));
        }
        self.pairs.insert(key, pair);
    }

    /// Ends a session: its keys are deleted and its claims dropped, at one revision.
    fn end_session(&mut self, id: SessionId, expired: bool, events: &mut Vec<Event>) {
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        self.deadlines.remove(&(session.deadline, id));
        let revision = self.revision.next();
        let before = events.len();
        for key in &session.keys {
            self.delete(key, revision, events);
        }
        for lock in &session.locks {
            self.drop_claim(lock, id, revision, events);
        }
        self.note_changes(revision, before, events);
        events.push(Event::Kv(KvEvent::SessionEnded { session: id, expired }));
    }

    fn acquire(
        &mut self,
        acquire: &AcquireLock,
        events: &mut Vec<Event>,
    ) -> Result<KvReply, Rejection> {
        let AcquireLock { lock: name, session, value, wait } = acquire;
        check_key("lock", name)?;
        limit("lock value bytes", value.len() as u64, CLAIM_VALUE_BYTES_MAX as u64)?;
        self.known(*session)?;
        let claim = Claim { session: *session, value: Arc::clone(value) };
        let ahead = match self.locks.get(name.as_ref()) {
            None => None,
            Some(lock) => match lock.place_of(*session) {
                Some(0) => return Ok(KvReply::Held { token: lock.token }),
                Some(place) => {
                    let ahead = u32::try_from(place.saturating_sub(1)).unwrap_or(u32::MAX);
                    return Ok(KvReply::Waiting { ahead });
                }
                None if !wait => {
                    let (holder, token) = (lock.holder.session, lock.token);
                    let lock = name.clone();
                    return Err(KvRejection::LockHeld { lock, holder, token }.into());
                }
                None => Some(lock.waiters.len()),
            },
        };
        let waiters = ahead.map_or(0, |ahead| (ahead as u64).saturating_add(1));
        limit("claims that wait for one lock", waiters, LOCK_WAITERS_MAX as u64)?;
        limit("claims to locks", self.usage.claims.saturating_add(1), CLAIMS_MAX as u64)?;
        let bytes = self.usage.bytes.saturating_add(claim.bytes(name));
        limit("bytes in the store", bytes, KEYS_BYTES_MAX)?;
        Ok(match ahead {
            None => {
                self.revision = self.revision.next();
                let token = self.revision;
                let name: Arc<str> = Arc::from(name.as_ref());
                events.push(passed(&name, token, Some(&claim)));
                self.insert_lock(name, Lock { token, holder: claim, waiters: VecDeque::new() });
                KvReply::Held { token }
            }
            Some(ahead) => {
                self.await_lock(name, claim);
                KvReply::Waiting { ahead: u32::try_from(ahead).unwrap_or(u32::MAX) }
            }
        })
    }

    fn await_lock(&mut self, name: &str, claim: Claim) {
        let Some(name) = self.locks.get_key_value(name).map(|(name, _)| Arc::clone(name)) else {
            return;
        };
        self.note_claim(&name, &claim);
        if let Some(lock) = self.locks.get_mut(&name) {
            lock.waiters.push_back(claim);
        }
    }

    fn release(
        &mut self,
        name: &str,
        session: SessionId,
        events: &mut Vec<Event>,
    ) -> Result<KvReply, Rejection> {
        let revision = self.revision.next();
        let before = events.len();
        if !self.drop_claim(name, session, revision, events) {
            return Err(KvRejection::NoClaim { lock: name.into(), session }.into());
        }
        self.note_changes(revision, before, events);
        Ok(KvReply::Done)
    }

    /// Takes a session's claim to a lock away; a lock that was held passes to whoever waits longest. Returns whether there was a
    /// claim.
    fn drop_claim(
        &mut self,
        name: &str,
        session: SessionId,
        revision: Revision,
        events: &mut Vec<Event>,
    ) -> bool {
        let Some((key, lock)) = self.locks.get_key_value(name) else {
            return false;
        };
        let (key, place) = (Arc::clone(key), lock.place_of(session));
        let (Some(place), Some(lock)) = (place, self.locks.get_mut(name)) else {
            return false;
        };
        let dropped = match place.checked_sub(1) {
            Some(waiter) => lock.waiters.remove(waiter),
            None => match lock.waiters.pop_front() {
                Some(next) => {
                    events.push(passed(&key, revision, Some(&next)));
                    lock.token = revision;
                    Some(mem::replace(&mut lock.holder, next))
                }
                None => {
                    events.push(passed(&key, revision, None));
                    self.locks.remove(name).map(|lock| lock.holder)
                }
            },
        };
        if let Some(claim) = dropped {
            self.forget_claim(name, &claim);
        }
        true
    }

    /// Takes a lock in, with all that is derived from its claims.
    pub(crate) fn insert_lock(&mut self, name: Arc<str>, lock: Lock) {
        lock.claims().for_each(|claim| self.note_claim(&name, claim));
        self.locks.insert(name, lock);
    }

    /// Keeps what is derived from a claim in line with its coming.
    fn note_claim(&mut self, name: &Arc<str>, claim: &Claim) {
        self.usage.bytes = self.usage.bytes.saturating_add(claim.bytes(name));
        self.usage.claims = self.usage.claims.saturating_add(1);
        if let Some(session) = self.sessions.get_mut(&claim.session) {
            session.locks.insert(Arc::clone(name));
        }
    }

    /// Keeps what is derived from a claim in line with its going.
    fn forget_claim(&mut self, name: &str, claim: &Claim) {
        self.usage.bytes = self.usage.bytes.saturating_sub(claim.bytes(name));
        self.usage.claims = self.usage.claims.saturating_sub(1);
        if let Some(session) = self.sessions.get_mut(&claim.session) {
            session.locks.remove(name);
        }
    }
}

/// The event of a lock that passes to `holder`.
fn passed(lock: &Arc<str>, revision: Revision, holder: Option<&Claim>) -> Event {
    let value = holder.map(|claim| Arc::clone(&claim.value)).unwrap_or_default();
    let holder = holder.map(|claim| claim.session);
    Event::Kv(KvEvent::LockPassed { lock: Arc::clone(lock), revision, holder, value })
}

/// Checks a request by itself.
fn check_change(change: &ChangeKeys) -> Result<(), Rejection> {
    let ChangeKeys { conditions, changes } = change;
    require(!changes.is_empty(), "changes", "there must be at least one")?;
    limit("changes in one request", changes.len() as u64, KEY_CHANGES_MAX as u64)?;
    limit("conditions in one request", conditions.len() as u64, KEY_CHANGES_MAX as u64)?;
    for condition in conditions {
        match condition {
            Condition::Absent { key } | Condition::Unchanged { key, .. } => check_key("key", key)?,
            Condition::Held { lock, .. } => check_key("lock", lock)?,
        }
    }
    let mut keys = BTreeSet::new();
    for change in changes {
        let (key, bytes) = match change {
            KeyChange::Put { key, value, .. } => (key, value.len()),
            KeyChange::Delete { key } => (key, 0),
        };
        check_key("key", key)?;
        limit("value bytes", bytes as u64, KEY_VALUE_BYTES_MAX as u64)?;
        require(keys.insert(key), "key", "one request can change a key once")?;
    }
    Ok(())
}

/// Refuses keys that are too long, or that some client could not put into a path.
fn check_key(what: &'static str, key: &str) -> Result<(), Rejection> {
    require(!key.is_empty(), what, "must not be empty")?;
    limit(
        if what == "key" { "key bytes" } else { "lock name bytes" },
        key.len() as u64,
        KEY_BYTES_MAX as u64,
    )?;
    require(!key.chars().any(char::is_control), what, "must not hold control characters")?;
    let segments = key.split('/').all(|part| !matches!(part, "" | "." | ".."));
    require(segments, what, "no part between slashes may be empty, `.` or `..`")
}
