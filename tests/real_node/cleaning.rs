//! The cleaning pod as it is in users' clusters: the product's objects, the product's image, a raw block volume.

use kamino_wf::{cluster::PodPhase, model::Profile};

use crate::{
    guest::{Form, Lab},
    plant::plant,
    support::node::{real_cluster::shared, servers::NODE},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cleaning_pod_cleans_a_raw_block_volume_and_its_report_arrives() {
    let Some(lab) = Lab::new() else { return };
    let Some(cluster) = shared() else { return };
    let disk = lab.base(Form::Gpt, "copied.img");
    let words = plant(&disk, "kubeadm");
    assert!(words.iter().all(|word| disk.planted().contains_key(word)), "control: the disk holds them all");

    let (ended, report) = cluster.clean_by_pod(&disk.image, Profile::Kubeadm).await;
    assert_eq!((&ended.phase, ended.exit_code), (&PodPhase::Succeeded, Some(0)), "{ended:?}");
    assert_eq!(ended.node.as_deref(), Some(NODE), "{ended:?}");
    assert_eq!((&report["verdict"], &report["nonce"]), (&"clean".into(), &"8f14e45f".into()), "{report}");
    assert!(report["trimmed_bytes"].as_u64() > Some(0), "the volume passes discard on: {report}");
    assert!(disk.planted().is_empty(), "readable in the raw image: {:?}", disk.planted());
}
