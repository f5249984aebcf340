//! The key-value store: keys with values, sessions that keys and locks are bound to, and locks.
//!
//! Keys behave as in etcd: one revision for the whole store that rises by one with each change, and for each key the revision at
//! which it came to be, that of its last change, and how often it was given a value since. Sessions and locks behave as in Consul,
//! with two differences: a lock passes to whoever claimed it first, without a delay, and its holder gets a fencing token.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use core::ops::Bound;

use rota_types::{Revision, SessionId, Span, Steady, Timestamp};

mod check;
mod command;
mod image;

pub use command::{
    AcquireLock, ChangeKeys, Condition, KeyChange, KvCommand, KvEvent, KvRejection, KvReply,
};
pub use image::SessionRecord;

/// The key-value store.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) revision: Revision,
    pub(crate) next_session: SessionId,
    pub(crate) pairs: BTreeMap<Arc<str>, Pair>,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    pub(crate) locks: BTreeMap<Arc<str>, Lock>,
    // Derived: recomputed by `check`, rebuilt by `image`.
    pub(crate) deadlines: BTreeSet<(Steady, SessionId)>,
    pub(crate) usage: Usage,
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    /// Its value.
    pub value: Arc<[u8]>,
    /// The session it goes with, if any.
    pub session: Option<SessionId>,
    /// The revision at which the key came to be.
    pub created: Revision,
    /// The revision of its last change.
    pub modified: Revision,
    /// How often it was given a value since it came to be.
    pub version: u64,
}

/// A client that has to show that it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// How long it lives without being renewed.
    pub ttl: Span,
    /// When it ends unless it is renewed.
    pub deadline: Steady,
    /// When it was opened, by the leader's wall clock.
    pub opened_at: Timestamp,
    /// The keys that are bound to it.
    pub keys: BTreeSet<Arc<str>>,
    /// The locks that it claims.
    pub locks: BTreeSet<Arc<str>>,
}

/// A lock that somebody holds. One that nobody claims does not exist.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lock {
    /// The fencing token of the holder: the revision at which it got the lock.
    pub token: Revision,
    /// Who holds it.
    pub holder: Claim,
    /// Who waits for it, in the order in which they came.
    pub waiters: VecDeque<Claim>,
}

/// A session's claim to a lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// Whose.
    pub session: SessionId,
    /// What others see of it.
    pub value: Arc<[u8]>,
}

/// How much is in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of keys and values, and of claims with their locks' names and values.
    pub bytes: u64,
    /// Claims to locks, those of the holders included.
    pub claims: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            revision: Revision(0),
            next_session: SessionId(1),
            pairs: BTreeMap::new(),
            sessions: BTreeMap::new(),
            locks: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            usage: Usage::default(),
        }
    }
}

impl Store {
    /// The revision of the last change; 0 before the first.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How much is in the store.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// How many keys there are.
    #[must_use]
    pub fn key_count(&self) -> usize {
        self.pairs.len()
    }

    /// What a key holds.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Pair> {
        self.pairs.get(key)
    }

    /// Keys that begin with `prefix` and come after `after`, in the order of their bytes: the last key of a page is the cursor of the
    /// next.
    pub fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Pair)> {
        beginning_with(&self.pairs, prefix, after)
    }

    /// A session that is open.
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id)
    }

    /// Open sessions with an id above `after`, by id.
    pub fn sessions_after(&self, after: SessionId) -> impl Iterator<Item = (SessionId, &Session)> {
        let rest = self.sessions.range((Bound::Excluded(after), Bound::Unbounded));
        rest.map(|(id, session)| (*id, session))
    }

    /// How many sessions are open.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// A lock that somebody holds.
    #[must_use]
    pub fn lock(&self, name: &str) -> Option<&Lock> {
        self.locks.get(name)
    }

    /// Locks that somebody holds, as [`list`](Self::list) lists keys.
    pub fn locks<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Lock)> {
        beginning_with(&self.locks, prefix, after)
    }

    /// How many locks are held.
    #[must_use]
    pub fn lock_count(&self) -> usize {
        self.locks.len()
    }

    /// When the next session ends unless it is renewed.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Steady> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }
}

impl Lock {
    /// Every claim: the holder's, then those that wait, in their order.
    pub fn claims(&self) -> impl Iterator<Item = &Claim> {
        core::iter::once(&self.holder).chain(&self.waiters)
    }

    /// How many claims go before that of this session: 0 for the holder; `None` without a claim.
    #[must_use]
    pub fn place_of(&self, session: SessionId) -> Option<usize> {
        self.claims().position(|claim| claim.session == session)
    }
}

impl Claim {
    /// What the claim counts for in [`Usage::bytes`].
    pub(crate) fn bytes(&self, lock: &str) -> u64 {
        (lock.len() as u64).saturating_add(self.value.len() as u64)
    }
}

impl Pair {
    /// What the key counts for in [`Usage::bytes`].
    pub(crate) fn bytes(&self, key: &str) -> u64 {
        (key.len() as u64).saturating_add(self.value.len() as u64)
    }
}

fn beginning_with<'a, V>(
    map: &'a BTreeMap<Arc<str>, V>,
    prefix: &'a str,
    after: Option<&'a str>,
) -> impl Iterator<Item = (&'a Arc<str>, &'a V)> {
    let from = match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        Some(_) | None => Bound::Included(prefix),
    };
    map.range::<str, _>((from, Bound::Unbounded))
        .take_while(move |(key, _)| key.starts_with(prefix))
}
