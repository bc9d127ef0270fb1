//! The product as users have it: the image that `scripts/image` builds, on the node, and its cleaning pod.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use kamino_wf::{
    clock::{Clock, SystemClock},
    cluster::{Attached, CleaningPod, CleaningSpec, Cluster, PodPhase},
    model::{DiskId, Profile, Region},
    permissions::KUBERNETES,
};
use serde_json::Value;
use tokio::time::{Duration, Instant, sleep};

use super::{super::installed::until, real_cluster::RealCluster};

/// What `scripts/image` calls it.
pub const REPOSITORY: &str = "localhost/kamino-wf";

/// The path that a script of ours prints last.
pub fn script(path: &str) -> PathBuf {
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).stderr(Stdio::inherit()).output();
    let Output { status, stdout, .. } = output.expect("the script starts");
    assert!(status.success(), "{path} ended with {status}; see its words above");
    String::from_utf8_lossy(&stdout).lines().last().expect("a path").into()
}

impl RealCluster {
    /// Loads the product's image into the node, once.
    pub fn import_product(&self) {
        static IMPORTED: OnceLock<()> = OnceLock::new();
        IMPORTED.get_or_init(|| self.import_archive(&script("scripts/image")));
    }

    /// Cleans a copied disk as the product does: with its rights, by its volume, claim and pod, in its image. Says how the pod
    /// ended, and its report. The disk is detached again when this returns.
    pub async fn clean_by_pod(&self, image: &Path, profile: Profile) -> (CleaningPod, Value) {
        self.clean_by_pod_at(image, profile, None).await
    }

    /// The same of a disk that the node has at a path already, if there is one: by a local volume instead of the driver.
    pub async fn clean_by_pod_at(&self, image: &Path, profile: Profile, at: Option<Attached>) -> (CleaningPod, Value) {
        self.import_product();
        let port = self.service_account_kubeconfig(KUBERNETES).await;
        let namespace = port.at.clean_namespace.clone();
        let port = port.connect().await;
        let run = SystemClock.new_run();
        let name = format!("kwf-pool1-{run}");
        let want = CleaningSpec {
            namespace: namespace.clone(),
            run,
            disk: DiskId::new("00000000-1111-2222-3333-444444444444", "Nodes", &[&name]).expect("an id"),
            name: name.clone(),
            region: Region("West Europe".into()),
            zone: Some("2".into()),
            size_gib: 4,
            image: format!("{REPOSITORY}:{}", env!("CARGO_PKG_VERSION")),
            at: at.clone(),
            profile,
            nonce: "8f14e45f".into(),
        };
        if at.is_none() {
            self.place_disk(want.disk.as_str(), image);
        }
        port.create_volume(&want).await.expect("a volume");
        port.create_claim(&want).await.expect("a claim");
        port.create_pod(&want).await.expect("a pod");
        let view = async || port.cleaning(&namespace, &name).await.expect("a look");
        let pod = async || view().await.pod.expect("the pod");
        until("the pod's end", async || matches!(pod().await.phase, PodPhase::Succeeded | PodPhase::Failed(_))).await;
        let ended = pod().await;
        let report = serde_json::from_str(ended.report.as_deref().unwrap_or_default()).unwrap_or(Value::Null);

        let seen = view().await;
        port.delete_pod(&namespace, &name, &ended.owned.uid).await.expect("deleted");
        port.delete_claim(&namespace, &name, &seen.claim.expect("the claim").uid).await.expect("deleted");
        port.delete_volume(&name, &seen.volume.expect("the volume").uid).await.expect("deleted");
        // The driver's device of the image, or the kubelet's own on top of that at the path.
        let below = at.map_or_else(|| image.to_owned(), |at| std::fs::canonicalize(at.path).expect("the device"));
        let detached = || {
            let loops = Command::new("losetup").arg("-j").arg(&below).output().expect("losetup runs");
            loops.stdout.is_empty()
        };
        // A kubelet that is busy with other pods comes to it late.
        let patience = Instant::now() + Duration::from_mins(3);
        while !detached() {
            assert!(Instant::now() < patience, "{} is still attached", below.display());
            sleep(Duration::from_millis(250)).await;
        }
        (ended, report)
    }
}
