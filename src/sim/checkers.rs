//! What must never be, one function each. Every checker counts how often what it checks was the case: a counter that stays
//! at zero over all simulations proves nothing, and fails the suite.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::{
    session::Line,
    world::{Deletion, Kind, Object, World, name},
};
use crate::{
    cloud::{Power, Version},
    model::{Capture, NodeName, RunId, VersionId},
    policy::{
        obligations::{CLAIM, DO_NOT_DISRUPT, SCALE_DOWN_DISABLED},
        provenance::{QUARANTINED, tag},
    },
    workflow::{Event, Outcome, Run, RunState},
};

/// A world and what a run did to it.
struct View<'a> {
    world: &'a World,
    run: &'a Run,
    lines: &'a [Line],
}

type Checker = fn(&View<'_>, &mut Found);

/// What a checker found.
#[derive(Default)]
struct Found {
    violations: Vec<String>,
    /// How often what is checked was the case.
    exercised: u64,
}

impl Found {
    fn check(&mut self, good: bool, text: impl FnOnce() -> String) {
        self.exercised += 1;
        if !good {
            self.violations.push(text());
        }
    }
}

/// All checkers, by the name of their invariant.
const CHECKERS: [(&str, Checker); 17] = [
    ("I1", effect_once),
    ("I2", donor_back),
    ("I3", one_run_a_scale_set),
    ("I5", right_machine),
    ("I6", hold_covers_absence),
    ("I7", no_mass_action),
    ("I8", proven_image),
    ("I9", no_strangers),
    ("I10", gentle_drain),
    ("I11", prune_safety),
    ("I12", monotone_versions),
    ("I13", minimal_diff),
    ("I14", cancel_is_final),
    ("I16", no_privileged_residue),
    ("donor", donor_untouched),
    ("end", clean_end),
    ("throttle", never_early),
];

/// The names of all that is checked, those checked elsewhere included.
#[must_use]
pub fn names() -> Vec<&'static str> {
    CHECKERS.iter().map(|(name, _)| *name).chain(["I4"]).collect()
}

/// Checks a world after a run has come to rest; adds to the world's counters.
pub fn check(world: &mut World, run: Option<&Run>, lines: &[Line]) -> Vec<String> {
    let mut violations = Vec::new();
    let Some(run) = run else { return violations };
    let mut counters: BTreeMap<&'static str, u64> = BTreeMap::new();
    for (invariant, checker) in CHECKERS {
        let mut found = Found::default();
        checker(&View { world, run, lines }, &mut found);
        violations.extend(found.violations.into_iter().map(|text| format!("{invariant}: {text}")));
        *counters.entry(invariant).or_default() += found.exercised;
    }
    for (invariant, times) in counters {
        *world.exercised.entry(invariant).or_default() += times;
    }
    violations
}

/// No sweep asks for the end of something of a run that is open, of another cluster, or of nobody we know of; what was asked
/// before `since` was asked by runs themselves.
#[must_use]
pub fn check_sweeps(world: &World, cluster: &str, open: &[RunId], since: Timestamp) -> Vec<String> {
    let mut violations = Vec::new();
    for Deletion { verb, key, run, cluster: of, at } in world.deletions.iter().filter(|it| it.at >= since) {
        let mut found = |text: &str| violations.push(format!("{verb} {} at {at}: {text}", name(key)));
        match run {
            None => found("it carries no run's tag"),
            Some(run) if open.iter().any(|id| id.short() == *run) => found("its run is open"),
            Some(_) => {}
        }
        if of.as_deref().is_some_and(|of| of != cluster) {
            found("it is another cluster's");
        }
    }
    violations.extend(world.trespasses.iter().cloned());
    violations
}

/// At most one accepted request for each intent: one more only for each attempt that failed and was cleared away.
fn effect_once(view: &View<'_>, found: &mut Found) {
    const ONCE: [(&str, &str); 12] = [
        ("begin_snapshot", "SnapshotDisk"),
        ("begin_copy_disk", "CopyDisk"),
        ("create_pod", "CleanCopy"),
        ("create_donor_pod", "CleanDisk"),
        ("begin_attach", "AttachCopy"),
        ("begin_power_off", "StopVm"),
        ("begin_version", "CreateVersion"),
        ("begin_model_change", "PatchModel"),
        ("begin_publish", "PublishVersion"),
        ("begin_scale_out", "ScaleOut"),
        ("begin_withdraw", "WithdrawVersion"),
        ("begin_tag_version", "WithdrawVersion"),
    ];
    // A version in storage that there is none of is made once more in another, which was noted before.
    let noted = view.world.accepted.iter().any(|accepted| accepted.verb == "begin_tag_disk");
    for (verb, step) in ONCE {
        let again = usize::from(verb == "begin_version" && noted);
        let mut requests: BTreeMap<&str, usize> = BTreeMap::new();
        for accepted in view.world.accepted.iter().filter(|accepted| accepted.verb == verb) {
            *requests.entry(&accepted.key).or_default() += 1;
        }
        let setbacks = view
            .run
            .warnings
            .iter()
            .filter(|warning| warning.strip_prefix(step).is_some_and(|rest| rest.starts_with(':')))
            .count();
        for (key, times) in requests {
            found.check(times <= 1 + again + setbacks, || {
                format!("{times} requests of {verb} {} were accepted, with {setbacks} failures in between", name(key))
            });
        }
    }
}

/// A donor that was taken out of service is back: on, Ready, schedulable and held as it was found, with nothing of ours on it.
/// And no other machine was touched.
fn donor_back(view: &View<'_>, found: &mut Found) {
    let chosen = view.run.outputs.get("RankNodes").map(|ranked| &ranked["donor"]);
    let donor = chosen.and_then(|donor| donor["instance"].as_str()).unwrap_or_default().to_ascii_lowercase();
    for accepted in &view.world.accepted {
        if ["begin_power_off", "begin_start", "begin_restart"].contains(&accepted.verb) {
            found.check(accepted.key == donor, || format!("{} was sent to {}", accepted.verb, name(&accepted.key)));
        }
    }
    harm(view, "I2", found);
    found.check(view.run.debt.is_none() || !view.run.ended(), || "the run ended and owes".into());
    if !view.run.asked.contains("HoldNode") {
        return;
    }
    let parked = matches!(view.run.state, RunState::Parked { .. });
    found.check(!parked || view.run.debt.is_none(), || "parked with a node in hand".into());
    if !view.run.ended() {
        return;
    }
    let name = chosen.and_then(|donor| donor["node"].as_str()).unwrap_or_default();
    let machine = view.world.machines.values().find(|machine| machine.node.as_str() == name);
    let node = view.world.nodes.iter().find(|node| node.name.as_str() == name).map(|node| view.world.shown(node));
    let (Some(machine), Some(node)) = (machine, node) else { return };
    found.check(machine.power == Power::Running, || format!("{name} is {:?}", machine.power));
    found.check(node.ready && machine.silent.is_none(), || format!("{name} is not Ready"));
    found.check(!node.unschedulable, || format!("{name} is cordoned"));
    let left = [CLAIM, SCALE_DOWN_DISABLED].into_iter().find(|mark| node.annotations.contains_key(*mark));
    found.check(left.is_none(), || format!("{name} carries {left:?}"));
    // It was there before.
    let kept = node.annotations.get(DO_NOT_DISRUPT).map(String::as_str) == Some("false");
    found.check(kept, || format!("{DO_NOT_DISRUPT} of {name} is not as it was found"));
}

/// While a machine is off its node is cordoned, and autoscalers are kept off it; looked at whenever time passes.
fn hold_covers_absence(view: &View<'_>, found: &mut Found) {
    found.exercised += u64::from(view.run.asked.contains("StopVm"));
    harm(view, "I6", found);
}

fn harm(view: &View<'_>, invariant: &str, found: &mut Found) {
    let suffered = view.world.harm.iter().find(|(name, _)| *name == invariant);
    found.check(suffered.is_none(), || suffered.map(|(_, text)| text.clone()).unwrap_or_default());
}

fn one_run_a_scale_set(view: &View<'_>, found: &mut Found) {
    let started = view.lines.iter().filter(|line| matches!(line.event, Event::Started { .. })).count();
    found.check(started == 1, || format!("{started} runs began for one scale set"));
}

/// The snapshot is of the disk of the instance that was chosen.
fn right_machine(view: &View<'_>, found: &mut Found) {
    let Some(chosen) = view.run.outputs.get("RankNodes") else { return };
    let donor = chosen["donor"]["disk"].as_str().unwrap_or_default();
    for (_, source) in &view.world.sources {
        found.check(donor.eq_ignore_ascii_case(source), || format!("a snapshot of {}, not of the donor", name(source)));
    }
    for accepted in view.world.accepted.iter().filter(|accepted| accepted.verb == "begin_snapshot") {
        let text = serde_json::to_string(&view.run.inputs.get("SnapshotDisk")).unwrap_or_default();
        found.check(text.to_ascii_lowercase().contains(&accepted.key), || {
            format!("snapshot {} was not planned", accepted.key)
        });
    }
}

/// No instance's image changed, and nothing was published to a scale set that would roll.
fn no_mass_action(view: &View<'_>, found: &mut Found) {
    for set in view.world.scale_sets.values() {
        let properties = &set.value["properties"];
        let mode = &properties["upgradePolicy"]["mode"];
        let manual = *mode == "Manual" || (mode.is_null() && properties["orchestrationMode"] == "Flexible");
        let published = view.world.accepted.iter().any(|accepted| accepted.verb == "begin_publish");
        if published {
            found.check(manual, || format!("published with upgrade mode {mode}"));
        }
    }
}

/// What is published by us was made from a disk that was cleaned by this run, and is everywhere.
fn proven_image(view: &View<'_>, found: &mut Found) {
    for version in view.world.versions.values() {
        let version = &version.value;
        if version.excluded_from_latest || version.run != Some(view.run.id) {
            continue;
        }
        let source = version.source.clone().unwrap_or_default().to_ascii_lowercase();
        let nonce = view.run.outputs.get("ChooseNames").and_then(|names| names["nonce"].as_str());
        found.check(view.world.cleaned.get(&source).map(String::as_str) == nonce && nonce.is_some(), || {
            format!("{} is published and its disk was not cleaned", version.id.name())
        });
        found.check(view.run.outputs.contains_key("VerifyVersion"), || {
            format!("{} is published and was not proved", version.id.name())
        });
    }
    stood_its_trial(view, found);
}

/// Where a version's first node is watched: it stays published only if that node was good, or if it is said that it was not tried;
/// a bad one is out of latest for good, unless without it there were none.
fn stood_its_trial(view: &View<'_>, found: &mut Found) {
    let marked = |version: &Version| tag(version, QUARANTINED).is_some();
    let published = |version: &Version| !version.excluded_from_latest;
    for version in view.world.versions.values().map(|it| &it.value) {
        found.check(!(marked(version) && published(version)), || {
            format!("{} is marked as bad, and new nodes take it", version.id.name())
        });
    }
    let (RunState::Ended(outcome), false) = (&view.run.state, view.run.spec.canary.is_none()) else { return };
    let good_end = *outcome == Outcome::Done;
    if matches!(outcome, Outcome::Abandoned { .. }) {
        return;
    }
    let Some(id) = view.run.outputs.get("ChooseNames").and_then(|names| names["version"].as_str()) else { return };
    let all = || view.world.versions.values().map(|it| &it.value);
    let Some(ours) = all().find(|it| it.id.as_str().eq_ignore_ascii_case(id)) else { return };
    let verdict = view.run.outputs.get("CanaryNode").unwrap_or(&Value::Null);
    let (bad, passed) = (!verdict["failed"].is_null(), verdict["passed"]["node"].as_str());
    if !bad && passed.is_none() {
        let watch = ["PlanScaleOut", "ScaleOut", "AwaitNode", "CanaryNode"];
        let said = |warning: &String| watch.iter().any(|step| warning.starts_with(step));
        let said = !good_end || view.run.warnings.iter().any(said);
        return found.check(said, || format!("nobody says that {} was not tried", ours.id.name()));
    }
    let others = all().any(|it| it.id.definition() == ours.id.definition() && it.id != ours.id && published(it));
    found.check(good_end != bad, || format!("its first node is bad: {bad}, and the run ended as {outcome:?}"));
    found.check(!bad || !published(ours) && marked(ours) || !others, || {
        format!("{} is bad and was not withdrawn", ours.id.name())
    });
    found.check(bad || published(ours), || format!("{} is good and was withdrawn", ours.id.name()));
    let node = passed.and_then(|name| view.world.nodes.iter().find(|node| node.name.as_str() == name));
    if let Some(node) = node {
        let twins = view.world.nodes.iter().filter(|other| other.machine_id == node.machine_id).count();
        found.check(node.ready && twins == 1, || {
            format!("{} was called good: ready {}, of {twins} with its machine id", node.name, node.ready)
        });
    }
}

/// Only what carries our tag was deleted: this run's, or an image version of a run before it.
fn no_strangers(view: &View<'_>, found: &mut Found) {
    for (kind, key, owner) in &view.world.deleted {
        let ours = *owner == Some(view.run.id) || *kind == Kind::Version && owner.is_some();
        found.check(ours, || format!("{kind:?} {} is not ours and was deleted", name(key)));
    }
    found.check(view.world.trespasses.is_empty(), || view.world.trespasses.join("; "));
}

/// Pods go by eviction only, with their budgets and their grace, and only the donor's.
fn gentle_drain(view: &View<'_>, found: &mut Found) {
    if view.world.tenants.is_empty() || !view.run.asked.contains("DrainNode") {
        return;
    }
    let donor = view.run.outputs.get("RankNodes").and_then(|ranked| ranked["donor"]["node"].as_str());
    let Some(donor) = donor.and_then(|name| NodeName::parse(name).ok()) else { return };
    let broken = view.world.tenants.violations(&donor, view.run.spec.drain.force.is_some());
    found.check(broken.is_empty(), || broken.join("; "));
}

/// A version of an earlier run that was deleted was not among the newest published.
fn prune_safety(view: &View<'_>, found: &mut Found) {
    let keep = usize::try_from(view.run.spec.keep_versions.max(2)).unwrap_or(usize::MAX);
    for (kind, key, owner) in &view.world.deleted {
        let Some(gone) = VersionId::parse(key).ok().filter(|_| *kind == Kind::Version) else { continue };
        let Some(number) = gone.version().ok().filter(|_| *owner != Some(view.run.id)) else { continue };
        let left = view.world.versions.values().filter(|left| {
            let left = &left.value;
            left.id.definition() == gone.definition()
                && !left.excluded_from_latest
                && left.id.version().is_ok_and(|left| left > number)
        });
        let left = left.count();
        found.check(left >= keep, || format!("{number} was deleted, and only {left} newer ones are published"));
    }
}

/// A version that is published is above all that were published before it.
fn monotone_versions(view: &View<'_>, found: &mut Found) {
    let numbers: Vec<_> = view
        .world
        .published
        .iter()
        .filter_map(|(key, run)| Some((VersionId::parse(key).ok()?.version().ok()?, *run)))
        .collect();
    for (at, (version, run)) in numbers.iter().enumerate() {
        if *run == Some(view.run.id) {
            let above = numbers[..at].iter().all(|(earlier, _)| earlier <= version);
            found.check(above, || format!("{version} was published after a higher one"));
        }
    }
}

/// The model differs in nothing but the image and what bootstraps a node.
fn minimal_diff(view: &View<'_>, found: &mut Found) {
    let changed = view.world.accepted.iter().any(|accepted| accepted.verb == "begin_model_change");
    let Some(model) = view.world.model(&view.run.spec.scale_set) else { return };
    let machine = &model["properties"]["virtualMachineProfile"];
    let grown = view.world.accepted.iter().filter(|accepted| accepted.verb == "begin_scale_out").count();
    if changed || grown > 0 {
        let more = if grown > 0 { view.run.spec.scale_out } else { 0 };
        let capacity = model["sku"]["capacity"].as_u64().unwrap_or(0);
        found.check(capacity == u64::from(3 + more), || {
            format!("the capacity is {capacity}, 3 and {more} more expected")
        });
    }
    if changed {
        found.check(machine["storageProfile"]["osDisk"]["caching"] == "ReadOnly", || "the OS disk was reset".into());
        found.check(machine["storageProfile"]["osDisk"]["diskSizeGB"] == 64, || "the OS disk's size was lost".into());
        found.check(machine["storageProfile"].get("dataDisks").is_some(), || "data disks were erased".into());
        let image = &machine["storageProfile"]["imageReference"];
        found.check(image["id"].is_string() && image.get("publisher").is_none(), || format!("the image is {image}"));
        let billing = machine["extensionProfile"]["extensions"]
            .as_array()
            .is_some_and(|all| all.iter().any(|extension| extension["name"] == "computeAksLinuxBilling"));
        found.check(billing, || "the billing extension was removed".into());
    }
}

/// After a cancel was acknowledged no forward request begins.
fn cancel_is_final(view: &View<'_>, found: &mut Found) {
    const FORWARD: [&str; 12] = [
        "create_donor_pod",
        "begin_power_off",
        "begin_snapshot",
        "begin_copy_disk",
        "create_volume",
        "create_claim",
        "create_pod",
        "begin_version",
        "begin_publish",
        "begin_model_change",
        "begin_tag_disk",
        "begin_scale_out",
    ];
    let said = |line: &&Line| {
        matches!(line.event, Event::CancelRequested { .. } | Event::AbandonRequested { .. } | Event::Rejected { .. })
    };
    let Some(cancelled) = view.lines.iter().find(said) else { return };
    // A request that was on its way when the cancel was acknowledged may still arrive.
    let slack = jiff::SignedDuration::from_secs(1);
    for accepted in view.world.accepted.iter().filter(|accepted| FORWARD.contains(&accepted.verb)) {
        found.check(accepted.at <= cancelled.at + slack, || format!("{} went out after the cancel", accepted.verb));
    }
    found.exercised += 1;
}

/// Nothing of a cleaning is left at the end, and nothing of a donor's worth having is in a version that all may use.
fn no_privileged_residue(view: &View<'_>, found: &mut Found) {
    harm(view, "I16", found);
    let residue = |what: &str, count: usize, found: &mut Found| {
        found.check(count == 0, || format!("{count} {what} are left"));
    };
    let may_leave = matches!(view.run.state, RunState::Ended(Outcome::NeedsPerson { .. } | Outcome::Abandoned { .. }));
    if view.run.ended() && !may_leave {
        let ours = |object: &&Object| object.gone_at.is_none() && object.run == view.run.id.short();
        let pods = view.world.pods.values().filter(|pod| pod.gone_at.is_none() && pod.spec.run == view.run.id);
        residue("pods", pods.count(), found);
        let pods = view.world.donor_pods.values().filter(|pod| pod.gone_at.is_none() && pod.spec.run == view.run.id);
        residue("pods on donors", pods.count(), found);
        residue("claims", view.world.claims.values().filter(ours).count(), found);
        residue("volumes", view.world.volumes.values().filter(ours).count(), found);
        let skipped = left_by_a_person(view);
        let proved = view.world.proofs.contains_key(&view.run.id.short()) && !skipped;
        residue("proofs", usize::from(proved), found);
        residue("tokens", view.world.anchors.values().filter(|run| **run == view.run.id).count(), found);
        residue("attached disks", view.world.attachments.len(), found);
    }
}

/// What only the update needed was not taken away, and the run says so: that step failed, or the run was stopped before it.
fn left_by_a_person(view: &View<'_>) -> bool {
    let before = !view.run.outputs.contains_key("DeleteTemporaries");
    let said = |warning: &String| {
        warning.starts_with("DeleteTemporaries") || before && warning.contains("not finished: cancelled")
    };
    view.run.warnings.iter().any(said)
}

/// The donor is never written to: neither its instance, nor its disk, nor its Node.
fn donor_untouched(view: &View<'_>, found: &mut Found) {
    if view.run.spec.capture == Capture::Stop {
        return;
    }
    let node = view.world.accepted.iter().find(|accepted| accepted.verb == "change_node");
    found.check(node.is_none(), || format!("a node was written to: {node:?}"));
    let chosen = view.run.outputs.get("RankNodes").and_then(|ranked| ranked["donor"]["instance"].as_str());
    let donor = chosen.unwrap_or_default().to_ascii_lowercase();
    for accepted in &view.world.accepted {
        // Another node of the pool may have the copy for a while.
        if ["begin_attach", "begin_detach"].contains(&accepted.verb) && accepted.key != donor {
            continue;
        }
        found.check(!view.world.untouchable.contains(&accepted.key), || {
            format!("{} was sent to {}, which is a node's", accepted.verb, name(&accepted.key))
        });
    }
}

/// What the end says is true of the world.
fn clean_end(view: &View<'_>, found: &mut Found) {
    let RunState::Ended(outcome) = &view.run.state else { return };
    // By tag, and by what was made: a tag may have been forgotten.
    let ours = |kind: Kind, key: &String, run: Option<RunId>| {
        run == Some(view.run.id) || view.world.made.iter().any(|made| *made == (kind, key.clone()))
    };
    let (snapshots, disks, versions) = (&view.world.snapshots, &view.world.disks, &view.world.versions);
    let snapshots: Vec<_> = snapshots
        .iter()
        .filter(|(key, found)| ours(Kind::Snapshot, key, found.value.run))
        .map(|(key, _)| key)
        .collect();
    let disks: Vec<_> =
        disks.iter().filter(|(key, found)| ours(Kind::Disk, key, found.value.run)).map(|(key, _)| key).collect();
    let versions = versions.iter().filter(|(key, found)| ours(Kind::Version, key, found.value.run));
    let (version_keys, versions): (Vec<_>, Vec<_>) = versions.unzip();
    let there: Vec<String> = [&snapshots[..], &disks[..], &version_keys[..]]
        .concat()
        .into_iter()
        .map(|key| key.to_ascii_lowercase())
        .collect();
    let (snapshots, disks) = (snapshots.len(), disks.len());
    match outcome {
        Outcome::Done => {
            let skipped = left_by_a_person(view);
            found.check(skipped || snapshots + disks == 0, || {
                format!("{snapshots} snapshots and {disks} disks are left")
            });
            found.check(versions.len() == 1 && !versions[0].value.excluded_from_latest, || {
                format!("{} versions of the run, or not published", versions.len())
            });
            let image = view.world.model(&view.run.spec.scale_set).map(|model| {
                model["properties"]["virtualMachineProfile"]["storageProfile"]["imageReference"]["id"].to_string()
            });
            let follows = image.is_some_and(|image| image.contains(&format!("/images/{}", view.run.spec.definition)));
            found.check(follows, || "the scale set does not follow the definition".into());
        }
        Outcome::Undone { .. } | Outcome::Cancelled => {
            found.check(snapshots + disks + versions.len() == 0, || {
                format!("{snapshots} snapshots, {disks} disks and {} versions are left", versions.len())
            });
        }
        Outcome::NeedsPerson { .. } => found.exercised += 1,
        Outcome::Abandoned { left } => {
            for key in there {
                let named = left.iter().any(|what| what.to_ascii_lowercase().contains(&key));
                found.check(named, || format!("{key} is left, and was not named: {left:?}"));
            }
        }
    }
    let kept = [Kind::Gallery, Kind::Definition, Kind::ScaleSet];
    found.check(!view.world.deleted.iter().any(|(kind, _, _)| kept.contains(kind)), || {
        "a gallery or definition went".into()
    });
}

/// No request to a bucket before its time.
fn never_early(view: &View<'_>, found: &mut Found) {
    found.exercised += u64::from(!view.world.told.is_empty());
    found.check(view.world.early.is_empty(), || view.world.early.join("; "));
}
