//! `kamino-wf store check`: reads everything, says what is there.

use std::fs;

use serde::Serialize;
use uuid::Uuid;

use super::error::StoreError;
use super::frame::SCHEMA;
use super::ledger::Fence;
use super::lock::Lock;
use super::open::{CHECK_PATIENCE, open_tree};
use super::place::Place;
use super::replace::settle;
use super::trial::verify_copy;
use super::verify::{Verified, verify};

/// What a whole store holds; everything in it was read and agrees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// The store's own id.
    pub store: Uuid,
    /// The newest schema that this release reads.
    pub schema_supported: u16,
    /// Number of batches ever committed.
    pub commit: u64,
    /// The newest commit that the mark has seen: not above `commit`; below it after a crash.
    pub mark: Option<u64>,
    /// The newest lease epoch that wrote here.
    pub fence: Fence,
    /// Number of runs.
    pub runs: u64,
    /// Number of records in all runs.
    pub records: u64,
    /// Number of facts.
    pub facts: u64,
    /// Keys and values.
    pub live_bytes: u64,
    /// What the database takes on disk; it never shrinks (see `store compact`).
    pub file_bytes: u64,
}

/// Reads everything, in a copy, and changes nothing; only a replacing that was cut short is finished before.
///
/// # Errors
/// [`StoreError::InUse`] if somebody has it open; [`StoreError::Full`] without room for a copy; the error that opening would give if it cannot be trusted.
pub fn check_dir(place: impl Into<Place>) -> Result<CheckReport, StoreError> {
    let place = place.into();
    let dir = place.dir.as_path();
    let there = ["db/db", "mark", "ready", "old"].iter().any(|name| dir.join(name).exists());
    if !there {
        return Err(StoreError::NotAStore { dir: dir.to_owned(), what: "there is no database in it".into() });
    }
    place.refuse_network()?;
    let lock = Lock::acquire(dir, CHECK_PATIENCE)?;
    settle(dir)?;
    let Verified { ledger, marks, records, bytes } = if dir.join("db/db").exists() {
        verify_copy(dir)?
    } else {
        // Says that the database is gone.
        verify(&open_tree(dir)?)?
    };
    let Some(ledger) = ledger else {
        return Err(StoreError::NotAStore { dir: dir.to_owned(), what: "its database is empty".into() });
    };
    let file_bytes = fs::metadata(dir.join("db/db")).map_or(0, |meta| meta.len());
    drop(lock);
    Ok(CheckReport {
        store: ledger.store,
        schema_supported: SCHEMA,
        commit: ledger.totals.commit,
        mark: marks.newest.map(|mark| mark.commit),
        fence: ledger.totals.fence,
        runs: ledger.totals.runs,
        records,
        facts: ledger.totals.facts,
        live_bytes: bytes,
        file_bytes,
    })
}
