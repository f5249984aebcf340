//! Whose data a directory holds.

use std::fmt;

use rota_types::ServerId;

use crate::StoreError;
use crate::disk::Disk;

/// The name of the identity file.
pub(crate) const IDENTITY_FILE: &str = "identity";
const TEMPORARY: &str = "identity.tmp";
const MAGIC: &[u8; 8] = b"rotaid\0\x01";
const FORMAT: u32 = 1;
const LENGTH: usize = 8 + 4 + 16 + 8 + 4;

/// Names a cluster, forever. Drawn when it is founded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 16]);

/// Whose data a directory holds. Every file's checksums depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The server in it.
    pub server: ServerId,
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl ClusterId {
    /// Reads what its `Display` writes: 32 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = digits.then(|| u128::from_str_radix(text, 16).ok()).flatten()?;
        Some(Self(number.to_be_bytes()))
    }
}

impl Identity {
    /// A number that differs between identities, for checksums.
    pub(crate) fn salt(&self) -> u32 {
        let cluster = crc32c::crc32c(&self.cluster.0);
        crc32c::crc32c_append(cluster, &self.server.0.to_le_bytes())
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.extend(MAGIC);
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend(self.cluster.0);
        bytes.extend(self.server.0.to_le_bytes());
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// Writes the identity file, durably. Only for a directory that has none.
    pub(crate) fn write(&self, disk: &dyn Disk) -> Result<(), StoreError> {
        let failed = |doing| StoreError::io(doing, IDENTITY_FILE);
        let mut file = disk.create(TEMPORARY).map_err(failed("creating"))?;
        file.write_at(0, &self.encode()).map_err(failed("writing"))?;
        file.sync().map_err(failed("syncing"))?;
        disk.rename(TEMPORARY, IDENTITY_FILE).map_err(failed("renaming"))?;
        disk.sync_names().map_err(failed("syncing the directory of"))
    }

    /// Whose data is on the disk; `None` if it holds none.
    ///
    /// # Errors
    /// If the file system refuses, or the identity file is damaged.
    pub fn of(disk: &dyn Disk) -> Result<Option<Self>, StoreError> {
        let names = disk.list().map_err(StoreError::io("listing", "the data directory"))?;
        if names.iter().any(|name| name == IDENTITY_FILE) {
            Self::read(disk).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Reads the identity file.
    pub(crate) fn read(disk: &dyn Disk) -> Result<Self, StoreError> {
        let failed = |doing| StoreError::io(doing, IDENTITY_FILE);
        let file = disk.open(IDENTITY_FILE).map_err(failed("opening"))?;
        if file.len().map_err(failed("reading"))? != LENGTH as u64 {
            return Err(StoreError::damage(IDENTITY_FILE, 0, "its length is wrong"));
        }
        let mut bytes = [0; LENGTH];
        file.read_at(0, &mut bytes).map_err(failed("reading"))?;
        let (body, crc) = bytes.split_at(LENGTH - 4);
        if crc != crc32c::crc32c(body).to_le_bytes() || !body.starts_with(MAGIC) {
            return Err(StoreError::damage(IDENTITY_FILE, 0, "its checksum is wrong"));
        }
        let mut fields = Fields(&body[8..]);
        let format = u32::from_le_bytes(fields.take());
        if format != FORMAT {
            return Err(StoreError::Foreign(format!(
                "the data directory has format {format}, this version of rota reads format {FORMAT}; use the version that wrote it"
            )));
        }
        Ok(Self {
            cluster: ClusterId(fields.take()),
            server: ServerId(u64::from_le_bytes(fields.take())),
        })
    }
}

/// Takes fixed-size fields off the front of bytes that are known to be long enough.
pub(crate) struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().expect("the caller has checked the length");
        self.0 = rest;
        *field
    }
}
