//! What the Python tool (kamino's `vmss-prototype`) has left of a pool, and what to do about each. Pure; nothing is changed here.
//!
//! It marks a node with the autoscaler's annotation, cordons it, stops it, takes a snapshot of a fixed name, starts it and takes
//! the marks off again, in this order; killed in between, it leaves what it had done. An annotation or a stopped machine is
//! nobody's signature, so each finding says what was seen, and the remedies are for a person to choose.

use serde::Serialize;

use super::preflight::Refusal;
use crate::{
    cloud::{Powered, Snapshot},
    cluster::{Node, Rival},
    model::{BadName, DefinitionId, GalleryId, InstanceId, Members, ScaleSetId, SnapshotId},
};

/// The autoscaler's annotation that it sets on its node, and takes off without asking what was there before.
pub const HOLD: &str = "cluster-autoscaler.kubernetes.io/scale-down-disabled";
/// Our own claim: a node that carries it is a run's, and no leftover of another's.
const CLAIM: &str = "kamino-wf.io/claim";

/// What kind of thing was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It is installed and will go on.
    Live,
    /// A machine is off.
    PoweredOff,
    /// A node is cordoned, and held back from the autoscaler.
    Cordoned,
    /// A node is held back from the autoscaler.
    Held,
    /// Its snapshot is still there.
    Snapshot,
    /// Its image definition is there, and the settings name another.
    Definition,
}

/// Something that was left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind of thing.
    pub kind: Kind,
    /// Which one.
    pub thing: String,
    /// What was seen.
    pub seen: String,
    /// What to do, as commands where there are any.
    pub remedy: String,
}

/// What it calls its things for a scale set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// One snapshot a scale set, always by this name: made for one image, and reused when it was left.
    pub snapshot: SnapshotId,
    /// One definition a scale set, in a gallery named after the resource group.
    pub definition: DefinitionId,
}

impl Names {
    /// What it calls its things for this scale set.
    ///
    /// # Errors
    /// A name that Azure would not take either.
    pub fn of(set: &ScaleSetId) -> Result<Self, BadName> {
        let (subscription, group, name) = (set.subscription(), set.resource_group(), set.name());
        let gallery = GalleryId::new(subscription, group, &[&format!("SIG_{}", group.replace('-', "_"))])?;
        Ok(Self {
            snapshot: SnapshotId::new(subscription, group, &[&format!("snapshot_{name}")])?,
            definition: gallery.definition(&format!("kamino-{name}-prototype"))?,
        })
    }
}

/// The nodes and machines of a scale set that it may have left, the worst first.
#[must_use]
pub fn machines(set: &ScaleSetId, nodes: &[Node], powers: &[Powered]) -> Vec<Finding> {
    let members = Members::of(set, powers.iter().map(|powered| powered.id.clone()));
    let instance = |node: &Node| members.instance(&node.provider_id);
    let of_set: Vec<(&Node, InstanceId)> = nodes.iter().filter_map(|node| Some((node, instance(node)?))).collect();
    let off = |id: &InstanceId| powers.iter().find(|powered| powered.id == *id).is_some_and(|it| it.power.is_off());
    let mut found: Vec<Finding> = Vec::new();
    for (node, id) in &of_set {
        // Ours: `rescue` knows what it owes.
        if !node.annotations.contains_key(CLAIM) {
            found.extend(node_finding(node, id, off(id)));
        }
    }
    for powered in powers.iter().filter(|powered| powered.power.is_off()) {
        if of_set.iter().all(|(_, id)| *id != powered.id) {
            found.push(Finding {
                kind: Kind::PoweredOff,
                thing: format!("instance {}/{}", set.name(), powered.id.name()),
                seen: "it is powered off, and the cluster has no node of it".into(),
                remedy: format!("start it, or delete it if nobody misses it: {}", start(&powered.id)),
            });
        }
    }
    found.sort_by(|a, b| (a.kind, &a.thing).cmp(&(b.kind, &b.thing)));
    found
}

/// A cordon without the annotation is not its doing: it annotates first, and uncordons first.
fn node_finding(node: &Node, id: &InstanceId, off: bool) -> Option<Finding> {
    let held = node.annotations.get(HOLD).is_some_and(|value| value == "true");
    let cordoned = node.unschedulable;
    let name = &node.name;
    let marks = match (cordoned, held) {
        (true, true) => "cordoned and held back from the autoscaler",
        (true, false) => "cordoned",
        (false, true) => "held back from the autoscaler",
        (false, false) => "not marked in any way",
    };
    let mut steps = Vec::new();
    if off {
        steps.push(start(id));
        steps.push(format!("kubectl wait --for=condition=Ready node/{name}"));
    }
    if cordoned {
        steps.push(format!("kubectl uncordon {name}"));
    }
    if held {
        steps.push(format!("kubectl annotate node {name} {HOLD}-"));
    }
    let (kind, seen) = match (off, cordoned, held) {
        (true, _, _) => (Kind::PoweredOff, format!("its machine is powered off; the node is {marks}")),
        (false, true, true) => (Kind::Cordoned, format!("the node is {marks}")),
        (false, false, true) => (Kind::Held, format!("the node is {marks}: it is never scaled down")),
        (false, _, false) => return None,
    };
    Some(Finding { kind, thing: format!("node {name}"), seen, remedy: steps.join(" && ") })
}

fn start(id: &InstanceId) -> String {
    match id {
        InstanceId::Uniform(id) => {
            let (group, set) = (id.resource_group(), id.scale_set());
            format!("az vmss start -g {group} -n {} --instance-ids {}", set.name(), id.name())
        }
        InstanceId::Flexible(id) => format!("az vm start -g {} -n {}", id.resource_group(), id.name()),
    }
}

/// Its snapshot, if it is there and no run of ours made it.
#[must_use]
pub fn snapshot(found: &Snapshot) -> Option<Finding> {
    if found.run.is_some() {
        return None;
    }
    let at = found.created.map_or_else(|| "at an unknown time".into(), |at| format!("at {at:.0}"));
    let of = found.source.as_ref().map_or_else(String::new, |disk| format!(" of disk {}", disk.name()));
    Some(Finding {
        kind: Kind::Snapshot,
        thing: format!("snapshot {}", found.id.name()),
        seen: format!("it was taken {at}{of}, and no run made it"),
        remedy: format!("az snapshot delete -g {} -n {}", found.id.resource_group(), found.id.name()),
    })
}

/// Its image definition, where the settings name another: `versions` are its own, newest first.
#[must_use]
pub fn definition(theirs: &DefinitionId, ours: &DefinitionId, versions: &[String]) -> Option<Finding> {
    if theirs == ours {
        return None;
    }
    let seen = match versions.first() {
        Some(newest) => format!("it has {} versions, the newest {newest}; the settings name {ours}", versions.len()),
        None => format!("it has no version; the settings name {ours}"),
    };
    Some(Finding {
        kind: Kind::Definition,
        thing: format!("image definition {}", theirs.names().join("/")),
        seen,
        remedy: format!(
            "to go on with it, set the pool's gallery to {} and definition to {}; it stays as it is otherwise",
            theirs.gallery(),
            theirs.name()
        ),
    })
}

/// Its workloads that will go on.
#[must_use]
pub fn live(rivals: &[Rival]) -> Vec<Finding> {
    let finding = |rival: &Rival| Finding {
        kind: Kind::Live,
        thing: format!("{} {}/{}", rival.kind, rival.namespace, rival.name),
        seen: rival.state.clone(),
        remedy: rival.stopped_by(),
    };
    rivals.iter().filter(|rival| rival.live).map(finding).collect()
}

/// Why a run must not begin beside it: both would take a donor, and each would prune what the other has made.
#[must_use]
pub fn refusals(rivals: &[Rival]) -> Vec<Refusal> {
    let refusal = |found: Finding| Refusal {
        code: "KW0503".into(),
        field: found.thing,
        value: found.seen,
        remedy: format!(
            "it runs the Python tool (kamino), which updates the same pools; stop it first: {}",
            found.remedy
        ),
    };
    live(rivals).into_iter().map(refusal).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        cloud::{Power, Provisioning},
        model::{NodeName, RunId, UniformId},
    };

    fn set(name: &str) -> ScaleSetId {
        ScaleSetId::new("00000000-1111-2222-3333-444444444444", "K8S-EUW", &[name]).expect("an id")
    }

    fn instance(number: u32) -> InstanceId {
        let names = ["pool1", &number.to_string()];
        let id = UniformId::new("00000000-1111-2222-3333-444444444444", "k8s-euw", &names);
        InstanceId::Uniform(id.expect("an id"))
    }

    fn node(number: u32, unschedulable: bool, annotations: &[(&str, &str)]) -> Node {
        Node {
            name: NodeName::parse(&format!("pool1-vmss{number:06}")).expect("a name"),
            uid: String::new(),
            version: String::new(),
            provider_id: instance(number).to_string(),
            boot_id: String::new(),
            machine_id: String::new(),
            system_uuid: String::new(),
            kernel: String::new(),
            kubelet: String::new(),
            ready: true,
            ready_since: None,
            lease_renewed: None,
            unschedulable,
            control_plane: false,
            linux: true,
            under_pressure: vec![],
            conditions: vec![],
            taints: vec![],
            seen: None,
            zone: None,
            created: None,
            labels: BTreeMap::new(),
            annotations: annotations.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        }
    }

    /// Every state in which it can leave a node (killed before or after each of its commands), and those that are not its own.
    #[test]
    fn each_state_of_a_node_has_its_finding_and_its_way_back() {
        type Row =
            (&'static str, bool, &'static [(&'static str, &'static str)], Power, Option<Kind>, &'static [&'static str]);
        const HELD: (&str, &str) = (HOLD, "true");
        let rows: [Row; 11] = [
            ("as it should be", false, &[], Power::Running, None, &[]),
            ("after annotate", false, &[HELD], Power::Running, Some(Kind::Held), &["annotate node pool1-vmss000003"]),
            ("after cordon, drain", true, &[HELD], Power::Running, Some(Kind::Cordoned), &["uncordon", "annotate"]),
            (
                "after stop",
                true,
                &[HELD],
                Power::Stopped,
                Some(Kind::PoweredOff),
                &["az vmss start -g k8s-euw -n pool1 --instance-ids 3", "kubectl wait", "uncordon", "annotate"],
            ),
            ("after deallocate", true, &[HELD], Power::Deallocated, Some(Kind::PoweredOff), &["az vmss start"]),
            ("uncordoned while it is off", false, &[HELD], Power::Stopped, Some(Kind::PoweredOff), &["az vmss start"]),
            ("all marks gone, still off", false, &[], Power::Stopped, Some(Kind::PoweredOff), &["az vmss start"]),
            ("on its way", true, &[HELD], Power::Starting, Some(Kind::Cordoned), &["uncordon"]),
            ("cordoned by a person", true, &[], Power::Running, None, &[]),
            ("held off", false, &[(HOLD, "false")], Power::Running, None, &[]),
            ("ours", true, &[HELD, (CLAIM, "{}")], Power::Stopped, None, &[]),
        ];
        for (what, cordoned, annotations, power, kind, words) in rows {
            let powers = [Powered { id: instance(3), power }];
            let found = machines(&set("pool1"), &[node(3, cordoned, annotations)], &powers);
            assert_eq!(found.iter().map(|it| it.kind).collect::<Vec<_>>(), Vec::from_iter(kind), "{what}: {found:?}");
            for word in words {
                assert!(found[0].remedy.contains(word), "{what}: no {word:?} in {found:?}");
            }
        }
    }

    #[test]
    fn only_the_pools_own_are_found_and_a_machine_without_a_node_is() {
        let powers = [3, 4].map(|number| Powered { id: instance(number), power: Power::Stopped });
        let held = node(3, true, &[(HOLD, "true")]);
        // The name of the one is a part of the other's.
        assert!(machines(&set("xpool1"), std::slice::from_ref(&held), &[]).is_empty());
        let found = machines(&set("pool1"), &[held], &powers);
        let things: Vec<&str> = found.iter().map(|it| it.thing.as_str()).collect();
        assert_eq!(things, ["instance pool1/4", "node pool1-vmss000003"]);
        assert!(found[0].seen.contains("no node of it"));
    }

    #[test]
    fn an_instance_of_a_flexible_scale_set_is_started_as_the_machine_that_it_is() {
        let id = instance(3).to_string().replace("/virtualMachineScaleSets/pool1", "").replace("/3", "/pool1_3f2a");
        let off = Powered { id: InstanceId::parse(&id).expect("an id"), power: Power::Stopped };
        let held = Node { provider_id: id.to_lowercase(), ..node(3, true, &[(HOLD, "true")]) };
        let found = machines(&set("pool1"), std::slice::from_ref(&held), &[off]);
        assert_eq!((found.len(), found[0].kind), (1, Kind::PoweredOff), "{found:?}");
        assert!(found[0].remedy.starts_with("az vm start -g k8s-euw -n pool1_3f2a && "), "{found:?}");
        assert!(machines(&set("pool1"), &[held], &[]).is_empty(), "nobody says that it belongs to the scale set");
    }

    #[test]
    fn its_names_are_known() {
        let names = Names::of(&set("k8s-agentpool1-12345678-vmss")).expect("names");
        assert_eq!(names.snapshot.name(), "snapshot_k8s-agentpool1-12345678-vmss");
        assert_eq!(names.definition.names(), ["SIG_K8S_EUW", "kamino-k8s-agentpool1-12345678-vmss-prototype"]);
    }

    #[test]
    fn its_snapshot_and_its_definition_are_found_where_they_are_not_ours() {
        let names = Names::of(&set("pool1")).expect("names");
        let mut found = Snapshot {
            id: names.snapshot.clone(),
            provisioning: Provisioning::Succeeded,
            source: None,
            created: "2021-01-14T17:13:16Z".parse().ok(),
            size_gib: 64,
            run: None,
            cluster: None,
        };
        let finding = snapshot(&found).expect("a finding");
        assert_eq!(finding.remedy, "az snapshot delete -g K8S-EUW -n snapshot_pool1");
        assert!(finding.seen.contains("2021-01-14"), "{finding:?}");
        found.run = Some(RunId(uuid::Uuid::from_u128(1)));
        assert!(snapshot(&found).is_none());

        let ours = names.definition.gallery().definition("pool1").expect("a definition");
        let finding = definition(&names.definition, &ours, &["2021.01.14".into()]).expect("a finding");
        assert!(finding.remedy.contains("definition to kamino-pool1-prototype"), "{finding:?}");
        assert!(definition(&names.definition, &names.definition, &[]).is_none(), "taken over already");
    }

    #[test]
    fn a_live_one_is_refused_and_a_suspended_one_is_not() {
        let rival = |kind: &str, live| Rival {
            kind: kind.into(),
            namespace: "default".into(),
            name: "kamino".into(),
            live,
            state: "schedule 42 0 * * *".into(),
        };
        assert!(refusals(&[rival("CronJob", false), rival("Job", false)]).is_empty());
        let refused = refusals(&[rival("CronJob", true), rival("Job", true)]);
        let texts: Vec<String> = refused.iter().map(ToString::to_string).collect();
        assert!(texts[0].contains("CronJob default/kamino is schedule 42 0 * * *"), "{texts:?}");
        assert!(texts[0].contains("\"suspend\":true") && texts[1].contains("kubectl -n default wait"), "{texts:?}");
    }
}
