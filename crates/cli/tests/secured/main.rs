//! The built binary with an identity: servers, workers and people who have to prove who they are.

mod cluster;
mod harness;
mod one;
mod operations;
