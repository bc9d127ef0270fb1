//! Beside `start --wait`: other commands by way of the control socket, signals, and cancel wherever the run is.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use crate::{
    START,
    support::{
        binary::Running,
        cluster::shared,
        world::{Plan, Site},
    },
};

async fn site() -> Option<Site> {
    let cluster = shared()?;
    // Slow enough that a second process can do something in between.
    Some(Site::new(cluster, Plan { scale: 0.004, ..Plan::default() }).await)
}

/// The run's short id, as `list` says it.
async fn newest(site: &Site) -> String {
    let list = site.binary.run(&["list", "-o", "json"]).await;
    let list = list.assert(0, &[]).json();
    let runs = list["runs"].as_array().expect("runs");
    runs.last().expect("a run")["run"].as_str().expect("its id").to_owned()
}

/// Also where the pause is too short to be stored: only its holder knows.
async fn says_what_it_waits_for(site: &Site) -> bool {
    for _ in 0..20 {
        let run = site.binary.run(&["list", "-o", "json"]).await.assert(0, &[]).json()["runs"][0].clone();
        if run["state"] == "running" && run["why"].is_string() {
            return true;
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_holds_the_store_answers_and_goes_on_after_a_signal() {
    let Some(site) = site().await else { return };
    let process = site.binary.start(START);
    process.until("SnapshotDisk: asked").await;
    let run = newest(&site).await;
    site.binary.run(&["list"]).await.assert(0, &["RUN", "SCALE SET", &run, "pool1", "running"]);
    site.binary.run(&["describe", &run]).await.assert(0, &["capture", "SnapshotDisk", "tester"]);
    let described = site.binary.run(&["describe", &run[..6], "-o", "json"]).await.assert(0, &[]).json();
    assert_eq!((&described["kind"], &described["summary"]["run"]), (&"Run".into(), &run.as_str().into()));
    assert!(says_what_it_waits_for(&site).await, "a run that looks again and again says at what");
    // Somebody else, by mistake.
    for again in [START, &START[..4]] {
        site.binary.run(again).await.assert(5, &[&run, "is open for scale set pool1", "kamino-wf cancel"]);
    }
    site.binary.run(&["resume", &run]).await.assert(5, &[&run, "goes on by itself"]);
    for unknown in [["describe", "nosuchrun"], ["cancel", "nosuchrun"], ["resume", "nosuchrun"]] {
        site.binary.run(&unknown).await.assert(4, &["there is no run nosuchrun", "kamino-wf list"]);
    }

    process.until("CopyDisk: asked").await;
    let asked = Instant::now();
    process.signal(Signal::TERM);
    let ended = process.ended().await;
    assert_eq!(ended.code(), Some(143), "{ended:#?}");
    assert!(asked.elapsed() < Duration::from_secs(3), "it took {:?} to stop", asked.elapsed());
    assert!(!site.store.join("control.sock").exists(), "the socket went with it");

    // Nobody holds the store now.
    site.binary.run(&["list"]).await.assert(0, &[&run, "running"]);
    site.binary.run(&["describe", &run]).await.assert(0, &["CopyDisk", "current"]);
    site.binary.run(&["store", "check", "-o", "json"]).await.assert(0, &["\"runs\": 1"]);
    let process = site.binary.start(START);
    process.until("going on with it").await;
    let interrupted = process;
    interrupted.signal(Signal::INT);
    interrupted.ended().await.assert(130, &[]);
    site.binary.run(START).await.assert(0, &[&format!("run {run} is open"), "done"]);
    site.binary.run(&["cancel", &run]).await.assert(5, &[&run, "has ended (done)"]);
    assert_eq!(site.left().await, Vec::<String>::new());
    site.assert_donors_untouched().await;
}

/// By way of the socket, or with the process killed before and the store opened by `cancel` itself.
async fn cancelled_at(site: &Site, words: &str, killed: bool) {
    let process: Running = site.binary.start(START);
    process.until(words).await;
    let run = newest(site).await;
    if killed {
        assert_eq!(process.kill().await.code(), None);
        site.binary.run(&["cancel", &run]).await.assert(9, &["cancelled, and nothing of it is left"]);
    } else {
        site.binary.run(&["cancel", &run]).await.assert(0, &["is being cancelled"]);
        process.ended().await.assert(9, &["cancelled by tester", "cancelled, and nothing of it is left"]);
    }
    assert_eq!(site.left().await, Vec::<String>::new(), "after a cancel at {words:?}");
    site.binary.run(&["describe", &run]).await.assert(0, &["State      cancelled"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_in_capture_or_publish_it_leaves_nothing() {
    let Some(site) = site().await else { return };
    for step in ["SnapshotDisk", "CopyDisk", "CleanCopy", "DetachCopy", "CreateVersion"] {
        cancelled_at(&site, &format!("{step}: asked"), false).await;
    }
    for step in ["CopyDisk", "CleanCopy", "CreateVersion"] {
        cancelled_at(&site, &format!("{step}: asked"), true).await;
    }
    let versions: Vec<String> = site.world.world().versions.keys().cloned().collect();
    assert!(versions.is_empty(), "no version was ever published: {versions:?}");
    site.assert_donors_untouched().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_the_switch_cancel_is_refused_and_the_run_goes_on() {
    let Some(site) = site().await else { return };
    let process = site.binary.start(START);
    process.until("PublishVersion: asked").await;
    let run = newest(&site).await;
    site.binary.run(&["cancel", &run]).await.assert(5, &["past the point of no return", "let it finish"]);
    process.ended().await.assert(0, &[]);
}

/// Not the best of the pool, but the one that was named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_named_is_the_donor() {
    let Some(cluster) = shared() else { return };
    let world = Site::new(cluster, Plan::default()).await.world;
    let best = world.world().nodes.iter().max_by_key(|node| node.ready_since).expect("a node").name.to_string();
    let node = ["pool1-vmss000000", "pool1-vmss000001"].into_iter().find(|name| *name != best).expect("another");
    let site = Site::new(cluster, Plan { donor: Some(node), ..Plan::default() }).await;
    let ended = site.binary.run(&["start", "--node", node, "--adopt", "--wait"]).await;
    ended.assert(0, &[&format!("the donor is {node}"), "done: new nodes are made from the new image"]);
    let donor = &crate::described(&site, &ended).await["summary"]["donor"];
    assert_eq!(donor, node);
    site.assert_donors_untouched().await;
}
