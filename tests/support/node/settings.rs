//! Settings of the node's own servers, as files in the cluster's folder.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::namespace::NODE_ADDRESS;

/// The image that keeps a pod's namespaces.
pub const PAUSE: &str = "registry.example/pause:test";

/// Writes them all. `name` is the node's; the control groups of its pods are below one of the folder's name.
pub fn write(folder: &Path, name: &str) -> Result<(), String> {
    let group = folder.file_name().unwrap_or_default().to_string_lossy();
    let file = |path: &str| folder.join(path);
    let put = |path: &str, text: String| fs::write(folder.join(path), text).map_err(|error| format!("{path}: {error}"));
    fs::create_dir(file("network")).map_err(|error| error.to_string())?;
    put("containerd.toml", containerd(&file("network")))?;
    put("network/10-bridge.conflist", network().to_string())?;
    put("kubelet.json", kubelet(&file("certificates/apiserver.crt"), &group).to_string())?;
    put("kubelet.kubeconfig", kubeconfig(folder, name, "kubelet").to_string())?;
    // For the other servers: the administrator's has the address that the machine has for the API server.
    put("inside.kubeconfig", kubeconfig(folder, "inside", "kubelet-client").to_string())
}

/// Version 2 is what containerd 1.6 has, and later ones read. An `oom_score` below zero takes a right that not every root has.
fn containerd(network: &Path) -> String {
    let network = network.display();
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{network}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
"#
    )
}

/// No pod reaches further than the node: nothing is masqueraded or forwarded.
fn network() -> Value {
    json!({ "cniVersion": "0.4.0", "name": "pods", "plugins": [{
        "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false,
        "ipam": { "type": "host-local", "routes": [{ "dst": "0.0.0.0/0" }],
            "ranges": [[{ "subnet": "10.88.0.0/24", "rangeStart": "10.88.0.16", "rangeEnd": "10.88.0.127",
                "gateway": NODE_ADDRESS }]] } }] })
}

/// Either version of control groups; no limits of its own, no garbage collection of images that no registry would give again.
fn kubelet(authority: &Path, group: &str) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "0.0.0.0",
        "authentication": { "anonymous": { "enabled": false }, "webhook": { "enabled": true },
            "x509": { "clientCAFile": authority } },
        "authorization": { "mode": "Webhook" },
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{group}"),
        "cgroupsPerQOS": false,
        "enforceNodeAllocatable": [],
        "oomScoreAdj": 0,
        "failSwapOn": false,
        "localStorageCapacityIsolation": false,
        "makeIPTablesUtilChains": false,
        "evictionHard": { "memory.available": "50Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
            "imagefs.available": "0%", "imagefs.inodesFree": "0%" },
        "imageGCHighThresholdPercent": 100,
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        // A container that a test kills is back soon, also the third time.
        "crashLoopBackOff": { "maxContainerRestartPeriod": "2s" },
    })
}

fn kubeconfig(folder: &Path, name: &str, identity: &str) -> Value {
    let certificate = |file: &str| folder.join("certificates").join(file);
    let of = |kind: &str| certificate(&format!("{identity}.{kind}"));
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "test", "cluster": {
            "server": "https://127.0.0.1", "certificate-authority": certificate("apiserver.crt") } }],
        "users": [{ "name": name, "user": {
            "client-certificate": of("crt"), "client-key": of("key") } }],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": name } }],
        "current-context": "test",
    })
}
