//! The daemon: it leads, drives, follows schedules, answers probes, and leaves within seconds; a second one stands by.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::support::{
    binary::{Binary, Running},
    cluster::shared,
    installed::until,
    world::{Plan, Site},
};

const SERVE: &[&str] = &["serve"];

async fn site(scale: f64) -> Option<Site> {
    let cluster = shared()?;
    let site = Site::new(cluster, Plan { scale, ..Plan::default() }).await;
    site.configure(listening);
    Some(site)
}

/// Wherever there is room.
fn listening(settings: &mut Value) {
    settings["serve"] = json!({ "listen": "127.0.0.1:0" });
    settings["pools"][0]["adopt"] = true.into();
}

/// As the downward API would have it.
fn in_pod(site: &Site, pod: &str) -> Binary {
    site.binary.with("KAMINO_NAMESPACE", &site.installed.at.namespace).with("KAMINO_POD", pod)
}

/// One object a line.
fn logged(process: &Running) -> Vec<Value> {
    process.talk().lines().map(|line| serde_json::from_str(line).expect("every line is JSON")).collect()
}

/// Where probes and metrics are.
async fn address(process: &Running) -> String {
    process.until("\"message\":\"serving\"").await;
    let line = logged(process).into_iter().find(|line| line["message"] == "serving").expect("it was said");
    line["listen"].as_str().expect("an address").to_owned()
}

async fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers");
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, answer.split_once("\r\n\r\n").expect("a body").1.to_owned())
}

async fn holder(site: &Site) -> Option<Lease> {
    let leases: Api<Lease> = Api::namespaced(site.cluster.admin().await, &site.installed.at.namespace);
    leases.get_opt("kamino-wf").await.expect("the administrator may look")
}

fn pod_of(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref()?.split('_').next()
}

fn epoch_of(lease: &Lease) -> i32 {
    lease.spec.as_ref().and_then(|spec| spec.lease_transitions).expect("an epoch")
}

async fn start(site: &Site) -> String {
    let started = site.binary.run(&["start", "--pool", "pool1", "-o", "json"]).await;
    started.assert(0, &["driven by the process that holds the store"]).json()["run"]
        .as_str()
        .expect("its id")
        .to_owned()
}

async fn state(site: &Site, run: &str) -> Value {
    let described = site.binary.run(&["describe", run, "-o", "json"]).await;
    described.assert(0, &[]).json()["summary"]["state"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemon_leads_drives_and_leaves_within_seconds() {
    let Some(site) = site(0.002).await else { return };
    let began = Instant::now();
    let daemon = in_pod(&site, "kamino-wf-1").start(SERVE);
    let address = address(&daemon).await;
    until("readiness", async || get(&address, "/readyz").await.0 == 200).await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    for path in ["/livez", "/healthz", "/startupz"] {
        assert_eq!(get(&address, path).await.0, 200, "{path}");
    }
    assert_eq!(get(&address, "/v1/runs").await.0, 404, "the API is on the socket only");
    let lease = holder(&site).await.expect("a Lease");
    assert_eq!((pod_of(&lease), epoch_of(&lease)), (Some("kamino-wf-1"), 1));

    let run = start(&site).await;
    until("the snapshot", async || site.binary.run(&["describe", &run]).await.stdout.contains("SnapshotDisk")).await;
    let asked = Instant::now();
    daemon.signal(Signal::TERM);
    let ended = daemon.ended().await;
    ended.assert(0, &["asked to stop", "stopped"]);
    assert!(asked.elapsed() < Duration::from_secs(12), "it took {:?} to leave", asked.elapsed());
    let given_back = holder(&site).await.expect("a Lease");
    assert_eq!((pod_of(&given_back), epoch_of(&given_back)), (Some(""), 1));

    // The next pod takes it at once, and goes on with the run.
    let began = Instant::now();
    let daemon = in_pod(&site, "kamino-wf-2").start(SERVE);
    let address = self::address(&daemon).await;
    daemon.until("\"message\":\"leads\"").await;
    assert!(began.elapsed() < Duration::from_secs(15), "nobody has to be waited for: {:?}", began.elapsed());
    until("the run's end", async || state(&site, &run).await == "done").await;

    let (status, metrics) = get(&address, "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "kamino_build_info{version=\"0.1.0\"} 1",
        "kamino_runs{state=\"done\"} 1",
        "kamino_runs{state=\"parked\"} 0",
        "kamino_runs_ended_total{outcome=\"done\"} 1",
        "kamino_leader 1",
        "kamino_step_attempts_total{step=\"PatchModel\",outcome=\"accepted\"} 1",
        "kamino_azure_requests_total{call=\"PATCH scale set\",status=\"200\"} 1",
        "kamino_azure_ratelimit_remaining{subscription=\"5d3a6f0c-7e1b-4c55-9a52-0f6f4a1f2b77\",policy=\"GetVMScaleSet3Min\"} 197",
    ] {
        let found = metrics.lines().any(|it| it == line);
        assert!(found, "no {line} in {metrics}");
    }
    // Every line says which run and step it is about.
    let lines = logged(&daemon);
    let about = lines.iter().filter(|line| line["span"]["run"] == run.as_str() && line["span"]["step"].is_string());
    assert!(about.count() > 5, "{lines:#?}");
    let accepted = lines.iter().find(|line| line["message"] == "accepted by Azure").expect("a request");
    assert!(accepted["azure_request_id"].as_str().is_some_and(|id| !id.is_empty()), "{accepted}");
    daemon.signal(Signal::TERM);
    daemon.ended().await.assert(0, &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_is_refused_by_the_store_and_another_one_by_the_lease() {
    let Some(site) = site(0.002).await else { return };
    let first = in_pod(&site, "kamino-wf-1").start(SERVE);
    first.until("\"message\":\"leads\"").await;
    // On the same volume.
    in_pod(&site, "kamino-wf-2").run(SERVE).await.assert(5, &["holds it since", "ask that process"]);
    // On a volume of its own.
    let elsewhere = site.folder.path().join("elsewhere").display().to_string();
    let second = in_pod(&site, "kamino-wf-3").with("KAMINO_STORE", &elsewhere).start(SERVE);
    second.until("the Lease is held by another process").await;
    let address = address(&second).await;
    until("readiness", async || get(&address, "/readyz").await.0 == 200).await;
    assert!(get(&address, "/metrics").await.1.contains("kamino_leader 0"), "a standby is ready and does not lead");
    let there = site.binary.with("KAMINO_STORE", &elsewhere);
    let run = there.run(&["start", "--pool", "pool1", "-o", "json"]).await.assert(0, &[]).json();
    let run = run["run"].as_str().expect("its id").to_owned();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(site.writes().len(), 0, "a standby asks for nothing");

    // The first is killed: nothing is given back, and the second takes it when it has run out.
    let killed = Instant::now();
    first.kill().await;
    second.until("\"message\":\"leads\"").await;
    let took = killed.elapsed();
    assert!((Duration::from_secs(20)..Duration::from_mins(1)).contains(&took), "{took:?}");
    let lease = holder(&site).await.expect("a Lease");
    assert_eq!((pod_of(&lease), epoch_of(&lease)), (Some("kamino-wf-3"), 2));
    let done = async || {
        let described = there.run(&["describe", &run, "-o", "json"]).await;
        described.assert(0, &[]).json()["summary"]["state"] == "done"
    };
    until("the run's end", done).await;

    // Back on the first volume, as the same pod: it stands by, whatever its store has seen.
    let first = in_pod(&site, "kamino-wf-1").start(SERVE);
    first.until("the Lease is held by another process").await;
    first.kill().await;
    second.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_container_is_followed_by_the_next_one_of_its_pod_at_once() {
    let Some(site) = site(0.004).await else { return };
    let daemon = in_pod(&site, "kamino-wf-1").start(SERVE);
    daemon.until("\"message\":\"leads\"").await;
    let run = start(&site).await;
    until("a request", async || !site.writes().is_empty()).await;
    daemon.kill().await;
    let killed = Instant::now();
    let daemon = in_pod(&site, "kamino-wf-1").start(SERVE);
    daemon.until("\"message\":\"leads\"").await;
    assert!(killed.elapsed() < Duration::from_secs(15), "{:?}", killed.elapsed());
    assert_eq!(epoch_of(&holder(&site).await.expect("a Lease")), 2, "another process is another epoch");
    until("the run's end", async || state(&site, &run).await == "done").await;
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_on_start_nothing_moves_before_a_person_says_so() {
    let Some(site) = site(0.002).await else { return };
    site.configure(|settings| {
        listening(settings);
        settings["pools"][0]["schedule"] = json!({ "cron": "* * * * *" });
    });
    // A run that nothing drives yet.
    site.binary.run(&["start", "--pool", "pool1"]).await.assert(0, &["nothing drives it yet"]);
    let daemon = in_pod(&site, "kamino-wf-1").start(&["serve", "--hold-on-start"]);
    daemon.until("\"message\":\"leads\"").await;
    sleep(Duration::from_secs(2)).await;
    let list = site.binary.run(&["list", "-o", "json"]).await.assert(0, &[]).json();
    let held = &list["runs"][0];
    assert!(held["why"].as_str().is_some_and(|why| why.starts_with("held since")), "{held}");
    assert_eq!(site.writes().len(), 0);
    let run = held["run"].as_str().expect("its id").to_owned();
    site.binary.run(&["resume", &run]).await.assert(0, &["goes on"]);
    until("the run's end", async || state(&site, &run).await == "done").await;
    daemon.signal(Signal::TERM);
    daemon.ended().await.assert(0, &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_starts_one_run_a_time_also_over_a_restart() {
    let Some(site) = site(0.0005).await else { return };
    site.configure(|settings| {
        listening(settings);
        settings["pools"][0]["schedule"] = json!({ "cron": "* * * * *", "timeZone": "Asia/Kathmandu" });
    });
    let daemon = in_pod(&site, "kamino-wf-1").start(SERVE);
    let began = Instant::now();
    let runs = async || site.binary.run(&["list", "-o", "json"]).await.assert(0, &[]).json()["runs"].clone();
    daemon.until("\"message\":\"leads\"").await;
    while runs().await.as_array().is_none_or(Vec::is_empty) {
        assert!(began.elapsed() < Duration::from_secs(75), "a minute has passed: {}", daemon.talk());
        sleep(Duration::from_millis(200)).await;
    }
    // Killed and started again within the minute: what was due was dealt with.
    daemon.kill().await;
    let daemon = in_pod(&site, "kamino-wf-1").start(SERVE);
    daemon.until("\"message\":\"leads\"").await;
    let run = runs().await[0]["run"].as_str().expect("its id").to_owned();
    until("the run's end", async || state(&site, &run).await == "done").await;
    assert_eq!(runs().await.as_array().map(Vec::len), Some(1));
    let described = site.binary.run(&["describe", &run, "-o", "json"]).await.json();
    let by = described["events"][0]["by"].as_str().expect("who").to_owned();
    assert!(by.starts_with("schedule \"* * * * *\" of pool pool1, due "), "{by}");
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auto_finishes_what_was_interrupted_then_updates_every_pool_once() {
    let Some(site) = site(0.001).await else { return };
    let auto: &[&str] = &["auto", "--once", "--log-format", "text"];
    let process = in_pod(&site, "job-1").start(auto);
    until("a request", async || !site.writes().is_empty()).await;
    let runs = async || site.binary.run(&["list", "-o", "json"]).await.assert(0, &[]).json()["runs"].clone();
    process.kill().await;
    let interrupted = runs().await[0]["run"].as_str().expect("its id").to_owned();

    // Another pod of the next Job, with the same volume: the Lease of the killed one has to run out.
    in_pod(&site, "job-2").run(auto).await.assert(0, &[&interrupted, "done"]);
    let all = runs().await;
    assert_eq!(all.as_array().map(Vec::len), Some(2), "the interrupted one, and this time's: {all:#}");
    assert!(all.as_array().is_some_and(|all| all.iter().all(|run| run["state"] == "done")), "{all:#}");
    assert_eq!(pod_of(&holder(&site).await.expect("a Lease")), Some(""), "given back");
    in_pod(&site, "job-3").run(&["auto"]).await.assert(2, &["--once"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auto_that_is_asked_to_stop_hears_the_answer_to_what_it_has_asked() {
    let Some(cluster) = shared() else { return };
    // Long enough for the signal to come between a request and its answer.
    let site = Site::new(cluster, Plan { way: Duration::from_secs(2), ..Plan::default() }).await;
    site.configure(listening);
    let process = in_pod(&site, "job-1").start(&["auto", "--once", "--log-format", "text"]);
    until("a request", async || !site.writes().is_empty()).await;
    let asked = Instant::now();
    process.signal(Signal::TERM);
    process.ended().await.assert(143, &["asked to stop", "accepted by Azure"]);
    assert!(asked.elapsed() < Duration::from_secs(12), "it took {:?} to leave", asked.elapsed());
    assert_eq!(site.writes().len(), 1, "and asked for nothing more");
    assert_eq!(pod_of(&holder(&site).await.expect("a Lease")), Some(""), "given back");

    let runs = site.binary.run(&["list", "-o", "json"]).await.assert(0, &[]).json();
    let run = runs["runs"][0]["run"].as_str().expect("its id").to_owned();
    let described = site.binary.run(&["describe", &run, "-o", "json"]).await.assert(0, &[]).json();
    let events = described["events"].as_array().expect("events");
    let last = events.last().map(|event| &event["event"]);
    assert_eq!(last, Some(&"asked".into()), "on record: {events:#?}");

    // While another holds the Lease there is nothing to wait for.
    let leader = in_pod(&site, "kamino-wf-1").start(SERVE);
    leader.until("\"message\":\"leads\"").await;
    let elsewhere = site.folder.path().join("elsewhere").display().to_string();
    for command in [&["auto", "--once", "--log-format", "text"][..], &["serve", "--log-format", "text"]] {
        let waiting = in_pod(&site, "job-2").with("KAMINO_STORE", &elsewhere).start(command);
        waiting.until("the Lease is held by another process").await;
        let asked = Instant::now();
        waiting.signal(Signal::TERM);
        let ended = waiting.ended().await;
        assert!(!ended.stderr.contains("a turn did not end"), "{ended:?}");
        assert!(asked.elapsed() < Duration::from_secs(5), "{command:?} took {:?} to leave", asked.elapsed());
    }
    leader.kill().await;
}
