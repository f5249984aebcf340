//! Messages between servers, in bytes: the library's, and those that are added here. The first byte is the version.

use omnipaxos::ballot_leader_election::Ballot;
use omnipaxos::messages::Message;
use omnipaxos::messages::ballot_leader_election::{
    BLEMessage, HeartbeatMsg, HeartbeatReply, HeartbeatRequest,
};
use omnipaxos::messages::sequence_paxos::{
    AcceptDecide, AcceptSync, Accepted, Decide, NotAccepted, PaxosMessage, PaxosMsg, Prepare,
    PrepareReq, Promise,
};
use omnipaxos::util::{LogSync, SequenceNumber};
use rota_ports::{EntryKind, LogEntry, SnapshotMeta};
use rota_types::ServerId;

use super::ledger::{Item, ballot, put_ballot};
use crate::cursor::{Cursor, Put};

const VERSION: u8 = 1;

/// Messages of one stream arrive in the order in which they were sent, or not at all: what comes late is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stream {
    /// Heartbeats and rounds.
    Pulse = 0,
    /// What waits for frames.
    Promises = 1,
    /// What a leader has accepted.
    Lead = 2,
}

/// Where a message stands in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) configuration: u32,
    pub(super) stream: u8,
    /// The sender's life, and the number of the message in the stream: never twice the same.
    pub(super) place: (u64, u64),
}

/// What servers tell each other.
#[derive(Clone, Debug)]
pub(super) enum Told {
    /// The library's. A promise has a number, which the answer repeats; a prepare names the ballot that was handed over, if one was.
    Library { message: Message<Item>, tag: u64, from_ballot: Ballot },
    /// Does this ballot still lead? Its log ends at `last`, and is decided up to `decided`. Whoever it asks for a lease lets nobody else
    /// lead for a while.
    Round { ballot: Ballot, number: u64, last: u64, decided: u64, lease: bool },
    /// It does, as far as this server knows. If it follows, up to where it has accepted; and a lease, if it was asked for one.
    Confirmed { ballot: Ballot, number: u64, accepted: Option<u64> },
    /// The entries that are needed are gone: here is a snapshot. `ballot` leads and began at `start`, if the sender leads.
    Offer { ballot: Ballot, start: u64, snapshot: SnapshotMeta },
    /// Take over from this ballot.
    TakeOver { ballot: Ballot },
}

fn put_sync(bytes: &mut Vec<u8>, sync: &LogSync<Item>) {
    bytes.number(sync.sync_idx as u64);
    put_entries(bytes, &sync.suffix);
}

fn put_entries(bytes: &mut Vec<u8>, items: &[Item]) {
    bytes.count(items.len());
    for Item(entry) in items {
        bytes.number(entry.term);
        bytes.push(u8::from(entry.kind == EntryKind::Internal));
        bytes.bytes(&entry.bytes);
    }
}

fn put_sequence(bytes: &mut Vec<u8>, sequence: SequenceNumber) {
    bytes.number(sequence.session);
    bytes.number(sequence.counter);
}

/// `None` for a message that is not sent: proposals are not forwarded.
pub(super) fn encode(stamp: Stamp, told: &Told) -> Option<Vec<u8>> {
    let mut bytes = vec![VERSION];
    bytes.number(u64::from(stamp.configuration));
    bytes.push(stamp.stream);
    bytes.number(stamp.place.0);
    bytes.number(stamp.place.1);
    match told {
        Told::Library { message, tag, from_ballot } => {
            put_library(&mut bytes, message, *tag, *from_ballot)?;
        }
        Told::Round { ballot, number, last, decided, lease } => {
            bytes.push(20);
            put_ballot(&mut bytes, *ballot);
            for number in [number, last, decided] {
                bytes.number(*number);
            }
            bytes.push(u8::from(*lease));
        }
        Told::Confirmed { ballot, number, accepted } => {
            bytes.push(21);
            put_ballot(&mut bytes, *ballot);
            bytes.number(*number);
            bytes.push(u8::from(accepted.is_some()));
            bytes.number(accepted.unwrap_or(0));
        }
        Told::Offer { ballot, start, snapshot } => {
            bytes.push(22);
            put_ballot(&mut bytes, *ballot);
            bytes.number(*start);
            bytes.snapshot(snapshot);
        }
        Told::TakeOver { ballot } => {
            bytes.push(23);
            put_ballot(&mut bytes, *ballot);
        }
    }
    Some(bytes)
}

fn put_library(
    bytes: &mut Vec<u8>,
    message: &Message<Item>,
    tag: u64,
    from_ballot: Ballot,
) -> Option<()> {
    let message = match message {
        Message::SequencePaxos(message) => &message.msg,
        Message::BLE(message) => {
            put_pulse(bytes, &message.msg);
            return Some(());
        }
    };
    match message {
        PaxosMsg::PrepareReq(PrepareReq { n }) => {
            bytes.push(2);
            put_ballot(bytes, *n);
        }
        PaxosMsg::Prepare(Prepare { n, decided_idx, n_accepted, accepted_idx }) => {
            bytes.push(3);
            put_ballot(bytes, *n);
            put_ballot(bytes, *n_accepted);
            bytes.number(*decided_idx as u64);
            bytes.number(*accepted_idx as u64);
            put_ballot(bytes, from_ballot);
        }
        PaxosMsg::Promise(Promise { n, n_accepted, decided_idx, accepted_idx, log_sync }) => {
            bytes.push(if log_sync.is_some() { 5 } else { 4 });
            bytes.number(tag);
            put_ballot(bytes, *n);
            put_ballot(bytes, *n_accepted);
            bytes.number(*decided_idx as u64);
            bytes.number(*accepted_idx as u64);
            if let Some(sync) = log_sync {
                put_sync(bytes, sync);
            }
        }
        PaxosMsg::AcceptSync(AcceptSync { n, seq_num, decided_idx, log_sync }) => {
            bytes.push(6);
            bytes.number(tag);
            put_ballot(bytes, *n);
            put_sequence(bytes, *seq_num);
            bytes.number(*decided_idx as u64);
            put_sync(bytes, log_sync);
        }
        PaxosMsg::AcceptDecide(AcceptDecide { n, seq_num, decided_idx, entries }) => {
            bytes.push(7);
            put_ballot(bytes, *n);
            put_sequence(bytes, *seq_num);
            bytes.number(*decided_idx as u64);
            put_entries(bytes, entries);
        }
        PaxosMsg::Accepted(Accepted { n, accepted_idx }) => {
            bytes.push(8);
            put_ballot(bytes, *n);
            bytes.number(*accepted_idx as u64);
        }
        PaxosMsg::NotAccepted(NotAccepted { n }) => {
            bytes.push(9);
            put_ballot(bytes, *n);
        }
        PaxosMsg::Decide(Decide { n, seq_num, decided_idx }) => {
            bytes.push(10);
            put_ballot(bytes, *n);
            put_sequence(bytes, *seq_num);
            bytes.number(*decided_idx as u64);
        }
        PaxosMsg::ProposalForward(_)
        | PaxosMsg::Compaction(_)
        | PaxosMsg::AcceptStopSign(_)
        | PaxosMsg::ForwardStopSign(_) => return None,
    }
    Some(())
}

fn put_pulse(bytes: &mut Vec<u8>, message: &HeartbeatMsg) {
    match message {
        HeartbeatMsg::Request(HeartbeatRequest { round }) => {
            bytes.push(0);
            bytes.number(u64::from(*round));
        }
        HeartbeatMsg::Reply(HeartbeatReply { round, ballot, leader, happy }) => {
            bytes.push(1);
            bytes.number(u64::from(*round));
            put_ballot(bytes, *ballot);
            put_ballot(bytes, *leader);
            bytes.push(u8::from(*happy));
        }
    }
}

/// `None` if the bytes are no message.
pub(super) fn decode(from: ServerId, to: ServerId, bytes: &[u8]) -> Option<(Stamp, Told)> {
    let mut cursor = Cursor(bytes);
    if cursor.byte()? != VERSION {
        return None;
    }
    let configuration = u32::try_from(cursor.number()?).ok()?;
    let stream = cursor.byte().filter(|stream| *stream <= Stream::Lead as u8)?;
    let stamp = Stamp { configuration, stream, place: (cursor.number()?, cursor.number()?) };
    let told = match cursor.byte()? {
        kind @ (0 | 1) => {
            let msg = pulse(kind, &mut cursor)?;
            let message = Message::BLE(BLEMessage { from: from.0, to: to.0, msg });
            Told::Library { message, tag: 0, from_ballot: Ballot::default() }
        }
        20 => Told::Round {
            ballot: ballot(&mut cursor)?,
            number: cursor.number()?,
            last: cursor.number()?,
            decided: cursor.number()?,
            lease: cursor.byte()? == 1,
        },
        21 => {
            let (ballot, number) = (ballot(&mut cursor)?, cursor.number()?);
            let (follows, accepted) = (cursor.byte()? == 1, cursor.number()?);
            Told::Confirmed { ballot, number, accepted: follows.then_some(accepted) }
        }
        22 => Told::Offer {
            ballot: ballot(&mut cursor)?,
            start: cursor.number()?,
            snapshot: cursor.snapshot().filter(|snapshot| snapshot.index.0 > 0)?,
        },
        23 => Told::TakeOver { ballot: ballot(&mut cursor)? },
        kind => {
            let (msg, tag, from_ballot) = library(kind, &mut cursor)?;
            let message = Message::SequencePaxos(PaxosMessage { from: from.0, to: to.0, msg });
            Told::Library { message, tag, from_ballot }
        }
    };
    cursor.end((stamp, told))
}

fn pulse(kind: u8, cursor: &mut Cursor<'_>) -> Option<HeartbeatMsg> {
    let round = u32::try_from(cursor.number()?).ok()?;
    if kind == 0 {
        return Some(HeartbeatMsg::Request(HeartbeatRequest { round }));
    }
    let (ballot, leader) = (ballot(cursor)?, ballot(cursor)?);
    let happy = cursor.byte()? == 1;
    Some(HeartbeatMsg::Reply(HeartbeatReply { round, ballot, leader, happy }))
}

fn position(cursor: &mut Cursor<'_>) -> Option<usize> {
    usize::try_from(cursor.number()?).ok()
}

fn entries(cursor: &mut Cursor<'_>) -> Option<Vec<Item>> {
    Some(cursor.entries()?.into_iter().map(|entry: LogEntry| Item(entry)).collect())
}

fn sync(cursor: &mut Cursor<'_>) -> Option<LogSync<Item>> {
    let sync_idx = position(cursor)?;
    let suffix = entries(cursor)?;
    Some(LogSync { decided_snapshot: None, suffix, sync_idx, stopsign: None })
}

fn sequence(cursor: &mut Cursor<'_>) -> Option<SequenceNumber> {
    Some(SequenceNumber { session: cursor.number()?, counter: cursor.number()? })
}

fn library(kind: u8, cursor: &mut Cursor<'_>) -> Option<(PaxosMsg<Item>, u64, Ballot)> {
    let none = Ballot::default();
    let (mut tag, mut from_ballot) = (0, none);
    let message = match kind {
        2 => PaxosMsg::PrepareReq(PrepareReq { n: ballot(cursor)? }),
        3 => {
            let (n, n_accepted) = (ballot(cursor)?, ballot(cursor)?);
            let (decided_idx, accepted_idx) = (position(cursor)?, position(cursor)?);
            from_ballot = ballot(cursor)?;
            PaxosMsg::Prepare(Prepare { n, decided_idx, n_accepted, accepted_idx })
        }
        4 | 5 => {
            tag = cursor.number()?;
            let (n, n_accepted) = (ballot(cursor)?, ballot(cursor)?);
            let (decided_idx, accepted_idx) = (position(cursor)?, position(cursor)?);
            let log_sync = if kind == 5 { Some(sync(cursor)?) } else { None };
            PaxosMsg::Promise(Promise { n, n_accepted, decided_idx, accepted_idx, log_sync })
        }
        6 => {
            tag = cursor.number()?;
            let (n, seq_num) = (ballot(cursor)?, sequence(cursor)?);
            let (decided_idx, log_sync) = (position(cursor)?, sync(cursor)?);
            PaxosMsg::AcceptSync(AcceptSync { n, seq_num, decided_idx, log_sync })
        }
        7 => {
            let (n, seq_num) = (ballot(cursor)?, sequence(cursor)?);
            let (decided_idx, entries) = (position(cursor)?, entries(cursor)?);
            PaxosMsg::AcceptDecide(AcceptDecide { n, seq_num, decided_idx, entries })
        }
        8 => {
            let (n, accepted_idx) = (ballot(cursor)?, position(cursor)?);
            PaxosMsg::Accepted(Accepted { n, accepted_idx })
        }
        9 => PaxosMsg::NotAccepted(NotAccepted { n: ballot(cursor)? }),
        10 => {
            let (n, seq_num, decided_idx) = (ballot(cursor)?, sequence(cursor)?, position(cursor)?);
            PaxosMsg::Decide(Decide { n, seq_num, decided_idx })
        }
        _ => return None,
    };
    Some((message, tag, from_ballot))
}
