//! The `rota` command.
//!
//! Data goes to standard output; progress, hints and errors go to standard error. Every command prints through one
//! [`Output`](output::Output), so that `-o json` is the schema of the REST interface everywhere. Nothing here decides anything: the
//! commands talk to a server through the client, and `run` without a server starts one in this process first.

mod args;
mod bench;
mod cluster_file;
mod commands;
mod complete;
mod config;
mod embedded;
mod follow;
#[cfg(test)]
mod help_tests;
mod job_args;
mod join_token;
mod output;
#[cfg(test)]
mod reference_tests;
mod screen;
mod select;
mod show;
mod show_keys;
mod show_servers;
mod sink;
mod trouble;
mod watch;

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, Parser};

use crate::args::Cli;
use crate::commands::App;
use crate::screen::Screen;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Ends the process if a shell asks for completions.
    clap_complete::CompleteEnv::with_factory(Cli::command).complete();
    let cli = parse();
    let screen = Screen::detect(cli.global.no_color, cli.global.utc, cli.global.quiet);
    start_log(cli.global.verbose, screen.live);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = match runtime.worker_threads(runtime_threads()).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            screen.note(&format!("error: can't start: {error}"));
            return ExitCode::from(rota_api::exit::TROUBLE);
        }
    };
    let result = runtime.block_on(async {
        let app = App::new(cli.global, screen.clone())?;
        commands::dispatch(&app, cli.command).await
    });
    // A blocked read of standard input must not keep the process.
    runtime.shutdown_background();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(trouble) => {
            trouble.print(&screen);
            ExitCode::from(trouble.exit_code())
        }
    }
}

/// One thread less than there are cpus, at least one. The server's core thread and the worker's session have threads of their own; a
/// runtime thread too many is woken whenever another one finds something to do, and finds nothing.
fn runtime_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cpus| cpus.get().saturating_sub(1).max(1))
}

/// Reads the command line, or says what is wrong with it.
fn parse() -> Cli {
    Cli::try_parse().unwrap_or_else(|mut error| {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let runs = words.iter().any(|word| word == "run" || word == "submit");
        let is_command = runs && !words.iter().any(|word| word == "--");
        if is_command && error.kind() == clap::error::ErrorKind::UnknownArgument {
            let tip = "to run a command, put -- before it: rota run -- echo hello";
            let tips = ContextValue::StyledStrs(vec![tip.into()]);
            error.insert(ContextKind::Suggested, tips);
        }
        error.exit()
    })
}

/// Log lines go to standard error. `ROTA_LOG` filters them like `RUST_LOG` does elsewhere.
fn start_log(verbose: u8, color: bool) {
    let default = match verbose {
        0 => "warn",
        1 => "info",
        2.. => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("ROTA_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(color)
        .with_target(false)
        .init();
}
