//! In the simulated world: every plan is compared with the run that follows.

use std::{collections::BTreeMap, sync::Arc};

use kamino_wf::{
    cloud::{Limiter, Orchestration},
    model::{Capture, NodeName, Profile},
    policy::ranking::{ImageAge, Rules},
    preview::{Known, PoolPlan, Prospect, Wanted, pool},
    sim::{Outcome, Scene, Session, SimCloud, SimCluster, Stop, Tenant, World, spec},
    workflow::{Ports, RunSpec},
};
use serde_json::{Value, json};

use crate::harness::simulated;

async fn planned(session: &Session, spec: RunSpec, known: &Known) -> PoolPlan {
    let cloud = SimCloud::new(Arc::clone(&session.shared), Arc::new(Limiter::default()));
    let cluster = SimCluster::new(Arc::clone(&session.shared));
    let clock = session.shared.world().clock.clone();
    let ports = Ports { cloud: &cloud, cluster: &cluster, clock: &clock };
    let plan = pool(ports, &Wanted { name: "pool1".into(), spec }, known).await;
    assert!(session.shared.world().accepted.is_empty(), "a plan asks for nothing");
    plan
}

/// The plan of a scene's pool, in a world that is changed before.
fn plan_of(scene: &Scene, change: impl FnOnce(&mut World), ask: impl FnOnce(&mut RunSpec)) -> PoolPlan {
    simulated(async || {
        let session = Session::new(scene.clone());
        change(&mut session.shared.world());
        let mut wanted = spec(scene);
        ask(&mut wanted);
        planned(&session, wanted, &Known::default()).await
    })
}

async fn planned_and_done(scene: &Scene) -> (PoolPlan, Outcome, Vec<String>) {
    let session = Session::new(scene.clone());
    let plan = planned(&session, spec(scene), &Known::default()).await;
    let outcome = session.run(Stop::AtRest).await.expect("the store never fails");
    let asked = session.shared.world().accepted.iter().map(|it| format!("{} {}", it.verb, it.key)).collect();
    (plan, outcome, asked)
}

/// What is asked for to make something, or to take a node out of service.
const MADE: [&str; 3] = ["begin_", "create_", "change_node"];

#[test]
fn the_plan_says_what_the_run_then_does() {
    let scenes = [false, true].into_iter().flat_map(|adopted| {
        let of = move |profile| Scene { adopted, profile, ..Scene::nominal() };
        Profile::SHIPPED.map(of)
    });
    let stop = Scene { capture: Capture::Stop, ..Scene::nominal() };
    let flexible = Scene { orchestration: Orchestration::Flexible, ..Scene::nominal() };
    for scene in scenes.chain([stop, flexible]) {
        let (plan, outcome, asked) = simulated(async || planned_and_done(&scene).await);
        let run = outcome.run.expect("a run");
        let short = run.id.short();
        assert_eq!(outcome.summary.expect("a summary").state, "done");
        assert_eq!((plan.prospect, &plan.why), (Prospect::Update, &None), "{plan:#?}");
        let output = |step: &str| &run.outputs[step];
        assert_eq!(json!(plan.donor), output("RankNodes")["donor"]["node"]);
        assert_eq!(json!(plan.version), output("ChooseNames")["version"]);
        assert_eq!(plan.nodes.len(), 3);
        let named = |name: &str| name.replace("<run>", &short).to_ascii_lowercase();

        let made: Vec<String> =
            asked.iter().filter(|it| MADE.iter().any(|verb| it.starts_with(verb))).cloned().collect();
        let verb = |kind: &str| match kind {
            "image definition" => "begin_definition",
            "gallery" => "begin_gallery",
            "snapshot" => "begin_snapshot",
            "disk" => "begin_copy_disk",
            "version" => "begin_version",
            "volume" => "create_volume",
            "claim" => "create_claim",
            "pod" if scene.capture == Capture::Stop => "create_donor_pod",
            "pod" => "create_pod",
            "cordon" => "change_node",
            other => panic!("{other} is nothing that a run makes"),
        };
        for object in &plan.creates {
            let (verb, name) = (verb(object.kind), named(&object.name));
            assert!(
                made.iter().any(|it| it.starts_with(verb) && it.to_ascii_lowercase().ends_with(&name)),
                "{object:?}: {made:#?}"
            );
        }
        let making = [
            "begin_gallery",
            "begin_definition",
            "begin_snapshot",
            "begin_copy_disk",
            "begin_version",
            "create_",
            "change_node",
        ];
        let once: std::collections::BTreeSet<&String> = made
            .iter()
            .filter(|it| making.iter().any(|verb| it.starts_with(verb)) && !it.starts_with("begin_delete"))
            .collect();
        assert_eq!(once.len(), plan.creates.len(), "nothing is made that was not planned: {once:#?}");

        let gone = |plan: &PoolPlan| -> Vec<String> {
            plan.versions.iter().filter(|it| it.delete).map(|it| it.version.to_string()).collect()
        };
        let pruned: Vec<String> = output("PlanPrune")["verdicts"]
            .as_array()
            .expect("verdicts")
            .iter()
            .filter(|it| it["delete"] == true)
            .map(|it| it["version"].as_str().expect("an id").to_owned())
            .collect();
        assert_eq!(gone(&plan), pruned, "adopted: {}", scene.adopted);
        assert_eq!(pruned.is_empty(), !scene.adopted, "the control");

        let changed = output("PatchModel")["changed"].as_array().expect("parts").len();
        assert_eq!(plan.model.is_empty(), changed == 0, "{:?}", plan.model);
        let fields: Vec<&str> = plan.model.iter().map(|it| it.field.as_str()).collect();
        match (scene.adopted, scene.profile) {
            (true, _) => assert!(fields.is_empty(), "{fields:?}"),
            (false, Profile::Kubeadm) => assert_eq!(fields, ["storageProfile.imageReference"]),
            (false, _) => {
                let expected =
                    ["storageProfile.imageReference", "osProfile.customData", "extensionProfile.extensions.vmssCSE"];
                assert_eq!(fields, expected);
            }
        }
    }
}

type Meddling = fn(&mut World);

#[test]
fn everything_that_speaks_against_a_run_is_shown_and_the_rest_of_the_plan_all_the_same() {
    fn rolling(world: &mut World) {
        let pool = world.scale_sets.get_mut(&spec(&Scene::nominal()).scale_set.key()).expect("the pool");
        pool.value["properties"]["upgradePolicy"]["mode"] = "Rolling".into();
        pool.value["properties"]["virtualMachineProfile"]["priority"] = "Spot".into();
    }
    let plan = plan_of(&Scene::nominal(), rolling, |spec| spec.adopt = false);
    let codes: Vec<&str> = plan.refusals.iter().map(|it| it.code.as_str()).collect();
    assert_eq!(codes, ["KW0201", "KW0207", "KW0213"]);
    assert_eq!(plan.prospect, Prospect::Refused);
    assert!(plan.donor.is_some() && !plan.creates.is_empty(), "{plan:#?}");

    let table: [(&str, Prospect, &str, Meddling); 4] = [
        ("a pool without a fit node", Prospect::Refused, "KW0230", |world| {
            for node in &mut world.nodes {
                node.unschedulable = true;
            }
        }),
        ("a definition that does not fit", Prospect::Refused, "KW0004", |world| {
            world.definitions.values_mut().next().expect("a definition").value.spec.generation = "V1".into();
        }),
        ("a scale set that is not there", Prospect::Refused, "KW0221", |world| world.scale_sets.clear()),
        ("an answer that does not come", Prospect::Unknown, "KW0300", |world| {
            world.script.insert(2, kamino_wf::sim::Fault::LostRequest);
        }),
    ];
    for (what, prospect, code, change) in table {
        let plan = plan_of(&Scene { adopted: true, ..Scene::nominal() }, change, |_| {});
        assert_eq!(plan.prospect, prospect, "{what}: {plan:#?}");
        assert!(plan.why.as_ref().is_some_and(|why| why.contains(code)), "{what}: {:?}", plan.why);
    }
}

#[test]
fn no_new_image_is_needed_where_the_newest_is_young_enough_and_it_is_said_what_would_be_done() {
    let ages = ImageAge { max_seconds: 9_000_000, max_seconds_if_patched: 9_000_000 };
    let young = |spec: &mut RunSpec| spec.ranking = Rules { image_age: Some(ages), ..Rules::default() };
    let plan = plan_of(&Scene { adopted: true, ..Scene::nominal() }, |_| {}, young);
    assert_eq!(plan.prospect, Prospect::NotNeeded);
    assert!(plan.why.as_ref().is_some_and(|why| why.contains("ranking.maxImageAge")), "{:?}", plan.why);
    assert!(plan.donor.is_some() && !plan.creates.is_empty());
}

#[test]
fn what_the_store_remembers_is_in_the_plan() {
    let scene = Scene { adopted: true, ..Scene::nominal() };
    simulated(async || {
        let session = Session::new(scene.clone());
        let wanted = spec(&scene);
        let highest = format!("highest/{}/prototypes/pool1", wanted.gallery.subscription());
        let memory: BTreeMap<String, Value> = [(highest, json!("2027.01.01007"))].into();
        let known = Known { memory, open: None };
        let plan = planned(&session, wanted.clone(), &known).await;
        assert_eq!(plan.version.expect("a version").name(), "2027.01.01008");
        let known = Known { open: Some("0123456789ab".into()), ..Known::default() };
        let plan = planned(&session, wanted, &known).await;
        assert_eq!((plan.prospect, plan.open_run.as_deref()), (Prospect::Open, Some("0123456789ab")));
        assert!(plan.why.is_some_and(|why| why.contains("kamino-wf describe 0123456789ab")));
    });
}

#[test]
fn a_node_whose_pods_can_not_go_is_not_taken_out_of_service() {
    let stop = Scene { capture: Capture::Stop, ..Scene::nominal() };
    let free = plan_of(&stop, |_| {}, |_| {}).donor.expect("a donor");
    let tenant = |world: &mut World| {
        let now = world.now();
        world.tenants.add(Tenant::new("shop/db-0", "db", &free, now));
        world.tenants.add_budget("shop", "db", "db", 1, now);
    };
    let plan = plan_of(&stop, tenant, |_| {});
    assert!(plan.donor.as_ref().is_some_and(|donor| *donor != free), "{plan:#?}");
    let verdict = plan.nodes.iter().find(|it| it.node == free).expect("a verdict");
    let says = "its drain would be blocked: shop/db-0 (budget shop/db has had no room";
    assert!(!verdict.fit && verdict.reason.starts_with(says), "{verdict:?}");
    // A donor that goes on working is no concern of theirs.
    assert_eq!(plan_of(&Scene::nominal(), tenant, |_| {}).donor, Some(free));
}

#[test]
fn every_node_of_the_pool_has_a_verdict() {
    let plan = plan_of(
        &Scene::nominal(),
        |world| {
            world.nodes[0].labels.insert("kamino-wf.io/ignore".into(), String::new());
            world.nodes[1].taints.push("node.kubernetes.io/unreachable".into());
        },
        |_| {},
    );
    let of =
        |name: &str| plan.nodes.iter().find(|it| it.node == NodeName::parse(name).expect("a name")).expect("a verdict");
    assert_eq!(of("pool1-vmss000000").reason, "it carries kamino-wf.io/ignore");
    assert!(of("pool1-vmss000001").reason.contains("node.kubernetes.io/unreachable"));
    assert!(of("pool1-vmss000002").fit && plan.nodes[0] == *of("pool1-vmss000002"), "{:?}", plan.nodes);
    assert_eq!(plan.clock_ahead, Some(0));
}
