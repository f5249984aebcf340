//! What is inside a batch.

use std::sync::Arc;

use rota_ports::{EntryBytes, EntryKind, LogEntry};
use rota_types::LogIndex;

use crate::segment::{Batch, Kind};

/// The protocol's own memory.
pub(super) type ProtocolState = Arc<[u8]>;

/// Encodes a batch's body. `None` if something is too big for its length field.
pub(super) fn encode(state: Option<&ProtocolState>, entries: &[LogEntry]) -> Option<Vec<u8>> {
    let mut body = Vec::with_capacity(length(state, entries));
    // Zero says that there is none.
    let state_length = state.map_or(Some(0), |state| state.len().checked_add(1))?;
    body.extend(u32::try_from(state_length).ok()?.to_le_bytes());
    body.extend_from_slice(state.map_or(&[], |state| state));
    for entry in entries {
        body.extend(u32::try_from(entry.bytes.len()).ok()?.to_le_bytes());
        body.extend(entry.term.to_le_bytes());
        body.push(u8::from(entry.kind == EntryKind::Internal));
        body.extend_from_slice(&entry.bytes);
    }
    Some(body)
}

/// The length of that body.
pub(super) fn length(state: Option<&ProtocolState>, entries: &[LogEntry]) -> usize {
    let entries = entries.iter().map(|entry| 4 + 8 + 1 + entry.bytes.len());
    4 + state.map_or(0, |state| state.len()) + entries.sum::<usize>()
}

/// Whether the body that begins with these bytes holds the protocol's memory.
pub(super) fn has_state(kind: Kind, body_start: &[u8]) -> bool {
    kind == Kind::Changes && body_start.get(..4).is_some_and(|length| length != [0; 4])
}

/// The protocol's memory in a body, and what follows it; `None` if it is cut off.
pub(super) fn split_state(body: &[u8]) -> Option<(Option<ProtocolState>, &[u8])> {
    let (length, rest) = body.split_first_chunk::<4>()?;
    let Some(length) = u32::from_le_bytes(*length).checked_sub(1) else {
        return Some((None, rest));
    };
    let (state, rest) = rest.split_at_checked(length as usize)?;
    Some((Some(ProtocolState::from(state)), rest))
}

/// The entries of a batch; `None` if they do not fill it.
pub(super) fn split(body: &[u8], batch: &Batch) -> Option<Vec<(LogIndex, LogEntry)>> {
    let plain = batch.kind == Kind::Plain;
    let mut body = if plain { body } else { split_state(body)?.1 };
    let mut entries = Vec::new();
    for index in (batch.first..).take(batch.count as usize) {
        let (length, mut rest) = body.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        let (mut term, mut kind) = (0, EntryKind::Command);
        if !plain {
            let (term_bytes, behind) = rest.split_first_chunk::<8>()?;
            let (kind_byte, behind) = behind.split_first()?;
            term = u64::from_le_bytes(*term_bytes);
            kind = match kind_byte {
                0 => EntryKind::Command,
                1 => EntryKind::Internal,
                _ => return None,
            };
            rest = behind;
        }
        let (bytes, rest) = rest.split_at_checked(length)?;
        let entry = LogEntry { term, kind, bytes: EntryBytes::from(bytes) };
        entries.push((LogIndex(index), entry));
        body = rest;
    }
    body.is_empty().then_some(entries)
}
