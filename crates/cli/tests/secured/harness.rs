//! Commands and processes of the built binary.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

pub(crate) const ROTA: &str = env!("CARGO_BIN_EXE_rota");
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A command that sees nothing of the settings of whoever runs the tests.
pub(crate) fn rota(dir: &Path) -> Command {
    let mut command = Command::new(ROTA);
    for name in ["ROTA_SERVER", "ROTA_CONTEXT", "ROTA_OUTPUT", "ROTA_TOKEN", "ROTA_CA", "ROTA_JOIN"]
    {
        command.env_remove(name);
    }
    command.env("ROTA_CONFIG", dir.join("config.toml")).env("NO_COLOR", "1").current_dir(dir);
    command.stdin(Stdio::null()).stderr(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// Exit code, standard output and standard error.
pub(crate) type Told = (Option<i32>, String, String);

pub(crate) fn told(output: Output) -> Told {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A process that prints its first line when it is ready; ended when dropped.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) first: String,
}

impl Daemon {
    pub(crate) fn start(mut command: Command) -> Self {
        let log = tempfile::NamedTempFile::new().expect("a file");
        let open = log.reopen().expect("it is opened again");
        let mut child = command.stderr(open).spawn().expect("rota starts");
        let mut first = String::new();
        let out = child.stdout.take().expect("the output is piped");
        BufReader::new(out).read_line(&mut first).expect("a line is printed");
        let told = std::fs::read_to_string(log.path()).unwrap_or_default();
        assert!(!first.is_empty(), "it did not start: {told}");
        Self { child, first: first.trim().to_owned() }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Daemon {
    /// Ends it as a crash would.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}
