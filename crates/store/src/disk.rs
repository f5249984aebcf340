//! The seam to the file system: one flat directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::StoreError;

/// One directory of files. Names are plain file names.
pub trait Disk: Send + Sync {
    /// The names of all files, sorted.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Creates an empty file, which must not exist. Its name is not durable before [`sync_names`](Self::sync_names).
    ///
    /// # Errors
    /// Whatever the file system says.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file that exists.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name, replacing what had it.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes every creation, renaming and removal so far durable.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn sync_names(&self) -> io::Result<()>;

    /// Takes the directory for this process alone, until the lock is dropped.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process has it.
    fn lock(&self) -> Result<DirLock, StoreError>;
}

/// An open file. Positions are bytes from its start.
pub trait DiskFile: Send {
    /// The file's length.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn len(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// Whatever the file system says; `UnexpectedEof` if the file is shorter.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes`. Not durable before [`sync`](Self::sync).
    ///
    /// # Errors
    /// Whatever the file system says. What is in the file then is unknown.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the file at least `len` bytes long, with zeros.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn allocate(&mut self, len: u64) -> io::Result<()>;

    /// Makes the file's content durable.
    ///
    /// # Errors
    /// Whatever the file system says. What is durable then is unknown, and stays so: never try again.
    fn sync(&mut self) -> io::Result<()>;

    /// Whether the file is empty.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Holds a directory for this process until it is dropped.
pub struct DirLock(#[expect(dead_code, reason = "held for its drop")] Box<dyn Send + Sync>);

impl DirLock {
    pub(crate) fn new(held: impl Send + Sync + 'static) -> Self {
        Self(Box::new(held))
    }
}

/// The name of the file whose lock guards the directory; it holds the holder's process id.
pub const LOCK_FILE: &str = "lock";

/// Who may read and write the files: nobody else.
const PRIVATE: u32 = 0o600;

/// A directory of the real file system.
#[derive(Clone, Debug)]
pub struct FsDisk {
    path: PathBuf,
}

impl FsDisk {
    /// The directory at `path`; made if it is not there.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let text = path.display().to_string();
        // What users hand in is nobody else's business, nor are the secrets among it.
        let mut dir = std::fs::DirBuilder::new();
        let made = dir.recursive(true).mode(0o700).create(path);
        made.map_err(StoreError::io("creating", &text))?;
        let path = path.canonicalize().map_err(StoreError::io("opening", &text))?;
        // Any of those above may have been made just now, or before a crash. Best effort: one that can't be read can't be synced.
        for above in path.ancestors().skip(1) {
            let _synced = File::open(above).and_then(|above| above.sync_all());
        }
        Ok(Self { path })
    }

    /// Where the directory is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Disk for FsDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.extend(entry.file_name().into_string());
            }
        }
        names.sort();
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(PRIVATE);
        Ok(Box::new(FsFile(options.open(self.path.join(name))?)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        Ok(Box::new(FsFile(options.open(self.path.join(name))?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn lock(&self) -> Result<DirLock, StoreError> {
        let path = self.path.join(LOCK_FILE);
        let opening = StoreError::io("opening", LOCK_FILE);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(PRIVATE);
        let file = options.open(&path).map_err(opening)?;
        match file.try_lock() {
            Ok(()) => {
                let write = || {
                    file.set_len(0)?;
                    file.write_all_at(std::process::id().to_string().as_bytes(), 0)
                };
                write().map_err(StoreError::io("writing", LOCK_FILE))?;
                Ok(DirLock::new(Locked(file)))
            }
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse {
                path: self.path.display().to_string(),
                pid: std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()),
            }),
            Err(TryLockError::Error(source)) => Err(StoreError::io("locking", LOCK_FILE)(source)),
        }
    }
}

struct Locked(File);

impl Drop for Locked {
    fn drop(&mut self) {
        // Closing the file would not do: a child process between fork and exec still has it open.
        let _unlocked = self.0.unlock();
    }
}

struct FsFile(File);

impl DiskFile for FsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn allocate(&mut self, len: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        match fallocate(&self.0, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            // Some file systems can't reserve space; then a full disk shows when the space is written.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                let now = self.len()?;
                self.0.set_len(now.max(len))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}
