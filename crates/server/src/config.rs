//! How one server process is set up, and why it may refuse to start.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rota_identity::{IdentityDir, IdentityError};
use rota_store::{ClusterId, Identity};
use rota_types::{ServerId, Span};

use crate::out::Out;

/// The shortest lease: a worker needs time for a few heartbeats.
pub const LEASE_MIN: Span = Span::from_millis(100);
/// The longest lease: how long a dead node may hold its tasks.
pub const LEASE_MAX: Span = Span::from_secs(3_600);
/// The port of the REST interface and of worker sessions.
pub const PORT: u16 = 7_600;

/// Connections that a server has open at a time unless told otherwise.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Streams that may be followed at a time unless told otherwise.
pub const FOLLOWERS_MAX: usize = 5_000;

/// What to do when the process can't go on: called once with the reason.
pub type OnFatal = Arc<dyn Fn(&str) + Send + Sync>;

/// How servers agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogKind {
    /// Raft: the default.
    #[default]
    Raft,
    /// Multi-Paxos with leaders chosen by how well they are connected.
    Paxos,
}

impl LogKind {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raft => "raft",
            Self::Paxos => "paxos",
        }
    }

    /// The kind with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Raft, Self::Paxos].into_iter().find(|kind| kind.name() == name)
    }
}

/// This server's place in a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Names the cluster, for ever.
    pub cluster: ClusterId,
    /// This server's number.
    pub server: ServerId,
    /// How servers agree. Chosen when the cluster is founded.
    pub log: LogKind,
    /// The servers that found the cluster, with their addresses; empty on a server that joins later. What the log says later goes
    /// before.
    pub founders: BTreeMap<ServerId, String>,
    /// Where others reach this server, of one that joined: a URL.
    pub address: Option<String>,
    /// The fingerprint of the cluster's certificate authority; `None` if its servers ask nobody who they are.
    pub authority: Option<String>,
}

impl ClusterConfig {
    /// Who this server is.
    pub(crate) fn identity(&self) -> Identity {
        Identity { cluster: self.cluster, server: self.server }
    }
}

/// Configuration of this process. What changes decisions (queues, nodes) is replicated state instead.
#[derive(Clone)]
pub struct ServerConfig {
    /// Holds log, snapshots and history. Created if it does not exist.
    pub data_dir: PathBuf,
    /// Where REST and worker sessions are served. Loopback only, unless the data directory holds an identity; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where other servers and workers reach this one: a URL. `http://`, or `https://` with an identity, and the address it listens on, if not set.
    pub advertise: Option<String>,
    /// The cluster that this server belongs to. It runs alone if not set.
    pub cluster: Option<ClusterConfig>,
    /// Names and addresses, other than those of this machine's loopback, under which the server is reached: they may stand in `Host`
    /// headers, and stand in the server's certificate.
    pub hosts: Vec<String>,
    /// How long a silent node keeps its attempts.
    pub lease: Span,
    /// Log bytes behind the last snapshot that call for the next one.
    pub snapshot_log_bytes: u64,
    /// Free bytes of disk below which submits are refused; finishing work goes on.
    pub disk_reserve_bytes: u64,
    /// The largest request body.
    pub body_bytes_max: usize,
    /// The largest body of a bulk submit.
    pub bulk_bytes_max: usize,
    /// Connections that may be open; the next ones wait to be accepted.
    pub connections_max: usize,
    /// Streams of events and output that may be followed at a time; the next ones are refused.
    pub followers_max: usize,
    /// Events that are kept for streams that resume.
    pub events_kept_max: usize,
    /// Finished jobs that the history keeps.
    pub history_jobs_max: u64,
    /// How long ago a job in the history may have finished.
    pub history_age_max: Span,
    /// The highest feature level that this server says it understands. Only tests of upgrades set it to something else than the version's.
    pub level: u32,
    /// Called when the log can't be written any more. Ends the process with code 70 if not set.
    pub on_fatal: Option<OnFatal>,
}

impl ServerConfig {
    /// The defaults, on `data_dir`.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)),
            advertise: None,
            cluster: None,
            hosts: Vec::new(),
            lease: Span::from_secs(10),
            snapshot_log_bytes: 64 << 20,
            disk_reserve_bytes: 256 << 20,
            body_bytes_max: 1 << 20,
            bulk_bytes_max: 64 << 20,
            connections_max: CONNECTIONS_MAX,
            followers_max: FOLLOWERS_MAX,
            events_kept_max: 65_536,
            history_jobs_max: 10_000_000,
            history_age_max: Span::from_secs(30 * 24 * 3_600),
            level: rota_core::LEVEL,
            on_fatal: None,
        }
    }

    /// Where others reach a server that listens on `address`: what it was told now, what the cluster was told when the server came to it, or
    /// that address.
    pub(crate) fn address(&self, address: SocketAddr) -> String {
        let known = self.cluster.as_ref().and_then(ClusterConfig::own_address);
        self.advertise.clone().or(known).unwrap_or_else(|| {
            let scheme = if self.identity().exists() { "https" } else { "http" };
            format!("{scheme}://{address}")
        })
    }

    /// How this server agrees with others.
    pub(crate) fn log_name(&self) -> &'static str {
        self.cluster.as_ref().map_or("solo", |cluster| cluster.log.name())
    }

    /// How often workers are asked to be heard of: a lease survives three lost heartbeats.
    #[must_use]
    pub fn heartbeat(&self) -> Span {
        Span(self.lease.micros() / 4)
    }

    /// The server's identity, if it has one.
    pub(crate) fn identity(&self) -> IdentityDir {
        IdentityDir::below(&self.data_dir)
    }

    /// Whether the process may start like this.
    pub(crate) fn check(&self) -> Result<(), StartError> {
        if !self.listen.ip().is_loopback() && !self.identity().exists() {
            return Err(StartError::NotLoopback {
                listen: self.listen,
                data: self.data_dir.clone(),
            });
        }
        if self.lease < LEASE_MIN || self.lease > LEASE_MAX {
            return Err(StartError::Lease(self.lease));
        }
        self.check_authority()
    }

    /// Whether the identity is the one that the cluster has. Without it the server would let everybody in, with another one nobody.
    fn check_authority(&self) -> Result<(), StartError> {
        let identity = self.identity();
        let bound = self.cluster.as_ref().and_then(|cluster| cluster.authority.as_ref());
        let Some(bound) = bound else { return Ok(()) };
        if !identity.exists() {
            return Err(StartError::IdentityGone { data: self.data_dir.clone() });
        }
        let found = identity.fingerprint()?.to_string();
        if found != *bound {
            let (data, bound) = (self.data_dir.clone(), bound.clone());
            return Err(StartError::OtherAuthority { data, found, bound });
        }
        Ok(())
    }
}

impl std::fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerConfig")
            .field("data_dir", &self.data_dir)
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

/// The server did not start. Each message says what, why and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address can be reached from other machines.
    #[error(
        "refusing to listen on {listen}: anyone who reaches that address could run commands, because this server asks nobody who they \
         are; give it an identity first: rota cluster init --data {data}; or listen on a loopback address such as 127.0.0.1:{port} and \
         reach it through an SSH tunnel: ssh -L {port}:127.0.0.1:{port} HOST", port = listen.port(), data = data.display()
    )]
    NotLoopback {
        /// The address.
        listen: SocketAddr,
        /// The data directory, which holds no identity.
        data: PathBuf,
    },
    /// A newer version was here.
    #[error(
        "{path} is of a cluster with feature level {level}, and this version ({version}) knows {known} at most: nothing was changed; run the newer \
         version again", path = path.display(), version = env!("CARGO_PKG_VERSION")
    )]
    TooNew {
        /// The data directory.
        path: PathBuf,
        /// The level that the servers have agreed on.
        level: u32,
        /// The highest that this version understands.
        known: u32,
    },
    /// The identity is gone that the server had.
    #[error(
        "{data}/credentials is not there, and the servers of this cluster prove who they are: without it everybody could do everything. \
         Restore it from a copy, or from another server of the cluster: ca.pem and ca.key are the same on each", data = data.display()
    )]
    IdentityGone {
        /// The data directory.
        data: PathBuf,
    },
    /// The identity is of another cluster.
    #[error(
        "{data}/credentials is of another cluster: its authority is {found}, the one of this cluster is {bound}. Put the right ca.pem and \
         ca.key back; they are the same on each server of a cluster", data = data.display()
    )]
    OtherAuthority {
        /// The data directory.
        data: PathBuf,
        /// The fingerprint of the authority that is there.
        found: String,
        /// The fingerprint of the authority that should be there.
        bound: String,
    },
    /// The server's identity can't be used.
    #[error("cannot use the identity of this server: {0}")]
    Identity(#[from] IdentityError),
    /// The lease is out of bounds.
    #[error("the lease of {0} is not usable: choose one from {LEASE_MIN} to {LEASE_MAX}")]
    Lease(Span),
    /// The address is taken or not ours.
    #[error(
        "cannot listen on {address}: {source}; stop what uses that address (another rota server?) or choose another one \
         with --listen"
    )]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The data directory can't be used.
    #[error("cannot use the data directory {}: {reason}; {remedy}", path.display())]
    Data {
        /// The directory.
        path: PathBuf,
        /// Why not.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// What is on the disk does not make a state.
    #[error(
        "cannot recover from {}: {reason}; nothing was changed: restore the directory from a copy, or report this as a \
         bug with the directory attached", path.display()
    )]
    Recover {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The server must not take part in its cluster.
    #[error("{0}; {hint}", hint = .0.hint())]
    Out(Out),
    /// The system refused a thread.
    #[error("cannot start a thread: {0}; raise the limit on processes of this user (ulimit -u)")]
    Thread(io::Error),
}

impl StartError {
    /// The exit code that suits the error: 78 for a configuration, 77 for a server that must not take part, 74 for a disk, 71 for the
    /// system.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotLoopback { .. }
            | Self::Lease(_)
            | Self::Identity(_)
            | Self::TooNew { .. }
            | Self::IdentityGone { .. }
            | Self::OtherAuthority { .. } => 78,
            Self::Data { .. } | Self::Recover { .. } => 74,
            Self::Listen { .. } | Self::Thread(_) => 71,
            Self::Out(_) => 77,
        }
    }

    pub(crate) fn recover(path: &Path, reason: impl ToString) -> Self {
        Self::Recover { path: path.to_path_buf(), reason: reason.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(address: &str) -> ServerConfig {
        ServerConfig { listen: address.parse().unwrap(), ..ServerConfig::new("data") }
    }

    #[test]
    fn only_loopback_addresses_may_be_bound_and_the_refusal_says_what_to_do() {
        for fine in ["127.0.0.1:0", "127.8.8.8:7600", "[::1]:7600"] {
            assert!(listening(fine).check().is_ok(), "{fine}");
        }
        for open in ["0.0.0.0:7600", "[::]:7600", "192.168.1.1:7600", "[::ffff:10.0.0.1]:1"] {
            let error = listening(open).check().unwrap_err();
            assert_eq!(error.exit_code(), 78, "{open}");
            assert!(error.to_string().contains("ssh -L"), "{error}");
            assert!(error.to_string().contains("rota cluster init --data data"), "{error}");
        }
    }

    #[test]
    fn leases_are_bounded_on_both_sides() {
        let ok = |lease| ServerConfig { lease, ..ServerConfig::new("data") }.check().is_ok();
        assert!(!ok(Span(LEASE_MIN.0 - 1)) && ok(LEASE_MIN) && ok(Span(LEASE_MIN.0 + 1)));
        assert!(ok(Span(LEASE_MAX.0 - 1)) && ok(LEASE_MAX) && !ok(Span(LEASE_MAX.0 + 1)));
    }
}
