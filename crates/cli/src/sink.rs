//! Where the output of tasks goes: raw into pipes, without harmful sequences onto terminals.

use std::io::{self, IsTerminal, Write};

use rota_api::{Stream, dropped_mark};
use rota_client::LogPart;

use crate::output::written;
use crate::screen::is_harmful;
use crate::trouble::Result;

/// Takes the bytes of one stream of one task.
#[derive(Clone, Debug)]
pub(crate) struct Sink {
    stream: Stream,
    /// Stands before each line.
    prefix: String,
    /// Whether control sequences other than colours are made visible.
    safe: bool,
    at_line_start: bool,
    escape: Escape,
    /// The beginning of a character whose other bytes have not come yet.
    begun: Vec<u8>,
}

/// How far an escape sequence has been read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// `ESC` was read.
    Begun,
    /// `ESC [` and these parameters were read.
    Parameters(Vec<u8>),
}

impl Sink {
    pub(crate) fn new(stream: Stream, prefix: String, safe: bool) -> Self {
        Self { stream, prefix, safe, at_line_start: true, escape: Escape::None, begun: Vec::new() }
    }

    /// Writes what the task wrote.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let text = self.filter(bytes);
        written(self.put(&text))
    }

    fn put(&self, text: &[u8]) -> io::Result<()> {
        match self.stream {
            Stream::Stdout => put(&mut io::stdout().lock(), text),
            Stream::Stderr => put(&mut io::stderr().lock(), text),
        }
    }

    /// Writes what the task wrote, and says how much of it is missing before that.
    pub(crate) fn write_part(&mut self, part: &LogPart) -> Result<()> {
        if part.skipped > 0 {
            self.remark(&dropped_mark(part.skipped))?;
        }
        self.write(&part.data)
    }

    /// Says a line about the output on standard error: what goes into files and pipes is the task's alone.
    pub(crate) fn remark(&mut self, line: &str) -> Result<()> {
        let seen_together = self.stream == Stream::Stderr || io::stdout().is_terminal();
        let break_line = if seen_together && !self.at_line_start { "\n" } else { "" };
        self.at_line_start |= seen_together;
        let text = format!("{break_line}{}{line}", self.prefix);
        written(put(&mut io::stderr().lock(), text.as_bytes()))
    }

    /// Ends the last line if the task did not: the next one is another task's.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let mut text = Vec::new();
        self.give_up(&mut text);
        if !text.is_empty() {
            written(self.put(&text))?;
        }
        if self.at_line_start || self.prefix.is_empty() { Ok(()) } else { self.write(b"\n") }
    }

    fn filter(&mut self, bytes: &[u8]) -> Vec<u8> {
        if !self.safe && self.prefix.is_empty() {
            if let Some(last) = bytes.last() {
                self.at_line_start = *last == b'\n';
            }
            return bytes.to_vec();
        }
        let mut text = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if self.at_line_start {
                text.extend_from_slice(self.prefix.as_bytes());
                self.at_line_start = false;
            }
            if self.safe {
                self.safe_byte(*byte, &mut text);
            } else {
                text.push(*byte);
            }
            self.at_line_start |= *byte == b'\n';
        }
        text
    }

    /// Lets text and colours through; shows everything else that a terminal would act on.
    fn safe_byte(&mut self, byte: u8, text: &mut Vec<u8>) {
        if byte.is_ascii() {
            self.give_up(text);
        }
        match (std::mem::take(&mut self.escape), byte) {
            (Escape::None, 0x1b) => self.escape = Escape::Begun,
            (Escape::None, b'\n' | b'\t' | b' '..=b'~') => text.push(byte),
            (Escape::None, 0x80..) => self.part_of_char(byte, text),
            (Escape::None, b'\r') => {}
            (Escape::None, byte) => text.extend(byte.escape_ascii()),
            (Escape::Begun, b'[') => self.escape = Escape::Parameters(Vec::new()),
            (Escape::Parameters(mut parameters), b'0'..=b'9' | b';' | b':')
                if parameters.len() < 32 =>
            {
                parameters.push(byte);
                self.escape = Escape::Parameters(parameters);
            }
            (Escape::Parameters(parameters), b'm') => {
                text.extend_from_slice(b"\x1b[");
                text.extend(parameters);
                text.push(b'm');
            }
            (Escape::Begun, byte) => {
                text.extend_from_slice(b"\\x1b");
                self.safe_byte(byte, text);
            }
            (Escape::Parameters(parameters), byte) => {
                text.extend_from_slice(b"\\x1b[");
                text.extend(parameters);
                self.safe_byte(byte, text);
            }
        }
    }

    /// Lets characters through as soon as they are whole. What is none, or would deceive, becomes visible.
    fn part_of_char(&mut self, byte: u8, text: &mut Vec<u8>) {
        self.begun.push(byte);
        match std::str::from_utf8(&self.begun) {
            Ok(whole) => {
                for c in whole.chars() {
                    if is_harmful(c) {
                        text.extend(c.escape_default().to_string().into_bytes());
                    } else {
                        text.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                }
                self.begun.clear();
            }
            // More has to come.
            Err(error) if error.error_len().is_none() => {}
            Err(_) if self.begun.len() == 1 => self.give_up(text),
            Err(_) => {
                self.begun.pop();
                self.give_up(text);
                self.part_of_char(byte, text);
            }
        }
    }

    /// Shows the bytes of a character that did not become whole.
    fn give_up(&mut self, text: &mut Vec<u8>) {
        text.extend(self.begun.drain(..).flat_map(u8::escape_ascii));
    }
}

fn put(out: &mut impl Write, text: &[u8]) -> io::Result<()> {
    out.write_all(text)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(prefix: &str, safe: bool, chunks: &[&[u8]]) -> String {
        let mut sink = Sink::new(Stream::Stdout, prefix.to_owned(), safe);
        let text: Vec<u8> = chunks.iter().flat_map(|chunk| sink.filter(chunk)).collect();
        String::from_utf8_lossy(&text).into_owned()
    }

    #[test]
    fn colours_pass_and_everything_else_becomes_visible() {
        assert_eq!(filtered("", true, &[b"a\x1b[3", b"1mb\x1b[0m\n"]), "a\u{1b}[31mb\u{1b}[0m\n");
        assert_eq!(filtered("", true, &[b"\x1b]0;title\x07\x1b[2J"]), "\\x1b]0;title\\x07\\x1b[2J");
        assert_eq!(
            filtered("", true, "ünïcode\r\n".as_bytes().chunks(1).collect::<Vec<_>>().as_slice()),
            "ünïcode\n"
        );
    }

    #[test]
    fn what_only_looks_like_text_becomes_visible_however_it_is_cut() {
        let cases: [(&[u8], &str); 5] = [
            // A control sequence of one character, as a character and as a bare byte.
            ("a\u{9b}2J\u{9d}0;t\u{9c}".as_bytes(), "a\\u{9b}2J\\u{9d}0;t\\u{9c}"),
            (b"\x9b2J\x1b\x9b", "\\x9b2J\\x1b\\x9b"),
            ("a\u{202e}b\u{61c}名🦀".as_bytes(), "a\\u{202e}b\\u{61c}名🦀"),
            // Characters that end too early, and one that is no character.
            (b"\xe5\x90\n\xc2\xc3\xbc\xf0\x9f", "\\xe5\\x90\n\\xc2ü\\xf0\\x9f"),
            (b"\xed\xa0\x80", "\\xed\\xa0\\x80"),
        ];
        for (bytes, wanted) in cases {
            for size in 1..=bytes.len() {
                let mut sink = Sink::new(Stream::Stdout, String::new(), true);
                let mut text: Vec<u8> =
                    bytes.chunks(size).flat_map(|chunk| sink.filter(chunk)).collect();
                sink.give_up(&mut text);
                assert_eq!(String::from_utf8_lossy(&text), wanted, "in parts of {size}");
            }
        }
    }

    #[test]
    fn raw_output_is_not_touched_and_prefixes_stand_before_each_line() {
        assert_eq!(filtered("", false, &[b"\x1b[2J\r\n"]), "\u{1b}[2J\r\n");
        assert_eq!(filtered("1.0 | ", false, &[b"a\nb", b"c\nd"]), "1.0 | a\n1.0 | bc\n1.0 | d");
    }
}
