//! What can go wrong between client and server.

use rota_api::{ErrorCode, Problem};

/// A result of the client.
pub type Result<T> = std::result::Result<T, Error>;

/// A call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The server answered with a problem.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// No server answered. Nothing was done.
    #[error("no server answers at {servers}: {reason}")]
    Unreachable {
        /// Where it was tried.
        servers: String,
        /// What the last try met.
        reason: String,
    },
    /// The answer did not come in time. The request may have been done.
    #[error("no answer from {server} within {seconds} s")]
    Timeout {
        /// Where it was tried.
        server: String,
        /// How long it was waited.
        seconds: u64,
    },
    /// Something answered that is not a rota server, or the connection broke in the middle of an answer.
    #[error("the answer of {server} can't be read: {reason}")]
    InvalidAnswer {
        /// Who answered.
        server: String,
        /// What was wrong with it.
        reason: String,
    },
    /// The caller's own token, certificate or authority is of no use.
    #[error("{reason}")]
    Identity {
        /// Why.
        reason: String,
    },
    /// The client was given an address that it can't use.
    #[error("\"{address}\" is not a server's address")]
    InvalidAddress {
        /// What was given.
        address: String,
    },
}

impl Error {
    /// The code in the catalogue.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Problem(problem) => problem.error_code().unwrap_or(ErrorCode::InvalidAnswer),
            Self::Unreachable { .. } => ErrorCode::ServerUnreachable,
            Self::Timeout { .. } => ErrorCode::RequestTimeout,
            Self::InvalidAnswer { .. } => ErrorCode::InvalidAnswer,
            Self::InvalidAddress { .. } => ErrorCode::Usage,
            Self::Identity { .. } => ErrorCode::InvalidConfig,
        }
    }

    /// Whether the server refused with this code.
    #[must_use]
    pub fn is(&self, code: ErrorCode) -> bool {
        self.code() == code
    }
}
