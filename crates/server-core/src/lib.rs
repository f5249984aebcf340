//! What a server does, without I/O: [`Machine`] owns the state, the controller and this server's end of the replicated log.
//!
//! It gathers commands into entries, applies what is committed, begins to lead and ceases to, lets reads and acknowledgements of heartbeats
//! wait until a majority has confirmed that this server leads, and says what each worker has to be told. Production and the simulator
//! drive the same machine, each with a [`Shell`] of its own.
//!
//! Absent on purpose: threads, files, sockets, channels, logging, chance, and any clock but the one of the shell.

mod clock;
mod lead;
mod machine;
mod pending;
mod replica;
mod servers;
mod sessions;
mod shell;

pub use clock::{Clock, Moment};
pub use machine::{Machine, Parts};
pub use pending::{Ending, Launch, Outbox, Pending, Start};
pub use replica::Replica;
pub use servers::Addresses;
pub use sessions::Sessions;
pub use shell::{
    Answer, Applied, Asker, Attach, Beat, Proposal, Shell, Standing, SteerRefused, Steering,
};
