//! The same pods, drained by us on one node and by the real `kubectl drain` on another: those that go and those that stay are
//! the same under each combination of flags.

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use k8s_openapi::api::{
    apps::v1::{DaemonSet, ReplicaSet, StatefulSet},
    batch::v1::Job,
    core::v1::{Node, Pod},
};
use kamino_wf::policy::drain::DrainPolicy;
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    drain_stage::{Stage, force},
    support::{
        cluster::{binaries, mortal},
        installed::create,
    },
};

/// What a pod template says; `more` volumes.
fn template(what: &str, volumes: &Value) -> Value {
    json!({ "metadata": { "labels": { "what": what } },
        "spec": { "volumes": volumes, "containers": [{ "name": "c", "image": "i" }] } })
}

fn workload(what: &str, replicas: u32, volumes: &Value) -> Value {
    json!({ "metadata": { "name": what }, "spec": { "replicas": replicas, "serviceName": what,
        "selector": { "matchLabels": { "what": what } }, "template": template(what, volumes) } })
}

impl Stage {
    /// What every node has: pods of real controllers, a static pod's shadow, and finished ones.
    async fn tenants(&self, local: bool, bare: bool) {
        let node = self.node.as_str();
        let empty = json!([{ "name": "scratch", "emptyDir": {} }]);
        let nothing = json!([]);
        create(&self.api::<ReplicaSet>(), workload("replicated", 2, &nothing)).await;
        create(&self.api::<StatefulSet>(), workload("stateful", 1, &nothing)).await;
        let mut job = json!({ "metadata": { "name": "job" }, "spec": { "template": template("job", &nothing) } });
        job["spec"]["template"]["spec"]["restartPolicy"] = "Never".into();
        create(&self.api::<Job>(), job).await;
        let nodes: Api<Node> = Api::all(self.admin.clone());
        let label = Patch::Merge(json!({ "metadata": { "labels": { "drained": node } } }));
        nodes.patch(node, &PatchParams::default(), &label).await.expect("a label");
        let mut daemon = workload("daemon", 1, &empty);
        daemon["spec"].as_object_mut().expect("an object").remove("replicas");
        daemon["spec"].as_object_mut().expect("an object").remove("serviceName");
        daemon["spec"]["template"]["spec"]["nodeSelector"] = json!({ "drained": node });
        create(&self.api::<DaemonSet>(), daemon).await;
        for (what, count) in [("replicated", 2), ("stateful", 1), ("job", 1), ("daemon", 1)] {
            self.bind(what, count, node).await;
        }
        let shadow = json!({ "metadata": { "annotations": { "kubernetes.io/config.mirror": "hash" } } });
        self.pod("mirror", shadow).await;
        self.pod("finished", json!({ "spec": { "volumes": empty } })).await;
        self.says("finished", "Succeeded").await;
        self.pod("failed", json!({})).await;
        self.says("failed", "Failed").await;
        if local {
            create(&self.api::<ReplicaSet>(), workload("local", 1, &empty)).await;
            self.bind("local", 1, node).await;
        }
        if bare {
            self.pod("bare", json!({})).await;
        }
        if local && bare {
            self.pod("both", json!({ "spec": { "volumes": empty } })).await;
        }
    }

    /// The `what` labels of pods whose path a text names.
    async fn named_in(&self, text: &str) -> BTreeSet<String> {
        let pods = self.api::<Pod>().list(&ListParams::default()).await.expect("pods");
        let named = pods.items.into_iter().filter(|pod| {
            let path = format!("{}/{}", self.namespace, pod.metadata.name.as_deref().unwrap_or_default());
            text.contains(&path)
        });
        named.filter_map(|pod| pod.metadata.labels?.get("what").cloned()).collect()
    }
}

/// What became of a node's pods: which were refused, and which are still there.
#[derive(Debug, PartialEq, Eq)]
struct End {
    drained: bool,
    refused: BTreeSet<String>,
    there: BTreeSet<String>,
}

async fn by_us(stage: &Stage, delete_empty_dir: bool, forced: bool) -> End {
    stage.cordon().await;
    let policy = DrainPolicy { delete_empty_dir, force: forced.then(force), ..DrainPolicy::default() };
    let driven = stage.drain(&stage.input(policy).await).await;
    let refused = match &driven.end {
        Ok(_) => BTreeSet::new(),
        Err(error) => {
            assert_eq!(error.code, "KW0411", "{error}");
            stage.named_in(&error.text).await
        }
    };
    if let Ok(drained) = &driven.end {
        let left: Vec<&str> = drained.left.iter().map(|left| left.pod.as_str()).collect();
        assert_eq!(stage.named_in(&left.join(" ")).await, stage.there().await, "what stayed is reported");
    }
    End { drained: driven.end.is_ok(), refused, there: stage.there().await }
}

async fn by_kubectl(stage: &Stage, delete_empty_dir: bool, forced: bool) -> End {
    let kubectl = binaries(&["kubectl"]).expect("the cluster's binaries").join("kubectl");
    let mut command = tokio::process::Command::from(mortal(&kubectl));
    command.arg("--kubeconfig").arg(stage.cluster.folder.join("admin.kubeconfig"));
    command.args(["drain", stage.node.as_str(), "--ignore-daemonsets", "--timeout=50s"]);
    command.args(delete_empty_dir.then_some("--delete-emptydir-data"));
    command.args(forced.then_some("--force"));
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_mins(1), stage.with_kubelet(command.output())).await;
    let output = output.expect("in time").expect("kubectl runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    let refusals: String = errors.lines().filter(|line| line.contains("cannot delete")).collect();
    if !output.status.success() {
        assert!(!refusals.is_empty(), "kubectl failed for another reason: {errors}");
    }
    End { drained: output.status.success(), refused: stage.named_in(&refusals).await, there: stage.there().await }
}

async fn the_same(local: bool, bare: bool) {
    let mut seen = Vec::new();
    for (delete_empty_dir, forced) in [(false, false), (true, false), (false, true), (true, true)] {
        let (Some(ours), Some(theirs)) = (Stage::new().await, Stage::new().await) else { return };
        ours.tenants(local, bare).await;
        theirs.tenants(local, bare).await;
        let before = ours.there().await;
        assert_eq!(before, theirs.there().await, "the same pods");
        let what = format!("deleteEmptyDir {delete_empty_dir}, force {forced}, local {local}, bare {bare}");
        let end = by_us(&ours, delete_empty_dir, forced).await;
        assert_eq!(end, by_kubectl(&theirs, delete_empty_dir, forced).await, "{what}");
        let allowed = (!local || delete_empty_dir) && (!bare || forced);
        assert_eq!(end.drained, allowed, "{what}: {end:?}");
        if end.drained {
            assert_eq!(end.there, BTreeSet::from(["daemon".to_owned(), "mirror".to_owned()]), "{what}");
        } else {
            assert_eq!(end.there, before, "{what}: nothing went");
        }
        seen.push(end.drained);
    }
    assert!(seen.contains(&true) && seen.contains(&false), "{seen:?}");
}

#[tokio::test]
async fn pods_with_local_data_go_and_stay_as_with_kubectl() {
    the_same(true, false).await;
}

#[tokio::test]
async fn pods_without_a_controller_go_and_stay_as_with_kubectl() {
    the_same(false, true).await;
}

#[tokio::test]
async fn pods_with_both_go_and_stay_as_with_kubectl() {
    the_same(true, true).await;
}
