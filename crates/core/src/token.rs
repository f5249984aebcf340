//! Tokens: what their holders may do. Only hashes are here; the tokens themselves are known to their holders alone.

use alloc::boxed::Box;

use rota_types::Timestamp;

/// What a person or program may do. Each role may do what the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// See everything.
    Reader,
    /// Submit, cancel and retry jobs.
    Submitter,
    /// Drain and remove nodes; create, change and remove queues.
    Operator,
    /// Make and revoke tokens; change the cluster.
    Admin,
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Self; 4] = [Self::Reader, Self::Submitter, Self::Operator, Self::Admin];

    /// The role as users write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Submitter => "submitter",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// What somebody may become by joining.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Joins {
    /// A server of the cluster.
    Server,
    /// A worker.
    Worker,
}

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grant {
    /// Using the API in a role.
    Api(Role),
    /// Joining, so many times more.
    Join {
        /// As what.
        joins: Joins,
        /// How often, from 1; a token that is used up is gone.
        uses_left: u32,
    },
}

/// A token to add.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokenSpec {
    /// Its public name, unique in the cluster.
    pub id: Box<str>,
    /// What it is recognised by; opaque to the core.
    pub hash: [u8; 32],
    /// What it is good for.
    pub grant: Grant,
    /// For people: who or what holds it.
    pub name: Box<str>,
    /// When it ends, by the leader's wall clock.
    pub expires_at: Option<Timestamp>,
    /// Who made it.
    pub created_by: Box<str>,
    /// The token whose holder logged in with a browser: this one is that session, and goes with it.
    pub session_of: Option<Box<str>>,
}

/// Something asked about tokens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TokenCommand {
    /// Let whoever holds a token do what it grants.
    Add(TokenSpec),
    /// End a token.
    Revoke(Box<str>),
    /// Take one use of a join token.
    Use(Box<str>),
}

/// A token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// What was asked for; of a join token's uses, those that are left.
    pub spec: TokenSpec,
    /// When it was made, by the leader's wall clock.
    pub created_at: Timestamp,
}

impl Token {
    /// Whether it has ended by `now`.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.spec.expires_at.is_some_and(|end| end <= now)
    }
}

/// Who asked for the commands before it, for the audit. Changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Note {
    /// The token's or certificate's name.
    pub who: Box<str>,
    /// The address that the request came from.
    pub source: Box<str>,
    /// What was asked for, as the interface names it.
    pub action: Box<str>,
    /// How many commands directly before this one belong to it.
    pub commands: u32,
}

/// A note as it became true.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Noted {
    /// Who, from where, what.
    pub note: Note,
    /// How many of its commands were refused.
    pub refused: u32,
}
