//! `doctor --azure` on a scale set that is there to be thrown away: each assumption is answered as the world does it, nothing
//! of a trial stays, wherever it is killed, and nothing is touched where it is refused.

use std::{collections::BTreeSet, time::Duration};

use kamino_wf::{
    cloud::{Orchestration, Power},
    doctor::{Book, ContactError, FirstContact, Line, Pace, Remnant, Verdict},
    model::{DiskId, ScaleSetId},
    sim::{
        Scene,
        arm::{Fault, Injection},
    },
};
use serde_json::{Value, json};

use super::{
    stage::{Stage, run},
    trial::furnish,
};

const PATIENT: Pace = Pace {
    look: Duration::from_millis(4),
    within: Duration::from_secs(30),
    busy: Duration::from_millis(1500),
    power: Duration::from_secs(10),
    lag: Duration::from_secs(3),
};

/// What takes Azure a minute takes 12 ms.
const SCALE: f64 = 0.0002;

/// In no run of a scale set of that kind.
const FLEXIBLE: [u32; 3] = [56, 57, 59];

/// A world with a scale set of one instance besides the pool.
async fn stage(orchestration: Orchestration, otherwise: &[u32]) -> (Stage, ScaleSetId) {
    let mut scene = Scene { adopted: true, scale: SCALE, ..Scene::nominal() };
    scene.habits.patch_merges_image = otherwise.contains(&1);
    scene.habits.etag_enforced = !otherwise.contains(&3);
    let stage = Stage::on(scene, |_| {}, |_| {}).await;
    let set = {
        let mut world = stage.shared.world();
        world.otherwise = otherwise.iter().copied().collect();
        furnish(&mut world, &stage.scale_set(), orchestration)
    };
    (stage, set)
}

/// What is in the world that a trial could leave behind: all that there is, and what the scale set is.
fn inventory(stage: &Stage, set: &ScaleSetId) -> (Vec<String>, Value, Vec<Power>) {
    let world = stage.shared.world();
    let keys = world.disks.keys().chain(world.snapshots.keys()).chain(world.galleries.keys());
    let keys = keys.chain(world.definitions.keys()).chain(world.versions.keys()).cloned().collect();
    let model = &world.scale_sets[&set.key()].value;
    let mut image =
        model.pointer("/properties/virtualMachineProfile/storageProfile/imageReference").expect("one").clone();
    image.as_object_mut().expect("fields").remove("exactVersion");
    let machines = world.machines.values().map(|machine| machine.power.clone()).collect();
    let data_disks: Vec<_> = world.instances.values().map(|instance| instance.luns.len()).collect();
    (keys, json!([image, model["tags"], model["sku"], data_disks, world.attachments.len()]), machines)
}

async fn admitted<'a>(stage: &'a Stage, set: &ScaleSetId, book: &'a Book) -> FirstContact<'a> {
    let told = (book, &(|_: &str| {}) as &(dyn Fn(&str) + Sync));
    let admitted = FirstContact::admit(&stage.azure, PATIENT, (set, run()), (&[], &[]), told).await;
    admitted.expect("a scale set to be thrown away")
}

async fn tried(stage: &Stage, set: &ScaleSetId) -> (Vec<Line>, Vec<Remnant>) {
    let book = Book::default();
    let contact = admitted(stage, set, &book).await;
    contact.run().await;
    (book.lines(), contact.take_away().await)
}

fn verdict(lines: &[Line], number: u32) -> (Verdict, &str) {
    let line = lines.iter().find(|line| line.number == number).expect("a line for each");
    (line.verdict, &line.seen)
}

fn told(lines: &[Line]) -> String {
    let line = |line: &Line| format!("{} {:?}: {}", line.number, line.verdict, line.seen);
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// What is tried on a scale set of that kind.
fn numbers(lines: &[Line], orchestration: Orchestration) -> Vec<u32> {
    let tried = lines.iter().filter(|line| line.if_it_holds.is_some()).map(|line| line.number);
    tried.filter(|number| orchestration == Orchestration::Flexible || !FLEXIBLE.contains(number)).collect()
}

async fn every_switch(orchestration: Orchestration, only: Option<&[u32]>) {
    let (stage, set) = stage(orchestration, &[]).await;
    let before = inventory(&stage, &set);
    let (lines, left) = tried(&stage, &set).await;
    let all = numbers(&lines, orchestration);
    assert!(left.is_empty() && inventory(&stage, &set) == before, "{left:#?}");
    for line in &lines {
        let expected = if all.contains(&line.number) { Verdict::Holds } else { Verdict::NotTried };
        assert_eq!(line.verdict, expected, "{line:?}\n{}", told(&lines));
        assert!(!line.seen.is_empty() && !line.assumed.is_empty() && !line.otherwise.is_empty(), "{line:?}");
    }
    assert!(stage.shared.world().trespasses.is_empty(), "{:#?}", stage.shared.world().trespasses);

    for number in only.unwrap_or(&all) {
        let (stage, set) = self::stage(orchestration, &[*number]).await;
        let before = inventory(&stage, &set);
        let (lines, left) = tried(&stage, &set).await;
        assert_eq!(verdict(&lines, *number).0, Verdict::DoesNotHold, "{number}\n{}", told(&lines));
        let mut wrong: BTreeSet<u32> =
            lines.iter().filter(|line| line.verdict == Verdict::DoesNotHold).map(|line| line.number).collect();
        if *number == 59 {
            assert!(wrong.remove(&52), "it is the same of any machine");
        }
        assert_eq!(wrong, [*number].into(), "{}", told(&lines));
        assert!(left.is_empty() && inventory(&stage, &set) == before, "{number}: {left:#?}");
    }
}

#[tokio::test]
async fn each_assumption_is_answered_as_the_world_does_it() {
    every_switch(Orchestration::Uniform, None).await;
}

#[tokio::test]
async fn those_of_flexible_scale_sets_are_answered_on_one() {
    every_switch(Orchestration::Flexible, Some(&FLEXIBLE)).await;
}

/// Whatever it has asked for last: the next one finds it by its names, and takes it away.
#[tokio::test]
async fn killed_after_any_change_nothing_is_left_after_the_next() {
    let (stage, set) = stage(Orchestration::Uniform, &[]).await;
    let before = inventory(&stage, &set);
    let changes = || stage.shared.world().accepted.len();
    let mut kills = 0;
    loop {
        let begun = changes();
        let book = Book::default();
        let contact = admitted(&stage, &set, &book).await;
        let killed = async {
            while changes() <= begun + kills {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let whole = tokio::select! {
            biased;
            () = killed => false,
            () = contact.run() => true,
        };
        drop(contact);
        // What it has asked for last arrives all the same.
        tokio::time::sleep(Duration::from_millis(30)).await;
        // As another process would: it knows nothing but the scale set's id.
        let book = Book::default();
        let left = admitted(&stage, &set, &book).await.take_away().await;
        assert!(left.is_empty() && inventory(&stage, &set) == before, "after {kills} changes: {left:#?}");
        if whole {
            break;
        }
        kills += 1;
    }
    assert!(kills > 25, "{kills}");
    let (lines, left) = tried(&stage, &set).await;
    assert!(left.is_empty() && inventory(&stage, &set) == before, "{left:#?}");
    assert!(lines.iter().all(|line| line.verdict != Verdict::DoesNotHold), "{}", told(&lines));
}

/// The tag says which; where a Flexible scale set's machines are is another place.
#[tokio::test]
async fn a_machine_that_a_killed_trial_has_switched_off_is_started_by_the_next() {
    for orchestration in [Orchestration::Uniform, Orchestration::Flexible] {
        let (stage, set) = stage(orchestration, &[]).await;
        let before = inventory(&stage, &set);
        let book = Book::default();
        let contact = admitted(&stage, &set, &book).await;
        let off = async {
            while stage.shared.world().machines.values().all(|machine| machine.power != Power::Stopped) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            biased;
            () = off => {}
            () = contact.run() => panic!("it was never off: {}", told(&book.lines())),
        }
        assert_ne!(inventory(&stage, &set), before);
        let (_, left) = tried(&stage, &set).await;
        assert!(left.is_empty() && inventory(&stage, &set) == before, "{left:#?}");
    }
}

#[tokio::test]
async fn a_copy_that_a_killed_trial_has_attached_is_detached_by_the_next() {
    for orchestration in [Orchestration::Uniform, Orchestration::Flexible] {
        let (stage, set) = stage(orchestration, &[]).await;
        let before = inventory(&stage, &set);
        let book = Book::default();
        let contact = admitted(&stage, &set, &book).await;
        let attached = async {
            while stage.shared.world().disks.values().all(|disk| disk.value.attached_to.is_none()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            biased;
            () = attached => {}
            () = contact.run() => panic!("it was never attached: {}", told(&book.lines())),
        }
        assert_ne!(inventory(&stage, &set), before);
        let (_, left) = tried(&stage, &set).await;
        assert!(left.is_empty() && inventory(&stage, &set) == before, "{left:#?}");
    }
}

#[tokio::test]
async fn what_can_not_be_taken_away_is_named_with_the_command_that_does_it() {
    let (stage, set) = stage(Orchestration::Uniform, &[]).await;
    let locked = json!({ "error": { "code": "ScopeLocked", "message": "a lock" } });
    let fault = Fault::Answer { status: 409, headers: vec![], body: locked };
    stage.face.plant(Injection { method: "DELETE", path_part: "-incremental".into(), times: 2, fault });
    let (_, left) = tried(&stage, &set).await;
    assert_eq!(left.len(), 2, "{left:#?}");
    for remnant in &left {
        assert!(
            remnant.why.contains("ScopeLocked") && remnant.command.starts_with("az resource delete"),
            "{remnant:?}"
        );
        assert!(remnant.command.contains("/kwf-doctor-"), "{remnant:?}");
    }
    // The lock is gone: the next one takes it away, and tries everything.
    let (lines, left) = tried(&stage, &set).await;
    assert!(left.is_empty() && verdict(&lines, 48).0 == Verdict::Holds, "{left:#?}\n{}", told(&lines));
}

#[tokio::test]
async fn without_an_instance_or_a_right_it_says_what_was_not_tried() {
    let (stage, set) = stage(Orchestration::Uniform, &[]).await;
    let denied = json!({ "error": { "code": "AuthorizationFailed", "message": "no snapshots/write" } });
    let fault = Fault::Answer { status: 403, headers: vec![], body: denied };
    stage.face.plant(Injection { method: "PUT", path_part: "/snapshots/".into(), times: 1, fault });
    let before = inventory(&stage, &set);
    let (lines, left) = tried(&stage, &set).await;
    assert!(left.is_empty() && inventory(&stage, &set) == before, "{left:#?}");
    let (not_tried, why) = verdict(&lines, 13);
    assert!(not_tried == Verdict::NotTried && why.contains("no snapshots/write"), "{why}");
    assert_eq!(verdict(&lines, 18), (Verdict::NotTried, "there is no copy"));
    assert_eq!(verdict(&lines, 47).0, Verdict::Holds, "the rest is tried");

    stage.shared.world().instances.retain(|key, _| !key.starts_with(&set.key()));
    let (lines, left) = tried(&stage, &set).await;
    assert!(left.is_empty(), "{left:#?}");
    let tried: Vec<u32> =
        lines.iter().filter(|line| line.verdict != Verdict::NotTried).map(|line| line.number).collect();
    assert_eq!(tried, [2, 3, 6, 39, 47], "{}", told(&lines));
}

#[tokio::test]
async fn where_it_is_refused_nothing_is_touched() {
    let (stage, set) = stage(Orchestration::Uniform, &[]).await;
    let node = |id: &str| vec![("node-7".to_owned(), id.to_lowercase())];
    let own = vec![("blue".to_owned(), set.clone())];
    let book = Book::default();
    let asked = async |set: &ScaleSetId, pools: &[(String, ScaleSetId)], nodes: &[(String, String)]| {
        let told = (&book, &(|_: &str| {}) as &(dyn Fn(&str) + Sync));
        FirstContact::admit(&stage.azure, PATIENT, (set, run()), (pools, nodes), told).await.map(|it| it.plan())
    };
    let refused = |error: ContactError, words: &str| {
        assert_eq!(error.code(), Some("KW0701"));
        assert!(error.to_string().contains(words), "{error}");
    };
    refused(asked(&set, &own, &[]).await.expect_err("a pool's"), "pool blue");
    let instance = format!("{set}/virtualMachines/0");
    refused(asked(&set, &[], &node(&instance)).await.expect_err("a node"), "node-7");
    refused(asked(&stage.scale_set(), &[], &[]).await.expect_err("no tag"), "kamino-wf-throw-away: true");
    let nowhere = stage.named("virtualMachineScaleSets", "nowhere");
    let error = asked(&nowhere, &[], &[]).await.expect_err("nothing");
    assert!(matches!(error, ContactError::NoSuchScaleSet(_)), "{error}");
    let change = |pointer: &str, value: Value| {
        let mut world = stage.shared.world();
        let model = &mut world.scale_sets.get_mut(&set.key()).expect("it").value;
        *model.pointer_mut(pointer).expect("a field") = value;
    };
    change("/tags/kamino-wf-throw-away", json!("no"));
    refused(asked(&set, &[], &[]).await.expect_err("another value"), "kamino-wf-throw-away: true");
    change("/tags/kamino-wf-throw-away", json!("true"));
    change("/properties/upgradePolicy/mode", json!("Rolling"));
    refused(asked(&set, &[], &[]).await.expect_err("it would roll"), "Manual");
    change("/properties/upgradePolicy/mode", json!("Manual"));

    // Somebody else's, by a name of ours.
    let planned = asked(&set, &[], &[]).await.expect("admitted");
    assert_eq!(planned.makes.len(), 7, "{planned:#?}");
    let name = planned.makes.iter().find(|id| id.contains("/disks/") && !id.ends_with("incremental")).expect("a disk");
    let id = DiskId::parse(name).expect("an id");
    let mut disk = stage.shared.world().disks[&stage.donor_disk().key()].clone();
    disk.value.id = id.clone();
    stage.shared.world().disks.insert(id.key(), disk);
    refused(asked(&set, &[], &[]).await.expect_err("not ours"), "was not made by kamino-wf");

    let changes: Vec<_> = stage.face.requests().into_iter().filter(|it| it.method != "GET").collect();
    assert!(changes.is_empty(), "{changes:#?}");
    assert!(book.lines().iter().all(|line| line.verdict == Verdict::NotTried));
}
