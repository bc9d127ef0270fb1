//! A pool of AKS Engine: the machines share one client certificate, and their provisioning is done once, by the first boot of the
//! first of them. Whoever is made of its image finds everything on the disk, and is told nothing by the platform.

use std::fs;

use serde_json::json;

use crate::{
    kubelet,
    support::node::{authority::Authority, namespace::NODE_ADDRESS, real_cluster::RealCluster},
};

/// The user of all kubelets of the pool: with all rights, as AKS Engine has it.
pub(crate) const POOL_USER: &str = "aks-engine-client";
/// What the images of such a pool must still have, see docs/cleaning.md.
pub(crate) const KEPT: &[&str] = &[
    "etc/kubernetes/azure.json",
    "etc/kubernetes/certs/ca.crt",
    "etc/kubernetes/certs/client.crt",
    "etc/kubernetes/certs/client.key",
    "etc/default/kubelet",
    "etc/default/kubeletconfig.json",
    "opt/azure/containers/provision.complete",
    "var/lib/kubelet/kubeconfig",
];

const UNIT: &str = "[Unit]
Description=Kubelet
Wants=network-online.target
After=network-online.target
ConditionPathExists=/usr/bin/kubelet

[Service]
Restart=always
RestartSec=1
EnvironmentFile=/etc/default/kubelet
ExecStartPre=/bin/bash /opt/azure/containers/kubelet.sh
ExecStart=/usr/bin/kubelet $KUBELET_CONFIG

[Install]
WantedBy=multi-user.target
";

/// Makes the certificate that the kubelet serves with, for the name that the machine has now.
const BEFORE: &str = "set -eu
cd /etc/kubernetes/certs
[ ! -e kubeletserver.crt ] || exit 0
openssl req -x509 -newkey rsa:2048 -nodes -days 365 -keyout kubeletserver.key -out kubeletserver.crt -subj \"/CN=$(hostname)\"
";

/// Custom data of a new machine: files, and what to run.
pub(crate) fn user_data(cluster: &RealCluster) -> String {
    let authority = Authority::open(&cluster.folder).expect("the cluster's authority");
    authority.issue("pool", POOL_USER, Some("system:masters"), &[]).expect("a certificate");
    let read = |name: &str| fs::read_to_string(cluster.folder.join("certificates").join(name)).expect("a certificate");
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config",
        "clusters": [{ "name": "localcluster", "cluster": {
            "server": format!("https://{NODE_ADDRESS}:443"), "certificate-authority": "/etc/kubernetes/certs/ca.crt" } }],
        "users": [{ "name": "client", "user": { "client-certificate": "/etc/kubernetes/certs/client.crt",
            "client-key": "/etc/kubernetes/certs/client.key" } }],
        "contexts": [{ "name": "localclustercontext", "context": { "cluster": "localcluster", "user": "client" } }],
        "current-context": "localclustercontext",
    });
    let flags = "--config=/etc/default/kubeletconfig.json --kubeconfig=/var/lib/kubelet/kubeconfig \
                 --tls-cert-file=/etc/kubernetes/certs/kubeletserver.crt \
                 --tls-private-key-file=/etc/kubernetes/certs/kubeletserver.key";
    let files = [
        ("/etc/kubernetes/azure.json", json!({ "aadClientSecret": "of the pool" }).to_string()),
        ("/etc/kubernetes/certs/ca.crt", read("apiserver.crt")),
        ("/etc/kubernetes/certs/client.crt", read("pool.crt")),
        ("/etc/kubernetes/certs/client.key", read("pool.key")),
        ("/var/lib/kubelet/kubeconfig", kubeconfig.to_string()),
        ("/etc/default/kubeletconfig.json", kubelet::configuration("/etc/kubernetes/certs/ca.crt").to_string()),
        ("/etc/default/kubelet", format!("KUBELET_CONFIG={flags}\n")),
        ("/opt/azure/containers/kubelet.sh", BEFORE.to_owned()),
        ("/etc/systemd/system/kubelet.service", UNIT.to_owned()),
        // In the place of kubeadm's, which the disk has as well.
        ("/etc/systemd/system/kubelet.service.d/10-kubeadm.conf", "# Nothing of kubeadm's.\n".to_owned()),
    ];
    let files: Vec<_> = files.iter().map(|(path, text)| json!({ "path": path, "content": text })).collect();
    let run = [
        "systemctl daemon-reload",
        "systemctl restart kubelet",
        "echo PLANT-custom-data > /dev/null",
        "touch /opt/azure/containers/provision.complete",
    ];
    format!("#cloud-config\nwrite_files: {}\nruncmd: {}\n", json!(files), json!(run))
}

/// Of a machine that is made of the image: the scale set's model has no custom data any more.
pub(crate) const NOTHING: &str = "#cloud-config\n{}\n";
