//! The contract of a [`ReplicatedLog`](crate::ReplicatedLog), as tests that every implementation runs.
