//! Disks that run full.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use rota_api::{SubmitReply, Task, TaskState};
use serde_json::json;

use crate::harness::{
    Answer, Api, Arena, Chance, PATIENCE, Record, Server, free_port, one_at_a_time, until,
};

/// Room for the log, its spare segments and the default reserve.
const DISK_MIB: u64 = 640;
/// What is left when submits have to be refused and everything else still works.
const LOW_MIB: u64 = 128;

/// A small file system of its own.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it, if this process may.
    fn mount(dir: PathBuf) -> Option<Self> {
        std::fs::create_dir(&dir).expect("a directory can be made");
        let size = format!("size={DISK_MIB}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&dir).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(dir));
        }
        eprintln!(
            "SKIPPED: mounting a small file system takes rights that this process does not have"
        );
        None
    }

    fn free_bytes(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).expect("the file system can be asked");
        stat.f_bavail * stat.f_frsize
    }

    /// Fills it until at most this much is left.
    fn fill(&self, leave: u64) {
        let mut file = File::options()
            .append(true)
            .create(true)
            .open(self.filler())
            .expect("a file can be made");
        let zeros = vec![0; 64 << 10];
        while self.free_bytes() > leave {
            let length = (self.free_bytes() - leave).min(zeros.len() as u64) as usize;
            if file.write_all(&zeros[..length]).is_err() {
                return;
            }
        }
    }

    fn relieve(&self) {
        std::fs::remove_file(self.filler()).expect("the file can be removed");
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(
            unmounted.is_ok_and(|status| status.success()),
            "{} stays mounted",
            self.0.display()
        );
    }
}

fn submit(api: Api, arena: &Arena, label: &str, seconds: u32) -> Answer {
    let script = arena.ledger.script(label, &format!("sleep {seconds}"), "0");
    let body = json!({"task": [{"command": script, "cpus": 0.1}]});
    api.json("POST", "/v1/jobs", &body).expect("the server answers")
}

fn accepted(answer: &Answer) -> u64 {
    answer.expect::<SubmitReply>(201).jobs[0].id
}

fn server_on(disk: &SmallDisk, log: &Path, chance: &mut Chance) -> Server {
    let mut server = Server::new(&disk.0.join("data"), log, free_port(chance), &[]);
    server.start();
    server
}

#[test]
fn a_full_disk_refuses_submits_lets_work_finish_and_recovers_with_its_space() {
    let _turn = one_at_a_time();
    let mut chance = Chance::for_test("disk");
    let arena = Arena::new();
    let Some(disk) = SmallDisk::mount(arena.path("disk")) else { return };
    let mut server = server_on(&disk, &arena.path("server.log"), &mut chance);
    let api = server.api();
    let mut worker = arena.worker("worker", &server, &["--cpus", "4"]);
    worker.start(api);
    let running = accepted(&submit(api, &arena, "running", 4));
    until("a running task", PATIENCE, || (arena.ledger.running() == 1).then_some(()));
    disk.fill(LOW_MIB << 20);
    let refused = until("a refused submit", PATIENCE, || {
        let answer = submit(api, &arena, "early", 0);
        (answer.status != 201).then_some(answer)
    });
    let problem: rota_api::Problem = refused.expect(507);
    assert!(!problem.code.is_empty() && !problem.detail.is_empty(), "{problem:?}");
    let task = format!("/v1/tasks/{running}.0");
    until("the end of the task that ran", PATIENCE, || {
        (api.get::<Task>(&task).state == TaskState::Succeeded).then_some(())
    });
    assert_eq!(submit(api, &arena, "refused", 0).status, 507);
    let paused =
        api.json("POST", "/v1/queues/default/pause", &json!({})).expect("the server answers");
    let resumed =
        api.json("POST", "/v1/queues/default/resume", &json!({})).expect("the server answers");
    assert_eq!((paused.status, resumed.status), (200, 200), "settings can be changed meanwhile");
    disk.relieve();
    let late = until("an accepted submit", PATIENCE, || {
        let answer = submit(api, &arena, "late", 0);
        (answer.status != 507).then(|| accepted(&answer))
    });
    let record = Record::when_over(api, PATIENCE);
    assert_eq!(record.jobs[&late].1[0].state, TaskState::Succeeded);
    assert_eq!(record.jobs[&running].1[0].attempt, 1);
    assert!(
        arena.ledger.marks().iter().all(|mark| mark.label != "refused"),
        "what was refused does not run"
    );
    assert!(server.process().exited().is_none());
}

#[test]
fn a_disk_without_a_single_free_byte_costs_nothing_that_was_acknowledged() {
    let _turn = one_at_a_time();
    let mut chance = Chance::for_test("disk");
    let arena = Arena::new();
    let Some(disk) = SmallDisk::mount(arena.path("disk")) else { return };
    let mut server = server_on(&disk, &arena.path("server.log"), &mut chance);
    let api = server.api();
    let mut worker = arena.worker("worker", &server, &["--cpus", "4"]);
    worker.start(api);
    let jobs: Vec<u64> = (0..8).map(|_| accepted(&submit(api, &arena, "full", 2))).collect();
    until("eight running tasks", PATIENCE, || (arena.ledger.running() == 8).then_some(()));
    disk.fill(0);
    until("the tasks' ends", PATIENCE, || (arena.ledger.running() == 0).then_some(()));
    // The server may go on (its log has room of its own) or end (it could not record something): never forget, never lie.
    std::thread::sleep(std::time::Duration::from_secs(2));
    if let Some(status) = server.process().exited() {
        assert!(!status.success(), "{status}");
        let printed = server.process().printed();
        assert!(printed.to_lowercase().contains("space"), "it has to say why it ended:\n{printed}");
        disk.relieve();
    } else {
        server.kill();
        disk.relieve();
    }
    server.start();
    let record = Record::when_over(api, PATIENCE);
    assert_eq!(record.jobs.keys().copied().collect::<Vec<_>>(), jobs);
    for task in record.tasks() {
        assert_eq!((task.state, task.attempt), (TaskState::Succeeded, 1), "{task:?}");
    }
    let once = jobs.iter().map(|job| ((format!("{job}.0"), 1), [1, 1]));
    assert_eq!(arena.ledger.counts(), once.collect());
}
