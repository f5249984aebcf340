//! `cargo xtask sim`: runs seeds of the simulator, optimised.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Builds the simulator and passes `args` on: `--logic` or `--full`, `--seeds N`, `--start S`, `--minutes M`, `--seed S`, `--options TEXT`, `--trace`, `--counters`,
/// `--subset`, `--exhaustive DEPTH`.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let status = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--release", "--package", "rota-sim", "--"])
        .args(args)
        .status()
        .context("cargo could not be started")?;
    ensure!(status.success(), "the simulator found something");
    Ok(())
}
