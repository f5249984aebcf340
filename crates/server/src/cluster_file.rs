//! A server's place in its cluster, as it is kept in the data directory, so that a start needs nothing but that directory.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rota_identity::Fingerprint;
use rota_store::ClusterId;
use rota_types::ServerId;
use serde::{Deserialize, Serialize};

use crate::config::{ClusterConfig, LogKind};

/// The file's name.
const FILE: &str = "cluster.json";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    cluster: String,
    server: u64,
    log: String,
    founders: BTreeMap<u64, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    authority: Option<String>,
}

impl ClusterConfig {
    /// The place of `server` in the cluster that these servers found. Everybody who says the same of it founds the same cluster.
    #[must_use]
    pub fn found(
        name: &str,
        log: LogKind,
        founders: BTreeMap<ServerId, String>,
        server: ServerId,
    ) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("rota cluster id");
        let mut put = |part: &str| {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        };
        put(name);
        put(log.name());
        for (id, address) in &founders {
            put(&id.to_string());
            put(address);
        }
        let mut cluster = [0; 16];
        hasher.finalize_xof().fill(&mut cluster);
        let cluster = ClusterId(cluster);
        Self { cluster, server, log, founders, address: None, authority: None }
    }

    /// The same place in a cluster whose servers prove themselves by this authority. It is another cluster: who has another authority
    /// does not found the same one.
    #[must_use]
    pub fn under(mut self, authority: Fingerprint) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("rota cluster id with an authority");
        hasher.update(&self.cluster.0).update(&authority.0);
        hasher.finalize_xof().fill(&mut self.cluster.0);
        self.authority = Some(authority.to_string());
        self
    }

    /// Where others were told to reach this server.
    pub(crate) fn own_address(&self) -> Option<String> {
        self.address.clone().or_else(|| self.founders.get(&self.server).cloned())
    }

    /// What the data directory says; `None` if nothing.
    ///
    /// # Errors
    /// If the file can't be read or is not one of ours.
    pub fn load(directory: &Path) -> io::Result<Option<Self>> {
        let bytes = match fs::read(directory.join(FILE)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let stored: Stored = serde_json::from_slice(&bytes)?;
        let wrong = |what: &str| io::Error::new(ErrorKind::InvalidData, format!("{FILE}: {what}"));
        let cluster = ClusterId::parse(&stored.cluster).ok_or_else(|| wrong("a bad cluster id"))?;
        let log = LogKind::named(&stored.log).ok_or_else(|| wrong("an unknown kind of log"))?;
        let founders = stored.founders.iter().map(|(id, address)| (ServerId(*id), address.clone()));
        let (server, founders) = (ServerId(stored.server), founders.collect());
        let Stored { address, authority, .. } = stored;
        Ok(Some(Self { cluster, server, log, founders, address, authority }))
    }

    /// Stores it in the data directory, durably.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn save(&self, directory: &Path) -> io::Result<()> {
        let founders = self.founders.iter().map(|(id, address)| (id.0, address.clone()));
        let stored = Stored {
            cluster: self.cluster.to_string(),
            server: self.server.0,
            log: self.log.name().to_owned(),
            founders: founders.collect(),
            address: self.address.clone(),
            authority: self.authority.clone(),
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        write_durably(&directory.join(FILE), &serde_json::to_vec_pretty(&stored)?)
    }
}

/// Puts a file in the place of what was there: whole, or not at all.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("json.tmp");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |directory| fs::File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn founders(addresses: &[&str]) -> BTreeMap<ServerId, String> {
        let ids = (1..).map(ServerId);
        ids.zip(addresses.iter().map(|address| (*address).to_owned())).collect()
    }

    #[test]
    fn who_says_the_same_founds_the_same_cluster_and_nobody_else_does() {
        let found = |name, log, addresses: &[&str], server| {
            ClusterConfig::found(name, log, founders(addresses), ServerId(server)).cluster
        };
        let one = found("a", LogKind::Raft, &["http://x", "http://y"], 1);
        assert_eq!(found("a", LogKind::Raft, &["http://x", "http://y"], 2), one);
        assert_ne!(found("b", LogKind::Raft, &["http://x", "http://y"], 1), one);
        assert_ne!(found("a", LogKind::Paxos, &["http://x", "http://y"], 1), one);
        assert_ne!(found("a", LogKind::Raft, &["http://y", "http://x"], 1), one);
        assert_ne!(found("a", LogKind::Raft, &["http://x"], 1), one);
        let place = ClusterConfig::found("a", LogKind::Raft, founders(&["http://x"]), ServerId(1));
        let under = |byte| place.clone().under(Fingerprint([byte; 32])).cluster;
        assert_eq!(under(1), under(1));
        assert_ne!(under(1), under(2));
        assert_ne!(under(1), place.cluster);
    }

    #[test]
    fn what_is_stored_is_read_again_and_damage_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(ClusterConfig::load(directory.path()).unwrap(), None);
        let place = ClusterConfig::found("a", LogKind::Paxos, founders(&["http://x"]), ServerId(1));
        place.save(directory.path()).unwrap();
        assert_eq!(ClusterConfig::load(directory.path()).unwrap(), Some(place.clone()));
        let mut place = place.under(Fingerprint([7; 32]));
        place.address = Some("https://y".to_owned());
        place.save(directory.path()).unwrap();
        assert_eq!(ClusterConfig::load(directory.path()).unwrap(), Some(place));
        for damage in ["", "{}", r#"{"cluster":"1","server":1,"log":"raft","founders":{}}"#] {
            fs::write(directory.path().join(FILE), damage).unwrap();
            assert!(ClusterConfig::load(directory.path()).is_err(), "{damage}");
        }
    }
}
