//! How a server becomes part of a cluster: whether its data directory lets it, and a log that waits until all founders are there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use rota_consensus::paxos::{self, PaxosConfig, PaxosLog};
use rota_consensus::raft::{self, RaftConfig, RaftLog};
use rota_core::State;
use rota_ports::{
    Change, ChangeRefused, Effects, EntryBytes, Frame, FrameSeq, LogStatus, MemberStatus, Members,
    ProposeRefused, ReadId, ReplicatedLog, SnapshotMeta, Stored,
};
use rota_store::recover::Recovered;
use rota_store::solo::{SoloLimits, SoloLog};
use rota_types::{LogIndex, ServerId};

use crate::config::{ClusterConfig, LogKind, ServerConfig, StartError};
use crate::memory::{Ground, Memory};
use crate::opening::draw;
use crate::out::Out;

const ASLEEP: u8 = 0;
const ALLOWED: u8 = 1;
const AWAKE: u8 = 2;

/// Whether this server takes part. A founder does when all founders are there, and that is durable.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<AtomicU8>);

impl Gate {
    fn new(awake: bool) -> Self {
        Self(Arc::new(AtomicU8::new(if awake { AWAKE } else { ASLEEP })))
    }

    /// Whether this server takes part.
    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::Relaxed) == AWAKE
    }

    /// Lets it begin.
    pub(crate) fn allow(&self) {
        let _was = self.0.compare_exchange(ASLEEP, ALLOWED, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// A founder's log. Before the gate is open it neither hears nor says anything.
struct FoundingLog {
    log: Box<dyn ReplicatedLog>,
    gate: Gate,
    /// What the cluster is founded with, until it is on its way to the disk.
    frame: Option<Frame>,
}

impl FoundingLog {
    fn is_open(&self) -> bool {
        self.gate.is_open()
    }
}

impl ReplicatedLog for FoundingLog {
    fn tick(&mut self) {
        if self.is_open() {
            self.log.tick();
        }
    }

    fn step(&mut self, from: ServerId, message: &[u8]) {
        if self.is_open() {
            self.log.step(from, message);
        }
    }

    fn propose(&mut self, entry: EntryBytes) -> Result<(), ProposeRefused> {
        if self.is_open() { self.log.propose(entry) } else { Err(ProposeRefused::NotLeader) }
    }

    fn read_barrier(&mut self, read: ReadId) -> Result<(), ProposeRefused> {
        if self.is_open() { self.log.read_barrier(read) } else { Err(ProposeRefused::NotLeader) }
    }

    fn link_reset(&mut self, peer: ServerId) {
        if self.is_open() {
            self.log.link_reset(peer);
        }
    }

    fn persisted(&mut self, frame: FrameSeq) {
        if self.is_open() {
            self.log.persisted(FrameSeq(frame.0 - 1));
        } else {
            self.gate.0.store(AWAKE, Ordering::Relaxed);
        }
    }

    fn snapshot_meta(&self, index: LogIndex) -> Option<SnapshotMeta> {
        // What is there before the founding is the state of a server that ran alone.
        if self.is_open() { self.log.snapshot_meta(index) } else { Some(SnapshotMeta::solo(index)) }
    }

    fn compact(&mut self, snapshot: SnapshotMeta) {
        if self.is_open() {
            self.log.compact(snapshot);
        }
    }

    fn installed(&mut self, snapshot: SnapshotMeta) {
        self.log.installed(snapshot);
    }

    fn install_failed(&mut self) {
        self.log.install_failed();
    }

    fn change_members(&mut self, changes: &[Change]) -> Result<(), ChangeRefused> {
        if self.is_open() {
            self.log.change_members(changes)
        } else {
            Err(ChangeRefused::NotLeader)
        }
    }

    fn transfer_leader(&mut self, to: ServerId) -> Result<(), ProposeRefused> {
        if self.is_open() { self.log.transfer_leader(to) } else { Err(ProposeRefused::NotLeader) }
    }

    fn poll(&mut self) -> Effects {
        if self.is_open() {
            let mut effects = self.log.poll();
            if let Some(frame) = &mut effects.frame {
                frame.seq.0 += 1;
            }
            return effects;
        }
        let allowed = self.gate.0.load(Ordering::Relaxed) == ALLOWED;
        let frame = if allowed { self.frame.take() } else { None };
        Effects { frame, ..Effects::default() }
    }

    fn status(&self) -> LogStatus {
        if self.is_open() { self.log.status() } else { LogStatus::default() }
    }

    fn members(&self) -> Vec<MemberStatus> {
        if self.is_open() { self.log.members() } else { Vec::new() }
    }
}

/// The log, behind what was recovered. That of a founder begins when the gate lets it.
pub(crate) fn open_log(
    config: &ServerConfig,
    recovered: &Recovered,
) -> Result<(Box<dyn ReplicatedLog>, Gate), StartError> {
    let last = recovered.wal.last_index();
    let Some(cluster) = &config.cluster else {
        return Ok((Box::new(SoloLog::new(last, SoloLimits::default())), Gate::new(true)));
    };
    if !founds(config, recovered) {
        let stored = recovered.stored();
        let stored = stored.map_err(|error| StartError::recover(&config.data_dir, error))?;
        return Ok((log_of(config, cluster, stored)?, Gate::new(true)));
    }
    let founders: Vec<ServerId> = cluster.founders.keys().copied().collect();
    let frame = match cluster.log {
        LogKind::Raft => raft::founding_frame(last, &founders),
        LogKind::Paxos => paxos::founding_frame(last, &founders),
    };
    let (entries, state) = (frame.entries.clone(), frame.state.clone());
    // Every founder has the same state at this entry, so nobody needs what leads up to it.
    let stored = Stored { snapshot: SnapshotMeta::solo(last), entries, state };
    let (log, gate) = (log_of(config, cluster, stored)?, Gate::new(false));
    Ok((Box::new(FoundingLog { log, gate: gate.clone(), frame: Some(frame) }), gate))
}

fn log_of(
    config: &ServerConfig,
    cluster: &ClusterConfig,
    stored: Stored,
) -> Result<Box<dyn ReplicatedLog>, StartError> {
    let refused = |error| StartError::recover(&config.data_dir, error);
    Ok(match cluster.log {
        LogKind::Raft => {
            let log = RaftLog::new(RaftConfig::new(cluster.server, draw()), stored);
            Box::new(log.map_err(refused)?)
        }
        LogKind::Paxos => {
            let log = PaxosLog::new(PaxosConfig::new(cluster.server, draw()), stored);
            Box::new(log.map_err(refused)?)
        }
    })
}

/// What the server remembers of its peers, if it may take part.
pub(crate) fn recall(config: &ServerConfig) -> Result<Memory, StartError> {
    let memory = Memory::load(&config.data_dir);
    let memory = memory.map_err(|error| StartError::recover(&config.data_dir, error))?;
    match memory.out() {
        Some(reason) => Err(StartError::Out(Out::Noted(reason))),
        None => Ok(memory),
    }
}

/// Whether this server is one of those that found its cluster, and has not taken part yet.
pub(crate) fn founds(config: &ServerConfig, recovered: &Recovered) -> bool {
    let is_founder = config.cluster.as_ref().is_some_and(|cluster| !cluster.founders.is_empty());
    is_founder && is_alone(recovered)
}

/// What this server brings to the founding of a cluster.
pub(crate) fn ground(founds: bool, state: &State) -> Ground {
    let state = if founds { state } else { &State::new() };
    Ground { index: state.index().0, digest: state.digest() }
}

/// Whether there is nothing of a cluster in the data.
fn is_alone(recovered: &Recovered) -> bool {
    recovered.wal.protocol_state().is_none()
        && recovered.snapshot_meta().members == Members::default()
}

/// Refuses the data of another server, and that of one that has lost its log. A cluster may be founded on the data of a server that ran
/// alone.
pub(crate) fn check_owner(
    config: &ServerConfig,
    recovered: &Recovered,
    memory: &Memory,
) -> Result<(), StartError> {
    let Some(own) = config.cluster.as_ref().map(ClusterConfig::identity) else { return Ok(()) };
    let found = recovered.identity;
    if memory.was_of(own.cluster) {
        let reason = format!(
            "the data comes from cluster {} by a backup or a recovery, and must not become that cluster again: its other servers could come back",
            own.cluster
        );
        let remedy = "write another name into the file of --cluster, on every server";
        return Err(StartError::Data { path: config.data_dir.clone(), reason, remedy });
    }
    if recovered.is_new && memory.founded().is_some() {
        let reason = format!(
            "server {} has taken part in its cluster, and its log is gone: what it promised and acknowledged is forgotten",
            own.server
        );
        let remedy =
            "put the files back, or let another server take its place: rota cluster replace";
        return Err(StartError::Data { path: config.data_dir.clone(), reason, remedy });
    }
    if found == own || memory.data() == Some(found) {
        return Ok(());
    }
    if memory.data().is_none() && memory.founded().is_none() && is_alone(recovered) {
        return memory.adopt(found).map_err(|error| StartError::recover(&config.data_dir, error));
    }
    let reason = format!(
        "the data directory belongs to server {} of cluster {}, not to server {} of cluster {}",
        found.server, found.cluster, own.server, own.cluster
    );
    let remedy = "each server needs a data directory of its own";
    Err(StartError::Data { path: config.data_dir.clone(), reason, remedy })
}
