//! Servers of a cluster in one process: what one of them misses while it is away, and what it does where it does not lead.

#![expect(clippy::unwrap_used, reason = "in tests, a failure is a panic")]

mod common;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::PATIENCE;
use common::clients::Clients;
use reqwest::Method;
use rota_core::image::{Meta, Record};
use rota_server::{ClusterConfig, Ended, LogKind, Out, RunningServer, Server, ServerConfig};
use rota_store::disk::{Disk, FsDisk};
use rota_store::snapshot;
use rota_types::ServerId;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;

struct Cluster {
    dir: TempDir,
    name: &'static str,
    addresses: Vec<SocketAddr>,
    log: LogKind,
    client: reqwest::Client,
    running: BTreeMap<usize, Running>,
}

/// A server that starts again when it asks for it.
struct Running {
    stop: oneshot::Sender<How>,
    /// How often it has started again.
    done: tokio::task::JoinHandle<(u32, Option<Out>)>,
}

/// How a server goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    InOrder,
    /// As if its process had been killed.
    Killed,
}

impl Cluster {
    fn new(count: usize, log: LogKind) -> Self {
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let listeners: Vec<TcpListener> =
            (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let dir = TempDir::new().unwrap();
        Self { dir, name: "test", addresses, log, client, running: BTreeMap::new() }
    }

    fn place(&self, place: usize, name: &str) -> ClusterConfig {
        let founders = (1..).map(ServerId).zip(&self.addresses);
        let founders = founders.map(|(id, address)| (id, format!("http://{address}"))).collect();
        ClusterConfig::found(name, self.log, founders, ServerId(place as u64 + 1))
    }

    fn config(&self, place: usize) -> ServerConfig {
        let mut config = ServerConfig::new(self.directory(place));
        config.listen = self.addresses[place];
        config.cluster = Some(self.place(place, self.name));
        config.disk_reserve_bytes = 0;
        config.snapshot_log_bytes = 2_000;
        config
    }

    /// The place of the server that leads, as that one sees it.
    async fn leader(&self) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for place in self.running.keys() {
                let (_, status) = self.get(*place, "/v1/cluster/status?consistency=stale").await;
                if status["leader"].is_u64() && status["leader"] == status["server"] {
                    return *place;
                }
            }
            assert!(Instant::now() < deadline, "nobody leads");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn start(&mut self, place: usize) {
        self.start_as(place, self.config(place));
    }

    /// Starts a server that belongs to no cluster.
    fn start_alone(&mut self, place: usize) {
        let config = ServerConfig { cluster: None, ..self.config(place) };
        self.start_as(place, config);
    }

    fn start_as(&mut self, place: usize, config: ServerConfig) {
        let (stop, mut stopped) = oneshot::channel();
        let done = tokio::spawn(async move {
            let mut again = 0;
            loop {
                let mut server: RunningServer = started(&config).await;
                let ended = tokio::select! {
                    how = &mut stopped => Err(how.unwrap()),
                    ended = server.wait() => Ok(ended),
                };
                match ended {
                    Err(How::InOrder) => {
                        server.shutdown().await;
                        return (again, None);
                    }
                    Err(How::Killed) => {
                        tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
                        return (again, None);
                    }
                    Ok(Ended::StartAgain) => again += 1,
                    Ok(Ended::Out(out)) => return (again, Some(out)),
                    Ok(Ended::Failed) => panic!("a server failed"),
                }
            }
        });
        self.running.insert(place, Running { stop, done });
    }

    async fn stop(&mut self, place: usize) -> u32 {
        self.end(place, How::InOrder).await
    }

    async fn end(&mut self, place: usize, how: How) -> u32 {
        let Running { stop, done } = self.running.remove(&place).unwrap();
        stop.send(how).unwrap();
        done.await.unwrap().0
    }

    /// Why a server ended by itself.
    async fn out(&mut self, place: usize) -> Option<Out> {
        let Running { stop: _stop, done } = self.running.remove(&place).unwrap();
        tokio::time::timeout(PATIENCE, done).await.unwrap().unwrap().1
    }

    /// Starts all servers and waits until one of them leads.
    async fn found(&mut self) {
        (0..self.addresses.len()).for_each(|place| self.start(place));
        for place in 0..self.addresses.len() {
            self.until(place, "/readyz", |health| health["status"] == "ok").await;
        }
    }

    fn directory(&self, place: usize) -> PathBuf {
        self.dir.path().join(format!("server-{place}"))
    }

    async fn send(&self, place: usize, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("http://{}{path}", self.addresses[place]);
        let request = self.client.request(method, url).timeout(PATIENCE).json(body);
        match request.send().await {
            Ok(response) => common::read(response).await,
            Err(error) => (0, json!(error.to_string())),
        }
    }

    /// Sends again while nobody leads. For what may be done twice.
    async fn insist(&self, place: usize, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, answer) = self.send(place, method.clone(), path, body).await;
            if !matches!(status, 0 | 503 | 504) || Instant::now() > deadline {
                return (status, answer);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
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
            let url = format!("http://{}/v1/jobs", self.addresses[place]);
            let request = self.client.post(url).header("idempotency-key", name).timeout(PATIENCE);
            let (status, reply) = match request.json(&job).send().await {
                Ok(response) => common::read(response).await,
                Err(error) => (0, json!(error.to_string())),
            };
            if matches!(status, 200 | 201) {
                return;
            }
            let again = matches!(status, 503 | 504);
            assert!(again && Instant::now() < deadline, "{status} {reply}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Reads, again and again while nobody leads.
    async fn page(&self, place: usize, path: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, page) = self.get(place, path).await;
            if status == 200 {
                return page;
            }
            assert!(status == 503 && Instant::now() < deadline, "{status} {page}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn names(&self, place: usize, query: &str) -> Vec<String> {
        let page = self.page(place, &format!("/v1/jobs?limit=1000{query}")).await;
        let items = page["items"].as_array().unwrap().iter();
        items.map(|job| job["name"].as_str().unwrap().to_owned()).collect()
    }
}

/// Starts a server. What one that was killed has left, such as its port, is soon free.
async fn started(config: &ServerConfig) -> RunningServer {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Server::start(config.clone()).await {
            Ok(server) => return server,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn a_late_server_gets_everything(log: LogKind) {
    let mut cluster = Cluster::new(3, log);
    cluster.found().await;
    cluster.stop(2).await;
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
    cluster.found().await;
    for place in 0..3 {
        cluster.stop(place).await;
    }
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

async fn an_emptied_server_stays_out(log: LogKind) {
    let mut cluster = Cluster::new(3, log);
    cluster.found().await;
    cluster.submit(0, "kept").await;
    // Whoever leads, and whichever of the others is up: one that has met it is enough.
    for (emptied, other) in [(2, 0), (0, 1)] {
        for place in 0..3 {
            if cluster.running.contains_key(&place) {
                cluster.stop(place).await;
            }
        }
        let aside = cluster.dir.path().join("aside");
        std::fs::rename(cluster.directory(emptied), &aside).unwrap();
        cluster.start(emptied);
        cluster.start(other);
        let (server, by) = (ServerId(emptied as u64 + 1), ServerId(other as u64 + 1));
        assert_eq!(cluster.out(emptied).await, Some(Out::Forgotten { server, by }));
        assert_eq!(cluster.get(other, "/v1/jobs").await.0, 503, "a cluster was founded anew");
        // With its directory it is welcome again.
        std::fs::remove_dir_all(cluster.directory(emptied)).unwrap();
        std::fs::rename(&aside, cluster.directory(emptied)).unwrap();
        cluster.start(emptied);
        cluster.until(other, "/readyz", |health| health["status"] == "ok").await;
        assert_eq!(cluster.names(other, "").await, ["kept"]);
    }
    cluster.stop(0).await;
    cluster.stop(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_an_emptied_directory_does_not_come_back_under_its_number_under_raft() {
    an_emptied_server_stays_out(LogKind::Raft).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_an_emptied_directory_does_not_come_back_under_its_number_under_paxos() {
    an_emptied_server_stays_out(LogKind::Paxos).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_founded_when_all_of_its_servers_are_there() {
    let mut cluster = Cluster::new(3, LogKind::Raft);
    cluster.start(0);
    cluster.start(1);
    cluster.until(1, "/healthz", |health| health.as_str() == Some("ok\n")).await;
    let job = json!({"task": [{"noop": true}]});
    let (status, problem) = cluster.send(0, Method::POST, "/v1/jobs", &job).await;
    assert_eq!((status, &problem["code"]), (503, &json!("no-leader")), "{problem}");
    // One that waits may be started again as often as one likes.
    cluster.stop(1).await;
    cluster.start(1);
    cluster.start(2);
    cluster.submit(0, "all-there").await;
    assert_eq!(cluster.names(2, "").await, ["all-there"]);
    for place in 0..3 {
        cluster.stop(place).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_removed_learns_of_it_from_the_others_and_stays_out() {
    let mut cluster = Cluster::new(3, LogKind::Raft);
    cluster.found().await;
    cluster.submit(0, "kept").await;
    cluster.stop(2).await;
    let path = "/v1/cluster/servers/3";
    let deadline = Instant::now() + PATIENCE;
    while cluster.send(0, Method::DELETE, path, &Value::Null).await.0 != 204 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cluster.start(2);
    let removed = Out::Removed { server: ServerId(3) };
    assert_eq!(cluster.out(2).await, Some(removed.clone()));
    // From now on its directory says so.
    let Err(refused) = Server::start(cluster.config(2)).await else { panic!("it has started") };
    assert!(refused.to_string().starts_with(&removed.to_string()), "{refused}");
    assert!(refused.to_string().contains("rota cluster add"), "{refused}");
    cluster.stop(0).await;
    cluster.stop(1).await;
}

async fn a_cluster_is_founded_on_what_one_server_has(log: LogKind) {
    let mut cluster = Cluster::new(3, log);
    cluster.start_alone(1);
    cluster.until(1, "/readyz", |health| health["status"] == "ok").await;
    for number in 0..40 {
        cluster.submit(1, &format!("kept-{number}")).await;
    }
    for id in 1..=10 {
        let path = format!("/v1/jobs/{id}/cancel");
        assert_eq!(cluster.send(1, Method::POST, &path, &json!({})).await.0, 202);
    }
    cluster.stop(1).await;
    cluster.start(0);
    cluster.start(1);
    // Nothing begins before all have what the cluster is founded on.
    cluster.until(1, "/healthz", |health| health.as_str() == Some("ok\n")).await;
    let job = json!({"task": [{"noop": true}]});
    assert_eq!(cluster.send(1, Method::POST, "/v1/jobs", &job).await.0, 503);
    cluster.start(2);
    cluster.submit(0, "the-first-of-the-cluster").await;
    let all = cluster.names(1, "").await;
    assert_eq!(all.len(), 41);
    assert_eq!(cluster.names(2, "&state=cancelled").await.len(), 10);
    // Any two of them have everything, also after a restart.
    for gone in 0..3 {
        cluster.stop(gone).await;
        let other = (gone + 1) % 3;
        cluster.until(other, "/readyz", |health| health["status"] == "ok").await;
        assert_eq!(cluster.names(other, "").await, all);
        let index = cluster.page(other, "/v1/jobs?limit=1").await["index"].as_u64().unwrap();
        cluster.start(gone);
        let path = format!("/v1/jobs?limit=1&consistency=stale&min_index={index}");
        cluster
            .until(gone, &path, |page| page["index"].as_u64().is_some_and(|at| at >= index))
            .await;
        assert_eq!(cluster.names(gone, "&consistency=stale").await, all);
    }
    for place in 0..3 {
        cluster.stop(place).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_founded_on_the_data_of_a_server_that_ran_alone_under_raft() {
    a_cluster_is_founded_on_what_one_server_has(LogKind::Raft).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_founded_on_the_data_of_a_server_that_ran_alone_under_paxos() {
    a_cluster_is_founded_on_what_one_server_has(LogKind::Paxos).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_not_founded_on_the_data_of_two_servers() {
    let mut cluster = Cluster::new(2, LogKind::Raft);
    for place in 0..2 {
        cluster.start_alone(place);
        cluster.until(place, "/readyz", |health| health["status"] == "ok").await;
        cluster.submit(place, &format!("job-of-{place}")).await;
        cluster.stop(place).await;
        cluster.start(place);
    }
    // Once one of them has ended, the other one waits for it.
    let deadline = Instant::now() + PATIENCE;
    let ended = loop {
        let ended = cluster.running.iter().find(|(_, running)| running.done.is_finished());
        if let Some((place, _)) = ended {
            break *place;
        }
        assert!(Instant::now() < deadline, "neither noticed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let id = |place| ServerId(place as u64 + 1);
    let two = Out::TwoStates { server: id(ended), other: id(1 - ended) };
    assert_eq!(cluster.out(ended).await, Some(two));
    if !cluster.running.is_empty() {
        cluster.stop(1 - ended).await;
    }
}

/// Changes what a stopped server would start from: its newest snapshot says something else, with all its checksums right.
fn plant(directory: &Path) {
    let disk: Arc<dyn Disk> = Arc::new(FsDisk::open(directory).unwrap());
    let index = snapshot::latest(disk.as_ref()).unwrap().unwrap();
    let identity = rota_store::Identity::of(disk.as_ref()).unwrap().unwrap();
    let snapshot = snapshot::open(&disk, &identity, index).unwrap();
    let records: Result<Vec<Record>, _> = snapshot.records().unwrap().collect();
    let changed = records.unwrap().into_iter().map(|record| match record {
        Record::Meta(meta) => Record::Meta(Meta { next_node: meta.next_node.next(), ..meta }),
        other => other,
    });
    snapshot::write(disk.as_ref(), &identity, snapshot.meta(), changed).unwrap();
}

async fn a_server_whose_state_differs_takes_itself_out(log: LogKind) {
    let mut cluster = Cluster::new(3, log);
    cluster.found().await;
    let made = |text: &Value| {
        let text = text.as_str().unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("rota_snapshots_total "));
        count.and_then(|count| count.trim().parse::<f64>().ok()).is_some_and(|count| count >= 1.0)
    };
    for number in 0..60 {
        cluster.submit(0, &format!("job-{number}")).await;
    }
    cluster.until(2, "/metrics", made).await;
    cluster.stop(2).await;
    plant(&cluster.directory(2));
    cluster.start(2);
    let deadline = Instant::now() + 2 * PATIENCE;
    let mut submitted = 60;
    while !cluster.running[&2].done.is_finished() {
        assert!(Instant::now() < deadline, "nobody noticed");
        cluster.submit(0, &format!("job-{submitted}")).await;
        submitted += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let out = cluster.out(2).await;
    assert!(matches!(out, Some(Out::Differs { server: ServerId(3), .. })), "{out:?}");
    // It stays out, and the others go on.
    let Err(refused) = Server::start(cluster.config(2)).await else { panic!("it has started") };
    assert!(refused.to_string().contains("differs from that of the majority"), "{refused}");
    cluster.submit(1, "goes-on").await;
    assert_eq!(cluster.names(0, "").await.len(), submitted + 1);
    cluster.stop(0).await;
    cluster.stop(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_state_differs_from_the_majority_takes_itself_out_under_raft() {
    a_server_whose_state_differs_takes_itself_out(LogKind::Raft).await;
}

async fn what_is_left_founds_another_cluster(log: LogKind) {
    let mut cluster = Cluster::new(3, log);
    cluster.found().await;
    for number in 0..40 {
        cluster.submit(number % 3, &format!("kept-{number}")).await;
    }
    assert_eq!(cluster.send(0, Method::POST, "/v1/jobs/1/cancel", &json!({})).await.0, 202);
    let index = cluster.page(0, "/v1/jobs?limit=1").await["index"].as_u64().unwrap();
    let path = format!("/v1/jobs?limit=1&consistency=stale&min_index={index}");
    cluster.until(2, &path, |page| page["index"].as_u64().is_some_and(|at| at >= index)).await;
    for place in 0..3 {
        cluster.stop(place).await;
    }
    // Two of three disks are lost; somebody finds one of them again later.
    let (left, lost) = (cluster.directory(2), cluster.dir.path().join("lost"));
    let old = cluster.dir.path().join("old");
    std::fs::rename(cluster.directory(0), &lost).unwrap();
    std::fs::remove_dir_all(cluster.directory(1)).unwrap();
    std::fs::rename(&left, &old).unwrap();
    rota_server::recover(&old, &left).unwrap();
    // Not under the old id, by which the lost ones could come back.
    let Err(refused) = Server::start(cluster.config(2)).await else { panic!("it has started") };
    assert!(refused.to_string().contains("another name"), "{refused}");
    cluster.name = "another";
    cluster.found().await;
    assert_eq!(cluster.names(0, "").await.len(), 40);
    assert_eq!(cluster.names(1, "&state=cancelled").await, ["kept-0"]);
    cluster.submit(0, "new").await;
    // The lost one is not let in: it speaks for another cluster.
    cluster.stop(0).await;
    cluster.until(1, "/readyz", |health| health["status"] == "ok").await;
    std::fs::rename(cluster.directory(0), cluster.dir.path().join("aside")).unwrap();
    std::fs::rename(&lost, cluster.directory(0)).unwrap();
    let config = ServerConfig { cluster: Some(cluster.place(0, "test")), ..cluster.config(0) };
    cluster.start_as(0, config);
    cluster.until(0, "/healthz", |health| health.as_str() == Some("ok\n")).await;
    cluster.submit(1, "goes-on").await;
    assert_eq!(cluster.names(2, "").await.len(), 42);
    let (status, problem) = cluster.get(0, "/v1/jobs").await;
    assert_eq!((status, &problem["code"]), (503, &json!("no-leader")), "{problem}");
    for place in 0..3 {
        cluster.stop(place).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_cluster_founds_another_that_the_lost_servers_cannot_enter_under_raft() {
    what_is_left_founds_another_cluster(LogKind::Raft).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_cluster_founds_another_that_the_lost_servers_cannot_enter_under_paxos() {
    what_is_left_founds_another_cluster(LogKind::Paxos).await;
}

async fn keys_stay_linearizable_while_leaders_are_killed(log: LogKind) {
    let mut cluster = Cluster::new(3, log);
    cluster.found().await;
    let clients = Clients::new(&cluster.client);
    let until = Instant::now() + Duration::from_secs(6);
    let running: Vec<_> = (1..=9)
        .map(|number| {
            let servers = cluster.addresses.clone();
            tokio::spawn(clients.clone().run(number, servers, 4, until))
        })
        .collect();
    let mut before = 0;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let leader = cluster.leader().await;
        let done = clients.history().len();
        assert!(done > before, "void: nothing was done between two leaders");
        before = done;
        cluster.end(leader, How::Killed).await;
        cluster.leader().await;
        cluster.start(leader);
    }
    for client in running {
        client.await.unwrap();
    }
    let history = clients.history();
    rota_testkit::check_linearizable(&history).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert!(history.len() > 200, "void: {} operations", history.len());
    // All have the same in the end, each by itself.
    let (_, keys) = cluster.get(0, "/v1/kv").await;
    for place in 0..3 {
        let path = format!("/v1/kv?consistency=stale&min_index={}", keys["index"]);
        let (status, own) = cluster.get(place, &path).await;
        assert_eq!((status, &own["items"]), (200, &keys["items"]));
        cluster.stop(place).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_stay_linearizable_while_leaders_are_killed_under_raft() {
    keys_stay_linearizable_while_leaders_are_killed(LogKind::Raft).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_stay_linearizable_while_leaders_are_killed_under_paxos() {
    keys_stay_linearizable_while_leaders_are_killed(LogKind::Paxos).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_and_a_watch_outlive_the_leader_at_any_server() {
    let mut cluster = Cluster::new(3, LogKind::Raft);
    cluster.found().await;
    let mut sessions = Vec::new();
    for place in 0..2 {
        let body = json!({"ttl": "60s"});
        let (status, session) = cluster.send(place, Method::POST, "/v1/sessions", &body).await;
        assert_eq!(status, 201, "{session}");
        sessions.push(session["id"].as_u64().unwrap());
    }
    let claim = |session: u64| json!({"session": session, "wait": "1ms"});
    let lock = "/v1/locks/leader/web";
    let (status, held) = cluster.send(2, Method::PUT, lock, &claim(sessions[0])).await;
    assert_eq!((status, &held["held"]), (200, &json!(true)));
    let leader = cluster.leader().await;
    let (other, third) = ((leader + 1) % 3, (leader + 2) % 3);
    let (status, waits) = cluster.send(other, Method::PUT, lock, &claim(sessions[1])).await;
    assert_eq!((status, &waits["ahead"]), (202, &json!(0)));
    // The server that is watched does not lead.
    let url = format!(
        "http://{}/v1/watch?lock=leader/web&since={}",
        cluster.addresses[third], waits["index"]
    );
    let mut watched = cluster.client.get(url).send().await.unwrap();
    cluster.end(leader, How::Killed).await;
    let (status, same) = cluster.insist(third, Method::PUT, lock, &claim(sessions[0])).await;
    assert_eq!((status, &same["token"]), (200, &held["token"]), "{same}");
    let path = format!("{lock}?session={}", sessions[0]);
    let (status, answer) = cluster.insist(other, Method::DELETE, &path, &Value::Null).await;
    assert_eq!(status, 204, "{answer}");
    let (status, next) = cluster.insist(third, Method::PUT, lock, &claim(sessions[1])).await;
    assert_eq!((status, &next["held"]), (200, &json!(true)));
    assert!(next["token"].as_u64() > held["token"].as_u64());
    let mut told = String::new();
    while !told.contains("event: held") {
        let part = tokio::time::timeout(PATIENCE, watched.chunk()).await.unwrap();
        told.push_str(std::str::from_utf8(&part.unwrap().unwrap()).unwrap());
    }
    assert!(told.contains(&format!("\"holder\":{{\"session\":{}", sessions[1])), "{told}");
    drop(watched);
    cluster.stop(other).await;
    cluster.stop(third).await;
}
