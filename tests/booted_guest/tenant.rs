//! A pod that works on a node and leaves traces everywhere.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use serde_json::json;
use tokio::time::Instant;

use crate::{pool::JOINS, support::installed::create};

pub(crate) const IMAGE: &str = "registry.example/tenant:1";
/// What it leaves in its log, its volume, its writable layer, and the runtime's database.
pub(crate) const WORDS: [&str; 4] =
    ["PLANT-tenant-log", "PLANT-tenant-volume", "PLANT-tenant-layer", "PLANT-tenant-env"];

const WORK: &str = "n=0
while :; do
    n=$((n + 1))
    echo PLANT-tenant-log $n
    echo PLANT-tenant-volume $n >> /scratch/work
    echo PLANT-tenant-layer $n >> /work
    /bin/sleep 0.1
done";

/// A pod that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) container: String,
    pub(crate) restarts: i32,
}

/// Puts one on a node, past the scheduler, with an image that must be there already; and waits until it runs.
pub(crate) async fn put(client: &Client, name: &str, node: &str) -> Seen {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let pod = json!({
        "metadata": { "name": name },
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false,
            "volumes": [{ "name": "scratch", "emptyDir": {} }],
            "containers": [{
                "name": "tenant", "image": IMAGE, "imagePullPolicy": "Never",
                "command": ["/bin/sh", "-c", WORK],
                "env": [{ "name": "SECRET", "value": "PLANT-tenant-env" }],
                "volumeMounts": [{ "name": "scratch", "mountPath": "/scratch" }],
            }],
        },
    });
    create(&pods, pod).await;
    let began = Instant::now();
    loop {
        let pod = pods.get(name).await.expect("the pod");
        if let Some(seen) = running(&pod) {
            return seen;
        }
        assert!(began.elapsed() < JOINS, "{name} does not run on {node}: {:?}", pod.status);
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

/// The same pod as it is now, which must be running.
pub(crate) async fn working(client: &Client, seen: &Seen) -> Seen {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let pod = pods.get(&seen.name).await.expect("the pod");
    running(&pod).unwrap_or_else(|| panic!("{} does not run any more: {:?}", seen.name, pod.status))
}

fn running(pod: &Pod) -> Option<Seen> {
    let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    status.state.as_ref()?.running.as_ref()?;
    Some(Seen {
        name: pod.metadata.name.clone()?,
        uid: pod.metadata.uid.clone()?,
        container: status.container_id.clone()?,
        restarts: status.restart_count,
    })
}
