//! The protocols as the contract's clusters are made of them.

use rota_consensus::paxos::{self, PaxosConfig, PaxosLog};
use rota_consensus::raft::{self, RaftConfig, RaftLog};
use rota_ports::contract::{PlainDisk, Protocol};
use rota_ports::{Frame, Stored};
use rota_types::{LogIndex, ServerId};

/// Raft, with short memories: servers that are behind need images.
pub(crate) struct Raft;

impl Protocol for Raft {
    type Log = RaftLog;
    type Disk = PlainDisk;

    fn founding_frame(founders: &[ServerId]) -> Frame {
        raft::founding_frame(LogIndex(0), founders)
    }

    fn open(id: ServerId, seed: u64, stored: Stored) -> RaftLog {
        let config = RaftConfig { tail_bytes: 1_000, ..RaftConfig::new(id, seed) };
        RaftLog::new(config, stored).expect("what the log stored itself")
    }
}

/// Paxos, with short memories.
pub(crate) struct Paxos;

impl Protocol for Paxos {
    type Log = PaxosLog;
    type Disk = PlainDisk;

    fn founding_frame(founders: &[ServerId]) -> Frame {
        paxos::founding_frame(LogIndex(0), founders)
    }

    fn open(id: ServerId, seed: u64, stored: Stored) -> PaxosLog {
        let config = PaxosConfig { tail_bytes: 1_000, ..PaxosConfig::new(id, seed) };
        PaxosLog::new(config, stored).expect("what the log stored itself")
    }
}
