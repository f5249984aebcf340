//! Rules about the tree that no compiler checks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Lines of a source file, tests at its end not counted.
const FILE_LINES_MAX: usize = 500;
/// Lines of ARCHITECTURE.md.
const ARCHITECTURE_LINES_MAX: usize = 250;

/// Checks every rule and reports everything that breaks one.
pub(crate) fn run() -> Result<()> {
    println!("== tidy");
    let mut found = Vec::new();
    for path in tracked_files()? {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        if path.extension().is_some_and(|extension| extension == "rs") {
            check_source(&path, &text, &mut found);
        }
        check_document(&path, &text, &mut found);
    }
    check_adrs(&mut found)?;
    if fs::read_to_string(crate::limits::PAGE).ok() != Some(crate::limits::page()?) {
        found.push(format!("{}: out of date, run `cargo xtask limits`", crate::limits::PAGE));
    }
    ensure!(found.is_empty(), "tidy found:\n  {}", found.join("\n  "));
    println!("== tidy: done");
    Ok(())
}

fn tracked_files() -> Result<Vec<PathBuf>> {
    let listing = Command::new("git").args(["ls-files"]).output().context("could not run git")?;
    let listing = String::from_utf8(listing.stdout).context("file names are UTF-8")?;
    Ok(listing.lines().map(PathBuf::from).collect())
}

fn check_source(path: &Path, text: &str, found: &mut Vec<String>) {
    let is_test = path
        .components()
        .any(|part| ["tests", "benches", "examples"].iter().any(|name| part.as_os_str() == *name))
        || path.file_stem().is_some_and(|stem| stem == "tests");
    let all: Vec<&str> = text.lines().collect();
    // Tests stand at the end, in a module of their own.
    let is_tests = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].ends_with('{');
    let lines = all.windows(2).position(is_tests).unwrap_or(all.len());
    if !is_test && lines > FILE_LINES_MAX {
        found.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", path.display()));
    }
    for (number, line) in text.lines().enumerate() {
        // Spelt in two parts, so that this file does not find itself.
        for word in [
            concat!("FIX", "ME"),
            concat!("TO", "DO"),
            concat!("XX", "X:"),
            concat!("#[ig", "nore"),
        ] {
            if line.contains(word) {
                found.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    }
}

fn check_document(path: &Path, text: &str, found: &mut Vec<String>) {
    if path == Path::new("ARCHITECTURE.md") && text.lines().count() > ARCHITECTURE_LINES_MAX {
        found.push(format!("ARCHITECTURE.md is longer than {ARCHITECTURE_LINES_MAX} lines"));
    }
    if path.extension().is_none_or(|extension| extension != "md") {
        return;
    }
    // Relative links must lead somewhere.
    for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let target = target.split('#').next().unwrap_or("");
        let outside = target.is_empty() || target.contains("://") || target.starts_with('/');
        let from = path.parent().unwrap_or(Path::new(""));
        if !outside && !target.contains(' ') && !from.join(target).exists() {
            found.push(format!("{}: link to {target}, which is not there", path.display()));
        }
    }
}

/// Every decision record is listed in the index.
fn check_adrs(found: &mut Vec<String>) -> Result<()> {
    let index = fs::read_to_string("docs/adr/README.md").context("docs/adr/README.md")?;
    for entry in fs::read_dir("docs/adr").context("docs/adr")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "README.md" && !index.contains(&format!("({name})")) {
            found.push(format!("docs/adr/{name} is not in docs/adr/README.md"));
        }
    }
    Ok(())
}
