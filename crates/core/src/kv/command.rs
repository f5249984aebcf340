//! What can be asked of the key-value store, the answers, and what became true.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use rota_types::{Revision, SessionId, Span};

use super::Pair;

/// Something asked of the key-value store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KvCommand {
    /// Put and delete keys, all or none.
    Change(ChangeKeys),
    /// Delete keys that begin alike.
    DeletePrefix {
        /// What they begin with; empty for every key.
        prefix: Box<str>,
        /// How many to delete, the first in order.
        at_most: u32,
    },
    /// Open a session.
    OpenSession {
        /// How long it lives without being renewed.
        ttl: Span,
    },
    /// Let sessions live for their full time from now on. Many renewals make one command.
    RenewSessions(Vec<SessionId>),
    /// End a session with all that is bound to it.
    CloseSession(SessionId),
    /// Claim a lock: hold it, or wait for it.
    AcquireLock(AcquireLock),
    /// Give up a session's claim to a lock, held or not.
    ReleaseLock {
        /// The lock's name.
        lock: Box<str>,
        /// Whose claim.
        session: SessionId,
    },
}

/// Changes to keys: they are made together, at one revision, if every condition holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChangeKeys {
    /// What must hold before anything changes.
    pub conditions: Vec<Condition>,
    /// What to change. A key may be named once.
    pub changes: Vec<KeyChange>,
}

/// Something that must hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// There is no such key.
    Absent {
        /// The key.
        key: Box<str>,
    },
    /// The key is there and was changed last at this revision.
    Unchanged {
        /// The key.
        key: Box<str>,
        /// The revision of its last change.
        since: Revision,
    },
    /// The lock is held under this fencing token: a write with this condition can't come from a holder that has lost it.
    Held {
        /// The lock's name.
        lock: Box<str>,
        /// The holder's fencing token.
        token: Revision,
    },
}

/// A change to one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyChange {
    /// Give it a value.
    Put {
        /// The key.
        key: Box<str>,
        /// Its new value.
        value: Arc<[u8]>,
        /// The session it is bound to from now on, if any.
        session: Option<SessionId>,
    },
    /// Delete it. No key, no change.
    Delete {
        /// The key.
        key: Box<str>,
    },
}

/// A claim to a lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AcquireLock {
    /// The lock's name. Locks need not be made.
    pub lock: Box<str>,
    /// Who claims it. A session has one claim to a lock: to repeat the request is harmless.
    pub session: SessionId,
    /// What others see of the claim, such as an address.
    pub value: Arc<[u8]>,
    /// Whether to wait behind those who claimed it before. Else a lock that is held refuses the claim.
    pub wait: bool,
}

/// The key-value store did what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KvReply {
    /// Keys were changed.
    Changed {
        /// The store's revision afterwards: that of the change, if there was any.
        revision: Revision,
        /// How many keys were deleted.
        deleted: u32,
    },
    /// A session is open under this id.
    Opened(SessionId),
    /// Sessions were renewed, but for these, which are over.
    Renewed {
        /// Sessions that are over.
        over: Vec<SessionId>,
    },
    /// The lock is held by the session that claimed it.
    Held {
        /// The fencing token: it rises with each holder of the lock.
        token: Revision,
    },
    /// The lock is held by another session; the claim waits.
    Waiting {
        /// How many wait before it.
        ahead: u32,
    },
    /// Done.
    Done,
}

/// Why the key-value store refused. Nothing has changed. Limits and values that make no sense are refused as everywhere else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KvRejection {
    /// A condition on a key does not hold.
    KeyChanged {
        /// The key.
        key: Box<str>,
        /// The revision of its last change; `None` if there is no such key.
        found: Option<Revision>,
    },
    /// The condition on a lock does not hold.
    LockLost {
        /// The lock's name.
        lock: Box<str>,
        /// The holder's fencing token, if anybody holds it.
        found: Option<Revision>,
    },
    /// The lock is held by another session, and the claim was not to wait.
    LockHeld {
        /// The lock's name.
        lock: Box<str>,
        /// The session that holds it.
        holder: SessionId,
        /// The holder's fencing token.
        token: Revision,
    },
    /// The session has no claim to the lock.
    NoClaim {
        /// The lock's name.
        lock: Box<str>,
        /// The session.
        session: SessionId,
    },
    /// No such session. It may be over.
    UnknownSession(SessionId),
}

/// What became true of the key-value store. Events carry all that a watcher needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KvEvent {
    /// A key was given a value, or deleted.
    KeyChanged {
        /// The key.
        key: Arc<str>,
        /// The revision of the change. Keys that were changed together have it in common.
        revision: Revision,
        /// What the key holds now; `None` if it was deleted.
        pair: Option<Box<Pair>>,
    },
    /// A session was opened.
    SessionOpened(SessionId),
    /// A session is over. What was bound to it has gone in the same entry.
    SessionEnded {
        /// Its former id.
        session: SessionId,
        /// Whether its time ran out; else it was closed.
        expired: bool,
    },
    /// A lock changed hands.
    LockPassed {
        /// The lock's name.
        lock: Arc<str>,
        /// The revision of the change: the new holder's fencing token.
        revision: Revision,
        /// Who holds it now; `None` if nobody does.
        holder: Option<SessionId>,
        /// The value of the holder's claim.
        value: Arc<[u8]>,
    },
}
