//! The one place that builds real adapters, spawns tasks and joins them: if a task that must live ends, the process ends.

mod auto;
mod contact;
mod doctor;
mod donor;
mod images;
mod plan;
mod pool_of;
mod remains;
mod remote;
mod rescue;
mod restore;
mod serve;
mod status;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use tokio::{
    net::UnixListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::timeout,
};
use tracing::{info, warn};

use crate::{
    clock::{Clock, SystemClock},
    cloud::{Limiter, azure::AzureCloud},
    cluster::{
        Cluster,
        kubernetes::{ConnectError, KubernetesCluster},
    },
    config::{Config, ConfigError, Pool},
    doctor::Groups,
    http,
    model::{Capture, DonorChoice, NodeName, RunId},
    permissions::Uses,
    policy::ranking::Rules,
    store::{Holder, Journal, Place as StorePlace, StoreError, StoreGuard, open_dir, read_dir},
    workflow::{Authority, Driver, Engine, Observer, Parts, RunSpec, Summary},
};

pub use auto::auto;
pub use contact::{Contact, first_contact};
pub use doctor::doctor;
pub use donor::{bound_token, leave_proof, may_bootstrap};
pub use images::{ImageView, Images, NoSuchImage, images, pin, prune};
pub use plan::{Plan, plan};
pub use remains::remains;
pub use remote::{Ran, Whereabouts, in_the_pod};
pub use rescue::{Rescues, Wish, rescue, rescues};
pub use restore::{NotNow, Restoring, restore};
pub use serve::serve;
pub use status::{ImageCount, PoolStatus, Status, status};

/// This release.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// Settings without which nothing can be sent.
#[derive(Debug, thiserror::Error)]
#[error(
    "no Azure credential is set: run with workload identity (AZURE_FEDERATED_TOKEN_FILE), or set azure.credential to \
     managed-identity, azure-cli, azure-json, or client-secret with azure.secretFile or KAMINO_AZURE_CLIENT_SECRET"
)]
pub struct NoCredential;

/// A kubeconfig, or a pod's token, that can't be used: a setting, whoever reads it.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct UnusableAccess(ConnectError);

/// A node that this cluster does not have.
#[derive(Debug, thiserror::Error)]
#[error("there is no node {0} in this cluster; `kubectl get nodes` shows those there are")]
pub struct NoSuchNode(NodeName);

/// The store, opened by this process, and its control socket.
#[derive(Debug)]
pub struct OpenStore {
    /// The way to the committer.
    pub journal: Journal,
    guard: StoreGuard,
    /// Until somebody answers on it.
    listener: Option<UnixListener>,
    socket: PathBuf,
    signals: Signals,
}

/// Opens the store and its control socket. Within a runtime.
pub fn open_store(place: &StorePlace) -> Result<OpenStore> {
    let dir = place.dir.as_path();
    // From here on a signal is an orderly end, also if it comes before there is anything to drive.
    let signals = Signals::listen().context("failed to listen for signals")?;
    let socket = http::socket_path(dir);
    let holder = Holder {
        pid: std::process::id(),
        since: SystemClock.now(),
        socket: Some(socket.clone()),
        release: RELEASE.to_owned(),
    };
    let (journal, guard) = open_dir(place.clone(), &holder)?;
    // Ours by the store's lock: whatever lies there was left behind by a killed process.
    match std::fs::remove_file(&socket) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("failed to replace the socket {}", socket.display())),
    }
    let listener = UnixListener::bind(&socket).with_context(|| {
        format!(
            "failed to listen on {}: sockets have at most 107 bytes of path, choose a shorter --store",
            socket.display()
        )
    })?;
    let only_us = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&socket, only_us).with_context(|| format!("failed to protect {}", socket.display()))?;
    Ok(OpenStore { journal, guard, listener: Some(listener), socket, signals })
}

/// Where the store is, by the settings.
#[must_use]
pub fn place(config: &Config) -> StorePlace {
    StorePlace { dir: config.store.clone(), fuse: config.store_on_fuse }
}

/// Who holds a store for the time of a command.
#[must_use]
pub fn briefly() -> Holder {
    Holder { pid: std::process::id(), since: SystemClock.now(), socket: None, release: RELEASE.to_owned() }
}

/// The journal of a store that nobody holds, for reading: of a copy, so that the store stays as it is.
pub fn read_store(place: &StorePlace) -> Result<(Journal, StoreGuard), StoreError> {
    match read_dir(place.clone(), &briefly()) {
        // Without room for a copy anywhere the store itself may open all the same.
        Err(StoreError::Full) => open_dir(place.clone(), &briefly()),
        read => read,
    }
}

/// The real cluster.
pub async fn cluster(config: &Config) -> Result<KubernetesCluster> {
    match KubernetesCluster::connect(&config.kubernetes).await {
        Ok(cluster) => Ok(cluster),
        Err(error @ (ConnectError::Kubeconfig { .. } | ConnectError::InCluster { .. })) => {
            Err(UnusableAccess(error).into())
        }
        Err(error @ ConnectError::Client { .. }) => Err(error.into()),
    }
}

/// The way to Azure, and what it is held back by.
#[derive(Debug)]
struct Reach {
    cloud: AzureCloud,
    limiter: Arc<Limiter>,
}

impl Reach {
    fn azure(config: &Config) -> Result<Self> {
        let settings = config.azure.clone().ok_or(NoCredential)?;
        let limiter = Arc::new(Limiter::default());
        let cloud = AzureCloud::new(&settings, Arc::clone(&limiter), Arc::new(SystemClock))?;
        Ok(Self { cloud, limiter })
    }
}

/// The engine of a command, over the real adapters. It takes no Lease: the store's lock and the daemon's Lease are two things.
pub async fn engine_of_command(
    config: &Config,
    cluster: KubernetesCluster,
    journal: Journal,
    observer: Observer,
) -> Result<Arc<Engine>> {
    let authority = Arc::new(Authority::unlimited(journal.seen_fence().await?));
    engine(config, Reach::azure(config)?, Arc::new(cluster), authority, journal, observer).await
}

/// The engine over the real adapters.
async fn engine(
    config: &Config,
    reach: Reach,
    cluster: Arc<dyn Cluster>,
    authority: Arc<Authority>,
    journal: Journal,
    observer: Observer,
) -> Result<Arc<Engine>> {
    let Reach { cloud, limiter } = reach;
    let parts = Parts {
        cloud: Arc::new(cloud),
        cluster,
        clock: Arc::new(SystemClock),
        journal,
        limiter,
        authority,
        pace: config.pace,
        runs_at_once: config.serve.runs_at_once,
        release: RELEASE.to_owned(),
        observer,
    };
    Ok(Arc::new(Engine::open(parts).await?))
}

/// What settings alone tell of a start, before anything is opened or sent.
pub fn ready(config: &Config, pool: Option<&str>) -> Result<()> {
    pool.map(|name| config.pool(name)).transpose()?;
    clean_image(config)?;
    config.azure.as_ref().map(|_| ()).ok_or(NoCredential)?;
    Ok(())
}

fn clean_image(config: &Config) -> Result<String, ConfigError> {
    config.clean_image.clone().ok_or_else(|| ConfigError::Bad {
        setting: "cleaning.image".into(),
        value: "not set".into(),
        remedy: "name the image of the pod that cleans the copy: kamino-wf's own".into(),
    })
}

/// What a run is asked to do, from settings and what the person said.
pub async fn spec(
    config: &Config,
    cluster: &KubernetesCluster,
    pool: Option<&str>,
    node: Option<NodeName>,
    adopt: bool,
) -> Result<RunSpec> {
    let (pool, donor) = match (pool, node) {
        (Some(pool), None) => (config.pool(pool)?, DonorChoice::Pool),
        (pool, Some(node)) => {
            let found = pool_of::pool_of(config, cluster, &node).await?;
            if pool.is_some_and(|name| name != found.name) {
                let remedy = format!("node {node} belongs to pool {}, not to {}", found.name, pool.unwrap_or_default());
                return Err(bad_node(&node, remedy).into());
            }
            (found, DonorChoice::Node(node))
        }
        (None, None) => bail!("say which: --pool NAME or --node NAME"),
    };
    let id = cluster.cluster_id().await.context(
        "failed to ask which cluster this is: check kubernetes.kubeconfig and kubernetes.context, and that the API server answers",
    )?;
    pool_spec(config, pool, donor, adopt || pool.adopt, id)
}

/// What a run of a pool is asked to do.
fn pool_spec(config: &Config, pool: &Pool, donor: DonorChoice, adopt: bool, cluster: String) -> Result<RunSpec> {
    let clean_image = clean_image(config)?;
    Ok(RunSpec {
        scale_set: pool.scale_set.clone(),
        donor,
        capture: pool.capture,
        profile: pool.profile.clone(),
        gallery: pool.gallery.clone(),
        definition: pool.definition.clone(),
        regions: pool.regions.clone(),
        replicas: pool.replicas,
        replicas_in: pool.replicas_in.clone(),
        storage: pool.storage.clone(),
        incremental: pool.incremental,
        scale_out: pool.scale_out,
        adopt,
        approve: pool.approve.clone(),
        min_ready_seconds: pool.min_ready.as_secs(),
        ranking: Rules { own_node: own_node(config), ..pool.ranking.clone() },
        keep_versions: pool.keep,
        keep_seconds: pool.keep_for.as_secs(),
        clean_namespace: config.clean_namespace.clone(),
        clean_image,
        attach: config.attach.clone(),
        credential: pool.credential,
        unavailable_max: match pool.capture {
            // Nothing of it is asked, and an older release can read the run.
            Capture::Live => 0,
            Capture::Stop => config.max_unavailable,
        },
        cluster,
        drain: pool.drain.clone(),
        canary: pool.canary,
    })
}

/// What a pool uses besides what every one does.
fn uses(config: &Config, pool: &Pool) -> Uses {
    let stop = pool.capture == Capture::Stop;
    Uses {
        stop,
        forced_drain: pool.drain.force.is_some(),
        rebootstrap: !pool.credential.is_keep(),
        attach: !stop && !config.attach.is_csi(),
    }
}

/// The resource groups of some pools, and what those in each use.
fn groups<'a>(config: &Config, pools: impl Iterator<Item = &'a Pool>) -> Groups {
    let mut groups = Groups::new();
    for pool in pools {
        let of_group = groups.entry(pool.scale_set.group()).or_default();
        *of_group = of_group.and(uses(config, pool));
    }
    groups
}

/// The node that this process runs on, as far as it was told.
fn own_node(config: &Config) -> Option<NodeName> {
    config.place.node.as_deref().and_then(|name| NodeName::parse(name).ok())
}

fn bad_node(node: &NodeName, remedy: String) -> ConfigError {
    ConfigError::Bad { setting: "--node".into(), value: node.to_string(), remedy }
}

/// For connections to the control socket to end.
const CLOSING: Duration = Duration::from_secs(2);

/// Why driving came to its end.
#[derive(Debug)]
pub enum Drove {
    /// No run moves by itself any more.
    ToRest,
    /// A signal, by its number.
    Signal(i32),
}

/// Drives all open runs until the given one is at rest, and answers on the control socket meanwhile. Says how it is then.
pub async fn drive(engine: Arc<Engine>, store: OpenStore, id: RunId) -> Result<(Drove, Summary)> {
    let OpenStore { journal, guard, listener, socket, mut signals } = store;
    let listener = listener.context("the control socket is taken already")?;
    let (stop, stopping) = watch::channel(false);
    let mut serving = Box::pin(http::serve(listener, Arc::clone(&engine), stopping));
    let drove = {
        let driving = Driver::new(engine).run_to_rest_of(id);
        tokio::pin!(driving);
        tokio::select! {
            biased;
            ended = guard.ended() => {
                ended.context("the store has ended")?;
                bail!("the store has ended");
            }
            signal = signals.next() => {
                info!(signal, "asked to stop; every run goes on where it was");
                Drove::Signal(signal)
            }
            rest = &mut driving => {
                rest?;
                Drove::ToRest
            }
            end = &mut serving => {
                end.context("the control socket failed")?;
                bail!("the control socket has stopped");
            }
        }
    };
    // Whoever follows a run is told its end, or that it has to come again.
    stop.send_replace(true);
    served(serving).await;
    let summaries = crate::workflow::summaries(&journal).await?;
    let summary = summaries.into_iter().find(|summary| summary.id == id);
    close(OpenStore { journal, guard, listener: None, socket, signals }).await?;
    Ok((drove, summary.with_context(|| format!("run {id} is not in the store"))?))
}

/// After a server was told to stop: whoever is connected is answered, unless they do not read.
async fn served(serving: impl Future<Output = std::io::Result<()>>) {
    match timeout(CLOSING, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, "the control socket failed at the end"),
        Err(_) => warn!("the control socket was not closed in order: somebody does not read"),
    }
}

/// Closes the store in order.
async fn close(store: OpenStore) -> Result<()> {
    let OpenStore { journal, guard, listener: _, socket, signals: _ } = store;
    drop(journal);
    let _ = std::fs::remove_file(&socket);
    // A connection that is still open holds the journal; the end of the process is as good as an orderly close.
    match timeout(CLOSING, guard.ended()).await {
        Ok(Ok(())) => guard.close()?,
        Ok(Err(error)) => return Err(error.into()),
        Err(_) => warn!("the store was not closed in order: somebody is still connected"),
    }
    Ok(())
}

/// What asks the process to stop.
#[derive(Debug)]
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Returns when the process is asked to stop, with the signal's number.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    const SETTINGS: &str = "
maxUnavailable: 3
cleaning: { image: registry.example/kamino-wf }
pools:
- name: pool1
  scaleSet: /subscriptions/5d3a6f0c-7e1b-4c55-9a52-0f6f4a1f2b77/resourceGroups/k8s/providers/Microsoft.Compute/virtualMachineScaleSets/pool1
  profile: kubeadm
  gallery: /subscriptions/5d3a6f0c-7e1b-4c55-9a52-0f6f4a1f2b77/resourceGroups/k8s/providers/Microsoft.Compute/galleries/protos
";

    #[test]
    fn how_many_nodes_may_be_away_is_said_to_runs_that_take_one() {
        let folder = tempfile::tempdir().expect("a folder");
        for (said, text) in [(3, SETTINGS.to_owned()), (1, SETTINGS.replace("maxUnavailable: 3\n", ""))] {
            let path = folder.path().join(said.to_string());
            std::fs::write(&path, text).expect("a file");
            let config = Config::load(Overrides { config: Some(path), ..Overrides::default() }, &|_| None);
            let config = config.expect("good settings");
            for (capture, expected) in [(Capture::Live, 0), (Capture::Stop, said)] {
                let pool = Pool { capture, ..config.pools[0].clone() };
                let spec = pool_spec(&config, &pool, DonorChoice::Pool, false, "c".into()).expect("a spec");
                assert_eq!(spec.unavailable_max, expected, "{capture:?}");
            }
        }
    }

    #[test]
    fn what_can_be_read_in_an_image_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let pool = |pool: &str| {
            let path = folder.path().join("config.yaml");
            std::fs::write(&path, SETTINGS.replace("  profile: kubeadm\n", pool)).expect("a file");
            let config = Config::load(Overrides { config: Some(path), ..Overrides::default() }, &|_| None);
            status::holds(&config.expect("good settings").pools[0]).unwrap_or_default()
        };
        assert_eq!(pool("  profile: kubeadm\n"), "");
        assert!(pool("  profile: kubeadm\n  capture: stop\n").contains("its kubelet's credential, until a copy boots"));
        let renewed = pool("  profile: kubeadm\n  capture: stop\n  credential: rebootstrap\n");
        assert_eq!(renewed, "the donor's ssh host keys, until a copy boots");
        assert!(pool("  profile: aks-engine\n").contains("azure.json"));
    }
}
