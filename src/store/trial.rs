//! Opens and reads a copy first, because sled repairs what it opens.
//!
//! It takes damage for a torn end of its log and overwrites everything after it (0.34.7, `pagecache/snapshot.rs`, "zeroing
//! torn segment"). By the time we can see that acknowledged records are gone, it has made sure of it. On a copy, that costs
//! nothing: the original still has the bytes, for whoever looks into it.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::error::StoreError;
use super::open::open_tree;
use super::room::Room;
use super::tree::TreeError;
use super::verify::{Verified, verify};

/// Reads all of a copy of the store in `dir`, whose lock the caller holds. The copy is gone afterwards.
///
/// # Errors
/// [`StoreError::Full`] if there is no room for a copy anywhere; otherwise what is wrong with the store.
pub(super) fn verify_copy(dir: &Path) -> Result<Verified, StoreError> {
    let copy = Copy::of(dir)?;
    open_tree(copy.dir()).and_then(|tree| verify(&tree))
}

/// A copy of a store, which goes when it is dropped.
#[derive(Debug)]
pub(super) struct Copy {
    dir: PathBuf,
}

impl Copy {
    /// Beside the store; where there is no room, in the memory or the temporary directory of this machine.
    ///
    /// # Errors
    /// [`StoreError::Full`] if none of them has room.
    pub(super) fn of(dir: &Path) -> Result<Self, StoreError> {
        // What another left behind is removed first: it takes the room.
        let beside = dir.join("trial");
        remove(&beside).map_err(|source| refused("remove an old copy of", dir, source))?;
        // Another process's name differs, also one of another pid namespace: then its copy is there, and the next will do.
        let name = format!("kamino-wf-copy-{}", std::process::id());
        let elsewhere = [std::env::temp_dir(), PathBuf::from("/dev/shm")].map(|at| at.join(&name));
        for copy in [beside].into_iter().chain(elsewhere) {
            match Self::make(dir, copy) {
                Err(StoreError::Full) => {}
                made => return made,
            }
        }
        Err(StoreError::Full)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn make(dir: &Path, copy: PathBuf) -> Result<Self, StoreError> {
        let bytes = fs::metadata(dir.join("db/db")).map_err(|source| refused("read", dir, source))?.len();
        let Some(parent) = copy.parent().filter(|parent| parent.is_dir()) else { return Err(StoreError::Full) };
        Room::new(parent).need_without_ballast(bytes).map_err(|error| match error {
            TreeError::Io(source) => refused("look at", dir, source),
            TreeError::Full | TreeError::Broken(_) => StoreError::Full,
        })?;
        if let Err(error) = fs::DirBuilder::new().mode(0o700).create(&copy) {
            // Not ours to write to, or not ours to remove: as good as full.
            return if copy.starts_with(dir) { Err(refused("copy", dir, error)) } else { Err(StoreError::Full) };
        }
        let made = Self { dir: copy };
        fill(dir, &made.dir).map_err(|source| refused("copy", dir, source))?;
        Ok(made)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // Whatever came of it; the next opening tries again, should this fail.
        if let Err(error) = remove(&self.dir) {
            tracing::warn!(%error, "the store's copy could not be removed");
        }
    }
}

fn refused(what: &'static str, dir: &Path, source: io::Error) -> StoreError {
    if source.kind() == io::ErrorKind::StorageFull {
        StoreError::Full
    } else {
        StoreError::Unreadable { what, path: dir.to_owned(), source }
    }
}

/// Shares blocks where the file system can.
fn fill(dir: &Path, copy: &Path) -> io::Result<()> {
    copy_dir(&dir.join("db"), &copy.join("db"))?;
    match fs::copy(dir.join("mark"), copy.join("mark")) {
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

fn remove(copy: &Path) -> io::Result<()> {
    match fs::remove_dir_all(copy) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}
