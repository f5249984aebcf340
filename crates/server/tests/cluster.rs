//! Servers of a cluster in one process: what one of them misses while it is away, and what it does where it does not lead.

#![expect(clippy::unwrap_used, reason = "in tests, a failure is a panic")]

mod common;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use common::PATIENCE;
use reqwest::Method;
use rota_server::{ClusterConfig, Ended, LogKind, RunningServer, Server, ServerConfig};
use rota_types::ServerId;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;

struct Cluster {
    dir: TempDir,
    addresses: Vec<SocketAddr>,
    log: LogKind,
    client: reqwest::Client,
    running: BTreeMap<usize, Running>,
}

/// A server that starts again when it asks for it.
struct Running {
    stop: oneshot::Sender<()>,
    /// How often it has started again.
    done: tokio::task::JoinHandle<u32>,
}

impl Cluster {
    fn new(count: usize, log: LogKind) -> Self {
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let listeners: Vec<TcpListener> =
            (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let dir = TempDir::new().unwrap();
        Self { dir, addresses, log, client, running: BTreeMap::new() }
    }

    fn config(&self, place: usize) -> ServerConfig {
        let founders = (1..).map(ServerId).zip(&self.addresses);
        let founders = founders.map(|(id, address)| (id, format!("http://{address}"))).collect();
        let id = ServerId(place as u64 + 1);
        let mut config = ServerConfig::new(self.dir.path().join(format!("server-{place}")));
        config.listen = self.addresses[place];
        config.cluster = Some(ClusterConfig::found("test", self.log, founders, id));
        config.disk_reserve_bytes = 0;
        config.snapshot_log_bytes = 2_000;
        config
    }

    fn start(&mut self, place: usize) {
        let config = self.config(place);
        let (stop, mut stopped) = oneshot::channel();
        let done = tokio::spawn(async move {
            let mut again = 0;
            loop {
                let mut server: RunningServer = Server::start(config.clone()).await.unwrap();
                let ended = tokio::select! {
                    _ = &mut stopped => None,
                    ended = server.wait() => Some(ended),
                };
                match ended {
                    None => {
                        server.shutdown().await;
                        return again;
                    }
                    Some(Ended::StartAgain) => again += 1,
                    Some(Ended::Failed) => panic!("a server failed"),
                }
            }
        });
        self.running.insert(place, Running { stop, done });
    }

    async fn stop(&mut self, place: usize) -> u32 {
        let Running { stop, done } = self.running.remove(&place).unwrap();
        stop.send(()).unwrap();
        done.await.unwrap()
    }

    async fn send(&self, place: usize, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("http://{}{path}", self.addresses[place]);
        let request = self.client.request(method, url).timeout(PATIENCE).json(body);
        match request.send().await {
            Ok(response) => common::read(response).await,
            Err(error) => (0, json!(error.to_string())),
        }
    }

    async fn get(&self, place: usize, path: &str) -> (u16, Value) {
        self.send(place, Method::GET, path, &Value::Null).await
    }

    async fn until(&self, place: usize, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (_, value) = self.get(place, path).await;
            if wanted(&value) {
                return value;
            }
            assert!(Instant::now() < deadline, "{path} of {place} stays {value}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn submit(&self, place: usize, name: &str) {
        let job = json!({"job": {"name": name}, "task": [{"noop": true}]});
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, reply) = self.send(place, Method::POST, "/v1/jobs", &job).await;
            if status == 201 {
                return;
            }
            assert!(status == 503 && Instant::now() < deadline, "{status} {reply}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn names(&self, place: usize, query: &str) -> Vec<String> {
        let (status, page) = self.get(place, &format!("/v1/jobs?limit=1000{query}")).await;
        assert_eq!(status, 200, "{page}");
        let items = page["items"].as_array().unwrap().iter();
        items.map(|job| job["name"].as_str().unwrap().to_owned()).collect()
    }
}

async fn a_late_server_gets_everything(log: LogKind) {
    let mut cluster = Cluster::new(3, log);
    cluster.start(0);
    cluster.start(1);
    cluster.until(0, "/readyz", |health| health["status"] == "ok").await;
    for number in 0..60 {
        cluster.submit(number % 2, &format!("kept-{number}")).await;
    }
    // Some are over, so that only the history has them.
    for id in 1..=20 {
        let (status, reply) =
            cluster.send(0, Method::POST, &format!("/v1/jobs/{id}/cancel"), &json!({})).await;
        assert_eq!(status, 202, "{reply}");
    }
    let made = |text: &Value| {
        let text = text.as_str().unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("rota_snapshots_total "));
        count.and_then(|count| count.trim().parse::<f64>().ok()).is_some_and(|count| count >= 2.0)
    };
    for place in 0..2 {
        for number in 0..60 {
            cluster.submit(place, &format!("more-{place}-{number}")).await;
        }
        cluster.until(place, "/metrics", made).await;
    }
    // What is in memory would reach back further than what is on the disk.
    cluster.stop(0).await;
    cluster.start(0);
    cluster.until(0, "/readyz", |health| health["status"] == "ok").await;
    cluster.stop(1).await;
    cluster.start(1);
    cluster.until(1, "/readyz", |health| health["status"] == "ok").await;
    cluster.start(2);
    let all = cluster.names(0, "").await;
    assert_eq!(all.len(), 180);
    let index = cluster.get(0, "/v1/jobs?limit=1").await.1["index"].as_u64().unwrap();
    let path = format!("/v1/jobs?limit=1&consistency=stale&min_index={index}");
    cluster.until(2, &path, |page| page["index"].as_u64().is_some_and(|at| at >= index)).await;
    assert_eq!(cluster.names(2, "&consistency=stale").await, all);
    assert_eq!(cluster.names(2, "&consistency=stale&state=cancelled").await.len(), 20);
    // It decides with the others now: one of those may go.
    cluster.stop(0).await;
    cluster.submit(2, "without-the-first").await;
    assert_eq!(cluster.names(1, "").await.len(), 181);
    cluster.stop(1).await;
    let again = cluster.stop(2).await;
    assert!(again >= 1, "void: the log reached back far enough, no image was needed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_the_log_no_longer_reaches_gets_an_image_under_raft() {
    a_late_server_gets_everything(LogKind::Raft).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_the_log_no_longer_reaches_gets_an_image_under_paxos() {
    a_late_server_gets_everything(LogKind::Paxos).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_majority_says_so_and_still_answers_stale_reads() {
    let mut cluster = Cluster::new(3, LogKind::Raft);
    cluster.start(0);
    cluster.until(0, "/healthz", |health| health.as_str() == Some("ok\n")).await;
    let job = json!({"task": [{"noop": true}]});
    let (status, problem) = cluster.send(0, Method::POST, "/v1/jobs", &job).await;
    assert_eq!((status, &problem["code"]), (503, &json!("no-leader")), "{problem}");
    let (status, problem) = cluster.get(0, "/v1/jobs").await;
    assert_eq!((status, &problem["code"]), (503, &json!("no-leader")), "{problem}");
    let (status, page) = cluster.get(0, "/v1/jobs?consistency=stale").await;
    assert_eq!((status, &page["items"]), (200, &json!([])), "{page}");
    let (status, health) = cluster.get(0, "/readyz").await;
    assert_eq!((status, &health["status"]), (503, &json!("no server leads at the moment")));
    cluster.start(1);
    cluster.submit(0, "with-a-majority").await;
    cluster.stop(0).await;
    cluster.stop(1).await;
}
