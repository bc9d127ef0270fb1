//! kamino-wf: make the next node I build like my most recently patched, stable node.
//!
//! ```text
//! cli, http ─> app ─> workflow ─> steps ─> policy ─> model        (calls go right only)
//!                        │           └──> cloud, cluster ports <── azure, kubernetes | sim
//!                        └──────> store, clock ports        <── sled, system       | sim
//! ```

pub mod app;
pub mod clean;
pub mod cli;
pub mod clock;
pub mod cloud;
pub mod cluster;
pub mod config;
pub mod doctor;
pub mod http;
pub mod model;
pub mod permissions;
pub mod policy;
pub mod preview;
pub mod restore;
#[cfg(feature = "sim")]
pub mod sim;
pub mod steps;
pub mod store;
pub mod workflow;
