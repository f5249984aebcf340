//! Servers that need entries which are gone: they get a snapshot, and the library starts anew from it.

use omnipaxos::ballot_leader_election::Ballot;
use rota_ports::SnapshotMeta;
use rota_types::ServerId;

use super::PaxosLog;
use super::wire::{Stream, Told};

/// A snapshot that is being fetched.
#[derive(Debug)]
pub(super) struct Offered {
    /// The ballot of who offered it, if that one led.
    ballot: Ballot,
    /// The last entry of that leader's predecessors.
    start: u64,
}

impl PaxosLog {
    /// Offers the newest snapshot.
    pub(super) fn offer(&mut self, to: ServerId) {
        let snapshot = self.ledger.open().snapshot.clone();
        let (ballot, start) = self.standing.unwrap_or((Ballot::default(), u64::MAX));
        self.tell(to, Stream::Promises, &Told::Offer { ballot, start, snapshot });
    }

    pub(super) fn consider(
        &mut self,
        from: ServerId,
        ballot: Ballot,
        start: u64,
        snapshot: SnapshotMeta,
    ) {
        let decided = self.ledger.open().memory.decided;
        if self.fetching.is_none() && snapshot.index.0 > decided {
            self.fetching = Some(Offered { ballot, start });
            self.ask_install = Some((snapshot, from));
        }
    }

    /// Goes on behind a snapshot whose image has taken the place of the state machine.
    ///
    /// What was accepted behind it stays: it may count for something that is decided. But if the snapshot contains all that the leader
    /// found when it began, it is as good as having been synced by that leader, and is said to be accepted in its ballot; otherwise that
    /// leader would reckon with entries of an earlier ballot, and send ones which the snapshot has made part of the past.
    pub(super) fn restore(&mut self, offered: &Offered, snapshot: SnapshotMeta) {
        let index = snapshot.index.0;
        self.handed = self.handed.max(index);
        {
            let mut book = self.ledger.open();
            if index <= book.memory.decided {
                return;
            }
            let promise = book.memory.promise.unwrap_or_default();
            let accepted = book.memory.accepted.unwrap_or_default();
            let Offered { ballot, start } = *offered;
            let is_synced = index >= start && ballot >= promise && ballot > accepted;
            let tail = if is_synced { Vec::new() } else { book.behind(index) };
            if is_synced {
                book.memory.promise = Some(ballot);
                book.memory.accepted = Some(ballot);
            }
            book.reset(snapshot, tail);
        }
        // What the library has to say is about a log that is no more.
        self.library = self.build().ok();
    }
}
