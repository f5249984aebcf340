//! The first bytes of a snapshot: what it is of, and the members of the cluster at that entry.

use rota_ports::{Members, SnapshotMeta};
use rota_types::{LogIndex, ServerId};

use crate::Identity;
use crate::identity::Fields;

pub(super) const MAGIC: &[u8; 8] = b"rotasnp\x01";
/// The format written. Format 1 has neither members nor flags.
pub(super) const FORMAT: u32 = 2;
/// Bytes that both formats begin with.
pub(super) const START_BYTES: usize = 8 + 4 + 4 + 8;
/// Bytes that follow in format 1: a checksum.
pub(super) const FORMAT_1_BYTES: usize = 4;
/// Bytes that follow in format 2: the length of what follows.
pub(super) const LENGTH_BYTES: usize = 4;
/// The most bytes that a description takes: far more servers than a cluster can have.
pub(super) const META_BYTES_MAX: usize = 64 << 10;

/// What a snapshot is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) meta: SnapshotMeta,
    /// Whether it came from another server, so that it may be ahead of the log.
    pub(super) installed: bool,
}

fn start(identity: &Identity, index: LogIndex, format: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(START_BYTES);
    bytes.extend(MAGIC);
    bytes.extend(format.to_le_bytes());
    bytes.extend(identity.salt().to_le_bytes());
    bytes.extend(index.0.to_le_bytes());
    bytes
}

/// A header of today's format.
pub(super) fn encode(identity: &Identity, described: &Described) -> Vec<u8> {
    let Described { meta, installed } = described;
    let Members { voters, outgoing, learners, learners_next } = &meta.members;
    let mut body = vec![u8::from(*installed)];
    body.extend(meta.term.to_le_bytes());
    for list in [voters, outgoing, learners, learners_next] {
        body.extend((list.len() as u64).to_le_bytes());
        body.extend(list.iter().flat_map(|server| server.0.to_le_bytes()));
    }
    let mut bytes = start(identity, meta.index, FORMAT);
    bytes.extend(u32::try_from(body.len() + 4).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(body);
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

/// Reads a whole header; `None` if it is of another server, cluster, index or format. Its checksum has been verified.
pub(super) fn decode(bytes: &[u8], identity: &Identity, index: LogIndex) -> Option<Described> {
    let (covered, _crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    if covered == start(identity, index, 1) {
        let meta = SnapshotMeta::solo(index);
        return Some(Described { meta, installed: false });
    }
    let rest = covered.strip_prefix(start(identity, index, FORMAT).as_slice())?;
    let (_length, rest) = rest.split_at_checked(LENGTH_BYTES)?;
    let (installed, rest) = rest.split_first()?;
    let (term, mut rest) = rest.split_first_chunk::<8>()?;
    let mut list = || {
        let (count, behind) = rest.split_first_chunk::<8>()?;
        let bytes = usize::try_from(u64::from_le_bytes(*count)).ok()?.checked_mul(8)?;
        let (servers, behind) = behind.split_at_checked(bytes)?;
        rest = behind;
        let servers = servers.chunks_exact(8);
        Some(servers.map(|id| ServerId(u64::from_le_bytes(Fields(id).take()))).collect())
    };
    let members =
        Members { voters: list()?, outgoing: list()?, learners: list()?, learners_next: list()? };
    let meta = SnapshotMeta { index, term: u64::from_le_bytes(*term), members };
    let described = Described { meta, installed: *installed != 0 };
    rest.is_empty().then_some(described)
}
