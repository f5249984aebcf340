//! From a task's command to what the system is asked to start.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rota_wire::worker::CommandAction;

use super::{Host, Task};
use crate::process::MARK;

/// Variables of the worker that its tasks inherit. Everything else, secrets among it, stays with the worker.
const INHERITED: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LC_COLLATE",
    "LC_MESSAGES",
    "LC_NUMERIC",
    "LC_TIME",
    "TZ",
    "TMPDIR",
];

/// Where programs are looked for if the worker itself has no `PATH`.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What tasks inherit from the worker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment(Vec<(&'static str, OsString)>);

impl Environment {
    /// The worker's own environment, as far as it is inherited.
    pub(crate) fn inherited() -> Self {
        let own = INHERITED.iter().filter_map(|name| Some((*name, std::env::var_os(name)?)));
        Self(own.collect())
    }

    fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_os_str())
    }
}

/// A command that is ready to be started.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) command: Command,
    pub(crate) name: String,
}

/// Prepares a task's command. The error says what is wrong with it.
pub(crate) fn prepare(host: &Host, task: &Task, action: &CommandAction) -> Result<Program, String> {
    let values = &task.values;
    let argv: Vec<String> = action.argv.iter().map(|argument| values.fill(argument)).collect();
    let [name, arguments @ ..] = argv.as_slice() else {
        return Err("the command is empty".into());
    };
    if name.is_empty() || argv.iter().any(|argument| argument.contains('\0')) {
        return Err("the program's name is empty or an argument holds a zero byte".into());
    }
    let own: Vec<(&str, String)> =
        action.env.iter().map(|var| (var.name.as_str(), values.fill(&var.value))).collect();
    let wrong = |(name, value): &&(&str, String)| {
        name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
    };
    if let Some((name, _)) = own.iter().find(wrong) {
        return Err(format!("not an environment variable: {name:?}"));
    }
    let listed = !host.config.allow.programs.is_empty();
    if let Some((name, _)) = own.iter().find(|(name, _)| listed && name.starts_with("LD_")) {
        return Err(format!(
            "this worker runs only the programs on its list, and {name} could make them run others"
        ));
    }
    let dir = working_dir(host, task, &action.cwd)?;
    let path = own.iter().rev().find(|(name, _)| *name == "PATH").map(|(_, path)| OsStr::new(path));
    // A name on the list of allowed programs means the worker's program of that name.
    let path = path.filter(|_| !listed);
    let path = path.or(host.environment.get("PATH")).unwrap_or(OsStr::new(PATH_DEFAULT));
    let path = if listed { absolute(path) } else { path.to_owned() };
    let file = find(name, &path, &dir).and_then(|found| allowed(host, name, found))?;
    let mut command = Command::new(file);
    command.arg0(name).args(arguments).current_dir(&dir).process_group(0).env_clear();
    command.envs(host.environment.0.iter().map(|(name, value)| (name, value)));
    command.envs(own);
    set_identity(&mut command, host, task);
    Ok(Program { command, name: name.clone() })
}

/// What a program knows about itself. Set last, so that a task can't pretend to be another.
fn set_identity(command: &mut Command, host: &Host, task: &Task) {
    let values = &task.values;
    command.env("ROTA_JOB_ID", &values.job);
    command.env("ROTA_TASK_ID", &values.task);
    command.env("ROTA_ATTEMPT", &values.attempt);
    command.env("ROTA_NODE", &values.node);
    command.env(MARK, mark(host, task));
    match values.index.as_ref().filter(|_| task.is_array) {
        Some(index) => command.env("ROTA_TASK_INDEX", index),
        None => command.env_remove("ROTA_TASK_INDEX"),
    };
    if let Some(server) = &host.config.advertised_server {
        command.env("ROTA_SERVER", server);
    }
}

/// The mark of an attempt's processes.
pub(crate) fn mark(host: &Host, task: &Task) -> String {
    format!("{}/{}", host.mark, task.id)
}

/// The directory that was asked for, or a fresh one.
fn working_dir(host: &Host, task: &Task, cwd: &str) -> Result<PathBuf, String> {
    if cwd.is_empty() {
        let taken = host.work_dirs.take(task.id);
        return taken.map_err(|error| format!("can't make a working directory: {error}"));
    }
    let dir = PathBuf::from(task.values.fill(cwd));
    if !dir.is_absolute() {
        return Err(format!("the working directory {} is not an absolute path", dir.display()));
    }
    match fs::metadata(&dir) {
        Ok(found) if found.is_dir() => Ok(dir),
        Ok(_) => Err(format!("the working directory {} is not a directory", dir.display())),
        Err(error) => Err(format!("can't use the working directory {}: {error}", dir.display())),
    }
}

/// The places of a `PATH` that don't depend on the working directory, which the task chooses.
fn absolute(path: &OsStr) -> OsString {
    let places = std::env::split_paths(path).filter(|place| place.is_absolute());
    std::env::join_paths(places).unwrap_or_default()
}

/// Finds a program as a shell would. Done here, so that the system's cheapest way to start a program can be used and so that the
/// error can name what is missing.
fn find(name: &str, path: &OsStr, dir: &Path) -> Result<PathBuf, String> {
    let is_runnable =
        |found: fs::Metadata| found.is_file() && found.permissions().mode() & 0o111 != 0;
    if name.contains('/') {
        let file = dir.join(name);
        return match fs::metadata(&file).map(is_runnable) {
            Ok(true) => Ok(file),
            Ok(false) => Err(format!("{name}: permission denied: not an executable file")),
            Err(error) => Err(format!("{name}: {}", describe(&error))),
        };
    }
    std::env::split_paths(path)
        .map(|place| dir.join(place).join(name))
        .find(|file| fs::metadata(file).is_ok_and(is_runnable))
        .ok_or_else(|| format!("{name}: no such program in PATH ({})", path.display()))
}

/// What the system says, without its number.
pub(crate) fn describe(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

fn allowed(host: &Host, name: &str, file: PathBuf) -> Result<PathBuf, String> {
    let programs = &host.config.allow.programs;
    let matches = |allowed: &String| {
        let by_name = !allowed.contains('/') && !name.contains('/') && allowed == name;
        by_name || Path::new(allowed) == file
    };
    if programs.is_empty() || programs.iter().any(matches) {
        Ok(file)
    } else {
        Err(format!(
            "{name}: this worker is not allowed to run it: start the worker with `--allow-program {name}` too, \
             or let the task require a label of workers that are"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_places_count_where_programs_are_listed() {
        let absolute = |path: &str| absolute(OsStr::new(path)).into_string().expect("text");
        assert_eq!(absolute("/usr/bin::.:bin:/bin:"), "/usr/bin:/bin");
        assert_eq!(absolute("."), "");
    }
}
