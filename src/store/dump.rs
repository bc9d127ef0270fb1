//! The form of an export: lines of JSON that people can read, the first of which says what it is and the last what was before it.
//!
//! ```text
//! {"line":"header", "format":"kamino-wf-store", "version":1, "store":…, "commit":…, "fence":…, …}
//! {"line":"run", "run":…, "revision":3, "digest":…, "summary":…}      then its records, oldest first
//! {"line":"record", "seq":1, "kind":"started", "payload":…}
//! {"line":"fact", "key":…, "value":…}
//! {"line":"end", "runs":…, "records":…, "facts":…, "lines":…, "sha256":…}
//! ```
//!
//! A record's hash is not in it: it is made again from what is, and the chain of them has to end in the run's `digest`. The
//! checksum in the last line is of every byte before it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::frame::{Hash, to_hex};
use super::ledger::{Fence, Revision};

/// `format` of the header.
pub(super) const FORMAT: &str = "kamino-wf-store";
/// Raised when a line changes its meaning; a newer one is refused.
pub(super) const VERSION: u32 = 1;
/// The longest record is 64 KiB; as text in text it is not much more.
pub(super) const LINE_BYTES_MAX: usize = 1 << 20;

/// One line. The words are stored format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Line {
    Header {
        format: String,
        version: u32,
        release: String,
        made: Timestamp,
        store: Uuid,
        commit: u64,
        fence: Fence,
    },
    Run {
        run: Uuid,
        schema: u16,
        revision: Revision,
        digest: String,
        summary: Value,
    },
    Record {
        seq: u64,
        schema: u16,
        kind: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        payload: Option<Value>,
        /// Instead of `payload` where that would not come out as it went in, to the byte.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    },
    Fact {
        key: String,
        schema: u16,
        value: Value,
    },
    End {
        runs: u64,
        records: u64,
        facts: u64,
        lines: u64,
        sha256: String,
    },
}

/// Counts what goes by, whichever way it goes.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    hash: Sha256,
    pub(super) lines: u64,
    pub(super) runs: u64,
    pub(super) records: u64,
    pub(super) facts: u64,
}

impl Tally {
    /// A line with its newline.
    pub(super) fn count(&mut self, line: &Line, bytes: &[u8]) {
        self.hash.update(bytes);
        self.lines += 1;
        match line {
            Line::Run { .. } => self.runs += 1,
            Line::Record { .. } => self.records += 1,
            Line::Fact { .. } => self.facts += 1,
            Line::Header { .. } | Line::End { .. } => {}
        }
    }

    /// The line that has to come after these.
    pub(super) fn end(&self) -> Line {
        let Self { hash, lines, runs, records, facts } = self.clone();
        let hash: Hash = hash.finalize().into();
        Line::End { runs, records, facts, lines: lines + 1, sha256: to_hex(&hash) }
    }
}

/// A line as it is written.
pub(super) fn written(line: &Line) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(bytes)
}
