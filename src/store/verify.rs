//! Reads a whole store and believes nothing: frames, keys, sequences, chains, totals, mark.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::error::StoreError;
use super::frame::{Class, Frame, FrameError, Hash, SCHEMA, from_hex, hash};
use super::journal::StoredRecord;
use super::keys::{self, Key};
use super::ledger::{FactEntry, Fence, HeadEntry, Ledger, Revision, Totals};
use super::mark::{self, Marks};
use super::tree::{ByteTree, Entry};

/// A store that holds together.
#[derive(Debug)]
pub(super) struct Verified {
    /// `None`: nothing was ever written here.
    pub(super) ledger: Option<Ledger>,
    pub(super) marks: Marks,
    pub(super) records: u64,
    /// Of all keys and values.
    pub(super) bytes: u64,
}

/// Reads everything once, in key order, holding one entry at a time.
pub(super) fn verify(tree: &dyn ByteTree) -> Result<Verified, StoreError> {
    let marks = mark::read(&tree.read_mark().map_err(StoreError::while_opening)?)?;
    let mut reader = Reader::default();
    let mut failure = None;
    tree.visit(&[], &mut |key, value| match reader.entry(key, value) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failure = Some(error);
            ControlFlow::Break(())
        }
    })
    .map_err(StoreError::while_opening)?;
    if let Some(error) = failure {
        return Err(error);
    }
    let (records, bytes) = (reader.records, reader.bytes);
    let ledger = reader.finish()?;
    compare(ledger.as_ref(), &marks)?;
    Ok(Verified { ledger, marks, records, bytes })
}

/// The tree may be ahead of the mark (a crash between the two), never behind.
fn compare(ledger: Option<&Ledger>, marks: &Marks) -> Result<(), StoreError> {
    match (ledger, marks.newest) {
        (None, Some(mark)) => Err(StoreError::WentBack { tree: 0, mark: mark.commit }),
        // Only the very first commit can be there without a mark.
        (Some(ledger), None) if ledger.totals.commit == 1 => Ok(()),
        (Some(_), None) => Err(damaged("the high-water mark", "it is missing")),
        (Some(ledger), Some(mark)) if ledger.store != mark.store => Err(damaged(
            "the high-water mark",
            format!("it belongs to store {}, the database to store {}", mark.store, ledger.store),
        )),
        (Some(ledger), Some(mark)) if ledger.totals.commit < mark.commit => {
            Err(StoreError::WentBack { tree: ledger.totals.commit, mark: mark.commit })
        }
        (None, None) | (Some(_), Some(_)) => Ok(()),
    }
}

/// The records of one run, checked against its head once more: what is handed out was read just now.
pub(super) fn read_run(tree: &dyn ByteTree, run: Uuid, head: &HeadEntry) -> Result<Vec<StoredRecord>, StoreError> {
    let entries = tree.scan(&keys::records(run)).map_err(StoreError::while_opening)?;
    let mut chain = Chain::new(run);
    let mut records = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        let Some(Key::Record(_, seq)) = keys::parse(&key) else {
            return Err(damaged(keys::name(&key), "it is not a record"));
        };
        let Frame { schema, name, payload, .. } = chain.record(&key, seq, &value)?;
        records.push(StoredRecord { seq, kind: name, schema, payload });
    }
    chain.end(head)?;
    Ok(records)
}

/// The same as they are stored.
pub(super) fn read_entries(tree: &dyn ByteTree, run: Uuid, head: &HeadEntry) -> Result<Vec<Entry>, StoreError> {
    let entries = tree.scan(&keys::records(run)).map_err(StoreError::while_opening)?;
    let mut chain = Chain::new(run);
    for (key, value) in &entries {
        let Some(Key::Record(_, seq)) = keys::parse(key) else {
            return Err(damaged(keys::name(key), "it is not a record"));
        };
        chain.record(key, seq, value)?;
    }
    chain.end(head)?;
    Ok(entries)
}

#[derive(Debug, Deserialize)]
struct StoredMeta {
    store: Uuid,
}

#[derive(Debug, Deserialize)]
struct StoredTotals {
    commit: u64,
    fence: Fence,
    runs: u64,
    facts: u64,
    seal: String,
}

#[derive(Debug, Deserialize)]
struct StoredHead {
    revision: Revision,
    digest: String,
    summary: Value,
}

#[derive(Debug, Default)]
struct Reader {
    store: Option<Uuid>,
    totals: Option<Totals>,
    heads: BTreeMap<Uuid, HeadEntry>,
    facts: BTreeMap<String, FactEntry>,
    chain: Option<Chain>,
    runs_read: usize,
    records: u64,
    bytes: u64,
}

impl Reader {
    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.bytes += (key.len() + value.len()) as u64;
        let Some(parsed) = keys::parse(key) else { return Err(damaged(keys::name(key), "no such key is ours")) };
        match parsed {
            Key::Meta => self.store = Some(parse::<StoredMeta>(key, decode(Class::Meta, key, value)?.payload)?.store),
            Key::Totals => {
                let stored: StoredTotals = parse(key, decode(Class::Totals, key, value)?.payload)?;
                let StoredTotals { commit, fence, runs, facts, seal } = stored;
                let seal = digest(key, &seal)?;
                self.totals = Some(Totals { commit, fence, runs, facts, seal });
            }
            Key::Head(run) => {
                let stored: StoredHead = parse(key, decode(Class::Head, key, value)?.payload)?;
                let StoredHead { revision, digest: text, summary } = stored;
                let head = HeadEntry { revision, digest: digest(key, &text)?, summary, leaf: hash(key, value) };
                self.heads.insert(run, head);
            }
            Key::Record(run, seq) => {
                if self.chain.as_ref().is_none_or(|chain| chain.run != run) {
                    self.end_chain()?;
                }
                self.chain.get_or_insert_with(|| Chain::new(run)).record(key, seq, value)?;
                self.records += 1;
            }
            Key::Fact(name) => {
                let value_read = decode(Class::Fact, key, value)?.payload;
                self.facts.insert(name, FactEntry { value: value_read, leaf: hash(key, value) });
            }
        }
        Ok(())
    }

    fn end_chain(&mut self) -> Result<(), StoreError> {
        let Some(chain) = self.chain.take() else { return Ok(()) };
        let Some(head) = self.heads.get(&chain.run) else {
            return Err(damaged(format!("run {}", chain.run), "it has records and no head"));
        };
        self.runs_read += 1;
        chain.end(head)
    }

    fn finish(mut self) -> Result<Option<Ledger>, StoreError> {
        self.end_chain()?;
        let (store, totals) = match (self.store, self.totals) {
            (Some(store), Some(totals)) => (store, totals),
            (None, None) if self.bytes == 0 => return Ok(None),
            (None, _) => return Err(damaged(keys::name(keys::META), "it is missing")),
            (_, None) => return Err(damaged(keys::name(keys::TOTALS), "they are missing")),
        };
        if self.runs_read != self.heads.len() {
            return Err(damaged("runs", "one has a head and no records"));
        }
        let mut seen =
            Totals { runs: self.heads.len() as u64, facts: self.facts.len() as u64, seal: [0; 32], ..totals };
        self.heads.values().for_each(|head| seen.toggle(&head.leaf));
        self.facts.values().for_each(|fact| seen.toggle(&fact.leaf));
        if seen != totals {
            let what = format!(
                "they say {} runs and {} facts, found {} and {}; if these agree, one of them is stale",
                totals.runs, totals.facts, seen.runs, seen.facts
            );
            return Err(damaged(keys::name(keys::TOTALS), what));
        }
        Ok(Some(Ledger { store, totals, heads: self.heads, facts: self.facts }))
    }
}

/// Follows the records of one run.
#[derive(Debug)]
struct Chain {
    run: Uuid,
    seq: u64,
    digest: Hash,
}

impl Chain {
    fn new(run: Uuid) -> Self {
        Self { run, seq: 0, digest: [0; 32] }
    }

    fn record(&mut self, key: &[u8], seq: u64, value: &[u8]) -> Result<Frame, StoreError> {
        let due = self.seq + 1;
        if seq != due {
            return Err(damaged(keys::name(key), format!("record {due} of the run should come here")));
        }
        let frame = decode(Class::Record, key, value)?;
        if frame.previous != self.digest {
            return Err(damaged(keys::name(key), "it does not continue the record before it"));
        }
        (self.seq, self.digest) = (seq, hash(key, value));
        Ok(frame)
    }

    fn end(&self, head: &HeadEntry) -> Result<(), StoreError> {
        if Revision(self.seq) != head.revision {
            let what = format!("its head says {} records, found {}", head.revision, self.seq);
            return Err(damaged(format!("run {}", self.run), what));
        }
        if self.digest != head.digest {
            return Err(damaged(format!("run {}", self.run), "its newest record is not the one that its head names"));
        }
        Ok(())
    }
}

fn decode(class: Class, key: &[u8], value: &[u8]) -> Result<Frame, StoreError> {
    let frame = Frame::decode(key, value).map_err(|error| match error {
        FrameError::Newer(version) => StoreError::Newer { schema: u16::from(version), supported: SCHEMA },
        FrameError::Bad(_) | FrameError::Checksum { .. } => damaged(keys::name(key), error.to_string()),
    })?;
    if frame.schema > SCHEMA {
        return Err(StoreError::Newer { schema: frame.schema, supported: SCHEMA });
    }
    if frame.class != class {
        return Err(damaged(keys::name(key), format!("it holds a {:?}", frame.class)));
    }
    Ok(frame)
}

fn parse<T: serde::de::DeserializeOwned>(key: &[u8], payload: Value) -> Result<T, StoreError> {
    serde_json::from_value(payload).map_err(|error| damaged(keys::name(key), error.to_string()))
}

fn digest(key: &[u8], text: &str) -> Result<Hash, StoreError> {
    from_hex(text).ok_or_else(|| damaged(keys::name(key), "its digest is not one"))
}

pub(super) fn damaged(key: impl Into<String>, what: impl Into<String>) -> StoreError {
    StoreError::Damaged { key: key.into(), what: what.into() }
}
