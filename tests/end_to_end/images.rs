//! `images` and `status`: the real binary, alone and beside a daemon that holds the store.

use std::sync::Arc;

use kamino_wf::{
    cloud::{Cloud as _, Power, Provisioning, Snapshot},
    model::{InstanceId, SnapshotId, VersionName},
    sim::{Resource, SimCloud, spec},
};
use serde_json::{Value, json};

use crate::support::{
    cluster::shared,
    installed::until,
    world::{Plan, Site},
};

fn versions(site: &Site) -> Vec<String> {
    site.world.world().versions.values().map(|found| found.value.id.name().to_owned()).collect()
}

fn verdicts(list: &Value) -> Vec<(&str, &str)> {
    let images = list["definitions"][0]["images"].as_array().expect("images");
    let text =
        |value: &'_ Value| -> &'static str { Box::leak(value.as_str().unwrap_or("-").to_owned().into_boxed_str()) };
    images.iter().map(|it| (text(&it["from"]["version"]), text(&it["because"]))).collect()
}

/// Waits until Azure has done what it was asked for: nothing comes to its end before somebody has looked at it.
async fn settled(site: &Site, gone: &str) {
    let spec = spec(&site.scene);
    let definition = spec.gallery.definition(&spec.definition).expect("a definition");
    let id = definition.version(&VersionName::parse(gone).expect("a version"));
    let cloud = SimCloud::new(Arc::clone(&site.world), Arc::default());
    until("the version to be gone", async || cloud.version(&id).await.expect("a look").is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_are_listed_pinned_and_pruned_and_their_descent_is_shown() {
    let Some(cluster) = shared() else { return };
    let site = Site::new(cluster, Plan { adopted: true, ..Plan::default() }).await;
    let run = async |arguments: &[&str]| site.binary.run(arguments).await;

    let list = run(&["images", "list", "-o", "json"]).await.assert(0, &[]).json();
    let expected = [
        ("2026.10.01000", "in-use"),
        ("2026.09.01000", "newest"),
        ("2026.08.01000", "excess"),
        ("2026.07.01000", "excess"),
        ("2026.04.01", "kamino"),
        ("2026.03.01", "kamino"),
    ];
    assert_eq!(verdicts(&list), expected, "{list:#}");
    run(&["images", "list"])
        .await
        .assert(0, &["VERSION", "2026.08.01000", "kamino-wf", "goes", "stays", "prototypes/pool1"]);
    assert!(!site.store.exists(), "looking makes no store");

    run(&["images", "pin", "2026.8.1000", "--why", "the way back"]).await.assert(0, &["2026.08.01000 is now pinned"]);
    run(&["images", "pin", "2026.08.01000"]).await.assert(0, &["already pinned"]);
    run(&["images", "pin", "2026.01.01000"]).await.assert(4, &["no version \"2026.01.01000\"", "images list"]);
    run(&["images", "prune", "--pool", "nowhere"]).await.assert(4, &["nowhere", "pool1"]);
    let before = versions(&site);
    run(&["images", "prune"]).await.assert(0, &["1 of these would go", "--yes", "pinned (by tester"]);
    run(&["images", "prune", "--dry-run", "--yes"]).await.assert(2, &["--dry-run", "--yes"]);
    assert_eq!(versions(&site), before, "a plan deletes nothing");

    let pruned = run(&["images", "prune", "--yes", "-o", "json"]).await.assert(0, &[]).json();
    assert_eq!(pruned["reports"][0]["report"]["going"][0]["version"], "2026.07.01000", "{pruned:#}");
    settled(&site, "2026.07.01000").await;
    assert_eq!(versions(&site).len(), 5);
    let audit = run(&["list", "--audit", "-o", "json"]).await.assert(0, &[]).json();
    let verbs: Vec<&str> =
        audit["entries"].as_array().expect("entries").iter().filter_map(|it| it["verb"].as_str()).collect();
    assert_eq!(verbs, ["pin", "pin", "prune"], "{audit:#}");
    assert!(audit["entries"][0]["subject"].as_str().is_some_and(|it| it.contains("2026.08.01000")), "{audit:#}");

    run(&["start", "--pool", "pool1", "--wait"]).await.assert(0, &[]);
    let descent = run(&["images", "lineage", "-o", "json"]).await.assert(0, &[]).json();
    let line = descent["lines"][0]["line"].as_array().expect("a line");
    assert_eq!(line[0]["parent"], "2026.10.01000", "{descent:#}");
    assert_eq!((&line[0]["maker"], &line[1]["version"]), (&json!("kamino-wf"), &json!("2026.10.01000")));
    for field in ["donor", "kernel", "kubelet", "run", "builtAt", "cluster"] {
        assert!(line[0][field].is_string(), "no {field}: {descent:#}");
    }
    run(&["images", "lineage", "2026.04.01"]).await.assert(0, &["2026.04.01", "kamino", "pool1-vmss000000"]);
    run(&["images", "pin", "2026.08.01000", "--remove"]).await.assert(0, &["now not pinned"]);
    let world = site.world.world();
    assert!(world.trespasses.is_empty(), "{:#?}", world.trespasses);
}

/// The daemon holds the store: it does what the commands ask for, and the commands open nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_prunes_and_pins_in_the_commands_stead() {
    let Some(cluster) = shared() else { return };
    let site = Site::new(cluster, Plan { adopted: true, ..Plan::default() }).await;
    site.configure(|settings| settings["serve"] = json!({ "listen": "127.0.0.1:0", "sweepEvery": "0s" }));
    let daemon = site.binary.start(&["serve"]);
    until("the control socket", async || site.store.join("control.sock").exists()).await;
    let run = async |arguments: &[&str]| site.binary.run(arguments).await;
    run(&["images", "pin", "2026.07.01000"]).await.assert(0, &["now pinned"]);
    run(&["images", "prune", "--yes"]).await.assert(0, &["version 2026.08.01000 is being deleted"]);
    settled(&site, "2026.08.01000").await;
    assert!(versions(&site).contains(&"2026.07.01000".to_owned()));
    let audit = run(&["list", "--audit"]).await;
    audit.assert(0, &["prune", "pin", "accepted", "tester"]);
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_says_who_runs_what_and_what_the_python_tool_has_left() {
    let Some(cluster) = shared() else { return };
    let site = Site::new(cluster, Plan { adopted: true, ..Plan::default() }).await;
    site.configure(|settings| settings["pools"][0]["schedule"] = json!({ "cron": "0 3 * * TUE" }));
    let set = site.scale_set();
    {
        let mut world = site.world.world();
        let instance = InstanceId::parse(&format!("{set}/virtualMachines/1")).expect("an id");
        world.off.insert(instance.key(), Power::Deallocated);
        let id = SnapshotId::new(set.subscription(), set.resource_group(), &["snapshot_pool1"]).expect("an id");
        let created = Some(world.now());
        let value = Snapshot {
            id: id.clone(),
            provisioning: Provisioning::Succeeded,
            source: None,
            created,
            size_gib: 64,
            run: None,
            cluster: None,
        };
        let visible = world.now();
        world.snapshots.insert(id.key(), Resource { value, operation: None, visible });
    }
    let status = site.binary.run(&["status", "-o", "json"]).await.assert(0, &[]).json();
    assert_eq!(status["kind"], "Status");
    let pool = &status["pools"][0];
    assert_eq!(pool["model"]["followsDefinition"], true, "{status:#}");
    assert_eq!(pool["newest"]["version"], "2026.10.01000");
    assert!(pool["newest"]["ageSeconds"].as_i64() > Some(0), "{status:#}");
    assert_eq!(
        pool["versions"],
        json!({ "total": 6, "published": 6, "pinned": 0, "kaminoWf": 4, "kamino": 2, "foreign": 0 })
    );
    assert_eq!(pool["instances"], json!([{ "image": "2026.10.01000", "instances": 3, "newest": true }]));
    assert!(pool["openRun"].is_null() && pool["lastRun"].is_null() && pool["nextRun"].is_string(), "{status:#}");
    let kinds: Vec<&str> =
        pool["kamino"].as_array().expect("findings").iter().filter_map(|it| it["kind"].as_str()).collect();
    assert_eq!(kinds, ["powered-off", "snapshot"], "{status:#}");
    let words = [
        "Newest      2026.10.01000",
        "3 from 2026.10.01000 (the newest)",
        "az vmss start",
        "az snapshot delete",
        "Next run",
        "follows prototypes/pool1",
    ];
    site.binary.run(&["status"]).await.assert(0, &words);
    site.binary.run(&["status", "--pool", "nowhere"]).await.assert(4, &["nowhere", "pool1"]);
    assert!(site.writes().is_empty() && !site.store.exists(), "looking changes nothing");

    site.world.world().off.clear();
    site.binary.run(&["start", "--pool", "pool1", "--wait"]).await.assert(0, &[]);
    let status = site.binary.run(&["status", "-o", "json"]).await.assert(0, &[]).json();
    assert_eq!(status["pools"][0]["lastRun"]["state"], "done", "{status:#}");
    assert_eq!(status["pools"][0]["instances"][0]["newest"], false, "nodes are of the version before: {status:#}");

    // What can't be read is said, and the rest is there.
    site.world.world().forbidden.insert(("powers", set.key()));
    let ended = site.binary.run(&["status", "-o", "json"]).await;
    let status = ended.assert(1, &[]).json();
    assert!(
        status["pools"][0]["troubles"][0].as_str().is_some_and(|it| it.contains("AuthorizationFailed")),
        "{status:#}"
    );
}
