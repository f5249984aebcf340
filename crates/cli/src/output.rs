//! One way out for every command: tables for people, and the same data as JSON, JSON lines or YAML.

use std::io::{self, Write};

use clap::ValueEnum;
use rota_api::Page;
use serde::{Deserialize, Serialize};
use unicode_width::UnicodeWidthStr;

use crate::screen::Screen;
use crate::trouble::{Result, Trouble};

/// How to print data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For people with wide terminals.
    Wide,
    /// The schema of the REST interface.
    Json,
    /// One JSON document per line.
    Jsonl,
    /// The same as YAML.
    Yaml,
}

/// One column of a table.
pub(crate) struct Column<T> {
    pub(crate) title: &'static str,
    /// Whether it is left out unless `-o wide`.
    pub(crate) wide: bool,
    pub(crate) cell: fn(&T, &Screen) -> String,
}

/// Something that commands print.
pub(crate) trait Show: Serialize + Sized {
    /// The columns of a list.
    fn columns() -> Vec<Column<Self>>;
    /// What `-q` prints.
    fn id(&self) -> String;
    /// Everything about one, for people.
    fn detail(&self, screen: &Screen) -> String;
}

/// Where data goes.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    pub(crate) format: Format,
    pub(crate) screen: Screen,
}

impl Output {
    /// Prints one page of a list.
    pub(crate) fn page<T: Show>(&self, page: &Page<T>) -> Result<()> {
        self.print(&self.page_text(page)?)
    }

    /// One page of a list, as it is printed.
    pub(crate) fn page_text<T: Show>(&self, page: &Page<T>) -> Result<String> {
        match self.format {
            _ if self.screen.quiet => {
                Ok(page.items.iter().map(Show::id).collect::<Vec<_>>().join("\n"))
            }
            Format::Table | Format::Wide => {
                Ok(render(&page.items, self.format == Format::Wide, &self.screen))
            }
            Format::Json | Format::Yaml => self.document_text(page),
            Format::Jsonl => each_text(&page.items),
        }
    }

    /// Prints one thing.
    pub(crate) fn one<T: Show>(&self, item: &T) -> Result<()> {
        self.print(&self.one_text(item)?)
    }

    /// One thing, as it is printed.
    pub(crate) fn one_text<T: Show>(&self, item: &T) -> Result<String> {
        match self.format {
            _ if self.screen.quiet => Ok(item.id()),
            Format::Table | Format::Wide => Ok(item.detail(&self.screen).trim_end().to_owned()),
            Format::Json | Format::Jsonl | Format::Yaml => self.document_text(item),
        }
    }

    /// Prints several things in full.
    pub(crate) fn many<T: Show>(&self, items: &[T]) -> Result<()> {
        self.print(&self.many_text(items)?)
    }

    /// Several things in full, as they are printed.
    pub(crate) fn many_text<T: Show>(&self, items: &[T]) -> Result<String> {
        match (self.format, items) {
            (_, [item]) => self.one_text(item),
            (Format::Json | Format::Yaml, _) if !self.screen.quiet => self.document_text(&items),
            (_, _) => {
                let all = items.iter().map(|item| self.one_text(item));
                Ok(all.collect::<Result<Vec<_>>>()?.join("\n"))
            }
        }
    }

    /// Prints an answer that is one line for people.
    pub(crate) fn answer(&self, data: &impl Serialize, id: &str, line: &str) -> Result<()> {
        match self.format {
            _ if self.screen.quiet => self.print(id),
            Format::Table | Format::Wide => self.print(line),
            Format::Json | Format::Jsonl | Format::Yaml => self.document(data),
        }
    }

    /// Prints one line of a stream: JSON documents are one per line.
    pub(crate) fn item(&self, data: &impl Serialize, line: &str) -> Result<()> {
        match self.format {
            Format::Table | Format::Wide => self.text(line),
            Format::Json | Format::Jsonl => self.print(&each_text(std::slice::from_ref(data))?),
            Format::Yaml => self.text(&format!("---\n{}", yaml(data)?.trim_end())),
        }
    }

    /// Prints a text as it is.
    pub(crate) fn text(&self, text: &str) -> Result<()> {
        let mut out = io::stdout().lock();
        written(writeln!(out, "{text}"))?;
        written(out.flush())
    }

    /// Prints lines, or nothing if there are none.
    pub(crate) fn print(&self, text: &str) -> Result<()> {
        if text.is_empty() { Ok(()) } else { self.text(text) }
    }

    pub(crate) fn document(&self, data: &impl Serialize) -> Result<()> {
        self.text(&self.document_text(data)?)
    }

    /// Data in the format that was asked for.
    pub(crate) fn document_text(&self, data: &impl Serialize) -> Result<String> {
        let text = match self.format {
            Format::Yaml => yaml(data)?,
            Format::Jsonl => serde_json::to_string(data).map_err(|error| unprintable(&error))?,
            Format::Json | Format::Table | Format::Wide => {
                serde_json::to_string_pretty(data).map_err(|error| unprintable(&error))?
            }
        };
        Ok(text.trim_end().to_owned())
    }

    /// Whether people read it, rather than programs.
    pub(crate) fn is_for_people(&self) -> bool {
        matches!(self.format, Format::Table | Format::Wide) && !self.screen.quiet
    }
}

/// One JSON document per line.
pub(crate) fn each_text(items: &[impl Serialize]) -> Result<String> {
    let line = |item| serde_json::to_string(item).map_err(|error| unprintable(&error));
    Ok(items.iter().map(line).collect::<Result<Vec<_>>>()?.join("\n"))
}

/// A table without borders; columns are as wide as their widest cell.
pub(crate) fn render<T: Show>(items: &[T], wide: bool, screen: &Screen) -> String {
    let mut columns = T::columns();
    columns.retain(|column| wide || !column.wide);
    let rows =
        items.iter().map(|item| columns.iter().map(|column| (column.cell)(item, screen)).collect());
    grid(columns.iter().map(|column| column.title), rows)
}

/// Rows below titles.
pub(crate) fn grid<'a>(
    titles: impl IntoIterator<Item = &'a str>,
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    let titles: Vec<String> = titles.into_iter().map(str::to_owned).collect();
    align(std::iter::once(titles).chain(rows))
}

/// Rows whose columns are as wide as their widest cell.
pub(crate) fn align(rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> = rows.into_iter().collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widest =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell)).max();
    let widths: Vec<usize> = (0..columns).map(|column| widest(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let padded = row
            .iter()
            .zip(&widths)
            .map(|(cell, wide)| format!("{cell}{}", " ".repeat(wide.saturating_sub(width(cell)))));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The columns that a text takes on a terminal, colours aside.
fn width(text: &str) -> usize {
    let mut plain = String::with_capacity(text.len());
    let mut parts = text.split('\u{1b}');
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        plain.push_str(part.split_once('m').map_or("", |(_, after)| after));
    }
    plain.width()
}

fn yaml(data: &impl Serialize) -> Result<String> {
    serde_saphyr::to_string(data).map_err(|error| unprintable(&error))
}

fn unprintable(error: &dyn std::error::Error) -> Trouble {
    Trouble::new(rota_api::ErrorCode::Internal, format!("the answer can't be printed: {error}"))
}

/// The exit code of a process that SIGPIPE ends, as shells tell it.
pub(crate) const READER_GONE: u8 = 141;

/// A reader that went away (`rota job ls | head -1`) ends the command quietly, but in order: `rota run` stops what it has started.
pub(crate) fn written(result: io::Result<()>) -> Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Trouble {
            exit: Some(READER_GONE),
            ..Trouble::new(rota_api::ErrorCode::Interrupted, "")
        }),
        Err(error) => Err(Trouble::new(
            rota_api::ErrorCode::FileUnreadable,
            format!("standard output: {error}"),
        )),
    }
}
