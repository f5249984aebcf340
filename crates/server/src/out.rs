//! Why a server must not take part in its cluster, or not any more.

use rota_types::{LogIndex, ServerId};

/// Why a server stays out of its cluster. What it holds is left as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Out {
    /// Its directory is empty, but the others have met it before: what it promised and acknowledged is forgotten.
    Forgotten {
        /// Its number.
        server: ServerId,
        /// Who has met it.
        by: ServerId,
    },
    /// It was removed from the cluster.
    Removed {
        /// Its number.
        server: ServerId,
    },
    /// Its state is another one than that of the majority.
    Differs {
        /// Its number.
        server: ServerId,
        /// Where that was seen.
        index: LogIndex,
    },
    /// Two founders have data of their own.
    TwoStates {
        /// Its number.
        server: ServerId,
        /// The other one.
        other: ServerId,
    },
    /// As it was noted before.
    Noted(String),
}

impl Out {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Forgotten { server, .. } => format!(
                "if its disk is lost: rota cluster replace {server}, which says how to start the server that takes its place; if the directory is \
                 only not mounted, mount it and start again"
            ),
            Self::Removed { .. } | Self::Noted(_) => {
                "to let this machine in again: rota cluster add, then start it with an empty directory".to_owned()
            }
            Self::Differs { server, .. } => format!(
                "the others go on; keep the directory for a report, look after memory and disk, then: rota cluster replace {server}"
            ),
            Self::TwoStates { .. } => {
                "a cluster is founded on the data of one server; start the others with empty directories".to_owned()
            }
        }
    }

    /// Whether it stays so after a restart.
    pub(crate) fn is_for_good(&self) -> bool {
        matches!(self, Self::Removed { .. } | Self::Differs { .. })
    }
}

impl std::fmt::Display for Out {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Forgotten { server, by } => write!(
                f,
                "server {server} has been part of this cluster before (server {by} has met it), and this data directory does not know that: it has \
                 promised and acknowledged things that it has forgotten, and must not come back under its old number"
            ),
            Self::Removed { server } => write!(f, "server {server} was removed from its cluster"),
            Self::Differs { server, index } => write!(
                f,
                "the state of server {server} differs from that of the majority at entry {index}: memory or disk is faulty, or this is a bug"
            ),
            Self::TwoStates { server, other } => write!(
                f,
                "server {server} and server {other} both hold data of their own, and it is not the same"
            ),
            Self::Noted(reason) => f.write_str(reason),
        }
    }
}
