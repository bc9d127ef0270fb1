//! The daemon: engine, schedules, Lease, probes, metrics and the control socket in one process, until a signal comes.
//!
//! Nothing here is in order but the beginning and the end. In between the parts run side by side, and when one of them that
//! must live has ended, the process ends: the kubelet starts it again, and recovery is what always happens at a start.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::{OpenStore, RELEASE, Reach, close, cluster, engine, open_store, place, pool_spec, served};
use crate::{
    clock::{Clock as _, SystemClock},
    cluster::Cluster,
    config::{Config, Place, Pool, Serve},
    http::{self, Metrics, Vitals},
    model::DonorChoice,
    policy::{lease::Candidate, leftovers::Patience},
    store::Journal,
    workflow::{Authority, Driver, Engine, EngineError, Leadership, LostLease, Scheduled, SweepReport, follow},
};

/// For turns that have begun, after a signal: a request that is under way gets its answer, and that is recorded. Less than
/// half of the time that a pod has to end.
const FINISHING: Duration = Duration::from_secs(10);
/// Between two sweeps, whatever the first one says.
const SWEEPS_APART: Duration = Duration::from_secs(10);
/// Between two looks at the nodes' boot ids: known to a quarter of an hour a reboot is good enough to be compared.
const BOOTS_APART: Duration = Duration::from_mins(15);
/// Between two attempts to ask the API server which cluster this is.
const CLUSTER_AGAIN: Duration = Duration::from_secs(5);

/// Serves until a signal comes, and returns its number.
///
/// # Errors
/// Settings that can't be used, a store that can't be opened, and everything that a restart is the remedy for.
pub async fn serve(config: &Config, hold: bool) -> Result<i32> {
    super::ready(config, None)?;
    let Serve { listen, runs_at_once: _, sweep_every, sweep_unknown_after } = config.serve.clone();
    let vitals = Arc::new(Vitals::default());
    let mut metrics = Metrics::new(RELEASE);
    let mut store = open_store(&place(config))?;
    vitals.store_is_open(store.journal.clone());
    let reach = Reach::azure(config)?;
    metrics.count_requests(reach.cloud.meter());
    for pool in config.pools.iter().filter(|pool| pool.schedule.is_some()) {
        metrics.expect_image_of(pool.scale_set.name());
    }
    let metrics = Arc::new(metrics);
    let probes = http::probes(Arc::clone(&vitals), Arc::clone(&metrics));
    let listener = bind(listen).await?;
    info!(listen = %listener.local_addr().unwrap_or(listen), store = %config.store.display(), "serving");

    let cluster: Arc<dyn Cluster> = Arc::new(cluster(config).await?);
    let (authority, leadership) = standing(config, &cluster, &store.journal).await?;
    let observing = Arc::clone(&metrics);
    let observer = Box::new(move |run: &_, event: &_| observing.observe(run, event));
    let engine =
        engine(config, reach, Arc::clone(&cluster), Arc::clone(&authority), store.journal.clone(), observer).await?;
    if hold {
        engine.hold();
        warn!("started with --hold-on-start: no open run moves before `kamino-wf resume`, and no schedule starts one");
    }
    vitals.recovered(Arc::clone(&engine));

    let (stop, stopped) = watch::channel(false);
    let control = store.listener.take().context("the control socket is taken already")?;
    let OpenStore { guard, signals, .. } = &mut store;
    let signal = {
        let serving = http::serve(control, Arc::clone(&engine), stopped.clone());
        let probing = http::listen(listener, probes);
        let leading = leading(leadership.as_ref());
        let driving = async {
            if held_before(&authority, told(stopped.clone())).await {
                Driver::new(Arc::clone(&engine)).run_until(told(stopped.clone())).await
            } else {
                Ok(())
            }
        };
        let scheduling = async {
            authority.held().await;
            let pools = if hold { Vec::new() } else { scheduled(config, cluster.as_ref()).await };
            follow(Arc::clone(&engine), pools).await
        };
        let sweeping = async {
            authority.held().await;
            match sweep_every {
                Some(every) if !hold => sweep(config, &engine, every, sweep_unknown_after).await,
                Some(_) | None => std::future::pending().await,
            }
        };
        let watching = async {
            authority.held().await;
            watch_boots(config, &engine).await
        };
        tokio::pin!(serving, probing, leading, driving, scheduling, sweeping, watching);
        let signal = tokio::select! {
            biased;
            signal = signals.next() => signal,
            ended = guard.ended() => {
                ended.context("the store has ended")?;
                bail!("the store has ended");
            }
            lost = &mut leading => return Err(lost.into()),
            ended = &mut driving => {
                ended?;
                bail!("nothing drives runs any more");
            }
            ended = &mut scheduling => match ended? {},
            ended = &mut sweeping => match ended? {},
            ended = &mut watching => match ended? {},
            ended = &mut serving => {
                ended.context("the control socket failed")?;
                bail!("the control socket has stopped");
            }
            ended = &mut probing => match ended {},
        };
        info!(signal, "asked to stop; every run goes on where it was");
        stop.send_replace(true);
        // Whoever follows a run is told to come again, beside the turns that end.
        let driving = async {
            let ((), driven) = tokio::join!(served(&mut serving), &mut driving);
            driven
        };
        finish(driving, &mut leading).await?;
        signal
    };
    if let Some(leadership) = &leadership {
        leadership.release().await;
    }
    drop(engine);
    drop(vitals);
    close(store).await?;
    Ok(signal)
}

/// Whether this process may change the world: in a namespace of its own it takes the Lease there first.
pub(super) async fn standing(
    config: &Config,
    cluster: &Arc<dyn Cluster>,
    journal: &Journal,
) -> Result<(Arc<Authority>, Option<Leadership>)> {
    let seen = journal.seen_fence().await.context("failed to read the store")?;
    let Place { namespace, pod, node: _ } = config.place.clone();
    let Some(namespace) = namespace else { return Ok((Arc::new(Authority::unlimited(seen)), None)) };
    let authority = Arc::new(Authority::standby(seen));
    let leadership = Leadership {
        cluster: Arc::clone(cluster),
        authority: Arc::clone(&authority),
        namespace,
        name: config.lease.clone(),
        me: Candidate { pod: pod.unwrap_or_default(), process: SystemClock.new_id().simple().to_string() },
        seen,
    };
    Ok((authority, Some(leadership)))
}

/// Keeps the Lease, if one is used; ends when it is lost.
pub(super) async fn leading(leadership: Option<&Leadership>) -> LostLease {
    match leadership {
        Some(leadership) => leadership.hold().await,
        None => std::future::pending().await,
    }
}

/// Returns when it is time to stop.
pub(super) async fn told(mut stopped: watch::Receiver<bool>) {
    // Whoever could say so and is gone has said so.
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Waits until this process may change the world; false when it is told to stop before.
pub(super) async fn held_before(authority: &Authority, stop: impl Future<Output = ()>) -> bool {
    tokio::select! {
        biased;
        () = stop => false,
        () = authority.held() => true,
    }
}

/// After a signal: lets the turns end that have begun. The Lease is kept up meanwhile: what is under way is still ours.
pub(super) async fn finish<E: Into<anyhow::Error>>(
    turns: impl Future<Output = Result<(), E>>,
    leading: impl Future<Output = LostLease>,
) -> Result<()> {
    tokio::select! {
        biased;
        finished = timeout(FINISHING, turns) => {
            if let Ok(driven) = finished {
                return driven.map_err(Into::into);
            }
            let seconds = FINISHING.as_secs();
            warn!("a turn did not end within {seconds} s; the next process looks what came of it");
        }
        lost = leading => warn!(%lost, "stopped at once"),
    }
    Ok(())
}

/// Takes away what runs have left behind, again and again.
async fn sweep(
    config: &Config,
    engine: &Engine,
    every: Duration,
    unknown: Duration,
) -> Result<Infallible, EngineError> {
    let patience = Patience { unknown, ..Patience::default() };
    loop {
        let groups: Vec<_> = config.pools.iter().map(|pool| pool.scale_set.group()).collect();
        let report = engine.sweep(groups, &config.clean_namespace, patience).await?;
        let report = tidied(config, engine, patience, report).await?;
        let told = report.not_before.map(|until| until.duration_since(engine.clock().now()));
        let told = told.and_then(|pause| Duration::try_from(pause).ok());
        sleep(told.or(report.again_in).unwrap_or(every).max(SWEEPS_APART)).await;
    }
}

/// Remembers when the pools' nodes were rebooted.
async fn watch_boots(config: &Config, engine: &Engine) -> Result<Infallible, EngineError> {
    let sets: Vec<_> = config.pools.iter().map(|pool| pool.scale_set.clone()).collect();
    loop {
        engine.remember_boots(&sets).await?;
        sleep(BOOTS_APART).await;
    }
}

/// What a sweep takes besides: versions that failed runs have left, and finished runs that are old.
pub(super) async fn tidied(
    config: &Config,
    engine: &Engine,
    patience: Patience,
    mut report: SweepReport,
) -> Result<SweepReport, EngineError> {
    let place = |pool: &Pool| {
        let definition = pool.gallery.definition(&pool.definition).ok()?;
        Some((definition, pool.scale_set.subscription().to_owned()))
    };
    if report.not_before.is_none() {
        let versions = engine.sweep_versions(&config.pools.iter().filter_map(place).collect(), patience).await?;
        report.not_before = versions.not_before;
        report.again_in = report.again_in.or(versions.again_in);
    }
    engine.age_out(config.history).await?;
    Ok(report)
}

async fn bind(listen: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(listen)
        .await
        .with_context(|| format!("failed to listen on {listen} for probes and metrics; settings say serve.listen"))
}

/// The pools with a schedule, and what a run of each is asked to do. Waits until the API server has said which cluster this is.
async fn scheduled(config: &Config, cluster: &dyn Cluster) -> Vec<Scheduled> {
    let with_schedule: Vec<_> =
        config.pools.iter().filter_map(|pool| pool.schedule.clone().map(|schedule| (pool, schedule))).collect();
    if with_schedule.is_empty() {
        return Vec::new();
    }
    let id = loop {
        match cluster.cluster_id().await {
            Ok(id) => break id,
            Err(error) => warn!(%error, "schedules wait until it is known which cluster this is"),
        }
        sleep(CLUSTER_AGAIN).await;
    };
    let mut scheduled = Vec::new();
    for (pool, schedule) in with_schedule {
        match pool_spec(config, pool, DonorChoice::Pool, pool.adopt, id.clone()) {
            Ok(spec) => scheduled.push(Scheduled { pool: pool.name.clone(), schedule, spec }),
            Err(error) => warn!(pool = pool.name, %error, "this pool's schedule can't be followed"),
        }
    }
    scheduled
}
