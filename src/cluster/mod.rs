//! The cluster in our words: nodes to choose from, and the pod that cleans a copied disk.

mod error;
pub mod kubernetes;
mod pods;
mod port;
mod rival;

pub use error::ClusterError;
pub use pods::{Budget, Controller, Eviction, Pod, PodLife, PodRef, Requirement, Selector};
pub use port::{
    Anchor, Attached, CleaningPod, CleaningSpec, CleaningView, Cluster, DonorCleaning, Lease, LeaseClaim, Leftover,
    Node, NodeChange, NodeNote, Owned, PodPhase, Remains,
};
pub use rival::Rival;
