//! Everything that CI runs, cheap things first.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

/// One step: its name, and the command line.
type Step = (&'static str, &'static [&'static str]);

const BEFORE_TESTS: &[Step] = &[
    ("format", &["cargo", "fmt", "--all", "--check"]),
    ("lints", &["cargo", "clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]),
];

const TESTS: &[Step] = &[
    // README's test command, letter for letter.
    ("tests", &["cargo", "test", "--workspace"]),
    ("docs", &["cargo", "doc", "--workspace", "--no-deps", "--document-private-items"]),
    // Against the binary that the tests have just built.
    ("schema fuzzing", &["sh", "tests/schemathesis.sh", "target/debug/rota"]),
    ("calendar against croniter", &["sh", "tests/croniter.sh", "5000"]),
    ("planted bugs", &["cargo", "xtask", "mutants", "--fast"]),
];

/// Runs every step and stops at the first that fails.
pub(crate) fn run() -> Result<()> {
    BEFORE_TESTS.iter().try_for_each(step)?;
    crate::tidy::run()?;
    crate::deps::run()?;
    TESTS.iter().try_for_each(step)
}

fn step((name, command): &Step) -> Result<()> {
    println!("== {name}: {}", command.join(" "));
    let begun = Instant::now();
    let (program, args) = command.split_first().context("a step has a program")?;
    let status = Command::new(program)
        .args(args)
        .env("RUSTDOCFLAGS", "--deny warnings")
        .status()
        .with_context(|| format!("could not run {program}"))?;
    ensure!(status.success(), "{name} failed: {status}");
    println!("== {name}: done in {} s", begun.elapsed().as_secs());
    Ok(())
}
