//! `rota logs`: what tasks wrote.

use clap::{Args, ValueEnum};
use futures_util::StreamExt;
use rota_api::{ErrorCode, LogQuery, Stream, Task, TaskQuery, TaskState};
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
    let mut query =
        LogQuery { stream: Some(stream), attempt: Some(attempt), ..LogQuery::default() };
    let mut pace = Pace::new();
    if let Some(lines) = style.tail {
        let (parts, end) = loop {
            match last_of(client, id, &query, lines).await {
                Err(trouble) if follow && trouble.code == ErrorCode::OutputUnavailable => {
                    pace.wait().await;
                }
                read => break read?,
            }
        };
        for part in &parts {
            sink.write_part(part)?;
        }
        if !follow {
            return sink.finish();
        }
        query.offset = end;
    }
    query.follow = follow.then_some(true);
    let mut logs = loop {
        match client.logs(id, query.clone()).await {
            // The attempt runs, and its worker can't be reached this instant.
            Err(error) if follow && error.is(ErrorCode::OutputUnavailable) => pace.wait().await,
            opened => break opened?,
        }
    };
    while let Some(part) = logs.next().await? {
        sink.write_part(&part)?;
    }
    sink.finish()
}

/// The last lines of an output as it is now, and where it ends.
async fn last_of(
    client: &Client,
    id: &str,
    query: &LogQuery,
    lines: u64,
) -> Result<(Vec<LogPart>, Option<u64>)> {
    let mut bytes = lines.saturating_mul(LINE_BYTES).max(LINE_BYTES);
    let mut before = None;
    loop {
        let mut logs = client.logs(id, LogQuery { tail: Some(bytes), ..query.clone() }).await?;
        let begin = logs.offset();
        let parts = whole(&mut logs).await?;
        // A line is whole if the end of the one before it is there too.
        let ends = parts.iter().flat_map(|part| &part.data).filter(|byte| **byte == b'\n').count();
        let is_all = begin.is_none_or(|begin| begin == 0) || begin == before;
        if ends as u64 > lines || is_all {
            return Ok((last_lines(parts, lines), logs.offset()));
        }
        before = begin;
        bytes = bytes.saturating_mul(4);
    }
}

/// All of an output.
async fn whole(logs: &mut Logs) -> Result<Vec<LogPart>> {
    let mut parts = Vec::new();
    while let Some(part) = logs.next().await? {
        parts.push(part);
    }
    Ok(parts)
}

/// The last `lines` lines of an output.
fn last_lines(parts: Vec<LogPart>, lines: u64) -> Vec<LogPart> {
    let mut kept = Vec::new();
    let mut ends = 0;
    let mut behind = 0;
    for mut part in parts.into_iter().rev().take_while(|_| lines > 0) {
        // The end of the last line begins no further one.
        let begins = part.data.iter().enumerate().rev().find(|(_, byte)| {
            ends += u64::from(**byte == b'\n' && behind > 0);
            behind += 1;
            **byte == b'\n' && ends == lines
        });
        if let Some((at, _)) = begins {
            kept.push(LogPart { skipped: 0, data: part.data.split_off(at + 1) });
            break;
        }
        kept.push(part);
    }
    kept.reverse();
    kept
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
    streams: Vec<(Sink, Kept)>,
}

/// What is left of one stream.
#[derive(Debug, Default)]
struct Kept {
    parts: Vec<LogPart>,
    /// What is not, and why; ends its line.
    remark: String,
}

impl Written {
    pub(crate) fn write(self) -> Result<()> {
        for (mut sink, kept) in self.streams {
            if !kept.remark.is_empty() {
                sink.remark(&kept.remark)?;
            }
            for part in &kept.parts {
                sink.write_part(part)?;
            }
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
    let mut streams = Vec::new();
    for stream in &style.streams {
        let sink = Sink::new(*stream, prefix.clone(), style.safe.contains(stream));
        let kept = detail.map(|detail| match stream {
            Stream::Stdout => (&detail.stdout_tail, detail.stdout_bytes),
            Stream::Stderr => (&detail.stderr_tail, detail.stderr_bytes),
        });
        let mut kept = match kept {
            Some((_, 0)) => continue,
            Some((tail, all)) if tail.len() as u64 == all && !tail.contains('\u{fffd}') => {
                Kept { parts: vec![text(tail)], ..Kept::default() }
            }
            kept => match (fetch(client, &full, *stream).await, kept) {
                (Ok(parts), _) => Kept { parts, ..Kept::default() },
                (Err(trouble), Some((tail, all))) => from_record(trouble, tail, all)?,
                (Err(trouble), None) => return Err(trouble),
            },
        };
        if let Some(lines) = style.tail {
            kept.parts = last_lines(kept.parts, lines);
        }
        streams.push((sink, kept));
    }
    Ok(Written { streams })
}

fn text(text: &str) -> LogPart {
    LogPart { skipped: 0, data: text.as_bytes().to_vec() }
}

/// What the record of an attempt has of an output that can't be had any more: its end is better than nothing.
fn from_record(trouble: Trouble, tail: &str, all: u64) -> Result<Kept> {
    if !matches!(trouble.code, ErrorCode::OutputExpired | ErrorCode::OutputUnavailable) {
        return Err(trouble);
    }
    let kept = tail.len() as u64;
    let code = trouble.code.name();
    let remark = format!("[… the record has the last {kept} of {all} bytes only: {code} …]\n");
    Ok(Kept { parts: vec![text(tail)], remark })
}

async fn fetch(client: &Client, task: &Task, stream: Stream) -> Result<Vec<LogPart>> {
    let query =
        LogQuery { stream: Some(stream), attempt: Some(task.attempt), ..LogQuery::default() };
    whole(&mut client.logs(&task.id, query).await?).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_cut_at_line_ends_however_the_output_comes_in_parts() {
        for (output, lines, wanted) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 1, "c"),
            ("a\nb\n\n", 1, "\n"),
            ("a\nb\nc\n", 3, "a\nb\nc\n"),
            ("a\n", 5, "a\n"),
            ("a\n", 0, ""),
            ("", 1, ""),
        ] {
            for size in 1..=output.len().max(1) {
                let parts: Vec<LogPart> = output
                    .as_bytes()
                    .chunks(size)
                    .map(|data| LogPart { skipped: 0, data: data.to_vec() })
                    .collect();
                let kept = last_lines(parts, lines).into_iter().flat_map(|part| part.data);
                let kept = String::from_utf8(kept.collect()).expect("text");
                assert_eq!(kept, wanted, "{lines} of {output:?} in parts of {size}");
            }
        }
    }

    #[test]
    fn a_gap_is_told_only_if_it_lies_among_the_lines_that_are_shown() {
        let part = |skipped, data: &str| LogPart { skipped, ..text(data) };
        let parts = || vec![part(7, "a\n"), part(9, "b\nc\n")];
        assert_eq!(last_lines(parts(), 1), [part(0, "c\n")]);
        assert_eq!(last_lines(parts(), 2), [part(0, ""), part(9, "b\nc\n")]);
        assert_eq!(last_lines(parts(), 3), parts());
    }

    #[test]
    fn the_record_stands_in_only_for_output_that_is_gone_and_says_so() {
        for (code, stands_in) in [
            (ErrorCode::OutputExpired, true),
            (ErrorCode::OutputUnavailable, true),
            (ErrorCode::Overloaded, false),
            (ErrorCode::JobNotFound, false),
        ] {
            let kept = from_record(Trouble::new(code, "no"), "end", 10).ok();
            let remark = kept.map(|kept| kept.remark);
            let wanted =
                format!("[… the record has the last 3 of 10 bytes only: {} …]\n", code.name());
            assert_eq!(remark, stands_in.then_some(wanted));
        }
    }
}
