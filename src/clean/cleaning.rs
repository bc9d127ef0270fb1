//! The order of a cleaning: look, then change, then look again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, syncfs};
use rustix::thread::UnshareFlags;

use super::beneath::{Beneath, Found};
use super::device::Disk;
use super::error::{CleanError, PathError};
use super::manifest::{Manifest, Verb};
use super::mounts::{Workbench, unshare, wait_until_free};
use super::patience::Patience;
use super::report::{ItemCount, Report, Verdict};
use super::runtime::META_DB;
use super::{bolt, node, packages, runtime, tree, trim, verify};
use crate::model::{Containerd, Profile};

/// Where the private tmpfs goes unless told otherwise.
pub const DEFAULT_WORKDIR: &str = "/run/kamino-wf";
/// The last unmount is done when all namespaces have let go, the runtime's included.
const LET_GO_MAX: Duration = Duration::from_secs(30);
/// Databases of containerd, below its root: its own, and one of each snapshotter.
const DATABASES: [&str; 2] = [META_DB, "io.containerd.snapshotter.v1.*/metadata.db"];
const KERNELS_MAX: usize = 5;

/// What every cleaning is told, and its report says again.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Errand {
    /// Which kind of node the disk is of.
    pub profile: Profile,
    /// The run that asks.
    pub run: String,
    /// Of this attempt.
    pub nonce: String,
}

/// A copy to clean.
#[derive(Debug, Clone)]
pub struct CleanRequest {
    /// A block device, or a raw disk image. Nobody else may use it.
    pub device: PathBuf,
    /// For whom.
    pub errand: Errand,
    /// A folder over which a tmpfs is mounted, visible to the cleaner only; need not exist.
    pub workdir: PathBuf,
}

/// Cleans a copy of a node's disk. Safe to run twice, and to run again after it was killed.
///
/// # Errors
/// See [`CleanError::exit_code`]: either nothing was cleaned, or it is to be run again.
pub fn clean(request: &CleanRequest) -> Result<Report, CleanError> {
    let began = Patience::for_at_most(Duration::MAX);
    let mut report = apart(|| cleaning(request))?;
    report.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

/// Does it on a thread of its own, as namespaces belong to a thread: the rest of the process stays where it is, and all that was
/// mounted ends with the thread.
pub(super) fn apart<T: Send>(work: impl FnOnce() -> Result<T, CleanError> + Send) -> Result<T, CleanError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("clean".into()).spawn_scoped(scope, work);
        let thread = thread.map_err(CleanError::unprepared("start a thread"))?;
        let panicked = |_| CleanError::PartWay {
            doing: "finish: the cleaner itself broke".to_owned(),
            source: std::io::Error::other("its thread panicked, see the log"),
        };
        thread.join().map_err(panicked)?
    })
}

fn cleaning(request: &CleanRequest) -> Result<Report, CleanError> {
    let profile = &request.errand.profile;
    let manifest = Manifest::for_copy(profile);
    let containerd = profile.containerd();
    let mut report = Report::begin(&request.errand, &manifest);
    let disk = Disk::open(&request.device)?;
    unshare(UnshareFlags::NEWNS | UnshareFlags::FS).map_err(CleanError::unprepared("make a mount namespace"))?;
    let workdir =
        format!("mount a tmpfs at or above {}; give --workdir a folder that exists", request.workdir.display());
    let bench = Workbench::new(&request.workdir).map_err(CleanError::unprepared(workdir))?;
    let root = disk.find_root(&bench, profile)?;
    report.root = root.name();

    let mounting = || CleanError::unprepared(format!("mount {} of {}", root.name(), disk.path().display()));
    let source = disk.source(&root, &bench).map_err(mounting())?;
    // The journal is replayed here. What it held may change what was seen before, so all is looked at again.
    let mounted = bench.mount_ext4(source.node(), false).map_err(mounting())?;
    let copy = Beneath::new(mounted.at()).map_err(mounting())?;
    node::refuse_unknown(&copy, disk.path(), profile)?;
    packages::refuse_halfway(&copy)?;
    report.kernels = kernels(&copy).map_err(CleanError::Unreadable)?;
    for entry in manifest.entries() {
        copy.expand(&entry.pattern).map_err(CleanError::Unreadable)?;
    }

    let removed = runtime::remove_containers(mounted.at(), &containerd)?;
    (report.containers, report.images) = (removed.containers, removed.images);
    report.pages_zeroed = scrub_databases(&copy, &containerd).map_err(CleanError::Path)?;
    apply(&copy, mounted.at(), &manifest, &mut report)?;
    verify::verify(&copy, &manifest)?;
    let trimmed = trim::trim(mounted.at(), &disk.raw(&root)).map_err(CleanError::part_way("trim the free blocks"))?;
    report.discard = Some(trimmed.discard);
    report.trimmed_bytes = trimmed.bytes;
    (report.size_bytes, report.free_bytes) = (trimmed.size_bytes, trimmed.free_bytes);

    let unmounting = || CleanError::part_way("unmount the copy");
    drop(copy);
    mounted.unmount().map_err(unmounting())?;
    if !wait_until_free(source.node(), LET_GO_MAX).map_err(unmounting())? {
        let source = std::io::Error::other(format!("still in use after {} s", LET_GO_MAX.as_secs()));
        return Err(unmounting()(source));
    }
    report.verdict = Verdict::Clean;
    Ok(report)
}

pub(super) fn apply(
    copy: &Beneath,
    mounted: &Path,
    manifest: &Manifest,
    report: &mut Report,
) -> Result<(), CleanError> {
    let sync = || CleanError::part_way("sync what was overwritten");
    let root = rustix::fs::open(mounted, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = root.map_err(|errno| sync()(errno.into()))?;
    // All secrets are overwritten and on the disk before the first of them loses its name: one sync for all instead of one each.
    for entry in manifest.entries().iter().filter(|entry| entry.verb == Verb::Erase) {
        for found in copy.expand(&entry.pattern).map_err(CleanError::Path)? {
            report.erased_bytes += tree::overwrite(&found.dir, &found.name).map_err(failed("overwrite", &found))?;
        }
    }
    syncfs(&root).map_err(|errno| sync()(errno.into()))?;
    for entry in manifest.entries() {
        let mut files = 0;
        for found in copy.expand(&entry.pattern).map_err(CleanError::Path)? {
            files += match entry.verb {
                Verb::Erase | Verb::Unlink => {
                    tree::remove(&found.dir, &found.name).map_err(failed("remove", &found))?
                }
                Verb::Empty => tree::empty(&found.dir, &found.name).map_err(failed("empty", &found))?,
            };
        }
        if files > 0 {
            report.files += files;
            report.items.push(ItemCount { path: entry.pattern.to_string(), files });
        }
    }
    syncfs(&root).map_err(|errno| sync()(errno.into()))
}

pub(super) fn scrub_databases(copy: &Beneath, containerd: &Containerd) -> Result<u64, PathError> {
    let mut pages = 0;
    for database in DATABASES {
        for found in copy.expand(&format!("{}/{database}", containerd.root))? {
            let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let opened = rustix::fs::openat(&*found.dir, &*found.name, flags, Mode::empty());
            let scrubbed = opened.map_err(std::io::Error::from).and_then(|fd| bolt::scrub(&fd.into()));
            pages +=
                scrubbed.map_err(|source| PathError { doing: "zero the free pages of", path: found.path, source })?;
        }
    }
    Ok(pages)
}

/// The kernels of the copy: the controller compares them with what the node said it runs.
pub(super) fn kernels(copy: &Beneath) -> Result<Vec<String>, PathError> {
    let names = copy.names("/boot")?;
    let mut kernels: Vec<String> = names
        .iter()
        .filter_map(|name| name.to_string_lossy().strip_prefix("vmlinuz-").map(ToOwned::to_owned))
        .collect();
    Ok(kernels.split_off(kernels.len().saturating_sub(KERNELS_MAX)))
}

fn failed(doing: &'static str, found: &Found) -> impl FnOnce(std::io::Error) -> CleanError {
    let path = found.path.clone();
    move |source| CleanError::Path(PathError { doing, path, source })
}
