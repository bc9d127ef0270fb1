//! Azure says "not before twenty minutes": not even a new process asks again before that, and everything else goes on.

use std::time::Duration;

use jiff::Timestamp;
use kamino_wf::{
    clock::{Clock, SystemClock},
    sim::arm::{Fault, Injection, Logged},
};
use serde_json::{Value, json};

use crate::{
    START,
    support::{
        cluster::shared,
        world::{Plan, Site},
    },
};

/// Of requests to the bucket that is closed: operations are polled from it.
fn polls(site: &Site) -> Vec<Logged> {
    site.face.requests().into_iter().filter(|it| it.path.contains("/locations/")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttled_bucket_stays_untouched_over_a_kill_and_all_else_goes_on() {
    let Some(cluster) = shared() else { return };
    let site = Site::new(cluster, Plan { adopted: true, scale: 0.002, ..Plan::default() }).await;
    site.configure(|settings| {
        let mut other = settings["pools"][0].clone();
        other["name"] = "other".into();
        other["scaleSet"] = site.scale_set().to_string().replace("/pool1", "/xpool1").into();
        settings["pools"].as_array_mut().expect("pools").push(other);
    });
    let process = site.binary.start(START);
    process.until("CreateVersion: asked").await;
    let body = json!({ "error": { "code": "OperationNotAllowed",
        "message": "The server rejected the request because too many requests have been received for this subscription.",
        "details": [{ "code": "TooManyRequests", "target": "GetOperation3Min", "message": "{}" }] } });
    let fault = Fault::Answer { status: 429, headers: vec![("retry-after", "1200".into())], body };
    site.face.plant(Injection { method: "GET", path_part: "/capsOperations/".into(), times: 1, fault });
    process.until("CreateVersion: waiting until").await;
    let told = SystemClock.now();
    assert_eq!(polls(&site).last().and_then(|it| it.status), Some(429));
    assert_eq!(process.kill().await.code(), None);
    let before = polls(&site).len();

    let process = site.binary.start(START);
    process.until("going on with it").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(polls(&site).len(), before, "asked again before its time: {:#?}", polls(&site).last());

    // What people see.
    let listed = site.binary.run(&["list", "-o", "json"]).await;
    let run = listed.assert(0, &[]).json()["runs"][0].clone();
    assert_eq!((&run["state"], &run["step"]), (&json!("waiting"), &json!("CreateVersion")), "{run}");
    let until: Timestamp = run["until"].as_str().expect("until when").parse().expect("a time");
    let left = until.duration_since(told).as_secs();
    assert!((1190..=1200).contains(&left), "until {until}, {left} s after it was told");
    let why = run["why"].as_str().expect("why");
    assert!(why.contains("operation") && why.contains("1200 s"), "{why}");
    let short = run["run"].as_str().expect("a run").to_owned();
    site.binary.run(&["list"]).await.assert(0, &[&short, "waiting", "CreateVersion", &format!("until {until:.0}")]);
    site.binary.run(&["describe", &short]).await.assert(0, &["State      waiting", &format!("Next       {until:.0}")]);

    // Another run works; that pool has no nodes, so it ends soon.
    let other = site.binary.run(&["start", "--pool", "other", "--adopt", "-o", "json"]).await;
    let other = other.assert(0, &[]).json()["run"].as_str().expect("a run").to_owned();
    let mut seen = Value::Null;
    for _ in 0..100 {
        seen = site.binary.run(&["describe", &other, "-o", "json"]).await.json();
        if seen["summary"]["state"] == "undone" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(seen["summary"]["state"], "undone", "{seen}");
    assert!(seen["summary"]["why"].as_str().is_some_and(|why| why.contains("KW0230")), "{seen}");

    // It need not be waited for: undoing asks nothing of that bucket.
    site.binary.run(&["cancel", &short]).await.assert(0, &[]);
    process.ended().await.assert(9, &[]);
    assert_eq!(polls(&site).len(), before, "asked again before its time: {:#?}", polls(&site).last());
    assert_eq!(site.left().await, Vec::<String>::new());
    site.assert_donors_untouched().await;
}
