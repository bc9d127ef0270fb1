//! Each line of the manifest looked at again, with nothing remembered from when it was applied.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, statat};

use super::beneath::{Beneath, Found, error};
use super::error::{CleanError, PathError};
use super::manifest::{Manifest, Verb};

/// How many of the paths left are named.
const NAMED_MAX: usize = 5;

/// Fails if anything is left of what the manifest names.
pub(super) fn verify(copy: &Beneath, manifest: &Manifest) -> Result<(), CleanError> {
    let mut left = Vec::new();
    for entry in manifest.entries() {
        let found = copy.expand(&entry.pattern).map_err(CleanError::Path)?;
        match entry.verb {
            Verb::Erase | Verb::Unlink => left.extend(found.into_iter().map(|found| found.path)),
            Verb::Empty => {
                for found in found {
                    if !is_empty(&found.dir, &found).map_err(CleanError::Path)? {
                        left.push(found.path);
                    }
                }
            }
        }
    }
    if left.is_empty() {
        return Ok(());
    }
    let more = left.len().saturating_sub(NAMED_MAX);
    left.truncate(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(CleanError::Left { paths: left.join(", ") + &more })
}

fn is_empty(dir: &OwnedFd, found: &Found) -> Result<bool, PathError> {
    let stat =
        statat(dir, &*found.name, AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| error("look at", &found.path, errno))?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_size == 0)
}
