//! Room on the store's volume: a floor that nothing is written below, and a ballast that is given up first.
//!
//! A refused write can be tried again; one that fails half-way poisons the store, and on a quite full volume sled may not
//! even open. The ballast buys what must still be written (a donor coming back) while new runs are refused already.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::FallocateFlags;

use super::tree::TreeError;

/// Several of sled's 512 KiB segments, and one rewritten snapshot of its.
pub(super) const FREE_BYTES_MIN: u64 = 8 << 20;
/// Some thousand records: enough to end the runs that are under way.
const BALLAST_BYTES: u64 = 16 << 20;

/// Watches one volume.
#[derive(Debug)]
pub(super) struct Room {
    dir: PathBuf,
    low: Arc<AtomicBool>,
}

impl Room {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), low: Arc::default() }
    }

    /// Is the ballast gone? Shared, and kept up to date by whoever writes.
    pub(super) fn low(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.low)
    }

    /// Puts the ballast aboard, or notes that it had to be left behind.
    pub(super) fn load_ballast(&self) -> io::Result<()> {
        let path = self.ballast();
        if !path.exists() && free_bytes(&self.dir)? > 3 * BALLAST_BYTES {
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            if let Err(errno) = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, BALLAST_BYTES) {
                tracing::info!(%errno, "no ballast: this file system cannot set room aside");
                fs::remove_file(&path)?;
            }
        }
        // Where room can't be set aside there may be plenty all the same.
        let low = !path.exists() && free_bytes(&self.dir)? <= 3 * BALLAST_BYTES;
        self.low.store(low, Ordering::Relaxed);
        Ok(())
    }

    /// Is the ballast gone still? Once there is room again it is put aboard.
    pub(super) fn still_low(&self) -> bool {
        if self.low.load(Ordering::Relaxed)
            && let Err(error) = self.load_ballast()
        {
            tracing::warn!(%error, "the store's room could not be looked at");
        }
        self.low.load(Ordering::Relaxed)
    }

    /// Gives the ballast up. Was there any?
    pub(super) fn free_ballast(&self) -> bool {
        self.low.store(true, Ordering::Relaxed);
        let freed = fs::remove_file(self.ballast()).is_ok();
        if freed {
            tracing::warn!(dir = %self.dir.display(), "the store's volume is nearly full: its ballast was given up");
        }
        freed
    }

    /// Refuses before anything is written.
    pub(super) fn need(&self, bytes: u64) -> Result<(), TreeError> {
        let wanted = FREE_BYTES_MIN.saturating_add(bytes);
        let free = free_bytes(&self.dir)?;
        if free >= wanted {
            if self.low.load(Ordering::Relaxed) && free > 3 * BALLAST_BYTES {
                self.load_ballast()?;
            }
            return Ok(());
        }
        if self.free_ballast() && free_bytes(&self.dir)? >= wanted { Ok(()) } else { Err(TreeError::Full) }
    }

    /// For what can be left out when room is short.
    pub(super) fn need_without_ballast(&self, bytes: u64) -> Result<(), TreeError> {
        let enough = free_bytes(&self.dir)? >= FREE_BYTES_MIN.saturating_add(bytes);
        if enough { Ok(()) } else { Err(TreeError::Full) }
    }

    fn ballast(&self) -> PathBuf {
        self.dir.join("ballast")
    }
}

/// Whether there is room for a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enough {
    /// With room to spare.
    Yes,
    /// Not for the ballast, so that a full volume comes as a surprise.
    Barely,
    /// Nothing could be committed.
    No,
}

/// The bytes that are free at a place, and whether that is enough.
pub(super) fn room_for_a_store(dir: &Path) -> io::Result<(u64, Enough)> {
    let free = free_bytes(dir)?;
    let ballast = dir.join("ballast").exists();
    let enough = if free < FREE_BYTES_MIN {
        Enough::No
    } else if ballast || free > 3 * BALLAST_BYTES {
        Enough::Yes
    } else {
        Enough::Barely
    };
    Ok((free, enough))
}

pub(super) fn free_bytes(dir: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
