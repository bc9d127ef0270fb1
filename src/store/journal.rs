//! The journal that everyone holds: requests to the one committer, and their answers.

use std::sync::{Arc, OnceLock};

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::committer::Committer;
use super::error::StoreError;
use super::export::{Outline, Position};
use super::ledger::{Fence, Ledger, Revision};
use super::mark::Marks;
use super::tree::{ByteTree, Entry};
use super::verify::{self, Verified};

/// One record to append.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRecord {
    /// A short stored-format name such as `asked`; at most 40 bytes.
    pub kind: &'static str,
    /// At most 64 KiB as text.
    pub payload: Value,
}

/// A small fact outside any run: its key, and its value or that it goes.
pub type Fact = (String, Option<Value>);

/// One record as it was read back, checksum, sequence and chain checked.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRecord {
    /// 1 for a run's first record; dense.
    pub seq: u64,
    /// [`NewRecord::kind`].
    pub kind: String,
    /// The schema that its writer used.
    pub schema: u16,
    /// [`NewRecord::payload`].
    pub payload: Value,
}

/// What `list` needs, without reading records.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// The run.
    pub run: Uuid,
    /// Number of its records.
    pub revision: Revision,
    /// The end of the chain through all its records: equal digests, equal histories.
    pub digest: [u8; 32],
    /// Opaque to the store; at most 16 KiB as text.
    pub summary: Value,
}

/// Requests in one group, and waiting in the channel: callers beyond that wait to be let in.
pub(super) const GROUP_MAX: usize = 512;

/// The way to the one committer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {
    requests: mpsc::Sender<Request>,
    poison: Poison,
}

/// Why the store is poisoned, once it is; shared, so that callers learn it after the committer is gone.
pub(super) type Poison = Arc<OnceLock<String>>;

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

#[derive(Debug)]
pub(super) enum Request {
    Commit {
        run: Uuid,
        expected: Revision,
        fence: Fence,
        records: Vec<NewRecord>,
        summary: Value,
        facts: Vec<Fact>,
        reply: Reply<Revision>,
    },
    PutFacts {
        fence: Fence,
        facts: Vec<Fact>,
        reply: Reply<()>,
    },
    Remove {
        run: Uuid,
        expected: Revision,
        fence: Fence,
        reply: Reply<()>,
    },
    Load {
        run: Uuid,
        reply: Reply<Option<(Head, Vec<StoredRecord>)>>,
    },
    Heads {
        reply: Reply<Vec<Head>>,
    },
    Facts {
        prefix: String,
        reply: Reply<Vec<(String, Value)>>,
    },
    SeenFence {
        reply: Reply<Fence>,
    },
    Outline {
        reply: Reply<Outline>,
    },
    Entries {
        run: Uuid,
        reply: Reply<Option<Vec<Entry>>>,
    },
}

impl Journal {
    /// Checks every byte of the store, makes what was read durable, and hands out the journal and its committer.
    ///
    /// `store_id_if_new` names the store if nothing was ever written to `tree`.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::WentBack`] and [`StoreError::Newer`] leave everything as it is.
    pub fn open(mut tree: Box<dyn ByteTree>, store_id_if_new: Uuid) -> Result<(Self, Committer), StoreError> {
        let Verified { ledger, marks: Marks { newest, next_slot }, .. } = verify::verify(tree.as_ref())?;
        let ledger = if let Some(ledger) = ledger {
            ledger
        } else {
            let (ledger, batch) = Ledger::create(store_id_if_new);
            tree.apply(&batch).map_err(StoreError::while_opening)?;
            ledger
        };
        // What a killed process applied can be read here without being durable. From now on it counts, so sync it.
        tree.sync().map_err(StoreError::while_opening)?;
        let (requests, received) = mpsc::channel(GROUP_MAX);
        let poison = Poison::default();
        let mut committer = Committer { tree, ledger, next_slot, requests: received, poison: Arc::clone(&poison) };
        if newest.is_none_or(|mark| mark.commit < committer.ledger.totals.commit) {
            committer.write_mark().map_err(StoreError::while_opening)?;
        }
        Ok((Self { requests, poison }, committer))
    }

    /// Appends `records` to `run` and replaces its summary: both or nothing, durable when this returns.
    ///
    /// Without records only the summary changes, and the revision stays. Dropping the future does not take the commit back.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] and [`StoreError::Full`]: nothing happened, load or wait and try again.
    /// [`StoreError::Fenced`]: stop touching the cluster. [`StoreError::Poisoned`] and [`StoreError::Closed`]: not
    /// known whether it happened; end the process, the next one will see.
    pub async fn commit(
        &self,
        run: Uuid,
        expected: Revision,
        fence: Fence,
        records: Vec<NewRecord>,
        summary: Value,
    ) -> Result<Revision, StoreError> {
        self.commit_with(run, expected, fence, records, summary, Vec::new()).await
    }

    /// As [`Journal::commit`], with facts in the same batch: a crash leaves all of it or nothing.
    ///
    /// # Errors
    /// As [`Journal::commit`] and [`Journal::put_facts`].
    pub async fn commit_with(
        &self,
        run: Uuid,
        expected: Revision,
        fence: Fence,
        records: Vec<NewRecord>,
        summary: Value,
        facts: Vec<Fact>,
    ) -> Result<Revision, StoreError> {
        self.ask(|reply| Request::Commit { run, expected, fence, records, summary, facts, reply }).await
    }

    /// A run with all its records, oldest first, each checked again.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it reads differently than at open; the store is poisoned then.
    pub async fn load(&self, run: Uuid) -> Result<Option<(Head, Vec<StoredRecord>)>, StoreError> {
        self.ask(|reply| Request::Load { run, reply }).await
    }

    /// All runs, oldest first (ids are UUID v7).
    ///
    /// # Errors
    /// [`StoreError::Poisoned`] and [`StoreError::Closed`] only.
    pub async fn heads(&self) -> Result<Vec<Head>, StoreError> {
        self.ask(|reply| Request::Heads { reply }).await
    }

    /// Small facts outside any run (what is known of throttling, the highest version serial): all or nothing, durable when
    /// this returns. `None` deletes. Keys up to 200 bytes without control characters, values up to 4 KiB as text.
    ///
    /// # Errors
    /// As [`Journal::commit`], without conflicts: the last writer counts.
    pub async fn put_facts(&self, fence: Fence, facts: Vec<Fact>) -> Result<(), StoreError> {
        self.ask(|reply| Request::PutFacts { fence, facts, reply }).await
    }

    /// The facts whose key starts with `prefix`, in key order.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`] and [`StoreError::Closed`] only.
    pub async fn facts(&self, prefix: &str) -> Result<Vec<(String, Value)>, StoreError> {
        self.ask(|reply| Request::Facts { prefix: prefix.to_owned(), reply }).await
    }

    /// The newest epoch that any writer had: a new one has to be newer.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`] and [`StoreError::Closed`] only.
    pub async fn seen_fence(&self) -> Result<Fence, StoreError> {
        self.ask(|reply| Request::SeenFence { reply }).await
    }

    /// How far the store has come. What a claim on a node carries, so that a store that went back in time can be told by it.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`] and [`StoreError::Closed`] only.
    pub async fn position(&self) -> Result<Position, StoreError> {
        Ok(self.outline().await?.position)
    }

    /// All but the records, at one commit.
    pub(super) async fn outline(&self) -> Result<Outline, StoreError> {
        self.ask(|reply| Request::Outline { reply }).await
    }

    /// The records of a run as they are stored, each checked again.
    pub(super) async fn entries(&self, run: Uuid) -> Result<Option<Vec<Entry>>, StoreError> {
        self.ask(|reply| Request::Entries { run, reply }).await
    }

    pub(super) async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        if self.requests.send(request(reply)).await.is_err() {
            return Err(self.gone());
        }
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    fn gone(&self) -> StoreError {
        self.poison.get().map_or(StoreError::Closed, |why| StoreError::Poisoned { why: why.clone() })
    }
}

impl Request {
    pub(super) fn refuse(self, why: &str) {
        fn send<T>(reply: Reply<T>, why: &str) {
            let _ = reply.send(Err(StoreError::Poisoned { why: why.to_owned() }));
        }
        match self {
            Self::Commit { reply, .. } => send(reply, why),
            Self::PutFacts { reply, .. } | Self::Remove { reply, .. } => send(reply, why),
            Self::Load { reply, .. } => send(reply, why),
            Self::Heads { reply } => send(reply, why),
            Self::Facts { reply, .. } => send(reply, why),
            Self::SeenFence { reply } => send(reply, why),
            Self::Outline { reply } => send(reply, why),
            Self::Entries { reply, .. } => send(reply, why),
        }
    }
}
