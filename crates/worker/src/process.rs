//! Finding and ending every process of an attempt, however it hides.
//!
//! Each attempt is a process group of its own. A process that leaves the group still has the attempt's mark in its environment, or
//! is still a descendant of the first process; the worker is a subreaper, so that an orphan becomes its child. Only a process that
//! leaves the group, drops its environment *and* loses its parent gets away.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process_group, pidfd_open, pidfd_send_signal,
    waitpid,
};

use crate::open_files;

/// The variable that marks every process of a worker: `<worker>/<attempt>`.
pub(crate) const MARK: &str = "ROTA_MARK";

/// Held for reading while a child is being born.
static BIRTHS: RwLock<()> = RwLock::new(());
/// Children that somebody in this process will wait for. Twice if an id is another child's already before the one that had it first
/// is [forgotten](forget).
static CHILDREN: Mutex<BTreeMap<u32, usize>> = Mutex::new(BTreeMap::new());

/// Starts a child that [`reap_orphans`] leaves alone.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    let _birth = BIRTHS.read().unwrap_or_else(PoisonError::into_inner);
    let child = command.spawn()?;
    expect(child.id());
    open_files::give_back(child.id());
    Ok(child)
}

fn expect(pid: u32) {
    *children().entry(pid).or_default() += 1;
}

/// The child was waited for.
pub(crate) fn forget(pid: u32) {
    let mut children = children();
    let expected = children.remove(&pid).unwrap_or(0);
    if expected > 1 {
        children.insert(pid, expected - 1);
    }
}

fn children() -> MutexGuard<'static, BTreeMap<u32, usize>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What `/proc/<pid>/stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) zombie: bool,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    /// Clock ticks of this process and of the children that it has waited for.
    pub(crate) cpu_ticks: u64,
    /// Tells two processes with the same id apart.
    pub(crate) born: u64,
}

/// Reads what the kernel says about a process; `None` if it is gone.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    let mut file = fs::File::open(format!("/proc/{pid}/stat")).ok()?;
    let mut buffer = [0; 1_024]; // the kernel answers in one piece, and no line is that long
    let length = file.read(&mut buffer).ok()?;
    parse_stat(&String::from_utf8_lossy(buffer.get(..length)?))
}

/// The command's name is in parentheses and may hold anything, also parentheses.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |place: usize| fields.get(place).and_then(|field| field.parse::<u64>().ok());
    let id = |place: usize| fields.get(place).and_then(|field| field.parse::<i32>().ok());
    Some(Stat {
        zombie: matches!(fields.first(), Some(&("Z" | "X"))),
        parent: id(1)?,
        group: id(2)?,
        cpu_ticks: number(11)? + number(12)? + number(13)? + number(14)?,
        born: number(19)?,
    })
}

/// Every process of the machine.
fn all() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The threads of a process.
fn threads(pid: i32) -> impl Iterator<Item = i32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Whether nothing of a process runs any more. One whose first thread has ended looks like a zombie as a whole while others go on.
fn is_over(pid: i32, seen: &Stat) -> bool {
    seen.zombie && threads(pid).all(|thread| stat(thread).is_none_or(|thread| thread.zombie))
}

/// A process's environment. Once its first thread has ended, only the others still have it.
fn environment(pid: i32, seen: &Stat) -> Vec<u8> {
    if !seen.zombie {
        return fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    }
    let read = |thread| fs::read(format!("/proc/{pid}/task/{thread}/environ")).ok();
    threads(pid).filter_map(read).find(|found| !found.is_empty()).unwrap_or_default()
}

/// Whether a process's environment holds `ROTA_MARK=<mark>`; with `exact` nothing may follow.
fn is_marked(pid: i32, seen: &Stat, mark: &str, exact: bool) -> bool {
    let environment = environment(pid, seen);
    let wanted = format!("{MARK}={mark}");
    environment.split(|byte| *byte == 0).any(|variable| {
        if exact { variable == wanted.as_bytes() } else { variable.starts_with(wanted.as_bytes()) }
    })
}

/// The processes of an attempt: its group, the descendants of its first process and whatever carries its mark. What only waits to
/// be reaped is left out.
pub(crate) fn members(root: i32, mark: &str) -> Vec<(i32, Stat)> {
    let mut processes = others();
    let mut family = BTreeSet::from([root]);
    loop {
        let before = family.len();
        let born = processes.iter().filter(|(_, stat)| family.contains(&stat.parent));
        let born: Vec<i32> = born.map(|(pid, _)| *pid).collect();
        family.extend(born);
        if family.len() == before {
            break;
        }
    }
    processes.retain(|(pid, stat)| {
        family.contains(pid) || stat.group == root || is_marked(*pid, stat, mark, true)
    });
    processes
}

/// Signals the group of an attempt, at once. Only while its first process has not been waited for, so that the number can't have
/// become somebody else's.
pub(crate) fn signal_group(root: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(root) {
        let _ = kill_process_group(pid, signal);
    }
}

/// Looks for all processes of an attempt, and signals those that are not in its group. Returns how many there are in all.
pub(crate) fn signal_others(root: i32, mark: &str, signal: Signal) -> usize {
    let members = members(root, mark);
    for (pid, seen) in members.iter().filter(|(_, seen)| seen.group != root) {
        signal_one(*pid, seen, signal);
    }
    members.len()
}

/// Kills all processes of an attempt that are there now. Returns how many there were. The same as for the group holds.
pub(crate) fn kill(root: i32, mark: &str) -> usize {
    signal_group(root, Signal::KILL);
    signal_others(root, mark, Signal::KILL)
}

/// Signals one process, unless its id has come to mean another one.
fn signal_one(pid: i32, seen: &Stat, signal: Signal) {
    let Some(handle) = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
    else {
        return;
    };
    if stat(pid).is_some_and(|now| now.born == seen.born) {
        let _ = pidfd_send_signal(handle, signal);
    }
}

/// Every process of the machine that is not over, but this one and the first.
fn others() -> Vec<(i32, Stat)> {
    let own = std::process::id().cast_signed();
    let pids = all().filter(|pid| *pid != own && *pid > 1);
    let seen = pids.filter_map(|pid| Some((pid, stat(pid)?)));
    seen.filter(|(pid, seen)| !is_over(*pid, seen)).collect()
}

/// Kills every process whose mark begins with `mark`, until there are none. Returns how many were killed.
pub(crate) fn kill_marked(mark: &str) -> usize {
    let mut killed = BTreeSet::new();
    for _ in 0..50 {
        let mut found = others();
        found.retain(|(pid, seen)| is_marked(*pid, seen, mark, false));
        if found.is_empty() {
            break;
        }
        for (pid, seen) in found {
            signal_one(pid, &seen, Signal::KILL);
            killed.insert((pid, seen.born));
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    killed.len()
}

/// Waits for orphans that became children of this process, and kills those that belong to an attempt of `worker` that is over.
pub(crate) fn reap_orphans(worker: &str, is_live: impl Fn(&str) -> bool) {
    let own = std::process::id().cast_signed();
    let group = stat(own).map_or(0, |stat| stat.group);
    for pid in children_of(own) {
        let _no_births = BIRTHS.write().unwrap_or_else(PoisonError::into_inner);
        if children().contains_key(&pid.cast_unsigned()) {
            continue;
        }
        let Some(seen) = stat(pid) else { continue };
        if is_over(pid, &seen) {
            // Somebody else's child stays in this process's own group; an attempt's never does.
            if seen.group != group {
                let _ = waitpid(Pid::from_raw(pid), WaitOptions::NOHANG);
            }
        } else if attempt_of(pid, &seen, worker).is_some_and(|attempt| !is_live(&attempt)) {
            signal_one(pid, &seen, Signal::KILL);
        }
    }
}

/// The children of this process. Systems whose kernel does not list them are searched.
fn children_of(own: i32) -> Vec<i32> {
    let listed = fs::read_to_string(format!("/proc/self/task/{own}/children"));
    listed.map_or_else(
        |_| search_children(own),
        |list| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect(),
    )
}

fn search_children(own: i32) -> Vec<i32> {
    all().filter(|pid| stat(*pid).is_some_and(|stat| stat.parent == own)).collect()
}

/// The attempt whose mark a process carries, if it is one of `worker`.
fn attempt_of(pid: i32, seen: &Stat, worker: &str) -> Option<String> {
    let environment = environment(pid, seen);
    let prefix = format!("{MARK}={worker}/");
    let mut variables = environment.split(|byte| *byte == 0);
    let mark = variables.find_map(|variable| variable.strip_prefix(prefix.as_bytes()))?;
    String::from_utf8(mark.to_vec()).ok()
}

/// A shell that waits until this process is gone, however it went, and then kills everything with its mark. It costs one process
/// per worker and nothing per task.
#[derive(Debug)]
pub(crate) struct Guardian(Child);

/// `$1` is the beginning of the marks. Ends when nothing has it any more.
const GUARDIAN: &str = r#"
trap '' HUP INT QUIT TERM
while read -r _; do :; done
for pass in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  found=
  for dir in /proc/[0-9]*; do
    pid=${dir#/proc/}
    if [ "$pid" != $$ ] && grep -qF "ROTA_MARK=$1/" "$dir/environ" 2>/dev/null; then
      kill -9 "$pid" 2>/dev/null && found=1
    fi
  done
  [ -n "$found" ] || exit 0
done
"#;

impl Guardian {
    /// Starts watching over this process.
    pub(crate) fn start(worker: &str) -> io::Result<Self> {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", GUARDIAN, "rota-guardian", worker]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.current_dir("/").env_remove(MARK).process_group(0);
        spawn(&mut command).map(Self)
    }
}

impl Drop for Guardian {
    /// Nothing is left to guard: the worker has ended its attempts itself.
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
        forget(self.0.id());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;

    use super::*;

    #[test]
    fn a_guardian_whose_worker_is_gone_kills_what_carries_the_mark_and_nothing_else() {
        let marked = |mark: &str| {
            let mut command = Command::new("sleep");
            spawn(command.arg("1000").env(MARK, mark).process_group(0)).expect("sleep exists")
        };
        let mut mine = [marked("feed.1/1.0#1"), marked("feed.1/2.0#1")];
        let mut other = marked("feed.10/1.0#1");
        let mut guardian = Guardian::start("feed.1").expect("there is a shell");
        drop(guardian.0.stdin.take()); // as the system does when the worker is gone
        for child in &mut mine {
            assert!(!child.wait().expect("a child").success());
        }
        assert!(guardian.0.wait().expect("a child").success(), "it goes when nothing is left");
        assert_eq!(other.try_wait().expect("a child"), None);
        other.kill().expect("running");
        other.wait().expect("a child");
    }

    #[test]
    fn a_child_is_expected_until_it_is_forgotten_also_if_its_id_comes_back_before() {
        let pid = u32::MAX; // no process has it
        let is_expected = || children().contains_key(&pid);
        expect(pid);
        expect(pid);
        forget(pid);
        assert!(is_expected(), "the second one");
        forget(pid);
        assert!(!is_expected());
        forget(pid);
        assert!(!is_expected());
    }

    #[test]
    fn children_are_found_without_the_kernels_list() {
        let mut child = spawn(Command::new("sleep").arg("1000")).expect("sleep exists");
        let own = std::process::id().cast_signed();
        assert!(search_children(own).contains(&child.id().cast_signed()));
        child.kill().expect("running");
        child.wait().expect("a child");
        forget(child.id());
    }

    #[test]
    fn a_stat_line_is_read_whatever_the_command_is_called() {
        let fields = "S 7 8 9 0 -1 4194304 1 2 3 4 10 20 30 40 20 0 1 0 555 0";
        let expected = Stat { zombie: false, parent: 7, group: 8, cpu_ticks: 100, born: 555 };
        for name in ["sh", "a b", "x) Z 1 (y"] {
            assert_eq!(parse_stat(&format!("42 ({name}) {fields}")), Some(expected));
        }
        assert_eq!(parse_stat("42 sh S 7"), None);
        assert_eq!(parse_stat("42 (sh) S 7"), None);
    }
}
