//! The server's side of the workers' sessions: what each worker is told, and what is made of what it says.

use rota_control::Input;
use rota_core::command::{Command, Entry};
use rota_core::event::Event;
use rota_core::task::Attempt;
use rota_types::{AttemptId, Monotonic, NodeId, Span, TaskId};
use rota_worker_core::{Desired, Session, Start};

use crate::options::Fault;
use crate::server::Asker;
use crate::world::{Conn, ConnId, Happening, MILLI, ToServer, ToWorker, World};

impl World {
    /// Lets a session take its node over and tells it everything that the node must run.
    pub(crate) fn attach(&mut self, id: ConnId, node: NodeId, sent: Monotonic) {
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| !conn.broken) else { return };
        conn.node = Some(node);
        let worker = conn.worker;
        let incarnation = self.workers.get(worker).map_or(0, |worker| worker.incarnation);
        let current = self.server.state.node(node).map(|node| (node.spec.incarnation, node.lost));
        let lease = self.server.lease();
        let heartbeat = Span(lease.0 / 4);
        let welcome = Session { sent, lease, heartbeat, sole_server: true };
        if current != Some((incarnation, false)) || !self.server.renews(node) {
            return self.send_worker(id, ToWorker::End);
        }
        self.send_worker(id, ToWorker::Welcome(welcome));
        let start: Vec<(Start, Option<Span>)> = self
            .server
            .state
            .desired(node)
            .map(|(attempt, live)| (start(attempt, live), self.timeout_of(attempt)))
            .collect();
        self.send_desired(id, Desired { full: true, ..Desired::default() }, start);
        if let Some(old) = self.server.sessions.insert(node, id)
            && old != id
        {
            self.send_worker(old, ToWorker::End);
        }
        self.step(Input::Heartbeat(node));
    }

    fn timeout_of(&self, attempt: AttemptId) -> Option<Span> {
        self.server.state.group(attempt.task).and_then(|group| group.terms.timeout)
    }

    fn send_desired(
        &mut self,
        conn: ConnId,
        mut desired: Desired,
        start: Vec<(Start, Option<Span>)>,
    ) {
        let timeouts = start
            .iter()
            .filter_map(|(start, timeout)| timeout.map(|timeout| (start.attempt, timeout)))
            .collect();
        desired.start.extend(start.into_iter().map(|(start, _)| start));
        self.send_worker(conn, ToWorker::Desired(desired, timeouts));
    }

    /// Passes on what an applied entry means for workers.
    pub(crate) fn tell_workers(&mut self, entry: &Entry, events: &[Event]) {
        for event in events {
            match event {
                Event::AttemptsCreated(placement) => {
                    let Some(conn) = self.server.sessions.get(&placement.node).copied() else {
                        continue;
                    };
                    let first = placement.task.index;
                    let start: Vec<_> = (first..first.saturating_add(placement.count))
                        .filter_map(|index| self.live(TaskId { index, ..placement.task }))
                        .filter(|(_, live)| live.node == placement.node)
                        .map(|(attempt, live)| (start(attempt, live), self.timeout_of(attempt)))
                        .collect();
                    self.send_desired(conn, Desired::default(), start);
                }
                Event::StopRequested(attempt) => {
                    if let Some((latest, live)) = self.live(attempt.task)
                        && latest == *attempt
                        && let Some(grace) = live.stop
                        && let Some(conn) = self.server.sessions.get(&live.node).copied()
                    {
                        let stop = vec![(latest, grace)];
                        self.send_desired(conn, Desired { stop, ..Desired::default() }, Vec::new());
                    }
                }
                Event::NodeLost(node) | Event::NodeRemoved { node, .. } => {
                    if let Some(conn) = self.server.sessions.remove(node) {
                        self.send_worker(conn, ToWorker::End);
                    }
                }
                _ => {}
            }
        }
        self.settle_reports(entry);
    }

    fn settle_reports(&mut self, entry: &Entry) {
        for command in &entry.commands {
            let Command::EndAttempts(reports) = command else { continue };
            for report in reports {
                if let Some(conn) = self.server.sessions.get(&report.node).copied() {
                    let settled = vec![report.attempt];
                    self.send_desired(conn, Desired { settled, ..Desired::default() }, Vec::new());
                }
            }
        }
    }

    fn live(&self, id: TaskId) -> Option<(AttemptId, &Attempt)> {
        let task = self.server.state.task(id)?;
        task.attempt().map(|attempt| (task.latest(id), attempt))
    }

    pub(crate) fn server_hears(&mut self, id: ConnId, message: ToServer) {
        let Some(Conn { node, broken, .. }) = self.conns.get(&id).cloned() else { return };
        if !self.server.up {
            return;
        }
        self.no_deadline_has_passed();
        if broken {
            if let (ToServer::Reports(reports), Some(node)) = (message, node)
                && self.has(Fault::LateReport)
            {
                // The gateway had read them before the session broke.
                let delay = self.rng.spread(MILLI, 30_000 * MILLI);
                self.late = self.late.saturating_add(1);
                self.after(delay, Happening::StrayReports(node, reports));
            }
            return;
        }
        match (message, node) {
            (ToServer::Hello { spec, sent }, _) => {
                self.enqueue(vec![Command::RegisterNode(spec)], Asker::Worker(id, sent));
            }
            (ToServer::Heartbeat { sent }, Some(node)) => {
                if self.server.sessions.get(&node) == Some(&id) {
                    self.step(Input::Heartbeat(node));
                    if self.server.renews(node) {
                        self.send_worker(id, ToWorker::Ack { sent });
                    }
                }
            }
            (ToServer::Reports(reports), Some(node)) => {
                if self.has(Fault::LateReport) && self.rng.chance(15) {
                    let delay = self.rng.spread(MILLI, 60_000 * MILLI);
                    self.late = self.late.saturating_add(1);
                    self.after(delay, Happening::StrayReports(node, reports.clone()));
                }
                self.propose_reports(node, reports);
            }
            (ToServer::Heartbeat { .. } | ToServer::Reports(_), None) => {}
        }
    }

    pub(crate) fn server_detaches(&mut self, id: ConnId) {
        self.server.sessions.retain(|_, conn| *conn != id);
    }
}

fn start(attempt: AttemptId, live: &Attempt) -> Start {
    Start { attempt, placed_at: live.placed_at, stop: live.stop }
}
