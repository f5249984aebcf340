//! Paxos, by the `omnipaxos` crate (Ng, Haridi and Carbone, "Omni-Paxos: breaking the barriers of partial connectivity"): a leader is
//! elected by how many servers it reaches, so that chains and bridges of servers make progress.
//!
//! What is added here: what the library writes becomes frames, and messages wait for them; its streams are put in order; its promises
//! and their answers are told apart; leases, linearizable reads and hand-over; servers that are too far behind get a snapshot. Members
//! can't be changed yet.

mod drive;
mod effects;
mod install;
mod ledger;
mod wire;

use std::collections::{BTreeMap, VecDeque};

use omnipaxos::ballot_leader_election::Ballot;
use omnipaxos::{ClusterConfig, OmniPaxos, OmniPaxosConfig, ServerConfig};
use rota_ports::{
    Change, ChangeRefused, Committed, Effects, EntryBytes, Frame, FrameSeq, LogStatus,
    MemberStatus, Members, MessageBytes, ProposeRefused, ReadId, ReplicatedLog, Role, SnapshotMeta,
    Stored,
};
use rota_types::limits::ENTRY_BYTES_MAX;
use rota_types::{LogIndex, ServerId};

use crate::StartError;
use crate::reads::Reads;
use drive::{HandOver, Round};
use install::Offered;
use ledger::{Book, Item, Ledger, Memory};

/// Ids of servers are this small: the library has lists that long.
const SERVER_MAX: u64 = 1 << 16;

/// How a log behaves.
#[derive(Clone, Copy, Debug)]
pub struct PaxosConfig {
    /// This server; from 1 to 65,536.
    pub id: ServerId,
    /// Where chance comes from: different on each server, and in each life of it.
    pub seed: u64,
    /// For so many ticks after it was heard, a leader is not replaced.
    pub lease_ticks: u32,
    /// The leader is heard every so many ticks.
    pub heartbeat_ticks: u32,
    /// Without a leader, servers ask each other every so many ticks whether they need one.
    pub round_ticks: u32,
    /// What was not answered is sent again after so many ticks.
    pub resend_ticks: u32,
    /// A server that neither leads nor follows for so many ticks, up to twice that, tries to lead.
    pub stuck_ticks: u32,
    /// Own entries that may be in flight.
    pub entries_max: usize,
    /// Their bytes. An entry is taken, whatever its size, if nothing else is in flight.
    pub bytes_max: usize,
    /// Bytes of entries that are kept for servers that are a little behind the last snapshot.
    pub tail_bytes: usize,
}

impl PaxosConfig {
    /// For ticks of 15 ms: a new leader after about 250 ms of silence.
    #[must_use]
    pub fn new(id: ServerId, seed: u64) -> Self {
        Self {
            id,
            seed,
            lease_ticks: 10,
            heartbeat_ticks: 2,
            round_ticks: 2,
            resend_ticks: 5,
            stuck_ticks: 40,
            entries_max: 4_096,
            bytes_max: 2 * ENTRY_BYTES_MAX,
            tail_bytes: 32 << 20,
        }
    }
}

/// The first frame of each founder's empty log, to be made durable before the log is opened. `after` is the last entry of a log of one
/// server that becomes a cluster, 0 otherwise. All founders have to be given the same; there are at least two.
#[must_use]
pub fn founding_frame(after: LogIndex, founders: &[ServerId]) -> Frame {
    let mut members = founders.to_vec();
    members.sort_unstable();
    members.dedup();
    let memory = Memory { configuration: 1, members, decided: after.0, ..Memory::default() };
    Frame {
        seq: FrameSeq(1),
        first: after.next(),
        entries: Vec::new(),
        state: Some(memory.encode().into()),
        reset: false,
    }
}

/// A log replicated by Paxos.
pub struct PaxosLog {
    config: PaxosConfig,
    /// The library; `None` for a server that belongs to no cluster yet.
    library: Option<OmniPaxos<Item, Ledger>>,
    ledger: Ledger,
    members: Vec<ServerId>,
    ticks: u64,
    /// How many messages each stream to each server had.
    sent: BTreeMap<(ServerId, u8), u64>,
    /// The last message of each stream from each server: life and number.
    seen: BTreeMap<(ServerId, u8), (u64, u64)>,
    send: Vec<(ServerId, MessageBytes)>,
    send_after: Vec<(ServerId, MessageBytes)>,
    committed: Vec<Committed>,
    /// The last entry handed out.
    handed: u64,
    /// Numbers promises, so that an answer can be told from one to an earlier promise.
    promises: u64,
    /// The last promise of each server.
    tags: BTreeMap<ServerId, u64>,
    /// Whom no other leader may replace, until that tick.
    granted: Option<(ServerId, u64)>,
    /// The ballot in which this server leads, and the last entry of its predecessors.
    standing: Option<(Ballot, u64)>,
    /// The ballot that was handed over to this server.
    inherited: Ballot,
    handing_over: Option<HandOver>,
    rounds: BTreeMap<u64, Round>,
    reads: Reads,
    confirmed_tick: u64,
    /// When the last round began that a majority answered.
    majority_tick: u64,
    /// Up to where others have accepted, and up to where the library knows.
    accepted: BTreeMap<ServerId, (u64, u64)>,
    queue: Vec<EntryBytes>,
    in_flight: VecDeque<(u64, usize)>,
    bytes: usize,
    fetching: Option<Offered>,
    ask_install: Option<(SnapshotMeta, ServerId)>,
    heard: BTreeMap<ServerId, u64>,
    /// Since when this server neither leads nor follows, and how long it bears that.
    stuck: (u64, u64),
    /// Where the leader's log ended at some tick, and up to where it was decided.
    goal: (u64, u64, u64),
}

impl PaxosLog {
    /// A log that goes on from what is stored.
    ///
    /// # Errors
    /// If what is stored is of another protocol or version, or names servers that can't be.
    pub fn new(config: PaxosConfig, stored: Stored) -> Result<Self, StartError> {
        let Stored { snapshot, entries, state } = stored;
        let memory = match &state {
            Some(bytes) => Memory::decode(bytes).ok_or(StartError::Foreign)?,
            None => Memory::default(),
        };
        let memory = Memory { life: memory.life + 1, ..memory };
        let handed = snapshot.index.0;
        let members = memory.members.clone();
        let ids = members.iter().chain([&config.id]);
        if let Some(id) = ids.into_iter().find(|id| !(1..=SERVER_MAX).contains(&id.0)) {
            let text = format!("server id {id} is not from 1 to {SERVER_MAX}");
            return Err(StartError::Refused(text));
        }
        let mut book = Book::new(memory, snapshot, entries);
        let is_member = !members.is_empty();
        if is_member {
            book.remember();
        }
        let mut log = Self {
            config,
            library: None,
            ledger: Ledger::new(book),
            members,
            ticks: 0,
            sent: BTreeMap::new(),
            seen: BTreeMap::new(),
            send: Vec::new(),
            send_after: Vec::new(),
            committed: Vec::new(),
            handed,
            promises: 0,
            tags: BTreeMap::new(),
            granted: None,
            standing: None,
            inherited: Ballot::default(),
            handing_over: None,
            rounds: BTreeMap::new(),
            reads: Reads::default(),
            confirmed_tick: 0,
            majority_tick: 0,
            accepted: BTreeMap::new(),
            queue: Vec::new(),
            in_flight: VecDeque::new(),
            bytes: 0,
            fetching: None,
            ask_install: None,
            heard: BTreeMap::new(),
            stuck: (0, 0),
            goal: (0, 0, 0),
        };
        if is_member {
            log.library = Some(log.build()?);
        }
        log.after();
        Ok(log)
    }

    fn build(&self) -> Result<OmniPaxos<Item, Ledger>, StartError> {
        let config = OmniPaxosConfig {
            cluster_config: ClusterConfig {
                configuration_id: self.ledger.open().memory.configuration,
                nodes: self.members.iter().map(|member| member.0).collect(),
                flexible_quorum: None,
            },
            server_config: ServerConfig {
                pid: self.config.id.0,
                election_tick_timeout: u64::from(self.config.round_ticks),
                resend_message_tick_timeout: u64::from(self.config.resend_ticks),
                buffer_size: 64,
                ..ServerConfig::default()
            },
        };
        config.build(self.ledger.clone()).map_err(|error| StartError::Refused(error.to_string()))
    }

    fn promise(&self) -> Ballot {
        self.ledger.open().memory.promise.unwrap_or_default()
    }

    /// Whether this server leads, is heard by a majority, and has handed out everything that its predecessors decided.
    fn leads(&self) -> bool {
        self.standing.is_some_and(|(_, start)| self.handed >= start) && self.has_majority()
    }

    fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }

    fn peers(&self) -> Vec<ServerId> {
        let own = self.config.id;
        self.members.iter().copied().filter(|member| *member != own).collect()
    }

    fn is_active(&self, server: ServerId) -> bool {
        let limit = u64::from(self.config.lease_ticks);
        self.heard.get(&server).is_some_and(|tick| self.ticks - tick <= limit)
    }
}

/// A ballot as a number that rises with each leader.
fn term(ballot: Ballot) -> u64 {
    u64::from(ballot.n) << 32 | ballot.pid & u64::from(u32::MAX)
}

impl ReplicatedLog for PaxosLog {
    fn tick(&mut self) {
        self.ticks += 1;
        self.pass_time();
        self.after();
    }

    fn step(&mut self, from: ServerId, message: &[u8]) {
        if let Some((stamp, told)) = wire::decode(from, self.config.id, message) {
            self.hear(from, stamp, told);
            self.after();
        }
    }

    fn propose(&mut self, entry: EntryBytes) -> Result<(), ProposeRefused> {
        if !self.leads() {
            return Err(ProposeRefused::NotLeader);
        }
        let count = self.queue.len() + self.in_flight.len();
        let too_many = count >= self.config.entries_max;
        let bytes = self.bytes.saturating_add(entry.len());
        let too_much = count > 0 && bytes > self.config.bytes_max;
        if too_many || too_much || self.handing_over.is_some() {
            return Err(ProposeRefused::Busy);
        }
        self.bytes = bytes;
        self.queue.push(entry);
        Ok(())
    }

    fn read_barrier(&mut self, read: ReadId) -> Result<(), ProposeRefused> {
        if !self.leads() {
            return Err(ProposeRefused::NotLeader);
        }
        self.reads.ask(read).ok_or(ProposeRefused::Busy)
    }

    fn link_reset(&mut self, peer: ServerId) {
        if let Some(library) = self.library.as_mut().filter(|_| self.members.contains(&peer)) {
            library.reconnected(peer.0);
            self.after();
        }
    }

    fn persisted(&mut self, frame: FrameSeq) {
        self.ledger.open().persisted(frame);
        self.after();
    }

    fn snapshot_meta(&self, index: LogIndex) -> Option<SnapshotMeta> {
        let book = self.ledger.open();
        let known = (book.before().max(1)..=self.handed).contains(&index.0);
        known.then(|| SnapshotMeta {
            index,
            term: 0,
            members: Members { voters: self.members.clone(), ..Members::default() },
        })
    }

    fn compact(&mut self, snapshot: SnapshotMeta) {
        if snapshot.index.0 > self.handed {
            return;
        }
        // Promises that were taken in may still need old entries in their answers.
        let prepares = self.promise().pid == self.config.id.0 && self.standing.is_none();
        let tail_bytes = if prepares { usize::MAX } else { self.config.tail_bytes };
        self.ledger.open().compact(snapshot, tail_bytes);
    }

    fn installed(&mut self, snapshot: SnapshotMeta) {
        if let Some(offered) = self.fetching.take() {
            self.restore(&offered, snapshot);
            self.after();
        }
    }

    fn install_failed(&mut self) {
        self.fetching = None;
    }

    fn change_members(&mut self, _changes: &[Change]) -> Result<(), ChangeRefused> {
        let why = "the members of a cluster with Paxos can't be changed yet";
        Err(ChangeRefused::Invalid(why))
    }

    fn transfer_leader(&mut self, to: ServerId) -> Result<(), ProposeRefused> {
        let Some((ballot, _)) = self.standing.filter(|_| self.leads()) else {
            return Err(ProposeRefused::NotLeader);
        };
        let can = to != self.config.id && self.members.contains(&to) && self.is_active(to);
        if !can || self.handing_over.is_some() {
            return Err(ProposeRefused::Busy);
        }
        self.flush();
        self.handing_over = Some(HandOver { to, ballot, began: self.ticks });
        self.after();
        Ok(())
    }

    fn poll(&mut self) -> Effects {
        self.flush();
        self.after();
        self.collect();
        let mut book = self.ledger.open();
        let frame = book.frames.take();
        let mut send = std::mem::take(&mut self.send);
        let mut send_after = std::mem::take(&mut self.send_after);
        if book.frames.is_settled() {
            send.append(&mut send_after);
        }
        Effects {
            frame,
            send,
            send_after,
            install: self.ask_install.take(),
            committed: std::mem::take(&mut self.committed),
            reads: self.reads.take_answered(),
        }
    }

    fn status(&self) -> LogStatus {
        let leads = self.leads();
        let promise = self.promise();
        let follows = self.is_accepting() && promise != Ballot::default();
        LogStatus {
            leads,
            leader: follows.then_some(ServerId(promise.pid)),
            term: term(promise),
            last: LogIndex(self.ledger.open().last() + self.queue.len() as u64),
            committed: LogIndex(self.handed),
            // From the moment a hand-over begins the other one may lead at any time, lease or no lease.
            confirmed_tick: if leads && self.handing_over.is_none() {
                self.confirmed_tick
            } else {
                0
            },
            // One tick for the part of a tick that has passed when a message comes in, one for clocks that differ.
            lease_ticks: u64::from(self.config.lease_ticks.saturating_sub(2)),
        }
    }

    fn members(&self) -> Vec<MemberStatus> {
        let (leads, own) = (self.standing.is_some(), self.config.id);
        let status = |id: &ServerId| MemberStatus {
            id: *id,
            role: Role::Voter,
            matched: leads.then(|| {
                let last = self.ledger.open().durable();
                let others = || self.accepted.get(id).map_or(0, |(accepted, _)| *accepted);
                LogIndex(if *id == own { last } else { others() })
            }),
            is_active: *id == own || (leads && self.is_active(*id)),
        };
        self.members.iter().map(status).collect()
    }
}
