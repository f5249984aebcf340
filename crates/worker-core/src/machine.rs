//! The machine: what the server wants against what is here.

mod line;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;

use rota_types::{AttemptId, Monotonic, Span, Timestamp};

use crate::forgotten::Forgotten;
use crate::messages::{Desired, Input, Output, Session, Start, StopReason};

/// The part of a lease that is given up for safety, as a divisor: attempts are stopped a fifth of the lease before it ends, which
/// leaves time for the kill and for clocks that run at different rates.
pub const FENCE_MARGIN_DIVISOR: u64 = 5;
/// How many settled attempts are remembered.
pub const FORGOTTEN_MAX: usize = 65_536;

/// Decides what a worker launches, stops and reports.
#[derive(Debug, Default)]
pub struct Machine {
    attempts: BTreeMap<AttemptId, Known>,
    /// What may be [`Local::Wanted`] and behind nothing: nothing else is.
    wanted: Vec<AttemptId>,
    /// What was not launched and is behind another, by that other one.
    behind: BTreeMap<AttemptId, AttemptId>,
    /// How many are [`Local::Running`].
    running: usize,
    forgotten: Forgotten,
    /// What the last welcome granted; kept when the session closes.
    granted: Option<Session>,
    /// When the next heartbeat is due; only while a session is open.
    heartbeat_at: Option<Monotonic>,
    /// Whether the session that is open has begun with its full set: before that nobody knows which attempts its server means.
    synced: bool,
    /// When everything must have been stopped.
    fence: Monotonic,
    /// The wake-up asked for last.
    wake_at: Option<Monotonic>,
    draining: bool,
}

/// An attempt that is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    placed_at: Timestamp,
    local: Local,
    /// Unless it was launched: the attempt that has to be over before.
    ahead: Option<AttemptId>,
}

/// How far an attempt has come here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Local {
    /// To be launched.
    Wanted,
    /// Launched and not over.
    Running {
        /// When it will be killed, if it was asked to stop.
        kill_at: Option<Monotonic>,
        /// Whether the server knows it as live.
        desired: bool,
    },
    /// Over; its report is not settled.
    Ended,
}

/// How soon and why to stop.
#[derive(Clone, Copy, Debug)]
struct Order {
    grace: Span,
    reason: StopReason,
}

/// Whether two attempts with one number are one, by when they were placed. An older server does not say.
fn is_same(one: Timestamp, other: Timestamp) -> bool {
    one == other || one == Timestamp(0) || other == Timestamp(0)
}

impl Order {
    const fn kill(reason: StopReason) -> Self {
        Self { grace: Span::ZERO, reason }
    }
}

impl Machine {
    /// A machine that knows nothing and may run nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in what happened and says what to do. Time must not go back.
    pub fn step(&mut self, input: Input, now: Monotonic) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::SessionOpened(session) => self.open(session, now),
            Input::SessionClosed => self.close(),
            Input::ConnectionRefused { at } => self.refused(at),
            Input::Desired(desired) => self.desire(desired, now, &mut out),
            Input::Ended(ended) => self.end(ended, &mut out),
            Input::HeartbeatAck { sent } => self.renew(sent),
            Input::Woke => self.wake_at = None, // whatever is due now is asked for again
            Input::Drain => {
                self.draining = true;
                self.give_back(&mut out);
            }
            Input::Stop { grace } => {
                self.draining = true;
                self.give_back(&mut out);
                self.stop_running(Order { grace, reason: StopReason::Shutdown }, now, &mut out);
            }
        }
        self.keep_time(now, &mut out);
        self.launch(now, &mut out);
        self.ask_to_be_woken(now, &mut out);
        out
    }

    /// Attempts that were launched and are not over.
    pub fn running(&self) -> impl Iterator<Item = AttemptId> + '_ {
        self.attempts
            .iter()
            .filter(|(_, known)| matches!(known.local, Local::Running { .. }))
            .map(|(attempt, _)| *attempt)
    }

    /// Attempts that are over and whose reports are not settled.
    pub fn unsettled(&self) -> impl Iterator<Item = AttemptId> + '_ {
        self.attempts
            .iter()
            .filter(|(_, known)| known.local == Local::Ended)
            .map(|(attempt, _)| *attempt)
    }

    /// Whether `attempt` is to be launched once that is possible.
    #[must_use]
    pub fn is_wanted(&self, attempt: AttemptId) -> bool {
        self.local(attempt) == Some(Local::Wanted)
    }

    /// How many attempts wait for the end of another.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.behind.len()
    }

    /// When every attempt must have been stopped, unless the lease is renewed before.
    #[must_use]
    pub fn fence(&self) -> Monotonic {
        self.fence
    }

    fn local(&self, attempt: AttemptId) -> Option<Local> {
        self.attempts.get(&attempt).map(|known| known.local)
    }

    fn open(&mut self, session: Session, now: Monotonic) {
        // What an earlier session wanted may be live elsewhere by now: the full set that begins this one names it again if not. It
        // also names what is over and still waited for.
        self.wanted.clear();
        self.behind.clear();
        self.attempts.values_mut().for_each(|known| known.ahead = None);
        self.granted = Some(session);
        self.heartbeat_at = Some(now.plus(session.heartbeat));
        self.synced = false;
        self.renew(session.sent);
    }

    fn close(&mut self) {
        self.heartbeat_at = None;
        self.synced = false;
    }

    fn refused(&mut self, at: Monotonic) {
        let alone = self.granted.is_some_and(|session| session.sole_server);
        if alone && self.heartbeat_at.is_none() {
            self.renew(at);
        }
    }

    /// Counts the lease from `sent`.
    fn renew(&mut self, sent: Monotonic) {
        if let Some(session) = self.granted {
            let margin = Span(session.lease.micros() / FENCE_MARGIN_DIVISOR);
            let safe = Span(session.lease.micros().saturating_sub(margin.micros()));
            self.fence = self.fence.max(sent.plus(safe));
        }
    }

    fn desire(&mut self, desired: Desired, now: Monotonic, out: &mut Vec<Output>) {
        let Desired { full, start, stop, settled, recall } = desired;
        let mut forget = Vec::new();
        let mut repeat = Vec::new();
        if full {
            self.synced = self.heartbeat_at.is_some();
            let named = start.iter().map(|start| start.attempt).collect();
            self.drop_unnamed(&named, now, &mut forget, out);
        }
        let mut strangers = false;
        for start in start {
            if self.is_stranger(start) {
                strangers = true;
                self.disown(start.attempt, now, &mut forget, out);
                continue;
            }
            self.want(start, &mut repeat, out);
            if let Some(grace) = start.stop {
                self.stop_requested(start.attempt, grace, now, out);
            }
        }
        for (attempt, grace) in stop {
            self.stop_requested(attempt, grace, now, out);
        }
        for attempt in recall {
            self.recall(attempt, out);
        }
        for attempt in settled {
            self.settle(attempt, now, &mut forget, out);
        }
        repeat.retain(|attempt| self.local(*attempt) == Some(Local::Ended));
        if !repeat.is_empty() {
            out.push(Output::Report(repeat));
        }
        if !forget.is_empty() {
            out.push(Output::Forget(forget));
        }
        if strangers {
            self.close();
            out.push(Output::Reconnect);
        }
    }

    /// Whether the server means another attempt than the one that is known here under the same number.
    fn is_stranger(&self, start: Start) -> bool {
        let known = self.attempts.get(&start.attempt);
        known.is_some_and(|known| !is_same(known.placed_at, start.placed_at))
    }

    /// Lets go of what is here and not in a full set: what runs is stopped, what is over nobody waits for.
    fn drop_unnamed(
        &mut self,
        named: &BTreeSet<AttemptId>,
        now: Monotonic,
        forget: &mut Vec<AttemptId>,
        out: &mut Vec<Output>,
    ) {
        let unnamed = self.attempts.keys().filter(|attempt| !named.contains(attempt));
        let unnamed: Vec<_> = unnamed.copied().collect();
        for attempt in unnamed {
            self.disown(attempt, now, forget, out);
        }
    }

    fn settle(
        &mut self,
        attempt: AttemptId,
        now: Monotonic,
        forget: &mut Vec<AttemptId>,
        out: &mut Vec<Output>,
    ) {
        match self.local(attempt) {
            Some(Local::Ended) => self.forget(attempt, forget),
            Some(Local::Wanted | Local::Running { .. }) => self.disown(attempt, now, forget, out),
            None => {}
        }
    }

    /// The server does not know `attempt` as live: it must not run, and nobody waits for its report.
    fn disown(
        &mut self,
        attempt: AttemptId,
        now: Monotonic,
        forget: &mut Vec<AttemptId>,
        out: &mut Vec<Output>,
    ) {
        match self.attempts.get_mut(&attempt).map(|known| &mut known.local) {
            Some(Local::Running { desired, .. }) => {
                *desired = false;
                self.stop(attempt, Order::kill(StopReason::NotDesired), now, out);
            }
            Some(Local::Wanted | Local::Ended) => self.forget(attempt, forget),
            None => {}
        }
    }

    fn forget(&mut self, attempt: AttemptId, forget: &mut Vec<AttemptId>) {
        self.leave_line(attempt);
        if let Some(known) = self.attempts.remove(&attempt) {
            self.forgotten.insert(attempt, known.placed_at, FORGOTTEN_MAX);
            forget.push(attempt);
        }
    }

    fn want(&mut self, start: Start, repeat: &mut Vec<AttemptId>, out: &mut Vec<Output>) {
        let Start { attempt, placed_at, behind, .. } = start;
        match self.attempts.get_mut(&attempt).map(|known| &mut known.local) {
            None => {
                let forgotten = self.forgotten.get(attempt);
                if forgotten.is_some_and(|before| is_same(before, placed_at)) {
                    // It ran here once, and that is enough.
                    self.skip(attempt, placed_at, StopReason::Forgotten, out);
                    repeat.push(attempt);
                } else {
                    let local = Local::Wanted;
                    self.attempts.insert(attempt, Known { placed_at, local, ahead: None });
                    self.line_up(attempt, behind);
                    if self.draining && behind.is_some() {
                        self.recall(attempt, out);
                    }
                }
            }
            Some(Local::Wanted) => self.line_up(attempt, behind),
            Some(Local::Running { desired, .. }) => *desired = true,
            Some(Local::Ended) => {
                self.line_up(attempt, behind);
                repeat.push(attempt);
            }
        }
    }

    fn stop_requested(
        &mut self,
        attempt: AttemptId,
        grace: Span,
        now: Monotonic,
        out: &mut Vec<Output>,
    ) {
        let placed_at = match self.attempts.get(&attempt) {
            Some(Known { local: Local::Running { .. }, .. }) => {
                let order = Order { grace, reason: StopReason::Requested };
                return self.stop(attempt, order, now, out);
            }
            Some(Known { local: Local::Ended, .. }) => return,
            Some(Known { local: Local::Wanted, placed_at, .. }) => *placed_at,
            // Whoever asks waits for an answer, also if nothing is known here any more.
            None => self.forgotten.get(attempt).unwrap_or(Timestamp(0)),
        };
        self.skip(attempt, placed_at, StopReason::Requested, out);
        if self.synced {
            out.push(Output::Report(vec![attempt]));
        }
    }

    /// Ends an attempt that is not launched and will not be.
    fn skip(
        &mut self,
        attempt: AttemptId,
        placed_at: Timestamp,
        reason: StopReason,
        out: &mut Vec<Output>,
    ) {
        // One whose turn has not come stays in line: another may be put behind it before the server knows.
        let ahead = self.attempts.get(&attempt).and_then(|known| known.ahead);
        self.attempts.insert(attempt, Known { placed_at, local: Local::Ended, ahead });
        if ahead.is_none() {
            self.pass_turn(attempt);
        }
        out.push(Output::Skip { attempt, reason });
    }

    /// Asks a running attempt to stop, unless it was asked to stop at least as soon.
    fn stop(&mut self, attempt: AttemptId, order: Order, now: Monotonic, out: &mut Vec<Output>) {
        let Order { grace, reason } = order;
        let known = self.attempts.get_mut(&attempt).map(|known| &mut known.local);
        if let Some(Local::Running { kill_at, .. }) = known {
            let sooner = now.plus(grace);
            if kill_at.is_none_or(|kill_at| sooner < kill_at) {
                *kill_at = Some(sooner);
                out.push(Output::Stop { attempt, grace, reason });
            }
        }
    }

    fn stop_running(&mut self, order: Order, now: Monotonic, out: &mut Vec<Output>) {
        let running: Vec<_> = self.running().collect();
        for attempt in running {
            self.stop(attempt, order, now, out);
        }
    }

    fn end(&mut self, ended: Vec<AttemptId>, out: &mut Vec<Output>) {
        let mut report = Vec::new();
        let mut forget = Vec::new();
        for attempt in ended {
            let Some(known) = self.attempts.get_mut(&attempt) else { continue };
            let Local::Running { desired, .. } = known.local else { continue };
            self.running = self.running.saturating_sub(1);
            if desired {
                known.local = Local::Ended;
                self.pass_turn(attempt);
                report.push(attempt);
            } else {
                self.forget(attempt, &mut forget);
            }
        }
        if self.synced && !report.is_empty() {
            out.push(Output::Report(report));
        }
        if !forget.is_empty() {
            out.push(Output::Forget(forget));
        }
    }

    /// Sends the heartbeat that is due, and stops everything once the fence is reached.
    fn keep_time(&mut self, now: Monotonic, out: &mut Vec<Output>) {
        let interval = self.granted.map_or(Span::ZERO, |session| session.heartbeat);
        if self.heartbeat_at.is_some_and(|due| due <= now) {
            out.push(Output::Heartbeat { sent: now });
            self.heartbeat_at = Some(now.plus(Span(interval.micros().max(1))));
        }
        if self.fence <= now {
            self.stop_running(Order::kill(StopReason::Fenced), now, out);
        }
    }

    /// Launches what is wanted, if the lease still covers it.
    fn launch(&mut self, now: Monotonic, out: &mut Vec<Output>) {
        if self.draining || self.heartbeat_at.is_none() || self.fence <= now {
            return;
        }
        for attempt in self.wanted.drain(..) {
            if let Some(Known { local, .. }) = self.attempts.get_mut(&attempt)
                && *local == Local::Wanted
            {
                *local = Local::Running { kill_at: None, desired: true };
                self.running = self.running.saturating_add(1);
                out.push(Output::Launch(attempt));
            }
        }
    }

    /// Asks to be woken for the next heartbeat, or at the fence if something runs.
    fn ask_to_be_woken(&mut self, now: Monotonic, out: &mut Vec<Output>) {
        let fence = (self.running > 0 && now < self.fence).then_some(self.fence);
        let wake_at = self.heartbeat_at.into_iter().chain(fence).min();
        if let Some(at) = wake_at.filter(|at| Some(*at) != self.wake_at) {
            out.push(Output::WakeAt(at));
        }
        self.wake_at = wake_at;
    }
}
