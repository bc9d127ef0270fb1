//! `restore`: who may say so, and when it would not last.

use anyhow::{Context as _, Result};

use super::{Reach, plan::stored};
use crate::{
    clock::{Clock as _, SystemClock},
    cloud::Restoration,
    config::Config,
    restore::{self, Pace, Prospect, Restored},
    workflow::Summary,
};

/// Why a model is not put back now. Nothing was asked.
#[derive(Debug, thiserror::Error)]
pub enum NotNow {
    /// The settings ask for the change that is to be taken back.
    #[error(
        "pool {0} says adopt (or approve: [adopt]): its next run would change the model again; take that out of the settings first"
    )]
    Adopts(String),
    /// A run is about to change the same model, or has just done so.
    #[error("run {run} of the same scale set is {state}: let it end, or cancel it")]
    OpenRun {
        /// Which.
        run: String,
        /// How it is doing.
        state: String,
    },
}

/// What came of it.
#[derive(Debug)]
pub enum Restoring {
    /// Nothing was asked for.
    Planned(Prospect),
    /// The model is as the bundle says.
    Done(Restored),
}

/// Puts a pool's model back; without `yes` only says what would change.
///
/// # Errors
/// [`NotNow`], [`crate::restore::RestoreError`], settings without a credential, a store that can't be asked for open runs.
pub async fn restore(
    config: &Config,
    pool: &str,
    want: &Restoration,
    (yes, again): (bool, bool),
    tell: &(dyn Fn(&str) + Sync),
) -> Result<Restoring> {
    let pool = config.pool(pool)?;
    if pool.adopt {
        return Err(NotNow::Adopts(pool.name.clone()).into());
    }
    let runs = stored(config).await.context("failed to ask the store whether a run of that scale set is open")?.runs;
    let open = |run: &&Summary| run.open() && run.scale_set == pool.scale_set;
    if let Some(run) = runs.iter().find(open) {
        return Err(NotNow::OpenRun { run: run.run.clone(), state: run.state.clone() }.into());
    }
    let Reach { cloud, limiter: _ } = Reach::azure(config)?;
    if !yes {
        return Ok(Restoring::Planned(restore::look(&cloud, &pool.scale_set, want).await?));
    }
    let done = restore::restore(&cloud, (&pool.scale_set, SystemClock.new_run()), want, again, Pace::default(), tell);
    Ok(Restoring::Done(done.await?))
}
