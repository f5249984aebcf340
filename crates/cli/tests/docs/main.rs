//! The documentation is typed in and run, line by line.
//!
//! A page is read from its beginning; these fences mean something:
//!
//! - `console`: lines that begin with `$ ` are commands for one shell per page, so that variables and directories last; lines below a
//!   command up to the next one are what it prints, on either stream. `...` stands for any text, a line of nothing but `...` for any lines, and
//!   how wide gaps are does not count. Without lines below it, a command may print anything. `# exits N` ends a command that is expected to
//!   fail. A command that ends in `\` goes on in the next line, which begins with `> `. Commands of `cargo` are skipped.
//! - `console background`: the command goes on running, as in another terminal.
//! - `console interrupt`: first, Ctrl-C is pressed in those other terminals.
//! - `console root`: not run; for what changes the machine.
//! - `toml NAME`, and so on: a file of that name is written into the current directory.
//!
//! `rota dev` and `rota server` listen on a free port instead of 7600, and 7600 in commands and output stands for it.

mod page;
mod reference;
mod session;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use page::{Piece, read};
use session::Session;

/// The longest that a page may take.
const PAGE_MAX: Duration = Duration::from_secs(55);
/// Pages that are run. The others must not show commands of rota.
const RUN: [&str; 7] = [
    "README.md",
    "docs/tutorial.md",
    "docs/how-to.md",
    "docs/beyond-loopback.md",
    "docs/cluster.md",
    "docs/schedules.md",
    "docs/reference/rest.md",
];
/// Made from the definition of the command line, which has tests of its own.
const MADE: [&str; 1] = ["docs/reference/cli.md"];
/// Shows commands that measure for minutes; `cargo xtask` runs them.
const MEASURED: [&str; 1] = ["docs/benchmarks.md"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text(page: &str) -> String {
    std::fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// Types a page in.
fn follow(page: &str) {
    let mut session = Session::start(Instant::now() + PAGE_MAX);
    let mut wrong = Vec::new();
    for piece in read(&text(page)) {
        match piece {
            Piece::File { name, text } => session.write(&name, &text),
            Piece::Interrupt => session.interrupt(),
            Piece::Background { line, command } => {
                session.background(&command, &format!("{page}:{line}"));
            }
            Piece::Step(step) if step.command.starts_with("cargo ") => {}
            Piece::Step(step) => {
                let (code, output) = session.run(&step.command, &format!("{page}:{}", step.line));
                let place = format!("{page}:{}: {}\n{output}", step.line, step.command);
                if code != step.exits {
                    wrong.push(format!("{place}exit code {code}, expected {}", step.exits));
                }
                let fits = |expected: &Vec<String>| page::fits(expected, &output);
                if let Some(expected) = step.expected.filter(|expected| !fits(expected)) {
                    wrong.push(format!("{place}expected:\n{}", expected.join("\n")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n\n"));
}

#[test]
fn the_readme_works_when_typed() {
    follow("README.md");
}

#[test]
fn the_tutorial_works_when_typed() {
    follow("docs/tutorial.md");
}

#[test]
fn the_how_to_guides_work_when_typed() {
    follow("docs/how-to.md");
}

#[test]
fn the_guide_beyond_loopback_works_when_typed() {
    follow("docs/beyond-loopback.md");
}

#[test]
fn the_guide_to_clusters_works_when_typed() {
    follow("docs/cluster.md");
}

#[test]
fn the_page_about_schedules_works_when_typed() {
    follow("docs/schedules.md");
}

#[test]
fn the_rest_examples_work_when_typed() {
    follow("docs/reference/rest.md");
}

#[test]
fn every_command_that_is_shown_is_run() {
    let mut pages = vec!["README.md".to_owned()];
    markdown(&root().join("docs"), "docs", &mut pages);
    let mut wrong = Vec::new();
    for page in pages
        .iter()
        .filter(|page| !MADE.contains(&page.as_str()) && !MEASURED.contains(&page.as_str()))
    {
        let run = RUN.contains(&page.as_str());
        let lines = page::commands_outside_of_consoles(&text(page), run);
        wrong.extend(lines.into_iter().map(|(line, command)| format!("{page}:{line}: {command}")));
    }
    assert_eq!(wrong, Vec::<String>::new(), "commands that nobody runs");
}

#[test]
fn the_units_of_systemd_start_commands_that_exist() {
    let page = text("docs/how-to.md");
    let commands: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/rota "))
        .collect();
    assert_eq!(commands.len(), 2);
    for command in commands {
        // Everything before --help is read first.
        let args = command.split(' ').chain(["--help"]);
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_rota"))
            .args(args)
            .output()
            .expect("rota runs");
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn markdown(dir: &Path, name: &str, pages: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).expect("the directory is read") {
        let entry = entry.expect("the entry is read");
        let name = format!("{name}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            markdown(&entry.path(), &name, pages);
        } else if name.ends_with(".md") {
            pages.push(name);
        }
    }
}
