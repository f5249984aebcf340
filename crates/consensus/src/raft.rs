//! Raft, by the `raft` crate of the TiKV project (Ongaro and Ousterhout, "In search of an understandable consensus algorithm"; pre-vote,
//! check-quorum, read index, leadership transfer and joint membership as in Ongaro's thesis).
//!
//! What is added here: the library's chance comes from the seed; what it wants durable becomes frames, and messages wait for them; a
//! snapshot is only shown to the library once its image is durable; reads and leases are confirmed in rounds; and everything that the
//! library leaves to its user or would panic at is dealt with.

mod drive;
mod effects;
mod members;
mod memory;
mod wire;

use std::collections::{BTreeMap, VecDeque};

use ::raft::eraftpb::{HardState, Message, MessageType};
use ::raft::{CAMPAIGN_TRANSFER, Config, INVALID_ID, RawNode, StateRole};
use rota_ports::{
    Change, ChangeRefused, Committed, Effects, EntryBytes, Frame, FrameSeq, LogStatus,
    MemberStatus, Members, MessageBytes, ProposeRefused, ReadId, ReplicatedLog, Role, SnapshotMeta,
    Stored,
};
use rota_types::limits::ENTRY_BYTES_MAX;
use rota_types::{LogIndex, ServerId};
use slog::{Discard, Logger, o};

use crate::StartError;
use crate::cursor::{Cursor, Put};
use crate::frames::Frames;
use crate::reads::Reads;
use members::History;
use memory::{Memory, Tag};

/// The first byte of what is remembered: Raft, version 1.
const STATE_TAG: u8 = 1;
/// How much of an append goes into one message, unless a single entry is larger.
const MESSAGE_BYTES_TARGET: u64 = 1 << 20;
/// Appends to one server that may be under way.
const APPENDS_MAX: usize = 256;

/// How a log behaves.
#[derive(Clone, Copy, Debug)]
pub struct RaftConfig {
    /// This server; not 0.
    pub id: ServerId,
    /// Where chance comes from: different on each server, and in each life of it.
    pub seed: u64,
    /// A follower that hears nothing for so many ticks, up to twice that, campaigns.
    pub election_ticks: u32,
    /// The leader is heard every so many ticks.
    pub heartbeat_ticks: u32,
    /// A server that is fetching a snapshot is pointed to it again after so many ticks.
    pub snapshot_ticks: u32,
    /// Own entries that may be in flight.
    pub entries_max: usize,
    /// Their bytes. An entry is taken, whatever its size, if nothing else is in flight.
    pub bytes_max: usize,
    /// Bytes of entries that are kept for servers that are a little behind the last snapshot.
    pub tail_bytes: usize,
}

impl RaftConfig {
    /// For ticks of 15 ms: elections after 150 to 300 ms of silence.
    #[must_use]
    pub fn new(id: ServerId, seed: u64) -> Self {
        Self {
            id,
            seed,
            election_ticks: 10,
            heartbeat_ticks: 2,
            snapshot_ticks: 100,
            entries_max: 4_096,
            bytes_max: 2 * ENTRY_BYTES_MAX,
            tail_bytes: 32 << 20,
        }
    }
}

/// The first frame of each founder's empty log, to be made durable before the log is opened. `after` is the last entry of a log of one
/// server that becomes a cluster, 0 otherwise. All founders have to be given the same; whoever joins later is given none.
#[must_use]
pub fn founding_frame(after: LogIndex, founders: &[ServerId]) -> Frame {
    let mut founders = founders.to_vec();
    founders.sort_unstable();
    founders.dedup();
    let mut bytes = Vec::new();
    bytes.servers(&founders);
    let first = after.next();
    let state = encode_state(&HardState { term: 1, commit: first.0, ..HardState::default() });
    Frame {
        seq: FrameSeq(1),
        first,
        entries: vec![memory::internal(1, Tag::Founding, &bytes)],
        state: Some(state.into()),
        reset: false,
    }
}

fn encode_state(state: &HardState) -> Vec<u8> {
    let mut bytes = vec![STATE_TAG];
    for number in [state.term, state.vote, state.commit] {
        bytes.number(number);
    }
    bytes
}

fn decode_state(bytes: &[u8]) -> Option<HardState> {
    let mut cursor = Cursor(bytes);
    (cursor.byte()? == STATE_TAG).then_some(())?;
    let (term, vote, commit) = (cursor.number()?, cursor.number()?, cursor.number()?);
    cursor.end(HardState { term, vote, commit, ..HardState::default() })
}

/// A log replicated by Raft.
pub struct RaftLog {
    node: RawNode<Memory>,
    config: RaftConfig,
    ticks: u64,
    /// Elections that this server has begun: no two draw the same timeout.
    campaigns: u64,
    frames: Frames,
    /// For each frame, the last of the library's answers that it holds.
    readies: VecDeque<(FrameSeq, u64)>,
    /// The last frame with a term or vote: a leader's messages wait for it.
    vote_frame: FrameSeq,
    /// The commit index that was remembered last.
    commit_saved: u64,
    /// A snapshot that is being made durable: its frame and index.
    restoring: Option<(FrameSeq, u64)>,
    send: Vec<(ServerId, MessageBytes)>,
    send_after: Vec<(ServerId, MessageBytes)>,
    committed: Vec<Committed>,
    /// The last entry handed out.
    handed: u64,
    history: History,
    /// Proposed, and not given to the library yet.
    queue: Vec<EntryBytes>,
    /// Given to the library or received from the leader, and not seen in its answers yet.
    recent: VecDeque<EntryBytes>,
    /// Own entries that are not committed: index and length.
    in_flight: VecDeque<(u64, usize)>,
    bytes: usize,
    reads: Reads,
    /// The message with the snapshot that is being fetched.
    fetching: Option<Message>,
    ask_install: Option<(SnapshotMeta, ServerId)>,
    /// Since when servers have been fetching a snapshot.
    pointed: BTreeMap<u64, u64>,
    /// When servers were heard last.
    heard: BTreeMap<u64, u64>,
    /// The term and role for which all of the above is.
    standing: (u64, StateRole),
    /// The term in which a hand-over began.
    handing_over: Option<u64>,
}

impl RaftLog {
    /// A log that goes on from what is stored, or waits for a leader's word if nothing is.
    ///
    /// # Errors
    /// If what is stored is of another protocol or version.
    pub fn new(config: RaftConfig, stored: Stored) -> Result<Self, StartError> {
        let Stored { snapshot, entries, state } = stored;
        let hard_state = match &state {
            Some(bytes) => decode_state(bytes).ok_or(StartError::Foreign)?,
            None => HardState::default(),
        };
        let start = snapshot.index.0;
        let last = start + entries.len() as u64;
        let history = History::new(start, snapshot.members.clone());
        // What was remembered may be older than a snapshot that was installed after it.
        let commit = hard_state.commit.clamp(start, last);
        let hard_state = HardState { commit, ..hard_state };
        let memory = Memory::new(snapshot, entries, hard_state);
        let election_tick = config.election_ticks as usize;
        let library = Config {
            id: config.id.0,
            election_tick,
            // Heartbeats are sent with the rounds of reads, and by the library only as a last resort.
            heartbeat_tick: election_tick.saturating_sub(1).max(1),
            applied: start,
            max_size_per_msg: MESSAGE_BYTES_TARGET,
            max_inflight_msgs: APPENDS_MAX,
            check_quorum: true,
            pre_vote: true,
            ..Config::default()
        };
        let node = RawNode::new(&library, memory, &Logger::root(Discard, o!()));
        let node = node.map_err(|error| StartError::Refused(error.to_string()))?;
        let standing = (node.raft.term, node.raft.state);
        let mut log = Self {
            node,
            config,
            ticks: 0,
            campaigns: 0,
            frames: Frames::new(last + 1),
            readies: VecDeque::new(),
            vote_frame: FrameSeq(0),
            commit_saved: commit,
            restoring: None,
            send: Vec::new(),
            send_after: Vec::new(),
            committed: Vec::new(),
            handed: start,
            history,
            queue: Vec::new(),
            recent: VecDeque::new(),
            in_flight: VecDeque::new(),
            bytes: 0,
            reads: Reads::default(),
            fetching: None,
            ask_install: None,
            pointed: BTreeMap::new(),
            heard: BTreeMap::new(),
            standing,
            handing_over: None,
        };
        log.after();
        Ok(log)
    }

    fn memory(&self) -> &Memory {
        self.node.store()
    }

    fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// Whether this server leads, and has handed out everything that its predecessors committed.
    fn leads(&self) -> bool {
        self.is_leader() && self.memory().term_of(self.handed) == Some(self.node.raft.term)
    }

    fn is_active(&self, server: u64) -> bool {
        let limit = u64::from(self.config.election_ticks);
        self.heard.get(&server).is_some_and(|tick| self.ticks - tick <= limit)
    }
}

impl ReplicatedLog for RaftLog {
    fn tick(&mut self) {
        self.ticks += 1;
        let elapsed = self.node.raft.election_elapsed;
        if self.is_leader() || self.may_campaign() {
            self.node.tick();
        }
        if !self.is_leader() && self.node.raft.election_elapsed < elapsed {
            self.campaigns += 1;
        }
        self.end_failed_hand_over();
        self.point_again();
        if self.is_leader() && self.ticks.is_multiple_of(u64::from(self.config.heartbeat_ticks)) {
            if self.leads() {
                self.begin_round();
            } else {
                self.node.ping();
            }
        }
        self.after();
    }

    fn step(&mut self, from: ServerId, message: &[u8]) {
        let Some((message, entries)) = wire::decode(from, self.config.id, message) else { return };
        self.heard.insert(from.0, self.ticks);
        if let Some(message) = self.admit(message) {
            self.recent.extend(entries.into_iter().map(|entry| entry.bytes));
            // An error says that the message is not for this server any more.
            let _stepped = self.node.step(message);
        }
        self.after();
        if !self.is_leader() {
            self.recent.clear();
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
        self.node.report_unreachable(peer.0);
        self.after();
    }

    fn persisted(&mut self, frame: FrameSeq) {
        self.frames.persisted(frame);
        self.note_durable();
        self.after();
    }

    fn snapshot_meta(&self, index: LogIndex) -> Option<SnapshotMeta> {
        if index.0 == 0 || index.0 > self.handed {
            return None;
        }
        let term = self.memory().term_of(index.0)?;
        let members = self.history.at(index.0)?.clone();
        Some(SnapshotMeta { index, term, members })
    }

    fn compact(&mut self, snapshot: SnapshotMeta) {
        if snapshot.index.0 > self.handed {
            return;
        }
        let tail_bytes = self.config.tail_bytes;
        self.node.mut_store().compact(snapshot, tail_bytes);
        self.history.forget_before(self.node.store().before());
    }

    fn installed(&mut self, snapshot: SnapshotMeta) {
        if let Some(message) = self.fetching.take() {
            self.restore(message, snapshot);
            self.after();
        }
    }

    fn install_failed(&mut self) {
        self.fetching = None;
    }

    fn change_members(&mut self, changes: &[Change]) -> Result<(), ChangeRefused> {
        if !self.leads() {
            return Err(ChangeRefused::NotLeader);
        }
        let members = self.history.now();
        if self.node.raft.has_pending_conf()
            || !members.outgoing.is_empty()
            || self.handing_over.is_some()
        {
            return Err(ChangeRefused::Busy);
        }
        members::check(members, changes, self.config.id)?;
        let proposed =
            self.node.propose_conf_change(members::encode(changes), members::to_library(changes));
        proposed.map_err(|_| ChangeRefused::Busy)?;
        self.after();
        Ok(())
    }

    fn transfer_leader(&mut self, to: ServerId) -> Result<(), ProposeRefused> {
        if !self.leads() {
            return Err(ProposeRefused::NotLeader);
        }
        let is_voter = self.history.now().voters.contains(&to);
        if !is_voter || to == self.config.id || !self.is_active(to.0) || self.handing_over.is_some()
        {
            return Err(ProposeRefused::Busy);
        }
        self.flush();
        self.handing_over = Some(self.node.raft.term);
        self.node.transfer_leader(to.0);
        self.after();
        Ok(())
    }

    fn poll(&mut self) -> Effects {
        self.flush();
        self.after();
        let frame = self.frames.take();
        let mut send = std::mem::take(&mut self.send);
        let mut send_after = std::mem::take(&mut self.send_after);
        if self.frames.is_settled() {
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
        let raft = &self.node.raft;
        let leads = self.leads();
        LogStatus {
            leads,
            leader: (raft.leader_id != INVALID_ID).then_some(ServerId(raft.leader_id)),
            term: raft.term,
            last: LogIndex(raft.raft_log.last_index() + self.queue.len() as u64),
            committed: LogIndex(self.handed),
            // From the moment a hand-over begins the other one may lead at any time, lease or no lease.
            confirmed_tick: if leads && self.handing_over.is_none() {
                self.reads.confirmed_tick()
            } else {
                0
            },
            // One tick for the part of a tick that has passed when a message comes in, one for clocks that differ.
            lease_ticks: u64::from(self.config.election_ticks.saturating_sub(2)),
        }
    }

    fn members(&self) -> Vec<MemberStatus> {
        let Members { voters, outgoing, learners, .. } = self.history.now();
        let leads = self.is_leader();
        let status = |id: &ServerId, role| MemberStatus {
            id: *id,
            role,
            matched: leads
                .then(|| self.node.raft.prs().get(id.0).map(|peer| LogIndex(peer.matched)))
                .flatten(),
            is_active: *id == self.config.id || (leads && self.is_active(id.0)),
        };
        let leaving = outgoing.iter().filter(|id| !voters.contains(id));
        let voters = voters.iter().chain(leaving).map(|id| status(id, Role::Voter));
        let learners = learners.iter().map(|id| status(id, Role::Learner));
        let mut members: Vec<MemberStatus> = voters.chain(learners).collect();
        members.sort_unstable_by_key(|member| member.id);
        members
    }
}
