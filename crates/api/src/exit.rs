//! The exit codes of the command line.

/// All is well.
pub const OK: u8 = 0;
/// The job or task failed.
pub const FAILED: u8 = 1;
/// The command line is not understood.
pub const USAGE: u8 = 2;
/// Refused by validation or policy.
pub const REJECTED: u8 = 3;
/// There is no such thing.
pub const NOT_FOUND: u8 = 4;
/// Not allowed.
pub const NOT_ALLOWED: u8 = 5;
/// No server can be reached, or none can decide.
pub const UNREACHABLE: u8 = 6;
/// Waited too long.
pub const WAITED_TOO_LONG: u8 = 7;
/// In conflict with what is there.
pub const CONFLICT: u8 = 8;
/// Some of it was done.
pub const PARTIAL: u8 = 9;
/// This server must not take part in its cluster.
pub const PUT_OUT: u8 = 10;
/// Trouble of rota's own, where 1 to 124 belong to the task.
pub const TROUBLE: u8 = 125;
/// Interrupted by Ctrl-C.
pub const INTERRUPTED: u8 = 130;
