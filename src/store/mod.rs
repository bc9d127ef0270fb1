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
//! - A full disk refuses commits and poisons nothing: `room.rs` refuses before sled can fail.
//!
//! What is absent: nobody but the committer touches the tree; there is no `put` and no `flush` for callers to forget;
//! nothing here looks at a clock, retries a sync, or deletes a store that it cannot read.

mod check;
mod committer;
mod error;
mod forget;
mod frame;
mod journal;
mod keys;
mod ledger;
mod lock;
mod mark;
mod open;
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
pub use error::StoreError;
pub use journal::{Fact, Head, Journal, NewRecord, StoredRecord};
pub use ledger::{Fence, Revision};
pub use lock::Holder;
pub use open::{StoreGuard, open_dir};
pub use room::Enough;
pub use survey::{Survey, holder, survey, try_out};
pub use tree::{Batch, ByteTree, Entry, TreeError, Visitor};
