//! What goes wrong in a simulated cluster, and what its operators do meanwhile.

use rota_types::{LogIndex, ServerId};

use super::chance::Chance;
use super::cluster::{Cluster, Event, Happening, Options, Place, Protocol, Report};
use super::disk::{Disk, Image};
use super::net::{Shape, Weather};
use crate::{Change, ReplicatedLog, Role};

/// More servers than that are never added.
const SERVERS_MAX: u64 = 12;

/// Which faults there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a kind of fault of its own")]
pub struct Faults {
    /// Servers crash, lose what was not synced, and start again.
    pub crashes: bool,
    /// The network is partitioned.
    pub partitions: bool,
    /// Servers stand still for a while.
    pub pauses: bool,
    /// Snapshots are taken, and the log is cut behind them.
    pub snapshots: bool,
    /// Members are added and removed.
    pub members: bool,
    /// Leadership is handed over.
    pub transfers: bool,
}

impl Options {
    /// A run with a mixture of faults that depends on the seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance(seed ^ 0x0F71);
        let mut maybe = |share| chance.permille(share);
        let faults = Faults {
            crashes: maybe(700),
            partitions: maybe(700),
            pauses: maybe(400),
            snapshots: maybe(700),
            members: maybe(400),
            transfers: maybe(400),
        };
        let rough = chance.permille(600);
        let mut share = |most: u64| if rough { chance.below(most) } else { 0 };
        let (lost, repeated, late) = (share(120), share(250), share(200));
        let weather = Weather { lost, repeated, late, in_order: chance.permille(500) };
        let servers = if chance.permille(300) { 5 } else { 3 };
        let faults_micros = chance.between(1_000_000, 3_000_000);
        Self {
            seed,
            servers,
            faults_micros,
            heal_micros: 8_000_000,
            faults,
            weather,
            partition: None,
        }
    }
}

/// Runs a cluster: first with faults, then healed until everybody has everything.
///
/// # Errors
/// What was violated, and when.
pub fn run<P: Protocol>(options: Options) -> Result<Report, String> {
    let mut cluster = Cluster::<P>::new(options);
    let result = cluster.run();
    result.map_err(|error| format!("seed {}: {error}\n{options:?}", options.seed))?;
    cluster.report.commits = cluster.oracle.committed();
    cluster.report.elections = cluster.oracle.elections() as u64;
    Ok(cluster.report)
}

impl<P: Protocol> Cluster<P> {
    fn run(&mut self) -> Result<(), String> {
        while self.step(self.options.faults_micros)? {}
        self.now = self.options.faults_micros;
        self.heal();
        let end = self.now + self.options.heal_micros;
        let mut goal = None;
        loop {
            if self.report.recovery_micros > 0 && goal.is_none() {
                goal = Some(self.oracle.seen);
            }
            if goal.is_some_and(|goal| self.everybody_has(goal)) {
                return Ok(());
            }
            if !self.step(end)? {
                return Err(format!("not settled in time: {}", self.describe()));
            }
        }
    }

    fn heal(&mut self) {
        self.note_acknowledged();
        self.healed = Some(self.now);
        self.net.weather = Weather { in_order: true, ..Weather::default() };
        self.mend();
        let down: Vec<ServerId> = self
            .places
            .iter()
            .filter(|(_, place)| place.server.is_none())
            .map(|(id, _)| *id)
            .collect();
        for id in down {
            self.plan(0, Event::Started(id));
        }
        for place in self.places.values_mut() {
            place.paused_until = place.paused_until.min(self.now);
        }
    }

    fn mend(&mut self) {
        for (from, to) in self.net.mend() {
            if self.chance.permille(500) {
                self.at(1_000, from, Happening::LinkReset(to));
                self.at(1_000, to, Happening::LinkReset(from));
            }
        }
    }

    /// Whether every member has applied everything up to `goal`.
    fn everybody_has(&self, goal: u64) -> bool {
        let servers = self.places.values().filter_map(|place| place.server.as_ref());
        let leader = servers
            .filter(|server| server.log.status().leads)
            .max_by_key(|server| server.log.status().term);
        leader.is_some_and(|leader| {
            leader.log.members().iter().all(|member| {
                let server = self.places.get(&member.id).and_then(|place| place.server.as_ref());
                server.is_some_and(|server| server.machine.index >= goal)
            })
        })
    }

    fn describe(&self) -> String {
        let places = self.places.iter();
        let lines = places.map(|(id, place)| match &place.server {
            None => format!("\n  {id} is down"),
            Some(server) => format!(
                "\n  {id} applied {}, {} ticks, paused until {} of {}: {:?} {:?}",
                server.machine.index,
                server.ticks.len(),
                place.paused_until,
                self.now,
                server.log.status(),
                server.log.members()
            ),
        });
        lines.collect()
    }

    pub(super) fn fault(&mut self) -> Result<(), String> {
        if self.healed.is_some() {
            return Ok(());
        }
        let after = self.chance.between(20_000, 250_000);
        self.plan(after, Event::Fault);
        let Faults { crashes, partitions, pauses, snapshots, members, transfers } =
            self.options.faults;
        let ids: Vec<ServerId> = self.places.keys().copied().collect();
        let Some(id) = self.chance.pick(&ids) else { return Ok(()) };
        match self.chance.below(12) {
            0 | 1 if crashes => self.crash(id),
            2 if crashes && self.chance.permille(200) => {
                ids.iter().try_for_each(|id| self.crash(*id))
            }
            3 | 4 if partitions => {
                self.partition();
                Ok(())
            }
            5 => {
                self.mend();
                Ok(())
            }
            6 if pauses => {
                self.pause(id);
                Ok(())
            }
            7 | 8 if snapshots => {
                self.snapshot(id);
                Ok(())
            }
            9 | 10 if members => self.change_members(),
            11 if transfers => self.transfer(),
            _ => Ok(()),
        }
    }

    pub(super) fn crash(&mut self, id: ServerId) -> Result<(), String> {
        let Some(place) = self.places.get_mut(&id) else { return Ok(()) };
        if place.server.take().is_none() {
            return Ok(());
        }
        self.report.crashes += 1;
        place.life += 1;
        place.disk.crash(self.chance.next())?;
        let is_quick = self.chance.permille(400);
        let after = if is_quick { 1_000 } else { self.chance.between(5_000, 600_000) };
        self.plan(after, Event::Started(id));
        Ok(())
    }

    fn partition(&mut self) {
        if let Some(shape) = self.chance.pick(&Shape::ALL) {
            self.cut(shape);
        }
    }

    /// Partitions the servers in an order of chance.
    pub(super) fn cut(&mut self, shape: Shape) {
        let mut ids: Vec<ServerId> = self.places.keys().copied().collect();
        for at in (1..ids.len()).rev() {
            let other = usize::try_from(self.chance.below(at as u64 + 1)).unwrap_or(0);
            ids.swap(at, other);
        }
        self.mend();
        self.net.cut(shape, &ids);
        self.report.partitions += 1;
    }

    fn pause(&mut self, id: ServerId) {
        let until = self.now + self.chance.between(20_000, 700_000);
        if let Some(place) = self.places.get_mut(&id) {
            place.paused_until = until;
            self.report.pauses += 1;
        }
    }

    fn snapshot(&mut self, id: ServerId) {
        let delay = self.chance.below(40_000);
        let Some(server) = self.server(id).filter(|server| !server.is_snapshotting) else { return };
        let machine = server.machine;
        let Some(meta) = server.log.snapshot_meta(LogIndex(machine.index)) else { return };
        server.is_snapshotting = true;
        self.at(delay, id, Happening::Stored(Image { meta, machine, installed: false }));
    }

    fn leader(&self) -> Option<ServerId> {
        let places = self.places.iter().filter(|(_, place)| place.paused_until <= self.now);
        let leads = |place: &&Place<P>| {
            place.server.as_ref().is_some_and(|server| server.log.status().leads)
        };
        places.filter(|(_, place)| leads(place)).map(|(id, _)| *id).next_back()
    }

    fn transfer(&mut self) -> Result<(), String> {
        let Some(leader) = self.leader() else { return Ok(()) };
        let ids: Vec<ServerId> = self.places.keys().copied().collect();
        let Some(to) = self.chance.pick(&ids) else { return Ok(()) };
        let Some(server) = self.server(leader) else { return Ok(()) };
        if server.log.transfer_leader(to).is_ok() {
            self.report.transfers += 1;
        }
        self.drive(leader)
    }

    fn change_members(&mut self) -> Result<(), String> {
        let Some(leader) = self.leader() else { return Ok(()) };
        let Some(server) = self.server(leader) else { return Ok(()) };
        let members = server.log.members();
        let of =
            |role| members.iter().filter(move |member| member.role == role).map(|member| member.id);
        let learners: Vec<ServerId> = of(Role::Learner).collect();
        let voters: Vec<ServerId> = of(Role::Voter).filter(|id| *id != leader).collect();
        let add = self.chance.pick(&learners).map(Change::AddVoter);
        let remove = self.chance.pick(&voters).map(Change::Remove);
        let remove = remove.filter(|_| voters.len() > 1);
        let mut new = None;
        let changes: Vec<Change> = match self.chance.below(4) {
            0 | 1 if add.is_some() => add.into_iter().collect(),
            2 if add.is_some() => add.into_iter().chain(remove).collect(),
            3 => remove.into_iter().collect(),
            _ => {
                let last = self.places.keys().next_back().map_or(0, |id| id.0);
                let id = ServerId(last + 1);
                new = (last < SERVERS_MAX && voters.len() < 5).then_some(id);
                new.map(Change::AddLearner).into_iter().collect()
            }
        };
        let Some(server) = self.server(leader) else { return Ok(()) };
        if !changes.is_empty() && server.log.change_members(&changes).is_ok() {
            self.report.changes += 1;
            if let Some(id) = new {
                self.places.insert(id, Place::new(P::Disk::default()));
                self.plan(10_000, Event::Started(id));
            }
        }
        self.drive(leader)
    }
}
