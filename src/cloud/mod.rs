//! The cloud in our words: what steps may read and ask for, and what can go wrong.
//!
//! A `begin_*` call asks once and returns as soon as Azure has accepted. Whether the effect is there is for a later
//! look to say: a 200 may mean "updating", and an accepted PUT may answer 404 for a while.

pub mod azure;
mod error;
mod granted;
mod limiter;
mod machine;
mod meter;
mod model_change;
mod port;
mod ration;
mod restoration;

pub use error::CloudError;
pub use granted::Granted;
pub use limiter::{Bucket, CallKind, Limiter};
pub use machine::{Machine, MachinePower, Power, Powered};
pub use meter::{Meter, Remaining};
pub use model_change::{Fingerprint, ModelChange};
pub use port::{
    Accepted, Architecture, Autoscale, Cloud, Definition, DefinitionSpec, Disk, DiskCopy, DiskState, Extension,
    Gallery, ImageRef, Instance, LUNS, Leftovers, NewVersion, Operation, OperationState, Orchestration, Plan,
    Provisioning, Replication, ScaleSet, Snapshot, SnapshotSpec, Tags, UpgradeMode, Version,
};
pub use ration::Left;
pub use restoration::Restoration;
