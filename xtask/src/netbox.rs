//! `cargo xtask netbox`: a real cluster under network faults.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Builds `rota` and its black box, and passes `args` on: `--minutes M` or `--seconds S`, `--servers 3|5`, `--log raft|paxos`, `--seed S`, `--only KIND`.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let status = Command::new(env!("CARGO"))
        .args(["test", "--quiet", "--package", "rota", "--test", "netbox", "--", "run"])
        .args(args)
        .status()
        .context("cargo could not be started")?;
    ensure!(status.success(), "the run did not pass");
    Ok(())
}
