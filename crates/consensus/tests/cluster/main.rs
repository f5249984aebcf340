//! Clusters under simulated faults.

#[path = "../common/mod.rs"]
mod common;
mod paxos;
mod raft;
