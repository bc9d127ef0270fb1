//! The chart on a real API server: every object is valid, also by a strict reading, and what has to stay stays.

use std::sync::atomic::{AtomicU32, Ordering};

use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod, ServiceAccount};
use kube::{
    Api, Client,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, ValidationDirective,
    },
};
use serde_json::{Value, json};

use crate::{
    BOTH, Helm, objects, root,
    support::{
        cluster::{TestCluster, shared},
        installed::{create, until},
    },
    tools, values,
};

/// A release of the chart in namespaces of its own.
pub(crate) struct Release {
    helm: Helm,
    pub(crate) namespace: String,
    pub(crate) clean_namespace: String,
    kubeconfig: String,
}

impl Release {
    pub(crate) async fn new(cluster: &TestCluster, helm: Helm) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("release-{number}");
        let restricted = json!({ "pod-security.kubernetes.io/enforce": "restricted" });
        let namespaces: Api<Namespace> = Api::all(cluster.admin().await);
        create(&namespaces, json!({ "metadata": { "name": namespace, "labels": restricted } })).await;
        Self {
            helm,
            namespace,
            clean_namespace: format!("release-clean-{number}"),
            kubeconfig: cluster.folder.join("admin.kubeconfig").display().to_string(),
        }
    }

    /// Runs Helm on it; what it says.
    pub(crate) fn helm(&self, arguments: &[&str]) -> String {
        let mut command = self.helm.command(tools().expect("Helm"));
        command.args(arguments).args(["--namespace", &self.namespace, "--kubeconfig", &self.kubeconfig]);
        let output = command.output().expect("helm");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{:?} {arguments:?}: {text}", self.helm);
        text
    }

    /// Installs or upgrades, with the default values and these.
    pub(crate) fn apply(&self, verb: &str, settings: &[&str]) -> String {
        let (values, chart) = (values("default"), crate::chart());
        let space = format!("cleaning.namespace={}", self.clean_namespace);
        let mut arguments = vec![verb, "kamino-wf", chart.to_str().expect("a path"), "--set", &space];
        arguments.extend(["--values", values.to_str().expect("a path")]);
        for setting in settings {
            arguments.extend(["--set", *setting]);
        }
        self.helm(&arguments)
    }
}

pub(crate) fn api_of(client: &Client, object: &Value, namespace: Option<&str>) -> Api<DynamicObject> {
    let (group, version) = match object["apiVersion"].as_str().expect("a version").split_once('/') {
        Some((group, version)) => (group, version),
        None => ("", object["apiVersion"].as_str().expect("a version")),
    };
    let kind = object["kind"].as_str().expect("a kind");
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// Applies an object without keeping it; unknown and doubled fields are errors.
async fn strictly_valid(client: &Client, object: &Value) -> Result<(), kube::Error> {
    let api = api_of(client, object, object["metadata"]["namespace"].as_str());
    let strict = PatchParams {
        dry_run: true,
        force: true,
        field_manager: Some("test".to_owned()),
        field_validation: Some(ValidationDirective::Strict),
    };
    api.patch(object["metadata"]["name"].as_str().expect("a name"), &strict, &Patch::Apply(object)).await.map(drop)
}

#[tokio::test]
async fn the_server_takes_every_object_by_a_strict_reading() {
    let (Some(_), Some(cluster)) = (tools(), shared()) else { return };
    let admin = cluster.admin().await;
    let namespaces: Api<Namespace> = Api::all(admin.clone());
    for name in ["kamino-wf", "kamino-wf-clean", "cleaning"] {
        create(&namespaces, json!({ "metadata": { "name": name } })).await;
    }
    // Pods are refused where their account is not there yet.
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), "kamino-wf");
    for name in ["kamino-wf", "kamino", "robot"] {
        create(&accounts, json!({ "metadata": { "name": name } })).await;
    }
    for golden in ["default", "old-server", "cronjob", "everything", "stop"] {
        let path = root().join(format!("tests/golden/chart/{golden}.yaml"));
        let text = std::fs::read_to_string(path).expect("what the chart renders");
        let mut seen = 0;
        // The monitoring kinds are not the server's own.
        for object in objects(&text).iter().filter(|it| it["apiVersion"] != "monitoring.coreos.com/v1") {
            let answer = strictly_valid(&admin, object).await;
            assert!(answer.is_ok(), "{golden}: {} {}: {answer:?}", object["kind"], object["metadata"]["name"]);
            seen += 1;
        }
        assert!(seen > 10, "{golden}: {seen} objects");
    }
    let typo = json!({ "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "typo", "namespace": "kamino-wf" }, "dta": {} });
    assert!(strictly_valid(&admin, &typo).await.is_err(), "the reading is strict");
}

#[tokio::test]
async fn its_pods_are_admitted_where_only_restricted_ones_are() {
    let (Some(_), Some(cluster)) = (tools(), shared()) else { return };
    let admin = cluster.admin().await;
    let release = Release::new(cluster, Helm::Four).await;
    until("the default service account", async || {
        let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), &release.namespace);
        accounts.get_opt("default").await.expect("the administrator may look").is_some()
    })
    .await;
    let mut seen = 0;
    for golden in ["default", "cronjob", "everything", "stop"] {
        let text = std::fs::read_to_string(root().join(format!("tests/golden/chart/{golden}.yaml"))).expect("a golden");
        for object in objects(&text) {
            let pod = match object["kind"].as_str() {
                Some("Pod") => &object["spec"],
                Some("Deployment") => &object["spec"]["template"]["spec"],
                Some("CronJob") => &object["spec"]["jobTemplate"]["spec"]["template"]["spec"],
                _ => continue,
            };
            let mut spec = pod.clone();
            // There is none of that name here; what the pod may do is another matter.
            spec["serviceAccountName"] = "default".into();
            let pod = json!({ "apiVersion": "v1", "kind": "Pod", "spec": spec,
                "metadata": { "name": "pod", "namespace": release.namespace } });
            let answer = strictly_valid(&admin, &pod).await;
            assert!(answer.is_ok(), "{golden}: {}: {answer:?}", object["kind"]);
            let mut privileged = pod;
            privileged["spec"]["containers"][0]["securityContext"]["privileged"] = true.into();
            privileged["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = true.into();
            let refused = strictly_valid(&admin, &privileged).await.expect_err("privileged").to_string();
            assert!(refused.contains("PodSecurity"), "{refused}");
            seen += 1;
        }
    }
    assert_eq!(seen, 8, "a controller and a test for each set of values");
}

async fn claim(admin: &Client, release: &Release) -> PersistentVolumeClaim {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(admin.clone(), &release.namespace);
    claims.get("kamino-wf").await.expect("the claim is there")
}

/// Installed, upgraded, taken back, and uninstalled: it is the same claim all the time.
#[tokio::test]
async fn the_claim_outlives_upgrade_rollback_and_uninstall() {
    let (Some(_), Some(cluster)) = (tools(), shared()) else { return };
    let admin = cluster.admin().await;
    for helm in BOTH {
        let release = Release::new(cluster, helm).await;
        let notes = release.apply("install", &[]);
        let plugin = format!("kubectl kamino --namespace {} start --pool POOL --adopt", release.namespace);
        for words in ["helm test kamino-wf", &plugin, "exec deploy/kamino-wf -- /kamino-wf list"] {
            assert!(notes.contains(words), "{helm:?}: the notes say {words}: {notes}");
        }
        let first = claim(&admin, &release).await;
        let modes = first.spec.as_ref().and_then(|spec| spec.access_modes.clone()).expect("a mode");
        assert_eq!(modes, ["ReadWriteOncePod"], "{helm:?}");

        // What others wrote on it since, as provisioners and the binder do.
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(admin.clone(), &release.namespace);
        let marks = json!({ "metadata": { "annotations": { "volume.kubernetes.io/selected-node": "node" } } });
        claims.patch("kamino-wf", &PatchParams::default(), &Patch::Merge(marks)).await.expect("annotated");

        release.apply("upgrade", &["log.format=text", "persistence.annotations.example\\.com/more=yes"]);
        let after = claim(&admin, &release).await;
        let annotations = after.metadata.annotations.clone().unwrap_or_default();
        for name in ["helm.sh/resource-policy", "volume.kubernetes.io/selected-node", "example.com/more"] {
            assert!(annotations.contains_key(name), "{helm:?}: {name} in {annotations:?}");
        }
        assert_eq!(after.metadata.uid, first.metadata.uid, "{helm:?}: the upgrade kept the claim");

        release.helm(&["rollback", "kamino-wf", "1"]);
        let annotations = claim(&admin, &release).await.metadata.annotations.unwrap_or_default();
        assert!(annotations.contains_key("volume.kubernetes.io/selected-node"), "{helm:?}: {annotations:?}");

        release.helm(&["uninstall", "kamino-wf"]);
        assert_eq!(
            claim(&admin, &release).await.metadata.uid,
            first.metadata.uid,
            "{helm:?}: uninstalling kept the claim"
        );
        let pods: Api<Pod> = Api::namespaced(admin.clone(), &release.namespace);
        let namespaces: Api<Namespace> = Api::all(admin.clone());
        until("the controller's pod and the cleaning namespace to go", async || {
            // Nobody stands in for the kubelet here: the pod was never on a node.
            pods.list(&ListParams::default()).await.is_ok_and(|pods| pods.items.is_empty())
                && namespaces.get_opt(&release.clean_namespace).await.is_ok_and(|it| it.is_none())
        })
        .await;

        // Installed again, it finds the claim and takes it over.
        release.apply("install", &[]);
        assert_eq!(claim(&admin, &release).await.metadata.uid, first.metadata.uid, "{helm:?}: the same store again");
        release.helm(&["uninstall", "kamino-wf"]);
        claims.delete("kamino-wf", &DeleteParams::default()).await.expect("the claim goes when it is told to");
    }
}

/// A claim's access mode can't be changed, so a better server must not change what the chart asks for.
#[tokio::test]
async fn a_claim_of_an_older_server_keeps_its_access_mode() {
    let (Some(_), Some(cluster)) = (tools(), shared()) else { return };
    let admin = cluster.admin().await;
    for helm in BOTH {
        let release = Release::new(cluster, helm).await;
        release.apply("install", &["persistence.accessMode=ReadWriteOnce"]);
        release.apply("upgrade", &[]);
        let modes = claim(&admin, &release).await.spec.and_then(|spec| spec.access_modes).expect("a mode");
        assert_eq!(modes, ["ReadWriteOnce"], "{helm:?}");
        release.helm(&["uninstall", "kamino-wf"]);
    }
}
