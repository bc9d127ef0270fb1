//! `capture.stop`: what the product does to a donor is let through, with the rights that the chart gives and no more; each clause of
//! the policies refuses what is not that, and the cleaner's account can do two things.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{ConfigMap, Node, Pod, Secret, ServiceAccount},
};
use kamino_wf::{
    clock::{Clock, SystemClock},
    cluster::{Cluster, ClusterError, DonorCleaning, NodeChange, kubernetes::KubernetesCluster},
    model::{Credential, NodeName, Profile},
    permissions::{BOOTSTRAP, CLEANER, Installation, PROOFS},
    policy::obligations::{CLAIM, DO_NOT_DISRUPT, SCALE_DOWN_DISABLED},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    Helm,
    install::{Release, api_of},
    policies::{attempt, clauses, client, refusal, refused},
    support::{
        cluster::{TestCluster, shared},
        installed::{TestNode, create, until},
    },
    tools,
};

/// What is changed in the good pod, and the beginning of what is said about it.
type Case = (&'static str, fn(&mut Value), &'static str);

const CASES: &[Case] = &[
    ("another name", |it| it["metadata"]["name"] = "mine".into(), "a donor's pod is named kwf-"),
    (
        "no run",
        |it| drop(it["metadata"]["labels"].as_object_mut().map(|it| it.remove("kamino-wf.io/run"))),
        "a donor's pod is named kwf-",
    ),
    (
        "two containers",
        |it| push(it, "/spec/containers", json!({ "name": "b", "image": "b" })),
        "a donor's pod has one container",
    ),
    (
        "an init container",
        |it| it["spec"]["initContainers"] = json!([{ "name": "b", "image": "b" }]),
        "a donor's pod has one container",
    ),
    ("another image", |it| container(it)["image"] = "evil.example/x:1".into(), "a donor's pod has an image of"),
    ("a shell", |it| container(it)["command"] = json!(["/bin/sh", "-c", "id"]), "a donor's pod cleans the one machine"),
    ("another root", |it| container(it)["command"][3] = "/etc".into(), "a donor's pod cleans the one machine"),
    (
        "a flag too many",
        |it| push(it, "/spec/containers/0/command", "--device=/dev/sda".into()),
        "a donor's pod cleans",
    ),
    (
        "the secret of another run",
        |it| {
            push(it, "/spec/containers/0/command", "--rebootstrap".into());
            push(it, "/spec/containers/0/command", "kwf-pool1-another".into());
        },
        "a donor's pod cleans the one machine",
    ),
    ("no machine", |it| container(it)["command"][13] = "".into(), "a donor's pod cleans the one machine"),
    ("no boot", |it| container(it)["command"][14] = "--boot".into(), "a donor's pod cleans the one machine"),
    (
        "a flag for a value",
        |it| container(it)["command"][9] = "--device".into(),
        "a donor's pod cleans the one machine",
    ),
    ("another place for the proof", |it| container(it)["command"][17] = "default/x".into(), "a donor's pod cleans"),
    (
        "a hook",
        |it| container(it)["lifecycle"] = json!({ "postStart": { "exec": { "command": ["x"] } } }),
        "a donor's pod cleans the one machine",
    ),
    (
        "no node",
        |it| drop(it["spec"].as_object_mut().map(|it| it.remove("nodeName"))),
        "a donor's pod is bound to its node",
    ),
    ("no processes", |it| it["spec"]["hostPID"] = false.into(), "a donor's pod is bound to its node"),
    ("no network", |it| it["spec"]["hostNetwork"] = false.into(), "a donor's pod is bound to its node"),
    ("the host's queues", |it| it["spec"]["hostIPC"] = true.into(), "a donor's pod is bound to its node"),
    (
        "a port of the host",
        |it| container(it)["ports"] = json!([{ "containerPort": 80, "hostPort": 80 }]),
        "a donor's pod is bound to its node",
    ),
    (
        "a secret's variables",
        |it| container(it)["envFrom"] = json!([{ "secretRef": { "name": "s" } }]),
        "a donor's pod has no secret",
    ),
    (
        "a variable of a secret",
        |it| {
            let from = json!({ "secretKeyRef": { "name": "s", "key": "k" } });
            container(it)["env"] = json!([{ "name": "A", "valueFrom": from }]);
        },
        "a donor's pod has no secret",
    ),
    (
        "a secret",
        |it| push(it, "/spec/volumes", json!({ "name": "s", "secret": { "secretName": "s" } })),
        "a donor's pod has no volumes but",
    ),
    (
        "another folder of the host",
        |it| push(it, "/spec/volumes", json!({ "name": "h", "hostPath": { "path": "/run" } })),
        "a donor's pod has no volumes but",
    ),
    (
        "the root at another place",
        |it| container(it)["volumeMounts"][0]["mountPath"] = "/".into(),
        "a donor's pod has no volumes but",
    ),
    (
        "a root that can be written",
        |it| container(it)["securityContext"]["readOnlyRootFilesystem"] = false.into(),
        "a donor's pod has a root file system of its own",
    ),
    (
        "capabilities",
        |it| container(it)["securityContext"]["capabilities"] = json!({ "add": ["SYS_PTRACE"] }),
        "a donor's pod has a root file system of its own",
    ),
    (
        "no end",
        |it| drop(it["spec"].as_object_mut().map(|it| it.remove("activeDeadlineSeconds"))),
        "a donor's pod ends within the hour",
    ),
    ("begun again", |it| it["spec"]["restartPolicy"] = "Always".into(), "a donor's pod ends within the hour"),
];

fn container(pod: &mut Value) -> &mut Value {
    &mut pod["spec"]["containers"][0]
}

fn push(object: &mut Value, at: &str, item: Value) {
    object.pointer_mut(at).and_then(Value::as_array_mut).expect("a list").push(item);
}

/// The chart with `capture.stop`, and who meets its policies.
struct Scene {
    cluster: &'static TestCluster,
    admin: Client,
    controller: Client,
    port: KubernetesCluster,
    at: Installation,
    node: NodeName,
}

impl Scene {
    async fn new() -> Option<Self> {
        let (Some(_), Some(cluster)) = (tools(), shared()) else { return None };
        let release = Release::new(cluster, Helm::Four).await;
        release.apply("install", &["capture.stop=true", "capture.rebootstrap=true"]);
        let at = Installation {
            namespace: release.namespace.clone(),
            clean_namespace: release.clean_namespace.clone(),
            service_account: "kamino-wf".to_owned(),
        };
        let name = format!("donor-{}", at.namespace);
        cluster.add_node(&TestNode::new(&name)).await;
        let installed = cluster.as_service_account(at.clone()).await;
        let (admin, controller) = (cluster.admin().await, client(&installed).await);
        let port = installed.connect().await;
        let node = NodeName::parse(&name).expect("a name");
        let scene = Self { cluster, admin, controller, port, at, node };
        scene.give_more_rights().await;
        scene.wait().await;
        Some(scene)
    }

    /// What a policy is to refuse and the chart's roles do not give.
    async fn give_more_rights(&self) {
        let name = format!("more-{}", self.at.namespace);
        let role = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": { "name": name }, "rules": [
                { "apiGroups": [""], "resources": ["nodes", "nodes/status"], "verbs": ["create", "delete", "patch"] },
                { "apiGroups": [""], "resources": ["secrets"], "verbs": ["patch"] }] });
        let subject =
            json!({ "kind": "ServiceAccount", "name": self.at.service_account, "namespace": self.at.namespace });
        let binding = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": { "name": name }, "subjects": [subject],
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name } });
        for object in [role, binding] {
            create(&api_of(&self.admin, &object, None), object.clone()).await;
        }
    }

    /// Until policies are in force, and those of pods have learnt of the account.
    async fn wait(&self) {
        let pod = json!({ "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "kwf-example", "namespace": self.at.clean_namespace },
            "spec": { "serviceAccountName": CLEANER, "containers": [{ "name": "c", "image": "i" }] } });
        until("the policies", async || {
            let dry = PatchParams { dry_run: true, ..PatchParams::default() };
            let label = json!({ "metadata": { "labels": { "x": "y" } } });
            let labelled = self.nodes().patch(self.node.as_str(), &dry, &Patch::Merge(&label)).await.map(drop);
            refused(&attempt(&self.admin, &pod).await) && refused(&labelled)
        })
        .await;
    }

    fn nodes(&self) -> Api<Node> {
        Api::all(self.controller.clone())
    }

    fn cleaning(&self) -> DonorCleaning {
        let run = SystemClock.new_run();
        DonorCleaning {
            credential: Credential::Keep,
            name: format!("kwf-pool1-{run}"),
            namespace: self.at.clean_namespace.clone(),
            run,
            node: self.node.clone(),
            node_uid: "6f1c".into(),
            boot_id: "b0".into(),
            product_uuid: "11111111-2222".into(),
            image: "registry.example/kamino-wf:0.1.0".into(),
            profile: Profile::Kubeadm,
            nonce: "8f14e45f".into(),
        }
    }

    /// Changes the node as steps do; the node controller may be quicker, and then once more.
    async fn change(&self, unschedulable: bool, annotations: &[(&str, Option<&str>)]) {
        let annotations = annotations.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned)));
        let annotations: BTreeMap<_, _> = annotations.collect();
        until("the change", async || {
            let node = self.port.node(&self.node).await.expect("a look").expect("the node");
            let annotations = annotations.clone();
            let change = NodeChange { name: node.name, version: node.version, unschedulable, annotations };
            match self.port.change_node(&change).await {
                Ok(()) => true,
                Err(ClusterError::Preempted { .. }) => false,
                Err(error) => panic!("not let through: {error}"),
            }
        })
        .await;
    }
}

#[tokio::test]
async fn the_one_pod_of_a_donor_is_let_through_and_each_clause_refuses() {
    let Some(scene) = Scene::new().await else { return };
    let renewing = DonorCleaning { credential: Credential::Rebootstrap, ..scene.cleaning() };
    scene.port.create_donor_pod(&renewing).await.expect("the pod that renews a credential is let through");
    let want = scene.cleaning();
    scene.port.create_donor_pod(&want).await.expect("the pod is let through");
    let pods: Api<Pod> = Api::namespaced(scene.admin.clone(), &want.namespace);
    let image = json!({ "spec": { "containers": [{ "name": "clean", "image": "evil.example/x:1" }] } });
    let changed = pods.patch(&want.name, &PatchParams::default(), &Patch::Strategic(&image)).await.map(drop);
    let mut said = BTreeSet::from([refusal(changed, "another image afterwards")]);
    let there = pods.get(&want.name).await.expect("it is there");
    let mut good = serde_json::to_value(there).expect("an object");
    let kept = ["name", "namespace", "labels"].map(|key| (key.to_owned(), good["metadata"][key].clone()));
    good["metadata"] = kept.into_iter().collect();
    good.as_object_mut().expect("an object").remove("status");
    good["apiVersion"] = "v1".into();
    good["kind"] = "Pod".into();
    pods.delete(&want.name, &DeleteParams::default().grace_period(0)).await.expect("the pod goes");
    until("the pod to go", async || pods.get_opt(&want.name).await.is_ok_and(|it| it.is_none())).await;
    let answer = attempt(&scene.controller, &good).await;
    assert!(answer.is_ok(), "good again: {answer:?}\n{good:#}");

    for (what, change, expected) in CASES {
        let mut bad = good.clone();
        change(&mut bad);
        assert_ne!(bad, good, "{what}");
        let refusal = refusal(attempt(&scene.controller, &bad).await, what);
        assert!(refusal.starts_with(expected), "{what}: {refusal}");
        said.insert(refusal);
    }
    said.insert(refusal(attempt(&scene.admin, &good).await, "by the administrator"));
    let all = clauses("stop", &["donors"]);
    assert_eq!(said, all, "each clause has refused something");

    // Another account is a copy's pod, to which the other policy applies.
    let mut default = good.clone();
    default["spec"]["serviceAccountName"] = "default".into();
    default["spec"]["serviceAccount"] = "default".into();
    let refusal = refusal(attempt(&scene.controller, &default).await, "the account of copies");
    assert!(refusal.starts_with("a cleaning pod"), "{refusal}");
}

#[tokio::test]
async fn of_a_node_only_what_is_ours_may_be_changed() {
    let Some(scene) = Scene::new().await else { return };
    // Held and given back, as steps do it.
    let held = [(CLAIM, Some("{}")), (SCALE_DOWN_DISABLED, Some("true")), (DO_NOT_DISRUPT, Some("true"))];
    scene.change(true, &held).await;
    scene.change(false, &[(CLAIM, None), (SCALE_DOWN_DISABLED, None), (DO_NOT_DISRUPT, Some("false"))]).await;

    let theirs: Api<Node> = Api::all(scene.admin.clone());
    let mark = json!({ "metadata": { "annotations": { "example.com/theirs": "1" }, "finalizers": ["example.com/x"] } });
    theirs.patch(scene.node.as_str(), &PatchParams::default(), &Patch::Merge(&mark)).await.expect("others may");
    let cases = [
        ("a label", json!({ "metadata": { "labels": { "x": "y" } } }), "the controller changes nothing of a node but"),
        ("a finalizer", json!({ "metadata": { "finalizers": null } }), "the controller changes nothing of a node but"),
        (
            "an owner",
            json!({ "metadata": { "ownerReferences": [{ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u" }] } }),
            "the controller changes nothing of a node but",
        ),
        (
            "a taint",
            json!({ "spec": { "taints": [{ "key": "x", "effect": "NoSchedule" }] } }),
            "the controller changes nothing of a node but",
        ),
        (
            "addresses",
            json!({ "spec": { "podCIDRs": ["10.9.0.0/24"], "podCIDR": "10.9.0.0/24" } }),
            "the controller changes",
        ),
        (
            "another's annotation",
            json!({ "metadata": { "annotations": { "example.com/theirs": "2" } } }),
            "of a node's annotations the controller",
        ),
        (
            "another's annotation gone",
            json!({ "metadata": { "annotations": { "example.com/theirs": null } } }),
            "of a node's annotations the controller",
        ),
        (
            "a new annotation",
            json!({ "metadata": { "annotations": { "example.com/mine": "1" } } }),
            "of a node's annotations the controller",
        ),
        (
            "a cordon without a claim",
            json!({ "spec": { "unschedulable": true } }),
            "the controller cordons no node without",
        ),
    ];
    let mut said = BTreeSet::new();
    let nodes = scene.nodes();
    for (what, patch, expected) in cases {
        let answer = nodes.patch(scene.node.as_str(), &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop);
        let refusal = refusal(answer, what);
        assert!(refusal.starts_with(expected), "{what}: {refusal}");
        said.insert(refusal);
    }
    let status = Patch::Merge(json!({ "status": { "phase": "Running" } }));
    let new = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "new" } });
    let whole = [
        nodes.patch_status(scene.node.as_str(), &PatchParams::default(), &status).await.map(drop),
        nodes.delete(scene.node.as_str(), &DeleteParams::default()).await.map(drop),
        attempt(&scene.controller, &new).await,
    ];
    for answer in whole {
        let refusal = refusal(answer, "status, delete, create");
        assert!(refusal.starts_with("the controller makes and deletes no node"), "{refusal}");
        said.insert(refusal);
    }
    assert_eq!(said, clauses("stop", &["nodes"]), "each clause has refused something");
    let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    theirs.patch(scene.node.as_str(), &PatchParams::default(), &free).await.expect("others may");
}

#[tokio::test]
async fn of_secrets_only_an_empty_one_of_a_run_may_be_made_or_deleted() {
    let Some(scene) = Scene::new().await else { return };
    let anchor = scene.cleaning().anchor();
    let secrets: Api<Secret> = Api::namespaced(scene.admin.clone(), &anchor.namespace);
    scene.port.create_anchor(&anchor).await.expect("an empty one is let through");
    let made = secrets.get(&anchor.name).await.expect("it is there");
    let label = Patch::Merge(json!({ "metadata": { "labels": { "x": "y" } } }));
    let theirs: Api<Secret> = Api::namespaced(scene.controller.clone(), &anchor.namespace);
    let changed = theirs.patch(&anchor.name, &PatchParams::default(), &label).await.map(drop);
    let mut said = BTreeSet::from([refusal(changed, "changed afterwards")]);
    scene.port.delete_anchor(&anchor).await.expect("and may be deleted");

    let mut good = serde_json::to_value(&made).expect("an object");
    let kept = ["namespace", "labels", "ownerReferences"];
    good["metadata"] = kept.map(|key| (key.to_owned(), good["metadata"][key].clone())).into_iter().collect();
    good["metadata"]["name"] = "kwf-pool1-again".into();
    (good["apiVersion"], good["kind"]) = ("v1".into(), "Secret".into());
    let cases: [Case; 6] = [
        ("another name", |it| it["metadata"]["name"] = "theirs".into(), "the controller touches no Secret but"),
        ("no run", |it| it["metadata"]["labels"] = json!({}), "the controller touches no Secret but"),
        ("a secret in it", |it| it["data"] = json!({ "a": "Yg==" }), "the controller's Secrets are empty"),
        (
            "an account's token",
            |it| {
                it["type"] = "kubernetes.io/service-account-token".into();
                it["metadata"]["annotations"] = json!({ "kubernetes.io/service-account.name": BOOTSTRAP });
            },
            "the controller's Secrets are empty",
        ),
        ("nobody's", |it| it["metadata"]["ownerReferences"] = json!([]), "the controller's Secrets belong to"),
        (
            "a pod's",
            |it| it["metadata"]["ownerReferences"][0]["kind"] = "Pod".into(),
            "the controller's Secrets belong to",
        ),
    ];
    for (what, change, expected) in cases {
        let mut bad = good.clone();
        change(&mut bad);
        assert_ne!(bad, good, "{what}");
        let refusal = refusal(attempt(&scene.controller, &bad).await, what);
        assert!(refusal.starts_with(expected), "{what}: {refusal}");
        said.insert(refusal);
    }
    assert_eq!(said, clauses("stop", &["secrets"]), "each clause has refused something");
    // Somebody's pull secret.
    let pull = json!({ "metadata": { "name": "registry" }, "data": { "a": "Yg==" } });
    create(&secrets, pull).await;
    let deleted = theirs.delete("registry", &DeleteParams::default()).await.map(drop);
    let refusal = refusal(deleted, "another's");
    assert!(refusal.starts_with("the controller touches no Secret but"), "{refusal}");
}

/// The proof is left with the cleaner's own token, read by the controller, and taken away by it; besides that the token is good for one
/// thing, a token of the one account that donors ask for credentials as.
#[tokio::test]
async fn a_cleaner_can_leave_its_proof_and_ask_for_one_kind_of_token_and_nothing_else() {
    let Some(scene) = Scene::new().await else { return };
    let space = &scene.at.clean_namespace;
    let at =
        Installation { namespace: space.clone(), clean_namespace: space.clone(), service_account: CLEANER.to_owned() };
    let cleaner = client(&scene.cluster.as_service_account(at).await).await;

    let (one, other) = (SystemClock.new_run(), SystemClock.new_run());
    let maps: Api<ConfigMap> = Api::namespaced(cleaner.clone(), space);
    for run in [one, other] {
        let proof = Patch::Merge(json!({ "data": { run.short(): "{}" } }));
        maps.patch(PROOFS, &PatchParams::default(), &proof).await.expect("the proof is taken");
    }
    assert_eq!(scene.port.proof(space, one).await.expect("a look").as_deref(), Some("{}"));
    for _ in 0..2 {
        scene.port.forget_proof(space, one).await.expect("taken away, also twice");
        assert_eq!(scene.port.proof(space, one).await.expect("a look"), None);
    }
    assert!(scene.port.proof(space, other).await.expect("a look").is_some(), "another run's stays");

    let denied = |answer: Result<(), kube::Error>, what: &str| match answer {
        Err(kube::Error::Api(status)) if status.code == 403 => {}
        answer => panic!("{what}: {answer:?}"),
    };
    // The one other thing that it may: a token of the one account, bound to a run's Secret.
    let node = scene.port.node(&scene.node).await.expect("a look").expect("the node");
    let anchor = DonorCleaning { node_uid: node.uid, ..scene.cleaning() }.anchor();
    scene.port.create_anchor(&anchor).await.expect("made");
    let theirs: Api<ServiceAccount> = Api::namespaced(cleaner.clone(), space);
    let ask = TokenRequest {
        spec: TokenRequestSpec {
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Secret".into()),
                name: Some(anchor.name.clone()),
                uid: None,
            }),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let granted = theirs.create_token_request(BOOTSTRAP, &PostParams::default(), &ask).await.expect("a token");
    let donor = scene.cluster.holder_of(Some(&granted.status.expect("a token").token)).await;
    assert_eq!(donor.lacking_to_bootstrap().await.expect("an answer"), [""; 0], "the chart's bindings");
    denied(theirs.create_token_request(CLEANER, &PostParams::default(), &ask).await.map(drop), "a token of another");
    denied(theirs.get(BOOTSTRAP).await.map(drop), "read the account");
    let secrets: Api<Secret> = Api::namespaced(cleaner.clone(), space);
    denied(secrets.get(&anchor.name).await.map(drop), "read the Secret");

    denied(maps.get(PROOFS).await.map(drop), "read the proofs");
    let other = Patch::Merge(json!({ "data": { "x": "y" } }));
    denied(maps.patch("kube-root-ca.crt", &PatchParams::default(), &other).await.map(drop), "another map");
    denied(maps.delete(PROOFS, &DeleteParams::default()).await.map(drop), "delete the map");
    let pods: Api<Pod> = Api::namespaced(cleaner.clone(), space);
    denied(pods.list(&ListParams::default()).await.map(drop), "pods");
    let nodes: Api<Node> = Api::all(cleaner);
    denied(nodes.get(scene.node.as_str()).await.map(drop), "its own node");
}
