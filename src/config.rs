//! Settings: a YAML file, `KAMINO_*` variables, flags; later ones win. Parsed, checked and explained once.

mod azure;
mod canary;
mod drain;
mod effective;
mod history;
mod image;
mod node_file;
mod ranking;
mod schedules;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{Span, SpanRelativeTo};
use serde::Deserialize;

use crate::{
    clean::custom,
    cloud::azure::AzureSettings,
    cluster::kubernetes::Access,
    model::{Attach, Capture, Credential, GalleryId, Profile, Region, ScaleSetId},
    policy::{canary::Canary, drain::DrainPolicy, gates::Gate, history::History, ranking::Rules, schedule::Schedule},
    workflow::Pace,
};

pub use effective::{Setting, Source, effective};

/// Settings that can't be used; each text names the setting, its value and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is missing or can't be read.
    #[error("failed to read settings from {}: {detail}; name another with --config or KAMINO_CONFIG", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        detail: String,
    },
    /// The file is no YAML of ours.
    #[error("settings in {} can't be used:\n{detail}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The parser's words, with the place.
        detail: String,
    },
    /// A value that makes no sense.
    #[error("setting {setting} is {value}: {remedy}")]
    Bad {
        /// The setting, as in `pools[0].keep`.
        setting: String,
        /// What it says.
        value: String,
        /// What to do.
        remedy: String,
    },
    /// No pool has that name.
    #[error("--pool {given:?}: there is no such pool in the settings: {remedy}")]
    NoSuchPool {
        /// The name.
        given: String,
        /// What to do.
        remedy: String,
    },
    /// A variable that looks like ours and is not.
    #[error("environment variable {0} is not one of kamino-wf's; it has {known}", known = VARIABLES.join(", "))]
    UnknownVariable(String),
}

/// The variables that are read. Azure's own, which the workload identity webhook sets, are read besides.
pub const VARIABLES: [&str; 10] = [
    "KAMINO_CONFIG",
    "KAMINO_STORE",
    "KAMINO_KUBECONFIG",
    "KAMINO_CONTEXT",
    "KAMINO_AZURE_CLIENT_SECRET",
    "KAMINO_LOG",
    "KAMINO_LOG_FORMAT",
    "KAMINO_NAMESPACE",
    "KAMINO_POD",
    "KAMINO_NODE",
];

/// The settings as they stand in the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct File {
    store: Option<PathBuf>,
    #[serde(default)]
    store_on_fuse: bool,
    max_unavailable: Option<usize>,
    #[serde(default)]
    azure: azure::AzureFile,
    #[serde(default)]
    kubernetes: KubernetesFile,
    #[serde(default)]
    polling: PollingFile,
    #[serde(default)]
    cleaning: CleaningFile,
    #[serde(default)]
    serve: ServeFile,
    #[serde(default)]
    history: history::HistoryFile,
    #[serde(default)]
    pools: Vec<PoolFile>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct KubernetesFile {
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
    lease: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ServeFile {
    listen: Option<String>,
    runs_at_once: Option<usize>,
    sweep_every: Option<String>,
    sweep_unknown_after: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PollingFile {
    first: Option<String>,
    longest: Option<String>,
    settle: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CleaningFile {
    namespace: Option<String>,
    image: Option<String>,
    #[serde(default)]
    attach: AttachFile,
    lun_path: Option<String>,
}

/// `cleaning.attach`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum AttachFile {
    #[default]
    Csi,
    Instance,
}

/// Where the Azure agent's rules for udev put the links.
const LUN_PATH: &str = "/dev/disk/azure/scsi1/lun{lun}";

fn checked_attach(attach: AttachFile, path: Option<String>) -> Result<Attach, ConfigError> {
    let said = |path: &str, remedy: &str| Err(bad("cleaning.lunPath", path, remedy));
    match (attach, path) {
        (AttachFile::Csi, None) => Ok(Attach::Csi),
        (AttachFile::Csi, Some(path)) => said(&path, "it is for cleaning.attach: instance"),
        (AttachFile::Instance, path) => {
            let path = path.unwrap_or_else(|| LUN_PATH.into());
            let plain = path
                .replace("{lun}", "")
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.'));
            let once = path.matches("{lun}").count() == 1;
            if !path.starts_with("/dev/disk/") || !plain || !once || path.contains("..") {
                return said(
                    &path,
                    "expected a path below /dev/disk/ with {lun} for the number, as in /dev/disk/azure/data/by-lun/{lun}",
                );
            }
            Ok(Attach::Instance { path })
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PoolFile {
    name: String,
    scale_set: String,
    profile: String,
    capture: Option<Capture>,
    #[serde(default)]
    credential: Credential,
    gallery: String,
    definition: Option<String>,
    #[serde(default)]
    regions: Vec<String>,
    replicas: Option<u32>,
    #[serde(default)]
    region_replicas: BTreeMap<String, u32>,
    storage: Option<String>,
    #[serde(default)]
    snapshot: image::SnapshotKind,
    #[serde(default)]
    scale_out: u32,
    min_ready: Option<String>,
    #[serde(default)]
    ranking: ranking::RankingFile,
    keep: Option<u32>,
    keep_for: Option<String>,
    #[serde(default)]
    adopt: bool,
    #[serde(default)]
    approve: Vec<Gate>,
    schedule: Option<schedules::ScheduleFile>,
    #[serde(default)]
    windows: Vec<schedules::WindowFile>,
    #[serde(default)]
    drain: drain::DrainFile,
    #[serde(default)]
    canary: canary::CanaryFile,
}

/// A pool whose image is kept fresh.
#[derive(Debug, Clone)]
pub struct Pool {
    /// What people call it.
    pub name: String,
    /// Its scale set.
    pub scale_set: ScaleSetId,
    /// Which kind of node it has.
    pub profile: Profile,
    /// How the donor's disk is captured; `live` by default.
    pub capture: Capture,
    /// What becomes of the kubelet's own credential with `capture: stop`; it is kept by default.
    pub credential: Credential,
    /// Where its versions go.
    pub gallery: GalleryId,
    /// The image definition's name; the pool's own by default.
    pub definition: String,
    /// Target regions besides the gallery's own.
    pub regions: Vec<Region>,
    /// Copies of a version in each region; 1 by default.
    pub replicas: u32,
    /// Copies in regions that have another number of them, by the region's key.
    pub replicas_in: BTreeMap<String, u32>,
    /// `Standard_LRS` by default.
    pub storage: String,
    /// The snapshot is incremental; a full one by default.
    pub incremental: bool,
    /// By how many instances the scale set grows after an update; none by default.
    pub scale_out: u32,
    /// How long a donor must have been ready; an hour by default, so that a node that comes up badly shows it first.
    pub min_ready: Duration,
    /// How the donor is chosen.
    pub ranking: Rules,
    /// How many published versions stay; 3 by default, at least 2.
    pub keep: u32,
    /// Versions younger than this stay; a day by default.
    pub keep_for: Duration,
    /// Runs may change a scale set's model in a way that can't be taken back, on the first run for it.
    pub adopt: bool,
    /// Where a run waits for a person; nowhere by default. With `adopt` among it that change is allowed once a person has.
    pub approve: Vec<Gate>,
    /// When runs begin by themselves; never by default.
    pub schedule: Option<Schedule>,
    /// What may be done to the pods of a donor that is taken out of service.
    pub drain: DrainPolicy,
    /// Whether the first node that is made from a new version is watched; nobody watches by default.
    pub canary: Canary,
}

/// How the daemon serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serve {
    /// Where health and metrics are; `0.0.0.0:8080` by default.
    pub listen: SocketAddr,
    /// Runs that are beyond choosing at a time; 2 by default, so that a fault of ours or of Azure's does not meet every pool.
    pub runs_at_once: usize,
    /// Between two looks for leftovers; an hour by default, `None` for never.
    pub sweep_every: Option<Duration>,
    /// Leftovers of runs that this store does not know are left alone for so long; 7 days by default.
    pub sweep_unknown_after: Duration,
}

/// Where this process runs, as far as it was told (the downward API).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The pod's namespace: with it, the Lease is used.
    pub namespace: Option<String>,
    /// The pod's name.
    pub pod: Option<String>,
    /// The node's name.
    pub node: Option<String>,
}

/// All settings, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The store's directory.
    pub store: PathBuf,
    /// A file system in user space is as good as a disk for it; false by default, since most of them are not.
    pub store_on_fuse: bool,
    /// Where Azure is and who we are there; `None` when no credential is set, which commands that need none don't mind.
    pub azure: Option<AzureSettings>,
    /// How to reach the API server.
    pub kubernetes: Access,
    /// How often the world is looked at.
    pub pace: Pace,
    /// The namespace of cleaning pods.
    pub clean_namespace: String,
    /// The image of cleaning pods.
    pub clean_image: Option<String>,
    /// How a copy comes to its cleaning pod.
    pub attach: Attach,
    /// How the daemon serves.
    pub serve: Serve,
    /// How long finished runs are kept.
    pub history: History,
    /// How many nodes of the cluster may be out of service at a time, with `capture: stop`; 1 by default.
    pub max_unavailable: usize,
    /// The Lease's name, in the own namespace.
    pub lease: String,
    /// Where this process runs.
    pub place: Place,
    /// The pools.
    pub pools: Vec<Pool>,
}

/// What flags and variables say.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--config`, `KAMINO_CONFIG`.
    pub config: Option<PathBuf>,
    /// `--store`, `KAMINO_STORE`.
    pub store: Option<PathBuf>,
    /// `--kubeconfig`, `KAMINO_KUBECONFIG`.
    pub kubeconfig: Option<PathBuf>,
    /// `--context`, `KAMINO_CONTEXT`.
    pub context: Option<String>,
}

/// Looked for when no file is named.
const DEFAULT_FILE: &str = "/etc/kamino-wf/config.yaml";
/// The store when none is named.
const DEFAULT_STORE: &str = "/var/lib/kamino-wf";

/// The environment, as far as settings read it.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Config {
    /// Reads all settings.
    ///
    /// # Errors
    /// The first setting that can't be used, with the remedy. Nothing was opened or sent.
    pub fn load(overrides: Overrides, env: Environment<'_>) -> Result<Self, ConfigError> {
        let Overrides { config, store, kubeconfig, context } = overrides;
        let named = config.is_some();
        let path = config.unwrap_or_else(|| DEFAULT_FILE.into());
        let beside = path.parent().map(Path::to_owned).unwrap_or_default();
        let file = match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&path, &text)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => Self::parse(&path, "{}")?,
            Err(error) => return Err(ConfigError::Unreadable { path, detail: error.to_string() }),
        };
        let File {
            store: file_store,
            store_on_fuse,
            max_unavailable,
            azure,
            kubernetes,
            polling,
            cleaning,
            serve,
            history,
            pools,
        } = file;
        let CleaningFile { namespace, image, attach, lun_path } = cleaning;
        let KubernetesFile { kubeconfig: file_kubeconfig, context: file_context, lease } = kubernetes;
        let path = kubeconfig.or(file_kubeconfig);
        let context = context.or(file_context);
        let in_pod = env("KUBERNETES_SERVICE_HOST").is_some();
        let said = |name: &str| env(name).filter(|value| !value.is_empty());
        Ok(Self {
            store: store.or(file_store).unwrap_or_else(|| DEFAULT_STORE.into()),
            store_on_fuse,
            azure: azure::settings(azure, env)?,
            kubernetes: if path.is_none() && context.is_none() && in_pod {
                Access::InCluster
            } else {
                Access::Kubeconfig { path, context }
            },
            pace: pace(&polling)?,
            clean_namespace: namespace.unwrap_or_else(|| "kamino-wf-clean".into()),
            clean_image: image,
            attach: checked_attach(attach, lun_path)?,
            serve: checked_serve(serve)?,
            history: history::checked(history)?,
            max_unavailable: checked_unavailable(max_unavailable)?,
            lease: lease.unwrap_or_else(|| "kamino-wf".into()),
            place: Place { namespace: said("KAMINO_NAMESPACE"), pod: said("KAMINO_POD"), node: said("KAMINO_NODE") },
            pools: checked_pools(pools, &beside)?,
        })
    }

    fn parse(path: &Path, text: &str) -> Result<File, ConfigError> {
        serde_saphyr::from_str(text)
            .map_err(|error| ConfigError::Malformed { path: path.to_owned(), detail: error.to_string() })
    }

    /// The pool of that name.
    pub fn pool(&self, name: &str) -> Result<&Pool, ConfigError> {
        self.pools.iter().find(|pool| pool.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.pools.iter().map(|pool| pool.name.as_str()).collect();
            let remedy = if known.is_empty() {
                "no pool is configured; add one under pools".into()
            } else {
                format!("expected one of {}", known.join(", "))
            };
            ConfigError::NoSuchPool { given: name.to_owned(), remedy }
        })
    }
}

/// Refuses variables that look like ours: a typo would silently change nothing.
pub fn check_variables(names: impl Iterator<Item = String>) -> Result<(), ConfigError> {
    for name in names {
        if name.starts_with("KAMINO_") && !VARIABLES.contains(&name.as_str()) {
            return Err(ConfigError::UnknownVariable(name));
        }
    }
    Ok(())
}

fn bad(setting: impl Into<String>, value: impl std::fmt::Debug, remedy: impl Into<String>) -> ConfigError {
    ConfigError::Bad { setting: setting.into(), value: format!("{value:?}"), remedy: remedy.into() }
}

fn unset(setting: &str, variable: &str) -> ConfigError {
    let remedy = format!("set it, or the variable {variable}");
    ConfigError::Bad { setting: setting.into(), value: "not set".into(), remedy }
}

/// A duration such as `1h 30m`, between a second and thirty days.
fn duration(setting: &str, text: Option<&String>, default: Duration, least: Duration) -> Result<Duration, ConfigError> {
    let Some(text) = text else { return Ok(default) };
    let most = Duration::from_hours(30 * 24);
    let parsed = text
        .parse::<Span>()
        .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
        .ok()
        .and_then(|span| Duration::try_from(span).ok());
    parsed.filter(|span| (least..=most).contains(span)).ok_or_else(|| {
        bad(setting, text, format!("expected a duration from {least:?} to 30 days, as in 90s, 5m, 1h 30m or 14d"))
    })
}

fn pace(file: &PollingFile) -> Result<Pace, ConfigError> {
    let default = Pace::default();
    let least = Duration::from_millis(1);
    let pace = Pace {
        first: duration("polling.first", file.first.as_ref(), default.first, least)?,
        longest: duration("polling.longest", file.longest.as_ref(), default.longest, least)?,
        settle: duration("polling.settle", file.settle.as_ref(), default.settle, Duration::ZERO)?,
    };
    if pace.first > pace.longest {
        return Err(bad("polling.first", file.first.as_ref(), "expected at most polling.longest"));
    }
    Ok(pace)
}

fn checked_unavailable(said: Option<usize>) -> Result<usize, ConfigError> {
    let most = said.unwrap_or(1);
    if (1..=100).contains(&most) { Ok(most) } else { Err(bad("maxUnavailable", most, "expected 1 to 100")) }
}

fn checked_serve(file: ServeFile) -> Result<Serve, ConfigError> {
    let ServeFile { listen, runs_at_once, sweep_every, sweep_unknown_after } = file;
    let listen = listen.unwrap_or_else(|| "0.0.0.0:8080".into());
    let runs_at_once = runs_at_once.unwrap_or(2);
    if !(1..=100).contains(&runs_at_once) {
        return Err(bad("serve.runsAtOnce", runs_at_once, "expected 1 to 100"));
    }
    let hour = Duration::from_hours(1);
    let sweep_every = duration("serve.sweepEvery", sweep_every.as_ref(), hour, Duration::ZERO)?;
    let week = Duration::from_hours(7 * 24);
    Ok(Serve {
        listen: listen.parse().map_err(|_| {
            bad("serve.listen", &listen, "expected an address and a port, as in 0.0.0.0:8080 or [::]:8080")
        })?,
        runs_at_once,
        sweep_every: Some(sweep_every).filter(|pause| !pause.is_zero()),
        sweep_unknown_after: duration("serve.sweepUnknownAfter", sweep_unknown_after.as_ref(), week, hour)?,
    })
}

/// A name, or a file of the operator's own: a relative path is beside the settings.
fn checked_profile(at: &dyn Fn(&str) -> String, text: &str, beside: &Path) -> Result<Profile, ConfigError> {
    let said = |error: &dyn std::fmt::Display| bad(at("profile"), text, error.to_string());
    if custom::is_file(text) {
        custom::read(&beside.join(text)).map_err(|error| said(&error))
    } else {
        text.parse().map_err(|error| said(&error))
    }
}

fn checked_pools(files: Vec<PoolFile>, beside: &Path) -> Result<Vec<Pool>, ConfigError> {
    let mut pools: Vec<Pool> = Vec::new();
    for (index, file) in files.into_iter().enumerate() {
        let PoolFile {
            name,
            scale_set,
            profile,
            capture,
            credential,
            gallery,
            definition,
            regions,
            replicas,
            region_replicas,
            storage,
            snapshot,
            scale_out,
            min_ready,
            ranking,
            keep,
            keep_for,
            adopt,
            approve,
            schedule,
            windows,
            drain,
            canary,
        } = file;
        let at = |field: &str| format!("pools[{index}].{field}");
        let said = |field: &str, value: &str, error: &dyn std::fmt::Display| bad(at(field), value, error.to_string());
        if name.is_empty() || pools.iter().any(|pool| pool.name == name) {
            return Err(bad(at("name"), &name, "expected a name that no other pool has"));
        }
        let scale_set: ScaleSetId = scale_set.parse().map_err(|error| said("scaleSet", &scale_set, &error))?;
        if pools.iter().any(|pool| pool.scale_set == scale_set) {
            return Err(bad(at("scaleSet"), scale_set.as_str(), "another pool has the same scale set"));
        }
        let gallery: GalleryId = gallery.parse().map_err(|error| said("gallery", &gallery, &error))?;
        let definition = definition.unwrap_or_else(|| name.clone());
        gallery.definition(&definition).map_err(|error| said("definition", &definition, &error))?;
        let replicas = replicas.unwrap_or(1);
        if !(1..=100).contains(&replicas) {
            return Err(bad(at("replicas"), replicas, "expected 1 to 100"));
        }
        let storage = storage.unwrap_or_else(|| "Standard_LRS".into());
        if !["Standard_LRS", "Standard_ZRS", "Premium_LRS"].contains(&storage.as_str()) {
            return Err(bad(at("storage"), storage, "expected Standard_LRS, Standard_ZRS or Premium_LRS"));
        }
        let keep = keep.unwrap_or(3);
        if !(2..=1000).contains(&keep) {
            return Err(bad(at("keep"), keep, "expected 2 to 1000: the newest, and one to go back to"));
        }
        let profile = checked_profile(&at, &profile, beside)?;
        let capture = capture.unwrap_or(Capture::Live);
        if credential == Credential::Rebootstrap && (capture, &profile) != (Capture::Stop, &Profile::Kubeadm) {
            let remedy = "it is for capture: stop with profile: kubeadm, whose nodes have a credential of their own";
            return Err(bad(at("credential"), "rebootstrap", remedy));
        }
        pools.push(Pool {
            capture,
            credential,
            profile,
            name,
            scale_set,
            gallery,
            definition,
            regions: regions.into_iter().map(Region).collect(),
            replicas,
            replicas_in: image::replicas(&at, region_replicas)?,
            storage,
            incremental: snapshot == image::SnapshotKind::Incremental,
            scale_out: image::scale_out(&at, scale_out)?,
            min_ready: duration(&at("minReady"), min_ready.as_ref(), Duration::from_hours(1), Duration::ZERO)?,
            ranking: ranking::checked(&at("ranking"), ranking)?,
            keep,
            keep_for: duration(&at("keepFor"), keep_for.as_ref(), Duration::from_hours(24), Duration::ZERO)?,
            adopt: adopt || approve.contains(&Gate::Adopt),
            approve,
            schedule: schedules::checked(&at, schedule, windows)?,
            drain: drain::checked(&at, drain)?,
            canary: canary::checked(&at, canary)?,
        });
    }
    Ok(pools)
}

#[cfg(test)]
#[path = "config/azure_tests.rs"]
mod azure_tests;

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: &str = "
pools:
- name: pool1
  scaleSet: /subscriptions/5d3a6f0c-7e1b-4c55-9a52-0f6f4a1f2b77/resourceGroups/k8s/providers/Microsoft.Compute/virtualMachineScaleSets/pool1
  profile: kubeadm
  gallery: /subscriptions/5d3a6f0c-7e1b-4c55-9a52-0f6f4a1f2b77/resourceGroups/k8s/providers/Microsoft.Compute/galleries/protos
";

    fn load(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("config.yaml");
        std::fs::write(&path, text).expect("a file");
        Config::load(Overrides { config: Some(path), ..Overrides::default() }, &|_| None)
    }

    #[test]
    fn a_short_file_is_enough() {
        let config = load(POOL).expect("good settings");
        let pool = config.pool("pool1").expect("the pool");
        assert_eq!((pool.definition.as_str(), pool.keep, pool.replicas), ("pool1", 3, 1));
        assert!(config.azure.is_none());
        assert!(!pool.adopt && pool.approve.is_empty());
    }

    #[test]
    fn a_profile_of_ones_own_is_a_file_beside_the_settings() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("config.yaml");
        std::fs::write(&path, POOL.replace("kubeadm", "k3s.yaml")).expect("a file");
        std::fs::write(dir.path().join("k3s.yaml"), include_str!("../docs/examples/profile-k3s.yaml")).expect("a file");
        let config = Config::load(Overrides { config: Some(path), ..Overrides::default() }, &|_| None);
        assert_eq!(config.expect("good settings").pool("pool1").expect("the pool").profile.name(), "k3s");
    }

    #[test]
    fn a_pool_whose_adoption_is_approved_may_be_adopted() {
        let config = load(&format!("{POOL}  approve: [switch, adopt]\n")).expect("good settings");
        let pool = config.pool("pool1").expect("the pool");
        assert!(pool.adopt);
        assert_eq!(pool.approve, [Gate::Switch, Gate::Adopt]);
    }

    #[test]
    fn the_example_in_the_documents_is_a_good_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("config.yaml");
        std::fs::write(&path, include_str!("../docs/examples/config.yaml")).expect("a file");
        let webhook = |name: &str| name.starts_with("AZURE_").then(|| "as the webhook says".to_owned());
        let overrides = Overrides { config: Some(path), ..Overrides::default() };
        let config = Config::load(overrides, &webhook).expect("good settings");
        assert_eq!(config.pool("pool1").expect("the pool").keep_for, Duration::from_hours(14 * 24));
    }

    #[test]
    fn bad_settings_are_named_with_their_value_and_the_remedy() {
        let cases = [
            ("pols: []", "pols"),
            ("cleaning: { attach: hand }", "hand"),
            ("cleaning: { lunPath: /dev/disk/x }", "cleaning.lunPath is \"/dev/disk/x\": it is for"),
            ("cleaning: { attach: instance, lunPath: /dev/sdc }", "expected a path below /dev/disk/"),
            ("polling: { first: soon }", "polling.first is \"soon\": expected a duration"),
            ("polling: { first: 2m, longest: 1m }", "at most polling.longest"),
            ("azure: { credential: workload-identity }", "azure.tenant"),
            ("azure: { credential: password }", "password"),
            (&POOL.replace("kubeadm", "talos"), "pools[0].profile is \"talos\""),
            (&POOL.replace("kubeadm", "none.yaml"), "pools[0].profile is \"none.yaml\": "),
            (&POOL.replace("profile: kubeadm", "profile: kubeadm\n  capture: both"), "unknown variant `both`"),
            (
                &POOL.replace("profile: kubeadm", "profile: kubeadm\n  credential: rebootstrap"),
                "it is for capture: stop with",
            ),
            (
                &POOL.replace("profile: kubeadm", "profile: aks-engine\n  capture: stop\n  credential: rebootstrap"),
                "pools[0].credential",
            ),
            (&POOL.replace("virtualMachineScaleSets", "disks"), "pools[0].scaleSet"),
            (&format!("{POOL}  keep: 1\n"), "pools[0].keep is 1: expected 2 to 1000"),
            (&format!("{POOL}  storage: Fast\n"), "pools[0].storage is \"Fast\""),
            (&format!("{POOL}  snapshot: quick\n"), "quick"),
            (&format!("{POOL}  approve: [publish]\n"), "publish"),
            (&format!("{POOL}  scaleOut: 101\n"), "pools[0].scaleOut is 101: expected 0 to 100"),
            (&format!("{POOL}  regionReplicas: {{ westus: 0 }}\n"), "pools[0].regionReplicas.westus is 0"),
            (&format!("{POOL}  regionReplicas: {{ westus: 1, 'West US': 2 }}\n"), "pools[0].regionReplicas is"),
            (&format!("{POOL}  colour: red\n"), "colour"),
            (
                &format!("{POOL}  schedule: {{ cron: weekly }}\n"),
                "pools[0].schedule.cron is \"weekly\": expected minute",
            ),
            (
                &format!("{POOL}  schedule: {{ cron: '0 3 * * *', timeZone: Berlin }}\n"),
                "pools[0].schedule.timeZone is \"Berlin\"",
            ),
            (
                &format!("{POOL}  schedule: {{ cron: '0 3 * * *', jitter: 2h, startWithin: 1h }}\n"),
                "pools[0].schedule.startWithin",
            ),
            (&format!("{POOL}  windows: [{{ days: [MON], from: '1:00', to: '2:00' }}]\n"), "pools[0].windows is 1"),
            (
                &format!(
                    "{POOL}  schedule: {{ cron: '@daily' }}\n  windows: [{{ days: [Caturday], from: '1:00', to: '2:00' }}]\n"
                ),
                "pools[0].windows[0].days is \"Caturday\"",
            ),
            (
                &format!(
                    "{POOL}  schedule: {{ cron: '@daily' }}\n  windows: [{{ days: [MON], from: '25:00', to: '2:00' }}]\n"
                ),
                "pools[0].windows[0].from is \"25:00\"",
            ),
            ("maxUnavailable: 0", "maxUnavailable is 0: expected 1 to 100"),
            ("maxUnavailable: 30%", "maxUnavailable"),
            ("serve: { listen: everywhere }", "serve.listen is \"everywhere\""),
            ("serve: { runsAtOnce: 0 }", "serve.runsAtOnce is 0: expected 1 to 100"),
            ("history: { keepRuns: 0 }", "history.keepRuns is 0: expected 1 to 10000"),
            ("history: { keepFor: ever }", "history.keepFor is \"ever\": expected a duration"),
            ("history: { keepFor: 9y }", "history.keepFor is \"9y\""),
        ];
        for (text, expected) in cases {
            let error = load(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}\n{error}");
        }
    }

    #[test]
    fn misspelt_variables_are_refused() {
        let error =
            check_variables(["PATH".into(), "KAMINO_STOER".into()].into_iter()).expect_err("a typo").to_string();
        assert!(error.contains("KAMINO_STOER") && error.contains("KAMINO_STORE"), "{error}");
    }

    #[test]
    fn a_missing_file_is_an_error_only_when_it_was_named() {
        let named = Overrides { config: Some("/does/not/exist.yaml".into()), ..Overrides::default() };
        let error = Config::load(named, &|_| None).expect_err("no file").to_string();
        assert!(error.contains("/does/not/exist.yaml") && error.contains("--config"), "{error}");
    }
}
