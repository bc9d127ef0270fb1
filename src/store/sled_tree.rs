//! sled 0.34.7 under the journal: the only file that names it, and all that it needs to be trusted.
//!
//! What sled leaves out, and what is done about it here (measured; see `docs/adr/0002-sled-hardened.md`):
//!
//! - `flush` is `sync_file_range`, which promises nothing after a power cut: `fdatasync` of the same file follows, through
//!   a handle of ours. Its background flusher swallows errors: off. `flush_async` hangs: not used. Nor are transactions.
//! - A leftover `snap.*.generating` makes every later open fail: removed first. The snapshot that it was to replace is
//!   only removed after the rename, so nothing is lost.
//! - A page over 128 KiB goes to a file in `blobs/` that is never synced. A leaf splits at 16 entries whatever their size,
//!   so values are cut into chunks of 4 KiB; should `blobs/` ever fill all the same, nothing more is acknowledged.
//! - Damage panics: every call is caught, and the panic becomes an error.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::lock;
use super::mark::SLOT_BYTES;
use super::room::Room;
use super::tree::{Batch, ByteTree, Entry, TreeError, Visitor};

/// A store of 10,000 runs is read once at open and then hardly at all.
const CACHE_BYTES: u64 = 32 << 20;
/// 17 of these, the most that a leaf holds before it splits, stay well under sled's 128 KiB.
const CHUNK_BYTES: usize = 4 << 10;
/// The two slots of the mark lie in different blocks.
const SLOT_STRIDE: u64 = 4096;

/// sled, opened under our own lock.
pub(super) struct SledTree {
    /// `None` only while dropping.
    db: Option<sled::Db>,
    /// sled's directory.
    dir: PathBuf,
    /// The file that sled writes, for `fdatasync`: the inode counts, not the handle.
    data: File,
    mark: File,
    room: Room,
    unsynced_bytes: u64,
}

impl SledTree {
    /// Opens what is in `dir`, or makes it. The caller holds the lock.
    pub(super) fn open(dir: &Path) -> Result<Self, TreeError> {
        let db_dir = dir.join("db");
        if !db_dir.exists() {
            fs::DirBuilder::new().mode(0o700).create(&db_dir)?;
        }
        remove_unfinished_snapshots(&db_dir)?;
        refuse_blobs(&db_dir)?;
        let db = open_sled(&db_dir)?;
        let mark = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.join("mark"))?;
        let data = File::open(db_dir.join("db"))?;
        for entry in fs::read_dir(&db_dir)? {
            let entry = entry?;
            // sled makes them readable to all. With an `fsGroup` they may be somebody else's, and are private already.
            if entry.file_type()?.is_file() && entry.metadata()?.permissions().mode() & 0o007 != 0 {
                fs::set_permissions(entry.path(), Permissions::from_mode(0o600))?;
            }
        }
        // sled syncs neither its settings nor any name. Every time, since a process may be killed before it gets here.
        File::open(db_dir.join("conf"))?.sync_all()?;
        data.sync_all()?;
        mark.sync_all()?;
        sync_dir(&db_dir)?;
        sync_dir(dir)?;
        if let Some(parent) = dir.canonicalize()?.parent() {
            match sync_dir(parent) {
                Err(TreeError::Io(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                    tracing::warn!(dir = %parent.display(), "may not be read, so the store's name there could not be synced");
                }
                outcome => outcome?,
            }
        }
        let tree = Self { db: Some(db), dir: db_dir, data, mark, room: Room::new(dir), unsynced_bytes: 0 };
        refuse_blobs(&tree.dir)?;
        Ok(tree)
    }

    pub(super) fn room(&self) -> &Room {
        &self.room
    }

    fn db(&self) -> Result<&sled::Db, TreeError> {
        self.db.as_ref().ok_or_else(|| TreeError::Broken("sled is closed".into()))
    }

    /// How many chunks a key has now: chunks beyond a new value's must go.
    fn chunks(&self, key: &[u8]) -> Result<u16, TreeError> {
        let db = self.db()?;
        let first = guarded(|| db.get(chunk_key(key, 0)))?;
        Ok(match first.as_deref() {
            None => 0,
            Some([high, low, ..]) => u16::from_be_bytes([*high, *low]),
            Some(_) => return Err(TreeError::Broken("a chunk is too short".into())),
        })
    }
}

impl ByteTree for SledTree {
    fn scan(&self, prefix: &[u8]) -> Result<Vec<Entry>, TreeError> {
        let mut entries = Vec::new();
        self.visit(prefix, &mut |key, value| {
            entries.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })?;
        Ok(entries)
    }

    fn visit(&self, prefix: &[u8], each: &mut Visitor<'_>) -> Result<(), TreeError> {
        let db = self.db()?;
        let mut entries = guarded(|| Ok(db.scan_prefix(prefix)))?;
        let mut next = || guarded(|| entries.next().transpose());
        while let Some((key, value)) = next()? {
            let (key, count, mut joined) = first_chunk(&key, &value)?;
            for index in 1..count {
                let Some((_, more)) = next()?.filter(|(stored, _)| **stored == *chunk_key(&key, index)) else {
                    return Err(TreeError::Broken(format!("chunk {index} of {} is missing", key.escape_ascii())));
                };
                joined.extend_from_slice(&more);
            }
            if each(&key, &joined).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TreeError> {
        let db = self.db()?;
        let Some(first) = guarded(|| db.get(chunk_key(key, 0)))? else { return Ok(None) };
        let (_, count, mut joined) = first_chunk(&chunk_key(key, 0), &first)?;
        for index in 1..count {
            let more = guarded(|| db.get(chunk_key(key, index)))?
                .ok_or_else(|| TreeError::Broken(format!("chunk {index} of {} is missing", key.escape_ascii())))?;
            joined.extend_from_slice(&more);
        }
        Ok(Some(joined))
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), TreeError> {
        let bytes: usize = batch.puts.iter().map(|(key, value)| key.len() + value.len()).sum();
        // sled's own overhead is a few fold for small values.
        self.room.need(4 * (self.unsynced_bytes + bytes as u64))?;
        let mut changes = sled::Batch::default();
        for (key, value) in &batch.puts {
            let chunks: Vec<&[u8]> = split(value);
            let count = u16::try_from(chunks.len()).map_err(|_| TreeError::Broken("a value is too large".into()))?;
            for (index, chunk) in (0..).zip(&chunks) {
                let stored = if index == 0 { [&count.to_be_bytes(), *chunk].concat() } else { chunk.to_vec() };
                changes.insert(chunk_key(key, index), stored);
            }
            (count..self.chunks(key)?).for_each(|index| changes.remove(chunk_key(key, index)));
        }
        for key in &batch.deletes {
            (0..self.chunks(key)?).for_each(|index| changes.remove(chunk_key(key, index)));
        }
        let db = self.db()?;
        guarded(|| db.apply_batch(changes))?;
        self.unsynced_bytes += bytes as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), TreeError> {
        let db = self.db()?;
        guarded(|| db.flush())?;
        self.data.sync_data()?;
        refuse_blobs(&self.dir)?;
        self.unsynced_bytes = 0;
        Ok(())
    }

    fn read_mark(&self) -> Result<[Option<Vec<u8>>; 2], TreeError> {
        let slot = |index: u64| -> io::Result<Option<Vec<u8>>> {
            let mut bytes = vec![0; SLOT_BYTES];
            match self.mark.read_exact_at(&mut bytes, index * SLOT_STRIDE) {
                Ok(()) if bytes.iter().all(|byte| *byte == 0) => Ok(None),
                Ok(()) => Ok(Some(bytes)),
                // The file ends before or inside this slot: never written, or its first write was cut short.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
                Err(error) => Err(error),
            }
        };
        Ok([slot(0)?, slot(1)?])
    }

    fn write_mark(&mut self, slot: usize, bytes: &[u8]) -> Result<(), TreeError> {
        self.mark.write_all_at(bytes, slot as u64 * SLOT_STRIDE)?;
        Ok(self.mark.sync_data()?)
    }

    fn low_on_room(&self) -> bool {
        self.room.still_low()
    }
}

impl Drop for SledTree {
    fn drop(&mut self) {
        let db = self.db.take();
        // sled flushes on drop and may panic on a broken file; whatever was acknowledged is on disk already.
        if catch_unwind(AssertUnwindSafe(move || drop(db))).is_err() {
            tracing::warn!("sled panicked while it was closed");
        }
    }
}

/// The kernel may need a moment to take a killed process's lock away from sled's file, too.
fn open_sled(db_dir: &Path) -> Result<sled::Db, TreeError> {
    let open = || {
        let config = sled::Config::new().path(db_dir).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        match guarded(|| config.open()) {
            Err(TreeError::Io(error)) if error.to_string().contains("could not acquire lock") => None,
            outcome => Some(outcome),
        }
    };
    lock::retry(Duration::from_secs(10), open)
        .unwrap_or_else(|| Err(TreeError::Broken("another process has sled's file open".into())))
}

fn remove_unfinished_snapshots(db_dir: &Path) -> Result<(), TreeError> {
    let mut removed = false;
    for entry in fs::read_dir(db_dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path())?;
            tracing::info!(file = %name, "removed a snapshot that a killed process did not finish");
            removed = true;
        }
    }
    if removed { sync_dir(db_dir) } else { Ok(()) }
}

fn refuse_blobs(db_dir: &Path) -> Result<(), TreeError> {
    match fs::read_dir(db_dir.join("blobs")) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(TreeError::Broken("sled has put a value into blobs/, which it never syncs".into())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn sync_dir(dir: &Path) -> Result<(), TreeError> {
    Ok(File::open(dir)?.sync_all()?)
}

/// sled's panics and errors, as ours.
fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, TreeError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) => Err(TreeError::Io(error)),
        Ok(Err(
            error @ (sled::Error::CollectionNotFound(_)
            | sled::Error::Unsupported(_)
            | sled::Error::ReportableBug(_)
            | sled::Error::Corruption { .. }),
        )) => Err(TreeError::Broken(format!("sled: {error}"))),
        Err(panic) => {
            let what = panic.downcast_ref::<String>().map(String::as_str);
            let what = what.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(TreeError::Broken(format!("sled panicked: {what}")))
        }
    }
}

/// Our keys never continue with a zero byte where another of our keys ends, so chunks of one key lie together.
fn chunk_key(key: &[u8], index: u16) -> Vec<u8> {
    [key, &index.to_be_bytes()].concat()
}

/// The first chunk carries how many there are.
fn first_chunk(stored_key: &[u8], stored: &[u8]) -> Result<(Vec<u8>, u16, Vec<u8>), TreeError> {
    match (stored_key.split_last_chunk::<2>(), stored.split_first_chunk::<2>()) {
        (Some((key, [0, 0])), Some((count, data))) => Ok((key.to_vec(), u16::from_be_bytes(*count), data.to_vec())),
        _ => Err(TreeError::Broken(format!("{} is not the first chunk of anything", stored_key.escape_ascii()))),
    }
}

/// At least one chunk, also for an empty value.
fn split(value: &[u8]) -> Vec<&[u8]> {
    if value.is_empty() { vec![value] } else { value.chunks(CHUNK_BYTES).collect() }
}

#[cfg(test)]
mod tests {
    use super::super::laws::{self, Bed};
    use super::*;

    struct Folder(tempfile::TempDir);

    impl Bed for Folder {
        fn open(&mut self) -> Box<dyn ByteTree> {
            Box::new(SledTree::open(self.0.path()).expect("sled opens"))
        }
    }

    #[test]
    fn sled_keeps_the_laws() {
        laws::check(|| Folder(tempfile::tempdir().expect("a directory")));
    }
}
