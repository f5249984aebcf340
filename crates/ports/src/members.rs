//! Who belongs to a cluster.

use rota_types::{LogIndex, ServerId};

/// How many members a cluster has at most.
pub const MEMBERS_MAX: usize = 32;

/// The servers that decide, and those that only listen. Lists are in order of the ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Servers whose majority decides.
    pub voters: Vec<ServerId>,
    /// While several changes take effect together: the voters before, whose majority is needed as well.
    pub outgoing: Vec<ServerId>,
    /// Servers that get everything and decide nothing.
    pub learners: Vec<ServerId>,
    /// Outgoing voters that will be learners.
    pub learners_next: Vec<ServerId>,
}

/// What a snapshot has to say besides the state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The last entry that the state contains.
    pub index: LogIndex,
    /// That entry's term; with Paxos, the number of the configuration.
    pub term: u64,
    /// The members after that entry; none in a log of one server.
    pub members: Members,
}

impl SnapshotMeta {
    /// Of a log of one server.
    #[must_use]
    pub fn solo(index: LogIndex) -> Self {
        Self { index, ..Self::default() }
    }
}

/// One change of the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Makes a server a learner: a new one, or a voter.
    AddLearner(ServerId),
    /// Makes a server a voter: a new one, or a learner.
    AddVoter(ServerId),
    /// Removes a server.
    Remove(ServerId),
}

impl Change {
    /// Whom it is about.
    #[must_use]
    pub fn server(&self) -> ServerId {
        match self {
            Self::AddLearner(server) | Self::AddVoter(server) | Self::Remove(server) => *server,
        }
    }
}

/// A change of the members was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeRefused {
    /// Another server leads, or nobody does.
    NotLeader,
    /// Another change is under way, or too much is in flight.
    Busy,
    /// It makes no sense, for the reason given.
    Invalid(&'static str),
}

/// What a member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Decides.
    Voter,
    /// Listens.
    Learner,
}

/// A member as the log sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Which.
    pub id: ServerId,
    /// What it does.
    pub role: Role,
    /// Up to where its log is known to agree with the leader's; only the leader knows.
    pub matched: Option<LogIndex>,
    /// Whether it was heard of lately; only the leader knows.
    pub is_active: bool,
}
