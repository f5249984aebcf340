//! The project's own commands: `cargo xtask ci` is the only one to know, and the one that CI runs.

use anyhow::{Result, bail};

mod ci;
mod deps;
mod limits;
mod mutants;
mod netbox;
mod sim;
mod tidy;

const HELP: &str = "\
cargo xtask COMMAND

  ci             everything that CI runs: format, lints, tidy, dependencies, tests, docs
  tidy           rules about the tree: file sizes, words, documents
  deps           licences and duplicates of dependencies; advisories where cargo-deny is installed
  limits         writes docs/reference/limits.md
  sim            runs the simulator: [--logic | --full] --seeds N --start S --minutes M | --seed S | --subset | --exhaustive DEPTH
  netbox         a real cluster under network faults: [--minutes M | --seconds S] --servers 3|5 --log raft|paxos --seed S [--only KIND]
  mutants        plants bugs that the tests have to notice: --fast | --all | --only TEXT
";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["ci"] => ci::run(),
        ["tidy"] => tidy::run(),
        ["deps"] => deps::run(),
        ["limits"] => limits::write(),
        ["sim", args @ ..] => sim::run(args),
        ["netbox", args @ ..] => netbox::run(args),
        ["mutants", args @ ..] => mutants::run(args),
        [] | ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            Ok(())
        }
        other => bail!("no such command: {}\n\n{HELP}", other.join(" ")),
    }
}
