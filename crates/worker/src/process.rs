//! Finding and ending every process of an attempt, however it hides.
//!
//! Each attempt is a process group of its own. A process that leaves the group still has the attempt's mark in its environment, or
//! is still a descendant of the first process; the worker is a subreaper, so that an orphan becomes its child. Only a process that
//! leaves the group, drops its environment *and* loses its parent gets away.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process_group, pidfd_open, pidfd_send_signal,
    waitpid,
};

/// The variable that marks every process of a worker: `<worker>/<attempt>`.
pub(crate) const MARK: &str = "ROTA_MARK";

/// Children that somebody in this process will wait for. Held for reading while one is being born.
static BIRTHS: RwLock<()> = RwLock::new(());
static CHILDREN: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Starts a child that [`reap_orphans`] leaves alone.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    let _birth = BIRTHS.read().unwrap_or_else(PoisonError::into_inner);
    let child = command.spawn()?;
    children().insert(child.id());
    Ok(child)
}

/// The child was waited for.
pub(crate) fn forget(pid: u32) {
    children().remove(&pid);
}

fn children() -> MutexGuard<'static, BTreeSet<u32>> {
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

/// Whether a process's environment holds `ROTA_MARK=<mark>`; with `exact` nothing may follow.
fn is_marked(pid: i32, mark: &str, exact: bool) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { return false };
    let wanted = format!("{MARK}={mark}");
    environment.split(|byte| *byte == 0).any(|variable| {
        if exact { variable == wanted.as_bytes() } else { variable.starts_with(wanted.as_bytes()) }
    })
}

/// The processes of an attempt: its group, the descendants of its first process and whatever carries its mark. Zombies are left
/// out.
pub(crate) fn members(root: i32, mark: &str) -> Vec<(i32, Stat)> {
    let mut processes: Vec<(i32, Stat)> =
        all().filter_map(|pid| Some((pid, stat(pid)?))).filter(|(_, stat)| !stat.zombie).collect();
    let own = std::process::id().cast_signed();
    processes.retain(|(pid, _)| *pid != own && *pid > 1);
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
        family.contains(pid) || stat.group == root || is_marked(*pid, mark, true)
    });
    processes
}

/// Signals the processes of an attempt. Returns how many there were. The group is only signalled while its first process has not
/// been waited for, so that its number can't have become somebody else's.
pub(crate) fn signal(root: i32, mark: &str, signal: Signal, group: bool) -> usize {
    if group && let Some(pid) = Pid::from_raw(root) {
        let _ = kill_process_group(pid, signal);
    }
    let members = members(root, mark);
    for (pid, seen) in &members {
        if !group || seen.group != root {
            signal_one(*pid, seen, signal);
        }
    }
    members.len()
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

/// Kills every process whose mark begins with `mark`, until there are none. Returns how many were killed.
pub(crate) fn kill_marked(mark: &str) -> usize {
    let own = std::process::id().cast_signed();
    let mut killed = BTreeSet::new();
    for _ in 0..50 {
        let marked = all().filter(|pid| *pid != own && *pid > 1 && is_marked(*pid, mark, false));
        let found: Vec<_> =
            marked.filter_map(|pid| Some((pid, stat(pid)?))).filter(|(_, s)| !s.zombie).collect();
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
    let own = std::process::id();
    let Ok(list) = fs::read_to_string(format!("/proc/self/task/{own}/children")) else { return };
    let group = stat(own.cast_signed()).map_or(0, |stat| stat.group);
    for pid in list.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()) {
        let _no_births = BIRTHS.write().unwrap_or_else(PoisonError::into_inner);
        if children().contains(&pid.cast_unsigned()) {
            continue;
        }
        let Some(seen) = stat(pid) else { continue };
        if seen.zombie {
            // Somebody else's child stays in this process's own group; an attempt's never does.
            if seen.group != group {
                let _ = waitpid(Pid::from_raw(pid), WaitOptions::NOHANG);
            }
        } else if attempt_of(pid, worker).is_some_and(|attempt| !is_live(&attempt)) {
            signal_one(pid, &seen, Signal::KILL);
        }
    }
}

/// The attempt whose mark a process carries, if it is one of `worker`.
fn attempt_of(pid: i32, worker: &str) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
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
