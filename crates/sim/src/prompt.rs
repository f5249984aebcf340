//! Whether the controller does at once what can be done at once (L1, sooner).

use rota_control::{Controller, Input, Output, Tag};

use crate::world::{MILLI, World};

impl World {
    /// Nothing is on its way through the log: then a controller that starts afresh must find nothing to start either. It ranks
    /// everything anew, so that this is also the naive twin of the ranked queues.
    pub(crate) fn nothing_is_left_to_do(&mut self) {
        if !self.server.is_resting() {
            return;
        }
        self.oracle.checks += 1;
        let state = &self.server.state;
        let mut fresh = Controller::new(state, self.server.lease());
        let outputs = fresh.step(state, Input::Elected, self.server_now());
        for output in outputs {
            if let Output::Propose(Tag::Plan, command) = output {
                self.fail(format!("L1: tasks wait that could start: {command:?}"));
            }
        }
    }

    /// A back-off that is over is noticed when it is, not when somebody happens to speak.
    pub(crate) fn no_deadline_has_passed(&mut self) {
        if !self.server.is_resting() {
            return;
        }
        self.oracle.checks += 1;
        let steady = self.server_now().steady;
        if let Some(deadline) = self.server.state.next_deadline()
            && deadline.0.saturating_add(MILLI) < steady.0
        {
            self.fail(format!("L1: at {steady:?} nobody has noticed the deadline {deadline:?}"));
        }
    }
}
