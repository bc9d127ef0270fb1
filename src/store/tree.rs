//! The port under the journal: a sorted map of bytes, and two slots beside it.

use std::ops::ControlFlow;

/// Key and value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// Is shown key and value, and says whether to go on.
pub type Visitor<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// What the journal needs from whatever holds its bytes. Synchronous; only the committer calls it.
///
/// The simulator implements it a second time, over a disk that forgets what was not synced.
pub trait ByteTree: Send {
    /// All entries whose key starts with `prefix`, in key order.
    fn scan(&self, prefix: &[u8]) -> Result<Vec<Entry>, TreeError>;

    /// Like `scan`, one entry at a time, so that opening a large store does not hold it in memory.
    fn visit(&self, prefix: &[u8], each: &mut Visitor<'_>) -> Result<(), TreeError> {
        for (key, value) in self.scan(prefix)? {
            if each(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The value under one key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TreeError>;

    /// All of `batch` or nothing, also after a crash. Readable at once, durable only after [`ByteTree::sync`].
    ///
    /// # Errors
    /// [`TreeError::Full`] says that nothing was changed and the tree can go on; after any other error it cannot.
    fn apply(&mut self, batch: &Batch) -> Result<(), TreeError>;

    /// When it returns, everything applied before is durable. Never called again once it failed.
    fn sync(&mut self) -> Result<(), TreeError>;

    /// The two slots of the high-water mark, kept outside the tree so that they cannot go back in time with it.
    /// `None`: never written.
    fn read_mark(&self) -> Result<[Option<Vec<u8>>; 2], TreeError>;

    /// Overwrites one slot; durable when it returns. A crash may leave this slot torn, never the other.
    fn write_mark(&mut self, slot: usize, bytes: &[u8]) -> Result<(), TreeError>;

    /// Is there so little room that it must be kept for what is under way? A tree that knows nothing of room says no.
    fn low_on_room(&self) -> bool {
        false
    }
}

/// Changes that happen together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Key and new value.
    pub puts: Vec<Entry>,
    /// Keys to remove; removing what is not there is no error.
    pub deletes: Vec<Vec<u8>>,
}

/// What can go wrong below the journal.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// From `apply`: no room, and nothing was changed. From anything else it is as fatal as `Io`.
    #[error("no space left for the store")]
    Full,
    /// The operating system refused; what is on disk is not known.
    #[error("input or output of the store")]
    Io(#[from] std::io::Error),
    /// The library under us panicked, or called its own file broken.
    #[error("{0}")]
    Broken(String),
}

impl TreeError {
    /// The whole chain in one line: it ends up inside another error's text.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Full => self.to_string(),
            Self::Io(source) => format!("{self}: {source}"),
            Self::Broken(what) => what.clone(),
        }
    }
}
