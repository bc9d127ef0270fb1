//! What callers of the store can be told, and who can do something about it.

use std::path::PathBuf;

use uuid::Uuid;

use super::ledger::{Fence, Revision};
use super::lock::Holder;
use super::tree::TreeError;

/// Why the store did not do what was asked. Each text says what to do; each code has a page in `docs/errors`.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else committed to this run since the caller read it. Load again and decide again.
    #[error("commit to run {run}: expected revision {expected}, found {found}; load the run again and decide again")]
    Conflict {
        /// The run that both wrote to.
        run: Uuid,
        /// What the caller had read.
        expected: Revision,
        /// What is stored.
        found: Revision,
    },
    /// A newer holder of the Lease has written. This process must not touch the cluster any more.
    #[error(
        "commit with fence {given}: the store has seen fence {seen}, so another process holds the lease; stop this one"
    )]
    Fenced {
        /// The caller's lease epoch.
        given: Fence,
        /// The newest epoch that the store has seen.
        seen: Fence,
    },
    /// Another process holds the store.
    #[error("open the store {}: {}; ask that process, or stop it first", dir.display(), in_use(holder.as_ref()))]
    InUse {
        /// The store's directory.
        dir: PathBuf,
        /// What the holder wrote about itself, if it can be read.
        holder: Option<Holder>,
    },
    /// A frame, a sequence, a chain or the totals do not hold. Nothing was changed.
    #[error(
        "trust the store: {key}: {what}; nothing was changed: restore a copy of the whole directory, or move this one aside \
         with `kamino-wf store quarantine` and import the newest export"
    )]
    Damaged {
        /// Which entry, in words.
        key: String,
        /// What is wrong with it.
        what: String,
    },
    /// The tree is older than the mark beside it: acknowledged commits are gone.
    #[error(
        "trust the store: it holds commit {tree}, but commit {mark} was acknowledged: it went back in time (restored \
         backup, damaged file); restore a newer copy of the whole directory, or move it aside with `kamino-wf store quarantine`, \
         which says what its runs may have left"
    )]
    WentBack {
        /// The commit number in the tree; 0 for an empty or missing one.
        tree: u64,
        /// The newest commit number that the mark has seen.
        mark: u64,
    },
    /// Written by a newer release.
    #[error(
        "read the store: its schema is {schema}, this release knows up to {supported}; run the newer release again"
    )]
    Newer {
        /// What the store says.
        schema: u16,
        /// What this build can read and write.
        supported: u16,
    },
    /// No room. Nothing was changed and reading goes on.
    #[error("write to the store: no space left; nothing was changed: free space on its volume or enlarge it")]
    Full,
    /// An earlier write failed, so nobody knows what is on disk. For ever, until the process is started again.
    #[error(
        "use the store: an earlier write failed ({why}); what is on disk is uncertain until the process is started again"
    )]
    Poisoned {
        /// The first failure.
        why: String,
    },
    /// One of the limits that keep every value inside sled's main file.
    #[error("store {what}: {size} is over the limit of {max}; store a reference instead")]
    TooLarge {
        /// What is too large, with its unit.
        what: &'static str,
        /// Its size.
        size: usize,
        /// The limit.
        max: usize,
    },
    /// The directory belongs to something else.
    #[error("open {} as a store: {what}; name an empty directory or an existing store", dir.display())]
    NotAStore {
        /// The directory that was named.
        dir: PathBuf,
        /// What was found or missed there.
        what: String,
    },
    /// Locks and syncs cannot be relied on there.
    #[error(
        "open the store {}: it is on {kind}, where locks and syncs cannot be relied on; use a local disk or a block volume \
         (on Azure a disk of disk.csi.azure.com, not Azure Files){}", dir.display(), unless_fuse(kind)
    )]
    NetworkFileSystem {
        /// The store's directory.
        dir: PathBuf,
        /// The file system's name, as in `NFS` or `FUSE (fuse.sshfs)`.
        kind: String,
    },
    /// The committer is gone, for instance because the process is stopping. Whether the commit happened is not known.
    #[error("reach the store: it is closed; if this was a commit, load the run to see whether it happened")]
    Closed,
    /// A request that no release should make. Nothing was changed; report it.
    #[error("commit: {what}; this is a bug of kamino-wf, please report it")]
    Invalid {
        /// What is wrong with it.
        what: String,
    },
    /// A file to import is not a whole export of ours. Nothing of it was kept.
    #[error("import {file}: {}{what}; nothing was imported", at_line(*line))]
    Import {
        /// The file, or that it came on standard input.
        file: String,
        /// The line, counted from 1; 0 where it is about the whole file.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
    /// An import makes a store; it never mixes two.
    #[error("import into {}: {what}; name an empty directory, or `kamino-wf store quarantine` a damaged store first", dir.display())]
    NotEmpty {
        /// The store's directory.
        dir: PathBuf,
        /// What is there.
        what: String,
    },
    /// A second copy of the data would not fit.
    #[error("{what}: it needs {need} bytes beside the store in {} and {free} are free; enlarge the volume or free space on it", dir.display())]
    NoRoom {
        /// The verb.
        what: &'static str,
        /// The store's directory.
        dir: PathBuf,
        /// Bytes.
        need: u64,
        /// Bytes.
        free: u64,
    },
    /// The ballast is gone: what is left is for the runs that are under way.
    #[error(
        "begin a run: the store's volume is nearly full, and what is left is kept for the runs under way; free space on \
         it or enlarge it, then start again"
    )]
    LowOnRoom,
    /// Only what can't be trusted is moved aside.
    #[error("move the store in {} aside: nothing is wrong with it; to begin anew, name another directory", dir.display())]
    Sound {
        /// The store's directory.
        dir: PathBuf,
    },
    /// The operating system refused while the store was being opened.
    #[error("{what} {}: {source}; check that the volume is mounted, healthy and owned by this user", path.display())]
    Unreadable {
        /// The verb.
        what: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The refusal.
        source: std::io::Error,
    },
}

impl StoreError {
    /// The name of this error's page in `docs/errors`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "KW0101",
            Self::Fenced { .. } => "KW0102",
            Self::InUse { .. } => "KW0103",
            Self::Damaged { .. } => "KW0104",
            Self::WentBack { .. } => "KW0105",
            Self::Newer { .. } => "KW0106",
            Self::Full => "KW0107",
            Self::Poisoned { .. } => "KW0108",
            Self::TooLarge { .. } => "KW0109",
            Self::NotAStore { .. } => "KW0110",
            Self::NetworkFileSystem { .. } => "KW0111",
            Self::Closed => "KW0112",
            Self::Invalid { .. } => "KW0113",
            Self::Unreadable { .. } => "KW0114",
            Self::Import { .. } => "KW0115",
            Self::NotEmpty { .. } => "KW0116",
            Self::NoRoom { .. } => "KW0117",
            Self::LowOnRoom => "KW0118",
            Self::Sound { .. } => "KW0119",
        }
    }

    /// While opening, a broken tree is damage that a person can look at; nothing is poisoned yet.
    pub(super) fn while_opening(error: TreeError) -> Self {
        match error {
            TreeError::Full => Self::Full,
            TreeError::Io(source) if source.kind() == std::io::ErrorKind::StorageFull => Self::Full,
            TreeError::Io(source) => Self::Damaged { key: "the database".into(), what: source.to_string() },
            TreeError::Broken(what) => Self::Damaged { key: "the database".into(), what },
        }
    }
}

fn unless_fuse(kind: &str) -> &'static str {
    if kind.starts_with("FUSE") { "; if it is a local disk all the same, set storeOnFuse: true" } else { "" }
}

fn at_line(line: u64) -> String {
    if line == 0 { String::new() } else { format!("line {line}: ") }
}

fn in_use(holder: Option<&Holder>) -> String {
    match holder {
        None => "another process holds it and left no name in LOCK".into(),
        Some(Holder { pid, since, socket, release }) => {
            let socket = socket.as_ref().map(|path| format!(", answering at {}", path.display())).unwrap_or_default();
            format!("process {pid} (kamino-wf {release}) holds it since {since}{socket}")
        }
    }
}
