//! Servers are announced, added and removed; the feature level rises.

use alloc::boxed::Box;
use alloc::vec::Vec;

use rota_types::ServerId;
use rota_types::limits::{ADDRESS_BYTES_MAX, NAME_BYTES_MAX, SERVERS_MAX};

use crate::apply::submit::limit;
use crate::command::{Outcome, Rejection, Reply};
use crate::event::Event;
use crate::server::{Server, ServerCommand, ServerSpec};
use crate::state::State;

impl State {
    pub(super) fn change_servers(
        &mut self,
        command: &ServerCommand,
        events: &mut Vec<Event>,
    ) -> Outcome {
        match command {
            ServerCommand::Announce(spec) => self.announce_server(spec, events),
            ServerCommand::Add { address } => self.add_server(address, events),
            ServerCommand::Remove(id) => self.remove_server(*id, events),
            ServerCommand::Renew => self.renew(events),
            ServerCommand::RaiseLevel(level) => self.raise_level(*level, events),
        }
    }

    fn announce_server(&mut self, spec: &ServerSpec, events: &mut Vec<Event>) -> Outcome {
        check_address(&spec.address)?;
        limit("server.version", spec.version.len() as u64, NAME_BYTES_MAX as u64)?;
        if spec.level < self.level {
            let why = "is below the level of the cluster: run a newer version";
            return Err(Rejection::Invalid { what: "server.level", why });
        }
        if let Some(server) = self.servers.get_mut(&spec.id) {
            if server.spec != *spec {
                server.spec = spec.clone();
                events.push(Event::ServerChanged(spec.id));
            }
            return Ok(Reply::Server(spec.id));
        }
        if self.has_gone(spec.id) {
            return Err(Rejection::UnknownServer(spec.id));
        }
        self.insert_server(spec.clone(), events)
    }

    fn add_server(&mut self, address: &str, events: &mut Vec<Event>) -> Outcome {
        check_address(address)?;
        let known = self.servers.last_key_value().map_or(self.next_server, |(id, _)| id.next());
        let id = self.next_server.max(known);
        let spec =
            ServerSpec { id, address: address.into(), version: Box::default(), level: self.level };
        let outcome = self.insert_server(spec, events)?;
        self.next_server = id.next();
        Ok(outcome)
    }

    fn insert_server(&mut self, spec: ServerSpec, events: &mut Vec<Event>) -> Outcome {
        limit("servers", (self.servers.len() as u64).saturating_add(1), SERVERS_MAX as u64)?;
        let id = spec.id;
        self.servers.insert(id, Server { spec, joined_at: self.now });
        events.push(Event::ServerChanged(id));
        Ok(Reply::Server(id))
    }

    fn remove_server(&mut self, id: ServerId, events: &mut Vec<Event>) -> Outcome {
        self.servers.remove(&id).ok_or(Rejection::UnknownServer(id))?;
        self.next_server = self.next_server.max(id.next());
        events.push(Event::ServerRemoved(id));
        Ok(Reply::Done)
    }

    fn raise_level(&mut self, level: u32, events: &mut Vec<Event>) -> Outcome {
        // A server that runs alone is not in the list; it understands what it asks for.
        let understood = self.servers.values().map(|server| server.spec.level).min();
        let understood = understood.unwrap_or(level);
        limit("level", u64::from(level), u64::from(understood))?;
        if level > self.level {
            self.level = level;
            events.push(Event::LevelRaised(level));
        }
        Ok(Reply::Done)
    }
}

fn check_address(address: &str) -> Result<(), Rejection> {
    limit("server.address", address.len() as u64, ADDRESS_BYTES_MAX as u64)?;
    if address.is_empty() {
        return Err(Rejection::Invalid { what: "server.address", why: "must not be empty" });
    }
    Ok(())
}
