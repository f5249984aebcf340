//! The end of a run: a majority is mended, then everything, and then everything has to settle.

use rota_core::command::Command;

use crate::client::Request;
use crate::options::{Fault, Ground};
use crate::worker::Worker;
use crate::world::{Happening, MILLI, World};

/// The longest that the world may need to settle once nothing goes wrong any more.
const SETTLE_MAX: u64 = 3_600_000 * MILLI;
/// How long the settled world is watched: nothing may be proposed in that time.
const QUIET: u64 = 120_000 * MILLI;
/// The same where every tick of the servers is simulated.
const QUIET_TICKING: u64 = 12_000 * MILLI;
/// How long only a majority of the servers is mended, before all are.
const CORE_ALONE: u64 = 12_000 * MILLI;
/// How long repeated requests may be on their way when everything else has settled.
const SLACK: u64 = 10_000 * MILLI;

impl World {
    /// Everything is mended; what is left has to come to its end by itself (L1).
    pub(crate) fn begin_finale(&mut self) {
        self.finale = true;
        self.mend_core();
        self.abandon_one();
        for worker in 0..self.workers.len() {
            if self.workers[worker].gone {
                continue;
            }
            self.workers[worker].unreachable_until = self.now;
            if self.workers[worker].is_paused() {
                self.resume(worker);
            }
            if !self.workers[worker].up {
                self.at(self.now, Happening::WorkerStart(worker));
            }
            self.repair(worker);
        }
        self.end_endless();
        self.after(1_000 * MILLI, Happening::Inspect);
    }

    /// Mends a majority of the servers, and leaves the others as they are: that has to be enough.
    fn mend_core(&mut self) {
        let voters: Vec<usize> =
            (0..self.hosts.len()).filter(|server| !self.hosts[*server].is_retired).collect();
        let needed = voters.len() / 2 + 1;
        let mut core = voters;
        // With members that change, nobody but the log knows whose majority it takes.
        let changes =
            self.options.faults.has(Fault::Members) || self.options.faults.has(Fault::Damage);
        while core.len() > needed && !changes {
            let at = usize::try_from(self.rng.below(core.len() as u64)).unwrap_or(0);
            core.swap_remove(at);
        }
        let left: Vec<usize> =
            (0..self.hosts.len()).filter(|server| !core.contains(server)).collect();
        let cut: Vec<usize> = left.into_iter().filter(|_| self.rng.chance(60)).collect();
        self.mend_servers();
        for server in &cut {
            for other in 0..self.hosts.len() {
                self.cuts.insert((*server, other));
                self.cuts.insert((other, *server));
            }
        }
        self.counters.add("only a majority is mended at first", u64::from(!cut.is_empty()));
        for server in core {
            self.mend_server(server);
        }
        self.core_began = self.oracle.index();
        self.after(CORE_ALONE, Happening::HealAll);
    }

    fn mend_server(&mut self, server: usize) {
        self.hosts[server].slowness = 1;
        self.hosts[server].ambush = false;
        self.hosts[server].disk.make_room();
        self.server_resume(server);
        if !self.hosts[server].is_up() {
            self.at(self.now, Happening::ServerStart(server));
        }
        if self.cloud.lock().leader().is_none() {
            self.at(self.now, Happening::Election);
        }
    }

    /// The majority had to make progress alone (L1); now everything is mended.
    pub(crate) fn heal_all(&mut self) {
        self.oracle.checks += 1;
        if self.oracle.index() <= self.core_began {
            self.fail(format!(
                "L1: a majority that reaches itself has committed nothing since {}",
                self.core_began
            ));
        }
        self.mend_servers();
        for server in 0..self.hosts.len() {
            self.mend_server(server);
        }
        self.healed = true;
    }

    /// Leaves one worker dead, or cut off, for ever: its tasks have to end elsewhere.
    fn abandon_one(&mut self) {
        let faulty = self.options.faults.has(Fault::WorkerCrash)
            || self.options.faults.has(Fault::Partition);
        if self.workers.len() < 2 || !faulty || self.rng.chance(50) {
            return;
        }
        let dead = self.options.faults.has(Fault::WorkerCrash) && self.rng.chance(60);
        if dead {
            self.worker_crash(0);
        }
        let worker = &mut self.workers[0];
        worker.gone = true;
        worker.unreachable_until = u64::MAX / 2;
        self.resume(0);
        self.counters.note("a worker never comes back");
    }

    /// Looks whether the world has settled, and mends what only an operator can.
    pub(crate) fn inspect(&mut self) {
        let began = self.options.trouble_millis.saturating_mul(MILLI);
        if self.now.saturating_sub(began) > SETTLE_MAX {
            let left: Vec<_> = self.oracle.state().jobs().map(|(id, _)| id.0).collect();
            self.fail(format!(
                "L1: not settled an hour after the last fault: jobs {left:?}, {} processes, {} requests open",
                self.truth.running(),
                self.requests.iter().filter(|request| !request.is_over()).count(),
            ));
            return;
        }
        let entries = self.oracle.entries();
        let quiet = match self.options.ground {
            Ground::Logic | Ground::Solo => QUIET,
            Ground::Raft | Ground::Paxos => QUIET_TICKING,
        };
        self.look_after_members();
        if !self.healed {
            // Somebody wants something: the majority has to do it.
            self.operator_proposes(Command::Tick);
            self.settled = None;
            self.operate();
        } else if !self.is_settled() {
            self.settled = None;
            self.operate();
        } else if let Some((since, entries_then)) = self.settled {
            if entries != entries_then && self.now.saturating_sub(since) < SLACK {
                self.settled = None; // a repeated request was still on its way
            } else if entries != entries_then {
                self.fail(format!(
                    "a settled world went on proposing: {entries_then} to {entries} entries"
                ));
            } else if self.now.saturating_sub(since) > quiet {
                self.finish();
                return;
            }
        } else {
            self.settled = Some((self.now, entries));
        }
        self.after(2_000 * MILLI, Happening::Inspect);
    }

    fn is_settled(&self) -> bool {
        let state = self.oracle.state();
        let leads = self.leader().and_then(|leader| self.hosts[leader].process.as_ref());
        leads.is_some_and(|process| process.machine.is_idle())
            && self.servers_agree()
            && state.job_count() == 0
            && state.kv().session_count() == 0
            && self.truth.running() == 0
            && self.requests.iter().all(Request::is_over)
            && self.workers.iter().all(Worker::is_idle)
            && self.is_mended()
    }

    /// Whether every server has everything.
    fn servers_agree(&self) -> bool {
        let mut serving = self.hosts.iter().filter(|host| !host.is_retired);
        let index = self.oracle.index();
        serving.all(|host| host.applied() == index)
    }

    fn finish(&mut self) {
        let verdict = self.oracle.at_the_end(&self.requests);
        self.judge(verdict);
        self.ended = true;
    }
}
