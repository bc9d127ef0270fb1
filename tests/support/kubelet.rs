//! A stand-in for scheduler, disk driver and kubelet, for pods of one namespace on one node.
//!
//! Honest where the product could notice: a pod is bound only when its claims are, to a node that its volume's affinity and
//! its node selector allow; the volume is the file that the test gave for the volume's handle, as a block device; the
//! pod's own command runs, in a sandbox, with only what its spec gives it; status, exit code and termination message are
//! reported as a kubelet does; deletion ends the process. What it doesn't know it refuses loudly: other volumes, several
//! containers. It pulls no image, and sets no limits.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    rc::{Rc, Weak},
    sync::{Arc, Mutex, MutexGuard, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Container as PodContainer, Event, Pod, PodSpec},
};
use kamino_wf::clock::{Clock, SystemClock};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    cluster::TestCluster,
    placement::Placement,
    sandbox::{Container, Ended, LoopDevice, Mount, Sandbox},
};

/// Between two looks at the namespace.
const TURN: Duration = Duration::from_millis(100);

/// Between two renewals of the node's lease.
const BEAT: Duration = Duration::from_secs(5);

/// A node's kubelet. Dropped, the node is lost: what it runs dies, its lease is renewed no more, and nobody tells the API server.
pub struct Kubelet {
    shared: Arc<Mutex<Shared>>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A command that was started.
#[derive(Debug, Clone)]
pub struct Started {
    pub pod: String,
    pub uid: String,
    pub command: Vec<String>,
}

/// Attaches a disk by its id: the file with its content, or why it can't be attached.
pub type Attach = Box<dyn FnMut(&str) -> Result<PathBuf, String> + Send>;

/// The id of the disk at a path of the node, if there is one.
pub type Behind = Box<dyn FnMut(&str) -> Option<String> + Send>;

/// What the cloud does when a disk is attached to the node, and when it no longer is. Ids are in lower case.
pub struct CloudDisks {
    /// The file with the disk's content, or why it can't be attached.
    pub attach: Attach,
    /// Which disk a node shows at that path, where an order to its machine has attached one.
    pub behind: Behind,
    /// Nothing on the node uses the disk any more.
    pub detached: Box<dyn FnMut(&str) + Send>,
}

#[derive(Default)]
struct Shared {
    cloud: Option<CloudDisks>,
    /// Image files by the lower-case id of the disk that they stand for.
    disks: BTreeMap<String, PathBuf>,
    start_delay: Duration,
    kill: Vec<String>,
    started: Vec<Started>,
}

impl Kubelet {
    /// Serves pods of `namespace` on node `node`. `binary` is what the command `kamino-wf` means.
    pub fn start(cluster: &TestCluster, namespace: &str, node: &str, binary: &Path) -> Self {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let (stop, stopped) = mpsc::channel();
        let (namespace, node, binary) = (namespace.to_owned(), node.to_owned(), binary.to_owned());
        let folder = cluster.folder.join(format!("kubelet-{namespace}"));
        let kubeconfig = cluster.folder.clone();
        // Its own thread: the processes die with the thread that started them, not before and not after.
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async move {
                    let client = super::cluster::admin(&kubeconfig).await;
                    let mut turns = Turns {
                        place: Placement { client, namespace, node },
                        binary,
                        folder,
                        shared,
                        pods: BTreeMap::new(),
                        attached: BTreeMap::new(),
                        beaten: None,
                    };
                    while matches!(stopped.try_recv(), Err(mpsc::TryRecvError::Empty)) {
                        turns.turn().await;
                        tokio::time::sleep(TURN).await;
                    }
                });
            }
        });
        Self { shared, stop: Some(stop), thread: Some(thread) }
    }

    /// `image` is the content of the disk with that id.
    pub fn put_disk(&self, id: &str, image: &Path) {
        self.lock().disks.insert(id.to_ascii_lowercase(), image.to_owned());
    }

    /// Disks that `put_disk` did not name are the cloud's.
    pub fn attach_by(&self, cloud: CloudDisks) {
        self.lock().cloud = Some(cloud);
    }

    /// Pods that are not started yet wait this long, as for an image or a disk.
    pub fn delay_starts(&self, delay: Duration) {
        self.lock().start_delay = delay;
    }

    /// Kills the pod's process, as the kernel does when memory is short.
    pub fn kill(&self, pod: &str) {
        self.lock().kill.push(pod.to_owned());
    }

    /// All commands that were started, in order.
    pub fn started(&self) -> Vec<Started> {
        self.lock().started.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("the stand-in did not panic")
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the stand-in kubelet panicked");
        }
    }
}

struct Turns {
    place: Placement,
    binary: PathBuf,
    folder: PathBuf,
    shared: Arc<Mutex<Shared>>,
    /// By uid.
    pods: BTreeMap<String, Seen>,
    attached: BTreeMap<String, Weak<LoopDevice>>,
    beaten: Option<Instant>,
}

struct Seen {
    name: String,
    since: Instant,
    told: String,
    running: Option<Running>,
    done: bool,
}

struct Running {
    sandbox: Sandbox,
    reported: bool,
    fallback: bool,
    started: Timestamp,
    deadline: Option<Instant>,
    late: bool,
    /// When SIGKILL follows SIGTERM.
    kill_at: Option<Instant>,
}

impl Turns {
    fn api(&self) -> Api<Pod> {
        Api::namespaced(self.place.client.clone(), &self.place.namespace)
    }

    /// As the kubelet of the node does it, for as long as this one lives.
    async fn beat(&mut self) {
        if self.beaten.is_some_and(|at| at.elapsed() < BEAT) {
            return;
        }
        self.beaten = Some(Instant::now());
        let leases: Api<Lease> = Api::namespaced(self.place.client.clone(), "kube-node-lease");
        let renewed = SystemClock.now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let patch = Patch::Merge(json!({ "spec": { "renewTime": renewed } }));
        // A node without a lease, or an API server that is away for a moment.
        drop(leases.patch(&self.place.node, &PatchParams::default(), &patch).await);
    }

    async fn turn(&mut self) {
        self.beat().await;
        // The API server may be away for a moment; the next turn asks again.
        let Ok(pods) = self.api().list(&ListParams::default()).await else { return };
        let uids: Vec<String> = pods.items.iter().filter_map(|pod| pod.metadata.uid.clone()).collect();
        // Deleted without grace: dropping the sandbox kills it.
        self.pods.retain(|uid, _| uids.contains(uid));
        for pod in pods.items {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            let name = pod.metadata.name.clone().unwrap_or_default();
            let mut seen = self.pods.remove(&uid).unwrap_or_else(|| Seen {
                name,
                since: Instant::now(),
                told: String::new(),
                running: None,
                done: false,
            });
            self.look_at(&pod, &uid, &mut seen).await;
            self.pods.insert(uid, seen);
        }
        self.detach_unused();
    }

    fn detach_unused(&mut self) {
        let shared = &mut self.shared.lock().expect("no panic");
        self.attached.retain(|disk, device| {
            let used = device.strong_count() > 0;
            if !used && let Some(cloud) = &mut shared.cloud {
                (cloud.detached)(disk);
            }
            used
        });
    }

    async fn look_at(&mut self, pod: &Pod, uid: &str, seen: &mut Seen) {
        let spec = pod.spec.clone().unwrap_or_default();
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
        if seen.running.is_some() {
            self.tend(pod, uid, seen).await;
        } else if pod.metadata.deletion_timestamp.is_some() {
            self.confirm_deletion(&seen.name, uid).await;
        } else if seen.done || ["Succeeded", "Failed"].contains(&phase) {
            // Nothing to do but wait for its deletion.
        } else if spec.node_name.is_none() {
            self.schedule(&spec, uid, seen).await;
        } else if spec.node_name.as_ref() != Some(&self.place.node) {
            // Another node's.
        } else if phase == "Running" {
            // The node was restarted meanwhile: the container is lost, and how it ended.
            let lost = json!({ "terminated": { "exitCode": 137, "reason": "ContainerStatusUnknown",
                "message": "The container could not be located when the pod was terminated" } });
            self.report(&seen.name, uid, status(&spec, "Failed", &lost)).await;
            seen.done = true;
        } else {
            let delay = self.shared.lock().expect("no panic").start_delay;
            if seen.since.elapsed() >= delay {
                self.run(&spec, uid, seen).await;
            }
        }
    }

    /// Binds the pod to the node, or says why not.
    async fn schedule(&self, spec: &PodSpec, uid: &str, seen: &mut Seen) {
        match self.place.obstacle(spec).await {
            None => {
                let binding = json!({ "apiVersion": "v1", "kind": "Binding", "metadata": { "name": seen.name, "uid": uid },
                    "target": { "apiVersion": "v1", "kind": "Node", "name": self.place.node } });
                let bound: kube::Result<Value> =
                    self.api().create_subresource("binding", &seen.name, &PostParams::default(), &binding).await;
                // Gone or bound meanwhile: the next turn sees it.
                drop(bound);
            }
            Some(why) if why != seen.told => {
                let condition = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                    "message": format!("0/1 nodes are available: {why}") });
                self.report(&seen.name, uid, json!({ "conditions": [condition] })).await;
                seen.told = why;
            }
            Some(_) => {}
        }
    }

    async fn run(&mut self, spec: &PodSpec, uid: &str, seen: &mut Seen) {
        let container = match self.container(spec, seen).await {
            Ok(container) => container,
            Err(why) => {
                if why != seen.told {
                    let waiting = json!({ "waiting": { "reason": "ContainerCreating" } });
                    self.report(&seen.name, uid, status(spec, "Pending", &waiting)).await;
                    self.warn(&seen.name, uid, &why).await;
                    seen.told = why;
                }
                return;
            }
        };
        let policy = spec.containers[0].termination_message_policy.as_deref();
        let deadline = spec.active_deadline_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let (pod, command) = (seen.name.clone(), container.command.clone());
        self.shared.lock().expect("no panic").started.push(Started { pod, uid: uid.to_owned(), command });
        seen.running = Some(Running {
            sandbox: Sandbox::start(container, &self.folder.join(uid), &self.binary),
            reported: false,
            fallback: policy == Some("FallbackToLogsOnError"),
            started: SystemClock.now(),
            deadline: deadline.map(|seconds| Instant::now() + Duration::from_secs(seconds)),
            late: false,
            kill_at: None,
        });
    }

    /// What the pod's spec asks for, with its volumes attached.
    async fn container(&mut self, spec: &PodSpec, seen: &Seen) -> Result<Container, String> {
        let [container] = spec.containers.as_slice() else {
            return Err("the stand-in kubelet runs pods of one container".to_owned());
        };
        let harmless = spec.host_network != Some(true) && spec.host_pid != Some(true) && spec.host_ipc != Some(true);
        if !harmless || spec.init_containers.iter().flatten().next().is_some() {
            return Err("the stand-in kubelet gives no namespaces of the host, and knows no init containers".to_owned());
        }
        let mut mounts = Vec::new();
        for volume in spec.volumes.iter().flatten() {
            let mount = if let Some(claim) = &volume.persistent_volume_claim {
                Mount::Block(self.attach(&claim.claim_name).await?)
            } else if let Some(empty) = &volume.empty_dir {
                match (empty.medium.as_deref(), &empty.size_limit) {
                    (Some("Memory"), Some(size)) => Mount::Memory(bytes(&size.0)?),
                    (Some("Memory"), None) => Mount::Memory(64 << 20),
                    (_, _) => Mount::Folder,
                }
            } else {
                return Err(format!("the stand-in kubelet has no volume of the kind of {}", volume.name));
            };
            mounts.extend(path_of(container, &volume.name).map(|path| (path, mount)));
        }
        let security = container.security_context.clone().unwrap_or_default();
        let command =
            [container.command.clone().unwrap_or_default(), container.args.clone().unwrap_or_default()].concat();
        if command.is_empty() {
            return Err("the stand-in kubelet does not know the image's own command".to_owned());
        }
        Ok(Container {
            hostname: seen.name.clone(),
            command,
            privileged: security.privileged == Some(true),
            read_only_root: security.read_only_root_filesystem == Some(true),
            message_path: container.termination_message_path.clone().unwrap_or("/dev/termination-log".to_owned()),
            mounts,
        })
    }

    /// As the disk's driver does; one disk is one device, however many pods of the node use it.
    async fn attach(&mut self, claim: &str) -> Result<Rc<LoopDevice>, String> {
        let volume = self.place.volume_of(claim).await?.spec.unwrap_or_default();
        let handle = match (volume.csi, volume.local) {
            (Some(csi), None) if csi.driver == "disk.csi.azure.com" => csi.volume_handle,
            (None, Some(local)) => {
                let mut shared = self.shared.lock().expect("no panic");
                let behind = shared.cloud.as_mut().and_then(|cloud| (cloud.behind)(&local.path));
                behind.ok_or_else(|| format!("MapVolume.SetUpDevice failed: {} does not exist", local.path))?
            }
            _ => return Err("the stand-in kubelet has local disks and the driver disk.csi.azure.com only".to_owned()),
        };
        if volume.volume_mode.as_deref() != Some("Block") {
            return Err("the stand-in kubelet mounts no file systems".to_owned());
        }
        let key = handle.to_ascii_lowercase();
        if let Some(device) = self.attached.get(&key).and_then(Weak::upgrade) {
            return Ok(device);
        }
        let image = {
            let mut shared = self.shared.lock().expect("no panic");
            let shared = &mut *shared;
            match (shared.disks.get(&key), &mut shared.cloud) {
                (Some(image), _) => image.clone(),
                (None, Some(cloud)) => {
                    (cloud.attach)(&key).map_err(|why| format!("AttachVolume.Attach failed for volume: {why}"))?
                }
                (None, None) => return Err(format!("AttachVolume.Attach failed for volume: no disk {handle}")),
            }
        };
        let device = LoopDevice::attach(&image);
        self.attached.insert(key, Rc::downgrade(&device));
        Ok(device)
    }

    /// A pod that runs: its end, its deadline, its deletion.
    async fn tend(&mut self, pod: &Pod, uid: &str, seen: &mut Seen) {
        let Some(running) = &mut seen.running else { return };
        let spec = pod.spec.clone().unwrap_or_default();
        let asked = {
            let mut shared = self.shared.lock().expect("no panic");
            let count = shared.kill.len();
            shared.kill.retain(|name| *name != seen.name);
            shared.kill.len() < count
        };
        if let Some(ended) = running.sandbox.ended(running.fallback) {
            let (started, late) = (running.started, running.late);
            let phase = if ended.exit_code == 0 && !late { "Succeeded" } else { "Failed" };
            let mut status = status(&spec, phase, &terminated(&ended, started));
            if late {
                status["reason"] = "DeadlineExceeded".into();
                status["message"] = "Pod was active on the node longer than the specified deadline".into();
            }
            seen.running = None;
            seen.done = true;
            self.report(&seen.name, uid, status).await;
            if pod.metadata.deletion_timestamp.is_some() {
                self.confirm_deletion(&seen.name, uid).await;
            }
        } else if asked || running.kill_at.is_some_and(|at| Instant::now() >= at) {
            running.sandbox.kill();
        } else if pod.metadata.deletion_timestamp.is_some() && running.kill_at.is_none() {
            running.sandbox.terminate();
            let grace = pod.metadata.deletion_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok());
            running.kill_at = Some(Instant::now() + Duration::from_secs(grace.unwrap_or_default()));
        } else if running.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            running.late = true;
            running.sandbox.kill();
        } else if !running.reported && running.sandbox.started() {
            running.reported = true;
            let state = json!({ "running": { "startedAt": running.started } });
            let mut status = status(&spec, "Running", &state);
            status["startTime"] = json!(running.started);
            self.report(&seen.name, uid, status).await;
        }
    }

    /// The uid in a patch is a precondition. A pod that is gone needs no report.
    async fn report(&self, name: &str, uid: &str, status: Value) {
        let patch = json!({ "metadata": { "uid": uid }, "status": status });
        let sent = self.api().patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        match sent {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => {}
            Err(other) => panic!("the stand-in kubelet can't report on {name}: {other}"),
        }
    }

    /// In an event, the only place where a real cluster tells it.
    async fn warn(&self, name: &str, uid: &str, why: &str) {
        let events: Api<Event> = Api::namespaced(self.place.client.clone(), &self.place.namespace);
        let now = SystemClock.now();
        let pod =
            json!({ "apiVersion": "v1", "kind": "Pod", "namespace": self.place.namespace, "name": name, "uid": uid });
        super::installed::create(
            &events,
            json!({ "metadata": { "generateName": format!("{name}.") },
            "involvedObject": pod, "type": "Warning", "reason": "FailedAttachVolume", "message": why,
            "firstTimestamp": now, "lastTimestamp": now, "count": 1, "source": { "component": "stand-in" } }),
        )
        .await;
    }

    /// The kubelet's last word: nothing of the pod is left on the node.
    async fn confirm_deletion(&self, name: &str, uid: &str) {
        let this = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let _ = self.api().delete(name, &DeleteParams::default().grace_period(0).preconditions(this)).await;
    }
}

fn status(spec: &PodSpec, phase: &str, state: &Value) -> Value {
    let container = &spec.containers[0];
    let ready = phase == "Running";
    json!({ "phase": phase, "conditions": [{ "type": "PodScheduled", "status": "True" }],
        "containerStatuses": [{ "name": container.name, "image": container.image, "imageID": "", "ready": ready,
            "restartCount": 0, "started": ready, "state": state }] })
}

fn terminated(ended: &Ended, started: Timestamp) -> Value {
    json!({ "terminated": { "exitCode": ended.exit_code, "reason": ended.reason, "message": ended.message,
        "startedAt": started, "finishedAt": SystemClock.now() } })
}

/// Where the container wants a volume: as a device or as a folder.
fn path_of(container: &PodContainer, volume: &str) -> Option<String> {
    let device = container.volume_devices.iter().flatten().find(|device| device.name == volume);
    let folder = container.volume_mounts.iter().flatten().find(|mount| mount.name == volume);
    device.map(|device| device.device_path.clone()).or_else(|| folder.map(|mount| mount.mount_path.clone()))
}

fn bytes(quantity: &str) -> Result<u64, String> {
    let unknown = || format!("the stand-in kubelet does not read the quantity {quantity}");
    let mebibytes: u64 = quantity.strip_suffix("Mi").ok_or_else(unknown)?.parse().map_err(|_| unknown())?;
    Ok(mebibytes << 20)
}
