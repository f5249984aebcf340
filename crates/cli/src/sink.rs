//! Where the output of tasks goes: raw into pipes, without harmful sequences onto terminals.

use std::io::{self, Write};

use rota_api::{Stream, dropped_mark};
use rota_client::LogPart;

use crate::output::written;
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
        Self { stream, prefix, safe, at_line_start: true, escape: Escape::None }
    }

    /// Writes what the task wrote.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let text = self.filter(bytes);
        let result = match self.stream {
            Stream::Stdout => put(&mut io::stdout().lock(), &text),
            Stream::Stderr => put(&mut io::stderr().lock(), &text),
        };
        written(result)
    }

    /// Writes what the task wrote, and how much of it is missing before that.
    pub(crate) fn write_part(&mut self, part: &LogPart) -> Result<()> {
        if part.skipped > 0 {
            if !self.at_line_start {
                self.write(b"\n")?;
            }
            self.write(dropped_mark(part.skipped).as_bytes())?;
        }
        self.write(&part.data)
    }

    /// Ends the last line if the task did not: the next one is another task's.
    pub(crate) fn finish(&mut self) -> Result<()> {
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
        match (std::mem::take(&mut self.escape), byte) {
            (Escape::None, 0x1b) => self.escape = Escape::Begun,
            (Escape::None, b'\n' | b'\t' | b' '..=b'~' | 0x80..) => text.push(byte),
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
    fn raw_output_is_not_touched_and_prefixes_stand_before_each_line() {
        assert_eq!(filtered("", false, &[b"\x1b[2J\r\n"]), "\u{1b}[2J\r\n");
        assert_eq!(filtered("1.0 | ", false, &[b"a\nb", b"c\nd"]), "1.0 | a\n1.0 | bc\n1.0 | d");
    }
}
