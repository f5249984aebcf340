//! What must hold of the key-value store, recomputed the slow way (I17).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use rota_types::SessionId;

use super::{Store, Usage};

/// The keys and the locks of a session.
type Bound = (BTreeSet<Arc<str>>, BTreeSet<Arc<str>>);

impl Store {
    /// Everything that does not hold.
    pub(crate) fn check(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut usage = Usage::default();
        let mut bound: BTreeMap<SessionId, Bound> = BTreeMap::new();
        for (key, pair) in &self.pairs {
            usage.bytes = usage.bytes.saturating_add(pair.bytes(key));
            if let Some(session) = pair.session {
                bound.entry(session).or_default().0.insert(Arc::clone(key));
            }
            let ordered = pair.created <= pair.modified && pair.modified <= self.revision;
            if !ordered || pair.version == 0 {
                found.push(format!("{key}: {pair:?} at revision {}", self.revision));
            }
        }
        for (name, lock) in &self.locks {
            if lock.token > self.revision {
                found.push(format!("lock {name}: a token beyond revision {}", self.revision));
            }
            for claim in lock.claims() {
                usage.bytes = usage.bytes.saturating_add(claim.bytes(name));
                usage.claims = usage.claims.saturating_add(1);
                if !bound.entry(claim.session).or_default().1.insert(Arc::clone(name)) {
                    found.push(format!("lock {name}: two claims of session {}", claim.session));
                }
            }
        }
        if usage != self.usage {
            found.push(format!("{:?}, not {usage:?}", self.usage));
        }
        for (id, session) in &self.sessions {
            let (keys, locks) = bound.remove(id).unwrap_or_default();
            if session.keys != keys || session.locks != locks || *id >= self.next_session {
                found.push(format!("session {id}: {session:?}, not {keys:?} and {locks:?}"));
            }
        }
        if let Some((session, left)) = bound.pop_first() {
            found.push(format!("session {session} is over and has {left:?}"));
        }
        let deadlines: BTreeSet<_> =
            self.sessions.iter().map(|(id, session)| (session.deadline, *id)).collect();
        if deadlines != self.deadlines {
            found.push(format!("deadlines {:?}, not {deadlines:?}", self.deadlines));
        }
        found
    }
}
