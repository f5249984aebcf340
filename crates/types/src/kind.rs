//! Kinds of actions: what a task does, as far as a node may refuse it.

use core::fmt;

/// A kind of action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ActionKind {
    /// A program with its arguments.
    Command,
    /// An HTTP request.
    Http,
    /// Ends well at once.
    Noop,
}

/// The kinds of actions that a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ActionKinds(u32);

impl ActionKind {
    /// Every kind that this version knows.
    pub const ALL: [Self; 3] = [Self::Command, Self::Http, Self::Noop];

    /// The name in JSON and on screen.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Http => "http",
            Self::Noop => "noop",
        }
    }

    /// What people call several of them.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Command => "commands",
            Self::Http => "HTTP requests",
            Self::Noop => "no-op tasks",
        }
    }

    const fn bit(self) -> u32 {
        match self {
            Self::Command => 1,
            Self::Http => 1 << 1,
            Self::Noop => 1 << 2,
        }
    }
}

impl ActionKinds {
    /// All kinds, also those that this version does not know: what is meant where nothing is said.
    pub const EVERY: Self = Self(u32::MAX);

    /// Whether `kind` is among them.
    #[must_use]
    pub const fn contains(self, kind: ActionKind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// Those that this version knows, in order.
    pub fn iter(self) -> impl Iterator<Item = ActionKind> {
        ActionKind::ALL.into_iter().filter(move |kind| self.contains(*kind))
    }
}

impl FromIterator<ActionKind> for ActionKinds {
    fn from_iter<I: IntoIterator<Item = ActionKind>>(kinds: I) -> Self {
        Self(kinds.into_iter().fold(0, |bits, kind| bits | kind.bit()))
    }
}

impl fmt::Display for ActionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    #[test]
    fn a_set_holds_what_it_was_made_of() {
        for held in ActionKind::ALL {
            let kinds: ActionKinds = [held].into_iter().collect();
            assert_eq!(kinds.iter().collect::<Vec<_>>(), vec![held]);
        }
        let none: ActionKinds = [].into_iter().collect();
        assert_eq!(none.iter().count(), 0);
    }

    #[test]
    fn every_kind_is_more_than_the_known_ones() {
        let known: ActionKinds = ActionKind::ALL.into_iter().collect();
        assert_eq!(ActionKinds::EVERY.iter().collect::<Vec<_>>(), ActionKind::ALL);
        assert_ne!(ActionKinds::EVERY, known);
    }
}
