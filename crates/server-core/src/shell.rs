//! What the machine is told, and what it asks of its surroundings.

use std::collections::BTreeMap;
use std::sync::Arc;

use rota_control::Tag;
use rota_core::State;
use rota_core::command::{Command, Outcome};
use rota_core::event::Event;
use rota_ports::{Change, ChangeRefused, Frame, MessageBytes, ProposeRefused};
use rota_types::{LogIndex, NodeId, ServerId};

use crate::clock::Moment;
use crate::machine::Machine;
use crate::pending::Outbox;

/// What carries out what the machine wants. Nothing here may wait.
pub trait Shell: Sized {
    /// Who waits for a proposal.
    type Asker;
    /// A read that has to see everything acknowledged before.
    type Query;
    /// Where sessions take up what they tell their workers.
    type Outbox: Outbox;

    /// What the clocks show.
    fn now(&self) -> Moment;

    /// Hands a frame to whoever writes the log: see [`ReplicatedLog`](rota_ports::ReplicatedLog).
    fn append(&mut self, frame: Frame);

    /// Sends a message if there is a way, and drops it if there is none.
    fn send(&mut self, to: ServerId, message: MessageBytes);

    /// Has links to these servers, and to no others.
    fn connect(&mut self, addresses: &BTreeMap<ServerId, Arc<str>>);

    /// Gets an image of at least the entry at `least` from another server, makes it durable, and starts this server again with it; or says
    /// [`Machine::install_failed`].
    fn fetch(&mut self, from: (ServerId, Arc<str>), least: LogIndex);

    /// The controller wants this proposed, by what it sees in `state`. For those who watch it.
    fn wanted(&mut self, _state: &State, _tag: Tag, _command: &Command) {}

    /// An entry was applied to `state`. Whoever learns of this index has to find what follows from it.
    fn applied(&mut self, state: &State, applied: Applied<'_>);

    /// Tells whoever asked what became of it.
    fn answer(&mut self, asker: Self::Asker, answer: Answer);

    /// Lets a read see the machine. `None`: this server does not lead, or leads no more; nobody else was asked.
    fn serve(&mut self, query: Self::Query, machine: Option<&Machine<Self>>);

    /// Who leads has changed, as far as this server knows.
    fn stood(&mut self, standing: Standing);

    /// A learner that has caught up was to become a voter.
    fn promoted(&mut self, learner: ServerId, result: Result<(), ChangeRefused>);

    /// This server can't go on: whatever waits is told nothing, and nothing more is applied.
    fn fail(&mut self, reason: &str);
}

/// An entry that was applied.
#[derive(Debug)]
pub struct Applied<'a> {
    /// Its position.
    pub index: LogIndex,
    /// How large it is in the log; 0 for an entry of the protocol's own.
    pub bytes: u64,
    /// What it asked for.
    pub commands: &'a [Command],
    /// What came of each command.
    pub outcomes: &'a [Outcome],
    /// What became true.
    pub events: Vec<Event>,
}

/// Commands that go into one entry together.
#[derive(Debug)]
pub struct Proposal<A> {
    /// What is asked for.
    pub commands: Vec<Command>,
    /// Roughly their encoded size.
    pub bytes: usize,
    /// Who asks.
    pub asker: Asker<A>,
}

/// Who waits for a proposal.
#[derive(Debug)]
pub enum Asker<A> {
    /// Somebody outside.
    Outside(A),
    /// The controller.
    Controller(Tag),
    /// Nobody: what comes of it is seen in the state.
    Nobody,
}

/// What became of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was committed and applied at this index.
    Applied(LogIndex, Vec<Outcome>),
    /// This server does not lead. Nothing was done, and nothing will be.
    NotLeader,
    /// This server stopped leading meanwhile: it may be committed later, or never.
    Unknown,
}

/// A session that takes over its node.
#[derive(Debug)]
pub struct Attach<O> {
    /// The node.
    pub node: NodeId,
    /// Names the session; never used twice by one process.
    pub session: u64,
    /// The worker process that was registered.
    pub incarnation: u64,
    /// Where to put what the worker has to be told.
    pub outbox: O,
}

/// A worker's heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Of which node.
    pub node: NodeId,
    /// In which session.
    pub session: u64,
    /// When it was sent, by the worker's own clock.
    pub sent_micros: u64,
}

/// What is asked of the log itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Steering {
    /// Change the members.
    Members(Vec<Change>),
    /// Let this server lead.
    Transfer(ServerId),
}

/// Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SteerRefused {
    /// Another server leads, or nobody does.
    NotLeader,
    /// Another change is under way.
    Busy,
    /// It makes no sense.
    Invalid(&'static str),
}

impl From<ChangeRefused> for SteerRefused {
    fn from(refused: ChangeRefused) -> Self {
        match refused {
            ChangeRefused::NotLeader => Self::NotLeader,
            ChangeRefused::Busy => Self::Busy,
            ChangeRefused::Invalid(why) => Self::Invalid(why),
        }
    }
}

impl From<ProposeRefused> for SteerRefused {
    fn from(refused: ProposeRefused) -> Self {
        match refused {
            ProposeRefused::NotLeader => Self::NotLeader,
            ProposeRefused::Busy => Self::Busy,
        }
    }
}

/// Who leads, as far as this server knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether this server does.
    pub leads: bool,
    /// Rises with each leader.
    pub term: u64,
    /// Who does, and where it is reached; no address if this server does not know that yet.
    pub leader: Option<(ServerId, Arc<str>)>,
}

impl Standing {
    /// Whether this server leads or knows who does.
    #[must_use]
    pub fn leader_is_known(&self) -> bool {
        let elsewhere = self.leader.as_ref().is_some_and(|(_, address)| !address.is_empty());
        self.leads || elsewhere
    }
}
