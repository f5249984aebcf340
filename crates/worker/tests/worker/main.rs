//! The worker as a whole, against a server that does what the test says: real processes, real connections on loopback.

mod commands;
mod fake;
mod http;
mod output;
mod sessions;
