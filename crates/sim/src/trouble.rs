//! What goes wrong in the world, and the operator who mends in the end what only people can mend.

use rota_core::command::{CancelTasks, Command, QueueSpec};
use rota_core::job::Group;
use rota_types::{JobId, Span};
use rota_wire::worker::Leaving;
use rota_worker_core::Input;

use crate::options::Fault;
use crate::world::{Happening, MILLI, World};

impl World {
    /// Lets one thing go wrong, and comes back.
    pub(crate) fn make_trouble(&mut self) {
        if self.finale {
            return;
        }
        let faults: Vec<Fault> = self.options.faults.iter().collect();
        let fault = *self.rng.pick(&faults);
        let worker = usize::try_from(self.rng.below(self.workers.len() as u64)).unwrap_or(0);
        self.inject(fault, worker);
        self.forget_conns();
        let pause = self.rng.spread(50 * MILLI, 6_000 * MILLI);
        self.after(pause, Happening::Trouble);
    }

    fn inject(&mut self, fault: Fault, worker: usize) {
        let lease = self.options.lease_millis.saturating_mul(MILLI);
        self.note_trace(|| format!("fault {} at worker {worker}", fault.name()));
        match fault {
            Fault::ServerCrash
            | Fault::LongOutage
            | Fault::ClockJump
            | Fault::LeaderChange
            | Fault::ServerPause
            | Fault::ServerPartition
            | Fault::BadLinks
            | Fault::SlowDisk
            | Fault::FailingDisk
            | Fault::Damage
            | Fault::Members => self.inject_server(fault),
            Fault::Leave => self.leave(worker),
            Fault::WorkerCrash if self.workers[worker].up => {
                self.counters.note(fault.name());
                self.at(self.now, Happening::WorkerCrash(worker));
                let pause = self.rng.spread(100 * MILLI, lease.saturating_mul(3));
                self.after(pause, Happening::WorkerStart(worker));
            }
            Fault::WorkerPause => {
                self.counters.note(fault.name());
                self.pause(worker);
                let pause = if self.rng.chance(50) {
                    self.rng.between(lease, lease.saturating_mul(3))
                } else {
                    self.rng.spread(50 * MILLI, lease)
                };
                self.after(pause, Happening::Resume(worker));
            }
            Fault::Partition => self.cut_off(worker, lease),
            Fault::SessionReset => {
                self.counters.note(fault.name());
                self.reset_session(worker);
            }
            Fault::Resize => {
                let state = &mut self.workers[worker];
                state.capacity.cpu_millis = self.rng.between(0, 6) * 1_000;
                state.attempts_max = u32::try_from(self.rng.between(0, 8)).unwrap_or(1);
                let held =
                    self.oracle.state().node_named(&state.name).map(|(_, node)| node.held.clone());
                if held.is_some_and(|held| held.cpu_millis > state.capacity.cpu_millis) {
                    self.counters.note("capacity shrinks below use");
                }
                self.counters.note(fault.name());
                self.reset_session(worker);
            }
            // The rest is not injected here: it is in what clients ask, what programs do, and what the log and the links do.
            _ => {}
        }
    }

    fn inject_server(&mut self, fault: Fault) {
        let lease = self.lease().0;
        let up: Vec<usize> =
            (0..self.hosts.len()).filter(|server| self.hosts[*server].is_up()).collect();
        if up.is_empty() {
            return;
        }
        // The one that leads, half of the time.
        let leader = self.leader().filter(|_| self.rng.chance(50));
        let server = leader.unwrap_or(*self.rng.pick(&up));
        self.counters.note(fault.name());
        match fault {
            Fault::ServerCrash if self.rng.chance(10) => {
                self.counters.note("all servers crash at once");
                for server in up {
                    self.at(self.now, Happening::ServerCrash { server, power: true });
                    let outage = self.rng.spread(10 * MILLI, 3_000 * MILLI);
                    self.after(outage, Happening::ServerStart(server));
                }
            }
            Fault::ServerCrash if self.rng.chance(60) => self.hosts[server].ambush = true,
            Fault::ServerCrash | Fault::LongOutage => {
                let long = fault == Fault::LongOutage;
                self.counters.add("outage longer than the lease", u64::from(long));
                let outage = if long {
                    self.rng.between(lease, lease.saturating_mul(3))
                } else {
                    self.rng.spread(10 * MILLI, 3_000 * MILLI)
                };
                let power = self.rng.chance(60);
                self.at(self.now, Happening::ServerCrash { server, power });
                self.after(outage, Happening::ServerStart(server));
            }
            Fault::ClockJump => {
                let jump = i64::try_from(self.rng.spread(1, 86_400_000 * MILLI)).unwrap_or(0);
                let jump = if self.rng.chance(50) { jump } else { jump.saturating_neg() };
                let host = &mut self.hosts[server];
                let month = 86_400_000_000 * 30;
                host.wall_offset = host.wall_offset.saturating_add(jump).clamp(-month, month);
            }
            Fault::LeaderChange if self.is_logic() => self.elect(),
            Fault::LeaderChange => self.transfer(),
            Fault::ServerPause => {
                self.hosts[server].is_paused = true;
                let pause = self.rng.spread(20 * MILLI, lease.saturating_mul(2));
                self.after(pause, Happening::ServerResume(server));
                if self.is_logic() && self.rng.chance(70) {
                    self.after(pause / 2, Happening::Election);
                }
            }
            Fault::ServerPartition if self.hosts.len() > 1 && !self.is_logic() => {
                self.partition_servers();
            }
            Fault::BadLinks => self.loss = self.rng.below(30),
            Fault::SlowDisk => {
                let slow = self.hosts[server].slowness > 1;
                self.hosts[server].slowness = if slow { 1 } else { self.rng.between(5, 60) };
            }
            Fault::FailingDisk => {
                let full = self.rng.chance(50);
                self.hosts[server].disk.fail_soon(full, &mut self.rng);
            }
            Fault::Damage => self.damage(server),
            Fault::Members => self.change_members(),
            _ => {}
        }
    }

    /// Stops a server and flips bits on its disk, if all others are well: a majority has to be left.
    fn damage(&mut self, server: usize) {
        if !self.is_whole() {
            return;
        }
        self.server_crash(server, true);
        let host = &mut self.hosts[server];
        host.was_damaged = true;
        let files: Vec<String> = (0..3).filter_map(|_| host.disk.damage(&mut self.rng)).collect();
        self.note_trace(|| format!("server {server} is damaged in {files:?}"));
        let pause = self.rng.spread(10 * MILLI, 2_000 * MILLI);
        self.after(pause, Happening::ServerStart(server));
    }

    /// A worker goes in order: it drains, ends what is left, says so, and comes back later.
    fn leave(&mut self, worker: usize) {
        if !self.workers[worker].up || self.workers[worker].is_paused() {
            return;
        }
        self.counters.note(Fault::Leave.name());
        self.say_leaving(worker, Leaving::Draining);
        self.step_worker(worker, Input::Drain);
        let patience = self.rng.spread(50 * MILLI, 5_000 * MILLI);
        let life = self.workers[worker].life;
        self.after(patience, Happening::Leave { worker, life, gone: false });
    }

    /// What is left is stopped; then the worker is gone.
    pub(crate) fn leaves(&mut self, worker: usize, life: u64, gone: bool) {
        if !self.workers[worker].is_life(life) {
            return;
        }
        if !gone {
            self.step_worker(worker, Input::Stop { grace: Span::from_millis(200) });
            let rest = self.rng.spread(400 * MILLI, 2_000 * MILLI);
            return self.after(rest, Happening::Leave { worker, life, gone: true });
        }
        if self.workers[worker].has_processes() {
            return self.after(200 * MILLI, Happening::Leave { worker, life, gone: true });
        }
        self.say_leaving(worker, Leaving::Gone);
        // The last word leaves before the process ends.
        let pause = self.rng.spread(100 * MILLI, 3_000 * MILLI);
        self.after(150 * MILLI, Happening::WorkerCrash(worker));
        self.after(150 * MILLI + pause, Happening::WorkerStart(worker));
    }

    /// Cuts workers off from the server for a while; what was on its way arrives afterwards, or never.
    fn cut_off(&mut self, worker: usize, lease: u64) {
        self.counters.note(Fault::Partition.name());
        let until = self.now.saturating_add(self.rng.spread(50 * MILLI, lease.saturating_mul(4)));
        let everybody = self.rng.chance(25);
        let break_sessions = self.rng.chance(50);
        for other in 0..self.workers.len() {
            if everybody || other == worker {
                let state = &mut self.workers[other];
                state.unreachable_until = state.unreachable_until.max(until);
                if break_sessions {
                    self.reset_session(other);
                }
            }
        }
    }

    /// Gives a worker back what it needs to run something, and lets it register again.
    pub(crate) fn repair(&mut self, worker: usize) {
        let state = &mut self.workers[worker];
        state.attempts_max = state.attempts_max.max(1);
        state.capacity.cpu_millis = state.capacity.cpu_millis.max(1_000);
        self.reset_session(worker);
    }

    fn reset_session(&mut self, worker: usize) {
        if let Some(conn) = self.workers[worker].conn {
            self.break_conn(conn, worker);
        }
    }

    /// Whether nothing waits for an operator.
    pub(crate) fn is_mended(&self) -> bool {
        let state = self.oracle.state();
        self.late == 0
            && state.nodes().all(|(_, node)| !node.draining)
            && state.queues().all(|(_, queue)| !queue.paused && queue.spec.running_max.is_none())
    }

    /// Takes back what keeps tasks from starting, and cancels what fits nowhere.
    pub(crate) fn operate(&mut self) {
        let mut commands = Vec::new();
        let state = self.oracle.state();
        for (node, at) in state.nodes() {
            if at.draining {
                commands.push(Command::DrainNode { node, draining: false });
            }
        }
        for (_, queue) in state.queues() {
            let name = queue.spec.name.clone();
            if queue.paused {
                commands.push(Command::PauseQueue { queue: name, paused: false });
            }
            if queue.spec.running_max.is_some() {
                let spec = QueueSpec { running_max: None, ..queue.spec.clone() };
                commands.push(Command::ConfigureQueue(spec));
            }
        }
        for (job, at) in state.jobs() {
            if at.groups.iter().any(|group| !self.fits_somewhere(group)) {
                commands.push(cancel(job));
            }
        }
        for command in commands {
            self.operator_proposes(command);
        }
    }

    /// Whether some worker could run a task of the group if it ran nothing else; worked out from the workers themselves.
    fn fits_somewhere(&self, group: &Group) -> bool {
        let shape = self.oracle.state().shape(group.shape);
        self.workers.iter().filter(|worker| !worker.gone).any(|worker| {
            let spec = worker.spec();
            spec.capacity.cpu_millis >= shape.need.cpu_millis
                && spec.capacity.memory_bytes >= shape.need.memory_bytes
                && shape.need.named.iter().all(|(name, amount)| {
                    spec.capacity.named.get(name).is_some_and(|have| have >= amount)
                })
                && shape.constraints.iter().all(|constraint| constraint.admits(&spec.labels))
        })
    }
}

fn cancel(job: JobId) -> Command {
    let reason = "it fits nowhere".into();
    Command::CancelTasks(CancelTasks { job, tasks: None, grace: Span::ZERO, reason })
}
