//! The file that describes a new cluster: the same on each of its servers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use rota_api::ErrorCode;
use rota_server::{ClusterConfig, LogKind};
use rota_types::ServerId;
use serde::Deserialize;

use crate::trouble::{Result, Trouble};

/// What stands in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterFile {
    /// Tells clusters apart.
    name: String,
    /// `raft` or `paxos`.
    #[serde(default = "raft")]
    log: String,
    server: Vec<Founder>,
}

fn raft() -> String {
    LogKind::Raft.name().to_owned()
}

/// One of the servers that found the cluster.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Founder {
    id: u64,
    address: String,
}

/// A new cluster.
pub(crate) struct Founding {
    pub(crate) name: String,
    pub(crate) log: LogKind,
    /// Where the servers that found it reach each other.
    pub(crate) founders: BTreeMap<ServerId, String>,
}

/// The place of a server in the cluster that the file describes: of the one with this number, or of the one that is to listen there.
pub(crate) fn read(path: &Path, id: Option<u64>, listen: SocketAddr) -> Result<ClusterConfig> {
    let Founding { name, log, founders } = founding(path)?;
    let unknown = || match id {
        Some(id) => wrong(path, &format!("there is no server with the id {id}")),
        None => wrong(path, &format!("no server has the address {listen}: give --id or --listen")),
    };
    let server = itself(&founders, id, listen).ok_or_else(unknown)?;
    Ok(ClusterConfig::found(&name, log, founders, server))
}

/// The cluster that the file describes.
pub(crate) fn founding(path: &Path) -> Result<Founding> {
    let wrong = |what: String| wrong(path, &what);
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let file: ClusterFile = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let log = LogKind::named(&file.log)
        .ok_or_else(|| wrong(format!("log is {:?}: write \"raft\" or \"paxos\"", file.log)))?;
    let mut founders = BTreeMap::new();
    for founder in file.server {
        if founder.id == 0 {
            return Err(wrong("server ids begin with 1".to_owned()));
        }
        check_address(&founder.address).map_err(|what| wrong(format!("address: {what}")))?;
        let address = founder.address.trim_end_matches('/').to_owned();
        if founders.insert(ServerId(founder.id), address).is_some() {
            return Err(wrong(format!("two servers have the id {}", founder.id)));
        }
    }
    Ok(Founding { name: file.name, log, founders })
}

fn wrong(path: &Path, what: &str) -> Trouble {
    let message = format!("{}: {what}", path.display());
    let hint = "`rota server --help` shows an example of such a file";
    Trouble::new(ErrorCode::InvalidConfig, message).hint(hint)
}

fn itself(
    founders: &BTreeMap<ServerId, String>,
    id: Option<u64>,
    listen: SocketAddr,
) -> Option<ServerId> {
    if let Some(id) = id {
        return Some(ServerId(id)).filter(|id| founders.contains_key(id));
    }
    let here = format!("://{listen}");
    let found = founders.iter().find(|(_, address)| address.ends_with(&here));
    found.map(|(id, _)| *id)
}

/// Whether this is scheme, host and port.
fn check_address(address: &str) -> std::result::Result<(), String> {
    let rest = ["http://", "https://"].iter().find_map(|scheme| address.strip_prefix(scheme));
    match rest.and_then(|rest| rest.trim_end_matches('/').rsplit_once(':')) {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(()),
        _ => Err(format!("{address:?} is not like http://10.0.0.1:7600")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str, id: Option<u64>, listen: &str) -> std::result::Result<u64, String> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("cluster.toml");
        std::fs::write(&path, text).expect("writes");
        let listen = listen.parse().expect("an address");
        read(&path, id, listen).map(|place| place.server.0).map_err(|trouble| trouble.message)
    }

    const FILE: &str = r#"
        name = "test"
        [[server]]
        id = 1
        address = "http://127.0.0.1:7601"
        [[server]]
        id = 2
        address = "http://127.0.0.1:7602/"
    "#;

    #[test]
    fn a_server_finds_its_place_by_its_number_or_by_its_address() {
        assert_eq!(read_text(FILE, Some(2), "127.0.0.1:1"), Ok(2));
        assert_eq!(read_text(FILE, None, "127.0.0.1:7601"), Ok(1));
        for (id, listen, why) in
            [(Some(3), "127.0.0.1:7601", "the id 3"), (None, "127.0.0.1:7603", "give --id")]
        {
            let error = read_text(FILE, id, listen).expect_err("is refused");
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn mistakes_in_the_file_are_named() {
        let one =
            |id: u32, address: &str| format!("[[server]]\nid = {id}\naddress = \"{address}\"\n");
        for (text, why) in [
            ("name = \"x\"\nserver = []\nfoo = 1".to_owned(), "foo"),
            ("name = \"x\"\nlog = \"zab\"\nserver = []".to_owned(), "raft"),
            (format!("name = \"x\"\n{}", one(0, "http://a:1")), "begin with 1"),
            (format!("name = \"x\"\n{}", one(1, "a:1")), "http://10.0.0.1:7600"),
            (
                format!("name = \"x\"\n{}{}", one(1, "http://a:1"), one(1, "http://b:1")),
                "two servers",
            ),
        ] {
            let error = read_text(&text, Some(1), "127.0.0.1:1").expect_err(&text);
            assert!(error.contains(why), "{error}");
        }
    }
}
