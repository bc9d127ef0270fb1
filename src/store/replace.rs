//! A store in place of another: built beside it, verified, swapped by names. Killed anywhere, one of them is there and sound.
//!
//! ```text
//! new/    being built: worth nothing, removed
//! ready/  built, read back, synced: takes the place of db and mark, at once or at the next opening
//! old/    what was replaced: removed last
//! ```
//!
//! [`settle`] goes on where a killed process was, and comes before anything else that touches a store. `ready/over` says which
//! commit it was made from: should the store have moved on meanwhile (under a release that does not know `ready/`), it goes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::error::StoreError;
use super::mark::Mark;
use super::room;
use super::sled_tree::SledTree;
use super::verify::{Verified, verify};

const NEW: &str = "new";
const READY: &str = "ready";
const OLD: &str = "old";
const OVER: &str = "over";

/// A store that is being built beside the one in `dir`, whose lock the caller holds.
pub(super) struct Replacement {
    dir: PathBuf,
}

impl Replacement {
    /// Makes room for it and opens an empty tree in it.
    pub(super) fn begin(dir: &Path, what: &'static str, need: u64) -> Result<(Self, SledTree), StoreError> {
        let failed = |source| refused("make room in", dir, source);
        remove(&dir.join(NEW)).map_err(failed)?;
        let free = room::free_bytes(dir).map_err(failed)?;
        if free < need {
            return Err(StoreError::NoRoom { what, dir: dir.to_owned(), need, free });
        }
        let new = dir.join(NEW);
        fs::DirBuilder::new().mode(0o700).create(&new).map_err(failed)?;
        let tree = SledTree::open(&new).map_err(StoreError::while_opening)?;
        Ok((Self { dir: dir.to_owned() }, tree))
    }

    /// Reads back what was built, makes it durable, and puts it in the place of what is there. The tree is closed before.
    ///
    /// `right` says whether what was read back is what was meant.
    pub(super) fn swap(self, right: impl FnOnce(&Verified) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let Self { dir } = &self;
        let (new, ready) = (dir.join(NEW), dir.join(READY));
        let verified = SledTree::open(&new).map_err(StoreError::while_opening).and_then(|tree| verify(&tree))?;
        right(&verified)?;
        let swapping = || -> io::Result<()> {
            let mut over = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new.join(OVER))?;
            over.write_all(commit_of(dir)?.to_string().as_bytes())?;
            sync_all(&new)?;
            remove(&ready)?;
            fs::rename(&new, &ready)?;
            sync_dir(dir)
        };
        swapping().map_err(|source| refused("replace", dir, source))?;
        settle(dir)
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        // Of one that failed; of one that was swapped there is nothing by this name.
        if let Err(error) = remove(&self.dir.join(NEW)) {
            tracing::warn!(%error, "what was built beside the store could not be removed");
        }
    }
}

/// Ends what a killed process began: afterwards there is one store and nothing beside it. The caller holds the lock.
pub(super) fn settle(dir: &Path) -> Result<(), StoreError> {
    settled(dir).map_err(|source| refused("finish the replacing of", dir, source))
}

fn settled(dir: &Path) -> io::Result<()> {
    let (db, mark, ready, old) = (dir.join("db"), dir.join("mark"), dir.join(READY), dir.join(OLD));
    // Never to be used; and where nothing was begun there is nothing to do.
    remove(&dir.join(NEW))?;
    if ready.exists() {
        if ready.join("db").exists() {
            if db.exists() {
                let over = fs::read_to_string(ready.join(OVER))?;
                if over != commit_of(dir)?.to_string() {
                    tracing::warn!(over, "the store has moved on since a replacement of it was made: that is removed");
                    return remove(&ready);
                }
                remove(&old)?;
                fs::rename(&db, &old)?;
                sync_dir(dir)?;
            }
            fs::rename(ready.join("db"), &db)?;
            sync_dir(&ready)?;
            sync_dir(dir)?;
        }
        if ready.join("mark").exists() {
            fs::rename(ready.join("mark"), &mark)?;
            sync_dir(&ready)?;
            sync_dir(dir)?;
        }
        remove(&ready)?;
    }
    if old.exists() {
        // Only ever removed once another stands in its place.
        if db.exists() { remove(&old)? } else { fs::rename(&old, &db)? }
    }
    sync_dir(dir)
}

/// The newest commit that the mark of the store in `dir` knows; 0 without one.
fn commit_of(dir: &Path) -> io::Result<u64> {
    match fs::read(dir.join("mark")) {
        Ok(bytes) => Ok(bytes.chunks(64).filter_map(Mark::decode).map(|mark| mark.commit).max().unwrap_or(0)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Everything in a directory, and its name for itself; its parent is the caller's.
pub(super) fn sync_all(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { sync_all(&path)? } else { File::open(&path)?.sync_all()? }
    }
    sync_dir(dir)
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

pub(super) fn refused(what: &'static str, dir: &Path, source: io::Error) -> StoreError {
    if source.kind() == io::ErrorKind::StorageFull {
        StoreError::Full
    } else {
        StoreError::Unreadable { what, path: dir.to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a name holds, in place of a database.
    fn put(dir: &Path, what: &str) {
        fs::create_dir_all(dir).expect("a directory");
        fs::write(dir.join("what"), what).expect("a file");
    }

    fn db(dir: &Path) -> String {
        fs::read_to_string(dir.join("db/what")).expect("there is a store")
    }

    /// Every state that a kill between two names can leave, and what comes of it.
    #[test]
    fn from_every_state_between_one_store_comes_out() {
        type Make = fn(&Path);
        let ready = |dir: &Path| {
            put(&dir.join("ready/db"), "new");
            fs::write(dir.join("ready/mark"), "new").expect("a file");
            fs::write(dir.join("ready/over"), "0").expect("a file");
        };
        let states: [(&str, Make, &str); 7] = [
            ("being built", |dir| put(&dir.join("new/db"), "half"), "before"),
            ("built, and the store moved on", |dir| put(&dir.join("ready/db"), "stale"), "before"),
            ("built", |_| {}, "new"),
            ("moved away", |dir| fs::rename(dir.join("db"), dir.join("old")).expect("it is there"), "new"),
            (
                "in place, without its mark",
                |dir| {
                    fs::rename(dir.join("db"), dir.join("old")).expect("it is there");
                    fs::rename(dir.join("ready/db"), dir.join("db")).expect("it is there");
                },
                "new",
            ),
            (
                "in place, and the old one is there",
                |dir| {
                    fs::rename(dir.join("db"), dir.join("old")).expect("it is there");
                    fs::rename(dir.join("ready/db"), dir.join("db")).expect("it is there");
                    fs::rename(dir.join("ready/mark"), dir.join("mark")).expect("it is there");
                },
                "new",
            ),
            (
                "only the old one is there",
                |dir| fs::rename(dir.join("db"), dir.join("old")).expect("it is there"),
                "before",
            ),
        ];
        for (number, (state, make, expected)) in states.into_iter().enumerate() {
            let root = tempfile::tempdir().expect("a directory");
            let dir = root.path();
            put(&dir.join("db"), "before");
            fs::write(dir.join("mark"), "before").expect("a file");
            match number {
                0 | 6 => {}
                1 => {
                    ready(dir);
                    fs::write(dir.join("ready/over"), "7").expect("a file");
                }
                _ => ready(dir),
            }
            make(dir);
            for _ in 0..2 {
                settle(dir).unwrap_or_else(|error| panic!("{state}: {error}"));
                assert_eq!(db(dir), expected, "{state}");
                let mark = fs::read_to_string(dir.join("mark")).expect("a mark");
                assert_eq!(mark, expected, "{state}");
            }
            for name in [NEW, READY, OLD] {
                assert!(!dir.join(name).exists(), "{state}: {name} is left");
            }
        }
    }
}
