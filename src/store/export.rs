//! A store as lines of text, from the journal of whoever holds it: nothing is stopped meanwhile.
//!
//! What is exported is the store at one commit. Records are only ever appended, so a run that goes on is cut where its head
//! was; a run that ages out before its turn comes is left out.

use std::collections::VecDeque;

use jiff::Timestamp;

use super::dump::{FORMAT, LINE_BYTES_MAX, Line, Tally, VERSION, written};
use super::error::StoreError;
use super::frame::{Frame, SCHEMA, hash, payload_text, to_hex};
use super::journal::{Head, Journal};
use super::keys;
use super::ledger::Fence;

/// A store in all that is kept in memory.
#[derive(Debug, Clone)]
pub(super) struct Outline {
    pub(super) position: Position,
    pub(super) fence: Fence,
    pub(super) heads: Vec<Head>,
    pub(super) facts: Vec<(String, serde_json::Value)>,
}

/// How far a store has come: a mark in the world that carries this tells later whether the store went back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The store's own id.
    pub store: uuid::Uuid,
    /// Number of batches ever committed.
    pub commit: u64,
}

/// What was exported, or imported.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// The store's own id, which it keeps.
    pub store: uuid::Uuid,
    /// Number of batches ever committed.
    pub commit: u64,
    /// The newest lease epoch that wrote there.
    pub fence: Fence,
    /// Number of runs.
    pub runs: u64,
    /// Number of records in all runs.
    pub records: u64,
    /// Number of facts.
    pub facts: u64,
}

/// An export under way.
#[derive(Debug)]
pub struct Export {
    journal: Journal,
    position: Position,
    fence: Fence,
    heads: VecDeque<Head>,
    facts: VecDeque<(String, serde_json::Value)>,
    tally: Tally,
    header: Option<Line>,
    ended: bool,
}

impl Export {
    /// Fixes what is exported: the store as it is now.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`] and [`StoreError::Closed`] only.
    pub async fn begin(journal: &Journal, release: &str, made: Timestamp) -> Result<Self, StoreError> {
        let Outline { position, fence, heads, facts } = journal.outline().await?;
        let header = Line::Header {
            format: FORMAT.into(),
            version: VERSION,
            release: release.into(),
            made,
            store: position.store,
            commit: position.commit,
            fence,
        };
        Ok(Self {
            journal: journal.clone(),
            position,
            fence,
            heads: heads.into(),
            facts: facts.into(),
            tally: Tally::default(),
            header: Some(header),
            ended: false,
        })
    }

    /// The next whole lines, or `None` after the last: a run with its records at most, so that little is held in memory.
    ///
    /// # Errors
    /// What [`Journal::load`] says. What came before is no whole export.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        let mut text = Vec::new();
        if let Some(header) = self.header.take() {
            self.add(&header, &mut text)?;
        } else if let Some(head) = self.heads.pop_front() {
            self.add_run(head, &mut text).await?;
        } else if let Some((key, value)) = self.facts.pop_front() {
            self.add(&Line::Fact { key, schema: SCHEMA, value }, &mut text)?;
        } else if !self.ended {
            self.ended = true;
            text = line(&self.tally.end())?;
        } else {
            return Ok(None);
        }
        Ok(Some(text))
    }

    /// What went out so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let Tally { runs, records, facts, .. } = self.tally;
        let Position { store, commit } = self.position;
        Counts { store, commit, fence: self.fence, runs, records, facts }
    }

    fn add(&mut self, it: &Line, text: &mut Vec<u8>) -> Result<(), StoreError> {
        let bytes = line(it)?;
        self.tally.count(it, &bytes);
        text.extend(bytes);
        Ok(())
    }

    async fn add_run(&mut self, head: Head, text: &mut Vec<u8>) -> Result<(), StoreError> {
        let Head { run, revision, digest, summary } = head;
        let Some(entries) = self.journal.entries(run).await? else { return Ok(()) };
        let head = Line::Run { run, schema: SCHEMA, revision, digest: to_hex(&digest), summary };
        self.add(&head, text)?;
        let mut newest = [0; 32];
        for (key, value) in entries {
            let Some(keys::Key::Record(_, seq)) = keys::parse(&key) else { break };
            if seq > revision.0 {
                break;
            }
            newest = hash(&key, &value);
            let record = record(seq, &key, &value)?;
            self.add(&record, text)?;
        }
        if newest != digest {
            return Err(super::verify::damaged(format!("run {run}"), "it changed while it was exported"));
        }
        Ok(())
    }
}

/// A record's line, which makes the record again to the byte.
fn record(seq: u64, key: &[u8], value: &[u8]) -> Result<Line, StoreError> {
    let unreadable = |what: String| super::verify::damaged(keys::name(key), what);
    let Frame { schema, name, payload, .. } =
        Frame::decode(key, value).map_err(|error| unreadable(error.to_string()))?;
    let text = payload_text(value).ok_or_else(|| unreadable("its payload is no text".into()))?;
    let plain = Line::Record { seq, schema, kind: name.clone(), payload: Some(payload), text: None };
    let same = |again: &serde_json::Value| {
        let again = again.to_string();
        again == text
    };
    let again: Option<Line> = serde_json::to_vec(&plain).ok().and_then(|it| serde_json::from_slice(&it).ok());
    match again {
        Some(Line::Record { payload: Some(again), .. }) if same(&again) => Ok(plain),
        _ => Ok(Line::Record { seq, schema, kind: name, payload: None, text: Some(text.to_owned()) }),
    }
}

fn line(line: &Line) -> Result<Vec<u8>, StoreError> {
    let bytes =
        written(line).map_err(|error| StoreError::Invalid { what: format!("a line for an export: {error}") })?;
    if bytes.len() > LINE_BYTES_MAX {
        return Err(StoreError::TooLarge { what: "bytes of an export's line", size: bytes.len(), max: LINE_BYTES_MAX });
    }
    Ok(bytes)
}
