//! `rota dev --servers N`: a whole cluster on this machine, each server a process of its own that can be killed.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rota_api::ErrorCode;
use rota_client::Client;
use rota_worker::Shutdown;
use tokio::process::{Child, Command};

use super::App;
use crate::commands::dev::DevArgs;
use crate::commands::run::interrupt;
use crate::embedded::{KEPT_BYTES, Workers};
use crate::trouble::{Result, Trouble};

/// How long the servers may take until one of them leads.
const READY_MAX: Duration = Duration::from_secs(60);
/// How often it is looked whether something has happened.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A server of the cluster.
struct Member {
    id: u16,
    address: SocketAddr,
    data: PathBuf,
    /// `None` once it has ended.
    process: Option<Child>,
}

/// Runs a cluster until told to stop.
pub(crate) async fn run(app: &App, args: &DevArgs) -> Result<u8> {
    let mut members = members(args)?;
    std::fs::create_dir_all(&args.data).map_err(|error| unusable(&args.data, &error))?;
    let file = args.data.join("cluster.toml");
    std::fs::write(&file, description(&members, args.log.name()))
        .map_err(|error| unusable(&file, &error))?;
    let program = std::env::current_exe().map_err(|error| unusable(Path::new("rota"), &error))?;
    for member in &mut members {
        member.process = Some(member.start(&program, &file)?);
    }
    let addresses: Vec<String> =
        members.iter().map(|member| format!("http://{}", member.address)).collect();
    let client = app.client_of(addresses.clone())?;
    ready(&mut members, &client).await?;
    let capacity = args.capacity.apply_to_machine()?;
    let mut workers = Workers::start(&args.data, &addresses, args.workers, (capacity, KEPT_BYTES));
    let data =
        serde_json::json!({ "addresses": addresses, "workers": args.workers, "data": args.data });
    app.out.answer(&data, &addresses.join(","), &banner(&members, args, &program))?;
    watch(app, &mut members, &program).await;
    app.screen().remark("draining: what runs may finish; Ctrl-C again stops it");
    workers.tell(Shutdown::Drain);
    tokio::select! {
        () = workers.ended() => {}
        () = interrupt() => app.screen().remark("stopping"),
    }
    workers.tell(Shutdown::Stop);
    workers.ended().await;
    for member in &mut members {
        member.stop().await;
    }
    Ok(0)
}

fn unusable(path: &Path, error: &std::io::Error) -> Trouble {
    Trouble::new(ErrorCode::StartFailed, format!("cannot use {}: {error}", path.display()))
}

/// The servers, one port behind the other.
fn members(args: &DevArgs) -> Result<Vec<Member>> {
    let first = args.listen.port();
    if first == 0 || !args.listen.ip().is_loopback() {
        let message = "a cluster needs fixed ports on loopback: give --listen 127.0.0.1:PORT";
        return Err(Trouble::new(ErrorCode::Usage, message));
    }
    let member = |id: u16| {
        let port = first.checked_add(id - 1).ok_or_else(|| {
            Trouble::new(
                ErrorCode::Usage,
                format!("there are no {} ports from {first} on", args.servers),
            )
        })?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let data = args.data.join(format!("server-{id}"));
        Ok(Member { id, address, data, process: None })
    };
    (1..=args.servers).map(member).collect()
}

/// The file that founds the cluster.
fn description(members: &[Member], log: &str) -> String {
    let servers = members.iter().map(|Member { id, address, .. }| {
        format!("\n[[server]]\nid = {id}\naddress = \"http://{address}\"\n")
    });
    format!("name = \"dev\"\nlog = \"{log}\"\n{}", servers.collect::<String>())
}

impl Member {
    fn start(&self, program: &Path, file: &Path) -> Result<Child> {
        std::fs::create_dir_all(&self.data).map_err(|error| unusable(&self.data, &error))?;
        let path = self.data.join("server.log");
        let log = std::fs::File::options().create(true).append(true).open(&path);
        let log = log.map_err(|error| unusable(&path, &error))?;
        let mut command = Command::new(program);
        command.arg("server").arg("--quiet");
        command.arg("--cluster").arg(file).arg("--id").arg(self.id.to_string());
        command.arg("--listen").arg(self.address.to_string()).arg("--data").arg(&self.data);
        // Its own process group: Ctrl-C in the terminal is for this process, which ends the servers last.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        command.kill_on_drop(true).spawn().map_err(|error| unusable(program, &error))
    }

    /// Ends it in order.
    async fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        if let Some(id) = process.id().and_then(|id| i32::try_from(id).ok())
            && let Some(id) = rustix::process::Pid::from_raw(id)
        {
            rustix::process::kill_process(id, rustix::process::Signal::TERM).ok();
        }
        if tokio::time::timeout(Duration::from_secs(10), process.wait()).await.is_err() {
            process.kill().await.ok();
        }
    }

    /// How it ended, if it has just ended.
    fn ended(&mut self) -> Option<std::process::ExitStatus> {
        let ended = self.process.as_mut()?.try_wait().ok().flatten();
        if ended.is_some() {
            self.process = None;
        }
        ended
    }
}

/// Waits until a server leads.
async fn ready(members: &mut [Member], client: &Client) -> Result<()> {
    let deadline = tokio::time::Instant::now() + READY_MAX;
    loop {
        if let Some((member, status)) =
            members.iter_mut().find_map(|member| member.ended().map(|status| (&*member, status)))
        {
            let log = member.data.join("server.log");
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let message = format!("server {} ended ({status}): {}", member.id, said.trim());
            return Err(Trouble::new(ErrorCode::StartFailed, message));
        }
        match client.ready().await {
            Ok(_) => return Ok(()),
            Err(error) if tokio::time::Instant::now() >= deadline => return Err(error.into()),
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

fn banner(members: &[Member], args: &DevArgs, program: &Path) -> String {
    let servers = members.iter().map(|member| {
        let pid = member.process.as_ref().and_then(Child::id).unwrap_or_default();
        format!("  server {} · http://{} · process {pid}\n", member.id, member.address)
    });
    let servers: String = servers.collect();
    let all: Vec<String> = members.iter().map(|member| member.address.to_string()).collect();
    format!(
        "rota {} · {} servers ({}), {} workers · data in {}\n{servers}  \
         try: export ROTA_SERVER={}\n       {} cluster status --watch\n  \
         then kill the server that leads (kill -9) and watch another one take over\n  \
         stop: Ctrl-C drains, a second one stops at once",
        env!("CARGO_PKG_VERSION"),
        members.len(),
        args.log.name(),
        args.workers,
        args.data.display(),
        all.join(","),
        program.file_name().map_or("rota".into(), |name| name.to_string_lossy()),
    )
}

/// Tells of servers that end, until told to stop.
async fn watch(app: &App, members: &mut [Member], program: &Path) {
    let interrupted = interrupt();
    tokio::pin!(interrupted);
    loop {
        tokio::select! {
            () = &mut interrupted => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        for member in members.iter_mut() {
            if let Some(status) = member.ended() {
                app.screen().remark(&format!(
                    "server {} ended ({status}); start it again with: {} server --data {} --listen {}",
                    member.id,
                    program.display(),
                    member.data.display(),
                    member.address
                ));
            }
        }
    }
}
