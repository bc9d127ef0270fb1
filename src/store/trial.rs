//! Opens and reads a copy first, because sled repairs what it opens.
//!
//! It takes damage for a torn end of its log and overwrites everything after it (0.34.7, `pagecache/snapshot.rs`, "zeroing
//! torn segment"). By the time we can see that acknowledged records are gone, it has made sure of it. On a copy, that costs
//! nothing: the original still has the bytes, for whoever looks into it.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use super::error::StoreError;
use super::open::open_tree;
use super::room::Room;
use super::tree::TreeError;
use super::verify::{Verified, verify};

/// Reads all of a copy of the store in `dir`, whose lock the caller holds. The copy is gone afterwards.
///
/// # Errors
/// [`StoreError::Full`] if there is no room for a copy; otherwise what is wrong with the store.
pub(super) fn verify_copy(dir: &Path) -> Result<Verified, StoreError> {
    let trial = dir.join("trial");
    let unreadable = |what, source: io::Error| {
        if source.kind() == io::ErrorKind::StorageFull {
            StoreError::Full
        } else {
            StoreError::Unreadable { what, path: dir.to_owned(), source }
        }
    };
    remove(&trial).map_err(|source| unreadable("remove an old copy of", source))?;
    let bytes = fs::metadata(dir.join("db/db")).map_err(|source| unreadable("read", source))?.len();
    Room::new(dir).need_without_ballast(bytes).map_err(|error| match error {
        TreeError::Io(source) => unreadable("look at", source),
        TreeError::Full | TreeError::Broken(_) => StoreError::Full,
    })?;
    let outcome = copy(dir, &trial)
        .map_err(|source| unreadable("copy", source))
        .and_then(|()| open_tree(&trial))
        .and_then(|tree| verify(&tree));
    // Whatever came of it; the next opening tries again, should this fail.
    if let Err(error) = remove(&trial) {
        tracing::warn!(%error, "the store's copy could not be removed");
    }
    outcome
}

/// Shares blocks where the file system can.
fn copy(dir: &Path, trial: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(trial)?;
    copy_dir(&dir.join("db"), &trial.join("db"))?;
    match fs::copy(dir.join("mark"), trial.join("mark")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn remove(trial: &Path) -> io::Result<()> {
    match fs::remove_dir_all(trial) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}
