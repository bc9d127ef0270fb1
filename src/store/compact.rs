//! Compaction: sled gives no room back, so what is left is written into a new file, which takes the place of the old one.
//!
//! Entries are copied as they are, byte for byte: every chain, every checksum and the seal of the whole stay what they were,
//! and the new file is only used when they are found to agree.

use std::fs;
use std::ops::ControlFlow;

use super::error::StoreError;
use super::lock::{Holder, Lock, PATIENCE};
use super::mark::Mark;
use super::open::{open_tree, refuse_strangers};
use super::place::Place;
use super::replace::{Replacement, settle};
use super::room;
use super::tree::{Batch, ByteTree, TreeError};
use super::trial::verify_copy;
use super::verify::Verified;

/// Entries in one batch: of sled's few megabytes of buffers, a batch takes what it weighs.
const BATCH_ENTRIES: usize = 1000;
const BATCH_BYTES: usize = 4 << 20;
/// What sled takes for data, measured on stores of many small records (docs/adr/0002), and what it takes for nothing.
const FACTOR: u64 = 4;
const EMPTY_BYTES: u64 = 4 << 20;

/// What a compaction has done.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Compacted {
    /// What the database took on disk.
    pub before_bytes: u64,
    /// What it takes now.
    pub after_bytes: u64,
    /// Keys and values.
    pub live_bytes: u64,
    /// Number of runs.
    pub runs: u64,
    /// Number of records in all runs.
    pub records: u64,
}

/// Rewrites the store that is in a place. Killed at any moment, the old store is there or the new one.
///
/// # Errors
/// [`StoreError::InUse`] if somebody has it open; [`StoreError::NoRoom`] before anything is written; the error that opening would
/// give if it cannot be trusted. The store is as it was then.
pub fn compact_dir(place: &Place, holder: &Holder) -> Result<Compacted, StoreError> {
    let dir = &place.dir;
    place.refuse_network()?;
    refuse_strangers(dir)?;
    if !dir.join("LOCK").exists() {
        return Err(StoreError::NotAStore { dir: dir.clone(), what: "there is no database in it".into() });
    }
    let mut lock = Lock::acquire(dir, PATIENCE)?;
    drop(lock.name(holder));
    settle(dir)?;
    if !dir.join("db/db").exists() {
        // Says that it is gone, if it was there.
        open_tree(dir)?;
    }
    let before = verify_copy(dir)?;
    let Some(ledger) = &before.ledger else {
        return Err(StoreError::NotAStore { dir: dir.clone(), what: "its database is empty".into() });
    };
    let size = || fs::metadata(dir.join("db/db")).map_or(0, |meta| meta.len());
    let before_bytes = size();
    let need = FACTOR * before.bytes + EMPTY_BYTES + room::FREE_BYTES_MIN;
    let (replacement, mut target) = Replacement::begin(dir, "compact the store", need)?;
    let source = open_tree(dir)?;
    copy(&source, &mut target)?;
    drop(source);
    target.sync().map_err(StoreError::while_opening)?;
    let mark = Mark { store: ledger.store, commit: ledger.totals.commit };
    target.write_mark(0, &mark.encode()).map_err(StoreError::while_opening)?;
    drop(target);
    replacement.swap(|after| agree(&before, after))?;
    Ok(Compacted {
        before_bytes,
        after_bytes: size(),
        live_bytes: before.bytes,
        runs: ledger.totals.runs,
        records: before.records,
    })
}

fn copy(source: &dyn ByteTree, target: &mut dyn ByteTree) -> Result<(), StoreError> {
    let (mut batch, mut bytes) = (Batch::default(), 0);
    let mut failure: Option<TreeError> = None;
    source
        .visit(&[], &mut |key, value| {
            bytes += key.len() + value.len();
            batch.puts.push((key.to_vec(), value.to_vec()));
            if batch.puts.len() < BATCH_ENTRIES && bytes < BATCH_BYTES {
                return ControlFlow::Continue(());
            }
            bytes = 0;
            match target.apply(&std::mem::take(&mut batch)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            }
        })
        .map_err(StoreError::while_opening)?;
    match failure {
        Some(error) => Err(error),
        None => target.apply(&batch),
    }
    .map_err(StoreError::while_opening)
}

/// The seal covers every head and fact, each head the chain of its records.
fn agree(before: &Verified, after: &Verified) -> Result<(), StoreError> {
    let same = |it: &Verified| (it.ledger.as_ref().map(|it| (it.store, it.totals)), it.records, it.bytes);
    if same(before) == same(after) {
        Ok(())
    } else {
        Err(super::verify::damaged("the compacted store", "it is not what was written; the old one stays"))
    }
}
