//! A cluster without a disk driver: the real binary has the copy attached to another node, whose kubelet shows it to the pod.

use kamino_wf::sim::arm::{Effect, Logged};

use crate::{
    START, described,
    support::{
        cluster::shared,
        installed::until,
        world::{Plan, Site},
    },
};

/// The first of the pool by name that is not the donor.
const HELPER: &str = "pool1-vmss000000";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_copy_is_cleaned_on_the_node_that_it_was_attached_to() {
    let Some(cluster) = shared() else { return };
    let site = Site::new(cluster, Plan::default()).await;
    // In no zone: each node of the pool is in one of its own.
    site.world.world().disks.values_mut().for_each(|disk| disk.value.zone = None);
    site.configure(|settings| settings["cleaning"]["attach"] = "instance".into());
    let kubelet = site.kubelet_on(HELPER);
    site.binary
        .run(&["plan", "--pool", "pool1", "--adopt"])
        .await
        .assert(0, &["data disk", "of the machine of another node"]);

    // Killed while the disk is on its way to the node, and while it is there.
    let running = site.binary.start(START);
    let asked = |it: &Logged| it.path.ends_with("/attachDetachDataDisks");
    until("the order", async || site.writes().iter().any(asked)).await;
    running.kill().await;
    let running = site.binary.start(START);
    until("the cleaner", async || !kubelet.started().is_empty()).await;
    running.kill().await;
    let ended = site.binary.run(START).await;
    ended.assert(0, &["done: new nodes are made from the new image"]);
    let run = described(&site, &ended).await;
    assert_eq!(run["warnings"], serde_json::json!([]), "{run}");
    let cleaned = run["events"].as_array().expect("events").iter().map(|it| &it["output"]);
    let nodes: Vec<&str> = cleaned.filter(|it| it["report"].is_object()).filter_map(|it| it["node"].as_str()).collect();
    assert_eq!(nodes, [HELPER]);

    let writes = site.writes();
    let orders: Vec<&Logged> = writes.iter().filter(|it| it.path.ends_with("/attachDetachDataDisks")).collect();
    let fields =
        |it: &&Logged| it.body.as_ref().and_then(|body| body.as_object()?.keys().next().cloned()).expect("a body");
    let asked: Vec<String> = orders.iter().map(fields).collect();
    assert_eq!(asked, ["dataDisksToAttach", "dataDisksToDetach"], "each once, whatever was killed: {orders:#?}");
    let of_helper =
        |it: &&Logged| it.effect == Effect::Accepted && it.path.to_lowercase().contains("/virtualmachines/0/");
    assert!(orders.iter().all(of_helper), "{orders:#?}");
    assert!(site.world.world().attachments.is_empty());
    assert_eq!(site.left().await, Vec::<String>::new());
    site.assert_donors_untouched().await;
}
