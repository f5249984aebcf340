//! Builders and a driver for tests of the state machine and of what stands on it. For `[dev-dependencies]` only.
//!
//! ```
//! use rota_testkit::{Driver, group, job, node};
//! use rota_types::TaskId;
//!
//! let mut driver = Driver::new();
//! let worker = driver.register(&node("w").cpus(2));
//! let first = driver.submit(&job("hello").group(group("all").tasks(3).cpus(1)));
//! driver.place(TaskId { job: first, index: 0 }, 2, worker);
//! driver.succeed(TaskId { job: first, index: 1 });
//! assert_eq!(driver.state().live_tasks(), 2);
//! ```

mod build;
mod driver;
mod linearizable;

pub use build::{GroupBuilder, JobBuilder, NodeBuilder, group, job, node};
pub use driver::Driver;
pub use linearizable::{Answer, Ask, NotLinearizable, Operation, Value, check_linearizable};
