//! The options that describe a job on the command line, and how they become a job file.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use rota_api::{
    Amount, ArrayRange, BackoffRange, CommandLine, Duration, ErrorCode, Format, JobFile, JobHeader,
    Requirement, Retry, RetryOn, Size, TaskGroup,
};

use crate::trouble::{Result, Trouble};

/// A job: a file, or a command with options.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct JobArgs {
    /// A job file: TOML, YAML or JSON; `-` reads TOML from standard input
    pub(crate) file: Option<PathBuf>,
    /// The command and its arguments, after `--`
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
    #[command(flatten)]
    pub(crate) header: HeaderArgs,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    /// Makes repeating this command safe: the same key never makes a second job
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
}

/// Options that also apply to job files.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct HeaderArgs {
    /// The job's name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The queue to wait in [default: default]
    #[arg(long, add = crate::complete::queues())]
    pub(crate) queue: Option<String>,
    /// Higher goes first in a priority queue, from -1000 to 1000
    #[arg(long, allow_negative_numbers = true, value_name = "N")]
    pub(crate) priority: Option<i32>,
    /// A label, for selectors
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
}

/// Options of the one kind of task that a command line describes.
#[derive(Clone, Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "Task options")]
pub(crate) struct TaskArgs {
    /// One task per index; `%8` runs at most 8 at a time [example: 1-1000%8]
    #[arg(long, value_name = "RANGE", conflicts_with = "each_line")]
    pub(crate) array: Option<ArrayRange>,
    /// One task per line of a file (`-`: standard input), which is `{}` in the command
    #[arg(long, value_name = "FILE")]
    pub(crate) each_line: Option<PathBuf>,
    /// How many of the tasks may run at a time
    #[arg(short = 'j', long, value_name = "N")]
    pub(crate) parallel: Option<u32>,
    /// Cpus that a task holds [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<Amount>,
    /// Memory that a task holds, such as 512MiB
    #[arg(long, visible_alias = "mem", value_name = "SIZE")]
    pub(crate) memory: Option<Size>,
    /// Another resource that a task holds, such as gpu=1
    #[arg(long, value_name = "NAME=N")]
    pub(crate) resource: Vec<String>,
    /// What a node's labels must satisfy: zone=a, zone!=a, zone=a|b, ssd, !ssd
    #[arg(long, value_name = "LABEL")]
    pub(crate) require: Vec<Requirement>,
    /// How often to try again after a failure
    #[arg(long, value_name = "N")]
    pub(crate) retries: Option<u32>,
    /// The pause before trying again: 10s, or 5s..5m for one that doubles [default: 1s..1m]
    #[arg(long, value_name = "TIME", requires = "retries")]
    pub(crate) backoff: Option<BackoffRange>,
    /// Which failures to try again: exit:75, exit:1-9, signal, timeout, start [default: all]
    #[arg(long, value_name = "KIND", requires = "retries")]
    pub(crate) retry_on: Vec<RetryOn>,
    /// How long one attempt may run
    #[arg(long, value_name = "TIME")]
    pub(crate) timeout: Option<Duration>,
    /// The time between the request to stop and the kill [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub(crate) grace: Option<Duration>,
    /// How long a task is expected to run
    #[arg(long, value_name = "TIME")]
    pub(crate) estimate: Option<Duration>,
    /// An environment variable; without a value, this shell's
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// The working directory on the node [default: this directory if the server is on this machine]
    #[arg(long, value_name = "DIR", conflicts_with = "scratch")]
    pub(crate) cwd: Option<PathBuf>,
    /// Run in a fresh directory that is removed afterwards
    #[arg(long)]
    pub(crate) scratch: bool,
    /// A file that becomes the task's standard input (`-`: this command's)
    #[arg(long, value_name = "FILE")]
    pub(crate) stdin: Option<PathBuf>,
}

/// What a command line asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) jobs: Vec<JobFile>,
    /// Whether they come from a file.
    pub(crate) from_file: bool,
    /// Whether it is one plain command: then `run` behaves like it.
    pub(crate) single: bool,
}

impl JobArgs {
    /// The jobs that are asked for. `here` becomes the working directory where none is named.
    pub(crate) fn jobs(&self, here: Option<&Path>) -> Result<Asked> {
        let mut asked = match (&self.file, self.command.is_empty()) {
            (Some(file), true) => self.read_file(file)?,
            (None, false) => self.describe_command()?,
            (Some(file), false) => {
                let message =
                    format!("both a job file ({}) and a command are given", file.display());
                return Err(Trouble::usage(message)
                    .hint("put everything that belongs to the command behind --"));
            }
            (None, true) => {
                return Err(Trouble::usage("nothing to run")
                    .hint("name a job file, or put a command behind --: rota run -- echo hello"));
            }
        };
        for job in &mut asked.jobs {
            self.header.apply(&mut job.job)?;
            for group in
                job.task.iter_mut().filter(|group| group.command.is_some() && group.cwd.is_none())
            {
                let here = here.filter(|_| !self.task.scratch);
                group.cwd = here.map(|here| here.to_string_lossy().into_owned());
            }
        }
        Ok(asked)
    }

    fn read_file(&self, file: &Path) -> Result<Asked> {
        let plain = TaskArgs { scratch: self.task.scratch, ..TaskArgs::default() };
        if self.task != plain {
            let hint =
                "write them into the file; --name, --queue, --priority and --label work with both";
            return Err(Trouble::usage("task options don't apply to a job file").hint(hint));
        }
        if file.extension().is_none() && !file.exists() {
            let message = format!("there is no job file \"{}\"", file.display());
            return Err(Trouble::usage(message).hint("to run a command, put -- before it"));
        }
        Ok(Asked { jobs: read_job_files(file)?, from_file: true, single: false })
    }

    fn describe_command(&self) -> Result<Asked> {
        let task = &self.task;
        let mut group = TaskGroup {
            command: Some(CommandLine::Program(self.command.clone())),
            array: task.array.clone(),
            parallel: task.parallel,
            cpus: task.cpus,
            memory: task.memory,
            require: task.require.clone(),
            timeout: task.timeout,
            grace: task.grace,
            estimate: task.estimate,
            env: task.env.iter().map(|text| env_var(text)).collect::<Result<_>>()?,
            cwd: task.cwd.as_ref().map(|dir| dir.to_string_lossy().into_owned()),
            ..TaskGroup::default()
        };
        for text in &task.resource {
            let (name, amount) = pair(text, "a resource", "gpu=1")?;
            let amount: Amount = amount.parse().map_err(|error: rota_api::ScalarError| {
                Trouble::usage(error.message).hint(error.hint)
            })?;
            group.resources.insert(name, amount);
        }
        if let Some(max) = task.retries {
            let on = task.retry_on.clone();
            group.retry = Some(Retry { max, backoff: task.backoff, jitter: None, on });
        }
        if let Some(path) = &task.each_line {
            group.entries = lines(&read(path)?);
            if group.entries.is_empty() {
                return Err(Trouble::usage(format!("{} has no lines", path.display())));
            }
            if !self.command.iter().any(|word| word.contains("{}") || word.contains("{entry}")) {
                // As xargs does: the line becomes the last argument.
                if let Some(CommandLine::Program(argv)) = &mut group.command {
                    argv.push("{}".to_owned());
                }
            }
        }
        group.stdin = task.stdin.as_ref().map(|path| read(path)).transpose()?;
        let single = group.entries.is_empty() && group.array.is_none();
        let job = JobFile { job: JobHeader::default(), task: vec![group] };
        Ok(Asked { jobs: vec![job], from_file: false, single })
    }
}

impl HeaderArgs {
    fn apply(&self, header: &mut JobHeader) -> Result<()> {
        if let Some(name) = &self.name {
            header.name = Some(name.clone());
        }
        if let Some(queue) = &self.queue {
            header.queue.clone_from(queue);
        }
        header.priority = self.priority.unwrap_or(header.priority);
        let labels = self.label.iter().map(|text| pair(text, "a label", "team=render"));
        header.labels.extend(labels.collect::<Result<BTreeMap<_, _>>>()?);
        Ok(())
    }
}

/// Reads a job file and the files that its `each_line` fields name, which are relative to it.
pub(crate) fn read_job_files(path: &Path) -> Result<Vec<JobFile>> {
    let text = read(path)?;
    let name = path.display().to_string();
    let mut jobs = rota_api::parse_job_files(&text, Format::of_file(&name), Some(&name))
        .map_err(Trouble::mistakes)?;
    let base = path.parent().unwrap_or(Path::new(""));
    for group in jobs.iter_mut().flat_map(|job| &mut job.task) {
        if let Some(file) = group.each_line.take() {
            group.entries = lines(&read(&base.join(&file))?);
            if group.entries.is_empty() {
                return Err(Trouble::usage(format!("{file} has no lines")));
            }
        }
    }
    Ok(jobs)
}

fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    let result = if path == Path::new("-") {
        std::io::stdin().lock().read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text))
    };
    result.map(|_| text).map_err(|error| Trouble::file(path, &error))
}

fn lines(text: &str) -> Vec<String> {
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// `key=value`, split.
pub(crate) fn pair(text: &str, what: &str, example: &str) -> Result<(String, String)> {
    let (key, value) = text.split_once('=').ok_or_else(|| {
        Trouble::usage(format!("\"{text}\" is not {what}")).hint(format!("write {example}"))
    })?;
    Ok((key.to_owned(), value.to_owned()))
}

fn env_var(text: &str) -> Result<(String, String)> {
    if let Some((name, value)) = text.split_once('=') {
        return Ok((name.to_owned(), value.to_owned()));
    }
    let value = std::env::var(text).map_err(|_| {
        let message = format!("this shell has no variable {text}");
        Trouble::new(ErrorCode::Usage, message)
            .hint(format!("write --env {text}=VALUE, or export it"))
    })?;
    Ok((text.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str]) -> JobArgs {
        JobArgs {
            command: words.iter().map(|word| (*word).to_owned()).collect(),
            ..JobArgs::default()
        }
    }

    #[test]
    fn a_command_becomes_one_task_in_this_directory() {
        let asked = command(&["echo", "hi"]).jobs(Some(Path::new("/here")));
        let argv = CommandLine::Program(vec!["echo".to_owned(), "hi".to_owned()]);
        let cwd = Some("/here".to_owned());
        let group = TaskGroup { command: Some(argv), cwd, ..TaskGroup::default() };
        let job = JobFile { job: JobHeader::default(), task: vec![group] };
        assert_eq!(asked, Ok(Asked { jobs: vec![job], from_file: false, single: true }));
    }

    #[test]
    fn task_options_and_files_exclude_each_other() {
        let mut args = JobArgs { file: Some("job.toml".into()), ..JobArgs::default() };
        args.task.retries = Some(2);
        assert_eq!(args.jobs(None).map_err(|trouble| trouble.code), Err(ErrorCode::Usage));
        args.command = vec!["true".to_owned()];
        assert_eq!(args.jobs(None).map_err(|trouble| trouble.code), Err(ErrorCode::Usage));
        assert_eq!(
            JobArgs::default().jobs(None).map_err(|trouble| trouble.code),
            Err(ErrorCode::Usage)
        );
    }

    #[test]
    fn a_command_without_a_place_for_the_line_gets_it_as_last_argument() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("lines");
        std::fs::write(&path, "a\n\nb c\n").expect("the file is written");
        let mut args = command(&["wc", "-c"]);
        args.task.each_line = Some(path);
        let group = args.jobs(None).map(|asked| asked.jobs.concat_tasks());
        let argv = ["wc", "-c", "{}"].map(str::to_owned).to_vec();
        assert_eq!(
            group,
            Ok((Some(CommandLine::Program(argv)), vec!["a".to_owned(), "b c".to_owned()]))
        );
    }

    trait FirstTask {
        fn concat_tasks(self) -> (Option<CommandLine>, Vec<String>);
    }

    impl FirstTask for Vec<JobFile> {
        fn concat_tasks(self) -> (Option<CommandLine>, Vec<String>) {
            let group = self.into_iter().flat_map(|job| job.task).next().unwrap_or_default();
            (group.command, group.entries)
        }
    }
}
