//! Turns every run when it is due. A waiting run is a line in a map here, and no task.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until};

use super::engine::{Engine, EngineError, Next};
use crate::model::RunId;

/// Turns runs until it is told to stop, or the store fails.
#[derive(Debug)]
pub struct Driver {
    engine: Arc<Engine>,
    due: BTreeMap<RunId, Due>,
}

/// When a run is turned again.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: Instant,
    /// By itself, and not only because a person has not answered by then.
    moves: bool,
}

impl Driver {
    /// A driver for an engine's runs.
    #[must_use]
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine, due: BTreeMap::new() }
    }

    /// Drives all runs until told to stop. A turn that has begun is finished, with its records.
    pub async fn run_until(mut self, stop: impl Future<Output = ()>) -> Result<(), EngineError> {
        tokio::pin!(stop);
        loop {
            self.round().await?;
            tokio::select! {
                biased;
                () = &mut stop => return Ok(()),
                () = self.pause() => {}
            }
        }
    }

    /// Drives all runs until none of them will move by itself: each is at an end, or stands before a person.
    pub async fn run_to_rest(self) -> Result<(), EngineError> {
        self.run_to_rest_or(std::future::pending()).await.map(drop)
    }

    /// The same, unless it is told to stop before: true at rest. A turn that has begun is finished, with its records.
    pub async fn run_to_rest_or(mut self, stop: impl Future<Output = ()>) -> Result<bool, EngineError> {
        tokio::pin!(stop);
        loop {
            self.round().await?;
            if !self.due.values().any(|due| due.moves) {
                return Ok(true);
            }
            tokio::select! {
                biased;
                () = &mut stop => return Ok(false),
                () = self.pause() => {}
            }
        }
    }

    /// Drives all runs until this one does not move by itself any more.
    pub async fn run_to_rest_of(mut self, id: RunId) -> Result<(), EngineError> {
        loop {
            self.round().await?;
            if !self.due.get(&id).is_some_and(|due| due.moves) {
                return Ok(());
            }
            self.pause().await;
        }
    }

    /// Turns what is due.
    async fn round(&mut self) -> Result<(), EngineError> {
        let now = Instant::now();
        for id in self.engine.take_poked() {
            self.due.insert(id, Due { at: now, moves: true });
        }
        let ids: Vec<RunId> = self.due.iter().filter(|(_, due)| due.at <= now).map(|(id, _)| *id).collect();
        let engine = &self.engine;
        let turns = join_all(ids.iter().map(async |id| (*id, engine.turn(*id).await))).await;
        for (id, next) in turns {
            match next? {
                Next::Now => self.due.insert(id, Due { at: now, moves: true }),
                Next::After(pause) => self.due.insert(id, Due { at: Instant::now() + pause, moves: true }),
                Next::Stands(most) => self.due.insert(id, Due { at: Instant::now() + most, moves: false }),
                Next::Rest | Next::Ended => self.due.remove(&id),
            };
        }
        Ok(())
    }

    async fn pause(&self) {
        let wake = self.due.values().map(|due| due.at).min();
        tokio::select! {
            biased;
            () = self.engine.poked_again() => {}
            () = async { match wake { Some(at) => sleep_until(at).await, None => std::future::pending().await } } => {}
        }
    }
}
