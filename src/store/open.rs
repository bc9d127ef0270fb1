//! Opening a store's directory: every check that comes before the journal's own.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;

use super::committer::Committer;
use super::error::StoreError;
use super::journal::{Journal, Poison};
use super::lock::{self, Holder, Lock};
use super::mark::Mark;
use super::place::Place;
use super::replace::settle;
use super::room::Room;
use super::sled_tree::SledTree;
use super::survey::TRIAL;
use super::tree::TreeError;
use super::trial::{Copy, verify_copy};

/// Holds the store's lock, and knows when its committer ends.
///
/// A committer that ended with an error is the end of the process: nothing can be committed any more, and a new process
/// finds out what is on disk.
#[derive(Debug)]
pub struct StoreGuard {
    /// Shared with the committer's thread: the lock must outlive whoever writes.
    lock: Arc<Lock>,
    ended: watch::Receiver<bool>,
    poison: Poison,
    low: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl StoreGuard {
    /// Resolves when the committer has ended: `Ok` after the last [`Journal`] was dropped.
    ///
    /// # Errors
    /// Why the store is poisoned. End the process.
    pub async fn ended(&self) -> Result<(), StoreError> {
        let ended = self.ended.clone().wait_for(|ended| *ended).await.is_ok();
        match self.poison.get() {
            Some(why) => Err(StoreError::Poisoned { why: why.clone() }),
            None if ended => Ok(()),
            None => Err(panicked()),
        }
    }

    /// Is the volume so full that the ballast had to be given up? Then new runs should be refused: what is left is for
    /// those under way.
    #[must_use]
    pub fn low_on_room(&self) -> bool {
        self.low.load(Ordering::Relaxed)
    }

    /// Blocks until the committer has ended and sled is closed, then gives the lock up. Drop every [`Journal`] before.
    ///
    /// # Errors
    /// As [`StoreGuard::ended`].
    pub fn close(mut self) -> Result<(), StoreError> {
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| panicked())?;
        }
        drop(self.lock);
        self.poison.get().map_or(Ok(()), |why| Err(StoreError::Poisoned { why: why.clone() }))
    }
}

/// Opens the store in `dir`, or makes one there, and starts its committer on a thread of its own.
///
/// # Errors
/// [`StoreError::InUse`] names the holder, after waiting 10 s for it. A store that cannot be trusted is left as it is.
pub fn open_dir(place: impl Into<Place>, holder: &Holder) -> Result<(Journal, StoreGuard), StoreError> {
    let place = place.into();
    place.refuse_network()?;
    let dir = place.dir.as_path();
    refuse_strangers(dir)?;
    if !dir.exists() {
        create_durably(dir).map_err(|source| unreadable("create", dir, source))?;
    }
    let mut lock = Lock::acquire(dir, lock::PATIENCE)?;
    if let Err(error) = lock.name(holder) {
        // On a full volume, say. It only helps people.
        tracing::warn!(%error, "the store's holder could not be named in LOCK");
    }
    settle(dir)?;
    #[expect(clippy::disallowed_methods, reason = "only tells stores apart; no simulation opens a directory")]
    let store_id_if_new = Uuid::new_v4();
    if dir.join("db/db").exists() {
        match verify_copy(dir) {
            Ok(_) => {}
            Err(StoreError::Full) => tracing::warn!("no room to open a copy of the store first"),
            Err(error) => return Err(error),
        }
    }
    let tree = open_tree(dir)?;
    tree.room().load_ballast().map_err(|source| unreadable("set room aside in", dir, source))?;
    let low = tree.room().low();
    let (journal, committer) = Journal::open(Box::new(tree), store_id_if_new)?;
    Ok((journal, run(dir, lock, committer, low, None)?))
}

/// Opens a copy of the store in a place, to read from: the store itself is left as it is, and its volume may be full.
///
/// # Errors
/// As [`open_dir`]; [`StoreError::Full`] if there is no room for a copy anywhere.
pub fn read_dir(place: impl Into<Place>, holder: &Holder) -> Result<(Journal, StoreGuard), StoreError> {
    let place = place.into();
    place.refuse_network()?;
    let dir = place.dir.as_path();
    refuse_strangers(dir)?;
    let mut lock = Lock::acquire(dir, lock::PATIENCE)?;
    drop(lock.name(holder));
    settle(dir)?;
    if !dir.join("db/db").exists() {
        // Says that it is gone, or that there was none.
        open_tree(dir)?;
    }
    let copy = Copy::of(dir)?;
    let tree = open_tree(copy.dir())?;
    let low = tree.room().low();
    #[expect(clippy::disallowed_methods, reason = "of an empty store, whose copy goes")]
    let (journal, committer) = Journal::open(Box::new(tree), Uuid::new_v4())?;
    Ok((journal, run(dir, lock, committer, low, Some(copy))?))
}

/// Starts a committer.
fn run(
    dir: &Path,
    lock: Lock,
    committer: Committer,
    low: Arc<AtomicBool>,
    copy: Option<Copy>,
) -> Result<StoreGuard, StoreError> {
    let lock = Arc::new(lock);
    let poison = Arc::clone(&committer.poison);
    let (tell, ended) = watch::channel(false);
    let held = Arc::clone(&lock);
    // The very loop that simulations run, on a runtime that has neither timer nor sockets.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|source| unreadable("start a runtime for", dir, source))?;
    let thread = std::thread::Builder::new()
        .name("kamino-wf-store".into())
        .spawn(move || {
            // What it ended with is in `poison` as well, where callers look, too.
            let _ = runtime.block_on(committer.run());
            drop((copy, held));
            tell.send_replace(true);
        })
        .map_err(|source| unreadable("start a thread for", dir, source))?;
    Ok(StoreGuard { lock, ended, poison, low, thread: Some(thread) })
}

/// After the lock is held. A mark without a database means that the database is gone, so none is made.
pub(super) fn open_tree(dir: &Path) -> Result<SledTree, StoreError> {
    if !dir.join("db/db").exists() {
        let mark = match fs::read(dir.join("mark")) {
            Ok(bytes) => bytes.chunks(64).filter_map(Mark::decode).map(|mark| mark.commit).max(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(unreadable("read", &dir.join("mark"), source)),
        };
        if let Some(mark) = mark {
            return Err(StoreError::WentBack { tree: 0, mark });
        }
    }
    let full = |error: &TreeError| match error {
        TreeError::Full => true,
        TreeError::Io(source) => source.kind() == std::io::ErrorKind::StorageFull,
        TreeError::Broken(_) => false,
    };
    let opened = match SledTree::open(dir) {
        Err(error) if full(&error) && Room::new(dir).free_ballast() => SledTree::open(dir),
        opened => opened,
    };
    opened.map_err(|error| match error {
        TreeError::Io(source) if source.kind() != std::io::ErrorKind::StorageFull => unreadable("open", dir, source),
        error @ (TreeError::Full | TreeError::Broken(_) | TreeError::Io(_)) => StoreError::while_opening(error),
    })
}

/// A directory's name is in its parent, and durable only when that was synced. `SledTree` syncs the last of them each time.
pub(super) fn create_durably(dir: &Path) -> std::io::Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|path| !path.exists()).collect();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    for parent in missing.iter().skip(1) {
        if !parent.as_os_str().is_empty() {
            fs::File::open(parent)?.sync_all()?;
        }
    }
    Ok(())
}

fn panicked() -> StoreError {
    StoreError::Poisoned { why: "the committer's thread panicked".into() }
}

/// Only an empty directory becomes a store; a typing error in `--store` must not scatter files.
pub(super) fn refuse_strangers(dir: &Path) -> Result<(), StoreError> {
    let not_a_store = |what: String| Err(StoreError::NotAStore { dir: dir.to_owned(), what });
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            return not_a_store("it is not a directory".into());
        }
        Err(source) => return Err(unreadable("read", dir, source)),
    };
    let mut stranger = None;
    for entry in entries {
        let name = entry.map_err(|source| unreadable("read", dir, source))?.file_name();
        if ["LOCK", "db", "mark"].iter().any(|ours| name == *ours) {
            return Ok(());
        }
        // The root of a fresh ext4 volume has one.
        if name != "lost+found" && !name.to_string_lossy().starts_with(TRIAL) {
            stranger = Some(name);
        }
    }
    match stranger {
        None => Ok(()),
        Some(name) => not_a_store(format!("it holds {} and no store", name.display())),
    }
}

fn unreadable(what: &'static str, path: &Path, source: std::io::Error) -> StoreError {
    StoreError::Unreadable { what, path: path.to_owned(), source }
}

/// A check is asked for by a person, who can come again.
pub(super) const CHECK_PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_something_else_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(dir.path().join("lost+found")).expect("an empty volume");
        refuse_strangers(dir.path()).expect("an empty volume will do");
        fs::write(dir.path().join("thesis.txt"), "").expect("a file");
        let error = refuse_strangers(dir.path()).expect_err("somebody's directory");
        assert!(error.to_string().contains("thesis.txt"), "{error}");
    }
}
