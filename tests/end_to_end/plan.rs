//! The real binary, over the wire and with its own rights.

use kamino_wf::permissions::KUBERNETES;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    cluster::shared,
    world::{Plan, Site},
};

const PLAN: &[&str] = &["plan", "--pool", "pool1"];

async fn planned(site: &Site, more: &[&str]) -> Value {
    let ended = site.binary.run(&[PLAN, &["-o", "json"], more].concat()).await;
    ended.assert(0, &[]).json()["pools"][0].clone()
}

/// Neither Azure nor the cluster was asked to change anything; to ask about oneself is no change.
async fn assert_nothing_changed(site: &Site) {
    assert!(site.writes().is_empty(), "{:#?}", site.writes());
    let mut writes = site.cluster_writes().await;
    writes.retain(|entry| !entry.resource.starts_with("selfsubject"));
    assert!(writes.is_empty(), "{writes:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_changes_nothing_and_says_in_its_exit_code_what_would() {
    let Some(cluster) = shared() else { return };
    let site = Site::new(cluster, Plan::default()).await;
    let run = async |more: &[&str]| site.binary.run(&[PLAN, more].concat()).await;
    run(&["--detailed-exitcode"]).await.assert(7, &["refused", "KW0213", "--adopt"]);
    run(&[]).await.assert(0, &["refused"]);
    run(&["--adopt", "--detailed-exitcode"]).await.assert(3, &["Prospect   update: version"]);
    site.binary.run(&["plan", "--all", "--adopt"]).await.assert(0, &["snapshot", "kwf-pool1-<run>"]);
    site.binary.run(&["plan", "--pool", "pool9"]).await.assert(4, &["pool9", "expected one of pool1"]);
    site.binary.run(&["plan"]).await.assert(2, &["--pool", "--all"]);
    site.binary.run(&["plan", "--pool", "pool1", "--all"]).await.assert(2, &["cannot be used with"]);
    assert!(!site.store.exists(), "no store was made");
    assert_nothing_changed(&site).await;

    let ages = json!({ "maxImageAge": "30d", "maxImageAgeIfPatched": "30d" });
    site.configure(|settings| settings["pools"][0]["ranking"] = ages);
    let started = site.binary.run(&["start", "--pool", "pool1", "--adopt", "--wait"]).await;
    started.assert(0, &["done: new nodes are made from the new image"]);
    run(&["--detailed-exitcode"])
        .await
        .assert(0, &["not-needed", "KW0235", "no node is patched newer", "maxImageAge is 30d 00h"]);
    let again = site.binary.run(&["start", "--pool", "pool1", "--wait"]).await;
    again.assert(0, &["nothing to do", "KW0235"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_holds_the_store_is_asked_and_not_waited_for() {
    let Some(cluster) = shared() else { return };
    let site = Site::new(cluster, Plan { adopted: true, ..Plan::default() }).await;
    site.configure(|settings| settings["serve"] = json!({ "listen": "127.0.0.1:0" }));
    let first = planned(&site, &[]).await["version"].as_str().expect("a version").to_owned();
    site.binary.run(&["start", "--pool", "pool1", "--wait"]).await.assert(0, &[]);
    // Somebody deletes what was just made: only the store knows that its number was used.
    site.world.world().versions.retain(|key, _| *key != first.to_ascii_lowercase());
    let by_itself = planned(&site, &[]).await;
    assert_ne!(by_itself["version"], first.as_str(), "the store remembers: {by_itself:#}");

    let daemon = site.binary.start(&["serve"]);
    daemon.until("\"message\":\"serving\"").await;
    let asked = planned(&site, &[]).await;
    assert_eq!(asked["version"], by_itself["version"], "the daemon was asked: {asked:#}");
    daemon.signal(Signal::TERM);
    daemon.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_rights_are_named() {
    let Some(cluster) = shared() else { return };
    let taken = ("persistentvolumes", "create");
    let rights = KUBERNETES.iter().copied().filter(|it| (it.resource, it.verb) != taken).collect();
    let site = Site::new(cluster, Plan { adopted: true, rights, ..Plan::default() }).await;
    let ended = site.binary.run(PLAN).await;
    ended.assert(0, &["Missing rights", "may not create persistentvolumes in the cluster", "CleanCopy needs it"]);
    let json = site.binary.run(&[PLAN, &["-o", "json"]].concat()).await.json();
    assert_eq!(json["kind"], "Plan");
    assert_eq!(json["missing_rights"].as_array().map(Vec::len), Some(1), "{json:#}");
}

const BEGIN: &str = "<!-- plan-output -->\n```text\n";
const END: &str = "```\n<!-- end of plan-output -->\n";

/// Without what differs from day to day and from test to test; columns stay where they are.
fn redacted(site: &Site, printed: &str, version: &str) -> String {
    let (own, plain) = (&site.installed.at.clean_namespace, "kamino-wf-clean");
    let (from, to) = (format!("{own}/kwf-pool1-<run>"), format!("{plain}/kwf-pool1-<run>"));
    let to = format!("{to:width$}", width = from.len());
    let mut text = printed.replace(version, "2026.11.24000").replace(&from, &to);
    while let Some(at) = text.find("ready since 2").filter(|at| text.is_char_boundary(at + 40)) {
        let from = at + "ready since ".len();
        let to = from + text[from..].find('Z').expect("a time") + 1;
        text.replace_range(from..to, "[time]");
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_readme_shows_what_plan_prints() {
    let Some(cluster) = shared() else { return };
    let site = Site::new(cluster, Plan { adopted: true, ..Plan::default() }).await;
    let version = planned(&site, &[]).await["version"].as_str().expect("a version").to_owned();
    let version = version.rsplit('/').next().expect("a name");
    let ended = site.binary.run(PLAN).await;
    let printed = format!("{}\n", redacted(&site, &ended.assert(0, &[]).stdout, version));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(path).expect("the README");
    let (before, rest) = readme.split_once(BEGIN).expect("a place for it");
    let (shown, after) = rest.split_once(END).expect("an end of that place");
    if shown != printed && std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{printed}{END}{after}")).expect("written");
        return;
    }
    assert_eq!(shown, printed, "UPDATE_DOCS=1 cargo test --test end_to_end plan writes it anew");
}
