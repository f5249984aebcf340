//! Servers: the members of the control plane, as far as everybody has to know them.
//!
//! Who votes is the log's own business. Here is where each server can be reached and what it understands.

use alloc::boxed::Box;

use rota_types::{ServerId, Timestamp};

/// The highest feature level that this version understands. A level is raised, by a command, once every server understands it;
/// until then what is new stays off, so that servers of two versions make the same of the same log.
pub const LEVEL: u32 = 2;

/// From this feature level on tasks are staged.
pub const STAGING_LEVEL: u32 = 2;

/// A server as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerSpec {
    /// Given out once and never again.
    pub id: ServerId,
    /// Where other servers, workers and clients reach it: a URL.
    pub address: Box<str>,
    /// Its version, for people.
    pub version: Box<str>,
    /// The highest feature level that it understands.
    pub level: u32,
}

/// A known server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// What it said of itself.
    pub spec: ServerSpec,
    /// When it was taken in.
    pub joined_at: Timestamp,
}

/// Something asked about servers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerCommand {
    /// Note where a server can be reached and what it understands. Takes in a server of the first configuration.
    Announce(ServerSpec),
    /// Give out a number for a server that will be at this address.
    Add {
        /// A URL.
        address: Box<str>,
    },
    /// Forget a server. Its number is never given out again.
    Remove(ServerId),
    /// Go on as another cluster's state: every live attempt is lost, every session over, every server forgotten, and numbers and tokens go on far
    /// above what was given out before.
    Renew,
    /// Switch on what this level brings.
    RaiseLevel(u32),
}
