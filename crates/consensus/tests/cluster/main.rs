//! Clusters of logs: under simulated faults, and by hand.

mod bench;
#[path = "../common/mod.rs"]
mod common;
mod hurdles;
mod paxos;
mod paxos_hurdles;
mod raft;
mod stored;
