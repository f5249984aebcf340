//! Simulated servers: the real machine on a simulated disk, and what its host does to it.

use std::rc::Rc;

use rota_core::command::{Command, Entry, Outcome, Reply};
use rota_ports::FrameSeq;
use rota_server_core::{Answer, Asker as Whose, Attach, Machine, Moment, Proposal, Standing};
use rota_types::{LogIndex, Monotonic, ServerId, Span, Timestamp};

use crate::disk::Disk;
use crate::options::{Fault, Ground, Options};
use crate::shell::{Asker, Done, Hands, Outbox, Want};
use crate::world::{ConnId, Happening, MILLI, Told, World};

/// The wall clock when the world begins.
const EPOCH: u64 = 1_700_000_000_000_000;

/// A host with its disk, and the server that runs on it.
pub(crate) struct Host {
    pub(crate) id: ServerId,
    pub(crate) disk: Disk,
    pub(crate) process: Option<Process>,
    /// Counts starts: what belongs to an earlier one does not happen any more.
    pub(crate) boot: u64,
    pub(crate) crashed_at: u64,
    /// How far the wall clock is ahead, or behind if negative.
    pub(crate) wall_offset: i64,
    /// How much faster its clock runs, in millionths.
    drift: u64,
    pub(crate) is_paused: bool,
    /// Until when the adversary shows it nothing new.
    pub(crate) blind_until: u64,
    /// When it went on last: what should have woken it meanwhile wakes it at that moment.
    pub(crate) resumed_at: u64,
    /// What has to wait until the server goes on.
    pub(crate) deferred: Vec<Happening>,
    /// Syncs take so much longer.
    pub(crate) slowness: u64,
    /// A bit of its disk was flipped.
    pub(crate) was_damaged: bool,
    /// It never comes back: its disk is damaged, or it was removed.
    pub(crate) is_retired: bool,
    /// A crash waits for the next frame that is written and not durable.
    pub(crate) ambush: bool,
}

/// A server that runs.
pub(crate) struct Process {
    pub(crate) machine: Machine<Hands>,
    pub(crate) hands: Hands,
    pub(crate) standing: Standing,
    pub(crate) started_at: u64,
    pub(crate) is_syncing: bool,
    /// When it is woken.
    pub(crate) alarm: Option<u64>,
    /// Entries applied since the last snapshot.
    pub(crate) entries: u64,
}

impl Host {
    pub(crate) fn new(number: usize, options: &Options) -> Self {
        let id = ServerId(number as u64 + 1);
        let disk = match options.ground {
            Ground::Logic => Disk::memo(),
            Ground::Solo | Ground::Raft | Ground::Paxos => Disk::real(id),
        };
        Self {
            id,
            disk,
            process: None,
            boot: 0,
            crashed_at: 0,
            wall_offset: 0,
            drift: id.0.wrapping_mul(7_919) % 500,
            is_paused: false,
            blind_until: 0,
            resumed_at: 0,
            deferred: Vec::new(),
            slowness: 1,
            was_damaged: false,
            is_retired: false,
            ambush: false,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    pub(crate) fn is_boot(&self, boot: u64) -> bool {
        self.is_up() && self.boot == boot
    }

    /// Whether it believes that it leads, and in which term.
    pub(crate) fn leads(&self) -> Option<u64> {
        let standing = &self.process.as_ref()?.standing;
        standing.leads.then_some(standing.term)
    }

    pub(crate) fn applied(&self) -> LogIndex {
        self.process.as_ref().map_or(LogIndex(0), |process| process.machine.state().index())
    }
}

impl World {
    pub(crate) fn lease(&self) -> Span {
        Span::from_millis(self.options.lease_millis)
    }

    pub(crate) fn is_logic(&self) -> bool {
        self.options.ground == Ground::Logic
    }

    /// The wall clock of one server's host; without one, a clock that is right.
    pub(crate) fn wall(&self, server: Option<usize>) -> Timestamp {
        let offset = server.and_then(|at| self.hosts.get(at)).map_or(0, |host| host.wall_offset);
        Timestamp(EPOCH.saturating_add(self.now).saturating_add_signed(offset))
    }

    pub(crate) fn moment(&self, server: usize) -> Moment {
        let host = &self.hosts[server];
        let started_at = host.process.as_ref().map_or(self.now, |process| process.started_at);
        let up = self.now.saturating_sub(started_at);
        let up = up.saturating_add(up / 1_000_000 * host.drift);
        // A monotonic clock of its own for each process: nothing may compare it with an earlier one's.
        let monotonic = Monotonic(up.saturating_add(host.boot.saturating_mul(977)));
        Moment { monotonic, wall: self.wall(Some(server)) }
    }

    /// The server that leads, by its own belief, in the latest term.
    pub(crate) fn leader(&self) -> Option<usize> {
        let leading = self.hosts.iter().enumerate().filter(|(_, host)| !host.is_paused);
        let leading = leading.filter_map(|(at, host)| host.leads().map(|term| (term, at)));
        leading.max().map(|(_, at)| at)
    }

    pub(crate) fn number_of(&self, id: ServerId) -> Option<usize> {
        self.hosts.iter().position(|host| host.id == id)
    }

    /// Tells a server something, and does what it wants.
    pub(crate) fn drive(
        &mut self,
        server: usize,
        tell: impl FnOnce(&mut Machine<Hands>, &mut Hands),
    ) {
        let (moment, known) = (self.moment(server), self.oracle.index());
        let Some(Process { machine, hands, .. }) =
            self.hosts.get_mut(server).and_then(|host| host.process.as_mut())
        else {
            return;
        };
        hands.now = moment;
        hands.known = known;
        tell(machine, hands);
        machine.advance(hands);
        machine.settle(hands);
        self.carry_out(server);
    }

    fn carry_out(&mut self, server: usize) {
        let Some(process) = &mut self.hosts[server].process else { return };
        let wants = std::mem::take(&mut process.hands.wants);
        let filled = std::mem::take(&mut *process.hands.filled.borrow_mut());
        let boot = self.hosts[server].boot;
        let mut attached = Vec::new();
        let mut worked = false;
        for want in wants {
            worked = true;
            match want {
                Want::Append(frame) => self.hosts[server].disk.append(frame),
                Want::Send(to, message) => self.send_peer(server, to, message),
                Want::Connect(peers) => self.connect_peers(server, &peers),
                Want::Fetch(from, least) => self.fetch(server, from, least),
                Want::Applied(done) => self.applied(server, *done),
                Want::Answer(asker, answer) => attached.extend(self.answer(asker, answer)),
                Want::Served(request, index) => self.read_served(request, index),
                Want::Stood(standing) => self.stood(server, standing),
                Want::Promoted(done) => {
                    self.counters.add("learner becomes a voter", u64::from(done));
                }
                Want::GivesUp(node) => self.note_loss(server, node),
                Want::Wrong(what) => self.fail(what),
                Want::Fail(reason) => self.fail(format!("server {server} can't go on: {reason}")),
            }
        }
        for conn in filled {
            self.flush(conn);
        }
        for (conn, attach) in attached {
            self.conns.entry(conn).and_modify(|conn| conn.node = Some(attach.node));
            self.drive(server, |machine, hands| machine.attach(attach, hands));
        }
        if self.hosts[server].is_boot(boot) {
            self.start_sync(server);
            self.set_alarm(server);
            if worked {
                self.nothing_is_left_to_do(server);
                self.maybe_snapshot(server);
            }
        }
    }

    fn set_alarm(&mut self, server: usize) {
        let (moment, now) = (self.moment(server), self.now);
        let host = &mut self.hosts[server];
        let boot = host.boot;
        let Some(process) = &mut host.process else { return };
        let Some(wake) = process.machine.next_wake() else { return };
        let at = now.saturating_add(wake.since(moment.monotonic).0);
        if process.alarm.is_none_or(|alarm| alarm > at || alarm < now) {
            process.alarm = Some(at);
            self.at(at, Happening::ServerWake { server, boot, at });
        }
    }

    pub(crate) fn server_wakes(&mut self, server: usize, boot: u64, at: u64) {
        let host = &mut self.hosts[server];
        if !host.is_boot(boot) {
            return;
        }
        if let Some(process) = host.process.as_mut().filter(|process| process.alarm == Some(at)) {
            process.alarm = None;
            self.drive(server, |_, _| {});
        }
    }

    fn start_sync(&mut self, server: usize) {
        let host = &mut self.hosts[server];
        let (boot, slowness) = (host.boot, host.slowness);
        let Some(upto) = host.disk.waiting() else { return };
        let Some(process) = host.process.as_mut().filter(|process| !process.is_syncing) else {
            return;
        };
        process.is_syncing = true;
        let most = self.options.sync_millis.max(1).saturating_mul(MILLI);
        let delay = self.rng.spread(50, most).saturating_mul(slowness);
        self.after(delay, Happening::Synced { server, boot, upto });
        if std::mem::take(&mut self.hosts[server].ambush) && !self.finale {
            let when = self.rng.below(delay);
            let power = self.rng.chance(50);
            self.after(when, Happening::ServerCrash { server, power });
            let outage = self.rng.spread(10 * MILLI, 3_000 * MILLI);
            self.after(when.saturating_add(outage), Happening::ServerStart(server));
        }
    }

    pub(crate) fn synced(&mut self, server: usize, boot: u64, upto: FrameSeq) {
        let host = &mut self.hosts[server];
        if !host.is_boot(boot) {
            return;
        }
        if let Some(process) = &mut host.process {
            process.is_syncing = false;
        }
        if let Err(error) = host.disk.sync(upto) {
            return self.disk_failed(server, &error);
        }
        self.drive(server, |machine, hands| machine.persisted(upto, hands));
    }

    /// After a failed write nobody knows what is on the disk: the process ends, and starts again from what is there.
    pub(crate) fn disk_failed(&mut self, server: usize, error: &str) {
        // A frame that does not fit is the log's mistake, and no disk's.
        if !self.options.faults.has(Fault::FailingDisk) || error.starts_with("frame starts at") {
            return self.fail(format!("server {server}: {error}"));
        }
        self.note_trace(|| format!("server {server} ends: {error}"));
        self.counters.note("a disk failed and its server ended");
        self.server_crash(server, false);
        let pause = self.rng.spread(10 * MILLI, 1_000 * MILLI);
        self.after(pause, Happening::ServerStart(server));
    }

    pub(crate) fn server_crash(&mut self, server: usize, power: bool) {
        let Some(process) = self.hosts[server].process.take() else { return };
        let unsynced = self.hosts[server].disk.waiting().is_some();
        self.counters.add("crash with unsynced frames", u64::from(unsynced));
        self.counters.add("crash of a leader", u64::from(process.standing.leads));
        let idle = process.machine.is_idle();
        self.counters.add("crash loses sight of a proposal", u64::from(!idle));
        drop(process);
        let (now, host) = (self.now, &mut self.hosts[server]);
        host.crashed_at = now;
        host.is_paused = false;
        host.disk.crash(power, &mut self.rng);
        self.drop_deferred(server);
        if self.cloud.lock().leader() == Some(self.hosts[server].id) {
            self.cloud.lock().depose();
            let delay = self.rng.spread(MILLI, 2_000 * MILLI);
            self.after(delay, Happening::Election);
        }
        self.break_conns_of(server);
    }

    /// What a process that stood still had not heard yet dies with it.
    pub(crate) fn drop_deferred(&mut self, server: usize) {
        for happening in std::mem::take(&mut self.hosts[server].deferred) {
            let late =
                matches!(happening, Happening::LateRequest { .. } | Happening::StrayReports { .. });
            self.late = self.late.saturating_sub(u64::from(late));
        }
    }

    fn stood(&mut self, server: usize, standing: Standing) {
        self.note_trace(|| format!("server {server} knows: {standing:?}"));
        let before = self.hosts[server].leads();
        if before.is_some() && !standing.leads {
            self.counters.note("a server ceases to lead");
        }
        let others = self.hosts.iter().filter(|host| host.id != self.hosts[server].id);
        let others = others.filter(|host| host.leads().is_some()).count() as u64;
        if standing.leads && before != Some(standing.term) {
            self.counters.note("a server begins to lead");
            self.counters.add("two servers believe that they lead", others);
        }
        if let Some(process) = &mut self.hosts[server].process {
            process.standing = standing;
        }
    }

    /// An entry was applied: the witness follows, or compares.
    fn applied(&mut self, server: usize, done: Done) {
        if let Some(process) = &mut self.hosts[server].process {
            process.entries += 1;
        }
        let Done { index, stamps: (at, steady), is_internal, commands, outcomes, events, digest } =
            done;
        let applied = rota_core::Applied { outcomes, events };
        let verdict = if index <= self.oracle.index() {
            self.oracle.repeated(index, &applied)
        } else if is_internal {
            self.oracle.internal(index)
        } else {
            let entry = Entry { index, at, steady, commands: commands.unwrap_or_default() };
            self.note_trace(|| format!("entry {index} {:?} -> {applied:?}", entry.commands));
            self.oracle.commit(&entry, Some(&applied), &self.truth)
        };
        self.judge(verdict);
        if let Some(digest) = digest {
            let verdict = self.oracle.same_digest(index, digest);
            self.judge(verdict);
        }
    }

    /// Tells whoever asked. Returns the session that may take its node over now.
    fn answer(&mut self, asker: Asker, answer: Answer) -> Option<(ConnId, Attach<Outbox>)> {
        match (asker, answer) {
            (Asker::Client(request), Answer::Applied(index, outcomes)) => {
                if let Some(outcome) = outcomes.into_iter().next() {
                    self.answer_client(request, Told::Outcome(index, outcome));
                }
                None
            }
            (Asker::Client(request), Answer::NotLeader) => {
                self.answer_client(request, Told::NotDone);
                None
            }
            (Asker::Client(request), Answer::Unknown) => {
                self.counters.note("outcome unknown");
                self.answer_client(request, Told::Unknown);
                None
            }
            (Asker::Worker(conn), Answer::Applied(_, outcomes)) => self.registered(conn, &outcomes),
            (Asker::Worker(conn), Answer::NotLeader | Answer::Unknown) => {
                self.end_session(conn);
                None
            }
        }
    }

    fn registered(&mut self, id: ConnId, outcomes: &[Outcome]) -> Option<(ConnId, Attach<Outbox>)> {
        let Some(Ok(Reply::Node(node))) = outcomes.first() else { return None };
        let conn = self.conns.get_mut(&id).filter(|conn| !conn.broken)?;
        let process = self.hosts.get(conn.server)?.process.as_ref()?;
        let outbox = Outbox::new(id, &process.hands.filled);
        conn.pending = Some(Rc::clone(&outbox.pending));
        let incarnation = conn.incarnation;
        Some((id, Attach { node: *node, session: id, incarnation, outbox }))
    }

    /// Somebody with the right to proposes something; nobody waits for the answer.
    pub(crate) fn operator_proposes(&mut self, command: Command) {
        if let Some(leader) = self.leader() {
            self.propose(leader, command, None);
        }
    }

    pub(crate) fn propose(&mut self, server: usize, command: Command, asker: Option<Asker>) {
        let asker = asker.map_or(Whose::Nobody, Whose::Outside);
        let proposal = Proposal { commands: vec![command], bytes: 256, asker };
        self.drive(server, |machine, hands| machine.propose(proposal, hands));
    }
}
