//! One server, a worker and people who have to prove who they are.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Daemon, PATIENCE, Told, rota, told};

/// A server after `rota cluster init`.
struct World {
    dir: PathBuf,
    server: Daemon,
    admin: String,
    _temporary: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let temporary = tempfile::tempdir().expect("a directory");
        let dir = temporary.path().to_path_buf();
        std::fs::write(dir.join("config.toml"), "").expect("the configuration is written");
        let (code, admin, error) = told(
            rota(&dir).args(["cluster", "init", "--data", "server", "-q"]).output().expect("runs"),
        );
        assert_eq!((code, admin.starts_with("rota_")), (Some(0), true), "{error}");
        let mut server = rota(&dir);
        server.args(["server", "--data", "server", "--listen", "127.0.0.1:0", "-q"]);
        let server = Daemon::start(server);
        assert!(server.first.starts_with("https://127.0.0.1:"), "{}", server.first);
        Self { dir, server, admin, _temporary: temporary }
    }

    /// With this token and the authority, by the environment.
    fn with(&self, token: &str, args: &[&str]) -> Told {
        let mut command = rota(&self.dir);
        command.env("ROTA_SERVER", &self.server.first).env("ROTA_TOKEN", token);
        command.env("ROTA_CA", "server/credentials/ca.pem").args(args);
        told(command.output().expect("rota runs"))
    }

    fn ok(&self, args: &[&str]) -> String {
        let (code, out, error) = self.with(&self.admin, args);
        assert_eq!(code, Some(0), "{args:?}: {error}");
        out
    }

    fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
        serde_json::from_str(&self.ok(&args)).expect("the output is JSON")
    }

    fn worker(&self, join: Option<&str>) -> Daemon {
        let mut command = rota(&self.dir);
        command.env("ROTA_SERVER", &self.server.first);
        if let Some(token) = join {
            command.env("ROTA_JOIN", token);
        }
        Daemon::start({
            command.args(["worker", "--name", "n1", "--data", "worker", "-q", "--no-cgroups"]);
            command
        })
    }

    fn until_connected(&self, connected: bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let nodes = self.json(&["node", "ls"]);
            if nodes["items"][0]["connected"] == connected {
                return;
            }
            assert!(Instant::now() < deadline, "{nodes}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn a_worker_joins_once_and_proves_itself_by_its_certificate_from_then_on() {
    let world = World::new();
    let join = world.ok(&["token", "create", "rack", "--role", "worker", "-q"]);
    let worker = world.worker(Some(&join));
    assert_eq!(worker.first, "n1");
    world.until_connected(true);
    let job = world.ok(&["submit", "--wait", "-q", "--", "sh", "-c", "echo done"]);
    let (code, out, error) =
        world.with(&world.admin, &["logs", job.lines().next().expect("an id")]);
    assert_eq!((code, out.as_str()), (Some(0), "done"), "{error}");
    drop(worker);
    world.until_connected(false);
    let _worker = world.worker(None);
    world.until_connected(true);
    // The token is used up.
    let mut other = rota(&world.dir);
    other.env("ROTA_SERVER", &world.server.first).env("ROTA_JOIN", &join);
    other.args(["worker", "--name", "n2", "--data", "worker-2"]);
    let (code, _, error) = told(other.output().expect("rota runs"));
    assert_eq!(code, Some(5), "{error}");
    let audit = world.json(&["cluster", "audit"]);
    let actions: Vec<&str> = audit["items"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|item| item["action"].as_str().expect("a text"))
        .collect();
    assert_eq!(actions, ["POST /v1/jobs", "POST /v1/join", "POST /v1/tokens"]);
}

#[test]
fn people_without_a_token_or_with_too_little_of_a_role_are_refused_with_the_remedy() {
    let world = World::new();
    let (code, _, error) = world.with("", &["ps"]);
    assert_eq!(code, Some(5));
    assert!(error.contains("rota login"), "{error}");
    let reader = world.ok(&["token", "create", "r", "--role", "reader", "-q"]);
    assert_eq!(world.with(&reader, &["ps"]).0, Some(0));
    let (code, _, error) = world.with(&reader, &["submit", "--", "true"]);
    assert_eq!(code, Some(5));
    assert!(error.contains("this takes the role submitter"), "{error}");
    let id = reader.split('_').nth(1).expect("an id");
    world.ok(&["token", "revoke", id, "--yes"]);
    assert_eq!(world.with(&reader, &["ps"]).0, Some(5));
    // Without the authority, the server could be anybody.
    let mut blind = rota(&world.dir);
    blind.env("ROTA_SERVER", &world.server.first).env("ROTA_TOKEN", &world.admin);
    assert_eq!(told(blind.arg("ps").output().expect("rota runs")).0, Some(6));
}

#[test]
fn a_login_is_kept_for_nobody_else_to_read() {
    let world = World::new();
    let path = world.dir.join("config.toml");
    std::fs::write(&path, "[context.old]\nserver = \"http://old:1\"\n").expect("is written");
    let mut login = rota(&world.dir);
    login.args(["login", "lab", "-s", &world.server.first, "--ca", "server/credentials/ca.pem"]);
    let mut login = login.stdin(Stdio::piped()).spawn().expect("rota starts");
    let mut stdin = login.stdin.take().expect("is piped");
    stdin.write_all(world.admin.as_bytes()).expect("is read");
    drop(stdin);
    let (code, out, error) = told(login.wait_with_output().expect("ends"));
    assert_eq!(code, Some(0), "{error}");
    assert!(out.contains("as admin (admin)") && !out.contains(&world.admin), "{out}");
    let mode = || std::fs::metadata(&path).expect("is there").permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    let ls = || told(rota(&world.dir).args(["token", "ls", "-q"]).output().expect("rota runs"));
    let (code, out, error) = ls();
    assert_eq!((code, out.lines().count()), (Some(0), 1), "{error}");
    let text = std::fs::read_to_string(&path).expect("is read");
    assert!(text.contains("http://old:1") && text.contains("current = \"lab\""), "{text}");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).expect("is ours");
    let (code, _, error) = ls();
    assert_eq!(code, Some(2));
    assert!(error.contains("chmod 600"), "{error}");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("is ours");
    let logout = || told(rota(&world.dir).arg("logout").output().expect("rota runs"));
    assert_eq!(logout().0, Some(0));
    assert_eq!(ls().0, Some(5));
    let text = std::fs::read_to_string(&path).expect("is read");
    assert!(text.contains("http://old:1") && !text.contains("rota_") && mode() == 0o600, "{text}");
    assert!(logout().1.contains("no token was kept"));
    // With nothing but the address.
    let mut again = rota(&world.dir);
    again.args(["login", &world.server.first, "--ca", "server/credentials/ca.pem"]);
    again.env("ROTA_TOKEN", &world.admin);
    let (code, out, error) = told(again.output().expect("rota runs"));
    assert_eq!((code, out.contains("context cluster in")), (Some(0), true), "{out}{error}");
    assert_eq!(ls().0, Some(0));
}

#[test]
fn a_server_that_others_could_reach_does_not_start_without_an_identity() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("config.toml"), "").expect("the configuration is written");
    let args = ["server", "--data", "data", "--listen", "0.0.0.0:0"];
    let (code, _, error) = told(rota(dir.path()).args(args).output().expect("rota runs"));
    assert_eq!(code, Some(125));
    assert!(error.contains("rota cluster init --data data"), "{error}");
    let init = ["cluster", "init", "--data", "data"];
    assert_eq!(told(rota(dir.path()).args(init).output().expect("rota runs")).0, Some(0));
    let (code, _, error) = told(rota(dir.path()).args(init).output().expect("rota runs"));
    assert_eq!(code, Some(2));
    assert!(error.contains("rota cluster admin-token"), "{error}");
    let another = ["cluster", "admin-token", "--data", "data", "-q"];
    let (code, out, _) = told(rota(dir.path()).args(another).output().expect("rota runs"));
    assert_eq!((code, out.starts_with("rota_")), (Some(0), true));
}
