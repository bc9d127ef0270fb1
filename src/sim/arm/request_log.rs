//! Every request that came in: what checkers and goldens read. No token and no secret is in it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::Path,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// More than a run can make: a client that runs wild must not fill the memory.
const KEPT_MAX: usize = 100_000;

/// What a request did to the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It asked for none.
    Read,
    /// The world accepted it.
    Accepted,
    /// The world did not accept it.
    Refused,
    /// The connection was cut: the world knows.
    Unknown,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Logged {
    /// From one on, in the order in which answers were ready.
    pub seq: u64,
    /// When the answer was ready.
    pub time: Timestamp,
    /// `GET` and the like.
    pub method: String,
    /// The path as it came; of an operation's URL only the path, as its query is signed.
    pub path: String,
    /// The query without `api-version`; empty for operations.
    pub query: String,
    /// `api-version`.
    pub api_version: Option<String>,
    /// `x-ms-client-request-id`.
    pub client_request_id: Option<String>,
    /// `x-ms-correlation-request-id`.
    pub correlation_id: Option<String>,
    /// `If-Match`.
    pub if_match: Option<String>,
    /// The answer's status; `None` when the connection was cut.
    pub status: Option<u16>,
    /// What it did.
    pub effect: Effect,
    /// The body, for requests to the resource manager.
    pub body: Option<Value>,
}

#[derive(Debug, Default)]
struct Inner {
    file: Option<File>,
    kept: Vec<Logged>,
    seq: u64,
}

/// In memory, and as JSON lines in a file.
#[derive(Debug, Default)]
pub(super) struct RequestLog(Mutex<Inner>);

impl RequestLog {
    pub(super) fn new(path: Option<&Path>) -> io::Result<Self> {
        let file = path.map(|path| OpenOptions::new().create(true).append(true).open(path)).transpose()?;
        Ok(Self(Mutex::new(Inner { file, ..Inner::default() })))
    }

    pub(super) fn write(&self, mut entry: Logged) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.seq += 1;
        entry.seq = inner.seq;
        if let Some(file) = &mut inner.file
            && let Ok(line) = serde_json::to_string(&entry)
            && let Err(error) = writeln!(file, "{line}")
        {
            tracing::warn!(%error, "the request log can't be written");
        }
        if inner.kept.len() < KEPT_MAX {
            inner.kept.push(entry);
        }
    }

    pub(super) fn entries(&self) -> Vec<Logged> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).kept.clone()
    }
}
