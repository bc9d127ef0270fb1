//! `kamino-wf doctor`: each thing that is wrong is named, alone, with the remedy; and nothing is changed anywhere.

use std::{fs, os::unix::net::UnixListener, path::Path};

use crate::support::{
    binary::{Binary, Ended},
    cluster::shared,
    installed::{Installed, create, until},
    world::{Plan, Site},
};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::ConfigMap;
use kamino_wf::{
    clock::{Clock, SystemClock},
    cloud::Orchestration,
    doctor::{self, Check, State, TAG},
    model::ScaleSetId,
    permissions::{AZURE, ClusterScope, KUBERNETES, PROOFS, Part, Uses, in_kubernetes},
    sim::{
        arm::{Fault, Injection},
        spec,
    },
    store::{Holder, open_dir},
};
use kube::Api;
use rustix::process::Signal;
use serde_json::{Value, json};

/// A check as the binary prints it.
#[derive(Debug)]
struct Printed {
    name: String,
    state: String,
    seen: String,
    remedy: String,
}

/// What the binary said.
struct Said {
    ended: Ended,
    checks: Vec<Printed>,
}

impl Said {
    /// Whether a check of that name came out so, in these words.
    fn has(&self, state: &str, name: &str, words: &str) -> bool {
        self.checks.iter().any(|it| it.name == name && it.state == state && it.seen.contains(words))
    }

    /// Exactly one check came out wrong or as a warning: this one. What is said of where the store lies is the machine's.
    #[track_caller]
    fn assert_only(&self, state: &str, name: &str, words: &[&str]) {
        let bad = |it: &&Printed| ["wrong", "warning"].contains(&it.state.as_str()) && !it.seen.contains("not outlive");
        let bad: Vec<_> = self.checks.iter().filter(bad).collect();
        assert_eq!(bad.len(), 1, "{bad:#?}\n{:#?}", self.ended);
        assert_eq!((bad[0].name.as_str(), bad[0].state.as_str()), (name, state), "{bad:#?}");
        for word in words {
            assert!(bad[0].seen.contains(word) || bad[0].remedy.contains(word), "no {word:?} in {bad:#?}");
        }
        assert_eq!(self.ended.code(), Some(i32::from(state == "wrong")), "{:#?}", self.ended);
    }
}

async fn ask(binary: &Binary) -> Said {
    let ended = binary.run(&["doctor", "-o", "json"]).await;
    let value = ended.json();
    assert_eq!(value["kind"], "Diagnosis");
    assert_eq!(value["good"], ended.code() == Some(0), "{value:#}");
    let text = |check: &Value, field: &str| check[field].as_str().unwrap_or_default().to_owned();
    let printed = |it: &Value| Printed {
        name: text(it, "name"),
        state: text(it, "state"),
        seen: text(it, "seen"),
        remedy: text(it, "remedy"),
    };
    let checks = value["checks"].as_array().expect("checks").iter().map(printed).collect();
    Said { ended, checks }
}

/// As in a pod of its own namespace.
fn in_pod(site: &Site) -> Binary {
    site.binary.with("KAMINO_NAMESPACE", &site.installed.at.namespace)
}

/// Neither Azure nor the cluster was asked to change anything; to ask about oneself is no change.
async fn assert_nothing_changed(site: &Site) {
    assert!(site.writes().is_empty(), "{:#?}", site.writes());
    let mut writes = site.cluster_writes().await;
    writes.retain(|entry| !entry.resource.starts_with("selfsubject"));
    assert!(writes.is_empty(), "{writes:#?}");
}

/// Without what differs from machine to machine and from day to day.
fn redacted(site: &Site, text: &str) -> String {
    let at = &site.installed.at;
    let texts = [(site.cluster.server.as_str(), "[server]"), (&site.store.display().to_string(), "[store]")]
        .into_iter()
        .chain([(at.clean_namespace.as_str(), "[cleaning]"), (at.namespace.as_str(), "[own]")])
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    let mut lines = Vec::new();
    let mut all = texts.lines();
    while let Some(line) = all.next() {
        if line.contains("not outlive") {
            // And its remedy.
            all.next();
        } else if let (Some(at), true) = (line.find("cluster "), line.contains("API server: ")) {
            lines.push(format!("{}cluster [id]", &line[..at]));
        } else if let (Some(at), true) = (line.rfind("; "), line.contains("MiB are free")) {
            lines.push(format!("{}; [n] MiB are free", &line[..at]));
        } else {
            lines.push(line.to_owned());
        }
    }
    // How many warnings there are is the machine's, as above.
    lines.pop();
    lines.join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_is_well_and_nothing_was_touched() {
    let Some(cluster) = shared() else { return };
    let site = Site::new(cluster, Plan { adopted: true, ..Plan::default() }).await;
    let ended = in_pod(&site).run(&["doctor"]).await;
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    insta::with_settings!({ snapshot_path => "../golden/doctor", prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("all_is_well", redacted(&site, &ended.stdout));
    });
    assert!(!site.store.exists(), "no store was made");

    // In a small pod that has no volume: an empty directory is good enough, and stays one.
    let empty = site.folder.path().join("empty");
    fs::create_dir(&empty).expect("a folder");
    let said = ask(&in_pod(&site).with("KAMINO_STORE", &empty.display().to_string())).await;
    assert_eq!(said.ended.code(), Some(0), "{:#?}", said.checks);
    assert!(said.has("ok", "store", "is empty and can be written"), "{:#?}", said.checks);
    assert_eq!(fs::read_dir(&empty).expect("a folder").count(), 0);

    // On a laptop no Lease is used, and no right to it needed.
    let said = ask(&site.binary).await;
    assert!(said.has("ok", "Kubernetes rights", "outside of a pod"), "{:#?}", said.checks);
    assert_nothing_changed(&site).await;
}

async fn examined(installed: &Installed, uses: Uses) -> Vec<Check> {
    let port = installed.connect().await;
    let (own, clean) = (&installed.at.namespace, &installed.at.clean_namespace);
    doctor::kubernetes(&port, Some(own), clean, "kamino-wf", uses).await.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kubernetes_right_that_is_missing_is_named_alone() {
    let Some(cluster) = shared() else { return };
    let everything = Uses { stop: true, forced_drain: true, rebootstrap: true, attach: true };
    for missing in in_kubernetes() {
        // A right to pods everywhere would stand in for one in the cleaning namespace.
        let uses = if missing.part == Part::Every { Uses::default() } else { everything };
        let rest: Vec<_> =
            in_kubernetes().copied().filter(|right| right != missing && uses.needs(right.part)).collect();
        let installed = cluster.service_account_kubeconfig(&rest).await;
        let maps: Api<ConfigMap> = Api::namespaced(cluster.admin().await, &installed.at.clean_namespace);
        create(&maps, json!({ "metadata": { "name": PROOFS } })).await;
        let checks = examined(&installed, uses).await;
        let wrong: Vec<_> = checks.iter().filter(|check| check.state == State::Wrong).collect();
        assert_eq!(wrong.len(), 1, "{missing:?}: {wrong:#?}");
        let place = match missing.scope {
            ClusterScope::Cluster => "the cluster",
            ClusterScope::NodeLeases => "namespace kube-node-lease",
            ClusterScope::Cleaning => &installed.at.clean_namespace,
            ClusterScope::Own => &installed.at.namespace,
            ClusterScope::Default => "namespace default",
        };
        let seen = &wrong[0].seen;
        assert!(seen.starts_with(&format!("may not {} {}", missing.verb, missing.resource)), "{missing:?}: {seen}");
        assert!(seen.ends_with(place), "{missing:?}: {seen}");
        let remedy = wrong[0].remedy.as_deref().unwrap_or_default();
        assert!(missing.steps.iter().all(|step| remedy.contains(step)), "{missing:?}: {remedy}");
    }
    // Nor is there a place for proofs where the chart has made none.
    let all: Vec<_> = in_kubernetes().copied().collect();
    let checks = examined(&cluster.service_account_kubeconfig(&all).await, everything).await;
    let wrong: Vec<_> = checks.iter().filter(|check| check.state == State::Wrong).collect();
    assert!(matches!(&wrong[..], [one] if one.name == "proofs of donors"), "{checks:#?}");
    // What is not used is not missed.
    let installed = cluster.service_account_kubeconfig(KUBERNETES).await;
    for (uses, missed) in [(Uses::default(), false), (everything, true)] {
        let checks = examined(&installed, uses).await;
        assert_eq!(checks.iter().any(|check| check.state == State::Wrong), missed, "{uses:?}: {checks:#?}");
    }
}

fn without(action: &str) -> Vec<Value> {
    let rest = AZURE.iter().filter(|right| right.action != action);
    rest.map(|right| json!({ "actions": [right.action], "notActions": [] })).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_azure_is_named_alone() {
    let Some(cluster) = shared() else { return };
    let site = Site::new(cluster, Plan { adopted: true, ..Plan::default() }).await;
    let binary = in_pod(&site);
    let all = site.face.granted();

    for (action, place) in [
        ("Microsoft.Compute/virtualMachineScaleSets/write", "resource group K8S-EUW"),
        ("Microsoft.Compute/disks/beginGetAccess/action", "resource group K8S-EUW"),
        ("Microsoft.Compute/snapshots/delete", "resource group K8S-EUW"),
        ("Microsoft.Compute/galleries/images/versions/write", "gallery prototypes"),
    ] {
        site.face.grant(without(action));
        ask(&binary).await.assert_only("wrong", "Azure rights", &[&format!("no role grants {action} on {place}")]);
    }
    // The gallery and the definition are there: nobody need be able to make them.
    site.face.grant(without("Microsoft.Compute/galleries/write"));
    assert_eq!(ask(&binary).await.ended.code(), Some(0));
    // An owner, but for what the role takes out.
    site.face.grant(vec![json!({ "actions": ["*"], "notActions": ["Microsoft.Compute/disks/del*"] })]);
    ask(&binary).await.assert_only("wrong", "Azure rights", &["no role grants Microsoft.Compute/disks/delete"]);
    site.face.grant(all);

    let plant = |method, path_part: &str, status, body| {
        let fault = Fault::Answer { status, headers: vec![], body };
        site.face.plant(Injection { method, path_part: path_part.into(), times: 1, fault });
    };
    let denied = json!({ "error": { "code": "AuthorizationFailed", "message": "no permissions/read" } });
    plant("GET", "/resourceGroups/K8S-EUW/providers/Microsoft.Authorization", 403, denied);
    ask(&binary).await.assert_only("warning", "Azure rights", &["AuthorizationFailed", "permissions/read"]);

    for (seconds, state, words) in [(-45, "warning", "behind ours"), (400, "wrong", "s ahead of ours")] {
        site.face.set_clock_ahead(SignedDuration::from_secs(seconds));
        ask(&binary).await.assert_only(state, "resource manager's clock", &[words, "NTP"]);
    }
    site.face.set_clock_ahead(SignedDuration::ZERO);

    let wrong = json!({ "error": "invalid_client", "error_description": "AADSTS7000215: invalid client secret" });
    plant("POST", "/oauth2/v2.0/token", 401, wrong);
    let said = ask(&binary).await;
    said.assert_only("wrong", "Azure credential", &["AADSTS7000215", "azure.tenant"]);
    assert!(said.has("skipped", "pool pool1", "needs both"), "{:#?}", said.checks);

    site.configure(|settings| settings["azure"]["tokenFile"] = json!("/nowhere/token"));
    ask(&binary).await.assert_only("wrong", "Azure credential", &["/nowhere/token"]);
    site.configure(|settings| settings["azure"]["resourceManager"] = json!("https://127.0.0.1:1"));
    ask(&binary).await.assert_only("wrong", "resource manager", &["127.0.0.1:1", "azure.resourceManager"]);
    site.configure(|settings| drop(settings.as_object_mut().map(|it| it.remove("azure"))));
    ask(&binary).await.assert_only("wrong", "Azure credential", &["no Azure credential is set"]);
    assert_nothing_changed(&site).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_run_of_a_pool_would_meet_is_said_before_there_is_one() {
    let Some(cluster) = shared() else { return };
    let site = Site::new(cluster, Plan { adopted: true, ..Plan::default() }).await;
    let binary = in_pod(&site);
    let pool = |change: fn(&mut Value)| site.configure(|settings| change(&mut settings["pools"][0]));

    site.change_model("/properties/upgradePolicy/mode", json!("Rolling"));
    let words = ["would be refused: upgradePolicy.mode of scale set pool1 is Rolling [KW0201]", "set it to Manual"];
    ask(&binary).await.assert_only("wrong", "pool pool1", &words);
    site.change_model("/properties/upgradePolicy/mode", json!("Manual"));

    pool(|pool| pool["scaleSet"] = json!(pool["scaleSet"].as_str().expect("an id").replace("/pool1", "/pool9")));
    ask(&binary).await.assert_only("wrong", "pool pool1", &["KW0221", "pool9 does not exist"]);
    pool(|pool| pool["minReady"] = json!("30d"));
    ask(&binary).await.assert_only("wrong", "pool pool1, donor", &["KW0230", "pool1-vmss000000"]);

    // A person can still say that they want it; a schedule can not.
    site.point_model_elsewhere();
    pool(|_| {});
    ask(&binary).await.assert_only("warning", "pool pool1", &["KW0213", "--adopt", "adopt: true"]);
    pool(|pool| pool["schedule"] = json!({ "cron": "0 3 * * TUE" }));
    ask(&binary).await.assert_only("wrong", "pool pool1", &["KW0213", "adopt: true"]);
    pool(|pool| pool["adopt"] = json!(true));
    assert_eq!(ask(&binary).await.ended.code(), Some(0));
    assert_nothing_changed(&site).await;
}

/// What a trial sees is in `tests/azure_requests/first_contact.rs`; here is who may ask for one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_is_only_for_what_may_be_thrown_away_and_for_who_says_yes() {
    let Some(cluster) = shared() else { return };
    let site = Site::new(cluster, Plan { adopted: true, ..Plan::default() }).await;
    let binary = in_pod(&site);
    let pool = spec(&site.scene).scale_set.to_string();
    let other = pool.replace("/pool1", "/xpool1");
    let azure = |set: &str, rest: &[&str]| {
        let arguments = [&["doctor", "--azure", "--scale-set", set][..], rest].concat();
        arguments.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let run = async |arguments: Vec<String>| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        binary.run(&arguments).await
    };
    run(azure(&pool, &["--yes"])).await.assert(2, &["pool pool1", "KW0701"]);
    run(azure(&other, &["--yes"])).await.assert(2, &["kamino-wf-throw-away: true", "docs/errors/KW0701.md"]);
    run(azure(&pool.replace("/pool1", "/pool9"), &["--yes"])).await.assert(4, &["there is no scale set"]);
    for arguments in [&["doctor", "--azure"][..], &["doctor", "--yes"], &["doctor", "--scale-set", pool.as_str()]] {
        assert_eq!(binary.run(arguments).await.code(), Some(2), "{arguments:?}");
    }

    let id = ScaleSetId::parse(&other).expect("an id");
    site.world.world().scale_sets.get_mut(&id.key()).expect("the neighbour").value["tags"][TAG] = json!("true");
    let ended = run(azure(&other, &["-o", "json"])).await;
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    let planned = ended.json();
    assert_eq!((&planned["kind"], &planned["dryRun"]), (&json!("FirstContact"), &json!(true)), "{planned:#}");
    assert!(planned["plan"]["costs"].as_str().is_some_and(|it| it.contains("without an instance")), "{planned:#}");
    let ended = run(azure(&other, &[])).await;
    assert!(ended.stdout.contains("Microsoft.Compute/galleries/delete"), "{ended:#?}");
    assert!(ended.stderr.contains("nothing was touched"), "{ended:#?}");
    assert_nothing_changed(&site).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_breaks_a_trial_off_and_what_it_has_made_goes() {
    let Some(cluster) = shared() else { return };
    let site = Site::new(cluster, Plan { adopted: true, ..Plan::default() }).await;
    let set = crate::trial::furnish(&mut site.world.world(), &spec(&site.scene).scale_set, Orchestration::Uniform);
    let made = || site.world.world().snapshots.keys().any(|key| key.contains("/kwf-doctor-"));
    let running = in_pod(&site).start(&["doctor", "--azure", "--scale-set", set.as_str(), "--yes", "-o", "json"]);
    until("the snapshot", async || made()).await;
    running.signal(Signal::INT);
    let ended = running.ended().await;
    assert_eq!(ended.code(), Some(130), "{ended:#?}");
    let printed = ended.json();
    assert_eq!((&printed["kind"], &printed["left"]), (&json!("FirstContact"), &json!([])), "{printed:#}");
    let lines = printed["assumptions"].as_array().expect("lines");
    let verdicts = |of: &str| lines.iter().filter(|line| line["verdict"] == of).count();
    assert!(verdicts("holds") > 0 && verdicts("does-not-hold") == 0 && lines.len() > 50, "{printed:#}");
    assert!(!made(), "{:#?}", site.world.world().log);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_api_server_or_with_bad_settings_it_says_so() {
    let Some(cluster) = shared() else { return };
    let site = Site::new(cluster, Plan { adopted: true, ..Plan::default() }).await;
    let binary = in_pod(&site);
    site.configure(|settings| drop(settings["cleaning"].as_object_mut().map(|it| it.remove("image"))));
    ask(&binary).await.assert_only("wrong", "cleaning image", &["cleaning.image is not set"]);
    site.configure(|settings| settings["kubernetes"]["lease"] = json!("another"));
    ask(&binary).await.assert_only("wrong", "Lease", &["\"another\" is forbidden", "a Lease named kamino-wf"]);
    site.configure(|settings| settings["pools"] = json!([]));
    ask(&binary).await.assert_only("wrong", "settings", &["no pool"]);

    let text = fs::read_to_string(&site.installed.kubeconfig).expect("a kubeconfig");
    let elsewhere = site.folder.path().join("elsewhere");
    fs::write(&elsewhere, text.replace(&site.cluster.server, "https://127.0.0.1:1")).expect("a kubeconfig");
    site.configure(|settings| settings["kubernetes"]["kubeconfig"] = json!(elsewhere));
    let said = ask(&binary).await;
    said.assert_only("wrong", "API server", &["127.0.0.1:1"]);
    assert!(said.has("skipped", "pool pool1", "needs both"), "{:#?}", said.checks);
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    config["users"][0]["user"]["token"] = json!("nobody's");
    fs::write(&elsewhere, config.to_string()).expect("a kubeconfig");
    ask(&binary).await.assert_only("wrong", "API server", &["not allowed"]);
    site.configure(|settings| settings["kubernetes"]["kubeconfig"] = json!("/nowhere"));
    ask(&binary).await.assert_only("wrong", "API server", &["/nowhere", "kubernetes.kubeconfig"]);

    site.configure(|settings| settings["pols"] = json!([]));
    binary.run(&["doctor"]).await.assert(2, &["pols"]);
    assert_nothing_changed(&site).await;
}

async fn of_store(dir: &Path) -> Check {
    let mut checks = doctor::store(dir).await;
    checks.retain(|check| !check.seen.contains("not outlive"));
    assert_eq!(checks.len(), 1, "{checks:#?}");
    checks.remove(0)
}

#[tokio::test]
async fn a_place_for_the_store_is_looked_at_and_left_as_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    assert!(of_store(&at("none/yet")).await.seen.contains("is not there yet and can be made"));
    assert!(!at("none").exists());

    fs::write(at("file"), "").expect("a file");
    let check = of_store(&at("file")).await;
    assert_eq!(check.state, State::Wrong, "{check:?}");
    assert!(check.seen.contains("not a directory"), "{check:?}");
    fs::create_dir(at("thesis")).expect("a folder");
    fs::write(at("thesis/thesis.txt"), "").expect("a file");
    let check = of_store(&at("thesis")).await;
    assert!(check.state == State::Wrong && check.seen.contains("thesis.txt"), "{check:?}");
    assert_eq!(fs::read_dir(at("thesis")).expect("a folder").count(), 1, "left as it was");

    let holder = Holder { pid: 4711, since: SystemClock.now(), socket: None, release: "9.9.9".into() };
    let (journal, guard) = open_dir(&at("store"), &holder).expect("a store");
    let listener = UnixListener::bind(at("store/control.sock")).expect("a socket");
    let check = of_store(&at("store")).await;
    assert_eq!(check.state, State::Ok, "{check:?}");
    assert!(check.seen.contains("held by process 4711 of release 9.9.9"), "{check:?}");
    drop((journal, listener));
    guard.close().expect("it closes");
    let check = of_store(&at("store")).await;
    assert!(check.seen.contains("holds a store that nobody has open, and can be written"), "{check:?}");
}
