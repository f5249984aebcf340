//! How the rest of the process speaks to the core thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rota_core::State;
use rota_core::command::{Command, Outcome};
use rota_core::server::ServerSpec;
use rota_ports::FrameSeq;
use rota_ports::{MessageBytes, SnapshotMeta};
use rota_server_core::{Answer, Asker, Beat};
pub(crate) use rota_server_core::{Standing, SteerRefused, Steering};
use rota_types::limits::{BATCH_MAX, ENTRY_BYTES_MAX};
use rota_types::{AttemptId, LogIndex, NodeId, ServerId, Timestamp};
use rota_wire::worker::Leaving;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::auth::ACTOR;
use crate::core_thread::View;
use crate::out::Out;
use crate::outbox::Outbox;

/// Commands that may wait for their commit, besides finishing work, which always may.
pub(crate) const PROPOSALS_MAX: usize = 4_096;
/// Bytes of them.
pub(crate) const PROPOSAL_BYTES_MAX: usize = 128 << 20;
/// Reads that may wait for the core thread.
pub(crate) const READS_MAX: usize = 2_048;
/// Proposals from about this size on are measured before they are taken in.
const MEASURED_FROM: usize = 2 << 20;
/// Room in an entry for its own fields and for the plan that goes with it.
const PLAN_BYTES: usize = 1 << 20;
/// What byte permits are counted in.
const BLOCK: usize = 4_096;

const _: () = assert!(PROPOSAL_BYTES_MAX >= 2 * ENTRY_BYTES_MAX);
const _: () = assert!(BATCH_MAX * 64 <= PLAN_BYTES);

/// Everything that can happen to the core thread.
pub(crate) enum Request {
    /// Somebody asks for changes.
    Propose(Proposal),
    /// Somebody reads. Has to be short: a page, not a scan.
    Query(Query),
    /// The log thread has made frames durable, in this time.
    Persisted(FrameSeq, Duration),
    /// The log thread could not.
    LogFailed(String),
    /// A worker's session is ready for what its node must run.
    Attach(Attach),
    /// A worker's session is over.
    Detach(NodeId, u64),
    /// A worker's heartbeat, with its own clock; acknowledged only if it renewed the lease.
    Heartbeat(Beat),
    /// A worker is about to go.
    Leaving { node: NodeId, session: u64, leaving: Leaving },
    /// A worker has launched attempts: for display.
    Started { node: NodeId, session: u64, launched: Vec<(AttemptId, Timestamp)> },
    /// A snapshot at this index is safely stored.
    Snapshotted(LogIndex, SnapshotResult),
    /// A peer's log sent messages.
    Peer(ServerId, Vec<MessageBytes>),
    /// What a peer made of the log up to an entry.
    Sample(ServerId, LogIndex, u64),
    /// The link to a peer was lost, or made anew.
    LinkReset(ServerId),
    /// A peer said who it is.
    Introduced(ServerSpec),
    /// All founders are in order: the cluster begins.
    Found,
    /// This server must not take part.
    Out(Out),
    /// A peer says that this server was removed.
    Expelled,
    /// Somebody wants the members changed, or another leader.
    Steer(Steering, oneshot::Sender<Result<(), SteerRefused>>),
    /// Somebody needs a snapshot of at least this index to be there.
    Snapshot(LogIndex, oneshot::Sender<Result<(), String>>),
    /// The image that the log asked for is on the disk, or could not be had.
    Fetched(Result<(), String>),
    /// The process shuts down: finish what was taken in.
    Stop(oneshot::Sender<LogIndex>),
    /// End at once, as if the process had been killed.
    Abandon,
}

/// How making a snapshot went.
pub(crate) type SnapshotResult = Result<SnapshotMade, SnapshotFailed>;

/// A snapshot that was made.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotMade {
    pub(crate) bytes: u64,
    pub(crate) meta: SnapshotMeta,
    /// The log may be dropped up to here: an older snapshot that is still there can stand in for a damaged new one.
    pub(crate) covered: LogIndex,
}

/// A snapshot that was not made.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum SnapshotFailed {
    /// Another attempt may go better.
    #[error("{0}")]
    Again(String),
    /// Snapshot and log make another state than the one in memory: one of them is wrong.
    #[error("{0}")]
    Differs(String),
}

/// Commands that go into one entry together.
pub(crate) type Proposal = rota_server_core::Proposal<Caller>;

/// Who waits for a proposal.
pub(crate) enum Caller {
    /// Told the outcomes after the commit; dropped if they will not be known. The permits are given back then.
    Call(oneshot::Sender<Result<Applied, CoreError>>, Vec<OwnedSemaphorePermit>),
    /// A worker's session: its outbox tells it what is settled.
    Session(OwnedSemaphorePermit),
}

/// What became of a proposal.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    pub(crate) index: LogIndex,
    pub(crate) outcomes: Vec<Outcome>,
}

/// Looks at the state, or is told why it can't.
pub(crate) type Reader = Box<dyn FnOnce(Result<&View<'_>, CoreError>) + Send>;

/// A read on the core thread.
pub(crate) struct Query {
    pub(crate) consistency: Consistency,
    pub(crate) run: Reader,
    pub(crate) permit: OwnedSemaphorePermit,
}

/// What a read may miss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Consistency {
    /// Nothing that was acknowledged anywhere before the read began.
    #[default]
    Linearizable,
    /// What this server has not heard of yet.
    Stale,
}

tokio::task_local! {
    /// What the reads of the request at hand may miss.
    pub(crate) static CONSISTENCY: Consistency;
}

impl Query {
    /// Lets the read see the state, or tells why it can't.
    pub(crate) fn answer(self, view: Result<&View<'_>, CoreError>) {
        (self.run)(view);
        drop(self.permit);
    }
}

impl Caller {
    /// Tells a caller what came of its proposal.
    pub(crate) fn tell(self, answer: Answer) {
        match self {
            Self::Call(reply, permits) => {
                drop(reply.send(match answer {
                    Answer::Applied(index, outcomes) => Ok(Applied { index, outcomes }),
                    Answer::NotLeader => Err(CoreError::NotLeader),
                    Answer::Unknown => Err(CoreError::Unknown),
                }));
                drop(permits);
            }
            Self::Session(permit) => drop(permit),
        }
    }
}

/// A session that takes over its node.
pub(crate) type Attach = rota_server_core::Attach<Arc<Outbox>>;

/// Whether a proposal may be refused because there is too much to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// New work waits its turn.
    New,
    /// Finishing work (reports, cancels, operators) is never refused.
    Finishing,
}

/// Why the core thread gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CoreError {
    /// Nothing was done.
    #[error("too much waits for its turn")]
    Overloaded,
    /// Another server leads, or nobody does; nothing was done.
    #[error("this server does not lead")]
    NotLeader,
    /// This server stopped leading meanwhile; a change may or may not have been made.
    #[error("this server stopped leading before the outcome was known")]
    Unknown,
    /// It does not fit into one entry of the log; nothing was done.
    #[error("that makes {bytes} bytes in the log, and one entry has at most {max}", max = ENTRY_BYTES_MAX)]
    TooLarge {
        /// How large it would be.
        bytes: usize,
    },
    /// The process is going down; a change may or may not have been made.
    #[error("the server is shutting down")]
    Stopped,
}

/// A handle on the core thread.
#[derive(Clone)]
pub(crate) struct Core {
    inner: Arc<Inner>,
}

struct Inner {
    requests: mpsc::Sender<Request>,
    applied: AtomicU64,
    applied_watch: watch::Sender<u64>,
    standing: watch::Sender<Standing>,
    servers: watch::Sender<Arc<[String]>>,
    proposals: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    reads: Arc<Semaphore>,
}

impl Core {
    /// A handle, and the end of the channel that the thread reads.
    pub(crate) fn new(applied: LogIndex) -> (Self, mpsc::Receiver<Request>) {
        let (requests, receiver) = mpsc::channel();
        let inner = Inner {
            requests,
            applied: AtomicU64::new(applied.0),
            applied_watch: watch::Sender::new(applied.0),
            standing: watch::Sender::default(),
            servers: watch::Sender::default(),
            proposals: Arc::new(Semaphore::new(PROPOSALS_MAX)),
            bytes: Arc::new(Semaphore::new(PROPOSAL_BYTES_MAX / BLOCK)),
            reads: Arc::new(Semaphore::new(READS_MAX)),
        };
        (Self { inner: Arc::new(inner) }, receiver)
    }

    /// The last applied entry.
    pub(crate) fn applied(&self) -> LogIndex {
        LogIndex(self.inner.applied.load(Ordering::Acquire))
    }

    /// Notes the last applied entry. For the core thread only.
    pub(crate) fn note_applied(&self, index: LogIndex) {
        self.inner.applied.store(index.0, Ordering::Release);
        self.inner.applied_watch.send_replace(index.0);
    }

    /// Waits until this entry is applied.
    pub(crate) async fn wait_applied(&self, index: LogIndex) {
        let mut watch = self.inner.applied_watch.subscribe();
        while self.applied() < index {
            if watch.changed().await.is_err() {
                return;
            }
        }
    }

    /// Who leads, as far as this server knows, and every change of that.
    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.inner.standing.subscribe()
    }

    /// Where the servers of the cluster are reached, and every change of that; empty if this server runs alone.
    pub(crate) fn servers(&self) -> watch::Receiver<Arc<[String]>> {
        self.inner.servers.subscribe()
    }

    /// Notes where the servers are reached. For the core thread only.
    pub(crate) fn note_servers(&self, state: &State) {
        let addresses = state.servers().map(|(_, server)| server.spec.address.to_string());
        let addresses: Arc<[String]> = addresses.filter(|address| !address.is_empty()).collect();
        self.inner.servers.send_if_modified(|known| {
            let changed = *known != addresses;
            *known = addresses;
            changed
        });
    }

    /// Notes who leads. For the core thread only.
    pub(crate) fn note_standing(&self, standing: Standing) {
        self.inner.standing.send_if_modified(|known| {
            let changed = *known != standing;
            *known = standing;
            changed
        });
    }

    /// Tells the core thread something that needs no answer. A process that goes down needs none either.
    pub(crate) fn tell(&self, request: Request) {
        drop(self.inner.requests.send(request));
    }

    /// Asks for changes and waits until they are durable and applied. On behalf of an authenticated caller, who asked is noted with them.
    pub(crate) async fn propose(
        &self,
        urgency: Urgency,
        mut commands: Vec<Command>,
        bytes: usize,
    ) -> Result<Applied, CoreError> {
        let actor = ACTOR.try_with(Clone::clone).ok();
        let noted = actor.is_some();
        if let Some(actor) = actor {
            commands.push(Command::Note(actor.note(commands.len())));
        }
        let permits = match urgency {
            Urgency::Finishing => Vec::new(),
            Urgency::New => {
                check_size(&commands, bytes)?;
                self.admit(bytes)?
            }
        };
        let (reply, answer) = oneshot::channel();
        let asker = Asker::Outside(Caller::Call(reply, permits));
        let proposal = Proposal { commands, bytes, asker };
        self.tell(Request::Propose(proposal));
        let mut applied = answer.await.map_err(|_| CoreError::Stopped)??;
        if noted {
            // The note's own outcome is nobody's business.
            applied.outcomes.pop();
        }
        Ok(applied)
    }

    /// Asks for one change.
    pub(crate) async fn command(
        &self,
        urgency: Urgency,
        command: Command,
    ) -> Result<(LogIndex, Outcome), CoreError> {
        let mut applied = self.propose(urgency, vec![command], 256).await?;
        let outcome = applied.outcomes.pop().ok_or(CoreError::Stopped)?;
        Ok((applied.index, outcome))
    }

    fn admit(&self, bytes: usize) -> Result<Vec<OwnedSemaphorePermit>, CoreError> {
        let blocks = u32::try_from(bytes.div_ceil(BLOCK).max(1)).unwrap_or(u32::MAX);
        let count = Arc::clone(&self.inner.proposals).try_acquire_owned();
        let bytes = Arc::clone(&self.inner.bytes).try_acquire_many_owned(blocks);
        match (count, bytes) {
            (Ok(count), Ok(bytes)) => Ok(vec![count, bytes]),
            _ => Err(CoreError::Overloaded),
        }
    }

    /// Reads on the core thread; sees every write that was acknowledged before, unless the request at hand may miss some.
    pub(crate) async fn query<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View<'_>) -> T + Send + 'static,
    ) -> Result<T, CoreError> {
        self.read(CONSISTENCY.try_get().unwrap_or_default(), read).await
    }

    /// Reads what this server has heard of, whoever leads.
    pub(crate) async fn peek<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View<'_>) -> T + Send + 'static,
    ) -> Result<T, CoreError> {
        self.read(Consistency::Stale, read).await
    }

    async fn read<T: Send + 'static>(
        &self,
        consistency: Consistency,
        read: impl FnOnce(&View<'_>) -> T + Send + 'static,
    ) -> Result<T, CoreError> {
        let permit =
            Arc::clone(&self.inner.reads).try_acquire_owned().map_err(|_| CoreError::Overloaded)?;
        let (reply, answer) = oneshot::channel();
        let run = Box::new(move |view: Result<&View<'_>, CoreError>| {
            drop(reply.send(view.map(read)));
        });
        self.tell(Request::Query(Query { consistency, run, permit }));
        answer.await.map_err(|_| CoreError::Stopped)?
    }

    /// Asks something of the log itself.
    pub(crate) async fn steer(&self, steering: Steering) -> Result<(), SteerRefused> {
        let (reply, answer) = oneshot::channel();
        self.tell(Request::Steer(steering, reply));
        answer.await.unwrap_or(Err(SteerRefused::NotLeader))
    }

    /// Waits until there is a snapshot of at least this index.
    pub(crate) async fn snapshot(&self, index: LogIndex) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        self.tell(Request::Snapshot(index, reply));
        answer.await.unwrap_or_else(|_| Err("the server goes down".to_owned()))
    }

    /// How long a caller that was refused should wait: short, because what is queued is gone within a few syncs.
    pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);
}

/// Refuses what makes no entry of the log. What is small by far is not measured.
fn check_size(commands: &[Command], bytes: usize) -> Result<(), CoreError> {
    if bytes < MEASURED_FROM {
        return Ok(());
    }
    let bytes = rota_wire::log::encoded_bytes(commands).saturating_add(PLAN_BYTES);
    if bytes > ENTRY_BYTES_MAX { Err(CoreError::TooLarge { bytes }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(core: &Core, count: usize, bytes: usize) -> Vec<Vec<OwnedSemaphorePermit>> {
        (0..count).map_while(|_| core.admit(bytes).ok()).collect()
    }

    #[test]
    fn exactly_as_many_proposals_wait_as_may() {
        let (core, _requests) = Core::new(LogIndex(0));
        let mut held = admitted(&core, PROPOSALS_MAX - 1, 1);
        assert_eq!(held.len(), PROPOSALS_MAX - 1);
        held.extend(admitted(&core, 1, 1));
        assert_eq!(held.len(), PROPOSALS_MAX);
        assert_eq!(core.admit(1).err(), Some(CoreError::Overloaded));
        held.pop();
        assert!(core.admit(1).is_ok());
    }

    #[test]
    fn exactly_as_many_bytes_wait_as_may() {
        let (core, _requests) = Core::new(LogIndex(0));
        assert!(core.admit(PROPOSAL_BYTES_MAX - 1).is_ok());
        assert!(core.admit(PROPOSAL_BYTES_MAX).is_ok());
        assert!(core.admit(PROPOSAL_BYTES_MAX + 1).is_err());
        let _all = core.admit(PROPOSAL_BYTES_MAX).unwrap();
        assert!(core.admit(1).is_err());
    }

    #[test]
    fn what_does_not_fit_into_one_entry_is_refused() {
        let checked = |encoded: usize| {
            let note = |bytes| rota_core::token::Note {
                who: "x".repeat(bytes).into(),
                source: "".into(),
                action: "".into(),
                commands: 0,
            };
            let around = rota_wire::log::encoded_bytes(&[Command::Note(note(encoded))]) - encoded;
            let command = Command::Note(note(encoded - around));
            assert_eq!(rota_wire::log::encoded_bytes(std::slice::from_ref(&command)), encoded);
            check_size(&[command], encoded)
        };
        let most = ENTRY_BYTES_MAX - PLAN_BYTES;
        assert_eq!([most - 1, most].map(checked), [Ok(()), Ok(())]);
        assert_eq!(checked(most + 1), Err(CoreError::TooLarge { bytes: ENTRY_BYTES_MAX + 1 }));
    }

    #[tokio::test]
    async fn overload_refuses_new_work_and_never_finishing_work() {
        let (core, requests) = Core::new(LogIndex(0));
        let _held = admitted(&core, PROPOSALS_MAX, 1);
        let refused = core.propose(Urgency::New, vec![Command::Tick], 1).await;
        assert_eq!(refused.err(), Some(CoreError::Overloaded));
        let cancel = core.propose(Urgency::Finishing, vec![Command::Tick], 1);
        // Nobody answers here: what counts is that it was handed over.
        let waited = tokio::time::timeout(Duration::from_millis(20), cancel).await;
        assert!(waited.is_err());
        assert!(matches!(requests.try_recv(), Ok(Request::Propose(_))));
    }
}
