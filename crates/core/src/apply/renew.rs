//! The state goes on as another cluster's: from a backup, or from what is left of a cluster.
//!
//! The other cluster may have gone on, and may still be running: what it gave out since must not mean anything here. So every attempt that is
//! live is lost, every session is over, and ids, attempt numbers and fencing tokens go on far above all that it can have given out.

use alloc::vec::Vec;

use rota_types::{JobId, NodeId, Revision, ServerId, SessionId};

use crate::command::{Outcome, Reply};
use crate::event::Event;
use crate::state::State;

/// How far ids of jobs and numbers of attempts are moved.
const NUMBERS_APART: u32 = 1_000_000;
/// How far revisions, which are the tokens of locks, and ids of sessions are moved.
const TOKENS_APART: u64 = 1 << 32;

impl State {
    pub(super) fn renew(&mut self, events: &mut Vec<Event>) -> Outcome {
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        for node in nodes {
            self.lose_node(node, events)?;
        }
        self.end_all_sessions(events);
        self.servers.clear();
        self.next_server = ServerId(1);
        self.next_job = JobId(self.next_job.0.saturating_add(u64::from(NUMBERS_APART)));
        self.attempts_from = self.attempts_from.saturating_add(NUMBERS_APART);
        let Revision(revision) = self.kv.revision;
        self.kv.revision = Revision(revision.saturating_add(TOKENS_APART));
        let SessionId(session) = self.kv.next_session;
        self.kv.next_session = SessionId(session.saturating_add(TOKENS_APART));
        Ok(Reply::Done)
    }
}
