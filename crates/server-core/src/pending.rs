//! What waits to be told to one worker.
//!
//! Changes of the desired set and renewals of the lease gather here until the worker's session takes them; a new session begins with the
//! whole set, so nothing that is lost on the way matters.

use std::sync::{Arc, OnceLock};

use rota_types::{AttemptId, NodeId, Resources, Span, Timestamp};

/// Where a session takes up what it has to tell its worker.
pub trait Outbox {
    /// Adds to what waits.
    fn put(&self, add: impl FnOnce(&mut Pending));
}

impl<O: Outbox> Outbox for Arc<O> {
    fn put(&self, add: impl FnOnce(&mut Pending)) {
        O::put(self, add);
    }
}

/// What tasks of one group have in common, decoded once, by whoever needs it first.
#[derive(Debug)]
pub struct Launch {
    /// The group's action as it stands in the log.
    pub action: Arc<[u8]>,
    /// The same, decoded.
    pub decoded: OnceLock<rota_wire::worker::GroupAction>,
    /// What one task holds.
    pub need: Resources,
    /// How long one attempt may take.
    pub timeout: Option<Span>,
    /// The job's name.
    pub job_name: Box<str>,
    /// The group's name.
    pub group_name: Box<str>,
}

/// An attempt that the node has to run.
#[derive(Clone, Debug)]
pub struct Start {
    /// Which one.
    pub attempt: AttemptId,
    /// When it was placed.
    pub placed_at: Timestamp,
    /// What it shares with its group.
    pub launch: Arc<Launch>,
    /// The task's place in its group.
    pub place: usize,
    /// Its index, if the group is an array.
    pub array_index: Option<u64>,
    /// Set if it has to stop already.
    pub stop: Option<Span>,
    /// The attempt after whose end it starts.
    pub behind: Option<AttemptId>,
}

/// Why the server ends a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
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
#[derive(Debug, Default)]
pub struct Pending {
    /// The session has its node: the first thing that the worker is told.
    pub welcome: Option<NodeId>,
    /// The latest heartbeat that renewed the lease, by the worker's own clock.
    pub renewed: Option<u64>,
    /// Whether `start` is the whole desired set.
    pub full: bool,
    /// Attempts to run.
    pub start: Vec<Start>,
    /// Attempts to stop, and how much time each has.
    pub stop: Vec<(AttemptId, Span)>,
    /// Attempts whose report was applied, whatever came of it.
    pub settled: Vec<AttemptId>,
    /// Attempts to give back unless they were started.
    pub recall: Vec<AttemptId>,
    /// The session is to end, after all of the above was told.
    pub ending: Option<Ending>,
}

impl Pending {
    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { welcome, renewed, full, start, stop, settled, recall, ending } = self;
        let silent = welcome.is_none() && renewed.is_none() && ending.is_none();
        let same = start.is_empty() && stop.is_empty();
        silent && !full && same && settled.is_empty() && recall.is_empty()
    }
}
