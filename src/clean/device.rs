//! The disk that was given: is it one, is it free, where is its root, and as what device can that be mounted?

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FileType, major, makedev, minor};

use super::beneath::Beneath;
use super::canary::RawDisk;
use super::error::CleanError;
use super::layout::{self, Candidate, State};
use super::loops::{LoopDevice, make_node};
use super::mounts::{Workbench, wait_until_free};
use super::node;
use super::patience::Patience;
use crate::model::Profile;

/// A predecessor that was killed a moment ago has its mounts undone by the kernel, which takes its time.
const PREDECESSOR_GONE: Duration = Duration::from_secs(10);

/// A disk that nobody uses.
pub(super) struct Disk {
    path: PathBuf,
    file: File,
    is_block: bool,
    size: u64,
}

/// What a root file system is mounted from.
pub(super) enum Source {
    /// A node of the kernel's own, for the whole disk or one of its partitions.
    Node(PathBuf),
    /// A loop device over a part of the disk.
    Loop(LoopDevice),
}

impl Source {
    pub(super) fn node(&self) -> &Path {
        match self {
            Self::Node(path) => path,
            Self::Loop(device) => device.node(),
        }
    }
}

impl Disk {
    pub(super) fn open(path: &Path) -> Result<Self, CleanError> {
        let missing = |source| CleanError::Missing { device: path.to_path_buf(), source };
        // Looked at before it is opened: opening some devices for writing is an act of its own.
        let kind = fs::metadata(path).map_err(missing)?.file_type();
        if !kind.is_block_device() && !kind.is_file() {
            let found = if kind.is_dir() { "a directory" } else { "neither a block device nor a file" };
            return Err(CleanError::NotADisk { device: path.to_path_buf(), found: found.to_owned() });
        }
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(missing)?;
        let disk = Self { path: path.to_path_buf(), size: 0, is_block: kind.is_block_device(), file };
        disk.refuse_used()?;
        let size = io::Seek::seek(&mut &disk.file, io::SeekFrom::End(0)).map_err(missing)?;
        Ok(Self { size, ..disk })
    }

    fn refuse_used(&self) -> Result<(), CleanError> {
        let in_use = |by: String| CleanError::InUse { device: self.path.clone(), by };
        let unsure = CleanError::unprepared(format!("see whether {} is in use", self.path.display()));
        let check = || -> io::Result<Option<String>> {
            // Exclusive opening fails while any namespace of the machine has the disk or a part of it mounted.
            if self.is_block && !wait_until_free(&self.path, PREDECESSOR_GONE)? {
                return Ok(Some("mounted, or held by another device".to_owned()));
            }
            let patience = Patience::for_at_most(PREDECESSOR_GONE);
            loop {
                match self.attached_loop()? {
                    None => return Ok(None),
                    Some(_) if patience.wait() => {}
                    Some(name) => return Ok(Some(format!("attached to /dev/{name}"))),
                }
            }
        };
        check().map_err(unsure)?.map_or(Ok(()), |by| Err(in_use(by)))
    }

    /// The name of a loop device that reads from this disk.
    fn attached_loop(&self) -> io::Result<Option<String>> {
        let own = self.file.metadata()?;
        for entry in fs::read_dir("/sys/block")?.flatten() {
            let Ok(text) = fs::read_to_string(entry.path().join("loop/backing_file")) else { continue };
            let Ok(other) = fs::metadata(text.trim_end_matches('\n')) else { continue };
            let same = if self.is_block {
                other.file_type().is_block_device() && other.rdev() == own.rdev()
            } else {
                (other.dev(), other.ino()) == (own.dev(), own.ino())
            };
            if same {
                return Ok(Some(entry.file_name().to_string_lossy().into_owned()));
            }
        }
        Ok(None)
    }

    /// The one ext4 file system that is the root of a node. Nothing is written: each is looked at through a read-only device.
    pub(super) fn find_root(&self, bench: &Workbench, profile: &Profile) -> Result<Candidate, CleanError> {
        let read = CleanError::unprepared(format!("read {}", self.path.display()));
        let unknown = |found: String| CleanError::UnknownLayout { device: self.path.clone(), found };
        let candidates = layout::candidates(&self.file, self.size).map_err(read)?.map_err(unknown)?;
        let mut roots = Vec::new();
        let mut missing = Vec::new();
        for candidate in candidates {
            match self.missing_of_a_node(&candidate, bench, profile)? {
                None => roots.push(candidate),
                Some(what) => missing.push(format!("{} has no {what}", candidate.name())),
            }
        }
        match (roots.pop(), roots.is_empty()) {
            (None, _) => Err(CleanError::NotANode { device: self.path.clone(), missing: missing.join(", ") }),
            (Some(root), true) if root.state == State::HasErrors => {
                Err(CleanError::Unfit { what: format!("the file system of {} has recorded errors", root.name()) })
            }
            (Some(root), true) => Ok(root),
            (Some(root), false) => Err(unknown(format!("{} and others all look like a node's root", root.name()))),
        }
    }

    fn missing_of_a_node(
        &self,
        candidate: &Candidate,
        bench: &Workbench,
        profile: &Profile,
    ) -> Result<Option<String>, CleanError> {
        let look = || CleanError::unprepared(format!("look at {} of {}", candidate.name(), self.path.display()));
        let device =
            LoopDevice::attach(&self.file, candidate.offset, candidate.size, true, bench.path()).map_err(look())?;
        let mounted = bench.mount_ext4(device.node(), true).map_err(look())?;
        let copy = Beneath::new(mounted.at()).map_err(look())?;
        let missing = node::missing(&copy, profile).map_err(CleanError::Unreadable)?;
        // While the journal holds part of the truth, only what changes rarely can be judged; the rest is looked at after the replay.
        if missing.is_none() && candidate.state == State::Settled {
            node::refuse_unknown(&copy, &self.path, profile)?;
            super::packages::refuse_halfway(&copy)?;
        }
        drop(copy);
        mounted.unmount().map_err(look())?;
        wait_until_free(device.node(), PREDECESSOR_GONE).map_err(look())?;
        Ok(missing)
    }

    /// The root as something that can be mounted for writing.
    ///
    /// The kernel's own node is best: what is discarded there reaches the disk. Where it made none, a loop device does.
    pub(super) fn source(&self, root: &Candidate, bench: &Workbench) -> io::Result<Source> {
        if self.is_block {
            let device = self.file.metadata()?.rdev();
            if root.partition.is_none() {
                // Through the open file: the path given may lie in a folder that is mounted over by now.
                return Ok(Source::Node(PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))));
            }
            if let Some(partition) = partition_of(device, root)? {
                let node = bench.path().join("root-partition");
                make_node(&node, FileType::BlockDevice, major(partition), minor(partition))?;
                return Ok(Source::Node(node));
            }
        }
        Ok(Source::Loop(LoopDevice::attach(&self.file, root.offset, root.size, false, bench.path())?))
    }

    /// The bytes under a file system of this disk.
    pub(super) fn raw(&self, root: &Candidate) -> RawDisk<'_> {
        RawDisk { disk: &self.file, offset: root.offset }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// The device number of the kernel's own node for a partition, if it made one.
fn partition_of(disk: u64, root: &Candidate) -> io::Result<Option<u64>> {
    let folder = format!("/sys/dev/block/{}:{}", major(disk), minor(disk));
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    for entry in entries.flatten() {
        let number = |name: &str| fs::read_to_string(entry.path().join(name)).ok()?.trim().parse::<u64>().ok();
        // Sysfs counts in units of 512 bytes whatever the disk's sectors are.
        if number("partition").is_none() || number("start").is_none_or(|start| start * 512 != root.offset) {
            continue;
        }
        let text = fs::read_to_string(entry.path().join("dev"))?;
        let parsed = text.trim().split_once(':').and_then(|(a, b)| Some(makedev(a.parse().ok()?, b.parse().ok()?)));
        return Ok(parsed);
    }
    Ok(None)
}
