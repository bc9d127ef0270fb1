//! What would keep a run from going well, asked before one is begun. Everything here only looks; what it tries out on the
//! store's volume it takes away again. But [`FirstContact`] tries things out in Azure, on what is there for that.
//!
//! Each part is a list of [`Check`]s; a part whose ground is missing (no API server, no token) is skipped, and says so.

mod azure;
mod contact;
mod kubernetes;
mod pools;
mod report;
mod store;

pub use azure::{Galleries, Groups, azure};
pub use contact::{Book, ContactError, FirstContact, Line, Nodes, Pace, Planned, Pools, Remnant, TAG, Verdict};
pub use kubernetes::kubernetes;
pub use pools::{Wanted, pool};
pub use report::{Check, Report, State};
pub use store::store;

/// The names of the checks that say which rights are missing.
pub const RIGHTS: [&str; 2] = [azure::RIGHTS, kubernetes::RIGHTS];
