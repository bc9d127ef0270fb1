//! What only a donor that is taken out of service has to be spared (`capture: stop`).

use std::collections::BTreeMap;

use crate::{cluster::Node, model::NodeName};

/// What is known of the world without the donor.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Absence {
    /// What would keep a node's pods from being evicted right now, by node, as in `web/frontend-0 (budget web/frontend has had no
    /// room)`.
    pub blocked: BTreeMap<NodeName, Vec<String>>,
}

/// The nodes that would be left: all of the cluster's, and of those the pool's that are healthy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Others<'a> {
    pub(super) all: &'a [Node],
    pub(super) healthy_in_pool: usize,
    pub(super) own: Option<&'a NodeName>,
}

/// Why a node that is healthy itself can't be missed.
pub(super) fn needed(node: &Node, absence: &Absence, others: Others<'_>) -> Option<String> {
    if others.own == Some(&node.name) {
        return Some("kamino-wf itself runs on it".into());
    }
    if others.healthy_in_pool < 2 {
        return Some("it is the last healthy node of its pool".into());
    }
    if let Some(pods) = absence.blocked.get(&node.name).filter(|pods| !pods.is_empty()) {
        return Some(format!("its drain would be blocked: {}", pods.join(", ")));
    }
    leaves_nobody(node, others)
        .then(|| format!("in zone {} nobody would be left to start it again", node.zone.as_deref().unwrap_or("none")))
}

/// The volume of our store is in one zone: if our node fails while the donor is off, another one there has to take us.
fn leaves_nobody(node: &Node, others: Others<'_>) -> bool {
    let Some(own) = others.own.and_then(|own| others.all.iter().find(|it| it.name == *own)) else { return false };
    let could = |it: &&Node| it.zone == own.zone && it.ready && !it.unschedulable && !it.control_plane && it.linux;
    own.zone.is_some()
        && node.zone == own.zone
        && !others.all.iter().filter(could).any(|it| it.name != own.name && it.name != node.name)
}

#[cfg(test)]
mod tests {
    use super::{super::rank::tests::node, *};

    fn zoned(number: u32, zone: &str) -> Node {
        Node { zone: Some(zone.into()), ..node(number, 5) }
    }

    fn why(node: &Node, all: &[Node], healthy_in_pool: usize, absence: &Absence) -> Option<String> {
        needed(node, absence, Others { all, healthy_in_pool, own: Some(&all[0].name) })
    }

    #[test]
    fn each_reason_not_to_take_a_node_out_is_said() {
        let all = [zoned(0, "1"), zoned(1, "1"), zoned(2, "2"), zoned(3, "1")];
        let none = Absence::default();
        assert_eq!(why(&all[0], &all, 3, &none).as_deref(), Some("kamino-wf itself runs on it"));
        assert_eq!(why(&all[1], &all, 1, &none).as_deref(), Some("it is the last healthy node of its pool"));
        assert_eq!(why(&all[1], &all, 3, &none), None, "node 3 could take us");
        let blocked = [(all[1].name.clone(), vec!["web/frontend-0 (budget)".to_owned()])].into();
        let blocked = Absence { blocked };
        let said = why(&all[1], &all, 3, &blocked);
        assert_eq!(said.as_deref(), Some("its drain would be blocked: web/frontend-0 (budget)"));
        assert_eq!(why(&all[2], &all, 3, &blocked), None, "another's pods");
    }

    #[test]
    fn a_zone_that_leaves_nobody_is_one_where_no_other_could_take_us() {
        let says = Some("in zone 1 nobody would be left to start it again");
        for third in [
            zoned(3, "2"),
            Node { ready: false, ..zoned(3, "1") },
            Node { unschedulable: true, ..zoned(3, "1") },
            Node { control_plane: true, ..zoned(3, "1") },
        ] {
            let all = [zoned(0, "1"), zoned(1, "1"), zoned(2, "2"), third];
            assert_eq!(why(&all[1], &all, 3, &Absence::default()).as_deref(), says);
            assert_eq!(why(&all[2], &all, 3, &Absence::default()), None, "in another zone");
            let away = needed(&all[1], &Absence::default(), Others { all: &all, healthy_in_pool: 3, own: None });
            assert_eq!(away, None, "we are not in the cluster");
        }
    }
}
