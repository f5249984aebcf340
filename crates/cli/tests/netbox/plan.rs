//! What goes wrong, in which order and for how long: made from the seed alone, before anything runs.

use std::time::Duration;

use crate::harness::Chance;

/// One kind of fault. Which server leads is found out when it strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// A minority of the servers with the leader in it is cut off from the others, both ways.
    SplitLeader,
    /// A minority without the leader is cut off from the other servers.
    SplitOthers,
    /// The leader reaches nobody: what it sends to other servers is lost, what they send arrives.
    LeaderMute,
    /// The leader hears nobody: what it sends arrives.
    LeaderDeaf,
    /// One direction between two servers is gone.
    OneWay,
    /// Two halves that don't see each other, and one server that sees both; the leader is in a half.
    Bridge,
    /// Each server sees one other only, which does not lead.
    Star,
    /// The leader is cut off from servers, workers and clients.
    IsolateLeader,
    /// Between servers everything is late, and some is lost.
    Bad,
    /// The leader is stopped, and goes on later.
    FreezeLeader,
    /// A server is killed, and started again.
    KillServer,
    /// A worker is killed, and started again.
    KillWorker,
    /// A worker is cut off from every server for longer than its lease.
    CutWorker,
    /// A worker is stopped for longer than its lease; what it runs goes on meanwhile.
    FreezeWorker,
}

impl Fault {
    pub(crate) const ALL: [Self; 14] = [
        Self::SplitLeader,
        Self::SplitOthers,
        Self::LeaderMute,
        Self::LeaderDeaf,
        Self::OneWay,
        Self::Bridge,
        Self::Star,
        Self::IsolateLeader,
        Self::Bad,
        Self::FreezeLeader,
        Self::KillServer,
        Self::KillWorker,
        Self::CutWorker,
        Self::FreezeWorker,
    ];

    /// Whether the switch does it: then it counts only if it swallowed or held back packets.
    pub(crate) fn is_of_the_network(self) -> bool {
        !matches!(
            self,
            Self::FreezeLeader | Self::KillServer | Self::KillWorker | Self::FreezeWorker
        )
    }

    /// Milliseconds that it lasts.
    fn lasts(self) -> (u64, u64) {
        match self {
            Self::CutWorker | Self::FreezeWorker => (7_000, 9_000),
            Self::Star | Self::Bridge => (4_000, 7_000),
            Self::KillServer | Self::KillWorker => (500, 2_000),
            _ => (2_500, 5_000),
        }
    }
}

/// One fault of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) fault: Fault,
    pub(crate) lasts: Duration,
    /// How long everything is well afterwards.
    pub(crate) rest: Duration,
    /// Who of those that it may strike: reduced to a place when it does.
    pub(crate) draw: u64,
}

/// Faults for so long. Each kind comes once before any comes twice.
pub(crate) fn plan(chance: &mut Chance, length: Duration) -> Vec<Step> {
    let (mut steps, mut total, mut deck) = (Vec::new(), Duration::ZERO, Vec::new());
    while total < length {
        if deck.is_empty() {
            deck = Fault::ALL.to_vec();
        }
        let fault = deck.swap_remove(chance.between(0, deck.len() as u64) as usize);
        let (from, to) = fault.lasts();
        let lasts = Duration::from_millis(chance.between(from, to));
        let rest = Duration::from_millis(chance.between(1_000, 2_500));
        steps.push(Step { fault, lasts, rest, draw: chance.between(0, 1 << 32) });
        total += lasts + rest;
    }
    steps
}
