//! The stand-in kubelet itself: what the other tests, and those of the whole product, rest on.

use std::{fs, process::Command, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kamino_wf::{
    cluster::{CleaningPod, CleaningSpec, Cluster, PodPhase, kubernetes::KubernetesCluster},
    permissions::KUBERNETES,
};
use kube::{Api, api::DeleteParams};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    cleaner_and_disk, spec,
    support::{
        cluster::shared,
        installed::{TestNode, create, until},
        kubelet::Kubelet,
    },
};

/// A namespace with a kubelet of its own, and a disk that is not claimed yet.
struct Ward {
    port: KubernetesCluster,
    want: CleaningSpec,
    kubelet: Kubelet,
    pods: Api<Pod>,
    folder: TempDir,
}

impl Ward {
    /// `script` is what `kamino-wf` means there.
    async fn new(node: &str, script: &str) -> Option<Self> {
        let cluster = shared()?;
        let installed = cluster.service_account_kubeconfig(KUBERNETES).await;
        let (port, want) = (installed.connect().await, spec(&installed));
        cluster.add_node(&TestNode::new(node)).await;
        let folder = tempfile::tempdir().expect("a folder");
        let (cleaner, disk) = cleaner_and_disk(folder.path(), script);
        let kubelet = Kubelet::start(cluster, &want.namespace, node, &cleaner);
        kubelet.put_disk(want.disk.as_str(), &disk);
        let pods = Api::namespaced(cluster.admin().await, &want.namespace);
        Some(Self { port, want, kubelet, pods, folder })
    }

    /// The product's own objects.
    async fn clean(&self) {
        self.port.create_volume(&self.want).await.expect("a volume");
        self.port.create_claim(&self.want).await.expect("a claim");
        self.port.create_pod(&self.want).await.expect("a pod");
    }

    /// A pod of the test's own, with a shell script; `container` and `spec` are merged into its own.
    async fn run(&self, script: &str, container: Value, spec: Value) {
        let mut own = json!({ "name": "c", "image": "i", "command": ["/bin/sh", "-c", script],
            "securityContext": { "privileged": true, "readOnlyRootFilesystem": true } });
        merge(&mut own, container);
        let mut pod = json!({ "restartPolicy": "Never", "automountServiceAccountToken": false, "containers": [own] });
        merge(&mut pod, spec);
        create(&self.pods, json!({ "metadata": { "name": self.want.name }, "spec": pod })).await;
    }

    async fn pod(&self) -> Option<CleaningPod> {
        self.port.cleaning(&self.want.namespace, &self.want.name).await.expect("a look").pod
    }

    async fn until(&self, what: &str, mut so: impl FnMut(&CleaningPod) -> bool) -> CleaningPod {
        let mut last = None;
        until(what, async || {
            let pod = self.pod().await;
            if last != pod {
                eprintln!("{pod:?}");
                last.clone_from(&pod);
            }
            pod.is_some_and(|pod| so(&pod))
        })
        .await;
        self.pod().await.expect("the pod")
    }

    async fn until_pending(&self, why: &str) {
        let pod = self.until(why, |pod| matches!(&pod.phase, PodPhase::Pending(text) if text.contains(why))).await;
        assert!(self.kubelet.started().is_empty(), "nothing runs: {pod:?}");
    }

    async fn until_ended(&self) -> CleaningPod {
        self.until("the pod's end", |pod| matches!(pod.phase, PodPhase::Succeeded | PodPhase::Failed(_))).await
    }
}

fn merge(into: &mut Value, changes: Value) {
    if let Value::Object(changes) = changes {
        for (name, value) in changes {
            into[name] = value;
        }
    }
}

/// Whether a process with these words in its command line lives on this machine.
fn alive(words: &str) -> bool {
    let processes = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    let commands = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    commands.into_iter().any(|command| String::from_utf8_lossy(&command).replace('\0', " ").contains(words))
}

#[tokio::test]
async fn a_pod_sees_itself_and_nothing_of_the_machine() {
    let Some(ward) = Ward::new("contained", "").await else { return };
    let script = r#"{
        touch /mark 2>/dev/null && echo root-is-writable
        touch /usr/mark 2>/dev/null && echo usr-is-writable
        touch /tmp/mark || echo no-work-folder
        [ -e /home ] || [ -e /root ] || [ -e /etc/passwd ] && echo sees-files
        ls /dev | grep -E '^(vd|sd|nvme|mem|kmsg)' && echo sees-disks
        [ "$$" = 1 ] || echo is-not-first
        ls -d /proc/[0-9]* | wc -l | grep -qx '[1-5]' || echo sees-processes
        [ "$(grep -c : /proc/net/dev)" = 1 ] || echo sees-networks
        env | grep -v -E '^(PATH|HOSTNAME|PWD|SHLVL|_|OLDPWD)='
        true
    } > /dev/termination-log 2>&1"#;
    let container = json!({ "volumeMounts": [{ "name": "work", "mountPath": "/tmp" }] });
    let volumes = json!({ "volumes": [{ "name": "work", "emptyDir": {} }] });
    ward.run(script, container, volumes).await;
    let pod = ward.until_ended().await;
    assert_eq!((pod.phase, pod.report), (PodPhase::Succeeded, None), "nothing to report");
}

/// What the cleaner does: a loop device of its own on the volume, a file system mounted from it.
#[tokio::test]
async fn a_privileged_pod_can_mount_a_file_system_from_its_volume() {
    let script = "set -e; at=/run/kamino-wf/at; mkdir $at; mkfs.ext4 -q -F /dev/kwf > /dev/null; \
                  loop=$(losetup --find --show /dev/kwf); mount -t ext4 \"$loop\" $at; echo hello > $at/greeting; umount $at; losetup -d \"$loop\"";
    let Some(ward) = Ward::new("privileged", script).await else { return };
    ward.clean().await;
    let pod = ward.until_ended().await;
    assert_eq!(pod.phase, PodPhase::Succeeded, "{pod:?}");
    let disk = ward.folder.path().join("disk.img");
    let output = Command::new("debugfs").args(["-R", "cat /greeting"]).arg(&disk).output().expect("debugfs runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\n");
    until("the loop device to be detached", async || {
        let output = Command::new("losetup").arg("--associated").arg(&disk).output().expect("losetup runs");
        output.stdout.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_pod_that_is_not_privileged_has_no_loop_devices_and_mounts_nothing() {
    let Some(ward) = Ward::new("unprivileged", "").await else { return };
    let script = "mount -t tmpfs none /tmp && echo mounted > /dev/termination-log; \
                  [ ! -e /dev/loop-control ] || echo loops > /dev/termination-log";
    ward.run(script, json!({ "securityContext": {} }), json!({})).await;
    let pod = ward.until_ended().await;
    assert_eq!((pod.phase, pod.report), (PodPhase::Succeeded, None));
}

#[tokio::test]
async fn a_failure_without_a_message_shows_the_logs_end() {
    let Some(ward) = Ward::new("failing", "").await else { return };
    let policy = json!({ "terminationMessagePolicy": "FallbackToLogsOnError" });
    ward.run("seq 2000 >&2; exit 3", policy, json!({})).await;
    let pod = ward.until_ended().await;
    assert_eq!((pod.phase, pod.exit_code), (PodPhase::Failed("Error: exit code 3".into()), Some(3)));
    let report = pod.report.expect("the log's end");
    assert!(report.ends_with("1999\n2000") && report.lines().count() == 80, "{report}");
}

#[tokio::test]
async fn a_message_is_cut_to_4096_bytes() {
    let Some(ward) = Ward::new("verbose", "").await else { return };
    ward.run("head -c 5000 /dev/zero | tr '\\0' x > /dev/termination-log", json!({}), json!({})).await;
    assert_eq!(ward.until_ended().await.report.map(|report| report.len()), Some(4096));
}

#[tokio::test]
async fn a_pod_that_is_killed_or_too_slow_has_failed() {
    let Some(ward) = Ward::new("killed", "exec sleep 600").await else { return };
    ward.clean().await;
    ward.until("the pod to run", |pod| pod.phase == PodPhase::Running).await;
    ward.kubelet.kill(&ward.want.name);
    let pod = ward.until_ended().await;
    assert_eq!((pod.phase, pod.exit_code), (PodPhase::Failed("Error: exit code 137".into()), Some(137)));

    let Some(ward) = Ward::new("slow", "").await else { return };
    ward.run("sleep 600", json!({}), json!({ "activeDeadlineSeconds": 1 })).await;
    let PodPhase::Failed(why) = ward.until_ended().await.phase else { panic!("the deadline has passed") };
    assert!(why.starts_with("DeadlineExceeded"), "{why}");
}

#[tokio::test]
async fn deletion_ends_the_process_and_then_the_pod() {
    let Some(ward) = Ward::new("deleted", "exec sleep 601.25").await else { return };
    ward.clean().await;
    let pod = ward.until("the pod to run", |pod| pod.phase == PodPhase::Running).await;
    until("the process", async || alive("sleep 601.25")).await;
    ward.port.delete_pod(&ward.want.namespace, &ward.want.name, &pod.owned.uid).await.expect("accepted");
    assert_eq!(ward.pod().await, None, "at once");
    until("the process to be killed", async || !alive("sleep 601.25")).await;

    // With grace, it is told first, and its object goes last.
    let script = "trap 'sleep 0.5; exit 0' TERM; while :; do sleep 0.05; done # patient-602";
    ward.run(script, json!({}), json!({ "terminationGracePeriodSeconds": 30 })).await;
    ward.until("the pod to run", |pod| pod.phase == PodPhase::Running).await;
    until("the process", async || alive("patient-602")).await;
    ward.pods.delete(&ward.want.name, &DeleteParams::default()).await.expect("accepted");
    assert!(ward.pod().await.is_some_and(|pod| pod.owned.deleting), "marked, and still there");
    until("the pod to go", async || ward.pod().await.is_none()).await;
    assert!(!alive("patient-602"), "gone means ended");
}

#[tokio::test]
async fn a_pod_waits_for_its_claim_its_zone_and_its_disk() {
    let Some(mut ward) = Ward::new("waiting", "true").await else { return };
    ward.port.create_pod(&ward.want).await.expect("a pod");
    ward.until_pending("not found").await;
    ward.want.zone = Some("2".into());
    ward.port.create_volume(&ward.want).await.expect("a volume");
    ward.port.create_claim(&ward.want).await.expect("a claim");
    ward.until_pending("PersistentVolume's node affinity").await;

    let Some(mut ward) = Ward::new("diskless", "true").await else { return };
    ward.want.disk =
        kamino_wf::model::DiskId::new("00000000-1111-2222-3333-444444444444", "Nodes", &["other"]).expect("an id");
    ward.clean().await;
    ward.until_pending("FailedAttachVolume: AttachVolume.Attach failed for volume: no disk").await;
    ward.kubelet.delay_starts(Duration::from_hours(1));
    ward.kubelet.put_disk(ward.want.disk.as_str(), &ward.folder.path().join("disk.img"));
    tokio::time::sleep(Duration::from_millis(500)).await;
    ward.until_pending("FailedAttachVolume: AttachVolume.Attach failed for volume: no disk").await;
    ward.kubelet.delay_starts(Duration::ZERO);
    assert_eq!(ward.until_ended().await.phase, PodPhase::Succeeded);
}

#[tokio::test]
async fn a_lost_node_says_nothing_and_a_restarted_one_that_it_lost_the_container() {
    let Some(ward) = Ward::new("lost", "exec sleep 603.25").await else { return };
    let lease = async || {
        let name = kamino_wf::model::NodeName::parse("lost").expect("a name");
        ward.port.node(&name).await.expect("a look").expect("the node").lease_renewed
    };
    let before = TestNode::new("lost").lease_renewed;
    until("the lease to be renewed", async || lease().await > before).await;
    ward.clean().await;
    ward.until("the pod to run", |pod| pod.phase == PodPhase::Running).await;
    until("the process", async || alive("sleep 603.25")).await;
    let Ward { port, want, kubelet, folder, .. } = ward;
    drop(kubelet);
    assert!(!alive("sleep 603.25"), "what it ran died with it");
    let look = async || port.cleaning(&want.namespace, &want.name).await.expect("a look").pod.expect("the pod");
    assert_eq!(look().await.phase, PodPhase::Running, "as far as anybody knows");
    let cluster = shared().expect("the cluster of this test");
    let restarted = Kubelet::start(cluster, &want.namespace, "lost", &folder.path().join("cleaner"));
    until("the pod to fail", async || matches!(look().await.phase, PodPhase::Failed(_))).await;
    assert_eq!(look().await.phase, PodPhase::Failed("ContainerStatusUnknown: exit code 137".into()));
    assert!(restarted.started().is_empty(), "not run a second time");
}
