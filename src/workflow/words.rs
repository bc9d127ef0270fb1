//! What else people say to a run: pause, approve, reject, abandon. Each is durable when it returns.

use jiff::Timestamp;

use super::{
    boundary::comes_to_another,
    engine::{Engine, EngineError, Stored},
    requests::{Change, Note, Rejected},
    run::{Event, Position, RunState},
    summary::Summary,
};
use crate::{model::RunId, policy::gates::Gate, store::Revision};

impl Engine {
    /// A person says: stop before the next stage; only at the expected revision if there is one, and with a note in the same
    /// batch.
    pub async fn pause_noted(
        &self,
        id: RunId,
        by: &str,
        expected: Option<Revision>,
        note: Note<'_>,
    ) -> Result<Result<Change, Rejected>, EngineError> {
        let Some(cell) = self.cell(id) else { return self.ended_or_unknown(id, expected).await.map(Err) };
        let mut stored = cell.inner.lock().await;
        if let Some(rejected) = stored.unfit(expected) {
            return Ok(Err(rejected));
        }
        let run = &stored.run;
        if run.pause.is_some() || matches!(run.state, RunState::Paused { .. }) {
            return self.already(&stored, note).await.map(Ok);
        }
        let forward = matches!(run.position(), Some(Position::Forward { .. }));
        let why = if run.stands() {
            Some("it stands before a person already")
        } else if !forward || run.cancel.is_some() {
            Some("it goes back, which nothing stops; it ends by itself")
        } else if !comes_to_another(run) {
            Some("it is in its last stage, and there is none to stop before")
        } else {
            None
        };
        if let Some(why) = why {
            let state = Summary::of(run).in_words();
            return Ok(Err(Rejected::NoPause { run: id.short(), state, why }));
        }
        let event = Event::PauseRequested { at: self.clock.now(), by: by.to_owned() };
        self.ask_in(&mut stored, &cell, event, note).await.map(Ok)
    }

    /// A person says: yes, the next stage may begin. As [`Engine::pause_noted`].
    pub async fn approve_noted(
        &self,
        id: RunId,
        by: &str,
        expected: Option<Revision>,
        note: Note<'_>,
    ) -> Result<Result<Change, Rejected>, EngineError> {
        self.answer_noted(id, expected, note, |at, gate| Event::Approved { at, gate, by: by.to_owned() }).await
    }

    /// A person says: no; the run goes back. As [`Engine::pause_noted`].
    pub async fn reject_noted(
        &self,
        id: RunId,
        by: &str,
        expected: Option<Revision>,
        note: Note<'_>,
    ) -> Result<Result<Change, Rejected>, EngineError> {
        self.answer_noted(id, expected, note, |at, gate| Event::Rejected { at, gate, by: by.to_owned() }).await
    }

    async fn answer_noted(
        &self,
        id: RunId,
        expected: Option<Revision>,
        note: Note<'_>,
        answer: impl FnOnce(Timestamp, Gate) -> Event,
    ) -> Result<Result<Change, Rejected>, EngineError> {
        let Some(cell) = self.cell(id) else { return self.ended_or_unknown(id, expected).await.map(Err) };
        let mut stored = cell.inner.lock().await;
        if let Some(rejected) = stored.unfit(expected) {
            return Ok(Err(rejected));
        }
        let RunState::NeedsApproval { gate, .. } = stored.run.state else {
            let state = Summary::of(&stored.run).in_words();
            return Ok(Err(Rejected::NotAsked { run: id.short(), state }));
        };
        self.held().remove(&id);
        let event = answer(self.clock.now(), gate);
        self.ask_in(&mut stored, &cell, event, note).await.map(Ok)
    }

    /// A person says: stop, pay what is owed, and leave the rest as it is. As [`Engine::pause_noted`].
    pub async fn abandon_noted(
        &self,
        id: RunId,
        by: &str,
        expected: Option<Revision>,
        note: Note<'_>,
    ) -> Result<Result<Change, Rejected>, EngineError> {
        let Some(cell) = self.cell(id) else { return self.ended_or_unknown(id, expected).await.map(Err) };
        let mut stored = cell.inner.lock().await;
        if let Some(rejected) = stored.unfit(expected) {
            return Ok(Err(rejected));
        }
        if stored.run.abandon.is_some() {
            return self.already(&stored, note).await.map(Ok);
        }
        self.held().remove(&id);
        let event = Event::AbandonRequested { at: self.clock.now(), by: by.to_owned() };
        self.ask_in(&mut stored, &cell, event, note).await.map(Ok)
    }

    /// It was so before: only that somebody asked is recorded.
    pub(super) async fn already(&self, stored: &Stored, note: Note<'_>) -> Result<Change, EngineError> {
        let at = stored.revision;
        let change = Change { run: stored.run.id, before: at, after: at, already: true };
        self.put_facts(note(change)).await?;
        Ok(change)
    }
}
