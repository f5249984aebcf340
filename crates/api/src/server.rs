//! The servers of a cluster.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The cluster as the leader sees it, or, stale, as the server that was asked sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClusterStatus {
    /// Names the cluster, for ever.
    pub cluster: String,
    /// How servers agree: `solo`, `raft` or `paxos`.
    pub log: String,
    /// The server that answers.
    pub server: u64,
    /// The server that leads, if one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<u64>,
    /// Rises with each leader.
    pub term: u64,
    /// The last applied log entry.
    pub index: u64,
    /// The feature level that the servers have agreed on.
    pub level: u32,
    /// How many servers may fail so that the rest goes on.
    pub tolerates: u32,
    /// The servers, by number.
    pub servers: Vec<ServerStatus>,
}

/// One server of a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServerStatus {
    /// Its number: given out once.
    pub id: u64,
    /// Where it can be reached.
    pub address: String,
    /// What it does.
    pub role: ServerRole,
    /// Whether it answers the leader; unknown to the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
    /// Log entries that it has not stored yet; known to the leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// Its version.
    pub version: String,
    /// The highest feature level that it understands.
    pub level: u32,
}

/// What a server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServerRole {
    /// Decides and leads.
    Leader,
    /// Decides.
    Voter,
    /// Listens, until it has caught up.
    Learner,
}

impl ServerRole {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Voter => "voter",
            Self::Learner => "learner",
        }
    }
}

/// A server that is to join.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddServer {
    /// Where it will be reached: a URL.
    pub address: String,
    /// The highest feature level that it understands; not checked if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<u32>,
}

/// What a server that joins has to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerAdded {
    /// Its number.
    pub id: u64,
    /// The cluster.
    pub cluster: String,
    /// How servers agree: `raft` or `paxos`.
    pub log: String,
}

/// Which server is to lead.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TransferRequest {
    /// Its number; any other healthy voter if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
}
