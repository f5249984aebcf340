//! The messages between servers, with the client and server of their streams.

pub use crate::proto::rota::peer::v1::*;

/// The protocol that this version speaks; an [`Introduction`] with another is refused.
pub const PROTOCOL: u32 = 1;
