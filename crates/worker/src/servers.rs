//! Which servers there are: what the worker was told on its command line, and what servers told it since.
//!
//! A worker that knows one server learns the others, and finds its cluster also when that one is gone for good. What it has learned is kept
//! in its directory; it counts only as long as the worker is given the same addresses, so that one that is pointed to another cluster does
//! not go back to the old one.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rota_types::limits::{ADDRESS_BYTES_MAX, SERVERS_MAX};
use tracing::{info, warn};

use crate::session::check_address;

/// The file's name.
const FILE: &str = "servers";

/// The addresses of a cluster's servers.
#[derive(Clone, Debug)]
pub(crate) struct Servers {
    configured: Vec<String>,
    learned: Vec<String>,
    file: PathBuf,
}

/// The addresses that a worker with this directory knows, besides the configured ones.
#[must_use]
pub fn known_servers(data_dir: &Path, configured: &[String]) -> Vec<String> {
    Servers::open(data_dir, configured.to_vec()).all()
}

impl Servers {
    /// What is known in this directory.
    pub(crate) fn open(data_dir: &Path, configured: Vec<String>) -> Self {
        let file = data_dir.join(FILE);
        let text = fs::read_to_string(&file).unwrap_or_default();
        let mut lines = text.lines().map(str::to_owned);
        let is_for_these = lines.next().is_some_and(|first| first == configured.join(","));
        let learned = if is_for_these { lines.collect() } else { Vec::new() };
        Self { configured, learned, file }
    }

    /// All of them, those that servers told first: the configured ones may be gone.
    pub(crate) fn all(&self) -> Vec<String> {
        let mut all = self.learned.clone();
        all.extend(self.configured.iter().filter(|one| !self.learned.contains(one)).cloned());
        all
    }

    /// Takes what a server told. Returns what is to be written for the next start, if that has changed.
    pub(crate) fn learn(&mut self, told: Vec<String>) -> Option<Draft> {
        // Whoever is to be reached over TLS is not to be reached without.
        let is_secured = self.configured.iter().all(|address| address.starts_with("https://"));
        let scheme = if is_secured { "https://" } else { "http://" };
        let fits = |address: &String| {
            address.len() <= ADDRESS_BYTES_MAX
                && address.starts_with(scheme)
                && !address.contains(char::is_whitespace)
                && check_address(address, is_secured).is_ok()
        };
        let learned: Vec<String> = told.into_iter().filter(fits).take(SERVERS_MAX).collect();
        // A server that runs alone tells nothing.
        if learned.is_empty() || learned == self.learned {
            return None;
        }
        info!(servers = learned.join(","), "learned of servers");
        self.learned = learned;
        let lines = std::iter::once(self.configured.join(",")).chain(self.learned.iter().cloned());
        let text = lines.map(|line| format!("{line}\n")).collect();
        Some(Draft { file: self.file.clone(), text })
    }
}

/// A file that is to be written.
#[derive(Debug)]
pub(crate) struct Draft {
    file: PathBuf,
    text: String,
}

impl Draft {
    /// Puts it in place whole. Blocking.
    pub(crate) fn write(self) {
        let beside = self.file.with_extension("new");
        let mut options = fs::File::options();
        let options = options.create(true).write(true).truncate(true).mode(0o600);
        let written = options.open(&beside).and_then(|mut file| {
            file.write_all(self.text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, &self.file)
        });
        if let Err(error) = written {
            warn!(%error, file = %self.file.display(), "cannot keep the list of servers");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(addresses: &[&str]) -> Vec<String> {
        addresses.iter().map(|address| (*address).to_owned()).collect()
    }

    #[test]
    fn what_was_learned_lasts_as_long_as_the_configured_addresses() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut servers = Servers::open(dir.path(), texts(&["http://a:1"]));
        assert_eq!(servers.all(), ["http://a:1"]);
        let told = ["http://b:1", "http://c:1"];
        servers.learn(texts(&told)).expect("it is new").write();
        assert_eq!(servers.all(), ["http://b:1", "http://c:1", "http://a:1"]);
        assert!(servers.learn(texts(&told)).is_none() && servers.learn(Vec::new()).is_none());
        let known = |configured: &[&str]| known_servers(dir.path(), &texts(configured));
        assert_eq!(known(&["http://a:1"]), ["http://b:1", "http://c:1", "http://a:1"]);
        assert_eq!(known(&["http://other:1"]), ["http://other:1"]);
        // A server that is gone is forgotten.
        servers.learn(texts(&["http://c:1", "http://a:1"])).expect("it is new").write();
        assert_eq!(known(&["http://a:1"]), ["http://c:1", "http://a:1"]);
    }

    #[test]
    fn addresses_that_make_no_sense_or_leave_tls_are_not_taken() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut servers = Servers::open(dir.path(), texts(&["https://a:1"]));
        let long = format!("https://{}", "b".repeat(ADDRESS_BYTES_MAX - "https://".len() + 1));
        let wrong = ["http://b:1", "b:1", "https://", "https://b:1\nhttps://c", &long, ""];
        assert!(servers.learn(texts(&wrong)).is_none());
        assert!(servers.learn(texts(&[&long[..ADDRESS_BYTES_MAX]])).is_some());
        for count in [SERVERS_MAX - 1, SERVERS_MAX, SERVERS_MAX + 1] {
            servers.learn((0..count).map(|port| format!("https://b:{port}")).collect());
            assert_eq!(servers.all().len(), count.min(SERVERS_MAX) + 1);
        }
    }
}
