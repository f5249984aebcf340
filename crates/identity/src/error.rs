//! What can be wrong with an identity. Each message says what to do.

use std::io;
use std::path::PathBuf;

/// What this crate answers.
pub type Result<T> = std::result::Result<T, IdentityError>;

/// An identity can't be made or used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file can't be read or written.
    #[error("cannot {what} {}: {source}; check that the directory exists and belongs to this user", path.display())]
    File {
        /// What was tried: read, write, …
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A secret can be read by others.
    #[error(
        "{} can be read by others (mode {mode:04o}): whoever has read it can pose as this cluster; run `chmod {remedy:o} {}`, \
         and if others may have read it, replace it", path.display(), path.display()
    )]
    Exposed {
        /// The file or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode that it should have.
        remedy: u32,
    },
    /// A file is not what it should be.
    #[error("{} is not usable: {reason}; restore it from a copy, or join again with a new join token", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is an authority already.
    #[error(
        "{} holds a certificate authority already; to make another administrator token for it, run `rota cluster admin-token`",
        .0.display()
    )]
    Exists(PathBuf),
    /// A certificate that was presented is not one of this cluster.
    #[error("the certificate is not one of this cluster: {0}")]
    Stranger(&'static str),
    /// A name can't stand in a certificate.
    #[error("{name:?} can't stand in a certificate: {reason}")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// The request for a certificate is not one.
    #[error("the request for a certificate is not usable: {0}")]
    Request(String),
    /// The cryptographic library refused.
    #[error("cannot make keys or certificates: {0}")]
    Crypto(String),
}

impl IdentityError {
    pub(crate) fn crypto(error: impl ToString) -> Self {
        Self::Crypto(error.to_string())
    }
}
