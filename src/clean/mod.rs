//! The disk cleaner, `kamino-wf clean`: takes from the copy of a node's disk all that made it that node's, and all that its
//! tenants left, and keeps what a new node is to find there: the system, its patches, the cached images.
//!
//! ```text
//! cli ─> clean ─> device (layout, loops, mounts)     which part of the disk is the root, and where it is mounted
//!          ├────> node, packages                     is this a node's disk, at a moment fit for an image?
//!          ├────> runtime, bolt                      containers, by the copy's own containerd; then its databases
//!          ├────> manifest, beneath, tree            the listed paths, resolved inside the copy only
//!          ├────> verify, trim, canary               looked at again; freed blocks given back to the disk
//!          └────> report                             what was done, in at most 4 KiB
//! donor ──────────> all of these                       a donor's own disk, cleaned in place; see there
//! ```
//!
//! Everything up to the first change may refuse, and then the disk is as it was found. From there on a failure, a kill or a
//! power cut is answered by running it again: every step looks before it acts, so the second run gives the tree that an
//! undisturbed first one gives. No shell, no network, no token; the only program run is the copy's own containerd, shut into
//! namespaces of its own.

mod beneath;
mod bolt;
mod canary;
mod cleaning;
pub mod cli;
pub mod custom;
mod device;
mod donor;
mod error;
mod layout;
mod loops;
mod manifest;
mod mounts;
mod node;
mod packages;
mod patience;
mod programs;
mod report;
mod runtime;
mod tree;
mod trim;
mod verify;

pub use cleaning::{CleanRequest, DEFAULT_WORKDIR, Errand, clean};
pub use donor::{ApiServer, DonorRequest, ProofPlace, clean_as_unit, clean_donor, guard};
pub use error::{CleanError, PathError};
pub use manifest::{Column, Entry, Manifest, Verb};
pub use report::{DEFAULT_REPORT, Discard, ItemCount, REPORT_SIZE_MAX, Report, Verdict, write_report};
