//! Keys, sessions and locks: one method per path, and waiting for a lock.
//!
//! Changes of keys are sent once: repeated, the first try might be done after somebody else's change, and the second one undo it.

use std::time::Duration;

use reqwest::Method;
use rota_api::{
    AcquireRequest, Acquired, ChangeRequest, DeleteQuery, ErrorCode, Key, KeyQuery, KeysChanged,
    Lock, LockQuery, Page, PageQuery, PrefixQuery, Problem, PutQuery, ReleaseQuery, Session,
    SessionRequest,
};
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::transport::{Call, Client, escape};

/// The longest that one request waits for a lock.
const WAIT_PART: Duration = Duration::from_secs(20);

/// What has to hold of a key before it is changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyIs {
    /// Nothing.
    #[default]
    Anything,
    /// There is no such key.
    Absent,
    /// It was changed last at this revision.
    At(u64),
}

impl KeyIs {
    fn on(self, call: Call<'_>) -> Call<'_> {
        let mut call = match self {
            Self::Anything => call,
            Self::Absent => call.header("if-none-match", "*"),
            Self::At(revision) => call.header("if-match", format!("\"{revision}\"")),
        };
        call.repeatable = false;
        call
    }
}

impl Client {
    /// Reads a key.
    ///
    /// # Errors
    /// If there is no such key or no server answers.
    pub async fn key(&self, key: &str) -> Result<Key> {
        self.json(Call::get(&path("kv", key)?).header("accept", "application/json")).await
    }

    /// One page of keys, in the order of their bytes.
    ///
    /// # Errors
    /// If the cursor is of another list, or no server answers.
    pub async fn keys(&self, query: &KeyQuery) -> Result<Page<Key>> {
        self.json(Call::get("/v1/kv").query(query)).await
    }

    /// Gives a key a value. Sent once.
    ///
    /// # Errors
    /// If the key is not as it has to be, it is refused, or no server answers.
    pub async fn put_key(
        &self,
        key: &str,
        value: Vec<u8>,
        has_to_be: KeyIs,
        query: &PutQuery,
    ) -> Result<KeysChanged> {
        let path = path("kv", key)?;
        let mut call = has_to_be.on(Call::new(Method::PUT, &path).query(query));
        call.body = Some(("application/octet-stream", value));
        self.json(call).await
    }

    /// Deletes a key; `deleted` says whether there was one. Sent once.
    ///
    /// # Errors
    /// As [`put_key`](Self::put_key).
    pub async fn delete_key(
        &self,
        key: &str,
        has_to_be: KeyIs,
        query: &DeleteQuery,
    ) -> Result<KeysChanged> {
        let path = path("kv", key)?;
        self.json(has_to_be.on(Call::new(Method::DELETE, &path).query(query))).await
    }

    /// Deletes keys that begin alike. Sent once.
    ///
    /// # Errors
    /// If it is refused or no server answers.
    pub async fn delete_keys(&self, query: &PrefixQuery) -> Result<KeysChanged> {
        let call = Call::new(Method::DELETE, "/v1/kv").query(query);
        self.json(Call { repeatable: false, ..call }).await
    }

    /// Changes several keys together, or none. Sent once.
    ///
    /// # Errors
    /// If a condition does not hold, it is refused, or no server answers.
    pub async fn change_keys(&self, request: &ChangeRequest) -> Result<KeysChanged> {
        self.json(Call::post("/v1/kv").json(request)).await
    }

    /// Opens a session. [`keep_session`](Self::keep_session) renews it as well.
    ///
    /// # Errors
    /// If it is refused or no server answers.
    pub async fn open_session(&self, request: &SessionRequest) -> Result<Session> {
        self.json(Call::post("/v1/sessions").json(request)).await
    }

    /// Renews a session.
    ///
    /// # Errors
    /// If it is over or no server answers.
    pub async fn renew_session(&self, id: u64) -> Result<Session> {
        self.json(Call::post(&format!("/v1/sessions/{id}/renew")).repeatable()).await
    }

    /// Ends a session with all that is bound to it.
    ///
    /// # Errors
    /// If it is over or no server answers.
    pub async fn close_session(&self, id: u64) -> Result<()> {
        self.done(Call::new(Method::DELETE, &format!("/v1/sessions/{id}"))).await
    }

    /// One session.
    ///
    /// # Errors
    /// As [`renew_session`](Self::renew_session).
    pub async fn session(&self, id: u64) -> Result<Session> {
        self.json(Call::get(&format!("/v1/sessions/{id}"))).await
    }

    /// One page of sessions.
    ///
    /// # Errors
    /// If no server answers.
    pub async fn sessions(&self, query: &PageQuery) -> Result<Page<Session>> {
        self.json(Call::get("/v1/sessions").query(query)).await
    }

    /// Claims a lock, and waits for it as long as the request says.
    ///
    /// # Errors
    /// If somebody else holds it and the claim is not to wait, the session is over, or no server answers.
    pub async fn acquire_lock(&self, lock: &str, request: &AcquireRequest) -> Result<Acquired> {
        self.json(Call::new(Method::PUT, &path("locks", lock)?).json(request)).await
    }

    /// Claims a lock and waits until it is held, or until then; without a time, as long as it takes. A claim that got nothing in time is
    /// given back. `None` stands for that.
    ///
    /// # Errors
    /// As [`acquire_lock`](Self::acquire_lock).
    pub async fn await_lock(
        &self,
        lock: &str,
        (session, value): (u64, &str),
        until: Option<Instant>,
    ) -> Result<Option<Acquired>> {
        let part = WAIT_PART.min(self.timeout() / 2);
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let wait = Some(left.map_or(part, |left| left.min(part)).into());
            let request = AcquireRequest { session, value: value.to_owned(), wait };
            let acquired = self.acquire_lock(lock, &request).await?;
            if acquired.held {
                return Ok(Some(acquired));
            }
            if left.is_some_and(|left| left <= part) {
                return match self.release_lock(lock, session).await {
                    Err(error) if !error.is(ErrorCode::NoClaim) => Err(error),
                    Ok(()) | Err(_) => Ok(None),
                };
            }
        }
    }

    /// Gives a lock back, or a place in its queue.
    ///
    /// # Errors
    /// If the session has no claim or no server answers.
    pub async fn release_lock(&self, lock: &str, session: u64) -> Result<()> {
        let path = path("locks", lock)?;
        let query = ReleaseQuery { session: Some(session) };
        let call = Call::new(Method::DELETE, &path).query(&query);
        self.done(Call { repeatable: false, ..call }).await
    }

    /// Who holds a lock, and who waits.
    ///
    /// # Errors
    /// If nobody holds it or no server answers.
    pub async fn lock(&self, lock: &str) -> Result<Lock> {
        self.json(Call::get(&path("locks", lock)?)).await
    }

    /// One page of locks that are held.
    ///
    /// # Errors
    /// If no server answers.
    pub async fn locks(&self, query: &LockQuery) -> Result<Page<Lock>> {
        self.json(Call::get("/v1/locks").query(query)).await
    }
}

/// The path of a key or a lock. Names that no path can carry are refused here, as the server would.
fn path(noun: &str, name: &str) -> Result<String> {
    if ["", ".", ".."].contains(&name) {
        let detail = format!("{name:?} is no name: it must not be empty, `.` or `..`");
        return Err(Error::Problem(Box::new(Problem::new(ErrorCode::InvalidRequest, detail))));
    }
    Ok(format!("/v1/{noun}/{}", escape(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_so_that_no_path_is_made_of_them() {
        assert_eq!(path("kv", "a/../b ä").as_deref(), Ok("/v1/kv/a%2F..%2Fb%20%C3%A4"));
        assert_eq!(path("locks", "a?b#c%").as_deref(), Ok("/v1/locks/a%3Fb%23c%25"));
        for wrong in ["", ".", ".."] {
            assert!(path("kv", wrong).is_err_and(|error| error.is(ErrorCode::InvalidRequest)));
        }
    }
}
