//! What the machine is told, and what it answers.

use alloc::vec::Vec;

use rota_types::{AttemptId, Monotonic, Span, Timestamp};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The server welcomed this worker.
    SessionOpened(Session),
    /// The session is over, for whatever reason.
    SessionClosed,
    /// Every address of the server actively refused a connection that was begun at `at`.
    ConnectionRefused {
        /// When the attempt to connect began.
        at: Monotonic,
    },
    /// The server said what this node must run.
    Desired(Desired),
    /// Launched attempts are over and their reports are ready.
    Ended(Vec<AttemptId>),
    /// The server acknowledged the heartbeat that was sent at `sent`.
    HeartbeatAck {
        /// When that heartbeat was sent.
        sent: Monotonic,
    },
    /// The time asked for by [`Output::WakeAt`] has come (or any other time).
    Woke,
    /// Launch nothing any more.
    Drain,
    /// Launch nothing any more and stop what runs.
    Stop {
        /// Time between the request to stop and the kill.
        grace: Span,
    },
}

/// What the server granted with its welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// When the message that asked for it was sent: the lease counts from there.
    pub sent: Monotonic,
    /// How long a heartbeat keeps the attempts.
    pub lease: Span,
    /// How often to send one.
    pub heartbeat: Span,
    /// Whether no other server could expire the lease while this one is down.
    pub sole_server: bool,
}

/// What a node must run: the whole truth if `full`, else changes to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Whether everything that is not named must not run.
    pub full: bool,
    /// Attempts that are live on this node.
    pub start: Vec<Start>,
    /// Attempts that have to stop, with the time between the request and the kill.
    pub stop: Vec<(AttemptId, Span)>,
    /// Attempts whose reports are recorded or refused for good.
    pub settled: Vec<AttemptId>,
    /// Attempts to give back unless they were launched.
    pub recall: Vec<AttemptId>,
}

/// One live attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Which one.
    pub attempt: AttemptId,
    /// When the server placed it. Tells it from an attempt with the same number in another log: every cluster counts from one, and
    /// a log that was restored from a copy gives numbers out again. Zero if the server does not say.
    pub placed_at: Timestamp,
    /// If it has to stop: the time between the request and the kill.
    pub stop: Option<Span>,
    /// The attempt that has to be over before this one is launched: it takes over what that one uses.
    pub behind: Option<AttemptId>,
}

/// Something to do, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Launch this attempt; answer [`Input::Ended`] once, sooner or later. Asked at most once per attempt.
    Launch(AttemptId),
    /// Ask a launched attempt to stop and kill it after `grace`. A later request with less time replaces an earlier one.
    Stop {
        /// Which attempt.
        attempt: AttemptId,
        /// Time until the kill.
        grace: Span,
        /// Why: decides how the attempt's end is reported.
        reason: StopReason,
    },
    /// This attempt will not be launched: prepare a report that says why.
    Skip {
        /// Which attempt.
        attempt: AttemptId,
        /// Why: decides how its end is reported.
        reason: StopReason,
    },
    /// Send the reports of these attempts, again if they were sent before.
    Report(Vec<AttemptId>),
    /// Send a heartbeat that carries this time.
    Heartbeat {
        /// The time to carry.
        sent: Monotonic,
    },
    /// Nothing about these attempts is needed any more.
    Forget(Vec<AttemptId>),
    /// Close the session, so that a new one opens: the server means other attempts than those that are here, which have to go
    /// first.
    Reconnect,
    /// Say [`Input::Woke`] at this time. Replaces earlier requests.
    WakeAt(Monotonic),
}

/// Why an attempt is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StopReason {
    /// The server asked for it.
    Requested,
    /// The server does not know it as live: somebody else may run the task.
    NotDesired,
    /// The lease could not be renewed in time.
    Fenced,
    /// The worker is shutting down.
    Shutdown,
    /// The server asked for it back before it was launched.
    Recalled,
    /// It was over here before and the server had settled it: the server's record is older than that.
    Forgotten,
}
