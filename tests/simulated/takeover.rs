//! Going on where the Python tool (kamino) has been: never beside it, above its versions, and leaving what is its own.

use kamino_wf::{
    cloud::{Tags, Version},
    cluster::Rival,
    model::VersionName,
    policy::provenance::{Maker, Provenance, lineage},
    sim::{Outcome, Resource, Scene, Session, World, spec},
    steps::PrunePlan,
    workflow::{self, RunState},
};

use crate::harness::run;

/// An update in a world that is changed before it.
fn update(change: impl FnOnce(&mut World)) -> (Outcome, Session) {
    run(&Scene { adopted: true, ..Scene::nominal() }, |session| change(&mut session.shared.world()))
}

fn rival(kind: &str, live: bool) -> Rival {
    Rival { kind: kind.into(), namespace: "default".into(), name: "kamino".into(), live, state: "runs now".into() }
}

#[test]
fn no_run_begins_beside_a_live_one_and_nothing_is_touched() {
    for kind in ["CronJob", "Job"] {
        let (outcome, session) = update(|world| world.rivals = vec![rival(kind, true)]);
        let summary = outcome.summary.expect("a run");
        let why = summary.why.unwrap_or_default();
        assert_eq!(summary.state, "undone", "{why}");
        for word in ["KW0503", kind, "default/kamino", "kubectl -n default"] {
            assert!(why.contains(word), "no {word:?} in {why}");
        }
        assert!(session.shared.world().accepted.is_empty());
        assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
    }
}

#[test]
fn one_that_is_suspended_or_has_ended_is_in_nobodys_way() {
    let (outcome, _) = update(|world| world.rivals = vec![rival("CronJob", false), rival("Job", false)]);
    assert_eq!(outcome.run.expect("a run").state, RunState::Ended(workflow::Outcome::Done));
}

/// A definition with nothing in it but the Python tool's versions, one of them of this very day.
fn only_kaminos(world: &mut World) -> VersionName {
    let today = world.now().strftime("%Y.%m.%d").to_string();
    let definition = {
        let spec = spec(&Scene::nominal());
        spec.gallery.definition(&spec.definition).expect("a definition")
    };
    let like: Version = world.versions.values().next().expect("a version").value.clone();
    world.versions.retain(|_, found| found.value.run.is_none());
    world.published.clear();
    let name = VersionName::parse(&today).expect("a version");
    let id = definition.version(&name);
    let tags = [("BuiltFrom", "pool1-vmss000001"), ("BuiltAt", "2026-11-24 04:12:00.000001")];
    let tags: Tags = tags.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let created = Some(world.now());
    let value = Version { id: id.clone(), run: None, created, tags, ..like };
    let visible = world.now();
    world.versions.insert(id.key(), Resource { value, operation: None, visible });
    // Its instances came from it.
    for instance in world.instances.values_mut() {
        instance.image = kamino_wf::cloud::ImageRef::Version(id.clone());
    }
    name
}

/// Its bugs 5 and 6 besides: nothing that is used is pruned by count, and a second image of a day does not become the first.
#[test]
fn its_definition_is_gone_on_with_above_its_versions_and_they_stay() {
    let mut newest = None;
    let (outcome, session) = update(|world| newest = Some(only_kaminos(world)));
    let newest = newest.expect("a version");
    let run = outcome.run.expect("a run");
    assert_eq!(run.state, RunState::Ended(workflow::Outcome::Done), "{}", outcome.log.join("\n"));
    assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
    let world = session.shared.world();
    let versions: Vec<Version> = world.versions.values().map(|found| found.value.clone()).collect();
    let ours: Vec<&Version> = versions.iter().filter(|version| version.run == Some(run.id)).collect();
    let [ours] = ours[..] else { panic!("one version: {versions:#?}") };
    let name = ours.id.version().expect("a name");
    assert!(name > newest && ours.id.name() > newest.to_string().as_str(), "{name} as numbers and as text");
    assert_eq!(
        versions.iter().filter(|version| Maker::of(version) == Maker::Kamino).count(),
        3,
        "all of its are there"
    );
    // What it would read of ours, and where ours comes from.
    let (line, gone) = lineage(&versions, &ours.id);
    let makers: Vec<Maker> = line.iter().map(|from| from.maker).collect();
    assert_eq!((makers, gone), (vec![Maker::KaminoWf, Maker::Kamino], None));
    let Provenance { donor, kernel, kubelet, run: by, parent, built_at, .. } = line[0].clone();
    assert!(donor.is_some() && kernel.is_some() && kubelet.is_some() && built_at.is_some());
    assert_eq!((by, parent), (Some(run.id.short()), Some(newest.to_string())));
    let PrunePlan { verdicts } = serde_json::from_value(run.outputs["PlanPrune"].clone()).expect("a plan");
    assert!(verdicts.iter().all(|verdict| !verdict.delete), "{verdicts:#?}");
}
