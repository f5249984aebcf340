//! Cgroups: what is written where, in a directory that stands in for the system's and, as far as it lets a test, in the system's.

use super::*;

const V1: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
    32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
    35 31 0:32 /box /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
    36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices\n\
    41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

#[test]
fn every_hierarchy_of_interest_is_found_with_the_own_directory_in_it() {
    let memberships = "4:memory:/box/inner\n1:cpu,cpuacct:/a\n0::/u/v\n";
    let place = |dir: &str, unified, controllers: &[&'static str]| Place {
        dir: dir.into(),
        unified,
        controllers: controllers.to_vec(),
    };
    assert_eq!(
        places(memberships, V1),
        vec![
            place("/sys/fs/cgroup/cpu,cpuacct/a", false, &["cpu"]),
            place("/sys/fs/cgroup/memory/inner", false, &["memory"]),
            place("/sys/fs/cgroup/unified/u/v", true, &[]),
        ]
    );
}

#[test]
fn a_worker_that_has_moved_to_a_leaf_counts_as_being_above_it() {
    let mounts = "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    let found = |own: &str| places(&format!("0::{own}\n"), mounts).remove(0).dir;
    assert_eq!(found("/unit/rota-worker"), Path::new("/sys/fs/cgroup/unit"));
    assert_eq!(found("/rota-worker"), Path::new("/sys/fs/cgroup"));
    assert_eq!(found("/unit/a-rota-worker"), Path::new("/sys/fs/cgroup/unit/a-rota-worker"));
}

#[test]
fn limits_are_written_in_the_unit_of_each_version() {
    let limits = Limits { cpu_millis: 1_500, memory_bytes: 64 << 20 };
    let all = [true, false].map(|unified| CONTROLLERS.map(|name| setting(name, unified, limits)));
    assert_eq!(
        all,
        [
            [("memory.max", 64 << 20), ("cpu.weight", 150), ("pids.max", 32_768)],
            [("memory.limit_in_bytes", 64 << 20), ("cpu.shares", 1_536), ("pids.max", 32_768)],
        ]
    );
}

fn attempt() -> AttemptId {
    "17.3#2".parse().expect("an id")
}

fn unified(dir: &Path) -> Place {
    Place { dir: dir.to_path_buf(), unified: true, controllers: Vec::new() }
}

/// A process that does nothing until it is killed, at the latest when dropped.
struct Idle(std::process::Child);

impl Idle {
    fn start() -> Self {
        Self(std::process::Command::new("sleep").arg("600").spawn().expect("sleep starts"))
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    fn is_killed(&mut self) -> bool {
        use std::os::unix::process::ExitStatusExt;
        let status = self.0.wait().expect("a child can be waited for");
        status.signal() == Some(9)
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        let _over = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[test]
fn in_the_unified_hierarchy_everything_that_is_delegated_is_limited() {
    let home = tempfile::tempdir().expect("a directory");
    let write = |file: &str, text: &str| fs::write(home.path().join(file), text).expect("writable");
    let read = |file: &str| fs::read_to_string(home.path().join(file)).expect(file);
    write("cgroup.controllers", "cpuset cpu io memory pids\n");
    let made = Base::create(&unified(home.path()), "w", &CONTROLLERS, getpid());
    let (base, problem) = made.expect("a base");
    assert_eq!((base.controllers.clone(), problem), (CONTROLLERS.to_vec(), None));
    assert_eq!(read("rota-w/cgroup.subtree_control"), "+pids", "the last one asked for");
    let cgroups = Cgroups { bases: vec![base], missing: None };
    let limits = Limits { cpu_millis: 2_500, memory_bytes: 64 << 20 };
    let cgroup = cgroups.create(attempt(), limits).expect("a cgroup");
    let files = ["memory.max", "memory.oom.group", "memory.swap.max", "cpu.weight", "pids.max"];
    let written = files.map(|file| read(&format!("rota-w/17.3.2/{file}")));
    assert_eq!(written, ["67108864", "1", "0", "250", "32768"]);
    assert_eq!(cgroup.usage(), Usage::default());
    write("rota-w/17.3.2/memory.peak", "12345\n");
    write("rota-w/17.3.2/memory.events", "low 0\nhigh 0\nmax 7\noom 0\noom_kill 0\n");
    assert_eq!(cgroup.usage(), Usage { memory_peak_bytes: 12_345, killed_for_memory: false });
    write("rota-w/17.3.2/memory.events", "max 7\noom 1\noom_kill 1\noom_group_kill 1\n");
    assert!(cgroup.usage().killed_for_memory);
    // A kernel without cgroup.kill: process by process.
    let mut inside = Idle::start();
    cgroup.add(inside.0.id()).expect("written");
    (cgroup.killer())();
    assert!(inside.is_killed());
    assert_eq!(read("rota-w/17.3.2/cgroup.kill"), "1");
    fs::write(home.path().join("rota-w/17.3.2/cgroup.procs"), "").expect("writable");
}

#[test]
fn what_is_not_delegated_is_not_limited() {
    let home = tempfile::tempdir().expect("a directory");
    fs::write(home.path().join("cgroup.controllers"), "cpu pids\n").expect("writable");
    let made = Base::create(&unified(home.path()), "w", &CONTROLLERS, getpid());
    let (base, problem) = made.expect("a base");
    assert_eq!((base.controllers, problem), (vec!["cpu", "pids"], None));
    let gone = Base::create(&unified(&home.path().join("gone")), "w", &CONTROLLERS, getpid());
    assert_eq!(gone.expect_err("there is no such directory").kind(), io::ErrorKind::NotFound);
}

#[test]
fn only_processes_of_the_worker_are_its_own() {
    let mut child = Idle::start();
    let me = getpid().as_raw_nonzero().get();
    let its = child.pid().as_raw_nonzero().get();
    assert!(descends(me, getpid()) && descends(its, getpid()) && descends(its, child.pid()));
    assert!(!descends(me, child.pid()) && !descends(1, getpid()) && !descends(0, getpid()));
    child.0.kill().expect("it runs");
    child.0.wait().expect("a child");
    assert!(descends(its, getpid()), "gone");
}

/// A cgroup like one that a service manager delegates, with one controller, in the system's own unified hierarchy.
struct Delegated {
    unit: PathBuf,
    controller: &'static str,
    /// Where the controller was switched on for this, if it was.
    switched_on: Option<PathBuf>,
}

impl Drop for Delegated {
    fn drop(&mut self) {
        drop(fs::remove_dir(&self.unit));
        if let Some(dir) = &self.switched_on {
            drop(fs::write(dir.join("cgroup.subtree_control"), format!("-{}", self.controller)));
        }
    }
}

/// `None` where a test may not make one.
fn delegated() -> Option<Delegated> {
    let place = own_places().into_iter().find(|place| place.unified)?;
    let has = |file: &str, name: &str| {
        let text = fs::read_to_string(place.dir.join(file)).unwrap_or_default();
        text.split_ascii_whitespace().any(|it| it == name)
    };
    let known = ["memory", "cpu", "pids", "io", "hugetlb", "cpuset"];
    let controller = known.into_iter().find(|name| has("cgroup.controllers", name))?;
    let was_on = has("cgroup.subtree_control", controller);
    enable(&place.dir, controller).ok()?;
    let unit = place.dir.join(format!("rota-test-{}", getpid()));
    let made = fs::create_dir(&unit);
    let delegated = Delegated { unit, controller, switched_on: (!was_on).then_some(place.dir) };
    made.is_ok().then_some(delegated)
}

#[test]
fn a_worker_moves_out_of_a_delegated_cgroup_unless_others_are_there() {
    let Some(delegated) = delegated() else {
        eprintln!("no cgroup of the unified hierarchy can be made here: not tried");
        return;
    };
    let (unit, controller) = (delegated.unit.clone(), delegated.controller);
    let enter = |pid: Pid| fs::write(unit.join("cgroup.procs"), pid.to_string()).expect("movable");
    let place = |pid: Pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
        text.lines().find_map(|line| line.strip_prefix("0::").map(str::to_owned)).expect("unified")
    };
    let (worker, mut other) = (Idle::start(), Idle::start());
    enter(worker.pid());
    enter(other.pid());
    let create = || Base::create(&unified(&unit), "w", &[controller], worker.pid());
    let (base, problem) = create().expect("a base");
    assert_eq!(base.controllers, Vec::<&str>::new());
    let problem = problem.expect("somebody else is there");
    assert!(problem.contains("holds other processes besides the worker's"), "{problem}");
    assert!(!place(worker.pid()).ends_with(LEAF), "it stays where it is");
    other.0.kill().expect("it runs");
    other.0.wait().expect("a child");
    let (base, problem) = create().expect("a base");
    assert_eq!((base.controllers.as_slice(), problem), (&[controller][..], None));
    assert!(place(worker.pid()).ends_with(&format!("/{LEAF}")));
    // An attempt beside it, killed as a whole.
    let dir = base.dir.join("17.3.2");
    fs::create_dir(&dir).expect("a cgroup");
    let offered = fs::read_to_string(dir.join("cgroup.controllers")).expect("a cgroup");
    assert_eq!(offered.trim(), controller);
    let cgroup = AttemptCgroup { dirs: vec![dir.clone()] };
    let mut inside = Idle::start();
    cgroup.add(inside.0.id()).expect("movable");
    cgroup.killer()();
    assert!(inside.is_killed());
    drop(cgroup);
    assert!(!dir.exists());
    // The next worker finds the leaf.
    assert_eq!(create().expect("a base").0.controllers, [controller]);
    drop(worker);
    for dir in [base.dir, unit.join(LEAF)] {
        fs::remove_dir(&dir).expect("nobody is left in it");
    }
}
