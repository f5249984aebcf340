//! What connects workers and server: streams that keep their order, break, stall and lose what was on its way.

use rota_types::{Monotonic, NodeId};
use rota_worker_core::Input;

use crate::world::{Conn, ConnId, Happening, MILLI, ToServer, ToWorker, World};

/// A delay of the simulated network in microseconds, at most.
const DELAY_MAX: u64 = 100 * MILLI;

impl World {
    /// Sends to a worker. What is sent through a broken connection is lost.
    pub(crate) fn send_worker(&mut self, id: ConnId, message: ToWorker) {
        let delay = self.net_rng.spread(100, DELAY_MAX);
        let now = self.now;
        let Some(open_at) = self.opens_at(id) else { return };
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| !conn.broken) else { return };
        conn.to_worker = conn.to_worker.max(now.max(open_at).saturating_add(delay));
        let (at, worker) = (conn.to_worker, conn.worker);
        self.at(at, Happening::ToWorker(worker, id, message));
    }

    /// Sends to the server.
    pub(crate) fn send_server(&mut self, id: ConnId, message: ToServer) {
        let delay = self.net_rng.spread(100, DELAY_MAX);
        let now = self.now;
        let Some(open_at) = self.opens_at(id) else { return };
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| !conn.broken) else { return };
        conn.to_server = conn.to_server.max(now.max(open_at).saturating_add(delay));
        let at = conn.to_server;
        self.at(at, Happening::ToServer(id, message));
    }

    /// From when on what is sent on a connection arrives; `None` if it is lost, and the connection with it.
    fn opens_at(&mut self, id: ConnId) -> Option<u64> {
        let conn = self.conns.get(&id).filter(|conn| !conn.broken)?;
        let (worker, server) = (conn.worker, conn.server);
        if !self.reaches(worker, server) {
            // It is repeated until the connection is given up.
            let delay = self.net_rng.spread(100 * MILLI, 4_000 * MILLI);
            if self.net_rng.chance(40) {
                self.break_conn(id, worker);
                return None;
            }
            return Some(self.now.saturating_add(delay));
        }
        Some(self.workers.get(worker).map_or(0, |worker| worker.unreachable_until))
    }

    /// Breaks every connection to a server whose process is gone.
    pub(crate) fn break_conns_of(&mut self, server: usize) {
        let of = self.conns.iter().filter(|(_, conn)| conn.server == server && !conn.broken);
        let open: Vec<(ConnId, usize)> = of.map(|(id, conn)| (*id, conn.worker)).collect();
        for (conn, worker) in open {
            self.break_conn(conn, worker);
        }
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
        let cut_off = state.unreachable_until > self.now;
        // Another server each time: only the one that leads welcomes anybody.
        state.home = state.home.saturating_add(1);
        let server = state.home % self.hosts.len();
        if cut_off || !self.reaches(worker, server) {
            return self.reconnect(worker); // the connection times out: that proves nothing
        }
        if self.hosts.iter().all(|host| !host.is_up()) {
            self.step_worker(worker, Input::ConnectionRefused { at: began });
        }
        if !self.hosts[server].is_up() {
            return self.reconnect(worker);
        }
        let id = self.next_conn;
        self.next_conn = self.next_conn.saturating_add(1);
        let (spec, hello_sent) = {
            let state = &self.workers[worker];
            (state.spec(), state.clock(self.now))
        };
        let boot = self.hosts[server].boot;
        let incarnation = spec.incarnation;
        let conn = Conn {
            worker,
            server,
            boot,
            incarnation,
            hello_sent,
            node: None,
            pending: None,
            broken: false,
            heard_at: self.now,
            to_server: 0,
            to_worker: 0,
        };
        self.conns.insert(id, conn);
        self.workers[worker].conn = Some(id);
        self.send_server(id, ToServer::Hello { spec });
        self.after(self.patience(), Happening::Patience { worker, conn: id });
    }

    /// How long a worker waits for a word of its server.
    fn patience(&self) -> u64 {
        self.options.lease_millis.saturating_mul(2 * MILLI)
    }

    /// A worker that has heard nothing for too long gives its connection up.
    pub(crate) fn worker_gives_up(&mut self, worker: usize, id: ConnId) {
        if self.workers[worker].conn != Some(id) {
            return;
        }
        let patience = self.patience();
        let heard_at = self.conns.get(&id).map_or(0, |conn| conn.heard_at);
        let until = heard_at.saturating_add(patience);
        if until <= self.now {
            self.worker_loses(worker, id);
            self.after(patience, Happening::Detach(id));
        } else {
            self.at(until, Happening::Patience { worker, conn: id });
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

    /// Counts a lease that ran out.
    pub(crate) fn note_loss(&mut self, server: usize, node: NodeId) {
        let host = &self.hosts[server];
        let connected = host
            .process
            .as_ref()
            .is_some_and(|process| process.machine.sessions().is_connected(node));
        let what = if connected { "lease runs out in a session" } else { "lease runs out" };
        let restarted = host.boot > 1;
        self.counters.note(what);
        self.counters.add("lease runs out after a restart", u64::from(restarted));
    }
}
