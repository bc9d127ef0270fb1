//! The whole of it: started, and what a test can ask of it.

use std::{
    fs,
    net::SocketAddr,
    ops::Deref,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Arc, OnceLock, mpsc},
    time::Duration,
};

use k8s_openapi::api::{
    core::v1::{Node, Pod},
    storage::v1::CSIDriver,
};
use kube::Api;
use rustix::process::{Signal, geteuid};
use serde_json::json;
use tokio::time::Instant;

use super::{
    super::{
        cluster::{TestCluster, admin, binaries, prepare, skipped, until_ready},
        installed::create,
    },
    authority::Authority,
    gate::{Gate, Side},
    image::Image,
    namespace::{Holder, NODE_ADDRESS, Namespace},
    servers::{NODE, SERVER_NAMES, Servers},
    settings::{self, PAUSE},
};

/// The zone of the node, as Azure's disk driver writes it.
pub const ZONE: &str = "westeurope-2";

/// Until the node is ready, from the start of the kubelet.
const NODE_READY: Duration = Duration::from_mins(1);
/// Until containerd listens.
const RUNTIME_READY: Duration = Duration::from_secs(30);

const OURS: &[&str] = &[
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kubectl",
    "csi-stand-in",
    "pause",
];
/// Programs of the machine, with the Debian packages that they are in.
const OF_THE_MACHINE: &[(&str, &str)] = &[
    ("/usr/bin/containerd", "containerd"),
    ("/usr/sbin/runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("/usr/sbin/losetup", "mount"),
    ("/dev/loop-control", "(a kernel with loop devices)"),
];

/// A cluster with one real node. Everything that takes a [`TestCluster`] takes this one as well.
pub struct RealCluster {
    cluster: TestCluster,
    namespace: Namespace,
    servers: Servers,
    gate: Arc<Gate>,
    binaries: PathBuf,
}

impl Deref for RealCluster {
    type Target = TestCluster;

    fn deref(&self) -> &TestCluster {
        &self.cluster
    }
}

/// What ends with the cluster, in this order.
struct Kept {
    _holder: Holder,
    _gate: Arc<Gate>,
}

/// The cluster that the tests of this binary share. `None`, loudly, where it can't run; in CI that is a failure.
pub fn shared() -> Option<&'static RealCluster> {
    static SHARED: OnceLock<Option<RealCluster>> = OnceLock::new();
    SHARED.get_or_init(RealCluster::start).as_ref()
}

impl RealCluster {
    /// Starts one and waits until its node is ready. `None`, loudly, where it can't run; in CI that is a failure.
    pub fn start() -> Option<Self> {
        match able() {
            Ok(binaries) => Some(Self::start_with(&binaries)),
            Err(why) => {
                skipped(&why);
                None
            }
        }
    }

    fn start_with(binaries: &Path) -> Self {
        let (parts, started) = mpsc::channel();
        let cluster = TestCluster::keep("kamino-wf-node", {
            let binaries = binaries.to_owned();
            move |folder| {
                let (address, handles, kept) = launch(folder, &binaries)?;
                let _ = parts.send(handles);
                Ok((address, kept))
            }
        });
        let (namespace, servers, gate) = started.recv().expect("it has started");
        Self { cluster, namespace, servers, gate, binaries: binaries.to_owned() }
    }

    /// The test's own administrator's, for processes on the machine.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }

    /// The certificate of the cluster's authority.
    pub fn authority(&self) -> PathBuf {
        self.folder.join("certificates/apiserver.crt")
    }

    /// Runs a program in the cluster's network, mounts and processes. The machine's files are there, but for `/run`, `/var/lib`
    /// and `/var/log`. It ends with the cluster, or when the thread that starts it does.
    pub fn inside(&self, program: &str) -> Command {
        self.namespace.command(Path::new(program))
    }

    /// Where the test process finds a path of the namespace.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.namespace.path(inside)
    }

    /// One of those that `scripts/cluster-binaries` builds.
    pub fn binary(&self, name: &str) -> PathBuf {
        self.binaries.join(name)
    }

    /// As the administrator. What it said on its standard output; a failure of it is one of the test.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        good(&mut self.kubectl_command(arguments))
    }

    /// The same, for whoever wants to see it fail.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.binaries.join("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(arguments).stdin(std::process::Stdio::null());
        command.env("HOME", &self.folder);
        command
    }

    /// Loads an archive of an image, as `docker save` writes it, into the node.
    pub fn import_archive(&self, archive: &Path) {
        import(&self.namespace, archive).expect("containerd takes the archive");
    }

    /// Makes an image and loads it into the node, under the name `reference`.
    pub fn import_image(&self, reference: &str, image: &Image) {
        let archive = image.write(reference, &self.folder).expect("an archive");
        self.import_archive(&archive);
        fs::remove_file(archive).expect("the archive was there");
    }

    /// Where processes in pods find what listens on the machine's loopback at `port`: the same port of this address.
    pub fn address_for_pods(&self, port: u16) -> SocketAddr {
        let outside = SocketAddr::from(([127, 0, 0, 1], port));
        let inside: SocketAddr = format!("{NODE_ADDRESS}:{port}").parse().expect("an address");
        self.gate.open(Side::Namespace, inside, outside).expect("the port is free in the namespace");
        inside
    }

    /// Kills the processes of the pod's first container, as the kernel does when memory is short.
    pub async fn kill_container(&self, namespace: &str, pod: &str) {
        let id = self.container(namespace, pod).await;
        good(self.inside("ctr").args(["--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", "--all", &id]));
    }

    /// The id of the pod's first container.
    async fn container(&self, namespace: &str, pod: &str) -> String {
        let pods: Api<Pod> = Api::namespaced(self.admin().await, namespace);
        let status = pods.get(pod).await.expect("the pod").status.expect("its status");
        let id = status.container_statuses.and_then(|all| all.into_iter().next()?.container_id).expect("a container");
        id.strip_prefix("containerd://").expect("a container of containerd").to_owned()
    }

    /// A file of `/proc` of the first process of the pod's first container.
    pub async fn proc_of(&self, namespace: &str, pod: &str, file: &str) -> String {
        let id = self.container(namespace, pod).await;
        let tasks = good(self.inside("ctr").args(["--namespace", "k8s.io", "tasks", "list"]));
        let line = tasks.lines().find(|line| line.starts_with(&id)).expect("it runs");
        let pid = line.split_whitespace().nth(1).expect("its number");
        good(self.inside("cat").arg(format!("/proc/{pid}/{file}")))
    }

    /// Sends a signal to one of the servers, by the name of its binary: to stop and to continue it, for example.
    pub fn signal(&self, server: &str, signal: Signal) {
        self.servers.signal(server, signal);
    }
}

/// Runs it to its end, which must be a good one.
#[track_caller]
fn good(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("the command starts");
    assert!(status.success(), "{command:?} ended with {status}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).into_owned()
}

/// The folder with our binaries, or what is missing here.
fn able() -> Result<PathBuf, String> {
    if !geteuid().is_root() {
        return Err("a real node needs root".to_owned());
    }
    if let Some((path, package)) = OF_THE_MACHINE.iter().find(|(path, _)| !Path::new(path).exists()) {
        return Err(format!("a real node needs {path}: {package}"));
    }
    binaries(OURS)
}

type Handles = (Namespace, Servers, Arc<Gate>);

fn launch(folder: &Path, binaries: &Path) -> Result<(String, Handles, Kept), String> {
    for name in ["disks", "loops"] {
        fs::create_dir(folder.join(name)).map_err(|error| error.to_string())?;
    }
    let authority = Authority::make(folder)?;
    authority.issue("server", "kube-apiserver", None, SERVER_NAMES)?;
    authority.issue("kubelet-client", "kube-apiserver", Some("system:masters"), &[])?;
    authority.issue("kubelet", &format!("system:node:{NODE}"), Some("system:nodes"), &[])?;
    settings::write(folder, NODE)?;

    let (namespace, holder) = Namespace::make(folder)?;
    let gate = Arc::new(Gate::new(namespace.network()?)?);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let port = gate.open(Side::Machine, any, SocketAddr::from(([127, 0, 0, 1], 443)))?;
    let address = format!("https://127.0.0.1:{port}");
    prepare(folder, &address);

    let servers = Servers::new(&namespace, binaries, folder);
    let kept = Kept { _holder: holder, _gate: Arc::clone(&gate) };
    servers.etcd()?;
    servers.containerd()?;
    servers.api_server()?;
    let pause = Image::new().file("/pause", &binaries.join("pause")).entrypoint(&["/pause"]);
    let archive = pause.write(PAUSE, folder)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let since = Instant::now();
        while let Err(why) = import(&namespace, &archive) {
            if since.elapsed() > RUNTIME_READY {
                return Err(format!("containerd is not ready: {why}"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        until_ready(|| servers.ended(), folder).await?;
        servers.controller_manager()?;
        servers.scheduler()?;
        servers.disk_driver(ZONE)?;
        servers.kubelet()?;
        until_node_ready(&servers, folder).await
    })?;
    Ok((address, (namespace, servers, gate), kept))
}

fn import(namespace: &Namespace, archive: &Path) -> Result<(), String> {
    let mut command = namespace.command(Path::new("ctr"));
    let output = command.args(["--namespace", "k8s.io", "images", "import"]).arg(archive).output();
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// The node is ready, and its disks can be used: no attacher waits for them, as it would with Azure's own driver.
async fn until_node_ready(servers: &Servers, folder: &Path) -> Result<(), String> {
    let client = admin(folder).await;
    let driver = json!({ "metadata": { "name": "disk.csi.azure.com" },
        "spec": { "attachRequired": false, "podInfoOnMount": false, "fsGroupPolicy": "ReadWriteOnceWithFSType" } });
    create::<CSIDriver>(&Api::all(client.clone()), driver).await;
    let nodes: Api<Node> = Api::all(client.clone());
    let since = Instant::now();
    let mut seen = "no node".to_owned();
    while since.elapsed() < NODE_READY {
        if let Some(ended) = servers.ended() {
            return Err(format!("{ended}; see {}", folder.display()));
        }
        if let Ok(Some(node)) = nodes.get_opt(NODE).await {
            let labelled =
                node.metadata.labels.as_ref().is_some_and(|it| it.contains_key("topology.disk.csi.azure.com/zone"));
            let conditions = node.status.and_then(|it| it.conditions).unwrap_or_default();
            if labelled && conditions.iter().any(|it| it.type_ == "Ready" && it.status == "True") {
                return Ok(());
            }
            seen = format!("labelled by the disk driver: {labelled}; {conditions:?}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(format!("the node is not ready after {} s: {seen}", NODE_READY.as_secs()))
}
