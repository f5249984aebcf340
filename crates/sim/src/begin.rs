//! How a simulated server starts from what is on its disk, and the snapshots that it makes.

use rota_consensus::paxos::{self, PaxosConfig, PaxosLog};
use rota_consensus::raft::{self, RaftConfig, RaftLog};
use rota_core::LEVEL;
use rota_core::command::Entry;
use rota_core::server::ServerSpec;
use rota_ports::{Frame, ReplicatedLog, Stored};
use rota_server_core::{Machine, Parts, Standing};
use rota_store::solo::{SoloLimits, SoloLog};
use rota_types::{LogIndex, ServerId};

use crate::cloud::CloudLog;
use crate::disk::Found;
use crate::options::{Fault, Ground};
use crate::server::Process;
use crate::shell::Hands;
use crate::world::{Happening, MILLI, World};

/// Entries after which a snapshot may be made.
const SNAPSHOT_AFTER: u64 = 8;

impl World {
    pub(crate) fn server_start(&mut self, server: usize) {
        let host = &mut self.hosts[server];
        if host.is_up() || host.is_retired {
            return;
        }
        host.disk.make_room();
        let found = match host.disk.open() {
            Ok(found) => found,
            Err(error) => return self.cannot_start(server, error),
        };
        self.hosts[server].boot += 1;
        self.hosts[server].was_damaged = false;
        let restarted = self.hosts[server].boot > 1;
        let begins_with_image = found.stored.snapshot.index > LogIndex(0);
        self.counters.add("restart from a snapshot", u64::from(restarted && begins_with_image));
        self.counters.add("damage made good at a start", found.notes as u64);
        let verdict = self.oracle.begins_with(&found.state);
        self.judge(verdict);
        let Some((parts, seen)) = self.parts(server, found) else { return };
        for (entry, applied) in seen {
            let verdict = self.oracle.commit(&entry, Some(&applied), &self.truth);
            self.judge(verdict);
        }
        let mut hands = Hands { now: self.moment(server), ..Hands::default() };
        let machine = Machine::new(parts, &mut hands);
        self.hosts[server].process = Some(Process {
            machine,
            hands,
            standing: Standing::default(),
            started_at: self.now,
            is_syncing: false,
            alarm: None,
            entries: 0,
        });
        if self.is_logic() {
            self.after(MILLI, Happening::CloudStirs { server, boot: self.hosts[server].boot });
        }
        let outage = self.now.saturating_sub(self.hosts[server].crashed_at);
        if restarted && outage > self.lease().0 && self.hosts.len() == 1 {
            let state = self.oracle.state();
            let kept = state.nodes().flat_map(|(node, _)| state.desired(node));
            let kept = kept.filter(|(attempt, _)| self.truth.is_running(*attempt)).count();
            self.counters.add("attempt survives an outage", kept as u64);
        }
        self.introduce(server);
        self.drive(server, |_, _| {});
    }

    /// What is damaged is not served: the server stays away, and another one takes its place.
    fn cannot_start(&mut self, server: usize, error: String) {
        self.note_trace(|| format!("server {server} refuses to start: {error}"));
        if !self.hosts[server].was_damaged {
            return self.fail(format!("server {server} can't start: {error}"));
        }
        self.counters.note("a damaged server refuses to start");
        self.hosts[server].is_retired = true;
        self.replace(server);
    }

    /// What a server is made of. With them, what a log of one server finds committed on its disk.
    fn parts(
        &mut self,
        server: usize,
        found: Found,
    ) -> Option<(Parts, Vec<(Entry, rota_core::Applied)>)> {
        let Found { mut state, stored, is_new, .. } = found;
        let id = self.hosts[server].id;
        let mut seen = Vec::new();
        let seed = self.rng.draw();
        let log: Box<dyn ReplicatedLog> = match self.options.ground {
            Ground::Logic => {
                let members: Vec<ServerId> = self.founders();
                Box::new(CloudLog::new(id, &self.cloud, &members, state.index()))
            }
            Ground::Solo => {
                let first = state.index().next();
                for (entry, at) in stored.entries.iter().zip(first.0..) {
                    let decoded = rota_wire::log::decode_entry(LogIndex(at), &entry.bytes);
                    let Ok(entry) = decoded else {
                        self.fail(format!("entry {at} on the disk can't be read"));
                        return None;
                    };
                    let applied = state.apply(&entry);
                    if entry.index > self.oracle.index() {
                        seen.push((entry, applied));
                    }
                }
                Box::new(SoloLog::new(state.index(), SoloLimits::default()))
            }
            Ground::Raft | Ground::Paxos => match self.open_log(server, stored, (is_new, seed)) {
                Ok(log) => log,
                Err(error) => {
                    self.fail(format!("server {server}: {error}"));
                    return None;
                }
            },
        };
        let configured = self.founders().into_iter().map(|id| (id, address(id).into())).collect();
        // Nobody else is spoken to, and no ticks are needed, where the adversary is the log.
        let is_sole = self.is_sole() || self.is_logic();
        let parts = Parts { state, lease: self.lease(), log, own: spec(id), configured, is_sole };
        Some((parts, seen))
    }

    pub(crate) fn is_sole(&self) -> bool {
        self.options.ground == Ground::Solo || self.is_logic() && self.options.servers == 1
    }

    fn founders(&self) -> Vec<ServerId> {
        (1..=u64::from(self.options.servers)).map(ServerId).collect()
    }

    fn open_log(
        &mut self,
        server: usize,
        stored: Stored,
        (is_new, seed): (bool, u64),
    ) -> Result<Box<dyn ReplicatedLog>, String> {
        let founders = self.founders();
        let host = &mut self.hosts[server];
        let id = host.id;
        let is_raft = self.options.ground == Ground::Raft;
        let mut stored = stored;
        if is_new && founders.contains(&id) {
            let frame = if is_raft {
                raft::founding_frame(LogIndex(0), &founders)
            } else {
                paxos::founding_frame(LogIndex(0), &founders)
            };
            let Frame { entries, state, seq, .. } = frame.clone();
            host.disk.append(frame);
            host.disk.sync(seq)?;
            stored = Stored { entries, state, ..stored };
        }
        if is_raft {
            let log = RaftLog::new(RaftConfig::new(id, seed), stored);
            Ok(Box::new(log.map_err(|error| error.to_string())?))
        } else {
            let log = PaxosLog::new(PaxosConfig::new(id, seed), stored);
            Ok(Box::new(log.map_err(|error| error.to_string())?))
        }
    }

    pub(crate) fn maybe_snapshot(&mut self, server: usize) {
        let Some(process) = &self.hosts[server].process else { return };
        let enough = process.entries > SNAPSHOT_AFTER && self.rng.chance(15);
        if !enough || !self.options.faults.has(Fault::Snapshot) {
            return;
        }
        let state = process.machine.state();
        let index = state.index();
        let Some(meta) = process.machine.replica().snapshot_meta(index) else { return };
        let live = state.nodes().any(|(_, node)| !node.live.is_empty());
        self.counters.add("snapshot while attempts run", u64::from(live));
        if index == self.oracle.index() {
            let verdict = self.oracle.restores(state);
            self.counters.note("snapshot restored beside the running server");
            self.judge(verdict);
        }
        let host = &mut self.hosts[server];
        let Some(process) = &mut host.process else { return };
        process.entries = 0;
        let state = process.machine.state();
        let digest = state.digest();
        let verdict = self.oracle.same_digest(index, digest);
        let stored = host.disk.snapshot(&meta, (state, digest));
        self.judge(verdict);
        match stored {
            Ok(Some(keep)) => {
                self.drive(server, |machine, _| machine.compact(meta));
                if let Err(error) = self.hosts[server].disk.truncate_before(keep) {
                    self.disk_failed(server, &error);
                }
            }
            Ok(None) => self.counters.note("snapshot has to wait for the log"),
            Err(error) if error.starts_with("I7") => self.fail(error),
            Err(error) => self.disk_failed(server, &error),
        }
    }
}

/// Where a server is reached.
pub(crate) fn address(id: ServerId) -> String {
    format!("s{id}")
}

/// What a server says of itself.
pub(crate) fn spec(id: ServerId) -> ServerSpec {
    ServerSpec { id, address: address(id).into(), version: "sim".into(), level: LEVEL }
}
