//! The world's time: a start and tokio's elapsed time, which is paused in simulations.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fastrand::Rng;
use jiff::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

use crate::{clock::Clock, model::RunId};

/// The clock of one world. Ids come from a generator that goes on over crashes, so that none comes twice.
#[derive(Debug, Clone)]
pub struct SimClock {
    start: Timestamp,
    zero: Instant,
    ids: Arc<Mutex<Rng>>,
}

impl SimClock {
    /// A clock that shows `start` now.
    #[must_use]
    pub fn new(start: Timestamp, seed: u64) -> Self {
        Self { start, zero: Instant::now(), ids: Arc::new(Mutex::new(Rng::with_seed(seed))) }
    }

    /// How long the world has existed.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.zero.elapsed()
    }

    fn random(&self) -> [u8; 16] {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.u128(..).to_be_bytes()
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.start.checked_add(self.elapsed()).unwrap_or(self.start)
    }

    fn new_run(&self) -> RunId {
        let millis = u64::try_from(self.now().as_millisecond()).unwrap_or_default();
        let mut random = [0; 10];
        random.copy_from_slice(&self.random()[..10]);
        RunId(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    fn new_id(&self) -> Uuid {
        uuid::Builder::from_random_bytes(self.random()).into_uuid()
    }
}
