//! The parts of a backup.

pub use crate::proto::rota::backup::v1::*;
pub use prost::Message;

/// The format that this version writes and reads.
pub const FORMAT: u32 = 1;
