//! Whether the controller does at once what can be done at once (L1, sooner).

use rota_control::{Controller, Input, Now, Output, Tag};

use crate::server::Process;
use crate::world::{MILLI, World};

impl World {
    /// Nothing is on its way through the log: then a controller that starts afresh must find nothing to start either. It ranks
    /// everything anew, so that this is also the naive twin of the ranked queues.
    pub(crate) fn nothing_is_left_to_do(&mut self, server: usize) {
        let Some(process) = self.resting(server) else { return };
        let machine = &process.machine;
        let now = process.hands.now;
        let now = Now { monotonic: now.monotonic, steady: machine.steady(&process.hands) };
        let state = machine.state();
        let mut fresh = Controller::new(state, self.lease());
        let outputs = fresh.step(state, Input::Elected, now);
        self.oracle.checks += 1;
        for output in outputs {
            if let Output::Propose(Tag::Plan, command) = output {
                self.fail(format!("L1: tasks wait that could start: {command:?}"));
            }
        }
    }

    /// A back-off that is over is noticed when it is, not when somebody happens to speak.
    pub(crate) fn no_deadline_has_passed(&mut self, server: usize) {
        if self.hosts[server].resumed_at == self.now {
            return;
        }
        let now = self.moment(server);
        let Some(process) = self.resting(server) else { return };
        // As it was when the machine was told something last: since then it would have been woken.
        let steady = process.machine.steady(&process.hands);
        let since = now.monotonic.since(process.hands.now.monotonic).0;
        let deadline = process.machine.state().next_deadline();
        self.oracle.checks += 1;
        if let Some(deadline) = deadline
            && deadline.0.saturating_add(MILLI) < steady.0.saturating_add(since)
        {
            self.fail(format!("L1: at {steady:?} nobody has noticed the deadline {deadline:?}"));
        }
    }

    /// The server if it leads and neither clients nor the controller wait for the log.
    fn resting(&self, server: usize) -> Option<&Process> {
        let process = self.hosts.get(server)?.process.as_ref()?;
        let rests = process.standing.leads && process.machine.is_idle();
        rests.then_some(process)
    }
}
