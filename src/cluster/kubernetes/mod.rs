//! The cluster port over the wire. The only place that names `kube` or `k8s_openapi`.
//!
//! One request is one call: nothing here repeats, waits or watches. Every read asks the API server for its newest state, every
//! deletion carries the uid of what it means, and the one write to a Node goes over the version that was seen.

mod anchor;
mod connect;
mod dated;
mod donor;
mod error;
mod eviction;
mod lease;
mod node;
mod objects;
mod port;
mod remote;
mod rivals;
mod self_check;
mod view;

pub use connect::{Access, ConnectError, KubernetesCluster};
pub use remote::{Controller, Remote, RemoteError};
pub use self_check::About;
