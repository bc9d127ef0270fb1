//! The Python tool's workloads in a real cluster, and nodes as it leaves them.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    batch::v1::{CronJob, Job},
    core::v1::Node,
};
use kamino_wf::{
    cloud::{Power, Powered},
    cluster::{Cluster, Rival},
    model::{InstanceId, ScaleSetId},
    permissions::KUBERNETES,
    policy::takeover::{Kind, machines},
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::support::{
    cluster::shared,
    installed::{TestNode, create, until},
};

fn pod(image: &str, command: &[&str]) -> Value {
    json!({ "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": image, "command": command }] } })
}

fn cron_job(name: &str, suspend: bool, pod: &Value) -> Value {
    json!({ "metadata": { "name": name },
            "spec": { "schedule": "42 0 29 2 *", "suspend": suspend, "jobTemplate": { "spec": { "template": pod } } } })
}

/// As its chart makes one.
fn job(name: &str) -> Value {
    let labels = json!({ "app": "kamino-vmss-prototype", "kamino": name });
    json!({ "metadata": { "name": name, "labels": labels },
            "spec": { "template": pod("registry.example/tools:1", &["vmss-prototype", "--in-cluster", "status"]) } })
}

const IMAGE: &str =
    "ghcr.io/jackfrancis/kamino/vmss-prototype@sha256:26bef983e30edc597c932d8ca3246f949638fae738888109649f4e26a770f4a0";

#[tokio::test]
async fn it_is_found_in_any_namespace_and_said_whether_it_will_go_on() {
    let Some(cluster) = shared() else { return };
    let installed = cluster.service_account_kubeconfig(KUBERNETES).await;
    let port = installed.connect().await;
    let namespace = installed.at.namespace.clone();
    let admin = cluster.admin().await;
    let cron_jobs: Api<CronJob> = Api::namespaced(admin.clone(), &namespace);
    let jobs: Api<Job> = Api::namespaced(admin.clone(), &namespace);
    create(&cron_jobs, cron_job("live", false, &pod(IMAGE, &[]))).await;
    create(&cron_jobs, cron_job("suspended", true, &pod("tools:1", &["/usr/bin/vmss-prototype"]))).await;
    create(
        &cron_jobs,
        cron_job("somebodys", false, &pod("registry.example/not-vmss-prototype:1", &["sh", "-c", "true"])),
    )
    .await;
    create(&jobs, job("runs")).await;
    // No kubelet runs it here: the job controller ends it when its second is over.
    let mut ended = job("ended");
    ended["spec"]["activeDeadlineSeconds"] = json!(1);
    create(&jobs, ended).await;
    let mut unlabelled = job("unlabelled");
    unlabelled["metadata"]["labels"] = json!({});
    create(&jobs, unlabelled).await;
    let mut found: BTreeMap<String, Rival> = BTreeMap::new();
    until("all four to be found", async || {
        let all = port.rivals().await.expect("a look");
        let ours = all.into_iter().filter(|rival| rival.namespace == namespace);
        found = ours.map(|rival| (rival.name.clone(), rival)).collect();
        found.len() == 4 && !found["ended"].live
    })
    .await;
    let seen: Vec<(&str, &str, bool, &str)> =
        found.values().map(|it| (it.kind.as_str(), it.name.as_str(), it.live, it.state.as_str())).collect();
    let expected = [
        ("Job", "ended", false, "failed"),
        ("CronJob", "live", true, "schedule 42 0 29 2 *"),
        ("Job", "runs", true, "runs now"),
        ("CronJob", "suspended", false, "suspended"),
    ];
    assert_eq!(seen, expected);
}

/// What the remedy says is what kubectl would be told: followed to the letter, the finding is gone.
#[tokio::test]
async fn a_node_that_it_left_is_found_until_its_marks_are_gone() {
    let Some(cluster) = shared() else { return };
    let installed = cluster.service_account_kubeconfig(KUBERNETES).await;
    let port = installed.connect().await;
    let set = "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/left/providers/Microsoft.Compute/\
               virtualMachineScaleSets/left-vmss";
    let set = ScaleSetId::parse(set).expect("an id");
    let instance = InstanceId::parse(&format!("{set}/virtualMachines/7")).expect("an id");
    let name = "left-vmss000007";
    cluster.add_node(&TestNode { provider_id: format!("azure://{instance}"), ..TestNode::new(name) }).await;
    let nodes: Api<Node> = Api::all(cluster.admin().await);
    let mark = async |unschedulable: Value, held: Value| {
        let annotations = json!({ "cluster-autoscaler.kubernetes.io/scale-down-disabled": held });
        let patch = json!({ "metadata": { "annotations": annotations }, "spec": { "unschedulable": unschedulable } });
        nodes.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.expect("a patch");
    };
    let kinds = async |power: Power| {
        let powers = [Powered { id: instance.clone(), power }];
        let seen = port.nodes().await.expect("nodes");
        let found = machines(&set, &seen, &powers);
        found.into_iter().map(|it| it.kind).collect::<Vec<Kind>>()
    };
    assert_eq!(kinds(Power::Running).await, []);
    mark(json!(true), json!("true")).await;
    assert_eq!(kinds(Power::Stopped).await, [Kind::PoweredOff]);
    assert_eq!(kinds(Power::Running).await, [Kind::Cordoned]);
    mark(json!(null), json!("true")).await;
    assert_eq!(kinds(Power::Running).await, [Kind::Held]);
    mark(json!(null), json!(null)).await;
    assert_eq!(kinds(Power::Running).await, []);
}
