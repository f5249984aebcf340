//! Reading bytes from elsewhere: nothing is trusted.

use rota_ports::{EntryBytes, EntryKind, LogEntry, Members, SnapshotMeta};
use rota_types::limits::ENTRY_BYTES_MAX;
use rota_types::{LogIndex, ServerId};

/// Takes fields off the front; `None` if there are not enough bytes, or they make no sense.
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    /// How many items of at least `least` bytes each follow.
    pub(crate) fn count(&mut self, least: usize) -> Option<usize> {
        let (count, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
        (count.checked_mul(least)? <= rest.len()).then_some(count)
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.count(1)?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(crate) fn servers(&mut self) -> Option<Vec<ServerId>> {
        let count = self.count(8)?;
        (0..count).map(|_| self.number().map(ServerId)).collect()
    }

    pub(crate) fn entry(&mut self) -> Option<LogEntry> {
        let term = self.number()?;
        let kind = match self.byte()? {
            0 => EntryKind::Command,
            1 => EntryKind::Internal,
            _ => return None,
        };
        let bytes = self.bytes().filter(|bytes| bytes.len() <= ENTRY_BYTES_MAX)?;
        Some(LogEntry { term, kind, bytes: EntryBytes::from(bytes) })
    }

    pub(crate) fn entries(&mut self) -> Option<Vec<LogEntry>> {
        let count = self.count(8 + 1 + 4)?;
        (0..count).map(|_| self.entry()).collect()
    }

    pub(crate) fn snapshot(&mut self) -> Option<SnapshotMeta> {
        let (index, term) = (LogIndex(self.number()?), self.number()?);
        let members = Members {
            voters: self.servers()?,
            outgoing: self.servers()?,
            learners: self.servers()?,
            learners_next: self.servers()?,
        };
        Some(SnapshotMeta { index, term, members })
    }

    /// `value` if nothing is left.
    pub(crate) fn end<T>(self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

/// Writes what [`Cursor`] reads.
pub(crate) trait Put {
    fn number(&mut self, number: u64);
    fn count(&mut self, count: usize);
    fn bytes(&mut self, bytes: &[u8]);
    fn servers(&mut self, servers: &[ServerId]);
    fn snapshot(&mut self, meta: &SnapshotMeta);
}

impl Put for Vec<u8> {
    fn number(&mut self, number: u64) {
        self.extend_from_slice(&number.to_le_bytes());
    }

    fn count(&mut self, count: usize) {
        let count = u32::try_from(count).expect("messages are far smaller than 4 GiB");
        self.extend_from_slice(&count.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.extend_from_slice(bytes);
    }

    fn servers(&mut self, servers: &[ServerId]) {
        self.count(servers.len());
        for server in servers {
            self.number(server.0);
        }
    }

    fn snapshot(&mut self, meta: &SnapshotMeta) {
        let SnapshotMeta { index, term, members } = meta;
        self.number(index.0);
        self.number(*term);
        for list in [&members.voters, &members.outgoing, &members.learners, &members.learners_next]
        {
            self.servers(list);
        }
    }
}
