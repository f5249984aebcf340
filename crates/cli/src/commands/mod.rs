//! The commands, one noun or verb per file.

pub(crate) mod cluster;
mod cluster_data;
mod cluster_members;
pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod dev;
pub(crate) mod dev_cluster;
pub(crate) mod doctor;
pub(crate) mod event;
pub(crate) mod explain;
pub(crate) mod job;
pub(crate) mod kv;
pub(crate) mod lock;
pub(crate) mod lock_run;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod node;
pub(crate) mod queue;
pub(crate) mod run;
pub(crate) mod schedule;
pub(crate) mod server;
pub(crate) mod session;
pub(crate) mod submit;
pub(crate) mod task;
pub(crate) mod token;
pub(crate) mod worker;

use std::io::{BufRead, IsTerminal, Write};

use rota_api::ErrorCode;
use rota_client::{Access, Client, ClientConfig};

use crate::args::{Command, Global};
use crate::config::Config;
use crate::output::Output;
use crate::screen::Screen;
use crate::trouble::{Result, Trouble};

/// What every command needs.
pub(crate) struct App {
    pub(crate) global: Global,
    pub(crate) config: Config,
    pub(crate) out: Output,
}

impl App {
    /// Settles the configuration.
    pub(crate) fn new(global: Global, screen: Screen) -> Result<Self> {
        let config = Config::load(&global)?;
        let out = Output { format: config.output.value, screen };
        Ok(Self { global, config, out })
    }

    pub(crate) fn screen(&self) -> &Screen {
        &self.out.screen
    }

    /// A client of the configured servers.
    pub(crate) fn client(&self) -> Result<Client> {
        self.client_of(self.config.servers.value.clone())
    }

    /// A client of these servers, with what the configuration knows of the cluster.
    pub(crate) fn client_of(&self, servers: Vec<String>) -> Result<Client> {
        self.client_with(servers, self.config.access.clone())
    }

    /// A client of these servers that proves itself like this.
    pub(crate) fn client_with(&self, servers: Vec<String>, access: Access) -> Result<Client> {
        let timeout = self.config.timeout.value;
        let submitter = crate::config::user();
        Ok(Client::new(&ClientConfig { servers, timeout, retry: true, submitter, access })?)
    }

    /// Whether the configured server is on this machine, so that it has the same files.
    pub(crate) fn server_is_here(&self) -> bool {
        let here = |server: &String| {
            let host = server.split("://").last().unwrap_or_default();
            ["127.", "localhost", "[::1]"].iter().any(|start| host.starts_with(start))
        };
        self.config.servers.value.iter().all(here)
    }

    /// Asks before something is destroyed.
    pub(crate) fn confirm(&self, what: &str) -> Result<()> {
        if self.global.yes {
            return Ok(());
        }
        let needed = || Trouble::new(ErrorCode::ConfirmationNeeded, format!("not done: {what}"));
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return Err(needed());
        }
        write!(std::io::stderr().lock(), "{what}? [y/N] ").ok();
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer).map_err(|_| needed())?;
        let yes = ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str());
        if yes { Ok(()) } else { Err(needed()) }
    }
}

/// Runs a command. Returns the process's exit code.
pub(crate) async fn dispatch(app: &App, command: Command) -> Result<u8> {
    let serves = matches!(
        command,
        Command::Run(_) | Command::Dev(_) | Command::Server(_) | Command::Worker(_)
    );
    if serves {
        rota_worker::raise_open_files();
    }
    match command {
        Command::Run(args) => run::run(app, args).await,
        Command::Submit(args) => submit::submit(app, args).await,
        Command::Ps(args) => job::ls(app, args).await,
        Command::Logs(args) => logs::logs(app, args).await,
        Command::Dev(args) => dev::dev(app, args).await,
        Command::Server(args) => server::server(app, args).await,
        Command::Worker(args) => worker::worker(app, args).await,
        Command::Job(command) => job::dispatch(app, command).await,
        Command::Task(command) => task::dispatch(app, command).await,
        Command::Node(command) => node::dispatch(app, command).await,
        Command::Queue(command) => queue::dispatch(app, command).await,
        Command::Schedule(command) => schedule::dispatch(app, &command),
        Command::Kv(command) => kv::dispatch(app, command).await,
        Command::Lock(command) => lock::dispatch(app, command).await,
        Command::Session(command) => session::dispatch(app, command).await,
        Command::Cluster(command) => cluster::dispatch(app, command).await,
        Command::Token(command) => token::dispatch(app, command).await,
        Command::Login(args) => login::login(app, args).await,
        Command::Logout(args) => login::logout(app, args),
        Command::Event(command) => event::dispatch(app, command).await,
        Command::Bench(args) => crate::bench::run(args, &app.out).await,
        Command::Doctor(args) => doctor::doctor(app, args).await,
        Command::Explain(args) => explain::explain(app, &args),
        Command::Config(command) => config::dispatch(app, &command),
        Command::Completion(args) => completion::completion(&args),
        Command::Man(args) => man::man(app, &args),
    }
}

/// Gathers every page of a list, up to `limit` items.
pub(crate) async fn gather<T, F>(
    limit: usize,
    mut page: impl FnMut(Option<String>, u32) -> F,
) -> Result<rota_api::Page<T>>
where
    F: Future<Output = rota_client::Result<rota_api::Page<T>>>,
{
    let mut all = rota_api::Page { items: Vec::new(), next_cursor: None, index: 0 };
    loop {
        let want = limit.saturating_sub(all.items.len()).min(rota_api::PAGE_MAX as usize);
        let next =
            page(all.next_cursor.take(), u32::try_from(want).unwrap_or(rota_api::PAGE_MAX)).await?;
        all.items.extend(next.items);
        all.index = next.index;
        all.next_cursor = next.next_cursor;
        if all.next_cursor.is_none() || all.items.len() >= limit {
            return Ok(all);
        }
    }
}
