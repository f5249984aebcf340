//! Three servers with one authority, each at an address of its own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Daemon, PATIENCE, Told, rota, told};

/// A port that is free at every address that is used here, below those that the system draws for outgoing connections.
fn free_port() -> u16 {
    let drawn = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let first = drawn.map_or(0, |drawn| drawn.subsec_nanos() ^ std::process::id()) % 16_000;
    let free = |port: &u16| {
        (2..=6).all(|host| TcpListener::bind(format!("127.0.0.{host}:{port}")).is_ok())
    };
    let ports = (0..16_000).map(|step| 15_000 + ((first + step) % 16_000) as u16);
    ports.into_iter().find(free).expect("a port is free")
}

/// Servers 1 to 3 at 127.0.0.2 to 127.0.0.4, with their directories `s1` to `s3`.
pub(crate) struct Cluster {
    pub(crate) dir: PathBuf,
    pub(crate) admin: String,
    pub(crate) port: u16,
    pub(crate) running: Vec<Option<Daemon>>,
    _temporary: tempfile::TempDir,
}

/// Copies the credentials of the first server, as the commands that `rota cluster init` prints do over SSH.
fn copy_credentials(dir: &Path, to: &str) {
    let line = format!("mkdir -p {to} && tar -C s1 -c credentials | tar -C {to} -xp");
    let status = Command::new("sh").args(["-c", &line]).current_dir(dir).status().expect("sh runs");
    assert!(status.success());
}

impl Cluster {
    /// Founds a cluster; nothing runs yet.
    pub(crate) fn founded() -> Self {
        let temporary = tempfile::tempdir().expect("a directory");
        let dir = temporary.path().to_path_buf();
        let port = free_port();
        std::fs::write(dir.join("config.toml"), "").expect("is written");
        let server = |id| {
            format!("[[server]]\nid = {id}\naddress = \"https://127.0.0.{}:{port}\"\n", id + 1)
        };
        let file = format!("name = \"secured\"\n{}", (1..=3).map(server).collect::<String>());
        std::fs::write(dir.join("cluster.toml"), file).expect("is written");
        let init = ["cluster", "init", "--cluster", "cluster.toml", "--data", "s1", "-o", "json"];
        let (code, out, error) = told(rota(&dir).args(init).output().expect("rota runs"));
        assert_eq!(code, Some(0), "{error}");
        let made: Value = serde_json::from_str(&out).expect("the output is JSON");
        let copies = made["copies"].as_array().expect("a list");
        assert_eq!(copies.len(), 2, "{made}");
        assert!(copies[1].as_str().is_some_and(|copy| copy.contains("ssh 127.0.0.4")), "{made}");
        let admin = made["token"].as_str().expect("a text").to_owned();
        copy_credentials(&dir, "s2");
        copy_credentials(&dir, "s3");
        let running = vec![None, None, None];
        Self { dir, admin, port, running, _temporary: temporary }
    }

    /// Founds a cluster and starts it.
    pub(crate) fn started() -> Self {
        let mut cluster = Self::founded();
        (1..=3).for_each(|id| cluster.start(id, &["--cluster", "cluster.toml"]));
        cluster.until("cluster status", |cluster| cluster.run(&["cluster", "status"]).0 == Some(0));
        cluster
    }

    pub(crate) fn url(&self, id: usize) -> String {
        format!("https://127.0.0.{}:{}", id + 1, self.port)
    }

    pub(crate) fn urls(&self) -> String {
        (1..=3).map(|id| self.url(id)).collect::<Vec<_>>().join(",")
    }

    pub(crate) fn server(&self, id: usize, more: &[&str]) -> Command {
        let mut server = rota(&self.dir);
        let listen = format!("127.0.0.{}:{}", id + 1, self.port);
        server.args(["server", "--data", &format!("s{id}"), "--listen", &listen, "-q"]).args(more);
        server
    }

    pub(crate) fn start(&mut self, id: usize, more: &[&str]) {
        let daemon = Daemon::start(self.server(id, more));
        assert_eq!(daemon.first, self.url(id));
        self.running.resize_with(self.running.len().max(id), || None);
        self.running[id - 1] = Some(daemon);
    }

    pub(crate) fn kill(&mut self, id: usize) {
        self.running[id - 1].take().expect("it runs").kill();
    }

    /// As the administrator, at these servers.
    pub(crate) fn at(&self, servers: &str, args: &[&str]) -> Told {
        let mut command = rota(&self.dir);
        command.env("ROTA_SERVER", servers).env("ROTA_TOKEN", &self.admin);
        command.env("ROTA_CA", "s1/credentials/ca.pem").args(args);
        told(command.output().expect("rota runs"))
    }

    pub(crate) fn run(&self, args: &[&str]) -> Told {
        self.at(&self.urls(), args)
    }

    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let (code, out, error) = self.run(args);
        assert_eq!(code, Some(0), "{args:?}: {error}");
        out
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
        serde_json::from_str(&self.ok(&args)).expect("the output is JSON")
    }

    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !wanted(self) {
            assert!(Instant::now() < deadline, "waited in vain: {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn leader(&self) -> usize {
        let status = self.json(&["cluster", "status"]);
        usize::try_from(status["leader"].as_u64().expect("somebody leads")).expect("fits")
    }

    /// The role of a server; empty if it is not a member.
    pub(crate) fn role(&self, id: usize) -> String {
        let status = self.json(&["cluster", "status"]);
        let servers = status["servers"].as_array().expect("a list");
        let found = servers.iter().find(|server| server["id"] == id);
        found.map_or_else(String::new, |server| server["role"].as_str().unwrap_or("").to_owned())
    }

    /// A worker that joined with a token and is connected.
    pub(crate) fn worker(&self, name: &str, servers: &str) -> Daemon {
        let token = self.ok(&["token", "create", name, "--role", "worker", "-q"]);
        std::fs::write(self.dir.join("join.token"), token).expect("is written");
        let worker = self.worker_again(name, servers, &["--join", "@join.token"]);
        self.until("a connected worker", |cluster| cluster.is_connected(name));
        worker
    }

    pub(crate) fn worker_again(&self, name: &str, servers: &str, more: &[&str]) -> Daemon {
        let mut command = rota(&self.dir);
        command.env("ROTA_SERVER", servers).args(["worker", "--name", name, "--data", name, "-q"]);
        command.arg("--no-cgroups").args(more);
        Daemon::start(command)
    }

    pub(crate) fn is_connected(&self, name: &str) -> bool {
        let (code, out, _) = self.run(&["node", "show", name, "-o", "json"]);
        let node: Value = serde_json::from_str(&out).unwrap_or_default();
        code == Some(0) && node["connected"] == true
    }
}

#[test]
fn work_goes_on_when_the_leader_of_a_secured_cluster_is_killed() {
    let mut cluster = Cluster::started();
    let _worker = cluster.worker("w1", &cluster.urls());
    // Whoever led first, everybody knows where everybody is.
    cluster.until("every server's address", |cluster| {
        let status = cluster.json(&["cluster", "status"]);
        let servers = status["servers"].as_array().expect("a list");
        let told = servers.iter().map(|server| server["address"].as_str().unwrap_or(""));
        told.eq((1..=3).map(|id| cluster.url(id))) && status["level"].as_u64() > Some(0)
    });
    // As people do: a login keeps servers, authority and token.
    let login = ["login", "lab", "--server", &cluster.url(2), "--ca", "s1/credentials/ca.pem"];
    let mut command = rota(&cluster.dir);
    command.env("ROTA_TOKEN", &cluster.admin).args(login);
    let (code, _, error) = told(command.output().expect("rota runs"));
    assert_eq!(code, Some(0), "{error}");
    let in_context = |args: &[&str]| told(rota(&cluster.dir).args(args).output().expect("runs"));
    let (code, job, error) = in_context(&["submit", "-q", "--", "sh", "-c", "sleep 2; echo kept"]);
    assert_eq!(code, Some(0), "{error}");
    let leader = cluster.leader();
    cluster.kill(leader);
    let in_context = |args: &[&str]| told(rota(&cluster.dir).args(args).output().expect("runs"));
    assert_eq!(in_context(&["run", "--", "echo", "at once"]).1, "at once");
    assert_eq!(in_context(&["job", "wait", &job, "-q"]).0, Some(0));
    assert_eq!(in_context(&["logs", &job]).1, "kept");
    // It comes back with nothing but its directory.
    cluster.start(leader, &[]);
    cluster.until("the server that came back", |cluster| {
        cluster.at(&cluster.url(leader), &["cluster", "status"]).0 == Some(0)
    });
    assert_eq!(cluster.role(leader), "voter");
}

#[test]
fn a_server_joins_with_nothing_but_a_token() {
    let mut cluster = Cluster::started();
    let token = cluster.ok(&["token", "create", "s4", "--role", "server", "-q"]);
    std::fs::write(cluster.dir.join("join.token"), token).expect("is written");
    let url = cluster.url(2);
    // An address that nobody could reach is noticed before the token is used.
    let mut nowhere = rota(&cluster.dir);
    nowhere.args(["server", "--join", &url, "--token", "@join.token", "--data", "s4"]);
    let (code, _, error) = told(nowhere.args(["--listen", "0.0.0.0:7600"]).output().expect("runs"));
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("--advertise"), "{error}");
    cluster.start(4, &["--join", &url, "--token", "@join.token"]);
    cluster.until("a fourth voter", |cluster| cluster.role(4) == "voter");
    // The token is used up, and nothing of a second attempt is left behind.
    let second = cluster.server(5, &["--join", &url, "--token", "@join.token"]).output();
    let (code, _, error) = told(second.expect("rota runs"));
    assert_eq!(code, Some(5), "{error}");
    assert!(!cluster.dir.join("s5/credentials").exists());
    // It decides with the others: two of four may be started again, one after the other, and it needs no flags itself.
    cluster.kill(4);
    cluster.start(4, &[]);
    cluster.kill(1);
    assert_eq!(cluster.at(&cluster.url(4), &["queue", "pause", "default"]).0, Some(0));
    let removed = cluster.at(&cluster.url(4), &["cluster", "remove", "1", "--yes"]);
    assert_eq!(removed.0, Some(0), "{}", removed.2);
}

#[test]
fn a_worker_that_was_given_one_server_finds_all_others_and_keeps_them() {
    let mut cluster = Cluster::started();
    let first = cluster.url(1);
    // One that does not lead, so that the worker has to be told where to go at once.
    if cluster.leader() == 1 {
        cluster.ok(&["cluster", "transfer", "2"]);
    }
    let worker = cluster.worker("w1", &first);
    let runs = |cluster: &Cluster| {
        let out = cluster.at(&cluster.url(3), &["run", "--", "echo", "here"]);
        assert_eq!((out.0, out.1.as_str()), (Some(0), "here"), "{}", out.2);
    };
    runs(&cluster);
    // The server that it was given is gone for good; it knows the others.
    cluster.kill(1);
    runs(&cluster);
    // One is added later, and takes the place of two that were there when the worker began.
    let token = cluster.ok(&["token", "create", "s4", "--role", "server", "-q"]);
    std::fs::write(cluster.dir.join("join.token"), token).expect("is written");
    let url = cluster.url(2);
    cluster.start(4, &["--join", &url, "--token", "@join.token"]);
    cluster.until("a fourth voter", |cluster| cluster.role(4) == "voter");
    cluster.ok(&["cluster", "remove", "1", "--yes"]);
    let list = cluster.dir.join("w1/servers");
    cluster.until("the list of servers", |cluster| {
        let known = std::fs::read_to_string(&list).unwrap_or_default();
        known.lines().eq([first.clone(), cluster.url(2), cluster.url(3), cluster.url(4)])
    });
    cluster.kill(2);
    runs(&cluster);
    // Also when it is started again, with the address of a server that is no more.
    drop(worker);
    let _worker = cluster.worker_again("w1", &first, &[]);
    runs(&cluster);
}

#[test]
fn a_server_of_another_cluster_is_refused_and_says_so() {
    let cluster = Cluster::started();
    let token = cluster.ok(&["token", "create", "s4", "--role", "server", "-q"]);
    std::fs::write(cluster.dir.join("join.token"), token).expect("is written");
    let other = Cluster::started();
    // A token of one cluster at a server of another: the token is not shown.
    let url = other.url(1);
    let strange = cluster.server(4, &["--join", &url, "--token", "@join.token"]).output();
    let (code, _, error) = told(strange.expect("rota runs"));
    assert_ne!(code, Some(0));
    assert!(error.contains("of another cluster than the token"), "{error}");
    // An authority that is not the cluster's, in place of the right one.
    let move_to = |from: &Path, to: &Path| {
        std::fs::remove_dir_all(to).expect("is removed");
        let copy = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
        assert!(copy.success());
    };
    let mut cluster = cluster;
    cluster.kill(3);
    move_to(&other.dir.join("s1/credentials"), &cluster.dir.join("s3/credentials"));
    let (code, _, error) = told(cluster.server(3, &[]).output().expect("rota runs"));
    assert_ne!(code, Some(0));
    assert!(error.contains("is of another cluster"), "{error}");
    // No identity at all: it must not let everybody in.
    std::fs::remove_dir_all(cluster.dir.join("s3/credentials")).expect("is removed");
    let (code, _, error) = told(cluster.server(3, &[]).output().expect("rota runs"));
    assert_ne!(code, Some(0));
    assert!(error.contains("prove who they are"), "{error}");
    // Nobody proves anything to a server of another cluster, and the servers say whom they turned away.
    let (code, _, _) = other.at(&cluster.url(1), &["ps"]);
    assert_ne!(code, Some(0));
    assert_eq!(cluster.at(&cluster.url(1), &["ps"]).0, Some(0));
    cluster.until("whom server 1 turned away", |cluster| {
        let told = cluster.at(&cluster.url(1), &["cluster", "audit", "--refused", "-o", "json"]).1;
        let told: Value = serde_json::from_str(&told).expect("the output is JSON");
        let mut items = told["items"].as_array().expect("a list").iter();
        items.any(|item| item["server"] == 1 && item["code"] == "handshake")
    });
    copy_credentials(&cluster.dir, "s3");
    cluster.start(3, &[]);
    cluster.until("the right identity", |cluster| {
        cluster.at(&cluster.url(3), &["cluster", "status"]).0 == Some(0)
    });
}

#[test]
fn addresses_and_identities_have_to_fit() {
    let cluster = Cluster::founded();
    let plain = std::fs::read_to_string(cluster.dir.join("cluster.toml")).expect("is read");
    let plain = plain.replace("https://", "http://");
    std::fs::write(cluster.dir.join("plain.toml"), plain).expect("is written");
    let refused = |id, args: &[&str]| {
        let (code, _, error) = told(cluster.server(id, args).output().expect("rota runs"));
        assert_ne!(code, Some(0));
        error
    };
    assert!(refused(1, &["--cluster", "plain.toml"]).contains("write https://"));
    std::fs::remove_dir_all(cluster.dir.join("s2/credentials")).expect("is removed");
    assert!(refused(2, &["--cluster", "cluster.toml"]).contains("rota cluster init --cluster"));
    let init = ["cluster", "init", "--cluster", "plain.toml", "--data", "new"];
    let (code, _, error) = told(rota(&cluster.dir).args(init).output().expect("rota runs"));
    assert_eq!(code, Some(2), "{error}");
    assert!(!cluster.dir.join("new").exists());
    assert!(refused(5, &["--join", &cluster.url(1)]).contains("rota token create"));
}

#[test]
fn a_token_that_is_revoked_at_one_server_ends_streams_and_sessions_at_the_others() {
    let cluster = Cluster::started();
    let curl = |more: &[&str]| {
        let mut curl = Command::new("curl");
        curl.args(["-sSN", "--max-time", "30", "--cacert", "s1/credentials/ca.pem"]).args(more);
        curl.current_dir(&cluster.dir);
        curl
    };
    let token = cluster.ok(&["token", "create", "screen", "--role", "reader", "-q"]);
    let bearer = format!("authorization: Bearer {token}");
    // Whichever server is asked, the session is known where it was begun and elsewhere.
    let login = format!("{}/v1/login", cluster.url(1));
    let jar = ["-c", "jar", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", "-H", &bearer];
    let told = curl(&[&jar[..], &[&login]].concat()).output().expect("curl runs");
    assert_eq!(String::from_utf8_lossy(&told.stdout), "200");
    let jar = std::fs::read_to_string(cluster.dir.join("jar")).expect("is read");
    let session = jar.split_whitespace().last().expect("a cookie").to_owned();
    let cookie = format!("cookie: __Host-rota={session}");
    let own = "sec-fetch-site: same-origin";
    let jobs = |id: usize| {
        let url = format!("{}/v1/jobs", cluster.url(id));
        let args = ["-o", "/dev/null", "-w", "%{http_code}", "-H", &cookie, "-H", own, &url];
        String::from_utf8_lossy(&curl(&args).output().expect("curl runs").stdout).into_owned()
    };
    assert_eq!(jobs(1), "200");
    (2..=3).for_each(|id| cluster.until("a session known elsewhere", |_| jobs(id) == "200"));
    let follow = |id: usize, headers: &[&str]| {
        let url = format!("{}/v1/events", cluster.url(id));
        let headers: Vec<&str> = headers.iter().flat_map(|header| ["-H", header]).collect();
        let mut stream = curl(&[&headers[..], &[&url]].concat());
        stream.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
        stream.spawn().expect("curl runs")
    };
    let mut streams: Vec<_> =
        (1..=3).flat_map(|id| [follow(id, &[&bearer]), follow(id, &[&cookie, own])]).collect();
    // Each of them has been let in once it tells of something.
    cluster.ok(&["queue", "pause", "default"]);
    for stream in &mut streams {
        let out = stream.stdout.as_mut().expect("is piped");
        let mut first = [0];
        std::io::Read::read_exact(out, &mut first).expect("the stream tells something");
    }
    let id = token.split('_').nth(1).expect("an id");
    let begun = Instant::now();
    assert_eq!(cluster.at(&cluster.url(3), &["token", "revoke", id, "--yes"]).0, Some(0));
    for stream in &mut streams {
        std::io::Read::read_to_end(stream.stdout.as_mut().expect("is piped"), &mut Vec::new()).ok();
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        stream.wait().expect("curl ends");
    }
    (1..=3).for_each(|id| assert_eq!(jobs(id), "401", "server {id}"));
}

#[test]
fn a_backup_of_a_secured_cluster_lets_nobody_in_without_its_identity() {
    let cluster = Cluster::started();
    cluster.ok(&["cluster", "backup", "monday.rota"]);
    let reader = cluster.ok(&["token", "create", "later", "--role", "reader", "-q"]);
    cluster.ok(&["cluster", "restore", "monday.rota", "--data", "s5"]);
    let (code, _, error) = told(cluster.server(5, &[]).output().expect("rota runs"));
    assert_ne!(code, Some(0));
    assert!(error.contains("prove who they are"), "{error}");
    copy_credentials(&cluster.dir, "s5");
    let restored = Daemon::start(cluster.server(5, &[]));
    assert_eq!(restored.first, cluster.url(5));
    assert_eq!(cluster.at(&restored.first, &["token", "ls"]).0, Some(0));
    // What was made after the backup is not known there.
    let mut later = rota(&cluster.dir);
    later.env("ROTA_SERVER", &restored.first).env("ROTA_TOKEN", &reader);
    later.env("ROTA_CA", "s1/credentials/ca.pem").arg("ps");
    assert_eq!(told(later.output().expect("rota runs")).0, Some(5));
}

#[test]
fn a_dead_server_is_replaced_by_the_command_that_is_printed() {
    let mut cluster = Cluster::started();
    let dead = if cluster.leader() == 3 { 2 } else { 3 };
    cluster.kill(dead);
    cluster.until("a server that is known to be dead", |cluster| {
        let status = cluster.json(&["cluster", "status"]);
        status["servers"][dead - 1]["healthy"] == false
    });
    let told = cluster.json(&["cluster", "replace", &dead.to_string(), "--yes"]);
    let token = told["token"].as_str().expect("a token").to_owned();
    let alive = cluster.url(if dead == 3 { 2 } else { 3 });
    cluster.start(4, &["--join", &alive, "--token", &token]);
    let servers = format!("{alive},{}", cluster.url(4));
    cluster.until("the one that takes its place", |cluster| {
        let (_, out, _) = cluster.at(&servers, &["cluster", "status", "-o", "json"]);
        let status: Value = serde_json::from_str(&out).unwrap_or_default();
        let roles = status["servers"].as_array().cloned().unwrap_or_default();
        roles.iter().any(|server| server["id"] == 4 && server["role"] == "voter")
    });
}
