//! The servers, each with the flags that make it work in the namespace, and a log of its name in the cluster's folder.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Child,
    sync::{Arc, Mutex},
};

use rustix::process::{Pid, Signal, kill_process};

use super::namespace::{NODE_ADDRESS, Namespace, SERVICE_ADDRESS, first_child};

/// The node's own name.
pub const NODE: &str = "node-1";

/// What runs in the namespace: by name, in the order in which it was started.
#[derive(Clone)]
pub struct Servers {
    namespace: Namespace,
    binaries: PathBuf,
    folder: PathBuf,
    children: Arc<Mutex<Vec<(String, Child)>>>,
}

impl Servers {
    pub fn new(namespace: &Namespace, binaries: &Path, folder: &Path) -> Self {
        let (namespace, binaries, folder) = (namespace.clone(), binaries.to_owned(), folder.to_owned());
        Self { namespace, binaries, folder, children: Arc::default() }
    }

    /// Starts one of our binaries, or of the machine's. It ends with the thread that calls this.
    fn start(&self, name: &str, arguments: &[String]) -> Result<(), String> {
        let ours = self.binaries.join(name);
        let program = if ours.exists() { ours } else { PathBuf::from(name) };
        let log = File::create(self.folder.join(format!("{name}.log"))).map_err(|error| error.to_string())?;
        let errors = log.try_clone().map_err(|error| error.to_string())?;
        let mut command = self.namespace.command(&program);
        let child = command.args(arguments).stdout(log).stderr(errors).spawn();
        let child = child.map_err(|error| format!("{name}: {error}"))?;
        self.children.lock().expect("a lock").push((name.to_owned(), child));
        Ok(())
    }

    /// The first that has ended, if any has.
    pub fn ended(&self) -> Option<String> {
        let mut children = self.children.lock().expect("a lock");
        children.iter_mut().find_map(|(name, child)| match child.try_wait() {
            Ok(Some(status)) => Some(format!("{name} ended with {status}")),
            Ok(None) | Err(_) => None,
        })
    }

    /// Sends a signal to a server.
    pub fn signal(&self, name: &str, signal: Signal) {
        let children = self.children.lock().expect("a lock");
        let (_, child) = children.iter().find(|(it, _)| it == name).expect("a server of that name");
        let first = first_child(child.id()).and_then(Pid::from_raw);
        kill_process(first.expect("the server lives"), signal).expect("a signal can be sent");
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    pub fn etcd(&self) -> Result<(), String> {
        self.start(
            "etcd",
            &[
                format!("--data-dir={}", self.file("etcd")),
                "--unsafe-no-fsync".to_owned(),
                "--log-level=error".to_owned(),
            ],
        )
    }

    pub fn containerd(&self) -> Result<(), String> {
        self.start("containerd", &[format!("--config={}", self.file("containerd.toml"))])
    }

    /// It takes tokens of a file, of service accounts and for bootstrapping, and certificates by the cluster's authority.
    pub fn api_server(&self) -> Result<(), String> {
        self.start(
            "kube-apiserver",
            &[
                "--etcd-servers=http://127.0.0.1:2379".to_owned(),
                "--bind-address=0.0.0.0".to_owned(),
                "--secure-port=443".to_owned(),
                format!("--advertise-address={NODE_ADDRESS}"),
                "--endpoint-reconciler-type=none".to_owned(),
                "--service-cluster-ip-range=10.96.0.0/24".to_owned(),
                format!("--tls-cert-file={}", self.file("certificates/server.crt")),
                format!("--tls-private-key-file={}", self.file("certificates/server.key")),
                format!("--client-ca-file={}", self.file("certificates/apiserver.crt")),
                format!("--token-auth-file={}", self.file("tokens.csv")),
                "--enable-bootstrap-token-auth=true".to_owned(),
                format!("--service-account-key-file={}", self.file("service-account.pub")),
                format!("--service-account-signing-key-file={}", self.file("service-account.pem")),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                "--authorization-mode=Node,RBAC".to_owned(),
                "--enable-admission-plugins=NodeRestriction".to_owned(),
                "--allow-privileged=true".to_owned(),
                format!("--kubelet-client-certificate={}", self.file("certificates/kubelet-client.crt")),
                format!("--kubelet-client-key={}", self.file("certificates/kubelet-client.key")),
                "--kubelet-preferred-address-types=InternalIP".to_owned(),
                format!("--audit-log-path={}", self.file("audit.log")),
                format!("--audit-policy-file={}", self.file("audit-policy.json")),
                "--profiling=false".to_owned(),
            ],
        )
    }

    pub fn controller_manager(&self) -> Result<(), String> {
        let kubeconfig = self.file("inside.kubeconfig");
        self.start(
            "kube-controller-manager",
            &[
                "--leader-elect=false".to_owned(),
                "--secure-port=0".to_owned(),
                format!("--kubeconfig={kubeconfig}"),
                format!("--authentication-kubeconfig={kubeconfig}"),
                format!("--authorization-kubeconfig={kubeconfig}"),
                format!("--service-account-private-key-file={}", self.file("service-account.pem")),
                format!("--root-ca-file={}", self.file("certificates/apiserver.crt")),
                format!("--cluster-signing-cert-file={}", self.file("certificates/apiserver.crt")),
                format!("--cluster-signing-key-file={}", self.file("certificates/ca.key")),
                "--use-service-account-credentials".to_owned(),
                "--controllers=*,bootstrap-signer-controller,token-cleaner-controller,-node-ipam-controller,\
                 -cloud-node-lifecycle-controller,-service-lb-controller"
                    .to_owned(),
                // A claim that is seen before its volume is looked at again after this time, 15 s otherwise.
                "--pvclaimbinder-sync-period=1s".to_owned(),
            ],
        )
    }

    pub fn scheduler(&self) -> Result<(), String> {
        let kubeconfig = self.file("inside.kubeconfig");
        self.start(
            "kube-scheduler",
            &[
                "--leader-elect=false".to_owned(),
                "--secure-port=0".to_owned(),
                format!("--kubeconfig={kubeconfig}"),
                format!("--authentication-kubeconfig={kubeconfig}"),
                format!("--authorization-kubeconfig={kubeconfig}"),
            ],
        )
    }

    /// `zone` is the one that the node is in.
    pub fn disk_driver(&self, zone: &str) -> Result<(), String> {
        self.start(
            "csi-stand-in",
            &[
                format!("-node={NODE}"),
                format!("-zone={zone}"),
                format!("-disks={}", self.file("disks")),
                format!("-loops={}", self.file("loops")),
            ],
        )
    }

    pub fn kubelet(&self) -> Result<(), String> {
        self.start(
            "kubelet",
            &[
                format!("--config={}", self.file("kubelet.json")),
                format!("--kubeconfig={}", self.file("kubelet.kubeconfig")),
                format!("--hostname-override={NODE}"),
                format!("--node-ip={NODE_ADDRESS}"),
            ],
        )
    }
}

/// By which names and addresses clients know the API server.
pub const SERVER_NAMES: &[&str] = &[
    "127.0.0.1",
    NODE_ADDRESS,
    SERVICE_ADDRESS,
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];
