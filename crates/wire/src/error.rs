//! What can be wrong with bytes.

use std::fmt;

/// The bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Not a message of this kind at all: damaged, or something else.
    Malformed {
        /// What should have been there.
        what: &'static str,
        /// Where decoding stopped.
        why: String,
    },
    /// A field is absent or of a kind that this version does not know. Only a newer version writes such a thing.
    Unknown(&'static str),
    /// A number is outside of what the field can hold.
    OutOfRange {
        /// The field.
        what: &'static str,
        /// The number found.
        value: u64,
    },
    /// Fields contradict each other.
    Inconsistent(&'static str),
    /// Written in a format that this version does not know.
    Format {
        /// What was to be read.
        what: &'static str,
        /// Its format.
        format: u32,
    },
}

impl DecodeError {
    /// Wraps the decoder's own complaint about a message of kind `what`.
    pub(crate) fn malformed(what: &'static str) -> impl FnOnce(prost::DecodeError) -> Self {
        move |error| Self::Malformed { what, why: error.to_string() }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { what, why } => write!(f, "not a {what}: {why}"),
            Self::Unknown(what) => {
                write!(f, "{what} is missing or of a kind that this version does not know")
            }
            Self::OutOfRange { what, value } => write!(f, "{what} is out of range: {value}"),
            Self::Inconsistent(what) => write!(f, "{what}"),
            Self::Format { what, format } => {
                write!(f, "{what} has format {format}; this version reads up to 0")
            }
        }
    }
}

impl std::error::Error for DecodeError {}
