//! The client of the REST interface.
//!
//! Calls that are safe to repeat are repeated, with jittered pauses and on every server that is named: reads, and writes that carry an
//! idempotency key or set something to a value. Everything else is sent once, because an answer that got lost may stand for a change
//! that was made. Over TLS, servers are checked by the cluster's own authority. Nothing here reads environment variables; joining writes
//! the files of an identity.

mod access;
mod calls;
mod error;
mod events;
mod keys;
mod logs;
mod session;
mod transport;

pub use access::{Access, join_server, join_worker, renew_worker};
pub use calls::Download;
pub use error::{Error, Result};
pub use events::{Changes, Events, Message, SseParser, Stream};
pub use keys::KeyIs;
pub use logs::{LogPart, Logs};
pub use session::Kept;
pub use transport::{Client, ClientConfig, fresh_key};
