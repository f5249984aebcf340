//! A new server from a backup, or from what is left of a cluster. Offline: no server runs on these directories meanwhile.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use rota_core::command::Command;
use rota_core::server::ServerCommand;
use rota_core::token::Note;
use rota_store::backup::{self, Rebuild, Summary};
use rota_store::{ClusterId, Identity, StoreError};
use rota_types::{LogIndex, ServerId, Steady};

use crate::config::ClusterConfig;
use crate::memory::Memory;
use crate::opening::draw;

/// A server's data that was made from another's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What it was made from.
    pub from: Summary,
    /// The new cluster.
    pub cluster: ClusterId,
    /// Its first entry.
    pub index: LogIndex,
}

/// Reads a backup from its beginning to its end.
///
/// # Errors
/// If it can't be read, is no backup, or is damaged or cut off; the message says where.
pub fn verify_backup(file: &Path) -> Result<Summary, StoreError> {
    backup::read(&mut open(file)?, |_| Ok(()))
}

/// Makes the data directory of a server that runs alone from a backup. The cluster gets a new id; what ran is lost and will run again.
///
/// # Errors
/// If the backup can't be read, is damaged or cut off, or if the directory is not empty. The directory is not made then.
pub fn restore(file: &Path, directory: &Path) -> Result<Restored, StoreError> {
    let identity = fresh();
    let mut rebuild = Rebuild::begin(directory, identity)?;
    let from = backup::read(&mut open(file)?, |piece| rebuild.add(piece))?;
    let formerly = Memory::default().descendant(&[from.about.identity.cluster]);
    finish(rebuild, from, (identity.cluster, formerly), "cluster restore")
}

/// Makes the data directory of a server that runs alone from that of a server whose cluster has lost its majority, with everything that is
/// in its log. The old directory is left as it is.
///
/// # Errors
/// As [`restore`].
pub fn recover(old: &Path, directory: &Path) -> Result<Restored, StoreError> {
    let identity = fresh();
    let mut rebuild = Rebuild::begin(directory, identity)?;
    let from = backup::copy(old, crate::clock::wall(), |piece| rebuild.add(piece))?;
    let formerly = Memory::load(old).and_then(|memory| {
        let place =
            ClusterConfig::load(old)?.map_or(from.about.identity.cluster, |place| place.cluster);
        memory.descendant(&[from.about.identity.cluster, place])
    });
    finish(rebuild, from, (identity.cluster, formerly), "cluster recover")
}

fn finish(
    rebuild: Rebuild,
    from: Summary,
    (cluster, formerly): (ClusterId, io::Result<Vec<u8>>),
    action: &str,
) -> Result<Restored, StoreError> {
    let doing = format!("writing {}", crate::memory::FILE);
    let formerly = formerly.map_err(|source| StoreError::Io { doing, source })?;
    rebuild.put(crate::memory::FILE, &formerly)?;
    let Identity { cluster: old, server } = from.about.identity;
    let action = format!("{action}: server {server} of cluster {old} at entry {}", from.last);
    let note = Note {
        who: "operator".into(),
        source: "this machine".into(),
        action: action.into(),
        commands: 1,
    };
    let commands = [Command::Servers(ServerCommand::Renew), Command::Note(note)];
    let entry = rota_wire::log::encode_entry(crate::clock::wall(), Steady(0), &commands);
    let index = rebuild.finish(entry)?;
    Ok(Restored { from, cluster, index })
}

/// The identity of a server that runs alone and is new.
pub(crate) fn fresh() -> Identity {
    let mut cluster = [0; 16];
    for (half, bytes) in cluster.chunks_mut(8).zip([draw(), draw()]) {
        half.copy_from_slice(&bytes.to_le_bytes());
    }
    Identity { cluster: ClusterId(cluster), server: ServerId(1) }
}

fn open(file: &Path) -> Result<impl Read + use<>, StoreError> {
    let doing = format!("opening {}", file.display());
    File::open(file)
        .map(|file| BufReader::with_capacity(1 << 20, file))
        .map_err(|source| StoreError::Io { doing, source })
}
