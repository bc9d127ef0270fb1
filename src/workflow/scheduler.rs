//! Starts runs by schedule: one run a pool and time, also over restarts, and a missed time once.
//!
//! The newest time that was dealt with is a fact in the store, in the same batch as the run that it began: after a crash
//! there are both or neither.

use std::{convert::Infallible, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::json;
use tokio::time::sleep;
use tracing::{info, warn};

use super::{
    engine::{Engine, EngineError},
    requests::{Change, Rejected},
    spec::RunSpec,
};
use crate::{
    policy::schedule::{Due, Schedule},
    store::Fact,
};

/// Facts: `schedule/<pool>`, the newest time that was dealt with.
const DONE: &str = "schedule/";
/// The longest pause: wall clocks are set, and machines sleep.
const LONGEST: Duration = Duration::from_mins(1);

/// A pool with a schedule.
#[derive(Debug, Clone)]
pub struct Scheduled {
    /// The pool's name.
    pub pool: String,
    /// When.
    pub schedule: Schedule,
    /// What.
    pub spec: RunSpec,
}

/// What can be seen of a pool's schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    /// Nothing is due before this time.
    NotBefore(Timestamp),
    /// The time was dealt with.
    Done,
}

/// Follows schedules for ever.
///
/// # Errors
/// When the store fails.
pub async fn follow(engine: Arc<Engine>, pools: Vec<Scheduled>) -> Result<Infallible, EngineError> {
    loop {
        let mut pause = LONGEST;
        for pool in &pools {
            match follow_once(&engine, pool).await? {
                Followed::NotBefore(until) => {
                    let left = until.duration_since(engine.clock().now());
                    // Never at once again: what could not be done now can't be done a moment later either.
                    pause = pause.min(Duration::try_from(left).unwrap_or_default().max(Duration::from_secs(1)));
                }
                Followed::Done => pause = Duration::from_secs(1),
            }
        }
        sleep(pause).await;
    }
}

/// Looks once at one pool, and starts its run if it is due.
///
/// # Errors
/// When the store fails.
pub async fn follow_once(engine: &Engine, scheduled: &Scheduled) -> Result<Followed, EngineError> {
    let Scheduled { pool, schedule, spec } = scheduled;
    let now = engine.clock().now();
    let Some(done) = engine.fact(&format!("{DONE}{pool}")).await? else {
        // Seen for the first time: what was before is not missed.
        remember(engine, pool, now).await?;
        return Ok(Followed::Done);
    };
    let done = serde_json::from_value::<Timestamp>(done["done"].clone()).unwrap_or(now);
    // By name, so that a pool keeps its moment whatever other pools there are.
    let seed = u64::from(crc32fast::hash(pool.as_bytes())) << 8;
    let due = match schedule.due(done, now, seed) {
        Due::NotBefore(until) => return Ok(Followed::NotBefore(until)),
        Due::Missed(due) => {
            warn!(pool, %due, "a scheduled run was missed and is left out; the next one comes as planned");
            remember(engine, pool, due).await?;
            return Ok(Followed::Done);
        }
        Due::Now(due) => due,
    };
    let by = format!("schedule {:?} of pool {pool}, due {due:.0}", schedule.expression());
    let note = |_| vec![done_with(pool, due)];
    match engine.start_noted(spec.clone(), &by, &note).await? {
        Ok(Change { run, .. }) => {
            info!(pool, %due, %run, "started by schedule");
            return Ok(Followed::Done);
        }
        Err(Rejected::Occupied { run, .. }) => info!(pool, %due, run, "due by schedule, and a run is open already"),
        Err(rejected) => warn!(pool, %due, %rejected, "due by schedule, and not started"),
    }
    remember(engine, pool, due).await?;
    Ok(Followed::Done)
}

async fn remember(engine: &Engine, pool: &str, done: Timestamp) -> Result<(), EngineError> {
    engine.put_facts(vec![done_with(pool, done)]).await
}

fn done_with(pool: &str, done: Timestamp) -> Fact {
    (format!("{DONE}{pool}"), Some(json!({ "done": done })))
}
