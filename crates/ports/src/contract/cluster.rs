//! A whole cluster of replicated logs in one thread: simulated clock, network and disks, all chance from one seed.

use std::collections::{BTreeMap, VecDeque};

use rota_types::{LogIndex, ServerId};

use super::chance::{Chance, fold, mix};
use super::disk::{Disk, Image, Machine};
use super::faults::Faults;
use super::net::{Net, Shape, Weather};
use super::oracle::Oracle;
use crate::{
    Effects, EntryBytes, Frame, FrameSeq, MessageBytes, ReadId, ReplicatedLog, SnapshotMeta, Stored,
};

/// How long a tick is, in microseconds.
pub(super) const TICK: u64 = 15_000;

/// When a cluster has had the time to elect its first leader, in microseconds.
pub(super) const SETTLED: u64 = 500_000;

/// How a log is made.
pub trait Protocol {
    /// The log.
    type Log: ReplicatedLog;

    /// What it is stored on.
    type Disk: Disk;

    /// The first frame of each founder's empty log.
    fn founding_frame(founders: &[ServerId]) -> Frame;

    /// A log that goes on from what is stored.
    fn open(id: ServerId, seed: u64, stored: Stored) -> Self::Log;
}

/// One run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where all chance comes from.
    pub seed: u64,
    /// How many servers found the cluster.
    pub servers: u64,
    /// How long faults go on, in simulated microseconds.
    pub faults_micros: u64,
    /// How long the healed cluster may take until everybody has everything.
    pub heal_micros: u64,
    /// Which faults there are.
    pub faults: Faults,
    /// What the network does.
    pub weather: Weather,
    /// A partition that lasts from half a second on until the faults end.
    pub partition: Option<Shape>,
}

/// What happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Entries committed.
    pub commits: u64,
    /// Proposals acknowledged.
    pub acknowledged: u64,
    /// Reads answered.
    pub reads: u64,
    /// Terms with a leader.
    pub elections: u64,
    /// Servers crashed.
    pub crashes: u64,
    /// Partitions.
    pub partitions: u64,
    /// Servers held up.
    pub pauses: u64,
    /// Images fetched from other servers.
    pub installs: u64,
    /// Changes of the members.
    pub changes: u64,
    /// Hand-overs begun.
    pub transfers: u64,
    /// Messages delivered.
    pub messages: u64,
    /// From the end of the faults to the next acknowledged write, in simulated microseconds.
    pub recovery_micros: u64,
    /// The longest time without an acknowledged write, after half a second and while faults went on, in simulated microseconds.
    pub gap_micros: u64,
    /// Depends on everything that happened, in order.
    pub trace: u64,
}

impl Report {
    /// Adds another run's numbers, but for its trace and recovery.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in [
            (&mut self.commits, other.commits),
            (&mut self.acknowledged, other.acknowledged),
            (&mut self.reads, other.reads),
            (&mut self.elections, other.elections),
            (&mut self.crashes, other.crashes),
            (&mut self.partitions, other.partitions),
            (&mut self.pauses, other.pauses),
            (&mut self.installs, other.installs),
            (&mut self.changes, other.changes),
            (&mut self.transfers, other.transfers),
            (&mut self.messages, other.messages),
        ] {
            *sum += more;
        }
    }
}

/// Something that happens at a server, unless it has crashed since it was planned.
#[derive(Debug)]
pub(super) enum Happening {
    Tick,
    Delivered(ServerId, MessageBytes),
    Synced(FrameSeq),
    /// A snapshot of its own is durable.
    Stored(Image),
    /// An image was asked for from that server, and arrives, or does not.
    Fetched(SnapshotMeta, ServerId),
    LinkReset(ServerId),
}

/// Something that happens.
#[derive(Debug)]
pub(super) enum Event {
    At(ServerId, u32, Happening),
    Started(ServerId),
    Client,
    Fault,
    Crash(ServerId),
    Partition(Shape),
}

pub(super) struct Server<L> {
    pub(super) log: L,
    pub(super) machine: Machine,
    /// Messages that wait for a frame.
    kept: VecDeque<(FrameSeq, ServerId, MessageBytes)>,
    handed: FrameSeq,
    durable: FrameSeq,
    is_syncing: bool,
    /// Own proposals whose callers wait, in order.
    pub(super) waiting: VecDeque<EntryBytes>,
    /// Reads that wait, with what they have to see.
    pub(super) reads: BTreeMap<ReadId, u64>,
    /// Answered, and waiting for the state.
    pub(super) ready: Vec<(ReadId, LogIndex)>,
    pub(super) next_read: u64,
    /// When each tick was.
    pub(super) ticks: Vec<u64>,
    /// The term in which it leads, or is told to.
    pub(super) standing: (bool, u64),
    pub(super) is_snapshotting: bool,
}

/// A place for a server: its disk, and the server while it runs.
pub(super) struct Place<P: Protocol> {
    pub(super) disk: P::Disk,
    pub(super) server: Option<Server<P::Log>>,
    /// Rises with each crash.
    pub(super) life: u32,
    pub(super) paused_until: u64,
}

pub(super) struct Cluster<P: Protocol> {
    pub(super) options: Options,
    pub(super) now: u64,
    pub(super) chance: Chance,
    pub(super) net: Net,
    pub(super) places: BTreeMap<ServerId, Place<P>>,
    events: BTreeMap<(u64, u64), Event>,
    planned: u64,
    pub(super) oracle: Oracle,
    pub(super) report: Report,
    pub(super) proposals: u64,
    pub(super) healed: Option<u64>,
    /// When a write was acknowledged last.
    pub(super) last_acknowledged: u64,
}

impl<P: Protocol> Cluster<P> {
    pub(super) fn new(options: Options) -> Self {
        let mut cluster = Self {
            options,
            now: 0,
            chance: Chance(options.seed),
            net: Net::new(options.weather),
            places: BTreeMap::new(),
            events: BTreeMap::new(),
            planned: 0,
            oracle: Oracle::default(),
            report: Report::default(),
            proposals: 0,
            healed: None,
            last_acknowledged: SETTLED,
        };
        let founders: Vec<ServerId> = (1..=options.servers).map(ServerId).collect();
        for founder in &founders {
            let frame = P::founding_frame(&founders);
            let mut disk = P::Disk::default();
            let seq = frame.seq;
            disk.append(frame);
            disk.sync(seq).expect("a founding frame fits an empty log");
            cluster.places.insert(*founder, Place::new(disk));
            cluster.plan(0, Event::Started(*founder));
        }
        cluster.plan(1_000, Event::Client);
        cluster.plan(300_000, Event::Fault);
        if let Some(shape) = options.partition {
            cluster.plan(SETTLED, Event::Partition(shape));
        }
        cluster
    }

    pub(super) fn plan(&mut self, after: u64, event: Event) {
        self.planned += 1;
        self.events.insert((self.now + after, self.planned), event);
    }

    pub(super) fn at(&mut self, after: u64, id: ServerId, happening: Happening) {
        let life = self.places.get(&id).map_or(0, |place| place.life);
        self.plan(after, Event::At(id, life, happening));
    }

    /// Lets the next thing happen, unless it is later than `until`. Returns whether it did.
    pub(super) fn step(&mut self, until: u64) -> Result<bool, String> {
        let Some(next) = self.events.first_entry() else { return Ok(false) };
        if next.key().0 > until {
            return Ok(false);
        }
        let ((at, number), event) = next.remove_entry();
        self.now = at;
        self.report.trace = mix(self.report.trace ^ at) ^ number;
        match event {
            Event::At(id, life, happening) => self.happen(id, life, happening)?,
            Event::Started(id) => self.start(id)?,
            Event::Client => self.client()?,
            Event::Fault => self.fault()?,
            Event::Crash(id) if self.healed.is_none() => self.crash(id)?,
            Event::Crash(_) => {}
            Event::Partition(shape) => self.cut(shape),
        }
        Ok(true)
    }

    fn start(&mut self, id: ServerId) -> Result<(), String> {
        let Some(place) = self.places.get_mut(&id) else { return Ok(()) };
        if place.server.is_some() {
            return Ok(());
        }
        let (stored, machine) = place.disk.recover();
        let seed = mix(self.options.seed ^ mix(id.0 << 32 | u64::from(place.life)));
        let log = P::open(id, seed, stored);
        place.server = Some(Server {
            log,
            machine,
            kept: VecDeque::new(),
            handed: FrameSeq(0),
            durable: FrameSeq(0),
            is_syncing: false,
            waiting: VecDeque::new(),
            reads: BTreeMap::new(),
            ready: Vec::new(),
            next_read: 0,
            ticks: vec![self.now],
            standing: (false, 0),
            is_snapshotting: false,
        });
        let phase = self.chance.below(TICK);
        self.at(phase, id, Happening::Tick);
        self.drive(id)
    }

    fn happen(&mut self, id: ServerId, life: u32, happening: Happening) -> Result<(), String> {
        let Some(place) = self.places.get_mut(&id) else { return Ok(()) };
        let paused_until = place.paused_until;
        let Some(server) = place.server.as_mut().filter(|_| place.life == life) else {
            return Ok(());
        };
        if paused_until > self.now {
            let after = paused_until - self.now;
            self.plan(after, Event::At(id, life, happening));
            return Ok(());
        }
        match happening {
            Happening::Tick => {
                server.ticks.push(self.now);
                server.log.tick();
                let next = TICK + self.chance.below(1_500);
                self.at(next, id, Happening::Tick);
            }
            Happening::Delivered(from, message) => {
                self.report.messages += 1;
                self.report.trace = fold(self.report.trace, &message);
                server.log.step(from, &message);
            }
            Happening::Synced(frame) => {
                place.disk.sync(frame)?;
                server.durable = frame;
                server.is_syncing = false;
                server.log.persisted(frame);
                self.release(id);
                self.sync(id);
            }
            Happening::Stored(image) => {
                let meta = image.meta.clone();
                place.disk.store(image);
                place.disk.truncate_before(self.chance.below(20));
                server.is_snapshotting = false;
                server.log.compact(meta);
            }
            Happening::Fetched(meta, from) => self.fetched(id, &meta, from),
            Happening::LinkReset(peer) => server.log.link_reset(peer),
        }
        self.drive(id)
    }

    /// Sends what waited for frames that are durable now.
    fn release(&mut self, id: ServerId) {
        let Some(server) = self.server(id) else { return };
        let durable = server.durable;
        let mut free = Vec::new();
        while let Some((_, to, message)) = server.kept.pop_front_if(|(seq, ..)| *seq <= durable) {
            free.push((to, message));
        }
        for (to, message) in free {
            self.send(id, to, message);
        }
    }

    pub(super) fn server(&mut self, id: ServerId) -> Option<&mut Server<P::Log>> {
        self.places.get_mut(&id).and_then(|place| place.server.as_mut())
    }

    fn send(&mut self, from: ServerId, to: ServerId, message: MessageBytes) {
        for arrival in self.net.arrivals(from, to, self.now, &mut self.chance) {
            self.at(arrival - self.now, to, Happening::Delivered(from, message.clone()));
        }
    }

    /// An image arrives from another server, if that has one and can be reached.
    fn fetched(&mut self, id: ServerId, asked: &SnapshotMeta, from: ServerId) {
        let cut = self.net.is_cut(from, id) || self.net.is_cut(id, from);
        let source = self.places.get(&from).filter(|place| place.server.is_some() && !cut);
        let image = source.and_then(|place| place.disk.image());
        let image = image.filter(|image| image.meta.index >= asked.index);
        let Some(place) = self.places.get_mut(&id) else { return };
        let Some(server) = &mut place.server else { return };
        let Some(image) = image else { return server.log.install_failed() };
        self.report.installs += 1;
        place.disk.store(Image { installed: true, ..image.clone() });
        if server.machine.index < image.machine.index {
            server.machine = image.machine;
        }
        server.log.installed(image.meta);
    }

    /// Carries out what a log wants, as the contract says.
    pub(super) fn drive(&mut self, id: ServerId) -> Result<(), String> {
        loop {
            let Some(server) = self.server(id) else { return Ok(()) };
            let effects = server.log.poll();
            let is_empty = effects.is_empty();
            self.carry_out(id, effects)?;
            self.stand(id)?;
            if is_empty {
                return Ok(());
            }
        }
    }

    fn carry_out(&mut self, id: ServerId, effects: Effects) -> Result<(), String> {
        let Effects { frame, send, send_after, install, committed, reads } = effects;
        if let Some(frame) = frame {
            self.write(id, frame)?;
        }
        let Some(server) = self.server(id) else { return Ok(()) };
        let handed = server.handed;
        server.kept.extend(send_after.into_iter().map(|(to, message)| (handed, to, message)));
        self.release(id);
        for (to, message) in send {
            self.send(id, to, message);
        }
        for committed in committed {
            self.commit(id, committed)?;
        }
        if let Some((meta, from)) = install {
            let delay = self.chance.between(500, 80_000);
            self.at(delay, id, Happening::Fetched(meta, from));
        }
        if let Some(server) = self.server(id) {
            server.ready.extend(reads);
        }
        self.serve(id)
    }

    fn write(&mut self, id: ServerId, frame: Frame) -> Result<(), String> {
        let Some(Place { server: Some(server), disk, .. }) = self.places.get_mut(&id) else {
            return Ok(());
        };
        if frame.seq.0 != server.handed.0 + 1 {
            return Err(format!("frame {} follows {}", frame.seq.0, server.handed.0));
        }
        server.handed = frame.seq;
        disk.append(frame);
        self.sync(id);
        Ok(())
    }

    /// Begins to sync all that was written, if nothing is being synced.
    fn sync(&mut self, id: ServerId) {
        let Some(Place { server: Some(server), disk, .. }) = self.places.get_mut(&id) else {
            return;
        };
        let Some(frame) = disk.written().filter(|_| !server.is_syncing) else { return };
        server.is_syncing = true;
        let slow = self.chance.permille(if self.healed.is_none() { 20 } else { 2 });
        let delay = if slow { self.chance.below(60_000) } else { self.chance.between(100, 1_200) };
        self.at(delay, id, Happening::Synced(frame));
    }
}

impl<P: Protocol> Place<P> {
    pub(super) fn new(disk: P::Disk) -> Self {
        Self { disk, server: None, life: 0, paused_until: 0 }
    }
}
