//! The simulated world as Azure's resource manager speaks: https on loopback, for the real adapter in a real binary.
//!
//! It translates and adds the habits of the wire: signed operation URLs, 200 with `Updating`, pages, mixed case, words and
//! fields of a later year, cut connections. What happens to a resource is the world's business alone.

mod dispatch;
mod face;
mod faults;
mod handle;
mod identity;
mod metadata;
mod operations;
mod ration;
mod read;
mod render;
mod request_log;
mod target;
mod tls;

pub use face::{ArmFace, ArmOptions, run};
pub use faults::{Fault, Injection};
pub use metadata::{Machine, MetadataService};
pub use request_log::{Effect, Logged};
