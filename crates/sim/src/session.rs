//! The gateway of a simulated server: what each worker is told, and what is made of what it says.

use rota_core::command::{AttemptReport, Command};
use rota_server_core::{Beat, Pending};
use rota_types::{Monotonic, NodeId, Span};
use rota_wire::worker::Leaving;
use rota_worker_core::{Desired, Session, Start};

use crate::options::Fault;
use crate::shell::Asker;
use crate::world::{ConnId, Happening, MILLI, ToServer, ToWorker, World};

impl World {
    /// Sends what has gathered for a worker.
    pub(crate) fn flush(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(&id) else { return };
        let Some(pending) = &conn.pending else { return };
        let pending = std::mem::take(&mut *pending.borrow_mut());
        let Pending { welcome, renewed, full, start, stop, settled, recall, ending } = pending;
        if welcome.is_some() {
            let (sent, lease) = (conn.hello_sent, self.lease());
            let (heartbeat, sole_server) = (Span(lease.0 / 4), self.is_sole());
            let session = Session { sent, lease, heartbeat, sole_server };
            self.send_worker(id, ToWorker::Welcome(session));
        }
        if let Some(sent) = renewed {
            self.send_worker(id, ToWorker::Ack { sent: Monotonic(sent) });
        }
        let changes = !start.is_empty() || !stop.is_empty() || !settled.is_empty();
        if full || changes || !recall.is_empty() {
            let timeouts = start
                .iter()
                .filter_map(|start| start.launch.timeout.map(|timeout| (start.attempt, timeout)))
                .collect();
            let start = start
                .iter()
                .map(|start| Start {
                    attempt: start.attempt,
                    placed_at: start.placed_at,
                    stop: start.stop,
                    behind: start.behind,
                })
                .collect();
            let desired = Desired { full, start, stop, settled, recall };
            self.send_worker(id, ToWorker::Desired(desired, timeouts));
        }
        if ending.is_some() {
            self.end_session(id);
        }
    }

    /// Lets a session end.
    pub(crate) fn end_session(&mut self, id: ConnId) {
        self.send_worker(id, ToWorker::End);
    }

    pub(crate) fn server_hears(&mut self, id: ConnId, message: ToServer) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (server, node, broken) = (conn.server, conn.node, conn.broken);
        if !self.hosts[server].is_boot(conn.boot) {
            return;
        }
        self.no_deadline_has_passed(server);
        if broken {
            if let (ToServer::Reports(reports), Some(node)) = (message, node)
                && self.has(Fault::LateReport)
            {
                // The gateway had read them before the session broke.
                let delay = self.rng.spread(MILLI, 30_000 * MILLI);
                self.stray(delay, (server, node), reports);
            }
            return;
        }
        match (message, node) {
            (ToServer::Hello { spec }, _) => {
                self.propose(server, Command::RegisterNode(spec), Some(Asker::Worker(id)));
            }
            (ToServer::Heartbeat { sent }, Some(node)) => {
                let beat = Beat { node, session: id, sent_micros: sent.0 };
                self.drive(server, |machine, hands| machine.heartbeat(beat, hands));
            }
            (ToServer::Leaving(leaving), Some(node)) => self.drive(server, |machine, hands| {
                machine.leaving((node, id), leaving, hands);
            }),
            (ToServer::Reports(reports), Some(node)) => {
                if self.has(Fault::LateReport) && self.rng.chance(15) {
                    let delay = self.rng.spread(MILLI, 60_000 * MILLI);
                    self.stray(delay, (server, node), reports.clone());
                }
                self.propose_reports(server, node, reports);
            }
            (ToServer::Heartbeat { .. } | ToServer::Leaving(_) | ToServer::Reports(_), None) => {}
        }
    }

    fn stray(&mut self, delay: u64, (server, node): (usize, NodeId), reports: Vec<AttemptReport>) {
        self.late = self.late.saturating_add(1);
        self.after(delay, Happening::StrayReports { server, node, reports });
    }

    pub(crate) fn stray_reports(
        &mut self,
        server: usize,
        node: NodeId,
        reports: Vec<AttemptReport>,
    ) {
        self.late = self.late.saturating_sub(1);
        self.propose_reports(server, node, reports);
    }

    fn propose_reports(&mut self, server: usize, node: NodeId, mut reports: Vec<AttemptReport>) {
        for report in &mut reports {
            report.node = node;
        }
        self.propose(server, Command::EndAttempts(reports), None);
    }

    pub(crate) fn server_detaches(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (server, node, boot) = (conn.server, conn.node, conn.boot);
        if let Some(node) = node.filter(|_| self.hosts[server].is_boot(boot)) {
            self.drive(server, |machine, _| {
                machine.detach(node, id);
            });
        }
    }

    /// A worker says that it is about to go.
    pub(crate) fn say_leaving(&mut self, worker: usize, leaving: Leaving) {
        if let Some(conn) = self.workers[worker].conn {
            self.send_server(conn, ToServer::Leaving(leaving));
        }
    }
}
