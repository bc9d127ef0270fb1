//! That the node is a real one.

use crate::support::node::real_cluster::shared;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_runs() {
    let Some(cluster) = shared() else { return };
    println!("{}", cluster.kubectl(&["get", "nodes", "-o", "wide"]));
    println!("{}", cluster.kubectl(&["get", "csinodes", "-o", "yaml"]));
}
