//! A server and a worker of this binary, in a directory that goes when they go.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rota_api::{CommandLine, JobFile, JobHeader, JobState, TaskGroup};
use rota_client::{Client, ClientConfig};

use super::trouble;
use crate::trouble::Result;

/// How long a process may take to be ready.
const READY_MAX: Duration = Duration::from_secs(120);
/// How long a whole benchmark may take.
const DONE_MAX: Duration = Duration::from_secs(1_800);

/// A server, maybe a worker, and a client.
pub(crate) struct Rig {
    dir: PathBuf,
    address: String,
    server: Process,
    worker: Option<Process>,
    pub(crate) client: Client,
}

/// A child process that does not outlive its owner.
pub(crate) struct Process(Child);

impl Process {
    /// Kills it with -9 and waits until it is gone.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.0.kill().map_err(|error| trouble("cannot kill a server", error))?;
        self.0.wait().map_err(|error| trouble("cannot wait for a server", error)).map(drop)
    }

    fn expect_alive(&mut self) -> Result<()> {
        match self.0.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(trouble("a process ended early", status)),
            Err(error) => Err(trouble("cannot look after a process", error)),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already; either way it is waited for.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.worker.take();
        self.server.0.kill().ok();
        self.server.0.wait().ok();
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

impl Rig {
    /// Starts a server.
    pub(crate) async fn start() -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("rota-bench-{}", std::process::id()));
        std::fs::create_dir_all(&dir).map_err(|error| trouble("cannot make a directory", error))?;
        let address = free_address()?;
        let server = serve(&dir, &address)?;
        let config = ClientConfig {
            servers: vec![format!("http://{address}")],
            timeout: Duration::from_secs(60),
            retry: false,
            submitter: None,
            access: rota_client::Access::default(),
        };
        let client = Client::new(&config).map_err(|error| trouble("no client", error))?;
        let rig = Self { dir, address, server, worker: None, client };
        rig.wait_until_ready().await?;
        Ok(rig)
    }

    /// Starts a worker that takes `attempts` at a time, and waits until its node is known.
    pub(crate) async fn add_worker(&mut self, attempts: u32) -> Result<()> {
        let mut command = rota()?;
        command
            .args(["worker", "--name", "bench", "--server"])
            .arg(format!("http://{}", self.address))
            .arg("--data")
            .arg(self.dir.join("worker"))
            .args(["--attempts-max", &attempts.to_string(), "--cpus", &attempts.to_string()]);
        self.worker = Some(spawn(command, &self.dir.join("worker.log"))?);
        let begun = Instant::now();
        while self.client.node("bench").await.is_err() {
            expired(begun, READY_MAX, "the worker did not register")?;
            self.worker.as_mut().map_or(Ok(()), Process::expect_alive)?;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Kills the server with -9, starts it again, and says how long it took to be ready.
    pub(crate) async fn restart_server(&mut self) -> Result<Duration> {
        self.server.0.kill().map_err(|error| trouble("cannot kill the server", error))?;
        self.server.0.wait().map_err(|error| trouble("cannot wait for the server", error))?;
        let begun = Instant::now();
        self.server = serve(&self.dir, &self.address)?;
        self.wait_until_ready().await?;
        Ok(begun.elapsed())
    }

    async fn wait_until_ready(&self) -> Result<()> {
        let begun = Instant::now();
        while self.client.ready().await.is_err() {
            expired(begun, READY_MAX, "the server did not become ready")?;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Waits until nothing is queued or running any more.
    pub(crate) async fn wait_until_idle(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let stats =
                self.client.stats().await.map_err(|error| trouble("no statistics", error))?;
            if stats.jobs == 0 {
                return Ok(());
            }
            expired(begun, DONE_MAX, "the tasks did not end")?;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Fails unless every task of the job succeeded.
    pub(crate) async fn expect_success(&self, job: u64) -> Result<()> {
        let job = self.client.job(job, false).await.map_err(|error| trouble("no job", error))?;
        if job.state == JobState::Succeeded {
            Ok(())
        } else {
            Err(trouble("the job did not succeed", format!("{:?}", job.counts)))
        }
    }

    /// Resident memory of the server, in bytes.
    pub(crate) fn server_memory(&self) -> u64 {
        status_kib(self.server.0.id(), "VmRSS:") * 1_024
    }

    /// The most memory that the server ever had, in bytes.
    pub(crate) fn server_memory_peak(&self) -> u64 {
        status_kib(self.server.0.id(), "VmHWM:") * 1_024
    }

    /// Cpu time of server and worker so far.
    pub(crate) fn cpu(&self) -> (Duration, Duration) {
        let worker = self.worker.as_ref().map_or(Duration::ZERO, |worker| cpu_of(worker.0.id()));
        (cpu_of(self.server.0.id()), worker)
    }
}

/// A job of one no-op task, or of an array of them.
pub(crate) fn noop(array: Option<u32>) -> JobFile {
    let array = array.and_then(|tasks| format!("1-{tasks}").parse().ok());
    let task = TaskGroup { noop: true, cpus: "0".parse().ok(), array, ..TaskGroup::default() };
    JobFile { job: JobHeader::default(), task: vec![task] }
}

/// A job of `/bin/true`, once or as an array.
pub(crate) fn bin_true(array: Option<u32>) -> JobFile {
    let array = array.and_then(|tasks| format!("1-{tasks}").parse().ok());
    let task = TaskGroup {
        command: Some(CommandLine::Program(vec!["/bin/true".to_owned()])),
        cpus: "1".parse().ok(),
        array,
        ..TaskGroup::default()
    };
    JobFile { job: JobHeader::default(), task: vec![task] }
}

pub(crate) fn expired(begun: Instant, max: Duration, what: &str) -> Result<()> {
    if begun.elapsed() > max { Err(trouble(what, format!("after {max:?}"))) } else { Ok(()) }
}

pub(crate) fn rota() -> Result<Command> {
    std::env::current_exe()
        .map(Command::new)
        .map_err(|error| trouble("cannot find this program", error))
}

fn serve(dir: &Path, address: &str) -> Result<Process> {
    let mut command = rota()?;
    command.args(["server", "--listen", address, "--data"]).arg(dir.join("server"));
    spawn(command, &dir.join("server.log"))
}

pub(crate) fn spawn(mut command: Command, log: &Path) -> Result<Process> {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(log)
        .map_err(|error| trouble("cannot write a log", error))?;
    let copy = log.try_clone().map_err(|error| trouble("cannot write a log", error))?;
    command.stdin(Stdio::null()).stdout(copy).stderr(log);
    command.spawn().map(Process).map_err(|error| trouble("cannot start rota", error))
}

pub(crate) fn free_address() -> Result<String> {
    let listener =
        TcpListener::bind("127.0.0.1:0").map_err(|error| trouble("no free port", error))?;
    let address = listener.local_addr().map_err(|error| trouble("no free port", error))?;
    Ok(address.to_string())
}

fn status_kib(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// User and system time from `/proc/PID/stat`, in ticks of 10 ms.
fn cpu_of(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Fields 14 and 15, counted behind the name in parentheses, which may hold anything.
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks: u64 =
        rest.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
