//! Where copies are attached to a node by its instance: which volumes the policies let through, on a real API server.

use k8s_openapi::api::core::v1::PersistentVolume;
use kamino_wf::{
    clock::{Clock, SystemClock},
    cluster::{Attached, CleaningSpec, Cluster},
    model::{DiskId, NodeName, Profile, Region},
    permissions::Installation,
};
use kube::Api;
use serde_json::{Value, json};

use crate::{
    Helm,
    install::Release,
    policies::{attempt, client, refusal, refused},
    support::{cluster::shared, installed::until},
    tools,
};

#[tokio::test]
async fn volumes_are_disks_that_one_node_has_behind_a_number() {
    let (Some(_), Some(cluster)) = (tools(), shared()) else { return };
    let release = Release::new(cluster, Helm::Four).await;
    release.apply("install", &["cleaning.attach=instance"]);
    let at = Installation {
        namespace: release.namespace.clone(),
        clean_namespace: release.clean_namespace.clone(),
        service_account: "kamino-wf".to_owned(),
    };
    let installed = cluster.as_service_account(at.clone()).await;
    let (port, controller) = (installed.connect().await, client(&installed).await);

    let run = SystemClock.new_run();
    let name = format!("kwf-pool1-{run}");
    let node = NodeName::parse("pool1-vmss000001").expect("a name");
    let want = CleaningSpec {
        namespace: at.clean_namespace.clone(),
        run,
        disk: DiskId::new("00000000-1111-2222-3333-444444444444", "Nodes", &[&name]).expect("an id"),
        name: name.clone(),
        region: Region("West Europe".into()),
        zone: Some("1".into()),
        size_gib: 1,
        image: "registry.example/kamino-wf:0.1.0".into(),
        at: Some(Attached { node, path: "/dev/disk/azure/scsi1/lun63".into() }),
        profile: Profile::Kubeadm,
        nonce: "8f14e45f".into(),
    };
    let by_driver = json!({ "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": "kwf-example" },
        "spec": { "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Gi" }, "volumeMode": "Block",
            "csi": { "driver": "disk.csi.azure.com", "volumeHandle": "x" } } });
    until("the policies", async || refused(&attempt(&controller, &by_driver).await)).await;
    port.create_volume(&want).await.expect("it is let through");

    let volumes: Api<PersistentVolume> = Api::all(cluster.admin().await);
    let there = volumes.get(&name).await.expect("it is there");
    let uid = there.metadata.uid.clone().expect("a uid");
    let mut good = serde_json::to_value(there).expect("JSON");
    good["apiVersion"] = "v1".into();
    good["kind"] = "PersistentVolume".into();
    good["metadata"] = json!({ "name": format!("{name}-2"), "labels": good["metadata"]["labels"] });
    good["spec"]["claimRef"] = json!({ "namespace": at.clean_namespace, "name": format!("{name}-2") });
    good.as_object_mut().expect("an object").remove("status");
    assert!(attempt(&controller, &good).await.is_ok(), "{:?}", attempt(&controller, &good).await);
    let paths = ["/dev/sda", "/dev/disk/azure/scsi1/lunX", "/dev/disk/azure/scsi1/lun1/part1", "/"];
    let mut bad: Vec<Value> = Vec::new();
    for path in paths {
        let mut volume = good.clone();
        volume["spec"]["local"]["path"] = path.into();
        bad.push(volume);
    }
    let mut anywhere = good.clone();
    anywhere["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0]["key"] = "x".into();
    bad.push(anywhere);
    for volume in bad {
        let said = refusal(attempt(&controller, &volume).await, &volume["spec"].to_string());
        assert!(said.starts_with("the controller's volumes are disks that one node has"), "{said}");
    }
    port.delete_volume(&name, &uid).await.expect("a volume of ours may be deleted by us");
}
