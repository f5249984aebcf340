//! The machine against hand-written stories and against a simulated world.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;

use rota_types::{AttemptId, JobId, Monotonic, Span, TaskId, Timestamp};

use crate::{Desired, FENCE_MARGIN_DIVISOR, Input, Machine, Output, Session, Start, StopReason};

const LEASE: Span = Span(1_000);
const HEARTBEAT: Span = Span(300);
/// When every attempt was placed, unless a test says otherwise.
const PLACED_AT: Timestamp = Timestamp(5);
/// The part of the lease in which attempts may run.
const SAFE: u64 = LEASE.0 - LEASE.0 / FENCE_MARGIN_DIVISOR;

fn attempt(index: u32) -> AttemptId {
    AttemptId { task: TaskId { job: JobId(1), index }, number: 1 }
}

fn at(micros: u64) -> Monotonic {
    Monotonic(micros)
}

fn session(sent: u64, sole_server: bool) -> Input {
    Input::SessionOpened(Session {
        sent: at(sent),
        lease: LEASE,
        heartbeat: HEARTBEAT,
        sole_server,
    })
}

fn start(indexes: &[u32]) -> Vec<Start> {
    indexes.iter().map(|index| placed(*index, PLACED_AT)).collect()
}

fn placed(index: u32, placed_at: Timestamp) -> Start {
    Start { attempt: attempt(index), placed_at, stop: None, behind: None }
}

/// A full set of attempts that another log placed.
fn other(indexes: &[u32]) -> Input {
    let start = indexes.iter().map(|index| placed(*index, Timestamp(PLACED_AT.0 + 1))).collect();
    Input::Desired(Desired { full: true, start, ..Desired::default() })
}

fn full(indexes: &[u32]) -> Input {
    Input::Desired(Desired { full: true, start: start(indexes), ..Desired::default() })
}

fn settled(index: u32) -> Input {
    Input::Desired(Desired { settled: vec![attempt(index)], ..Desired::default() })
}

fn stop(index: u32, grace: u64) -> Input {
    Input::Desired(Desired { stop: vec![(attempt(index), Span(grace))], ..Desired::default() })
}

fn stops(index: u32, grace: u64, reason: StopReason) -> Output {
    Output::Stop { attempt: attempt(index), grace: Span(grace), reason }
}

/// A machine whose session opened at 0 and that runs `indexes`.
fn running(indexes: &[u32], sole_server: bool) -> Machine {
    let mut machine = Machine::new();
    assert_eq!(machine.step(session(0, sole_server), at(0)), vec![Output::WakeAt(at(300))]);
    let launches: Vec<_> = indexes.iter().map(|index| Output::Launch(attempt(*index))).collect();
    assert_eq!(machine.step(full(indexes), at(1)), launches);
    machine
}

#[test]
fn what_is_desired_is_launched_once_and_reported_until_settled() {
    let mut machine = running(&[1, 2], false);
    assert_eq!(machine.step(full(&[1, 2]), at(2)), vec![]);
    let ended = machine.step(Input::Ended(vec![attempt(1)]), at(3));
    assert_eq!(ended, vec![Output::Report(vec![attempt(1)])]);
    assert_eq!(machine.step(full(&[1, 2]), at(4)), vec![Output::Report(vec![attempt(1)])]);
    assert_eq!(machine.step(Input::SessionClosed, at(5)), vec![Output::WakeAt(at(SAFE))]);
    assert_eq!(machine.step(Input::Ended(vec![attempt(2)]), at(6)), vec![]);
    assert_eq!(machine.step(session(7, false), at(8)), vec![Output::WakeAt(at(308))]);
    let both = vec![Output::Report(vec![attempt(1), attempt(2)])];
    assert_eq!(machine.step(full(&[1, 2]), at(8)), both);
    assert_eq!(machine.step(settled(1), at(9)), vec![Output::Forget(vec![attempt(1)])]);
    assert_eq!(machine.unsettled().collect::<Vec<_>>(), vec![attempt(2)]);
}

fn skips(index: u32, reason: StopReason) -> Output {
    Output::Skip { attempt: attempt(index), reason }
}

fn forgets(index: u32) -> Output {
    Output::Forget(vec![attempt(index)])
}

fn reports(index: u32) -> Output {
    Output::Report(vec![attempt(index)])
}

/// A machine that ran 1 to its end and was told that the report is recorded.
fn settled_once() -> Machine {
    let mut machine = running(&[1], false);
    machine.step(Input::Ended(vec![attempt(1)]), at(2));
    assert_eq!(machine.step(settled(1), at(3)), vec![forgets(1)]);
    machine
}

#[test]
fn a_settled_attempt_that_is_still_desired_is_not_launched_again_but_lost() {
    let mut machine = settled_once();
    let lost = vec![skips(1, StopReason::Forgotten), reports(1)];
    assert_eq!(machine.step(full(&[1]), at(4)), lost);
    assert_eq!(machine.step(settled(1), at(5)), vec![forgets(1)]);
}

#[test]
fn a_stop_of_a_settled_attempt_is_answered() {
    let mut machine = settled_once();
    let stopped = vec![skips(1, StopReason::Requested), reports(1)];
    assert_eq!(machine.step(stop(1, 5), at(4)), stopped);
    assert_eq!(machine.step(settled(1), at(5)), vec![forgets(1)]);
}

#[test]
fn what_is_settled_in_the_message_that_starts_or_stops_it_stays_forgotten() {
    let mut machine = settled_once();
    let late = Desired {
        full: true,
        start: start(&[1]),
        stop: vec![(attempt(1), Span(5))],
        settled: vec![attempt(1)],
        recall: vec![],
    };
    let out = machine.step(Input::Desired(late), at(4));
    assert_eq!(out, vec![skips(1, StopReason::Forgotten), forgets(1)]);
    assert_eq!(machine.unsettled().count(), 0);
}

#[test]
fn an_attempt_of_another_log_is_launched_although_one_with_its_number_was_settled() {
    let mut machine = settled_once();
    assert_eq!(machine.step(other(&[1]), at(4)), vec![Output::Launch(attempt(1))]);
}

#[test]
fn an_attempt_of_another_log_waits_until_the_one_with_its_number_is_gone() {
    let mut machine = running(&[1], false);
    machine.step(Input::SessionClosed, at(2));
    machine.step(session(3, false), at(3));
    let away =
        vec![stops(1, 0, StopReason::NotDesired), Output::Reconnect, Output::WakeAt(at(3 + SAFE))];
    assert_eq!(machine.step(other(&[1]), at(4)), away);
    assert_eq!(machine.step(Input::SessionClosed, at(5)), vec![]);
    machine.step(session(6, false), at(6));
    let again = vec![Output::Reconnect, Output::WakeAt(at(6 + SAFE))];
    assert_eq!(machine.step(other(&[1]), at(7)), again, "it is still being killed");
    assert_eq!(machine.step(Input::Ended(vec![attempt(1)]), at(8)), vec![forgets(1)]);
    machine.step(session(9, false), at(9));
    assert_eq!(machine.step(other(&[1]), at(10)), vec![Output::Launch(attempt(1))]);
}

#[test]
fn the_result_of_an_attempt_is_never_told_to_another_log() {
    for ends_before_the_welcome in [true, false] {
        let mut machine = running(&[1], false);
        machine.step(Input::SessionClosed, at(2));
        if ends_before_the_welcome {
            assert_eq!(machine.step(Input::Ended(vec![attempt(1)]), at(3)), vec![]);
        }
        machine.step(session(4, false), at(4));
        if !ends_before_the_welcome {
            assert_eq!(machine.step(Input::Ended(vec![attempt(1)]), at(5)), vec![]);
        }
        let out = machine.step(other(&[1]), at(6));
        assert_eq!(out, vec![forgets(1), Output::Reconnect]);
        machine.step(session(7, false), at(7));
        assert_eq!(machine.step(other(&[1]), at(8)), vec![Output::Launch(attempt(1))]);
    }
}

#[test]
fn a_result_that_a_full_set_does_not_name_is_dropped_because_nobody_waits_for_it() {
    let mut machine = running(&[1], false);
    machine.step(Input::SessionClosed, at(2));
    machine.step(Input::Ended(vec![attempt(1)]), at(3));
    machine.step(session(4, false), at(4));
    assert_eq!(machine.step(full(&[]), at(5)), vec![forgets(1)]);
}

#[test]
fn a_server_that_does_not_say_when_it_placed_an_attempt_is_believed() {
    let mut machine = running(&[1], false);
    let silent = vec![placed(1, Timestamp(0))];
    let silent = Desired { full: true, start: silent, ..Desired::default() };
    assert_eq!(machine.step(Input::Desired(silent), at(4)), vec![]);
}

#[test]
fn a_restarted_server_re_adopts_what_runs() {
    let mut machine = running(&[1], false);
    machine.step(Input::SessionClosed, at(10));
    machine.step(session(20, false), at(21));
    assert_eq!(machine.step(full(&[1, 2]), at(22)), vec![Output::Launch(attempt(2))]);
}

#[test]
fn what_only_an_old_session_wanted_waits_for_the_new_full_set() {
    let mut machine = running(&[], false);
    // The lease is over when the assignments arrive, so that they are kept and not launched.
    let late = machine.step(full(&[1, 2]), at(SAFE));
    assert_eq!(late, vec![Output::Heartbeat { sent: at(SAFE) }, Output::WakeAt(at(SAFE + 300))]);
    machine.step(Input::SessionClosed, at(SAFE + 1));
    let welcomed = machine.step(session(SAFE + 2, false), at(SAFE + 3));
    assert_eq!(welcomed, vec![Output::WakeAt(at(SAFE + 303))]);
    let named = machine.step(full(&[2]), at(SAFE + 4));
    assert_eq!(named, vec![Output::Forget(vec![attempt(1)]), Output::Launch(attempt(2))]);
}

#[test]
fn what_a_full_set_does_not_name_is_killed_and_forgotten_without_a_report() {
    let mut machine = running(&[1, 2], false);
    assert_eq!(machine.step(full(&[2]), at(5)), vec![stops(1, 0, StopReason::NotDesired)]);
    let ended = machine.step(Input::Ended(vec![attempt(1)]), at(6));
    assert_eq!(ended, vec![Output::Forget(vec![attempt(1)])]);
}

#[test]
fn a_running_attempt_that_is_settled_is_killed() {
    let mut machine = running(&[1], false);
    assert_eq!(machine.step(settled(1), at(5)), vec![stops(1, 0, StopReason::NotDesired)]);
}

#[test]
fn only_a_stop_that_kills_sooner_replaces_an_earlier_one() {
    let mut machine = running(&[1], false);
    assert_eq!(machine.step(stop(1, 100), at(10)), vec![stops(1, 100, StopReason::Requested)]);
    assert_eq!(machine.step(stop(1, 100), at(10)), vec![]);
    assert_eq!(machine.step(stop(1, 99), at(11)), vec![]);
    assert_eq!(machine.step(stop(1, 98), at(11)), vec![stops(1, 98, StopReason::Requested)]);
}

#[test]
fn an_attempt_that_is_to_stop_before_it_was_launched_is_skipped_and_reported() {
    let mut machine = running(&[], false);
    let start = vec![Start { stop: Some(Span(5)), ..placed(1, PLACED_AT) }];
    let both = Input::Desired(Desired { full: true, start, ..Desired::default() });
    assert_eq!(machine.step(both, at(2)), vec![skips(1, StopReason::Requested), reports(1)]);
    assert_eq!(machine.step(stop(1, 5), at(3)), vec![], "its report is on its way");
    assert_eq!(machine.step(settled(1), at(4)), vec![forgets(1)]);
}

#[test]
fn everything_is_killed_at_the_fence_and_not_one_microsecond_before() {
    let mut machine = running(&[1], false);
    machine.step(Input::SessionClosed, at(2));
    assert_eq!(machine.step(Input::Woke, at(SAFE - 1)), vec![Output::WakeAt(at(SAFE))]);
    assert_eq!(machine.step(Input::Woke, at(SAFE)), vec![stops(1, 0, StopReason::Fenced)]);
    assert_eq!(machine.step(Input::Woke, at(SAFE + 1)), vec![]);
    assert_eq!(machine.step(Input::Ended(vec![attempt(1)]), at(SAFE + 2)), vec![]);
    let sent = SAFE + 3;
    machine.step(session(sent, false), at(sent));
    assert_eq!(machine.step(full(&[1]), at(sent)), vec![reports(1)]);
}

#[test]
fn an_acknowledged_heartbeat_moves_the_fence_from_when_it_was_sent() {
    let mut machine = running(&[1], false);
    let beat = machine.step(Input::Woke, at(300));
    assert_eq!(beat, vec![Output::Heartbeat { sent: at(300) }, Output::WakeAt(at(600))]);
    machine.step(Input::HeartbeatAck { sent: at(300) }, at(500));
    assert_eq!(machine.fence(), at(300 + SAFE));
    machine.step(Input::HeartbeatAck { sent: at(200) }, at(501));
    assert_eq!(machine.fence(), at(300 + SAFE), "a late acknowledgement takes nothing away");
}

#[test]
fn nothing_is_launched_behind_the_fence_until_the_lease_is_renewed() {
    let mut machine = running(&[], false);
    assert_eq!(
        machine.step(full(&[1]), at(SAFE)),
        vec![Output::Heartbeat { sent: at(SAFE) }, Output::WakeAt(at(SAFE + HEARTBEAT.0))]
    );
    assert_eq!(
        machine.step(Input::HeartbeatAck { sent: at(SAFE) }, at(SAFE + 1)),
        vec![Output::Launch(attempt(1))]
    );
}

#[test]
fn a_refused_connection_renews_the_lease_only_of_a_sole_server_and_only_without_a_session() {
    for (sole, closed, fence) in
        [(true, true, 500 + SAFE), (true, false, SAFE), (false, true, SAFE), (false, false, SAFE)]
    {
        let mut machine = running(&[1], sole);
        if closed {
            machine.step(Input::SessionClosed, at(400));
        }
        machine.step(Input::ConnectionRefused { at: at(500) }, at(510));
        assert_eq!(machine.fence(), at(fence), "sole {sole}, closed {closed}");
    }
    let mut unknown = Machine::new();
    unknown.step(Input::ConnectionRefused { at: at(500) }, at(510));
    assert_eq!(unknown.fence(), at(0), "without a welcome there is no lease to renew");
}

#[test]
fn attempts_survive_a_long_outage_of_the_only_server_and_are_re_adopted() {
    let mut machine = running(&[1], true);
    machine.step(Input::SessionClosed, at(10));
    for round in 1..1_000 {
        let now = round * (SAFE - 1);
        let out = machine.step(Input::ConnectionRefused { at: at(now) }, at(now));
        assert_eq!(out, vec![Output::WakeAt(at(now + SAFE))]);
    }
    let now = 1_000 * (SAFE - 1);
    machine.step(session(now, true), at(now));
    assert_eq!(machine.step(full(&[1]), at(now + 1)), vec![]);
    assert_eq!(machine.running().collect::<Vec<_>>(), vec![attempt(1)]);
}

#[test]
fn a_draining_machine_launches_nothing_and_a_stopping_one_stops_what_runs() {
    let mut machine = running(&[1], false);
    assert_eq!(machine.step(Input::Drain, at(2)), vec![]);
    assert_eq!(machine.step(full(&[1, 2]), at(3)), vec![]);
    let stopped = machine.step(Input::Stop { grace: Span(50) }, at(4));
    assert_eq!(stopped, vec![stops(1, 50, StopReason::Shutdown)]);
}

/// A tiny generator: the crate has no dependencies, and its tests need none.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// A world around one machine: a server with a desired set, and processes that take their time to die.
struct World {
    chance: Chance,
    now: u64,
    machine: Machine,
    /// What the server holds as live, and the stops it asked for.
    live: BTreeMap<AttemptId, Option<Span>>,
    /// What the server staged, behind what.
    behind: BTreeMap<AttemptId, AttemptId>,
    /// Attempts that take each other's room are of one line.
    lines: BTreeMap<AttemptId, u32>,
    next: u32,
    connected: bool,
    sole_server: bool,
    /// When the last renewal that the machine has seen was sent.
    renewed: u64,
    beats: Vec<u64>,
    /// What runs, and when it will have been killed.
    processes: BTreeMap<AttemptId, u64>,
    launched: BTreeSet<AttemptId>,
    reported: BTreeSet<AttemptId>,
    unsettled: BTreeSet<AttemptId>,
    forgotten: BTreeSet<AttemptId>,
    wake_at: Option<u64>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            chance: Chance(seed),
            now: 0,
            machine: Machine::new(),
            live: BTreeMap::new(),
            behind: BTreeMap::new(),
            lines: BTreeMap::new(),
            next: 0,
            connected: false,
            sole_server: seed.is_multiple_of(2),
            renewed: 0,
            beats: Vec::new(),
            processes: BTreeMap::new(),
            launched: BTreeSet::new(),
            reported: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            wake_at: None,
        }
    }

    fn step(&mut self, input: Input) {
        let out = self.machine.step(input, at(self.now));
        for output in out {
            match output {
                Output::Launch(id) => {
                    assert!(self.launched.insert(id), "{id} was launched twice");
                    assert!(self.now < self.renewed + SAFE, "{id} was launched behind the fence");
                    assert!(self.connected, "{id} was launched without a session");
                    let line = self.lines[&id];
                    let others =
                        self.processes.keys().filter(|other| self.live.contains_key(other));
                    assert!(
                        others.clone().all(|other| self.lines[other] != line),
                        "{id} has no room"
                    );
                    self.processes.insert(id, u64::MAX);
                }
                Output::Stop { attempt: id, grace, .. } => {
                    let kill_at = self.processes.get_mut(&id).expect("only what runs is stopped");
                    assert!(self.now + grace.0 < *kill_at, "{id} was asked once more for nothing");
                    *kill_at = self.now + grace.0;
                }
                Output::Skip { attempt: id, reason } => {
                    assert_ne!(reason, StopReason::Forgotten, "{id} is live and was forgotten");
                    assert!(!self.launched.contains(&id));
                    self.unsettled.insert(id);
                }
                Output::Reconnect => panic!("there is one log only"),
                Output::Report(ids) => {
                    assert!(self.connected);
                    self.reported.extend(ids);
                }
                Output::Heartbeat { sent } => {
                    assert!(self.connected);
                    self.beats.push(sent.0);
                }
                Output::Forget(ids) => {
                    for id in ids {
                        assert!(self.forgotten.insert(id), "{id} was forgotten twice");
                        assert!(!self.processes.contains_key(&id));
                        self.unsettled.remove(&id);
                    }
                }
                Output::WakeAt(at) => self.wake_at = Some(at.0),
            }
        }
        if self.now >= self.renewed + SAFE {
            assert!(
                self.processes.values().all(|kill_at| *kill_at <= self.now),
                "something runs past the fence"
            );
        }
        assert_eq!(
            self.machine.running().collect::<Vec<_>>(),
            self.processes.keys().copied().collect::<Vec<_>>()
        );
        assert_eq!(self.machine.unsettled().collect::<BTreeSet<_>>(), self.unsettled);
    }

    /// Lets time pass; the machine is woken when it asked to be.
    fn pass(&mut self) {
        let until = self.now + self.chance.below(200);
        while let Some(wake) = self.wake_at.filter(|wake| *wake <= until) {
            self.now = self.now.max(wake);
            self.wake_at = None;
            self.step(Input::Woke);
        }
        self.now = until;
    }

    fn open(&mut self) {
        self.connected = true;
        self.renewed = self.renewed.max(self.now);
        self.reported.clear();
        self.step(session(self.now, self.sole_server));
        self.say(true, self.in_order(), vec![], vec![]);
        assert_eq!(self.reported, self.unsettled, "a new session repeats every report");
        assert!(self.unsettled.iter().all(|id| self.live.contains_key(id)), "and drops the rest");
        for id in self.processes.keys().filter(|id| !self.live.contains_key(id)) {
            assert!(self.processes[id] <= self.now, "{id} is not desired and was not stopped");
        }
    }

    fn say(
        &mut self,
        full: bool,
        start: Vec<AttemptId>,
        stop: Vec<(AttemptId, Span)>,
        settled: Vec<AttemptId>,
    ) {
        let start = self.told(start);
        self.step(Input::Desired(Desired { full, start, stop, settled, recall: vec![] }));
    }

    /// What the server says of attempts to start.
    fn told(&self, start: Vec<AttemptId>) -> Vec<Start> {
        let told = start.into_iter().map(|attempt| {
            let stop = self.live.get(&attempt).copied().flatten();
            let behind = self.behind.get(&attempt).copied();
            Start { attempt, placed_at: PLACED_AT, stop, behind }
        });
        told.collect()
    }

    /// Everything that is live, each behind what it is staged behind.
    fn in_order(&self) -> Vec<AttemptId> {
        let mut order: Vec<AttemptId> = Vec::new();
        let firsts = self.live.keys().filter(|id| !self.behind.contains_key(id));
        for first in firsts {
            let mut next = Some(*first);
            while let Some(id) = next {
                order.push(id);
                next = self.behind.iter().find(|(_, ahead)| **ahead == id).map(|(id, _)| *id);
            }
        }
        order
    }

    fn pick(&mut self, from: &[AttemptId]) -> Option<AttemptId> {
        let place = self.chance.below(from.len().max(1) as u64);
        from.get(usize::try_from(place).expect("small")).copied()
    }

    /// The server places an attempt, maybe behind another.
    fn place(&mut self, live: &[AttemptId]) {
        // In no order: what goes first may have come last.
        let id = attempt(self.next * 7_919 % 10_007);
        self.next += 1;
        let tails: Vec<_> = live
            .iter()
            .filter(|other| self.behind.values().all(|ahead| ahead != *other))
            .copied()
            .collect();
        let ahead = self.pick(&tails).filter(|_| self.chance.below(2) == 0);
        let line = ahead.map_or(id.task.index, |ahead| self.lines[&ahead]);
        self.lines.insert(id, line);
        self.behind.extend(ahead.map(|ahead| (id, ahead)));
        self.live.insert(id, None);
        if self.connected {
            // Maybe together with what was recorded in the same entry.
            let reported: Vec<_> = self.reported.iter().copied().collect();
            let settled = self.pick(&reported).filter(|_| self.chance.below(3) == 0);
            let start = self.told(vec![id]);
            if let Some(done) = settled {
                self.reported.remove(&done);
                self.remove(done);
            }
            let settled = settled.into_iter().collect();
            self.step(Input::Desired(Desired { start, settled, ..Desired::default() }));
        }
    }

    fn act(&mut self) {
        let live: Vec<_> = self.live.keys().copied().collect();
        let processes: Vec<_> = self.processes.keys().copied().collect();
        match self.chance.below(10) {
            0 if self.connected => {
                self.connected = false;
                self.beats.clear();
                self.step(Input::SessionClosed);
            }
            0 | 1 if !self.connected => self.open(),
            2 if !self.connected => {
                if self.sole_server && self.renewed > 0 {
                    self.renewed = self.now;
                }
                self.step(Input::ConnectionRefused { at: at(self.now) });
            }
            3 | 4 => {
                self.place(&live);
            }
            5 => {
                if let Some(id) = self.pick(&live) {
                    let grace = Span(self.chance.below(3) * 100);
                    self.live.insert(id, Some(grace));
                    if self.connected {
                        self.say(false, vec![], vec![(id, grace)], vec![]);
                    }
                }
            }
            6 => {
                if let Some(id) = self.pick(&live).filter(|_| !self.connected) {
                    self.remove(id); // the server gave up on it, or somebody cancelled it
                }
            }
            7 | 8 => {
                if let Some(id) = self.pick(&processes) {
                    self.processes.remove(&id);
                    if self.live.contains_key(&id) || !self.processes_disowned(id) {
                        self.unsettled.insert(id);
                    }
                    self.step(Input::Ended(vec![id]));
                }
            }
            9 if self.chance.below(3) == 0 && self.connected => {
                if let Some(id) = self.pick(&live) {
                    let recall = vec![id];
                    self.step(Input::Desired(Desired { recall, ..Desired::default() }));
                }
            }
            _ => self.server_reads(),
        }
    }

    /// The server does not hold `id` as live any more: what is behind it moves up.
    fn remove(&mut self, id: AttemptId) {
        self.live.remove(&id);
        let ahead = self.behind.remove(&id);
        let next = self.behind.iter().find(|(_, other)| **other == id).map(|(next, _)| *next);
        if let Some(next) = next {
            self.behind.remove(&next);
            self.behind.extend(ahead.map(|ahead| (next, ahead)));
        }
    }

    /// Whether the machine was told that the server does not hold `id`.
    fn processes_disowned(&self, id: AttemptId) -> bool {
        self.connected && !self.live.contains_key(&id)
    }

    /// The server records reports and answers heartbeats.
    fn server_reads(&mut self) {
        if !self.connected {
            return;
        }
        if let Some(sent) = self.beats.pop() {
            self.renewed = self.renewed.max(sent);
            self.step(Input::HeartbeatAck { sent: at(sent) });
        }
        let reported: Vec<_> = self.reported.iter().copied().collect();
        if let Some(id) = self.pick(&reported) {
            self.reported.remove(&id);
            self.remove(id);
            self.say(false, vec![], vec![], vec![id]);
            assert!(!self.unsettled.contains(&id));
        }
    }
}

fn behind(index: u32, ahead: u32) -> Start {
    Start { behind: Some(attempt(ahead)), ..placed(index, PLACED_AT) }
}

fn launches(index: u32) -> Output {
    Output::Launch(attempt(index))
}

/// A machine that runs 1, with 2 staged behind it and 3 behind that.
fn with_line() -> Machine {
    let mut machine = running(&[1], false);
    let start = vec![behind(2, 1), behind(3, 2)];
    let staged = Input::Desired(Desired { start, ..Desired::default() });
    assert_eq!(machine.step(staged, at(2)), vec![]);
    assert_eq!(machine.waiting(), 2);
    machine
}

fn recall(index: u32) -> Input {
    Input::Desired(Desired { recall: vec![attempt(index)], ..Desired::default() })
}

fn ended(index: u32) -> Input {
    Input::Ended(vec![attempt(index)])
}

#[test]
fn what_is_staged_starts_when_the_one_ahead_is_over_without_the_server() {
    let mut machine = with_line();
    assert_eq!(machine.step(ended(1), at(3)), vec![reports(1), launches(2)]);
    assert_eq!(machine.step(ended(2), at(4)), vec![reports(2), launches(3)]);
    assert_eq!(machine.waiting(), 0);
}

#[test]
fn what_was_recalled_is_given_back_and_what_is_behind_it_moves_up() {
    let mut machine = with_line();
    let skips = Output::Skip { attempt: attempt(2), reason: StopReason::Recalled };
    assert_eq!(machine.step(recall(2), at(3)), vec![skips, reports(2)]);
    assert_eq!(machine.step(recall(1), at(3)), vec![], "it runs");
    assert_eq!(machine.step(recall(9), at(3)), vec![], "nobody knows it");
    assert_eq!(machine.step(ended(1), at(4)), vec![reports(1), launches(3)]);
    assert_eq!(machine.step(recall(3), at(5)), vec![], "it has been launched");
}

#[test]
fn a_staged_attempt_that_has_to_stop_makes_way_and_is_not_launched() {
    let mut machine = with_line();
    let skips = Output::Skip { attempt: attempt(2), reason: StopReason::Requested };
    assert_eq!(machine.step(stop(2, 9), at(3)), vec![skips, reports(2)]);
    assert_eq!(machine.step(ended(1), at(4)), vec![reports(1), launches(3)]);
}

#[test]
fn a_line_is_what_the_last_full_set_says() {
    let mut machine = with_line();
    machine.step(Input::SessionClosed, at(3));
    assert_eq!(machine.step(ended(1), at(4)), vec![], "nothing is launched without a session");
    machine.step(session(5, false), at(6));
    let start = vec![placed(1, PLACED_AT), behind(3, 1)];
    let whole = Input::Desired(Desired { full: true, start, ..Desired::default() });
    let out = vec![Output::Report(vec![attempt(1)]), forgets(2), launches(3)];
    let mut told = machine.step(whole, at(7));
    told.sort_by_key(|output| match output {
        Output::Report(_) => 0,
        Output::Forget(_) => 1,
        _ => 2,
    });
    assert_eq!(told, out);
}

#[test]
fn what_is_put_behind_a_place_that_is_given_up_in_the_same_message_moves_up() {
    let mut machine = with_line();
    machine.step(recall(3), at(3));
    // 4 was staged behind 3, whose report was recorded right after.
    let told =
        Desired { start: vec![behind(4, 2)], settled: vec![attempt(3)], ..Desired::default() };
    assert_eq!(machine.step(Input::Desired(told), at(4)), vec![forgets(3)]);
    assert_eq!(machine.step(ended(1), at(5)), vec![reports(1), launches(2)]);
    assert_eq!(machine.step(ended(2), at(6)), vec![reports(2), launches(4)]);
}

#[test]
fn a_worker_that_drains_gives_back_what_waits_now_and_what_comes_to_wait() {
    let mut machine = with_line();
    let back = |index| Output::Skip { attempt: attempt(index), reason: StopReason::Recalled };
    let out = vec![back(2), reports(2), back(3), reports(3)];
    assert_eq!(machine.step(Input::Drain, at(3)), out);
    let late = Desired { start: vec![behind(4, 1)], ..Desired::default() };
    assert_eq!(machine.step(Input::Desired(late), at(4)), vec![back(4), reports(4)]);
    assert_eq!(machine.step(ended(1), at(5)), vec![reports(1)]);
}

#[test]
fn in_any_history_attempts_run_once_never_past_the_fence_and_are_reported_until_settled() {
    for seed in 0..400 {
        let mut world = World::new(seed);
        for _ in 0..400 {
            world.pass();
            world.act();
        }
        assert!(world.launched.len() > 1, "seed {seed} launched next to nothing");
    }
}

#[test]
fn equal_inputs_give_equal_outputs() {
    let story = || {
        let mut machine = running(&[3, 1, 2], false);
        [full(&[2]), Input::Woke, stop(2, 5), Input::Ended(vec![attempt(2)])]
            .into_iter()
            .zip([350, 700, 701, 702])
            .map(|(input, now)| machine.step(input, at(now)))
            .collect::<Vec<_>>()
    };
    assert_eq!(story(), story());
}
