//! What connects workers and server: streams that keep their order, break, stall and lose what was on its way.

use rota_control::Tag;
use rota_types::Monotonic;
use rota_worker_core::Input;

use crate::options::Fault;
use crate::world::{Conn, ConnId, Happening, MILLI, ToServer, ToWorker, World};

/// A delay of the simulated network in microseconds, at most.
const DELAY_MAX: u64 = 100 * MILLI;

impl World {
    /// Sends to a worker. What is sent through a broken connection is lost.
    pub(crate) fn send_worker(&mut self, id: ConnId, message: ToWorker) {
        let delay = self.net_rng.spread(100, DELAY_MAX);
        let now = self.now;
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| !conn.broken) else { return };
        let open_at = self.workers.get(conn.worker).map_or(0, |worker| worker.unreachable_until);
        conn.to_worker = conn.to_worker.max(now.max(open_at).saturating_add(delay));
        let (at, worker) = (conn.to_worker, conn.worker);
        self.at(at, Happening::ToWorker(worker, id, message));
    }

    /// Sends to the server.
    pub(crate) fn send_server(&mut self, id: ConnId, message: ToServer) {
        let delay = self.net_rng.spread(100, DELAY_MAX);
        let now = self.now;
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| !conn.broken) else { return };
        let open_at = self.workers.get(conn.worker).map_or(0, |worker| worker.unreachable_until);
        conn.to_server = conn.to_server.max(now.max(open_at).saturating_add(delay));
        let at = conn.to_server;
        self.at(at, Happening::ToServer(id, message));
    }

    /// Breaks a connection. Both sides find out for themselves, the server perhaps never.
    pub(crate) fn break_conn(&mut self, id: ConnId, worker: usize) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.broken = true;
        let open_at = self.workers.get(worker).map_or(0, |worker| worker.unreachable_until);
        let lease = self.options.lease_millis.saturating_mul(MILLI);
        let notice = if open_at > self.now {
            self.net_rng.spread(MILLI, lease)
        } else {
            self.net_rng.spread(100, 200 * MILLI)
        };
        self.after(notice, Happening::ConnLost(worker, id));
        if self.net_rng.chance(70) || self.finale {
            let notice = self.net_rng.spread(100, lease);
            self.after(notice, Happening::Detach(id));
        }
    }

    /// The worker finds that its session is over, and tries again.
    pub(crate) fn worker_loses(&mut self, worker: usize, id: ConnId) {
        let Some(state) = self.workers.get_mut(worker).filter(|state| state.conn == Some(id))
        else {
            return;
        };
        state.conn = None;
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.broken = true;
        }
        self.step_worker(worker, Input::SessionClosed);
        self.reconnect(worker);
    }

    /// Lets the worker try to connect in a while.
    pub(crate) fn reconnect(&mut self, worker: usize) {
        let delay = self.net_rng.spread(10 * MILLI, 1_000 * MILLI);
        let life = self.workers[worker].life;
        let began = self.workers[worker].clock(self.now.saturating_add(delay));
        self.after(delay, Happening::Connect { worker, life, began });
    }

    pub(crate) fn worker_connects(&mut self, worker: usize, life: u64, began: Monotonic) {
        let state = &mut self.workers[worker];
        if !state.is_life(life) || state.conn.is_some() {
            return;
        }
        if state.unreachable_until > self.now {
            return self.reconnect(worker); // the connection times out: that proves nothing
        }
        if !self.server.up {
            self.step_worker(worker, Input::ConnectionRefused { at: began });
            return self.reconnect(worker);
        }
        let id = self.next_conn;
        self.next_conn = self.next_conn.saturating_add(1);
        let conn = Conn { worker, node: None, broken: false, to_server: 0, to_worker: 0 };
        self.conns.insert(id, conn);
        let state = &mut self.workers[worker];
        state.conn = Some(id);
        let (spec, sent) = (state.spec(), state.clock(self.now));
        self.send_server(id, ToServer::Hello { spec, sent });
        let lease = self.options.lease_millis.saturating_mul(MILLI);
        // A worker that gets no answer gives the connection up.
        let patience = lease.saturating_mul(2);
        self.after(patience, Happening::Patience { worker, conn: id });
    }

    /// A worker that was never welcomed on this connection gives it up.
    pub(crate) fn worker_gives_up(&mut self, worker: usize, id: ConnId) {
        if self.workers[worker].conn == Some(id) && !self.workers[worker].welcomed {
            self.worker_loses(worker, id);
        }
    }

    /// Drops connections that nobody uses any more.
    pub(crate) fn forget_conns(&mut self) {
        let used: Vec<ConnId> = self.workers.iter().filter_map(|worker| worker.conn).collect();
        let newest = self.next_conn;
        self.conns.retain(|id, conn| {
            !conn.broken || used.contains(id) || newest.saturating_sub(*id) < 100
        });
    }

    /// Counts a lease that ran out, if this proposal says so.
    pub(crate) fn note_loss(&mut self, tag: Tag) {
        if let Tag::Lose(node) = tag {
            let connected = self.server.sessions.contains_key(&node);
            let what = if connected { "lease runs out in a session" } else { "lease runs out" };
            self.counters.note(what);
            if self.server.boot > 1 && self.has(Fault::ServerCrash) {
                self.counters.note("lease runs out after a restart");
            }
        }
    }
}
