//! Limits by cgroups, version 2 or 1, as far as the system permits.
//!
//! Only an attempt that asks for memory gets cgroups of its own: they cost more than a short program. A process is moved into them
//! right after it was started; what it forked before that is found by its mark and killed, but not limited.
//!
//! In version 2 a cgroup that holds processes can't limit its children, so the worker moves itself and its processes out of the
//! cgroup that was delegated to it into a leaf beside the attempts. It does so when the first attempt asks for memory, and only if nobody
//! else's processes are there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rota_types::AttemptId;
use rustix::process::{Pid, Signal, getpid, kill_process};

use crate::process;

/// Processes that one attempt may have.
const PROCESSES_MAX: u64 = 32_768;
/// Where the worker itself goes in a cgroup that was delegated to it.
const LEAF: &str = "rota-worker";
/// How often it looks for processes that are still to be moved there.
const MOVES_MAX: u32 = 100;

/// The cgroups of one worker.
#[derive(Debug, Default)]
pub(crate) struct Cgroups {
    bases: Vec<Base>,
    /// Why limits can't be enforced here, if they can't.
    pub(crate) missing: Option<String>,
}

/// The worker's own directory in one hierarchy.
#[derive(Debug)]
struct Base {
    dir: PathBuf,
    unified: bool,
    controllers: Vec<&'static str>,
}

/// What an attempt may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) cpu_millis: u64,
    pub(crate) memory_bytes: u64,
}

/// The cgroups of one attempt. Removed when dropped.
#[derive(Debug)]
pub(crate) struct AttemptCgroup {
    dirs: Vec<PathBuf>,
}

/// What an attempt has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) memory_peak_bytes: u64,
    pub(crate) killed_for_memory: bool,
}

const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];

impl Cgroups {
    /// Kills and removes what an earlier worker of the same name left.
    pub(crate) fn clean_up(worker: &str) {
        for place in own_places() {
            let dir = base_dir(&place, worker);
            if dir.exists() {
                sweep(&dir);
                drop(fs::remove_dir(dir));
            }
            drop(fs::remove_dir(place.dir.join(LEAF))); // unless somebody is in it
        }
    }

    /// Finds out what this process may use. Leaves a directory behind until it is dropped, so that a worker does not ask before it
    /// has to.
    pub(crate) fn detect(worker: &str) -> Self {
        let (mut bases, mut problems) = (Vec::new(), Vec::new());
        for place in own_places() {
            match Base::create(&place, worker, &CONTROLLERS, getpid()) {
                Ok((base, problem)) => {
                    bases.push(base);
                    problems.extend(problem);
                }
                Err(error) => problems.push(format!("{}: {error}", place.dir.display())),
            }
        }
        let limited = bases.iter().any(|base| base.controllers.contains(&"memory"));
        let reason = match problems.pop() {
            Some(problem) => problem,
            None if bases.is_empty() => "no cgroup is mounted".into(),
            None => "the memory controller is not delegated to this worker".into(),
        };
        Self { bases, missing: (!limited).then_some(reason) }
    }

    /// Makes cgroups for an attempt.
    pub(crate) fn create(&self, id: AttemptId, limits: Limits) -> io::Result<AttemptCgroup> {
        let name = format!("{}.{}.{}", id.task.job, id.task.index, id.number);
        let mut cgroup = AttemptCgroup { dirs: Vec::new() };
        for base in &self.bases {
            let dir = base.dir.join(&name);
            fs::create_dir(&dir)?;
            cgroup.dirs.push(dir.clone());
            for controller in &base.controllers {
                let (file, value) = setting(controller, base.unified, limits);
                fs::write(dir.join(file), value.to_string())?;
            }
            if base.controllers.contains(&"memory") {
                for (file, value) in refinements(base.unified, limits) {
                    drop(fs::write(dir.join(file), value.to_string()));
                }
            }
        }
        Ok(cgroup)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for base in &self.bases {
            drop(fs::remove_dir(&base.dir));
        }
    }
}

impl Base {
    /// Makes the worker's directory for `worker`, which is the process `me`. Says what keeps it from limiting what it wants to.
    fn create(
        place: &Place,
        worker: &str,
        wanted: &[&'static str],
        me: Pid,
    ) -> io::Result<(Self, Option<String>)> {
        let dir = base_dir(place, worker);
        match fs::create_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => sweep(&dir),
            other => other?,
        }
        let (controllers, problem) = if place.unified {
            delegate(&place.dir, &dir, wanted, me)
        } else {
            (place.controllers.clone(), None)
        };
        Ok((Self { dir, unified: place.unified, controllers }, problem))
    }
}

/// Passes controllers of the unified hierarchy on from `home` to `dir` in it, and on to the children of that. Returns which, and
/// why not the others that `home` has.
fn delegate(
    home: &Path,
    dir: &Path,
    wanted: &[&'static str],
    me: Pid,
) -> (Vec<&'static str>, Option<String>) {
    let offered = fs::read_to_string(home.join("cgroup.controllers")).unwrap_or_default();
    let offered: Vec<&str> = offered.split_ascii_whitespace().collect();
    let (mut passed, mut problem) = (Vec::new(), None);
    for name in wanted.iter().filter(|name| offered.contains(name)) {
        let enabled = match enable(home, name) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                vacate(home, me).and_then(|()| enable(home, name))
            }
            other => other,
        };
        match enabled.and_then(|()| enable(dir, name)) {
            Ok(()) => passed.push(*name),
            Err(error) => problem = Some(format!("{}: {error}", home.display())),
        }
    }
    (passed, problem)
}

fn enable(dir: &Path, controller: &str) -> io::Result<()> {
    fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"))
}

/// Moves a worker and all that it has started out of `home` into a leaf of it.
fn vacate(home: &Path, me: Pid) -> io::Result<()> {
    let leaf = home.join(LEAF);
    match fs::create_dir(&leaf) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for _ in 0..MOVES_MAX {
        let inside = fs::read_to_string(home.join("cgroup.procs"))?;
        let pids: Vec<i32> = inside.lines().filter_map(|pid| pid.parse().ok()).collect();
        if pids.is_empty() {
            return Ok(());
        }
        if !pids.iter().all(|pid| descends(*pid, me)) {
            let why = "this cgroup holds other processes besides the worker's: give the worker one of its own";
            return Err(io::Error::other(why));
        }
        for pid in pids {
            drop(fs::write(leaf.join("cgroup.procs"), pid.to_string())); // it may be gone
        }
    }
    Err(io::Error::other("the worker's processes can't be moved out of this cgroup"))
}

/// Whether a process is `ancestor` or was started by it, directly or not. One that is gone is nobody else's.
fn descends(mut pid: i32, ancestor: Pid) -> bool {
    while pid > 0 && pid != ancestor.as_raw_nonzero().get() {
        match process::stat(pid) {
            Some(stat) => pid = stat.parent,
            None => return true,
        }
    }
    pid > 0
}

/// The file that holds a limit, and what to write.
fn setting(controller: &str, unified: bool, limits: Limits) -> (&'static str, u64) {
    let Limits { cpu_millis, memory_bytes } = limits;
    match (controller, unified) {
        ("memory", true) => ("memory.max", memory_bytes),
        ("memory", false) => ("memory.limit_in_bytes", memory_bytes),
        // A whole cpu weighs as much as an ordinary process: 100, or 1024 shares.
        ("cpu", true) => ("cpu.weight", (cpu_millis / 10).clamp(1, 10_000)),
        ("cpu", false) => ("cpu.shares", (cpu_millis * 1_024 / 1_000).clamp(2, 262_144)),
        _ => ("pids.max", PROCESSES_MAX),
    }
}

/// What makes the limit of memory one of the whole attempt, and one that swapping does not get around. Not every system has them.
fn refinements(unified: bool, limits: Limits) -> Vec<(&'static str, u64)> {
    match unified {
        true => vec![("memory.oom.group", 1), ("memory.swap.max", 0)],
        false => vec![("memory.memsw.limit_in_bytes", limits.memory_bytes)],
    }
}

impl AttemptCgroup {
    /// Moves a process in.
    pub(crate) fn add(&self, pid: u32) -> io::Result<()> {
        self.dirs.iter().try_for_each(|dir| fs::write(dir.join("cgroup.procs"), pid.to_string()))
    }

    /// Kills everything inside, until nothing is left. Blocking: for a thread that may wait.
    pub(crate) fn killer(&self) -> impl FnOnce() + Send + use<> {
        let dirs = self.dirs.clone();
        move || dirs.iter().for_each(|dir| kill_all(dir))
    }

    /// What was used so far.
    pub(crate) fn usage(&self) -> Usage {
        let number = |dir: &Path, file: &str| -> Option<u64> {
            fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()
        };
        let counter = |dir: &Path, file: &str| -> Option<u64> {
            let text = fs::read_to_string(dir.join(file)).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
            line.trim().parse().ok()
        };
        let mut usage = Usage::default();
        for dir in &self.dirs {
            let peak = number(dir, "memory.peak").or(number(dir, "memory.max_usage_in_bytes"));
            let kills = counter(dir, "memory.events").or(counter(dir, "memory.oom_control"));
            usage.memory_peak_bytes = usage.memory_peak_bytes.max(peak.unwrap_or(0));
            usage.killed_for_memory |= kills.unwrap_or(0) > 0;
        }
        usage
    }
}

impl Drop for AttemptCgroup {
    fn drop(&mut self) {
        let mut left = std::mem::take(&mut self.dirs);
        left.retain(|dir| fs::remove_dir(dir).is_err());
        if left.is_empty() {
            return;
        }
        // What can't be killed at once must not keep others from running.
        let remove = move || {
            for dir in left {
                kill_all(&dir);
                drop(fs::remove_dir(dir));
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// Kills and removes the attempts below a worker's directory.
fn sweep(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            kill_all(&entry.path());
            drop(fs::remove_dir(entry.path()));
        }
    }
}

/// Kills everything in a cgroup: at once where the kernel can, else round by round.
fn kill_all(dir: &Path) {
    drop(fs::write(dir.join("cgroup.kill"), "1"));
    for _ in 0..100 {
        let inside = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        let mut pids = inside.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok());
        let mut any = false;
        for pid in pids.by_ref().filter_map(Pid::from_raw) {
            any = true;
            let _ = kill_process(pid, Signal::KILL);
        }
        if !any {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Where this process is in one hierarchy; above the leaf, if it has moved to one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    dir: PathBuf,
    unified: bool,
    controllers: Vec<&'static str>,
}

fn base_dir(place: &Place, worker: &str) -> PathBuf {
    place.dir.join(format!("rota-{worker}"))
}

fn own_places() -> Vec<Place> {
    let read = |file| fs::read_to_string(file).unwrap_or_default();
    places(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"))
}

/// Finds this process's own directory in every hierarchy that has a controller of interest.
fn places(memberships: &str, mounts: &str) -> Vec<Place> {
    let mut places = Vec::new();
    for mount in mounts.lines() {
        let Some((before, after)) = mount.split_once(" - ") else { continue };
        let mut fields = before.split(' ').skip(3);
        let (Some(root), Some(point)) = (fields.next(), fields.next()) else { continue };
        let mut fields = after.split(' ');
        let kind = fields.next().unwrap_or_default();
        let options: Vec<&str> = fields.nth(1).unwrap_or_default().split(',').collect();
        let controllers: Vec<_> =
            CONTROLLERS.into_iter().filter(|name| options.contains(name)).collect();
        let unified = kind == "cgroup2";
        if !unified && (kind != "cgroup" || controllers.is_empty()) {
            continue;
        }
        let member = memberships.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (names, path) = rest.split_once(':')?;
            let mine = match controllers.first() {
                _ if unified => names.is_empty(),
                Some(first) => names.split(',').any(|name| name == *first),
                None => false,
            };
            mine.then_some(path)
        });
        if let Some(path) = member {
            let below = path.strip_prefix(root.trim_end_matches('/')).unwrap_or_default();
            let own = Path::new(point).join(below.trim_start_matches('/'));
            let dir = match own.parent() {
                Some(parent) if unified && own.ends_with(LEAF) => parent.to_path_buf(),
                _ => own,
            };
            let controllers = if unified { Vec::new() } else { controllers };
            places.push(Place { dir, unified, controllers });
        }
    }
    places
}

#[cfg(test)]
#[path = "cgroup_tests.rs"]
mod tests;
