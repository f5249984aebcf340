//! What it takes to lead, and what follows from ceasing to.
//!
//! What has to see everything, or must not be said by a server that was overtaken, waits here until a majority has confirmed that this
//! server leads: one confirmation serves everything that waits.

use rota_control::Input;
use rota_core::command::Command;
use rota_ports::{Change, ProposeRefused, ReadId};
use rota_types::NodeId;
use tracing::{debug, info};

use super::CoreThread;
use crate::handle::{Attach, CoreError, Proposal, Query, Standing, SteerRefused, Steering};
use crate::outbox::Ending;
use crate::servers::Servers;

/// Something that waits until it is certain that this server leads.
pub(super) enum Deferred {
    Query(Query),
    Attach(Attach),
    Acknowledge { node: NodeId, session: u64, sent_micros: u64 },
}

impl Deferred {
    fn refuse(self) {
        match self {
            Self::Query(query) => query.answer(Err(CoreError::NotLeader)),
            Self::Attach(attach) => {
                attach.outbox.put(|pending| pending.ending = Some(Ending::NotLeading));
            }
            Self::Acknowledge { .. } => {}
        }
    }
}

impl CoreThread {
    /// Takes a proposal in, if this server leads.
    pub(super) fn take(&mut self, proposal: Proposal) {
        if self.leading.is_some() {
            self.waiting.push_back(proposal);
        } else {
            proposal.asker.fail(CoreError::NotLeader);
        }
    }

    /// Lets something wait until it is certain that this server leads.
    pub(super) fn defer(&mut self, deferred: Deferred) {
        if self.leading.is_some() {
            self.unconfirmed.push(deferred);
        } else {
            deferred.refuse();
        }
    }

    /// Lets a learner that has caught up decide with the others.
    pub(super) fn promote(&mut self) {
        let Some(learner) = Servers::ready_learner(&self.parts.state, &self.parts.replica) else {
            return;
        };
        match self.parts.replica.change_members(&[Change::AddVoter(learner)]) {
            Ok(()) => info!(server = %learner, "has caught up and becomes a voter"),
            Err(refused) => debug!(server = %learner, ?refused, "can't become a voter now"),
        }
    }

    pub(super) fn steer(&mut self, steering: &Steering) -> Result<(), SteerRefused> {
        if self.leading.is_none() {
            return Err(SteerRefused::NotLeader);
        }
        match steering {
            Steering::Members(changes) => Ok(self.parts.replica.change_members(changes)?),
            Steering::Transfer(to) => Ok(self.parts.replica.transfer(*to)?),
        }
    }

    /// Proposes what the log should say of the servers.
    pub(super) fn look_after_servers(&mut self) {
        if self.leading.is_some() {
            for command in self.parts.servers.corrections(&self.parts.state, &self.parts.replica) {
                self.propose(Command::Servers(command));
            }
        }
    }

    /// Asks for a confirmation, if something waits for one. Returns whether it did.
    pub(super) fn begin_confirmation(&mut self) -> bool {
        if self.unconfirmed.is_empty() {
            return false;
        }
        match self.parts.replica.begin_read() {
            Ok(read) => {
                self.confirming.push_back((read, std::mem::take(&mut self.unconfirmed)));
                true
            }
            Err(ProposeRefused::Busy) => false,
            Err(ProposeRefused::NotLeader) => {
                self.unconfirmed.drain(..).for_each(Deferred::refuse);
                false
            }
        }
    }

    /// Does what waited for confirmations, as far as the state is there.
    pub(super) fn serve_confirmed(&mut self) {
        let applied = self.parts.state.index();
        while let Some((read, _)) = self.confirmed.pop_front_if(|(_, index)| *index <= applied) {
            self.serve(read);
        }
    }

    fn serve(&mut self, read: ReadId) {
        while let Some((_, deferred)) = self.confirming.pop_front_if(|(id, _)| *id <= read) {
            for deferred in deferred {
                match deferred {
                    Deferred::Query(query) => query.answer(Ok(&self.view())),
                    Deferred::Attach(attach) => {
                        let node = attach.node;
                        let renews = self.parts.controller.renews(node);
                        self.sessions.attach(attach, &self.parts.state, renews);
                        self.step(Input::Heartbeat(node));
                    }
                    Deferred::Acknowledge { node, session, sent_micros } => {
                        // While the loss of the node is proposed, a worker that believes in a new lease would run what is about
                        // to be started elsewhere.
                        if self.parts.controller.renews(node) {
                            self.sessions.renew(node, session, sent_micros);
                        }
                    }
                }
            }
        }
    }

    /// Notices whether this server leads.
    pub(super) fn follow(&mut self) {
        let status = self.parts.replica.status();
        let leading = status.leads.then_some(status.term);
        if leading != self.leading {
            if self.leading.is_some() {
                self.deposed();
            }
            self.leading = leading;
            if leading.is_some() {
                self.elected();
            }
        }
        let seen = (status.leads, status.term, status.leader);
        if self.told == Some(seen) {
            return;
        }
        self.told = Some(seen);
        let leader =
            status.leader.map(|id| (id, self.parts.servers.address(&self.parts.state, id)));
        let standing = Standing { leads: status.leads, term: status.term, leader };
        self.parts.core.note_standing(standing);
    }

    /// Does what follows when the members, or what is known of a server, may have changed.
    pub(super) fn servers_changed(&mut self) {
        self.told = None;
        self.parts.servers.link(&self.parts.state, &self.parts.replica);
        self.look_after_servers();
    }

    fn elected(&mut self) {
        info!(term = self.leading, index = %self.parts.state.index(), "this server leads");
        self.clock.resume(self.parts.state.now(), self.parts.state.steady());
        self.wake_at = None;
        self.step(Input::Elected);
        self.look_after_servers();
    }

    /// Tells everybody who waits that this server no longer leads. What was proposed may still be committed, by somebody else.
    fn deposed(&mut self) {
        info!(term = self.leading, "this server leads no more");
        let proposed = self.in_flight.drain(..).flat_map(|entry| entry.askers);
        proposed.for_each(|(_, asker)| asker.fail(CoreError::Unknown));
        let held = self.held.take().into_iter().flat_map(|entry| entry.askers);
        let waiting = self.waiting.drain(..).map(|proposal| (0, proposal.asker));
        held.chain(waiting).for_each(|(_, asker)| asker.fail(CoreError::NotLeader));
        self.unconfirmed.drain(..).for_each(Deferred::refuse);
        self.confirmed.clear();
        self.confirming.drain(..).flat_map(|(_, all)| all).for_each(Deferred::refuse);
        self.sessions.end_all(Ending::NotLeading);
        self.parts.servers.deposed();
        self.step(Input::Deposed);
    }
}
