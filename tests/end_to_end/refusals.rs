//! What can't be: a clear text with the thing, its value and the remedy, the documented exit code, and nothing touched.

use kamino_wf::{
    clock::{Clock, SystemClock},
    permissions::{ClusterRight, KUBERNETES},
    store::Holder,
};
use serde_json::json;

use crate::{
    START,
    support::{
        cluster::shared,
        world::{Plan, Site},
    },
};

/// Neither Azure nor the cluster was asked to change anything.
async fn assert_nothing_touched(site: &Site, what: &str) {
    assert!(site.writes().is_empty(), "{what}: {:#?}", site.writes());
    let writes = site.cluster_writes().await;
    assert!(writes.is_empty(), "{what}: {writes:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scale_set_or_a_node_that_will_not_do_is_refused_before_anything_is_touched() {
    let Some(cluster) = shared() else { return };
    let site = Site::new(cluster, Plan { adopted: true, ..Plan::default() }).await;
    let run = async |arguments: &[&str]| site.binary.run(arguments).await;

    site.change_model("/properties/upgradePolicy/mode", json!("Rolling"));
    let ended = run(START).await;
    ended.assert(7, &["KW0201", "upgradePolicy.mode of scale set pool1", "Rolling", "set it to Manual"]);
    site.change_model("/properties/upgradePolicy/mode", json!("Manual"));

    site.point_model_elsewhere();
    let ended = run(&["start", "--pool", "pool1", "--wait"]).await;
    ended.assert(7, &["KW0213", "storageProfile.imageReference", "Canonical", "--adopt"]);

    let node = ["start", "--wait", "--adopt", "--node"];
    let with = |name: &'static str| [node.as_slice(), &[name]].concat();
    run(&with("nobody")).await.assert(4, &["there is no node nobody", "kubectl get nodes"]);
    run(&with("worker")).await.assert(2, &["node worker belongs to scale set", "no pool in the settings has it"]);
    let mismatched = [with("pool1-vmss000001").as_slice(), &["--pool", "pool1"]].concat();
    site.configure(|settings| {
        let mut other = settings["pools"][0].clone();
        other["name"] = "other".into();
        other["scaleSet"] = site.scale_set().to_string().replace("/pool1", "/xpool1").into();
        settings["pools"].as_array_mut().expect("pools").push(other);
    });
    let elsewhere: Vec<&str> = mismatched.iter().map(|word| if *word == "pool1" { "other" } else { word }).collect();
    run(&elsewhere).await.assert(2, &["node pool1-vmss000001 belongs to pool pool1, not to other"]);
    assert_nothing_touched(&site, "preflight").await;

    {
        let mut world = site.world.world();
        let definition = world.definitions.values_mut().next().expect("a definition");
        definition.value.spec.generation = "V1".into();
    }
    let ended = run(START).await;
    ended.assert(7, &["KW0004", "hyperVGeneration is V1, the disk's is V2", "choose another name", "definition"]);
    assert_nothing_touched(&site, "definition").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_reached_is_named() {
    let Some(cluster) = shared() else { return };
    let site = Site::new(cluster, Plan::default()).await;
    // Nobody listens on a port that was just given back.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let nowhere = format!("https://{free}");

    let kubeconfig = site.folder.path().join("nowhere.kubeconfig");
    let good = std::fs::read_to_string(&site.installed.kubeconfig).expect("a kubeconfig");
    std::fs::write(&kubeconfig, good.replace(&site.cluster.server, &nowhere)).expect("a kubeconfig");
    let path = kubeconfig.display().to_string();
    let ended = site.binary.run(&[START, &["--kubeconfig", &path]].concat()).await;
    ended.assert(1, &[&nowhere, "kube-system"]);
    assert!(!site.store.exists(), "not even a store was made");

    site.configure(|settings| {
        for name in ["credential", "tokenFile"] {
            settings["azure"].as_object_mut().expect("settings").remove(name);
        }
    });
    let ended = site.binary.run(START).await;
    ended.assert(2, &["no Azure credential is set", "azure.credential", "AZURE_FEDERATED_TOKEN_FILE"]);
    site.configure(|settings| settings["azure"]["tokenFile"] = "/does/not/exist/token".into());
    let ended = site.binary.run(START).await;
    ended.assert(1, &["/does/not/exist/token", "NoToken", "no run was begun"]);
    assert!(site.face.requests().is_empty(), "{:#?}", site.face.requests());

    site.configure(|settings| settings["azure"]["resourceManager"] = nowhere.as_str().into());
    site.binary.run(START).await.assert(1, &[&free.to_string(), "no run was begun"]);
    let list = site.binary.run(&["list", "-o", "json"]).await.assert(0, &[]).json();
    assert_eq!(list["runs"], json!([]), "nothing was recorded");
    assert_nothing_touched(&site, "unreachable").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_right_is_named_and_a_run_that_made_something_waits_for_it() {
    let Some(cluster) = shared() else { return };
    let without = |resource: &str, verb: &str| -> Vec<ClusterRight> {
        let rest: Vec<_> = KUBERNETES.iter().copied().filter(|it| (it.resource, it.verb) != (resource, verb)).collect();
        assert_eq!(rest.len(), KUBERNETES.len() - 1, "one right is taken away");
        rest
    };
    let site = Site::new(cluster, Plan { rights: without("nodes", "list"), ..Plan::default() }).await;
    site.binary.run(START).await.assert(7, &["cannot list resource \"nodes\"", &site.installed.user]);
    assert_nothing_touched(&site, "nodes list").await;

    let plan = Plan { adopted: true, rights: without("persistentvolumes", "create"), ..Plan::default() };
    let site = Site::new(cluster, plan).await;
    let ended = site.binary.run(START).await;
    ended.assert(6, &["cannot create resource \"persistentvolumes\"", &site.installed.user, "resume"]);
    let list = site.binary.run(&["list", "-o", "json"]).await.assert(0, &[]).json();
    assert_eq!(list["runs"][0]["state"], "parked", "{list}");
    let short = list["runs"][0]["run"].as_str().expect("its id").to_owned();
    site.binary.run(&["describe", &short]).await.assert(0, &["parked", "persistentvolumes", "kamino-wf resume"]);
    site.binary.run(&["cancel", &short]).await.assert(9, &["nothing of it is left"]);
    assert_eq!(site.left().await, Vec::<String>::new());
    site.assert_donors_untouched().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_somebody_else_has_is_not_waited_for_in_vain() {
    let Some(cluster) = shared() else { return };
    let site = Site::new(cluster, Plan::default()).await;
    let holder = Holder { pid: 4711, since: SystemClock.now(), socket: None, release: "9.9.9".into() };
    let (journal, guard) = kamino_wf::store::open_dir(&site.store, &holder).expect("a new store");
    site.binary.run(START).await.assert(5, &[&site.store.display().to_string(), "4711", "9.9.9", "stop it first"]);
    drop(journal);
    guard.close().expect("it closes");
    assert_nothing_touched(&site, "store in use").await;
}
