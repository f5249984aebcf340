//! The simulated network: which links are cut, and what happens to messages.

use std::collections::{BTreeMap, BTreeSet};

use rota_types::ServerId;

use super::chance::Chance;

/// What the network does to messages, besides delaying them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Messages lost, of a thousand.
    pub lost: u64,
    /// Messages that come twice, of a thousand.
    pub repeated: u64,
    /// Messages that are late by tens of milliseconds, of a thousand.
    pub late: u64,
    /// Whether messages that are not late arrive in the order in which they were sent, as on a connection.
    pub in_order: bool,
}

#[derive(Debug)]
pub(super) struct Net {
    /// Links on which nothing gets through, each for one direction.
    cut: BTreeSet<(ServerId, ServerId)>,
    pub(super) weather: Weather,
    /// When the last message in order arrives.
    last: BTreeMap<(ServerId, ServerId), u64>,
}

/// Shapes of partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One server is alone.
    Alone,
    /// Two groups.
    Halves,
    /// One server is heard by nobody.
    Mute,
    /// One server hears nobody.
    Deaf,
    /// Two groups that have one server in common.
    Bridge,
    /// Each server reaches its neighbours only.
    Chain,
    /// All servers reach one of them, and nobody else.
    Star,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Alone, Self::Halves, Self::Mute, Self::Deaf, Self::Bridge, Self::Chain, Self::Star];

    /// Whether a message gets from place `from` to place `to` among `count` servers.
    fn passes(self, from: usize, to: usize, count: usize) -> bool {
        let middle = count / 2;
        match self {
            Self::Alone => from != 0 && to != 0,
            Self::Halves => (from < middle) == (to < middle),
            Self::Mute => from != 0,
            Self::Deaf => to != 0,
            Self::Bridge => from == middle || to == middle || (from < middle) == (to < middle),
            Self::Chain => from.abs_diff(to) == 1,
            Self::Star => from == 0 || to == 0,
        }
    }
}

impl Net {
    pub(super) fn new(weather: Weather) -> Self {
        Self { cut: BTreeSet::new(), weather, last: BTreeMap::new() }
    }

    /// Cuts links in the given shape, with the servers in the given order.
    pub(super) fn cut(&mut self, shape: Shape, servers: &[ServerId]) {
        self.cut.clear();
        for (from, one) in servers.iter().enumerate() {
            for (to, other) in servers.iter().enumerate() {
                if from != to && !shape.passes(from, to, servers.len()) {
                    self.cut.insert((*one, *other));
                }
            }
        }
    }

    /// Mends everything, and returns the links that were cut.
    pub(super) fn mend(&mut self) -> BTreeSet<(ServerId, ServerId)> {
        std::mem::take(&mut self.cut)
    }

    pub(super) fn is_cut(&self, from: ServerId, to: ServerId) -> bool {
        self.cut.contains(&(from, to))
    }

    /// When a message that is sent now arrives: never, once, or twice.
    pub(super) fn arrivals(
        &mut self,
        from: ServerId,
        to: ServerId,
        now: u64,
        chance: &mut Chance,
    ) -> Vec<u64> {
        let Weather { lost, repeated, late, in_order } = self.weather;
        if self.is_cut(from, to) || chance.permille(lost) {
            return Vec::new();
        }
        let copies = if chance.permille(repeated) { 2 } else { 1 };
        let last = self.last.entry((from, to)).or_default();
        let mut arrival = || {
            let usual = now + chance.between(100, 1_500);
            if chance.permille(late) {
                return usual + chance.below(120_000);
            }
            if !in_order {
                return usual;
            }
            *last = usual.max(*last + 1);
            *last
        };
        (0..copies).map(|_| arrival()).collect()
    }
}
