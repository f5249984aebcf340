//! The same clusters on the real store: its log, its snapshots and its recovery, on disks in memory that tear writes.

use std::collections::VecDeque;
use std::sync::Arc;

use rota_core::State;
use rota_core::image::{Meta, Record};
use rota_ports::contract::{Disk, Image, Machine, Options, Protocol, Report, run};
use rota_ports::{Frame, FrameSeq, Store, Stored};
use rota_store::disk::Disk as Directory;
use rota_store::mem_disk::MemDisk;
use rota_store::recover::{Options as Opening, Recovered, recover};
use rota_store::snapshot::Incoming;
use rota_store::wal::WalOptions;
use rota_store::{ClusterId, Identity, snapshot};
use rota_types::{LogIndex, ServerId, Timestamp};

use crate::common::{Paxos, Raft};

const IDENTITY: Identity = Identity { cluster: ClusterId([7; 16]), server: ServerId(1) };

/// A directory, and what was opened of it.
struct RealDisk {
    disk: MemDisk,
    opened: Option<Recovered>,
    unsynced: VecDeque<Frame>,
    image: Option<Image>,
}

impl Default for RealDisk {
    fn default() -> Self {
        let disk = MemDisk::new();
        let mut made = Self { disk, opened: None, unsynced: VecDeque::new(), image: None };
        made.open();
        made
    }
}

fn record(machine: Machine) -> Record {
    let Some(Record::Meta(empty)) = State::new().records().next() else {
        panic!("a state begins with what it is of");
    };
    let (index, now) = (LogIndex(machine.index), Timestamp(machine.digest));
    Record::Meta(Meta { index, now, ..empty })
}

impl RealDisk {
    fn directory(&self) -> Arc<dyn Directory> {
        Arc::new(self.disk.clone())
    }

    fn open(&mut self) {
        self.opened = None;
        let wal = WalOptions { segment_bytes: 8_192 };
        let options = Opening { fresh: IDENTITY, cluster: None, server: None, wal };
        self.opened = Some(recover(&self.directory(), &options).expect("the store recovers"));
    }

    fn opened(&self) -> &Recovered {
        self.opened.as_ref().expect("it is open")
    }

    fn write(&mut self, count: usize) -> Result<(), String> {
        let wal = &mut self.opened.as_mut().expect("it is open").wal;
        for frame in self.unsynced.drain(..count) {
            wal.append(&frame).map_err(|error| error.to_string())?;
        }
        wal.sync().map_err(|error| error.to_string())
    }
}

impl Disk for RealDisk {
    fn append(&mut self, frame: Frame) {
        self.unsynced.push_back(frame);
    }

    fn written(&self) -> Option<FrameSeq> {
        self.unsynced.back().map(|frame| frame.seq)
    }

    fn sync(&mut self, frame: FrameSeq) -> Result<(), String> {
        let count = self.unsynced.iter().filter(|unsynced| unsynced.seq <= frame).count();
        self.write(count)
    }

    fn crash(&mut self, seed: u64) -> Result<(), String> {
        // The machine stops somewhere in the next sync, and what that wrote is there, or not, or partly.
        self.disk.stop_after(seed % 6);
        let count = self.unsynced.len();
        let _written = self.write(count);
        self.unsynced.clear();
        self.opened = None;
        self.disk = self.disk.after_crash(seed / 6);
        self.open();
        Ok(())
    }

    fn store(&mut self, image: Image) {
        if self.image.as_ref().is_some_and(|own| own.meta.index >= image.meta.index) {
            return;
        }
        let directory = self.directory();
        let record = record(image.machine);
        if image.installed {
            let incoming = Incoming::begin(&directory, &IDENTITY, image.meta.clone());
            let mut incoming = incoming.expect("begins");
            incoming.add(&rota_wire::snapshot::encode_record(&record)).expect("writes");
            incoming.finish().expect("finishes");
        } else {
            let one = std::iter::once(record);
            snapshot::write(directory.as_ref(), &IDENTITY, &image.meta, one).expect("writes");
        }
        self.image = Some(image);
    }

    fn image(&self) -> Option<Image> {
        self.image.clone()
    }

    fn truncate_before(&mut self, tail: u64) {
        let Some(index) = self.image.as_ref().map(|image| image.meta.index.0) else { return };
        let wal = &mut self.opened.as_mut().expect("it is open").wal;
        wal.truncate_before(LogIndex(index.saturating_sub(tail))).expect("drops");
    }

    fn holds(&self, index: u64, bytes: &[u8]) -> bool {
        let in_image = self.image.as_ref().is_some_and(|image| image.meta.index.0 >= index);
        let wal = &self.opened().wal;
        let in_log = || wal.replay(LogIndex(index)).next().and_then(Result::ok);
        in_image || in_log().is_some_and(|(_, entry)| *entry.bytes == *bytes)
    }

    fn recover(&mut self) -> (Stored, Machine) {
        let stored = self.opened().stored().expect("reads");
        let machine = self.opened().snapshot.as_ref().map(|snapshot| {
            let mut records = snapshot.records().expect("opens");
            match records.next() {
                Some(Ok(Record::Meta(meta))) => Machine { index: meta.index.0, digest: meta.now.0 },
                other => panic!("{other:?}"),
            }
        });
        (stored, machine.unwrap_or_default())
    }
}

struct Real<P>(std::marker::PhantomData<P>);

impl<P: Protocol> Protocol for Real<P> {
    type Log = P::Log;
    type Disk = RealDisk;

    fn founding_frame(founders: &[ServerId]) -> Frame {
        P::founding_frame(founders)
    }

    fn open(id: ServerId, seed: u64, stored: Stored) -> P::Log {
        P::open(id, seed, stored)
    }
}

fn run_all<P: Protocol>() -> Report {
    let mut sum = Report::default();
    for seed in 0..150 {
        sum.add(&run::<Real<P>>(Options::of(seed)).unwrap_or_else(|error| panic!("{error}")));
    }
    sum
}

#[test]
fn raft_keeps_the_contract_on_the_real_store() {
    let sum = run_all::<Raft>();
    assert!(sum.crashes > 150 && sum.installs > 10 && sum.acknowledged > 20_000, "{sum:?}");
}

#[test]
fn paxos_keeps_the_contract_on_the_real_store() {
    let sum = run_all::<Paxos>();
    assert!(sum.crashes > 150 && sum.installs > 10 && sum.acknowledged > 20_000, "{sum:?}");
}
