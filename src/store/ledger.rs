//! What the committer keeps in memory, and the pure step from a request to a batch of bytes.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::error::StoreError;
use super::frame::{Class, Frame, Hash, hash, to_hex};
use super::journal::NewRecord;
use super::keys;
use super::tree::Batch;

/// How many records of one run are committed; 0 means no such run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

/// The lease epoch of a writer. Once the store has seen a newer one, older ones are refused. 0 where there is no Lease.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Records in one commit. A step writes two or three; a plan a few dozen.
const RECORDS_MAX: usize = 64;
/// One record's payload. A scale set's model, the largest thing that we keep, is some 20 KiB.
const RECORD_BYTES_MAX: usize = 64 << 10;
/// What `list` shows of one run.
const SUMMARY_BYTES_MAX: usize = 16 << 10;
/// A record's kind is a short name such as `asked`.
const KIND_BYTES_MAX: usize = 40;
/// Facts are all kept in memory: a few per subscription, region and bucket, and the newest of who asked for what.
const FACTS_MAX: usize = 4096;
const FACT_KEY_BYTES_MAX: usize = 200;
const FACT_BYTES_MAX: usize = 4 << 10;

/// A run's newest state, and the hash of its stored form (for the seal).
#[derive(Debug, Clone)]
pub(super) struct HeadEntry {
    pub(super) revision: Revision,
    pub(super) digest: Hash,
    pub(super) summary: Value,
    pub(super) leaf: Hash,
}

/// A fact, and the hash of its stored form.
#[derive(Debug, Clone)]
pub(super) struct FactEntry {
    pub(super) value: Value,
    pub(super) leaf: Hash,
}

/// One small entry, rewritten by every batch, by which a head or a fact that is missing or stale is noticed.
///
/// Records need none of this: their head counts them and carries the end of their chain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// Number of batches ever applied to this store.
    pub(super) commit: u64,
    pub(super) fence: Fence,
    pub(super) runs: u64,
    pub(super) facts: u64,
    /// XOR of the hashes of all stored heads and facts: order does not matter, and a batch updates it in place.
    pub(super) seal: Hash,
}

impl Totals {
    pub(super) fn encode(&self) -> Vec<u8> {
        let payload = json!({
            "commit": self.commit, "fence": self.fence, "runs": self.runs, "facts": self.facts,
            "seal": to_hex(&self.seal),
        });
        Frame::new(Class::Totals, payload).encode(keys::TOTALS)
    }

    pub(super) fn toggle(&mut self, leaf: &Hash) {
        for (mine, theirs) in self.seal.iter_mut().zip(leaf) {
            *mine ^= theirs;
        }
    }
}

/// Everything but the records.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    pub(super) store: Uuid,
    pub(super) totals: Totals,
    pub(super) heads: BTreeMap<Uuid, HeadEntry>,
    pub(super) facts: BTreeMap<String, FactEntry>,
}

/// A batch to apply, and what changes in memory once it is applied.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) batch: Batch,
    totals: Totals,
    head: Option<(Uuid, HeadEntry)>,
    gone: Option<Uuid>,
    facts: Vec<(String, Option<FactEntry>)>,
}

impl Staged {
    /// A run that goes.
    pub(super) fn removal(batch: Batch, totals: Totals, run: Uuid) -> Self {
        Self { batch, totals, head: None, gone: Some(run), facts: Vec::new() }
    }
}

impl Ledger {
    /// A new store: its own entry and the first totals.
    pub(super) fn create(store: Uuid) -> (Self, Batch) {
        let totals = Totals { commit: 1, ..Totals::default() };
        let meta = Frame::new(Class::Meta, json!({ "store": store })).encode(keys::META);
        let puts = vec![(keys::META.to_vec(), meta), (keys::TOTALS.to_vec(), totals.encode())];
        (Self { store, totals, ..Self::default() }, Batch { puts, deletes: Vec::new() })
    }

    /// The only place that decides whether a commit may happen.
    pub(super) fn stage_commit(
        &self,
        run: Uuid,
        expected: Revision,
        fence: Fence,
        records: Vec<NewRecord>,
        summary: Value,
        facts: Vec<(String, Option<Value>)>,
    ) -> Result<Staged, StoreError> {
        let mut totals = self.next_totals(fence)?;
        let old = self.heads.get(&run);
        let found = old.map_or(Revision(0), |head| head.revision);
        if found != expected {
            return Err(StoreError::Conflict { run, expected, found });
        }
        if records.is_empty() && old.is_none() {
            return Err(invalid(format!("run {run} does not exist and no record was given")));
        }
        limit("records in one commit", records.len(), RECORDS_MAX)?;
        limit("bytes of a run's summary", summary.to_string().len(), SUMMARY_BYTES_MAX)?;

        let mut batch = Batch::default();
        let (mut seq, mut digest) = (found.0, old.map_or([0; 32], |head| head.digest));
        for NewRecord { kind, payload } in records {
            limit("bytes of a record's kind", kind.len(), KIND_BYTES_MAX)?;
            limit("bytes of a record", payload.to_string().len(), RECORD_BYTES_MAX)?;
            seq += 1;
            let key = keys::record(run, seq);
            let frame = Frame { previous: digest, name: kind.to_owned(), ..Frame::new(Class::Record, payload) };
            let bytes = encode(&frame, &key)?;
            digest = hash(&key, &bytes);
            batch.puts.push((key, bytes));
        }

        let key = keys::head(run);
        let payload = json!({ "revision": seq, "digest": to_hex(&digest), "summary": summary });
        let bytes = encode(&Frame::new(Class::Head, payload), &key)?;
        let leaf = hash(&key, &bytes);
        batch.puts.push((key, bytes));
        match old {
            Some(head) => totals.toggle(&head.leaf),
            None => totals.runs += 1,
        }
        totals.toggle(&leaf);
        let facts = self.change_facts(facts, &mut totals, &mut batch)?;
        batch.puts.push((keys::TOTALS.to_vec(), totals.encode()));
        let head = HeadEntry { revision: Revision(seq), digest, summary, leaf };
        Ok(Staged { batch, totals, head: Some((run, head)), gone: None, facts })
    }

    pub(super) fn stage_facts(&self, fence: Fence, facts: Vec<(String, Option<Value>)>) -> Result<Staged, StoreError> {
        let mut totals = self.next_totals(fence)?;
        let mut batch = Batch::default();
        let facts = self.change_facts(facts, &mut totals, &mut batch)?;
        batch.puts.push((keys::TOTALS.to_vec(), totals.encode()));
        Ok(Staged { batch, totals, head: None, gone: None, facts })
    }

    /// Puts changed facts into a batch and its totals.
    fn change_facts(
        &self,
        facts: Vec<(String, Option<Value>)>,
        totals: &mut Totals,
        batch: &mut Batch,
    ) -> Result<Vec<(String, Option<FactEntry>)>, StoreError> {
        let mut changes: BTreeMap<String, Option<FactEntry>> = BTreeMap::new();
        // Of two values for one key the later counts.
        for (name, value) in facts {
            limit("bytes of a fact's key", name.len(), FACT_KEY_BYTES_MAX)?;
            if name.is_empty() || name.chars().any(char::is_control) {
                return Err(invalid(format!("{name:?} cannot be the key of a fact")));
            }
            let entry = match value {
                None => None,
                Some(value) => {
                    limit("bytes of a fact", value.to_string().len(), FACT_BYTES_MAX)?;
                    let key = keys::fact(&name);
                    let leaf = hash(&key, &encode(&Frame::new(Class::Fact, value.clone()), &key)?);
                    Some(FactEntry { value, leaf })
                }
            };
            changes.insert(name, entry);
        }
        for (name, entry) in &changes {
            let key = keys::fact(name);
            if let Some(old) = self.facts.get(name) {
                totals.toggle(&old.leaf);
                totals.facts -= 1;
            }
            match entry {
                None => batch.deletes.push(key),
                Some(entry) => {
                    totals.toggle(&entry.leaf);
                    totals.facts += 1;
                    let bytes = Frame::new(Class::Fact, entry.value.clone()).encode(&key);
                    batch.puts.push((key, bytes));
                }
            }
        }
        limit("facts", usize::try_from(totals.facts).unwrap_or(usize::MAX), FACTS_MAX)?;
        Ok(changes.into_iter().collect())
    }

    /// After the tree took the batch.
    pub(super) fn adopt(&mut self, staged: Staged) {
        let Staged { batch: _, totals, head, gone, facts } = staged;
        self.totals = totals;
        self.heads.extend(head);
        if let Some(run) = gone {
            self.heads.remove(&run);
        }
        for (name, entry) in facts {
            match entry {
                Some(entry) => self.facts.insert(name, entry),
                None => self.facts.remove(&name),
            };
        }
    }

    pub(super) fn next_totals(&self, given: Fence) -> Result<Totals, StoreError> {
        let seen = self.totals.fence;
        if given < seen {
            return Err(StoreError::Fenced { given, seen });
        }
        Ok(Totals { commit: self.totals.commit + 1, fence: given, ..self.totals })
    }
}

/// What could not be read back (nested too deeply, say) must not be written: the store would not open again.
fn encode(frame: &Frame, key: &[u8]) -> Result<Vec<u8>, StoreError> {
    let bytes = frame.encode(key);
    match Frame::decode(key, &bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(invalid(format!("{} could not be read back, since it {error}", keys::name(key)))),
    }
}

fn invalid(what: String) -> StoreError {
    StoreError::Invalid { what }
}

fn limit(what: &'static str, size: usize, max: usize) -> Result<(), StoreError> {
    if size > max { Err(StoreError::TooLarge { what, size, max }) } else { Ok(()) }
}
