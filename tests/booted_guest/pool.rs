//! A pool of one profile in the cluster that the tests share: what its machines are told, and what is asked of its nodes.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::{
    ByteString,
    api::{
        certificates::v1::CertificateSigningRequest,
        core::v1::{Node, NodeSystemInfo},
    },
};
use kamino_wf::model::{Bootstrap, Profile};
use kube::{Api, Client, api::ListParams};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    sync::{Mutex, MutexGuard},
    time::Instant,
};

use crate::{
    aks_engine,
    guest::{Disk, Form, text},
    kubeadm::Kubeadm,
    machine::{Identity, Machine},
    seed::Seed,
    support::{
        cluster::skipped,
        node::{
            image::Image,
            real_cluster::{self, RealCluster},
            settings::PAUSE,
        },
    },
    tenant,
};

/// Until a machine that is on is a node that is ready, or a pod on it runs. Ten seconds on an idle machine.
pub(crate) const JOINS: Duration = Duration::from_mins(3);

/// What the tests of this process share.
struct Shared {
    cluster: &'static RealCluster,
    seed: Seed,
    kubeadm: Kubeadm,
    base: PathBuf,
    /// Archives of the images that a donor has pulled.
    images: [PathBuf; 2],
}

/// A pool, and a folder for its disks.
pub(crate) struct Lab {
    pub(crate) cluster: &'static RealCluster,
    shared: &'static Shared,
    pub(crate) profile: Profile,
    folder: TempDir,
    for_new_machines: String,
    /// One pool at a time: two would need room for all their disks at once, and be no quicker on two cores.
    _turn: MutexGuard<'static, ()>,
}

/// A machine that is a node.
pub(crate) struct Joined {
    pub(crate) machine: Machine,
    pub(crate) uid: String,
    pub(crate) info: NodeSystemInfo,
    /// All of it that must not change by itself.
    pub(crate) node: Value,
}

impl Lab {
    /// None, and loudly, where machines can't be booted; in CI that is a failure.
    pub(crate) async fn new(profile: Profile) -> Option<Self> {
        static SHARED: OnceLock<Option<Shared>> = OnceLock::new();
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        let shared = SHARED.get_or_init(share).as_ref()?;
        let for_new_machines = match profile.bootstrap() {
            Bootstrap::Model => shared.kubeadm.user_data().to_owned(),
            Bootstrap::Disk => aks_engine::user_data(shared.cluster),
        };
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
        Some(Self { cluster: shared.cluster, shared, profile, folder, for_new_machines, _turn: turn })
    }

    pub(crate) fn base(&self, name: &str) -> Disk {
        let base = Disk { image: self.shared.base.join("disk.img"), form: Form::Gpt };
        base.copy_to(self.folder.path().join(name))
    }

    /// What the first machine of the pool is told.
    pub(crate) fn for_new_machines(&self) -> &str {
        &self.for_new_machines
    }

    /// What machines of the image are told: how to join (kubeadm), or nothing, since the model's custom data are gone.
    pub(crate) fn for_clones(&self) -> &str {
        match self.profile.bootstrap() {
            Bootstrap::Model => &self.for_new_machines,
            Bootstrap::Disk => aks_engine::NOTHING,
        }
    }

    pub(crate) async fn client(&self) -> Client {
        self.cluster.admin().await
    }

    pub(crate) async fn boot(&self, identity: Identity, disk: Disk, user_data: &str) -> Machine {
        let seed = self.shared.seed.tell(identity, user_data);
        Machine::boot(self.cluster, identity, disk, &seed).await
    }

    /// Waits until a machine has done all that it does at its first boot, without a failure, and its node is ready.
    pub(crate) async fn joined(&self, machine: Machine) -> Joined {
        self.joined_in_another_boot(machine, "").await
    }

    /// The same of one that has been here before: its node may say for a while what its kubelet said last in the boot before.
    pub(crate) async fn joined_in_another_boot(&self, machine: Machine, before: &str) -> Joined {
        let began = Instant::now();
        let state = machine.settled().await;
        assert_eq!(state, "running", "a failed unit: {}", machine.diagnosis());
        let nodes: Api<Node> = Api::all(self.client().await);
        loop {
            let node = nodes.get_opt(machine.identity.name).await.expect("the administrator may look").filter(ready);
            let info = node.as_ref().and_then(|node| node.status.as_ref()?.node_info.clone());
            if let (Some(node), Some(info)) = (node, info.filter(|info| info.boot_id != before)) {
                let uid = node.metadata.uid.clone().expect("a uid");
                return Joined { machine, uid, info, node: lasting(node) };
            }
            assert!(began.elapsed() < JOINS, "it does not become a node that is ready: {}", machine.diagnosis());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// What must not change by itself of a node.
    pub(crate) async fn node(&self, name: &str) -> Option<Value> {
        let nodes: Api<Node> = Api::all(self.client().await);
        nodes.get_opt(name).await.expect("the administrator may look").map(lasting)
    }

    /// A pod on the donor, with images that were pulled.
    pub(crate) async fn tenant(&self, machine: &Machine) -> tenant::Seen {
        for archive in &self.shared.images {
            machine.import(archive);
        }
        let name = machine.identity.name;
        tenant::put(&self.client().await, &format!("tenant-of-{name}"), name).await
    }

    /// What a donor has that must not be found in its image.
    pub(crate) fn secrets(&self, donor: &Machine) -> Vec<String> {
        let ssh = donor.read("etc/ssh/ssh_host_ed25519_key");
        let mut secrets = vec![ssh.lines().nth(2).expect("a line of the key").to_owned()];
        match self.profile.bootstrap() {
            Bootstrap::Model => {
                secrets.push(self.shared.kubeadm.secret.clone());
                secrets.push(line_of_key(&donor.shell("cat /var/lib/kubelet/pki/kubelet-client-current.pem")));
            }
            Bootstrap::Disk => {
                secrets.push(line_of_key(&donor.read("etc/kubernetes/certs/kubeletserver.key")));
                secrets.push("PLANT-custom-data".to_owned());
            }
        }
        secrets
    }

    /// The images of the donor's are there, and can be used.
    pub(crate) async fn has_cached_images(&self, machine: &Machine) {
        let images = machine.shell("ctr --namespace k8s.io images check --quiet");
        for image in [PAUSE, tenant::IMAGE] {
            assert!(images.lines().any(|line| line == image), "{image} is not cached: {images}");
        }
        let name = machine.identity.name;
        tenant::put(&self.client().await, &format!("tenant-of-{name}"), name).await;
    }

    pub(crate) async fn has_credentials_of_its_own(&self, clone: &Machine, donor: &Machine) {
        match self.profile.bootstrap() {
            Bootstrap::Model => {
                let script = "cat /var/lib/kubelet/pki/kubelet-client-current.pem";
                let (pem, of_donor) = (clone.shell(script), donor.shell(script));
                assert_ne!(pem, of_donor);
                let subject = format!("subject=O = system:nodes, CN = system:node:{}\n", clone.identity.name);
                assert_eq!(clone.shell(&format!("{script} | openssl x509 -noout -subject")), subject);
                assert!(self.was_signed(&pem).await, "no request of its own was approved and signed");
            }
            Bootstrap::Disk => {
                let path = "etc/kubernetes/certs/kubeletserver.crt";
                assert_ne!(clone.read(path), donor.read(path));
                let subject = clone.shell(&format!("openssl x509 -noout -subject -in /{path}"));
                assert_eq!(subject, format!("subject=CN = {}\n", clone.identity.name));
                for path in aks_engine::KEPT {
                    assert_eq!(clone.read(path), donor.read(path), "{path}");
                }
            }
        }
    }

    /// Whether one of the cluster's certificate requests was approved and has given this certificate.
    async fn was_signed(&self, pem: &str) -> bool {
        let requests: Api<CertificateSigningRequest> = Api::all(self.client().await);
        let requests = requests.list(&ListParams::default()).await.expect("the administrator may look").items;
        requests.into_iter().filter_map(|request| request.status).any(|status| {
            let approved = status.conditions.iter().flatten().any(|it| it.type_ == "Approved" && it.status == "True");
            let certificate = status.certificate.map(|ByteString(bytes)| String::from_utf8_lossy(&bytes).into_owned());
            approved && certificate.is_some_and(|it| pem.contains(it.trim()))
        })
    }
}

fn share() -> Option<Shared> {
    let nspawn = "/usr/bin/systemd-nspawn";
    if !Path::new(nspawn).exists() {
        skipped(&format!("a machine that boots needs {nspawn}: systemd-container"));
        return None;
    }
    let cluster = real_cluster::shared()?;
    let binaries = made_by("cluster-binaries")?;
    let base = made_by("guest-root")?;
    let kubeadm = Kubeadm::prepare(cluster, &binaries);
    let pause = Image::new().file("/pause", &binaries.join("pause")).entrypoint(&["/pause"]);
    let tenant = Image::new().program("/bin/sh", Path::new("/bin/dash")).program("/bin/sleep", Path::new("/bin/sleep"));
    let images = [(pause, PAUSE), (tenant, tenant::IMAGE)];
    let images = images.map(|(image, name)| image.write(name, &cluster.folder).expect("an archive"));
    Some(Shared { cluster, seed: Seed::serve(cluster), kubeadm, base, images })
}

/// The folder that a script has made.
fn made_by(script: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(script);
    let output = Command::new(path).output().expect("the script starts");
    if !output.status.success() {
        skipped(&format!("scripts/{script} failed: {}", String::from_utf8_lossy(&output.stderr)));
        return None;
    }
    Some(PathBuf::from(text(&output).trim()))
}

/// The taint of a node that is not ready is taken away a moment after it says that it is.
fn ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    conditions.into_iter().any(|it| it.type_ == "Ready" && it.status == "True") && taints.count() == 0
}

/// A node without heartbeats and counters: identity, whether it is schedulable, since when it is ready, and its boot.
fn lasting(node: Node) -> Value {
    let status = node.status.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let ready = conditions.into_iter().find(|it| it.type_ == "Ready");
    json!({
        "uid": node.metadata.uid,
        "spec": node.spec,
        "nodeInfo": status.node_info,
        "ready": ready.map(|it| (it.status, it.last_transition_time)),
    })
}

/// One line of the private key of a file, long enough to be nothing else.
pub(crate) fn line_of_key(pem: &str) -> String {
    let key = pem.lines().skip_while(|line| !line.contains("PRIVATE KEY")).nth(1);
    key.filter(|line| line.len() > 40).expect("a line of the key").to_owned()
}

pub(crate) fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

/// For whoever wants to know where the time goes.
pub(crate) fn since(began: Instant, what: &str) {
    let _ = writeln!(std::io::stdout(), "{:5.1} s: {what}", began.elapsed().as_secs_f64());
}
