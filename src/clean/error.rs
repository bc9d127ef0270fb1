//! Why a cleaning ended without a clean disk, and what to do about it.

use std::io;
use std::path::PathBuf;

use super::report::Verdict;

/// What could not be done to one path of the copy.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {path}")]
pub struct PathError {
    /// What was tried: `open`, `erase`, ...
    pub doing: &'static str,
    /// The path, as seen inside the copy.
    pub path: String,
    /// What the kernel said.
    pub source: io::Error,
}

/// Everything that `clean` can end with except success.
///
/// All variants but the last five mean that nothing was cleaned: the disk is as it was found (its journal may have been replayed).
#[derive(Debug, thiserror::Error)]
pub enum CleanError {
    /// The path given with `--device` cannot be opened.
    #[error("open device {device:?}; give --device the path at which the copy is attached, with write access")]
    Missing {
        /// As given.
        device: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The path is neither a block device nor a disk image.
    #[error("take {device:?} for a disk: it is {found}; give --device a block device or a raw disk image")]
    NotADisk {
        /// As given.
        device: PathBuf,
        /// What is there.
        found: String,
    },
    /// Somebody has the device mounted or attached.
    #[error("get {device:?} alone: it is {by}; unmount and detach it, the cleaner takes only a copy that nobody uses")]
    InUse {
        /// As given.
        device: PathBuf,
        /// How it is used.
        by: String,
    },
    /// The disk is arranged in a way that no profile covers.
    #[error(
        "find one ext4 root on {device:?}: {found}; clean disks with a GPT or a bare ext4 file system, all in one root"
    )]
    UnknownLayout {
        /// As given.
        device: PathBuf,
        /// What was found instead.
        found: String,
    },
    /// A file system without the traces of a node.
    #[error("take {device:?} for the disk of a node: {missing}; check that the right disk was attached")]
    NotANode {
        /// As given.
        device: PathBuf,
        /// The trace that was looked for.
        missing: String,
    },
    /// A node's disk, caught at a moment that makes no good image.
    #[error("find the disk fit for an image: {what}; take another snapshot later")]
    Unfit {
        /// What was seen, with its value.
        what: String,
    },
    /// The path given with `--host-root` is not the root of the machine.
    #[error("take {path:?} for the root of a machine: {found}; mount the host's / there, and give the pod hostPID")]
    NotAHost {
        /// As given.
        path: PathBuf,
        /// What it is instead.
        found: String,
    },
    /// The machine is not the one that the arguments mean, or not in the boot that they mean.
    #[error(
        "clean this machine: its {what} is {found:?}, expected {expected:?}; a run makes a pod of its own for each boot"
    )]
    AnotherMachine {
        /// `product UUID` or `boot id`.
        what: &'static str,
        /// Of this machine.
        found: String,
        /// As given.
        expected: String,
    },
    /// A machine that would not come back as itself, or whose copy would not become somebody new.
    #[error("clean a machine in place: {what}; use capture: live for this pool, or change the machine")]
    UnfitMachine {
        /// What was seen, with its value.
        what: String,
    },
    /// Something needed before the first change did not work.
    #[error("prepare: {doing}; nothing was changed: check that the pod is privileged, then run it again")]
    Unprepared {
        /// What was tried.
        doing: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A path could not be looked at, before the first change.
    #[error("look at the copy; nothing was changed: take another snapshot")]
    Unreadable(#[source] PathError),
    /// A change failed.
    #[error("{doing} after cleaning had begun; run it again on the same disk")]
    PartWay {
        /// What was tried.
        doing: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A path could not be cleaned.
    #[error("clean a path; run it again on the same disk")]
    Path(#[source] PathError),
    /// The copy's own containerd would not remove its containers.
    #[error("remove the containers by the copy's own containerd: {what}; run it again, and if it stays drop this copy")]
    Runtime {
        /// What was asked and what it answered.
        what: String,
    },
    /// A service of the donor did not do what it was told.
    #[error("{what}; the machine is a node again after a restart")]
    Machine {
        /// What was asked, and what came of it.
        what: String,
    },
    /// Looked at again, something of the manifest is still there.
    #[error("find the copy clean: still there: {paths}; run it again, and if it stays drop this copy")]
    Left {
        /// The first few paths.
        paths: String,
    },
}

impl CleanError {
    /// Whether nothing was cleaned, or it failed part-way.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Missing { .. }
            | Self::NotADisk { .. }
            | Self::InUse { .. }
            | Self::UnknownLayout { .. }
            | Self::NotANode { .. }
            | Self::Unfit { .. }
            | Self::NotAHost { .. }
            | Self::AnotherMachine { .. }
            | Self::UnfitMachine { .. }
            | Self::Unprepared { .. }
            | Self::Unreadable(_) => Verdict::Refused,
            Self::PartWay { .. } | Self::Path(_) | Self::Runtime { .. } | Self::Machine { .. } | Self::Left { .. } => {
                Verdict::Failed
            }
        }
    }

    /// The exit code that goes with [`verdict`](Self::verdict).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.verdict().exit_code()
    }

    /// The whole chain of causes in one line.
    #[must_use]
    pub fn reason(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }

    pub(super) fn unprepared(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Unprepared { doing, source }
    }

    pub(super) fn part_way(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::PartWay { doing, source }
    }
}
