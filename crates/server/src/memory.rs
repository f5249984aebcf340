//! What a server of a cluster has to remember besides log and state: whom it has met, on what it founded the cluster, and whether it has
//! been put out of it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rota_store::{ClusterId, Identity};
use rota_types::ServerId;
use serde::{Deserialize, Serialize};

use crate::cluster_file::write_durably;

/// The file's name.
pub(crate) const FILE: &str = "peers.json";

/// What a cluster is founded on: the same on every founder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ground {
    /// The last entry before the founding.
    pub(crate) index: u64,
    /// Of the state there.
    pub(crate) digest: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Stored {
    /// Servers that have taken part.
    met: BTreeSet<u64>,
    /// Set once this server takes part itself.
    founded: Option<Ground>,
    /// Whose the data was before the cluster: cluster and server.
    data: Option<(String, u64)>,
    /// Why this server must not take part any more.
    out: Option<String>,
    /// Clusters that the data comes from, none of which it may become again.
    formerly: BTreeSet<String>,
}

/// A server's memory of its peers. What is noted is durable when the call returns.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    path: Arc<PathBuf>,
    stored: Arc<Mutex<Stored>>,
}

impl Memory {
    /// What the data directory says; empty if it is new.
    pub(crate) fn load(directory: &Path) -> io::Result<Self> {
        let path = directory.join(FILE);
        let stored = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == ErrorKind::NotFound => Stored::default(),
            Err(error) => return Err(error),
        };
        Ok(Self { path: Arc::new(path), stored: Arc::new(Mutex::new(stored)) })
    }

    /// Whether a server has taken part.
    pub(crate) fn has_met(&self, server: ServerId) -> bool {
        self.stored().met.contains(&server.0)
    }

    /// Notes that a server takes part. To be called before anything that it says is believed.
    pub(crate) fn meet(&self, server: ServerId) -> io::Result<()> {
        self.change(|stored| stored.met.insert(server.0))
    }

    /// What this server founded the cluster on, or joined it with; `None` until it takes part.
    pub(crate) fn founded(&self) -> Option<Ground> {
        self.stored().founded
    }

    /// Notes that this server takes part.
    pub(crate) fn found(&self, ground: Ground) -> io::Result<()> {
        self.change(|stored| stored.founded.replace(ground) != Some(ground))
    }

    /// Whose the data was before it became that of a cluster.
    pub(crate) fn data(&self) -> Option<Identity> {
        let stored = self.stored();
        let (cluster, server) = stored.data.as_ref()?;
        Some(Identity { cluster: ClusterId::parse(cluster)?, server: ServerId(*server) })
    }

    /// Notes whose the data was.
    pub(crate) fn adopt(&self, data: Identity) -> io::Result<()> {
        let data = Some((data.cluster.to_string(), data.server.0));
        self.change(|stored| std::mem::replace(&mut stored.data, data.clone()) != data)
    }

    /// Whether the data comes from this cluster, whose servers may still be there.
    pub(crate) fn was_of(&self, cluster: ClusterId) -> bool {
        self.stored().formerly.contains(&cluster.to_string())
    }

    /// The file of a server whose data comes from these clusters, and from those that this one's data comes from.
    pub(crate) fn descendant(&self, clusters: &[ClusterId]) -> io::Result<Vec<u8>> {
        let mut formerly = self.stored().formerly.clone();
        formerly.extend(clusters.iter().map(ClusterId::to_string));
        Ok(serde_json::to_vec_pretty(&Stored { formerly, ..Stored::default() })?)
    }

    /// Why this server must not take part any more.
    pub(crate) fn out(&self) -> Option<String> {
        self.stored().out.clone()
    }

    /// Notes that this server must not take part any more.
    pub(crate) fn put_out(&self, reason: &str) -> io::Result<()> {
        self.change(|stored| stored.out.replace(reason.to_owned()).as_deref() != Some(reason))
    }

    /// `change` says whether there is anything to write.
    fn change(&self, change: impl FnOnce(&mut Stored) -> bool) -> io::Result<()> {
        let mut stored = self.stored();
        let mut next = stored.clone();
        if change(&mut next) {
            write_durably(&self.path, &serde_json::to_vec_pretty(&next)?)?;
            *stored = next;
        }
        Ok(())
    }

    fn stored(&self) -> MutexGuard<'_, Stored> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_known_after_a_restart_and_damage_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let memory = Memory::load(directory.path()).unwrap();
        assert_eq!((memory.founded(), memory.data(), memory.out()), (None, None, None));
        assert!(!memory.has_met(ServerId(2)));
        let ground = Ground { index: 7, digest: 9 };
        let data = Identity { cluster: ClusterId([3; 16]), server: ServerId(1) };
        memory.meet(ServerId(2)).unwrap();
        memory.found(ground).unwrap();
        memory.adopt(data).unwrap();
        memory.put_out("it differs").unwrap();
        for memory in [memory, Memory::load(directory.path()).unwrap()] {
            assert_eq!(memory.founded(), Some(ground));
            assert_eq!(memory.data(), Some(data));
            assert_eq!(memory.out().as_deref(), Some("it differs"));
            assert!(memory.has_met(ServerId(2)) && !memory.has_met(ServerId(3)));
        }
        fs::write(directory.path().join(FILE), "{").unwrap();
        assert!(Memory::load(directory.path()).is_err());
    }
}
