//! A place to run the real binary in: Azure's face over a simulated world in real time, nodes in the real API server that
//! are that world's instances, an installation with the product's own rights, a stand-in kubelet, and a settings file.
//!
//! The nodes are the same for all sites of a test binary (they are only read); everything else is one site's own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod},
};
use kamino_wf::{
    clock::{Clock, SystemClock},
    cloud::{DiskState, Provisioning},
    model::ScaleSetId,
    permissions::{ClusterRight, Installation, KUBERNETES},
    sim::{
        Scene, Shared,
        arm::{ArmFace, ArmOptions, Effect, Logged},
        spec,
    },
};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{
    binary::{Binary, PRODUCT},
    cluster::{AuditEntry, TestCluster, admin},
    installed::{Installed, TestNode, until},
    kubelet::{CloudDisks, Kubelet},
    node::{
        disks::Attaching,
        namespace::NODE_ADDRESS,
        real_cluster::{RealCluster, ZONE},
    },
};

/// The world's pace: what takes Azure a minute takes 30 ms.
const SCALE: f64 = 0.0005;
/// On the way to Azure and back: enough for a process to be killed while it waits for an answer.
const WAY: Duration = Duration::from_millis(16);
/// How long Azure goes on calling a disk attached after its pod has gone; minutes, at the world's pace.
const DETACH_LAG: Duration = Duration::from_millis(150);
/// Between two renewals of the pool's leases; kubelets do it every ten seconds.
const BEAT: Duration = Duration::from_secs(5);
/// The node outside the pool that takes cleaning pods, in the zone of the best donor.
const WORKER: &str = "worker";

/// A node like it in the zone of another.
fn worker_near(node: &str) -> String {
    format!("{WORKER}-near-{node}")
}

/// Writes a report as the cleaner does, and cleans nothing; it only leaves a word on the disk.
const QUICK_CLEANER: &str = r#"#!/bin/sh
[ "$1 $2 $4 $6 $8" = "clean --device --profile --run --nonce" ] || exit 64
printf 'cleaned for %s' "$7" > "$3"
printf '{"run":"%s","nonce":"%s","verdict":"clean"}' "$7" "$9" > /dev/termination-log
"#;

/// What the settings call the cleaner's image. A stand-in doesn't look at it.
pub const CLEANER_IMAGE: &str = "registry.example/kamino-wf:test";

/// Who cleans.
#[derive(Debug, Clone)]
pub enum Cleaner {
    /// A script that says that it has, on a disk of one mebibyte.
    Quick,
    /// The product, on a copy of this image.
    Real(PathBuf),
}

/// What a site is made from.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The scale set follows the definition already, and there are versions from before.
    pub adopted: bool,
    pub cleaner: Cleaner,
    pub rights: Vec<ClusterRight>,
    /// In real seconds for a simulated one.
    pub scale: f64,
    /// On the way to Azure and back.
    pub way: Duration,
    /// The node whose zone the stand-in kubelet is in; the best donor if none is said.
    pub donor: Option<&'static str>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            adopted: false,
            cleaner: Cleaner::Quick,
            rights: KUBERNETES.to_vec(),
            scale: SCALE,
            way: WAY,
            donor: None,
        }
    }
}

/// Disks of the world as files, and who has attached them.
#[derive(Debug, Default)]
struct Disks {
    attached: BTreeSet<String>,
    images: BTreeMap<String, PathBuf>,
}

/// Where cleaning pods run.
pub enum Cleaning {
    StandIn(Kubelet),
    /// Its kubelet runs them; the cloud attaches the disks.
    RealNode(Attaching),
}

impl Cleaning {
    /// How many were begun so far.
    pub fn begun(&self) -> usize {
        match self {
            Self::StandIn(kubelet) => kubelet.started().len(),
            Self::RealNode(attaching) => attaching.attached().len(),
        }
    }
}

/// All of it.
pub struct Site {
    pub cluster: &'static TestCluster,
    pub installed: Installed,
    pub world: Arc<Shared>,
    pub face: ArmFace,
    pub scene: Scene,
    pub binary: Binary,
    pub store: PathBuf,
    pub config: PathBuf,
    pub cleaning: Cleaning,
    disks: Arc<Mutex<Disks>>,
    pub folder: tempfile::TempDir,
}

fn scene(adopted: bool, scale: f64) -> Scene {
    Scene { seed: 7, adopted, scale, start: SystemClock.now(), ..Scene::nominal() }
}

/// The nodes are made once, whichever test comes first.
static POOL: OnceCell<()> = OnceCell::const_new();

impl Site {
    /// With a stand-in for the kubelet that runs cleaning pods.
    pub async fn new(cluster: &'static TestCluster, plan: Plan) -> Self {
        let installed = cluster.service_account_kubeconfig(&plan.rights).await;
        Self::with(cluster, plan, installed, None, |installed, plan, disks| {
            let folder = disks.folder.parent().expect("the site's folder");
            let program = match &plan.cleaner {
                Cleaner::Real(_) => PathBuf::from(PRODUCT),
                Cleaner::Quick => {
                    let script = folder.join("quick-cleaner");
                    fs::write(&script, QUICK_CLEANER).expect("a script");
                    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
                    fs::set_permissions(&script, executable).expect("an executable script");
                    script
                }
            };
            let worker = plan.donor.map_or_else(|| WORKER.to_owned(), worker_near);
            let kubelet = Kubelet::start(cluster, &installed.at.clean_namespace, &worker, &program);
            kubelet.attach_by(disks.cloud());
            Cleaning::StandIn(kubelet)
        })
        .await
    }

    /// With a real node, which cleans by its image of [`CLEANER_IMAGE`].
    pub async fn on(cluster: &'static RealCluster, plan: Plan) -> Self {
        let installed = cluster.service_account_kubeconfig(&plan.rights).await;
        Self::on_as(cluster, plan, installed, None).await
    }

    /// With a real node on which the product is installed by its chart, and reaches Azure from its pod.
    pub async fn charted(cluster: &'static RealCluster, plan: Plan, at: Installation) -> Self {
        let user = format!("system:serviceaccount:{}:{}", at.namespace, at.service_account);
        // Its token is the kubelet's to give.
        let installed = Installed { at, kubeconfig: PathBuf::from("/dev/null"), user };
        let site = Self::on_as(cluster, plan, installed, Some(NODE_ADDRESS)).await;
        cluster.address_for_pods(site.face.address().port());
        site
    }

    async fn on_as(cluster: &'static RealCluster, plan: Plan, installed: Installed, known_as: Option<&str>) -> Self {
        let world = scene(false, SCALE).world();
        let donor = world.nodes.iter().max_by_key(|node| node.ready_since).expect("a node");
        assert_eq!(donor.zone.as_ref().map(|zone| format!("westeurope-{zone}")).as_deref(), Some(ZONE));
        let cleaning = |_: &_, _: &_, disks: CloudFolder| Cleaning::RealNode(cluster.attach_by(disks.cloud()));
        Self::with(cluster, plan, installed, known_as, cleaning).await
    }

    async fn with(
        cluster: &'static TestCluster,
        plan: Plan,
        installed: Installed,
        known_as: Option<&str>,
        cleaning: impl FnOnce(&Installed, &Plan, CloudFolder) -> Cleaning,
    ) -> Self {
        POOL.get_or_init(|| pool(cluster)).await;

        let folder = tempfile::Builder::new().prefix("kwf-e2e-").tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let scene = scene(plan.adopted, plan.scale);
        let world = scene.world();
        let clock = Arc::new(world.clock.clone());
        let world = Shared::new(world);
        let known_as = known_as.map(str::to_owned);
        let options = ArmOptions { page_size: 3, way: plan.way, known_as, ..ArmOptions::new(&at("ca.pem")) };
        let face = ArmFace::serve(Arc::clone(&world), clock, &options).await.expect("a face");

        fs::write(at("token"), "a-federated-token\n").expect("a token file");
        fs::create_dir(at("disks")).expect("a folder");
        let disks: Arc<Mutex<Disks>> = Arc::default();
        let base = match &plan.cleaner {
            Cleaner::Real(image) => Some(image.clone()),
            Cleaner::Quick => None,
        };
        let cloud = CloudFolder { world: Arc::clone(&world), disks: Arc::clone(&disks), folder: at("disks"), base };
        let cleaning = cleaning(&installed, &plan, cloud);

        let store = at("store");
        let config = at("config.yaml");
        let site = Self {
            cluster,
            binary: Binary::new(folder.path(), &config),
            installed,
            world,
            face,
            scene,
            store,
            config,
            cleaning,
            disks,
            folder,
        };
        site.configure(|_| {});
        site
    }

    /// A stand-in for the kubelet of another node as well, with the same disks.
    pub fn kubelet_on(&self, node: &str) -> Kubelet {
        let kubelet = Kubelet::start(self.cluster, &self.installed.at.clean_namespace, node, &self.program());
        let folder = self.folder.path().join("disks");
        let (world, disks) = (Arc::clone(&self.world), Arc::clone(&self.disks));
        kubelet.attach_by(CloudFolder { world, disks, folder, base: None }.cloud());
        kubelet
    }

    /// What cleaning pods run, unless they really clean.
    fn program(&self) -> PathBuf {
        self.folder.path().join("quick-cleaner")
    }

    /// Writes the settings, changed as the test wants them. JSON is YAML.
    pub fn configure(&self, change: impl FnOnce(&mut Value)) {
        let spec = spec(&self.scene);
        let at = |name: &str| self.folder.path().join(name);
        let mut settings = json!({
            "store": self.store,
            "azure": { "resourceManager": self.face.url(), "authority": self.face.url(), "caBundle": at("ca.pem"),
                "credential": "workload-identity", "tenant": "tenant.example", "client": "client",
                "tokenFile": at("token") },
            "kubernetes": { "kubeconfig": self.installed.kubeconfig },
            "polling": { "first": "20ms", "longest": "150ms", "settle": "500ms" },
            "cleaning": { "namespace": self.installed.at.clean_namespace, "image": CLEANER_IMAGE },
            "pools": [{ "name": "pool1", "scaleSet": spec.scale_set.to_string(), "profile": "kubeadm",
                "gallery": spec.gallery.to_string(), "regions": ["northeurope"], "keep": 2, "keepFor": "0s" }],
        });
        change(&mut settings);
        fs::write(&self.config, settings.to_string()).expect("a settings file");
    }

    pub fn scale_set(&self) -> ScaleSetId {
        spec(&self.scene).scale_set
    }

    /// Changes the model as somebody else might.
    pub fn change_model(&self, pointer: &str, value: Value) {
        let mut world = self.world.world();
        let set = world.scale_sets.get_mut(&self.scale_set().key()).expect("the scale set");
        *set.value.pointer_mut(pointer).expect("the field") = value;
    }

    /// The scale set as it was before the first update: what makes the next one change the model again.
    pub fn point_model_elsewhere(&self) {
        let image =
            json!({ "publisher": "Canonical", "offer": "ubuntu-24_04-lts", "sku": "server", "version": "latest" });
        self.change_model("/properties/virtualMachineProfile/storageProfile/imageReference", image);
    }

    /// The raw image of a disk that the kubelet has attached at some time, by the disk's id.
    pub fn image_of(&self, disk: &str) -> Option<PathBuf> {
        self.disks.lock().expect("a lock").images.get(&disk.to_ascii_lowercase()).cloned()
    }

    /// The raw images of all disks that the kubelet has attached.
    pub fn disks_seen(&self) -> Vec<PathBuf> {
        self.disks.lock().expect("a lock").images.values().cloned().collect()
    }

    /// Requests that changed something or tried to, oldest first.
    pub fn writes(&self) -> Vec<Logged> {
        self.face.requests().into_iter().filter(|it| it.effect != Effect::Read).collect()
    }

    /// What the product wrote or tried to write to the cluster.
    pub async fn cluster_writes(&self) -> Vec<AuditEntry> {
        let all = self.cluster.audit().await;
        all.into_iter().filter(|entry| entry.user == self.installed.user && entry.is_write()).collect()
    }

    /// What of any run is left, in Azure and in the cluster; published versions are what runs are for.
    pub async fn left(&self) -> Vec<String> {
        let admin = self.cluster.admin().await;
        let namespace = &self.installed.at.clean_namespace;
        let (all, here) = (ListParams::default(), namespace.as_str());
        let pods = Api::<Pod>::namespaced(admin.clone(), here).list(&all).await.expect("a list");
        let claims = Api::<PersistentVolumeClaim>::namespaced(admin.clone(), here).list(&all).await.expect("a list");
        let volumes = Api::<PersistentVolume>::all(admin).list(&all).await.expect("a list");
        let mut left: Vec<String> = Vec::new();
        left.extend(pods.items.into_iter().map(|it| format!("pod {:?}", it.metadata.name)));
        left.extend(claims.items.into_iter().map(|it| format!("claim {:?}", it.metadata.name)));
        let ours = |it: &PersistentVolume| {
            let claim = it.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
            claim.and_then(|claim| claim.namespace.as_ref()) == Some(namespace)
        };
        left.extend(volumes.items.into_iter().filter(ours).map(|it| format!("volume {:?}", it.metadata.name)));
        let world = self.world.world();
        left.extend(world.snapshots.keys().map(|key| format!("snapshot {key}")));
        left.extend(world.disks.iter().filter(|(_, it)| it.value.run.is_some()).map(|(key, _)| format!("disk {key}")));
        let unpublished = world.versions.iter().filter(|(_, it)| it.value.excluded_from_latest);
        left.extend(unpublished.map(|(key, _)| format!("version {key}")));
        left
    }

    /// Nothing was written to what is not ours: the donor's Node, instance and disk above all.
    pub async fn assert_donors_untouched(&self) {
        for entry in self.cluster_writes().await {
            let kind = entry.resource.split('/').next().unwrap_or_default();
            let cleaning = ["pods", "persistentvolumeclaims", "persistentvolumes"].contains(&kind);
            let own_lease = kind == "leases" && entry.namespace == self.installed.at.namespace;
            // Asking about its own rights is a "create" as well.
            let question = kind.starts_with("selfsubject");
            assert!(cleaning || own_lease || question, "a write: {entry:?}");
        }
        let world = self.world.world();
        assert_eq!(world.trespasses, Vec::<String>::new());
        assert!(world.untouchable.len() >= 6, "three donors, each an instance and a disk");
        // Which machine may be given the copy, and lose it again, is the test's to say.
        for write in self.writes().iter().filter(|it| !it.path.ends_with("/attachDetachDataDisks")) {
            let path = write.path.to_ascii_lowercase();
            let hit = world.untouchable.iter().find(|key| path.starts_with(key.as_str()));
            assert!(hit.is_none() && !path.contains("/virtualmachines/"), "a write to a donor: {write:?}");
        }
    }
}

/// The world's disks as files of a folder: a copy of `base` each, or an empty one.
struct CloudFolder {
    world: Arc<Shared>,
    disks: Arc<Mutex<Disks>>,
    folder: PathBuf,
    base: Option<PathBuf>,
}

impl CloudFolder {
    fn cloud(self) -> CloudDisks {
        let Self { world, disks, folder, base } = self;
        let attach = {
            let (world, disks) = (Arc::clone(&world), Arc::clone(&disks));
            move |id: &str| {
                let mut disks = disks.lock().expect("a lock");
                let mut world = world.world();
                let Some(disk) = world.disks.get_mut(id) else { return Err(format!("no disk {id}")) };
                let by_order = disk.value.attached_to.is_some();
                if disk.value.provisioning != Provisioning::Succeeded
                    || (disk.value.managed && !disks.attached.contains(id) && !by_order)
                {
                    return Err(format!("disk {id} can't be attached now: {:?}", disk.value));
                }
                (disk.value.state, disk.value.managed) = (DiskState::Attached, true);
                world.detaching.remove(id);
                if !by_order {
                    disks.attached.insert(id.to_owned());
                }
                drop(world);
                let name = id.rsplit('/').next().unwrap_or_default();
                let image = folder.join(format!("{name}.img"));
                if !image.exists() {
                    match &base {
                        Some(base) => {
                            let mut cp = std::process::Command::new("cp");
                            cp.args(["--sparse=always", "--reflink=auto"]).args([base, &image]);
                            assert!(
                                cp.stdin(Stdio::null()).status().is_ok_and(|it| it.success()),
                                "the image is copied"
                            );
                        }
                        None => fs::write(&image, vec![0; 1 << 20]).expect("a disk"),
                    }
                }
                disks.images.insert(id.to_owned(), image.clone());
                Ok(image)
            }
        };
        let behind = {
            let world = Arc::clone(&world);
            move |path: &str| {
                let lun: u32 = path.strip_prefix("/dev/disk/azure/scsi1/lun")?.parse().ok()?;
                let world = world.world();
                let found = world.attachments.iter().find(|(_, it)| it.lun == lun && it.due <= world.now())?;
                Some(found.0.clone())
            }
        };
        let detached = move |id: &str| {
            let mut world = world.world();
            if !disks.lock().expect("a lock").attached.remove(id) {
                // The order that has attached it is still good.
                return;
            }
            let until = world.now() + DETACH_LAG;
            world.detaching.insert(id.to_owned(), until);
        };
        CloudDisks { attach: Box::new(attach), behind: Box::new(behind), detached: Box::new(detached) }
    }
}

/// Makes the pool's nodes and workers in their zones, and keeps their leases fresh for as long as this process lives.
async fn pool(cluster: &'static TestCluster) {
    let world = scene(false, SCALE).world();
    let newest = world.nodes.iter().max_by_key(|node| node.ready_since).expect("a node");
    let zone = |zone: Option<&String>| format!("westeurope-{}", zone.expect("a zone"));
    let labels = |zone: &str| {
        let names = ["topology.kubernetes.io/zone", "topology.disk.csi.azure.com/zone"];
        names.map(|name| (name.to_owned(), zone.to_owned())).into()
    };
    let mut names = vec![WORKER.to_owned()];
    let worker = TestNode { labels: labels(&zone(newest.zone.as_ref())), ..TestNode::new(WORKER) };
    cluster.add_node(&worker).await;
    for node in &world.nodes {
        assert_ne!(node.provider_id.to_ascii_lowercase(), node.provider_id, "ids come in mixed case");
        let given = TestNode {
            provider_id: format!("azure://{}", node.provider_id),
            boot_id: node.boot_id.clone(),
            ready_since: node.ready_since.expect("ready"),
            labels: labels(&zone(node.zone.as_ref())),
            ..TestNode::new(node.name.as_str())
        };
        let near = worker_near(node.name.as_str());
        let worker = TestNode { labels: given.labels.clone(), ..TestNode::new(&near) };
        for node in [given, worker] {
            cluster.add_node(&node).await;
            names.push(node.name);
        }
    }
    // A new node is not ready until the controllers have taken that taint away, and no donor before.
    let nodes: Api<Node> = Api::all(cluster.admin().await);
    until("the taints of new nodes to go", async || {
        let all = nodes.list(&ListParams::default()).await.expect("a list").items;
        let tainted = |node: &Node| node.spec.as_ref().is_some_and(|spec| spec.taints.is_some());
        !all.iter().any(|node| tainted(node) && node.metadata.name.as_ref().is_some_and(|name| names.contains(name)))
    })
    .await;
    let folder = cluster.folder.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let leases: Api<Lease> = Api::namespaced(admin(&folder).await, "kube-node-lease");
            loop {
                for name in &names {
                    let renewed = SystemClock.now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
                    let patch = Patch::Merge(json!({ "spec": { "renewTime": renewed } }));
                    // The API server may be away for a moment, and goes away at the end.
                    drop(leases.patch(name, &PatchParams::default(), &patch).await);
                }
                tokio::time::sleep(BEAT).await;
            }
        });
    });
}
