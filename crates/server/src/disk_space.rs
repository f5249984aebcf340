//! Free space of the data directory's disk: new work is refused before the log can't be written any more.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rota_api::ErrorCode;

use crate::rest::problem::{Refused, refuse};

/// How long an answer of the file system holds.
const FRESH: Duration = Duration::from_millis(500);

/// Watches free space.
pub(crate) struct DiskSpace {
    path: PathBuf,
    reserve_bytes: u64,
    last: Mutex<Option<(Instant, u64)>>,
}

impl DiskSpace {
    pub(crate) fn new(path: PathBuf, reserve_bytes: u64) -> Self {
        Self { path, reserve_bytes, last: Mutex::new(None) }
    }

    /// Refuses new work if there is less space than what finishing work may need.
    pub(crate) fn check(&self) -> Result<(), Refused> {
        if self.has_room_for(0) {
            return Ok(());
        }
        let free = self.free();
        let detail = format!(
            "the disk of the data directory has {free} bytes free, and {} are reserved for finishing what runs; nothing was done",
            self.reserve_bytes
        );
        Err(refuse(ErrorCode::DiskFull, detail))
    }

    /// Whether this much can be written without touching the reserve.
    pub(crate) fn has_room_for(&self, bytes: u64) -> bool {
        self.free() >= self.reserve_bytes.saturating_add(bytes)
    }

    /// Bytes that this process may still write. If the file system does not say, nothing is refused.
    pub(crate) fn free(&self) -> u64 {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((at, free)) = *last
            && at.elapsed() < FRESH
        {
            return free;
        }
        let free = rustix::fs::statvfs(&self.path)
            .map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        *last = Some((Instant::now(), free));
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_work_is_refused_from_one_byte_below_the_reserve() {
        let space = |free, reserve_bytes| {
            let space = DiskSpace::new(PathBuf::from("."), reserve_bytes);
            *space.last.lock().unwrap() = Some((Instant::now(), free));
            space.check().err().map(|refused| refused.problem().status)
        };
        assert_eq!(space(99, 100), Some(507));
        assert_eq!(space(100, 100), None);
        assert_eq!(space(101, 100), None);
    }

    #[test]
    fn what_would_touch_the_reserve_has_no_room() {
        let space = DiskSpace::new(PathBuf::from("."), 100);
        *space.last.lock().unwrap() = Some((Instant::now() + FRESH, 150));
        assert_eq!([49, 50, 51].map(|bytes| space.has_room_for(bytes)), [true, true, false]);
    }
}
