//! The simulated world: one world behind all four ports, as nasty as Azure is, the same by seed to the last byte.
//!
//! A product feature (`kamino-wf simulate`) and a test instrument. Production code never learns that it is simulated.
//! `world` is what survives a crash of ours; a `Process` is what doesn't. Nothing here is in the container image.

pub mod arm;
mod attachments;
mod births;
pub mod checkers;
mod clock;
mod cloud;
mod cluster;
mod crash;
mod disk;
mod faults;
mod machines;
mod neighbours;
mod scene;
mod session;
mod tenants;
mod world;

pub use attachments::Attachment;
pub use births::{Newcomer, Nursery};
pub use clock::SimClock;
pub use cloud::SimCloud;
pub use cluster::SimCluster;
pub use crash::Crash;
pub use disk::SimDisk;
pub use faults::{Fault, Faults, Habits};
pub use machines::{DonorPod, Machine};
pub use scene::{Scene, cluster_id, spec};
pub use session::{Layer, Layers, Line, Outcome, Session, Stop, TreeLayer, Watcher, Word};
pub use tenants::{Again, Departure, Tenant, Tenants};
pub use world::{Accepted, Deletion, Kind, Object, Pod, Resource, Says, Shared, World};

/// A scale set's raw model as decisions see it.
#[must_use]
pub fn read_model(model: &serde_json::Value) -> Option<crate::cloud::ScaleSet> {
    crate::cloud::azure::scale_set_from_json(model).ok()
}
