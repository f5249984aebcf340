//! What waits to be sent to one worker: filled by the core thread, emptied by the worker's session.
//!
//! Changes of the desired set and renewals of the lease go through here, gathered until the session takes them; a new session begins with the whole
//! set, so nothing that is lost on the way matters.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rota_types::{AttemptId, NodeId, Resources, Span, Timestamp};
use tokio::sync::Notify;

/// What tasks of one group have in common, decoded once and off the core thread.
pub(crate) struct Launch {
    /// The group's action as it stands in the log.
    pub(crate) action: Arc<[u8]>,
    pub(crate) decoded: OnceLock<rota_wire::worker::GroupAction>,
    pub(crate) need: Resources,
    pub(crate) timeout: Option<Span>,
    pub(crate) job_name: Box<str>,
    pub(crate) group_name: Box<str>,
}

/// An attempt that the node has to run.
pub(crate) struct Start {
    pub(crate) attempt: AttemptId,
    pub(crate) placed_at: Timestamp,
    pub(crate) launch: Arc<Launch>,
    /// The task's place in its group.
    pub(crate) place: usize,
    pub(crate) array_index: Option<u64>,
    /// Set if it has to stop already.
    pub(crate) stop: Option<Span>,
}

/// Why the server ends a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The same worker process has a newer session.
    Renewed,
    /// Another worker process took the node's name.
    Replaced,
    /// The node's lease ran out: the worker has to register anew.
    Lost,
    /// An operator removed the node.
    Removed,
    /// The server shuts down.
    Stopping,
    /// Another server leads.
    NotLeading,
}

/// Everything that waits.
#[derive(Default)]
pub(crate) struct Pending {
    /// The session has its node: the first thing that the worker is told.
    pub(crate) welcome: Option<NodeId>,
    /// The latest heartbeat that renewed the lease, by the worker's own clock.
    pub(crate) renewed: Option<u64>,
    /// Whether `start` is the whole desired set.
    pub(crate) full: bool,
    pub(crate) start: Vec<Start>,
    pub(crate) stop: Vec<(AttemptId, Span)>,
    pub(crate) settled: Vec<AttemptId>,
    pub(crate) ending: Option<Ending>,
}

/// A box that gathers.
#[derive(Default)]
pub(crate) struct Outbox {
    pending: Mutex<Pending>,
    filled: Notify,
}

impl Outbox {
    /// Adds to what waits.
    pub(crate) fn put(&self, add: impl FnOnce(&mut Pending)) {
        add(&mut self.lock());
        self.filled.notify_one();
    }

    /// Waits until there is something, and takes it all.
    pub(crate) async fn take(&self) -> Pending {
        loop {
            let filled = self.filled.notified();
            {
                let mut pending = self.lock();
                if !pending.is_empty() {
                    return std::mem::take(&mut *pending);
                }
            }
            filled.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    fn is_empty(&self) -> bool {
        let Self { welcome, renewed, full, start, stop, settled, ending } = self;
        let silent = welcome.is_none() && renewed.is_none() && ending.is_none();
        silent && !full && start.is_empty() && stop.is_empty() && settled.is_empty()
    }
}
