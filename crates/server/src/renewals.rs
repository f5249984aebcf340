//! Renewals of sessions, gathered: however many sessions there are, they take few entries of the log.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rota_core::command::{Command, Reply};
use rota_core::kv::{KvCommand, KvReply};
use rota_types::SessionId;
use rota_types::limits::{BATCH_MAX, SESSIONS_MAX};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::handle::{Core, CoreError, Urgency};

/// Renewals that come within this time of an entry with renewals wait for the next one. Far below the shortest life of a session.
const GATHER: Duration = Duration::from_millis(100);

/// Renewals that wait: more than there can be sessions are of no use.
const WAITING_MAX: usize = 2 * SESSIONS_MAX;

/// Whether the session goes on; else it is over.
type Renewed = Result<bool, CoreError>;

/// Gathers renewals.
#[derive(Debug, Default)]
pub(crate) struct Renewals(Mutex<Gathered>);

#[derive(Debug, Default)]
struct Gathered {
    waiting: Vec<(SessionId, oneshot::Sender<Renewed>)>,
    /// Whether somebody proposes what waits.
    attended: bool,
}

impl Renewals {
    /// Renews a session. Its time counts from before this returns.
    pub(crate) async fn renew(self: &Arc<Self>, core: &Core, session: SessionId) -> Renewed {
        let (reply, answer) = oneshot::channel();
        let attended = {
            let mut gathered = self.lock();
            if gathered.waiting.len() >= WAITING_MAX {
                return Err(CoreError::Overloaded);
            }
            gathered.waiting.push((session, reply));
            std::mem::replace(&mut gathered.attended, true)
        };
        if !attended {
            tokio::spawn(Arc::clone(self).attend(core.clone()));
        }
        answer.await.map_err(|_| CoreError::Stopped)?
    }

    /// Proposes what waits, until nothing does.
    async fn attend(self: Arc<Self>, core: Core) {
        while let Some((sessions, replies)) = self.take() {
            let begun = Instant::now();
            let renewed = propose(&core, sessions.clone()).await;
            for (session, reply) in sessions.iter().zip(replies) {
                let told = match &renewed {
                    Ok(over) => Ok(over.binary_search(session).is_err()),
                    Err(error) => Err(*error),
                };
                let _gone = reply.send(told);
            }
            tokio::time::sleep_until(begun + GATHER).await;
        }
    }

    /// As many renewals as one command may hold.
    fn take(&self) -> Option<(Vec<SessionId>, Vec<oneshot::Sender<Renewed>>)> {
        let mut gathered = self.lock();
        let count = gathered.waiting.len().min(BATCH_MAX);
        gathered.attended = count > 0;
        (count > 0).then(|| gathered.waiting.drain(..count).unzip())
    }

    fn lock(&self) -> MutexGuard<'_, Gathered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Renews these sessions in one entry. Answers those that are over, in order.
async fn propose(core: &Core, sessions: Vec<SessionId>) -> Result<Vec<SessionId>, CoreError> {
    let command = Command::Kv(KvCommand::RenewSessions(sessions));
    match core.command(Urgency::Finishing, command).await? {
        (_, Ok(Reply::Kv(KvReply::Renewed { mut over }))) => {
            over.sort_unstable();
            Ok(over)
        }
        (_, other) => {
            tracing::error!(?other, "sessions were not renewed");
            Err(CoreError::Overloaded)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_renewals_as_fit_go_into_one_command() {
        for (waiting, first, rest) in [
            (BATCH_MAX - 1, BATCH_MAX - 1, 0),
            (BATCH_MAX, BATCH_MAX, 0),
            (BATCH_MAX + 1, BATCH_MAX, 1),
        ] {
            let renewals = Renewals::default();
            let session = |id: usize| (SessionId(id as u64), oneshot::channel().0);
            renewals.lock().waiting.extend((0..waiting).map(session));
            assert_eq!(renewals.take().map(|(sessions, _)| sessions.len()), Some(first));
            let left = renewals.take().map_or(0, |(sessions, _)| sessions.len());
            assert_eq!(left, rest);
        }
        assert!(Renewals::default().take().is_none());
    }
}
