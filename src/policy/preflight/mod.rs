//! What a run refuses before it touches anything, in words that name the field, its value and the remedy.
//!
//! Every clause stands once, in `clauses.rs`: a refusal is made from its clause, and docs/refusals.md from all of them. A
//! refused run, `doctor` and `plan` say the same.

mod clauses;
mod document;
mod nodes;
mod profile;
mod scale_set;

pub use clauses::{CLAUSES, Clause, Moment, Refusal};
pub use document::document;
pub use nodes::owned_by_aks;
pub use profile::unseen;
pub use scale_set::{bootstrapping, elsewhere, refusals, still_refused, would_roll};
