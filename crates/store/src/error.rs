//! What can go wrong with a data directory.

use std::fmt;
use std::io;

use rota_core::image::BadImage;
use rota_types::LogIndex;
use rota_wire::DecodeError;

/// A data directory can't be used, or an operation on it failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, with the file's name.
        doing: String,
        /// What the file system said.
        source: io::Error,
    },
    /// Bytes that were durable are not what was written.
    #[error("{0}; restore the data directory from a backup, or move it away and start empty")]
    Damage(Damage),
    /// Another process uses the directory.
    #[error("{path} is in use by {}; stop it or choose another data directory", Holder(*pid))]
    InUse {
        /// The directory.
        path: String,
        /// The process that holds it, if it could be found out.
        pid: Option<u32>,
    },
    /// The directory belongs to another server or cluster, or is of another version.
    #[error("{0}")]
    Foreign(String),
    /// The bytes are whole, but this version can't read them.
    #[error("log entry {index} can't be read by this version: {source}")]
    Entry {
        /// Which entry.
        index: LogIndex,
        /// What is wrong.
        source: DecodeError,
    },
    /// The bytes are whole, but this version can't read them.
    #[error("{file} can't be read by this version: {source}")]
    Record {
        /// The snapshot or history file.
        file: String,
        /// What is wrong.
        source: DecodeError,
    },
    /// The records of a snapshot contradict each other.
    #[error("{0}")]
    Image(#[from] BadImage),
    /// The history's database refused.
    #[error("history: {0}")]
    History(String),
}

/// Bytes that are not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file's name.
    pub file: String,
    /// Where in the file.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
}

impl StoreError {
    /// For `map_err`: the error of doing `doing` with `file`.
    pub(crate) fn io(doing: &'static str, file: &str) -> impl FnOnce(io::Error) -> Self {
        let doing = format!("{doing} {file}");
        move |source| Self::Io { doing, source }
    }

    pub(crate) fn damage(file: &str, offset: u64, what: impl Into<String>) -> Self {
        Self::Damage(Damage { file: file.into(), offset, what: what.into() })
    }
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Io { doing, source } => {
                Self::new(source.kind(), format!("{doing}: {source}"))
            }
            other => Self::other(other),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, what } = self;
        write!(f, "{file} is damaged at byte {offset}: {what}")
    }
}

struct Holder(Option<u32>);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("another process"),
        }
    }
}
