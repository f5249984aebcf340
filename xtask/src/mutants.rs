//! `cargo xtask mutants`: plants one bug after the other in a copy of the pure crates; each must be noticed.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// The crates that are copied: those with the bugs, and those that have to notice.
const CRATES: [&str; 13] = [
    "types",
    "calendar",
    "core",
    "policy",
    "control",
    "worker-core",
    "server-core",
    "ports",
    "wire",
    "store",
    "consensus",
    "testkit",
    "sim",
];
/// A detector that runs longer has noticed something too: a bug that never ends.
const PATIENCE: Duration = Duration::from_secs(120);

/// A planted bug.
struct Mutant {
    name: String,
    file: String,
    search: String,
    replace: String,
    detector: String,
    fast: bool,
}

/// Plants the bugs of the fast subset, of all (`--all`), those whose name contains a text (`--only TEXT`), or those that one detector has to notice
/// (`--detector NAME`).
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has a parent")?;
    let all = read(&root.join("crates/sim/mutants.toml"))?;
    let chosen: Vec<&Mutant> = match args {
        [] | ["--fast"] => all.iter().filter(|mutant| mutant.fast).collect(),
        ["--all"] => all.iter().collect(),
        ["--only", text] => all.iter().filter(|mutant| mutant.name.contains(text)).collect(),
        ["--detector", name] => all.iter().filter(|mutant| mutant.detector == *name).collect(),
        other => bail!(
            "no such argument: {}; use --fast, --all, --only TEXT or --detector NAME",
            other.join(" ")
        ),
    };
    ensure!(!chosen.is_empty(), "no planted bug is chosen");
    let garden = Garden::lay_out(root)?;
    for detector in detectors(&chosen) {
        let sound = garden.notices(&detector)?;
        ensure!(!sound.noticed, "{detector} fails without any planted bug:\n{}", sound.says);
    }
    let mut survivors = Vec::new();
    for mutant in &chosen {
        let started = Instant::now();
        let found = garden.plant(mutant)?;
        let verdict = if found.noticed { "caught" } else { "SURVIVED" };
        let seconds = started.elapsed().as_secs_f32();
        println!(
            "{verdict:8} {seconds:5.1} s  {:11} {}: {}",
            mutant.detector, mutant.name, found.says
        );
        if !found.noticed {
            survivors.push(mutant.name.as_str());
        }
    }
    ensure!(survivors.is_empty(), "not noticed: {}", survivors.join("; "));
    println!("{} planted bugs, all caught", chosen.len());
    Ok(())
}

fn read(path: &Path) -> Result<Vec<Mutant>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let table: toml::Table = text.parse()?;
    let mutants = table.get("mutant").and_then(toml::Value::as_array).context("no [[mutant]]")?;
    mutants.iter().map(read_one).collect()
}

fn read_one(value: &toml::Value) -> Result<Mutant> {
    let text = |key: &str| -> Result<String> {
        let value = value.get(key).and_then(toml::Value::as_str);
        Ok(value.with_context(|| format!("a mutant has no {key}"))?.to_owned())
    };
    Ok(Mutant {
        name: text("name")?,
        file: text("file")?,
        search: text("search")?,
        replace: text("replace")?,
        detector: text("detector")?,
        fast: value.get("fast").and_then(toml::Value::as_bool).unwrap_or(false),
    })
}

fn detectors(chosen: &[&Mutant]) -> Vec<String> {
    let mut detectors: Vec<String> = chosen.iter().map(|mutant| mutant.detector.clone()).collect();
    detectors.sort();
    detectors.dedup();
    detectors
}

/// What a detector said.
struct Found {
    noticed: bool,
    says: String,
}

/// The copy in which bugs are planted.
struct Garden {
    root: PathBuf,
    home: PathBuf,
}

impl Garden {
    fn lay_out(root: &Path) -> Result<Self> {
        let home = target_dir(root).join("mutants");
        let garden = Self { root: root.to_owned(), home };
        let copy = garden.home.join("crates");
        if copy.exists() {
            fs::remove_dir_all(&copy)?;
        }
        for name in CRATES {
            copy_tree(&root.join("crates").join(name), &copy.join(name))?;
        }
        fs::write(garden.home.join("Cargo.toml"), manifest(root)?)?;
        fs::copy(root.join("Cargo.lock"), garden.home.join("Cargo.lock"))?;
        Ok(garden)
    }

    fn plant(&self, mutant: &Mutant) -> Result<Found> {
        let sound = fs::read_to_string(self.root.join(&mutant.file))?;
        let places = sound.matches(&mutant.search).count();
        ensure!(places == 1, "{}: its text is in {} {places} times", mutant.name, mutant.file);
        let path = self.home.join(&mutant.file);
        fs::write(&path, sound.replace(&mutant.search, &mutant.replace))?;
        let found = self.notices(&mutant.detector);
        fs::write(&path, sound)?;
        found
    }

    fn notices(&self, detector: &str) -> Result<Found> {
        let simulator = |args: &[&str]| -> Result<Found> {
            let build = self.cargo(&["build", "--package", "rota-sim"])?.output()?;
            ensure!(build.status.success(), "it does not compile:\n{}", text(&build));
            let program = self.home.join("target/mutant/rota-sim");
            watch(Command::new(program).args(args))
        };
        match detector {
            "sim" => simulator(&["--subset", "--no-shrink", "--counters"]),
            "sim-full" => simulator(&["--full", "--subset", "--no-shrink", "--counters"]),
            "exhaustive" => simulator(&["--exhaustive", "6"]),
            package => {
                let build = self.cargo(&["test", "--no-run", "--package", package])?.output()?;
                ensure!(build.status.success(), "it does not compile:\n{}", text(&build));
                watch(&mut self.cargo(&["test", "--package", package])?)
            }
        }
    }

    fn cargo(&self, args: &[&str]) -> Result<Command> {
        let (verb, rest) = args.split_first().context("cargo is told what to do")?;
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .current_dir(&self.home)
            .args([verb, "--profile", "mutant", "--offline", "--quiet"])
            .args(rest)
            .env("CARGO_TARGET_DIR", self.home.join("target"))
            .env("RUSTFLAGS", "--cap-lints=allow");
        Ok(cargo)
    }
}

/// The workspace's manifest with nothing in it but the copied crates.
fn manifest(root: &Path) -> Result<String> {
    let text = fs::read_to_string(root.join("Cargo.toml"))?;
    let mut manifest: toml::Table = text.parse()?;
    let workspace = manifest.get_mut("workspace").and_then(toml::Value::as_table_mut);
    let workspace = workspace.context("the manifest has a [workspace]")?;
    workspace.remove("default-members");
    workspace.insert("members".into(), vec!["crates/*"].into());
    manifest.remove("profile");
    let profile = "[profile.mutant]\ninherits = \"dev\"\nopt-level = 1\ndebug = false\n";
    Ok(format!("{manifest}\n{profile}"))
}

/// Runs a detector, but not for ever.
fn watch(command: &mut Command) -> Result<Found> {
    let started = Instant::now();
    // A group of its own: what a detector has started ends with it, and lets go of the pipe.
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0).spawn()?;
    let mut stdout = child.stdout.take().context("its output is piped")?;
    let reader = std::thread::spawn(move || {
        let mut said = String::new();
        drop(std::io::Read::read_to_string(&mut stdout, &mut said));
        said
    });
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if started.elapsed() > PATIENCE {
            let group = format!("-{}", child.id());
            Command::new("kill").args(["-KILL", "--", &group]).status()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let said = reader.join().unwrap_or_default();
    let says = match status {
        None => "it never ends".to_owned(),
        Some(_) => summary(&said),
    };
    Ok(Found { noticed: !status.is_some_and(|status| status.success()), says })
}

/// The line of a detector's output that tells most.
fn summary(said: &str) -> String {
    let telling = |line: &&str| {
        line.starts_with("at ")
            || line.starts_with('[')
            || line.contains("panicked")
            || line.starts_with("never reached")
            || line.starts_with("I")
    };
    let line = said.lines().find(telling).or_else(|| said.lines().next()).unwrap_or_default();
    line.chars().take(160).collect()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn target_dir(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
