//! What a simulated server does for its clients, and whether the log keeps its word meanwhile.

use rota_types::{LogIndex, ServerId};

use super::cluster::{Cluster, Event, Protocol, TICK};
use super::disk::Disk;
use crate::{Committed, EntryBytes, ProposeRefused, ReadId, ReplicatedLog};

impl<P: Protocol> Cluster<P> {
    pub(super) fn commit(&mut self, id: ServerId, committed: Committed) -> Result<(), String> {
        let Committed { index, entry } = committed;
        let at = format!("server {id} at {} us", self.now);
        let Some(server) = self.server(id) else { return Ok(()) };
        if index.0 != server.machine.index + 1 {
            let before = server.machine.index;
            return Err(format!("{at}: entry {index} follows {before}"));
        }
        server.machine.apply(index, entry.as_deref());
        let machine = server.machine;
        let own = entry.as_ref().zip(server.waiting.front());
        let is_own = own.is_some_and(|(entry, own)| EntryBytes::ptr_eq(entry, own));
        if is_own {
            server.waiting.pop_front();
        }
        let agreed = self.oracle.applied(machine, entry.as_deref());
        agreed.map_err(|error| format!("{at}: {error}"))?;
        if let Some(entry) = entry.filter(|_| is_own) {
            self.acknowledge(id, index, &entry).map_err(|error| format!("{at}: {error}"))?;
        }
        Ok(())
    }

    /// Acknowledged means durable on a majority.
    fn acknowledge(&mut self, id: ServerId, index: LogIndex, entry: &[u8]) -> Result<(), String> {
        self.report.acknowledged += 1;
        self.note_acknowledged();
        let Some(server) = self.server(id) else { return Ok(()) };
        let term = server.log.status().term;
        self.oracle.acknowledged(term, index.0);
        if let Some(healed) = self.healed.filter(|_| self.report.recovery_micros == 0) {
            self.report.recovery_micros = (self.now - healed).max(1);
        }
        let Some(server) = self.server(id) else { return Ok(()) };
        let members = server.log.members();
        let voters = members.iter().filter(|member| member.role == crate::Role::Voter);
        let voters: Vec<ServerId> = voters.map(|member| member.id).collect();
        let holds = |voter: &&ServerId| {
            let place = self.places.get(*voter);
            place.is_some_and(|place| place.disk.holds(index.0, entry))
        };
        let count = voters.iter().filter(holds).count();
        // While members change, the majority may be one of fewer servers.
        if count * 2 > voters.len() || self.report.changes > 0 && count > 0 {
            return Ok(());
        }
        Err(format!("entry {index} was acknowledged with {count} copies among {voters:?}"))
    }

    /// Follows how long nothing was acknowledged.
    pub(super) fn note_acknowledged(&mut self) {
        if self.healed.is_none() {
            let gap = self.now.saturating_sub(self.last_acknowledged);
            self.report.gap_micros = self.report.gap_micros.max(gap);
            self.last_acknowledged = self.last_acknowledged.max(self.now);
        }
    }

    /// Answers reads whose index the state has reached.
    pub(super) fn serve(&mut self, id: ServerId) -> Result<(), String> {
        let at = format!("server {id} at {} us", self.now);
        let Some(server) = self.server(id) else { return Ok(()) };
        let machine = server.machine;
        let mut served = Vec::new();
        server.ready.retain(|(read, index)| {
            let is_due = index.0 <= machine.index;
            if is_due && let Some(asked) = server.reads.remove(read) {
                served.push((asked, *index));
            }
            !is_due
        });
        for (asked, index) in served {
            self.report.reads += 1;
            let read = self.oracle.read(asked, index, machine);
            read.map_err(|error| format!("{at}: {error}"))?;
        }
        Ok(())
    }

    /// Follows who leads, and checks leases.
    pub(super) fn stand(&mut self, id: ServerId) -> Result<(), String> {
        let now = self.now;
        let Some(server) = self.server(id) else { return Ok(()) };
        let status = server.log.status();
        let standing = (status.leads, status.term);
        let is_new = standing != server.standing;
        if is_new {
            server.standing = standing;
            server.waiting.clear();
            server.reads.clear();
            let begins = status.leads.then_some(server.machine);
            if let Some(machine) = begins {
                self.oracle
                    .begins(status.term, machine)
                    .map_err(|error| format!("{id}: {error}"))?;
            }
        }
        // Votes and promises are what a crash must not undo.
        if is_new && self.options.faults.crashes && self.chance.permille(80) {
            let after = self.chance.below(4_000);
            self.plan(after, Event::Crash(id));
        }
        let Some(server) = self.server(id) else { return Ok(()) };
        if status.committed.0 > server.machine.index {
            return Err(format!("server {id}: the status is ahead of what was handed out"));
        }
        if !status.leads {
            return Ok(());
        }
        self.oracle.led(status.term, id)?;
        let others = self.places.iter().filter(|(other, _)| **other != id);
        let others = others.filter_map(|(other, place)| Some((other, place.server.as_ref()?)));
        for (other, server) in others {
            let theirs = server.log.status();
            let confirmed = usize::try_from(theirs.confirmed_tick).unwrap_or(0);
            let has_lease = theirs.leads && confirmed > 0;
            let until = server.ticks.get(confirmed).map_or(0, |at| at + theirs.lease_ticks * TICK);
            if has_lease && now < until && theirs.term < status.term {
                let text = format!("at {now} us server {id} leads, and {other} has a lease");
                return Err(text);
            }
        }
        Ok(())
    }

    /// Somebody proposes or reads, mostly where it may succeed.
    pub(super) fn client(&mut self) -> Result<(), String> {
        let after = self.chance.between(500, 12_000);
        self.plan(after, Event::Client);
        let running = |cluster: &Self, leads: bool| -> Vec<ServerId> {
            let places = cluster.places.iter();
            let running = places.filter(|(_, place)| {
                let server = place.server.as_ref();
                let usable = place.paused_until <= cluster.now;
                usable && server.is_some_and(|server| server.log.status().leads || !leads)
            });
            running.map(|(id, _)| *id).collect()
        };
        let anywhere = self.chance.permille(100);
        let Some(id) = self.chance.pick(&running(self, !anywhere)) else { return Ok(()) };
        let count = self.chance.between(1, 5);
        let reads = self.chance.permille(400);
        for _ in 0..count {
            if reads {
                self.read(id)?;
            } else {
                self.propose(id)?;
            }
        }
        self.drive(id)
    }

    fn read(&mut self, id: ServerId) -> Result<(), String> {
        let seen = self.oracle.seen;
        let Some(server) = self.server(id) else { return Ok(()) };
        server.next_read += 1;
        let read = ReadId(server.next_read);
        let leads = server.log.status().leads;
        match server.log.read_barrier(read) {
            Ok(()) if !leads => Err(format!("server {id} takes a read and does not lead")),
            Ok(()) => {
                server.reads.insert(read, seen);
                Ok(())
            }
            Err(_) => Ok(()),
        }
    }

    fn propose(&mut self, id: ServerId) -> Result<(), String> {
        self.proposals += 1;
        let padding = self.chance.below(200);
        let mut bytes = self.proposals.to_le_bytes().to_vec();
        bytes.resize(8 + usize::try_from(padding).unwrap_or(0), 7);
        let entry = EntryBytes::from(bytes);
        let Some(server) = self.server(id) else { return Ok(()) };
        let leads = server.log.status().leads;
        match server.log.propose(EntryBytes::clone(&entry)) {
            Ok(()) if !leads => Err(format!("server {id} takes a proposal and does not lead")),
            Ok(()) => {
                server.waiting.push_back(entry);
                Ok(())
            }
            Err(ProposeRefused::NotLeader) if leads => {
                Err(format!("server {id} leads and says that it does not"))
            }
            Err(_) => Ok(()),
        }
    }
}
