//! What goes wrong in the world, and the operator who mends in the end what only people can mend.

use rota_core::command::{CancelTasks, Command, QueueSpec};
use rota_core::job::Group;
use rota_types::{JobId, Span};

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
            Fault::ServerCrash | Fault::LongOutage if self.server.up => {
                self.counters.note(fault.name());
                if fault == Fault::ServerCrash && self.rng.chance(60) {
                    self.server.ambush = true;
                    return;
                }
                let long = fault == Fault::LongOutage;
                let outage = if long {
                    self.counters.note("outage longer than the lease");
                    self.rng.between(lease, lease.saturating_mul(3))
                } else {
                    self.rng.spread(10 * MILLI, 3_000 * MILLI)
                };
                self.at(self.now, Happening::ServerCrash);
                self.after(outage, Happening::ServerStart);
            }
            Fault::ClockJump => {
                self.counters.note(fault.name());
                let jump = i64::try_from(self.rng.spread(1, 86_400_000 * MILLI)).unwrap_or(0);
                let ahead = self.rng.chance(50);
                self.server.wall_offset = self
                    .server
                    .wall_offset
                    .saturating_add(if ahead { jump } else { jump.saturating_neg() })
                    .clamp(-86_400_000_000 * 30, 86_400_000_000 * 30);
            }
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
                    self.server.state.node_named(&state.name).map(|(_, node)| node.held.clone());
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
        let state = &self.server.state;
        self.late == 0
            && state.nodes().all(|(_, node)| !node.draining)
            && state.queues().all(|(_, queue)| !queue.paused && queue.spec.running_max.is_none())
    }

    /// Takes back what keeps tasks from starting, and cancels what fits nowhere.
    pub(crate) fn operate(&mut self) {
        let mut commands = Vec::new();
        let state = &self.server.state;
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
        let shape = self.server.state.shape(group.shape);
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
