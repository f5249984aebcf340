//! Messages between servers, in bytes.
//!
//! The library's own encoding is not used, so that its parser never sees bytes from elsewhere. The first byte is the version.

use bytes::Bytes;
use raft::eraftpb::{Message, MessageType};
use rota_ports::LogEntry;
use rota_types::ServerId;

use super::memory;
use crate::cursor::{Cursor, Put};

const VERSION: u8 = 1;
const REJECT: u8 = 1;
const SNAPSHOT: u8 = 2;
/// Longer contexts are nobody's.
const CONTEXT_BYTES_MAX: usize = 64;

/// The kinds of messages that servers send each other; their place is their number on the wire.
const KINDS: [MessageType; 10] = [
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgTimeoutNow,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];

/// `None` for a message that is not sent: proposals and reads are not forwarded.
pub(super) fn encode(message: &Message) -> Option<Vec<u8>> {
    let kind = KINDS.iter().position(|kind| *kind == message.get_msg_type())?;
    let has_snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
    let flags = if message.reject { REJECT } else { 0 } | if has_snapshot { SNAPSHOT } else { 0 };
    let size: usize = message.entries.iter().map(|entry| entry.data.len() + 32).sum();
    let mut bytes = Vec::with_capacity(64 + size);
    bytes.extend([VERSION, u8::try_from(kind).ok()?, flags]);
    for number in [
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.reject_hint,
    ] {
        bytes.number(number);
    }
    bytes.bytes(&message.context);
    bytes.count(message.entries.len());
    for entry in &message.entries {
        memory::put(entry, &mut bytes);
    }
    if has_snapshot {
        bytes.snapshot(&memory::from_snapshot(message.get_snapshot()));
    }
    Some(bytes)
}

/// A message, and the entries in it. `None` if the bytes are no message.
pub(super) fn decode(
    from: ServerId,
    to: ServerId,
    bytes: &[u8],
) -> Option<(Message, Vec<LogEntry>)> {
    let mut cursor = Cursor(bytes);
    if cursor.byte()? != VERSION {
        return None;
    }
    let kind = KINDS.get(usize::from(cursor.byte()?))?;
    let flags = cursor.byte()?;
    let mut message = Message { from: from.0, to: to.0, ..Message::default() };
    message.set_msg_type(*kind);
    message.reject = flags & REJECT != 0;
    for field in [
        &mut message.term,
        &mut message.log_term,
        &mut message.index,
        &mut message.commit,
        &mut message.commit_term,
        &mut message.reject_hint,
    ] {
        *field = cursor.number()?;
    }
    let context = cursor.bytes().filter(|context| context.len() <= CONTEXT_BYTES_MAX)?;
    message.context = Bytes::copy_from_slice(context);
    let first = message.index.checked_add(1)?;
    let entries = cursor.entries()?;
    first.checked_add(entries.len() as u64)?;
    let numbered = (first..).zip(&entries);
    let numbered = numbered.map(|(index, entry)| memory::to_library(index, entry));
    message.set_entries(numbered.collect::<Vec<_>>().into());
    let is_snapshot = *kind == MessageType::MsgSnapshot;
    if is_snapshot != (flags & SNAPSHOT != 0) {
        return None;
    }
    if is_snapshot {
        let meta = cursor.snapshot().filter(|meta| meta.index.0 > 0)?;
        message.set_snapshot(memory::to_snapshot(&meta));
    }
    // Only a local message has no term, and no server ever sends one.
    (message.term > 0).then_some(())?;
    cursor.end((message, entries))
}
