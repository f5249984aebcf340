//! Black-box tests of a cluster under network faults: real servers and workers, each in a network namespace of its own, and a switch between
//! them that swallows, delays and loses packets by a seeded plan, in one direction or both.
//!
//! `cargo xtask netbox --minutes 3 --servers 5 --log paxos --seed 7` runs it; beside the other tests
//! only the checker of histories is checked. A run in which too little went wrong fails as void. Where the system permits no namespaces to users, or
//! has no `/dev/net/tun`, `unshare` or `ip`, nothing can be said, and the command fails with exit code 3.
//!
//! What it can't do: the clocks and the disk are those of one machine, packets are not doubled or reordered, and the clients have a place of their
//! own in the network that only the isolation of a leader touches.

#[expect(
    dead_code,
    unused_imports,
    reason = "shared with the other black-box tests; not all of it is needed here"
)]
#[path = "../blackbox/harness/mod.rs"]
mod harness;

mod faults;
mod judge;
mod net;
mod options;
mod plan;
mod register;
mod run;

use std::process::{Command, ExitCode};

use options::{Options, Wanted};

/// Says to the process that it is in namespaces of its own.
const INSIDE: &str = "--inside";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((INSIDE, options)) = arguments.split_first().map(|(it, rest)| (it.as_str(), rest)) {
        let options = Options::parse(options).expect("the outer process has read them");
        run::run(&options);
        return ExitCode::SUCCESS;
    }
    let options = match options::wanted(&arguments) {
        Ok(Wanted::Test) => {
            register::check_the_checker();
            return ExitCode::SUCCESS;
        }
        Ok(Wanted::Command(options)) => options,
        Err(error) => {
            eprintln!("netbox: {error}");
            return ExitCode::from(2);
        }
    };
    if let Err(why) = permitted() {
        eprintln!("netbox: not run: {why}");
        return ExitCode::from(3);
    }
    let program = std::env::current_exe().expect("this program has a path");
    let status = unshare().arg(program).arg(INSIDE).args(options.arguments()).status();
    let passed = status.expect("unshare starts").success();
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A command in a user namespace, where this user has the rights of root, with a network and processes of its own: all of them end with it.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net", "--pid", "--mount-proc", "--fork", "--kill-child"]);
    command
}

/// Tries the things that are needed, rather than guess from versions.
fn permitted() -> Result<(), String> {
    let tries = "ip link set lo up && ip tuntap add mode tun name rota0 && \
        echo 1 > /proc/sys/net/ipv4/conf/rota0/route_localnet && unshare -n true";
    let tried = unshare().args(["sh", "-c", tries]).output();
    let tried = tried.map_err(|error| format!("unshare (util-linux) can't be started: {error}"))?;
    if tried.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&tried.stderr).trim().to_owned();
    Err(format!("namespaces with a network of their own can't be made here: {said}"))
}
