//! What operators do with a secured cluster: replace a server, back up, restore.

use serde_json::Value;

use crate::cluster::Cluster;
use crate::harness::told;

#[test]
fn a_dead_server_is_replaced_by_the_command_that_is_printed_and_does_not_come_back() {
    let mut cluster = Cluster::started();
    if cluster.leader() == 3 {
        cluster.ok(&["cluster", "transfer", "1"]);
    }
    let (code, _, error) = cluster.run(&["cluster", "replace", "3", "--yes"]);
    assert_eq!(code, Some(3), "{error}");
    assert!(error.contains("healthy") && error.contains("stop it first"), "{error}");
    let (code, _, error) = cluster.run(&["cluster", "replace", "9", "--yes"]);
    assert_eq!(code, Some(4), "{error}");
    cluster.kill(3);
    let dead = |cluster: &Cluster| {
        let status = cluster.json(&["cluster", "status"]);
        status["servers"][2]["healthy"] == false
    };
    cluster.until("the dead server", dead);
    let made = cluster.json(&["cluster", "replace", "3", "--yes"]);
    assert_eq!(made["removed"], 3, "{made}");
    let command = made["command"].as_str().expect("a text");
    let arguments: Vec<&str> = command.split(' ').collect();
    let flag = |name: &str| arguments[arguments.iter().position(|one| *one == name).unwrap() + 1];
    let (join, token) = (flag("--join").to_owned(), flag("--token").to_owned());
    cluster.start(4, &["--join", &join, "--token", &token]);
    cluster.until("the server in its place", |cluster| cluster.role(4) == "voter");
    // The old one learns that it is not wanted any more, and says what to do.
    for _ in 0..2 {
        let (code, _, error) = told(cluster.server(3, &[]).output().expect("rota runs"));
        assert_eq!(code, Some(10), "{error}");
        assert!(error.contains("server 3 was removed"), "{error}");
        assert!(error.contains("rota cluster add"), "{error}");
    }
}

#[test]
fn a_backup_is_for_administrators_is_noted_and_makes_another_cluster() {
    let cluster = Cluster::started();
    cluster.ok(&["queue", "create", "night", "--weight", "7"]);
    let operator = cluster.ok(&["token", "create", "night", "--role", "operator", "-q"]);
    let mut command = crate::harness::rota(&cluster.dir);
    command.env("ROTA_SERVER", cluster.urls()).env("ROTA_TOKEN", &operator);
    command.env("ROTA_CA", "s1/credentials/ca.pem").args(["cluster", "backup", "stolen.rota"]);
    let (code, _, error) = told(command.output().expect("rota runs"));
    assert_eq!(code, Some(5), "{error}");
    assert!(!cluster.dir.join("stolen.rota").exists());
    // At any server; the file is not written over.
    let leader = cluster.leader();
    let made = cluster.at(&cluster.url(leader % 3 + 1), &["cluster", "backup", "a.rota", "-q"]);
    assert_eq!((made.0, made.1.as_str()), (Some(0), "a.rota"), "{}", made.2);
    assert_eq!(cluster.run(&["cluster", "backup", "a.rota"]).0, Some(2));
    let audit = cluster.ok(&["cluster", "audit", "-o", "jsonl"]);
    assert!(audit.contains("POST /v1/cluster/backup"), "{audit}");
    let there = cluster.json(&["cluster", "backup", "--verify", "a.rota"]);
    assert_eq!(there["version"], env!("CARGO_PKG_VERSION"), "{there}");
    let made = cluster.json(&["cluster", "restore", "a.rota", "--data", "s9"]);
    assert_ne!(made["new_cluster"], there["cluster"], "{made}");
    // Without an identity it would let everybody in: tokens were asked for before.
    let server = |more: &[&str]| {
        let mut server = crate::harness::rota(&cluster.dir);
        server.args(["server", "--data", "s9", "--listen", "127.0.0.1:0", "-q"]).args(more);
        server
    };
    let (code, _, error) = told(server(&[]).output().expect("rota runs"));
    assert_ne!(code, Some(0), "{error}");
    let init = ["cluster", "init", "--data", "s9", "-q"];
    let (code, _, error) =
        told(crate::harness::rota(&cluster.dir).args(init).output().expect("rota runs"));
    assert_eq!(code, Some(0), "{error}");
    let running = crate::harness::Daemon::start(server(&[]));
    // The tokens of people are the same, and so is everything else.
    for token in [&operator, &cluster.admin] {
        let mut command = crate::harness::rota(&cluster.dir);
        command.env("ROTA_SERVER", &running.first).env("ROTA_TOKEN", token);
        command.env("ROTA_CA", "s9/credentials/ca.pem");
        let out = command.args(["queue", "show", "night", "-o", "json"]).output();
        let (code, out, error) = told(out.expect("rota runs"));
        assert_eq!(code, Some(0), "{error}");
        let queue: Value = serde_json::from_str(&out).expect("the output is JSON");
        assert_eq!(queue["weight"], 7, "{queue}");
    }
}
