//! Putting back what the first update of a pool overwrote: image reference, custom data, extensions.
//!
//! ```text
//! bundle ──> cloud::Restoration ──> way ──> the Azure adapter
//! ```
//!
//! Custom data and protected settings can't be read back from Azure, so nobody but the operator has them: they come in a file, go
//! out in one PATCH, and are kept nowhere. The change is the reverse of `PatchModel`, and made with the same care: refused by the same
//! clauses, under the etag of the model that was looked at, looked at afterwards as a whole.
//!
//! Absent on purpose: a run. Nothing of this may be stored; killed anywhere it is done again, and asks for the very same model.

mod bundle;
mod way;

pub use bundle::{BadBundle, parse};
pub use way::{Pace, Prospect, RestoreError, Restored, look, restore};
