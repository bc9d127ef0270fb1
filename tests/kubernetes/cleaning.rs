//! Volume, claim and pod of a cleaning, bound by the real controllers and run by the stand-in kubelet.

use std::fs;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kamino_wf::{
    cluster::{Cluster, ClusterError, PodPhase},
    permissions::KUBERNETES,
};
use kube::Api;
use serde_json::{Value, json};

use crate::{
    cleaner_and_disk, spec,
    support::{
        cluster::shared,
        installed::{TestNode, create, until},
        kubelet::Kubelet,
    },
};

/// The whole life of a cleaning: each step is seen before the next, every object goes by its uid and not before its user.
#[tokio::test]
async fn a_cleaning_from_volume_to_nothing() {
    let Some(cluster) = shared() else { return };
    let installed = cluster.service_account_kubeconfig(KUBERNETES).await;
    let port = installed.connect().await;
    let want = spec(&installed);
    let (namespace, name) = (want.namespace.as_str(), want.name.as_str());
    cluster.add_node(&TestNode::new("worker")).await;
    let folder = tempfile::tempdir().expect("a folder");
    let script = "printf 'cleaned %s' \"$*\" > \"$3\"; echo noted > /run/kamino-wf/note; \
                  printf '{\"nonce\":\"%s\"}' \"$9\" > /dev/termination-log";
    let (cleaner, disk) = cleaner_and_disk(folder.path(), script);
    let kubelet = Kubelet::start(cluster, namespace, "worker", &cleaner);
    // Azure writes the same id in another case at times.
    kubelet.put_disk(&want.disk.as_str().to_uppercase(), &disk);

    let nothing = port.cleaning(namespace, name).await.expect("a look");
    assert!(nothing.volume.is_none() && nothing.claim.is_none() && nothing.pod.is_none(), "{nothing:?}");
    port.create_volume(&want).await.expect("a volume");
    port.create_claim(&want).await.expect("a claim");
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(cluster.admin().await, namespace);
    until("the claim to be bound", async || {
        let claim = claims.get(name).await.expect("the claim");
        claim.status.is_some_and(|status| status.phase.as_deref() == Some("Bound"))
    })
    .await;
    port.create_pod(&want).await.expect("a pod");
    for twice in [port.create_volume(&want).await, port.create_claim(&want).await, port.create_pod(&want).await] {
        assert!(matches!(twice, Err(ClusterError::Exists { .. })), "{twice:?}");
    }

    let look = async || port.cleaning(namespace, name).await.expect("a look");
    until("the pod to succeed", async || look().await.pod.is_some_and(|pod| pod.phase == PodPhase::Succeeded)).await;
    let seen = look().await;
    let pod = seen.pod.expect("the pod");
    assert_eq!((pod.report.as_deref(), pod.exit_code), (Some("{\"nonce\":\"8f14e45f\"}"), Some(0)));
    assert_eq!((pod.node.as_deref(), pod.owned.run.as_deref()), (Some("worker"), Some(want.run.short().as_str())));
    let written = fs::read(&disk).expect("the disk");
    let expected = format!("cleaned clean --device /dev/kwf --profile kubeadm --run {} --nonce 8f14e45f", want.run.0);
    assert!(written.starts_with(expected.as_bytes()), "the pod's own arguments, on the disk");
    assert_eq!(kubelet.started().len(), 1, "run once");

    // Each by its own uid only.
    let (claim, volume) = (seen.claim.expect("the claim"), seen.volume.expect("the volume"));
    for wrong in [
        port.delete_pod(namespace, name, &claim.uid).await,
        port.delete_claim(namespace, name, &volume.uid).await,
        port.delete_volume(name, &claim.uid).await,
    ] {
        assert!(matches!(wrong, Err(ClusterError::Preempted { .. })), "{wrong:?}");
    }
    // In the wrong order: volume and claim are marked, and stay while something uses them.
    port.delete_volume(name, &volume.uid).await.expect("accepted");
    let held = look().await;
    assert!(held.volume.expect("the claim holds it").deleting && !held.claim.expect("the claim").deleting);
    port.delete_claim(namespace, name, &claim.uid).await.expect("accepted");
    port.delete_pod(namespace, name, &pod.owned.uid).await.expect("accepted");
    assert!(look().await.pod.is_none(), "a pod without grace goes at once");
    until("claim and volume to go", async || {
        let seen = look().await;
        seen.claim.is_none() && seen.volume.is_none()
    })
    .await;
    // Once more: what is gone is no error.
    port.delete_pod(namespace, name, &pod.owned.uid).await.expect("gone already");
    port.delete_claim(namespace, name, &claim.uid).await.expect("gone already");
    port.delete_volume(name, &volume.uid).await.expect("gone already");
    assert!(disk.exists(), "the disk stays");

    let mut writes: Vec<(String, String)> = cluster
        .audit()
        .await
        .into_iter()
        .filter(|entry| entry.user == installed.user && entry.is_write())
        .map(|entry| (entry.verb, entry.resource))
        .collect();
    writes.sort();
    writes.dedup();
    let pair = |verb: &str, resource: &str| (verb.to_owned(), resource.to_owned());
    let kinds = ["persistentvolumeclaims", "persistentvolumes", "pods"];
    let expected: Vec<_> = ["create", "delete"].iter().flat_map(|verb| kinds.map(|kind| pair(verb, kind))).collect();
    assert_eq!(writes, expected, "nothing else was written, to a Node least of all");
}

#[tokio::test]
async fn what_somebody_else_made_is_seen_as_foreign() {
    let Some(cluster) = shared() else { return };
    let installed = cluster.service_account_kubeconfig(KUBERNETES).await;
    let port = installed.connect().await;
    let want = spec(&installed);
    let admin = cluster.admin().await;
    let object =
        |labels: Value, spec: Value| json!({ "metadata": { "name": want.name, "labels": labels }, "spec": spec });
    let storage = json!({ "storage": "1Gi" });
    let volumes: Api<PersistentVolume> = Api::all(admin.clone());
    let csi = json!({ "driver": "disk.csi.azure.com", "volumeHandle": "theirs" });
    let volume = json!({ "accessModes": ["ReadWriteOnce"], "capacity": storage, "csi": csi });
    create(&volumes, object(json!({ "kamino-wf.io/run": "ba9876543210" }), volume)).await;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(admin.clone(), &want.namespace);
    let claim =
        json!({ "accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": { "requests": storage } });
    create(&claims, object(json!({ "kamino-wf.io/run": "not-a-run" }), claim)).await;
    let pods: Api<Pod> = Api::namespaced(admin, &want.namespace);
    create(&pods, object(json!({}), json!({ "containers": [{ "name": "theirs", "image": "theirs" }] }))).await;

    for exists in [port.create_volume(&want).await, port.create_claim(&want).await, port.create_pod(&want).await] {
        assert!(matches!(exists, Err(ClusterError::Exists { .. })), "{exists:?}");
    }
    let seen = port.cleaning(&want.namespace, &want.name).await.expect("a look");
    assert_eq!(seen.volume.expect("the volume").run.as_deref(), Some("ba9876543210"));
    assert_eq!(seen.claim.expect("the claim").run, None);
    assert_eq!(seen.pod.expect("the pod").owned.run, None);
}
