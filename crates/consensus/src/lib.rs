//! Replicated logs for several servers: [`raft::RaftLog`] over the `raft` crate, [`paxos::PaxosLog`] over `omnipaxos`.
//!
//! This is the only crate that names a consensus library, and none of their types leave it. Like every machine of rota they are
//! driven from outside: no clock, no socket, no file, no thread, and no chance but the seed. What a log does follows from what it was
//! told; the same calls give the same answers, byte for byte.

mod cursor;
mod frames;
pub mod paxos;
pub mod raft;
mod reads;

/// Spreads the bits of a number (SplitMix64 by Steele, Lea and Flood).
fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// A log can't be started from what was stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// It was written by another protocol, or by a later version.
    #[error(
        "the stored log was written by another protocol or a later version; start the server with the protocol of its cluster"
    )]
    Foreign,
    /// The library refuses.
    #[error("the consensus library can't start from what is stored: {0}")]
    Refused(String),
}
