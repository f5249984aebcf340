//! What it takes to lead, and what follows from ceasing to.
//!
//! What has to see everything, or must not be said by a server that was overtaken, waits here until a majority has confirmed that this
//! server leads: one confirmation serves everything that waits.

use rota_control::Input;
use rota_core::command::Command;
use rota_ports::{Change, ProposeRefused, ReadId};

use crate::machine::Machine;
use crate::pending::{Ending, Outbox};
use crate::servers::Servers;
use crate::shell::{
    Answer, Asker, Attach, Beat, Proposal, Shell, Standing, SteerRefused, Steering,
};

/// Something that waits until it is certain that this server leads.
pub(crate) enum Deferred<S: Shell> {
    Query(S::Query),
    Attach(Attach<S::Outbox>),
    Acknowledge(Beat),
}

impl<S: Shell> Deferred<S> {
    fn refuse(self, shell: &mut S) {
        match self {
            Self::Query(query) => shell.serve(query, None),
            Self::Attach(attach) => {
                attach.outbox.put(|pending| pending.ending = Some(Ending::NotLeading));
            }
            Self::Acknowledge(_) => {}
        }
    }
}

impl<S: Shell> Machine<S> {
    /// Takes a proposal in, if this server leads.
    pub fn propose(&mut self, proposal: Proposal<S::Asker>, shell: &mut S) {
        if self.leading.is_some() {
            self.waiting.push_back(proposal);
        } else {
            refuse(proposal.asker, Answer::NotLeader, shell);
        }
    }

    /// Lets a read see everything that was acknowledged before, anywhere.
    pub fn read(&mut self, query: S::Query, shell: &mut S) {
        self.defer(Deferred::Query(query), shell);
    }

    /// Lets a session take its node over.
    pub fn attach(&mut self, attach: Attach<S::Outbox>, shell: &mut S) {
        self.defer(Deferred::Attach(attach), shell);
    }

    /// Lets something wait until it is certain that this server leads.
    pub(crate) fn defer(&mut self, deferred: Deferred<S>, shell: &mut S) {
        if self.leading.is_some() {
            self.unconfirmed.push(deferred);
        } else {
            deferred.refuse(shell);
        }
    }

    /// Lets a learner that has caught up decide with the others.
    pub(crate) fn promote(&mut self, shell: &mut S) {
        if let Some(learner) = Servers::ready_learner(&self.state, &self.replica) {
            let result = self.replica.change_members(&[Change::AddVoter(learner)]);
            shell.promoted(learner, result);
        }
    }

    /// Asks something of the log itself.
    ///
    /// # Errors
    /// If this server does not lead, or the log can't do it now; nothing was changed then.
    pub fn steer(&mut self, steering: &Steering) -> Result<(), SteerRefused> {
        if self.leading.is_none() {
            return Err(SteerRefused::NotLeader);
        }
        match steering {
            Steering::Members(changes) => Ok(self.replica.change_members(changes)?),
            Steering::Transfer(to) => Ok(self.replica.transfer(*to)?),
        }
    }

    /// Proposes what the log should say of the servers.
    fn look_after_servers(&mut self, shell: &mut S) {
        if self.leading.is_some() {
            for command in self.servers.corrections(&self.state, &self.replica) {
                self.propose_own(Command::Servers(command), shell);
            }
        }
    }

    /// Asks for a confirmation, if something waits for one. Returns whether it did.
    pub(crate) fn begin_confirmation(&mut self, shell: &mut S) -> bool {
        if self.unconfirmed.is_empty() {
            return false;
        }
        match self.replica.begin_read() {
            Ok(read) => {
                self.confirming.push_back((read, std::mem::take(&mut self.unconfirmed)));
                true
            }
            Err(ProposeRefused::Busy) => false,
            Err(ProposeRefused::NotLeader) => {
                self.unconfirmed.drain(..).for_each(|deferred| deferred.refuse(shell));
                false
            }
        }
    }

    /// Does what waited for confirmations, as far as the state is there.
    pub(crate) fn serve_confirmed(&mut self, shell: &mut S) {
        let applied = self.state.index();
        while let Some((read, _)) = self.confirmed.pop_front_if(|(_, index)| *index <= applied) {
            self.serve(read, shell);
        }
    }

    fn serve(&mut self, read: ReadId, shell: &mut S) {
        while let Some((_, deferred)) = self.confirming.pop_front_if(|(id, _)| *id <= read) {
            for deferred in deferred {
                match deferred {
                    Deferred::Query(query) => shell.serve(query, Some(self)),
                    Deferred::Attach(attach) => {
                        let node = attach.node;
                        let renews = self.controller.renews(node);
                        self.sessions.attach(attach, &self.state, (renews, shell.now().wall));
                        self.step(Input::Heartbeat(node), shell);
                    }
                    Deferred::Acknowledge(beat) => {
                        // While the loss of the node is proposed, a worker that believes in a new lease would run what is about
                        // to be started elsewhere.
                        if self.controller.renews(beat.node) {
                            self.sessions.renew(beat);
                        }
                    }
                }
            }
        }
    }

    /// Notices whether this server leads.
    pub(crate) fn follow(&mut self, shell: &mut S) {
        let status = self.replica.status();
        let leading = status.leads.then_some(status.term);
        if leading != self.leading {
            if self.leading.is_some() {
                self.deposed(shell);
            }
            self.leading = leading;
            if leading.is_some() {
                self.elected(shell);
            }
        }
        let seen = (status.leads, status.term, status.leader);
        if self.told == Some(seen) {
            return;
        }
        self.told = Some(seen);
        let leader = status.leader.map(|id| (id, self.servers.address(&self.state, id)));
        shell.stood(Standing { leads: status.leads, term: status.term, leader });
    }

    /// Does what follows when the members, or what is known of a server, may have changed.
    pub(crate) fn servers_changed(&mut self, shell: &mut S) {
        self.told = None;
        self.servers.link(&self.state, &self.replica, shell);
        self.look_after_servers(shell);
    }

    fn elected(&mut self, shell: &mut S) {
        self.clock.resume(self.state.now(), self.state.steady(), shell.now());
        self.wake_at = None;
        self.step(Input::Elected, shell);
        self.look_after_servers(shell);
    }

    /// Tells everybody who waits that this server no longer leads. What was proposed may still be committed, by somebody else.
    fn deposed(&mut self, shell: &mut S) {
        let proposed = self.in_flight.drain(..).flat_map(|entry| entry.askers);
        proposed.for_each(|(_, asker)| refuse(asker, Answer::Unknown, shell));
        let held = self.held.take().into_iter().flat_map(|entry| entry.askers);
        let waiting = self.waiting.drain(..).map(|proposal| (0, proposal.asker));
        held.chain(waiting).for_each(|(_, asker)| refuse(asker, Answer::NotLeader, shell));
        self.unconfirmed.drain(..).for_each(|deferred| deferred.refuse(shell));
        self.confirmed.clear();
        let asked_for = self.confirming.drain(..).flat_map(|(_, all)| all);
        asked_for.for_each(|deferred| deferred.refuse(shell));
        self.sessions.end_all(Ending::NotLeading);
        self.servers.deposed();
        self.step(Input::Deposed, shell);
    }
}

/// Tells whoever asked that nothing came of it, or that nobody knows. The controller learns by other ways that it does not lead.
fn refuse<S: Shell>(asker: Asker<S::Asker>, answer: Answer, shell: &mut S) {
    match asker {
        Asker::Outside(asker) => shell.answer(asker, answer),
        Asker::Controller(_) | Asker::Nobody => {}
    }
}
