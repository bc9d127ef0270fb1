//! A pool whose machines join by `kubeadm join` and a bootstrap token, each with a certificate of its own: as Cluster API makes them.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use kamino_wf::clock::{Clock, SystemClock};
use serde_json::{Value, json};

use crate::{
    guest::{run, text},
    kubelet,
    support::node::{namespace::NODE_ADDRESS, real_cluster::RealCluster},
};

/// A cluster that kubeadm's machines can join.
pub(crate) struct Kubeadm {
    /// The half of the bootstrap token that is secret.
    pub(crate) secret: String,
    user_data: String,
}

impl Kubeadm {
    /// Has kubeadm itself write what its `join` looks for: configuration maps, roles, and the token.
    pub(crate) fn prepare(cluster: &RealCluster, binaries: &Path) -> Self {
        let random = SystemClock.new_id().simple().to_string();
        let (id, secret) = (&random[26..], random[10..26].to_owned());
        let token = format!("{id}.{secret}");
        let kubeadm = binaries.join("kubeadm");
        let version = text(&run(Command::new(&kubeadm).args(["version", "--output=short"])));
        let server = format!("{NODE_ADDRESS}:443");
        let documents = [
            json!({ "apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "InitConfiguration",
                "bootstrapTokens": [{ "token": token, "ttl": "24h" }],
                "localAPIEndpoint": { "advertiseAddress": NODE_ADDRESS, "bindPort": 443 } }),
            json!({ "apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "ClusterConfiguration",
                "kubernetesVersion": version.trim(), "controlPlaneEndpoint": server }),
            kubelet::configuration("/etc/kubernetes/pki/ca.crt"),
        ];
        // JSON is YAML.
        let documents: Vec<String> = documents.iter().map(Value::to_string).collect();
        let path = cluster.folder.join("kubeadm.yaml");
        fs::write(&path, documents.join("\n---\n")).expect("the folder can be written");
        for phase in [["upload-config", "all"].as_slice(), &["bootstrap-token"]] {
            let mut command = Command::new(&kubeadm);
            command.args(["init", "phase"]).args(phase).arg("--config").arg(&path);
            run(command.arg("--kubeconfig").arg(cluster.kubeconfig()));
        }
        Self { secret, user_data: user_data(&server, &cluster.authority(), &token) }
    }

    /// The same for every machine of the pool: how to join.
    pub(crate) fn user_data(&self) -> &str {
        &self.user_data
    }
}

fn user_data(server: &str, authority: &PathBuf, token: &str) -> String {
    let authority = fs::read_to_string(authority).expect("the authority's certificate");
    let discovery = json!({
        "apiVersion": "v1", "kind": "Config",
        "clusters": [{ "name": "cluster", "cluster": {
            "server": format!("https://{server}"), "certificate-authority-data": crate::pool::base64(&authority) } }],
        "users": [{ "name": "nobody", "user": {} }],
        "contexts": [{ "name": "discovery", "context": { "cluster": "cluster", "user": "nobody" } }],
        "current-context": "discovery",
    });
    // A container's kernel and network are not what kubeadm expects of a machine; what it finds on the disk, it must not ignore.
    let ignored = ["SystemVerification", "FileContent--proc-sys-net-bridge-bridge-nf-call-iptables", "Swap", "Mem"];
    let join = json!({
        "apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "JoinConfiguration",
        "discovery": { "file": { "kubeConfigPath": "/run/kubeadm/discovery.conf" }, "tlsBootstrapToken": token },
        "nodeRegistration": { "ignorePreflightErrors": ignored },
    });
    let files = json!([
        { "path": "/run/kubeadm/discovery.conf", "content": discovery.to_string() },
        { "path": "/run/kubeadm/join.yaml", "content": join.to_string() },
    ]);
    let mut words = "#cloud-config\n".to_owned();
    let _ = writeln!(words, "write_files: {files}");
    let _ = writeln!(words, "runcmd: [[kubeadm, join, --config, /run/kubeadm/join.yaml]]");
    words
}
