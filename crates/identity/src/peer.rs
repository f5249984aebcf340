//! The name of a cluster and of those who hold its certificates.

use std::fmt;

use crate::error::{IdentityError, Result};
use crate::token::Fingerprint;

/// A cluster's name in certificates: the first half of its authority's fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster(String);

/// Who a certificate was made for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// A server, by its number.
    Server(u64),
    /// A worker, by its node's name.
    Worker(String),
}

impl Cluster {
    /// The cluster of this authority.
    #[must_use]
    pub fn of(authority: Fingerprint) -> Self {
        Self(authority.to_string().chars().take(32).collect())
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Peer {
    /// The peer as a certificate names it: `rota://CLUSTER/server/3`, `rota://CLUSTER/worker/node-a`.
    #[must_use]
    pub fn uri(&self, cluster: &Cluster) -> String {
        match self {
            Self::Server(number) => format!("rota://{cluster}/server/{number}"),
            Self::Worker(name) => format!("rota://{cluster}/worker/{}", escape(name)),
        }
    }

    /// Reads what [`uri`](Self::uri) wrote.
    ///
    /// # Errors
    /// If it names another cluster, or nobody.
    pub fn from_uri(uri: &str, cluster: &Cluster) -> Result<Self> {
        let rest = uri.strip_prefix("rota://").ok_or(IdentityError::Stranger("it has no role"))?;
        let mut parts = rest.split('/');
        let (Some(named), Some(role), Some(who), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(IdentityError::Stranger("its role can't be read"));
        };
        if named != cluster.0 {
            return Err(IdentityError::Stranger("it names another cluster"));
        }
        let peer = match role {
            "server" => who.parse().ok().map(Self::Server),
            "worker" => unescape(who).filter(|name| !name.is_empty()).map(Self::Worker),
            _ => None,
        };
        let peer = peer.ok_or(IdentityError::Stranger("its role can't be read"))?;
        // One spelling each: whoever compares texts must not be fooled.
        if peer.uri(cluster) == uri {
            Ok(peer)
        } else {
            Err(IdentityError::Stranger("its role can't be read"))
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(number) => write!(f, "server {number}"),
            Self::Worker(name) => write!(f, "worker {name}"),
        }
    }
}

/// Names may hold any character; URIs may not.
fn escape(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if first == '%' {
            bytes.push(u8::from_str_radix(rest.get(1..3)?, 16).ok()?);
            rest = rest.get(3..)?;
        } else {
            bytes.extend(first.to_string().bytes());
            rest = rest.get(first.len_utf8()..)?;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_come_back_from_their_uri_and_nobody_else_does() {
        let cluster = Cluster::of(Fingerprint([0x5A; 32]));
        for peer in [Peer::Server(3), Peer::Worker("node-a".into()), Peer::Worker("ä/b %".into())]
        {
            assert_eq!(Peer::from_uri(&peer.uri(&cluster), &cluster).ok(), Some(peer));
        }
        let uri = Peer::Worker("a/b".into()).uri(&cluster);
        assert_eq!(uri, "rota://5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a/worker/a%2Fb");
        let other = Cluster::of(Fingerprint([1; 32]));
        assert!(Peer::from_uri(&uri, &other).is_err());
        for wrong in [
            "server/x",
            "server/03",
            "server/+3",
            "worker/",
            "worker/a%2fb",
            "worker/%61",
            "admin/1",
            "server/1/2",
            "",
        ] {
            assert!(
                Peer::from_uri(&format!("rota://{cluster}/{wrong}"), &cluster).is_err(),
                "{wrong}"
            );
        }
    }
}
