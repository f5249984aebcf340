//! The files of an identity: written whole or not at all, and refused if others can read the secret ones.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::error::{IdentityError, Result};
use crate::tls::fingerprint_of_certificate;
use crate::token::{Fingerprint, TokenHash};

/// How long a first administrator token waits for a server to take it in.
const ADMIN_TOKEN_WAITS: Duration = Duration::from_secs(24 * 3600);
const SECRET: u32 = 0o600;
const PUBLIC: u32 = 0o644;
const DIRECTORY: u32 = 0o700;

/// The directory that holds an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityDir(PathBuf);

/// A first administrator token that waits for a server to take it in: its name and its hash, never the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminToken {
    /// The token's public name.
    pub id: String,
    /// What is stored of it.
    pub hash: TokenHash,
    /// Whether it is for a cluster that has no tokens yet: of use nowhere else, however many copies of the file there are.
    pub is_first: bool,
}

impl IdentityDir {
    /// The identity of the server or worker whose data is in `data_dir`.
    #[must_use]
    pub fn below(data_dir: &Path) -> Self {
        Self(data_dir.join("credentials"))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Whether there is an identity at all. One that is damaged counts: it must not be taken for none.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.0.symlink_metadata().is_ok()
    }

    /// Whether this identity may sign certificates.
    #[must_use]
    pub fn has_authority(&self) -> bool {
        self.0.join("ca.key").symlink_metadata().is_ok()
    }

    /// The certificate of the cluster's authority, as PEM. Not secret.
    ///
    /// # Errors
    /// If the file can't be read.
    pub fn authority(&self) -> Result<String> {
        self.read_public("ca.pem")
    }

    /// The fingerprint of the cluster's authority.
    ///
    /// # Errors
    /// If the file can't be read, or holds no certificate.
    pub fn fingerprint(&self) -> Result<Fingerprint> {
        let pem = self.authority()?;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| self.damaged("ca.pem", error))?;
        fingerprint_of_certificate(&certificate).map_err(|error| self.damaged("ca.pem", error))
    }

    /// Keeps a first administrator token until a server has taken it in.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn save_admin_token(&self, token: &AdminToken) -> Result<()> {
        let first = if token.is_first { "first\n" } else { "" };
        let text = format!("{}\n{}\n{first}", token.id, crate::base32::encode(&token.hash.0));
        self.write_secret("admin-token", text.as_bytes())
    }

    /// The administrator token that waits, if there is one. After a day it is of no use: a file that was forgotten on a server that
    /// was down must not bring a token back that was revoked since.
    ///
    /// # Errors
    /// If the file can't be read, is damaged, or can be read by others.
    pub fn admin_token(&self, now: SystemTime) -> Result<Option<AdminToken>> {
        let Ok(found) = self.0.join("admin-token").symlink_metadata() else { return Ok(None) };
        let made_at = found.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        if now.duration_since(made_at).is_ok_and(|age| age > ADMIN_TOKEN_WAITS) {
            return Ok(None);
        }
        let text = self.read_secret("admin-token")?;
        let mut lines = text.lines();
        let token = lines.next().zip(lines.next()).and_then(|(id, hash)| {
            let hash = TokenHash(crate::base32::decode(hash)?);
            let is_first = lines.next() == Some("first");
            (!id.is_empty()).then(|| AdminToken { id: id.to_owned(), hash, is_first })
        });
        token.map(Some).ok_or_else(|| self.damaged("admin-token", "it holds no token"))
    }

    /// Removes the administrator token that waited.
    ///
    /// # Errors
    /// If the file can't be removed.
    pub fn remove_admin_token(&self) -> Result<()> {
        let path = self.0.join("admin-token");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(file("remove", &path, error)),
            _ => Ok(()),
        }
    }

    /// Makes the directory, for this user alone.
    pub(crate) fn create(&self) -> Result<()> {
        let created = DirBuilder::new().recursive(true).mode(DIRECTORY).create(&self.0);
        created.map_err(|error| file("create", &self.0, error))?;
        self.check_directory()
    }

    pub(crate) fn write_secret(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.write(name, bytes, SECRET)
    }

    pub(crate) fn write_public(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.write(name, bytes, PUBLIC)
    }

    pub(crate) fn read_public(&self, name: &str) -> Result<String> {
        let path = self.0.join(name);
        fs::read_to_string(&path).map_err(|error| file("read", &path, error))
    }

    pub(crate) fn read_secret(&self, name: &str) -> Result<String> {
        self.check_directory()?;
        let path = self.0.join(name);
        check_mode(&path, SECRET)?;
        fs::read_to_string(&path).map_err(|error| file("read", &path, error))
    }

    /// Puts one file in the place of another.
    pub(crate) fn replace(&self, name: &str, by: &str) -> Result<()> {
        let path = self.0.join(name);
        let moved = fs::rename(self.0.join(by), &path)
            .and_then(|()| File::open(&self.0))
            .and_then(|dir| dir.sync_all());
        moved.map_err(|error| file("write", &path, error))
    }

    pub(crate) fn damaged(&self, name: &str, reason: impl ToString) -> IdentityError {
        IdentityError::Damaged { path: self.0.join(name), reason: reason.to_string() }
    }

    /// Others who can write to the directory could put their own keys there.
    fn check_directory(&self) -> Result<()> {
        check_mode(&self.0, DIRECTORY)
    }

    /// Writes beside the place and moves it there: a crash leaves the old file or the new one.
    fn write(&self, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
        self.create()?;
        let path = self.0.join(name);
        let beside = self.0.join(format!(".{name}.new"));
        let written = || -> io::Result<()> {
            if let Err(error) = fs::remove_file(&beside)
                && error.kind() != ErrorKind::NotFound
            {
                return Err(error);
            }
            let mut out =
                OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
            // The umask may have taken bits away that others need for the public files.
            out.set_permissions(Permissions::from_mode(mode))?;
            out.write_all(bytes)?;
            out.sync_all()?;
            fs::rename(&beside, &path)?;
            File::open(&self.0)?.sync_all()
        };
        written().map_err(|error| file("write", &path, error))
    }
}

/// Refuses what the group or others may use in any way.
fn check_mode(path: &Path, wanted: u32) -> Result<()> {
    let mode = fs::metadata(path).map_err(|error| file("read", path, error))?.mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(IdentityError::Exposed { path: path.to_path_buf(), mode, remedy: wanted })
}

fn file(what: &'static str, path: &Path, source: io::Error) -> IdentityError {
    IdentityError::File { what, path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_written_for_their_owner_alone_and_refused_otherwise() {
        let dir = tempfile::TempDir::new().unwrap();
        let identity = IdentityDir::below(dir.path());
        identity.write_secret("node.key", b"secret").unwrap();
        identity.write_public("node.pem", b"public").unwrap();
        let mode = |name: &str| identity.path().join(name).metadata().unwrap().mode() & 0o7777;
        assert_eq!((mode("."), mode("node.key"), mode("node.pem")), (0o700, 0o600, 0o644));
        assert_eq!(identity.read_secret("node.key").unwrap(), "secret");
        let key = identity.path().join("node.key");
        for open in [0o640, 0o604, 0o620, 0o601] {
            fs::set_permissions(&key, Permissions::from_mode(open)).unwrap();
            let error = identity.read_secret("node.key").unwrap_err().to_string();
            assert!(error.contains(&format!("chmod 600 {}", key.display())), "{error}");
        }
        fs::set_permissions(&key, Permissions::from_mode(0o400)).unwrap();
        assert_eq!(identity.read_secret("node.key").unwrap(), "secret");
        fs::set_permissions(identity.path(), Permissions::from_mode(0o755)).unwrap();
        let error = identity.read_secret("node.key").unwrap_err().to_string();
        assert!(error.contains("chmod 700"), "{error}");
    }

    #[test]
    fn an_administrator_token_waits_until_it_is_removed() {
        let dir = tempfile::TempDir::new().unwrap();
        let identity = IdentityDir::below(dir.path());
        let now = SystemTime::now();
        assert_eq!(identity.admin_token(now).unwrap(), None);
        for is_first in [true, false] {
            let token = AdminToken { id: "abc".to_owned(), hash: TokenHash([7; 32]), is_first };
            identity.save_admin_token(&token).unwrap();
            assert_eq!(identity.admin_token(now).unwrap(), Some(token));
        }
        let late = now + ADMIN_TOKEN_WAITS + Duration::from_secs(60);
        assert_eq!(identity.admin_token(late).unwrap(), None);
        identity.remove_admin_token().unwrap();
        identity.remove_admin_token().unwrap();
        assert_eq!(identity.admin_token(now).unwrap(), None);
        identity.write_secret("admin-token", b"abc\nnot base 32\n").unwrap();
        assert!(identity.admin_token(now).is_err());
    }
}
