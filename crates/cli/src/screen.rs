//! The terminal: colour, times and numbers for people, and texts that can't do harm.

use std::io::{IsTerminal, Write};

use rota_api::{Counts, JobState, Moment, Stream, TaskState};
use rota_types::Timestamp;

/// What the terminal can show, and how the user wants to see times.
#[derive(Clone, Debug)]
pub(crate) struct Screen {
    /// Whether standard output takes colour.
    color: bool,
    /// Whether standard error takes colour.
    color_notes: bool,
    /// Whether standard error is a terminal: only then do bars move.
    pub(crate) live: bool,
    /// Whether standard output is a terminal.
    pub(crate) terminal: bool,
    /// Whether to print instants instead of ages.
    pub(crate) utc: bool,
    /// Whether to leave out what is not data.
    pub(crate) quiet: bool,
    /// Stands for the time of day in tests.
    fixed: Option<Timestamp>,
}

impl Screen {
    /// Looks at the process's streams and environment.
    pub(crate) fn detect(no_color: bool, utc: bool, quiet: bool) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let forced = set("CLICOLOR_FORCE") && !no_color;
        let allowed =
            !no_color && !set("NO_COLOR") && std::env::var("TERM").as_deref() != Ok("dumb");
        let terminal = std::io::stdout().is_terminal();
        let live = std::io::stderr().is_terminal();
        Self {
            color: forced || (allowed && terminal),
            color_notes: forced || (allowed && live),
            live,
            terminal,
            utc,
            quiet,
            fixed: None,
        }
    }

    /// A screen for tests: no colour, at this time.
    #[cfg(test)]
    pub(crate) fn plain(now: Timestamp) -> Self {
        Self {
            color: false,
            color_notes: false,
            live: false,
            terminal: false,
            utc: false,
            quiet: false,
            fixed: Some(now),
        }
    }

    /// The standard streams that are terminals.
    pub(crate) fn terminals(&self) -> Vec<Stream> {
        let all = [(Stream::Stdout, self.terminal), (Stream::Stderr, self.live)];
        all.into_iter().filter_map(|(stream, terminal)| terminal.then_some(stream)).collect()
    }

    /// Writes a line to standard error. That it can't be written is nobody's concern.
    pub(crate) fn note(&self, line: &str) {
        writeln!(std::io::stderr().lock(), "{line}").ok();
    }

    /// Shows on a terminal how far something is, in the place of what was shown before.
    pub(crate) fn progress(&self, line: &str) {
        if self.live && !self.quiet {
            let mut out = std::io::stderr().lock();
            write!(out, "\r\x1b[K{line}").and_then(|()| out.flush()).ok();
        }
    }

    /// Writes a line to standard error unless the user asked for quiet.
    pub(crate) fn remark(&self, line: &str) {
        if !self.quiet {
            self.note(line);
        }
    }

    pub(crate) fn red(&self, text: &str) -> String {
        paint(self.color_notes, "31;1", text)
    }

    pub(crate) fn dim(&self, text: &str) -> String {
        paint(self.color_notes, "2", text)
    }

    pub(crate) fn good(&self, text: &str) -> String {
        paint(self.color, "32", text)
    }

    pub(crate) fn bad(&self, text: &str) -> String {
        paint(self.color, "31", text)
    }

    pub(crate) fn busy(&self, text: &str) -> String {
        paint(self.color, "36", text)
    }

    pub(crate) fn faint(&self, text: &str) -> String {
        paint(self.color, "2", text)
    }

    pub(crate) fn strong(&self, text: &str) -> String {
        paint(self.color, "1", text)
    }

    /// `✔ succeeded`, coloured.
    pub(crate) fn job_state(&self, state: JobState) -> String {
        let text = format!("{} {state}", job_symbol(state));
        match state {
            JobState::Queued => text,
            JobState::Running => self.busy(&text),
            JobState::Succeeded => self.good(&text),
            JobState::Failed => self.bad(&text),
            JobState::Cancelled => self.faint(&text),
        }
    }

    /// `▶ running`, coloured.
    pub(crate) fn task_state(&self, state: TaskState) -> String {
        let text = format!("{} {state}", task_symbol(state));
        match state {
            TaskState::Queued | TaskState::Waiting => text,
            TaskState::Running => self.busy(&text),
            TaskState::Succeeded => self.good(&text),
            TaskState::Failed => self.bad(&text),
            TaskState::Cancelled => self.faint(&text),
        }
    }

    fn now(&self) -> Timestamp {
        self.fixed.unwrap_or_else(|| Moment::now().0)
    }

    /// `3m ago`, or the instant itself with `--utc`.
    pub(crate) fn when(&self, moment: Moment) -> String {
        if self.utc {
            return moment.to_string();
        }
        match self.now().0.checked_sub(moment.0.0) {
            Some(micros) => format!("{} ago", short_span(micros)),
            None => format!("in {}", short_span(moment.0.0.saturating_sub(self.now().0))),
        }
    }

    /// How long it took, or has taken so far.
    pub(crate) fn took(&self, from: Option<Moment>, to: Option<Moment>) -> String {
        let Some(from) = from else { return "-".to_owned() };
        let to = to.map_or_else(|| self.now(), |to| to.0);
        short_span(to.0.saturating_sub(from.0.0))
    }
}

fn paint(color: bool, style: &str, text: &str) -> String {
    if color { format!("\u{1b}[{style}m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// A symbol that says the same as the colour.
pub(crate) fn job_symbol(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "·",
        JobState::Running => "▶",
        JobState::Succeeded => "✔",
        JobState::Failed => "✖",
        JobState::Cancelled => "⊘",
    }
}

/// A symbol that says the same as the colour.
pub(crate) fn task_symbol(state: TaskState) -> &'static str {
    match state {
        TaskState::Queued => "·",
        TaskState::Waiting => "↻",
        TaskState::Running => "▶",
        TaskState::Succeeded => "✔",
        TaskState::Failed => "✖",
        TaskState::Cancelled => "⊘",
    }
}

/// `63✔ 8▶ 2↻ 27·`: what there is of each state.
pub(crate) fn counts(counts: &Counts) -> String {
    let parts = [
        (counts.succeeded, "✔"),
        (counts.failed, "✖"),
        (counts.cancelled, "⊘"),
        (counts.running, "▶"),
        (counts.waiting, "↻"),
        (counts.queued, "·"),
    ];
    let some = parts.iter().filter(|(count, _)| *count > 0);
    let text: Vec<String> =
        some.map(|(count, symbol)| format!("{}{symbol}", grouped(*count))).collect();
    if text.is_empty() { "-".to_owned() } else { text.join(" ") }
}

/// `1 204 000`: a number that can be read.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    if digits.len() < 5 {
        return digits;
    }
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// `1 task`, `2 tasks`.
pub(crate) fn several(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(count))
}

/// `42ms`, `3.2s`, `4m02s`, `5h10m`, `3d4h`: the two parts that matter.
pub(crate) fn short_span(micros: u64) -> String {
    let seconds = micros / 1_000_000;
    match seconds {
        0 if micros < 1_000 => format!("{micros}us"),
        0 => format!("{}ms", micros / 1_000),
        1..10 => format!("{seconds}.{}s", micros / 100_000 % 10),
        10..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// `512 MiB`, `1.5 GiB`: bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1_024 {
        return format!("{count} B");
    }
    let (mut amount, mut unit) = (count as f64 / 1_024.0, 0);
    while amount >= 1_024.0 && unit + 1 < UNITS.len() {
        amount /= 1_024.0;
        unit += 1;
    }
    let decimals = usize::from(amount < 10.0 && amount.fract() > 0.05);
    format!("{amount:.decimals$} {}", UNITS.get(unit).copied().unwrap_or_default())
}

/// `███░░░░░`: a share of something.
pub(crate) fn bar(used: u64, whole: u64) -> String {
    const CELLS: u64 = 8;
    let filled = if whole == 0 { 0 } else { (used.min(whole) * CELLS).div_ceil(whole) };
    (0..CELLS).map(|cell| if cell < filled { '█' } else { '░' }).collect()
}

/// A text without anything that moves the cursor, changes colours or hides what it is.
pub(crate) fn clean(text: &str) -> String {
    if !text.chars().any(is_harmful) {
        return text.to_owned();
    }
    let escape =
        |c: char| if is_harmful(c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// Control characters, and characters that reorder or hide text.
pub(crate) fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_bytes_and_numbers_are_short() {
        let spans =
            [7, 42_000, 3_210_000, 42_000_000, 242_000_000, 18_600_000_000, 273_600_000_000];
        let texts = spans.map(short_span);
        assert_eq!(texts, ["7us", "42ms", "3.2s", "42s", "4m02s", "5h10m", "3d4h"]);
        assert_eq!(
            [0, 1_023, 1_024, 1_610_612_736].map(bytes),
            ["0 B", "1023 B", "1 KiB", "1.5 GiB"]
        );
        assert_eq!(
            [999, 1_204, 12_000, 1_000_000].map(grouped),
            ["999", "1204", "12 000", "1 000 000"]
        );
        assert_eq!(
            [bar(0, 8), bar(1, 16), bar(16, 16), bar(1, 0)],
            ["░░░░░░░░", "█░░░░░░░", "████████", "░░░░░░░░"]
        );
    }

    #[test]
    fn texts_lose_what_could_deceive() {
        assert_eq!(clean("plain ünïcode 名"), "plain ünïcode 名");
        assert_eq!(clean("a\u{1b}[31mb\r\nc\u{202e}d"), "a\\u{1b}[31mb\\r\\nc\\u{202e}d");
    }

    #[test]
    fn ages_and_counts_read_like_a_sentence() {
        let screen = Screen::plain(Timestamp(200_000_000));
        assert_eq!(screen.when(Moment(Timestamp(20_000_000))), "3m00s ago");
        assert_eq!(screen.when(Moment(Timestamp(205_000_000))), "in 5.0s");
        assert_eq!(screen.took(None, None), "-");
        assert_eq!(
            counts(&Counts {
                queued: 27,
                running: 8,
                succeeded: 63,
                waiting: 2,
                ..Counts::default()
            }),
            "63✔ 8▶ 2↻ 27·"
        );
    }
}
