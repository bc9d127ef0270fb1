//! Which node becomes the donor: of those that are healthy the one that was patched last. Every node gets a verdict with a
//! reason.
//!
//! What "patched" means is the pool's signal ([`Signal`]); what it says of a node is in `signal.rs`, what speaks against any
//! donor in `health.rs`, and what only a donor that is taken out of service has to be spared in `absence.rs`.

mod absence;
mod boots;
mod health;
mod need;
mod rank;
mod rules;
mod signal;

pub use absence::Absence;
pub use boots::Boots;
pub use health::{AKS_UPGRADE, IGNORE};
pub(crate) use need::PATCHED_TAG;
pub use need::needless;
pub use rank::{Candidate, Question, Ranking, Verdict, rank};
pub use rules::{Ignore, ImageAge, Rules, Signal, TimeFormat, defaults};
pub use signal::{DONOR, KURED_IN_PROGRESS, KURED_NEEDED, Patched};
