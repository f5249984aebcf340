//! The log in the place of consensus: it does everything that a replicated log may do, far more often than a real one does it.
//!
//! All servers of a run share one [`Cloud`], which knows what is committed and who leads. Each server's [`CloudLog`] shows as much of that
//! as the adversary lets it see: entries arrive late, a server that was overtaken believes that it leads and is never answered, what it
//! had taken is committed in part or lost, and a server that falls behind what is kept has to get an image.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rota_ports::{
    Change, ChangeRefused, Committed, Effects, EntryBytes, Frame, FrameSeq, LogEntry, LogStatus,
    MemberStatus, Members, ProposeRefused, ReadId, ReplicatedLog, Role, SnapshotMeta,
};
use rota_types::{LogIndex, ServerId};

use crate::rng::Rng;

/// What all servers share.
#[derive(Debug)]
pub(crate) struct Cloud {
    rng: Rng,
    /// Proposals are refused now and then.
    pub(crate) busy: bool,
    /// Committed entries behind `dropped`, each with its term.
    entries: VecDeque<(u64, Option<EntryBytes>)>,
    dropped: u64,
    term: u64,
    leader: Option<ServerId>,
    /// Taken by the leader and not committed, each with the frame that has to be durable.
    limbo: VecDeque<(FrameSeq, EntryBytes)>,
    /// Who has an image of at least what was dropped.
    source: Option<ServerId>,
    views: BTreeMap<ServerId, View>,
    /// What happened to entries that were on their way when a leader fell: kept, lost.
    pub(crate) resolved: (u64, u64),
}

/// What the adversary lets a server see.
#[derive(Clone, Copy, Debug, Default)]
struct View {
    upto: u64,
    term: u64,
    leader: Option<ServerId>,
}

/// One server's end.
pub(crate) struct CloudLog {
    id: ServerId,
    cloud: Shared,
    members: Vec<ServerId>,
    handed: u64,
    last_frame: FrameSeq,
    framed: bool,
    reads: Vec<ReadId>,
    installing: bool,
}

/// The cloud, as its servers hold it.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<Mutex<Cloud>>);

impl Shared {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Cloud {
            rng: Rng::of(seed, 5),
            busy: false,
            entries: VecDeque::new(),
            dropped: 0,
            term: 0,
            leader: None,
            limbo: VecDeque::new(),
            source: None,
            views: BTreeMap::new(),
            resolved: (0, 0),
        })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Cloud> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cloud {
    fn last(&self) -> u64 {
        self.dropped.saturating_add(self.entries.len() as u64)
    }

    /// Entries up to this one are gone.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(crate) fn leader(&self) -> Option<ServerId> {
        self.leader
    }

    /// The leader falls, whether it knows or not. A beginning of what it had taken is committed, the rest never will be.
    pub(crate) fn depose(&mut self) {
        if self.leader.take().is_none() {
            return;
        }
        let kept = self.rng.below(self.limbo.len() as u64 + 1);
        let term = self.term;
        for (at, (_, entry)) in std::mem::take(&mut self.limbo).into_iter().enumerate() {
            if (at as u64) < kept {
                self.entries.push_back((term, Some(entry)));
                self.resolved.0 += 1;
            } else {
                self.resolved.1 += 1;
            }
        }
    }

    /// A server comes to lead. It learns of that, and of everything committed, with its next look; the others later.
    pub(crate) fn elect(&mut self, id: ServerId) {
        self.depose();
        self.term += 1;
        self.leader = Some(id);
        self.entries.push_back((self.term, None));
        let upto = self.last();
        let (term, leader) = (self.term, Some(id));
        self.views.insert(id, View { upto, term, leader });
    }

    /// Lets a server see a little more, or everything. Returns whether it sees everything now.
    pub(crate) fn stir(&mut self, id: ServerId, everything: bool) -> bool {
        let last = self.last();
        let view = self.views.entry(id).or_default();
        let more = last.saturating_sub(view.upto);
        view.upto += if everything { more } else { self.rng.below(more + 1) };
        if everything || view.upto == last && self.rng.chance(50) {
            (view.term, view.leader) = (self.term, self.leader);
        }
        view.upto == last && view.term == self.term && view.leader == self.leader
    }
}

impl CloudLog {
    /// Goes on behind `index`, up to which this server has an image.
    pub(crate) fn new(id: ServerId, cloud: &Shared, members: &[ServerId], index: LogIndex) -> Self {
        cloud.lock().views.insert(id, View { upto: index.0, ..View::default() });
        Self {
            id,
            cloud: cloud.clone(),
            members: members.to_vec(),
            handed: index.0,
            last_frame: FrameSeq(0),
            framed: true,
            reads: Vec::new(),
            installing: false,
        }
    }

    fn view(&self, cloud: &Cloud) -> View {
        cloud.views.get(&self.id).copied().unwrap_or_default()
    }

    /// Whether this server believes that it leads.
    fn believes(&self, view: View) -> bool {
        view.leader == Some(self.id) && self.handed >= view.upto
    }

    /// Whether it does.
    fn leads(&self, cloud: &Cloud) -> bool {
        cloud.leader == Some(self.id) && self.view(cloud).term == cloud.term
    }
}

impl ReplicatedLog for CloudLog {
    fn tick(&mut self) {
        // Time means nothing to the adversary.
    }

    fn step(&mut self, _from: ServerId, _message: &[u8]) {
        // Servers speak through the cloud.
    }

    fn propose(&mut self, entry: EntryBytes) -> Result<(), ProposeRefused> {
        let mut cloud = self.cloud.lock();
        if !self.believes(self.view(&cloud)) {
            return Err(ProposeRefused::NotLeader);
        }
        if cloud.busy && cloud.rng.chance(20) {
            return Err(ProposeRefused::Busy);
        }
        self.framed = false;
        if self.leads(&cloud) {
            cloud.limbo.push_back((FrameSeq(self.last_frame.0 + 1), entry));
        }
        Ok(())
    }

    fn read_barrier(&mut self, read: ReadId) -> Result<(), ProposeRefused> {
        let cloud = self.cloud.lock();
        if !self.believes(self.view(&cloud)) {
            return Err(ProposeRefused::NotLeader);
        }
        self.reads.push(read);
        Ok(())
    }

    fn link_reset(&mut self, _peer: ServerId) {}

    fn persisted(&mut self, frame: FrameSeq) {
        let mut cloud = self.cloud.lock();
        if !self.leads(&cloud) {
            return;
        }
        let term = cloud.term;
        while let Some((_, entry)) = cloud.limbo.pop_front_if(|(seq, _)| *seq <= frame) {
            cloud.entries.push_back((term, Some(entry)));
        }
        let upto = cloud.last();
        if let Some(view) = cloud.views.get_mut(&self.id) {
            view.upto = upto;
        }
    }

    fn snapshot_meta(&self, index: LogIndex) -> Option<SnapshotMeta> {
        let cloud = self.cloud.lock();
        let at = usize::try_from(index.0.checked_sub(cloud.dropped)?.checked_sub(1)?).ok()?;
        let (term, _) = cloud.entries.get(at)?;
        Some(SnapshotMeta { index, term: *term, members: Members::default() })
    }

    fn compact(&mut self, snapshot: SnapshotMeta) {
        let mut cloud = self.cloud.lock();
        let more = snapshot.index.0.saturating_sub(cloud.dropped);
        let more = usize::try_from(more).unwrap_or(usize::MAX).min(cloud.entries.len());
        cloud.entries.drain(..more);
        cloud.dropped += more as u64;
        cloud.source = Some(self.id);
    }

    fn installed(&mut self, snapshot: SnapshotMeta) {
        self.handed = self.handed.max(snapshot.index.0);
        self.installing = false;
    }

    fn install_failed(&mut self) {
        self.installing = false;
    }

    fn change_members(&mut self, _changes: &[Change]) -> Result<(), ChangeRefused> {
        Err(ChangeRefused::Busy)
    }

    fn transfer_leader(&mut self, to: ServerId) -> Result<(), ProposeRefused> {
        let mut cloud = self.cloud.lock();
        if !self.leads(&cloud) {
            return Err(ProposeRefused::NotLeader);
        }
        if !self.members.contains(&to) || to == self.id {
            return Err(ProposeRefused::Busy);
        }
        cloud.elect(to);
        Ok(())
    }

    fn poll(&mut self) -> Effects {
        let mut cloud = self.cloud.lock();
        let mut effects = Effects::default();
        if !std::mem::replace(&mut self.framed, true) {
            self.last_frame = FrameSeq(self.last_frame.0 + 1);
            let entries = vec![LogEntry::command(EntryBytes::from([]))];
            let first = LogIndex(self.handed + 1);
            effects.frame =
                Some(Frame { seq: self.last_frame, first, entries, state: None, reset: false });
        }
        let view = self.view(&cloud);
        if self.handed < cloud.dropped {
            if !self.installing
                && view.upto > self.handed
                && let Some(from) = cloud.source.filter(|from| *from != self.id)
            {
                self.installing = true;
                let index = LogIndex(cloud.dropped);
                let meta = SnapshotMeta { index, term: view.term, members: Members::default() };
                effects.install = Some((meta, from));
            }
            return effects;
        }
        while self.handed < view.upto {
            let at = usize::try_from(self.handed - cloud.dropped).unwrap_or(usize::MAX);
            let Some((_, entry)) = cloud.entries.get(at) else { break };
            self.handed += 1;
            effects
                .committed
                .push(Committed { index: LogIndex(self.handed), entry: entry.clone() });
        }
        if !self.believes(view) {
            self.reads.clear();
        } else if self.leads(&cloud) && !self.reads.is_empty() && cloud.rng.chance(70) {
            let index = LogIndex(cloud.last());
            effects.reads.extend(self.reads.drain(..).map(|read| (read, index)));
        }
        effects
    }

    fn status(&self) -> LogStatus {
        let cloud = self.cloud.lock();
        let view = self.view(&cloud);
        LogStatus {
            leads: self.believes(view),
            leader: view.leader,
            term: view.term,
            last: LogIndex(cloud.last()),
            committed: LogIndex(self.handed),
            confirmed_tick: 0,
            lease_ticks: u64::MAX,
        }
    }

    fn members(&self) -> Vec<MemberStatus> {
        let cloud = self.cloud.lock();
        let status = |id: &ServerId| {
            let upto = cloud.views.get(id).map(|view| LogIndex(view.upto));
            MemberStatus { id: *id, role: Role::Voter, matched: upto, is_active: true }
        };
        self.members.iter().map(status).collect()
    }
}
