//! Sectors: what a disk writes whole or not at all.
//!
//! Every sector of a log segment carries a checksum of its own. A torn write leaves some sectors as they were, and each of those is
//! whole; a damaged one is not. That is how the two can be told apart even in the last record of the log.

/// Bytes of a sector.
pub(crate) const SECTOR: usize = 512;
/// Bytes of a sector that hold data.
pub(crate) const PAYLOAD: usize = SECTOR - 4;
/// Writes end at a multiple of this, so that no page has to be read from the disk to be written in part.
pub(crate) const PAGE: usize = 4096;

/// What a sector looks like by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sector {
    /// All zeros.
    Blank,
    /// Its checksum is right.
    Whole,
    /// Neither.
    Bad,
}

/// Cuts `bytes` into sectors with checksums.
pub(crate) fn seal(bytes: &[u8]) -> Vec<u8> {
    let count = bytes.len().div_ceil(PAYLOAD);
    let mut sectors = Vec::with_capacity((count * SECTOR).next_multiple_of(PAGE) + PAGE);
    for payload in bytes.chunks(PAYLOAD) {
        let start = sectors.len();
        sectors.extend_from_slice(payload);
        sectors.resize(start + PAYLOAD, 0);
        let crc = crc32c::crc32c(&sectors[start..]);
        sectors.extend_from_slice(&crc.to_le_bytes());
    }
    sectors
}

/// Judges one sector.
pub(crate) fn judge(sector: &[u8]) -> Sector {
    let (payload, crc) = sector.split_at(PAYLOAD);
    if crc32c::crc32c(payload).to_le_bytes() == crc {
        Sector::Whole
    } else if sector.iter().all(|byte| *byte == 0) {
        Sector::Blank
    } else {
        Sector::Bad
    }
}

/// The data of consecutive sectors, which are not judged.
pub(crate) fn payload(sectors: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(sectors.len());
    for sector in sectors.chunks_exact(SECTOR) {
        bytes.extend_from_slice(&sector[..PAYLOAD]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_bytes_come_back_and_every_flipped_bit_shows() {
        let bytes: Vec<u8> = (0..1_200_u32).map(|n| (n % 251) as u8).collect();
        let mut sectors = seal(&bytes);
        assert_eq!(sectors.len(), 3 * SECTOR);
        assert_eq!(&payload(&sectors)[..bytes.len()], bytes);
        for bit in 0..sectors.len() * 8 {
            sectors[bit / 8] ^= 1 << (bit % 8);
            let hit = bit / 8 / SECTOR;
            for (place, sector) in sectors.chunks(SECTOR).enumerate() {
                let expected = if place == hit { Sector::Bad } else { Sector::Whole };
                assert_eq!(judge(sector), expected, "bit {bit}");
            }
            sectors[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(judge(&[0; SECTOR]), Sector::Blank);
    }
}
