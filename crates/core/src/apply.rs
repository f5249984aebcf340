//! One entry in, outcomes and events out.

use alloc::vec::Vec;

use crate::command::{Command, Entry, Outcome, Reply};
use crate::event::Event;
use crate::state::State;

mod cancel;
mod kv;
mod node;
mod plan;
mod queue;
mod renew;
mod report;
mod server;
mod stage;
mod submit;
mod tick;
mod token;

/// What applying one entry did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The answer to each command, in order.
    pub outcomes: Vec<Outcome>,
    /// What became true, in order.
    pub events: Vec<Event>,
}

impl State {
    /// Applies the next entry of the log.
    ///
    /// Time is clamped rather than checked: a new leader may stamp before it has seen its predecessor's last entries, and its
    /// clock may be behind; `now` and `steady` still never go back (I6).
    pub fn apply(&mut self, entry: &Entry) -> Applied {
        self.index = entry.index;
        self.now = self.now.max(entry.at);
        self.steady = self.steady.max(entry.steady);
        let mut applied = Applied::default();
        for command in &entry.commands {
            if let Command::Note(note) = command {
                applied.note(note);
            } else {
                let outcome = self.apply_command(command, &mut applied.events);
                applied.outcomes.push(outcome);
            }
        }
        applied
    }

    fn apply_command(&mut self, command: &Command, events: &mut Vec<Event>) -> Outcome {
        match command {
            Command::SubmitJobs(submit) => self.submit_jobs(submit, events),
            Command::CancelTasks(cancel) => self.cancel_tasks(cancel, events),
            Command::CommitPlan(plan) => Ok(self.commit_plan(plan, events)),
            Command::EndAttempts(reports) => Ok(self.end_attempts(reports, events)),
            Command::RegisterNode(spec) => self.register_node(spec, events),
            Command::LoseNode(node) => self.lose_node(*node, events),
            Command::DrainNode { node, draining } => self.drain_node(*node, *draining, events),
            Command::LeaveNode(node) => self.leave_node(*node, events),
            Command::RemoveNode(node) => self.remove_node(*node, events),
            Command::CreateQueue(spec) => self.create_queue(spec, events),
            Command::ConfigureQueue(spec) => self.configure_queue(spec, events),
            Command::PauseQueue { queue, paused } => self.pause_queue(queue, *paused, events),
            Command::PurgeQueue { queue, before } => self.purge_queue(queue, *before, events),
            Command::RemoveQueue { queue } => self.remove_queue(queue, events),
            Command::Servers(command) => self.change_servers(command, events),
            Command::Tokens(command) => self.change_tokens(command, events),
            Command::Kv(command) => self.apply_kv(command, events),
            Command::Tick => {
                self.tick(events);
                Ok(Reply::Done)
            }
            Command::Note(_) => Ok(Reply::Done),
        }
    }
}
