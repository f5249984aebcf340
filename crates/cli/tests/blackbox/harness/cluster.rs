//! Servers and workers on this machine.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use rota_api::{Node, NodeState};

use super::{Api, Chance, Ledger, PATIENCE, Process, until};

/// A directory for one test, removed with everything in it.
pub(crate) struct Arena {
    dir: tempfile::TempDir,
    pub(crate) ledger: Ledger,
}

impl Arena {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("rota-blackbox-").tempdir();
        let dir = dir.expect("a directory can be made");
        let ledger = Ledger::new(dir.path());
        Self { dir, ledger }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A server of this arena that is not running yet.
    pub(crate) fn server(&self, chance: &mut Chance, options: &[&str]) -> Server {
        let data = self.path("server");
        Server::new(&data, &self.path("server.log"), free_port(chance), options)
    }

    /// The servers of a cluster that are not running yet.
    pub(crate) fn servers(
        &self,
        chance: &mut Chance,
        count: usize,
        options: &[&str],
    ) -> Vec<Server> {
        let listen: Vec<SocketAddr> = (0..count).map(|_| free_port(chance)).collect();
        self.servers_at(&listen, "raft", options)
    }

    /// The servers of a cluster with these addresses and this log that are not running yet.
    pub(crate) fn servers_at(
        &self,
        listen: &[SocketAddr],
        log: &str,
        options: &[&str],
    ) -> Vec<Server> {
        let file = self.path("cluster.toml");
        let server =
            |(id, listen)| format!("[[server]]\nid = {id}\naddress = \"http://{listen}\"\n");
        let servers: String = (1..).zip(listen).map(server).collect();
        let text = format!("name = \"blackbox\"\nlog = \"{log}\"\n{servers}");
        std::fs::write(&file, text).expect("can be written");
        let file = file.display().to_string();
        let found = ["--cluster", &file];
        let options: Vec<&str> = found.into_iter().chain(options.iter().copied()).collect();
        let server = |(id, listen): (u32, &SocketAddr)| {
            let (data, log) = (format!("server-{id}"), format!("server-{id}.log"));
            Server::new(&self.path(&data), &self.path(&log), *listen, &options)
        };
        (1..).zip(listen).map(server).collect()
    }

    /// A worker of this arena that is not running yet.
    pub(crate) fn worker(&self, name: &str, server: &Server, options: &[&str]) -> Worker {
        self.worker_of(name, std::slice::from_ref(server), options)
    }

    /// A worker of a cluster that is not running yet.
    pub(crate) fn worker_of(&self, name: &str, servers: &[Server], options: &[&str]) -> Worker {
        let text = |text: &str| text.to_owned();
        let urls: Vec<String> =
            servers.iter().map(|server| format!("http://{}", server.listen)).collect();
        let url = urls.join(",");
        let data = self.path(name).display().to_string();
        let mut arguments = vec![text("worker"), text("--server"), url, text("--data"), data];
        arguments.extend([text("--name"), text(name)]);
        arguments.extend(options.iter().map(|option| text(option)));
        let log = self.path(&format!("{name}.log"));
        Worker { name: text(name), arguments, log, process: None }
    }
}

/// A port that nothing listens on, below the range from which systems draw ports for outgoing connections: while the server is down,
/// nobody else gets it by accident.
pub(crate) fn free_port(chance: &mut Chance) -> SocketAddr {
    let mut draws = std::iter::repeat_with(|| chance.between(15_000, 32_000) as u16);
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let port = draws.by_ref().take(1_000).find(free);
    SocketAddr::from((Ipv4Addr::LOCALHOST, port.expect("a port is free")))
}

/// A server with its data, whether it runs or not.
pub(crate) struct Server {
    pub(crate) listen: SocketAddr,
    arguments: Vec<String>,
    log: PathBuf,
    process: Option<Process>,
    /// The feature level that it says it understands, if not that of the program.
    pub(crate) level: Option<u32>,
}

impl Server {
    pub(crate) fn new(data: &Path, log: &Path, listen: SocketAddr, options: &[&str]) -> Self {
        let text = |text: &str| text.to_owned();
        let data = data.display().to_string();
        let listen_at = listen.to_string();
        let mut arguments = vec![text("server"), text("--data"), data, text("--listen"), listen_at];
        arguments.extend(options.iter().map(|option| text(option)));
        Self { listen, arguments, log: log.to_path_buf(), process: None, level: None }
    }

    pub(crate) fn api(&self) -> Api {
        Api::at(self.listen)
    }

    /// Starts the process and does not wait for anything.
    pub(crate) fn launch(&mut self) {
        let level = self.level.map(|level| ("ROTA_TEST_LEVEL", level.to_string()));
        let level: Vec<_> = level.into_iter().collect();
        self.process = Some(Process::start_in(&level, &self.arguments, &self.log));
    }

    /// Starts the process and waits until it serves.
    pub(crate) fn start(&mut self) {
        self.launch();
        self.wait_ready();
    }

    pub(crate) fn wait_ready(&mut self) {
        let api = self.api();
        let process = self.process();
        until("a server that is ready", PATIENCE, || {
            process.must_run();
            let answer = api.send("GET", "/readyz", &[], b"").ok()?;
            (answer.status == 200).then_some(())
        });
    }

    /// Kills the process, if it runs, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.must_run();
            process.kill();
        }
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the server was started")
    }

    /// Everything that its processes printed so far.
    pub(crate) fn printed(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

/// A worker with its data, whether it runs or not.
pub(crate) struct Worker {
    pub(crate) name: String,
    arguments: Vec<String>,
    log: PathBuf,
    process: Option<Process>,
}

impl Worker {
    /// Starts the process and does not wait for anything.
    pub(crate) fn launch(&mut self) {
        self.process = Some(Process::start(&self.arguments, &self.log));
    }

    /// Starts the process and waits until the server knows it as connected.
    pub(crate) fn start(&mut self, api: Api) {
        self.launch();
        self.wait_connected(api);
    }

    pub(crate) fn wait_connected(&mut self, api: Api) {
        let path = format!("/v1/nodes/{}", self.name);
        let process = self.process.as_mut().expect("the worker was started");
        until("a connected worker", PATIENCE, || {
            process.must_run();
            let answer = api.send("GET", &path, &[], b"").ok()?;
            let node: Option<Node> = (answer.status == 200).then(|| answer.json());
            node.filter(|node| node.connected && node.state != NodeState::Lost).map(drop)
        });
    }

    /// Kills the process, if it runs, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.must_run();
            process.kill();
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the worker was started")
    }
}
