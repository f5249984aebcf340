//! The only crate that knows bytes: protobuf messages and their conversions to what the rest of rota works with.
//!
//! - [`log`]: entries of the replicated log. [`snapshot`]: the records of a snapshot. [`history`]: finished work.
//! - [`backup`]: the parts of a backup. [`peer`]: the messages between servers. [`worker`]: those between servers and workers. [`action`]: what a task does, opaque to the core.
//!
//! Decoding is total: any bytes give a value or a [`DecodeError`] that says what is wrong, and what is not understood is an error,
//! never skipped. Nothing here does I/O.

pub mod action;
pub mod backup;
mod common;
mod error;
pub mod history;
mod kv;
pub mod log;
pub mod peer;
mod server;
pub mod snapshot;
mod spec;
mod token;
pub mod worker;

pub use error::DecodeError;

/// What the protocol compiler made of `proto/`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated code")]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/messages.rs"));
}
pub(crate) use proto::rota::log::v1 as pb;
