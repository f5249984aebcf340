//! The reference of job files: its examples are valid, and no key is missing.

use std::process::Command;

use crate::page::blocks;
use crate::text;

const PAGE: &str = "docs/reference/job-file.md";

/// A row of a table of keys: the section it stands in, the key, and the example.
struct Row {
    section: String,
    key: String,
    example: String,
}

fn rows() -> Vec<Row> {
    let page = text(PAGE);
    let mut section = String::new();
    let mut rows = Vec::new();
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading.trim_matches('`').to_owned();
        }
        let cells: Vec<String> = line
            .replace("\\|", "\u{0}")
            .split('|')
            .map(|cell| cell.trim().replace('\u{0}', "|"))
            .collect();
        if let [_, key, _, _, _, example, _] = cells.as_slice()
            && key.starts_with('`')
        {
            let bare = |cell: &str| cell.trim_matches('`').to_owned();
            rows.push(Row { section: section.clone(), key: bare(key), example: bare(example) });
        }
    }
    rows
}

/// A whole job file around the example of one key.
fn whole(row: &Row) -> String {
    let example = &row.example;
    match (row.section.as_str(), row.key.as_str()) {
        ("[job]", _) => format!("[job]\n{example}\n[[task]]\nnoop = true\n"),
        ("[[task]]", "command" | "http" | "noop") => format!("[[task]]\n{example}\n"),
        ("[[task]]", _) => format!("[[task]]\ncommand = \"true\"\n{example}\n"),
        ("[task.http]", "url") => format!("[[task]]\n[task.http]\n{example}\n"),
        ("[task.http]", _) => {
            format!("[[task]]\n[task.http]\nurl = \"http://example.org\"\n{example}\n")
        }
        ("[task.retry]", "max") => {
            format!("[[task]]\ncommand = \"true\"\n[task.retry]\n{example}\n")
        }
        ("[task.retry]", _) => {
            format!("[[task]]\ncommand = \"true\"\n[task.retry]\nmax = 3\n{example}\n")
        }
        (section, key) => panic!("no examples are expected in {section}: {key}"),
    }
}

fn lint(name: &str, content: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join(name);
    std::fs::write(&file, content).expect("the file is written");
    std::fs::write(dir.path().join("files.txt"), "one\n").expect("the file is written");
    let output = Command::new(env!("CARGO_BIN_EXE_rota"))
        .args(["job", "lint", name])
        .current_dir(dir.path())
        .env("ROTA_CONFIG", "/dev/null")
        .output()
        .expect("rota runs");
    assert!(output.status.success(), "{content}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_example_of_a_key_is_valid() {
    let rows = rows();
    assert!(rows.len() > 25, "the tables are found");
    for row in &rows {
        assert!(row.example.starts_with(row.key.as_str()), "{}: {}", row.key, row.example);
        lint("job.toml", &whole(row));
    }
}

#[test]
fn every_file_of_the_page_is_valid() {
    let page = text(PAGE);
    for block in blocks(&page) {
        let kind = block.info.split(' ').next().unwrap_or_default();
        if ["toml", "yaml", "json"].contains(&kind) {
            lint(&format!("job.{kind}"), &(block.lines.join("\n") + "\n"));
        }
    }
}

#[test]
fn no_key_is_missing() {
    let source = text("crates/api/src/job_file.rs");
    let sections = [
        ("JobHeader", "[job]"),
        ("TaskGroup", "[[task]]"),
        ("HttpRequest", "[task.http]"),
        ("Retry", "[task.retry]"),
    ];
    let rows = rows();
    for (name, section) in sections {
        let start = source.find(&format!("pub struct {name} {{")).expect("the type is there");
        let body = source[start..].split("\n}").next().unwrap_or_default();
        let keys = body.lines().filter_map(|line| line.strip_prefix("    pub ")?.split(':').next());
        let mut wanted: Vec<&str> = keys.collect();
        let listed = rows.iter().filter(|row| row.section == section);
        let mut told: Vec<&str> = listed.map(|row| row.key.as_str()).collect();
        wanted.sort_unstable();
        told.sort_unstable();
        assert_eq!(told, wanted, "{section}");
    }
}

/// The part of an address behind `#` that leads to a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
}

#[test]
fn links_of_the_guides_lead_somewhere() {
    let pages = [
        "docs/tutorial.md",
        "docs/how-to.md",
        "docs/reference/cli.md",
        PAGE,
        "docs/reference/rest.md",
    ];
    let mut wrong = Vec::new();
    for page in pages {
        let content = text(page);
        let links = content.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let (file, part) = link.split_once('#').unwrap_or((link, ""));
            let folder =
                crate::root().join(page).parent().expect("a page is in a folder").to_path_buf();
            let target = if file.is_empty() { crate::root().join(page) } else { folder.join(file) };
            let found = std::fs::read_to_string(&target).is_ok_and(|target| {
                let headings = target.lines().filter_map(|line| line.strip_prefix('#'));
                part.is_empty()
                    || headings
                        .map(|line| anchor(line.trim_start_matches('#').trim()))
                        .any(|it| it == part)
            });
            if !found {
                wrong.push(format!("{page}: {link}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}
