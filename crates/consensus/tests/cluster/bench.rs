//! A few logs on a bench: every message, tick and sync is done by hand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rota_ports::contract::Protocol;
use rota_ports::{
    Committed, Effects, EntryBytes, Frame, FrameSeq, LogEntry, ReadId, ReplicatedLog, SnapshotMeta,
    Stored,
};
use rota_types::{LogIndex, ServerId};

/// What a server's disk holds.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) snapshot: SnapshotMeta,
    before: u64,
    entries: Vec<LogEntry>,
    state: Option<std::sync::Arc<[u8]>>,
}

impl Disk {
    pub(crate) fn take(&mut self, frame: Frame) {
        let first = frame.first.0;
        if frame.reset {
            self.before = first - 1;
            self.entries.clear();
        }
        self.entries.truncate(usize::try_from(first - self.before - 1).expect("fits"));
        self.entries.extend(frame.entries);
        self.state = frame.state.or_else(|| self.state.take());
    }

    pub(crate) fn stored(&self) -> Stored {
        let covered = usize::try_from(self.snapshot.index.0 - self.before).expect("fits");
        let entries = self.entries.get(covered..).unwrap_or_default().to_vec();
        Stored { snapshot: self.snapshot.clone(), entries, state: self.state.clone() }
    }
}

pub(crate) struct Seat<L> {
    pub(crate) log: L,
    pub(crate) disk: Disk,
    /// Frames that are not durable, while the disk is held up.
    pub(crate) writing: VecDeque<Frame>,
    pub(crate) is_held_up: bool,
    kept: Vec<(FrameSeq, ServerId, Vec<u8>)>,
    handed: FrameSeq,
    durable: FrameSeq,
    pub(crate) committed: Vec<Committed>,
    pub(crate) reads: Vec<(ReadId, LogIndex)>,
    pub(crate) installs: Vec<(SnapshotMeta, ServerId)>,
}

pub(crate) struct Bench<P: Protocol> {
    pub(crate) seats: BTreeMap<u64, Seat<P::Log>>,
    /// Sent and not delivered: from, to, message.
    pub(crate) mail: VecDeque<(u64, u64, Vec<u8>)>,
    pub(crate) cut: BTreeSet<(u64, u64)>,
}

impl<P: Protocol> Bench<P> {
    pub(crate) fn new(servers: u64) -> Self {
        let mut bench =
            Self { seats: BTreeMap::new(), mail: VecDeque::new(), cut: BTreeSet::new() };
        let founders: Vec<ServerId> = (1..=servers).map(ServerId).collect();
        for id in 1..=servers {
            let mut disk = Disk::default();
            disk.take(P::founding_frame(&founders));
            bench.start(id, disk);
        }
        bench
    }

    pub(crate) fn start(&mut self, id: u64, disk: Disk) {
        let log = P::open(ServerId(id), id, disk.stored());
        let seat = Seat {
            log,
            disk,
            writing: VecDeque::new(),
            is_held_up: false,
            kept: Vec::new(),
            handed: FrameSeq(0),
            durable: FrameSeq(0),
            committed: Vec::new(),
            reads: Vec::new(),
            installs: Vec::new(),
        };
        self.seats.insert(id, seat);
        self.drive(id);
    }

    pub(crate) fn log(&mut self, id: u64) -> &mut P::Log {
        &mut self.seats.get_mut(&id).expect("it sits there").log
    }

    pub(crate) fn seat(&mut self, id: u64) -> &mut Seat<P::Log> {
        self.seats.get_mut(&id).expect("it sits there")
    }

    /// Carries out what a log wants, but for its messages, which are put into the mail.
    pub(crate) fn drive(&mut self, id: u64) {
        loop {
            let seat = self.seat(id);
            let effects = seat.log.poll();
            if effects.is_empty() && (seat.is_held_up || seat.writing.is_empty()) {
                return;
            }
            let Effects { frame, send, send_after, install, committed, reads } = effects;
            if let Some(frame) = frame {
                seat.handed = frame.seq;
                seat.writing.push_back(frame);
            }
            let handed = seat.handed;
            seat.kept.extend(send_after.into_iter().map(|(to, sent)| (handed, to, sent)));
            seat.committed.extend(committed);
            seat.reads.extend(reads);
            seat.installs.extend(install);
            self.post(id, send);
            if !self.seat(id).is_held_up {
                self.sync(id);
            }
        }
    }

    fn post(&mut self, from: u64, sent: Vec<(ServerId, Vec<u8>)>) {
        for (to, message) in sent {
            if !self.cut.contains(&(from, to.0)) && self.seats.contains_key(&to.0) {
                self.mail.push_back((from, to.0, message));
            }
        }
    }

    /// Makes everything that was written durable.
    pub(crate) fn sync(&mut self, id: u64) {
        let seat = self.seat(id);
        while let Some(frame) = seat.writing.pop_front() {
            seat.durable = frame.seq;
            seat.disk.take(frame);
        }
        let durable = seat.durable;
        let (free, kept) = seat.kept.drain(..).partition(|(frame, ..)| *frame <= durable);
        seat.kept = kept;
        seat.log.persisted(durable);
        let free: Vec<(FrameSeq, ServerId, Vec<u8>)> = free;
        self.post(id, free.into_iter().map(|(_, to, message)| (to, message)).collect());
    }

    pub(crate) fn deliver(&mut self, (from, to, message): (u64, u64, Vec<u8>)) {
        if self.cut.contains(&(from, to)) {
            return;
        }
        self.log(to).step(ServerId(from), &message);
        self.drive(to);
    }

    /// Delivers all mail, and what it leads to.
    pub(crate) fn settle(&mut self) {
        while let Some(letter) = self.mail.pop_front() {
            self.deliver(letter);
        }
    }

    pub(crate) fn tick(&mut self, id: u64, ticks: u32) {
        for _ in 0..ticks {
            self.log(id).tick();
            self.drive(id);
        }
    }

    /// Time passes for all, and all mail arrives.
    pub(crate) fn pass(&mut self, ticks: u32) {
        let ids: Vec<u64> = self.seats.keys().copied().collect();
        for _ in 0..ticks {
            for id in &ids {
                self.tick(*id, 1);
            }
            self.settle();
        }
    }

    /// Lets time pass until somebody leads whom the rest can hear.
    pub(crate) fn elect(&mut self) -> u64 {
        for _ in 0..400 {
            self.pass(1);
            let mut leaders = self.seats.iter().filter(|(_, seat)| seat.log.status().leads);
            if let (Some((id, _)), None) = (leaders.next(), leaders.next()) {
                return *id;
            }
        }
        panic!("nobody leads");
    }

    pub(crate) fn propose(&mut self, id: u64, text: &str) {
        let entry = EntryBytes::from(text.as_bytes());
        assert_eq!(self.log(id).propose(entry), Ok(()));
        self.drive(id);
    }

    /// Takes a server off the net, both ways.
    pub(crate) fn isolate(&mut self, id: u64) {
        let ids: Vec<u64> = self.seats.keys().copied().collect();
        for other in ids {
            self.cut.insert((id, other));
            self.cut.insert((other, id));
        }
    }

    /// Stores a snapshot of all that was handed out.
    pub(crate) fn compact(&mut self, id: u64) -> SnapshotMeta {
        let seat = self.seat(id);
        let meta = seat.log.snapshot_meta(seat.log.status().committed).expect("it was handed out");
        seat.disk.snapshot = meta.clone();
        seat.log.compact(meta.clone());
        meta
    }

    /// What was committed, as text.
    pub(crate) fn texts(&mut self, id: u64) -> Vec<String> {
        let entries =
            self.seat(id).committed.iter().filter_map(|committed| committed.entry.clone());
        entries.map(|entry| String::from_utf8_lossy(&entry).into_owned()).collect()
    }
}
