//! The journal: what a run decided, asked and saw, durable before the next call goes out.
//!
//! ```text
//! Journal (cloned by everyone) ──channel──> Committer (one) ──> ByteTree: sled | the simulated disk
//! ```
//!
//! Promises, and where each is kept:
//!
//! - An acknowledged commit survives a kill and a power cut: `committer.rs` acknowledges after `ByteTree::sync` and after
//!   the mark; `sled_tree.rs` adds the `fdatasync` that sled leaves out.
//! - A store that lost or changed anything is noticed at open: `verify.rs` reads every frame (CRC over key and value),
//!   every sequence, every run's chain of hashes, the totals, and compares the commit number with a mark outside the tree.
//! - One writer: `lock.rs` in one kernel, [`Fence`] between machines.
//! - After the first error of the tree nothing is acknowledged any more: the store is poisoned and the process should end.
//! - A store that cannot be trusted stays as it is, byte for byte: `trial.rs` opens a copy first, since sled repairs what it
//!   opens.
//! - A full disk refuses commits and poisons nothing: `room.rs` refuses before sled can fail, new runs before those under
//!   way. What is there can be read all the same: `read_dir` opens a copy, wherever there is room for one.
//! - A store is replaced as a whole (`compact.rs`, `import.rs`) by one that was read back: `replace.rs`; killed anywhere, one
//!   of the two is there.
//! - What can't be trusted is moved aside by a person's command (`quarantine.rs`), never by itself.
//!
//! What is absent: nobody but the committer touches the tree; there is no `put` and no `flush` for callers to forget;
//! nothing here looks at a clock, retries a sync, or deletes a store that it cannot read.

mod check;
mod committer;
mod compact;
mod dump;
mod error;
mod export;
mod forget;
mod frame;
mod import;
mod journal;
mod keys;
#[cfg(test)]
pub(crate) mod laws;
mod ledger;
mod lock;
mod mark;
mod open;
mod place;
mod quarantine;
mod replace;
mod room;
mod sled_tree;
mod survey;
#[cfg(test)]
mod test_tree;
mod tree;
mod trial;
mod verify;

pub use check::{CheckReport, check_dir};
pub use committer::Committer;
pub use compact::{Compacted, compact_dir};
pub use error::StoreError;
pub use export::{Counts, Export, Position};
pub use import::import_dir;
pub use journal::{Fact, Head, Journal, NewRecord, StoredRecord};
pub use ledger::{Fence, Revision};
pub use lock::Holder;
pub use open::{StoreGuard, open_dir, read_dir};
pub use place::Place;
pub use quarantine::{Quarantined, quarantine_dir};
pub use room::Enough;
pub use survey::{Survey, holder, survey, try_out};
pub use tree::{Batch, ByteTree, Entry, TreeError, Visitor};
