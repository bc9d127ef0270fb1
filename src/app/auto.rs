//! For a `CronJob`: goes on with what was interrupted, begins what is due, and ends when nothing moves by itself any more.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context as _, Result, bail};
use tokio::sync::watch;
use tracing::{info, warn};

use super::{
    Drove, OpenStore, Reach, close, cluster, engine, open_store, place, pool_spec,
    serve::{finish, held_before, leading, standing, told},
    served,
};
use crate::{
    cluster::Cluster,
    config::Config,
    http,
    model::{DonorChoice, RunId},
    workflow::{Driver, Engine, Observer, Scheduled, Summary, follow_once, summaries},
};

/// Once through all pools. How it ended, and the runs that it had to do with, as they are then.
///
/// A pool without a schedule is due each time: the `CronJob`'s is its schedule. One with a schedule is due by that.
///
/// # Errors
/// As the daemon.
pub async fn auto(config: &Config, observer: Observer) -> Result<(Drove, Vec<Summary>)> {
    super::ready(config, None)?;
    let mut store = open_store(&place(config))?;
    let reach = Reach::azure(config)?;
    let cluster: Arc<dyn Cluster> = Arc::new(cluster(config).await?);
    let (authority, leadership) = standing(config, &cluster, &store.journal).await?;
    let engine =
        engine(config, reach, Arc::clone(&cluster), Arc::clone(&authority), store.journal.clone(), observer).await?;
    let control = store.listener.take().context("the control socket is taken already")?;
    let (stop, stopping) = watch::channel(false);
    let mut serving = Box::pin(http::serve(control, Arc::clone(&engine), stopping.clone()));
    let mut ours: BTreeSet<RunId> = open(&engine).await?.into_iter().collect();

    let OpenStore { guard, signals, .. } = &mut store;
    let drove = {
        let working = async {
            let rested = async || Driver::new(Arc::clone(&engine)).run_to_rest_or(told(stopping.clone())).await;
            if !held_before(&authority, told(stopping.clone())).await || !rested().await? {
                return Ok(());
            }
            begin(config, &engine, cluster.as_ref()).await?;
            ours.extend(open(&engine).await?);
            if rested().await? {
                engine.age_out(config.history).await?;
            }
            Ok::<_, anyhow::Error>(())
        };
        let leading = leading(leadership.as_ref());
        tokio::pin!(working, leading);
        let signal = tokio::select! {
            biased;
            signal = signals.next() => Some(signal),
            ended = guard.ended() => {
                ended.context("the store has ended")?;
                bail!("the store has ended");
            }
            lost = &mut leading => return Err(lost.into()),
            worked = &mut working => {
                worked?;
                None
            }
            ended = &mut serving => {
                ended.context("the control socket failed")?;
                bail!("the control socket has stopped");
            }
        };
        stop.send_replace(true);
        if let Some(signal) = signal {
            info!(signal, "asked to stop; every run goes on where it was");
            let turns = async {
                let ((), worked) = tokio::join!(served(&mut serving), &mut working);
                worked
            };
            finish(turns, &mut leading).await?;
            Drove::Signal(signal)
        } else {
            served(&mut serving).await;
            Drove::ToRest
        }
    };
    drop(serving);
    if let Some(leadership) = &leadership {
        leadership.release().await;
    }
    drop(engine);
    let all = summaries(&store.journal).await?;
    close(store).await?;
    Ok((drove, all.into_iter().filter(|summary| ours.contains(&summary.id)).collect()))
}

async fn open(engine: &Engine) -> Result<Vec<RunId>> {
    Ok(engine.summaries().await?.iter().filter(|summary| summary.open()).map(|summary| summary.id).collect())
}

/// Begins a run of each pool that is due.
async fn begin(config: &Config, engine: &Engine, cluster: &dyn Cluster) -> Result<()> {
    let id = cluster.cluster_id().await.context("failed to ask which cluster this is")?;
    for pool in &config.pools {
        let spec = pool_spec(config, pool, DonorChoice::Pool, pool.adopt, id.clone())?;
        if let Some(schedule) = pool.schedule.clone() {
            follow_once(engine, &Scheduled { pool: pool.name.clone(), schedule, spec }).await?;
            continue;
        }
        match engine.start(spec, "auto --once").await? {
            Ok(run) => info!(pool = pool.name, %run, "started"),
            // A parked one: its state says what a person has to do.
            Err(rejected) => warn!(pool = pool.name, %rejected, "not started"),
        }
    }
    Ok(())
}
