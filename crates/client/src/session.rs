//! A session that is renewed as long as somebody holds on to it.

use std::time::Duration;

use rota_api::{ErrorCode, SessionRequest};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::error::{Error, Result};
use crate::transport::Client;

/// The pause before a renewal that failed is tried again.
const AGAIN: Duration = Duration::from_millis(250);

/// A session that is renewed until this is dropped. What is bound to it then lives for its remaining time, unless it is closed.
#[derive(Debug)]
pub struct Kept {
    client: Client,
    id: u64,
    lost: watch::Receiver<Option<Error>>,
    renewing: AbortHandle,
}

impl Client {
    /// Opens a session and renews it from now on, whenever a third of its time has passed.
    ///
    /// # Errors
    /// If it is refused or no server answers.
    pub async fn keep_session(&self, ttl: Duration) -> Result<Kept> {
        let sent = Instant::now();
        let request = SessionRequest { ttl: Some(ttl.into()) };
        let id = self.open_session(&request).await?.id;
        let (told, lost) = watch::channel(None);
        let client = self.clone();
        let renewing = tokio::spawn(async move {
            let error = renew(&client, id, ttl, sent).await;
            told.send_replace(Some(error));
            // Whoever asks later is told as well.
            told.closed().await;
        });
        Ok(Kept { client: self.clone(), id, lost, renewing: renewing.abort_handle() })
    }
}

impl Kept {
    /// The session's id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns when the session is over or can't be counted on any more, and why: it was not renewed for five sixths of its time, as counted
    /// from when the last renewal that succeeded was sent. The last sixth is for stopping what depends on it.
    pub async fn lost(&mut self) -> Error {
        let told = self.lost.wait_for(Option::is_some).await;
        let error = told.ok().and_then(|told| told.clone());
        error.unwrap_or_else(|| Error::InvalidAnswer {
            server: self.client.server().to_owned(),
            reason: "nobody renews the session any more".to_owned(),
        })
    }

    /// Ends the session: what is bound to it goes at once.
    ///
    /// # Errors
    /// If it was over already or no server answers; it ends by itself then.
    pub async fn close(self) -> Result<()> {
        self.renewing.abort();
        self.client.close_session(self.id).await
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

/// Renews a session until that fails for too long.
async fn renew(client: &Client, id: u64, ttl: Duration, opened: Instant) -> Error {
    let mut renewed = opened;
    let mut next = opened + ttl / 3;
    let mut error = None;
    loop {
        tokio::time::sleep_until(next).await;
        let (sent, end) = (Instant::now(), renewed + ttl - ttl / 6);
        match timeout_at(end, client.renew_session(id)).await {
            Ok(Ok(_)) => {
                renewed = sent;
                next = sent + ttl / 3;
            }
            Ok(Err(over)) if over.is(ErrorCode::SessionNotFound) => return over,
            Ok(Err(other)) => {
                error = Some(other);
                sleep(AGAIN.min(ttl / 12)).await;
            }
            Err(_) => {
                let (server, seconds) = (client.server().to_owned(), ttl.as_secs());
                return error.unwrap_or(Error::Timeout { server, seconds });
            }
        }
    }
}
