//! From a tree to a job file, gathering every mistake on the way.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::job_file::{
    CommandLine, DEFAULT_QUEUE, HttpRequest, JobFile, JobHeader, Mistake, Retry, TaskGroup,
};
use crate::scalar::{
    Amount, ArrayRange, BackoffRange, Duration, Requirement, RetryOn, ScalarError, Size,
};
use crate::suggest::nearest;
use crate::tree::{Entry, Node, Place, Value};

/// After this many mistakes nobody reads on.
const MISTAKES_MAX: usize = 50;

/// Walks a tree, knows where it is and collects what is wrong.
#[derive(Default)]
pub(crate) struct Decoder {
    pointer: String,
    pub(crate) mistakes: Vec<Mistake>,
}

/// A value that can be read from a node. `None` means that a mistake was noted.
pub(crate) trait Decode: Sized {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self>;
}

impl Decoder {
    fn note(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        if self.mistakes.len() >= MISTAKES_MAX {
            return;
        }
        let some = |number: u32| (number > 0).then_some(number);
        let mistake = Mistake::new(self.pointer.clone(), message, hint);
        self.mistakes.push(Mistake {
            line: some(place.line),
            column: some(place.column),
            ..mistake
        });
    }

    /// Runs `read` one step deeper.
    fn within<T>(&mut self, segment: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.pointer.len();
        self.pointer.push('/');
        self.pointer.push_str(&segment.replace('~', "~0").replace('/', "~1"));
        let value = read(self);
        self.pointer.truncate(length);
        value
    }

    fn wrong_kind<T>(&mut self, node: &Node, wanted: &str) -> Option<T> {
        let message = format!("expected {wanted}, found {}", node.value.kind());
        self.note(node.place, message, "");
        None
    }

    /// The entries of a table that has no other keys than `known`.
    fn table<'n>(&mut self, node: &'n Node, known: &[&str]) -> Option<&'n [Entry]> {
        let Value::Table(entries) = &node.value else {
            return self.wrong_kind(node, "a table");
        };
        for entry in entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let hint = match nearest(&entry.key, known.iter().copied()) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("known keys: {}", known.join(", ")),
            };
            let message = format!("unknown key \"{}\"", entry.key);
            self.within(&entry.key, |decoder| decoder.note(entry.key_place, message, hint));
        }
        Some(entries)
    }

    /// The field `name`, if it is there and right.
    fn field<T: Decode>(&mut self, entries: &[Entry], name: &str) -> Option<T> {
        let entry = entries.iter().find(|entry| entry.key == name)?;
        if matches!(entry.node.value, Value::Null) {
            return None;
        }
        self.within(name, |decoder| T::decode(&entry.node, decoder))
    }
}

/// Reads a job file out of a tree.
pub(crate) fn job_file(root: &Node, decoder: &mut Decoder) -> JobFile {
    let mut file = JobFile::default();
    let Some(entries) = decoder.table(root, &["job", "task"]) else {
        return file;
    };
    file.job = decoder.field(entries, "job").unwrap_or_default();
    if !entries.iter().any(|entry| entry.key == "task") {
        let hint = "add a [[task]] table with a command";
        decoder.note(root.place, "the job has no tasks", hint);
    }
    file.task = decoder.field(entries, "task").unwrap_or_default();
    file
}

impl Decode for JobHeader {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        let entries = decoder.table(node, &["name", "queue", "priority", "labels"])?;
        Some(Self {
            name: decoder.field(entries, "name"),
            queue: decoder.field(entries, "queue").unwrap_or_else(|| DEFAULT_QUEUE.to_owned()),
            priority: decoder.field(entries, "priority").unwrap_or_default(),
            labels: decoder.field(entries, "labels").unwrap_or_default(),
        })
    }
}

/// The keys of a `[[task]]` table.
const TASK_KEYS: [&str; 19] = [
    "name",
    "command",
    "http",
    "noop",
    "array",
    "entries",
    "each_line",
    "parallel",
    "env",
    "cwd",
    "stdin",
    "cpus",
    "memory",
    "resources",
    "require",
    "estimate",
    "timeout",
    "grace",
    "retry",
];

impl Decode for TaskGroup {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        let entries = decoder.table(node, &TASK_KEYS)?;
        Some(Self {
            name: decoder.field(entries, "name"),
            command: decoder.field(entries, "command"),
            http: decoder.field(entries, "http"),
            noop: decoder.field(entries, "noop").unwrap_or_default(),
            array: decoder.field(entries, "array"),
            entries: decoder.field(entries, "entries").unwrap_or_default(),
            each_line: decoder.field(entries, "each_line"),
            parallel: decoder.field(entries, "parallel"),
            env: decoder.field(entries, "env").unwrap_or_default(),
            cwd: decoder.field(entries, "cwd"),
            stdin: decoder.field(entries, "stdin"),
            cpus: decoder.field(entries, "cpus"),
            memory: decoder.field(entries, "memory"),
            resources: decoder.field(entries, "resources").unwrap_or_default(),
            require: decoder.field(entries, "require").unwrap_or_default(),
            estimate: decoder.field(entries, "estimate"),
            timeout: decoder.field(entries, "timeout"),
            grace: decoder.field(entries, "grace"),
            retry: decoder.field(entries, "retry"),
        })
    }
}

impl Decode for HttpRequest {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        let entries = decoder.table(node, &["method", "url", "headers", "body", "expect"])?;
        if !entries.iter().any(|entry| entry.key == "url") {
            decoder.note(node.place, "the request has no url", "add url = \"http://…\"");
        }
        Some(Self {
            method: decoder.field(entries, "method"),
            url: decoder.field(entries, "url").unwrap_or_default(),
            headers: decoder.field(entries, "headers").unwrap_or_default(),
            body: decoder.field(entries, "body"),
            expect: decoder.field(entries, "expect"),
        })
    }
}

impl Decode for Retry {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        let entries = decoder.table(node, &["max", "backoff", "jitter", "on"])?;
        Some(Self {
            max: decoder.field(entries, "max").unwrap_or_default(),
            backoff: decoder.field(entries, "backoff"),
            jitter: decoder.field(entries, "jitter"),
            on: decoder.field(entries, "on").unwrap_or_default(),
        })
    }
}

impl Decode for CommandLine {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        match &node.value {
            Value::Text(line) => Some(Self::Shell(line.clone())),
            Value::List(_) => Vec::decode(node, decoder).map(Self::Program),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_)
            | Value::Table(_)
            | Value::Other(_) => {
                decoder.wrong_kind(node, "a list of texts or one text for the shell")
            }
        }
    }
}

impl Decode for String {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        match &node.value {
            Value::Text(text) => Some(text.clone()),
            _ => decoder.wrong_kind(node, "a text"),
        }
    }
}

impl Decode for bool {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        match &node.value {
            Value::Bool(truth) => Some(*truth),
            _ => decoder.wrong_kind(node, "true or false"),
        }
    }
}

macro_rules! decode_integer {
    ($($integer:ident)*) => { $(
        impl Decode for $integer {
            fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
                let Value::Int(number) = &node.value else {
                    return decoder.wrong_kind(node, "a whole number");
                };
                // Told as `int32` in the schema, which every language has.
                let value = i32::try_from(*number).ok();
                let value = value.and_then(|number| $integer::try_from(number).ok());
                if value.is_none() {
                    let most = i64::from($integer::MAX).min(i32::MAX.into());
                    let hint = format!("from {} to {most}", $integer::MIN);
                    decoder.note(node.place, format!("{number} is out of range"), hint);
                }
                value
            }
        }
    )* };
}

decode_integer!(i32 u32 u8);

macro_rules! decode_text {
    ($($scalar:ident)*) => { $(
        impl Decode for $scalar {
            fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
                match &node.value {
                    Value::Text(text) => parsed(text, node.place, decoder),
                    _ => decoder.wrong_kind(node, "a text"),
                }
            }
        }
    )* };
}

decode_text!(BackoffRange Requirement RetryOn);

fn parsed<T>(text: &str, place: Place, decoder: &mut Decoder) -> Option<T>
where
    T: FromStr<Err = ScalarError>,
{
    text.parse().map_err(|error: ScalarError| decoder.note(place, error.message, error.hint)).ok()
}

impl Decode for Duration {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        match &node.value {
            Value::Text(text) => parsed(text, node.place, decoder),
            Value::Int(number) => {
                let hint = format!("add a unit: \"{number}s\", \"{number}m\"");
                decoder.note(node.place, format!("{number} is not a duration"), hint);
                None
            }
            _ => decoder.wrong_kind(node, "a duration such as \"5m\""),
        }
    }
}

impl Decode for ArrayRange {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        match &node.value {
            Value::Text(text) => parsed(text, node.place, decoder),
            Value::Int(number) => {
                let hint = format!("write \"1-{number}\" for {number} tasks");
                decoder.note(node.place, format!("{number} is not an array"), hint);
                None
            }
            _ => decoder.wrong_kind(node, "an array such as \"1-1000\""),
        }
    }
}

impl Decode for Amount {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        let amount = match &node.value {
            Value::Text(text) => return parsed(text, node.place, decoder),
            Value::Int(number) => {
                u64::try_from(*number).ok().and_then(|n| n.checked_mul(1_000)).map(Self)
            }
            Value::Float(number) => Self::from_f64(*number),
            _ => return decoder.wrong_kind(node, "a number"),
        };
        if amount.is_none() {
            let hint = "write a number from 0 with up to three decimals";
            decoder.note(node.place, "this is not an amount", hint);
        }
        amount
    }
}

impl Decode for Size {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        match &node.value {
            Value::Text(text) => parsed(text, node.place, decoder),
            Value::Int(number) if *number >= 0 => u64::try_from(*number).ok().map(Self),
            _ => decoder.wrong_kind(node, "a size such as \"512MiB\", or bytes"),
        }
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        let Value::List(items) = &node.value else {
            return decoder.wrong_kind(node, "a list");
        };
        let mut decode = |(index, item): (usize, &Node)| {
            decoder.within(&index.to_string(), |decoder| T::decode(item, decoder))
        };
        Some(items.iter().enumerate().filter_map(&mut decode).collect())
    }
}

impl<T: Decode> Decode for BTreeMap<String, T> {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        let Value::Table(entries) = &node.value else {
            return decoder.wrong_kind(node, "a table");
        };
        let mut decode = |entry: &Entry| {
            let value = decoder.within(&entry.key, |decoder| T::decode(&entry.node, decoder))?;
            Some((entry.key.clone(), value))
        };
        Some(entries.iter().filter_map(&mut decode).collect())
    }
}
