//! Lines: attempts that wait for the end of another one, whose room they take.

use alloc::vec;
use alloc::vec::Vec;

use rota_types::AttemptId;

use super::{Known, Local, Machine};
use crate::messages::{Output, StopReason};

impl Machine {
    /// Puts an attempt that was not launched behind the one that the server names, unless that one's turn is over.
    pub(super) fn line_up(&mut self, attempt: AttemptId, behind: Option<AttemptId>) {
        let is_ahead = |known: &Known| known.local != Local::Ended || known.ahead.is_some();
        self.put_behind(attempt, behind.filter(|id| self.attempts.get(id).is_some_and(is_ahead)));
    }

    /// Puts an attempt behind another, and behind all that are there already; or first.
    pub(super) fn put_behind(&mut self, attempt: AttemptId, mut ahead: Option<AttemptId>) {
        while let Some(last) =
            ahead.and_then(|id| self.behind.get(&id)).filter(|id| **id != attempt)
        {
            ahead = Some(*last);
        }
        let Some(known) = self.attempts.get_mut(&attempt) else { return };
        known.ahead = ahead;
        match ahead {
            Some(ahead) => drop(self.behind.insert(ahead, attempt)),
            None if known.local == Local::Wanted => self.wanted.push(attempt),
            None => {}
        }
    }

    /// The turn of an attempt is over: the next one has it that still wants to be launched.
    pub(super) fn pass_turn(&mut self, attempt: AttemptId) {
        let mut next = self.behind.remove(&attempt);
        while let Some(id) = next {
            self.put_behind(id, None);
            if self.local(id) == Some(Local::Wanted) {
                return;
            }
            next = self.behind.remove(&id);
        }
    }

    /// Takes an attempt out of its line: what is behind it moves up.
    pub(super) fn leave_line(&mut self, attempt: AttemptId) {
        let Some(ahead) = self.attempts.get(&attempt).and_then(|known| known.ahead) else {
            return self.pass_turn(attempt);
        };
        if self.behind.get(&ahead) == Some(&attempt) {
            self.behind.remove(&ahead);
        }
        if let Some(next) = self.behind.remove(&attempt) {
            self.put_behind(next, Some(ahead));
        }
    }

    /// Gives everything back that waits for the end of another: it would not be launched any more.
    pub(super) fn give_back(&mut self, out: &mut Vec<Output>) {
        let waiting: Vec<_> = self.behind.values().copied().collect();
        for attempt in waiting {
            self.recall(attempt, out);
        }
    }

    /// Gives an attempt back that was not launched.
    pub(super) fn recall(&mut self, attempt: AttemptId, out: &mut Vec<Output>) {
        let Some(known) = self.attempts.get(&attempt) else { return };
        if known.local == Local::Wanted {
            self.skip(attempt, known.placed_at, StopReason::Recalled, out);
            if self.synced {
                out.push(Output::Report(vec![attempt]));
            }
        }
    }
}
