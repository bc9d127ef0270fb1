//! What several test binaries share: a real control plane, an installation of the product in it, and a stand-in for the kubelet.
//!
//! ```ignore
//! let Some(cluster) = shared() else { return };
//! let installed = cluster.service_account_kubeconfig(KUBERNETES).await; // namespaces, roles, `installed.kubeconfig`
//! cluster.add_node(&TestNode::new("worker")).await;
//! let kubelet = Kubelet::start(cluster, &installed.at.clean_namespace, "worker", Path::new(env!("CARGO_BIN_EXE_kamino-wf")));
//! kubelet.put_disk(disk_id, &image);                                    // what is in the disk that the cloud made
//! // ... run the product ...
//! let writes = cluster.audit().await;                                   // every request, by user, verb and resource
//! ```
//!
//! Needs root, util-linux and the binaries of `scripts/cluster-binaries`; the process must stay the one that called
//! `shared()`, as everything ends with it.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    clippy::panic,
    reason = "each test binary uses its own part; a helper that cannot go on ends the test"
)]

pub mod binary;
pub mod cluster;
pub mod installed;
pub mod kubelet;
pub mod node;
pub mod placement;
pub mod sandbox;
pub mod world;
