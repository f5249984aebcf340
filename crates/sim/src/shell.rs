//! The shell of a simulated server: it notes what the machine wants; the world carries it out.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use rota_control::Tag;
use rota_core::State;
use rota_core::command::{Command, Outcome};
use rota_core::event::Event;
use rota_ports::{ChangeRefused, Frame, MessageBytes};
use rota_server_core::{Answer, Applied, Machine, Moment, Pending, Shell, Standing};
use rota_types::{LogIndex, NodeId, ServerId, Steady, Timestamp};

use crate::order::follows_discipline;
use crate::world::ConnId;

/// How often a state's digest is compared with that of the witness.
pub(crate) const DIGEST_EVERY: u64 = 16;

/// A controller that proposes more than that without any effect talks to itself.
const IDLE_PROPOSALS_MAX: u64 = 10_000;

/// What the machine wants done.
pub(crate) enum Want {
    Append(Frame),
    Send(ServerId, MessageBytes),
    Connect(Vec<ServerId>),
    Fetch(ServerId, LogIndex),
    Applied(Box<Done>),
    Answer(Asker, Answer),
    /// A read was served at this index; `None`: refused.
    Served(usize, Option<LogIndex>),
    Stood(Standing),
    Promoted(bool),
    /// The controller gives a node up.
    GivesUp(NodeId),
    /// The controller's plan is wrong.
    Wrong(String),
    Fail(String),
}

/// An entry as a server has applied it.
pub(crate) struct Done {
    pub(crate) index: LogIndex,
    pub(crate) stamps: (Timestamp, Steady),
    /// Whether it is the protocol's own.
    pub(crate) is_internal: bool,
    /// `None` if the witness had applied it before.
    pub(crate) commands: Option<Vec<Command>>,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) events: Vec<Event>,
    pub(crate) digest: Option<u64>,
}

/// Who waits for a proposal.
#[derive(Clone, Debug)]
pub(crate) enum Asker {
    Client(usize),
    Worker(ConnId),
}

/// Outboxes that have something, in the order in which they were filled.
pub(crate) type Filled = Rc<RefCell<Vec<ConnId>>>;

/// What waits for one connection.
pub(crate) struct Outbox {
    conn: ConnId,
    pub(crate) pending: Rc<RefCell<Pending>>,
    filled: Filled,
}

impl Outbox {
    pub(crate) fn new(conn: ConnId, filled: &Filled) -> Self {
        Self { conn, pending: Rc::default(), filled: Rc::clone(filled) }
    }
}

impl rota_server_core::Outbox for Outbox {
    fn put(&self, add: impl FnOnce(&mut Pending)) {
        let mut pending = self.pending.borrow_mut();
        if pending.is_empty() {
            self.filled.borrow_mut().push(self.conn);
        }
        add(&mut pending);
    }
}

/// The shell.
#[derive(Default)]
pub(crate) struct Hands {
    pub(crate) now: Moment,
    pub(crate) wants: Vec<Want>,
    pub(crate) filled: Filled,
    /// What the witness has applied: nobody needs the commands of those entries again.
    pub(crate) known: LogIndex,
    /// Proposals of the controller since something changed.
    pub(crate) idle_proposals: u64,
}

impl Shell for Hands {
    type Asker = Asker;
    type Query = usize;
    type Outbox = Outbox;

    fn now(&self) -> Moment {
        self.now
    }

    fn append(&mut self, frame: Frame) {
        self.wants.push(Want::Append(frame));
    }

    fn send(&mut self, to: ServerId, message: MessageBytes) {
        self.wants.push(Want::Send(to, message));
    }

    fn connect(&mut self, addresses: &BTreeMap<ServerId, Arc<str>>) {
        self.wants.push(Want::Connect(addresses.keys().copied().collect()));
    }

    fn fetch(&mut self, (from, _): (ServerId, Arc<str>), least: LogIndex) {
        self.wants.push(Want::Fetch(from, least));
    }

    fn wanted(&mut self, state: &State, tag: Tag, command: &Command) {
        if let Command::CommitPlan(plan) = command
            && let Err(wrong) = follows_discipline(state, plan)
        {
            self.wants.push(Want::Wrong(wrong));
        }
        if let Tag::Lose(node) = tag {
            self.wants.push(Want::GivesUp(node));
        }
        self.idle_proposals = self.idle_proposals.saturating_add(1);
        if self.idle_proposals == IDLE_PROPOSALS_MAX {
            let wrong = format!("the controller proposes without end: {command:?}");
            self.wants.push(Want::Wrong(wrong));
        }
    }

    fn applied(&mut self, state: &State, applied: Applied<'_>) {
        let Applied { index, bytes, commands, outcomes, events } = applied;
        if !events.is_empty() {
            self.idle_proposals = 0;
        }
        self.wants.push(Want::Applied(Box::new(Done {
            index,
            stamps: (state.now(), state.steady()),
            commands: (bytes > 0 && index > self.known).then(|| commands.to_vec()),
            is_internal: bytes == 0,
            outcomes: outcomes.to_vec(),
            events,
            digest: index.0.is_multiple_of(DIGEST_EVERY).then(|| state.digest()),
        })));
    }

    fn answer(&mut self, asker: Asker, answer: Answer) {
        self.wants.push(Want::Answer(asker, answer));
    }

    fn serve(&mut self, query: usize, machine: Option<&Machine<Self>>) {
        self.wants.push(Want::Served(query, machine.map(|machine| machine.state().index())));
    }

    fn stood(&mut self, standing: Standing) {
        self.wants.push(Want::Stood(standing));
    }

    fn promoted(&mut self, _learner: ServerId, result: Result<(), ChangeRefused>) {
        self.wants.push(Want::Promoted(result.is_ok()));
    }

    fn fail(&mut self, reason: &str) {
        self.wants.push(Want::Fail(reason.to_owned()));
    }
}
