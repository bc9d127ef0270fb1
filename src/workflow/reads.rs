//! What is stored of runs, for whoever wants to know: heads, events, and what is too short to be stored.

use serde_json::Value;
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    describe::Description,
    engine::{Engine, EngineError},
    requests::Rejected,
    run::{Event, Run},
    summary::Summary,
};
use crate::{
    model::RunId,
    store::{Journal, Revision},
};

/// What happened to a run since somebody looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// The run's revision: how many events it has in all.
    pub revision: Revision,
    /// Events and their places in the journal, oldest first.
    pub events: Vec<(u64, Event)>,
    /// Set when the run is at an end and nothing comes after these events.
    pub end: Option<Summary>,
}

impl Engine {
    /// All runs, oldest first; each says what it waits for, also where that is too short to be stored.
    pub async fn summaries(&self) -> Result<Vec<Summary>, EngineError> {
        let mut all = summaries(&self.journal).await?;
        for summary in &mut all {
            let note = self.note(summary.id);
            summary.why = summary.why.take().or(note);
        }
        Ok(all)
    }

    /// One run, step by step, and what it waits for.
    pub async fn describe(&self, id: RunId) -> Result<Result<Description, Rejected>, EngineError> {
        let mut described = describe(&self.journal, id).await?;
        if let Ok(description) = &mut described {
            let note = self.note(id);
            if let Some(step) = description.steps.iter_mut().find(|step| step.state == "current") {
                step.note = note.clone().or(step.note.take());
            }
            description.summary.why = description.summary.why.take().or(note);
        }
        Ok(described)
    }

    /// What a run waits for that is too short to be stored.
    fn note(&self, id: RunId) -> Option<String> {
        if self.held().contains(&id) {
            return Some(format!("held since kamino-wf started: `kamino-wf resume {id}` lets it go on"));
        }
        self.cell(id).and_then(|cell| cell.note())
    }

    /// The run that a person means by some digits of its id.
    pub async fn find(&self, given: &str) -> Result<Result<RunId, Rejected>, EngineError> {
        Ok(find_run(&self.summaries().await?, given))
    }

    /// Changes whenever something was recorded of any run.
    #[must_use]
    pub fn recorded(&self) -> watch::Receiver<u64> {
        self.recorded.subscribe()
    }

    /// How many events an open run has.
    pub async fn revision(&self, id: RunId) -> Option<Revision> {
        let cell = self.cell(id)?;
        let revision = cell.inner.lock().await.revision;
        Some(revision)
    }

    /// What was recorded of a run after a revision: the oldest, `most` at most.
    pub async fn news(&self, id: RunId, after: Revision, most: usize) -> Result<Result<News, Rejected>, EngineError> {
        let Some((revision, events)) = events(&self.journal, id.0).await? else {
            return Ok(Err(Rejected::NoSuchRun(id.short())));
        };
        let skipped = usize::try_from(after.0).unwrap_or(usize::MAX).min(events.len());
        let complete = events.len() - skipped <= most;
        let end = match events.last() {
            Some(Event::Ended { .. }) if complete => Some(Summary::of(&Run::fold(id, events.iter().cloned())?)),
            _ => None,
        };
        let news = (after.0 + 1..).zip(events.into_iter().skip(skipped).take(most)).collect();
        Ok(Ok(News { revision, events: news, end }))
    }

    /// The facts whose key starts with `prefix`, in key order.
    pub async fn facts(&self, prefix: &str) -> Result<Vec<(String, Value)>, EngineError> {
        Ok(self.journal.facts(prefix).await?)
    }
}

/// All stored runs, oldest first.
pub async fn summaries(journal: &Journal) -> Result<Vec<Summary>, EngineError> {
    let mut summaries = Vec::new();
    for head in journal.heads().await? {
        let summary = serde_json::from_value(head.summary).map_err(|error| EngineError::Unreadable {
            run: RunId(head.run),
            seq: head.revision.0,
            detail: format!("its head: {error}"),
        })?;
        summaries.push(summary);
    }
    Ok(summaries)
}

/// A stored run, step by step.
pub async fn describe(journal: &Journal, id: RunId) -> Result<Result<Description, Rejected>, EngineError> {
    Ok(match events(journal, id.0).await? {
        Some((_, events)) => Ok(Description::of(id, events)?),
        None => Err(Rejected::NoSuchRun(id.short())),
    })
}

/// The run that a person means: the beginning of its short form, or its full id.
pub fn find_run(summaries: &[Summary], given: &str) -> Result<RunId, Rejected> {
    let given = given.to_ascii_lowercase();
    let plain = given.replace('-', "");
    let matches: Vec<&Summary> = summaries
        .iter()
        .filter(|summary| {
            !given.is_empty() && (summary.run.starts_with(&given) || summary.id.0.simple().to_string() == plain)
        })
        .collect();
    match matches[..] {
        [one] => Ok(one.id),
        [] => Err(Rejected::NoSuchRun(given)),
        _ => Err(Rejected::Ambiguous { given, matches: matches.iter().map(|summary| summary.run.clone()).collect() }),
    }
}

/// A stored run and its revision.
pub async fn load(journal: &Journal, id: RunId) -> Result<Option<(Run, Revision)>, EngineError> {
    let Some((head, events)) = events(journal, id.0).await? else { return Ok(None) };
    Ok(Some((Run::fold(id, events)?, head)))
}

/// A stored run's events.
pub async fn events(journal: &Journal, id: Uuid) -> Result<Option<(Revision, Vec<Event>)>, EngineError> {
    let Some((head, records)) = journal.load(id).await? else { return Ok(None) };
    let mut events = Vec::with_capacity(records.len());
    for record in records {
        let event = serde_json::from_value(record.payload).map_err(|error| EngineError::Unreadable {
            run: RunId(id),
            seq: record.seq,
            detail: error.to_string(),
        })?;
        events.push(event);
    }
    Ok(Some((head.revision, events)))
}
