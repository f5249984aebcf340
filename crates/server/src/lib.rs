//! The server: the shell around the state machine and the controller.
//!
//! [`Server::start`] recovers what is on the disk, starts the core thread and serves REST and worker sessions on one port. What is
//! decided is decided in the pure crates; here are the clock, the channel, the sockets and the threads.
//!
//! Absent on purpose: policies, the encoding of the log, and anything that runs tasks.

mod auth;
mod clock;
mod cluster_file;
mod config;
mod cookie;
mod core_thread;
mod disk_space;
mod founding;
mod gateway;
mod handle;
mod history;
mod listen;
mod memory;
mod metrics;
mod opening;
mod out;
mod outbox;
mod peers;
mod refusals;
mod renewals;
mod rest;
mod restore;
mod ring;
mod samples;
mod snapshots;
mod start;

pub use rota_core::LEVEL;
pub use rota_store::backup::{About, Summary};
pub use rota_store::{ClusterId, StoreError};

pub use config::{
    CONNECTIONS_MAX, ClusterConfig, FOLLOWERS_MAX, LEASE_MAX, LEASE_MIN, LogKind, OnFatal, PORT,
    ServerConfig, StartError,
};
pub use out::Out;
pub use restore::{Restored, recover, restore, verify_backup};
pub use start::{Ended, RunningServer, Server};

/// Waits until the server shuts down.
async fn stopped(stop: &mut tokio::sync::watch::Receiver<bool>) {
    // A sender that is gone means the same.
    drop(stop.wait_for(|stop| *stop).await);
}
