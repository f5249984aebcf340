//! Backups of a running server, what is made of them, and what is made of one that is left of a cluster.

#![expect(clippy::unwrap_used, reason = "in tests, a failure is a panic")]

mod common;

use std::path::{Path, PathBuf};

use common::{World, noop_job, refs};
use reqwest::Method;
use rota_server::{Restored, recover, restore, verify_backup};
use rota_wire::worker::AttemptRef;
use serde_json::json;

/// A server with a job in each state, and a worker that runs one task.
async fn busy() -> (World, common::FakeWorker, AttemptRef) {
    let world = World::with(|config| config.snapshot_log_bytes = 1_000).await;
    let put = world.request(Method::PUT, "/v1/queues/slow").json(&json!({"weight": 3}));
    assert!(put.send().await.unwrap().status().is_success());
    for number in 0..5 {
        world.submit(&noop_job(&format!("over-{number}"), 1)).await;
    }
    let mut worker = world.worker("w", 7).await;
    let starts = worker.starts(5).await;
    worker.succeed(&refs(&starts)).await;
    worker.settled(5).await;
    world.submit(&noop_job("runs", 1)).await;
    let runs = refs(&worker.starts(1).await)[0];
    let waits = json!({"job": {"name": "waits"}, "task": [{"noop": true, "cpus": 64}]});
    world.submit(&waits).await;
    (world, worker, runs)
}

async fn back_up(world: &World, file: &Path) {
    let response = world.request(Method::POST, "/v1/cluster/backup").send().await.unwrap();
    assert_eq!(response.status(), 200);
    std::fs::write(file, response.bytes().await.unwrap()).unwrap();
}

/// A server on this directory.
async fn on(directory: PathBuf) -> World {
    World::with(move |config| config.data_dir.clone_from(&directory)).await
}

async fn names(world: &World, state: &str) -> Vec<String> {
    let (_, page) = world.get(&format!("/v1/jobs?limit=100&state={state}")).await;
    let items = page["items"].as_array().unwrap().iter();
    let mut names: Vec<String> =
        items.map(|job| job["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// Everything is there, and what ran runs again under a number that the old server never gave out.
async fn check(directory: PathBuf, old: AttemptRef) {
    let world = on(directory).await;
    let over: Vec<String> = (0..5).map(|number| format!("over-{number}")).collect();
    assert_eq!(names(&world, "succeeded").await, over);
    assert_eq!(names(&world, "queued").await, ["waits"]);
    let task = format!("/v1/tasks/{}.{}", old.job, old.index);
    assert_eq!(world.get(&task).await.1["state"], "queued");
    let (_, queue) = world.get("/v1/queues/slow").await;
    assert_eq!(queue["weight"], 3, "{queue}");
    // The worker of the old server comes with what it runs.
    let mut worker = world.worker("w", 7).await;
    worker.succeed(&[old]).await;
    let starts = worker.starts(1).await;
    let again = starts[0].attempt.unwrap();
    assert_eq!((again.job, again.index), (old.job, old.index));
    assert!(again.number > 1_000_000, "{again:?}");
    assert_eq!(world.get(&task).await.1["state"], "running", "a report of the old server counted");
    worker.succeed(&[again]).await;
    worker.settled(1).await;
    world
        .until("/v1/jobs?state=succeeded", |page| page["items"].as_array().unwrap().len() == 6)
        .await;
    let next = world.submit(&noop_job("new", 1)).await;
    assert!(next > 1_000_000, "{next} may have been given out by the old server");
    let (_, audit) = world.get("/v1/audit").await;
    let first = audit["items"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(first["who"], "operator", "{audit}");
    assert!(first["action"].as_str().unwrap().starts_with("cluster re"), "{first}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_running_server_makes_another_one() {
    let (mut world, _worker, runs) = busy().await;
    let file = world.dir.path().join("backup");
    back_up(&world, &file).await;
    world.submit(&noop_job("too-late", 1)).await;
    let summary = verify_backup(&file).unwrap();
    assert_eq!(summary.about.version, env!("CARGO_PKG_VERSION"));
    let target = world.dir.path().join("restored");
    let Restored { from, cluster, index } = restore(&file, &target).unwrap();
    assert_eq!((&from, index), (&summary, summary.last.next()));
    assert_ne!(cluster, summary.about.identity.cluster);
    world.shut_down().await;
    check(target, runs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_or_cut_off_backup_is_refused_and_leaves_nothing() {
    let (mut world, _worker, _) = busy().await;
    let file = world.dir.path().join("backup");
    back_up(&world, &file).await;
    world.shut_down().await;
    let whole = std::fs::read(&file).unwrap();
    let target = world.dir.path().join("restored");
    let refused = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        let why = verify_backup(&file).unwrap_err().to_string();
        assert_eq!(restore(&file, &target).unwrap_err().to_string(), why);
        assert!(!target.exists() && !target.with_extension("partial").exists());
        why
    };
    for cut in [0, 7, 8, 11, whole.len() / 2, whole.len() - 1] {
        let why = refused(&whole[..cut]);
        assert!(why.contains("cut off"), "{cut}: {why}");
    }
    for at in (8..whole.len()).step_by(whole.len() / 50) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        let why = refused(&damaged);
        assert!(why.contains("damaged at byte"), "{at}: {why}");
    }
    let mut longer = whole.clone();
    longer.push(0);
    assert!(refused(&longer).contains("not whole"));
    assert!(refused(b"something else entirely").contains("not a backup of rota"));
    std::fs::write(&file, &whole).unwrap();
    std::fs::create_dir(&target).unwrap();
    std::fs::write(target.join("mine"), "").unwrap();
    let why = restore(&file, &target).unwrap_err().to_string();
    assert!(why.contains("not empty"), "{why}");
    std::fs::remove_file(target.join("mine")).unwrap();
    assert!(restore(&file, &target).is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_cluster_makes_another_one() {
    let (mut world, _worker, runs) = busy().await;
    let old = world.dir.path().join("data");
    let target = world.dir.path().join("recovered");
    let why = recover(&old, &target).unwrap_err().to_string();
    assert!(why.contains("in use"), "{why}");
    world.shut_down().await;
    let why = recover(&target, &world.dir.path().join("x")).unwrap_err().to_string();
    assert!(why.contains("holds no data") && !target.exists(), "{why}");
    let Restored { from, cluster, .. } = recover(&old, &target).unwrap();
    assert_ne!(cluster, from.about.identity.cluster);
    check(target, runs).await;
}
