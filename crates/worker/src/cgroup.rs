//! Limits by cgroups, version 2 or 1, as far as the system permits.
//!
//! Only an attempt that asks for memory gets cgroups of its own: they cost more than a short program. A process is moved into them
//! right after it was started; what it forked before that is found by its mark and killed, but not limited.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rota_types::AttemptId;
use rustix::process::{Pid, Signal, kill_process};

/// Processes that one attempt may have.
const PROCESSES_MAX: u64 = 32_768;

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
        }
    }

    /// Finds out what this process may use. Leaves a directory behind until it is dropped, so that a worker does not ask before it
    /// has to.
    pub(crate) fn detect(worker: &str) -> Self {
        let mut bases = Vec::new();
        let mut reason = "no cgroup is mounted".to_owned();
        for place in own_places() {
            match Base::create(&place, worker) {
                Ok(base) => bases.push(base),
                Err(error) => reason = format!("{}: {error}", place.dir.display()),
            }
        }
        let limited = bases.iter().any(|base| base.controllers.contains(&"memory"));
        if bases.iter().any(|base| base.controllers.is_empty() && base.unified) && !limited {
            reason = "the memory controller is not delegated to this worker".into();
        }
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
    fn create(place: &Place, worker: &str) -> io::Result<Self> {
        let dir = base_dir(place, worker);
        match fs::create_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => sweep(&dir),
            other => other?,
        }
        let controllers = if place.unified {
            CONTROLLERS.into_iter().filter(|name| delegate(&place.dir, &dir, name)).collect()
        } else {
            place.controllers.clone()
        };
        Ok(Self { dir, unified: place.unified, controllers })
    }
}

/// Passes a controller of the unified hierarchy on to the children of `dir`.
fn delegate(parent: &Path, dir: &Path, controller: &str) -> bool {
    [parent, dir].into_iter().all(|dir| {
        let file = dir.join("cgroup.subtree_control");
        drop(fs::write(&file, format!("+{controller}")));
        let enabled = fs::read_to_string(&file).unwrap_or_default();
        enabled.split_ascii_whitespace().any(|name| name == controller)
    })
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

impl AttemptCgroup {
    /// Moves a process in.
    pub(crate) fn add(&self, pid: u32) -> io::Result<()> {
        self.dirs.iter().try_for_each(|dir| fs::write(dir.join("cgroup.procs"), pid.to_string()))
    }

    /// Kills everything inside, until nothing is left.
    pub(crate) fn kill(&self) {
        self.dirs.iter().for_each(|dir| kill_all(dir));
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
        for dir in &self.dirs {
            if fs::remove_dir(dir).is_err() {
                kill_all(dir);
                drop(fs::remove_dir(dir));
            }
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

/// Where this process is in one hierarchy.
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
            let dir = Path::new(point).join(below.trim_start_matches('/'));
            let controllers = if unified { Vec::new() } else { controllers };
            places.push(Place { dir, unified, controllers });
        }
    }
    places
}

#[cfg(test)]
mod tests {
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
    fn limits_are_written_in_the_unit_of_each_version() {
        let limits = Limits { cpu_millis: 1_500, memory_bytes: 64 << 20 };
        let all =
            [true, false].map(|unified| CONTROLLERS.map(|name| setting(name, unified, limits)));
        assert_eq!(
            all,
            [
                [("memory.max", 64 << 20), ("cpu.weight", 150), ("pids.max", 32_768)],
                [("memory.limit_in_bytes", 64 << 20), ("cpu.shares", 1_536), ("pids.max", 32_768)],
            ]
        );
    }
}
