//! What the project links to: licences, duplicates, a budget for the lock file, a line of reason for each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Licences that may be linked into an Apache-2.0 binary without further duties than naming them.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];
/// Crates in Cargo.lock.
const LOCK_PACKAGES_MAX: usize = 400;
/// Crates that are costly to build and must be there once.
const HEAVY: &[&str] = &[
    "axum",
    "clap_builder",
    "h2",
    "hyper",
    "prost",
    "reqwest",
    "rustls",
    "tokio",
    "tonic",
    "tower",
];

/// Checks licences, duplicates, the lock file and docs/dependencies.md; advisories too if `cargo deny` is there.
pub(crate) fn run() -> Result<()> {
    println!("== deps");
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    let mut found = Vec::new();
    check_licences(packages, &mut found);
    check_duplicates(packages, &mut found);
    check_reasons(packages, &mut found)?;
    if packages.len() > LOCK_PACKAGES_MAX {
        found.push(format!("{} packages, at most {LOCK_PACKAGES_MAX}", packages.len()));
    }
    ensure!(found.is_empty(), "deps found:\n  {}", found.join("\n  "));
    println!("== deps: {} packages, licences and duplicates are fine", packages.len());
    advisories()
}

fn metadata() -> Result<Value> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--locked"])
        .output()
        .context("could not run cargo")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn check_licences(packages: &[Value], found: &mut Vec<String>) {
    for package in packages {
        let licence = package["license"].as_str().unwrap_or("");
        let allowed = |alternative: &str| {
            alternative
                .split(" AND ")
                .all(|part| LICENCES.contains(&part.trim_matches(['(', ')', ' '])))
        };
        let licence = licence.replace('/', " OR ");
        // Both in one expression need somebody to read it, unless every part is allowed.
        let is_mixed = licence.contains(" OR ") && licence.contains(" AND ");
        let mut alternatives = licence.split(" OR ");
        let fine = if is_mixed { alternatives.all(allowed) } else { alternatives.any(allowed) };
        if !fine {
            found.push(format!("{} has the licence \"{licence}\"", package["id"]));
        }
    }
}

fn check_duplicates(packages: &[Value], found: &mut Vec<String>) {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages {
        let (name, version) = (package["name"].as_str(), package["version"].as_str());
        versions.entry(name.unwrap_or("")).or_default().insert(version.unwrap_or(""));
    }
    for name in HEAVY {
        if let Some(twice) = versions.get(name).filter(|versions| versions.len() > 1) {
            found.push(format!("{name} is there in several versions: {twice:?}"));
        }
    }
}

/// Each crate that ours name directly has a line in docs/dependencies.md.
fn check_reasons(packages: &[Value], found: &mut Vec<String>) -> Result<()> {
    let reasons = fs::read_to_string("docs/dependencies.md").context("docs/dependencies.md")?;
    let own = packages.iter().filter(|package| package["source"].is_null());
    let names: BTreeSet<&str> = own
        .filter_map(|package| package["dependencies"].as_array())
        .flatten()
        .filter(|dependency| !dependency["source"].is_null())
        .filter_map(|dependency| dependency["name"].as_str())
        .collect();
    // The first column of the table names one crate or several.
    let explained: BTreeSet<&str> = reasons
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split('|').next())
        .flat_map(|cell| cell.split([',', ' ', '(', ')']))
        .collect();
    for name in names {
        if !explained.contains(name) {
            found.push(format!("docs/dependencies.md says nothing of `{name}`"));
        }
    }
    Ok(())
}

fn advisories() -> Result<()> {
    let probe = Command::new("cargo").args(["deny", "--version"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        println!("== deps: SKIPPED advisories: cargo-deny is not installed");
        return Ok(());
    }
    let output = Command::new("cargo").args(["deny", "check", "advisories"]).output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("failed to fetch advisory database") {
        println!("== deps: SKIPPED advisories: their database can't be reached");
        return Ok(());
    }
    ensure!(output.status.success(), "cargo deny found:\n{text}");
    Ok(())
}
