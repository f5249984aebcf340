//! The key-value store as records of a snapshot.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;

use rota_types::{SessionId, Span, Steady, Timestamp};

use super::{Lock, Pair, Session, Store};
use crate::image::{BadImage, Record};

/// One session. The keys and locks that are bound to it say so themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionRecord {
    /// Its id.
    pub id: SessionId,
    /// How long it lives without being renewed.
    pub ttl: Span,
    /// When it ends unless it is renewed.
    pub deadline: Steady,
    /// When it was opened, by the leader's wall clock.
    pub opened_at: Timestamp,
}

impl Store {
    /// The store as records, in the order in which they are restored.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let sessions = self.sessions.iter().map(|(id, session)| {
            let Session { ttl, deadline, opened_at, keys: _, locks: _ } = session;
            let (ttl, deadline, opened_at) = (*ttl, *deadline, *opened_at);
            Record::Session(SessionRecord { id: *id, ttl, deadline, opened_at })
        });
        let pairs = self.pairs.iter();
        let pairs = pairs.map(|(key, pair)| Record::Pair(Arc::clone(key), pair.clone()));
        let locks = self.locks.iter();
        let locks = locks.map(|(name, lock)| Record::Lock(Arc::clone(name), lock.clone()));
        sessions.chain(pairs).chain(locks)
    }

    pub(crate) fn restore_session(&mut self, record: SessionRecord) {
        let SessionRecord { id, ttl, deadline, opened_at } = record;
        let (keys, locks) = (BTreeSet::new(), BTreeSet::new());
        self.deadlines.insert((deadline, id));
        self.sessions.insert(id, Session { ttl, deadline, opened_at, keys, locks });
    }

    pub(crate) fn restore_pair(&mut self, key: Arc<str>, pair: Pair) -> Result<(), BadImage> {
        self.require_sessions(pair.session)?;
        self.insert_pair(key, pair);
        Ok(())
    }

    pub(crate) fn restore_lock(&mut self, name: Arc<str>, lock: Lock) -> Result<(), BadImage> {
        self.require_sessions(lock.claims().map(|claim| claim.session))?;
        self.insert_lock(name, lock);
        Ok(())
    }

    fn require_sessions(
        &self,
        sessions: impl IntoIterator<Item = SessionId>,
    ) -> Result<(), BadImage> {
        let known = sessions.into_iter().all(|id| self.sessions.contains_key(&id));
        if known { Ok(()) } else { Err(BadImage("a key or a lock belongs to no session")) }
    }
}
