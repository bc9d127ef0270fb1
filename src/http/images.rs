//! What is asked of image versions, on the record like all else: who asked, and that it was let in, is durable before the
//! first request goes out. Asking again is harmless, so there is no idempotency key: what is gone stays gone.

use std::sync::Arc;

use axum::{body::Bytes, extract::State, response::Response};
use serde::{Deserialize, Serialize};

use super::{
    api::{self, AuditEntry, BY_CHARS_MAX, Peer, Problem, ProblemKind, Verb, Verdict},
    control::{Body, Heads, Served, answered, bytes, checked_by, parsed},
    failure::Failure,
    mutations::{Mutations, audit_facts},
};
use crate::{
    store::Fact,
    workflow::{EngineError, ImageError, PinAsk, PinReport, PruneAsk, PruneReport},
};

/// What a refusal quotes.
const WHY_CHARS_MAX: usize = 500;

/// A request to prune, and who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneRequest {
    /// What is asked for.
    pub ask: PruneAsk,
    /// Who asks.
    pub by: String,
}

/// A request to pin or to unpin, and who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinRequest {
    /// What is asked for.
    pub ask: PinAsk,
    /// Who asks.
    pub by: String,
}

/// What a request about images is about, for the record.
struct Subject<'a> {
    by: &'a str,
    peer: Option<Peer>,
    verb: Verb,
    about: String,
}

impl Mutations {
    /// Prunes at the word of whoever asks.
    ///
    /// # Errors
    /// The store fails, or this process may not change anything.
    pub async fn prune(&self, prune: &PruneRequest, peer: Option<Peer>) -> Result<PruneReport, ImageError> {
        let PruneRequest { ask, by } = prune;
        let about = format!("{} versions of {}", ask.versions.len(), ask.definition.names().join("/"));
        let subject = Subject { by, peer, verb: Verb::Prune, about };
        self.note(&subject, Verdict::Accepted, None).await?;
        let done = self.engine.prune_images(ask).await;
        self.note_failure(&subject, done).await
    }

    /// Pins or unpins at the word of whoever asks.
    ///
    /// # Errors
    /// As [`Mutations::prune`]; there is no such version, or it is another's.
    pub async fn pin(&self, pin: &PinRequest, peer: Option<Peer>) -> Result<PinReport, ImageError> {
        let PinRequest { ask, by } = pin;
        let verb = if ask.why.is_some() { Verb::Pin } else { Verb::Unpin };
        let subject = Subject { by, peer, verb, about: format!("version {}", ask.version.names().join("/")) };
        self.note(&subject, Verdict::Accepted, None).await?;
        let done = self.engine.pin_image(ask).await;
        self.note_failure(&subject, done).await
    }

    async fn note_failure<T>(&self, subject: &Subject<'_>, done: Result<T, ImageError>) -> Result<T, ImageError> {
        if let Err(error) = &done {
            self.note(subject, Verdict::Refused, Some(error.to_string())).await?;
        }
        done
    }

    async fn note(&self, subject: &Subject<'_>, verdict: Verdict, why: Option<String>) -> Result<(), EngineError> {
        let _one_at_a_time = self.one_at_a_time.lock().await;
        let entry = AuditEntry {
            seq: self.next_seq().await?,
            at: self.engine.clock().now(),
            by: subject.by.chars().take(BY_CHARS_MAX).collect(),
            peer: subject.peer,
            verb: subject.verb,
            run: String::new(),
            subject: Some(subject.about.clone()),
            scale_set: None,
            before: None,
            after: None,
            verdict,
            why: why.map(|why| why.chars().take(WHY_CHARS_MAX).collect()),
            key: None,
        };
        let facts: Vec<Fact> = audit_facts(&entry);
        self.engine.put_facts(facts).await
    }
}

pub(super) async fn prune(State(served): State<Served>, heads: Heads, body: Body) -> Result<Response, Failure> {
    let body: Bytes = bytes(body)?;
    let prune: PruneRequest = parsed(&body)?;
    checked_by(&prune.by)?;
    let mutations = Arc::clone(&served.mutations);
    let pruned = served.changes.done(async move { mutations.prune(&prune, heads.peer).await }).await?;
    Ok(answered(&api::PRUNE, pruned))
}

pub(super) async fn pin(State(served): State<Served>, heads: Heads, body: Body) -> Result<Response, Failure> {
    let body: Bytes = bytes(body)?;
    let pin: PinRequest = parsed(&body)?;
    checked_by(&pin.by)?;
    let mutations = Arc::clone(&served.mutations);
    let pinned = served.changes.done(async move { mutations.pin(&pin, heads.peer).await }).await?;
    Ok(answered(&api::PIN, pinned))
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        let kind = match &error {
            ImageError::NoSuchVersion(_) => ProblemKind::NotFound,
            ImageError::NoAuthority | ImageError::Foreign(_) | ImageError::Busy(_) => ProblemKind::Conflict,
            ImageError::Engine(_) | ImageError::Call(_) => ProblemKind::Failed,
        };
        let mut problem = Problem::new(kind, error.to_string());
        match error {
            ImageError::Engine(error) => return error.into(),
            ImageError::Foreign(_) => problem.code = Some("KW0502".into()),
            ImageError::Call(error) => problem.code = Some(error.code.into()),
            ImageError::NoSuchVersion(_) | ImageError::NoAuthority | ImageError::Busy(_) => {}
        }
        problem.into()
    }
}
