//! Where new nodes come from: a scale set whose capacity is more than its instances makes some, and so does an autoscaler. Each is
//! made from the newest published version, as Azure does it, and is as good as that is.

use jiff::{SignedDuration, Timestamp};

use super::world::World;
use crate::{
    cloud::{ImageRef, Instance, Provisioning, ScaleSet, azure::scale_set_from_json},
    cluster::Node,
    model::{InstanceId, NodeName, ScaleSetId, VersionId},
};

/// What comes of a machine that was made from a new version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newcomer {
    /// A node as good as its donor.
    Good,
    /// No node at all.
    NeverJoins,
    /// No node at all, and an autoscaler gives up on it.
    GivenUp,
    /// A node that is never Ready.
    NeverReady,
    /// A node that is Ready and falls silent soon.
    FallsSilent,
    /// A node that is short of disk.
    UnderPressure,
    /// A node that takes itself for the donor.
    SameMachineId,
    /// A node on a machine that says it is the donor's.
    SameSystemUuid,
    /// A node with another kubelet.
    OtherKubelet,
}

/// How nodes are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nursery {
    /// What becomes of them.
    pub makes: Newcomer,
    /// An autoscaler makes one so long after a version was published.
    pub autoscaler: Option<SignedDuration>,
    /// Azure says when a machine was made.
    pub dated: bool,
    scale_set: ScaleSetId,
    made: Vec<Newborn>,
    published: usize,
    since: Option<Timestamp>,
}

impl Nursery {
    /// Where a scale set's new nodes come from: as many as it is set to.
    #[must_use]
    pub fn of(scale_set: ScaleSetId, makes: Newcomer) -> Self {
        let (autoscaler, dated) = (None, true);
        Self { makes, autoscaler, dated, scale_set, made: Vec::new(), published: 0, since: None }
    }
}

/// A machine that was made here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Newborn {
    key: String,
    number: usize,
    born: Timestamp,
    /// What the donor's node is like.
    like: Box<Node>,
}

/// A machine's kubelet makes its Node so long after the machine was made.
const JOINS: SignedDuration = SignedDuration::from_secs(60);
/// And is Ready.
const READY: SignedDuration = SignedDuration::from_secs(130);
/// One that falls silent does so.
const SILENT: SignedDuration = SignedDuration::from_secs(200);
/// The cluster autoscaler's `max-node-provision-time`.
const GIVEN_UP: SignedDuration = SignedDuration::from_mins(15);

impl World {
    /// What is born, and how it grows.
    pub(super) fn pass_births(&mut self) {
        let Some(mut nursery) = self.nursery.take() else { return };
        let now = self.now();
        // A version of ours: what was there at the start is not new.
        let ours = self.accepted.iter().filter(|accepted| accepted.verb == "begin_publish").count();
        if ours > nursery.published {
            nursery.published = ours;
            nursery.since = Some(now);
        }
        let grown =
            |nursery: &Nursery| nursery.since.zip(nursery.autoscaler).is_some_and(|(at, after)| at + after <= now);
        if grown(&nursery) {
            nursery.autoscaler = None;
            self.bear(&mut nursery, now);
        }
        while self.wants_more(&nursery) {
            self.bear(&mut nursery, now);
        }
        for newborn in nursery.made.clone() {
            self.grow(&nursery, &newborn, now);
        }
        self.nursery = Some(nursery);
    }

    /// It is set to more than there are; what was taken away is not made again.
    fn wants_more(&self, nursery: &Nursery) -> bool {
        let Some(model) = self.model(&nursery.scale_set) else { return false };
        let made = u64::try_from(nursery.made.len()).unwrap_or(0);
        let settled = model["properties"]["provisioningState"] == "Succeeded";
        settled && model["sku"]["capacity"].as_u64().is_some_and(|set_to| 3 + made < set_to)
    }

    /// The version that a new instance takes.
    fn latest(&self, set: &ScaleSet) -> Option<VersionId> {
        let ImageRef::Definition(definition) = &set.image else { return None };
        let published = self.versions.values().map(|it| &it.value).filter(|it| {
            it.id.definition() == *definition && !it.excluded_from_latest && it.provisioning == Provisioning::Succeeded
        });
        published.max_by_key(|it| it.id.version().ok()).map(|it| it.id.clone())
    }

    /// Makes a machine.
    fn bear(&mut self, nursery: &mut Nursery, now: Timestamp) {
        let set = self.model(&nursery.scale_set).and_then(|model| scale_set_from_json(model).ok());
        let (Some(set), Some(first)) = (set, self.instances.values().next().cloned()) else { return };
        let number = 3 + nursery.made.len();
        let name = match &first.id {
            InstanceId::Uniform(_) => number.to_string(),
            InstanceId::Flexible(_) => format!("{}_3f2a{number:04}", set.id.name()),
        };
        let cut = first.id.as_str().rfind('/').map_or(0, |at| at + 1);
        let like = self.nodes.iter().find(|node| same(&node.provider_id, &first.id)).cloned();
        let (Ok(id), Some(like)) = (InstanceId::parse(&format!("{}{name}", &first.id.as_str()[..cut])), like) else {
            return;
        };
        let image = self.latest(&set).map_or(first.image.clone(), ImageRef::Version);
        self.note(format!("machine {name} is made from {image:?}"));
        let created = nursery.dated.then_some(now);
        let value = Instance { id: id.clone(), vm_id: format!("vm-{number}"), os_disk: None, image, created, ..first };
        self.instances.insert(id.key(), value);
        self.untouchable.insert(id.key());
        nursery.made.push(Newborn { key: id.key(), number, born: now, like: Box::new(like) });
    }

    /// What has become of a machine by now.
    fn grow(&mut self, nursery: &Nursery, newborn: &Newborn, now: Timestamp) {
        let Newborn { key, number, born, like } = newborn;
        let age = now.duration_since(*born);
        if nursery.makes == Newcomer::GivenUp && age >= GIVEN_UP {
            self.instances.remove(key);
        }
        let Some(instance) = self.instances.get(key) else { return };
        if age < JOINS || matches!(nursery.makes, Newcomer::NeverJoins | Newcomer::GivenUp) {
            return;
        }
        let Ok(name) = NodeName::parse(&format!("{}-vmss{number:06}", like.labels["agentpool"])) else { return };
        let id = instance.id.clone();
        if !self.nodes.iter().any(|node| node.name == name) {
            let own = |what: &str| format!("{what}{number:024}");
            let node = Node {
                uid: own("uid-"),
                provider_id: id.to_string(),
                boot_id: own("boot-"),
                machine_id: if nursery.makes == Newcomer::SameMachineId {
                    self.donors(like).0
                } else {
                    own("machine-")
                },
                system_uuid: if nursery.makes == Newcomer::SameSystemUuid {
                    self.donors(like).1
                } else {
                    own("system-")
                },
                kubelet: if nursery.makes == Newcomer::OtherKubelet { "v1.32.0".into() } else { like.kubelet.clone() },
                under_pressure: if nursery.makes == Newcomer::UnderPressure {
                    vec!["DiskPressure".into()]
                } else {
                    Vec::new()
                },
                ready: false,
                ready_since: None,
                created: Some(*born + JOINS),
                name: name.clone(),
                ..(**like).clone()
            };
            self.nodes.push(node);
        }
        let silent = nursery.makes == Newcomer::FallsSilent && age >= SILENT;
        let ready = age >= READY && nursery.makes != Newcomer::NeverReady && !silent;
        if let Some(node) = self.nodes.iter_mut().find(|node| node.name == name && node.ready != ready) {
            node.ready = ready;
            node.ready_since = Some(*born + if silent { SILENT } else { READY });
        }
    }

    /// What the donor is taken for: the node of the pool that was rebooted last.
    fn donors(&self, like: &Node) -> (String, String) {
        let there = self.nodes.iter().filter(|node| node.labels == like.labels && node.ready);
        let last = there.max_by_key(|node| node.ready_since);
        last.map(|node| (node.machine_id.clone(), node.system_uuid.clone())).unwrap_or_default()
    }
}

fn same(provider_id: &str, id: &InstanceId) -> bool {
    InstanceId::parse(provider_id).is_ok_and(|found| found == *id)
}
