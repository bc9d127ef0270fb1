//! One process per store, in one kernel. Between machines the [`Fence`](super::Fence) decides.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::error::StoreError;

/// Who holds a store; written into its `LOCK` file as JSON, for people and for `InUse`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// In the holder's own pid namespace.
    pub pid: u32,
    /// When it opened the store.
    pub since: jiff::Timestamp,
    /// Where it answers, if it does.
    pub socket: Option<PathBuf>,
    /// Its version.
    pub release: String,
}

/// A process that was just killed holds its locks until the kernel has taken it apart: seconds, on a loaded machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// Held until dropped. The file stays: removing it would let two processes hold two files of the same name.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Lock {
    /// Waits up to `patience` for a holder to go away.
    pub(super) fn acquire(dir: &Path, patience: Duration) -> Result<Self, StoreError> {
        let path = dir.join("LOCK");
        let unreadable = |source| StoreError::Unreadable { what: "lock", path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(unreadable)?;
        let held = retry(patience, || match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Some(Ok(())),
            Err(Errno::WOULDBLOCK) => None,
            Err(errno) => Some(Err(errno)),
        });
        match held {
            Some(Ok(())) => Ok(Self { file }),
            Some(Err(errno)) => Err(unreadable(errno.into())),
            None => {
                let mut text = String::new();
                // It may be half written: then the holder stays unnamed.
                let _ = file.read_to_string(&mut text);
                Err(StoreError::InUse { dir: dir.to_owned(), holder: serde_json::from_str(&text).ok() })
            }
        }
    }

    /// Not synced: after a crash nobody holds the store anyway.
    pub(super) fn name(&mut self, holder: &Holder) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(&serde_json::to_vec(holder)?)
    }
}

/// Tries until there is an answer or `patience` is used up; counted, so that no clock is needed.
pub(super) fn retry<T>(patience: Duration, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    for _ in 0..patience.as_millis() / BETWEEN_TRIES.as_millis() {
        if let Some(answer) = attempt() {
            return Some(answer);
        }
        #[expect(clippy::disallowed_methods, reason = "opening is synchronous, before any task runs")]
        std::thread::sleep(BETWEEN_TRIES);
    }
    attempt()
}
