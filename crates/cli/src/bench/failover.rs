//! How long a cluster is without a leader.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rota_api::TransferRequest;
use rota_client::{Client, ClientConfig};

use super::latency::{histogram, micros};
use super::rig::{Process, expired, free_address, rota, spawn};
use super::{Figure, Way, trouble};
use crate::commands::dev::Log;
use crate::trouble::Result;

/// How long a cluster may take to have a leader.
const READY_MAX: Duration = Duration::from_secs(60);
/// How long a change is waited for before it is asked for again, of the next server.
const TRY_MAX: Duration = Duration::from_secs(5);

/// Servers of a cluster, in a directory that goes with them.
struct Cluster {
    dir: PathBuf,
    addresses: Vec<String>,
    servers: Vec<Process>,
    client: Client,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.servers.clear();
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

/// Lets the leader go `count` times, and measures from that moment until a change is acknowledged.
pub(crate) async fn measure(
    (servers, log): (u32, Log),
    count: u32,
    way: Way,
) -> Result<Vec<Figure>> {
    let mut cluster = Cluster::start(servers, log).await?;
    let mut outages = histogram()?;
    for _ in 0..count {
        let leader = cluster.settle().await?;
        let began = Instant::now();
        match way {
            Way::Kill => cluster.kill(leader)?,
            Way::Transfer => {
                let handed = cluster.client.transfer_lead(&TransferRequest::default()).await;
                handed.map_err(|error| trouble("no server took the lead", error))?;
            }
        }
        cluster.change().await?;
        outages.saturating_record(micros(began.elapsed()));
        if way == Way::Kill {
            cluster.restart(leader)?;
        }
    }
    Ok(vec![
        Figure::new("servers", f64::from(servers), ""),
        Figure::new("times that the leader went", f64::from(count), ""),
        Figure::millis("until a change was acknowledged, p50", outages.value_at_quantile(0.5)),
        Figure::millis("until a change was acknowledged, p90", outages.value_at_quantile(0.9)),
        Figure::millis("until a change was acknowledged, p99", outages.value_at_quantile(0.99)),
        Figure::millis("until a change was acknowledged, max", outages.max()),
    ])
}

impl Cluster {
    async fn start(count: u32, log: Log) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("rota-bench-{}", rota_client::fresh_key()));
        std::fs::create_dir(&dir).map_err(|error| trouble("cannot make a directory", error))?;
        let addresses: Vec<String> = (0..count).map(|_| free_address()).collect::<Result<_>>()?;
        let servers = (1..).zip(&addresses);
        let servers = servers.map(|(id, address)| {
            format!("[[server]]\nid = {id}\naddress = \"http://{address}\"\n")
        });
        let text = format!("name = \"bench\"\nlog = \"{}\"\n", log.name());
        let file = text + &servers.collect::<String>();
        std::fs::write(dir.join("cluster.toml"), file)
            .map_err(|error| trouble("cannot write a file", error))?;
        let config = ClientConfig {
            servers: addresses.iter().map(|address| format!("http://{address}")).collect(),
            timeout: TRY_MAX,
            retry: false,
            submitter: None,
            access: rota_client::Access::default(),
        };
        let client = Client::new(&config).map_err(|error| trouble("no client", error))?;
        let mut cluster = Self { dir, addresses, servers: Vec::new(), client };
        for place in 0..cluster.addresses.len() {
            let server = cluster.serve(place)?;
            cluster.servers.push(server);
        }
        Ok(cluster)
    }

    fn serve(&self, place: usize) -> Result<Process> {
        let mut command = rota()?;
        let id = place + 1;
        command.arg("server").arg("--cluster").arg(self.dir.join("cluster.toml"));
        command.args(["--id", &id.to_string(), "--listen", &self.addresses[place], "--data"]);
        command.arg(self.dir.join(format!("server-{id}")));
        spawn(command, &self.dir.join(format!("server-{id}.log")))
    }

    /// Waits until every server is healthy and has everything. Says which one leads, counted from 0.
    async fn settle(&self) -> Result<usize> {
        let begun = Instant::now();
        loop {
            if let Ok(status) = self.client.cluster_status().await
                && let Some(leader) = status.leader.and_then(|id| usize::try_from(id - 1).ok())
                && status.servers.len() == self.addresses.len()
                && status.servers.iter().all(|one| one.healthy == Some(true) && one.lag == Some(0))
            {
                return Ok(leader);
            }
            expired(begun, READY_MAX, "the cluster did not come together")?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn kill(&mut self, place: usize) -> Result<()> {
        self.servers[place].kill()
    }

    fn restart(&mut self, place: usize) -> Result<()> {
        self.servers[place] = self.serve(place)?;
        Ok(())
    }

    /// Has a change made, of any kind, and waits until it is acknowledged.
    async fn change(&self) -> Result<()> {
        let begun = Instant::now();
        while self.client.pause_queue("default", false).await.is_err() {
            expired(begun, READY_MAX, "nobody took a change")?;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }
}
