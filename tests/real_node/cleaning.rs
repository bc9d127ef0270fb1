//! The cleaning pod as it is in users' clusters: the product's objects, the product's image, a raw block volume.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use kamino_wf::{
    cluster::{Attached, PodPhase},
    model::{NodeName, Profile},
};

use tokio::sync::Mutex;

use crate::{
    guest::{Form, Lab, run, text},
    plant::plant,
    support::node::{real_cluster::shared, servers::NODE},
};

/// One after the other: each has the node mount, trim and let go of a whole disk.
static TURN: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cleaning_pod_cleans_a_raw_block_volume_and_its_report_arrives() {
    let _turn = TURN.lock().await;
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

/// A disk as udev shows one that was attached to the machine; gone when dropped.
struct Lun {
    link: PathBuf,
    device: String,
}

impl Lun {
    fn attach(image: &Path, number: u32) -> Self {
        let folder = Path::new("/dev/disk/azure/scsi1");
        fs::create_dir_all(folder).expect("a folder");
        let device = text(&run(Command::new("losetup").args(["--find", "--show"]).arg(image))).trim().to_owned();
        let link = folder.join(format!("lun{number}"));
        symlink(&device, &link).expect("a link");
        Self { link, device }
    }
}

impl Drop for Lun {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.link);
        let _ = Command::new("losetup").args(["--detach", &self.device]).status();
    }
}

/// `cleaning.attach: instance`: no driver is asked, and the kubelet takes the device that the node has at the path.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_the_node_has_already_is_cleaned_by_a_local_volume() {
    let _turn = TURN.lock().await;
    let Some(lab) = Lab::new() else { return };
    let Some(cluster) = shared() else { return };
    let disk = lab.base(Form::Gpt, "attached.img");
    let words = plant(&disk, "kubeadm");
    assert!(words.iter().all(|word| disk.planted().contains_key(word)), "control: the disk holds them all");

    let lun = Lun::attach(&disk.image, 61);
    let path = lun.link.to_str().expect("a plain path").to_owned();
    let at = Attached { node: NodeName::parse(NODE).expect("a name"), path };
    let (ended, report) = cluster.clean_by_pod_at(&disk.image, Profile::Kubeadm, Some(at)).await;
    assert_eq!((&ended.phase, ended.exit_code), (&PodPhase::Succeeded, Some(0)), "{ended:?}");
    assert_eq!(&report["verdict"], "clean", "{report}");
    drop(lun);
    assert!(disk.planted().is_empty(), "readable in the raw image: {:?}", disk.planted());
}
