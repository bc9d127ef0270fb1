//! The cleaning pod as it is in users' clusters: the product's objects, the product's image, a raw block volume.

use std::time::Duration;

use kamino_wf::{
    clock::{Clock, SystemClock},
    cluster::{CleaningSpec, Cluster, PodPhase},
    model::{DiskId, Profile, Region},
    permissions::KUBERNETES,
};
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    guest::{Form, Lab},
    plant::plant,
    support::{installed::until, node::servers::NODE, world::CLEANER_IMAGE},
    with_product,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cleaning_pod_cleans_a_raw_block_volume_and_its_report_arrives() {
    let Some(lab) = Lab::new() else { return };
    let Some(cluster) = with_product() else { return };
    let disk = lab.base(Form::Gpt, "copied.img");
    let words = plant(&disk, "kubeadm");
    assert!(words.iter().all(|word| disk.planted().contains_key(word)), "control: the disk holds them all");

    let installed = cluster.service_account_kubeconfig(KUBERNETES).await;
    let port = installed.connect().await;
    let run = SystemClock.new_run();
    let name = format!("kwf-pool1-{run}");
    let want = CleaningSpec {
        namespace: installed.at.clean_namespace.clone(),
        run,
        disk: DiskId::new("00000000-1111-2222-3333-444444444444", "Nodes", &[&name]).expect("an id"),
        name,
        region: Region("West Europe".into()),
        zone: Some("2".into()),
        size_gib: 1,
        image: CLEANER_IMAGE.to_owned(),
        profile: Profile::Kubeadm,
        nonce: "8f14e45f".into(),
    };
    cluster.place_disk(want.disk.as_str(), &disk.image);
    port.create_volume(&want).await.expect("a volume");
    port.create_claim(&want).await.expect("a claim");
    port.create_pod(&want).await.expect("a pod");

    let began = Instant::now();
    let pod = async || port.cleaning(&want.namespace, &want.name).await.expect("a look").pod.expect("the pod");
    until("the pod's end", async || matches!(pod().await.phase, PodPhase::Succeeded | PodPhase::Failed(_))).await;
    let ended = pod().await;
    assert!(began.elapsed() < Duration::from_secs(30));
    let report: Value = serde_json::from_str(ended.report.as_deref().unwrap_or_default()).expect("a report");
    assert_eq!((&ended.phase, ended.exit_code), (&PodPhase::Succeeded, Some(0)), "{ended:?}");
    assert_eq!(ended.node.as_deref(), Some(NODE), "{ended:?}");
    assert_eq!((&report["verdict"], &report["nonce"]), (&"clean".into(), &"8f14e45f".into()), "{report}");
    assert!(report["trimmed_bytes"].as_u64() > Some(0), "the volume passes discard on: {report}");

    // As the product does it.
    let view = port.cleaning(&want.namespace, &want.name).await.expect("a look");
    port.delete_pod(&want.namespace, &want.name, &ended.owned.uid).await.expect("deleted");
    let uid = view.claim.expect("the claim").uid;
    port.delete_claim(&want.namespace, &want.name, &uid).await.expect("deleted");
    port.delete_volume(&want.name, &view.volume.expect("the volume").uid).await.expect("deleted");
    until("the volume to be detached", async || disk.loops().is_empty()).await;
    assert!(disk.planted().is_empty(), "readable in the raw image: {:?}", disk.planted());
}
