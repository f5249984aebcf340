//! Which nodes have a worker connected, and what each has to be told. Rebuilt by reconnects.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use rota_core::State;
use rota_core::command::{Command, Placement};
use rota_core::event::Event;
use rota_core::job::{Group, Job};
use rota_core::task::Attempt;
use rota_types::{AttemptId, JobId, NodeId, TaskId, Timestamp};

use crate::pending::{Ending, Launch, Outbox, Pending, Start};
use crate::shell::{Attach, Beat};

/// The connected workers.
pub struct Sessions<O> {
    connected: BTreeMap<NodeId, Session<O>>,
    launches: BTreeMap<(JobId, usize), Arc<Launch>>,
}

struct Session<O> {
    number: u64,
    incarnation: u64,
    outbox: O,
    heard_at: Timestamp,
}

impl<O> Default for Sessions<O> {
    fn default() -> Self {
        Self { connected: BTreeMap::new(), launches: BTreeMap::new() }
    }
}

impl<O: Outbox> Sessions<O> {
    /// Whether a worker serves the node now.
    #[must_use]
    pub fn is_connected(&self, node: NodeId) -> bool {
        self.connected.contains_key(&node)
    }

    /// Notes that a node's worker was heard of. Returns whether this session has the node.
    pub(crate) fn heard(&mut self, node: NodeId, number: u64, now: Timestamp) -> bool {
        let session = self.connected.get_mut(&node).filter(|session| session.number == number);
        session.map(|session| session.heard_at = now).is_some()
    }

    /// When a connected node's worker was last heard of.
    #[must_use]
    pub fn heard_at(&self, node: NodeId) -> Option<Timestamp> {
        self.connected.get(&node).map(|session| session.heard_at)
    }

    /// How many workers are connected.
    #[must_use]
    pub fn len(&self) -> usize {
        self.connected.len()
    }

    /// Whether no worker is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connected.is_empty()
    }

    /// Tells a session that its worker's heartbeat renewed the lease, if the session still has the node.
    pub(crate) fn renew(&self, beat: Beat) {
        let Beat { node, session: number, sent_micros } = beat;
        if let Some(session) = self.connected.get(&node).filter(|session| session.number == number)
        {
            session.outbox.put(|pending| pending.renewed = Some(sent_micros));
        }
    }

    /// Lets a session take its node over and tells it everything that the node must run, provided that the node's lease runs on.
    pub(crate) fn attach(
        &mut self,
        attach: Attach<O>,
        state: &State,
        (renews, now): (bool, Timestamp),
    ) {
        let Attach { node, session, incarnation, outbox } = attach;
        let current = state.node(node).map(|node| (node.spec.incarnation, node.lost));
        if current != Some((incarnation, false)) || !renews {
            // Something happened between its registration and now: let it register again, or give way.
            let ending = if current.is_some_and(|(now, _)| now != incarnation) {
                Ending::Replaced
            } else {
                Ending::Lost
            };
            outbox.put(|pending| pending.ending = Some(ending));
            return;
        }
        let start: Vec<Start> = state
            .desired(node)
            .filter_map(|(id, attempt)| start(&mut self.launches, state, id, attempt))
            .collect();
        outbox.put(|pending| {
            pending.welcome = Some(node);
            pending.full = true;
            pending.start = start;
        });
        let session = Session { number: session, incarnation, outbox, heard_at: now };
        if let Some(old) = self.connected.insert(node, session) {
            let ending =
                if old.incarnation == incarnation { Ending::Renewed } else { Ending::Replaced };
            old.end(ending);
        }
    }

    /// Forgets a session, unless another has taken its node.
    pub(crate) fn detach(&mut self, node: NodeId, number: u64) -> bool {
        let current = self.connected.get(&node).is_some_and(|session| session.number == number);
        if current {
            self.connected.remove(&node);
        }
        current
    }

    /// Passes on what an applied entry means for workers.
    pub(crate) fn observe(&mut self, state: &State, commands: &[Command], events: &[Event]) {
        for event in events {
            self.observe_event(state, event);
        }
        for command in commands {
            if let Command::EndAttempts(reports) = command {
                for report in reports {
                    self.tell(report.node, |pending| pending.settled.push(report.attempt));
                }
            }
        }
    }

    fn observe_event(&mut self, state: &State, event: &Event) {
        match event {
            Event::AttemptsCreated(placement) => self.start(state, placement),
            Event::AttemptStaged { task, node, .. } => {
                self.start(state, &Placement { task: *task, count: 1, node: *node });
            }
            Event::StopRequested(id) => {
                let attempt = live(state, id.task).filter(|(latest, _)| latest == id);
                if let Some((_, Attempt { node, stop: Some(grace), .. })) = attempt {
                    let (node, grace) = (*node, *grace);
                    self.tell(node, |pending| pending.stop.push((*id, grace)));
                }
            }
            Event::JobFinished(job) => {
                for group in 0..job.spec.groups.len() {
                    self.launches.remove(&(job.id, group));
                }
            }
            Event::NodeLost(node) => self.end(*node, Ending::Lost),
            Event::NodeRemoved { node, .. } => self.end(*node, Ending::Removed),
            Event::JobSubmitted(_)
            | Event::AttemptPromoted { .. }
            | Event::AttemptEnded(_)
            | Event::TaskQueued(_)
            | Event::TasksCancelled { .. }
            | Event::NodeRegistered(_)
            | Event::NodeDraining(..)
            | Event::NodeLeaving(_)
            | Event::QueueConfigured(_)
            | Event::QueuePaused(..)
            | Event::QueueRemoved(_)
            | Event::ServerChanged(_)
            | Event::ServerRemoved(_)
            | Event::LevelRaised(_)
            | Event::TokenAdded(_)
            | Event::TokenRevoked(_)
            | Event::Noted(_)
            | Event::Kv(_) => {}
        }
    }

    fn start(&mut self, state: &State, placement: &Placement) {
        let Some(session) = self.connected.get(&placement.node) else { return };
        let first = placement.task;
        let end = first.index.saturating_add(placement.count);
        let starts: Vec<Start> = (first.index..end)
            .filter_map(|index| {
                let (id, attempt) = live(state, TaskId { job: first.job, index })?;
                if attempt.node != placement.node {
                    return None;
                }
                start(&mut self.launches, state, id, attempt)
            })
            .collect();
        session.outbox.put(|pending| pending.start.extend(starts));
    }

    /// Asks a worker for an attempt that it may not have started.
    pub(crate) fn recall(&self, node: NodeId, attempt: AttemptId) {
        self.tell(node, |pending| pending.recall.push(attempt));
    }

    fn tell(&self, node: NodeId, add: impl FnOnce(&mut Pending)) {
        if let Some(session) = self.connected.get(&node) {
            session.outbox.put(add);
        }
    }

    fn end(&mut self, node: NodeId, ending: Ending) {
        if let Some(session) = self.connected.remove(&node) {
            session.end(ending);
        }
    }

    /// Ends every session.
    pub(crate) fn end_all(&mut self, ending: Ending) {
        for session in std::mem::take(&mut self.connected).into_values() {
            session.end(ending);
        }
    }
}

impl<O: Outbox> Session<O> {
    fn end(&self, ending: Ending) {
        self.outbox.put(|pending| pending.ending = Some(ending));
    }
}

/// The live attempt of a task.
fn live(state: &State, id: TaskId) -> Option<(AttemptId, &Attempt)> {
    let task = state.task(id)?;
    task.attempt().map(|attempt| (task.latest(id), attempt))
}

/// The attempt that a staged task waits for.
fn behind(state: &State, id: TaskId) -> Option<AttemptId> {
    let ahead = state.task(id)?.behind()?;
    state.task(ahead).map(|task| task.latest(ahead))
}

fn start(
    launches: &mut BTreeMap<(JobId, usize), Arc<Launch>>,
    state: &State,
    id: AttemptId,
    attempt: &Attempt,
) -> Option<Start> {
    let TaskId { job: job_id, index } = id.task;
    let job = state.job(job_id)?;
    let group_at = job.group_of(index)?;
    let group = job.groups.get(group_at)?;
    let launch = launches.entry((job_id, group_at)).or_insert_with(|| launch(state, job, group));
    Some(Start {
        attempt: id,
        placed_at: attempt.placed_at,
        launch: Arc::clone(launch),
        place: index.saturating_sub(group.first) as usize,
        array_index: group.array_index(index).filter(|_| group.terms.is_array).map(u64::from),
        stop: attempt.stop,
        behind: behind(state, id.task),
    })
}

fn launch(state: &State, job: &Job, group: &Group) -> Arc<Launch> {
    Arc::new(Launch {
        action: Arc::clone(&group.action),
        decoded: OnceLock::new(),
        need: state.shape(group.shape).need.clone(),
        timeout: group.terms.timeout,
        job_name: job.name.clone(),
        group_name: group.terms.name.clone(),
    })
}
