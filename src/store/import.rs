//! An export as a store again. Nothing of a file that is not whole and right to the last byte is kept.
//!
//! The store is the same one, not a new one like it: it keeps its id, its commit number and the newest epoch. So whatever still
//! carries its mark tells whether this export was too old, and no process of an earlier Lease may write. The high-water mark is
//! set to the commit of the export: from there on it only rises.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Read as _};
use std::path::Path;

use serde_json::{Value, json};
use uuid::Uuid;

use super::dump::{FORMAT, LINE_BYTES_MAX, Line, Tally, VERSION};
use super::error::StoreError;
use super::export::Counts;
use super::frame::{Class, Frame, Hash, SCHEMA, from_hex, hash, to_hex};
use super::keys;
use super::ledger::{Fence, Revision, Totals};
use super::lock::{Holder, Lock, PATIENCE};
use super::mark::Mark;
use super::open::{create_durably, open_tree, refuse_strangers};
use super::place::Place;
use super::replace::{Replacement, refused, settle};
use super::room::FREE_BYTES_MIN;
use super::sled_tree::SledTree;
use super::tree::{Batch, ByteTree};
use super::trial::verify_copy;

/// What a batch of puts may weigh before it is applied.
const BATCH_BYTES: usize = 4 << 20;
const BATCH_ENTRIES: usize = 1000;

/// Makes a store of an export. `name` is what messages call it, `size` its length if that is known.
///
/// # Errors
/// [`StoreError::NotEmpty`] if there is a store with anything in it; [`StoreError::Import`] names the line that is wrong. The
/// place is as it was then.
pub fn import_dir(
    place: &Place,
    holder: &Holder,
    from: &mut dyn BufRead,
    name: &str,
    size: Option<u64>,
) -> Result<Counts, StoreError> {
    let dir = &place.dir;
    place.refuse_network()?;
    refuse_strangers(dir)?;
    if !dir.exists() {
        create_durably(dir).map_err(|source| refused("create", dir, source))?;
    }
    let mut lock = Lock::acquire(dir, PATIENCE)?;
    drop(lock.name(holder));
    settle(dir)?;
    let seen = refuse_content(dir)?;
    let need = 4 * size.unwrap_or(0) + FREE_BYTES_MIN;
    let (replacement, tree) = Replacement::begin(dir, "import", need)?;
    let mut importer = Importer {
        name,
        tree,
        batch: Batch::default(),
        batch_bytes: 0,
        tally: Tally::default(),
        header: None,
        totals: Totals::default(),
        run: None,
        runs: BTreeSet::new(),
        facts: BTreeSet::new(),
    };
    let counts = importer.all(from, seen)?;
    drop(importer);
    replacement.swap(|read| {
        let right = read.ledger.as_ref().is_some_and(|ledger| {
            let totals = &ledger.totals;
            (ledger.store, totals.commit, totals.fence) == (counts.store, counts.commit, counts.fence)
                && (totals.runs, read.records, totals.facts) == (counts.runs, counts.records, counts.facts)
        });
        if right { Ok(()) } else { Err(super::verify::damaged("the imported store", "it is not what was written")) }
    })?;
    Ok(counts)
}

/// Nothing is there, or a store that nobody has used. Says which epoch it has seen.
fn refuse_content(dir: &Path) -> Result<Fence, StoreError> {
    let not_empty = |what: String| Err(StoreError::NotEmpty { dir: dir.to_owned(), what });
    if !dir.join("db/db").exists() {
        if dir.join("mark").exists() {
            // Says that its database is gone.
            open_tree(dir)?;
        }
        return Ok(Fence(0));
    }
    match verify_copy(dir)?.ledger {
        None => Ok(Fence(0)),
        Some(ledger) if ledger.totals.runs == 0 && ledger.totals.facts == 0 => Ok(ledger.totals.fence),
        Some(ledger) => {
            not_empty(format!("it holds a store of {} runs and {} facts", ledger.totals.runs, ledger.totals.facts))
        }
    }
}

/// A run whose records are being read.
struct RunSoFar {
    run: Uuid,
    due: Revision,
    digest: Hash,
    seq: u64,
    newest: Hash,
    /// The line of its head.
    line: u64,
}

struct Header {
    store: Uuid,
    commit: u64,
    fence: Fence,
}

struct Importer<'a> {
    name: &'a str,
    tree: SledTree,
    batch: Batch,
    batch_bytes: usize,
    tally: Tally,
    header: Option<Header>,
    totals: Totals,
    run: Option<RunSoFar>,
    runs: BTreeSet<Uuid>,
    facts: BTreeSet<String>,
}

impl Importer<'_> {
    fn all(&mut self, from: &mut dyn BufRead, seen: Fence) -> Result<Counts, StoreError> {
        loop {
            let bytes = self.line(from)?;
            let line = self.parsed(&bytes)?;
            if let Line::End { .. } = line {
                self.end_run()?;
                if line != self.tally.end() {
                    return Err(self.here("its counts or its checksum are not those of the lines before it: something was changed or lost"));
                }
                self.tally.lines += 1;
                break;
            }
            self.tally.count(&line, &bytes);
            self.take(line)?;
        }
        let mut rest = [0; 1];
        if from.read(&mut rest).map_err(|source| self.unread(&source))? > 0 {
            self.tally.lines += 1;
            return Err(self.wrong("nothing may come after the last line; are these two exports?"));
        }
        self.finish(seen)
    }

    /// One line with its newline.
    fn line(&self, from: &mut dyn BufRead) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        let most = LINE_BYTES_MAX as u64 + 1;
        (&mut *from).take(most).read_until(b'\n', &mut bytes).map_err(|source| self.unread(&source))?;
        match bytes.last() {
            None if self.tally.lines == 0 => Err(self.about("it is empty")),
            None => Err(self.about(&format!(
                "it ends after line {}, without its last line: it is only a part of an export",
                self.tally.lines
            ))),
            Some(b'\n') => Ok(bytes),
            Some(_) if bytes.len() as u64 == most => Err(self.here("it is longer than any line of an export")),
            // The last line alone may have lost its newline; any other was cut.
            Some(_) => {
                bytes.push(b'\n');
                Ok(bytes)
            }
        }
    }

    fn parsed(&self, bytes: &[u8]) -> Result<Line, StoreError> {
        serde_json::from_slice(bytes).map_err(|error| {
            let first = self.header.is_none();
            let what = if first { "is no header of an export of ours" } else { "is no line of an export of ours" };
            self.here(&format!("it {what} ({error})"))
        })
    }

    fn take(&mut self, line: Line) -> Result<(), StoreError> {
        match line {
            Line::Header { format, version, release, made: _, store, commit, fence } => {
                if self.header.is_some() {
                    return Err(self.wrong("a second header; are these two exports?"));
                }
                if format != FORMAT {
                    return Err(self.wrong(&format!("its format is {format:?}, not {FORMAT:?}")));
                }
                if version > VERSION {
                    let what =
                        format!("version {version} of the format is newer than this release; import it with {release}");
                    return Err(self.wrong(&what));
                }
                self.header = Some(Header { store, commit, fence });
                Ok(())
            }
            _ if self.header.is_none() => Err(self.wrong("the first line has to be the header")),
            Line::Run { run, schema, revision, digest, summary } => {
                self.end_run()?;
                Self::supported(schema)?;
                if !self.runs.insert(run) {
                    return Err(self.wrong(&format!("run {run} is there twice")));
                }
                let digest = from_hex(&digest).ok_or_else(|| self.wrong("its digest is not one"))?;
                let key = keys::head(run);
                let payload = json!({ "revision": revision, "digest": to_hex(&digest), "summary": summary });
                let leaf = self.put(key, &Frame { schema, ..Frame::new(Class::Head, payload) }, None)?;
                self.totals.toggle(&leaf);
                self.totals.runs += 1;
                let line = self.tally.lines;
                self.run = Some(RunSoFar { run, due: revision, digest, seq: 0, newest: [0; 32], line });
                Ok(())
            }
            Line::Record { seq, schema, kind, payload, text } => {
                self.record(seq, schema, kind, payload, text.as_deref())
            }
            Line::Fact { key, schema, value } => {
                self.end_run()?;
                Self::supported(schema)?;
                if !self.facts.insert(key.clone()) {
                    return Err(self.wrong(&format!("fact {key:?} is there twice")));
                }
                let leaf = self.put(keys::fact(&key), &Frame { schema, ..Frame::new(Class::Fact, value) }, None)?;
                self.totals.toggle(&leaf);
                self.totals.facts += 1;
                Ok(())
            }
            Line::End { .. } => Ok(()),
        }
    }

    fn record(
        &mut self,
        seq: u64,
        schema: u16,
        kind: String,
        payload: Option<Value>,
        text: Option<&str>,
    ) -> Result<(), StoreError> {
        Self::supported(schema)?;
        let Some(RunSoFar { run, seq: newest_seq, newest, .. }) = &self.run else {
            return Err(self.wrong("a record that follows no run"));
        };
        let (run, due, previous) = (*run, newest_seq + 1, *newest);
        if seq != due {
            return Err(self.wrong(&format!("record {due} of run {run} should come here, not record {seq}")));
        }
        let payload = match (payload, text) {
            (Some(payload), None) => payload,
            (None, Some(text)) => {
                serde_json::from_str(text).map_err(|error| self.wrong(&format!("its text is no JSON ({error})")))?
            }
            (Some(_), Some(_)) | (None, None) => {
                return Err(self.wrong("a record has a payload or a text, one of them"));
            }
        };
        let frame = Frame { class: Class::Record, schema, previous, name: kind, payload };
        let leaf = self.put(keys::record(run, seq), &frame, text)?;
        if let Some(run) = &mut self.run {
            (run.seq, run.newest) = (seq, leaf);
        }
        Ok(())
    }

    /// The chain through all its records has to end where its head says.
    fn end_run(&mut self) -> Result<(), StoreError> {
        let Some(RunSoFar { run, due, digest, seq, newest, line }) = self.run.take() else { return Ok(()) };
        let what = if seq != due.0 {
            format!("run {run} has {due} records, says line {line}, and {seq} came")
        } else if newest != digest {
            format!("the records of run {run} are not those that line {line} speaks of: one of them was changed")
        } else {
            return Ok(());
        };
        Err(self.wrong(&what))
    }

    fn put(&mut self, key: Vec<u8>, frame: &Frame, text: Option<&str>) -> Result<Hash, StoreError> {
        let bytes = match text {
            Some(text) => frame.encode_as(&key, text),
            None => frame.encode(&key),
        };
        if let Err(error) = Frame::decode(&key, &bytes) {
            return Err(self.wrong(&format!("{} could not be read back, since it {error}", keys::name(&key))));
        }
        let leaf = hash(&key, &bytes);
        self.batch_bytes += key.len() + bytes.len();
        self.batch.puts.push((key, bytes));
        if self.batch.puts.len() >= BATCH_ENTRIES || self.batch_bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(leaf)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.batch_bytes = 0;
        self.tree.apply(&std::mem::take(&mut self.batch)).map_err(StoreError::while_opening)
    }

    fn finish(&mut self, seen: Fence) -> Result<Counts, StoreError> {
        let Some(Header { store, commit, fence }) = self.header.take() else {
            return Err(self.about("it has no header"));
        };
        if commit == 0 {
            return Err(self.about("its header says commit 0, and no store has that"));
        }
        // Whoever wrote to the empty store that this one replaces may still be at it.
        let fence = fence.max(seen);
        self.totals = Totals { commit, fence, ..self.totals };
        let meta = Frame::new(Class::Meta, json!({ "store": store }));
        self.batch.puts.push((keys::META.to_vec(), meta.encode(keys::META)));
        self.batch.puts.push((keys::TOTALS.to_vec(), self.totals.encode()));
        self.flush()?;
        self.tree.sync().map_err(StoreError::while_opening)?;
        self.tree.write_mark(0, &Mark { store, commit }.encode()).map_err(StoreError::while_opening)?;
        let Tally { runs, records, facts, .. } = self.tally;
        Ok(Counts { store, commit, fence, runs, records, facts })
    }

    fn supported(schema: u16) -> Result<(), StoreError> {
        if schema > SCHEMA { Err(StoreError::Newer { schema, supported: SCHEMA }) } else { Ok(()) }
    }

    /// About the line that was read and counted last.
    fn wrong(&self, what: &str) -> StoreError {
        StoreError::Import { file: self.name.to_owned(), line: self.tally.lines, what: what.to_owned() }
    }

    /// About the line that is being read.
    fn here(&self, what: &str) -> StoreError {
        StoreError::Import { file: self.name.to_owned(), line: self.tally.lines + 1, what: what.to_owned() }
    }

    fn about(&self, what: &str) -> StoreError {
        StoreError::Import { file: self.name.to_owned(), line: 0, what: what.to_owned() }
    }

    fn unread(&self, source: &io::Error) -> StoreError {
        self.here(&format!("it could not be read: {source}"))
    }
}
