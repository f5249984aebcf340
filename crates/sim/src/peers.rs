//! What goes on between servers: messages, links, images, elections that the adversary holds, and members that come and go.

use std::fmt;

use rota_ports::{Change, MemberStatus, Role};
use rota_server_core::Steering;
use rota_types::{LogIndex, ServerId};

use crate::begin::spec;
use crate::options::{Fault, Ground};
use crate::server::Host;
use crate::world::{Happening, MILLI, World};

/// The longest that a message between servers takes, in good weather.
const DELAY_MAX: u64 = 4 * MILLI;
/// More servers than that are never made.
const SERVERS_MAX: usize = 9;

/// Bytes whose trace is short.
#[derive(Clone)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = self.0.iter().fold(0xCBF2_9CE4_8422_2325_u64, |sum, byte| {
            (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3)
        });
        write!(f, "{} bytes {sum:016x}", self.0.len())
    }
}

/// How servers are cut off from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// One alone.
    Alone,
    /// Two sides.
    Halves,
    /// One that is not heard.
    Mute,
    /// One that does not hear.
    Deaf,
    /// Two sides, and one that reaches both.
    Bridge,
    /// Each reaches the next only.
    Chain,
    /// Only one reaches all.
    Star,
}

const SHAPES: [(Shape, &str); 7] = [
    (Shape::Alone, "partition: alone"),
    (Shape::Halves, "partition: halves"),
    (Shape::Mute, "partition: mute"),
    (Shape::Deaf, "partition: deaf"),
    (Shape::Bridge, "partition: bridge"),
    (Shape::Chain, "partition: chain"),
    (Shape::Star, "partition: star"),
];

impl Shape {
    /// Whether what the one at place `from` says reaches the one at place `to`, of so many.
    fn reaches(self, from: usize, to: usize, count: usize) -> bool {
        let half = count / 2;
        match self {
            Self::Alone => from != 0 && to != 0,
            Self::Halves => (from <= half) == (to <= half),
            Self::Mute => from != 0,
            Self::Deaf => to != 0,
            Self::Bridge => from == half || to == half || (from < half) == (to < half),
            Self::Chain => from.abs_diff(to) <= 1,
            Self::Star => from == 0 || to == 0,
        }
    }
}

impl World {
    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.contains(&(from, to))
    }

    pub(crate) fn send_peer(&mut self, from: usize, to: ServerId, message: Vec<u8>) {
        let Some(to) = self.number_of(to) else { return };
        if !self.hosts[to].is_up() || self.is_cut(from, to) {
            return;
        }
        let bad = self.has(Fault::BadLinks);
        if bad && self.net_rng.chance(self.loss) {
            return self.counters.note("message between servers lost");
        }
        let late = bad && self.net_rng.chance(5);
        let most = if late { 400 * MILLI } else { DELAY_MAX };
        let delay = self.net_rng.spread(20, most);
        let (boot, source) = (self.hosts[to].boot, self.hosts[from].id);
        let message = Bytes(message);
        if bad && self.net_rng.chance(10) {
            let again = self.net_rng.spread(20, 500 * MILLI);
            let message = message.clone();
            self.after(again, Happening::PeerMessage { to, boot, from: source, message });
        }
        // A link keeps its order while it lives.
        let mut at = self.now.saturating_add(delay);
        if !bad {
            let last = self.arrived.entry((from, to)).or_insert(0);
            at = at.max(*last);
            *last = at;
        }
        self.at(at, Happening::PeerMessage { to, boot, from: source, message });
    }

    pub(crate) fn peer_message(&mut self, to: usize, boot: u64, from: ServerId, message: Bytes) {
        if self.hosts[to].is_boot(boot) {
            self.drive(to, |machine, _| machine.receive(from, &[message.0]));
        }
    }

    /// Links come up: both ends say who they are, and know that messages may have been lost.
    pub(crate) fn connect_peers(&mut self, server: usize, peers: &[ServerId]) {
        for id in peers {
            let Some(peer) = self.number_of(*id).filter(|peer| *peer != server) else { continue };
            if self.linked.insert((server.min(peer), server.max(peer))) {
                self.link(server, peer);
            }
        }
    }

    /// A server has started: every link to it is made anew.
    pub(crate) fn introduce(&mut self, server: usize) {
        self.linked.retain(|(one, other)| *one != server && *other != server);
        let others: Vec<usize> = (0..self.hosts.len()).filter(|other| *other != server).collect();
        for other in others {
            self.linked.insert((server.min(other), server.max(other)));
            self.link(server, other);
        }
    }

    fn link(&mut self, one: usize, other: usize) {
        if self.is_logic() {
            return;
        }
        for (from, to) in [(one, other), (other, one)] {
            let delay = self.net_rng.spread(100, 20 * MILLI);
            self.after(delay, Happening::Linked { from, to });
        }
    }

    pub(crate) fn linked(&mut self, from: usize, to: usize) {
        if self.is_cut(from, to) || self.is_cut(to, from) || !self.hosts[from].is_up() {
            if !self.hosts[from].is_retired && !self.hosts[to].is_retired {
                self.after(50 * MILLI, Happening::Linked { from, to });
            }
            return;
        }
        let id = self.hosts[from].id;
        self.drive(to, |machine, hands| {
            machine.link_reset(id);
            machine.introduced(spec(id), hands);
        });
    }

    /// Cuts servers off from each other for a while. Workers and clients stay with one of them.
    pub(crate) fn partition_servers(&mut self) {
        let mut order: Vec<usize> = (0..self.hosts.len()).collect();
        order.retain(|server| !self.hosts[*server].is_retired);
        for at in (1..order.len()).rev() {
            let other = usize::try_from(self.rng.below(at as u64 + 1)).unwrap_or(0);
            order.swap(at, other);
        }
        let leader = self.leader();
        if let Some(place) = order.iter().position(|server| Some(*server) == leader)
            && self.rng.chance(40)
        {
            order.swap(0, place);
        }
        let (shape, name) = if self.rng.chance(30) { SHAPES[0] } else { *self.rng.pick(&SHAPES) };
        self.counters.note(name);
        self.mend_servers();
        for (from_place, from) in order.iter().enumerate() {
            for (to_place, to) in order.iter().enumerate() {
                if !shape.reaches(from_place, to_place, order.len()) {
                    self.cuts.insert((*from, *to));
                }
            }
        }
        let old_leader = order.first().copied().filter(|first| Some(*first) == leader);
        let old_leader = old_leader.filter(|_| shape == Shape::Alone);
        for worker in 0..self.workers.len() {
            let side = old_leader.filter(|_| self.rng.chance(50)).unwrap_or(*self.rng.pick(&order));
            if self.rng.chance(60) {
                if old_leader == Some(side) {
                    self.counters.note("worker is cut off together with an old leader");
                }
                self.workers[worker].side = Some(side);
            }
        }
        let until = self.rng.spread(100 * MILLI, 8_000 * MILLI);
        self.partition = self.partition.saturating_add(1);
        self.after(until, Happening::MendServers(self.partition));
    }

    /// Whether a worker and a server reach each other.
    pub(crate) fn reaches(&self, worker: usize, server: usize) -> bool {
        let side = self.workers.get(worker).and_then(|worker| worker.side);
        side.is_none_or(|side| {
            side == server || !self.is_cut(side, server) && !self.is_cut(server, side)
        })
    }

    /// Ends every partition.
    pub(crate) fn mend_servers(&mut self) {
        self.partition = self.partition.saturating_add(1);
        let cuts = std::mem::take(&mut self.cuts);
        for worker in &mut self.workers {
            worker.side = None;
        }
        for (from, to) in cuts {
            if from < to || self.net_rng.chance(50) {
                self.link(from, to);
            }
        }
    }

    /// The log asks for another server's image.
    pub(crate) fn fetch(&mut self, server: usize, from: ServerId, least: LogIndex) {
        let delay = self.net_rng.spread(MILLI, 1_500 * MILLI);
        let boot = self.hosts[server].boot;
        self.after(delay, Happening::Image { server, boot, from, least });
    }

    pub(crate) fn image_arrives(
        &mut self,
        (server, boot): (usize, u64),
        from: ServerId,
        least: LogIndex,
    ) {
        if !self.hosts[server].is_boot(boot) {
            return;
        }
        let source = self.number_of(from).filter(|from| {
            let host = &self.hosts[*from];
            let there = host.is_up() || self.options.ground == Ground::Logic;
            there && !host.is_paused && !self.is_cut(*from, server) && !self.is_cut(server, *from)
        });
        let image = source.filter(|_| !(self.has(Fault::BadLinks) && self.rng.chance(30)));
        let image = image.and_then(|from| self.hosts[from].disk.image());
        let Some(image) = image.filter(|image| image.meta.index >= least) else {
            if let Some(source) = source {
                self.snapshot_now(source);
            }
            self.counters.note("image could not be had");
            return self.drive(server, |machine, _| machine.install_failed());
        };
        let cut = !self.cuts.is_empty();
        self.counters.note("image installed");
        self.counters.add("image installed during a partition", u64::from(cut));
        let crash = self.options.faults.has(Fault::ServerCrash) && self.rng.chance(40);
        let torn = crash.then(|| self.rng.below(12));
        self.counters.add("crash while an image is installed", u64::from(torn.is_some()));
        // The process ends either way: it starts again with what is on the disk.
        self.hosts[server].process = None;
        self.break_conns_of(server);
        let stored = self.hosts[server].disk.install(image, torn);
        if let Err(error) = stored {
            self.note_trace(|| format!("server {server}: {error}"));
        }
        if torn.is_some() {
            self.hosts[server].disk.crash(true, &mut self.rng);
        } else {
            self.hosts[server].disk.crash(false, &mut self.rng);
        }
        self.hosts[server].crashed_at = self.now;
        self.hosts[server].is_paused = false;
        self.drop_deferred(server);
        let pause = self.rng.spread(MILLI, 200 * MILLI);
        self.after(pause, Happening::ServerStart(server));
    }

    /// A peer needs an image: one is made now.
    fn snapshot_now(&mut self, server: usize) {
        let host = &mut self.hosts[server];
        let Some(process) = &host.process else { return };
        let state = process.machine.state();
        let Some(meta) = process.machine.replica().snapshot_meta(state.index()) else { return };
        if let Ok(Some(_)) = host.disk.snapshot(&meta, (state, state.digest())) {
            self.drive(server, |machine, _| machine.compact(meta));
        }
    }

    /// The adversary lets a server see more.
    pub(crate) fn cloud_stirs(&mut self, server: usize, boot: u64) {
        if !self.hosts[server].is_boot(boot) {
            return;
        }
        let blind_until = self.hosts[server].blind_until;
        if blind_until > self.now && !self.finale {
            return self.at(blind_until, Happening::CloudStirs { server, boot });
        }
        let everything = self.finale || self.rng.chance(30);
        let id = self.hosts[server].id;
        let done = self.cloud.lock().stir(id, everything);
        self.drive(server, |_, _| {});
        let most = if done { 800 } else { 150 };
        let delay = self.rng.spread(MILLI, most * MILLI);
        if !(self.is_sole() && done && self.finale) {
            self.after(delay, Happening::CloudStirs { server, boot });
        }
    }

    /// The adversary lets another server lead.
    pub(crate) fn elect(&mut self) {
        if !self.is_logic() {
            return;
        }
        let candidates: Vec<usize> = (0..self.hosts.len())
            .filter(|server| self.hosts[*server].is_up() && !self.hosts[*server].is_paused)
            .filter(|server| self.hosts[*server].applied().0 >= self.cloud.lock().dropped())
            .collect();
        let majority = self.hosts.iter().filter(|host| host.is_up()).count() * 2 > self.hosts.len();
        if candidates.is_empty() || !majority {
            if self.cloud.lock().leader().is_none() {
                self.after(100 * MILLI, Happening::Election);
            }
            return;
        }
        let chosen = *self.rng.pick(&candidates);
        let id = self.hosts[chosen].id;
        let before = self.cloud.lock().leader();
        if before != Some(id) {
            let old = before.and_then(|old| self.number_of(old));
            if let Some(old) = old.filter(|_| self.rng.chance(50)) {
                // It believes in itself for longer than any lease.
                let blind = self.rng.spread(MILLI, self.lease().0.saturating_mul(3));
                self.hosts[old].blind_until = self.now.saturating_add(blind);
                self.counters.note("an old leader is left in its belief");
            }
            self.cloud.lock().elect(id);
            self.drive(chosen, |_, _| {});
        }
    }

    /// Hands leadership over, by way of the machine.
    pub(crate) fn transfer(&mut self) {
        let Some(leader) = self.leader() else { return };
        let others: Vec<ServerId> = self.hosts.iter().map(|host| host.id).collect();
        let to = *self.rng.pick(&others);
        let mut done = false;
        self.drive(leader, |machine, _| done = machine.steer(&Steering::Transfer(to)).is_ok());
        self.counters.add("leadership is handed over", u64::from(done));
    }

    /// Whether at least three servers decide, all of them are well, and nobody is about to join: then one may be lost.
    pub(crate) fn is_whole(&self) -> bool {
        let leader = self.leader().and_then(|leader| self.hosts[leader].process.as_ref());
        let Some(process) = leader.filter(|_| self.options.ground == Ground::Raft) else {
            return false;
        };
        let members = process.machine.replica().members();
        let well = |id: ServerId| {
            let host = self.number_of(id).and_then(|server| self.hosts.get(server));
            host.is_some_and(|host| host.is_up() && !host.was_damaged && !host.is_retired)
        };
        let sound = |member: &MemberStatus| member.role == Role::Voter && well(member.id);
        members.len() > 2 && members.iter().all(sound)
    }

    /// Adds a server, or removes one.
    pub(crate) fn change_members(&mut self) {
        let Some(leader) = self.leader().filter(|_| self.options.ground == Ground::Raft) else {
            return;
        };
        let Some(process) = &self.hosts[leader].process else { return };
        let members = process.machine.replica().members();
        let voters = members.iter().filter(|member| member.role == Role::Voter).count();
        if voters < 5 && members.len() < 6 && self.hosts.len() < SERVERS_MAX && self.rng.chance(60)
        {
            self.add_server(leader);
        } else if voters > 3 && self.is_whole() {
            let removable: Vec<ServerId> = members
                .iter()
                .filter(|member| member.role == Role::Voter && member.id != self.hosts[leader].id)
                .map(|member| member.id)
                .collect();
            let gone = *self.rng.pick(&removable);
            self.remove_server(leader, gone);
        }
    }

    fn add_server(&mut self, leader: usize) {
        let number = self.hosts.len();
        let host = Host::new(number, &self.options);
        let changes = vec![Change::AddLearner(host.id)];
        let mut done = false;
        self.drive(leader, |machine, _| {
            done = machine.steer(&Steering::Members(changes)).is_ok();
        });
        if done {
            self.counters.note("server added");
            self.hosts.push(host);
            self.after(10 * MILLI, Happening::ServerStart(number));
        }
    }

    /// Removes a server from the cluster. Returns whether that was taken.
    fn remove_server(&mut self, leader: usize, id: ServerId) -> bool {
        let mut done = false;
        let changes = vec![Change::Remove(id)];
        self.drive(leader, |machine, _| {
            done = machine.steer(&Steering::Members(changes)).is_ok();
        });
        self.counters.add("server removed", u64::from(done));
        done
    }

    /// Another server takes the place of one whose disk is damaged: the old one is removed, then a new one is added.
    pub(crate) fn replace(&mut self, server: usize) {
        if self.options.ground != Ground::Raft {
            return;
        }
        let id = self.hosts[server].id;
        let leader = self.leader();
        let is_member =
            leader.and_then(|leader| self.hosts[leader].process.as_ref()).is_some_and(|process| {
                process.machine.replica().members().iter().any(|member| member.id == id)
            });
        match leader {
            Some(leader) if is_member => {
                self.remove_server(leader, id);
                self.after(500 * MILLI, Happening::Replace(server));
            }
            Some(leader) if self.hosts.len() < SERVERS_MAX => {
                let before = self.hosts.len();
                self.add_server(leader);
                if self.hosts.len() == before {
                    self.after(500 * MILLI, Happening::Replace(server));
                } else {
                    self.counters.note("damaged server replaced");
                }
            }
            Some(_) => {}
            None => self.after(500 * MILLI, Happening::Replace(server)),
        }
    }

    /// Retires servers that the log no longer names, and asks again for what an operator has to do.
    pub(crate) fn look_after_members(&mut self) {
        if self.options.ground != Ground::Raft {
            return;
        }
        let Some(leader) = self.leader() else { return };
        let Some(process) = &self.hosts[leader].process else { return };
        let members: Vec<ServerId> =
            process.machine.replica().members().iter().map(|member| member.id).collect();
        for server in 0..self.hosts.len() {
            let host = &mut self.hosts[server];
            if !members.contains(&host.id) && !host.is_retired && host.is_up() {
                host.is_retired = true;
                self.server_crash(server, false);
            }
        }
    }
}
