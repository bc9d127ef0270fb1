//! Start, and what people say to runs: once per key, and on the record.
//!
//! What was asked, who asked and what they were answered become durable in one batch with the change itself: after a crash
//! there is all of it or nothing, so the same key asked again is either answered from the record or done for the first time.
//! A refusal changes nothing and is recorded alone; asked again, it is decided again. Bounded by count and by age.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::api::{AuditEntry, BY_CHARS_MAX, Changed, Peer, Verb, Verdict};
use crate::{
    store::{Fact, Revision},
    workflow::{Change, Engine, EngineError, Rejected, RunSpec},
};

/// Facts `audit/<number, twenty digits>`: who asked for what.
const AUDIT: &str = "audit/";
/// A year of a person's word every day. Facts are kept in memory, at most some 1 KiB each.
const AUDIT_MAX: u64 = 500;
/// Facts `answer/<idempotency key>`: what was answered.
const ANSWER: &str = "answer/";
/// Far more than one client has under way.
const ANSWERS_MAX: usize = 256;
/// Nobody waits for an answer that long.
const ANSWER_AGE_MAX: Duration = Duration::from_hours(24);
/// What a refusal quotes of it.
const WHY_CHARS_MAX: usize = 500;
/// No run's id is longer.
const RUN_CHARS_MAX: usize = 40;

/// A request that would change something.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// By their own word.
    pub(super) by: String,
    /// By the kernel's.
    pub(super) peer: Option<Peer>,
    /// The idempotency key.
    pub(super) key: Option<String>,
    /// Only if the run is at this revision.
    pub(super) expected: Option<Revision>,
    /// The same request has the same.
    pub(super) fingerprint: String,
}

/// What it would change.
#[derive(Debug, Clone)]
pub enum What {
    /// Begin a run.
    Start(Box<RunSpec>),
    /// Stop this run, by the first digits of its id, and undo.
    Cancel(String),
    /// Go on with it.
    Resume(String),
    /// Stop it before its next stage.
    Pause(String),
    /// Yes, its next stage may begin.
    Approve(String),
    /// No, it may not.
    Reject(String),
    /// End it, and leave what it has made.
    Abandon(String),
}

impl What {
    fn verb(&self) -> Verb {
        match self {
            Self::Start(_) => Verb::Start,
            Self::Cancel(_) => Verb::Cancel,
            Self::Resume(_) => Verb::Resume,
            Self::Pause(_) => Verb::Pause,
            Self::Approve(_) => Verb::Approve,
            Self::Reject(_) => Verb::Reject,
            Self::Abandon(_) => Verb::Abandon,
        }
    }

    /// The run that something is said to, as it was given.
    fn run(&self) -> &str {
        match self {
            Self::Start(_) => "",
            Self::Cancel(run)
            | Self::Resume(run)
            | Self::Pause(run)
            | Self::Approve(run)
            | Self::Reject(run)
            | Self::Abandon(run) => run,
        }
    }
}

/// What was answered to a key. Stored format.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Answered {
    at: Timestamp,
    fingerprint: String,
    answer: Changed,
}

/// An answer, and whether it was given before.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) answer: Changed,
    pub(super) replayed: bool,
}

/// The one way from a request to a change.
#[derive(Debug)]
pub struct Mutations {
    pub(super) engine: Arc<Engine>,
    /// Two requests with one key are one after the other, and numbers are given once.
    pub(super) one_at_a_time: tokio::sync::Mutex<()>,
}

/// The same request has the same fingerprint, in every process.
pub(super) fn fingerprint(path: &str, expected: Option<Revision>, body: &[u8]) -> String {
    let expected = expected.map_or_else(|| "any".to_owned(), |revision| revision.to_string());
    let mut hash = Sha256::new();
    for part in [path.as_bytes(), expected.as_bytes(), body] {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    STANDARD_NO_PAD.encode(hash.finalize())
}

impl Mutations {
    /// For an engine; there is one of these for each.
    #[must_use]
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine, one_at_a_time: tokio::sync::Mutex::default() }
    }

    /// A change that this process itself asks for, since it holds the store.
    pub async fn here(
        &self,
        by: &str,
        expected: Option<Revision>,
        what: What,
    ) -> Result<Result<Changed, Rejected>, EngineError> {
        let peer = Peer::this();
        let fingerprint = String::new();
        let asked = Asked { by: by.to_owned(), peer: Some(peer), key: None, expected, fingerprint };
        Ok(self.ask(asked, what).await?.map(|done| done.answer))
    }

    pub(super) async fn ask(&self, asked: Asked, what: What) -> Result<Result<Done, Rejected>, EngineError> {
        let _one_at_a_time = self.one_at_a_time.lock().await;
        let now = self.engine.clock().now();
        let records = Records { asked, what, now, seq: self.next_seq().await?, answers: self.answers().await? };
        if let Some(known) = records.known() {
            if known.fingerprint == records.asked.fingerprint {
                return Ok(Ok(Done { answer: known.answer.clone(), replayed: true }));
            }
            let rejected = Rejected::KeyReused(records.asked.key.clone().unwrap_or_default());
            self.engine.put_facts(records.refused(None, &rejected.to_string())).await?;
            return Ok(Err(rejected));
        }
        match self.perform(&records).await? {
            Ok(change) => Ok(Ok(Done { answer: answer(change), replayed: false })),
            Err((run, rejected)) => {
                self.engine.put_facts(records.refused(run, &rejected.to_string())).await?;
                Ok(Err(rejected))
            }
        }
    }

    async fn perform(&self, records: &Records) -> Result<Result<Change, (Option<String>, Rejected)>, EngineError> {
        let Records { asked: Asked { by, expected, .. }, .. } = records;
        let note = |change: Change| records.accepted(change);
        let engine = &self.engine;
        if let What::Start(spec) = &records.what {
            let started = engine.start_noted(spec.as_ref().clone(), by, &note).await?;
            return Ok(started.map_err(|rejected| (None, rejected)));
        }
        let id = match engine.find(records.what.run()).await? {
            Ok(id) => id,
            Err(rejected) => return Ok(Err((None, rejected))),
        };
        let changed = match &records.what {
            What::Cancel(_) | What::Start(_) => engine.cancel_noted(id, by, *expected, &note).await?,
            What::Resume(_) => engine.resume_noted(id, by, *expected, &note).await?,
            What::Pause(_) => engine.pause_noted(id, by, *expected, &note).await?,
            What::Approve(_) => engine.approve_noted(id, by, *expected, &note).await?,
            What::Reject(_) => engine.reject_noted(id, by, *expected, &note).await?,
            What::Abandon(_) => engine.abandon_noted(id, by, *expected, &note).await?,
        };
        Ok(changed.map_err(|rejected| (Some(id.short()), rejected)))
    }

    pub(super) async fn next_seq(&self) -> Result<u64, EngineError> {
        let facts = self.engine.facts(AUDIT).await?;
        let newest = facts.last().and_then(|(key, _)| key.strip_prefix(AUDIT)?.parse::<u64>().ok());
        Ok(newest.map_or(1, |newest| newest + 1))
    }

    async fn answers(&self) -> Result<Vec<(String, Option<Answered>)>, EngineError> {
        let facts = self.engine.facts(ANSWER).await?;
        let read = |(key, value): (String, Value)| {
            let key = key.strip_prefix(ANSWER).unwrap_or_default().to_owned();
            // One that a newer release wrote is none for us, and goes in its time.
            (key, serde_json::from_value(value).ok())
        };
        Ok(facts.into_iter().map(read).collect())
    }
}

/// Who asked for what, oldest first; from facts under [`audit_prefix`].
#[must_use]
pub fn audit_entries(facts: Vec<(String, Value)>) -> Vec<AuditEntry> {
    facts.into_iter().filter_map(|(_, value)| serde_json::from_value(value).ok()).collect()
}

/// Where the store has them.
#[must_use]
pub fn audit_prefix() -> &'static str {
    AUDIT
}

/// A request, and what is on record already.
struct Records {
    asked: Asked,
    what: What,
    now: Timestamp,
    seq: u64,
    answers: Vec<(String, Option<Answered>)>,
}

impl Records {
    fn fresh(&self, answered: &Answered) -> bool {
        let age = self.now.duration_since(answered.at);
        Duration::try_from(age).unwrap_or_default() < ANSWER_AGE_MAX
    }

    fn known(&self) -> Option<&Answered> {
        let key = self.asked.key.as_ref()?;
        let (_, answered) = self.answers.iter().find(|(known, _)| known == key)?;
        answered.as_ref().filter(|answered| self.fresh(answered))
    }

    fn entry(&self) -> AuditEntry {
        let scale_set = match &self.what {
            What::Start(spec) => Some(spec.scale_set.name().to_owned()),
            What::Cancel(_)
            | What::Resume(_)
            | What::Pause(_)
            | What::Approve(_)
            | What::Reject(_)
            | What::Abandon(_) => None,
        };
        AuditEntry {
            seq: self.seq,
            at: self.now,
            by: self.asked.by.chars().take(BY_CHARS_MAX).collect(),
            peer: self.asked.peer,
            verb: self.what.verb(),
            run: self.what.run().chars().take(RUN_CHARS_MAX).collect(),
            subject: None,
            scale_set,
            before: None,
            after: None,
            verdict: Verdict::Refused,
            why: None,
            key: self.asked.key.clone(),
        }
    }

    /// What becomes durable with a change.
    fn accepted(&self, change: Change) -> Vec<Fact> {
        let verdict = if change.already { Verdict::Already } else { Verdict::Accepted };
        let entry = AuditEntry {
            run: change.run.short(),
            before: Some(change.before.0),
            after: Some(change.after.0),
            verdict,
            ..self.entry()
        };
        let mut facts = audit_facts(&entry);
        let Some(key) = &self.asked.key else { return facts };
        let answered = Answered { at: self.now, fingerprint: self.asked.fingerprint.clone(), answer: answer(change) };
        let (mut kept, gone): (Vec<_>, Vec<_>) =
            self.answers.iter().partition(|(_, known)| known.as_ref().is_some_and(|known| self.fresh(known)));
        kept.sort_by_key(|(_, known)| known.as_ref().map(|known| known.at));
        let over = (kept.len() + 1).saturating_sub(ANSWERS_MAX);
        let old = gone.into_iter().chain(kept.into_iter().take(over));
        facts.extend(old.map(|(key, _)| (format!("{ANSWER}{key}"), None)));
        // After those that go: of two values for one key the later counts.
        facts.push((format!("{ANSWER}{key}"), serde_json::to_value(answered).ok()));
        facts
    }

    /// What becomes durable alone.
    fn refused(&self, run: Option<String>, why: &str) -> Vec<Fact> {
        let mut entry = self.entry();
        entry.run = run.unwrap_or(entry.run);
        entry.why = Some(why.chars().take(WHY_CHARS_MAX).collect());
        audit_facts(&entry)
    }
}

/// The entry, and that the oldest goes.
pub(super) fn audit_facts(entry: &AuditEntry) -> Vec<Fact> {
    tracing::info!(
        target: "audit", by = entry.by, peer = ?entry.peer, verb = entry.verb.as_str(), run = entry.run,
        verdict = entry.verdict.as_str(), before = entry.before, after = entry.after, why = entry.why, "asked"
    );
    let key = |seq: u64| format!("{AUDIT}{seq:020}");
    let mut facts = vec![(key(entry.seq), serde_json::to_value(entry).ok())];
    if let Some(oldest) = entry.seq.checked_sub(AUDIT_MAX).filter(|oldest| *oldest > 0) {
        facts.push((key(oldest), None));
    }
    facts
}

fn answer(Change { run, before: _, after, already }: Change) -> Changed {
    Changed { id: run, run: run.short(), revision: after.0, changed: !already }
}
