//! First contact: what docs/ASSUMPTIONS.md believes of Azure, tried out on a scale set that is there to be thrown away.
//!
//! ```text
//! admit ──> trial ──> hands ──> the Azure adapter        what may be tried on, what is tried, and who asks and waits
//!             │          └────> names                    what is made, by names that say whose it is
//!             └────> book <──── assumed                  what was seen, and what was believed
//! ```
//!
//! What is made has the same names each time. So whatever a killed trial left behind is found by them, and is taken away before
//! the next begins; what is changed on the scale set is noted in a tag of it first.
//!
//! Absent on purpose: a store, a Lease, a run. Nothing here goes on after a crash; it begins anew.

mod admit;
mod assumed;
mod attach;
mod book;
mod copies;
mod hands;
mod images;
mod model;
mod names;
mod power;
mod trial;

pub use admit::{ContactError, Nodes, Pools};
pub use book::{Book, Line, Verdict};
pub use hands::Pace;
pub use names::{Remnant, TAG};
pub use trial::{FirstContact, Planned};
