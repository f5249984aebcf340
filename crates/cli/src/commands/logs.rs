//! `rota logs`: what tasks wrote.

use clap::{Args, ValueEnum};
use futures_util::StreamExt;
use rota_api::{ErrorCode, LogQuery, Stream, Task, TaskQuery, TaskState, dropped_mark};
use rota_client::{Client, LogPart, Logs};

use super::App;
use crate::follow::Pace;
use crate::select;
use crate::sink::Sink;
use crate::trouble::{Result, Trouble};

/// Tasks whose output is fetched ahead.
const AHEAD: usize = 8;
/// Tasks that are looked at together while following.
const WINDOW: u32 = 100;
/// Bytes that a line is taken to have, when the last lines are asked for.
const LINE_BYTES: u64 = 512;

/// `rota logs`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota logs 17                     everything that job 17 wrote, task by task
  rota logs 17.3 -f                task 3 of job 17, as it writes
  rota logs 17.3#1 --stream stderr the first attempt
  rota logs last --tail 20

Output goes through unchanged into files and pipes. On a terminal, control sequences other than
colours are made visible unless --raw is given.")]
pub(crate) struct LogsArgs {
    /// A job (17, last), a task (17.3) or an attempt (17.3#2)
    #[arg(add = crate::complete::tasks())]
    target: String,
    /// Go on until it is over
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines of each task
    #[arg(long, value_name = "N")]
    tail: Option<u64>,
    /// Which stream
    #[arg(long, value_enum, default_value_t = Which::Both)]
    stream: Which,
    /// Put the task's id before each line even if there is only one task
    #[arg(long)]
    prefix: bool,
    /// Let every control sequence through to the terminal
    #[arg(long)]
    raw: bool,
}

/// Which streams to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    /// Standard output
    Stdout,
    /// Standard error
    Stderr,
    /// Both; standard error goes to this command's
    Both,
}

/// How to print output.
#[derive(Clone, Debug)]
pub(crate) struct Style {
    pub(crate) streams: Vec<Stream>,
    /// Only the last lines.
    pub(crate) tail: Option<u64>,
    pub(crate) prefix: bool,
    /// Streams on which control sequences other than colours are made visible.
    pub(crate) safe: Vec<Stream>,
}

/// Prints the output of a job, task or attempt.
pub(crate) async fn logs(app: &App, args: LogsArgs) -> Result<u8> {
    let client = app.client()?;
    let streams = match args.stream {
        Which::Stdout => vec![Stream::Stdout],
        Which::Stderr => vec![Stream::Stderr],
        Which::Both => vec![Stream::Stdout, Stream::Stderr],
    };
    let safe = if args.raw { Vec::new() } else { app.screen().terminals() };
    let mut style = Style { streams, tail: args.tail, prefix: args.prefix, safe };
    if args.target.contains(['.', '#']) {
        let (task, attempt) = select::task(&client, &args.target).await?;
        return one(&client, &task.to_string(), attempt, args.follow, &style).await.map(|()| 0);
    }
    let job = select::job(&client, &args.target).await?;
    let tasks = client.job(job, false).await?.tasks;
    if tasks == 1 {
        return one(&client, &format!("{job}.0"), None, args.follow, &style).await.map(|()| 0);
    }
    style.prefix = true;
    all(&client, job, args.follow, &style).await.map(|()| 0)
}

/// Prints the output of one task: of one attempt, or of the last one and, when following, of those that come after it.
async fn one(
    client: &Client,
    id: &str,
    attempt: Option<u32>,
    follow: bool,
    style: &Style,
) -> Result<()> {
    if let Some(number) = attempt {
        return print(client, id, number, follow, style).await;
    }
    let task = client.task(id).await?;
    if !follow {
        if task.attempt == 0 {
            let message = format!("task {id} has not started");
            return Err(Trouble::new(ErrorCode::AttemptNotFound, message)
                .hint(format!("`rota task explain {id}` says why; -f waits for it")));
        }
        return print(client, id, task.attempt, false, style).await;
    }
    follow_task(client, id, style).await.map(drop)
}

/// Prints what a task writes until it is over, attempt after attempt. Returns the finished task.
pub(crate) async fn follow_task(client: &Client, id: &str, style: &Style) -> Result<Task> {
    let mut printed = 0;
    let mut pace = Pace::new();
    loop {
        let task = client.task(id).await?;
        if task.attempt > printed {
            // Attempts may have come and gone since the last look: each is printed.
            match print(client, id, printed + 1, true, style).await {
                Ok(()) => printed += 1,
                // An attempt that never got to its node has no output.
                Err(trouble)
                    if matches!(
                        trouble.code,
                        ErrorCode::AttemptNotFound | ErrorCode::OutputExpired
                    ) =>
                {
                    printed += 1;
                }
                Err(trouble) => return Err(trouble),
            }
            pace = Pace::new();
        } else if matches!(
            task.state,
            TaskState::Succeeded | TaskState::Failed | TaskState::Cancelled
        ) {
            return Ok(task);
        }
        pace.wait().await;
    }
}

/// Prints one attempt's output; both streams at once when following.
async fn print(client: &Client, id: &str, attempt: u32, follow: bool, style: &Style) -> Result<()> {
    let copies =
        style.streams.iter().map(|stream| copy(client, id, attempt, *stream, follow, style));
    if follow {
        futures_util::future::try_join_all(copies).await.map(drop)
    } else {
        for copy in copies {
            copy.await?;
        }
        Ok(())
    }
}

#[expect(clippy::too_many_arguments, reason = "one stream of one attempt, and how to print it")]
async fn copy(
    client: &Client,
    id: &str,
    attempt: u32,
    stream: Stream,
    follow: bool,
    style: &Style,
) -> Result<()> {
    let prefix = if style.prefix { format!("{id} | ") } else { String::new() };
    let mut sink = Sink::new(stream, prefix, style.safe.contains(&stream));
    let query = LogQuery {
        stream: Some(stream),
        attempt: Some(attempt),
        offset: None,
        tail: style.tail.map(|lines| lines.saturating_mul(LINE_BYTES)),
        follow: follow.then_some(true),
    };
    let mut pace = Pace::new();
    let mut logs = loop {
        match client.logs(id, query.clone()).await {
            // The attempt runs, and its worker can't be reached this instant.
            Err(error) if follow && error.is(ErrorCode::OutputUnavailable) => pace.wait().await,
            opened => break opened?,
        }
    };
    if let (Some(lines), false) = (style.tail, follow) {
        sink.write(last_lines(&whole(logs).await?, lines))?;
        return sink.finish();
    }
    while let Some(part) = logs.next().await? {
        sink.write_part(&part)?;
    }
    sink.finish()
}

/// All of an output, with a line where the output limit dropped something.
async fn whole(mut logs: Logs) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    while let Some(LogPart { skipped, data }) = logs.next().await? {
        if skipped > 0 {
            let break_line = text.last().is_some_and(|last| *last != b'\n');
            text.extend_from_slice(if break_line { b"\n" } else { b"" });
            text.extend_from_slice(dropped_mark(skipped).as_bytes());
        }
        text.extend(data);
    }
    Ok(text)
}

/// The last `lines` lines of a text.
fn last_lines(text: &[u8], lines: u64) -> &[u8] {
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let mut seen = 0;
    for (at, byte) in body.iter().enumerate().rev() {
        if *byte == b'\n' {
            seen += 1;
            if seen == lines {
                return text.get(at + 1..).unwrap_or_default();
            }
        }
    }
    if lines == 0 { &[] } else { text }
}

/// Prints the output of every task of a job in the order of the tasks; when following, as they end.
async fn all(client: &Client, job: u64, follow: bool, style: &Style) -> Result<()> {
    let mut window = Window::new(job);
    let mut pace = Pace::new();
    loop {
        let (ready, more) = window.next(client, follow).await?;
        if !ready.is_empty() {
            pace = Pace::new();
        }
        let mut outputs = futures_util::stream::iter(ready.iter().filter(|task| task.attempt > 0))
            .map(|task| output(client, task, style))
            .buffered(AHEAD);
        while let Some(output) = outputs.next().await {
            output?.write()?;
        }
        if !more {
            return Ok(());
        }
        if ready.is_empty() {
            pace.wait().await;
        }
    }
}

/// Walks over the tasks of a job in order, stopping at those that are not over.
pub(crate) struct Window {
    job: u64,
    /// Where the current page begins.
    cursor: Option<String>,
    /// Tasks of the current page that were given out.
    given: usize,
}

impl Window {
    pub(crate) fn new(job: u64) -> Self {
        Self { job, cursor: None, given: 0 }
    }

    /// The tasks that follow, up to the first one that is not over if `only_over`; and whether there are more to come.
    pub(crate) async fn next(
        &mut self,
        client: &Client,
        only_over: bool,
    ) -> Result<(Vec<Task>, bool)> {
        let query =
            TaskQuery { cursor: self.cursor.clone(), limit: Some(WINDOW), ..TaskQuery::default() };
        let page = client.tasks(self.job, &query).await?;
        let over = |task: &Task| {
            !only_over
                || matches!(
                    task.state,
                    TaskState::Succeeded | TaskState::Failed | TaskState::Cancelled
                )
        };
        let total = page.items.len();
        let ready: Vec<Task> = page.items.into_iter().skip(self.given).take_while(over).collect();
        self.given += ready.len();
        let page_done = self.given >= total;
        if page_done && page.next_cursor.is_some() {
            self.cursor = page.next_cursor;
            self.given = 0;
            return Ok((ready, true));
        }
        Ok((ready, !page_done))
    }
}

/// What a task wrote, ready to be printed.
pub(crate) struct Written {
    chunks: Vec<(Sink, Vec<u8>)>,
}

impl Written {
    pub(crate) fn write(self) -> Result<()> {
        for (mut sink, bytes) in self.chunks {
            sink.write(&bytes)?;
            sink.finish()?;
        }
        Ok(())
    }
}

/// Fetches what a task wrote: from its record if that has all of it, else from its node.
pub(crate) async fn output(client: &Client, task: &Task, style: &Style) -> Result<Written> {
    let full = client.task(&task.id).await?;
    let detail = full.attempts.last().and_then(|attempt| attempt.detail.as_ref());
    let prefix = if style.prefix { format!("{} | ", task.id) } else { String::new() };
    let mut chunks = Vec::new();
    for stream in &style.streams {
        let sink = Sink::new(*stream, prefix.clone(), style.safe.contains(stream));
        let kept = detail.map(|detail| match stream {
            Stream::Stdout => (&detail.stdout_tail, detail.stdout_bytes),
            Stream::Stderr => (&detail.stderr_tail, detail.stderr_bytes),
        });
        let bytes = match kept {
            Some((_, 0)) => continue,
            Some((tail, all)) if tail.len() as u64 == all && !tail.contains('\u{fffd}') => {
                tail.clone().into_bytes()
            }
            kept => match fetch(client, &full, *stream).await {
                Ok(bytes) => bytes,
                // The record's end is better than nothing.
                Err(trouble) => match kept.filter(|_| {
                    matches!(trouble.code, ErrorCode::OutputExpired | ErrorCode::OutputUnavailable)
                }) {
                    Some((tail, all)) => {
                        let missing = all.saturating_sub(tail.len() as u64);
                        format!("{}{tail}", dropped_mark(missing)).into_bytes()
                    }
                    None => return Err(trouble),
                },
            },
        };
        let bytes = style.tail.map_or(bytes.as_slice(), |lines| last_lines(&bytes, lines)).to_vec();
        chunks.push((sink, bytes));
    }
    Ok(Written { chunks })
}

async fn fetch(client: &Client, task: &Task, stream: Stream) -> Result<Vec<u8>> {
    let query =
        LogQuery { stream: Some(stream), attempt: Some(task.attempt), ..LogQuery::default() };
    whole(client.logs(&task.id, query).await?).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_cut_at_line_ends() {
        assert_eq!(last_lines(b"a\nb\nc\n", 2), b"b\nc\n");
        assert_eq!(last_lines(b"a\nb\nc", 1), b"c");
        assert_eq!(last_lines(b"a\n", 5), b"a\n");
        assert_eq!(last_lines(b"a\n", 0), b"");
    }
}
