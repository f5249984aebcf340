//! Replicated logs for several servers: [`raft::RaftLog`], over the `raft` crate.
//!
//! This is the only crate that names a consensus library, and none of their types leave it. Like every machine of rota they are
//! driven from outside: no clock, no socket, no file, no thread, and no chance but the seed. What a log does follows from what it was
//! told; the same calls give the same answers, byte for byte.

mod cursor;
mod frames;
pub mod raft;
