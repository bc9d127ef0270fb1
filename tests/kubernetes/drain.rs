//! What a real API server answers to evictions, and what a drain makes of it.

use std::time::Duration;

use futures_util::future::try_join_all;
use jiff::SignedDuration;
use k8s_openapi::api::{
    admissionregistration::v1::{
        ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
    },
    apps::v1::ReplicaSet,
    core::v1::{Namespace, Pod},
    policy::v1::PodDisruptionBudget,
};
use kamino_wf::{
    clock::{Clock, SystemClock},
    cluster::{Cluster, Eviction, PodLife, PodRef},
    model::Class,
    policy::drain::DrainPolicy,
    workflow::Seen,
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    drain_stage::{Stage, force},
    support::installed::{create, until},
};

fn budget(name: &str, what: &str, least: u32) -> Value {
    json!({ "metadata": { "name": name }, "spec": { "minAvailable": least,
        "selector": { "matchExpressions": [{ "key": "what", "operator": "In", "values": [what, "x"] }] } } })
}

impl Stage {
    async fn id(&self, name: &str) -> PodRef {
        self.port.pod(&self.namespace, name).await.expect("a look").expect("the pod").id
    }

    /// Pods of a real `ReplicaSet` on the node.
    async fn replicas(&self, what: &str, count: u32) {
        let template = json!({ "metadata": { "labels": { "what": what } },
            "spec": { "containers": [{ "name": "c", "image": "i" }] } });
        let set = json!({ "metadata": { "name": what }, "spec": { "replicas": count,
            "selector": { "matchLabels": { "what": what } }, "template": template } });
        create(&self.api::<ReplicaSet>(), set).await;
        self.bind(what, count as usize, self.node.as_str()).await;
    }

    /// Waits until a budget's numbers are these.
    async fn reckoned(&self, name: &str, healthy: i32, allowed: i32) {
        until("the budget's numbers", async || {
            let budgets = self.port.budgets(&self.namespace).await.expect("budgets");
            let found = budgets.into_iter().find(|budget| budget.name == name).expect("the budget");
            found.current && (found.healthy, found.allowed) == (healthy, allowed)
        })
        .await;
    }
}

#[tokio::test]
async fn a_budget_that_blocks_is_named_with_its_numbers_until_it_has_room() {
    let Some(stage) = Stage::new().await else { return };
    stage.replicas("web", 2).await;
    create(&stage.api::<PodDisruptionBudget>(), budget("web", "web", 2)).await;
    stage.reckoned("web", 2, 0).await;
    stage.cordon().await;
    let pods = stage.port.pods_on(&stage.node).await.expect("pods");
    let answer = stage.port.evict(&pods[0].id).await.expect("an answer");
    let Eviction::Blocked { budget, message, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(budget.as_deref(), Some("web"));
    assert_eq!(message, "The disruption budget web needs 2 healthy pods and has 2 currently");

    let input = stage.input(DrainPolicy::default()).await;
    let seen = stage.look(&input).await.expect("a look");
    let Seen::Partly(text) = seen else { panic!("{seen:?}") };
    let named = format!("(budget {}/web has had no room since 20", stage.namespace);
    assert!(text.starts_with("2 blocked: ") && text.contains(&named), "{text}");
    assert!(text.contains("(2 of 2 wanted pods are Ready)"), "{text}");
    let accepted = stage.act(&input).await.expect("an answer");
    assert_eq!(accepted.retry_after, Some(Duration::from_secs(30)), "not at once again");
    let said = accepted.said.expect("words");
    assert!(said.contains(&format!("is blocked by budget {}/web: The disruption budget web needs 2", stage.namespace)));
    assert_eq!(stage.port.pods_on(&stage.node).await.expect("pods"), pods, "nothing has changed");

    // Somebody makes room: one more elsewhere, and each that goes is replaced there.
    let patch = Patch::Merge(json!({ "spec": { "replicas": 3 } }));
    stage.api::<ReplicaSet>().patch("web", &PatchParams::default(), &patch).await.expect("a third");
    stage.bind("web", 1, "elsewhere").await;
    stage.reckoned("web", 3, 1).await;
    let (driven, ()) = tokio::join!(stage.drain(&input), async {
        // So that a look or two falls into the time without room.
        tokio::time::sleep(Duration::from_secs(2)).await;
        stage.bind("web", 1, "elsewhere").await;
        stage.bind("web", 1, "elsewhere").await;
    });
    assert!(driven.end.is_ok(), "{:?}: {:#?}", driven.end, driven.looks);
    let blocked = driven.looks.iter().any(|text| text.contains("budget") && text.contains("has had no room since"));
    assert!(blocked, "one at a time: {:#?}", driven.looks);
}

#[tokio::test]
async fn two_budgets_for_one_pod_are_refused_and_a_decision_deletes_it() {
    let Some(stage) = Stage::new().await else { return };
    stage.replicas("web", 1).await;
    for name in ["one", "two"] {
        create(&stage.api::<PodDisruptionBudget>(), budget(name, "web", 0)).await;
        stage.reckoned(name, 1, 1).await;
    }
    stage.cordon().await;
    let pod = stage.port.pods_on(&stage.node).await.expect("pods").remove(0);
    let answer = stage.port.evict(&pod.id).await.expect("an answer");
    assert!(matches!(&answer, Eviction::SeveralBudgets(said) if said.contains("more than one")), "{answer:?}");
    let error = stage.look(&stage.input(DrainPolicy::default()).await).await.expect_err("two budgets");
    assert_eq!(error.code, "KW0411");
    assert!(error.text.contains(&format!("({0}/one and {0}/two)", stage.namespace)), "{error}");
    let policy = DrainPolicy { force: Some(force()), ..DrainPolicy::default() };
    let driven = stage.drain(&stage.input(policy).await).await;
    assert!(driven.end.is_ok(), "{:?}", driven.end);
    let said = driven.said.join("\n");
    assert!(said.contains("deleted") && said.contains("force by jane@example.com, a test"), "{said}");
    let audit = stage.cluster.audit().await;
    let deletions: Vec<_> =
        audit.iter().filter(|entry| entry.user == stage.installed.user && entry.verb == "delete").collect();
    assert_eq!(deletions.len(), 1, "{deletions:#?}");
}

#[tokio::test]
async fn a_pod_that_is_gone_or_another_is_gone_and_the_other_is_left_alone() {
    let Some(stage) = Stage::new().await else { return };
    stage.pod("one", json!({})).await;
    let id = stage.id("one").await;
    let another = PodRef { uid: "00000000-1111-2222-3333-444444444444".into(), ..id.clone() };
    assert_eq!(stage.port.evict(&another).await.expect("an answer"), Eviction::Gone);
    stage.port.delete_gently(&another).await.expect("no error");
    let left = stage.port.pod(&id.namespace, "one").await.expect("a look").expect("the pod");
    assert!(left.id == id && left.deleting.is_none(), "{left:?}");
    let nobody = PodRef { name: "nobody".into(), ..id.clone() };
    assert_eq!(stage.port.evict(&nobody).await.expect("an answer"), Eviction::Gone);
    stage.port.delete_gently(&nobody).await.expect("no error");
    assert_eq!(stage.port.evict(&id).await.expect("an answer"), Eviction::Accepted);
    // Its own grace, and again is no error.
    let going = stage.port.pod(&id.namespace, "one").await.expect("a look").expect("the pod");
    let grace = going.deleting.expect("a time").duration_since(SystemClock.now());
    assert!(grace > SignedDuration::from_secs(20), "{going:?}");
    assert_eq!(stage.port.evict(&id).await.expect("an answer"), Eviction::Accepted);
}

#[tokio::test]
async fn a_namespace_that_is_being_deleted_evicts_nothing_and_takes_its_pods_along() {
    let Some(stage) = Stage::new().await else { return };
    stage.replicas("web", 1).await;
    stage.cordon().await;
    let pod = stage.port.pods_on(&stage.node).await.expect("pods").remove(0);
    let namespaces: Api<Namespace> = Api::all(stage.admin.clone());
    namespaces.delete(&stage.namespace, &DeleteParams::default()).await.expect("accepted");
    let mut answer = stage.port.evict(&pod.id).await.expect("an answer");
    // Admission learns of it by a watch.
    until("the namespace to be known as terminating", async || {
        answer = stage.port.evict(&pod.id).await.expect("an answer");
        answer != Eviction::Accepted
    })
    .await;
    assert!(matches!(&answer, Eviction::NamespaceTerminates(said) if said.contains(&stage.namespace)), "{answer:?}");
    let driven = stage.drain(&stage.input(DrainPolicy::default()).await).await;
    assert!(driven.end.is_ok(), "{:?}", driven.end);
}

#[tokio::test]
async fn what_an_admission_policy_denies_or_a_silent_webhook_holds_is_asked_again() {
    let Some(stage) = Stage::new().await else { return };
    stage.replicas("kafka", 1).await;
    stage.cordon().await;
    let pod = stage.port.pods_on(&stage.node).await.expect("pods").remove(0);
    let name = format!("keep-{}", stage.namespace);
    let here = json!({ "matchLabels": { "kubernetes.io/metadata.name": stage.namespace } });
    let rules =
        json!([{ "apiGroups": [""], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["pods/eviction"] }]);
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(stage.admin.clone());
    let policy = json!({ "metadata": { "name": name }, "spec": { "failurePolicy": "Fail",
        "matchConstraints": { "resourceRules": rules, "namespaceSelector": here },
        "validations": [{ "expression": "false", "message": "the operator moves it first" }] } });
    create(&policies, policy).await;
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(stage.admin.clone());
    let binding = json!({ "metadata": { "name": name },
        "spec": { "policyName": name, "validationActions": ["Deny"] } });
    create(&bindings, binding).await;
    let dry = async || {
        let body = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": pod.id.name },
            "deleteOptions": { "dryRun": ["All"] } });
        let how = PostParams { dry_run: true, ..PostParams::default() };
        stage.api::<Pod>().create_subresource::<Value, Value>("eviction", &pod.id.name, &how, &body).await
    };
    until("the policy", async || dry().await.is_err()).await;
    let input = stage.input(DrainPolicy::default()).await;
    let accepted = stage.act(&input).await.expect("an answer");
    let said = accepted.said.expect("words");
    assert!(said.contains("is held by an admission rule: ") && said.contains("the operator moves it first"), "{said}");
    assert_eq!(accepted.retry_after, Some(Duration::from_secs(30)));
    bindings.delete(&name, &DeleteParams::default()).await.expect("gone");
    policies.delete(&name, &DeleteParams::default()).await.expect("gone");
    until("the policy's end", async || dry().await.is_ok()).await;

    let hooks: Api<ValidatingWebhookConfiguration> = Api::all(stage.admin.clone());
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address");
    let hook = json!({ "metadata": { "name": name }, "webhooks": [{ "name": "keep.example.com", "rules": rules,
        "namespaceSelector": here, "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail",
        "timeoutSeconds": 2, "clientConfig": { "url": format!("https://{nobody}/") } }] });
    create(&hooks, hook).await;
    until("the webhook", async || dry().await.is_err()).await;
    let answer = stage.port.evict(&pod.id).await.expect("an answer");
    assert!(matches!(&answer, Eviction::NotAdmitted(said) if said.contains("keep.example.com")), "{answer:?}");
    hooks.delete(&name, &DeleteParams::default()).await.expect("gone");
    until("the webhook's end", async || dry().await.is_ok()).await;
    assert!(stage.drain(&input).await.end.is_ok());
}

#[tokio::test]
async fn a_pod_is_seen_as_it_is() {
    let Some(stage) = Stage::new().await else { return };
    let more = json!({ "metadata": { "annotations": { "kubernetes.io/config.mirror": "x" } },
        "spec": { "volumes": [{ "name": "v", "emptyDir": { "medium": "Memory" } }] } });
    stage.pod("odd", more).await;
    let odd = stage.port.pod(&stage.namespace, "odd").await.expect("a look").expect("the pod");
    assert!(odd.mirror && odd.empty_dir && odd.ready && odd.controller.is_none(), "{odd:?}");
    assert_eq!((odd.life, odd.node.as_deref()), (PodLife::Running, Some(stage.node.as_str())));
    assert_eq!(odd.labels.get("what").map(String::as_str), Some("odd"));
    stage.says("odd", "Failed").await;
    let odd = stage.port.pod(&stage.namespace, "odd").await.expect("a look").expect("the pod");
    assert_eq!((odd.life, odd.ready), (PodLife::Finished, false));
    assert_eq!(stage.port.pod(&stage.namespace, "nobody").await.expect("a look"), None);
    assert!(!stage.port.daemon_set_exists(&stage.namespace, "nobody").await.expect("a look"));
}

/// More pods than one answer holds.
#[tokio::test]
async fn all_pods_of_a_node_are_seen_however_many() {
    let Some(stage) = Stage::new().await else { return };
    let pods: Api<Pod> = stage.api();
    let made = (0..260).map(|number| {
        let pod = json!({ "metadata": { "name": format!("p{number}") },
            "spec": { "nodeName": stage.node, "containers": [{ "name": "c", "image": "i" }] } });
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let pods = &pods;
        async move { pods.create(&PostParams::default(), &pod).await }
    });
    try_join_all(made).await.expect("pods");
    assert_eq!(stage.port.pods_on(&stage.node).await.expect("pods").len(), 260);
    let audit = stage.cluster.audit().await;
    let ours = audit.iter().filter(|entry| entry.user == stage.installed.user && entry.resource == "pods");
    let pages: Vec<&str> = ours.map(|entry| entry.uri.as_str()).collect();
    assert!(pages.len() == 2 && pages[1].contains("continue="), "{pages:?}");
}

#[tokio::test]
async fn a_node_that_is_not_cordoned_or_another_is_not_drained() {
    let Some(stage) = Stage::new().await else { return };
    stage.pod("one", json!({})).await;
    let mut input = stage.input(DrainPolicy { force: Some(force()), ..DrainPolicy::default() }).await;
    let error = stage.act(&input).await.expect_err("not cordoned");
    assert_eq!((error.code, error.class), ("KW0413", Class::Refused));
    stage.cordon().await;
    input.uid = "another".into();
    assert_eq!(stage.act(&input).await.expect_err("another").code, "KW0412");
    assert!(stage.port.pod(&stage.namespace, "one").await.expect("a look").expect("it is there").deleting.is_none());
}
