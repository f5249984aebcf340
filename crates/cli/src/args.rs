//! The command line: one verb or noun per module below `commands`.

use clap::{Args, Parser, Subcommand};
use rota_api::Duration;

use crate::bench::BenchArgs;
use crate::commands::{
    cluster, completion, config, dev, doctor, event, explain, job, kv, lock, login, logs, man,
    node, queue, run, schedule, server, session, submit, task, token, worker,
};
use crate::output::Format;

/// Runs your tasks, on one laptop or many machines: says which runs next, where, when, and why.
#[derive(Debug, Parser)]
#[command(name = "rota", version, max_term_width = 100, propagate_version = true)]
#[command(after_help = "Examples:
  rota run -- make test                    run one command; output and exit code are its own
  rota run examples/quickstart.toml        run a job file to completion, nothing else needed
  rota dev                                 a server with a worker on this machine
  rota submit --array 1-100 -- ./frame.sh  hand work to the server
  rota job show last                       how it is going
  rota task explain last                   why it waits

Environment: ROTA_SERVER ROTA_CONTEXT ROTA_TOKEN ROTA_CA ROTA_OUTPUT ROTA_TIMEOUT ROTA_CONFIG ROTA_LOG NO_COLOR
Exit codes: 0 ok, 1 the job failed, 2 usage, 3 rejected, 4 not found, 5 not allowed, 6 no server,
  7 waited too long, 8 conflict, 9 partial, 130 interrupted. `rota run -- CMD` exits like CMD, and
  with 125 for trouble of its own.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Global {
    /// The server's address; several are separated by commas [env: ROTA_SERVER] [default: http://127.0.0.1:7600]
    #[arg(short, long, global = true, value_name = "URL", help_heading = "Global options")]
    pub(crate) server: Option<String>,
    /// A context of the configuration file [env: ROTA_CONTEXT]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Global options")]
    pub(crate) context: Option<String>,
    /// How to print data [env: ROTA_OUTPUT] [default: table]
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        help_heading = "Global options"
    )]
    pub(crate) output: Option<Format>,
    /// Print ids only, and nothing that is not data
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub(crate) quiet: bool,
    /// Say more about what happens, on standard error; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub(crate) verbose: u8,
    /// No colours
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) no_color: bool,
    /// How long to wait for an answer of the server [env: ROTA_TIMEOUT] [default: 30s]
    #[arg(
        long = "request-timeout",
        global = true,
        value_name = "TIME",
        help_heading = "Global options"
    )]
    pub(crate) timeout: Option<Duration>,
    /// Print instants in UTC instead of ages
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) utc: bool,
    /// Don't ask before destroying something
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) yes: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command or a job file to completion
    Run(run::RunArgs),
    /// Submit a command or a job file (the same as `job submit`)
    Submit(submit::SubmitArgs),
    /// List jobs (the same as `job ls`)
    Ps(job::LsArgs),
    /// Print the output of a job or task (the same as `job logs`)
    Logs(logs::LogsArgs),
    /// Run a server with workers on this machine until Ctrl-C
    Dev(dev::DevArgs),
    /// Run a server
    Server(server::ServerArgs),
    /// Run a worker: this machine becomes a node
    Worker(worker::WorkerArgs),
    /// Jobs: what was submitted
    #[command(subcommand)]
    Job(job::JobCommand),
    /// Tasks: the smallest unit that is placed
    #[command(subcommand)]
    Task(task::TaskCommand),
    /// Nodes: machines that run attempts
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Queues: which task goes next, and where to
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// Schedules: when work is due
    #[command(subcommand)]
    Schedule(schedule::ScheduleCommand),
    /// Keys and values: configuration and state that every machine sees alike
    #[command(subcommand)]
    Kv(kv::KvCommand),
    /// Locks and leader election
    #[command(subcommand)]
    Lock(lock::LockCommand),
    /// Sessions: what keys and locks go with
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// The cluster as a whole
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Tokens: who may do what, and who may join
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Keep a cluster and a token for it
    Login(login::LoginArgs),
    /// Forget the token that is kept for a cluster
    Logout(login::LogoutArgs),
    /// What becomes true, as it does
    #[command(subcommand)]
    Event(event::EventCommand),
    /// Measure what rota does on this machine
    Bench(BenchArgs),
    /// Look for what is wrong with the setup
    Doctor(doctor::DoctorArgs),
    /// Explain an error code
    Explain(explain::ExplainArgs),
    /// The settings of this command line
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Print a completion script for a shell
    Completion(completion::CompletionArgs),
    /// Write manual pages into a directory
    Man(man::ManArgs),
}
