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
/// All variants but the last four mean that nothing was cleaned: the disk is as it was found (its journal may have been replayed).
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
    /// Looked at again, something of the manifest is still there.
    #[error("find the copy clean: still there: {paths}; run it again, and if it stays drop this copy")]
    Left {
        /// The first few paths.
        paths: String,
    },
}

impl CleanError {
    /// The exit code: 3 when nothing was cleaned, 8 when it failed part-way.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Missing { .. }
            | Self::NotADisk { .. }
            | Self::InUse { .. }
            | Self::UnknownLayout { .. }
            | Self::NotANode { .. }
            | Self::Unfit { .. }
            | Self::Unprepared { .. }
            | Self::Unreadable(_) => 3,
            Self::PartWay { .. } | Self::Path(_) | Self::Runtime { .. } | Self::Left { .. } => 8,
        }
    }

    /// The verdict that goes with [`exit_code`](Self::exit_code).
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if self.exit_code() == 3 { Verdict::Refused } else { Verdict::Failed }
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
