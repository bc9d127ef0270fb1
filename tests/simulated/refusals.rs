//! What a run refuses, and what it leaves alone: a clear word with field, value and remedy, and nothing touched.

use std::sync::Arc;

use kamino_wf::{
    clean::custom,
    cloud::{Architecture, Cloud, Definition, DefinitionSpec, Limiter, ModelChange, Provisioning, Snapshot},
    model::{Capture, Class, Profile, Region, RunId},
    policy::{
        canary::{Canary, Limits},
        preflight::{CLAUSES, document},
    },
    sim::{Crash, Line, Outcome, Resource, Scene, Session, SimCloud, SimCluster, Stop, World, spec},
    store::{Fence, Journal},
    workflow::{self, Authority, Driver, Engine, Pace, Parts, Rejected, RunState},
};
use serde_json::{Value, json};

use crate::harness::{self, simulated, state};

/// A run in a world that was changed before it began.
fn run(scene: &Scene, change: impl FnOnce(&mut World)) -> (Outcome, Vec<String>) {
    let (outcome, session) = harness::run(scene, |session| change(&mut session.shared.world()));
    let asked = session.shared.world().accepted.iter().map(|accepted| accepted.verb.to_owned()).collect();
    (outcome, asked)
}

fn why(outcome: &Outcome) -> String {
    outcome.summary.as_ref().and_then(|summary| summary.why.clone()).unwrap_or_default()
}

/// The pool's own model, with one place changed.
fn with(pointer: &'static str, value: Value) -> impl FnOnce(&mut World) {
    move |world| {
        let key = spec(&Scene::nominal()).scale_set.key();
        let model = &mut world.scale_sets.get_mut(&key).expect("the pool").value;
        let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
        model.pointer_mut(parent).expect("a place in the model")[field] = value;
    }
}

#[test]
fn each_unfit_scale_set_is_refused_with_field_value_and_remedy_and_nothing_is_asked_for() {
    let table: [(&str, &'static str, Value, [&str; 3]); 14] = [
        ("KW0201", "/properties/upgradePolicy/mode", json!("Rolling"), ["upgradePolicy.mode", "Rolling", "Manual"]),
        (
            "KW0202",
            "/properties/upgradePolicy/automaticOSUpgradePolicy/enableAutomaticOSUpgrade",
            json!(true),
            ["automaticOSUpgradePolicy", "true", "switch it off"],
        ),
        (
            "KW0203",
            "/properties/automaticRepairsPolicy",
            json!({ "enabled": true }),
            ["automaticRepairsPolicy", "true", "off"],
        ),
        ("KW0204", "/properties/virtualMachineProfile", json!(null), ["virtualMachineProfile", "not there", "profile"]),
        (
            "KW0205",
            "/properties/virtualMachineProfile/storageProfile/osDisk/diffDiskSettings",
            json!({ "option": "Local" }),
            ["diffDiskSettings", "set", "managed OS disk"],
        ),
        (
            "KW0206",
            "/properties/virtualMachineProfile/storageProfile/osDisk/osType",
            json!("Windows"),
            ["osType", "Windows", "Linux"],
        ),
        ("KW0207", "/properties/virtualMachineProfile/priority", json!("Spot"), ["priority", "Spot", "regular pool"]),
        (
            "KW0208",
            "/properties/virtualMachineProfile/storageProfile/dataDisks",
            json!([{ "lun": 0 }]),
            ["dataDisks", "1", "without data disks"],
        ),
        (
            "KW0209",
            "/properties/virtualMachineProfile/storageProfile/osDisk/managedDisk/diskEncryptionSet",
            json!({ "id": "/some/set" }),
            ["diskEncryptionSet", "/some/set", "not supported"],
        ),
        (
            "KW0210",
            "/properties/virtualMachineProfile/securityProfile",
            json!({ "securityType": "ConfidentialVM" }),
            ["securityType", "ConfidentialVM", "not supported"],
        ),
        ("KW0211", "/tags/aks-managed-poolName", json!("pool1"), ["aks-managed-poolname", "pool1", "AKS"]),
        (
            "KW0212",
            "/tags/sigs.k8s.io_cluster-api-provider-azure_cluster_prod",
            json!("owned"),
            ["cluster-api-provider-azure", "owned", "AzureMachinePool"],
        ),
        (
            "KW0211",
            "/properties/virtualMachineProfile/extensionProfile/extensions",
            json!([{ "name": "node", "properties": { "publisher": "Microsoft.AKS", "type": "Compute.AKS.Linux.AKSNode" } }]),
            ["extension node", "Microsoft.AKS/Compute.AKS.Linux.AKSNode", "AKS' own"],
        ),
        (
            "KW0214",
            "/properties/virtualMachineProfile/extensionProfile/extensions",
            json!([{ "name": "ade", "properties": {
                "publisher": "Microsoft.Azure.Security", "type": "AzureDiskEncryptionForLinux" } }]),
            ["extension ade", "AzureDiskEncryptionForLinux", "encryption at host"],
        ),
    ];
    for (code, pointer, value, words) in table {
        let (outcome, asked) = run(&Scene::nominal(), with(pointer, value));
        let why = why(&outcome);
        assert_eq!(state(&outcome), "undone", "{code}: {why}");
        for word in words.iter().chain([&code]) {
            assert!(why.contains(word), "{code}: {word:?} is missing in: {why}");
        }
        assert!(asked.is_empty(), "{code}: {asked:?} was asked for");
        assert!(outcome.violations.is_empty(), "{code}: {:#?}", outcome.violations);
    }
}

#[test]
fn a_profile_of_ones_own_needs_a_canary_and_a_copy() {
    let profile = custom::parse(include_str!("../../docs/examples/profile-k3s.yaml")).expect("a good profile");
    let watched = Canary::FirstNode(Limits::default());
    // A scale set that follows the definition, and grows by one.
    let scene = Scene { profile, adopted: true, ..Scene::nominal() };
    for (capture, canary, words) in [
        (Capture::Live, Canary::None, "profile is k3s, without a canary"),
        (Capture::Stop, watched, "profile is k3s, with capture: stop"),
        (Capture::Stop, Canary::None, "profile is k3s, with capture: stop"),
    ] {
        let (outcome, asked) = run(&Scene { capture, canary, ..scene.clone() }, |_| {});
        let why = why(&outcome);
        assert!(why.contains(words) && why.contains("KW0218"), "{why}");
        assert_eq!((state(&outcome), asked.len()), ("undone".to_owned(), 0), "{asked:?}");
    }
    let (outcome, _) = run(&Scene { canary: watched, ..scene }, |_| {});
    assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
    assert_eq!(state(&outcome), "done", "{}", why(&outcome));
}

#[test]
fn a_neighbour_that_follows_the_definition_and_would_roll_stops_the_run() {
    let scene = Scene { adopted: true, ..Scene::nominal() };
    let (outcome, asked) = run(&scene, |world| {
        let own = spec(&scene).scale_set.key();
        let image =
            world.scale_sets[&own].value["properties"]["virtualMachineProfile"]["storageProfile"]["imageReference"]
                .clone();
        let (_, neighbour) = world.scale_sets.iter_mut().find(|(key, _)| **key != own).expect("a neighbour");
        neighbour.value["properties"]["virtualMachineProfile"]["storageProfile"]["imageReference"] = image;
        neighbour.value["properties"]["upgradePolicy"]["mode"] = json!("Automatic");
    });
    assert!(why(&outcome).contains("xpool1") && why(&outcome).contains("KW0201"), "{}", why(&outcome));
    assert!(asked.is_empty(), "{asked:?}");
}

/// The names that the nominal run will choose, and the donor's disk.
fn rehearsed(scene: &Scene) -> Value {
    let (outcome, _) = run(scene, |_| {});
    let run = outcome.run.expect("a run");
    json!({ "names": run.outputs["ChooseNames"], "donor": run.outputs["RankNodes"]["donor"] })
}

#[test]
fn a_strangers_snapshot_of_the_runs_own_name_is_left_alone() {
    let scene = Scene::nominal();
    let known = rehearsed(&scene);
    for stranger in [None, Some(RunId(uuid::Uuid::from_u128(7)))] {
        let (outcome, asked) = run(&scene, |world| {
            let id = serde_json::from_value(known["names"]["snapshot"].clone()).expect("an id");
            let source = serde_json::from_value(known["donor"]["disk"].clone()).expect("an id");
            let key = known["names"]["snapshot"].as_str().expect("an id").to_ascii_lowercase();
            let (created, visible) = (Some(world.now()), world.now());
            let value = Snapshot {
                id,
                provisioning: Provisioning::Succeeded,
                source: Some(source),
                created,
                size_gib: 64,
                run: stranger,
                cluster: None,
            };
            world.snapshots.insert(key, Resource { value, operation: None, visible });
        });
        assert_eq!(state(&outcome), "undone");
        assert!(why(&outcome).contains("KW0004") && why(&outcome).contains("not this run's"), "{}", why(&outcome));
        assert!(!asked.iter().any(|verb| verb.contains("snapshot")), "{asked:?}");
    }
}

#[test]
fn a_disk_that_was_swapped_after_the_choice_is_not_snapshotted() {
    let scene = Scene::nominal();
    let known = rehearsed(&scene);
    let (outcome, asked) = simulated(async || {
        let session = Session::new(scene.clone());
        let key = known["donor"]["disk"].as_str().expect("an id").to_ascii_lowercase();
        let swap = async {
            // Between the choice and the snapshot the instance is reimaged: same name, another disk.
            tokio::time::sleep(std::time::Duration::from_secs(30)).await;
            session.shared.world().disks.get_mut(&key).expect("the donor's disk").value.unique_id = "another".into();
            std::future::pending::<()>().await;
        };
        let outcome = tokio::select! {
            biased;
            () = swap => unreachable!("it never ends"),
            outcome = session.run(Stop::AtRest) => outcome.expect("the store never fails"),
        };
        let asked: Vec<String> =
            session.shared.world().accepted.iter().map(|accepted| accepted.verb.to_owned()).collect();
        (outcome, asked)
    });
    assert_eq!(state(&outcome), "undone");
    assert!(why(&outcome).contains("KW0233"), "{}", why(&outcome));
    assert!(!asked.contains(&"begin_snapshot".to_owned()), "{asked:?}");
}

type Change = fn(&mut DefinitionSpec, &mut bool);

#[test]
fn a_definition_that_does_not_fit_the_disk_is_named_field_by_field() {
    let scene = Scene { adopted: true, ..Scene::nominal() };
    let change: [(&str, Change); 4] = [
        ("hyperVGeneration", |spec, _| spec.generation = "V1".into()),
        ("architecture", |spec, _| spec.architecture = Architecture::Arm64),
        ("SecurityType", |spec, _| spec.security_type = Some("TrustedLaunch".into())),
        ("Specialized", |_, generalized| *generalized = false),
    ];
    for (field, change) in change {
        let (outcome, asked) = run(&scene, |world| {
            let definition: &mut Definition = &mut world.definitions.values_mut().next().expect("a definition").value;
            change(&mut definition.spec, &mut definition.generalized);
        });
        assert_eq!(state(&outcome), "undone", "{field}");
        assert!(why(&outcome).contains(field) && why(&outcome).contains("another name"), "{field}: {}", why(&outcome));
        assert!(asked.is_empty(), "{field}: {asked:?}");
    }
}

#[test]
fn what_somebody_else_changes_in_the_model_meanwhile_is_named_and_parks_the_run() {
    let scene = Scene { profile: Profile::Kubeadm, ..Scene::nominal() };
    let outcome = simulated(async || {
        let session = Session::new(scene.clone());
        let key = spec(&scene).scale_set.key();
        let meddle = async {
            loop {
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                let mut world = session.shared.world();
                let set = world.scale_sets.get_mut(&key).expect("the pool");
                if set.value["properties"]["provisioningState"] == "Updating" {
                    set.value["properties"]["virtualMachineProfile"]["networkProfile"]["healthProbe"] =
                        json!({ "id": "x" });
                }
            }
        };
        tokio::select! {
            biased;
            () = meddle => unreachable!("it never ends"),
            outcome = session.run(Stop::AtRest) => outcome.expect("the store never fails"),
        }
    });
    assert_eq!(state(&outcome), "parked");
    assert!(why(&outcome).contains("networkProfile"), "{}", why(&outcome));
}

#[test]
fn a_report_that_was_lost_or_is_not_this_runs_is_not_believed() {
    // Every pod is killed half-way until the budget is spent: cleaned again, and in the end done.
    let mut scene = Scene::nominal();
    scene.faults.killed_pods = 1000;
    scene.faults.budget = 2;
    let (outcome, _) = run(&scene, |_| {});
    let run_ = outcome.run.as_ref().expect("a run");
    assert_eq!(run_.state, RunState::Ended(workflow::Outcome::Done), "{}", why(&outcome));
    assert_eq!(
        run_.warnings.iter().filter(|warning| warning.starts_with("CleanCopy")).count(),
        2,
        "{:?}",
        run_.warnings
    );
    assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);

    scene.faults.budget = 3;
    let (outcome, _) = run(&scene, |_| {});
    assert_eq!(state(&outcome), "undone", "three failures are enough");
    assert!(why(&outcome).contains("KW0005"), "{}", why(&outcome));
    assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
}

#[test]
fn without_adopt_a_first_run_is_refused_and_says_what_would_be_lost() {
    let scene = Scene { profile: Profile::AksEngine, ..Scene::nominal() };
    let wanted = spec(&scene);
    let (outcome, _) = run(&scene, |_| {});
    assert!(wanted.adopt && outcome.violations.is_empty());
    let refusals = |adopt| {
        simulated(async || {
            let session = Session::new(scene.clone());
            let model = session.shared.world().model(&wanted.scale_set).cloned().expect("the pool");
            let set = kamino_wf::sim::read_model(&model).expect("a model");
            let definition = wanted.gallery.definition(&wanted.definition).expect("an id");
            kamino_wf::policy::preflight::refusals(&set, &definition, &wanted.profile, adopt, false)
        })
    };
    assert!(refusals(true).is_empty());
    let text = refusals(false).iter().map(ToString::to_string).collect::<String>();
    assert!(text.contains("KW0213") && text.contains("--adopt") && text.contains("custom data"), "{text}");
}

type Meddling = Box<dyn FnOnce(&mut World)>;

#[test]
fn what_is_not_there_or_not_meant_is_refused_before_anything_is_asked_for() {
    let scene = Scene { adopted: true, ..Scene::nominal() };
    let own = spec(&scene).scale_set.key();
    let (vanished, unfollowed) = (own.clone(), own);
    let table: [(&str, &[&str], Meddling); 2] = [
        (
            "KW0221",
            &["does not exist", "check subscription, group and name"],
            Box::new(move |world| drop(world.scale_sets.remove(&vanished))),
        ),
        // A scale set that does not follow the definition, and an operator who has not said that it shall.
        (
            "KW0213",
            &["imageReference", "Canonical", "--adopt"],
            Box::new(move |world| {
                let model = &mut world.scale_sets.get_mut(&unfollowed).expect("the pool").value;
                model["properties"]["virtualMachineProfile"]["storageProfile"]["imageReference"] =
                    json!({ "publisher": "Canonical", "offer": "o", "sku": "s", "version": "latest" });
            }),
        ),
    ];
    for (code, words, change) in table {
        let (outcome, asked) = run(&scene, change);
        let why = why(&outcome);
        assert_eq!(state(&outcome), "undone", "{code}: {why}");
        for word in words.iter().chain([&code]) {
            assert!(why.contains(word), "{code}: {word:?} is missing in: {why}");
        }
        assert!(asked.is_empty() && outcome.violations.is_empty(), "{code}: {asked:?}, {:#?}", outcome.violations);
    }
}

#[test]
fn a_pool_without_a_fit_node_is_refused_with_each_nodes_reason() {
    let (outcome, asked) = run(&Scene::nominal(), |world| {
        let [first, second, third] = world.nodes.as_mut_slice() else { panic!("three nodes") };
        first.unschedulable = true;
        second.ready = false;
        third.annotations.insert("kamino-wf.io/ignore".into(), String::new());
    });
    let why = why(&outcome);
    for word in ["KW0230", "it is cordoned", "it is not Ready", "it carries kamino-wf.io/ignore"] {
        assert!(why.contains(word), "{word:?} is missing in: {why}");
    }
    assert!(asked.is_empty() && outcome.violations.is_empty(), "{asked:?}");
}

fn of_nominal(change: impl FnOnce(&mut World)) -> String {
    let (outcome, asked) = run(&Scene::nominal(), change);
    assert!(asked.is_empty() && outcome.violations.is_empty(), "{asked:?}, {:#?}", outcome.violations);
    assert_eq!(state(&outcome), "undone", "{}", why(&outcome));
    why(&outcome)
}

#[test]
fn a_pool_whose_nodes_are_of_aks_is_refused() {
    let why = of_nominal(|world| {
        world.nodes[1].labels.insert("kubernetes.azure.com/cluster".into(), "MC_prod".into());
    });
    for word in ["KW0211", "label kubernetes.azure.com/cluster of node pool1-vmss000001", "MC_prod", "AKS' own"] {
        assert!(why.contains(word), "{word:?} is missing in: {why}");
    }
}

#[test]
fn an_extension_that_waits_for_one_that_has_to_go_is_refused() {
    let waits = |world: &mut World| {
        let model = world.scale_sets.get_mut(&spec(&Scene::nominal()).scale_set.key()).expect("the pool");
        let extensions = &mut model.value["properties"]["virtualMachineProfile"]["extensionProfile"]["extensions"];
        extensions[1]["properties"]["provisionAfterExtensions"] = json!(["VMSSCSE"]);
    };
    let (outcome, asked) = run(&Scene { profile: Profile::AksEngine, ..Scene::nominal() }, waits);
    let text = why(&outcome);
    for word in ["KW0215", "provisionAfterExtensions of extension computeAksLinuxBilling", "VMSSCSE"] {
        assert!(text.contains(word), "{word:?} is missing in: {text}");
    }
    assert!(asked.is_empty(), "{asked:?}");
    // This profile removes none.
    let (outcome, _) = run(&Scene { profile: Profile::Kubeadm, ..Scene::nominal() }, waits);
    assert_eq!(state(&outcome), "done", "{}", why(&outcome));
}

#[test]
fn a_gallery_elsewhere_has_to_replicate_to_the_scale_sets_region() {
    let scene = Scene { adopted: true, ..Scene::nominal() };
    let move_to = |region: &'static str| {
        move |world: &mut World| {
            let gallery = &mut world.galleries.values_mut().next().expect("the gallery").value;
            gallery.location = Region(region.into());
        }
    };
    let (outcome, asked) = run(&scene, move_to("East US"));
    let text = why(&outcome);
    for word in ["KW0216", "East US, northeurope, and the scale set is in West Europe", "regions"] {
        assert!(text.contains(word), "{word:?} is missing in: {text}");
    }
    assert!(asked.is_empty(), "{asked:?}");
}

#[test]
fn a_donor_without_an_instance_or_a_disk_is_refused() {
    let known = rehearsed(&Scene::nominal());
    let of = |field: &str| known["donor"][field].as_str().expect("an id").to_ascii_lowercase();
    let (instance, disk) = (of("instance"), of("disk"));
    let table: [(&str, &str, Meddling); 4] = [
        ("KW0231", "which does not exist", {
            let instance = instance.clone();
            Box::new(move |world| drop(world.instances.remove(&instance)))
        }),
        ("KW0205", "no managed OS disk", {
            Box::new(move |world| world.instances.get_mut(&instance).expect("the donor").os_disk = None)
        }),
        ("KW0232", "does not exist", {
            let disk = disk.clone();
            Box::new(move |world| drop(world.disks.remove(&disk)))
        }),
        ("KW0210", "ConfidentialVM_VMGuestStateOnlyEncryptedWithPlatformKey", {
            Box::new(move |world| {
                let kind = "ConfidentialVM_VMGuestStateOnlyEncryptedWithPlatformKey";
                world.disks.get_mut(&disk).expect("the donor's").value.security_type = Some(kind.into());
            })
        }),
    ];
    for (code, words, change) in table {
        let (outcome, asked) = run(&Scene::nominal(), change);
        let why = why(&outcome);
        assert!(why.contains(code) && why.contains(words), "{code}: {why}");
        assert!(asked.is_empty(), "{code}: {asked:?}");
    }
}

#[test]
fn a_model_that_changes_between_the_look_and_the_request_is_looked_at_again() {
    simulated(async || {
        let session = Session::new(Scene::nominal());
        let cloud = SimCloud::new(Arc::clone(&session.shared), Arc::new(Limiter::default()));
        let wanted = spec(&Scene::nominal());
        let seen = cloud.scale_set(&wanted.scale_set).await.expect("a look").expect("the pool");
        let before = session.shared.world().model(&wanted.scale_set).cloned().expect("the pool");
        let change = ModelChange {
            scale_set: wanted.scale_set.clone(),
            run: RunId(uuid::Uuid::from_u128(1)),
            image: wanted.gallery.definition(&wanted.definition).expect("an id"),
            empty_custom_data: false,
            remove_extensions: vec![],
            under: seen.etag,
        };
        {
            let mut world = session.shared.world();
            let model = &mut world.scale_sets.get_mut(&wanted.scale_set.key()).expect("the pool").value;
            model["etag"] = json!("\"8\"");
            model["properties"]["upgradePolicy"]["mode"] = json!("Rolling");
        }
        let error = cloud.begin_model_change(&change).await.expect_err("another model");
        assert_eq!(error.class(), Class::Preempted, "{error}");
        let mut after = session.shared.world().model(&wanted.scale_set).cloned().expect("the pool");
        after["etag"] = before["etag"].clone();
        after["properties"]["upgradePolicy"]["mode"] = json!("Manual");
        assert_eq!(after, before, "nothing was asked for");
    });
}

/// Runs to rest in a world that is changed in the very moment in which a step is done. Nothing is polled for.
fn changed_at(step: &'static str, change: impl FnOnce(&mut World) + Send + 'static) -> (Outcome, Vec<String>) {
    simulated(async || {
        let session = Session::new(Scene::nominal());
        let shared = Arc::clone(&session.shared);
        let change = std::sync::Mutex::new(Some(change));
        let session = session.watched(Arc::new(move |_, line| {
            let done = line.step.as_deref() == Some(step) && matches!(line.event, workflow::Event::Confirmed { .. });
            let change = if done { change.lock().expect("a lock").take() } else { None };
            if let Some(change) = change {
                change(&mut shared.world());
            }
        }));
        let outcome = session.run(Stop::AtRest).await.expect("the store never fails");
        let asked = session.shared.world().accepted.iter().map(|accepted| accepted.verb.to_owned()).collect();
        (outcome, asked)
    })
}

#[test]
fn whoever_owns_the_model_by_the_time_it_is_changed_keeps_it() {
    let table: [(&str, &str, Value); 3] = [
        ("KW0201", "/properties/upgradePolicy/mode", json!("Rolling")),
        ("KW0211", "/tags/aks-managed-poolName", json!("pool1")),
        ("KW0212", "/tags/sigs.k8s.io_cluster-api-provider-azure_cluster_prod", json!("owned")),
    ];
    for (code, pointer, value) in table {
        let (outcome, asked) = changed_at("PublishVersion", with(pointer, value));
        assert_eq!(state(&outcome), "parked", "{code}: {}", why(&outcome));
        assert!(why(&outcome).contains(code), "{code}: {}", why(&outcome));
        assert!(!asked.contains(&"begin_model_change".to_owned()), "{code}: the model was changed: {asked:?}");
    }
    // Not following yet, and it would roll as soon as it did: refused before the version is published.
    let rolls = with("/properties/upgradePolicy/mode", json!("Rolling"));
    let (outcome, asked) = changed_at("VerifyVersion", rolls);
    assert!(why(&outcome).contains("KW0201"), "{}", why(&outcome));
    assert!(!asked.contains(&"begin_publish".to_owned()), "{asked:?}");
}

#[test]
fn the_documents_list_every_refusal_and_each_has_its_test() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for clause in CLAUSES {
        let (file, name) = clause.test;
        let source = std::fs::read_to_string(root.join(file)).expect(file);
        assert!(source.contains(&format!("fn {name}(")), "{}: {file} has no test {name}", clause.code);
        assert!(source.contains(clause.code), "{}: {file} does not speak of it", clause.code);
    }
    let path = root.join("docs/refusals.md");
    let made = document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &made).expect("written");
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(there, made, "UPDATE_DOCS=1 cargo test --test simulated refusals writes it anew");
}

/// Runs to rest in a world that is changed as soon as a step is done.
async fn changed_after(step: &str, session: &Session, change: impl Fn(&mut World)) -> Outcome {
    let meddle = async {
        let done =
            |line: &Line| line.step.as_deref() == Some(step) && matches!(line.event, workflow::Event::Confirmed { .. });
        while !session.lines().iter().any(done) {
            // Less than the next step needs for its first call.
            tokio::time::sleep(std::time::Duration::from_millis(15)).await;
        }
        change(&mut session.shared.world());
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = meddle => unreachable!("it never ends"),
        outcome = session.run(Stop::AtRest) => outcome.expect("the store never fails"),
    }
}

/// A person cancels a run that nobody drives, and drives it then. The answer, and how the run ended.
async fn cancelled(session: &Session, id: RunId) -> (Result<(), Rejected>, String) {
    let tree = session.disk.tree(Arc::new(Crash::default()));
    let (journal, committer) = Journal::open(tree, uuid::Uuid::nil()).expect("a sound journal");
    let person = async {
        let limiter = Arc::new(Limiter::default());
        let engine = Engine::open(Parts {
            authority: Arc::new(Authority::unlimited(Fence(0))),
            runs_at_once: usize::MAX,
            cloud: Arc::new(SimCloud::new(Arc::clone(&session.shared), Arc::clone(&limiter))),
            cluster: Arc::new(SimCluster::new(Arc::clone(&session.shared))),
            clock: Arc::new(session.shared.world().clock.clone()),
            journal,
            limiter,
            pace: Pace::default(),
            release: "0.1.0".into(),
            observer: Box::new(|_, _| {}),
        });
        let engine = Arc::new(engine.await.expect("opened"));
        let answer = engine.cancel(id, "me").await.expect("the store works");
        Driver::new(Arc::clone(&engine)).run_to_rest().await.expect("at rest");
        (answer, engine.summaries().await.expect("runs").remove(0).state)
    };
    tokio::select! {
        biased;
        ended = committer.run() => panic!("the committer ended: {ended:?}"),
        result = person => result,
    }
}

#[test]
fn a_version_that_somebody_deletes_before_it_is_published_is_no_dead_end() {
    simulated(async || {
        let session = Session::new(Scene::nominal());
        let outcome = changed_after("VerifyVersion", &session, |world| world.versions.clear()).await;
        assert_eq!(state(&outcome), "undone", "{}", why(&outcome));
        assert!(why(&outcome).contains("KW0242"), "{}", why(&outcome));
        assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
        assert!(!session.shared.world().accepted.iter().any(|accepted| accepted.verb == "begin_publish"));
    });
}

#[test]
fn parked_before_anything_is_published_a_run_can_be_cancelled_and_afterwards_it_can_not() {
    // The pool follows the definition, so that publishing is refused as soon as it would roll.
    let scene = Scene { adopted: true, ..Scene::nominal() };
    let rolls = |world: &mut World| {
        let pool = &mut world.scale_sets.get_mut(&spec(&scene).scale_set.key()).expect("the pool").value;
        pool["properties"]["upgradePolicy"]["mode"] = json!("Rolling");
    };
    for (step, published) in [("VerifyVersion", false), ("PublishVersion", true)] {
        simulated(async || {
            let session = Session::new(scene.clone());
            let outcome = changed_after(step, &session, rolls).await;
            assert_eq!(state(&outcome), "parked", "after {step}: {}", why(&outcome));
            let id = outcome.run.expect("a run").id;
            let (answer, end) = cancelled(&session, id).await;
            let ours = session.shared.world().versions.values().any(|version| version.value.run == Some(id));
            assert_eq!(ours, published, "whether its version is there");
            if published {
                assert!(matches!(answer, Err(Rejected::PastReturn { .. })), "{answer:?}");
                assert_eq!(end, "parked");
            } else {
                assert_eq!((answer, end.as_str()), (Ok(()), "cancelled"));
            }
        });
    }
}
