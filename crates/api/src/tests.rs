use rota_types::limits::*;
use rota_types::{RangeSet, Resources, Span};

use crate::*;

fn lint(text: &str) -> Vec<String> {
    let place = |mistake: Mistake| {
        let place = format!("{}:{}", mistake.line.unwrap_or(0), mistake.column.unwrap_or(0));
        format!("{place} {} | {} | {}", mistake.pointer, mistake.message, mistake.hint)
    };
    let checked = parse_job_file(text, Format::Toml, None);
    checked.map_or_else(|mistakes| mistakes.into_iter().map(place).collect(), |_| Vec::new())
}

fn job(group: TaskGroup) -> JobFile {
    JobFile { job: JobHeader::default(), task: vec![group] }
}

fn noop() -> TaskGroup {
    TaskGroup { noop: true, ..TaskGroup::default() }
}

/// Whether a job with this change to its only group is valid.
fn takes(change: impl FnOnce(&mut TaskGroup)) -> bool {
    let mut group = noop();
    change(&mut group);
    validate(&job(group)).is_empty()
}

/// Whether a job with this change to its header is valid.
fn header_takes(change: impl FnOnce(&mut JobHeader)) -> bool {
    let mut file = job(noop());
    change(&mut file.job);
    validate(&file).is_empty()
}

/// Checks `takes` at one below the limit, at it, and one above.
fn at_limit(limit: usize, takes: impl Fn(usize) -> bool) {
    let taken = [limit - 1, limit, limit + 1].map(takes);
    assert_eq!(taken, [true, true, false], "the limit is {limit}");
}

#[test]
fn mistakes_are_reported_together_with_place_and_remedy() {
    let text = r#"
[job]
queu = "default"
priority = 5000

[[task]]
name = "a"
command = ["true"]
timout = "1m"
retry = { max = 2, backoff = "fast", on = ["exit:75", "sginal"] }

[[task]]
name = "a"
array = "9-1"
cpus = 1.2345
"#;
    let wanted = [
        "3:1 /job/queu | unknown key \"queu\" | did you mean \"queue\"?",
        "4:12 /job/priority | priority 5000 is out of range | from -1000 to 1000",
        "9:1 /task/0/timout | unknown key \"timout\" | did you mean \"timeout\"?",
        "10:30 /task/0/retry/backoff | \"fast\" is not a back-off | write 10s for a fixed pause, 5s..5m for one that doubles",
        "10:55 /task/0/retry/on/1 | \"sginal\" is not a kind of failure | did you mean \"signal\"?",
        "13:8 /task/1/name | the name \"a\" is used twice | names are unique within a job",
        "14:9 /task/1/array | \"9-1\" is not an array | write 1-1000, or 1-9,20; add %8 to run at most 8 at a time",
        "15:8 /task/1/cpus | this is not an amount | write a number from 0 with up to three decimals",
    ];
    assert_eq!(lint(text), wanted);
}

#[test]
fn syntax_errors_have_a_place_in_every_notation() {
    let place = |text: &str, format| {
        let mistakes = parse_job_file(text, format, Some("f")).err().unwrap_or_default();
        mistakes.first().map(|mistake| (mistake.file.clone(), mistake.line))
    };
    let at = |line| Some((Some("f".to_owned()), Some(line)));
    assert_eq!(place("[job]\nname = \n", Format::Toml), at(2));
    assert_eq!(
        place("job:\n  name: [\n", Format::Yaml).map(|(file, _)| file),
        Some(Some("f".to_owned()))
    );
    assert_eq!(place("{\n\"job\": }", Format::Json), at(2));
}

#[test]
fn yaml_and_json_mistakes_have_a_place_too() {
    let mistake = |text: &str, format| {
        let mistakes = parse_job_file(text, format, None).err().unwrap_or_default();
        mistakes.into_iter().map(|mistake| (mistake.line, mistake.pointer)).collect::<Vec<_>>()
    };
    let yaml = "task:\n  - command: [\"true\"]\n    timeout: fast\n";
    assert_eq!(mistake(yaml, Format::Yaml), [(Some(3), "/task/0/timeout".to_owned())]);
    let json = "{\"task\": [\n{\"command\": [\"true\"],\n\"timeout\": \"fast\"}]}";
    assert_eq!(mistake(json, Format::Json), [(Some(3), "/task/0/timeout".to_owned())]);
}

#[test]
fn the_three_notations_say_the_same() {
    let toml = "[job]\nname = \"j\"\n[[task]]\ncommand = \"true\"\ncpus = 0.5\nmemory = \"1GiB\"\n";
    let yaml = "job: {name: j}\ntask:\n  - command: \"true\"\n    cpus: 0.5\n    memory: 1GiB\n";
    let json = "{\"job\": {\"name\": \"j\"}, \"task\": [{\"command\": \"true\", \"cpus\": \"0.5\", \"memory\": 1073741824}]}";
    let parsed = parse_job_file(toml, Format::Toml, None);
    assert!(parsed.is_ok(), "{parsed:?}");
    assert_eq!(parse_job_file(yaml, Format::Yaml, None), parsed);
    assert_eq!(parse_job_file(json, Format::Json, None), parsed);
    assert_eq!(parse_submit(json.as_bytes()).map(|mut jobs| jobs.pop()), parsed.map(Some));
}

#[test]
fn hostile_requests_get_an_answer() {
    for text in
        ["", "null", "[]", "1", "{", "{\"task\": 1}", "{\"jobs\": 1}", "{\"jobs\": []}", "\u{0}"]
    {
        assert!(parse_submit(text.as_bytes()).is_err(), "{text}");
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(parse_submit(deep.as_bytes()).is_err());
    assert!(parse_job_file(&deep, Format::Yaml, None).is_err());
    assert!(parse_job_file(&format!("a = {deep}"), Format::Toml, None).is_err());
    let twice = "{\"task\": [{\"noop\": true, \"noop\": true}]}";
    assert!(parse_submit(twice.as_bytes()).is_err());
}

#[test]
fn batches_and_lines_name_the_job_that_is_wrong() {
    let pointers = |result: Result<Vec<JobFile>, Vec<Mistake>>| {
        let mistakes = result.err().unwrap_or_default();
        mistakes.into_iter().map(|mistake| mistake.pointer).collect::<Vec<_>>()
    };
    let batch = "{\"jobs\": [{\"task\": [{\"noop\": true}]}, {\"task\": [{}]}]}";
    assert_eq!(pointers(parse_submit(batch.as_bytes())), ["/jobs/1/task/0"]);
    let lines = "{\"task\": [{\"noop\": true}]}\n\n{\"task\": []}\n";
    assert_eq!(pointers(parse_ndjson(lines.as_bytes())), ["/1/task"]);
    let beside = "{\"jobs\": [{\"task\": [{\"noop\": true}]}], \"job\": {}}";
    assert_eq!(pointers(parse_submit(beside.as_bytes())), ["/job"]);
}

#[test]
fn only_files_may_name_files() {
    let text = "[[task]]\ncommand = [\"echo\", \"{}\"]\neach_line = \"lines.txt\"\n";
    assert_eq!(lint(text), Vec::<String>::new());
    let json = "{\"task\": [{\"command\": [\"echo\"], \"each_line\": \"/etc/passwd\"}]}";
    let mistakes = parse_submit(json.as_bytes()).err().unwrap_or_default();
    assert_eq!(mistakes.first().map(|mistake| mistake.pointer.as_str()), Some("/task/0/each_line"));
}

#[test]
fn an_entry_is_not_empty() {
    let text =
        |entries: &str| format!("[[task]]\ncommand = [\"echo\", \"{{}}\"]\nentries = {entries}\n");
    assert_eq!(lint(&text(r#"["a", " "]"#)), Vec::<String>::new());
    let json = r#"{"task": [{"command": ["echo", "{}"], "entries": ["a", "", ""]}]}"#;
    let mistakes = parse_submit(json.as_bytes()).err().unwrap_or_default();
    let places: Vec<&str> = mistakes.iter().map(|mistake| mistake.pointer.as_str()).collect();
    assert_eq!(places, ["/task/0/entries/1"]);
}

#[test]
fn names_and_labels_have_limits() {
    at_limit(NAME_BYTES_MAX, |size| header_takes(|job| job.name = Some("n".repeat(size))));
    at_limit(NAME_BYTES_MAX, |size| header_takes(|job| job.queue = "n".repeat(size)));
    at_limit(NAME_BYTES_MAX, |size| takes(|group| group.name = Some("n".repeat(size))));
    at_limit(NAME_BYTES_MAX, |size| {
        takes(|group| group.resources = [("n".repeat(size), Amount(1))].into())
    });
    at_limit(LABELS_MAX, |count| {
        header_takes(|job| {
            job.labels = (0..count).map(|n| (format!("k{n}"), String::new())).collect();
        })
    });
    at_limit(LABEL_KEY_BYTES_MAX, |size| {
        header_takes(|job| job.labels = [("k".repeat(size), String::new())].into())
    });
    at_limit(LABEL_VALUE_BYTES_MAX, |size| {
        header_takes(|job| job.labels = [("k".to_owned(), "v".repeat(size))].into())
    });
    let priority = PRIORITY_MAX as usize;
    at_limit(priority, |value| header_takes(|job| job.priority = value as i32));
    at_limit(priority, |value| header_takes(|job| job.priority = -(value as i32)));
}

#[test]
fn groups_tasks_and_jobs_have_limits() {
    at_limit(GROUPS_MAX, |count| {
        validate(&JobFile { job: JobHeader::default(), task: vec![noop(); count] }).is_empty()
    });
    let array = |count: usize| ArrayRange {
        indexes: RangeSet::from_range(0, u32::try_from(count).unwrap_or(u32::MAX)),
        parallel: None,
    };
    let tasks = JOB_TASKS_MAX as usize;
    at_limit(tasks, |count| takes(|group| group.array = Some(array(count))));
    at_limit(tasks, |count| {
        let half = TaskGroup { array: Some(array(count / 2)), ..noop() };
        let rest = TaskGroup { array: Some(array(count - count / 2)), ..noop() };
        validate(&JobFile { job: JobHeader::default(), task: vec![half, rest] }).is_empty()
    });
    at_limit(SUBMIT_JOBS_MAX, |count| {
        parse_ndjson("{\"task\": [{\"noop\": true}]}\n".repeat(count).as_bytes()).is_ok()
    });
}

#[test]
fn demands_have_limits() {
    let values = |count: usize| {
        let list: Vec<String> = (0..count).map(|n| n.to_string()).collect();
        format!("k={}", list.join("|")).parse::<Requirement>()
    };
    at_limit(CONSTRAINT_VALUES_MAX, |count| takes(|group| group.require.extend(values(count))));
    at_limit(CONSTRAINTS_MAX, |count| {
        takes(|group| group.require.extend((0..count).flat_map(|n| format!("k{n}").parse())))
    });
    at_limit(RESOURCES_MAX, |count| {
        takes(|group| group.resources = (0..count).map(|n| (format!("r{n}"), Amount(1))).collect())
    });
    let most = RESOURCE_AMOUNT_MAX as usize;
    at_limit(most, |amount| takes(|group| group.cpus = Some(Amount(amount as u64))));
    at_limit(most, |amount| takes(|group| group.memory = Some(Size(amount as u64))));
    at_limit(most, |amount| {
        takes(|group| group.resources = [("gpu".to_owned(), Amount(amount as u64))].into())
    });
}

#[test]
fn times_and_retries_have_limits() {
    let micros = |span: Span| span.micros() as usize;
    let time = |micros: usize| Some(Duration(Span(micros as u64)));
    at_limit(micros(TIMEOUT_MAX), |span| takes(|group| group.timeout = time(span)));
    at_limit(micros(ESTIMATE_MAX), |span| takes(|group| group.estimate = time(span)));
    let command = |change: &dyn Fn(&mut TaskGroup)| {
        takes(|group| {
            group.noop = false;
            group.command = Some(CommandLine::Shell("true".to_owned()));
            change(group);
        })
    };
    at_limit(micros(GRACE_MAX), |span| command(&|group| group.grace = time(span)));
    let retry = |retry: Retry| takes(|group| group.retry = Some(retry));
    at_limit(ATTEMPTS_MAX as usize - 1, |max| retry(Retry { max: max as u32, ..Retry::default() }));
    at_limit(100, |jitter| retry(Retry { jitter: Some(jitter as u8), ..Retry::default() }));
    at_limit(micros(BACKOFF_MAX), |span| {
        let backoff = Some(BackoffRange { base: Span(1), max: Span(span as u64) });
        retry(Retry { backoff, ..Retry::default() })
    });
    at_limit(RETRY_RULES_MAX, |count| {
        let rule = "signal".parse::<RetryOn>();
        retry(Retry { on: rule.into_iter().cycle().take(count).collect(), ..Retry::default() })
    });
    assert!(!takes(|group| group.timeout = time(0)) && takes(|group| group.timeout = time(1)));
    assert!(!takes(|group| group.parallel = Some(0)) && takes(|group| group.parallel = Some(1)));
}

#[test]
fn an_action_has_a_limit() {
    let size = |stdin: usize| {
        let command = Some(CommandLine::Shell("cat".to_owned()));
        let group = TaskGroup { command, stdin: Some("x".repeat(stdin)), ..TaskGroup::default() };
        into_spec(job(group), "me")
            .map(|spec| spec.groups.first().map_or(0, |group| group.action.len()))
    };
    let frame = size(900_000).map_or(0, |bytes| bytes - 900_000);
    let limit = ACTION_BYTES_MAX - frame;
    assert_eq!(size(limit - 1), Ok(ACTION_BYTES_MAX - 1));
    assert_eq!(size(limit), Ok(ACTION_BYTES_MAX));
    let refused = size(limit + 1).err().and_then(|mut mistakes| mistakes.pop());
    assert_eq!(refused.map(|mistake| mistake.pointer), Some("/task/0".to_owned()));
}

#[test]
fn a_job_survives_the_way_through_the_state_machine() {
    let text = r#"
[job]
name = "all"
queue = "q"
priority = -3
labels = { team = "render" }

[[task]]
name = "frame"
command = ["blender", "-f", "{index}"]
array = "1-9,20"
parallel = 4
env = { A = "1" }
cwd = "/tmp"
stdin = "hello"
cpus = 1.5
memory = "512MiB"
resources = { gpu = 0.5 }
require = ["zone=a|b", "!old"]
estimate = "5m"
timeout = "10m"
grace = "3s"
retry = { max = 3, backoff = "5s..5m", jitter = 20, on = ["exit:75", "exit:1-9", "signal"] }

[[task]]
name = "files"
command = ["wc", "{}"]
entries = ["a", "b"]
cpus = 1
grace = "10s"

[[task]]
name = "hook"
cpus = 0
[task.http]
method = "POST"
url = "http://example.org/"
headers = { X-A = "b" }
body = "{}"
expect = "200-204,302"
"#;
    let file = parse_job_file(text, Format::Toml, None);
    let spec = file.clone().and_then(|file| into_spec(file, "ana"));
    assert_eq!(spec.as_ref().map(JobFile::from_spec).map_err(Vec::len), file.map_err(|m| m.len()));
    let need = spec.ok().and_then(|spec| spec.groups.first().map(|group| group.shape.need.clone()));
    let mut wanted = Resources::new(1_500, 512 << 20);
    wanted.named.insert("gpu".into(), 500);
    assert_eq!(need, Some(wanted));
}

#[test]
fn what_is_not_said_gets_its_default() {
    let file = job(TaskGroup {
        command: Some(CommandLine::Program(vec!["/bin/true".to_owned()])),
        ..TaskGroup::default()
    });
    let spec = into_spec(file, "me").ok();
    let said = spec.map(|spec| {
        let group = spec.groups.into_iter().next();
        let need = group.as_ref().map(|group| group.shape.need.clone());
        let attempts = group.as_ref().map(|group| group.retry.attempts_max);
        (spec.name.to_string(), spec.queue.to_string(), need, attempts)
    });
    let wanted = ("true".to_owned(), "default".to_owned(), Some(Resources::new(1_000, 0)), Some(1));
    assert_eq!(said, Some(wanted));
}

#[test]
fn every_error_is_explained_and_named_once() {
    let mut names = std::collections::BTreeSet::new();
    for code in ErrorCode::ALL {
        assert!(names.insert(code.name()), "{code} appears twice");
        assert_eq!(code.name().parse(), Ok(*code));
        assert!(code.title().ends_with('.'), "{code}: the title is a sentence");
        assert!(
            !code.hint().is_empty() && code.explanation().len() > 40,
            "{code} is not explained"
        );
        assert!(code.status().is_none_or(|status| (400..600).contains(&status)), "{code}");
        assert!(code.exit_code() > 0, "{code}");
    }
}
