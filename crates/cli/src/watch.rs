//! `--watch`: shows something again whenever it changes.
//!
//! Events of the server say when to look again, so that nothing is asked for while nothing happens. On a terminal the old look is
//! replaced; into a pipe the next one is appended, and of lists of lines (`-q`, `-o jsonl`) only what is new or has changed.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::pin::pin;
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use rota_api::{ErrorCode, EventQuery, exit};
use rota_client::Client;
use tokio::time::{Instant, timeout, timeout_at};

use crate::commands::App;
use crate::output::Format;
use crate::trouble::Result;

/// The shortest pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// How often a terminal is drawn anew although nothing happened: ages go on.
const AGE_EVERY: Duration = Duration::from_secs(2);
/// Rows of a terminal that does not say how many it has.
const ROWS_DEFAULT: usize = 24;

/// The flag.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Watch {
    /// Show it again whenever it changes, until it is over or Ctrl-C
    #[arg(short, long)]
    watch: bool,
}

/// What one look shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Goes to standard output.
    pub(crate) data: String,
    /// Goes to standard error.
    pub(crate) remarks: Vec<String>,
    /// Whether nothing of it can change any more.
    pub(crate) over: bool,
}

impl Frame {
    /// Adds another part below.
    pub(crate) fn add(&mut self, text: &str) {
        if !self.data.is_empty() && !text.is_empty() {
            self.data.push('\n');
        }
        self.data.push_str(text);
    }
}

impl Watch {
    /// Shows what `look` sees: once, or again and again when events that `query` admits say so.
    pub(crate) async fn show(
        self,
        app: &App,
        client: &Client,
        query: EventQuery,
        look: impl AsyncFn() -> Result<Frame>,
    ) -> Result<u8> {
        if !self.watch {
            let frame = look().await?;
            app.out.print(&frame.data)?;
            frame.remarks.iter().for_each(|line| app.screen().remark(line));
            return Ok(exit::OK);
        }
        // The stream first: what happens after the look is an event then.
        let events = client.events(query).await?;
        let mut changes = pin!(unfold(events, |mut events| async move {
            let next = events.next().await;
            Some((next, events))
        }));
        let mut view = View::new(app);
        loop {
            match look().await {
                Ok(frame) => {
                    view.draw(&frame)?;
                    if frame.over {
                        return Ok(exit::OK);
                    }
                }
                // A server that is being restarted: the stream of events comes back by itself, or says that it can't.
                Err(trouble) if trouble.exit_code() == exit::UNREACHABLE => {}
                Err(trouble) => return Err(trouble),
            }
            let soon = Instant::now() + LOOK_PAUSE;
            let patience = if view.in_place { AGE_EVERY } else { Duration::MAX };
            if let Ok(change) = timeout(patience, changes.next()).await {
                accept(change)?;
            }
            while let Ok(change) = timeout_at(soon, changes.next()).await {
                accept(change)?;
            }
        }
    }
}

/// An event, whichever, is a reason to look; so is that some were missed.
fn accept(change: Option<rota_client::Result<rota_api::Event>>) -> Result<()> {
    match change {
        Some(Err(error)) if !error.is(ErrorCode::EventsCompacted) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Where looks are drawn.
struct View<'a> {
    app: &'a App,
    in_place: bool,
    /// Rows of the last look on the terminal.
    rows: usize,
    last: Option<String>,
}

impl<'a> View<'a> {
    fn new(app: &'a App) -> Self {
        let able = app.screen().terminal && std::env::var("TERM").as_deref() != Ok("dumb");
        Self { app, in_place: able && app.out.is_for_people(), rows: 0, last: None }
    }

    fn draw(&mut self, frame: &Frame) -> Result<()> {
        if self.in_place {
            let height = terminal_size::terminal_size()
                .map_or(ROWS_DEFAULT, |(_, height)| usize::from(height.0));
            let (text, rows) = redrawn(frame, self.rows, height);
            self.rows = rows;
            return self.app.out.text(&text);
        }
        let by_line = self.app.screen().quiet || self.app.out.format == Format::Jsonl;
        let text = appended(self.last.as_deref(), &frame.data, by_line);
        let separate = self.last.is_some() && self.app.out.is_for_people();
        self.last = Some(frame.data.clone());
        match text {
            Some(text) if separate => self.app.out.text(&format!("\n{text}")),
            Some(text) => self.app.out.print(&text),
            None => Ok(()),
        }
    }
}

/// The sequence that replaces `before` rows by this look, without the last line end, and the rows that it takes. Rows that are too
/// long for the terminal are cut by it; rows that are too many are left out.
fn redrawn(frame: &Frame, before: usize, height: usize) -> (String, usize) {
    let mut lines: Vec<&str> = frame.data.lines().collect();
    lines.extend(frame.remarks.iter().map(String::as_str));
    let room = height.saturating_sub(1).max(2);
    let more;
    if lines.len() > room {
        more = format!("… {} more lines", lines.len() - (room - 1));
        lines.truncate(room - 1);
        lines.push(&more);
    }
    let mut text = String::new();
    if before > 0 {
        write!(text, "\u{1b}[{before}F").ok();
    }
    // Erases everything below, and keeps lines from wrapping while they are written.
    text.push_str("\u{1b}[J\u{1b}[?7l");
    text.push_str(&lines.join("\n"));
    text.push_str("\u{1b}[?7h");
    (text, lines.len().max(1))
}

/// What a pipe gets after `last`; nothing if nothing changed.
fn appended(last: Option<&str>, now: &str, by_line: bool) -> Option<String> {
    if last == Some(now) {
        return None;
    }
    if !by_line {
        return Some(now.to_owned());
    }
    let known: BTreeSet<&str> = last.unwrap_or_default().lines().collect();
    let fresh: Vec<&str> = now.lines().filter(|line| !known.contains(line)).collect();
    (!fresh.is_empty()).then(|| fresh.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(lines: usize) -> Frame {
        let lines: Vec<String> = (1..=lines).map(|line| format!("line {line}")).collect();
        Frame { data: lines.join("\n"), ..Frame::default() }
    }

    #[test]
    fn a_look_replaces_the_one_before() {
        let (first, rows) = redrawn(&frame(2), 0, 24);
        assert_eq!((first.as_str(), rows), ("\u{1b}[J\u{1b}[?7lline 1\nline 2\u{1b}[?7h", 2));
        let (second, rows) = redrawn(&frame(1), rows, 24);
        assert_eq!((second.as_str(), rows), ("\u{1b}[2F\u{1b}[J\u{1b}[?7lline 1\u{1b}[?7h", 1));
    }

    #[test]
    fn a_look_is_never_higher_than_the_terminal() {
        for (lines, rows) in [(8, 8), (9, 9), (10, 9)] {
            assert_eq!(redrawn(&frame(lines), 0, 10).1, rows, "{lines} lines on 10 rows");
        }
        assert!(redrawn(&frame(10), 0, 10).0.contains("line 8\n… 2 more lines"));
    }

    #[test]
    fn a_pipe_gets_what_changed() {
        assert_eq!(appended(None, "a\nb", false), Some("a\nb".to_owned()));
        assert_eq!(appended(Some("a\nb"), "a\nb", false), None);
        assert_eq!(appended(Some("a\nb"), "a\nc", false), Some("a\nc".to_owned()));
        assert_eq!(appended(Some("a\nb"), "c\na\nb", true), Some("c".to_owned()));
        assert_eq!(appended(Some("a\nb"), "a", true), None);
    }
}
