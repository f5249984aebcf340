//! What this server knows of the others: where they are, what they said of themselves, and what the log should say of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use rota_core::State;
use rota_core::server::{ServerCommand, ServerSpec};
use rota_ports::{MemberStatus, Role};
use rota_types::ServerId;

use crate::replica::Replica;
use crate::shell::Shell;

/// Where servers are reached.
pub type Addresses = BTreeMap<ServerId, Arc<str>>;

/// How many entries a learner may lack and be made a voter: as many as one exchange brings.
const CAUGHT_UP: u64 = 64;

/// The machine's memory of the servers.
pub(crate) struct Servers {
    is_sole: bool,
    own: ServerSpec,
    /// Addresses of the first configuration, until the log has them.
    configured: BTreeMap<ServerId, Arc<str>>,
    /// What others said of themselves when they connected.
    introduced: BTreeMap<ServerId, ServerSpec>,
    /// What was proposed in this term.
    proposed: BTreeMap<ServerId, ServerSpec>,
    level_proposed: u32,
}

impl Servers {
    pub(crate) fn new(own: ServerSpec, configured: Addresses, is_sole: bool) -> Self {
        Self {
            is_sole,
            own,
            configured,
            introduced: BTreeMap::new(),
            proposed: BTreeMap::new(),
            level_proposed: 0,
        }
    }

    /// The highest feature level that this server understands.
    pub(crate) fn own_level(&self) -> u32 {
        self.own.level
    }

    /// Where a server can be reached; empty if nobody knows.
    pub(crate) fn address(&self, state: &State, id: ServerId) -> Arc<str> {
        let known = state.server(id).map(|server| &server.spec);
        let known =
            known.or_else(|| self.introduced.get(&id)).map(|spec| Arc::from(&*spec.address));
        known.or_else(|| self.configured.get(&id).cloned()).unwrap_or_default()
    }

    /// Has a link to every other member.
    pub(crate) fn link(&self, state: &State, replica: &Replica, shell: &mut impl Shell) {
        if self.is_sole {
            return;
        }
        let mut members: Vec<ServerId> = replica.members().iter().map(|member| member.id).collect();
        if !members.contains(&self.own.id) {
            // Not a member yet, or no more: it has to answer those who speak to it.
            members.extend(self.introduced.keys());
        }
        let others = members.into_iter().filter(|id| *id != self.own.id);
        let addresses = others.map(|id| (id, self.address(state, id)));
        shell.connect(&addresses.filter(|(_, address)| !address.is_empty()).collect());
    }

    /// Notes what a server said of itself.
    pub(crate) fn introduced(&mut self, spec: ServerSpec) {
        self.introduced.insert(spec.id, spec);
    }

    /// Forgets what was proposed: it may not come to be.
    pub(crate) fn deposed(&mut self) {
        self.proposed.clear();
        self.level_proposed = 0;
    }

    /// What to propose so that the log says what the servers say of themselves. Each thing once per term.
    pub(crate) fn corrections(&mut self, state: &State, replica: &Replica) -> Vec<ServerCommand> {
        if self.is_sole {
            return self.raise_to(self.own.level, state).into_iter().collect();
        }
        let members: Vec<ServerId> =
            replica.members().into_iter().map(|member| member.id).collect();
        let mut commands = Vec::new();
        for spec in self.announced(state) {
            let known = state.server(spec.id).map(|server| &server.spec);
            let is_new = known != Some(&spec) && self.proposed.get(&spec.id) != Some(&spec);
            if is_new && members.contains(&spec.id) {
                self.proposed.insert(spec.id, spec.clone());
                commands.push(ServerCommand::Announce(spec));
            }
        }
        let understood = members.iter().map(|id| state.server(*id).map_or(0, |one| one.spec.level));
        commands.extend(self.raise_to(understood.min().unwrap_or(0), state));
        commands
    }

    /// What servers say of themselves, and of founders that nobody has heard of yet, what is configured: their numbers must not be given
    /// to others. In order, as numbers are taken.
    fn announced(&self, state: &State) -> Vec<ServerSpec> {
        let silent = self.configured.iter().filter(|(id, _)| {
            **id != self.own.id && !self.introduced.contains_key(id) && state.server(**id).is_none()
        });
        let silent = silent.map(|(id, address)| ServerSpec {
            id: *id,
            address: address.to_string().into(),
            version: Box::default(),
            level: 0,
        });
        let mut specs: Vec<ServerSpec> = self.introduced.values().cloned().chain(silent).collect();
        specs.push(self.own.clone());
        specs.sort_by_key(|spec| spec.id);
        specs
    }

    fn raise_to(&mut self, level: u32, state: &State) -> Option<ServerCommand> {
        let is_new = level > state.level() && level != self.level_proposed;
        is_new.then(|| {
            self.level_proposed = level;
            ServerCommand::RaiseLevel(level)
        })
    }

    /// A learner that has caught up and can decide with the others.
    pub(crate) fn ready_learner(state: &State, replica: &Replica) -> Option<ServerId> {
        let last = replica.status().last;
        let has_caught_up = |member: &MemberStatus| {
            let behind = member.matched.map(|matched| last.0.saturating_sub(matched.0));
            let announced = state.server(member.id).is_some_and(|one| !one.spec.version.is_empty());
            member.is_active && announced && behind.is_some_and(|behind| behind <= CAUGHT_UP)
        };
        let learners = replica.members().into_iter().filter(|member| member.role == Role::Learner);
        learners.filter(has_caught_up).map(|member| member.id).next()
    }
}
