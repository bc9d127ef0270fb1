//! `rescue`: the binary without any store, with the rights of its own service account, on a node of a real API server.

use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Event, Node, Secret},
};
use kamino_wf::{
    clock::{Clock, SystemClock},
    cloud::{Instance, Power, Provisioning},
    cluster::Cluster as _,
    model::{Credential, InstanceId, NodeName, UniformId},
    permissions::{KUBERNETES, REBOOTSTRAP, STOP},
    policy::obligations::{AsFound, CLAIM, CLAIM_VERSION, Claim, DO_NOT_DISRUPT, SCALE_DOWN_DISABLED},
    sim::Machine,
};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;

use crate::support::{
    cluster::shared,
    installed::{TestNode, create, until},
    world::{Plan, Site},
};

const NODE: &str = "rescued";
/// What its token hangs on.
const ANCHOR: &str = "kwf-neighbour-1";

/// A donor of another scale set than the pool's, which other tests share, whose run has died while it was off.
async fn donor_left_behind(site: &Site, admin: &Client) -> Claim {
    let set = site.scale_set();
    let names = ["neighbour", "0"];
    let instance =
        UniformId::new(set.subscription(), set.resource_group(), &names).map(InstanceId::Uniform).expect("an id");
    let held = [(SCALE_DOWN_DISABLED, "true"), (DO_NOT_DISRUPT, "true")];
    let node = TestNode {
        provider_id: format!("azure://{instance}"),
        unschedulable: true,
        annotations: held.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..TestNode::new(NODE)
    };
    site.cluster.add_node(&node).await;
    let nodes: Api<Node> = Api::all(admin.clone());
    let uid = nodes.get(NODE).await.expect("the node").metadata.uid.expect("a uid");
    let now = SystemClock.now();
    let name = NodeName::parse(NODE).expect("a name");
    let claim = Claim {
        version: CLAIM_VERSION,
        cluster: site.installed.connect().await.cluster_id().await.expect("the cluster"),
        run: SystemClock.new_run(),
        epoch: 0,
        since: now,
        deadline: now + std::time::Duration::from_mins(45),
        node_uid: uid,
        instance: instance.clone(),
        vm_id: "the-machine".into(),
        boot_id: node.boot_id.clone(),
        as_found: AsFound { unschedulable: false, scale_down_disabled: None, do_not_disrupt: Some("false".into()) },
        cleaning: format!("{}/{ANCHOR}", site.installed.at.clean_namespace),
        credential: Credential::Rebootstrap,
        restore: Claim::restore_command(&name),
        written: None,
    };
    let secrets: Api<Secret> = Api::namespaced(admin.clone(), &site.installed.at.clean_namespace);
    create(&secrets, json!({ "metadata": { "name": ANCHOR } })).await;
    let text = serde_json::to_string(&claim).expect("JSON");
    let mark = Patch::Merge(json!({ "metadata": { "annotations": { CLAIM: text } } }));
    nodes.patch(NODE, &PatchParams::default(), &mark).await.expect("a claim");

    let mut world = site.world.world();
    let machine = Machine::running(name, "its-disk".into());
    world.machines.insert(instance.key(), Machine { power: Power::Stopped, ..machine });
    let found = world.instances.values().next().expect("an instance").clone();
    let value =
        Instance { id: instance.clone(), vm_id: claim.vm_id.clone(), provisioning: Provisioning::Succeeded, ..found };
    world.instances.insert(instance.key(), value);
    claim
}

/// What a kubelet says when its machine has booted anew.
async fn comes_up(site: &Site, admin: &Client, claim: &Claim) {
    let key = claim.instance.key();
    until("the machine to be on", async || {
        site.face.requests().iter().any(|it| it.path.to_ascii_lowercase().ends_with("/start"))
            && site.world.world().machines[&key].power == Power::Running
    })
    .await;
    let leases: Api<Lease> = Api::namespaced(admin.clone(), "kube-node-lease");
    let renewed = SystemClock.now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
    let renewed = Patch::Merge(json!({ "spec": { "renewTime": renewed } }));
    leases.patch(NODE, &PatchParams::default(), &renewed).await.expect("a lease");
    let nodes: Api<Node> = Api::all(admin.clone());
    let boot = Patch::Merge(json!({ "status": { "nodeInfo": { "bootID": "another" } } }));
    nodes.patch_status(NODE, &PatchParams::default(), &boot).await.expect("a status");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_comes_back_by_its_claim_alone() {
    let Some(cluster) = shared() else { return };
    let rights = [KUBERNETES, STOP, REBOOTSTRAP].concat();
    let site = Site::new(cluster, Plan { rights, ..Plan::default() }).await;
    let admin = cluster.admin().await;
    let claim = donor_left_behind(&site, &admin).await;
    let (run, machine) = (claim.run.short(), claim.instance.name());

    let listed = site.binary.run(&["rescue", "-o", "json"]).await.assert(0, &[]).json();
    assert_eq!((&listed["claims"][0]["node"], &listed["claims"][0]["run"]), (&json!(NODE), &json!(run)), "{listed:#}");
    site.binary.run(&["rescue"]).await.assert(0, &["BACK BY", &run, "cordoned", "kamino-wf rescue --node rescued"]);
    site.binary.run(&["rescue", "--node", "nobody"]).await.assert(4, &["no node nobody"]);
    site.binary.run(&["rescue", "--dry-run"]).await.assert(2, &["--node"]);
    let kept = site.binary.run(&["rescue", "--node", NODE]).await;
    kept.assert(5, &["KW0608", &format!("--despite-run {run}")]);
    let despite = ["rescue", "--node", NODE, "--despite-run", &run];
    let words = format!("start instance {machine}");
    let token = format!("delete secret {}: the token", claim.cleaning);
    site.binary.run(&[&despite[..], &["--dry-run"]].concat()).await.assert(0, &[&words, &token, "uncordon it"]);
    assert!(site.writes().is_empty(), "nothing was asked for so far: {:#?}", site.writes());

    let (rescued, ()) = tokio::join!(site.binary.run(&despite), comes_up(&site, &admin, &claim));
    rescued.assert(0, &["node rescued is back in service"]);
    assert!(!site.store.exists(), "no store was made");
    let events = Api::<Event>::namespaced(admin.clone(), "default").list(&ListParams::default()).await.expect("a list");
    let told = |it: &Event| {
        it.involved_object.uid.as_deref() == Some(&claim.node_uid) && it.reason.as_deref() == Some("Rescued")
    };
    assert!(events.items.iter().any(told), "{:?}", events.items);
    let node = Api::<Node>::all(admin).get(NODE).await.expect("the node");
    let annotations = node.metadata.annotations.unwrap_or_default();
    assert!(!annotations.contains_key(CLAIM) && !annotations.contains_key(SCALE_DOWN_DISABLED), "{annotations:?}");
    assert_eq!(annotations.get(DO_NOT_DISRUPT).map(String::as_str), Some("false"));
    assert_eq!(node.spec.and_then(|spec| spec.unschedulable), None);
    let secrets: Api<Secret> = Api::namespaced(cluster.admin().await, &site.installed.at.clean_namespace);
    assert!(secrets.get_opt(ANCHOR).await.expect("a look").is_none(), "its token lives");
    let writes: Vec<String> = site.writes().into_iter().map(|it| it.path).collect();
    assert!(
        matches!(&writes[..], [one] if one.to_ascii_lowercase().ends_with("/virtualmachines/0/start")),
        "{writes:?}"
    );
    site.binary.run(&["rescue", "--node", NODE]).await.assert(0, &["nothing was to be done"]);
}
