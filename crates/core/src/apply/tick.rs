//! `Tick`: what only the passing of time changes.

use alloc::vec::Vec;

use rota_types::limits::IDEMPOTENCY_WINDOW;

use crate::event::Event;
use crate::state::{GroupAt, State};
use crate::task::Phase;

impl State {
    pub(super) fn tick(&mut self, events: &mut Vec<Event>) {
        self.end_backoffs(events);
        self.forget_keys();
        self.end_sessions(events);
    }

    fn end_backoffs(&mut self, events: &mut Vec<Event>) {
        while let Some((until, id)) = self.waiting.first().copied() {
            if until > self.steady {
                return;
            }
            let group = self.jobs.get(id.job).and_then(|job| job.group_of(id.index));
            let group = group.expect("waiting tasks belong to live jobs");
            self.set_phase(
                id,
                GroupAt { job: id.job, group },
                Phase::Queued { since: self.steady },
            );
            events.push(Event::TaskQueued(id));
        }
    }

    fn forget_keys(&mut self) {
        while let Some((used_at, key)) = self.keys_by_age.first().cloned() {
            if used_at.plus(IDEMPOTENCY_WINDOW) > self.steady {
                return;
            }
            self.keys.remove(&key);
            self.keys_by_age.pop_first();
        }
    }
}
