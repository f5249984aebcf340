//! Black-box tests of the `rota` binary: real servers and workers as processes, killed, stopped and starved while they work.
//!
//! Nothing here shares code with the program apart from the JSON types: requests are written by hand, and what really ran is read
//! from a ledger that the tasks' own processes write. `ROTA_TEST_TASKS`, `ROTA_TEST_KILLS` and `ROTA_TEST_SEED` enlarge and repeat the
//! runs; each run prints its seed. A run in which too little went wrong to prove anything fails as void.

mod harness;

mod adoption;
mod both_killed;
mod damage;
mod disk;
mod drain;
mod leader_killed;
mod operator;
mod output;
mod server_killed;
mod upgraded;
mod workers_killed;
mod zombie;
