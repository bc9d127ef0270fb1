//! The API, said once: paths, what is asked and what is answered. The router and the client are both built on it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    marker::PhantomData,
    path::{Path, PathBuf},
};

use http::Method;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::images::{PinRequest, PruneRequest};
use crate::{
    model::RunId,
    workflow::{Description, PinReport, PruneReport, RunSpec, Summary},
};

/// Of the API and of JSON output: what is said under it never changes its meaning. New fields may come.
pub const VERSION: &str = "kamino-wf/v1";

/// A request to start a run, the largest that there is, holds a few names and ids.
pub(super) const BODY_BYTES_MAX: usize = 64 << 10;
/// `alice@laptop`, or a user's name as the API server has it.
pub(super) const BY_CHARS_MAX: usize = 200;
/// Room for a uuid with something before it.
pub(super) const KEY_CHARS_MAX: usize = 100;

/// The same key and the same body again are answered as before, and nothing is done twice.
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Set on an answer that was given before.
pub(super) const REPLAYED: &str = "idempotency-replayed";
/// The number of the newest event that a reader has.
pub(super) const LAST_EVENT_ID: &str = "last-event-id";

/// The socket of the store in a directory.
#[must_use]
pub fn socket_path(store: &Path) -> PathBuf {
    store.join("control.sock")
}

/// One thing that can be asked for: `Ask` in the body, `Say` in the answer.
#[derive(Debug)]
pub(super) struct Endpoint<Ask, Say> {
    pub(super) method: Method,
    pub(super) path: &'static str,
    /// `kind` of the answer.
    pub(super) kind: &'static str,
    types: PhantomData<fn(Ask) -> Say>,
}

impl<Ask, Say> Endpoint<Ask, Say> {
    const fn new(method: Method, path: &'static str, kind: &'static str) -> Self {
        Self { method, path, kind, types: PhantomData }
    }

    /// The path for a run, or for none.
    pub(super) fn path_for(&self, run: &str) -> String {
        self.path.replace("{run}", &escaped(run))
    }

    pub(super) fn answer(&self, it: Say) -> Answer<Say> {
        Answer::new(self.kind, it)
    }
}

/// All runs, oldest first.
pub(super) const LIST: Endpoint<(), RunList> = Endpoint::new(Method::GET, "/v1/runs", "RunList");
/// Starts a run.
pub(super) const START: Endpoint<Start, Changed> = Endpoint::new(Method::POST, "/v1/runs", "Changed");
/// One run, step by step.
pub(super) const DESCRIBE: Endpoint<(), RunView> = Endpoint::new(Method::GET, "/v1/runs/{run}", "Run");
/// A run's events as they come.
pub(super) const EVENTS: Endpoint<(), ()> = Endpoint::new(Method::GET, "/v1/runs/{run}/events", "Event");
/// Cancels a run.
pub(super) const CANCEL: Endpoint<By, Changed> = Endpoint::new(Method::POST, "/v1/runs/{run}/cancel", "Changed");
/// Resumes a run.
pub(super) const RESUME: Endpoint<By, Changed> = Endpoint::new(Method::POST, "/v1/runs/{run}/resume", "Changed");
/// Stops a run before its next stage.
pub(super) const PAUSE: Endpoint<By, Changed> = Endpoint::new(Method::POST, "/v1/runs/{run}/pause", "Changed");
/// Says yes to what a run asks.
pub(super) const APPROVE: Endpoint<By, Changed> = Endpoint::new(Method::POST, "/v1/runs/{run}/approve", "Changed");
/// Says no.
pub(super) const REJECT: Endpoint<By, Changed> = Endpoint::new(Method::POST, "/v1/runs/{run}/reject", "Changed");
/// Ends a run and leaves what it has made.
pub(super) const ABANDON: Endpoint<By, Changed> = Endpoint::new(Method::POST, "/v1/runs/{run}/abandon", "Changed");
/// Who asked for what, oldest first.
pub(super) const AUDIT: Endpoint<(), AuditList> = Endpoint::new(Method::GET, "/v1/audit", "AuditList");
/// The whole store as lines of text; what they are stands in src/store/dump.rs.
pub(super) const EXPORT: Endpoint<(), ()> = Endpoint::new(Method::GET, "/v1/store/export", "StoreExport");

/// What steps remember beyond their runs.
pub(super) const MEMORY: Endpoint<(), Memory> = Endpoint::new(Method::GET, "/v1/memory", "Memory");
/// Deletes old versions that a person has seen and let go.
pub(super) const PRUNE: Endpoint<PruneRequest, PruneReport> = Endpoint::new(Method::POST, "/v1/images/prune", "Pruned");
/// Pins a version, or takes the pin away.
pub(super) const PIN: Endpoint<PinRequest, PinReport> = Endpoint::new(Method::POST, "/v1/images/pin", "Pinned");

/// Nothing in a name can become another path.
fn escaped(text: &str) -> String {
    let mut path = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            let _ = write!(path, "%{byte:02X}");
        }
    }
    // These two would be steps on the way.
    if path == "." || path == ".." { path.replace('.', "%2E") } else { path }
}

/// Every answer says which version and what kind it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer<T> {
    /// [`VERSION`].
    #[serde(rename = "apiVersion")]
    pub api_version: String,
    /// As in `RunList`.
    pub kind: String,
    /// The rest.
    #[serde(flatten)]
    pub it: T,
}

impl<T> Answer<T> {
    /// An answer of this version.
    pub fn new(kind: &str, it: T) -> Self {
        Self { api_version: VERSION.to_owned(), kind: kind.to_owned(), it }
    }
}

/// All runs, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunList {
    /// Each in one line.
    pub runs: Vec<Summary>,
}

/// What steps remember beyond their runs: the highest version of a definition, the boots of a pool's nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Memory {
    /// By key. What the keys and values mean is the steps' own, and changes with them.
    pub(super) facts: BTreeMap<String, Value>,
}

/// One run, step by step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunView {
    /// How many events it has: its `ETag`.
    pub revision: u64,
    /// The rest.
    #[serde(flatten)]
    pub description: Description,
}

impl RunView {
    /// A run, as its events say.
    #[must_use]
    pub fn of(description: Description) -> Self {
        Self { revision: u64::try_from(description.events.len()).unwrap_or(u64::MAX), description }
    }
}

/// Who asks, for the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct By {
    /// As in `alice@laptop`.
    pub by: String,
}

/// A request to start a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// What is asked for.
    pub spec: RunSpec,
    /// Who asks.
    pub by: String,
}

/// What a start, or a word to a run, has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The run's full id.
    pub id: RunId,
    /// The form that people see.
    pub run: String,
    /// Its revision afterwards.
    pub revision: u64,
    /// False where it was so already: a second cancel.
    pub changed: bool,
}

/// Who asked for what, oldest first; the newest of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditList {
    /// One for each request that would have changed something.
    pub entries: Vec<AuditEntry>,
}

/// The process at the other end of the socket, as the kernel knows it. With `kubectl exec` that is one in our own pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its process.
    pub pid: Option<i32>,
}

impl Peer {
    /// This process itself, where it asks on its own behalf.
    #[must_use]
    pub fn this() -> Self {
        Self {
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            pid: i32::try_from(std::process::id()).ok(),
        }
    }
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Begin a run.
    Start,
    /// Stop it and undo.
    Cancel,
    /// Go on.
    Resume,
    /// Stop before the next stage.
    Pause,
    /// Yes, the next stage may begin.
    Approve,
    /// No, it may not.
    Reject,
    /// Stop, and leave what was made.
    Abandon,
    /// Delete old image versions.
    Prune,
    /// Keep an image version whatever the rules say.
    Pin,
    /// No longer.
    Unpin,
}

impl Verb {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Cancel => "cancel",
            Self::Resume => "resume",
            Self::Pause => "pause",
            Self::Approve => "approve",
            Self::Reject => "reject",
            Self::Abandon => "abandon",
            Self::Prune => "prune",
            Self::Pin => "pin",
            Self::Unpin => "unpin",
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Done.
    Accepted,
    /// It was so already.
    Already,
    /// Not done.
    Refused,
}

impl Verdict {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Already => "already",
            Self::Refused => "refused",
        }
    }
}

/// Who asked for what, when, and what came of it. Stored format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Counts all of them; the oldest go.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Who, by their own word.
    pub by: String,
    /// Who, by the kernel's.
    pub peer: Option<Peer>,
    /// What.
    pub verb: Verb,
    /// The run; as it was given where there is none such.
    pub run: String,
    /// What it is about, where that is no run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The scale set of a start.
    pub scale_set: Option<String>,
    /// The run's revision before it, if it was done.
    pub before: Option<u64>,
    /// The run's revision after it, if it was done.
    pub after: Option<u64>,
    /// What came of it.
    pub verdict: Verdict,
    /// Why it was refused.
    pub why: Option<String>,
    /// The idempotency key.
    pub key: Option<String>,
}

/// Why a request was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// 400, 405, 413 or 415: this request can't succeed.
    BadRequest,
    /// 404: no such run, or no such path.
    NotFound,
    /// 409: another run is in the way, or the run's state does not allow it.
    Conflict,
    /// 412: the run has moved since whoever asks has looked.
    Changed,
    /// 422: this idempotency key was used for something else.
    KeyReused,
    /// 500: it could not be recorded; also what a newer release says and this one does not know.
    #[serde(other)]
    Failed,
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// [`VERSION`].
    #[serde(rename = "apiVersion")]
    pub api_version: String,
    /// Who can do something about it.
    pub kind: ProblemKind,
    /// The error's page, as in `KW0107`, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// In words, with the remedy.
    pub message: String,
    /// Where the run is, if it has moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

impl Problem {
    pub(super) fn new(kind: ProblemKind, message: impl Into<String>) -> Self {
        Self { api_version: VERSION.to_owned(), kind, code: None, message: message.into(), revision: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_becomes_another_path() {
        for (given, path) in [
            ("0123456789ab", "/v1/runs/0123456789ab/cancel"),
            ("../audit?x#y", "/v1/runs/..%2Faudit%3Fx%23y/cancel"),
            ("..", "/v1/runs/%2E%2E/cancel"),
            ("é %", "/v1/runs/%C3%A9%20%25/cancel"),
        ] {
            assert_eq!(CANCEL.path_for(given), path);
        }
    }

    #[test]
    fn a_kind_that_a_newer_release_made_up_is_a_failure() {
        let problem: Problem =
            serde_json::from_str(r#"{"apiVersion":"kamino-wf/v1","kind":"moon","message":"no"}"#).expect("it reads");
        assert_eq!(problem, Problem::new(ProblemKind::Failed, "no"));
    }
}
