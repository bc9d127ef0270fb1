//! A release of the chart, as a user installs it: the real image, the chart's own roles, a volume, and Azure's face.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    time::Duration,
};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolume, Pod};
use kamino_wf::permissions::Installation;
use kube::{Api, api::ListParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::{
    installed::{create, until},
    node::{
        product::{REPOSITORY, script},
        real_cluster::{RealCluster, shared},
    },
    world::{Plan, Site},
};

/// For what a person would wait for without a second thought.
const PATIENCE: Duration = Duration::from_mins(2);

/// An installation by the chart, and the world that it works on.
pub(crate) struct Release {
    pub(crate) cluster: &'static RealCluster,
    pub(crate) site: Site,
    name: &'static str,
    values: PathBuf,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    pub(crate) fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().expect("the command starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: status.code(), stdout: text(&stdout), stderr: text(&stderr) }
    }

    #[track_caller]
    pub(crate) fn assert(&self, code: i32, words: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for word in words {
            assert!(self.stdout.contains(word) || self.stderr.contains(word), "no {word:?} in {self:#?}");
        }
        self
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }
}

impl Release {
    /// A world, a namespace with the little that the chart does not bring, and a file of values. Nothing is installed yet.
    pub(crate) async fn prepare(name: &'static str, plan: Plan) -> Option<Self> {
        let cluster = shared()?;
        cluster.import_product();
        let at = Installation {
            namespace: name.to_owned(),
            clean_namespace: format!("{name}-clean"),
            service_account: format!("{name}-kamino-wf"),
        };
        let site = Site::charted(cluster, plan, at).await;
        let admin = cluster.admin().await;
        let restricted = json!({ "name": name, "labels": { "pod-security.kubernetes.io/enforce": "restricted" } });
        create::<Namespace>(&Api::all(admin.clone()), json!({ "metadata": restricted })).await;
        let certificate = fs::read_to_string(site.folder.path().join("ca.pem")).expect("the face's authority");
        let maps: Api<ConfigMap> = Api::namespaced(admin, name);
        create(&maps, json!({ "metadata": { "name": "azure-ca" }, "data": { "ca.pem": certificate } })).await;
        let folder = site.folder.path().join("volume");
        fs::create_dir(&folder).expect("a folder");
        volume(cluster, name, &format!("{name}-kamino-wf"), &folder).await;
        let values = site.folder.path().join("values.json");
        let release = Self { cluster, site, name, values };
        release.write_values(&|_| {});
        Some(release)
    }

    /// The values, changed as the test wants them.
    pub(crate) fn write_values(&self, change: &dyn Fn(&mut Value)) {
        self.site.configure(|_| {});
        let settings: Value =
            serde_json::from_str(&fs::read_to_string(&self.site.config).expect("settings")).expect("JSON");
        let mut values = values(&self.site);
        values["azure"]["clientId"] = "11111111-2222-3333-4444-555555555555".into();
        values["config"]["pools"] = settings["pools"].clone();
        values["config"]["pools"][0]["adopt"] = true.into();
        values["cleaning"] = json!({ "namespace": self.site.installed.at.clean_namespace });
        values["persistence"]["volumeName"] = format!("{}-kamino-wf", self.name).into();
        change(&mut values);
        fs::write(&self.values, values.to_string()).expect("a file of values");
    }

    /// Helm 4 against this cluster and namespace.
    pub(crate) fn helm(&self, arguments: &[&str]) -> Said {
        static TOOLS: OnceLock<PathBuf> = OnceLock::new();
        let mut command = Command::new(TOOLS.get_or_init(|| script("scripts/chart-tools")).join("helm4"));
        command.args(arguments).args(["--namespace", self.name]).env("HOME", self.site.folder.path());
        Said::of(command.env("KUBECONFIG", self.cluster.kubeconfig()))
    }

    /// `install` or `upgrade`, of this chart with these values, and waits until it is ready.
    pub(crate) fn apply(&self, verb: &str) -> Said {
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/kamino-wf").display().to_string();
        let values = self.values.display().to_string();
        self.helm(&[verb, self.name, &chart, "--values", &values, "--wait", "--timeout", "2m"])
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Said {
        Said::of(self.cluster.kubectl_command(&["--namespace", self.name]).args(arguments))
    }

    /// A command in the daemon's pod.
    pub(crate) fn exec(&self, arguments: &[&str]) -> Said {
        let deployment = format!("deployment/{}-kamino-wf", self.name);
        let exec = ["exec", &deployment, "--", "/kamino-wf"];
        self.kubectl(&[&exec[..], arguments].concat())
    }

    /// The same until the container is up to answer: it may have been killed a moment ago.
    pub(crate) async fn answer(&self, arguments: &[&str]) -> Said {
        let began = Instant::now();
        loop {
            let said = self.exec(arguments);
            if said.code == Some(0) || began.elapsed() > PATIENCE {
                return said;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Starts a run of the pool, and returns its short id.
    pub(crate) async fn start(&self) -> String {
        let said = self.answer(&["start", "--pool", "pool1", "-o", "json"]).await;
        said.assert(0, &[]).json()["run"].as_str().expect("its id").to_owned()
    }

    pub(crate) async fn describe(&self, run: &str) -> Value {
        self.answer(&["describe", run, "-o", "json"]).await.assert(0, &[]).json()
    }

    pub(crate) async fn until_state(&self, run: &str, state: &str) -> Value {
        let began = Instant::now();
        loop {
            let described = self.describe(run).await;
            if described["summary"]["state"] == state {
                return described;
            }
            assert!(began.elapsed() < PATIENCE * 2, "not {state}: {described:#}");
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// The daemon's pods, those that are on their way out included.
    pub(crate) async fn pods(&self) -> Vec<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.admin().await, self.name);
        let ours = ListParams::default().labels("app.kubernetes.io/component=controller");
        pods.list(&ours).await.expect("the administrator may look").items
    }

    /// The name of its one pod.
    pub(crate) async fn pod(&self) -> String {
        until("one pod", async || self.pods().await.len() == 1).await;
        self.pods().await.remove(0).metadata.name.expect("its name")
    }
}

/// What values say here, whatever else a user's do: an image that is there already, no webhook, and where this Azure is.
pub(crate) fn values(site: &Site) -> Value {
    let face = site.face.url();
    json!({
        "image": { "repository": REPOSITORY, "pullPolicy": "Never" },
        "azure": { "tenantId": "66666666-7777-8888-9999-000000000000", "projectToken": true },
        "config": {
            "azure": { "resourceManager": face, "authority": face, "caBundle": "/etc/azure-ca/ca.pem" },
            "polling": { "first": "200ms", "longest": "1s", "settle": "2s" },
        },
        "persistence": { "storageClass": "-" },
        "extraVolumes": [{ "name": "azure-ca", "configMap": { "name": "azure-ca" } }],
        "extraVolumeMounts": [{ "name": "azure-ca", "mountPath": "/etc/azure-ca", "readOnly": true }],
    })
}

/// Where other clusters have a storage class: a folder that belongs to nobody, as a new disk does, for one claim.
pub(crate) async fn volume(cluster: &RealCluster, namespace: &str, claim: &str, folder: &Path) {
    fs::set_permissions(folder, Permissions::from_mode(0o777)).expect("ours");
    create::<PersistentVolume>(
        &Api::all(cluster.admin().await),
        json!({ "metadata": { "name": claim }, "spec": { "capacity": { "storage": "1Gi" },
            "accessModes": ["ReadWriteOncePod"], "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": { "namespace": namespace, "name": claim },
            "hostPath": { "path": folder, "type": "Directory" } } }),
    )
    .await;
}
