//! Boot ids as they were seen over time: the only proof of a reboot. `Ready` does not turn in a quick one, and kured's mark
//! may stay for ever after one that was not kured's own.
//!
//! One fact of the store a pool, and a fact is small: so each node is a few short hashes, and of a large pool only those
//! nodes are kept that it matters for.

use std::{collections::BTreeMap, fmt::Write as _};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::signal::KURED_IN_PROGRESS;
use crate::{
    cluster::Node,
    model::{InstanceId, Members, ScaleSetId},
};

/// Nodes of a pool that are remembered: with 56 bytes each they fit into a fact of 4 KiB.
const NODES_MAX: usize = 70;

/// What is remembered of a pool's nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Boots {
    /// When they were seen last, in seconds since 1970.
    at: i64,
    /// Each by a hash of the Node's uid.
    nodes: BTreeMap<String, Seen>,
}

/// What is remembered of a node. Stored as one string, which is what keeps it small.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Seen {
    boot: String,
    /// When this boot came, at the latest, in seconds since 1970.
    since: i64,
    /// Another was seen before it, so it came by a reboot.
    rebooted: bool,
    /// kured's mark that a reboot is in progress, and the boot in which that very mark was first seen.
    mark: Option<(String, String)>,
}

impl Boots {
    /// Under which name they are remembered.
    #[must_use]
    pub fn key(scale_set: &ScaleSetId) -> String {
        format!("boots/{}-{}", scale_set.name().to_ascii_lowercase(), hash(&scale_set.key()))
    }

    /// What is remembered of a scale set's nodes, of all that is remembered. What can't be read counts as nothing.
    #[must_use]
    pub fn recalled(memory: &BTreeMap<String, Value>, scale_set: &ScaleSetId) -> Self {
        let fact = memory.get(&Self::key(scale_set));
        fact.and_then(|fact| serde_json::from_value(fact.clone()).ok()).unwrap_or_default()
    }

    /// What is known after the cluster's nodes were seen, of those of a scale set.
    #[must_use]
    pub fn of(&self, members: &Members, nodes: &[Node], now: Timestamp) -> Self {
        self.after(nodes.iter().filter(|node| members.instance(&node.provider_id).is_some()), now)
    }

    /// The same where Azure was not asked who belongs to the scale set: of a Flexible one only those nodes are told that are
    /// known already, and none of them is forgotten.
    #[must_use]
    pub fn without_azure(&self, scale_set: &ScaleSetId, nodes: &[Node], now: Timestamp) -> Self {
        let ours = |node: &&Node| match InstanceId::parse(&node.provider_id) {
            Ok(InstanceId::Uniform(id)) => id.scale_set() == *scale_set,
            Ok(InstanceId::Flexible(_)) => self.nodes.contains_key(&hash(&node.uid)),
            Err(_) => false,
        };
        self.after(nodes.iter().filter(ours), now)
    }

    /// Nothing was seen yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// What is known after the pool's nodes were seen at `now`. Nodes that are gone are forgotten.
    #[must_use]
    pub fn after<'a>(&self, nodes: impl IntoIterator<Item = &'a Node>, now: Timestamp) -> Self {
        let mut all: Vec<(String, Seen)> = nodes
            .into_iter()
            .map(|node| {
                let id = hash(&node.uid);
                let seen = self.look(self.nodes.get(&id), node, now);
                (id, seen)
            })
            .collect();
        // What would be lost by forgetting it: first the marks, then the newest reboots.
        all.sort_by_key(|(id, seen)| (seen.mark.is_none(), !seen.rebooted, -seen.since, id.clone()));
        all.truncate(NODES_MAX);
        Self { at: now.as_second(), nodes: all.into_iter().collect() }
    }

    /// When the node had rebooted at the latest, if that was seen.
    #[must_use]
    pub fn rebooted(&self, node: &Node) -> Option<Timestamp> {
        let seen = self.nodes.get(&hash(&node.uid))?;
        (seen.rebooted && seen.boot == hash(&node.boot_id)).then(|| Timestamp::from_second(seen.since).ok())?
    }

    /// kured's mark was there already in an earlier boot: the reboot that it speaks of has been.
    #[must_use]
    pub fn outlived(&self, node: &Node, mark: &str) -> bool {
        let seen = self.nodes.get(&hash(&node.uid)).and_then(|seen| seen.mark.as_ref());
        seen.is_some_and(|(known, boot)| *known == hash(mark) && *boot != hash(&node.boot_id))
    }

    fn look(&self, before: Option<&Seen>, node: &Node, now: Timestamp) -> Seen {
        let boot = hash(&node.boot_id);
        let (since, rebooted) = match before {
            Some(seen) if seen.boot == boot => (seen.since, seen.rebooted),
            Some(_) => (self.came(node, now), true),
            None => (now.as_second(), false),
        };
        let mark = node.annotations.get(KURED_IN_PROGRESS).map(|value| {
            let mark = hash(value);
            match before.and_then(|seen| seen.mark.clone()) {
                Some((known, first)) if known == mark => (mark, first),
                Some(_) | None => (mark, boot.clone()),
            }
        });
        Seen { boot, since, rebooted, mark }
    }

    /// When a new boot came: when the node turned Ready, if it has done so since it was seen last; otherwise nobody knows
    /// more than that it has by now.
    fn came(&self, node: &Node, now: Timestamp) -> i64 {
        let turned = node.ready_since.map(Timestamp::as_second).filter(|at| *at >= self.at);
        turned.unwrap_or_else(|| now.as_second())
    }
}

/// Eight hex digits: enough to tell seventy nodes apart, and to see a boot id change.
fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(4).fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

impl From<Seen> for String {
    fn from(seen: Seen) -> Self {
        let Seen { boot, since, rebooted, mark } = seen;
        let mark = mark.map_or_else(Self::new, |(mark, first)| format!(" {mark} {first}"));
        format!("{boot} {since} {}{mark}", u8::from(rebooted))
    }
}

impl TryFrom<String> for Seen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bad = || format!("{text:?} is nothing that is remembered of a node");
        let words: Vec<&str> = text.split(' ').collect();
        let mark = match words.get(3..) {
            Some([]) => None,
            Some([mark, first]) => Some(((*mark).to_owned(), (*first).to_owned())),
            Some(_) | None => return Err(bad()),
        };
        Ok(Self {
            boot: words[0].to_owned(),
            since: words[1].parse().map_err(|_| bad())?,
            rebooted: words[2] == "1",
            mark,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::rank::tests::node, *};

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(1_795_500_000 + hour * 3600).expect("a time")
    }

    fn booted(id: &str) -> Node {
        Node { uid: "u".into(), boot_id: id.into(), ..node(0, 500) }
    }

    fn marked(id: &str, mark: &str) -> Node {
        Node { annotations: [(KURED_IN_PROGRESS.to_owned(), mark.to_owned())].into(), ..booted(id) }
    }

    #[test]
    fn a_reboot_is_a_boot_id_that_was_another_before() {
        let first = Boots::default().after([&booted("a")], at(0));
        assert_eq!(first.rebooted(&booted("a")), None, "nobody saw it come");
        let second = first.after([&booted("a")], at(1)).after([&booted("b")], at(2)).after([&booted("b")], at(3));
        assert_eq!(second.rebooted(&booted("b")), Some(at(2)));
        assert_eq!(second.rebooted(&booted("c")), None, "that one was not looked at yet");
        assert_eq!(second.rebooted(&Node { uid: "another".into(), ..booted("b") }), None);
        // It turned Ready between the two looks: that was when.
        let turned = Node { ready_since: Some(at(1)), ..booted("b") };
        assert_eq!(first.after([&turned], at(2)).rebooted(&turned), Some(at(1)));
    }

    #[test]
    fn kureds_mark_sticks_when_it_is_older_than_the_boot() {
        let boots = Boots::default().after([&marked("a", "T1")], at(0));
        assert!(!boots.outlived(&marked("a", "T1"), "T1"));
        let later = boots.after([&marked("b", "T1")], at(1));
        assert!(later.outlived(&marked("b", "T1"), "T1"), "the same mark in the next boot");
        // kured sees the need for another reboot, and writes it anew.
        let anew = later.after([&marked("b", "T2")], at(2));
        assert!(!anew.outlived(&marked("b", "T2"), "T2"));
        assert!(anew.after([&marked("c", "T2")], at(3)).outlived(&marked("c", "T2"), "T2"));
        // It was taken away in between: what comes then is a new one, even with the same value.
        let gone = boots.after([&booted("b")], at(1)).after([&marked("b", "T1")], at(2));
        assert!(!gone.outlived(&marked("b", "T1"), "T1"));
    }

    /// Between runs Azure is not asked who belongs to a Flexible scale set.
    #[test]
    fn of_a_flexible_scale_set_those_that_are_known_are_looked_at_again_and_none_is_forgotten() {
        let group = "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/g/providers/Microsoft.Compute";
        let set = ScaleSetId::parse(&format!("{group}/virtualMachineScaleSets/pool1")).expect("an id");
        let machine = |uid: &str, boot: &str| Node {
            uid: uid.into(),
            provider_id: format!("{group}/virtualMachines/{uid}"),
            ..booted(boot)
        };
        let members = Members::of(&set, InstanceId::parse(&machine("m", "").provider_id));
        let nodes = |boot: &str| [machine("m", boot), machine("another-pool", boot), booted(boot)];
        let known = Boots::default().of(&members, &nodes("a"), at(0));
        assert_eq!(known.nodes.len(), 2, "one by its own id, and one that is listed");
        let later = known.without_azure(&set, &nodes("b")[..2], at(1));
        assert_eq!(later.rebooted(&machine("m", "b")), Some(at(1)));
        assert_eq!(later.nodes.len(), 1, "{later:?}");
    }

    #[test]
    fn a_pool_of_a_thousand_nodes_fits_into_a_fact_and_marks_are_kept_first() {
        let of = |number: u32| Node {
            uid: format!("uid-{number}"),
            annotations: if number.is_multiple_of(50) { marked("", "T").annotations } else { booted("").annotations },
            ..booted(&format!("boot-{number}"))
        };
        let nodes: Vec<Node> = (0..1000).map(of).collect();
        let boots = Boots::default().after(&nodes, at(0));
        let text = serde_json::to_string(&boots).expect("JSON");
        assert!(text.len() <= 4096, "{} bytes", text.len());
        let changed = |number: u32| Node { boot_id: "later".into(), ..of(number) };
        assert!((0..1000).step_by(50).all(|number| boots.outlived(&changed(number), "T")), "{text}");
        let all_marked: Vec<Node> =
            (0..1000).map(|number| Node { uid: format!("{number}"), ..marked("a", "T") }).collect();
        let text = serde_json::to_string(&Boots::default().after(&all_marked, at(0))).expect("JSON");
        assert!(text.len() <= 4096, "{} bytes", text.len());
        assert_eq!(serde_json::from_str::<Boots>(&text).expect("it reads"), Boots::default().after(&all_marked, at(0)));
    }

    #[test]
    fn what_is_no_memory_of_ours_is_an_error() {
        for text in ["", "x y z", "x 1 0 half"] {
            let text = format!(r#"{{"at":1,"nodes":{{"a":"{text}"}}}}"#);
            assert!(serde_json::from_str::<Boots>(&text).is_err(), "{text}");
        }
    }
}
